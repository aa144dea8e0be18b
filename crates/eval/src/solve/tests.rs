//! Figures worked by hand, from a service whose answers are in the problems.

use futures_util::{FutureExt, future::BoxFuture};
use protocol::{
    Chain, ChainStep, Check, DecideRequest, DecisionCard, Error as Refused, EventStream, FinishReason, ModelCard,
    StepStream,
};

use super::*;

/// Answers a problem "A B" with A at once and with B by a chain; a chain without B is given up.
#[derive(Debug)]
struct Parrot;

impl Generate for Parrot {
    fn models(&self) -> Vec<ModelCard> {
        vec![ModelCard::new("parrot")]
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Refused>> {
        assert_eq!((request.sampling.temperature, request.format), (0.0, Format::Regex(NUMBER.into())));
        let Prompt::Chat(chat) = request.prompt else { unreachable!() };
        let problem = chat.messages[1].content.clone().unwrap();
        let text = Event::Text { choice: 0, text: problem.split(' ').next().unwrap().into(), logprobs: Vec::new() };
        let usage = Usage { prompt_tokens: 9, cached_tokens: 0, completion_tokens: 2, ..Usage::default() };
        let end = Event::Finished { choice: 0, reason: FinishReason::Stop };
        let events: EventStream = Box::pin(stream::iter([text, end, Event::Done(usage)].map(Ok)));
        async move { Ok(events) }.boxed()
    }
}

impl Decide for Parrot {
    fn decisions(&self) -> Vec<DecisionCard> {
        Vec::new()
    }

    fn decide(&self, _: DecideRequest) -> BoxFuture<'_, Result<StepStream, Refused>> {
        unreachable!("problems are solved")
    }

    fn solve(&self, request: SolveRequest) -> BoxFuture<'_, Result<StepStream, Refused>> {
        let answer = request.problem.split(' ').nth(1).map(str::to_owned);
        let step = ChainStep { claimed: "4".into(), computed: Some("4.0".into()), ..ChainStep::default() };
        let again = ChainStep { retries: 1, ..step.clone() };
        let verdict = if answer.is_some() { Verdict::Verified } else { Verdict::Failed };
        let chains = vec![Chain { steps: vec![step, again], verdict, ..Chain::default() }];
        let usage = Usage { completion_tokens: 30, ..Usage::default() };
        let solution = Solution { answer, confidence: 1.0, chains, verdict, usage };
        let end = StepEvent::Done(Box::new(Conclusion::Solution(solution)));
        let events: StepStream = Box::pin(stream::iter([Ok(StepEvent::Started { version: String::new() }), Ok(end)]));
        async move { Ok(events) }.boxed()
    }
}

fn problem(task: &str, problem: &str, answer: &str) -> Problem {
    Problem { task: task.into(), problem: problem.into(), answer: answer.into() }
}

async fn asked() -> SolveResult {
    let problems = [
        problem("a", "5 5.0", "5"),
        problem("a", "6 1/2", "0.5"),
        problem("b", "7", "7"),
        problem("b", "8 9", "1,000"),
    ];
    let way = |name: &str, effort| Way { name: name.into(), effort };
    let once = Effort { chains: 1, retries: 0, check: Check::Resample };
    let ways =
        [way("plain", None), way("chain", Some(Effort { check: Check::Off, ..once })), way("checked", Some(once))];
    let options = SolveOptions { model: String::new(), concurrency: 2, seed: 0 };
    solve(&Parrot, &Parrot, &problems, &ways, &options, &|_, _| {}).await.unwrap()
}

#[test]
fn counted_by_hand() {
    let result = futures_util::FutureExt::now_or_never(asked()).unwrap();
    let right = |run: usize| result.runs[run].outcomes.iter().map(|o| o.right).collect::<Vec<_>>();
    assert_eq!(right(0), [true, false, true, false]);
    assert_eq!(right(1), [true, true, false, false]);
    let outcome = &result.runs[1].outcomes[0];
    assert_eq!((outcome.steps, outcome.wrong_steps, outcome.usage.completion_tokens), (2, 1, 30));
    let text = result.to_string();
    for line in ["a: 2 problems with parrot", "4 problems with parrot", "checked - chain"] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    let rows = result.report().rows;
    let row = |name: &str| rows.iter().find(|row| row.name == name).unwrap().estimate;
    assert_eq!((row("plain: right").value, row("plain: right").n), (50.0, 4));
    assert_eq!(row("checked - chain").value, 0.0);
    // Of the two wrong answers of the chains one comes from a chain that the check gives up.
    assert_eq!(
        (row("checked: wrong answers of chain caught").value, row("checked: wrong answers of chain caught").n),
        (50.0, 2)
    );
    assert!((row("chain: right among verified").value - 66.666).abs() < 0.01);
    assert_eq!(result.of_task("b").problems.len(), 2);
}

#[test]
fn numbers_are_the_same_however_they_are_written() {
    for (a, b) in [("18", "18.00"), ("$1,234", "1234"), ("3/6", "0.5"), ("-1/-2", "1/2"), ("-0.5", "-1/2"), ("0", "-0")]
    {
        assert!(fraction(a).is_some() && fraction(a) == fraction(b), "{a} {b}");
    }
    for none in ["", "1/0", "x", "1.2.3", "--1", "1e5", "."] {
        assert_eq!(fraction(none), None, "{none}");
    }
    assert_ne!(fraction("10/3"), fraction("3.33"));
}

#[test]
fn broken_lines_are_named() {
    let directory = std::env::temp_dir().join(format!("tessera-problems-{}", std::process::id()));
    std::fs::write(&directory, "{\"task\": \"t\", \"problem\": \"p\", \"answer\": \"1\"}\n\n{\"task\": \"t\", \"problem\": \"p\", \"answer\": \"one\"}\n").unwrap();
    let error = Problem::load(&directory).unwrap_err().to_string();
    std::fs::remove_file(&directory).unwrap();
    assert!(error.ends_with(":3: the answer \"one\" is no number"), "{error}");
}
