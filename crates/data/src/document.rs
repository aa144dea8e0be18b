//! Documents as people write them down: one JSON object a line.

use std::{fs, path::Path};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::Error;

/// Something to learn, and where it stood.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The line of its file, from 1 on.
    pub line: usize,
    /// What it is.
    pub form: Form,
}

/// The forms of documents.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// A conversation, of which the assistant's turns are learned: `{"messages": [{"role": "user", "content": ".."}, ..]}`, as in OpenAI's
    /// fine-tuning files. A message with `"weight": 0` is not learned.
    Chat {
        /// Turns as templates expect them.
        messages: Vec<Value>,
        /// Tools on offer, in OpenAI's shape.
        tools: Vec<Value>,
    },
    /// A prompt and what follows it, which is learned: `{"prompt": "..", "completion": ".."}`.
    Completion {
        /// What is given.
        prompt: String,
        /// What is learned.
        completion: String,
    },
    /// A text, all of which is learned: `{"text": ".."}`.
    Text(String),
}

impl Form {
    /// It ends where an answer should stand, and nothing in it is to be learned.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Chat { messages, .. } => !messages.iter().any(learned),
            Self::Completion { completion, .. } => completion.is_empty(),
            Self::Text(_) => false,
        }
    }

    /// Puts an answer to the end of what is open.
    pub fn answer(&mut self, text: String) {
        match self {
            Self::Chat { messages, .. } => messages.push(json!({"role": "assistant", "content": text})),
            Self::Completion { completion, .. } => *completion = text,
            Self::Text(_) => {}
        }
    }

    /// The line that [`parse`] reads as this.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Chat { messages, tools } if tools.is_empty() => json!({ "messages": messages }),
            Self::Chat { messages, tools } => json!({ "messages": messages, "tools": tools }),
            Self::Completion { prompt, completion } => json!({ "prompt": prompt, "completion": completion }),
            Self::Text(text) => json!({ "text": text }),
        }
    }

    /// What it says, in the order in which it says it, and of each part whether it is learned. Arguments of tool calls are parts of their own.
    pub fn parts(&self) -> Vec<(&str, bool)> {
        match self {
            Self::Chat { messages, .. } => messages.iter().flat_map(said).collect(),
            Self::Completion { prompt, completion } => vec![(prompt, false), (completion, true)],
            Self::Text(text) => vec![(text, true)],
        }
    }

    /// Puts `change` of every part into its place, where it gives one.
    pub fn rewrite(&mut self, mut change: impl FnMut(&str) -> Option<String>) {
        let mut text = |text: &mut String| {
            if let Some(changed) = change(text) {
                *text = changed;
            }
        };
        match self {
            Self::Chat { messages, .. } => messages.iter_mut().flat_map(said_mut).for_each(text),
            Self::Completion { prompt, completion } => [prompt, completion].into_iter().for_each(text),
            Self::Text(whole) => text(whole),
        }
    }
}

/// The texts of a turn.
fn said(message: &Value) -> Vec<(&str, bool)> {
    let calls = message["tool_calls"].as_array().into_iter().flatten();
    let arguments = calls.filter_map(|call| call["function"]["arguments"].as_str());
    message["content"].as_str().into_iter().chain(arguments).map(|text| (text, learned(message))).collect()
}

fn said_mut(message: &mut Value) -> Vec<&mut String> {
    fn string(value: &mut Value) -> Option<&mut String> {
        if let Value::String(text) = value { Some(text) } else { None }
    }
    let Some(turn) = message.as_object_mut() else { return Vec::new() };
    let (mut content, mut arguments) = (Vec::new(), Vec::new());
    for (name, value) in turn {
        match name.as_str() {
            "content" => content.extend(string(value)),
            "tool_calls" => {
                let calls = value.as_array_mut().into_iter().flatten();
                arguments.extend(calls.filter_map(|call| string(call.get_mut("function")?.get_mut("arguments")?)));
            }
            _ => {}
        }
    }
    // In the order of the parts, whatever that of the fields.
    content.into_iter().chain(arguments).collect()
}

#[derive(Deserialize)]
struct Line {
    messages: Option<Vec<Value>>,
    tools: Option<Vec<Value>>,
    prompt: Option<String>,
    completion: Option<String>,
    text: Option<String>,
}

