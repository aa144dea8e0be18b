//! Chat templates, rendered as `transformers` renders them (`apply_chat_template`).
//!
//! Templates are Jinja programs that come with a model. minijinja runs them; `python` supplies what templates expect of
//! Python (`tojson`, `strftime_now`, string methods). A caller's strings may spell control tokens (`<|im_end|>`), and once
//! a template has woven everything into one text nobody can tell whose those are; so `marks` brackets them on the way in
//! and takes the brackets out of the result, leaving behind where they stood.
//!
//! A template is as trusted as the model file it came with: it cannot read anything but its arguments, and fuel ends it
//! when it runs much longer than the messages justify.

mod marks;
mod python;

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value as Variable};
use serde_json::{Map, Value, json};

use self::marks::Marks;
use crate::{Error, Tokenizer};

/// A compiled template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    marks: Marks,
    /// `bos_token` and `eos_token`, where the tokenizer has them.
    tokens: Vec<(&'static str, Variable)>,
    lays_out_tools: bool,
}

/// The text of a conversation, knowing which parts came from the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    text: String,
    /// Where callers' strings spell control tokens; an empty range is a place that no control token may straddle.
    literal: Vec<Range<usize>>,
}

/// The name of the one template in an environment.
const NAME: &str = "chat_template";

/// The name of the tool a template is shown to see what it does with tools.
const PROBE: &str = "probe_of_tool_support";

/// Instructions any template may run, and further ones for every value in its arguments. Templates of real models take
/// some 20 per value; the rest is room.
const FUEL: u64 = 50_000;
const FUEL_PER_VALUE: u64 = 1_000;

impl Rendered {
    /// The text exactly as `transformers` renders it.
    pub fn text(&self) -> String {
        self.text.clone()
    }

    /// The same, borrowed.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Ranges of the text that are a user's though they look like control tokens.
    pub(crate) fn literal(&self) -> &[Range<usize>] {
        &self.literal
    }
}

impl ChatTemplate {
    /// Compiles a template. The texts of bos and eos come from the tokenizer, and so do the control tokens that a
    /// caller's text must not be able to spell.
    pub fn new(source: &str, tokenizer: &Tokenizer) -> Result<Self, Error> {
        Self::with_clock(source, tokenizer, wall_clock)
    }

    /// The same with a clock for templates that ask for the date (`strftime_now`, told in UTC).
    pub fn with_clock(
        source: &str,
        tokenizer: &Tokenizer,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        if source.contains(marks::is_mark) {
            return Err(Error::Template("it contains Unicode noncharacters (U+FDD0..U+FDD3); remove them".into()));
        }
        let mut environment = environment();
        environment.add_function("strftime_now", move |format: &str| python::strftime(format, clock()));
        environment
            .add_template_owned(NAME, python::without_generation_tags(source))
            .map_err(|error| explain(&error))?;
        let text = |id: Option<u32>| Some(Variable::from(std::str::from_utf8(tokenizer.bytes(id?)).ok()?));
        let tokens = [("bos_token", text(tokenizer.bos())), ("eos_token", text(tokenizer.eos()))];
        let tokens = tokens.into_iter().filter_map(|(name, token)| Some((name, token?))).collect();
        let mut template =
            Self { environment, marks: Marks::new(Arc::clone(tokenizer.specials())), tokens, lays_out_tools: false };
        template.lays_out_tools = template.finds_tools();
        Ok(template)
    }

    /// The template itself lays out tools.
    pub fn supports_tools(&self) -> bool {
        self.lays_out_tools
    }

    /// Asked by showing it a tool and looking for the tool's name in the text.
    fn finds_tools(&self) -> bool {
        self.probe(&[json!({"role": "user", "content": "x"})]).is_some_and(|text| text.contains(PROBE))
    }

