//! How far gradients are scaled on their way back, so that f16 holds them: dynamic loss scaling (Micikevicius et al. 2018, arXiv 1710.03740).
//!
//! The loss is multiplied by a power of two, and what the optimizer takes divided by it, so that nothing but f16's range is felt. As the scale is too large
//! from time to time, by how much is found out: it begins large, is halved whenever a gradient goes beyond f16's range, and doubled after many steps in which
//! none did.

use serde::{Deserialize, Serialize};

/// Where it begins.
const FIRST: f32 = 65_536.0;
/// As far as it goes: a mean over so many tokens has gradients of the size of a sum's then.
const MOST: f32 = 16_777_216.0;
/// Steps in a row that must have been learned from before it is doubled.
const PATIENCE: u32 = 2000;

/// A power of two from 1 on, and how many steps in a row were learned from with it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LossScale {
    times: f32,
    since: u32,
}

impl Default for LossScale {
    fn default() -> Self {
        Self { times: FIRST, since: 0 }
    }
}

impl LossScale {
    pub(crate) fn times(self) -> f32 {
        self.times
    }

    /// A gradient went beyond the range. False if there is nothing to be halved: then the scale is not what is wrong.
    pub(crate) fn halve(&mut self) -> bool {
        let halved = Self { times: self.times / 2.0, since: 0 };
        let there_is = halved.times >= 1.0;
        if there_is {
            *self = halved;
        }
        there_is
    }

    /// A step was learned from.
    pub(crate) fn learned(&mut self) {
        self.since += 1;
        if self.since == PATIENCE {
            *self = Self { times: (2.0 * self.times).min(MOST), since: 0 };
        }
    }

    /// Whether it can have come about.
    pub(crate) fn sound(self) -> bool {
        let power = (0..=24).any(|power| self.times == f32::exp2(power as f32));
        power && self.since < PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_halved_at_once_and_doubled_after_a_while() {
        let mut scale = LossScale::default();
        (1..PATIENCE).for_each(|_| scale.learned());
        assert_eq!(scale.times(), FIRST);
        assert!(scale.halve());
        assert_eq!(scale.times(), FIRST / 2.0);
        (1..PATIENCE).for_each(|_| scale.learned());
        assert_eq!(scale.times(), FIRST / 2.0, "counted anew");
        scale.learned();
        assert_eq!(scale.times(), FIRST);
        assert!((0..16).all(|_| scale.halve()) && scale.sound());
        assert_eq!((scale.halve(), scale.times()), (false, 1.0), "1 is no scale");
        (0..30 * PATIENCE).for_each(|_| scale.learned());
        assert_eq!((scale.times(), scale.sound()), (MOST, true));
    }

    #[test]
    fn a_scale_that_cannot_be_is_known() {
        for (times, since) in
            [(0.0, 0), (0.5, 0), (3.0, 0), (f32::INFINITY, 0), (f32::NAN, 0), (2.0 * MOST, 0), (1.0, PATIENCE)]
        {
            assert!(!LossScale { times, since }.sound(), "{times}, {since}");
        }
    }
}
