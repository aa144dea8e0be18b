//! Who answers for a cascade, what leaves and when, and what is told of it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use protocol::{
    Capabilities, Conclusion, Decide, DecideRequest, Decision, DecisionCard, Error, ErrorKind, Event, FinishReason,
    Format, Generate, GenerateRequest, JsonSchema, Prompt, Reason, SolveRequest, StepEvent, StepStream, TextOrTokens,
    TokenLogprob, Usage,
};
use serde_json::json;
use services::{
    Target,
    cascade::{Bar, Cascade, OnFailure, Rule, Student, Weights},
    rollout::Rollout,
};
use tokio::time::Instant;

use crate::fake::{Fake, Script, Step, answer, breaks, error, events, request, says, started, text, way};

/// Pieces of an answer and how likely each was, as a percentage.
fn sure(pieces: &[(&str, u32)], reason: FinishReason) -> Vec<Step> {
    let piece = |(text, percent): &(&str, u32)| {
        let logprob = Some((*percent as f32 / 100.0).ln());
        let score = TokenLogprob { id: 1, bytes: text.as_bytes().to_vec(), logprob, top: Vec::new() };
        Event::Text { choice: 0, text: (*text).to_owned(), logprobs: vec![score] }
    };
    let pieces = pieces.iter().map(piece);
    let usage = Usage { prompt_tokens: 3, completion_tokens: 7, ..Usage::default() };
    let end = [Event::Finished { choice: 0, reason }, Event::Done(usage)];
    std::iter::once(started()).chain(pieces).chain(end).map(Step::Send).collect()
}

fn named(fake: &Fake, name: &str) -> Target {
    let mut fake = fake.clone();
    fake.cards[0].id = name.to_owned();
    fake.cards[0].owned_by = format!("house {name}");
    Target { service: fake.arc(), model: name.to_owned() }
}

/// A student and a teacher with these scripts.
struct Pair {
    student: Fake,
    teacher: Fake,
    rules: Vec<Rule>,
    bar: Bar,
    on_failure: OnFailure,
}

impl Pair {
    fn new(student: Script, teacher: Script) -> Self {
        let (student, teacher) = (Fake::new([student]), Fake::new([teacher]));
        let bar = Bar { threshold: 0.5, ..Bar::default() };
        Self { student, teacher, rules: Vec::new(), bar, on_failure: OnFailure::Error }
    }

    fn cascade(self) -> Cascade {
        let student = Student::new(named(&self.student, "small"), self.rules);
        let patience = Some(Duration::from_secs(60));
        Cascade::new("m", student, named(&self.teacher, "large"), self.bar, self.on_failure, patience)
    }
}

const TAUGHT: (&str, &str) = ("m to large of house large", "taught");

/// Who answers, and what speaks against the student.
async fn check(pair: Pair, request: GenerateRequest, doubt: Option<&str>) {
    let (student, teacher) = (pair.student.clone(), pair.teacher.clone());
    let heard = events(&pair.cascade(), request).await.unwrap();
    let told: String =
        heard.iter().map(|event| if let Event::Text { text, .. } = event { text.as_str() } else { "" }).collect();
    let expected = match doubt {
        None => (Reason::Accepted, "m to small of house small".to_owned(), vec![]),
        Some(doubt) => (Reason::Escalated, TAUGHT.0.to_owned(), vec![format!("small {doubt}")]),
    };
    assert_eq!(way(&heard), [expected], "{told}");
    assert_eq!(told == TAUGHT.1, doubt.is_some(), "{told}");
    assert_eq!(teacher.times(), usize::from(doubt.is_some()));
    // One answer: it starts once, ends once and costs what it cost alone.
    let count = |of: fn(&Event) -> bool| heard.iter().filter(|event| of(event)).count();
    assert_eq!(count(|event| matches!(event, Event::Started { .. })), 1, "{heard:?}");
    assert_eq!(count(|event| matches!(event, Event::Done(_))), 1, "{heard:?}");
    let completion_tokens = if doubt.is_some() { 2 } else { 7 };
    assert!(matches!(heard.last(), Some(Event::Done(usage)) if usage.completion_tokens == completion_tokens));
    let scored = |event: &Event| matches!(event, Event::Text { logprobs, .. } if !logprobs.is_empty());
    assert!(!heard.iter().any(scored), "scores that nobody asked for stay inside");
    assert_eq!(
        student.live.load(Ordering::SeqCst) + teacher.live.load(Ordering::SeqCst),
        0,
        "every stream was dropped"
    );
}