    /// The text of a conversation with a tool and, if the template takes it, a call with `{"probe_argument": 1}`. `None`
    /// if the template does not lay out tools.
    pub(crate) fn shown_call(&self) -> Option<String> {
        let call = json!({"name": PROBE, "arguments": {"probe_argument": 1}});
        let call = json!({"id": "abcdefghi", "type": "function", "function": call});
        let user = json!({"role": "user", "content": "x"});
        let assistant = json!({"role": "assistant", "content": "", "tool_calls": [call]});
        let shown = self.lays_out_tools.then(|| self.probe(&[user.clone(), assistant]))?;
        shown.or_else(|| self.probe(&[user]))
    }

    fn probe(&self, messages: &[Value]) -> Option<String> {
        let parameters = json!({"type": "object", "properties": {"probe_argument": {"type": "integer"}}});
        let function = json!({"name": PROBE, "description": "", "parameters": parameters});
        let tool = json!({"type": "function", "function": function});
        Some(self.render(messages, &[tool], true, &Map::new()).ok()?.text)
    }

    /// Renders messages (OpenAI-shaped JSON objects), tools (OpenAI-shaped) and further variables.
    pub fn render(
        &self,
        messages: &[Value],
        tools: &[Value],
        add_generation_prompt: bool,
        args: &Map<String, Value>,
    ) -> Result<Rendered, Error> {
        let mut values = 0;
        let mut list =
            |list: &[Value]| -> Variable { list.iter().map(|value| self.marks.mark(value, &mut values)).collect() };
        let messages = list(&messages.iter().map(with_reasoning).collect::<Vec<_>>());
        let tools = if tools.is_empty() { Variable::from(()) } else { list(tools) };
        let mut variables = self.tokens.clone();
        variables.extend([
            ("documents", Variable::from(())),
            ("messages", messages),
            ("tools", tools),
            ("add_generation_prompt", Variable::from(add_generation_prompt)),
        ]);
        let given = args.iter().map(|(name, value)| (name.as_str(), self.marks.mark(value, &mut values)));
        let given: Vec<_> = given.filter(|(name, _)| *name != "messages" && *name != "tools").collect();
        let context = Variable::from_pairs(variables.into_iter().chain(given));
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(FUEL + FUEL_PER_VALUE * values));
        let marked = environment.get_template(NAME).and_then(|template| template.render(context));
        let (text, literal) = marks::unmark(&marked.map_err(|error| explain(&error))?);
        Ok(Rendered { text, literal })
    }

    /// The same conversation with the beginning of the answer behind it: a caller's text like any other.
    #[must_use]
    pub fn with_answer(&self, mut rendered: Rendered, begun: &str) -> Rendered {
        let (text, literal) = marks::unmark(&self.marks.mark(&Value::from(begun), &mut 0).to_string());
        let at = rendered.text.len();
        rendered.literal.extend((!text.is_empty()).then_some(at..at));
        rendered.literal.extend(literal.into_iter().map(|range| range.start + at..range.end + at));
        rendered.text.push_str(&text);
        rendered
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    // Both as in `transformers`; the default, no whitespace control, could only be worse.
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.unwrap_or_default());
    python::install(&mut environment);
    environment.add_function("raise_exception", |message: &str| -> Result<Variable, minijinja::Error> {
        let message = marks::unmark(message).0;
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, "raised").with_source(Raised(message)))
    });
    environment
}

/// What a template says when it refuses.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

/// The template's own message if it raised one, else where and why it failed.
fn explain(error: &minijinja::Error) -> Error {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(Raised(message)) = cause.downcast_ref() {
            return Error::Template(message.clone());
        }
        source = cause.source();
    }
    Error::Template(marks::unmark(&error.to_string()).0)
}

/// Reasoning goes by several names: templates get it by all that they may ask for, as in `transformers`.
fn with_reasoning(message: &Value) -> Value {
    const NAMES: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
    let found = NAMES.iter().find_map(|name| message.get(name).filter(|value| !value.is_null()));
    let (Some(reasoning), Some(fields)) = (found, message.as_object()) else { return message.clone() };
    let mut all = Map::new();
    all.insert("thinking".into(), reasoning.clone());
    all.extend(fields.clone());
    all.insert("reasoning_content".into(), reasoning.clone());
    Value::Object(all)
}

#[expect(clippy::disallowed_methods, reason = "the date a template prints; `with_clock` injects another")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests;
