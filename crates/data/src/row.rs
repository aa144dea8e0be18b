//! What may become part of a data set: a document with its place and its group, or the reason why it cannot.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::Form;

/// A candidate.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What it is.
    pub form: Form,
    /// What it belongs together with: rows of one group stand on one side of the split.
    pub group: Option<String>,
    /// Where it comes from.
    pub place: Place,
}

/// Where something stood.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The source, by the name that the manifest has for it.
    pub source: String,
    /// In the source: `line 4`, `row 7`, a heading, a request's id.
    pub at: String,
}

/// Why something is not part of the set. What it said is not repeated: it may be just what must not be kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Dropped {
    /// Where it stood.
    #[serde(flatten)]
    pub place: Place,
    /// The pass that dropped it, as the manifest counts it.
    pub pass: Pass,
    /// Why, for a person.
    pub reason: String,
}

/// What looks at rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Pass {
    /// It is a document with something to learn.
    Validation,
    /// Its request carried no consent.
    Consent,
    /// What a model was asked about a document is answered in the document's words.
    Grounding,
    /// It is not too long.
    Length,
    /// It holds no personal data, where masks are not enough.
    Personal,
    /// It is in a wanted language.
    Language,
    /// What is learned of it reads like text.
    Quality,
    /// It insults nobody.
    Toxicity,
    /// No other row is the same.
    Duplicate,
    /// No other row is nearly the same.
    NearDuplicate,
}

impl Pass {
    /// Its name, as manifests have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Validation => "validation",
            Self::Consent => "consent",
            Self::Grounding => "grounding",
            Self::Length => "length",
            Self::Personal => "personal",
            Self::Language => "language",
            Self::Quality => "quality",
            Self::Toxicity => "toxicity",
            Self::Duplicate => "duplicate",
            Self::NearDuplicate => "near_duplicate",
        }
    }
}

impl Row {
    /// Its line in a set: the document, and its group as `group`.
    pub fn to_json(&self) -> Value {
        let mut line = self.form.to_json();
        if let Some(group) = &self.group {
            line["group"] = group.as_str().into();
        }
        line
    }

    /// What identifies what it says.
    pub fn digest(&self) -> String {
        sha256(self.form.to_json().to_string().as_bytes())
    }

    /// Why it is not part of the set.
    pub fn dropped(self, pass: Pass, reason: impl Into<String>) -> Dropped {
        Dropped { place: self.place, pass, reason: reason.into() }
    }
}

/// The sum of rows or texts with these digests, in whatever order they come.
pub fn sum(mut digests: Vec<String>) -> String {
    digests.sort();
    sha256(digests.concat().as_bytes())
}

/// In hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
