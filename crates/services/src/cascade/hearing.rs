//! A student is asked and heard, and what speaks against its answer is found.

use std::time::Duration;

use futures_util::StreamExt;
use protocol::{
    Error, Event, EventStream, FinishReason, Format, GenerateRequest, JsonSchema, ModelCard, Prompt, TextOrTokens,
    Usage,
};
use serde_json::Value;

use super::{
    Rule,
    calibration::{Bar, Measure, Tokens, Weights},
};
use crate::{Target, capable, first};

/// A model that answers first, and what its answers must fulfil.
#[derive(Debug)]
pub struct Student {
    target: Target,
    rules: Vec<Rule>,
}

/// A student's answer to a request, for whoever calibrates.
#[derive(Debug, Clone, PartialEq)]
pub struct Examined {
    /// Its first answer's text.
    pub text: String,
    /// How sure it was, by each of [`Measure::ALL`]; 0 where it cannot be taken.
    pub scores: [f64; 3],
    /// What it cost.
    pub usage: Usage,
}

/// Why a student's answer is not taken.
#[derive(Debug)]
pub(super) enum Doubt {
    /// The request is longer than any that the student was right about.
    Long,
    /// The student cannot do what is asked, or what is asked is made of the teacher's tokens.
    Unable,
    /// It is not the student that the bar was made for.
    Other,
    /// It is not sure enough.
    Unsure,
    /// It was cut.
    Cut,
    /// It does not fit the request's schema.
    Schema,
    /// It breaks a rule of the cascade.
    Rule,
    /// It takes too long.
    Slow,
    /// The student failed.
    Failed(Error),
}

impl Doubt {
    /// Its word in records.
    pub(super) fn word(&self) -> &str {
        if let Self::Failed(error) = self { error.word() } else { self.kind() }
    }

    /// Its word in metrics: one of these few.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Long => "long",
            Self::Unable => "unable",
            Self::Other => "other_weights",
            Self::Unsure => "unsure",
            Self::Cut => "cut",
            Self::Schema => "schema",
            Self::Rule => "rule",
            Self::Slow => "slow",
            Self::Failed(_) => "failed",
        }
    }
}

/// What came of asking a student.
#[derive(Debug)]
pub(super) struct Heard {
    /// All that it sent, or what it had sent when it was given up.
    pub(super) events: Vec<Event>,
    /// How sure it was; `None` where it was not asked, said nothing, or cannot tell.
    pub(super) score: Option<f64>,
    /// What speaks against it.
    pub(super) doubt: Option<Doubt>,
    /// Microseconds of processor time that it took, as far as it was heard; `None` where it does not tell.
    pub(super) took: Option<u64>,
}

impl Heard {
    /// As if the student had been asked alone.
    pub(super) fn deliver(self) -> EventStream {
        futures_util::stream::iter(self.events.into_iter().map(Ok)).boxed()
    }

    fn unasked(doubt: Doubt) -> Self {
        Self { events: Vec::new(), score: None, doubt: Some(doubt), took: Some(0) }
    }
}

/// How long a request is, in characters: the texts of its turns, or its prompt.
pub fn length(request: &GenerateRequest) -> usize {
    match &request.prompt {
        Prompt::Raw(TextOrTokens::Text(text)) => text.chars().count(),
        Prompt::Raw(TextOrTokens::Tokens(ids)) => ids.len(),
        Prompt::Chat(chat) => {
            chat.messages.iter().filter_map(|message| message.content.as_ref()).map(|text| text.chars().count()).sum()
        }
    }
}

