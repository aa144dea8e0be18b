//! What a grammar says about the next token, one step ahead.
//!
//! The matcher is asked once per token, right after the one before: tokens it forces are appended without a model head,
//! a mask waits for the next row of logits, and an end ends the answer before anything is computed for it.

use std::collections::VecDeque;

use protocol::Error;
use text::{Matcher, Next};

use crate::sampler::Mask;

/// A grammar at work on one answer.
#[derive(Debug)]
pub(crate) struct Control {
    matcher: Matcher,
    /// The field of the request that it comes from.
    field: &'static str,
    /// Forced tokens behind the one in `state`.
    forced: VecDeque<u32>,
    state: State,
}

/// What may come next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// This token must come.
    Forced(u32),
    /// One of these.
    Mask(Mask),
    /// Nothing: the text is complete.
    End,
}

impl Control {
    pub(crate) fn new(matcher: Matcher, field: &'static str) -> Result<Self, Error> {
        let mut control = Self { matcher, field, forced: VecDeque::new(), state: State::End };
        control.look_ahead()?;
        Ok(control)
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// The tokens that may come. A forced token is a set of one: it is chosen like any other where its score is wanted.
    pub(crate) fn allowed(&self) -> Option<Allowed<'_>> {
        match &self.state {
            State::Forced(id) => Some(Allowed::One(*id)),
            State::Mask(mask) => Some(Allowed::Mask(mask)),
            State::End => None,
        }
    }

    /// Tells it what came.
    pub(crate) fn commit(&mut self, id: u32) -> Result<(), Error> {
        self.matcher.commit(id).map_err(|error| failed(self.field, error))?;
        self.look_ahead()
    }

    fn look_ahead(&mut self) -> Result<(), Error> {
        if self.forced.is_empty() {
            self.state = match self.matcher.next().map_err(|error| failed(self.field, error))? {
                Next::Forced(ids) => {
                    self.forced = ids.into();
                    State::End
                }
                Next::Mask(words) => State::Mask(Mask::new(words)),
                Next::End => State::End,
            };
        }
        if let Some(id) = self.forced.pop_front() {
            self.state = State::Forced(id);
        }
        Ok(())
    }
}

/// A grammar that takes too much is its writer's to change; whatever else stops one is ours.
fn failed(field: &str, error: text::Error) -> Error {
    match error {
        text::Error::Limit(problem) => Error::invalid(field, problem),
        error => Error::internal(format!("the answer's grammar failed: {error}")),
    }
}

/// A set of tokens that may come.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Allowed<'a> {
    /// This one.
    One(u32),
    /// These.
    Mask(&'a Mask),
}

impl Allowed<'_> {
    /// How many.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Mask(mask) => mask.allowed(),
        }
    }

    /// Their ids below `vocab`, ascending.
    pub(crate) fn ids(&self, vocab: usize) -> Vec<u32> {
        match self {
            Self::One(id) => vec![*id],
            Self::Mask(mask) => mask.ids(vocab),
        }
    }
}