fn taught(student: Vec<Step>) -> Pair {
    Pair::new(Ok(student), Ok(says(TAUGHT.1)))
}

fn asks(format: Format) -> GenerateRequest {
    GenerateRequest { format, ..request() }
}

#[tokio::test(start_paused = true)]
async fn evidence_decides() {
    let stop = FinishReason::Stop;
    let good = || sure(&[("4", 90), ("2", 60)], FinishReason::Stop);
    check(taught(good()), request(), None).await;
    check(taught(sure(&[("4", 90), ("2", 40)], stop)), request(), Some("unsure")).await;
    check(taught(sure(&[("4", 99)], FinishReason::Length)), request(), Some("cut")).await;
    check(taught(sure(&[], stop)), request(), Some("unsure")).await;
    let schema = || Format::JsonSchema(json!({ "type": "integer" }));
    check(taught(good()), asks(schema()), None).await;
    check(taught(sure(&[("\"4\"", 99)], stop)), asks(schema()), Some("schema")).await;
    check(taught(good()), asks(Format::JsonObject), Some("schema")).await;
    for failing in [Err(error(ErrorKind::Upstream)), breaks(ErrorKind::Overloaded), Ok(vec![Step::Send(started())])] {
        let word = match &failing {
            Ok(steps) if steps.len() == 2 => error(ErrorKind::Overloaded).word().to_owned(),
            _ => error(ErrorKind::Upstream).word().to_owned(),
        };
        check(Pair::new(failing, Ok(says(TAUGHT.1))), request(), Some(&word)).await;
    }
    check(taught(vec![Step::Send(started()), Step::Hang]), request(), Some("slow")).await;
}

/// A student that does not say how likely its tokens are is believed where nothing else speaks against it.
#[tokio::test(start_paused = true)]
async fn without_scores_the_rest_decides() {
    let silent = |steps: Vec<Step>| {
        let mut pair = taught(steps);
        pair.student = pair.student.able(Capabilities { logprobs: false, ..Capabilities::ENGINE });
        pair
    };
    let said = |words: &str, reason| {
        let mut steps = sure(&[], reason);
        steps.insert(1, Step::Send(text(words)));
        steps
    };
    check(silent(said("42", FinishReason::Stop)), request(), None).await;
    check(silent(said("42", FinishReason::Length)), request(), Some("cut")).await;
    check(silent(said("forty", FinishReason::Stop)), asks(Format::JsonSchema(json!({}))), Some("schema")).await;
    // Where the caller wants to know the scores, only the teacher can say them.
    check(silent(said("42", FinishReason::Stop)), GenerateRequest { logprobs: Some(0), ..request() }, Some("unable"))
        .await;
}

#[tokio::test(start_paused = true)]
async fn some_requests_are_the_teachers() {
    let good = || taught(sure(&[("42", 99)], FinishReason::Stop));
    let raw = |prompt| GenerateRequest { prompt: Prompt::Raw(prompt), ..request() };
    let bar = |longest| Bar { longest: Some(longest), ..good().bar };
    // "Hi" has two characters.
    check(Pair { bar: bar(2), ..good() }, request(), None).await;
    check(Pair { bar: bar(1), ..good() }, request(), Some("long")).await;
    check(good(), raw(TextOrTokens::Text("Hi".to_owned())), None).await;
    check(good(), raw(TextOrTokens::Tokens(vec![1])), Some("unable")).await;
    let mut biased = request();
    biased.sampling.logit_bias.insert(1, 1.0);
    check(good(), biased, Some("unable")).await;
    let mut plain = good();
    plain.student = plain.student.able(Capabilities { grammar: false, ..Capabilities::ENGINE });
    check(plain, asks(Format::Regex("a".to_owned())), Some("unable")).await;
    for student in [good(), Pair { bar: bar(1), ..good() }] {
        let asked = student.student.clone();
        let long = student.bar.longest.is_some();
        answer(&student.cascade(), request()).await.unwrap();
        assert_eq!(asked.times(), usize::from(!long), "who cannot do it is not asked");
    }
}

