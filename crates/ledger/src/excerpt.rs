//! Records as lists show them: a page of long conversations would be hundreds of megabytes.

use serde_json::Value;

use crate::Record;

/// Characters of an input or an output in a list.
const EXCERPT: usize = 2000;

/// The beginnings of what came and went, without the steps between; alone a record is shown whole.
pub fn beginnings(record: Record) -> Record {
    let input_text = record.input_text.map(excerpt);
    let output_decision = record.output_decision.map(|output| match output {
        Value::String(text) => excerpt(text).into(),
        other => short(other),
    });
    let mut feedback = record.feedback;
    for words in feedback.iter_mut().flat_map(|given| [&mut given.correction, &mut given.comment]) {
        *words = words.take().map(excerpt);
    }
    Record { input_text, output_decision, input: None, inference_steps: Vec::new(), feedback, ..record }
}

/// A value that is short enough, or the beginning of its text.
fn short(value: Value) -> Value {
    let text = value.to_string();
    if text.len() <= EXCERPT { value } else { excerpt(text).into() }
}

fn excerpt(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(EXCERPT) {
        text.truncate(end);
        text.push('…');
        text.shrink_to_fit();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_show_beginnings() {
        let check = |text: &str, expected: &str| assert_eq!(excerpt(text.to_owned()), expected);
        check("", "");
        check(&"é".repeat(EXCERPT), &"é".repeat(EXCERPT));
        check(&"é".repeat(EXCERPT + 1), &("é".repeat(EXCERPT) + "…"));
        let long = json!({ "text": "x".repeat(EXCERPT) });
        assert!(short(long).as_str().is_some_and(|text| text.starts_with("{\"text\":\"xx")));
        assert_eq!(short(json!([1])), json!([1]));
    }
}
