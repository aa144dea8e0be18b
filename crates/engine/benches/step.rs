//! What a step costs besides the model: 64 answers at once over a model that does nothing.
//!
//! `cargo bench -p engine` prints microseconds per step for greedy rows (one argmax each), sampled rows, and rows with top-p.
//! The scheduler's own share is what remains with a vocabulary of a few tokens.

use std::{sync::Arc, time::Instant};

use engine::{Answers, Choice, Core, EngineConfig, Executor, Job, Monotonic, Work};
use kernels::Device;
use model::{Batch, Pooling};
use protocol::Sampling;
use text::{Tokenizer, Vocabulary};

const STREAMS: usize = 64;
const STEPS: usize = 200;

/// Logits of a plausible shape, made once.
struct Nothing {
    device: Device,
    vocab: usize,
}

impl Executor for Nothing {
    fn vocab(&self) -> usize {
        self.vocab
    }
    fn width(&self) -> usize {
        8
    }
    fn context(&self) -> usize {
        4096
    }
    fn pages(&self) -> usize {
        4096
    }
    fn page_bytes(&self) -> usize {
        1 << 20
    }
    fn is_encoder(&self) -> bool {
        false
    }
    fn pooling(&self) -> Pooling {
        Pooling::Mean
    }
    fn device(&self) -> &Device {
        &self.device
    }
    fn forward(&mut self, batch: &Batch<'_>, hidden: &mut Vec<f32>) -> usize {
        hidden.resize(batch.outputs.len() * 8, 0.0);
        0
    }
    fn logits(&mut self, _: &[f32], out: &mut [f32]) {
        for row in out.chunks_exact_mut(self.vocab).filter(|row| row[1] != 1.0) {
            row.iter_mut()
                .enumerate()
                .for_each(|(id, logit)| *logit = ((id * 7919 % 10007) as f32 / 10007.0).powi(9) * 20.0);
            row[1] = 1.0;
        }
    }
    fn logits_of(&mut self, _: &[f32], _: &[u32], out: &mut [f32]) {
        out.fill(0.0);
    }
    fn copy_page(&mut self, _: u32, _: u32, _: usize) {}
    fn encode(&mut self, _: &[u32], _: &[usize], _: &mut Vec<f32>) {}
}

fn job(sampling: &Sampling, salt: u32) -> Job {
    let answers = Answers {
        choices: vec![Choice::default()],
        sampling: sampling.clone(),
        seed: u64::from(salt),
        max_tokens: STEPS + 100,
        stops: Arc::new(["never".to_owned()]),
        ignore_eos: true,
        logprobs: None,
        echo: None,
        score_from: None,
        report_tokens: false,
        report_work: false,
    };
    let work = Work::Answers(Box::new(answers));
    Job { prompt: vec![salt % 64, 1, 2], adaptation: None, tenant: String::new(), deadline: None, work }
}

#[expect(clippy::unwrap_used, reason = "a bench may end with a panic")]
fn tokenizer() -> Arc<Tokenizer> {
    let tokens = (33..=126u8).map(|byte| char::from(byte).to_string()).collect();
    let vocabulary = Vocabulary { kind: "gpt2".into(), pre: "gpt-2".into(), tokens, ..Vocabulary::default() };
    Arc::new(Tokenizer::from_vocabulary(&vocabulary).unwrap())
}

#[expect(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, reason = "a bench measures and prints")]
fn measure(what: &str, vocab: usize, sampling: &Sampling) {
    let executor = Nothing { device: Device::new(2), vocab };
    let mut core = Core::new(executor, tokenizer(), Box::new(Monotonic::start()), EngineConfig::default());
    (0..STREAMS as u32).for_each(|salt| core.submit(job(sampling, salt)).map(drop).unwrap());
    (0..20).for_each(|_| drop(core.step()));
    let mut times: Vec<f64> = (0..STEPS)
        .map(|_| {
            let start = Instant::now();
            drop(core.step());
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{what:<40} {:8.1} us per step of {STREAMS} (median of {STEPS})", times[STEPS / 2]);
}

fn main() {
    let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
    measure("scheduler (94 tokens, greedy)", 94, &greedy);
    measure("49152 tokens, greedy", 49152, &greedy);
    measure("49152 tokens, sampled", 49152, &Sampling::default());
    measure("49152 tokens, top-p 0.9", 49152, &Sampling { top_p: 0.9, ..Sampling::default() });
}
