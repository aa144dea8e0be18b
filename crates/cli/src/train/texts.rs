//! Texts that a module of experts is made from and measured by: documents of one kind, and documents behind one of another kind, as a conversation
//! that goes from one domain to the next has them.

use engine::Engine;
use eval::Scorer;
use futures_util::{StreamExt, TryStreamExt, stream};
use model::Router;
use protocol::TextOrTokens;
use serde::Serialize;
use train::{Sample, States};

use crate::screen;

/// Texts that are scored at the same time.
const CONCURRENCY: usize = 8;

/// A document, maybe behind another one. Kinds are numbered as a router's choices are: 0 is general text, 1 what the first expert is for.
#[derive(Debug, Clone)]
pub(super) struct Text {
    before: Option<(usize, Vec<u32>)>,
    kind: usize,
    own: Sample,
}

impl Text {
    /// Documents of each kind as long as they have so many tokens together, every other one behind a document of another kind where both fit.
    pub(super) fn learned(kinds: &[Vec<Sample>], tokens: usize, context: usize) -> Vec<Self> {
        let mut texts = Vec::new();
        for (kind, documents) in kinds.iter().enumerate() {
            let mut left = tokens;
            for (at, own) in documents.iter().enumerate() {
                // Every kind has its first document, however long.
                if at > 0 && own.tokens.len() > left {
                    continue;
                }
                left = left.saturating_sub(own.tokens.len());
                let alone = Self { before: None, kind, own: own.clone() };
                let behind = if at % 2 == 1 { alone.behind(kinds, at / 2, context) } else { None };
                texts.push(behind.unwrap_or(alone));
            }
        }
        texts
    }

    /// Behind a document of another kind, each time another, if they fit together.
    fn behind(&self, kinds: &[Vec<Sample>], at: usize, context: usize) -> Option<Self> {
        let kind = (self.kind + 1 + at % (kinds.len() - 1)) % kinds.len();
        let before = kinds[kind].get(at % kinds[kind].len().max(1))?;
        let fits = before.tokens.len() + self.own.tokens.len() <= context;
        fits.then(|| Self { before: Some((kind, before.tokens.clone())), ..self.clone() })
    }

    /// Its documents, each with its kind.
    pub(super) fn parts(&self) -> Vec<(usize, &[u32])> {
        let before = self.before.iter().map(|(kind, tokens)| (*kind, tokens.as_slice()));
        before.chain([(self.kind, self.own.tokens.as_slice())]).collect()
    }

    /// Where its own document begins.
    fn first(&self) -> usize {
        self.before.as_ref().map_or(0, |(_, tokens)| tokens.len())
    }

    /// What a model loses on the words that its own document has to be learned for: the sum of weighted nats, and of weights.
    async fn loss(&self, scorer: &Scorer<'_>) -> anyhow::Result<(f64, f64)> {
        let tokens: Vec<u32> = self.parts().into_iter().flat_map(|(_, tokens)| tokens.iter().copied()).collect();
        // Nothing stands before a text's first token.
        let weights = self.own.weights.iter().enumerate().map(|(at, weight)| (self.first() + at, f64::from(*weight)));
        let weights: Vec<(usize, f64)> = weights.filter(|(at, weight)| *at > 0 && *weight > 0.0).collect();
        let from = weights.first().map_or(0, |(at, _)| *at);
        let scores = scorer.score(TextOrTokens::Tokens(tokens), 0, from).await?;
        let loss = |(at, weight): &(usize, f64)| Some(-weight * f64::from(scores.get(*at)?.logprob?));
        Ok((weights.iter().filter_map(loss).sum(), weights.iter().map(|(_, weight)| weight).sum()))
    }
}

/// Held-out texts of one kind, and what becomes of them.
#[derive(Debug, Default, Serialize)]
pub(super) struct Row {
    /// The expert that they are for; `None` of general text.
    of: Option<String>,
    /// They stand behind documents of other kinds.
    behind: bool,
    #[serde(skip)]
    texts: Vec<Text>,
    documents: usize,
    /// Share of their tokens that the base alone takes, and each expert.
    picked: Vec<f64>,
    /// Share of the tokens that learned words are chosen behind which find what they should.
    found: f64,
    loss: Losses,
}