/// The documents of a file, in each of which there is something to learn.
///
/// # Errors
/// A file that cannot be read or holds nothing, or its first line that is no document.
pub fn read(path: &Path) -> Result<Vec<Document>, Error> {
    read_by(path, parse)
}

/// The same, some of which may be prompts whose answers are missing: `{"prompt": ".."}`, or a chat that ends with the user's turn.
///
/// # Errors
/// As those of [`read`].
pub fn read_open(path: &Path) -> Result<Vec<Document>, Error> {
    read_by(path, parse_open)
}

fn read_by(path: &Path, parse: fn(&str) -> Result<Form, String>) -> Result<Vec<Document>, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let documents = lines.map(|(at, text)| {
        let form = parse(text);
        let form = form.map_err(|message| Error::Line { path: path.to_owned(), line: at + 1, message })?;
        Ok(Document { line: at + 1, form })
    });
    let documents: Vec<Document> = documents.collect::<Result<_, Error>>()?;
    if documents.is_empty() { Err(Error::Empty { path: path.to_owned() }) } else { Ok(documents) }
}

/// The document on one line.
///
/// # Errors
/// What is wrong with it, for a person.
pub fn parse(line: &str) -> Result<Form, String> {
    closed(parse_open(line)?)
}

/// The document in a JSON object.
///
/// # Errors
/// As those of [`parse`].
pub fn parse_value(value: Value) -> Result<Form, String> {
    closed(form(serde_json::from_value(value).map_err(|error| no_object(&error))?)?)
}

fn no_object(error: &serde_json::Error) -> String {
    format!("it is no JSON object of ours ({error})")
}

/// A form in which there is something to learn.
fn closed(form: Form) -> Result<Form, String> {
    match form {
        Form::Completion { completion, .. } if completion.is_empty() => {
            Err("its completion is missing or empty: there is nothing to learn".to_owned())
        }
        form if form.is_open() => Err("no message is the assistant's: there is nothing to learn".to_owned()),
        form => Ok(form),
    }
}

fn parse_open(line: &str) -> Result<Form, String> {
    form(serde_json::from_str(line).map_err(|error| no_object(&error))?)
}

fn form(line: Line) -> Result<Form, String> {
    match line {
        Line { messages: Some(messages), tools, prompt: None, completion: None, text: None } => {
            chat(messages, tools.unwrap_or_default())
        }
        Line { prompt: Some(prompt), completion, messages: None, text: None, .. } => {
            Ok(Form::Completion { prompt, completion: completion.unwrap_or_default() })
        }
        Line { text: Some(text), messages: None, prompt: None, completion: None, .. } if !text.is_empty() => {
            Ok(Form::Text(text))
        }
        _ => {
            Err("it must have either `messages`, or `prompt` and `completion`, or a `text` that is not empty"
                .to_owned())
        }
    }
}

fn chat(messages: Vec<Value>, tools: Vec<Value>) -> Result<Form, String> {
    const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];
    for (at, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap_or_default();
        if !ROLES.contains(&role) {
            return Err(format!("the role of message {} is {:?}, not one of {}", at + 1, role, ROLES.join(", ")));
        }
        let calls = message["tool_calls"].as_array().is_some_and(|calls| !calls.is_empty());
        if !message["content"].is_string() && !calls {
            return Err(format!("message {} has neither a text as `content` nor `tool_calls`", at + 1));
        }
    }
    let asks = messages.last().is_some_and(|last| last["role"] == "user" || last["role"] == "tool");
    if !messages.iter().any(learned) && !asks {
        return Err(
            "it ends with nobody who asks, and no message is the assistant's: there is nothing to learn".to_owned()
        );
    }
    Ok(Form::Chat { messages: messages.into_iter().map(turn).collect(), tools })
}

/// Whether a turn is learned.
pub(crate) fn learned(message: &Value) -> bool {
    message["role"] == "assistant" && message["weight"].as_f64() != Some(0.0)
}

