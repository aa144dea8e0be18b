//! What was found and what became of the text. A verdict names places, never contents: it goes into logs.

use std::{cmp::Ordering, ops::Range};

use serde::{Deserialize, Serialize};

use crate::policy::Action;

/// One finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The rule: `personal.email`, `injection`, `toxicity`, `terms.NAME`, `patterns.NAME`, `models.NAME`.
    pub rule: String,
    /// What the policy does about it.
    pub action: Action,
    /// Where it stands in the text as it came, in bytes.
    pub span: Range<usize>,
    /// How sure the rule is: 1 for rules that hold or do not, a probability or a sum of weights for the others.
    pub score: f32,
}

impl Verdict {
    /// What stands in the place of a masked text.
    pub fn mask(&self) -> String {
        format!("[{}]", self.rule.rsplit('.').next().unwrap_or_default())
    }

    /// The order in which verdicts are listed: as they stand in the text, then by rule, then by score, since a rule that has two ways to
    /// find something (toxicity has) may find one place twice.
    pub fn order(&self, other: &Self) -> Ordering {
        let key = |verdict: &Self| (verdict.span.start, verdict.span.end);
        let by_rule = || self.rule.cmp(&other.rule);
        key(self).cmp(&key(other)).then_with(by_rule).then_with(|| self.score.total_cmp(&other.score))
    }
}

/// The judgement of a whole text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The strictest action of all verdicts; [`Action::Allow`] if there are none.
    pub action: Action,
    /// Every finding, as they stand in the text.
    pub verdicts: Vec<Verdict>,
    /// The text with masks in place; `None` if it is as it came. Of no use to anybody if `action` is to block.
    pub text: Option<String>,
}

/// What may leave after a piece of a stream came.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Release {
    /// Text that may go on, with masks in place.
    pub text: String,
    /// What was found since the last piece.
    pub verdicts: Vec<Verdict>,
    /// The stream ends here: nothing more will be released.
    pub blocked: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fuzzer's find: toxicity found one place in two ways, and whole text and stream listed them in two orders.
    #[test]
    fn what_is_found_twice_in_one_place_has_one_order() {
        let verdict = |rule: &str, span: Range<usize>, score| {
            let rule = rule.to_owned();
            Verdict { rule, action: Action::Mask, span, score }
        };
        let ordered = [
            verdict("toxicity", 0..9, 0.5),
            verdict("terms.a", 2..4, 1.0),
            verdict("toxicity", 2..4, 0.987),
            verdict("toxicity", 2..4, 1.0),
            verdict("terms.a", 2..5, 1.0),
        ];
        for turn in 0..ordered.len() {
            let mut turned = ordered.clone();
            turned.rotate_left(turn);
            turned.sort_by(Verdict::order);
            assert_eq!(turned, ordered);
        }
    }
}
