//! Facts from text: what a decision's reader finds in texts whose facts are known, field by field.
//!
//! A field counts as right if its value equals the known one, where absent equals absent. Two readers are measured on the same
//! texts: a decision service ([`protocol::Decide`]), whose facts carry quotes, and a model that is simply held to the schema of the
//! facts and asked for all of them at once. A value is invented if it stands nowhere in the text: for the first if its quote
//! does not, for the second if the text names nothing for its field.

use std::{collections::BTreeMap, fs, path::Path};

use futures_util::StreamExt;
use protocol::{
    Chat, Conclusion, Decide, DecideRequest, DecisionCard, Fact, Format, Generate, GenerateRequest, Message, Prompt,
    StepEvent, Usage,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{Error, Estimate, Progress, Report, Row, score::collect, wilson};

/// Tokens that a filled-in schema may take.
const ANSWER: usize = 256;

/// A text whose facts are known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FactCase {
    /// The text.
    pub text: String,
    /// Every field that is measured; `null` for one the text does not name.
    pub facts: BTreeMap<String, Value>,
}

impl FactCase {
    /// Reads a file with one case a line.
    ///
    /// # Errors
    /// A file that cannot be read, or the line that does not fit.
    pub fn load(path: &Path) -> Result<Vec<Self>, Error> {
        let text = fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let case = |(place, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|error| Error::Data {
                path: path.to_owned(),
                line: place + 1,
                message: error.to_string(),
            })
        };
        text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(case).collect()
    }
}

/// Who reads.
#[derive(Debug, Clone, Copy)]
pub enum Reader<'a> {
    /// A decision service.
    Decision(&'a dyn Decide),
    /// A model that is held to the schema of the facts.
    Schema(&'a dyn Generate),
}

/// How well facts were found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FactsResult {
    /// Who read.
    pub reader: String,
    /// The share that is right, by field.
    pub fields: BTreeMap<String, Estimate>,
    /// Over the fields the decision cannot do without.
    pub required: Estimate,
    /// Over all fields.
    pub all: Estimate,
    /// Values that stand nowhere in their text.
    pub invented: usize,
    /// What is wrong.
    pub mistakes: Vec<Mistake>,
    /// Tokens it took.
    pub usage: Usage,
}

/// A field that was read wrongly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mistake {
    /// The text.
    pub text: String,
    /// The field.
    pub field: String,
    /// What it says.
    pub wanted: Value,
    /// What was found.
    pub found: Value,
}

/// Has `reader` read every text for the decision of `card`.
///
/// # Errors
/// The service's own.
pub async fn facts(
    reader: Reader<'_>,
    card: &DecisionCard,
    cases: &[FactCase],
    progress: Progress<'_>,
) -> Result<FactsResult, Error> {
    let (mut tally, mut invented, mut usage) = (Tally::default(), 0, Usage::default());
    for (done, case) in cases.iter().enumerate() {
        let (found, used) = match reader {
            Reader::Decision(service) => decided(service, card, &case.text).await?,
            Reader::Schema(service) => filled(service, card, &case.text).await?,
        };
        usage.prompt_tokens += used.prompt_tokens;
        usage.cached_tokens += used.cached_tokens;
        usage.completion_tokens += used.completion_tokens;
        invented += found.iter().filter(|(field, fact)| is_invented(case, field, fact)).count();
        tally.count(case, &found);
        progress(done + 1, cases.len());
    }
    let reader = match reader {
        Reader::Decision(_) => "assigned",
        Reader::Schema(_) => "constrained JSON",
    };
    Ok(tally.result(reader, card, invented, usage))
}

/// What was found: a fact by field. Absent ones are left out.
type Found = BTreeMap<String, Fact>;

fn is_invented(case: &FactCase, field: &str, fact: &Fact) -> bool {
    match &fact.quote {
        Some(quote) => case.text.get(quote.start..quote.end) != Some(quote.text.as_str()),
        None => case.facts.get(field).is_some_and(Value::is_null),
    }
}

async fn decided(service: &dyn Decide, card: &DecisionCard, text: &str) -> Result<(Found, Usage), Error> {
    let request = DecideRequest {
        id: "facts".to_owned(),
        decision: card.id.clone(),
        facts: Map::new(),
        text: Some(text.to_owned()),
        model: String::new(),
        language: None,
        tenant: String::new(),
        deadline: None,
    };
    let mut events = service.decide(request).await?;
    while let Some(event) = events.next().await {
        if let StepEvent::Done(conclusion) = event?
            && let Conclusion::Decision(decision) = *conclusion
        {
            return Ok((decision.facts, decision.usage));
        }
    }
    Err(Error::unexpected("a decision", "a stream that ended early"))
}

