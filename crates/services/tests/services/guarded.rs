//! A policy around a service: what goes in, what comes out, and what the record says about it.

use std::{
    sync::{LazyLock, atomic::Ordering},
    time::Duration,
};

use guard::{Action, Asked, Fail, Guard, Panel, Pattern, Policy, Terms};
use proptest::{collection::vec, prelude::*};
use protocol::{
    ErrorKind, Event, Finding, FinishReason, Format, Generate, GenerateRequest, Outcome, Prompt, TextOrTokens,
    TokenLogprob,
};
use services::Guarded;

use crate::fake::{Fake, Step, done, ends, error, events, request, says, started, text};

/// The word `tulip` is masked, `cactus` blocks; mails are masked on the way in.
fn policy() -> Policy {
    let mut policy = Policy::default();
    let term = |word: &str, action| Terms { words: vec![word.to_owned()], input: action, output: action };
    policy.terms.insert("flower".to_owned(), term("tulip", Action::Mask));
    policy.terms.insert("thorn".to_owned(), term("cactus", Action::Block));
    let regex = Pattern { regex: "[0-9]{4}".to_owned(), input: Action::Allow, output: Action::Mask };
    policy.patterns.insert("number".to_owned(), regex);
    policy.personal.input = Action::Mask;
    policy
}

/// Compiling a policy takes longer than all that is done with it here.
static GUARD: LazyLock<Guard> = LazyLock::new(|| Guard::new(&policy()).unwrap());

fn guarded(fake: &Fake) -> Guarded {
    Guarded::new(fake.arc(), GUARD.clone())
}

fn asks(words: &str) -> GenerateRequest {
    let mut request = request();
    let Prompt::Chat(chat) = &mut request.prompt else { panic!("a chat") };
    chat.messages[0].content = Some(words.to_owned());
    request
}

fn call(first: bool, arguments: &str) -> Event {
    let word = |word: &str| first.then(|| word.to_owned());
    Event::ToolCall { choice: 0, index: 0, id: word("1"), name: word("f"), arguments: arguments.to_owned() }
}

/// Text and arguments that leave, the end, and the rules with their outcomes.
fn told(events: &[Event]) -> (String, String, Option<FinishReason>, Vec<(String, Outcome)>) {
    let (mut text, mut arguments, mut end, mut found) = (String::new(), String::new(), None, Vec::new());
    for event in events {
        match event {
            Event::Text { text: more, .. } => text += more,
            Event::ToolCall { arguments: more, .. } => arguments += more,
            Event::Finished { reason, .. } => end = Some(*reason),
            Event::Checked(Finding { rule, outcome, .. }) => found.push((rule.clone(), *outcome)),
            _ => {}
        }
    }
    (text, arguments, end, found)
}

#[tokio::test]
async fn requests_are_masked_or_refused() {
    let fake = Fake::new([]);
    let service = guarded(&fake);
    let heard = events(&service, asks("A tulip for ada@example.org")).await.unwrap();
    let (.., found) = told(&heard);
    assert_eq!(found, [("terms.flower".to_owned(), Outcome::Masked), ("personal.email".to_owned(), Outcome::Masked)]);
    assert!(matches!(heard[0], Event::Started { .. }), "findings come behind the beginning: {heard:?}");
    let asked = fake.asked.lock()[0].clone();
    let Prompt::Chat(chat) = &asked.prompt else { panic!("a chat") };
    assert_eq!(chat.messages[0].content.as_deref(), Some("A [flower] for [email]"));
    let refused = events(&service, asks("a cactus")).await.unwrap_err();
    assert_eq!((refused.kind, refused.param.as_deref()), (ErrorKind::Blocked, Some("messages[0].content")));
    assert!(!refused.message.contains("cactus"), "{refused}");
    let ids = GenerateRequest { prompt: Prompt::Raw(TextOrTokens::Tokens(vec![1])), ..request() };
    assert_eq!(events(&service, ids.clone()).await.unwrap_err().kind, ErrorKind::Blocked);
    assert_eq!(fake.times(), 1);
    // A policy that only watches lets them pass.
    let watched = Guarded::new(fake.arc(), Guard::new(&Policy::default()).unwrap());
    events(&watched, ids).await.unwrap();
    assert!(watched.models().iter().all(|card| !card.capabilities.replay));
}

