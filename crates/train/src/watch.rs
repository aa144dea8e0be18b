//! What must not be learned from: losses and gradients that are no numbers, and gradients far longer than those before.

use std::collections::VecDeque;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Gradients whose lengths are remembered.
const REMEMBERED: usize = 64;
/// How many must be, before one can be told to be too long.
const ENOUGH: usize = 8;

/// Why a step was not learned from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trouble {
    /// The loss is no number.
    Loss,
    /// The gradient is none.
    Gradient,
    /// The gradient is so many times as long as the median of the last ones.
    Spike(f64),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loss => write!(f, "the loss is not finite"),
            Self::Gradient => write!(f, "the gradient is not finite"),
            Self::Spike(times) => write!(f, "the gradient is {times:.1} times as long as usual"),
        }
    }
}

/// Lengths of the last gradients that were learned from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Lengths(VecDeque<f64>);

impl Lengths {
    pub(crate) fn push(&mut self, length: f64) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(length);
    }

    /// What is wrong with a step, if anything; `spike` and `clip` as in [`crate::Plan`]. A gradient that is not even cut is short enough, however short
    /// those before were: they are when nearly everything is known.
    pub(crate) fn trouble(&self, loss: f64, length: f64, (spike, clip): (f64, f32)) -> Option<Trouble> {
        if !loss.is_finite() {
            return Some(Trouble::Loss);
        }
        if !length.is_finite() {
            return Some(Trouble::Gradient);
        }
        let times = length / self.median()?;
        (spike > 0.0 && times > spike && length > f64::from(clip)).then_some(Trouble::Spike(times))
    }

    fn median(&self) -> Option<f64> {
        let mut sorted: Vec<f64> = self.0.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).filter(|median| sorted.len() >= ENOUGH && **median > 0.0).copied()
    }

    /// Whether they can have been made by [`Lengths::push`].
    pub(crate) fn sound(&self) -> bool {
        self.0.len() <= REMEMBERED && self.0.iter().all(|length| length.is_finite() && *length >= 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_or_too_long_is_told() {
        let lengths = |n: usize| Lengths((0..n).map(|i| 1.0 + (i % 3) as f64).collect());
        let cases = [
            (0, f64::NAN, 1.0, Some(Trouble::Loss)),
            (0, f64::INFINITY, 1.0, Some(Trouble::Loss)),
            (0, 1.0, f64::NAN, Some(Trouble::Gradient)),
            (7, 1.0, 1e9, None),
            (9, 1.0, 20.0, None),
            (9, 1.0, 21.0, Some(Trouble::Spike(10.5))),
            (64, 1.0, 19.0, None),
        ];
        for (n, loss, length, want) in cases {
            assert_eq!(lengths(n).trouble(loss, length, (10.0, 1.0)), want, "{n} before, loss {loss}, length {length}");
        }
        assert_eq!(lengths(9).trouble(1.0, 1e9, (0.0, 1.0)), None, "0 learns from all");
        assert_eq!(lengths(9).trouble(1.0, 30.0, (10.0, 30.0)), None, "a gradient that is not cut");
    }

    #[test]
    fn old_lengths_are_forgotten() {
        let mut lengths = Lengths::default();
        (0..REMEMBERED).for_each(|_| lengths.push(1.0));
        (0..REMEMBERED).for_each(|_| lengths.push(100.0));
        assert_eq!(lengths.trouble(1.0, 500.0, (10.0, 1.0)), None);
        assert!(lengths.sound());
    }
}
