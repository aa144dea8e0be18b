//! What adapters cost: the same load on a model alone and on its adapters, in turns.

use protocol::Generate;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Spread,
    bench::{Load, serve},
    report::{figure, table},
};

/// Tokens a second over all streams, of several rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Adapted {
    /// Adapters that took turns.
    pub adapters: usize,
    /// Streams at once.
    pub concurrency: usize,
    /// Of the model alone.
    pub alone: Spread,
    /// Of streams that have an adapter each.
    pub adapted: Spread,
    /// The second over the first, round by round.
    pub ratio: Spread,
}

/// Puts `load` on `model` and, in turns, on `adapters`, each stream the next one.
///
/// # Errors
/// As [`serve`].
pub async fn adapters(
    service: &dyn Generate,
    model: &str,
    adapters: &[String],
    load: &Load,
    rounds: usize,
) -> Result<Adapted, Error> {
    let (mut alone, mut adapted, alone_names) = (Vec::new(), Vec::new(), [model.to_owned()]);
    for round in 0..rounds {
        // The streams of every round are other adapters', as those of users would be.
        let first = round * load.requests % adapters.len().max(1);
        let names: Vec<String> = adapters.iter().cycle().skip(first).take(load.requests).cloned().collect();
        let load = Load { seed: load.seed + round as u64, ..load.clone() };
        alone.push(serve(service, &alone_names, &load).await?.tokens_per_second);
        adapted.push(serve(service, &names, &load).await?.tokens_per_second);
    }
    let ratios: Vec<f64> = adapted.iter().zip(&alone).map(|(adapted, alone)| adapted / alone).collect();
    let (alone, adapted, ratio) = (Spread::of(&alone), Spread::of(&adapted), Spread::of(&ratios));
    Ok(Adapted { adapters: adapters.len(), concurrency: load.concurrency, alone, adapted, ratio })
}

impl std::fmt::Display for Adapted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head = ["", "median", "min", "max", "n"].map(str::to_owned);
        let row =
            |name: &str, s: Spread| [name.to_owned(), figure(s.median), figure(s.min), figure(s.max), s.n.to_string()];
        let adapted = format!("one of {} adapters each, tok/s", self.adapters);
        let lines = [head, row("alone, tok/s", self.alone), row(&adapted, self.adapted), row("ratio", self.ratio)];
        writeln!(f, "{} streams at once", self.concurrency)?;
        f.write_str(&table(&lines))
    }
}
