//! A conversation becomes a prompt, and a wish for tools becomes a grammar and a parser.
//!
//! A model whose template lays out tools is told about them by its template; any other by a built-in prompt that the
//! conversation is rewritten with. Either way the answer's form is known, so calls that must come are held to it by a
//! grammar, and calls that may come are held to it from the moment they begin.

use protocol::{Chat, Error, Format, Message, Tool, ToolChoice};
use serde_json::{Map, Value, json};
use text::{
    ChatTemplate, Constraint, Rendered, ToolFormat, ToolParser, fold_tools, tool_grammar, tool_or_json_grammar,
};

/// The chat side of a model.
#[derive(Debug)]
pub(crate) struct ChatLayout {
    template: ChatTemplate,
    /// The form in which the template itself shows calls.
    own_format: Option<ToolFormat>,
}

/// A conversation laid out.
#[derive(Debug)]
pub(crate) struct LaidOut {
    pub(crate) rendered: Rendered,
    /// What holds calls to their form, if any may come.
    pub(crate) grammar: Option<ToolGrammar>,
    /// What reads the calls, if any may come.
    pub(crate) parser: Option<ToolParser>,
}

/// The grammar of calls.
#[derive(Debug)]
pub(crate) struct ToolGrammar {
    pub(crate) constraint: Constraint,
    /// Without it the answer could not be promised to be valid. Otherwise it is a help that may be missing.
    pub(crate) essential: bool,
}

impl ChatLayout {
    pub(crate) fn new(template: ChatTemplate) -> Self {
        let own_format = ToolFormat::of(&template);
        Self { template, own_format }
    }

    /// Lays out a conversation.
    ///
    /// # Errors
    /// What the template refuses, and wishes that contradict each other.
    pub(crate) fn lay_out(&self, chat: &Chat, format: &Format) -> Result<LaidOut, Error> {
        let tool_format = self.own_format.unwrap_or(ToolFormat::Tagged);
        check_tools(chat, format, tool_format)?;
        let offered = if chat.tool_choice == ToolChoice::None { &[][..] } else { &chat.tools };
        let tools: Vec<text::Tool> = offered.iter().map(tool).collect();
        let (turns, begun) = begun(chat)?;
        let rendered = self.render(turns, chat, &tools).map_err(|error| Error::invalid("messages", error))?;
        let rendered = self.template.with_answer(rendered, begun);
        let parser = (!tools.is_empty()).then(|| ToolParser::new(tool_format, &tools));
        let constraint = match either(chat, format) {
            Some(schema) => Some(tool_or_json_grammar(&tools, &schema, chat.parallel_tool_calls)),
            None => tool_grammar(tool_format, &tools, &choice(&chat.tool_choice), chat.parallel_tool_calls),
        };
        let may_fail =
            matches!(chat.tool_choice, ToolChoice::Auto | ToolChoice::None) && either(chat, format).is_none();
        let essential = !may_fail || offered.iter().any(|tool| tool.strict);
        let grammar = constraint.map(|constraint| ToolGrammar { constraint, essential });
        Ok(LaidOut { rendered, grammar, parser })
    }

    fn render(&self, turns: &[Message], chat: &Chat, tools: &[text::Tool]) -> Result<Rendered, text::Error> {
        let messages: Vec<Value> = turns.iter().map(message).collect();
        let args: Map<String, Value> = chat.template_args.clone().into_iter().collect();
        match self.own_format {
            Some(_) => {
                let tools: Vec<Value> = tools.iter().map(text::Tool::to_json).collect();
                self.template.render(&messages, &tools, true, &args)
            }
            None => self.template.render(&fold_tools(&messages, tools), &[], true, &args),
        }
    }
}

/// The turns to lay out, and the text that the answer begins with. Calls are parsed from an answer's first character on, so an
/// answer that somebody else began cannot hold any.
fn begun(chat: &Chat) -> Result<(&[Message], &str), Error> {
    if !chat.continue_last {
        return Ok((&chat.messages, ""));
    }
    match chat.messages.split_last() {
        Some((last, turns)) if last.role == "assistant" && last.tool_calls.is_empty() && chat.tools.is_empty() => {
            Ok((turns, last.content.as_deref().unwrap_or_default()))
        }
        _ => {
            let message = "only a last message of the assistant without tools can be continued";
            Err(Error::invalid("continue_final_message", message))
        }
    }
}

/// The schema of an answer that is to be JSON unless it calls tools.
fn either(chat: &Chat, format: &Format) -> Option<Value> {
    if chat.tools.is_empty() || chat.tool_choice != ToolChoice::Auto {
        return None;
    }
    match format {
        Format::JsonObject => Some(json!({"type": "object"})),
        Format::JsonSchema(schema) => Some(schema.clone()),
        Format::Text | Format::Regex(_) | Format::Lark(_) => None,
    }
}

fn check_tools(chat: &Chat, format: &Format, tool_format: ToolFormat) -> Result<(), Error> {
    // Untagged calls are JSON themselves: nothing would tell them from an answer.
    let possible = *format == Format::Text || tool_format == ToolFormat::Tagged && either(chat, format).is_some();
    let known = |name: &String| chat.tools.iter().any(|tool| tool.name == *name);
    match &chat.tool_choice {
        ToolChoice::Required if chat.tools.is_empty() => {
            Err(Error::invalid("tool_choice", "it demands a call, but no tools are given"))
        }
        ToolChoice::Named(name) if !known(name) => {
            Err(Error::invalid("tool_choice", format!("it names {name:?}, which is not among the tools")))
        }
        ToolChoice::Auto if !chat.tools.is_empty() && !possible => {
            let message = "this format and tools that may or may not be called cannot be promised together with this \
                           model; set tool_choice to \"none\" or \"required\", or ask for JSON";
            Err(Error::invalid("response_format", message))
        }
        _ => Ok(()),
    }
}

fn tool(tool: &Tool) -> text::Tool {
    text::Tool { name: tool.name.clone(), description: tool.description.clone(), parameters: tool.parameters.clone() }
}

fn choice(choice: &ToolChoice) -> text::ToolChoice {
    match choice {
        ToolChoice::Auto | ToolChoice::None => text::ToolChoice::Auto,
        ToolChoice::Required => text::ToolChoice::Required,
        ToolChoice::Named(name) => text::ToolChoice::Named(name.clone()),
    }
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
        turn["tool_calls"] = message.tool_calls.iter().map(call).collect();
    }
    turn
}

fn call(call: &protocol::ToolCall) -> Value {
    let arguments = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!(call.arguments));
    json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
}
