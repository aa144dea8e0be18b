//! Writes one chain, line by line, and checks every step before the next one is begun.
//!
//! Under a grammar each line is a request of its own: the prompt, the chain so far as the beginning of the answer, and the
//! grammar of one line. A step that is wrong is written again with other random numbers; the chain only ever holds steps that
//! hold, and is given up if one stays wrong. Where grammars or continuations are not to be had, the whole chain is one free
//! text, read leniently and written again if a step in it is wrong. What could not be read is said to be unverified.

use std::{collections::VecDeque, sync::Arc};

use futures_util::StreamExt;
use protocol::{
    Chain, ChainStep, Check, Effort, Error, Event, FinishReason, Format, Generate, GenerateRequest, ModelCard, Prompt,
    Sampling, SolveRequest, Step, Usage, Verdict,
};
use serde_json::{Value, json};

use super::{
    expression::{Number, compute},
    lines::{self, Answers, Line, Next},
    prompt::prompt,
};
use crate::flow::Stopwatch;

/// Steps after which an answer must come.
const MOST_STEPS: usize = 16;
/// Tokens of one line; a line that needs more is cut, and counts as wrong.
const LINE_TOKENS: usize = 160;
/// Tokens of a chain that is written freely.
const CHAIN_TOKENS: usize = 800;
/// How chains differ from one another, and a step from the one it replaces. The first try of the first chain is greedy.
const TEMPERATURE: f32 = 0.7;
const TOP_P: f32 = 0.95;

/// What every chain of a request has in common.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) service: Arc<dyn Generate>,
    pub(crate) card: ModelCard,
    pub(crate) request: SolveRequest,
}

/// What a chain tells after each line.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Which chain.
    pub(crate) chain: usize,
    /// The line as a step of the way.
    pub(crate) step: Option<Step>,
    /// What it took.
    pub(crate) usage: Usage,
    /// The chain, once it is done.
    pub(crate) end: Option<Chain>,
}

/// A chain being written.
#[derive(Debug)]
pub(crate) struct Writer {
    task: Arc<Task>,
    index: usize,
    /// The chain as the model sees it.
    text: String,
    chain: Chain,
    values: Vec<Option<Number>>,
    /// Sum and count of the log-probabilities of what stands in the chain.
    score: (f64, usize),
    /// What the line being written took so far.
    usage: Usage,
    /// Requests sent, so that no two draw the same random numbers.
    asked: u64,
    /// Progress that waits to be told.
    told: VecDeque<Progress>,
    done: bool,
}

/// What a request brought.
struct Written {
    text: String,
    complete: bool,
    score: (f64, usize),
}

impl Task {
    fn effort(&self) -> Effort {
        self.request.effort
    }

    /// Lines can be asked for one by one.
    fn by_line(&self) -> bool {
        self.card.capabilities.grammar && (self.card.capabilities.prefill || !self.card.chat)
    }

    /// Scores matter only where there is a vote.
    fn scored(&self) -> bool {
        self.card.capabilities.logprobs && self.effort().chains > 1
    }
}

impl Writer {
    pub(crate) fn new(task: Arc<Task>, index: usize) -> Self {
        let (chain, told) = (Chain { weight: 1.0, ..Chain::default() }, VecDeque::new());
        let (text, values) = (String::new(), Vec::new());
        let usage = Usage::default();
        Self { task, index, text, chain, values, score: (0.0, 0), usage, asked: 0, told, done: false }
    }

    /// The next line. `None` when the chain is done.
    pub(crate) async fn next(&mut self) -> Result<Option<Progress>, Error> {
        if let Some(progress) = self.told.pop_front() {
            return Ok(Some(progress));
        }
        if self.done {
            return Ok(None);
        }
        let watch = Stopwatch::start();
        if !self.task.by_line() {
            self.whole(watch).await?;
        } else if self.text.is_empty() {
            self.unknown(watch).await?;
        } else {
            self.line(watch).await?;
        }
        Ok(self.told.pop_front())
    }

    async fn unknown(&mut self, watch: Stopwatch) -> Result<(), Error> {
        self.text.push_str(lines::UNKNOWN_WORD);
        let written = self.ask(Format::Lark(lines::UNKNOWN.into()), LINE_TOKENS, 0).await?;
        // Words that were cut are words; only their line must end.
        self.text.push_str(written.text.trim_end());
        self.text.push('\n');
        self.count(&written);
        let unknown = written.text.trim().to_owned();
        self.chain.unknowns.push(unknown.clone());
        self.tell(watch, "unknown", json!(unknown), None, Value::Null);
        Ok(())
    }

