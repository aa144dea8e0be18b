//! Finding one fact in a long text: a needle in prose, or one value among many UUID pairs.
//!
//! The fact stands at a chosen depth of a prompt of a chosen length; the answer counts when it holds the value. Values are drawn
//! from a seed, so no two trials share one and nothing can be known beforehand. Raw prompts end in the beginning of the sentence
//! to complete, which base models can do too; chat prompts ask.

use protocol::{Chat, Message, Prompt, TextOrTokens};
use serde::{Deserialize, Serialize};

use crate::{Error, Estimate, Progress, Report, Row, Scorer, stats::Random, wilson};

/// Room for 36 characters of a UUID in any tokenizer, and a few words around it.
const ANSWER_TOKENS: usize = 48;

/// Room for what a chat template writes around a message.
const TEMPLATE_TOKENS: usize = 48;

/// Prose without numbers, in which a number stands out.
const PROSE: [&str; 12] = [
    "The ferry leaves the harbour early, before the fog has lifted from the water.",
    "Nobody in the village remembers who built the old bridge over the stream.",
    "In autumn the orchards smell of apples and wet leaves.",
    "A good carpenter measures twice and talks little.",
    "The library keeps its oldest maps in a room without windows.",
    "Rain is better heard under a tin roof than described in a letter.",
    "The clockmaker's daughter preferred the repair of radios.",
    "Cats sleep in the warmest place a house has to offer.",
    "On market days the square fills with cheese, bread and gossip.",
    "The mountain road is closed whenever the wind turns north.",
    "She painted the door green because the street had too much grey.",
    "Bakers rise when the last guests of the tavern go home.",
];

/// Places a needle may be about.
const PLACES: [&str; 8] = ["Lisbon", "Nairobi", "Oslo", "Lima", "Kyoto", "Tunis", "Quebec", "Hanoi"];

/// What is hidden in what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retrieval {
    /// A seven-digit number in a sentence among prose.
    Needle,
    /// One of many `"key": "value"` lines of UUIDs.
    Uuid,
}

/// Which trials to make.
#[derive(Debug, Clone, PartialEq)]
pub struct RetrievalOptions {
    /// What is hidden in what.
    pub kind: Retrieval,
    /// Prompt lengths in tokens (met to within a line).
    pub lengths: Vec<usize>,
    /// Depths, 0 for the start and 1 for the end.
    pub depths: Vec<f64>,
    /// Trials for each length and depth.
    pub trials: usize,
    /// Ask through the chat template.
    pub chat: bool,
    /// The same seed makes the same prompts.
    pub seed: u64,
}

/// The share found at one length and depth.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Tokens wanted.
    pub length: usize,
    /// Tokens of the longest prompt made, as the service counted them.
    pub prompt_tokens: usize,
    /// Depth of the fact.
    pub depth: f64,
    /// Share found.
    pub found: Estimate,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetrievalResult {
    /// What was hidden in what.
    pub kind: Retrieval,
    /// The model.
    pub model: String,
    /// Over all trials.
    pub found: Estimate,
    /// By length and depth.
    pub cells: Vec<Cell>,
}

/// A prompt whose answer must hold `value`.
#[derive(Debug, Clone, PartialEq)]
struct Trial {
    text: String,
    question: String,
    start: String,
    value: String,
}

/// Makes every trial, one behind the other.
///
/// # Errors
/// A length that the model or the format cannot have, or the service's own.
pub async fn retrieval(
    scorer: &Scorer<'_>,
    options: &RetrievalOptions,
    progress: Progress<'_>,
) -> Result<RetrievalResult, Error> {
    check(scorer, options)?;
    let (fixed, line_tokens) = sizes(scorer, options.kind).await?;
    let total = options.lengths.len() * options.depths.len() * options.trials;
    let (mut random, mut cells, mut done) = (Random::new(options.seed), Vec::new(), 0);
    for &length in &options.lengths {
        let lines = ((length as f64 - fixed) / line_tokens).max(1.0) as usize;
        for &depth in &options.depths {
            let (mut hits, mut prompt_tokens) = (0, 0);
            for _ in 0..options.trials {
                let trial = Trial::draw(options.kind, lines, depth, &mut random);
                let answer = scorer.answer(trial.prompt(options.chat), ANSWER_TOKENS).await?;
                hits += usize::from(answer.text.contains(&trial.value));
                prompt_tokens = prompt_tokens.max(answer.usage.prompt_tokens);
                done += 1;
                progress(done, total);
            }
            cells.push(Cell { length, prompt_tokens, depth, found: wilson(hits, options.trials) });
        }
    }
    Ok(result(options, scorer.model(), cells))
}

fn check(scorer: &Scorer<'_>, options: &RetrievalOptions) -> Result<(), Error> {
    let limit = scorer.context_length();
    if let Some(length) = options.lengths.iter().find(|&&l| l < 4 * ANSWER_TOKENS || l > limit) {
        return Err(Error::Invalid(format!(
            "a length of {length} tokens: this model takes {} to {limit}",
            4 * ANSWER_TOKENS
        )));
    }
    if options.depths.iter().any(|d| !(0.0..=1.0).contains(d)) || options.trials == 0 {
        return Err(Error::Invalid("depths lie between 0 and 1, and there is at least one trial".into()));
    }
    Ok(())
}

