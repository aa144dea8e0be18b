//! Streams that break anywhere say what an unbroken one says.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use proptest::{collection::vec, prelude::*};
use protocol::{
    Capabilities, Error, ErrorKind, Event, EventStream, FinishReason, Generate, GenerateRequest, Load, ModelCard,
    Reason, Usage,
};
use services::{Balanced, Limits, Migrating};

use crate::fake::{Fake, Step, answer, done, ends, error, events, request, says, started, text, way};

/// A service that writes what it is made to write, breaks after so many events, and resumes as the engine does: everything again
/// from the start. What it has said before comes in other pieces than the first time.
#[derive(Debug)]
struct Writer {
    /// The tokens of every answer: `Ok` is text, `Err` a piece of a tool call.
    answers: Vec<Vec<Result<String, String>>>,
    breaks: Mutex<VecDeque<usize>>,
    asked: Mutex<Vec<GenerateRequest>>,
}

impl Writer {
    fn new(answers: Vec<Vec<Result<String, String>>>, breaks: Vec<usize>) -> Arc<Self> {
        Arc::new(Self { answers, breaks: Mutex::new(breaks.into()), asked: Mutex::default() })
    }

    /// A token's id says where it stands.
    fn id(choice: usize, at: usize) -> u32 {
        (choice * 1000 + at) as u32
    }

    /// All events, with the first `resumed` tokens of every answer in one piece.
    fn events(&self, resumed: &[usize], attempt: usize, tokens: bool) -> Vec<Event> {
        let mut events = vec![started()];
        for (choice, answer) in self.answers.iter().enumerate() {
            let resumed = resumed.get(choice).copied().unwrap_or(0);
            let mut begun = false;
            let groups = [answer.get(..resumed).unwrap_or(answer)].into_iter().chain(answer[resumed..].chunks(1));
            let mut at = 0;
            for group in groups.filter(|group| !group.is_empty()) {
                let ids = (at..at + group.len()).map(|at| Self::id(choice, at)).collect();
                at += group.len();
                events.extend(tokens.then_some(Event::Tokens { choice, ids }));
                let text: String = group.iter().flatten().cloned().collect();
                if !text.is_empty() {
                    events.push(Event::Text { choice, text, logprobs: Vec::new() });
                }
                let arguments: Vec<String> = group.iter().filter_map(|token| token.clone().err()).collect();
                if !arguments.is_empty() {
                    let first = |word: &str| (!begun).then(|| format!("{word}{attempt}"));
                    let (id, name) = (first("id"), first("f"));
                    begun = true;
                    events.push(Event::ToolCall { choice, index: 0, id, name, arguments: arguments.concat() });
                }
            }
            events.push(Event::Finished { choice, reason: FinishReason::Length });
        }
        events.push(Event::Done(Usage::default()));
        events
    }
}

