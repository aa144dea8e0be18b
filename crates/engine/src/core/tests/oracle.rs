//! Random mixes of requests give the tokens that each would get alone.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
struct Plan {
    arrives: usize,
    /// Cancelled at this step, if it still runs.
    cancelled: Option<usize>,
    stem: u32,
    prompt: usize,
    fork: usize,
    n: usize,
    max_tokens: usize,
    temperature: f32,
    top_k: usize,
    top_p: f32,
    penalty: f32,
    seed: u64,
    scored: bool,
    grammar: bool,
    tenant: u8,
}

fn plan() -> impl Strategy<Value = Plan> {
    let shape = (0..30usize, prop::option::weighted(0.2, 0..60usize), 0..2u32, 1..300usize, 0..300usize, 1..4usize);
    let choice = (1..100usize, prop_oneof![Just(0.0f32), Just(1.0)], 0..3usize, prop_oneof![Just(1.0f32), Just(0.7)]);
    let rest = (
        prop_oneof![Just(0.0f32), Just(0.5)],
        any::<u64>(),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.3),
        0..3u8,
    );
    (shape, choice, rest).prop_map(
        |(
            (arrives, cancelled, stem, prompt, fork, n),
            (max_tokens, temperature, k, top_p),
            (penalty, seed, scored, grammar, tenant),
        )| {
            let top_k = [0, 1, 20][k];
            Plan {
                arrives,
                cancelled,
                stem,
                prompt,
                fork,
                n,
                max_tokens,
                temperature,
                top_k,
                top_p,
                penalty,
                seed,
                scored,
                grammar,
                tenant,
            }
        },
    )
}

fn config() -> impl Strategy<Value = (usize, EngineConfig)> {
    let rows = prop_oneof![Just(1usize), Just(7), Just(64), Just(512)];
    (6..40usize, 1..9usize, rows.clone(), rows, any::<bool>()).prop_map(
        |(pages, max_sequences, prefill_rows, mixed_rows, prefix_cache)| {
            let config =
                EngineConfig { max_sequences, prefill_rows, mixed_rows, prefix_cache, ..EngineConfig::default() };
            (pages, config)
        },
    )
}

impl Plan {
    /// Prompts of a stem agree up to where they fork.
    fn prompt(&self) -> Vec<u32> {
        let token = |at: usize| {
            let own = if at >= self.fork { self.seed as u32 % 5 } else { 0 };
            97 + (at as u32 * (self.stem + 3) + own) % 26
        };
        (0..self.prompt).map(token).collect()
    }

    /// The same plan where prompt and answer fit into a context, as whoever submits a job sees to.
    fn within(&self, context: usize) -> Self {
        Self { max_tokens: self.max_tokens.min(context - self.prompt), ..self.clone() }
    }

    fn answers(&self) -> Answers {
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            frequency_penalty: self.penalty,
            ..Sampling::default()
        };
        Answers {
            choices: (0..self.n).map(|_| Choice { matcher: self.grammar.then(grammar), ..Choice::default() }).collect(),
            sampling,
            seed: self.seed,
            logprobs: self.scored.then_some(2),
            score_from: self.scored.then_some(0),
            ..answers(self.max_tokens)
        }
    }

    fn job(&self) -> Job {
        Job { tenant: self.tenant.to_string(), ..job(self.prompt(), self.answers()) }
    }

    fn check(&self, exits: bool, outputs: &[Result<Output, Error>]) {
        let told = told(outputs);
        let mut generated = 0;
        for choice in 0..self.n {
            let (text, reason, tokens) = naive_over(exits, &self.prompt(), &self.answers(), choice);
            assert_eq!(told.texts.get(&choice).cloned().unwrap_or_default(), text);
            assert_eq!(told.reasons[&choice], reason);
            generated += tokens;
        }
        let usage = told.usage.unwrap();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (self.prompt, generated));
    }
}

fn run_mix(exits: bool, pages: usize, config: EngineConfig, plans: &[Plan]) {
    let plans: Vec<Plan> = plans.iter().map(|plan| plan.within(pages * PAGE_TOKENS)).collect();
    let mut bench = Bench::over(exits, pages, config);
    let mut ids = BTreeMap::new();
    let mut outputs: BTreeMap<RequestId, Vec<_>> = BTreeMap::new();
    for step in 0..60 {
        for (index, plan) in plans.iter().enumerate() {
            if plan.arrives == step {
                ids.insert(index, bench.core.submit(plan.job()).unwrap());
            }
            if plan.cancelled == Some(step) && ids.contains_key(&index) {
                bench.core.cancel(ids[&index]);
            }
        }
        for (id, output) in bench.core.step() {
            outputs.entry(id).or_default().push(output);
        }
    }
    for (id, rest) in bench.finish() {
        outputs.entry(id).or_default().extend(rest);
    }
    for (index, plan) in plans.iter().enumerate() {
        let id = ids[&index];
        let seen = outputs.remove(&id).unwrap_or_default();
        if plan.cancelled.is_none_or(|at| at < plan.arrives) {
            plan.check(exits, &seen);
        }
    }
}

/// The outputs of one request alone, which reports its tokens and repeats `resume` first.
fn alone(exits: bool, plan: &Plan, resume: &[Vec<u32>]) -> Vec<Result<Output, Error>> {
    let mut answers = Answers { report_tokens: true, ..plan.answers() };
    answers.choices.iter_mut().zip(resume).for_each(|(choice, tokens)| choice.resume.clone_from(tokens));
    let mut bench = Bench::over(exits, 40, EngineConfig::default());
    bench.core.submit(job(plan.prompt(), answers)).unwrap();
    bench.finish().into_values().next().unwrap()
}

/// The first `share` percent of the tokens of every choice.
fn beginnings(plan: &Plan, outputs: &[Result<Output, Error>], share: usize) -> Vec<Vec<u32>> {
    let mut tokens = vec![Vec::new(); plan.n];
    for output in outputs {
        if let Ok(Output::Event(Event::Tokens { choice, ids })) = output {
            tokens[*choice].extend(ids);
        }
    }
    tokens.iter_mut().for_each(|ids| ids.truncate(ids.len() * share / 100));
    tokens
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mix_of_requests_gives_everybody_the_tokens_of_being_alone(
        (pages, config) in config(),
        exits in any::<bool>(),
        plans in prop::collection::vec(plan(), 1..10),
    ) {
        run_mix(exits, pages, config, &plans);
    }

    #[test]
    fn a_resumed_stream_says_what_an_unbroken_one_says(exits in any::<bool>(), plan in plan(), share in 0..101usize) {
        let plan = Plan { scored: false, ..plan };
        let whole = alone(exits, &plan, &[]);
        // What it took is another matter: tokens that are known are rows of a prompt.
        let said = |outputs: &[Result<Output, Error>]| {
            let told = told(outputs);
            Told { usage: told.usage.map(|usage| Usage { processor_micros: None, ..usage }), ..told }
        };
        prop_assert_eq!(said(&alone(exits, &plan, &beginnings(&plan, &whole, share))), said(&whole));
    }
}
