//! What a request says: every text of it that the service behind may read.
//!
//! Texts are masked or the request is refused: messages, prompts, descriptions of tools, and the strings inside their schemas and that of
//! the answer. Arguments of calls are JSON and judged as what they mean. Names are judged too, but nothing can stand in their place: the name of a tool, a
//! speaker or a property must be the same wherever it occurs, and a pattern, a reference or a grammar with a mask in it means
//! something else. So what would be masked in a text refuses a request that has it in a name. Not read are ids of calls, which are
//! random, and numbers in schemas, which are bounds.

use guard::{Direction, Guard};
use protocol::{Chat, Error, Finding, Format, GenerateRequest, Message, Prompt, TextOrTokens, Tool, ToolChoice};
use serde_json::Value;

use super::{blocked, blocks, finding, judge, judge_tokens, judged, on_name};

/// Judges what comes in and puts masks into it; an error is a finding that blocks.
pub(super) fn request(guard: &Guard, request: &mut GenerateRequest) -> Result<Vec<Finding>, Error> {
    let mut input = Input { guard, findings: Vec::new() };
    match &mut request.prompt {
        Prompt::Raw(TextOrTokens::Text(text)) => input.text("prompt", text)?,
        Prompt::Raw(TextOrTokens::Tokens(_)) => judge_tokens(guard, "prompt")?,
        Prompt::Chat(chat) => input.chat(chat)?,
    }
    match &mut request.format {
        Format::JsonSchema(schema) => input.value("response_format", schema)?,
        Format::Regex(grammar) | Format::Lark(grammar) => input.name("response_format", grammar)?,
        Format::Text | Format::JsonObject => {}
    }
    Ok(input.findings)
}

/// A request that is being read.
struct Input<'a> {
    guard: &'a Guard,
    findings: Vec<Finding>,
}

impl Input<'_> {
    fn chat(&mut self, chat: &mut Chat) -> Result<(), Error> {
        for (i, message) in chat.messages.iter_mut().enumerate() {
            self.message(&format!("messages[{i}]"), message)?;
        }
        for (i, tool) in chat.tools.iter_mut().enumerate() {
            self.tool(&format!("tools[{i}].function"), tool)?;
        }
        if let ToolChoice::Named(name) = &chat.tool_choice {
            self.name("tool_choice", name)?;
        }
        chat.template_args.iter_mut().try_for_each(|(key, value)| {
            self.name("chat_template_kwargs", key)?;
            self.value("chat_template_kwargs", value)
        })
    }

    fn message(&mut self, place: &str, message: &mut Message) -> Result<(), Error> {
        if let Some(content) = &mut message.content {
            self.text(&format!("{place}.content"), content)?;
        }
        if let Some(name) = &message.name {
            self.name(&format!("{place}.name"), name)?;
        }
        for (k, call) in message.tool_calls.iter_mut().enumerate() {
            let place = format!("{place}.tool_calls[{k}].function");
            self.name(&format!("{place}.name"), &call.name)?;
            let report = self.guard.check_json(&call.arguments, Direction::In);
            self.findings.extend(judged(&format!("{place}.arguments"), report, &mut call.arguments)?);
        }
        Ok(())
    }

    fn tool(&mut self, place: &str, tool: &mut Tool) -> Result<(), Error> {
        self.name(&format!("{place}.name"), &tool.name)?;
        if let Some(description) = &mut tool.description {
            self.text(&format!("{place}.description"), description)?;
        }
        tool.parameters.as_mut().map_or(Ok(()), |schema| self.value(&format!("{place}.parameters"), schema))
    }

    fn text(&mut self, place: &str, text: &mut String) -> Result<(), Error> {
        self.findings.extend(judge(self.guard, place, text)?);
        Ok(())
    }

    /// The strings in a schema. The place is the whole schema's: the way to a string in it is made of the caller's words.
    fn value(&mut self, place: &str, value: &mut Value) -> Result<(), Error> {
        match value {
            Value::String(text) => self.text(place, text),
            Value::Array(values) => values.iter_mut().try_for_each(|value| self.value(place, value)),
            Value::Object(fields) => fields.iter_mut().try_for_each(|(key, value)| {
                self.name(place, key)?;
                match (key.as_str(), value) {
                    ("pattern" | "$ref" | "$id" | "$anchor", Value::String(name)) => self.name(place, name),
                    (_, value) => self.value(place, value),
                }
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        }
    }

    /// A text that no mask can stand in: an error is a finding that blocks or masks.
    fn name(&mut self, place: &str, name: &str) -> Result<(), Error> {
        let verdicts = on_name(self.guard, name, Direction::In);
        if verdicts.iter().any(blocks) {
            return Err(blocked(place, &verdicts));
        }
        self.findings.extend(verdicts.iter().map(|verdict| finding(None, place, verdict)));
        Ok(())
    }
}
