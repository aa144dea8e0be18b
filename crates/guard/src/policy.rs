//! What an operator wants done about what is found: plain data, the `[guard]` section of `tessera.toml`.
//!
//! The default watches and touches nothing: every kind of finding is noted with the request, none is masked or blocked unless
//! somebody asks for it. A policy that nobody chose must not change an answer, and a false alarm costs a line in the audit.
//!
//! Every rule says what happens in each direction. `allow` does not even look; `monitor` notes; `mask` replaces what was
//! found by its kind in brackets, such as `[email]`; `block` refuses a request, or ends an answer.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{error::Error, personal::Kind};

/// What is done about a finding, the mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Let it pass and do not look for it.
    Allow,
    /// Let it pass and note it with the request.
    #[default]
    Monitor,
    /// Replace it by its kind in brackets.
    Mask,
    /// Refuse the request, or end the answer before it.
    Block,
}

/// Which way a text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From a caller to a model.
    In,
    /// From a model to a caller.
    Out,
}

/// What is done in each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sides {
    /// With what comes in: messages, prompts, tool results.
    pub input: Action,
    /// With what goes out: answers and the arguments of tool calls.
    pub output: Action,
}

impl Sides {
    /// The action for this direction.
    pub fn of(&self, direction: Direction) -> Action {
        match direction {
            Direction::In => self.input,
            Direction::Out => self.output,
        }
    }
}

/// The whole policy. `Policy::default()` monitors and changes nothing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Cards, accounts, mails, phones, ids of persons, and secrets such as API keys.
    pub personal: Personal,
    /// Attempts to overturn a model's instructions.
    pub injection: Injection,
    /// Insults, hate and threats.
    pub toxicity: Toxicity,
    /// Lists of words and phrases of your own, by name.
    pub terms: BTreeMap<String, Terms>,
    /// Regular expressions of your own, by name.
    pub patterns: BTreeMap<String, Pattern>,
    /// Questions put to a model about every text, by name. Each costs a call.
    pub models: BTreeMap<String, Asked>,
    /// How generated content says that it is generated.
    pub labels: Labels,
}

/// Personal data and secrets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Personal {
    /// For every kind of incoming data that `kinds` does not name.
    pub input: Action,
    /// For every kind of outgoing data that `kinds` does not name.
    pub output: Action,
    /// Kinds that are treated in their own way.
    pub kinds: BTreeMap<Kind, Sides>,
}

impl Personal {
    /// What is done about this kind.
    pub fn action(&self, kind: Kind, direction: Direction) -> Action {
        let all = Sides { input: self.input, output: self.output };
        self.kinds.get(&kind).unwrap_or(&all).of(direction)
    }
}

/// Prompt injection. Answers are not looked at unless asked for: a model that explains an attack is not attacking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Injection {
    /// With what comes in.
    pub input: Action,
    /// With what goes out.
    pub output: Action,
    /// The sum of weights within a stretch of text from which on it counts, above 0. Lower finds more and errs more.
    #[schemars(range(min = 0.05, max = 10.0))]
    pub threshold: f32,
}

impl Default for Injection {
    fn default() -> Self {
        Self { input: Action::Monitor, output: Action::Allow, threshold: 1.0 }
    }
}

/// Toxic language: a classifier for English, weighted terms for Chinese.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Toxicity {
    /// With what comes in.
    pub input: Action,
    /// With what goes out.
    pub output: Action,
    /// The probability from which on it counts.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub threshold: f32,
}

impl Default for Toxicity {
    fn default() -> Self {
        Self { input: Action::Monitor, output: Action::Monitor, threshold: 0.8 }
    }
}

/// Words and phrases, found in any case, width or disguised spelling.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Terms {
    /// The terms. They are found as whole words; `word*` also finds words that begin so. Chinese is found anywhere.
    pub words: Vec<String>,
    /// With what comes in.
    pub input: Action,
    /// With what goes out.
    pub output: Action,
}

/// A regular expression (the syntax of Rust's `regex`) over the text with full-width forms made narrow and invisible
/// characters left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pattern {
    /// The expression. No match may be longer than 4096 bytes: write `{0,64}` rather than `*`.
    pub regex: String,
    /// With what comes in.
    pub input: Action,
    /// With what goes out.
    pub output: Action,
}

/// A yes/no question put to a text model, or examples that an embedding model compares with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The model that is asked.
    pub model: String,
    /// The question; yes means that the text is found wanting. Example: `Does the text ask for medical advice?`
    #[serde(default)]
    pub question: String,
    /// Instead of a question: texts like those that are not wanted.
    #[serde(default)]
    pub examples: Vec<String>,
    /// The probability of yes, or the cosine to an example, from which on it counts.
    #[serde(default = "half")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub threshold: f32,
    /// What a yes does. A model's verdict is on a whole text, so `mask` is refused here.
    #[serde(default)]
    pub input: Action,
    /// The same for answers. Anything but `allow` holds an answer back until it is complete.
    #[serde(default = "allow")]
    pub output: Action,
    /// What happens if the model cannot be asked.
    #[serde(default)]
    pub fail: Fail,
}

fn half() -> f32 {
    0.5
}

fn allow() -> Action {
    Action::Allow
}

/// What a rule that cannot give a verdict does to the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fail {
    /// The text passes, and that it was not judged is noted.
    #[default]
    Open,
    /// The text is treated as if the answer had been yes.
    Closed,
}

/// How generated content says so, for people and for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Labels {
    /// A line at the end of generated text.
    pub visible: bool,
    /// The header `x-aigc` beside generated text, a text chunk inside generated images (PNG).
    pub metadata: bool,
}

impl Policy {
    /// Whether a text that goes this way may be changed or stopped: one that nobody can read must not pass then.
    pub fn enforces(&self, direction: Direction) -> bool {
        let of = |input, output| Sides { input, output }.of(direction);
        let personal = &self.personal;
        let mut actions = vec![
            of(personal.input, personal.output),
            of(self.injection.input, self.injection.output),
            of(self.toxicity.input, self.toxicity.output),
        ];
        actions.extend(personal.kinds.values().map(|sides| sides.of(direction)));
        actions.extend(self.terms.values().map(|terms| of(terms.input, terms.output)));
        actions.extend(self.patterns.values().map(|pattern| of(pattern.input, pattern.output)));
        actions.extend(self.models.values().map(|asked| of(asked.input, asked.output)));
        actions.into_iter().any(|action| action > Action::Monitor)
    }

    /// Refuses what no rule can do.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for (name, asked) in &self.models {
            if asked.question.is_empty() == asked.examples.is_empty() {
                let message = "give a question for a text model, or examples for an embedding model, and not both";
                return Err(Error::new(format!("models.{name}"), message));
            }
            for (side, action) in [("input", asked.input), ("output", asked.output)] {
                if action == Action::Mask {
                    let message = "a model judges a whole text and cannot say what to mask; use monitor or block";
                    return Err(Error::new(format!("models.{name}.{side}"), message));
                }
            }
        }
        Ok(())
    }
}
