//! One decision: facts from the caller and the text, questions where some are missing, else the walk through the graph.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use protocol::{
    Conclusion, DecideRequest, Decision, Error, ErrorKind, Fact, Question, Step, StepEvent, StepStream, Usage,
};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use crate::{
    explain::Speaker,
    facts::{
        assign::{Assigned, Read, reading},
        cues::{Cues, choices},
        date::Day,
        denied::denied,
        judge::{Judge, Judgement, Matter, Method, add},
        over::without_past,
        propose::{Proposal, What, propose},
        quotes::{matching, without_parts},
        schema::{Facts, Kind, Language, Slot},
    },
    flow::{self, Steps, Stopwatch},
    graph::{Visit, evaluate},
    library::{self, Library, Set},
    models::Models,
};

/// The longest text that is read, in bytes.
const LONGEST_TEXT: usize = 16 << 10;
/// Proposals the model is asked about at most, those with the nearest cues.
const JUDGED: usize = 24;

/// A decision that was admitted.
#[derive(Debug)]
pub(crate) struct Decider {
    request: DecideRequest,
    set: Arc<Set>,
    decision: Arc<library::Decision>,
    version: String,
    judge: Option<Judge>,
    language: Language,
    today: Day,
}

impl Decider {
    /// Checks all that can be checked before the work begins.
    pub(crate) fn new(library: &Library, models: &Models, today: Day, request: DecideRequest) -> Result<Self, Error> {
        let set = library.current();
        let (decision, version) = find(&set, &request.decision)?;
        if let Some(facts) = &decision.facts {
            facts.check(&request.facts).map_err(|(name, message)| Error::invalid(format!("facts.{name}"), message))?;
        }
        let text = request.text.as_deref().unwrap_or_default();
        if text.len() > LONGEST_TEXT {
            let message = format!("The text has {} bytes; up to {LONGEST_TEXT} are read.", text.len());
            return Err(Error::invalid("text", message));
        }
        if !text.is_empty() && decision.facts.is_none() {
            let message = "This decision has no schema that says how a text speaks of its facts; give them as `facts`.";
            return Err(Error::invalid("text", message));
        }
        let judge = judge(models, &request)?;
        let tag = request.language.as_deref();
        let language = tag.map_or_else(|| Language::of_text(text), Language::of_tag);
        Ok(Self { request, set, decision, version, judge, language, today })
    }

    /// The decision as a stream of its steps.
    pub(crate) fn stream(self) -> StepStream {
        flow::stream(self.request.deadline, |steps| async move {
            steps.started(&self.version);
            let decision = Arc::new(self).work(steps).await?;
            Ok(Conclusion::Decision(decision))
        })
    }

    /// The decision alone.
    pub(crate) async fn conclude(self) -> Result<Decision, Error> {
        let mut stream = self.stream();
        while let Some(event) = futures_util::StreamExt::next(&mut stream).await {
            if let StepEvent::Done(conclusion) = event?
                && let Conclusion::Decision(decision) = *conclusion
            {
                return Ok(decision);
            }
        }
        Err(Error::internal("The decision ended early."))
    }

