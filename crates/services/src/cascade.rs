//! A small model answers first, and a large one where the small one should not be trusted.
//!
//! The student's answer is held back whole and judged: how likely each of its tokens was to itself ([`Measure`]), whether it came to its
//! end, fits the schema that the request names, and passes the rules of the cascade ([`Rule`]). What is sure enough by a calibrated
//! bar ([`calibrate`]) is delivered; else the teacher answers as if nobody had been asked before. Some requests go to the teacher at
//! once: those longer than any that the student was ever right about, and those that it cannot do.
//!
//! Waiting for the verdict costs the time to the first piece: an accepted answer comes whole when the student is done, an escalated one begins later
//! by what the student took. So a student is given up as soon as no rest of its answer could reach the bar any more, which never changes
//! who answers, and dropped.
//!
//! The caller gets one answer and its usage alone, but for the processor time, which is that of both. What happened stands in a hop: `accepted`, or `escalated` with the student among
//! those who failed, and the score.
//!
//! Invariant: nothing of a student's answer leaves before it is accepted.

mod calibration;
mod hearing;
mod rule;

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use protocol::{
    Capabilities, Error, ErrorKind, Event, EventStream, Generate, GenerateRequest, Hop, Miss, ModelCard, Reason,
};
use tokio::time::Instant;

use crate::{
    Target,
    first::{self, elsewhere},
};
use hearing::{Doubt, Heard};

pub use calibration::{Bar, Calibration, Item, Measure, Unusable, Weights, calibrate, fewest};
pub use hearing::{Examined, Student, length};
pub use rule::Rule;

/// What happens when the teacher was needed and fails before its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// The caller gets its error.
    #[default]
    Error,
    /// The caller gets the student's answer, if it is whole, valid, and only not sure enough. No student is given up early then.
    Student,
}

/// A student and its teacher under one name.
#[derive(Debug, Clone)]
pub struct Cascade(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    student: Student,
    teacher: Target,
    bar: Bar,
    on_failure: OnFailure,
    patience: Option<Duration>,
}

impl Cascade {
    /// `name` stands for the student above the bar and for the teacher else; a student may take as long as `patience`.
    pub fn new(
        name: impl Into<String>,
        student: Student,
        teacher: Target,
        bar: Bar,
        on_failure: OnFailure,
        patience: Option<Duration>,
    ) -> Self {
        metrics::describe_counter!("tessera_cascade_requests_total", "Requests to a cascade by who answered and why");
        metrics::describe_histogram!("tessera_cascade_score", "How sure students were of their answers, 0 to 1");
        Self(Arc::new(Inner { name: name.into(), student, teacher, bar, on_failure, patience }))
    }
}

impl Inner {
    /// The stream of whoever answers, behind the word on who it is.
    async fn answer(&self, request: GenerateRequest) -> EventStream {
        let began = Instant::now();
        let mut heard = self.student.hear(&request, &self.bar, self.gives_up(), self.patience).await;
        let hop = self.hop(&heard);
        self.count(&heard);
        if heard.doubt.is_none() {
            return first::routed(hop, heard.deliver());
        }
        let ways: Vec<_> = heard.events.extract_if(.., |event| matches!(event, Event::Routed(_))).map(Ok).collect();
        let teacher = match self.rest(request, began) {
            Ok(request) => self.teach(request, heard).await,
            Err(error) => failed(error),
        };
        stream::iter(ways).chain(first::routed(hop, teacher)).boxed()
    }

    fn gives_up(&self) -> bool {
        self.on_failure == OnFailure::Error
    }

    /// The teacher's answer, or what there is instead.
    async fn teach(&self, request: GenerateRequest, heard: Heard) -> EventStream {
        let spare = self.on_failure == OnFailure::Student && matches!(heard.doubt, Some(Doubt::Unsure));
        if !spare {
            let answer = self.teacher.service.generate(request).await.unwrap_or_else(failed);
            return with_work(answer, heard.took);
        }
        match first::open(self.teacher.service.as_ref(), request, None).await {
            Ok(events) => with_work(events, heard.took),
            Err(error) if elsewhere(&error) => {
                tracing::warn!(cascade = %self.name, %error, "the teacher failed: its student's answer is delivered");
                let miss = Miss { who: self.teacher.model.clone(), error: error.word().to_owned() };
                let hop = Hop { failed: vec![miss], ..self.to(self.student.target(), Reason::Fallback) };
                first::routed(Hop { score: heard.score, ..hop }, heard.deliver())
            }
            Err(error) => failed(error),
        }
    }

    /// What the teacher is asked, within what is left of the time.
    fn rest(&self, request: GenerateRequest, began: Instant) -> Result<GenerateRequest, Error> {
        let left = request.deadline.map(|limit| limit.saturating_sub(began.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(Error::new(ErrorKind::DeadlineExceeded, "The time for the request is over."));
        }
        Ok(GenerateRequest { model: self.teacher.model.clone(), deadline: left, ..request })
    }

    fn hop(&self, heard: &Heard) -> Hop {
        let hop = match &heard.doubt {
            None => self.to(self.student.target(), Reason::Accepted),
            Some(doubt) => {
                let miss = Miss { who: self.student.target().model.clone(), error: doubt.word().to_owned() };
                Hop { failed: vec![miss], ..self.to(&self.teacher, Reason::Escalated) }
            }
        };
        Hop { score: heard.score, ..hop }
    }

    fn to(&self, target: &Target, reason: Reason) -> Hop {
        target.hop(&self.name, reason, target.card())
    }

    fn count(&self, heard: &Heard) {
        let (outcome, why) = heard.doubt.as_ref().map_or(("accepted", "sure"), |doubt| ("escalated", doubt.kind()));
        let name = self.name.clone();
        metrics::counter!("tessera_cascade_requests_total", "cascade" => name.clone(), "outcome" => outcome, "why" => why)
            .increment(1);
        if let Some(score) = heard.score {
            metrics::histogram!("tessera_cascade_score", "cascade" => name).record(score);
        }
    }
}

/// The teacher's answer with the processor time of a student who was asked in vain. Its tokens are in nobody's usage.
fn with_work(answer: EventStream, student: Option<u64>) -> EventStream {
    let counted = move |event| match event {
        Ok(Event::Done(mut usage)) => {
            usage.work(student);
            Ok(Event::Done(usage))
        }
        other => other,
    };
    answer.map(counted).boxed()
}

fn failed(error: Error) -> EventStream {
    stream::iter([Err(error)]).boxed()
}

impl Generate for Cascade {
    /// One model: what the teacher is, under this name. A broken stream may have been either's, so none is resumed.
    fn models(&self) -> Vec<ModelCard> {
        let card = self.0.teacher.card();
        let card = card.map(|card| ModelCard {
            id: self.0.name.clone(),
            capabilities: Capabilities { replay: false, ..card.capabilities },
            ..card
        });
        card.into_iter().collect()
    }

    /// Ready while the teacher is: without the student it answers everything.
    fn ready(&self) -> Result<(), Error> {
        self.0.teacher.service.ready()
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Error>> {
        let inner = self.0.clone();
        let answer = stream::once(async move { inner.answer(request).await }).flatten();
        async { Ok(answer.boxed()) }.boxed()
    }

    fn count(&self, request: GenerateRequest) -> BoxFuture<'_, Result<usize, Error>> {
        self.0.teacher.service.count(GenerateRequest { model: self.0.teacher.model.clone(), ..request })
    }
}