impl Student {
    /// The model, and what its answers must fulfil.
    pub fn new(target: Target, rules: Vec<Rule>) -> Self {
        Self { target, rules }
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Hears the whole answer to a request, however sure the student is.
    ///
    /// # Errors
    /// The student's own.
    pub async fn examine(&self, request: &GenerateRequest) -> Result<Examined, Error> {
        let mut listening = self.listening(request, None);
        let listened = listening.listen(self.asked(request), &Bar::default(), false).await;
        if let Err(Doubt::Failed(error)) = listened {
            return Err(error);
        }
        let valid = self.against(&listening).await.is_none();
        let scores = Measure::ALL.map(|measure| if valid { listening.score(measure) } else { 0.0 });
        let text = listening.choices.first().map(|said| said.text.clone()).unwrap_or_default();
        Ok(Examined { text, scores, usage: listening.usage })
    }

    /// Asks, hears and judges. With `gives_up` a student that cannot reach the bar any more is not heard to its end.
    pub(super) async fn hear(
        &self,
        request: &GenerateRequest,
        bar: &Bar,
        gives_up: bool,
        patience: Option<Duration>,
    ) -> Heard {
        if let Some(doubt) = self.beforehand(request, bar) {
            return Heard::unasked(doubt);
        }
        let mut listening = self.listening(request, bar.student.clone());
        let listened = listening.listen(self.asked(request), bar, gives_up);
        let listened = match patience {
            None => listened.await,
            Some(patience) => tokio::time::timeout(patience, listened).await.unwrap_or(Err(Doubt::Slow)),
        };
        let sure = listening.score(bar.measure);
        let score = (listening.scored && !listening.choices.is_empty()).then_some(sure);
        let doubt = match listened {
            Err(doubt) => Some(doubt),
            Ok(()) => self.against(&listening).await,
        };
        let unsure = || (sure <= bar.threshold).then_some(Doubt::Unsure);
        Heard { doubt: doubt.or_else(unsure), score, events: listening.events, took: listening.usage.processor_micros }
    }

    /// What speaks against asking the student at all.
    fn beforehand(&self, request: &GenerateRequest, bar: &Bar) -> Option<Doubt> {
        // Ids are of one vocabulary, and scores of a prompt those of one model: the one that the cascade offers is the teacher.
        let of_the_teacher = request.echo
            || !request.resume.is_empty()
            || !request.sampling.logit_bias.is_empty()
            || matches!(request.prompt, Prompt::Raw(TextOrTokens::Tokens(_)));
        let card = self.target.card();
        let able = |card: &ModelCard| capable::refuse(&card.capabilities, request).is_ok();
        let known = |card: &ModelCard| bar.student.as_ref().is_none_or(|one| one.may_be(&card.digest, &card.adapter));
        if of_the_teacher || !card.as_ref().is_none_or(able) {
            Some(Doubt::Unable)
        } else if !card.as_ref().is_none_or(known) {
            tracing::warn!(student = %self.target.model, "not the student that was calibrated: it is not asked");
            Some(Doubt::Other)
        } else {
            bar.longest.filter(|longest| length(request) > *longest).map(|_| Doubt::Long)
        }
    }

    /// The request as the student gets it, with scores wherever it can give them, and its work told while it may still be given up.
    fn to_student(&self, request: &GenerateRequest) -> GenerateRequest {
        let logprobs = request.logprobs.or_else(|| self.scores(request).then_some(0));
        GenerateRequest { model: self.target.model.clone(), logprobs, report_work: true, ..request.clone() }
    }

    /// The student tells how likely its tokens were. One that has to be told schemas in words has no scores under them.
    fn scores(&self, request: &GenerateRequest) -> bool {
        let json = matches!(request.format, Format::JsonObject | Format::JsonSchema(_));
        self.target.card().is_some_and(|card| card.capabilities.logprobs && (card.capabilities.schema || !json))
    }

    fn asked(&self, request: &GenerateRequest) -> impl Future<Output = Result<EventStream, Error>> + use<'_> {
        self.target.service.generate(self.to_student(request))
    }

    fn listening(&self, request: &GenerateRequest, expected: Option<Weights>) -> Listening {
        let schema = match &request.format {
            Format::JsonSchema(schema) => JsonSchema::new(schema).ok(),
            Format::JsonObject => JsonSchema::new(&serde_json::json!({ "type": "object" })).ok(),
            _ => None,
        };
        Listening {
            scored: request.logprobs.is_some() || self.scores(request),
            wanted: request.logprobs.is_some(),
            answers: request.n.max(1),
            longest: request.stop.max_tokens.unwrap_or(usize::MAX),
            schema,
            expected,
            choices: Vec::new(),
            events: Vec::new(),
            usage: Usage::default(),
        }
    }

