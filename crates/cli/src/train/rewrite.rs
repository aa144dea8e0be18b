//! Gold answers in the model's own words: self-distillation fine-tuning (SDFT, Yang et al. 2024).
//!
//! What people wrote is far from what a model would have said, and learning it drags the model away from itself. So the model, shown a question with its
//! answer, answers once more; that is learned in the gold's place, but only where it still says what the gold says ([`says`]).

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::Arc,
};

use data::{Document, Form};
use engine::Engine;
use protocol::{GenerateRequest, Sampling};
use serde_json::{Value, json};

use crate::answers;

/// Longest answer, in tokens.
const LONGEST: usize = 512;
/// Golds of up to so many words must stand in the answer as they are.
const SHORT: usize = 12;
/// Share of a longer gold's words that the answer must have.
const SHARE: f64 = 0.6;

/// Chats whose last answer the model has put in its own words, by their lines.
pub(super) async fn own_words(
    model: &Arc<Engine>,
    documents: &[Document],
    folder: &Path,
) -> anyhow::Result<BTreeMap<usize, Form>> {
    let asked: Vec<(&Document, GenerateRequest)> =
        documents.iter().filter_map(|document| Some((document, request(&document.form)?))).collect();
    let (documents, requests): (Vec<&Document>, Vec<GenerateRequest>) = asked.into_iter().unzip();
    let texts = answers::ask(model, "the model rewrites", requests, &folder.join("rewritten.jsonl")).await?;
    let rewritten = documents.into_iter().zip(texts);
    Ok(rewritten.filter_map(|(document, text)| Some((document.line, retold(&document.form, text.trim())?))).collect())
}

/// Asks a chat's last question once more, with its answer.
fn request(form: &Form) -> Option<GenerateRequest> {
    let (mut messages, gold) = split(form)?;
    let question = messages.last_mut().filter(|message| message["role"] == "user")?;
    let shown = format!(
        "{}\n\nA correct answer is:\n{gold}\n\nUsing it as a guide, write your own answer. Write nothing but the answer.",
        question["content"].as_str()?
    );
    question["content"] = shown.into();
    let prompt = answers::prompt(&Form::Chat { messages, tools: Vec::new() })?;
    let sampling = Sampling { temperature: 0.0, seed: Some(0), ..Sampling::default() };
    Some(GenerateRequest { sampling, ..GenerateRequest::new(prompt, LONGEST) })
}

/// A chat with this as its last answer, if it says what the gold says.
fn retold(form: &Form, text: &str) -> Option<Form> {
    let (mut messages, gold) = split(form)?;
    messages.push(json!({"role": "assistant", "content": text}));
    says(text, &gold).then_some(Form::Chat { messages, tools: Vec::new() })
}

/// A chat up to its last answer, and that answer.
fn split(form: &Form) -> Option<(Vec<Value>, String)> {
    let Form::Chat { messages, tools } = form else { return None };
    let (last, before) = messages.split_last().filter(|(last, _)| tools.is_empty() && last["role"] == "assistant")?;
    Some((before.to_vec(), last["content"].as_str()?.to_owned()))
}

/// Whether a text says what a gold answer says. JSON must be the same value; a short answer must stand in the text, whatever its letters' case and the
/// signs between words; a longer one must have all its numbers there and most of its words.
fn says(text: &str, gold: &str) -> bool {
    if let Ok(Value::Object(_) | Value::Array(_)) = serde_json::from_str(gold) {
        return eval::same(text, gold);
    }
    let (found, wanted) = (words(text), words(gold));
    if wanted.len() <= SHORT {
        return !wanted.is_empty() && found.windows(wanted.len()).any(|window| window == wanted);
    }
    let found: HashSet<String> = found.into_iter().collect();
    let numbers = wanted.iter().filter(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let there = wanted.iter().filter(|word| found.contains(*word)).count();
    numbers.clone().all(|number| found.contains(number)) && there as f64 >= SHARE * wanted.len() as f64
}

fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_says_what_the_gold_says() {
        let check = |text: &str, gold: &str, want: bool| assert_eq!(says(text, gold), want, "{text:?}, gold {gold:?}");
        check("The capital is Canberra.", "canberra", true);
        check("The capital is Sydney.", "Canberra", false);
        check("It is in New South Wales", "New-South Wales!", true);
        check("It is new in the south of Wales", "New South Wales", false);
        check("anything", "", false);
        check(r#"{"b": 2, "a": 1}"#, r#"{"a": 1, "b": 2}"#, true);
        check(r#"{"a": 1}"#, r#"{"a": 1, "b": 2}"#, false);
        check(r#"Here: {"a": 1}"#, r#"{"a": 1}"#, false);
        let long = "Take 20 drops of it in the morning and 10 in the evening, with a glass of water";
        check("In the morning take 20 drops of it, 10 in the evening, with water", long, true);
        check("In the morning take 20 drops of it, 5 in the evening, with a glass of water", long, false);
        check("Take 20 or 10", long, false);
    }

    #[test]
    fn only_chats_that_end_with_an_answer_are_rewritten() {
        let turn = |role: &str, content: &str| json!({"role": role, "content": content});
        let chat = |messages| Form::Chat { messages, tools: Vec::new() };
        let asked = chat(vec![turn("user", "Where?"), turn("assistant", "Here")]);
        let shown = format!("{:?}", request(&asked).unwrap().prompt);
        assert!(shown.contains("Where?") && shown.contains("A correct answer is:\\nHere"), "{shown}");
        let Some(Form::Chat { messages, .. }) = retold(&asked, "It is here") else { panic!("it says the same") };
        assert_eq!(messages, [turn("user", "Where?"), turn("assistant", "It is here")]);
        assert_eq!(retold(&asked, "It is there"), None);
        let others = [
            Form::Text("a".to_owned()),
            Form::Completion { prompt: "a".to_owned(), completion: "b".to_owned() },
            chat(vec![turn("user", "a")]),
            chat(vec![turn("assistant", "a")]),
            Form::Chat { messages: vec![turn("user", "a"), turn("assistant", "b")], tools: vec![json!({})] },
        ];
        assert!(others.iter().all(|form| request(form).is_none()));
    }
}
