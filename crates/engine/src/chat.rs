//! A conversation becomes a prompt, and a wish for tools becomes a grammar.

use protocol::{Chat, Error, Message};
use serde_json::{Map, Value, json};
use text::{ChatTemplate, Constraint, Tokenizer};

use crate::calls::Calls;

/// A prompt ready to be continued.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) tokens: Vec<u32>,
    /// The prompt's text, for callers who want it back.
    pub(crate) echo: String,
    pub(crate) constraint: Option<Constraint>,
    /// What to make of the answer if it may call tools.
    pub(crate) calls: Option<Calls>,
}

/// Lays out a conversation by the model's template.
pub(crate) fn lay_out(
    chat: &Chat,
    template: &ChatTemplate,
    tokenizer: &Tokenizer,
    constraint: Option<Constraint>,
) -> Result<Layout, Error> {
    let messages: Vec<Value> = chat.messages.iter().map(message).collect();
    let args: Map<String, Value> = chat.template_args.clone().into_iter().collect();
    let rendered = template.render(&messages, &[], true, &args).map_err(|error| Error::invalid("messages", error))?;
    let tokens = tokenizer.encode_rendered(&rendered);
    Ok(Layout { tokens, echo: rendered.text(), constraint, calls: None })
}

/// A turn as templates expect it. `developer` is a newer name for `system` that templates do not know; arguments of calls
/// are values, not text, so that templates can lay them out.
fn message(message: &Message) -> Value {
    let role = if message.role == "developer" { "system" } else { &message.role };
    let mut turn = json!({"role": role, "content": message.content.as_deref().unwrap_or("")});
    if let Some(name) = &message.name {
        turn["name"] = json!(name);
    }
    if let Some(id) = &message.tool_call_id {
        turn["tool_call_id"] = json!(id);
    }
    if !message.tool_calls.is_empty() {
        let call = |call: &protocol::ToolCall| {
            let arguments = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!(call.arguments));
            json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
        };
        turn["tool_calls"] = message.tool_calls.iter().map(call).collect();
    }
    turn
}
