//! What the caller sees: stop strings, scores, echo, limits.

use super::*;

fn run(prompt: &[u32], answers: Answers) -> Vec<Event> {
    let mut bench = Bench::new(64, EngineConfig::default());
    bench.core.submit(job(prompt.to_vec(), answers)).unwrap();
    let outputs = bench.finish().into_values().flatten();
    outputs
        .map(|output| match output.unwrap() {
            Output::Event(event) => event,
            other => panic!("{other:?}"),
        })
        .collect()
}

fn text_of(events: &[Event]) -> String {
    let text = |event: &Event| match event {
        Event::Text { text, .. } => text.clone(),
        _ => String::new(),
    };
    events.iter().map(text).collect()
}

const PROMPT: &[u32] = &[104, 101, 108, 108, 111];

/// Answers of bytes only: the end of text is banned.
fn endless(max_tokens: usize) -> Answers {
    let sampling = Sampling { temperature: 0.0, logit_bias: [(fake::END, -100.0)].into(), ..Sampling::default() };
    Answers { sampling, ..answers(max_tokens) }
}

fn free_run() -> String {
    text_of(&run(PROMPT, endless(40)))
}

#[test]
fn a_stop_string_ends_the_answer_and_is_no_part_of_it() {
    let whole = free_run();
    for (from, to) in [(3, 4), (5, 9), (0, 2), (10, 25)] {
        let stop = &whole[from..to];
        let stops: Arc<[String]> = Arc::new(["never seen".to_owned(), stop.to_owned()]);
        let events = run(PROMPT, Answers { stops, logprobs: Some(0), ..endless(40) });
        let expected = &whole[..whole.find(stop).unwrap()];
        assert_eq!(text_of(&events), expected);
        let scores: usize = events
            .iter()
            .map(|event| match event {
                Event::Text { logprobs, .. } => logprobs.len(),
                _ => 0,
            })
            .sum();
        assert_eq!(scores, expected.len(), "one score per token of the text: its tokens are bytes");
        assert!(events.contains(&Event::Finished { choice: 0, reason: FinishReason::StopString(1) }));
    }
}

#[test]
fn text_that_only_began_like_a_stop_string_is_sent_in_the_end() {
    let whole = free_run();
    let stops: Arc<[String]> = Arc::new([format!("{}#", &whole[36..])]);
    let events = run(PROMPT, Answers { stops, ..endless(40) });
    assert_eq!(text_of(&events), whole);
}

#[test]
fn scores_are_those_of_the_raw_distribution() {
    let wanted = Answers { logprobs: Some(3), score_from: Some(0), echo: Some("hello".into()), ..answers(4) };
    let mut sampling = endless(0).sampling;
    sampling.frequency_penalty = 1.0;
    let events = run(PROMPT, Answers { sampling, ..wanted });
    let Event::PromptLogprobs(scores) = &events[1] else { panic!("{events:?}") };
    assert_eq!(events[2], Event::Text { choice: 0, text: "hello".into(), logprobs: vec![] });
    let generated = events.iter().flat_map(|event| match event {
        Event::Text { logprobs, .. } => logprobs.clone(),
        _ => vec![],
    });
    let all: Vec<_> = scores.iter().cloned().chain(generated).collect();
    assert_eq!((all.len(), all[0].logprob), (9, None));
    let tokens: Vec<u32> = all.iter().map(|score| score.id).collect();
    for (at, score) in all.iter().enumerate().skip(1) {
        let state = fake::state_of(&tokens[..at]);
        let logits: Vec<f32> = (0..VOCAB as u32).map(|token| fake::logit(state, token)).collect();
        let mass = logits.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>().ln();
        let expected = f64::from(logits[score.id as usize]) - mass;
        assert!((f64::from(score.logprob.unwrap()) - expected).abs() < 1e-4);
        assert!(score.top.is_sorted_by(|a, b| a.2 >= b.2) && score.top.len() == 3);
    }
}

#[test]
fn a_prompt_can_be_scored_without_an_answer() {
    let events =
        run(PROMPT, Answers { logprobs: Some(0), score_from: Some(0), echo: Some("hello".into()), ..answers(0) });
    assert!(
        matches!(
            &events[..],
            [
                Event::Started { .. },
                Event::PromptLogprobs(scores),
                Event::Text { .. },
                Event::Finished { reason: FinishReason::Length, .. },
                Event::Done(Usage { completion_tokens: 0, .. })
            ] if scores.len() == 5 && scores[4].logprob.is_some()
        ),
        "{events:?}"
    );
}

#[test]
fn what_has_no_score_is_not_computed() {
    let check = |prompt: &[u32], score_from: usize, choices: usize, rows: u64| {
        let mut bench = Bench::new(64, EngineConfig::default());
        let choices = (0..choices).map(|_| Choice::default()).collect::<Vec<_>>();
        let n = choices.len();
        let wanted = Answers { choices, logprobs: Some(0), score_from: Some(score_from), ..answers(0) };
        bench.core.submit(job(prompt.to_vec(), Answers { echo: Some("hello".into()), ..wanted })).unwrap();
        let outputs: Vec<_> = bench.finish().into_values().flatten().collect();
        assert_eq!(
            (bench.rows(), bench.core.stats().steps),
            (rows, u64::from(rows > 0)),
            "{prompt:?} from {score_from}"
        );
        let told = told(&outputs);
        assert_eq!((told.texts.len(), told.reasons.len(), told.usage.unwrap().prompt_tokens), (n, n, prompt.len()));
        let Ok(Output::Event(Event::PromptLogprobs(scores))) = &outputs[1] else { panic!("{outputs:?}") };
        let scored = scores.iter().filter(|score| score.logprob.is_some()).count();
        assert_eq!((scores.len(), scored > 0), (prompt.len(), rows > 0));
    };
    check(PROMPT, PROMPT.len(), 1, 0);
    check(PROMPT, 1000, 1, 0);
    check(PROMPT, 1000, 3, 0);
    check(&PROMPT[..1], 0, 1, 0);
    check(PROMPT, PROMPT.len() - 1, 1, PROMPT.len() as u64);
    check(PROMPT, 0, 3, PROMPT.len() as u64);
}

#[test]
fn a_scored_context_comes_from_the_cache() {
    let mut bench = Bench::new(64, EngineConfig::default());
    let context: Vec<u32> = (0..100).map(|at| 97 + at % 26).collect();
    let scored = |tail: &[u32]| {
        let prompt: Vec<u32> = context.iter().chain(tail).copied().collect();
        job(prompt, Answers { logprobs: Some(0), score_from: Some(100), ..answers(0) })
    };
    bench.core.submit(scored(&[65, 66])).unwrap();
    bench.finish();
    let before = bench.rows();
    bench.core.submit(scored(&[67, 68])).unwrap();
    let outputs: Vec<_> = bench.finish().into_values().flatten().map(Result::unwrap).collect();
    assert_eq!(bench.rows() - before, 3, "the last token of the context and the two behind it");
    let Output::Event(Event::PromptLogprobs(scores)) = &outputs[1] else { panic!("{outputs:?}") };
    assert_eq!((scores[99].logprob, scores.len()), (None, 102));
    assert!(scores[100].logprob.is_some() && scores[101].logprob.is_some());
}
