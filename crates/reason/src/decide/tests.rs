//! Decisions from texts: with a model that scores, one that picks, one that can do neither, and none.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use proptest::prelude::*;
use protocol::{
    Capabilities, Conclusion, Decide, DecideRequest, Decision, Error, ErrorKind, Event, EventStream, Format, Generate,
    GenerateRequest, ModelCard, Prompt, Step, StepEvent, TextOrTokens, TokenLogprob, Usage,
};
use serde_json::{Map, Value, json};

use super::Decider;
use crate::{Library, Reason, models::Models};

/// A text whose amounts no cue stands near.
const RIDDLE: &str = "Figures: 20,000 monthly; then 5,000; finally 100,000.";

/// Scores endings, answers a request for JSON with `answer`, and one for words of the text with `quote`.
#[derive(Debug)]
struct Model {
    capabilities: Capabilities,
    /// Sentences that are likely.
    likely: Vec<&'static str>,
    answer: String,
    quote: String,
    asked: AtomicUsize,
}

impl Model {
    fn new(capabilities: Capabilities) -> Self {
        Self {
            capabilities,
            likely: Vec::new(),
            answer: String::new(),
            quote: String::new(),
            asked: AtomicUsize::new(0),
        }
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
                let text = if matches!(request.format, Format::JsonSchema(_)) { &self.answer } else { &self.quote };
                assert!(self.capabilities.grammar || !matches!(request.format, Format::Lark(_)), "it takes no grammar");
                Event::Text { choice: 0, text: text.clone(), logprobs: Vec::new() }
            }
        };
        let usage = Usage { prompt_tokens: 1, cached_tokens: 0, completion_tokens: 0, ..Usage::default() };
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
    let model = |answer: &str| {
        let mut model = Model::new(Capabilities { schema: true, ..Capabilities::default() });
        model.answer = answer.to_owned();
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

/// A text with everything a refund needs, and two names for what was bought.
const RETURN: &str = "Order AB-20931: I bought headphones for $80 10 days ago and opened the box. The Headphones hiss.";

fn refund(text: &str) -> DecideRequest {
    DecideRequest { decision: "refund-policy".to_owned(), ..request(text) }
}

#[tokio::test]
async fn words_of_the_text_are_copied_and_others_are_not_believed() {
    let check = async |capabilities: Capabilities, quote: &str, wanted: Option<&str>| {
        let mut model = Model::new(capabilities);
        model.quote = quote.to_owned();
        let (steps, decision) = run(vec![Arc::new(model)], refund(RETURN)).await;
        let product = decision.facts.get("product").map(|fact| fact.value.as_str().unwrap());
        assert_eq!(product, wanted, "{quote}");
        assert_eq!(steps[0].rule.as_deref(), Some("cues and quotes of fake"));
        assert_eq!(decision.facts["order_number"].value, "AB-20931");
        assert_eq!(decision.output.unwrap()["product"], json!(wanted));
    };
    for capabilities in [Capabilities::default(), Capabilities { grammar: true, ..Capabilities::default() }] {
        check(capabilities, " headphones\n", Some("headphones")).await;
        check(capabilities, "\"headphones\".", Some("headphones")).await;
        check(capabilities, "The Headphones", Some("The Headphones")).await;
        check(capabilities, "absent", None).await;
        check(capabilities, "", None).await;
        // Not in the text, only a part of a word, otherwise written, and longer than the schema allows.
        check(capabilities, "a headset", None).await;
        check(capabilities, "phones", None).await;
        check(capabilities, "HEADPHONES", None).await;
        check(capabilities, &RETURN[..70], None).await;
    }
}

#[tokio::test]
async fn quoted_words_are_weighed_like_all_that_is_found() {
    let check = async |model: Model, wanted: Option<&str>, rule: &str| {
        let (steps, decision) = run(vec![Arc::new(model)], refund(RETURN)).await;
        let quote = decision.facts.get("product").and_then(|fact| fact.quote.as_ref());
        assert_eq!(quote.map(|quote| quote.text.as_str()), wanted);
        assert_eq!(steps[0].rule.as_deref(), Some(rule));
    };
    let model = |capabilities, likely: &[&'static str], answer: &str| Model {
        likely: likely.to_vec(),
        answer: answer.to_owned(),
        quote: " headphones\n".to_owned(),
        ..Model::new(capabilities)
    };
    let scores = Capabilities { grammar: true, scoring: true, ..Capabilities::default() };
    check(model(scores, &["\"headphones\" is the product.\n"], ""), Some("headphones"), "cues and scores of fake")
        .await;
    check(model(scores, &["\"headphones\" is the answer to something else.\n"], ""), None, "cues and scores of fake")
        .await;
    let picks = Capabilities { schema: true, ..Capabilities::default() };
    let place = place_of_the_quote();
    check(model(picks, &[], &format!("{{\"product\": \"p{place}\"}}")), Some("headphones"), "cues and picks of fake")
        .await;
    check(model(picks, &[], r#"{"product": "absent"}"#), None, "cues and picks of fake").await;
}

/// Which piece of [`RETURN`] what is quoted is: it stands behind all that code finds.
fn place_of_the_quote() -> usize {
    let library = Library::shipped();
    let decider = Decider::new(&library, &Models::default(), crate::clock::today(), refund(RETURN)).unwrap();
    decider.found_by_code(RETURN, decider.decision.facts.as_ref().unwrap()).len()
}

#[tokio::test]
async fn what_the_caller_gives_is_not_asked_for() {
    let model = Arc::new(Model { quote: "headphones".to_owned(), ..Model::new(Capabilities::default()) });
    let facts = [("product".to_owned(), json!("A headset"))].into_iter().collect();
    let (_, decision) = run(vec![model.clone()], DecideRequest { facts, ..refund(RETURN) }).await;
    assert_eq!(model.asked.load(Ordering::Relaxed), 0);
    assert_eq!(decision.facts["product"].value, "A headset");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever a model says and however it can be asked, what is read stands in the text.
    #[test]
    fn nothing_is_invented(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "headphones ", "Order AB-20931 ", "$80 ", "10 days ago ", "耳机", "订单号2026030112345，", "花了400元", "bought ", "opened ", "é", "👍", "\n", "absent ", "无",
        ]), 0..12),
        quote in prop::sample::select(vec!["headphones", "耳机", "80", "Order", "phones", "无", "absent", "é👍", "iPhone", "", "\n", "AB-20931 $80", "👍 "]),
        answer in prop::sample::select(vec![r#"{"product": "p0"}"#, r#"{"product": "p1", "price": "p2"}"#, r#"{"order_number": "p3", "product": "p4"}"#, r#"{"product": "x"}"#, "x"]),
        (schema, grammar, scoring) in any::<(bool, bool, bool)>(),
    ) {
        let text: String = pieces.concat();
        let capabilities = Capabilities { schema, grammar, scoring, ..Capabilities::default() };
        let model = Model { quote: quote.to_owned(), answer: answer.to_owned(), ..Model::new(capabilities) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (_, decision) = runtime.block_on(run(vec![Arc::new(model)], refund(&text)));
        for (name, fact) in &decision.facts {
            let Some(quote) = &fact.quote else { prop_assert_eq!(name, "today"); continue };
            prop_assert_eq!(text.get(quote.start..quote.end), Some(quote.text.as_str()));
            if name == "product" || name == "order_number" {
                prop_assert_eq!(fact.value.as_str(), Some(quote.text.as_str()));
            }
        }
    }
}

/// Texts for the classes of what once was read wrongly, without a model: denied debts, what is over, prices and savings beside a loan,
/// slips of the fingers, totals beside their parts, lengths of two units, and requests without the word loan.
#[tokio::test]
async fn classes_of_mistakes_are_read_by_code() {
    let mut wrong = Vec::new();
    for line in include_str!("../../tests/data/credit.classes.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let (_, decision) = run(Vec::new(), request(case["text"].as_str().unwrap())).await;
        for (name, wanted) in case["facts"].as_object().unwrap() {
            let found = decision.facts.get(name).map_or(&Value::Null, |fact| &fact.value);
            if found.as_f64() != wanted.as_f64() || found.is_string() != wanted.is_string() {
                wrong.push(format!("{name} is {found} and not {wanted}: {}", case["text"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
