//! Requests for decisions and solutions, and the steps that lead to them.
//!
//! A decision is made by a graph of rules over facts; a model only helps to find the facts in a text. A solution is a chain
//! of steps written by a model, each of which is computed again. What both have in common is the [`Step`]: what the caller
//! watches, the log keeps and a replay shows is one and the same value.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Usage;

/// A request for a decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecideRequest {
    /// The caller's id for this request.
    pub id: String,
    /// Which decision: the id of a [`crate::DecisionCard`].
    pub decision: String,
    /// Facts the caller knows, by the names of the decision's schema. They win over what the text says.
    pub facts: Map<String, Value>,
    /// A text to find further facts in.
    pub text: Option<String>,
    /// Which model assigns what stands in the text to the facts; empty means the default one.
    pub model: String,
    /// Language of reasons and explanation, as a BCP 47 tag; `None` follows the text.
    pub language: Option<String>,
    /// Tenant for fair queueing.
    pub tenant: String,
    /// Give up after this long.
    pub deadline: Option<Duration>,
}

/// A request for a solution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SolveRequest {
    /// The caller's id for this request.
    pub id: String,
    /// The problem, in words.
    pub problem: String,
    /// Which model writes the chains; empty means the default one.
    pub model: String,
    /// How much is spent on it.
    pub effort: Effort,
    /// The same seed gives the same chains, where the model can do that.
    pub seed: Option<u64>,
    /// Tenant for fair queueing.
    pub tenant: String,
    /// Give up after this long.
    pub deadline: Option<Duration>,
}

/// How much is spent on a solution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effort {
    /// Chains written at most; more than one means a vote.
    pub chains: usize,
    /// Times a wrong step may be written again before its chain is given up.
    pub retries: usize,
    /// What is done about the values of steps.
    pub check: Check,
}

impl Default for Effort {
    fn default() -> Self {
        Self { chains: 5, retries: 2, check: Check::Compute }
    }
}

/// What is done about the values of a chain's steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// Nothing: the model's word stands.
    Off,
    /// The model writes the value; it is computed again, and a step whose value is wrong is written again.
    Resample,
    /// The model writes the expression; its value is computed and put behind it. What cannot be computed is written again.
    #[default]
    Compute,
}

/// What a decision or a solution sends, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "nearly all events are steps, and one is held at a time")]
pub enum StepEvent {
    /// The request was admitted: exactly this version of the graph decides (a solution has none).
    Started {
        /// The content hash of the graph; empty for a solution.
        version: String,
    },
    /// A step is done.
    Step(Step),
    /// The stream ends here.
    Done(Box<Conclusion>),
}

/// One step of the way, as it is watched, logged and replayed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// Counts from 1.
    pub step: usize,
    /// What was done: a node of the graph, or a step of a chain.
    pub action: String,
    /// What came of it.
    pub result: Value,
    /// The rule that decided, such as the row of a table that matched, in words.
    pub rule: Option<String>,
    /// What it was made from.
    pub inputs: Value,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// The node's id in the graph, or the chain it belongs to.
    pub node: Option<String>,
}

/// What it came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Conclusion {
    /// Of a decision.
    Decision(Decision),
    /// Of a problem.
    Solution(Solution),
}

/// A decision, or the questions that stand in its way.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Decision {
    /// The graph's output; `None` while facts are missing.
    pub output: Option<Value>,
    /// The facts it was made from, by name.
    pub facts: BTreeMap<String, Fact>,
    /// Facts that are needed and not known, each with a question to ask.
    pub missing: Vec<Question>,
    /// Why, in sentences made from the steps.
    pub explanation: String,
    /// Tokens that finding the facts took.
    pub usage: Usage,
}

/// A fact and where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Fact {
    /// Its value, as the graph sees it.
    pub value: Value,
    /// The piece of the text it was read from; `None` for one the caller gave.
    pub quote: Option<Quote>,
}

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quote {
    /// The exact substring.
    pub text: String,
    /// Its first byte in the text.
    pub start: usize,
    /// The byte behind its last one.
    pub end: usize,
}

/// What to ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Question {
    /// The fact's name.
    pub fact: String,
    /// A question to put to a person.
    pub question: String,
}

/// The outcome of a problem.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Solution {
    /// The answer, as an exact number in decimal or as a fraction; `None` if no chain came to one.
    pub answer: Option<String>,
    /// The share of the vote that the answer has, 0 to 1.
    pub confidence: f64,
    /// Every chain, the one the answer is taken from first.
    pub chains: Vec<Chain>,
    /// What checking said about the chain the answer is taken from; `failed` if every chain was given up.
    pub verdict: Verdict,
    /// Tokens it took, over all chains.
    pub usage: Usage,
}

/// What checking said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every step was computed and holds, and the answer is the value of one. Whether the steps are the right ones for the
    /// problem, no arithmetic can say.
    Verified,
    /// Not everything was checked, or could be.
    #[default]
    Unverified,
    /// A step stayed wrong after all retries, or no answer came.
    Failed,
}

/// One chain of steps.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Chain {
    /// What is asked for, as the model understood it.
    pub unknowns: Vec<String>,
    /// Its steps.
    pub steps: Vec<ChainStep>,
    /// What it came to.
    pub answer: Option<String>,
    /// How sure the model was, from its log-probabilities, 0 to 1; 1 where they are not to be had or nothing is voted on.
    pub weight: f64,
    /// What checking said about it.
    pub verdict: Verdict,
}

/// A step of a chain.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ChainStep {
    /// What it says, in words.
    pub text: String,
    /// The expression it computes.
    pub expression: String,
    /// What the model wrote as its value.
    pub claimed: String,
    /// What it is; `None` if it cannot be computed or nothing was checked.
    pub computed: Option<String>,
    /// Times it was written again.
    pub retries: usize,
}