/// A turn as templates expect it: `developer` is a newer name for `system` that they do not know, and a turn that only calls tools has an empty text.
fn turn(mut message: Value) -> Value {
    if message["role"] == "developer" {
        message["role"] = "system".into();
    }
    // Tables write out every field that any of their messages has.
    if let Some(turn) = message.as_object_mut() {
        turn.retain(|_, value| !value.is_null());
    }
    if !message["content"].is_string() {
        message["content"] = "".into();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_told_apart() {
        let check = |line: &str, form: &str| {
            let found = match parse(line) {
                Ok(Form::Chat { messages, .. }) => format!("chat of {}", messages.len()),
                Ok(Form::Completion { .. }) => "completion".to_owned(),
                Ok(Form::Text(_)) => "text".to_owned(),
                Err(error) => error,
            };
            assert!(found.contains(form), "{line}: {found}");
        };
        let user = r#"{"role":"user","content":"Hi"}"#;
        check(&format!(r#"{{"messages":[{user},{{"role":"assistant","content":"Ho"}}]}}"#), "chat of 2");
        check(r#"{"prompt":"a","completion":"b","source":"x"}"#, "completion");
        check(r#"{"text":"a"}"#, "text");
        check(r#"{"text":""}"#, "must have either");
        check(r#"{"text":"a","prompt":"b"}"#, "must have either");
        check(r#"{"prompt":"a","completion":""}"#, "nothing to learn");
        check(r#"{"prompt":"a"}"#, "nothing to learn");
        check("[1]", "no JSON object");
        check("{", "no JSON object");
        check(&format!(r#"{{"messages":[{user}]}}"#), "nothing to learn");
        check(
            &format!(r#"{{"messages":[{user},{{"role":"assistant","content":"Ho","weight":0}}]}}"#),
            "nothing to learn",
        );
        check(r#"{"messages":[{"role":"robot","content":"Hi"}]}"#, "the role of message 1 is \"robot\"");
        check(r#"{"messages":[{"role":"assistant","content":[1]}]}"#, "message 1 has neither");
    }

    #[test]
    fn what_is_open_is_answered() {
        let check = |line: &str, open: bool| {
            let mut form = parse_open(line).unwrap();
            assert_eq!(form.is_open(), open, "{line}");
            form.answer("Ho".to_owned());
            assert!(!form.is_open(), "{line}");
        };
        check(r#"{"messages":[{"role":"user","content":"Hi"}]}"#, true);
        check(r#"{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Ho"}]}"#, false);
        check(r#"{"prompt":"a"}"#, true);
        check(r#"{"prompt":"a","completion":"b"}"#, false);
        check(r#"{"text":"a"}"#, false);
        assert!(parse_open(r#"{"messages":[{"role":"system","content":"Hi"}]}"#).is_err(), "nobody asks");
    }

    #[test]
    fn every_part_is_rewritten_in_its_place() {
        let call = r#"{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{}"}}],"content":"b"}"#;
        let check = |line: &str, expected: &[(&str, bool)]| {
            let form = parse(line).unwrap();
            assert_eq!(form.parts(), expected, "{line}");
            assert_eq!(parse_value(form.to_json()).unwrap(), form, "{line}");
            let (mut marked, mut at) = (form.clone(), 0);
            marked.rewrite(|text| {
                at += 1;
                (at != 2).then(|| format!("{text}!"))
            });
            let place =
                |(i, (text, _)): (usize, &(&str, bool))| if i == 1 { (*text).to_owned() } else { format!("{text}!") };
            let told: Vec<String> = expected.iter().enumerate().map(place).collect();
            assert_eq!(marked.parts().iter().map(|(text, _)| *text).collect::<Vec<_>>(), told);
        };
        check(r#"{"prompt":"p","completion":"c"}"#, &[("p", false), ("c", true)]);
        check(r#"{"text":"t"}"#, &[("t", true)]);
        check(
            &format!(r#"{{"messages":[{{"role":"user","content":"a","name":null}},{call}]}}"#),
            &[("a", false), ("b", true), ("{}", true)],
        );
    }

    #[test]
    fn lines_are_named() {
        let dir = std::env::temp_dir().join(format!("tessera-data-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("chats.jsonl");
        fs::write(&path, "\n{\"text\":\"a\"}\n\n{\"text\":1}\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("chats.jsonl, line 4: "));
        fs::write(&path, "{\"text\":\"a\"}\n\n{\"text\":\"b\"}\n").unwrap();
        assert_eq!(read(&path).unwrap().iter().map(|document| document.line).collect::<Vec<_>>(), [1, 3]);
        fs::write(&path, "\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("holds no document"));
        fs::remove_dir_all(&dir).unwrap();
    }
}
