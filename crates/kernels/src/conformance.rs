//! One table of operations, shapes and layouts: what is checked on every instruction set is what is timed.
//!
//! A [`Case`] is an operation with its parameters. [`Case::check`] runs it on a device and compares it with the plain Rust form on
//! one thread: to the bit, except where instruction sets are allowed to differ (products of bf16). The oracle computes a few
//! rows only, each on its own, so a check also shows that a row does not depend on the rows beside it. [`Case::prepare`] gives the
//! same call for timing; bytes and operations per call are counted from the shapes. `tessera bench kernels` prints them beside
//! the machine's ceilings.

mod inputs;
mod op;

use std::fmt;

pub use op::{Op, Sequences};

use crate::machine::Arithmetic;
use crate::{Activation, AttentionSpec, BlockType, Device, Form, Isa, RopeStyle};

/// An operation with its parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// What is computed, on which shape.
    pub op: Op,
    /// Worth timing: the shape is one that real models have.
    pub timed: bool,
}

/// One call, ready to be made again and again.
pub trait Job {
    /// Makes it.
    fn run(&mut self, dev: &Device);
    /// What the last call gave.
    fn result(&mut self) -> &[f32];
}

impl Case {
    /// Bytes that a call has to move at least: weights or pages, input and output once each.
    pub fn bytes(&self) -> usize {
        self.op.bytes()
    }

    /// Arithmetic operations of a call, a multiply-add being two; 0 where bytes are what counts.
    pub fn operations(&self) -> usize {
        self.op.operations()
    }

    /// The kind of arithmetic, for comparison with the machine's peak on this device.
    pub fn arithmetic(&self, dev: &Device) -> Arithmetic {
        match self.op {
            Op::Linear { kind, m, .. } => match inputs::form(kind) {
                Form::Int8 if dev.isa() >= Isa::Amx && m >= 16 => Arithmetic::Int8Tiles,
                Form::Int8 => Arithmetic::Int8,
                Form::Bf16 => Arithmetic::Bf16,
                Form::F32 => Arithmetic::F32,
            },
            _ => Arithmetic::F32,
        }
    }

    /// Runs the case on `dev` and compares it with the oracle.
    ///
    /// # Errors
    /// The first number that differs, in words.
    pub fn check(&self, dev: &Device) -> Result<(), String> {
        let op = self.op.within_reach(dev);
        let oracle = Device::with_isa(1, Isa::Scalar);
        let rows = sample(op.rows());
        let (mut got, mut want) = (op.job(dev, None), op.job(&oracle, Some(&rows)));
        got.run(dev);
        want.run(&oracle);
        let (got, want) = (got.result(), want.result());
        let width = want.len() / rows.len().max(1);
        if got.len() < op.rows() * width {
            return Err(format!("{self}: {} numbers for {} rows of {width}", got.len(), op.rows()));
        }
        for (row, want) in rows.iter().zip(want.chunks_exact(width.max(1))) {
            let got = &got[row * width..][..width];
            let differs = |i: &usize| !self.op.agrees(dev.isa(), got[*i], want[*i]);
            if let Some(i) = (0..width).find(differs) {
                let (got, want, isa) = (got[i], want[i], dev.isa());
                return Err(format!("{self} on {isa:?}: row {row}, number {i} is {got:e}, the oracle has {want:e}"));
            }
        }
        Ok(())
    }

    /// Inputs and buffers for timing.
    pub fn prepare(&self, dev: &Device) -> Box<dyn Job> {
        self.op.job(dev, None)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.op)
    }
}

/// The rows that the oracle computes: the ends, the middle, and the ends of a tile.
fn sample(rows: usize) -> Vec<usize> {
    let mut sample = vec![0, 15, 16, rows / 2, rows.saturating_sub(1)];
    sample.retain(|row| *row < rows);
    sample.sort_unstable();
    sample.dedup();
    sample
}

/// The table.
pub fn cases() -> Vec<Case> {
    let timed = [products(), attentions(), rows(), vocabularies()].concat();
    let timed = timed.into_iter().map(|op| Case { op, timed: true });
    timed.chain(odd().into_iter().map(|op| Case { op, timed: false })).collect()
}

/// Products of real models: SmolLM2 (Q4_1, Q8_0 head), Gemma 3 (Q5_0, Q4_K, Q6_K, Q8_0 head), MiniLM (f32), other types at SmolLM2's
/// shapes.
fn products() -> Vec<Op> {
    let shapes = [
        (BlockType::Q4_1, 960, 576),
        (BlockType::Q4_1, 3072, 576),
        (BlockType::Q4_1, 576, 1536),
        (BlockType::Q8_0, 49_152, 576),
        (BlockType::Q5_0, 4096, 640),
        (BlockType::Q4_K, 640, 2048),
        (BlockType::Q6_K, 640, 2048),
        (BlockType::Q8_0, 262_144, 640),
        (BlockType::Q4_0, 3072, 576),
        (BlockType::Q5_1, 3072, 576),
        (BlockType::Q5_K, 2048, 2048),
        (BlockType::F32, 1536, 384),
        (BlockType::F16, 1536, 384),
        (BlockType::BF16, 1536, 384),
    ];
    let heads = |rows: usize, m: &usize| *m == 1 || (*m == 16 && rows < 100_000) || rows < 10_000;
    let with = |(kind, rows, cols): (BlockType, usize, usize)| {
        let sizes = [1, 16, 512].into_iter().filter(move |m| heads(rows, m));
        sizes.map(move |m| Op::Linear { kind, rows, cols, m })
    };
    shapes.into_iter().flat_map(with).collect()
}