/// How long the guard had the request and what was ready of the answer, and that the model's own time is not in it.
#[tokio::test(start_paused = true)]
async fn its_time_is_told() {
    let seconds = |n| Step::Wait(Duration::from_secs(n));
    let held = |events: &[Event]| {
        let mut sums = [Duration::ZERO; 2];
        for event in events {
            if let Event::Held { choice, time } = event {
                sums[usize::from(choice.is_some())] += *time;
            }
        }
        sums.map(|sum| sum.as_secs())
    };
    // What could begin the masked word is kept until the next piece shows that it does not; before that the model wrote.
    let pieces = [Step::Send(started()), seconds(9), Step::Send(text("tul")), seconds(3), Step::Send(text(" one "))];
    let rest = [seconds(5), Step::Send(text("two ")), Step::Send(ends()), Step::Send(done())];
    let fake = Fake::new([Ok(pieces.into_iter().chain(rest).collect())]);
    assert_eq!(held(&events(&guarded(&fake), asks("Hi")).await.unwrap()), [0, 3]);
    // A model that is asked takes its time over the request, and over the whole answer.
    let judge = Fake::new([Ok([seconds(4)].into_iter().chain(says("no")).collect())]);
    let (policy, panel) = asking(&judge, (Action::Block, Action::Block), Fail::Open);
    let service = Guarded::new(Fake::new([Ok(says("take two"))]).arc(), Guard::new(&policy).unwrap());
    let heard = events(&service.with_panel(panel), asks("What helps?")).await.unwrap();
    assert_eq!(held(&heard), [4, 4]);
    assert!(matches!(heard[0], Event::Started { .. }), "that it began is told before: {heard:?}");
}

/// A policy that asks this model about medicine.
pub(crate) fn asking(judge: &Fake, (input, output): (Action, Action), fail: Fail) -> (Policy, Panel) {
    let mut policy = Policy::default();
    let question = "Is it about medicine?".to_owned();
    let asked = Asked { model: "m".to_owned(), question, examples: Vec::new(), threshold: 0.5, input, output, fail };
    policy.models.insert("medical".to_owned(), asked);
    let panel = Panel::new(&policy, |_| Some(judge.arc()), |_| None).unwrap();
    (policy, panel)
}

#[tokio::test]
async fn an_answer_ends_in_front_of_what_blocks() {
    let mut steps = says("one two ");
    steps.insert(2, Step::Send(text("three cac")));
    steps.insert(3, Step::Send(text("tus four")));
    // Nobody waits for what is thrown away.
    steps.insert(4, Step::Hang);
    let fake = Fake::new([Ok(steps)]);
    let heard = events(&guarded(&fake), request()).await.unwrap();
    let (text, _, end, found) = told(&heard);
    assert!("one two three ".starts_with(&text), "{text}");
    assert_eq!(end, Some(FinishReason::ContentFilter));
    assert_eq!(found, [("terms.thorn".to_owned(), Outcome::Blocked)]);
    assert!(matches!(heard.last(), Some(Event::Done(_))));
    assert_eq!(fake.live.load(Ordering::SeqCst), 0, "the work is cancelled");
}

#[tokio::test]
async fn arguments_are_checked_like_text() {
    let play = async |pieces: &[Event]| {
        let events_ = [started()].into_iter().chain(pieces.iter().cloned()).chain([ends(), done()]);
        let fake = Fake::new([Ok(events_.map(Step::Send).collect())]);
        told(&events(&guarded(&fake), request()).await.unwrap())
    };
    let (said, arguments, end, _) =
        play(&[text("look: "), call(true, ""), call(false, "{\"a\":\"tu"), call(false, "lip\"}")]).await;
    assert_eq!((said.as_str(), arguments.as_str()), ("look: ", "{\"a\":\"[flower]\"}"));
    assert_eq!(end, Some(FinishReason::Stop));
    let (_, arguments, end, _) = play(&[call(true, "{\"a\":\"cac"), call(false, "tus\"}")]).await;
    assert!(!arguments.contains("cac"), "{arguments}");
    assert_eq!(end, Some(FinishReason::ContentFilter));
}

