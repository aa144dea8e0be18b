//! What the teacher answers where documents have no answer; kept, so that no prompt is answered twice.

use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash, Hasher},
    path::Path,
    sync::Arc,
};

use anyhow::Context;
use data::Form;
use engine::Engine;
use protocol::{Chat, Generate, GenerateRequest, Message, Prompt, Sampling, TextOrTokens};
use serde_json::Value;

use super::{DistillArgs, sources};
use crate::{asked, train::documents::Source};

/// The documents, with answers in all of them, and how many are the teacher's.
pub(super) async fn fill(
    args: &DistillArgs,
    folder: &Path,
    teacher: &Arc<Engine>,
) -> anyhow::Result<([Option<Source>; 2], usize)> {
    let mut sources = sources(args)?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join("answers.jsonl");
    let documents = sources.iter_mut().flatten().flat_map(|source| &mut source.documents);
    let mut open: Vec<&mut Form> = documents.map(|document| &mut document.form).filter(|form| form.is_open()).collect();
    if open.is_empty() {
        return Ok((sources, 0));
    }
    let digest = teacher.models().first().map(|card| card.digest.clone() + &card.adapter).unwrap_or_default();
    let keys: Vec<u64> = open.iter().map(|form| key(args, &digest, form)).collect();
    let asked = open.iter().zip(&keys).filter_map(|(form, key)| Some((*key, request(args, prompt(form)?))));
    let asked: Vec<(u64, GenerateRequest)> = asked.collect();
    let service: Arc<dyn Generate> = teacher.clone();
    let known = asked::answers(&service, asked, &path, "the teacher answers").await?;
    let mut answered = 0;
    for (form, text) in open.iter_mut().zip(&keys).filter_map(|(form, key)| Some((form, known.get(key)?))) {
        form.answer(text.clone());
        answered += 1;
    }
    Ok((sources, answered))
}

/// What an answer depends on. The keys of this hasher are fixed.
fn key(args: &DistillArgs, digest: &str, form: &Form) -> u64 {
    let mut hasher = DefaultHasher::new();
    let DistillArgs { temperature, max_tokens, seed, .. } = args;
    (digest, temperature.to_bits(), max_tokens, seed, format!("{form:?}")).hash(&mut hasher);
    hasher.finish()
}

/// A request for one answer.
pub(super) fn request(args: &DistillArgs, prompt: Prompt) -> GenerateRequest {
    let sampling = Sampling { temperature: args.temperature, seed: Some(args.seed), ..Sampling::default() };
    GenerateRequest { sampling, ..GenerateRequest::new(prompt, args.max_tokens) }
}

/// A document as far as somebody asks; `None` where nobody does, or with tools, whose calls are more than a text.
fn prompt(form: &Form) -> Option<Prompt> {
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
