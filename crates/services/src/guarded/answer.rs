//! One choice of an answer: what of it may leave, and in which order.
//!
//! Its text has one filter and so has every call, from the beginning to the end of the answer. Servers send pieces of several calls
//! in turn, and text behind calls; a filter that ended at such a place would miss what is cut there.
//!
//! What began first leaves first: the text, then the calls as they began. A call waits while the text or a call before it
//! holds something, until more of that comes or the answer ends. It costs time, which calls have since they are of use when they are
//! whole, and it keeps blocks in one piece on wires that have blocks (Anthropic's, OpenAI's responses): nothing that was held there
//! leaves in the middle of a later block. Only text that comes behind a waiting call overtakes it.

use std::collections::BTreeMap;

use guard::{Direction, Filter, Guard, JsonFilter, Release};
use protocol::{Error, Event, MOST_CALLS, TokenLogprob, too_many_calls};

/// One choice.
pub(super) struct Answer {
    pub(super) text: Words,
    /// Scores of text that is held.
    pub(super) scores: Vec<TokenLogprob>,
    /// In the order in which they began.
    calls: Vec<Call>,
    /// Where in `calls` is the call of an index.
    places: BTreeMap<usize, usize>,
    /// Some text left.
    pub(super) spoke: bool,
    pub(super) ended: bool,
}

/// The filter of an answer's text.
pub(super) enum Words {
    Plain(Filter),
    Json(JsonFilter),
}

impl Words {
    pub(super) fn push(&mut self, text: &str) -> Release {
        match self {
            Self::Plain(filter) => filter.push(text),
            Self::Json(filter) => filter.push(text),
        }
    }

    pub(super) fn finish(&mut self) -> Release {
        match self {
            Self::Plain(filter) => filter.finish(),
            Self::Json(filter) => filter.finish(),
        }
    }

    pub(super) fn held(&self) -> usize {
        match self {
            Self::Plain(filter) => filter.held(),
            Self::Json(filter) => filter.held(),
        }
    }
}

/// A call of a tool.
struct Call {
    index: usize,
    filter: JsonFilter,
    waiting: Option<Piece>,
}

/// What of a call may leave as soon as nothing before it is held.
#[derive(Default)]
struct Piece {
    id: Option<String>,
    name: Option<String>,
    arguments: String,
}

impl Answer {
    /// One that is to be JSON, or any text.
    pub(super) fn new(guard: &Guard, json: bool) -> Self {
        let text = if json {
            Words::Json(guard.stream_json(Direction::Out))
        } else {
            Words::Plain(guard.stream(Direction::Out))
        };
        Self { text, scores: Vec::new(), calls: Vec::new(), places: BTreeMap::new(), spoke: false, ended: false }
    }

    /// How many calls have begun.
    pub(super) fn calls(&self) -> usize {
        self.calls.len()
    }

    /// Whether the next piece of this call is its first.
    pub(super) fn begins(&self, index: usize) -> bool {
        !self.places.contains_key(&index)
    }

    /// More of a call; returns what was found in it.
    pub(super) fn push(
        &mut self,
        guard: &Guard,
        index: usize,
        (id, name): (Option<String>, Option<String>),
        arguments: &str,
    ) -> Result<Release, Error> {
        let next = self.calls.len();
        let place = *self.places.entry(index).or_insert(next);
        if place == next {
            if next >= MOST_CALLS {
                return Err(too_many_calls());
            }
            let waiting = Some(Piece { id, name, arguments: String::new() });
            self.calls.push(Call { index, filter: guard.stream_json(Direction::Out), waiting });
        }
        let call = &mut self.calls[place];
        let release = call.filter.push(arguments);
        call.wait(&release.text);
        Ok(release)
    }

    /// A call is complete; returns its index and what was found in it.
    pub(super) fn finish(&mut self, place: usize) -> (usize, Release) {
        let call = &mut self.calls[place];
        let release = call.filter.finish();
        call.wait(&release.text);
        (call.index, release)
    }

    /// The pieces of calls that nothing is held in front of.
    pub(super) fn free(&mut self, choice: usize) -> Vec<Event> {
        let mut events = Vec::new();
        let mut held = self.text.held();
        for call in &mut self.calls {
            if held > 0 {
                break;
            }
            let event =
                |Piece { id, name, arguments }| Event::ToolCall { choice, index: call.index, id, name, arguments };
            events.extend(call.waiting.take().map(event));
            held = call.filter.held();
        }
        events
    }
}

impl Call {
    fn wait(&mut self, arguments: &str) {
        if !arguments.is_empty() {
            self.waiting.get_or_insert_default().arguments += arguments;
        }
    }
}