/// Scores say what their tokens say: those of masked text do not leave.
#[tokio::test]
async fn scores_do_not_tell_what_text_may_not() {
    let scored = |word: &str| {
        let score = TokenLogprob { id: 1, bytes: word.as_bytes().to_vec(), logprob: Some(-1.0), top: Vec::new() };
        Event::Text { choice: 0, text: word.to_owned(), logprobs: vec![score] }
    };
    let words = ["plain", " ", "12", "34", " ", "end."].map(scored);
    let tokens = Event::Tokens { choice: 0, ids: vec![7] };
    let all = [started(), tokens].into_iter().chain(words).chain([ends(), done()]);
    let fake = Fake::new([Ok(all.map(Step::Send).collect())]);
    let heard = events(&guarded(&fake), GenerateRequest { report_tokens: true, ..request() }).await.unwrap();
    assert_eq!(told(&heard).0, "plain [number] end.");
    let mut bytes = Vec::new();
    for event in &heard {
        assert!(!matches!(event, Event::Tokens { .. }));
        if let Event::Text { logprobs, .. } = event {
            bytes.extend(logprobs.iter().flat_map(|score| score.bytes.clone()));
        }
    }
    let bytes = String::from_utf8(bytes).unwrap();
    assert!(!bytes.contains("12") && !bytes.contains("34"), "{bytes}");
}

proptest! {
    /// However an answer is cut, the banned word never leaves, and nothing else is lost.
    #[test]
    fn cuts_do_not_matter(before in "[a-z ]{0,12}", after in "[a-z ]{0,12}", cuts in vec(any::<prop::sample::Index>(), 0..6)) {
        let whole = format!("{before} tulip {after}");
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
        cuts.extend([0, whole.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|ends| text(&whole[ends[0]..ends[1]]));
        let all = [started()].into_iter().chain(pieces).chain([ends(), done()]);
        let fake = Fake::new([Ok(all.map(Step::Send).collect())]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let heard = runtime.block_on(events(&guarded(&fake), request())).unwrap();
        let expected = GUARD.check(&whole, guard::Direction::Out).text.unwrap();
        prop_assert_eq!(told(&heard).0, expected);
    }
}

fn labelled() -> Guard {
    let mut policy = policy();
    policy.labels.visible = true;
    Guard::new(&policy).unwrap()
}

/// Text says at its end that it is generated; JSON, calls and what was blocked do not.
#[tokio::test]
async fn generated_text_is_labelled() {
    let check = async |steps: Vec<Step>, format: Format, wanted: bool| {
        let service = Guarded::new(Fake::new([Ok(steps)]).arc(), labelled());
        let (text, ..) = told(&events(&service, GenerateRequest { format, ..request() }).await.unwrap());
        assert_eq!(text.contains("AI-generated"), wanted, "{text}");
    };
    check(says("hello"), Format::Text, true).await;
    check(says("{}"), Format::JsonObject, false).await;
    check(says("a cactus"), Format::Text, false).await;
    check(says(""), Format::Text, false).await;
    let calls = [started(), text("look"), call(true, "{}"), ends(), done()].map(Step::Send);
    check(calls.to_vec(), Format::Text, false).await;
}

/// A model is asked about the request and about the whole answer, of which nothing leaves before.
#[tokio::test]
async fn models_are_asked() {
    let check = async |verdict: &str, sides: (Action, Action), fail: Fail, wanted: Result<(&str, usize), ErrorKind>| {
        let judge = match verdict {
            "broken" => Fake::new([Err(error(ErrorKind::Upstream))]),
            word => Fake::new([Ok(says(word))]),
        };
        let (policy, panel) = asking(&judge, sides, fail);
        let service =
            Guarded::new(Fake::new([Ok(says("take two"))]).arc(), Guard::new(&policy).unwrap()).with_panel(panel);
        let heard = events(&service, asks("What helps?")).await;
        let heard = heard.map(|events| {
            let (text, _, end, found) = told(&events);
            assert_eq!(end == Some(FinishReason::ContentFilter), text.is_empty());
            (text, found.len())
        });
        assert_eq!(
            heard.map_err(|e| e.kind),
            wanted.map(|(text, n)| (text.to_owned(), n)),
            "{verdict} {sides:?} {fail:?}"
        );
    };
    let (block, watch, off) = (Action::Block, Action::Monitor, Action::Allow);
    check("no", (block, block), Fail::Open, Ok(("take two", 0))).await;
    check("yes", (block, off), Fail::Open, Err(ErrorKind::Blocked)).await;
    check("yes", (off, block), Fail::Open, Ok(("", 1))).await;
    check("yes", (watch, watch), Fail::Open, Ok(("take two", 2))).await;
    check("broken", (block, off), Fail::Open, Ok(("take two", 1))).await;
    check("broken", (block, off), Fail::Closed, Err(ErrorKind::Blocked)).await;
    check("broken", (off, block), Fail::Closed, Ok(("", 1))).await;
}