/// A bar holds for the student it was made for, wherever that shows: on its card, or on the way there.
#[tokio::test(start_paused = true)]
async fn a_bar_is_for_one_student() {
    let weights = |digest: &str, adapter: &str| Weights {
        model: "whatever it was called".to_owned(),
        digest: digest.to_owned(),
        adapter: adapter.to_owned(),
    };
    let pair = |calibrated: Weights| {
        let mut pair = taught(sure(&[("42", 99)], FinishReason::Stop));
        (pair.student.cards[0].digest, pair.student.cards[0].adapter) = ("d".to_owned(), "a".to_owned());
        Pair { bar: Bar { student: Some(calibrated), ..pair.bar.clone() }, ..pair }
    };
    check(pair(weights("d", "a")), request(), None).await;
    check(pair(weights("", "")), request(), None).await;
    check(pair(weights("e", "a")), request(), Some("other_weights")).await;
    check(pair(weights("d", "b")), request(), Some("other_weights")).await;
    // Behind a rollout, whose card is that of its heaviest version: who was meant shows on the way.
    let (old, mut new) = (pair(weights("d", "a")), pair(weights("d", "a")).student);
    new.cards[0].digest = "e".to_owned();
    let versions = vec![(named(&old.student, "old"), 60), (named(&new, "new"), 40)];
    let rollout = Target { service: Arc::new(Rollout::new("small", versions, None)), model: "small".to_owned() };
    let student = Student::new(rollout, Vec::new());
    let cascade = Cascade::new("m", student, named(&old.teacher, "large"), old.bar, OnFailure::Error, None);
    let mut doubted = 0;
    for unit in 0..20 {
        let heard = events(&cascade, GenerateRequest { unit: unit.to_string(), ..request() }).await.unwrap();
        let ways = way(&heard);
        let of = |wanted: Reason| ways.iter().find(|(reason, ..)| *reason == wanted);
        let other = of(Reason::Assigned).unwrap().1.starts_with("small to new");
        assert_eq!(of(Reason::Accepted).is_none(), other, "{ways:?}");
        let failed = of(Reason::Escalated).map(|(.., failed)| failed.clone());
        assert_eq!(failed, other.then(|| vec!["small other_weights".to_owned()]));
        doubted += usize::from(other);
    }
    assert!((1..20).contains(&doubted), "{doubted} of 20 met the version that was not calibrated");
}

/// Decides that numbers are good.
#[derive(Debug)]
struct Numbers;

impl Decide for Numbers {
    fn decisions(&self) -> Vec<DecisionCard> {
        Vec::new()
    }

