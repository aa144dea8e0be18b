//! Decisions from texts: with a model that scores, one that picks, one that can do neither, and none.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use protocol::{
    Capabilities, Conclusion, Decide, DecideRequest, Decision, Error, ErrorKind, Event, EventStream, Format, Generate,
    GenerateRequest, ModelCard, Prompt, Step, StepEvent, TextOrTokens, TokenLogprob, Usage,
};
use serde_json::{Map, Value, json};

use crate::{Library, Reason};

/// A text whose amounts no cue stands near.
const RIDDLE: &str = "Figures: 20,000 monthly; then 5,000; finally 100,000.";

/// Scores endings, or answers a request for JSON with `answer`.
#[derive(Debug)]
struct Model {
    capabilities: Capabilities,
    /// Sentences that are likely.
    likely: Vec<&'static str>,
    answer: &'static str,
    asked: AtomicUsize,
}

impl Model {
    fn new(capabilities: Capabilities) -> Self {
        Self { capabilities, likely: Vec::new(), answer: "", asked: AtomicUsize::new(0) }
    }

    fn scores(&self, text: &str) -> Vec<TokenLogprob> {
        let likely = self.likely.iter().any(|sentence| text.ends_with(sentence));
        let token = |byte: u8| TokenLogprob {
            id: u32::from(byte),
            bytes: vec![byte],
            logprob: Some(if likely { 0.0 } else { -1.0 }),
            top: Vec::new(),
        };
        text.bytes().map(token).collect()
    }
}

impl Generate for Model {
    fn models(&self) -> Vec<ModelCard> {
        vec![ModelCard { chat: true, capabilities: self.capabilities, ..ModelCard::new("fake") }]
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Error>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let event = match &request.prompt {
            Prompt::Raw(TextOrTokens::Text(text)) if request.echo => Event::PromptLogprobs(self.scores(text)),
            _ => {
                assert!(matches!(request.format, Format::JsonSchema(_)), "a free answer is never asked for");
                Event::Text { choice: 0, text: self.answer.to_owned(), logprobs: Vec::new() }
            }
        };
        let usage = Usage { prompt_tokens: 1, cached_tokens: 0, completion_tokens: 0 };
        let events = stream::iter([Ok(event), Ok(Event::Done(usage))]);
        async move { Ok(events.boxed()) }.boxed()
    }
}

fn request(text: &str) -> DecideRequest {
    DecideRequest {
        id: "t".to_owned(),
        decision: "credit-approval".to_owned(),
        facts: Map::new(),
        text: Some(text.to_owned()),
        model: String::new(),
        language: None,
        tenant: String::new(),
        deadline: None,
    }
}

async fn run(models: Vec<Arc<dyn Generate>>, request: DecideRequest) -> (Vec<Step>, Decision) {
    let reason = Reason::new(models).with_library(Library::shipped());
    let (mut steps, mut end) = (Vec::new(), None);
    let mut events = reason.decide(request).await.unwrap();
    while let Some(event) = events.next().await {
        match event.unwrap() {
            StepEvent::Step(step) => steps.push(step),
            StepEvent::Done(conclusion) => end = Some(*conclusion),
            _ => {}
        }
    }
    match end {
        Some(Conclusion::Decision(decision)) => (steps, decision),
        other => panic!("no decision: {other:?}"),
    }
}

fn values(decision: &Decision) -> Value {
    Value::Object(decision.facts.iter().map(|(name, fact)| (name.clone(), fact.value.clone())).collect())
}

#[tokio::test]
async fn a_model_that_scores() {
    let mut model = Model::new(Capabilities { scoring: true, ..Capabilities::default() });
    model.likely = vec![
        "\"20,000 monthly\" is the monthly income.\n",
        "\"5,000\" is the existing debt.\n",
        "\"100,000\" is the requested loan amount.\n",
    ];
    let (steps, decision) = run(vec![Arc::new(model)], request(RIDDLE)).await;
    assert_eq!(values(&decision), json!({"debt": 5000, "income": 20000, "loan": 100000}));
    assert_eq!(steps[0].rule.as_deref(), Some("cues and scores of fake"));
    assert_eq!(decision.output.unwrap()["decision"], "approved");
    assert!(decision.usage.prompt_tokens > 0);
}

/// What a model likes whatever the text says counts for nothing.
#[tokio::test]
async fn a_model_that_always_likes_one_title_says_nothing() {
    let mut model = Model::new(Capabilities { scoring: true, ..Capabilities::default() });
    model.likely = vec![" existing debt.\n"];
    let (_, decision) = run(vec![Arc::new(model)], request(RIDDLE)).await;
    assert_eq!(values(&decision), json!({}));
}