    fn speaker(&self) -> Speaker<'_> {
        Speaker { language: self.language, words: self.decision.facts.as_ref().map(|facts| &facts.words) }
    }

    fn pick<'t>(&self, en: &'t str, zh: &'t str) -> &'t str {
        if self.language == Language::Chinese { zh } else { en }
    }

    async fn work(self: Arc<Self>, mut steps: Steps) -> Result<Decision, Error> {
        let given =
            self.request.facts.iter().map(|(name, value)| (name.clone(), Fact { value: value.clone(), quote: None }));
        let mut decision = Decision { facts: given.collect(), ..Decision::default() };
        if let Some(facts) = &self.decision.facts {
            let assigned = self.read(facts, &mut steps, &mut decision.usage).await?;
            decision.facts.extend(assigned.facts);
            decision.missing = self.missing(facts, &decision.facts, &assigned.currencies);
        }
        if decision.missing.is_empty() {
            return self.walk_aside(steps, decision).await;
        }
        let open = decision.missing.iter().map(|question| question.question.as_str());
        let questions = open.collect::<Vec<_>>().join(" ");
        decision.explanation = format!("{}{questions}", self.pick("Not decided yet: ", "尚未决定："));
        Ok(decision)
    }

    /// Runs the graph where it holds up nobody, as many at a time as there are cores: somebody's rule may loop over a number that a caller gave, and
    /// nothing stops an expression half-way.
    async fn walk_aside(self: Arc<Self>, mut steps: Steps, mut decision: Decision) -> Result<Decision, Error> {
        static TURNS: LazyLock<Arc<Semaphore>> =
            LazyLock::new(|| Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from))));
        let stopped = || Error::internal("The decision could not be run.");
        let turn = Arc::clone(&TURNS).acquire_owned().await.map_err(|_| stopped())?;
        let walk = move || {
            let _turn = turn;
            self.walk(&mut steps, &mut decision).map(|()| decision)
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => runtime.spawn_blocking(walk).await.map_err(|_| stopped())?,
            Err(_) => walk(),
        }
    }

    /// Finds facts in the text, and tells of it as a step.
    async fn read(&self, facts: &Facts, steps: &mut Steps, usage: &mut Usage) -> Result<Assigned, Error> {
        let watch = Stopwatch::start();
        let text = self.request.text.as_deref().unwrap_or_default();
        let cues = Cues::find(text, facts);
        let mut proposals = self.found_by_code(text, facts);
        let free = self.free(facts);
        let matter = Matter { text, language: self.language, facts, free: &free, proposals: &[], fits: &[] };
        if let Some(judge) = &self.judge {
            proposals.extend(judge.quotes(matter, &cues, usage).await?);
        }
        let fits = self.fits(facts, &proposals, &cues);
        let matter = Matter { proposals: &proposals, fits: &fits, ..matter };
        let judgement = match &self.judge {
            Some(judge) => judge.judge(matter).await?,
            None => Judgement::none(&matter),
        };
        add(usage, &judgement.usage);
        let read = Read { text, facts, proposals: &proposals, cues: &cues, judgement: &judgement, today: self.today };
        let assigned = read.assign(&self.request.facts);
        if !text.is_empty() {
            steps.step(self.reading_step(text, &proposals, &judgement, &assigned, watch.micros()));
        }
        Ok(assigned)
    }

    fn found_by_code(&self, text: &str, facts: &Facts) -> Vec<Proposal> {
        let matches = matching(text, facts);
        let mut proposals = without_past(without_parts(propose(text, self.today), &matches), text, facts);
        proposals.extend(matches);
        proposals.extend(denied(text, facts));
        proposals.extend(choices(text, facts));
        proposals
    }

    /// The slots of free text that the caller does not fill.
    fn free(&self, facts: &Facts) -> Vec<usize> {
        let open = |slot: &Slot| slot.is_free() && !self.request.facts.contains_key(&slot.name);
        facts.slots.iter().enumerate().filter(|(_, slot)| open(slot)).map(|(place, _)| place).collect()
    }

    /// For every proposal the open slots it could fill. Words that stand for a value speak for themselves: nobody is asked.
    fn fits(&self, facts: &Facts, proposals: &[Proposal], cues: &Cues) -> Vec<Vec<usize>> {
        let open = |slot: &usize| !self.request.facts.contains_key(&facts.slots[*slot].name);
        let slots: Vec<usize> = (0..facts.slots.len()).filter(open).collect();
        let of = |proposal: &Proposal| {
            if matches!(proposal.what, What::Choice { .. }) {
                return Vec::new();
            }
            let fitting = slots.iter().filter(|slot| reading(facts, &facts.slots[**slot], proposal).is_some());
            fitting.copied().collect::<Vec<_>>()
        };
        let mut fits: Vec<Vec<usize>> = proposals.iter().map(of).collect();
        let weight = |place: usize, fits: &[usize]| {
            // What was quoted was asked for, and is little.
            if matches!(proposals[place].what, What::Text { .. }) {
                return f64::INFINITY;
            }
            fits.iter().map(|slot| cues.weight(*slot, &proposals[place].span)).fold(0.0, f64::max)
        };
        let mut heavy: Vec<(usize, f64)> =
            fits.iter().enumerate().map(|(place, fits)| (place, weight(place, fits))).collect();
        heavy.sort_by(|a, b| b.1.total_cmp(&a.1));
        heavy.iter().skip(JUDGED).for_each(|(place, _)| fits[*place].clear());
        fits
    }

    fn reading_step(
        &self,
        text: &str,
        proposals: &[Proposal],
        judgement: &Judgement,
        assigned: &Assigned,
        micros: u64,
    ) -> Step {
        let model = self.judge.as_ref().map_or("", |judge| judge.model());
        let rule = match judgement.method {
            Method::Scores => format!("{} {model}", self.pick("cues and scores of", "线索词与模型打分：")),
            Method::Picks => format!("{} {model}", self.pick("cues and picks of", "线索词与模型选择：")),
            Method::Quotes => format!("{} {model}", self.pick("cues and quotes of", "线索词与模型摘录：")),
            Method::None => self.pick("cues alone", "仅线索词").to_owned(),
        };
        let found: Vec<&str> = proposals.iter().map(|proposal| &text[proposal.span.clone()]).collect();
        let facts: Map<String, Value> =
            assigned.facts.iter().map(|(name, fact)| (name.clone(), fact.value.clone())).collect();
        Step {
            step: 0,
            action: self.pick("Find the facts in the text", "从文本提取事实").to_owned(),
            result: Value::Object(facts),
            rule: Some(rule),
            inputs: json!({ "found": found }),
            duration_us: micros,
            node: None,
        }
    }

    fn missing(&self, facts: &Facts, known: &BTreeMap<String, Fact>, currencies: &[&'static str]) -> Vec<Question> {
        let absent = facts.slots.iter().filter(|slot| slot.required && !known.contains_key(&slot.name));
        let mut questions: Vec<Question> =
            absent.map(|slot| Question { fact: slot.name.clone(), question: slot.question(self.language) }).collect();
        let currency = facts.slots.iter().find(|slot| slot.reading.kind == Kind::Currency);
        if let Some(slot) = currency.filter(|slot| !currencies.is_empty() && !known.contains_key(&slot.name)) {
            let named = currencies.join(", ");
            let question = match self.language {
                Language::English => {
                    format!("The text names amounts in several currencies ({named}); what are they in one of them?")
                }
                Language::Chinese => format!("文本中的金额使用了多种货币（{named}），请统一换算成一种货币后说明。"),
            };
            questions.push(Question { fact: slot.name.clone(), question });
        }
        questions
    }

    /// Runs the graph and tells of every node.
    fn walk(&self, steps: &mut Steps, decision: &mut Decision) -> Result<(), Error> {
        let speaker = self.speaker();
        let facts: Map<String, Value> =
            decision.facts.iter().map(|(name, fact)| (name.clone(), fact.value.clone())).collect();
        let mut told = Vec::new();
        let mut visit = |visit: Visit<'_>| {
            let quiet = visit.node.is_end();
            let step = steps.step(self.node_step(&speaker, visit));
            if !quiet {
                told.push(step);
            }
        };
        let output = evaluate(&self.decision.graph, &self.set.graphs, Value::Object(facts), &mut visit);
        let output = output.map_err(|broken| Error::new(ErrorKind::Invalid, broken).with_code("decision_failed"))?;
        decision.explanation = speaker.explanation(&told);
        decision.output = Some(output);
        Ok(())
    }

    fn node_step(&self, speaker: &Speaker<'_>, visit: Visit<'_>) -> Step {
        Step {
            step: 0,
            action: speaker.action(visit.node),
            rule: speaker.rule(visit.node, &visit.rules),
            result: visit.result,
            inputs: visit.inputs,
            duration_us: visit.micros,
            node: Some(visit.path),
        }
    }
}

fn find(set: &Set, id: &str) -> Result<(Arc<library::Decision>, String), Error> {
    let Some(entry) = set.entries.get(id) else {
        let known: Vec<String> = set.entries.keys().map(|name| format!("`{name}`")).collect();
        let message = format!("There is no decision `{id}` here. Available: {}.", known.join(", "));
        return Err(Error::new(ErrorKind::NotFound, message).with_param("decision").with_code("decision_not_found"));
    };
    let Some(decision) = &entry.decision else {
        let problem = entry.problem.as_deref().unwrap_or_default();
        let message = format!("The decision `{id}` is broken and never was good: {problem}");
        return Err(Error::new(ErrorKind::Internal, message).with_param("decision").with_code("decision_broken"));
    };
    Ok((decision.clone(), entry.version.clone()))
}

/// The model to ask: the one named, else the first there is, else none.
fn judge(models: &Models, request: &DecideRequest) -> Result<Option<Judge>, Error> {
    if request.text.as_deref().unwrap_or_default().is_empty() || (request.model.is_empty() && models.is_empty()) {
        return Ok(None);
    }
    let (service, card) = models.pick(&request.model)?;
    Ok(Some(Judge::new(service, card, request.tenant.clone())))
}
