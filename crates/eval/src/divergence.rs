//! How far one service's predictions are from another's: Kullback-Leibler divergence and top-1 flips.
//!
//! A service hands out its `k` best tokens, not its whole distribution. The divergence is computed on a coarser one: the tokens
//! that both services list, each by itself, and everything else as one lump. Lumping can only lose difference, so the figure is
//! a lower bound of the true divergence, and it is the sharper the more mass the listed tokens hold; that mass is reported.

use futures_util::{StreamExt, TryStreamExt, future::try_join, stream};
use protocol::{TextOrTokens, TokenLogprob};
use serde::{Deserialize, Serialize};

use crate::{Corpus, Error, Estimate, Progress, Report, Row, Scorer, Windows, bootstrap, score::logprob, wilson};

/// How `other` differs from `base` on a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// The model taken as the truth.
    pub base: String,
    /// The model compared with it.
    pub other: String,
    /// Mean KL(base ‖ other) per token in nats, a lower bound (see the module's note). The interval is over windows.
    pub kl: Estimate,
    /// Share of places where the most likely token differs.
    pub flips: Estimate,
    /// Mean difference of the true token's negative log-probability, other minus base, in nats.
    pub nll_difference: Estimate,
    /// Mean probability that the base gives to the tokens listed by both.
    pub covered: f64,
    /// Alternatives asked for per place.
    pub top: usize,
}

/// What one window adds: sums over its scored places.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    kl: f64,
    nll: f64,
    covered: f64,
    flips: usize,
    places: usize,
}

/// Compares two services on the windows of a text; both must use the tokenizer that `corpus` was read with.
///
/// # Errors
/// Windows that do not fit the text, or either service's own.
pub async fn divergence(
    base: &Scorer<'_>,
    other: &Scorer<'_>,
    corpus: &Corpus,
    shape: Windows,
    top: usize,
    progress: Progress<'_>,
) -> Result<Divergence, Error> {
    let windows = corpus.windows(shape)?;
    let total = windows.len();
    let parts: Vec<Part> = stream::iter(windows.into_iter().enumerate())
        .then(|(i, (tokens, _))| async move {
            let (p, q) = try_join(
                base.score(TextOrTokens::Tokens(tokens.clone()), top, shape.context),
                other.score(TextOrTokens::Tokens(tokens), top, shape.context),
            )
            .await?;
            progress(i + 1, total);
            part(&p, &q, shape.context)
        })
        .try_collect()
        .await?;
    Ok(summary(base.model(), other.model(), &parts, top))
}

fn part(base: &[TokenLogprob], other: &[TokenLogprob], from: usize) -> Result<Part, Error> {
    if base.len() != other.len() {
        return Err(Error::unexpected(
            format!("{} scored tokens from both services", base.len()),
            format!("{}", other.len()),
        ));
    }
    let mut sum = Part::default();
    for (i, (p, q)) in base.iter().zip(other).enumerate().skip(from) {
        let (kl, covered) = coarse_kl(&p.top, &q.top);
        sum.kl += kl;
        sum.covered += covered;
        sum.nll += logprob(p, i)? - logprob(q, i)?;
        sum.flips += usize::from(p.top.first().map(|t| t.0) != q.top.first().map(|t| t.0));
        sum.places += 1;
    }
    Ok(sum)
}

/// KL between the coarse distributions, and the mass of the tokens listed by both.
fn coarse_kl(p: &[(u32, Vec<u8>, f32)], q: &[(u32, Vec<u8>, f32)]) -> (f64, f64) {
    let (mut kl, mut p_sum, mut q_sum) = (0.0, 0.0, 0.0);
    for (id, _, lp) in p {
        if let Some((_, _, lq)) = q.iter().find(|t| t.0 == *id) {
            let (lp, lq) = (f64::from(*lp), f64::from(*lq));
            kl += lp.exp() * (lp - lq);
            p_sum += lp.exp();
            q_sum += lq.exp();
        }
    }
    // The rest cannot be smaller than what rounding leaves of f32 probabilities.
    let (p_rest, q_rest) = ((1.0 - p_sum).max(0.0), (1.0 - q_sum).max(1e-7));
    if p_rest > 1e-7 {
        kl += p_rest * (p_rest / q_rest).ln();
    }
    (kl.max(0.0), p_sum)
}

fn summary(base: String, other: String, parts: &[Part], top: usize) -> Divergence {
    let mean = |sum: fn(&Part) -> f64| bootstrap(&parts.iter().map(|p| (sum(p), p.places as f64)).collect::<Vec<_>>());
    let (flips, places) = parts.iter().fold((0, 0), |s, p| (s.0 + p.flips, s.1 + p.places));
    Divergence {
        base,
        other,
        kl: mean(|p| p.kl),
        flips: wilson(flips, places),
        nll_difference: mean(|p| p.nll),
        covered: parts.iter().map(|p| p.covered).sum::<f64>() / places as f64,
        top,
    }
}

impl Divergence {
    /// As a table.
    #[must_use]
    pub fn report(&self) -> Report {
        let rows = vec![
            Row::of("KL(base ‖ other), lower bound", self.kl, "nat/token"),
            Row::of("top-1 flips", self.flips.map(|v| v * 100.0), "%"),
            Row::of("NLL difference", self.nll_difference, "nat/token"),
        ];
        Report::new(format!("{} against {}", self.other, self.base), rows).note(format!(
            "on the tokens both list among their best {} ({:.2} % of the base's mass) and the rest as one; n counts windows, for flips places",
            self.top,
            self.covered * 100.0
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top(of: &[(u32, f64)]) -> Vec<(u32, Vec<u8>, f32)> {
        of.iter().map(|&(id, p)| (id, Vec::new(), p.ln() as f32)).collect()
    }

    #[test]
    fn coarse_kl_by_hand() {
        let check = |p: &[(u32, f64)], q: &[(u32, f64)], kl: f64, covered: f64| {
            let (found, mass) = coarse_kl(&top(p), &top(q));
            assert!((found - kl).abs() < 1e-5 && (mass - covered).abs() < 1e-6, "{found} {mass}, not {kl} {covered}");
        };
        check(&[(1, 0.5), (2, 0.5)], &[(1, 0.5), (2, 0.5)], 0.0, 1.0);
        check(&[(1, 0.5), (2, 0.5)], &[(2, 0.75), (1, 0.25)], 0.5 * 2f64.ln() + 0.5 * (2.0f64 / 3.0).ln(), 1.0);
        // Token 2 is listed by one only: it joins the rest, 0.5 against 0.2.
        check(
            &[(1, 0.5), (2, 0.25)],
            &[(1, 0.8), (3, 0.1)],
            0.5 * (0.5f64 / 0.8).ln() + 0.5 * (0.5f64 / 0.2).ln(),
            0.5,
        );
    }

    #[test]
    fn a_window_by_hand() {
        let place = |lp: f64, best: u32| TokenLogprob {
            id: 1,
            bytes: Vec::new(),
            logprob: Some(lp.ln() as f32),
            top: top(&[(best, 0.9)]),
        };
        let sum =
            part(&[place(0.1, 5), place(0.5, 1), place(0.25, 2)], &[place(0.1, 6), place(0.25, 1), place(0.25, 3)], 1)
                .unwrap();
        assert_eq!((sum.places, sum.flips), (2, 1));
        assert!((sum.nll - 2f64.ln()).abs() < 1e-6);
        assert!(part(&[place(0.1, 5)], &[], 0).is_err());
    }
}