    /// A step or the answer.
    async fn line(&mut self, watch: Stopwatch) -> Result<(), Error> {
        let effort = self.task.effort();
        let format = Format::Lark(self.grammar());
        for attempt in 0..=effort.retries {
            let written = self.ask(format.clone(), LINE_TOKENS, attempt).await?;
            let line = if written.complete { Line::parse(&written.text) } else { None };
            let judged = match line {
                Some(Line::Answer(answer)) => {
                    self.count(&written);
                    self.answer(watch, &answer);
                    return Ok(());
                }
                Some(Line::Step(step)) => judge(ChainStep { retries: attempt, ..step }, effort.check, &self.values),
                None => continue,
            };
            if judged.holds || attempt == effort.retries {
                self.count(&written);
                self.step(watch, judged);
                return Ok(());
            }
        }
        self.give_up();
        Ok(())
    }

    fn grammar(&self) -> String {
        let check = self.task.effort().check;
        let known: Vec<Number> = self.values.iter().flatten().cloned().collect();
        let answer = match (self.values.is_empty(), check) {
            (true, _) => Answers::None,
            (false, Check::Off) => Answers::Any,
            (false, _) => Answers::Among(&known),
        };
        let step = self.values.len() < MOST_STEPS;
        lines::grammar(Next { step, value: check != Check::Compute, answer })
    }

    /// Takes a step into the chain, or gives the chain up because of it.
    fn step(&mut self, watch: Stopwatch, judged: Judged) {
        let Judged { step, value, holds, note } = judged;
        self.text.push_str(&format!("step: {} | {} = {}\n", step.text, step.expression, step.claimed));
        let inputs = json!({"expression": step.expression, "retries": step.retries});
        self.tell(watch, &step.text, json!(step.claimed), note, inputs);
        self.values.push(value);
        self.chain.steps.push(step);
        if !holds {
            self.give_up();
        }
    }

    fn answer(&mut self, watch: Stopwatch, answer: &str) {
        self.chain.verdict = self.verdict(answer);
        let note = matches!(self.chain.verdict, Verdict::Verified).then(|| "the value of a step".to_owned());
        self.tell(watch, "answer", json!(answer), note, Value::Null);
        self.chain.answer = Number::parse(answer).map(|answer| answer.to_string());
        self.end();
    }

    fn verdict(&self, answer: &str) -> Verdict {
        let answer = Number::parse(answer);
        let steps = &self.chain.steps;
        let computed = !steps.is_empty() && steps.iter().all(|step| step.computed.is_some());
        let known = answer.is_some() && self.values.contains(&answer);
        if computed && known { Verdict::Verified } else { Verdict::Unverified }
    }