/// Attention of SmolLM2, Gemma 3, Qwen 2.5 0.5B and MiniLM.
fn attentions() -> Vec<Op> {
    let spec = |heads: usize, kv_heads: usize, head_dim: usize, window| {
        let scale = 1.0 / (head_dim as f32).sqrt();
        AttentionSpec { heads, kv_heads, head_dim, scale, window, softcap: None }
    };
    let (smol, gemma, qwen) = (spec(9, 3, 64, None), spec(4, 1, 256, None), spec(14, 2, 64, None));
    let sliding = AttentionSpec { window: Some(512), ..gemma };
    let one = |before, len| Sequences { count: 1, before, len };
    let mut ops = Vec::new();
    for spec in [smol, gemma, sliding, qwen] {
        for sequences in
            [one(0, 512), one(3584, 512), one(255, 1), one(4095, 1), Sequences { count: 16, before: 255, len: 1 }]
        {
            ops.push(Op::Attention { spec, sequences });
        }
    }
    ops.push(Op::StoreKv { spec: smol, sequences: one(0, 512) });
    ops.push(Op::StoreKv { spec: smol, sequences: Sequences { count: 16, before: 255, len: 1 } });
    for (count, len) in [(1, 512), (8, 128), (32, 24)] {
        ops.push(Op::Encoder { spec: spec(12, 12, 32, None), count, len });
    }
    ops
}

/// What happens to rows between products.
fn rows() -> Vec<Op> {
    let mut ops = Vec::new();
    for m in [1, 512] {
        for form in [Form::Int8, Form::Bf16, Form::F32] {
            ops.push(Op::Prepare { form, m, cols: 576 });
        }
        ops.extend([
            Op::RmsNorm { m, cols: 576 },
            Op::RmsNorm { m: m * 4, cols: 256 },
            Op::RmsNormTo { m, cols: 576 },
            Op::RmsNormAdd { m, cols: 640 },
            Op::LayerNorm { m, cols: 384 },
            Op::Rope { m, heads: 9, head_dim: 64, dim: 64, style: RopeStyle::Interleaved },
            Op::Rope { m, heads: 4, head_dim: 256, dim: 256, style: RopeStyle::Half },
            Op::Gated { f: Activation::Silu, m, cols: 1536 },
            Op::Gated { f: Activation::GeluTanh, m, cols: 2048 },
            Op::Activate { f: Activation::Gelu, m, cols: 1536 },
        ]);
    }
    ops
}

/// Passes over logits.
fn vocabularies() -> Vec<Op> {
    let mut ops = Vec::new();
    for n in [49_152, 262_144] {
        ops.extend([
            Op::Argmax { n },
            Op::LogSumExp { n },
            Op::Gumbel { n },
            Op::TopK { n, k: 40 },
            Op::TopK { n, k: 1000 },
        ]);
    }
    ops
}

/// Shapes that no model has, for the ends of loops.
fn odd() -> Vec<Op> {
    let mut ops = Vec::new();
    for kind in BlockType::ALL {
        let cols = kind.block_len().max(2);
        for (rows, blocks, m) in [(1, 1, 1), (17, 3, 5), (33, 1, 16), (5, 2, 33)] {
            ops.push(Op::Linear { kind, rows, cols: cols * blocks, m });
        }
    }
    for (heads, kv_heads, head_dim, window, softcap) in [
        (1, 1, 4, None, None),
        (6, 2, 80, Some(70), None),
        (8, 1, 20, None, Some(10.0)),
        (3, 3, 33, Some(3), Some(2.0)),
    ] {
        let spec = AttentionSpec { heads, kv_heads, head_dim, scale: 0.2, window, softcap };
        for (count, before, len) in [(1, 0, 1), (3, 63, 2), (2, 100, 70), (1, 1100, 9)] {
            ops.push(Op::Attention { spec, sequences: Sequences { count, before, len } });
            ops.push(Op::StoreKv { spec, sequences: Sequences { count, before, len } });
        }
        ops.push(Op::Encoder { spec, count: 3, len: 67 });
    }
    for (m, cols) in [(1, 1), (3, 17), (2, 2085), (40, 15)] {
        ops.extend([
            Op::RmsNorm { m, cols },
            Op::RmsNormTo { m, cols },
            Op::RmsNormAdd { m, cols },
            Op::LayerNorm { m, cols },
        ]);
        ops.extend([Activation::Silu, Activation::GeluTanh, Activation::Gelu].map(|f| Op::Gated { f, m, cols }));
        ops.push(Op::Activate { f: Activation::Silu, m, cols });
    }
    for style in [RopeStyle::Half, RopeStyle::Interleaved] {
        ops.extend([(4, 4), (48, 20), (96, 96)].map(|(head_dim, dim)| Op::Rope {
            m: 5,
            heads: 3,
            head_dim,
            dim,
            style,
        }));
    }
    ops.extend([1, 15, 17, 1000].into_iter().flat_map(|n| {
        [Op::Argmax { n }, Op::LogSumExp { n }, Op::Gumbel { n }, Op::TopK { n, k: 7 }, Op::TopK { n, k: 2000 }]
    }));
    ops
}