impl Generate for Writer {
    fn models(&self) -> Vec<ModelCard> {
        vec![ModelCard { chat: true, capabilities: Capabilities::ENGINE, ..ModelCard::new("m") }]
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Error>> {
        for (choice, tokens) in request.resume.iter().enumerate() {
            let expected: Vec<u32> = (0..tokens.len()).map(|at| Self::id(choice, at)).collect();
            assert_eq!(*tokens, expected, "exactly the tokens that were reported");
        }
        let resumed: Vec<usize> = request.resume.iter().map(Vec::len).collect();
        let mut asked = self.asked.lock().unwrap();
        asked.push(request.clone());
        let events = self.events(&resumed, asked.len(), request.report_tokens);
        let mut items: Vec<Result<Event, Error>> = events.into_iter().map(Ok).collect();
        if let Some(at) = self.breaks.lock().unwrap().pop_front() {
            items.truncate(at);
            items.push(Err(error(ErrorKind::Upstream)));
        }
        async move { Ok(stream::iter(items).boxed()) }.boxed()
    }
}

/// What a caller has in the end: for every answer its text, the beginning and the arguments of its call, its tokens, and how often it
/// ended.
#[derive(Debug, Default, PartialEq, Clone)]
struct Heard {
    text: String,
    calls: Vec<String>,
    arguments: String,
    tokens: Vec<u32>,
    ends: usize,
}

async fn hear(service: &dyn Generate, request: GenerateRequest) -> (Vec<Heard>, Vec<Event>) {
    let mut heard = vec![Heard::default(); request.n];
    let events: Vec<Event> = service.generate(request).await.unwrap().map(Result::unwrap).collect().await;
    for event in &events {
        match event.clone() {
            Event::Text { choice, text, .. } => heard[choice].text += &text,
            Event::ToolCall { choice, id, name, arguments, .. } => {
                heard[choice].calls.extend(id.zip(name).map(|(_, name)| name[..1].to_owned()));
                heard[choice].arguments += &arguments;
            }
            Event::Tokens { choice, ids } => heard[choice].tokens.extend(ids),
            Event::Finished { choice, .. } => heard[choice].ends += 1,
            _ => {}
        }
    }
    (heard, events)
}

fn answers() -> impl Strategy<Value = Vec<Vec<Result<String, String>>>> {
    let text = prop_oneof![Just(String::new()), "[a-z你é]{1,3}"].prop_map(Ok);
    let call = "[a-z\"]{1,3}".prop_map(Err);
    (vec(vec(text, 0..6), 1..3), vec(call, 0..4)).prop_map(|(mut answers, call)| {
        answers[0].extend(call);
        answers
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn broken_streams_say_what_unbroken_ones_say(
        answers in answers(),
        breaks in vec(0usize..14, 0..4),
        report_tokens in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let request = GenerateRequest { n: answers.len(), report_tokens, ..request() };
            let (expected, _) = hear(Writer::new(answers.clone(), Vec::new()).as_ref(), request.clone()).await;
            let writer = Writer::new(answers.clone(), breaks.clone());
            let (heard, events) = hear(&Migrating::new(writer, 4), request).await;
            assert_eq!(heard, expected, "{breaks:?}");
            assert_eq!(events.iter().filter(|e| matches!(e, Event::Started { .. })).count(), 1);
            assert!(matches!(events.last(), Some(Event::Done(_))));
        });
    }
}

#[tokio::test(start_paused = true)]
async fn draws_get_a_seed_that_stays() {
    let writer = Writer::new(vec![vec![Ok("a".to_owned()), Ok("b".to_owned())]], vec![3]);
    assert_eq!(answer(&Migrating::new(writer.clone(), 1), request()).await.unwrap(), "ab");
    let asked = writer.asked.lock().unwrap();
    let seeds: Vec<_> = asked.iter().map(|request| request.sampling.seed).collect();
    assert!(seeds.len() == 2 && seeds[0].is_some() && seeds[0] == seeds[1], "{seeds:?}");
    assert_eq!(asked[1].resume, [vec![0]]);
}

/// Whether the second attempt is made.
async fn check(change: impl Fn(&mut GenerateRequest), capabilities: Capabilities, kind: ErrorKind, times: usize) {
    let mut steps = says("x");
    steps.insert(2, Step::Fail(error(kind)));
    let fake = Fake::new([Ok(steps), Ok(says("x"))]).able(capabilities);
    let mut request = request();
    change(&mut request);
    let heard = answer(&Migrating::new(fake.arc(), 3), request).await;
    assert_eq!((fake.times(), heard.is_ok()), (times, times > 1), "{capabilities:?} {kind:?}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_resumed_is_passed_through() {
    let none = Capabilities { replay: false, ..Capabilities::ENGINE };
    check(|_| {}, Capabilities::ENGINE, ErrorKind::Upstream, 2).await;
    check(|_| {}, Capabilities::ENGINE, ErrorKind::ShuttingDown, 2).await;
    check(|_| {}, Capabilities::ENGINE, ErrorKind::Invalid, 1).await;
    check(|_| {}, Capabilities::ENGINE, ErrorKind::Internal, 1).await;
    check(|_| {}, none, ErrorKind::Upstream, 1).await;
    check(|request| request.logprobs = Some(0), Capabilities::ENGINE, ErrorKind::Upstream, 1).await;
}

#[tokio::test(start_paused = true)]
async fn it_ends_after_so_many_times_and_within_its_time() {
    let mut steps = says("x");
    steps.truncate(2);
    steps.push(Step::Wait(Duration::from_secs(4)));
    steps.push(Step::Fail(error(ErrorKind::Upstream)));
    let fake = Fake::new([Ok(steps)]);
    let failed = answer(&Migrating::new(fake.arc(), 2), request()).await.unwrap_err();
    assert_eq!((fake.times(), failed.kind), (3, ErrorKind::Upstream));
    let limited = GenerateRequest { deadline: Some(Duration::from_secs(10)), ..request() };
    let failed = answer(&Migrating::new(fake.arc(), 9), limited).await.unwrap_err();
    assert_eq!((fake.times(), failed.kind), (6, ErrorKind::DeadlineExceeded));
    let left = fake.asked.lock().iter().map(|request| request.deadline).collect::<Vec<_>>();
    assert!(left[4] < left[3] && left[5] < left[4], "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn another_story_is_an_error() {
    let tokens = |ids: &[u32]| Event::Tokens { choice: 0, ids: ids.to_vec() };
    let first = [started(), tokens(&[1, 2]), text("ab")].map(Step::Send).into_iter();
    let first = first.chain([Step::Fail(error(ErrorKind::Upstream))]).collect();
    let second = [started(), tokens(&[1, 3]), text("ac"), ends(), done()].map(Step::Send).to_vec();
    let fake = Fake::new([Ok(first), Ok(second)]);
    let failed = answer(&Migrating::new(fake.arc(), 3), request()).await.unwrap_err();
    assert_eq!(failed.kind, ErrorKind::Internal);
}

/// A stream that goes on elsewhere says where, and with whom it broke.
#[tokio::test(start_paused = true)]
async fn the_way_is_told() {
    let mut broken = says("x");
    broken.insert(2, Step::Fail(error(ErrorKind::ShuttingDown)));
    let (first, second) = (Fake::new([Ok(broken)]), Fake::new([Ok(says("x"))]));
    *second.load.lock() = Some(Load { running: 1, waiting: 0 });
    let members = vec![("w0".to_owned(), first.arc()), ("w1".to_owned(), second.arc())];
    let migrating = Migrating::new(Arc::new(Balanced::new(members, Limits::default())), 2);
    let heard = way(&events(&migrating, request()).await.unwrap());
    let broke = vec!["w0 shutting_down".to_owned()];
    let expected = [
        (Reason::Balanced, "m to m of w0".to_owned(), Vec::new()),
        (Reason::Resumed, "m to m of w1".to_owned(), broke),
    ];
    assert_eq!(heard, expected);
}