    /// The whole chain as one text.
    async fn whole(&mut self, watch: Stopwatch) -> Result<(), Error> {
        let effort = self.task.effort();
        for attempt in 0..=effort.retries {
            let written = self.ask(Format::Text, CHAIN_TOKENS, attempt).await?;
            let found = lines::read(&written.text);
            self.values.clear();
            let mut judged = Vec::new();
            for step in &found.steps {
                // Nobody can put values into a text that came whole, so they are checked.
                let check = if effort.check == Check::Off { Check::Off } else { Check::Resample };
                let step = judge_free(ChainStep { retries: attempt, ..step.clone() }, check, &self.values);
                self.values.push(step.value.clone());
                judged.push(step);
            }
            let holds = found.answer.is_some() && judged.iter().all(|step| step.holds);
            if holds || attempt == effort.retries {
                self.count(&written);
                self.chain.unknowns = found.unknowns;
                self.tell_whole(watch, judged, found.answer);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Tells a chain that came whole, step by step up to the first that is wrong.
    fn tell_whole(&mut self, watch: Stopwatch, judged: Vec<Judged>, answer: Option<String>) {
        self.values.clear();
        for step in judged {
            self.step(watch, step);
            if self.done {
                return;
            }
        }
        match answer {
            Some(answer) => self.answer(watch, &answer),
            None => self.give_up(),
        }
    }

    fn give_up(&mut self) {
        self.chain.verdict = Verdict::Failed;
        self.end();
    }

    fn end(&mut self) {
        self.done = true;
        if self.task.scored() && self.score.1 > 0 {
            self.chain.weight = (self.score.0 / self.score.1 as f64).exp();
        }
        let end = Some(std::mem::take(&mut self.chain));
        self.push(None, end);
    }

    /// What is kept of the text counts towards the weight.
    fn count(&mut self, written: &Written) {
        self.score.0 += written.score.0;
        self.score.1 += written.score.1;
    }

    fn tell(&mut self, watch: Stopwatch, action: &str, result: Value, rule: Option<String>, inputs: Value) {
        let step = Step {
            step: 0,
            action: action.to_owned(),
            result,
            rule,
            inputs,
            duration_us: watch.micros(),
            node: Some((self.index + 1).to_string()),
        };
        self.push(Some(step), None);
    }

    fn push(&mut self, step: Option<Step>, end: Option<Chain>) {
        self.told.push_back(Progress { chain: self.index, step, usage: std::mem::take(&mut self.usage), end });
    }

    async fn ask(&mut self, format: Format, max_tokens: usize, attempt: usize) -> Result<Written, Error> {
        let request = self.request(format, max_tokens, attempt);
        self.asked += 1;
        let mut events = self.task.service.generate(request).await?;
        let mut written = Written { text: String::new(), complete: false, score: (0.0, 0) };
        while let Some(event) = events.next().await {
            match event? {
                Event::Text { text, logprobs, .. } => {
                    written.text.push_str(&text);
                    let scores = logprobs.iter().filter_map(|token| token.logprob);
                    scores.for_each(|score| written.score = (written.score.0 + f64::from(score), written.score.1 + 1));
                }
                Event::Finished { reason, .. } => written.complete = reason == FinishReason::Stop,
                Event::Done(usage) => {
                    self.usage.prompt_tokens += usage.prompt_tokens;
                    self.usage.cached_tokens += usage.cached_tokens;
                    self.usage.completion_tokens += usage.completion_tokens;
                    return Ok(written);
                }
                _ => {}
            }
        }
        Err(Error::internal("The model's answer ended early; try again."))
    }

    fn request(&self, format: Format, max_tokens: usize, attempt: usize) -> GenerateRequest {
        let asked = &self.task.request;
        let prompt: Prompt = prompt(&asked.problem, &self.text, self.task.card.chat);
        let mut request = GenerateRequest::new(prompt, max_tokens);
        request.id = format!("{}-{}-{}", asked.id, self.index + 1, self.asked + 1);
        request.model.clone_from(&asked.model);
        request.tenant.clone_from(&asked.tenant);
        request.format = format;
        request.logprobs = self.task.scored().then_some(0);
        let greedy = self.index == 0 && attempt == 0;
        let temperature = if greedy { 0.0 } else { TEMPERATURE };
        let seed = asked.seed.map(|seed| mix(seed, (self.index as u64) << 32 | self.asked));
        request.sampling = Sampling { temperature, top_p: TOP_P, seed, ..Sampling::default() };
        request
    }
}

/// A step with what checking says about it.
#[derive(Debug)]
struct Judged {
    step: ChainStep,
    /// What later steps may refer to.
    value: Option<Number>,
    holds: bool,
    note: Option<String>,
}

/// Checks a step of a line that a grammar held to its form.
fn judge(mut step: ChainStep, check: Check, earlier: &[Option<Number>]) -> Judged {
    if check == Check::Off {
        let value = Number::parse(&step.claimed);
        return Judged { step, value, holds: true, note: None };
    }
    let value = match compute(&step.expression, earlier) {
        Ok(value) => value,
        Err(flaw) => return Judged { step, value: None, holds: false, note: Some(format!("wrong: {flaw}")) },
    };
    if check == Check::Compute {
        step.claimed = value.to_string();
    }
    step.computed = Some(value.to_string());
    let holds = Number::parse(&step.claimed).as_ref() == Some(&value);
    let note = match (check, holds) {
        (Check::Compute, _) => "computed".to_owned(),
        (_, true) => "computed again: holds".to_owned(),
        (_, false) => format!("wrong: it is {value}"),
    };
    Judged { step, value: Some(value), holds, note: Some(note) }
}

/// The same for a step of free text, which may hold nothing that can be computed: no reason to call it wrong.
fn judge_free(step: ChainStep, check: Check, earlier: &[Option<Number>]) -> Judged {
    if step.expression.is_empty() {
        return Judged { step, value: None, holds: true, note: None };
    }
    judge(step, check, earlier)
}

/// A seed of its own for every request of a chain (SplitMix64's finish).
fn mix(seed: u64, place: u64) -> u64 {
    let mut z = seed ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
