//! Models as judges, played by scripted services.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::stream;
use guard::{Action, Asked, Direction, Fail, Panel, Policy};
use protocol::{
    Capabilities, Embed, EmbedRequest, Embeddings, Error, ErrorKind, Event, EventStream, Format, Generate,
    GenerateRequest, ModelCard, TextOrTokens, TokenLogprob,
};

/// Says these words; with log-probabilities of yes and no if it is to give them.
#[derive(Debug)]
struct Oracle {
    says: Result<&'static str, ErrorKind>,
    scores: Option<(f32, f32)>,
}

impl Generate for Oracle {
    fn models(&self) -> Vec<ModelCard> {
        let capabilities = Capabilities { grammar: true, logprobs: self.scores.is_some(), ..Capabilities::default() };
        vec![ModelCard { capabilities, ..ModelCard::new("oracle") }]
    }

    fn generate(&self, request: GenerateRequest) -> futures_core::future::BoxFuture<'_, Result<EventStream, Error>> {
        assert_eq!(request.format, Format::Regex("yes|no".into()));
        assert_eq!(request.logprobs.is_some(), self.scores.is_some());
        let event = self.says.map_err(|kind| Error::new(kind, "scripted")).map(|text| {
            let top = |(yes, no): (f32, f32)| {
                vec![(1, b" Yes".to_vec(), yes), (2, b"no".to_vec(), no), (3, b"x".to_vec(), -1.0)]
            };
            let scored = |scores| TokenLogprob { id: 1, bytes: b"yes".to_vec(), logprob: Some(-0.1), top: top(scores) };
            Event::Text { choice: 0, text: text.into(), logprobs: self.scores.map(scored).into_iter().collect() }
        });
        Box::pin(async move { event.map(|event| Box::pin(stream::iter([Ok(event)])) as EventStream) })
    }
}

/// Vectors that point along an axis: cats or not.
#[derive(Debug)]
struct Axes;

impl Embed for Axes {
    fn models(&self) -> Vec<ModelCard> {
        vec![ModelCard::new("axes")]
    }

    fn embed(&self, request: EmbedRequest) -> futures_core::future::BoxFuture<'_, Result<Embeddings, Error>> {
        let vector = |input: TextOrTokens| match input {
            TextOrTokens::Text(text) if text.contains("cat") => vec![1.0, 0.1],
            _ => vec![0.0, 1.0],
        };
        let vectors = request.inputs.into_iter().map(vector).collect();
        Box::pin(async move { Ok(Embeddings { vectors, ..Embeddings::default() }) })
    }
}

fn asked(model: &str, examples: &[&str], fail: Fail) -> Asked {
    Asked {
        model: model.into(),
        question: if examples.is_empty() { "Is it about cats?".into() } else { String::new() },
        examples: examples.iter().map(|e| (*e).to_owned()).collect(),
        threshold: 0.5,
        input: Action::Block,
        output: Action::Allow,
        fail,
    }
}

async fn judged(asked: Asked, oracle: Oracle, text: &str) -> Vec<(Action, f32)> {
    let policy = Policy { models: BTreeMap::from([("cats".into(), asked)]), ..Policy::default() };
    let oracle: Arc<dyn Generate> = Arc::new(oracle);
    let axes: Arc<dyn Embed> = Arc::new(Axes);
    let generate = |name: &str| (name == "oracle").then(|| oracle.clone());
    let panel = Panel::new(&policy, generate, |name| (name == "axes").then(|| axes.clone())).unwrap();
    assert!(panel.asks(Direction::In) && !panel.asks(Direction::Out));
    assert_eq!(panel.judge(text, Direction::Out).await, []);
    panel.judge(text, Direction::In).await.into_iter().map(|v| (v.action, (v.score * 100.0).round() / 100.0)).collect()
}

#[tokio::test]
async fn questions() {
    let ask = |says, scores, fail| judged(asked("oracle", &[], fail), Oracle { says, scores }, "Meow");
    let none: [(Action, f32); 0] = [];
    assert_eq!(ask(Ok("yes"), None, Fail::Open).await, [(Action::Block, 1.0)]);
    assert_eq!(ask(Ok("No."), None, Fail::Closed).await, none);
    // The share of yes among both, whatever word was drawn.
    assert_eq!(ask(Ok("no"), Some((0.6f32.ln(), 0.2f32.ln())), Fail::Open).await, [(Action::Block, 0.75)]);
    assert_eq!(ask(Ok("yes"), Some((0.1f32.ln(), 0.3f32.ln())), Fail::Open).await, none);
}

#[tokio::test]
async fn failing_open_and_closed() {
    for says in [Ok("perhaps"), Err(ErrorKind::Overloaded)] {
        let ask = |fail| judged(asked("oracle", &[], fail), Oracle { says, scores: None }, "Meow");
        assert_eq!(ask(Fail::Open).await, [(Action::Monitor, 0.0)]);
        assert_eq!(ask(Fail::Closed).await, [(Action::Block, 1.0)]);
    }
}

#[tokio::test]
async fn examples() {
    let near = |text| judged(asked("axes", &["a cat sleeps"], Fail::Open), Oracle { says: Ok(""), scores: None }, text);
    assert_eq!(near("two cats").await, [(Action::Block, 1.0)]);
    assert_eq!(near("two dogs").await, []);
}

#[test]
fn a_panel_needs_its_services_and_a_sound_policy() {
    let policy = |asked| Policy { models: BTreeMap::from([("q".into(), asked)]), ..Policy::default() };
    let error = Panel::new(&policy(asked("gone", &[], Fail::Open)), |_| None, |_| None).unwrap_err();
    assert_eq!(error.place, "models.q.model");
    let masked = Asked { input: Action::Mask, ..asked("m", &[], Fail::Open) };
    assert_eq!(guard::Guard::new(&policy(masked)).unwrap_err().place, "models.q.input");
    let both = Asked { question: "And?".into(), ..asked("m", &["x"], Fail::Open) };
    assert_eq!(guard::Guard::new(&policy(both)).unwrap_err().place, "models.q");
}