    fn decide(&self, request: DecideRequest) -> BoxFuture<'_, Result<StepStream, Error>> {
        assert_eq!(request.decision, "numbers");
        let output = request.facts.get("n").map(|n| json!({ "accepted": n.is_number() }));
        let decision = Conclusion::Decision(Decision { output, ..Decision::default() });
        async { Ok(stream::iter([Ok(StepEvent::Done(Box::new(decision)))]).boxed()) }.boxed()
    }

    fn solve(&self, _: SolveRequest) -> BoxFuture<'_, Result<StepStream, Error>> {
        async { Err(Error::internal("it only decides")) }.boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn rules_are_evidence() {
    let schema = || Rule::Schema(JsonSchema::new(&json!({ "required": ["n"] })).unwrap());
    let decision = || Rule::Decision { service: Arc::new(Numbers), decision: "numbers".to_owned() };
    let pair = |rules: Vec<Rule>, words: &str| Pair { rules, ..taught(sure(&[(words, 99)], FinishReason::Stop)) };
    check(pair(vec![schema()], r#"{"n": 1}"#), request(), None).await;
    check(pair(vec![schema()], r#"{"m": 1}"#), request(), Some("rule")).await;
    check(pair(vec![schema()], "n"), request(), Some("rule")).await;
    check(pair(vec![schema(), decision()], r#"{"n": 1}"#), request(), None).await;
    check(pair(vec![schema(), decision()], r#"{"n": "1"}"#), request(), Some("rule")).await;
    check(pair(vec![decision()], r#"{"m": 1}"#), request(), Some("rule")).await;
    check(pair(vec![decision()], "[1]"), request(), Some("rule")).await;
}

/// Nothing leaves before the student is done; then everything at once.
#[tokio::test(start_paused = true)]
async fn an_answer_is_held_back_until_it_is_accepted() {
    let mut steps = sure(&[("4", 90), ("2", 90)], FinishReason::Stop);
    steps.insert(3, Step::Wait(Duration::from_secs(5)));
    let began = Instant::now();
    let mut stream = taught(steps).cascade().generate(request()).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO, "the work begins with the stream");
    let first = stream.next().await.unwrap().unwrap();
    assert!(matches!(first, Event::Routed(hop) if hop.score.is_some_and(|score| (score - 0.9).abs() < 1e-6)));
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    let rest: Vec<_> = stream.map(Result::unwrap).collect().await;
    assert_eq!((rest.len(), began.elapsed()), (5, Duration::from_secs(5)));
}

/// A student that cannot pass any more is dropped there; one whose answer may be needed is heard to its end.
#[tokio::test(start_paused = true)]
async fn a_hopeless_student_is_given_up() {
    async fn check(on_failure: OnFailure, seconds: u64) {
        let mut steps = sure(&[("4", 10), ("2", 99)], FinishReason::Stop);
        steps.insert(2, Step::Wait(Duration::from_secs(5)));
        let pair = Pair { on_failure, ..taught(steps) };
        let (student, began) = (pair.student.clone(), Instant::now());
        let mut stream = pair
            .cascade()
            .generate(GenerateRequest { deadline: Some(Duration::from_secs(9)), ..request() })
            .await
            .unwrap();
        let first = stream.next().await.unwrap().unwrap();
        assert!(matches!(first, Event::Routed(hop) if hop.reason == Reason::Escalated));
        assert_eq!(began.elapsed(), Duration::from_secs(seconds), "{on_failure:?}");
        assert_eq!(student.live.load(Ordering::SeqCst), 0, "it was cancelled");
    }
    check(OnFailure::Error, 0).await;
    check(OnFailure::Student, 5).await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_stream_cancels_the_student() {
    let pair = taught(vec![Step::Send(started()), Step::Hang]);
    let student = pair.student.clone();
    let mut stream = pair.cascade().generate(request()).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(1), stream.next()).await;
    assert!(waited.is_err() && student.live.load(Ordering::SeqCst) == 1);
    drop(stream);
    assert_eq!(student.live.load(Ordering::SeqCst), 0);
}

/// The teacher gets what is left of the time, and nothing where there is none.
#[tokio::test(start_paused = true)]
async fn student_and_teacher_share_the_time() {
    async fn check(limit: u64, left: Option<u64>) {
        let mut steps = sure(&[("4", 10)], FinishReason::Stop);
        steps.insert(1, Step::Wait(Duration::from_secs(5)));
        let pair = taught(steps);
        let teacher = pair.teacher.clone();
        let timed = GenerateRequest { deadline: Some(Duration::from_secs(limit)), ..request() };
        let heard = answer(&pair.cascade(), timed).await.map_err(|error| error.kind);
        let asked = teacher.asked.lock().first().map(|asked| asked.deadline);
        assert_eq!(asked, left.map(|left| Some(Duration::from_secs(left))), "{limit}");
        assert_eq!(heard.err(), left.is_none().then_some(ErrorKind::DeadlineExceeded), "{limit}");
    }
    check(9, Some(4)).await;
    check(5, None).await;
}

/// What the caller gets where the teacher fails.
#[tokio::test(start_paused = true)]
async fn a_failing_teacher_costs_what_the_settings_say() {
    async fn check(on_failure: OnFailure, student: Vec<Step>, teacher: Script, expected: Result<&str, ErrorKind>) {
        let pair = Pair { on_failure, ..Pair::new(Ok(student), teacher.clone()) };
        let heard = answer(&pair.cascade(), request()).await.map_err(|error| error.kind);
        assert_eq!(heard.as_deref(), expected.as_ref().map(|text| *text), "{on_failure:?} {teacher:?}");
    }
    let (unsure, cut) = (|| sure(&[("42", 10)], FinishReason::Stop), || sure(&[("42", 99)], FinishReason::Length));
    let down = || Err(error(ErrorKind::Upstream));
    use OnFailure::{Error as Fails, Student as Spare};
    check(Fails, unsure(), down(), Err(ErrorKind::Upstream)).await;
    check(Spare, unsure(), down(), Ok("42")).await;
    check(Spare, unsure(), breaks(ErrorKind::Overloaded), Ok("42")).await;
    check(Spare, cut(), down(), Err(ErrorKind::Upstream)).await;
    // That it refuses is an answer to the request.
    check(Spare, unsure(), Err(error(ErrorKind::Invalid)), Err(ErrorKind::Invalid)).await;
    // After its first byte nothing is sent twice.
    let begun = vec![Step::Send(started()), Step::Send(text("so")), Step::Fail(error(ErrorKind::Upstream))];
    check(Spare, unsure(), Ok(begun), Err(ErrorKind::Upstream)).await;
    let pair = Pair { on_failure: Spare, ..Pair::new(Ok(unsure()), down()) };
    let heard = events(&pair.cascade(), request()).await.unwrap();
    let [first, second] = &way(&heard)[..] else { panic!("{heard:?}") };
    assert_eq!((first.0, &*first.2), (Reason::Escalated, &["small unsure".to_owned()][..]));
    assert_eq!((second.0, &*second.2), (Reason::Fallback, &["large upstream_failed".to_owned()][..]));
}

/// What a caller asks for, the student is asked for, too; scores and its work beside it.
#[tokio::test(start_paused = true)]
async fn the_student_hears_the_callers_words() {
    let pair = taught(sure(&[("42", 99)], FinishReason::Stop));
    let asked = pair.student.clone();
    let wanted = GenerateRequest { logprobs: Some(3), ..request() };
    let cascade = pair.cascade();
    let heard = events(&cascade, wanted.clone()).await.unwrap();
    assert!(heard.iter().any(|event| matches!(event, Event::Text { logprobs, .. } if logprobs.len() == 1)));
    events(&cascade, request()).await.unwrap();
    let asked = asked.asked.lock().clone();
    let to_student = |request| GenerateRequest { model: "small".to_owned(), report_work: true, ..request };
    assert_eq!(asked[0], to_student(wanted));
    assert_eq!(asked[1], GenerateRequest { logprobs: Some(0), ..to_student(request()) });
}

#[test]
fn a_cascade_is_a_model_of_its_own() {
    let pair = taught(sure(&[], FinishReason::Stop));
    let teacher = pair.teacher.clone();
    let cascade = pair.cascade();
    let cards = cascade.models();
    assert_eq!((cards.len(), &*cards[0].id, cards[0].capabilities.replay), (1, "m", false));
    assert!(cascade.ready().is_ok());
    *teacher.broken.lock() = Some(error(ErrorKind::Upstream));
    assert!(cascade.ready().is_err());
}

/// What the student computed in vain counts, also of an answer that was given up; a time that somebody does not tell is unknown.
#[tokio::test(start_paused = true)]
async fn processor_time_is_that_of_all_who_were_asked() {
    let took = |mut steps: Vec<Step>, micros: Option<u64>| {
        for step in &mut steps {
            if let Step::Send(Event::Done(usage)) = step {
                usage.processor_micros = micros;
            }
        }
        steps
    };
    let student = |percent, micros| took(sure(&[("4", 90), ("2", percent)], FinishReason::Stop), micros);
    let pair = |student, teacher| Pair::new(Ok(student), Ok(took(says(TAUGHT.1), teacher)));
    let mut given_up = student(1, Some(9));
    given_up.insert(2, Step::Send(Event::Worked(4)));
    let heard_out = Pair { on_failure: OnFailure::Student, ..pair(student(1, Some(9)), Some(100)) };
    let long = Pair { bar: Bar { longest: Some(1), ..heard_out.bar.clone() }, ..pair(student(90, Some(9)), Some(100)) };
    for (pair, whole) in [
        (pair(student(90, Some(9)), Some(100)), Some(9)),
        (pair(student(90, None), Some(100)), None),
        (heard_out, Some(109)),
        (pair(given_up, Some(100)), Some(104)),
        (pair(student(1, None), Some(100)), None),
        (pair(student(1, Some(9)), None), None),
        (long, Some(100)),
    ] {
        let heard = events(&pair.cascade(), request()).await.unwrap();
        let Some(Event::Done(usage)) = heard.last() else { panic!("{heard:?}") };
        assert_eq!(usage.processor_micros, whole, "{heard:?}");
        assert!(!heard.iter().any(|event| matches!(event, Event::Worked(_))), "nobody asked for it");
    }
}
