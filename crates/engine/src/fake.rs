//! A model made of hashes, and a clock that moves when it computes.
//!
//! The state at a position is a hash of the state before it, read back from the page it was stored in, and the token.
//! Whoever mixes up pages, positions or rows gets other logits, so equal tokens mean that the bookkeeping is right.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use kernels::{Device, PAGE_TOKENS};
use model::{Batch, Pooling};
use text::{Tokenizer, Vocabulary};

use crate::{clock::Clock, executor::Executor};

/// Tokens of the fake vocabulary: the bytes, and an end of text.
pub(crate) const VOCAB: usize = 257;
/// The end of text.
pub(crate) const END: u32 = 256;
/// Numbers of a hidden state: a hash in parts that an `f32` holds exactly.
pub(crate) const WIDTH: usize = 4;

/// Virtual time in microseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct VirtualClock(Arc<AtomicU64>);

impl VirtualClock {
    pub(crate) fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// The fake.
pub(crate) struct FakeExecutor {
    pub(crate) clock: VirtualClock,
    pub(crate) encoder: bool,
    pub(crate) context: usize,
    /// Rows that may leave do, and have another state than those that stay.
    pub(crate) exits: bool,
    /// Rows of all forward passes so far.
    pub(crate) rows: Arc<AtomicU64>,
    pages: Vec<[u64; PAGE_TOKENS]>,
    device: Device,
}

impl FakeExecutor {
    pub(crate) fn new(pages: usize, clock: VirtualClock) -> Self {
        let pages = vec![[0; PAGE_TOKENS]; pages];
        Self { clock, encoder: false, context: 2048, exits: false, rows: Arc::default(), pages, device: Device::new(1) }
    }
}

fn mix(a: u64, b: u64) -> u64 {
    let z = (a ^ b.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z ^ (z >> 29)
}

/// The state behind a token, which left early or not.
fn next(before: u64, token: u32, left: bool) -> u64 {
    mix(before, u64::from(token) + if left { 1001 } else { 1 })
}

/// The state behind a sequence of tokens.
pub(crate) fn state_of(tokens: &[u32]) -> u64 {
    state_behind(tokens, tokens.len())
}

/// The same where only the first ones go the whole way.
pub(crate) fn state_behind(tokens: &[u32], whole: usize) -> u64 {
    tokens.iter().enumerate().fold(1, |state, (at, &token)| next(state, token, at >= whole))
}

fn to_hidden(state: u64) -> [f32; WIDTH] {
    std::array::from_fn(|part| (state >> (16 * part) & 0xFFFF) as f32)
}

fn from_hidden(hidden: &[f32]) -> u64 {
    hidden.iter().enumerate().map(|(part, value)| (*value as u64) << (16 * part)).sum()
}

/// Letters are likely, the end of text now and then.
pub(crate) fn logit(state: u64, token: u32) -> f32 {
    let noise = (mix(state, u64::from(token) + 77) >> 40) as f32 / (1 << 24) as f32;
    match token {
        END => noise * 7.5,
        0x61..=0x7A | 0x20 => noise * 8.0,
        _ => noise * 5.0,
    }
}

impl Executor for FakeExecutor {
    fn vocab(&self) -> usize {
        VOCAB
    }

    fn width(&self) -> usize {
        WIDTH
    }

    fn context(&self) -> usize {
        self.context
    }

    fn pages(&self) -> usize {
        self.pages.len()
    }

    fn page_bytes(&self) -> usize {
        1000
    }

    fn is_encoder(&self) -> bool {
        self.encoder
    }

    fn pooling(&self) -> Pooling {
        Pooling::Mean
    }

    fn device(&self) -> &Device {
        &self.device
    }

    /// A hundred microseconds a row, whatever the clock says.
    fn processor_time(&self) -> Option<Duration> {
        Some(Duration::from_micros(100 * self.rows.load(Ordering::Relaxed)))
    }

    fn has_exits(&self) -> bool {
        self.exits
    }

    fn forward(&mut self, batch: &Batch<'_>, hidden: &mut Vec<f32>) -> usize {
        let mut states = vec![0; batch.tokens.len()];
        for span in batch.spans {
            for row in 0..span.len {
                let at = |position: usize| (span.pages[position / PAGE_TOKENS] as usize, position % PAGE_TOKENS);
                let position = span.position + row;
                let before = position.checked_sub(1).map_or(1, |before| self.pages[at(before).0][at(before).1]);
                let left = batch.leaving.contains(&((span.start + row) as u32));
                let state = next(before, batch.tokens[span.start + row], left);
                self.pages[at(position).0][at(position).1] = state;
                states[span.start + row] = state;
            }
        }
        hidden.clear();
        hidden.extend(batch.outputs.iter().flat_map(|&row| to_hidden(states[row as usize])));
        self.rows.fetch_add(batch.tokens.len() as u64, Ordering::Relaxed);
        self.clock.pass(Duration::from_micros(2000 + 50 * batch.tokens.len() as u64));
        batch.leaving.len()
    }

    fn logits(&mut self, hidden: &[f32], out: &mut [f32]) {
        let ids: Vec<u32> = (0..VOCAB as u32).collect();
        self.logits_of(hidden, &ids, out);
    }

    fn logits_of(&mut self, hidden: &[f32], tokens: &[u32], out: &mut [f32]) {
        for (row, out) in hidden.chunks_exact(WIDTH).zip(out.chunks_exact_mut(tokens.len())) {
            let state = from_hidden(row);
            out.iter_mut().zip(tokens).for_each(|(out, &token)| *out = logit(state, token));
        }
    }

    fn copy_page(&mut self, from: u32, to: u32, tokens: usize) {
        let source = self.pages[from as usize];
        self.pages[to as usize][..tokens].copy_from_slice(&source[..tokens]);
    }

    fn encode(&mut self, tokens: &[u32], lens: &[usize], hidden: &mut Vec<f32>) {
        hidden.clear();
        let mut rest = tokens;
        for &len in lens {
            let (sequence, behind) = rest.split_at(len);
            hidden.extend(sequence.iter().flat_map(|&token| to_hidden(mix(1, u64::from(token)))));
            rest = behind;
        }
        self.clock.pass(Duration::from_millis(1));
    }
}

/// A tokenizer whose ids are bytes, with an end of text.
pub(crate) fn tokenizer() -> Arc<Tokenizer> {
    let mut tokens: Vec<String> = (0..=255).map(|byte| byte_char(byte).to_string()).collect();
    tokens.push("<|end|>".into());
    let mut types = vec![1; 256];
    types.push(3);
    let vocabulary =
        Vocabulary { kind: "gpt2".into(), pre: "gpt-2".into(), tokens, types, eos: Some(END), ..Vocabulary::default() };
    Arc::new(Tokenizer::from_vocabulary(&vocabulary).unwrap())
}

/// GPT-2's way to write bytes as printable characters.
fn byte_char(byte: u8) -> char {
    let printable = |b: u8| matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    match printable(byte) {
        true => char::from(byte),
        false => char::from_u32(256 + (0..byte).filter(|&b| !printable(b)).count() as u32).unwrap(),
    }
}
