//! An answer under a schema, from a service that knows none: tell it, check, ask once more.

use futures_util::{StreamExt, stream};
use protocol::{
    Error, ErrorKind, Event, EventStream, Finding, FinishReason, Format, Generate, GenerateRequest, JsonSchema,
    Message, Mistake, Outcome, Prompt, Usage,
};
use serde_json::{Value, json};

use crate::first;

/// How many mistakes the model and the record are told.
const MISTAKES: usize = 3;

/// A schema, ready to check with.
pub(super) struct Schema {
    source: Value,
    checked: JsonSchema,
}

/// A whole answer.
struct Heard {
    events: Vec<Event>,
    text: String,
    called: bool,
    usage: Usage,
}

impl Schema {
    pub(super) fn new(source: &Value) -> Result<Self, Error> {
        let checked = JsonSchema::new(source).map_err(|e| {
            Error::invalid("response_format", format!("`response_format` has a schema that is none: {e}."))
        })?;
        Ok(Self { source: source.clone(), checked })
    }

    /// Any JSON object.
    pub(super) fn any() -> Result<Self, Error> {
        Self::new(&json!({ "type": "object" }))
    }

    /// The checked answer of the service.
    pub(super) async fn ask(
        &self,
        service: &dyn Generate,
        mut request: GenerateRequest,
        json_mode: bool,
    ) -> Result<EventStream, Error> {
        self.tell(&mut request, json_mode)?;
        let mut heard = hear(service, request.clone()).await?;
        let mut finding = self.judge(&heard);
        if let Some(mistakes) = finding.as_ref().filter(|finding| finding.outcome == Outcome::Failed) {
            tracing::debug!(mistakes = %mistakes.detail, "an answer does not fit its schema: asking again");
            correct(&mut request, &heard.text, &mistakes.detail);
            let second = hear(service, request).await?;
            let spent = heard.usage;
            finding = self.judge(&second);
            heard = second;
            heard.usage.add(spent);
        }
        Ok(heard.deliver(finding))
    }

    /// The request as the service gets it: the schema in words in front, JSON mode where there is one.
    fn tell(&self, request: &mut GenerateRequest, json_mode: bool) -> Result<(), Error> {
        let plain = |name: &str, what: &str| {
            let message = format!("`{name}`: the model knows no schemas, so {what}.");
            Error::new(ErrorKind::Unsupported, message).with_param(name).with_code("unsupported_parameter")
        };
        if request.n > 1 {
            return Err(plain("n", "answers are checked one by one; ask for one"));
        }
        if request.logprobs.is_some() {
            return Err(plain("logprobs", "its answer may be written twice and has no scores of its own"));
        }
        let Prompt::Chat(chat) = &mut request.prompt else {
            return Err(plain(
                "response_format",
                "it must be told the one for this answer, which a raw prompt cannot; send messages",
            ));
        };
        let content = format!(
            "Answer with one JSON value that is valid under this JSON schema, and with nothing else:\n{}",
            self.source
        );
        let message = Message { role: "system".to_owned(), content: Some(content), ..Message::default() };
        let at = chat.messages.iter().take_while(|message| message.role == "system").count();
        chat.messages.insert(at, message);
        request.format = if json_mode { Format::JsonObject } else { Format::Text };
        Ok(())
    }

    /// What is to be said about an answer; nothing about one that calls tools instead.
    fn judge(&self, heard: &Heard) -> Option<Finding> {
        if heard.called {
            return None;
        }
        let mistakes = match serde_json::from_str::<Value>(bare(&heard.text)) {
            Err(_) => vec!["it is not JSON".to_owned()],
            Ok(value) => self.checked.mistakes(&value).iter().take(MISTAKES).map(place).collect(),
        };
        let outcome = if mistakes.is_empty() { Outcome::Passed } else { Outcome::Failed };
        Some(Finding { choice: Some(0), rule: "schema".to_owned(), outcome, detail: mistakes.join("; ") })
    }
}

/// Where a mistake is and which rule it breaks. The value itself is content, which a finding does not repeat.
fn place(mistake: &Mistake) -> String {
    let at = if mistake.at.is_empty() { "the whole" } else { &mistake.at };
    format!("{at} breaks {}", mistake.rule)
}

/// The answer without the fence that models like to put around JSON.
fn bare(text: &str) -> &str {
    let text = text.trim();
    let inner = text.strip_prefix("```json").or_else(|| text.strip_prefix("```"));
    inner.and_then(|inner| inner.strip_suffix("```")).map_or(text, str::trim)
}

fn correct(request: &mut GenerateRequest, answer: &str, mistakes: &str) {
    let Prompt::Chat(chat) = &mut request.prompt else { return };
    let say =
        |role: &str, content: String| Message { role: role.to_owned(), content: Some(content), ..Message::default() };
    let wrong = format!("That is not valid: {mistakes}. Answer again, with the corrected JSON value and nothing else.");
    chat.messages.extend([say("assistant", answer.to_owned()), say("user", wrong)]);
}

async fn hear(service: &dyn Generate, request: GenerateRequest) -> Result<Heard, Error> {
    let mut stream = service.generate(request).await?;
    let mut heard = Heard { events: Vec::new(), text: String::new(), called: false, usage: Usage::default() };
    while let Some(event) = stream.next().await {
        match event? {
            Event::Done(usage) => {
                heard.usage = usage;
                return Ok(heard);
            }
            Event::Text { text, .. } => heard.text.push_str(&text),
            event => {
                heard.called |= matches!(event, Event::ToolCall { .. });
                heard.events.push(event);
            }
        }
    }
    Err(first::cut())
}

impl Heard {
    /// The answer as events: its text in one piece, the finding in front of its end.
    fn deliver(self, finding: Option<Finding>) -> EventStream {
        let fits = finding.as_ref().is_some_and(|finding| finding.outcome == Outcome::Passed);
        let text = if fits { bare(&self.text).to_owned() } else { self.text };
        let text = (!text.is_empty()).then(|| Event::Text { choice: 0, text, logprobs: Vec::new() });
        let end = |event: &Event| matches!(event, Event::Finished { .. });
        let last = self.events.iter().find(|event| end(event)).cloned();
        let last = last.unwrap_or(Event::Finished { choice: 0, reason: FinishReason::Stop });
        let (started, others): (Vec<_>, Vec<_>) = self
            .events
            .into_iter()
            .filter(|event| !end(event))
            .partition(|event| matches!(event, Event::Started { .. } | Event::Routed(_)));
        let tail = finding.map(Event::Checked).into_iter().chain([last, Event::Done(self.usage)]);
        stream::iter(started.into_iter().chain(text).chain(others).chain(tail).map(Ok)).boxed()
    }
}
