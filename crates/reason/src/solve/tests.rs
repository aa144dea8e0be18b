//! Chains from scripts: right, wrong, garbage, cut, hanging, and without what models may lack.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use protocol::{
    Capabilities, ErrorKind, Event, EventStream, FinishReason, Format, Generate, GenerateRequest, ModelCard, Prompt,
    Step, StepEvent, TextOrTokens, TokenLogprob,
};

use super::*;

/// What a request is answered with.
#[derive(Debug, Clone, Copy)]
enum Say {
    /// This text, whole.
    Text(&'static str),
    /// The same, each with this log-probability of its one token.
    Sure(&'static str, f32),
    /// This text and the token limit.
    Cut(&'static str),
    /// Nothing, ever.
    Hang,
    /// The stream ends without an end.
    Vanish,
}

/// A model that says what the script of each chain has for its first, second, .. request.
#[derive(Debug)]
struct Scripted {
    chains: Vec<Vec<Say>>,
    capabilities: Capabilities,
    chat: bool,
}

impl Generate for Scripted {
    fn models(&self) -> Vec<ModelCard> {
        vec![ModelCard { capabilities: self.capabilities, chat: self.chat, ..ModelCard::new("scripted") }]
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Error>> {
        let place: Vec<usize> = request.id.split('-').skip(1).map(|part| part.parse().unwrap()).collect();
        let grammar = matches!(request.format, Format::Lark(_));
        assert_eq!(grammar, self.capabilities.grammar && (self.capabilities.prefill || !self.chat));
        let say = self.chains[place[0] - 1].get(place[1] - 1).copied().expect("the script goes on");
        async move { Ok(events(say)) }.boxed()
    }
}

fn events(say: Say) -> EventStream {
    let (text, reason, score) = match say {
        Say::Text(text) => (text, FinishReason::Stop, None),
        Say::Sure(text, score) => (text, FinishReason::Stop, Some(score)),
        Say::Cut(text) => (text, FinishReason::Length, None),
        Say::Hang => return Box::pin(stream::pending()),
        Say::Vanish => return Box::pin(stream::empty()),
    };
    let logprobs = score.map(|score| TokenLogprob { id: 0, bytes: Vec::new(), logprob: Some(score), top: Vec::new() });
    let usage = Usage { prompt_tokens: 10, cached_tokens: 4, completion_tokens: 1, ..Usage::default() };
    let text = Event::Text { choice: 0, text: text.to_owned(), logprobs: logprobs.into_iter().collect() };
    Box::pin(stream::iter([text, Event::Finished { choice: 0, reason }, Event::Done(usage)].map(Ok)))
}

fn request(effort: Effort) -> SolveRequest {
    SolveRequest {
        id: "r".into(),
        problem: "How many clips?".into(),
        model: String::new(),
        effort,
        seed: Some(1),
        tenant: String::new(),
        deadline: Some(Duration::from_secs(60)),
    }
}

async fn run(model: Scripted, request: SolveRequest) -> Result<(Vec<Step>, Solution), Error> {
    let mut events = solve(&Models::new(vec![Arc::new(model)]), request).await?;
    let mut steps = Vec::new();
    while let Some(event) = events.next().await {
        match event? {
            StepEvent::Step(step) => steps.push(step),
            StepEvent::Done(conclusion) => match *conclusion {
                Conclusion::Solution(solution) => return Ok((steps, solution)),
                Conclusion::Decision(_) => unreachable!("a problem is no decision"),
            },
            _ => {}
        }
    }
    unreachable!("a stream ends with its conclusion or an error")
}

/// One chain of the engine's abilities.
async fn one(check: Check, retries: usize, script: &[Say]) -> Solution {
    let model = Scripted { chains: vec![script.to_vec()], capabilities: Capabilities::ENGINE, chat: true };
    run(model, request(Effort { chains: 1, retries, check })).await.unwrap().1
}

/// Answer, verdict, and the steps as `expression = claimed`, with the times each was written again.
fn summary(solution: &Solution) -> (Option<&str>, Verdict, Vec<String>) {
    let steps = solution.chains[0].steps.iter();
    let steps = steps.map(|step| format!("{} = {} ({})", step.expression, step.claimed, step.retries)).collect();
    (solution.answer.as_deref(), solution.verdict, steps)
}

use Say::{Cut, Hang, Sure, Text, Vanish};

const UNKNOWN: Say = Text(" the clips\n");

#[tokio::test]
async fn values_are_computed_and_put_in() {
    let script = [UNKNOWN, Text("step: in May | 48 / 2 ="), Text("step: both | #1 + 48 ="), Text("answer: 72\n")];
    let model = Scripted { chains: vec![script.to_vec()], capabilities: Capabilities::ENGINE, chat: true };
    let effort = Effort { chains: 1, retries: 0, check: Check::Compute };
    let (steps, solution) = run(model, request(effort)).await.unwrap();
    let written = ["48 / 2 = 24 (0)", "#1 + 48 = 72 (0)"].map(str::to_owned).to_vec();
    assert_eq!(summary(&solution), (Some("72"), Verdict::Verified, written));
    assert_eq!((solution.chains[0].unknowns[0].as_str(), solution.confidence), ("the clips", 1.0));
    assert_eq!(
        solution.usage,
        Usage { prompt_tokens: 40, cached_tokens: 16, completion_tokens: 4, ..Usage::default() }
    );
    let told: Vec<_> = steps.iter().map(|s| (s.step, s.action.as_str(), s.result.as_str().unwrap())).collect();
    assert_eq!(told, [(1, "unknown", "the clips"), (2, "in May", "24"), (3, "both", "72"), (4, "answer", "72")]);
    assert_eq!(steps[1].rule.as_deref(), Some("computed"));
    assert_eq!(steps[1].node.as_deref(), Some("1"));
}

#[tokio::test]
async fn wrong_steps_are_written_again_and_in_the_end_given_up() {
    let wrong = Text("step: in May | 48/2 = 26\n");
    let right = Text("step: in May | 48/2 = 24\n");
    let end = Text("answer: 24\n");
    let check = async |check, retries, script: &[Say], want: (Option<&str>, Verdict, &[&str])| {
        let solution = one(check, retries, script).await;
        let steps = want.2.iter().map(ToString::to_string).collect();
        assert_eq!(summary(&solution), (want.0, want.1, steps), "{script:?}");
    };
    let resample = Check::Resample;
    check(resample, 2, &[UNKNOWN, wrong, right, end], (Some("24"), Verdict::Verified, &["48/2 = 24 (1)"])).await;
    check(resample, 1, &[UNKNOWN, wrong, wrong], (None, Verdict::Failed, &["48/2 = 26 (1)"])).await;
    // A wrong value that nobody looks at stands.
    let off = (Some("26"), Verdict::Unverified, &["48/2 = 26 (0)"][..]);
    check(Check::Off, 2, &[UNKNOWN, wrong, Text("answer: 26\n")], off).await;
    // Expressions without a value, garbage and cut lines count as wrong.
    for bad in [Text("step: none | 1/0 ="), Text("step: none | 10^10^10 ="), Text("stop"), Cut("step: in M"), Text("")]
    {
        let good = Text("step: in May | 48/2 =");
        let once = (Some("24"), Verdict::Verified, &["48/2 = 24 (1)"][..]);
        check(Check::Compute, 1, &[UNKNOWN, bad, good, end], once).await;
        let solution = one(Check::Compute, 1, &[UNKNOWN, bad, bad]).await;
        assert_eq!((solution.answer.as_deref(), solution.verdict), (None, Verdict::Failed), "{bad:?}");
    }
}

#[tokio::test]
async fn an_answer_must_be_the_value_of_a_step() {
    let solution = one(Check::Compute, 0, &[UNKNOWN, Text("step: in May | 48/2 ="), Text("answer: 23\n")]).await;
    assert_eq!((solution.answer.as_deref(), solution.verdict), (Some("23"), Verdict::Unverified));
}

fn chain(answer: &'static str, score: f32) -> Vec<Say> {
    let step = match answer {
        "answer: 24\n" => "step: in May | 48/2 =",
        _ => "step: in May | 48*2 =",
    };
    vec![Sure(" x\n", score), Sure(step, score), Sure(answer, score)]
}

async fn voted(chains: Vec<Vec<Say>>, capabilities: Capabilities) -> Solution {
    let effort = Effort { chains: chains.len(), retries: 0, check: Check::Compute };
    run(Scripted { chains, capabilities, chat: true }, request(effort)).await.unwrap().1
}

#[tokio::test(start_paused = true)]
async fn chains_vote_with_their_sureness() {
    let (a, b) = ("answer: 24\n", "answer: 96\n");
    let solution = voted(vec![chain(a, -2.0), chain(b, -0.1), chain(a, -2.0)], Capabilities::ENGINE).await;
    assert_eq!(solution.answer.as_deref(), Some("96"));
    assert!((solution.chains[0].weight - (-0.1f64).exp()).abs() < 1e-6 && solution.confidence > 0.7);
    // Without scores everybody weighs the same, and two of three are enough: nobody waits for the last.
    let plain = Capabilities { logprobs: false, ..Capabilities::ENGINE };
    let solution = voted(vec![chain(a, -2.0), vec![Hang], chain(a, -2.0)], plain).await;
    assert_eq!((solution.answer.as_deref(), solution.confidence, solution.chains.len()), (Some("24"), 1.0, 2));
    // A chain that was given up has no vote.
    let solution = voted(vec![vec![UNKNOWN, Text("step: x | 1/0 =")], chain(b, -3.0)], Capabilities::ENGINE).await;
    assert_eq!((solution.answer.as_deref(), solution.verdict), (Some("96"), Verdict::Verified));
}

#[tokio::test]
async fn without_grammars_text_is_read_and_what_cannot_be_read_is_unverified() {
    let check = async |script: &[Say], retries, want: (Option<&str>, Verdict, &[&str])| {
        let model = Scripted { chains: vec![script.to_vec()], capabilities: Capabilities::default(), chat: true };
        let effort = Effort { chains: 1, retries, check: Check::Compute };
        let solution = run(model, request(effort)).await.unwrap().1;
        let steps = want.2.iter().map(ToString::to_string).collect();
        assert_eq!(summary(&solution), (want.0, want.1, steps), "{script:?}");
        assert_eq!(solution.chains[0].weight, 1.0);
    };
    let good = Text("unknown: clips\nstep: in May | 48/2 = 24\nanswer: 24");
    let wrong = Text("In May she sold 48/2 = 26 clips.\nThe answer is 26.");
    check(&[good], 0, (Some("24"), Verdict::Verified, &["48/2 = 24 (0)"])).await;
    check(&[wrong, good], 1, (Some("24"), Verdict::Verified, &["48/2 = 24 (1)"])).await;
    check(&[wrong], 0, (None, Verdict::Failed, &["48/2 = 26 (0)"])).await;
    check(&[Text("step: half of it\nanswer: 24")], 0, (Some("24"), Verdict::Unverified, &[" =  (0)"])).await;
    check(&[Text("I would say 24.")], 0, (Some("24"), Verdict::Unverified, &[])).await;
    check(&[Text("No idea.")], 0, (None, Verdict::Failed, &[])).await;
    check(
        &[Cut("step: in May | 48/2 = 24\nstep: and")],
        0,
        (Some("24"), Verdict::Unverified, &["48/2 = 24 (0)", " =  (0)"]),
    )
    .await;
}

/// A base model has no chat to go on with, but its text can be gone on with as it is.
#[tokio::test]
async fn base_models_continue_a_text() {
    let capabilities = Capabilities { grammar: true, ..Capabilities::default() };
    let script = vec![UNKNOWN, Text("step: in May | 48/2 ="), Text("answer: 24\n")];
    let model = Scripted { chains: vec![script], capabilities, chat: false };
    let effort = Effort { chains: 1, retries: 0, check: Check::Compute };
    assert_eq!(run(model, request(effort)).await.unwrap().1.answer.as_deref(), Some("24"));
    let Prompt::Raw(TextOrTokens::Text(text)) = prompt::prompt("p", "unknown:", false) else { unreachable!() };
    assert!(text.ends_with("problem: p\nunknown:"));
}

#[tokio::test(start_paused = true)]
async fn what_hangs_or_vanishes_ends() {
    let model = |say| Scripted { chains: vec![vec![UNKNOWN, say]], capabilities: Capabilities::ENGINE, chat: true };
    let effort = Effort { chains: 1, ..Effort::default() };
    let error = run(model(Hang), request(effort)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::DeadlineExceeded);
    let error = run(model(Vanish), request(effort)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Internal);
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused() {
    let refused = async |change: fn(&mut SolveRequest)| {
        let mut request = request(Effort::default());
        change(&mut request);
        let model = Scripted { chains: Vec::new(), capabilities: Capabilities::ENGINE, chat: true };
        run(model, request).await.unwrap_err().param.unwrap()
    };
    assert_eq!(refused(|r| r.problem = " ".into()).await, "problem");
    assert_eq!(refused(|r| r.problem = "x".repeat(20_000)).await, "problem");
    assert_eq!(refused(|r| r.effort.chains = 0).await, "chains");
    assert_eq!(refused(|r| r.effort.chains = 33).await, "chains");
    assert_eq!(refused(|r| r.effort.retries = 9).await, "retries");
    assert_eq!(refused(|r| r.model = "nobody".into()).await, "model");
}