    /// What speaks against a whole answer, however sure the student is of it.
    async fn against(&self, listening: &Listening) -> Option<Doubt> {
        if listening.choices.len() < listening.answers {
            return Some(Doubt::Cut);
        }
        for said in &listening.choices {
            match said.reason {
                Some(FinishReason::Stop | FinishReason::StopString(_) | FinishReason::ToolCalls) => {}
                _ => return Some(Doubt::Cut),
            }
            if !said.called && !listening.fits(&said.text) {
                return Some(Doubt::Schema);
            }
            for rule in &self.rules {
                // What a call says is not what the rule is about.
                if said.called || !rule.holds(&said.text).await {
                    return Some(Doubt::Rule);
                }
            }
        }
        None
    }
}

/// What was heard of a student so far.
struct Listening {
    /// It tells how likely its tokens are.
    scored: bool,
    /// The caller wants to know that, too.
    wanted: bool,
    /// How many answers there should be.
    answers: usize,
    /// Tokens that an answer may have.
    longest: usize,
    schema: Option<JsonSchema>,
    expected: Option<Weights>,
    choices: Vec<Said>,
    events: Vec<Event>,
    usage: Usage,
}

/// One of its answers.
#[derive(Default)]
struct Said {
    text: String,
    called: bool,
    tokens: Tokens,
    reason: Option<FinishReason>,
}

impl Listening {
    /// Hears the answer to its end, or for as long as it may be taken.
    async fn listen(
        &mut self,
        asked: impl Future<Output = Result<EventStream, Error>>,
        bar: &Bar,
        gives_up: bool,
    ) -> Result<(), Doubt> {
        let mut stream = asked.await.map_err(Doubt::Failed)?;
        while let Some(event) = stream.next().await {
            let event = event.map_err(Doubt::Failed)?;
            let done = matches!(event, Event::Done(_));
            self.take(event)?;
            if done {
                return Ok(());
            }
            let hopeless = |said: &Said| bar.measure.at_best(&said.tokens, self.longest) <= bar.threshold;
            if gives_up && self.scored && self.choices.iter().any(hopeless) {
                return Err(Doubt::Unsure);
            }
        }
        Err(Doubt::Failed(first::cut()))
    }

    fn take(&mut self, mut event: Event) -> Result<(), Doubt> {
        match &mut event {
            Event::Text { choice, text, logprobs } => {
                let said = self.said(*choice);
                said.text.push_str(text);
                let scores = logprobs.iter().filter_map(|token| token.logprob);
                scores.for_each(|logprob| said.tokens.add(f64::from(logprob)));
                if !self.wanted {
                    logprobs.clear();
                }
            }
            Event::ToolCall { choice, .. } => self.said(*choice).called = true,
            Event::Finished { choice, reason } => self.said(*choice).reason = Some(*reason),
            Event::Done(usage) => self.usage = *usage,
            Event::Worked(micros) => {
                // For us alone: the caller did not ask.
                self.usage.processor_micros = Some(*micros);
                return Ok(());
            }
            _ => {}
        }
        let other = matches!(&event, Event::Routed(hop) if !self.expects(&hop.digest, &hop.adapter));
        self.events.push(event);
        if other { Err(Doubt::Other) } else { Ok(()) }
    }

    fn expects(&self, digest: &str, adapter: &str) -> bool {
        self.expected.as_ref().is_none_or(|expected| expected.may_be(digest, adapter))
    }

    fn said(&mut self, choice: usize) -> &mut Said {
        if choice >= self.choices.len() {
            self.choices.resize_with(choice + 1, Said::default);
        }
        &mut self.choices[choice]
    }

    fn fits(&self, text: &str) -> bool {
        let fits = |schema: &JsonSchema| serde_json::from_str::<Value>(text).is_ok_and(|value| schema.fits(&value));
        self.schema.as_ref().is_none_or(fits)
    }

    /// How sure it is of all answers: as sure as of the worst. Without scores of tokens nothing speaks against any.
    fn score(&self, measure: Measure) -> f64 {
        if !self.scored {
            return 1.0;
        }
        self.choices.iter().map(|said| measure.score(&said.tokens)).reduce(f64::min).unwrap_or(0.0)
    }
}
