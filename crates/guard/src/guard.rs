//! A policy put to use: whole texts in one call, streams through a [`Filter`].

use std::sync::{Arc, LazyLock};

use crate::{
    error::Error,
    filter::Filter,
    finder::Finders,
    fold::Folded,
    json::JsonFilter,
    mask,
    moderation::{Moderation, Moderator},
    policy::{Action, Direction, Policy},
    report::{Report, Verdict},
};

/// A compiled policy. Cheap to clone; shared by all requests.
#[derive(Debug, Clone)]
pub struct Guard {
    compiled: Arc<Compiled>,
}

#[derive(Debug)]
pub(crate) struct Compiled {
    policy: Policy,
    input: Finders,
    output: Finders,
    moderator: Moderator,
}

impl Compiled {
    pub(crate) fn finders(&self, direction: Direction) -> &Finders {
        match direction {
            Direction::In => &self.input,
            Direction::Out => &self.output,
        }
    }
}

/// Watches and changes nothing. It is compiled once.
impl Default for Guard {
    fn default() -> Self {
        static WATCHING: LazyLock<Guard> =
            LazyLock::new(|| Guard::new(&Policy::default()).expect("the shipped lists compile, as tests show"));
        WATCHING.clone()
    }
}

impl Guard {
    /// Compiles a policy, or names the field that cannot be.
    pub fn new(policy: &Policy) -> Result<Self, Error> {
        policy.check()?;
        let mut known = Vec::new();
        let mut finders = |direction| Finders::new(policy, direction, &mut known);
        let (input, output) = (finders(Direction::In)?, finders(Direction::Out)?);
        let moderator = Moderator::new(policy.toxicity.threshold)?;
        Ok(Self { compiled: Arc::new(Compiled { policy: policy.clone(), input, output, moderator }) })
    }

    /// The policy this was made of.
    pub fn policy(&self) -> &Policy {
        &self.compiled.policy
    }

    /// Judges a whole text.
    pub fn check(&self, text: &str, direction: Direction) -> Report {
        let finders = self.compiled.finders(direction);
        let mut verdicts = Vec::new();
        finders.scan(&mut finders.start(), &mut Folded::of(text), true, &mut verdicts);
        verdicts.sort_by(Verdict::order);
        let action = verdicts.iter().map(|v| v.action).max().unwrap_or(Action::Allow);
        let masks: Vec<_> = verdicts.iter().filter(|v| v.action == Action::Mask).cloned().collect();
        let text = (!masks.is_empty()).then(|| mask::write(text, 0, &masks, text.len()).0);
        Report { action, verdicts, text }
    }

    /// Judges a whole JSON text as what it means, and masks it so that it stays JSON.
    pub fn check_json(&self, text: &str, direction: Direction) -> Report {
        let mut filter = self.stream_json(direction);
        let (mut first, rest) = (filter.push(text), filter.finish());
        first.text += &rest.text;
        first.verdicts.extend(rest.verdicts);
        first.verdicts.sort_by(Verdict::order);
        let action = first.verdicts.iter().map(|v| v.action).max().unwrap_or(Action::Allow);
        Report { action, verdicts: first.verdicts, text: (action == Action::Mask).then_some(first.text) }
    }

    /// Scores a text in OpenAI's categories, whatever the policy does about them.
    pub fn moderate(&self, text: &str) -> Moderation {
        self.compiled.moderator.moderate(text)
    }

    /// A filter for a text that comes in pieces.
    pub fn stream(&self, direction: Direction) -> Filter {
        Filter::new(self.compiled.clone(), direction)
    }

    /// A filter for JSON that comes in pieces.
    pub fn stream_json(&self, direction: Direction) -> JsonFilter {
        JsonFilter::new(self.stream(direction))
    }
}