/// Tokens of a prompt that holds the fact alone (with room for the template and the answer), and of a line around it.
async fn sizes(scorer: &Scorer<'_>, kind: Retrieval) -> Result<(f64, f64), Error> {
    let mut random = Random::new(0);
    let trial = Trial::draw(kind, 0, 0.0, &mut random);
    let fixed =
        scorer.tokens(&format!("{}\n{}", trial.text, trial.question)).await?.len() + ANSWER_TOKENS + TEMPLATE_TOKENS;
    let lines = 8;
    let text: String = (0..lines).map(|_| line(kind, &mut random)).collect();
    Ok((fixed as f64, scorer.tokens(&text).await?.len() as f64 / f64::from(lines)))
}

fn line(kind: Retrieval, random: &mut Random) -> String {
    match kind {
        Retrieval::Needle => format!("{}\n", PROSE[random.below(PROSE.len() as u64) as usize]),
        Retrieval::Uuid => format!("\"{}\": \"{}\"\n", uuid(random), uuid(random)),
    }
}

fn uuid(random: &mut Random) -> String {
    let (a, b) = (random.next(), random.next());
    format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xfff,
        (b >> 48) & 0xfff,
        b & 0xffff_ffff_ffff
    )
}

impl Trial {
    fn draw(kind: Retrieval, lines: usize, depth: f64, random: &mut Random) -> Self {
        let (fact, question, start, value) = match kind {
            Retrieval::Needle => needle(random),
            Retrieval::Uuid => pair(random),
        };
        let at = (lines as f64 * depth).round() as usize;
        let before: String = (0..at).map(|_| line(kind, random)).collect();
        let after: String = (at..lines).map(|_| line(kind, random)).collect();
        Self { text: format!("{before}{fact}\n{after}"), question, start, value }
    }

    fn prompt(&self, chat: bool) -> Prompt {
        if !chat {
            return Prompt::Raw(TextOrTokens::Text(format!("{}\n{}", self.text, self.start)));
        }
        let content = Some(format!("{}\n{}", self.text, self.question));
        let message = Message { role: "user".into(), content, ..Message::default() };
        Prompt::Chat(Chat { messages: vec![message], ..Chat::default() })
    }
}

/// Fact, question, beginning of the answer, value.
fn needle(random: &mut Random) -> (String, String, String, String) {
    let place = PLACES[random.below(PLACES.len() as u64) as usize];
    let value = (1_000_000 + random.below(9_000_000)).to_string();
    (
        format!("The special number of {place} is {value}."),
        format!("What is the special number of {place}? Answer with the number."),
        format!("The special number of {place} is"),
        value,
    )
}

fn pair(random: &mut Random) -> (String, String, String, String) {
    let (key, value) = (uuid(random), uuid(random));
    (
        format!("\"{key}\": \"{value}\""),
        format!("Which value stands behind the key \"{key}\"? Answer with the value."),
        format!("\"{key}\": \""),
        value,
    )
}

fn result(options: &RetrievalOptions, model: String, cells: Vec<Cell>) -> RetrievalResult {
    let hits: f64 = cells.iter().map(|c| c.found.value * c.found.n as f64).sum();
    let found = wilson(hits.round() as usize, cells.iter().map(|c| c.found.n).sum());
    RetrievalResult { kind: options.kind, model, found, cells }
}

impl RetrievalResult {
    /// As a table.
    #[must_use]
    pub fn report(&self) -> Report {
        let percent = |e: Estimate| e.map(|v| v * 100.0);
        let cells = self
            .cells
            .iter()
            .map(|c| Row::of(format!("{} tokens, depth {:.2}", c.prompt_tokens, c.depth), percent(c.found), "%"));
        let rows = cells.chain([Row::of("all", percent(self.found), "%")]).collect();
        let what = match self.kind {
            Retrieval::Needle => "A number in prose",
            Retrieval::Uuid => "One of many UUID pairs",
        };
        Report::new(format!("{what}, found by {}", self.model), rows)
            .note("n counts trials; the answer must hold the value to the letter")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fact_stands_where_it_should() {
        for kind in [Retrieval::Needle, Retrieval::Uuid] {
            for (depth, at) in [(0.0, 0), (0.5, 10), (1.0, 20)] {
                let trial = Trial::draw(kind, 20, depth, &mut Random::new(3));
                let lines: Vec<&str> = trial.text.lines().collect();
                assert_eq!(
                    (lines.len(), lines.iter().position(|l| l.contains(&trial.value))),
                    (21, Some(at)),
                    "{kind:?} {depth}"
                );
                assert!(lines[at].starts_with(&trial.start));
                assert!(!trial.question.contains(&trial.value));
            }
        }
    }

    #[test]
    fn a_seed_makes_the_same_prompts() {
        let draw = |seed| Trial::draw(Retrieval::Uuid, 5, 0.5, &mut Random::new(seed));
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_eq!(uuid(&mut Random::new(9)).len(), 36);
    }
}
