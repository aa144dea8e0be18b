//! A request made ready for the core: tokens instead of text, everything checked.

use std::{sync::Arc, time::Duration};

use model::Pooling;
use protocol::{Error, Sampling, TokenLogprob};
use text::{Matcher, Tokenizer};

use crate::{
    adapters::Adaptation,
    answer::Answer,
    calls::Calls,
    control::Control,
    core::RequestId,
    pages::PageTable,
    sampler::{Sampler, choice_seed},
    sequence::{Generation, Limits, Pool, Purpose, Scoring, Sequence},
};

/// Work for [`crate::Core::submit`].
#[derive(Debug)]
pub struct Job {
    /// The tokens to start from, at least one.
    pub prompt: Vec<u32>,
    /// What is added beside the model, if anything is.
    pub adaptation: Option<Arc<Adaptation>>,
    /// Whose turn it takes.
    pub tenant: String,
    /// Given up when this much time has passed since it was submitted.
    pub deadline: Option<Duration>,
    /// What is wanted.
    pub work: Work,
}

/// What is wanted of the tokens.
#[derive(Debug)]
pub enum Work {
    /// Continuations.
    Answers(Box<Answers>),
    /// Their hidden states, pooled into one vector.
    Vector,
    /// The logits behind every one of them.
    Logits,
}

/// How continuations are made; see [`protocol::GenerateRequest`].
#[derive(Debug)]
pub struct Answers {
    /// One entry per choice.
    pub choices: Vec<Choice>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The seed of the first choice, from which the others' are derived.
    pub seed: u64,
    /// Most tokens of an answer.
    pub max_tokens: usize,
    /// Strings that end an answer.
    pub stops: Arc<[String]>,
    /// The end-of-text token does not end the answer.
    pub ignore_eos: bool,
    /// Scores wanted, with so many alternatives.
    pub logprobs: Option<usize>,
    /// Text to send in front of every answer.
    pub echo: Option<String>,
    /// Score the prompt's tokens from this one on.
    pub score_from: Option<usize>,
    /// Send the tokens as they are chosen.
    pub report_tokens: bool,
    /// Say with every step how much processor time it took so far.
    pub report_work: bool,
}

/// The parts of one choice that cannot be shared.
#[derive(Debug, Default)]
pub struct Choice {
    /// The grammar of the answer.
    pub matcher: Option<Matcher>,
    /// The field of the request that the grammar comes from.
    pub held_by: &'static str,
    /// Where the model may call tools: what tells calls from content.
    pub calls: Option<Calls>,
    /// Tokens that count as generated already.
    pub resume: Vec<u32>,
}

impl Job {
    /// How many sequences it needs.
    pub(crate) fn choices(&self) -> usize {
        match &self.work {
            Work::Answers(answers) => answers.choices.len(),
            Work::Vector | Work::Logits => 1,
        }
    }

    /// Whoever asked wants to know its processor time as it grows.
    pub(crate) fn reports_work(&self) -> bool {
        matches!(&self.work, Work::Answers(answers) if answers.report_work)
    }

    /// Leading tokens whose hidden states nobody wants, so that the prefix cache may supply them. The last token's
    /// state is always wanted.
    pub(crate) fn reusable(&self) -> usize {
        let scored = match &self.work {
            Work::Answers(answers) => answers.score_from.map_or(usize::MAX, |from| from.saturating_sub(1)),
            Work::Vector | Work::Logits => 0,
        };
        scored.min(self.prompt.len().saturating_sub(1))
    }

    /// The sequences of an admitted request.
    ///
    /// # Errors
    /// A grammar failed at its start.
    pub(crate) fn into_sequences(
        self,
        id: RequestId,
        pooling: Pooling,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<Sequence>, Error> {
        let reusable = self.reusable();
        let purposes = match self.work {
            Work::Answers(answers) => answers.into_purposes(&self.prompt, tokenizer)?,
            Work::Vector => vec![Purpose::Pool(Pool { pooling, sum: Vec::new() })],
            Work::Logits => vec![Purpose::Logits(Vec::new())],
        };
        let prompt = &self.prompt;
        let sequence = |(choice, purpose)| Sequence {
            request: id,
            adaptation: self.adaptation.clone(),
            age: 0,
            tokens: prompt.clone(),
            prompt_len: prompt.len(),
            computed: 0,
            table: PageTable::default(),
            reusable: if choice == 0 { reusable } else { prompt.len().saturating_sub(1) },
            leaves: false,
            follows: choice > 0,
            purpose,
            rows: 0,
            produced: false,
        };
        Ok(purposes.into_iter().enumerate().map(sequence).collect())
    }
}

impl Answers {
    fn into_purposes(mut self, prompt: &[u32], tokenizer: &Tokenizer) -> Result<Vec<Purpose>, Error> {
        let choices = std::mem::take(&mut self.choices);
        let generations =
            choices.into_iter().enumerate().map(|(index, choice)| self.generation(index, choice, prompt, tokenizer));
        generations.map(|generation| generation.map(|generation| Purpose::Answer(Box::new(generation)))).collect()
    }

    fn generation(
        &self,
        index: usize,
        choice: Choice,
        prompt: &[u32],
        tokenizer: &Tokenizer,
    ) -> Result<Generation, Error> {
        let score_from = self.score_from.filter(|_| index == 0);
        Ok(Generation {
            choice: index,
            answer: Answer::new(index, Arc::clone(&self.stops), choice.calls),
            sampler: Sampler::new(&self.sampling, choice_seed(self.seed, index), prompt),
            control: choice.matcher.map(|matcher| Control::new(matcher, choice.held_by)).transpose()?,
            logprobs: self.logprobs,
            echo: self.echo.clone(),
            scoring: score_from.map(|from| Scoring { from, scores: unscored(prompt, tokenizer) }),
            limits: Limits { max_tokens: self.max_tokens, ignore_eos: self.ignore_eos },
            resume: choice.resume,
            report_tokens: self.report_tokens,
            generated: 0,
            finished: None,
            last_token: None,
        })
    }
}

fn unscored(prompt: &[u32], tokenizer: &Tokenizer) -> Vec<TokenLogprob> {
    let entry = |&id: &u32| TokenLogprob { id, bytes: tokenizer.bytes(id).to_vec(), logprob: None, top: Vec::new() };
    prompt.iter().map(entry).collect()
}
