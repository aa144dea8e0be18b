//! The scheduler in virtual time, against a naive engine that knows no batches, no pages and no cache.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use protocol::{FinishReason, Sampling};
use text::{Constraint, Grammars, Matcher, Next};

use super::*;
use crate::{
    fake::{self, FakeExecutor, VOCAB, VirtualClock},
    job::{Answers, Choice, Work},
    sampler::{Mask, Sampler, choice_seed},
};

mod oracle;
mod scheduling;
mod text_side;

/// A core over the fake model.
struct Bench {
    core: Core<FakeExecutor>,
    clock: VirtualClock,
    rows: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl Bench {
    fn new(pages: usize, config: EngineConfig) -> Self {
        Self::over(false, pages, config)
    }

    /// Over a model with or without exits.
    fn over(exits: bool, pages: usize, config: EngineConfig) -> Self {
        let clock = VirtualClock::default();
        let mut executor = FakeExecutor::new(pages, clock.clone());
        executor.exits = exits;
        let rows = Arc::clone(&executor.rows);
        let core = Core::new(executor, fake::tokenizer(), Box::new(clock.clone()), config);
        Self { core, clock, rows }
    }

    /// Steps until nothing is left; returns everything that came out, by request.
    fn finish(&mut self) -> BTreeMap<RequestId, Vec<Result<Output, Error>>> {
        let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for _ in 0..100_000 {
            if self.core.is_idle() {
                break;
            }
            for (id, output) in self.core.step() {
                all.entry(id).or_default().push(output);
            }
        }
        assert!(self.core.is_idle(), "the core makes progress");
        assert_eq!(self.core.stats().kv_used_bytes, 0, "pages are free when nobody runs");
        all
    }

    fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }
}

/// A request for one greedy answer.
fn answers(max_tokens: usize) -> Answers {
    Answers {
        choices: vec![Choice::default()],
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        seed: 7,
        max_tokens,
        stops: Arc::new([]),
        ignore_eos: false,
        logprobs: None,
        echo: None,
        score_from: None,
        report_tokens: false,
        report_work: false,
    }
}

fn job(prompt: Vec<u32>, answers: Answers) -> Job {
    Job { prompt, adaptation: None, tenant: String::new(), deadline: None, work: Work::Answers(Box::new(answers)) }
}

/// Text, reason and usage of a request's answers.
#[derive(Debug, Default, Clone, PartialEq)]
struct Told {
    texts: BTreeMap<usize, String>,
    reasons: BTreeMap<usize, FinishReason>,
    usage: Option<Usage>,
    error: Option<Error>,
}

fn told(outputs: &[Result<Output, Error>]) -> Told {
    let mut told = Told::default();
    for output in outputs {
        assert!(told.usage.is_none() && told.error.is_none(), "nothing comes after the end");
        match output {
            Ok(Output::Event(Event::Text { choice, text, .. })) => {
                told.texts.entry(*choice).or_default().push_str(text)
            }
            Ok(Output::Event(Event::Finished { choice, reason })) => {
                assert!(told.reasons.insert(*choice, *reason).is_none(), "a choice finishes once");
            }
            Ok(Output::Event(Event::Done(usage))) => told.usage = Some(*usage),
            Ok(_) => {}
            Err(error) => told.error = Some(error.clone()),
        }
    }
    told
}

/// A grammar over the fake vocabulary, with forced stretches and free ones.
fn grammar() -> Matcher {
    const REGEX: &str =
        "the (red|green|blue) one is called [a-z]{5,20} and that is all there is to say about [0-9]{2,6}";
    Grammars::new(fake::tokenizer()).compile(&Constraint::Regex(REGEX.into())).unwrap()
}

/// One choice, computed from the whole history for every token.
fn naive(prompt: &[u32], answers: &Answers, choice: usize) -> (String, FinishReason, usize) {
    naive_over(false, prompt, answers, choice)
}

/// The same over a model with or without exits, at which all tokens of a free answer leave.
fn naive_over(exits: bool, prompt: &[u32], answers: &Answers, choice: usize) -> (String, FinishReason, usize) {
    let mut matcher = answers.choices[choice].matcher.is_some().then(grammar);
    let device = kernels::Device::new(1);
    let mut sampler = Sampler::new(&answers.sampling, choice_seed(answers.seed, choice), prompt);
    let leaves = exits && matcher.is_none();
    let mut tokens = prompt.to_vec();
    let mut reason = FinishReason::Length;
    let mut generated = 0;
    while generated < answers.max_tokens {
        let state = fake::state_behind(&tokens, if leaves { prompt.len() } else { tokens.len() });
        let mut logits: Vec<f32> = (0..VOCAB as u32).map(|token| fake::logit(state, token)).collect();
        let token = match matcher.as_mut().map(|matcher| matcher.next().unwrap()) {
            None => sampler.choose(&device, &mut logits, None, tokens.len()),
            Some(Next::Mask(words)) => sampler.choose(&device, &mut logits, Some(&Mask::new(words)), tokens.len()),
            Some(Next::Forced(ids)) => ids[0],
            Some(Next::End) => fake::END,
        };
        if token == fake::END && matcher.as_mut().is_some_and(|matcher| matcher.next() == Ok(Next::End)) {
            reason = FinishReason::Stop;
            break;
        }
        generated += 1;
        if token == fake::END && !answers.ignore_eos {
            reason = FinishReason::Stop;
            break;
        }
        tokens.push(token);
        sampler.note(token);
        matcher.iter_mut().for_each(|matcher| matcher.commit(token).unwrap());
    }
    if matcher.is_some_and(|mut matcher| matcher.next() == Ok(Next::End)) {
        reason = FinishReason::Stop;
    }
    (fake::tokenizer().decode(&tokens[prompt.len()..]), reason, generated)
}
