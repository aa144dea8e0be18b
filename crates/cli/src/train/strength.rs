//! How strongly an adapter is added, decided once it has learned: between the base and what was learned lies a curve of what it gains in its domain
//! and what it loses elsewhere (WiSE-FT, Wortsman et al. 2022), and the best point of it that keeps to the budget and forgets little enough is taken.
//! A short run may end beyond its budget, for the divergence takes some steps to weigh enough; what is served does not.

use std::fmt;

use kernels::Device;
use serde::Serialize;
use train::{Sample, Trainer};

use crate::screen;

/// Strengths that are tried, as shares of the one that learned; the first is the base.
const SHARES: [f32; 6] = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25];
/// How often the gap between the best strength and a stronger one, better but beyond the limits, is halved: the limit may lie anywhere in a quarter.
const HALVINGS: usize = 2;

/// What keeps an adapter weak.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How far it may drift on the text that it was held to, in nats a token.
    pub(super) budget: f64,
    /// By what share the perplexity of general text may rise.
    pub(super) forgetting: f64,
}

/// One strength, and what comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Point {
    pub(super) alpha: f32,
    /// On held-out documents, in nats a token.
    pub(super) domain_loss: f64,
    /// The mean over the kinds of general text that were not replayed.
    pub(super) general_loss: f64,
    /// By how much the perplexity of general text rises over the base's.
    pub(super) forgetting: f64,
    /// How far the model is from the base on the text that it was held to, in nats a token.
    pub(super) drift: f64,
}

impl Point {
    /// It keeps to the limits.
    fn near(&self, limits: Limits) -> bool {
        self.forgetting <= limits.forgetting && self.drift <= limits.budget
    }
}

/// All strengths that were tried, in their order.
#[derive(Debug, Serialize)]
pub(super) struct Curve {
    pub(super) points: Vec<Point>,
    pub(super) chosen: Point,
}

impl Curve {
    /// Tries strengths around `alpha`, and leaves the network at the one that is chosen.
    pub(super) fn measure(
        dev: &Device,
        trainer: &mut Trainer,
        (alpha, limits): (f32, Limits),
        (domain, general): (&[Sample], &[Vec<Sample>]),
    ) -> anyhow::Result<Self> {
        let mut points: Vec<Point> = Vec::new();
        let mut shares = SHARES.map(|share| share * alpha).into_iter();
        while let Some(alpha) = shares.next().or_else(|| between(&points, limits)) {
            trainer.network().set_alpha(alpha);
            let domain_loss = trainer.evaluate(dev, domain)?;
            let kinds: Vec<f64> = general.iter().map(|kind| trainer.evaluate(dev, kind)).collect::<Result<_, _>>()?;
            let general_loss = kinds.iter().sum::<f64>() / kinds.len() as f64;
            let base = points.first().map_or(general_loss, |base| base.general_loss);
            let (forgetting, drift) = ((general_loss - base).exp() - 1.0, trainer.drift(dev));
            points.push(Point { alpha, domain_loss, general_loss, forgetting, drift });
        }
        points.sort_by(|a, b| a.alpha.total_cmp(&b.alpha));
        let chosen = choose(&points[1..], limits).unwrap_or(points[0]);
        trainer.network().set_alpha(chosen.alpha);
        Ok(Self { points, chosen })
    }
}

/// The point that is best in its domain of those that keep to the limits; where none does, the one that drifts least.
fn choose(points: &[Point], limits: Limits) -> Option<Point> {
    let near = points.iter().filter(|point| point.near(limits));
    let best = near.min_by(|a, b| a.domain_loss.total_cmp(&b.domain_loss));
    best.or_else(|| points.iter().min_by(|a, b| a.drift.total_cmp(&b.drift))).copied()
}

/// A strength behind the best that is not beyond the limits, before the next that would be better but is.
fn between(points: &[Point], limits: Limits) -> Option<f32> {
    let chosen = choose(points.get(1..)?, limits).filter(|point| point.near(limits))?;
    let stronger = points.iter().filter(|point| point.alpha > chosen.alpha);
    let next =
        stronger.min_by(|a, b| a.alpha.total_cmp(&b.alpha)).filter(|next| next.domain_loss < chosen.domain_loss)?;
    (points.len() < SHARES.len() + HALVINGS).then_some(f32::midpoint(chosen.alpha, next.alpha))
}

impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["alpha", "held-out loss", "general loss", "forgetting", "drift", ""].map(str::to_owned).to_vec();
        let row = |point: &Point| {
            vec![
                format!("{:.2}", point.alpha),
                format!("{:.4}", point.domain_loss),
                format!("{:.4}", point.general_loss),
                format!("{:+.2} %", 100.0 * point.forgetting),
                format!("{:.4}", point.drift),
                if *point == self.chosen { "chosen".to_owned() } else { String::new() },
            ]
        };
        let rows: Vec<_> = std::iter::once(head).chain(self.points.iter().map(row)).collect();
        f.write_str(&screen::table(&rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { budget: 0.02, forgetting: 0.01 };

    #[test]
    fn the_best_that_forgets_little_is_chosen() {
        let check = |points: &[(f64, f64, f64)], want: Option<usize>| {
            let point = |(alpha, (domain_loss, forgetting, drift)): (usize, &(f64, f64, f64))| Point {
                alpha: alpha as f32,
                domain_loss: *domain_loss,
                general_loss: 0.0,
                forgetting: *forgetting,
                drift: *drift,
            };
            let points: Vec<Point> = points.iter().enumerate().map(point).collect();
            assert_eq!(choose(&points, LIMITS).map(|point| point.alpha as usize), want, "{points:?}");
        };
        check(&[(1.0, 0.001, 0.0), (0.5, 0.01, 0.0), (0.1, 0.011, 0.0)], Some(1));
        check(&[(1.0, -0.01, 0.0), (0.5, 0.0, 0.02), (0.4, 0.0, 0.03)], Some(1));
        check(&[(1.0, 0.3, 0.05), (0.5, 0.2, 0.04)], Some(1));
        check(&[], None);
    }

    #[test]
    fn the_gap_at_the_limit_is_halved() {
        // What a strength forgets grows with its square; losses fall as it grows.
        let point = |alpha: f32, limit: f32| Point {
            alpha,
            domain_loss: (-f64::from(alpha)).exp(),
            general_loss: 0.0,
            forgetting: LIMITS.forgetting * f64::from(alpha / limit).powi(2),
            drift: 0.0,
        };
        let check = |limit: f32, want: &[f32]| {
            let mut points: Vec<Point> = SHARES.iter().map(|share| point(16.0 * share, limit)).collect();
            let found: Vec<f32> = std::iter::from_fn(|| {
                let alpha = between(&points, LIMITS)?;
                points.push(point(alpha, limit));
                Some(alpha)
            })
            .collect();
            assert_eq!(found, want, "{limit}");
        };
        check(9.5, &[10.0, 9.0]);
        check(11.5, &[10.0, 11.0]);
        check(30.0, &[]);
        // Nothing but the base is near: as before, what drifts least.
        check(1.0, &[]);
    }
}
