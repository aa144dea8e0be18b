//! What a text model thinks a proposal is, as a weight for every slot it could fill.
//!
//! The model never writes a value. Where it can score a prompt it is asked, for every proposal, how likely each slot's title is
//! as the end of the sentence "… is the"; the same question about an empty text is subtracted (contextual calibration, Zhao et al.,
//! arXiv 2102.09690), since a small model likes some words whatever the text says. Where it cannot score but can be held to a
//! schema, it picks from an enumeration of proposals, slot by slot. Where it can do neither, cues decide alone, and of free text
//! the words it quoted ([`super::quotes`]) count as picked.

use std::{ops::Range, sync::Arc};

use futures_util::{StreamExt, TryStreamExt, stream};
use protocol::{
    Chat, Error, Event, Format, Generate, GenerateRequest, Message, ModelCard, Prompt, TextOrTokens, TokenLogprob,
    Usage,
};
use serde_json::{Map, Value, json};

use super::{
    clause,
    propose::Proposal,
    schema::{Example, Facts, Language},
};

/// Questions asked of the model at the same time.
const AT_ONCE: usize = 8;
/// Clauses shown on each side of the proposal's own: enough to understand it, and no text is too long for a small model.
const AROUND: usize = 2;
/// Tokens that an answer under the schema may take.
const ANSWER: usize = 256;

/// How the model is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// It scores the titles of slots.
    Scores,
    /// It picks proposals under a JSON schema.
    Picks,
    /// It only quotes words for slots of free text.
    Quotes,
    /// It is not asked.
    None,
}

impl Method {
    fn of(card: &ModelCard) -> Self {
        match card.capabilities {
            capabilities if capabilities.scoring => Self::Scores,
            capabilities if capabilities.schema => Self::Picks,
            _ => Self::None,
        }
    }
}

/// A model to ask.
#[derive(Debug, Clone)]
pub(crate) struct Judge {
    service: Arc<dyn Generate>,
    pub(super) card: ModelCard,
    tenant: String,
}

/// What it is asked about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matter<'a> {
    pub(crate) text: &'a str,
    pub(crate) language: Language,
    pub(crate) facts: &'a Facts,
    /// Slots of free text that nobody filled.
    pub(crate) free: &'a [usize],
    pub(crate) proposals: &'a [Proposal],
    /// For every proposal, the slots it could fill.
    pub(crate) fits: &'a [Vec<usize>],
}

/// What it said.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Judgement {
    pub(crate) method: Method,
    /// For every proposal and slot, 0 to 1. What was not asked is 0.
    pub(crate) weights: Vec<Vec<f64>>,
    pub(crate) usage: Usage,
}

impl Judgement {
    /// Nobody was asked.
    pub(crate) fn none(matter: &Matter<'_>) -> Self {
        let weights = vec![vec![0.0; matter.facts.slots.len()]; matter.proposals.len()];
        Self { method: Method::None, weights, usage: Usage::default() }
    }
}

impl Judge {
    pub(crate) fn new(service: Arc<dyn Generate>, card: ModelCard, tenant: String) -> Self {
        Self { service, card, tenant }
    }

    pub(crate) fn model(&self) -> &str {
        &self.card.id
    }

    /// Asks about all proposals.
    pub(crate) async fn judge(&self, matter: Matter<'_>) -> Result<Judgement, Error> {
        let mut judgement = Judgement::none(&matter);
        if !matter.free.is_empty() {
            judgement.method = Method::Quotes;
        }
        if matter.fits.iter().all(Vec::is_empty) {
            return Ok(judgement);
        }
        match Method::of(&self.card) {
            Method::Scores => self.scores(matter, &mut judgement).await?,
            Method::Picks => self.picks(matter, &mut judgement).await?,
            Method::Quotes | Method::None => quoted(matter, &mut judgement),
        }
        Ok(judgement)
    }

    async fn scores(&self, matter: Matter<'_>, judgement: &mut Judgement) -> Result<(), Error> {
        judgement.method = Method::Scores;
        let mut asked: Vec<usize> = matter.fits.iter().flatten().copied().collect();
        asked.sort_unstable();
        asked.dedup();
        let blank = self.options(&question(matter, None), matter, &asked, &mut judgement.usage).await?;
        for (place, fits) in matter.fits.iter().enumerate().filter(|(_, fits)| !fits.is_empty()) {
            let question = question(matter, Some(&matter.proposals[place].span));
            let scores = self.options(&question, matter, fits, &mut judgement.usage).await?;
            let base = |slot: &usize| asked.iter().position(|a| a == slot).map_or(0.0, |at| blank[at]);
            // The last option is "something else".
            let calibrated: Vec<f64> =
                fits.iter().map(base).chain([blank[asked.len()]]).zip(scores).map(|(b, s)| s - b).collect();
            for (slot, weight) in fits.iter().zip(softmax(&calibrated)) {
                judgement.weights[place][*slot] = weight;
            }
        }
        Ok(())
    }

