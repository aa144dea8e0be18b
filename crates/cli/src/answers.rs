//! What a model answers to documents that ask something.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    path::Path,
    sync::Arc,
};

use data::Form;
use engine::Engine;
use protocol::{Chat, Generate, GenerateRequest, Message, Prompt, TextOrTokens};
use serde_json::Value;

use crate::asked;

/// The texts of these answers, those that `path` does not keep asked for now; `doing` says what is done meanwhile.
pub(crate) async fn ask(
    model: &Arc<Engine>,
    doing: &'static str,
    requests: Vec<GenerateRequest>,
    path: &Path,
) -> anyhow::Result<Vec<String>> {
    let digest = Generate::models(&**model).first().map(|card| card.digest.clone() + &card.adapter).unwrap_or_default();
    let keys: Vec<u64> = requests.iter().map(|request| key(&digest, request)).collect();
    let service: Arc<dyn Generate> = model.clone();
    let known = asked::answers(&service, keys.iter().copied().zip(requests), path, doing).await?;
    Ok(keys.iter().map(|key| known.get(key).cloned().unwrap_or_default()).collect())
}

/// What an answer depends on. The keys of this hasher are fixed.
pub(crate) fn key(digest: &str, request: &GenerateRequest) -> u64 {
    let mut hasher = DefaultHasher::new();
    (digest, format!("{request:?}")).hash(&mut hasher);
    hasher.finish()
}

/// A document as far as somebody asks; `None` where nobody does, or with tools, whose calls are more than a text.
pub(crate) fn prompt(form: &Form) -> Option<Prompt> {
    match form {
        Form::Chat { messages, tools } if tools.is_empty() => Some(chat(messages)),
        Form::Completion { prompt, .. } => Some(Prompt::Raw(TextOrTokens::Text(prompt.clone()))),
        _ => None,
    }
}

/// What is asked in a document, and what should be answered.
pub(crate) fn question(form: &Form) -> Option<(Prompt, String)> {
    match form {
        Form::Chat { messages, tools } if tools.is_empty() => {
            let last = messages.iter().rposition(|message| message["role"] == "assistant")?;
            Some((chat(&messages[..last]), messages[last]["content"].as_str()?.to_owned()))
        }
        Form::Completion { completion, .. } => Some((prompt(form)?, completion.clone())),
        _ => None,
    }
}

fn chat(messages: &[Value]) -> Prompt {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let message = |message: &Value| Message {
        role: text(&message["role"]).unwrap_or_default(),
        content: text(&message["content"]),
        ..Message::default()
    };
    Prompt::Chat(Chat { messages: messages.iter().map(message).collect(), ..Chat::default() })
}
