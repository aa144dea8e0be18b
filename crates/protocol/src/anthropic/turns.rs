//! Turns on the wire and messages in a conversation: one turn of blocks is several plain messages, and the other way round.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    content::{Block, Content, Said},
    fields,
};
use crate::openai::schema::Described;
use crate::{
    Error, Message,
    openai::{
        Rest,
        body::{at, settle},
    },
};

/// One of the `messages`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::TURN))]
#[serde(default)]
pub struct Turn {
    /// `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: Content,
    /// Other fields.
    #[serde(flatten)]
    pub rest: Rest,
}

impl Turn {
    /// The plain messages of this turn, or the field at fault below `path`.
    pub(super) fn check(self, path: &str) -> Result<Vec<Message>, Error> {
        settle(&fields::TURN, path, self.rest)?;
        let content = at(path, "content");
        match self.role.as_str() {
            "user" => user(self.content, &content),
            "assistant" => assistant(self.content, &content).map(|message| vec![message]),
            "system" => Ok(vec![message("system", self.content.text(&content)?)]),
            role => {
                let place = at(path, "role");
                Err(Error::invalid(&*place, format!("`{place}` is \"{role}\", but must be user or assistant.")))
            }
        }
    }
}

/// Results of tools become turns of their own, in front of what the user says: models expect them right behind the calls.
fn user(content: Content, path: &str) -> Result<Vec<Message>, Error> {
    let blocks = match content {
        Content::Text(text) => return Ok(vec![message("user", text)]),
        Content::Blocks(blocks) => blocks,
    };
    if blocks.is_empty() {
        return Err(empty(path));
    }
    let (mut messages, mut texts) = (Vec::new(), Vec::new());
    for (i, block) in blocks.into_iter().enumerate() {
        let path = format!("{path}[{i}]");
        match block.check(&path)? {
            Said::Text(text) => texts.push(text),
            Said::Result(id, text) => {
                messages.push(Message { tool_call_id: Some(id), ..message("tool", text) });
            }
            Said::Call(_) | Said::Thought => return Err(misplaced(&path, "assistant")),
        }
    }
    if !texts.is_empty() {
        messages.push(message("user", texts.join("\n")));
    }
    Ok(messages)
}

fn assistant(content: Content, path: &str) -> Result<Message, Error> {
    let blocks = match content {
        Content::Text(text) => return Ok(message("assistant", text)),
        Content::Blocks(blocks) => blocks,
    };
    let (mut texts, mut tool_calls) = (Vec::new(), Vec::new());
    for (i, block) in blocks.into_iter().enumerate() {
        let path = format!("{path}[{i}]");
        match block.check(&path)? {
            Said::Text(text) => texts.push(text),
            Said::Call(call) => tool_calls.push(call),
            Said::Thought => {}
            Said::Result(..) => return Err(misplaced(&path, "user")),
        }
    }
    if texts.is_empty() && tool_calls.is_empty() {
        return Err(empty(path));
    }
    let content = (!texts.is_empty()).then(|| texts.join("\n"));
    Ok(Message { role: "assistant".to_owned(), content, tool_calls, ..Message::default() })
}

fn message(role: &str, text: String) -> Message {
    Message { role: role.to_owned(), content: Some(text), ..Message::default() }
}

fn empty(path: &str) -> Error {
    Error::invalid(path, format!("`{path}` is required: a string, or at least one block."))
}

fn misplaced(path: &str, role: &str) -> Error {
    let place = at(path, "type");
    Error::invalid(&*place, format!("`{place}`: such blocks belong to messages of role {role}."))
}

/// The system prompt and the turns of plain messages. Neighbours of one role become one turn: the API wants all results of
/// parallel calls together. System messages go to the front wherever they stand, joined by line breaks, which is what
/// Anthropic's own OpenAI-compatible endpoint does with them.
pub(super) fn show(messages: &[Message]) -> (Option<String>, Vec<Turn>) {
    let (mut system, mut turns): (Vec<&str>, Vec<(&str, Vec<Block>)>) = (Vec::new(), Vec::new());
    for message in messages {
        let (role, blocks) = match message.role.as_str() {
            "system" | "developer" => {
                system.extend(message.content.as_deref());
                continue;
            }
            "assistant" => ("assistant", said(message)),
            "tool" => {
                let content = message.content.as_deref().unwrap_or_default();
                ("user", vec![Block::result(message.tool_call_id.as_deref().unwrap_or_default(), content)])
            }
            _ => ("user", said(message)),
        };
        match turns.last_mut() {
            Some((last, before)) if *last == role => before.extend(blocks),
            _ => turns.push((role, blocks)),
        }
    }
    let turns = turns.into_iter().filter(|(_, blocks)| !blocks.is_empty()).map(|(role, blocks)| turn(role, blocks));
    ((!system.is_empty()).then(|| system.join("\n")), turns.collect())
}

/// The API refuses blocks of empty text.
fn said(message: &Message) -> Vec<Block> {
    let text = message.content.as_deref().filter(|text| !text.is_empty()).map(Block::text);
    text.into_iter().chain(message.tool_calls.iter().map(Block::call)).collect()
}

/// A turn of one text is a string.
fn turn(role: &str, blocks: Vec<Block>) -> Turn {
    let content = match <[Block; 1]>::try_from(blocks) {
        Ok([Block { text: Some(text), .. }]) => Content::Text(text),
        Ok(one) => Content::Blocks(one.into()),
        Err(several) => Content::Blocks(several),
    };
    Turn { role: role.to_owned(), content, rest: Rest::new() }
}