/// In nats a learned token.
#[derive(Debug, Default, Clone, Copy, Serialize)]
struct Losses {
    base: f64,
    /// With the adapter that the texts are for beside all of them; of general text, with the one that harms it most.
    adapter: f64,
    module: f64,
}

impl Row {
    /// Of every kind, alone and behind others.
    pub(super) fn all(names: &[String], kinds: &[Vec<Sample>], documents: usize, context: usize) -> Vec<Self> {
        let row = |kind: usize, behind: bool| {
            let own = kinds[kind].iter().take(documents).enumerate();
            let texts = own.filter_map(|(at, own)| {
                let alone = Text { before: None, kind, own: own.clone() };
                if behind { alone.behind(kinds, at, context) } else { Some(alone) }
            });
            let texts: Vec<Text> = texts.collect();
            let of = kind.checked_sub(1).map(|expert| names[expert].clone());
            Self { of, behind, documents: texts.len(), texts, ..Self::default() }
        };
        (0..kinds.len()).flat_map(|kind| [row(kind, false), row(kind, true)]).filter(|row| row.documents > 0).collect()
    }

    /// What a router does to them, by the states that texts give.
    pub(super) fn route(&mut self, router: &Router, states: impl Fn(&[Text]) -> States) {
        let (mut picked, mut found, mut learned) = (vec![0.0; 1 + router.experts()], 0.0, 0.0);
        for text in &self.texts {
            let states = states(std::slice::from_ref(text));
            // A word is chosen behind the token before it.
            let behind = text.own.weights.iter().skip(1).chain([&0.0]).map(|weight| f64::from(*weight));
            for ((state, _), weight) in states.iter().skip(text.first()).zip(behind) {
                let choice = router.pick(state).map_or(0, |expert| 1 + expert);
                picked[choice] += 1.0;
                found += if choice == text.kind { weight } else { 0.0 };
                learned += weight;
            }
        }
        let all: f64 = picked.iter().sum();
        self.picked = picked.iter().map(|picked| picked / all).collect();
        self.found = found / learned;
    }

    /// What models lose on them: the base, the adapter that they are for, the module of these experts.
    pub(super) async fn measure(&mut self, engine: &Engine, module: &str, experts: &[String]) -> anyhow::Result<()> {
        let (base, module) = (self.loss_of(engine, None).await?, self.loss_of(engine, Some(module)).await?);
        let mut adapter = f64::NEG_INFINITY;
        for name in self.of.as_ref().map_or(experts, std::slice::from_ref) {
            adapter = adapter.max(self.loss_of(engine, Some(name)).await?);
        }
        self.loss = Losses { base, adapter, module };
        Ok(())
    }

    async fn loss_of(&self, engine: &Engine, adapter: Option<&str>) -> anyhow::Result<f64> {
        let base = &engine.card().id;
        let scorer = Scorer::new(engine, adapter.map_or_else(|| base.clone(), |adapter| format!("{base}:{adapter}")));
        let losses = stream::iter(&self.texts).map(|text| text.loss(&scorer)).buffered(CONCURRENCY);
        let losses: Vec<(f64, f64)> = losses.try_collect().await?;
        let (loss, weight) = losses.iter().fold((0.0, 0.0), |sum, (loss, weight)| (sum.0 + loss, sum.1 + weight));
        Ok(loss / weight)
    }

    fn cells(&self) -> Vec<String> {
        let of = self.of.as_deref().unwrap_or("general");
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let loss = |loss: f64| format!("{loss:.3}");
        let name =
            [if self.behind { format!("{of}, behind others") } else { of.to_owned() }, self.documents.to_string()];
        let shares = self.picked.iter().chain([&self.found]).copied().map(percent);
        let Losses { base, adapter, module } = self.loss;
        let losses = [base, adapter, module].map(loss);
        name.into_iter().chain(shares).chain(losses).collect()
    }
}

/// The rows as a table.
pub(super) fn table(experts: &[String], rows: &[Row]) -> String {
    let head = ["tokens of", "documents", "base"].into_iter().chain(experts.iter().map(String::as_str));
    let head = head.chain(["found", "loss: base", "an adapter alone", "module"]).map(str::to_owned).collect();
    screen::table(&std::iter::once(head).chain(rows.iter().map(Row::cells)).collect::<Vec<_>>())
}