async fn filled(service: &dyn Generate, card: &DecisionCard, text: &str) -> Result<(Found, Usage), Error> {
    let empty = Map::new();
    let known = card.schema["properties"].as_object().unwrap_or(&empty);
    let mut properties = Map::new();
    let mut content = format!("{text}\n\nWrite these facts of the text as JSON, with null for what it does not say:\n");
    for (name, property) in known {
        let kind = property["type"].as_str().unwrap_or("string");
        properties.insert(name.clone(), json!({"type": [kind, "null"]}));
        let described = property["description"].as_str().or_else(|| property["title"].as_str()).unwrap_or_default();
        content.push_str(&format!("{name}: {described}\n"));
    }
    let required: Vec<&String> = known.keys().collect();
    let schema = json!({
        "type": "object", "properties": properties, "required": required, "additionalProperties": false,
    });
    let message = Message { role: "user".to_owned(), content: Some(content), ..Message::default() };
    let chat = Chat { messages: vec![message], ..Chat::default() };
    let mut request = GenerateRequest::new(Prompt::Chat(chat), ANSWER);
    request.sampling.temperature = 0.0;
    request.format = Format::JsonSchema(schema);
    let answer = collect(service.generate(request).await?).await?;
    // An answer that was cut says nothing.
    let values: Map<String, Value> = serde_json::from_str(&answer.text).unwrap_or_default();
    let told = values.into_iter().filter(|(_, value)| !value.is_null());
    Ok((told.map(|(name, value)| (name, Fact { value, quote: None })).collect(), answer.usage))
}

#[derive(Debug, Default)]
struct Tally {
    /// Right and all, by field.
    fields: BTreeMap<String, (usize, usize)>,
    mistakes: Vec<Mistake>,
}

impl Tally {
    fn count(&mut self, case: &FactCase, found: &Found) {
        for (field, wanted) in &case.facts {
            let value = found.get(field).map_or(Value::Null, |fact| fact.value.clone());
            let right = equal(&value, wanted);
            let (hits, n) = self.fields.entry(field.clone()).or_default();
            *hits += usize::from(right);
            *n += 1;
            if !right {
                let (text, field, wanted) = (case.text.clone(), field.clone(), wanted.clone());
                self.mistakes.push(Mistake { text, field, wanted, found: value });
            }
        }
    }

    fn over(&self, counts: impl Fn(&str) -> bool) -> Estimate {
        let counted = self.fields.iter().filter(|(field, _)| counts(field));
        let (hits, n) = counted.fold((0, 0), |sum, (_, (hits, n))| (sum.0 + hits, sum.1 + n));
        wilson(hits, n)
    }

    fn result(self, reader: &str, card: &DecisionCard, invented: usize, usage: Usage) -> FactsResult {
        let needed: Vec<&str> =
            card.schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        FactsResult {
            reader: reader.to_owned(),
            fields: self.fields.iter().map(|(field, (hits, n))| (field.clone(), wilson(*hits, *n))).collect(),
            required: self.over(|field| needed.contains(&field)),
            all: self.over(|_| true),
            invented,
            mistakes: self.mistakes,
            usage,
        }
    }
}

/// Amounts are equal to the cent.
fn equal(found: &Value, wanted: &Value) -> bool {
    match (found.as_f64(), wanted.as_f64()) {
        (Some(found), Some(wanted)) => (found - wanted).abs() < 0.01,
        _ => found == wanted,
    }
}

impl FactsResult {
    /// The figures as a table, mistakes below.
    #[must_use]
    pub fn report(&self) -> Report {
        let percent = |name: &str, estimate: Estimate| Row::of(name, estimate.map(|share| share * 100.0), "%");
        let mut rows: Vec<Row> = self.fields.iter().map(|(field, estimate)| percent(field, *estimate)).collect();
        rows.push(percent("required fields", self.required));
        rows.push(percent("all fields", self.all));
        let tokens = self.usage.prompt_tokens - self.usage.cached_tokens + self.usage.completion_tokens;
        let report = Report::new(format!("facts, {}", self.reader), rows)
            .note(format!("invented values: {}; tokens computed: {tokens}", self.invented));
        self.mistakes.iter().fold(report, |report, mistake| {
            let Mistake { text, field, wanted, found } = mistake;
            report.note(format!("{field} is {found} and not {wanted}: {text}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use protocol::Quote;

    use super::*;

    #[test]
    fn what_is_counted() {
        let facts = [("a", json!(5)), ("b", Value::Null), ("c", json!("USD"))];
        let facts = facts.map(|(name, value)| (name.to_owned(), value)).into();
        let case = FactCase { text: "I have 5".to_owned(), facts };
        let fact = |value: Value, quote: Option<(usize, usize)>| Fact {
            value,
            quote: quote.map(|(start, end)| Quote { text: "5".to_owned(), start, end }),
        };
        let found: Found = [
            ("a".to_owned(), fact(json!(5.001), Some((7, 8)))),
            ("b".to_owned(), fact(json!(1), None)),
            ("c".to_owned(), fact(json!("EUR"), Some((0, 1)))),
        ]
        .into();
        let mut tally = Tally::default();
        tally.count(&case, &found);
        let card = DecisionCard {
            id: String::new(),
            title: String::new(),
            version: String::new(),
            schema: json!({"required": ["a"]}),
            graph: Value::Null,
            problem: None,
        };
        let invented: Vec<&String> =
            found.iter().filter(|(name, fact)| is_invented(&case, name, fact)).map(|(name, _)| name).collect();
        assert_eq!(invented, ["b", "c"]);
        let result = tally.result("r", &card, invented.len(), Usage::default());
        assert_eq!((result.required.value, result.all.n), (1.0, 3));
        assert_eq!(result.mistakes.len(), 2);
        assert!(result.report().to_string().contains("invented values: 2"));
    }
}