    /// The log-probability of every slot's title behind the question, and of "something else" as the last.
    async fn options(
        &self,
        question: &str,
        matter: Matter<'_>,
        slots: &[usize],
        usage: &mut Usage,
    ) -> Result<Vec<f64>, Error> {
        let context = self.score(question.to_owned(), usize::MAX).await?;
        let from = context.0.len().saturating_sub(1);
        let titles = slots
            .iter()
            .map(|slot| ending(matter.language, Some(matter.facts.slots[*slot].title.in_language(matter.language))));
        let endings: Vec<String> = titles.chain([ending(matter.language, None)]).collect();
        let calls: Vec<_> = endings.iter().map(|ending| self.ending(question, ending, from)).collect();
        let scores: Vec<(f64, Usage)> = stream::iter(calls).buffered(AT_ONCE).try_collect().await?;
        for used in scores.iter().map(|(_, used)| used).chain([&context.1]) {
            add(usage, used);
        }
        Ok(scores.into_iter().map(|(score, _)| score).collect())
    }

    /// The score of `ending` behind the question.
    async fn ending(&self, question: &str, ending: &str, from: usize) -> Result<(f64, Usage), Error> {
        let (tokens, usage) = self.score(format!("{question}{ending}"), from).await?;
        Ok((tail(&tokens, ending.len()), usage))
    }

    async fn score(&self, text: String, from: usize) -> Result<(Vec<TokenLogprob>, Usage), Error> {
        let mut request = self.request(Prompt::Raw(TextOrTokens::Text(text)), 0);
        (request.echo, request.logprobs, request.score_from) = (true, Some(0), from);
        let mut events = self.service.generate(request).await?;
        let (mut tokens, mut usage) = (Vec::new(), Usage::default());
        while let Some(event) = events.next().await {
            match event? {
                Event::PromptLogprobs(found) => tokens = found,
                Event::Done(used) => usage = used,
                _ => {}
            }
        }
        Ok((tokens, usage))
    }

    pub(super) fn request(&self, prompt: Prompt, max_tokens: usize) -> GenerateRequest {
        let mut request = GenerateRequest::new(prompt, max_tokens);
        request.model.clone_from(&self.card.id);
        request.tenant.clone_from(&self.tenant);
        request.sampling.temperature = 0.0;
        request
    }

    async fn picks(&self, matter: Matter<'_>, judgement: &mut Judgement) -> Result<(), Error> {
        judgement.method = Method::Picks;
        let mut request = self.request(pick_prompt(matter), ANSWER);
        request.format = Format::JsonSchema(pick_schema(matter));
        let answer = self.answer(request, &mut judgement.usage).await?;
        // An answer that is not what was asked for says nothing: whoever promised a schema may still break it.
        let Ok(picked) = serde_json::from_str::<Map<String, Value>>(&answer) else { return Ok(()) };
        for (slot, known) in matter.facts.slots.iter().enumerate() {
            let place = picked
                .get(&known.name)
                .and_then(Value::as_str)
                .and_then(|id| id.strip_prefix('p')?.parse::<usize>().ok());
            if let Some(place) = place.filter(|place| matter.fits.get(*place).is_some_and(|fits| fits.contains(&slot)))
            {
                judgement.weights[place][slot] = 1.0;
            }
        }
        Ok(())
    }

    /// The text of an answer.
    pub(super) async fn answer(&self, request: GenerateRequest, usage: &mut Usage) -> Result<String, Error> {
        let mut events = self.service.generate(request).await?;
        let mut answer = String::new();
        while let Some(event) = events.next().await {
            match event? {
                Event::Text { text, .. } => answer.push_str(&text),
                Event::Done(used) => add(usage, &used),
                _ => {}
            }
        }
        Ok(answer)
    }
}

/// What the model quoted for a slot counts as its pick.
fn quoted(matter: Matter<'_>, judgement: &mut Judgement) {
    for (place, slot) in
        matter.fits.iter().enumerate().flat_map(|(place, fits)| fits.iter().map(move |slot| (place, *slot)))
    {
        if matter.facts.slots[slot].is_free() {
            judgement.weights[place][slot] = 1.0;
        }
    }
}

