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
}

#[derive(Deserialize)]
struct Line {
    messages: Option<Vec<Value>>,
    #[serde(default)]
    tools: Vec<Value>,
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
    match parse_open(line)? {
        Form::Completion { completion, .. } if completion.is_empty() => {
            Err("its completion is missing or empty: there is nothing to learn".to_owned())
        }
        form if form.is_open() => Err("no message is the assistant's: there is nothing to learn".to_owned()),
        form => Ok(form),
    }
}

fn parse_open(line: &str) -> Result<Form, String> {
    let line: Line = serde_json::from_str(line).map_err(|error| format!("it is no JSON object of ours ({error})"))?;
    match line {
        Line { messages: Some(messages), tools, prompt: None, completion: None, text: None } => chat(messages, tools),
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