#[tokio::test]
async fn a_model_that_picks() {
    let model = |answer| {
        let mut model = Model::new(Capabilities { schema: true, ..Capabilities::default() });
        model.answer = answer;
        vec![Arc::new(model) as Arc<dyn Generate>]
    };
    let (steps, decision) =
        run(model(r#"{"income": "p0", "debt": "p1", "loan": "p2", "rent": "absent"}"#), request(RIDDLE)).await;
    assert_eq!(values(&decision), json!({"debt": 5000, "income": 20000, "loan": 100000}));
    assert_eq!(steps[0].rule.as_deref(), Some("cues and picks of fake"));
    // Whoever breaks its promise is not believed: no value of its own, no piece that is not there, no piece of another kind.
    for answer in [r#"{"income": "30000"}"#, r#"{"income": "p9"}"#, r#"{"term_months": "p0"}"#, "nothing"] {
        let (_, decision) = run(model(answer), request(RIDDLE)).await;
        assert_eq!(values(&decision), json!({}), "{answer}");
    }
}

#[tokio::test]
async fn a_model_that_can_do_neither_is_not_asked() {
    let model = Arc::new(Model::new(Capabilities::default()));
    let text = "I earn 20,000 a month, owe 5,000 on my card, and ask for a loan of 100,000";
    let (steps, decision) = run(vec![model.clone()], request(text)).await;
    assert_eq!(model.asked.load(Ordering::Relaxed), 0);
    assert_eq!(steps[0].rule.as_deref(), Some("cues alone"));
    assert_eq!(values(&decision), json!({"debt": 5000, "income": 20000, "loan": 100000}));
}

#[tokio::test]
async fn steps_are_numbered_named_and_explained_in_the_texts_language() {
    let (steps, decision) = run(Vec::new(), request("我每个月赚2万元，信用卡欠5000元，想申请10万元贷款。")).await;
    let actions: Vec<&str> = steps.iter().map(|step| step.action.as_str()).collect();
    assert_eq!(actions, ["从文本提取事实", "申请", "收入验证", "负债计算", "风险因素", "风险评分", "决策", "结果"]);
    assert_eq!(steps.iter().map(|step| step.step).collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
    assert!(decision.explanation.contains("决策：批准"), "{}", decision.explanation);
    let english = DecideRequest {
        language: Some("en-GB".to_owned()), ..request("月薪2万元，欠5000元，想贷款10万元")
    };
    let (steps, decision) = run(Vec::new(), english).await;
    assert_eq!(steps[2].action, "Income verification");
    assert!(decision.explanation.contains("Decision: approved, "), "{}", decision.explanation);
}

#[tokio::test]
async fn several_debts_are_added_up_and_quoted_whole() {
    let (_, decision) = run(Vec::new(), request("I owe 2,000 on one card and owe 1,400 on another.")).await;
    let debt = &decision.facts["debt"];
    assert_eq!(debt.value, json!(3400));
    assert_eq!(debt.quote.as_ref().unwrap().text, "2,000 on one card and owe 1,400");
    let asked: Vec<&str> = decision.missing.iter().map(|question| question.fact.as_str()).collect();
    assert_eq!(asked, ["income", "loan"]);
    assert!(decision.explanation.starts_with("Not decided yet: How much do you earn"));
}

#[tokio::test]
async fn what_is_wrong_is_said_before_the_work_begins() {
    let check = async |change: fn(&mut DecideRequest), kind, param: &str| {
        let mut request = request("text");
        change(&mut request);
        let error = Reason::new(Vec::new()).decide(request).await.map(|_| ()).unwrap_err();
        assert_eq!((error.kind, error.param.as_deref()), (kind, Some(param)), "{error}");
    };
    check(|r| r.decision = "none".to_owned(), ErrorKind::NotFound, "decision").await;
    check(|r| r.model = "none".to_owned(), ErrorKind::NotFound, "model").await;
    check(|r| r.text = Some("a".repeat(20_000)), ErrorKind::Invalid, "text").await;
    check(|r| drop(r.facts.insert("incom".to_owned(), json!(1))), ErrorKind::Invalid, "facts.incom").await;
    check(|r| drop(r.facts.insert("income".to_owned(), json!(-1))), ErrorKind::Invalid, "facts.income").await;
}