/// The decision's examples in one language.
pub(super) fn examples(facts: &Facts, language: Language) -> impl Iterator<Item = &Example> {
    let same = move |example: &&Example| {
        (Language::of_text(&example.text) == Language::Chinese) == (language == Language::Chinese)
    };
    facts.examples.iter().filter(same)
}

/// Examples, the text around the proposal, and the sentence that a slot's title ends. Without a proposal, the same about nothing.
fn question(matter: Matter<'_>, span: Option<&Range<usize>>) -> String {
    let chinese = matter.language == Language::Chinese;
    let mut prompt = String::new();
    for example in examples(matter.facts, matter.language) {
        statement(&mut prompt, chinese, &example.text);
        for (slot, quote) in &example.quotes {
            let title = matter.facts.slot(slot).map(|slot| slot.title.in_language(matter.language));
            begin(&mut prompt, chinese, quote);
            prompt.push_str(&ending(matter.language, title));
        }
        prompt.push('\n');
    }
    match span {
        Some(span) => {
            statement(&mut prompt, chinese, around(matter.text, span));
            begin(&mut prompt, chinese, &matter.text[span.clone()]);
        }
        None => {
            statement(&mut prompt, chinese, if chinese { "无" } else { "N/A" });
            begin(&mut prompt, chinese, if chinese { "无" } else { "N/A" });
        }
    }
    prompt
}

pub(super) fn statement(prompt: &mut String, chinese: bool, text: &str) {
    prompt.push_str(if chinese { "文本：" } else { "Text: " });
    prompt.push_str(text.trim());
    prompt.push('\n');
}

fn begin(prompt: &mut String, chinese: bool, quote: &str) {
    let (open, close) = if chinese { ("“", "”是") } else { ("\"", "\" is the") };
    prompt.push_str(open);
    prompt.push_str(quote.trim());
    prompt.push_str(close);
}

fn ending(language: Language, title: Option<&str>) -> String {
    match language {
        Language::English => format!(" {}.\n", title.map_or("answer to something else".to_owned(), str::to_lowercase)),
        Language::Chinese => format!("{}。\n", title.unwrap_or("其他内容")),
    }
}

/// The clauses around a span.
fn around<'a>(text: &'a str, span: &Range<usize>) -> &'a str {
    let clauses = clause::split(text);
    let home = clause::of(&clauses, span.start);
    let last = clause::of(&clauses, span.end.saturating_sub(1)).max(home);
    &text[clauses[home.saturating_sub(AROUND)].start..clauses[(last + AROUND).min(clauses.len() - 1)].end]
}

/// The score of the last `bytes` bytes.
fn tail(tokens: &[TokenLogprob], bytes: usize) -> f64 {
    let (mut left, mut sum) = (bytes, 0.0);
    for token in tokens.iter().rev() {
        if left == 0 {
            break;
        }
        left = left.saturating_sub(token.bytes.len());
        sum += f64::from(token.logprob.unwrap_or(0.0));
    }
    sum
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

pub(crate) fn add(usage: &mut Usage, used: &Usage) {
    usage.prompt_tokens += used.prompt_tokens;
    usage.cached_tokens += used.cached_tokens;
    usage.completion_tokens += used.completion_tokens;
}

/// Every slot, with the proposals that could fill it.
fn pick_schema(matter: Matter<'_>) -> Value {
    let mut properties = Map::new();
    for (slot, known) in matter.facts.slots.iter().enumerate() {
        let places = matter.fits.iter().enumerate().filter(|(_, fits)| fits.contains(&slot));
        let mut ids: Vec<String> = places.map(|(place, _)| format!("p{place}")).collect();
        if !ids.is_empty() {
            ids.push("absent".to_owned());
            properties.insert(known.name.clone(), json!({"type": "string", "enum": ids}));
        }
    }
    let required: Vec<String> = properties.keys().cloned().collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn pick_prompt(matter: Matter<'_>) -> Prompt {
    let mut content = format!("Text: {}\n\nPieces of the text:\n", matter.text);
    for (place, proposal) in matter.proposals.iter().enumerate().filter(|(place, _)| !matter.fits[*place].is_empty()) {
        content.push_str(&format!("p{place}: \"{}\"\n", &matter.text[proposal.span.clone()]));
    }
    content.push_str("\nSay which piece is which, or absent if none is:\n");
    for slot in &matter.facts.slots {
        content.push_str(&format!("{}: {}\n", slot.name, slot.title.in_language(matter.language)));
    }
    let message = Message { role: "user".to_owned(), content: Some(content), ..Message::default() };
    Prompt::Chat(Chat { messages: vec![message], ..Chat::default() })
}
