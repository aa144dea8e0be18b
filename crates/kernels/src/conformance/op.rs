//! The operations of the table: how each is set up, counted and compared.

use std::fmt;

use super::Job;
use super::inputs::{form, numbers, rows, weights};
use crate::{
    Activation, Activations, AttentionSpec, BlockType, Device, Form, Isa, KvCache, KvShape, Linear, Matrix,
    PAGE_TOKENS, RopeScaling, RopeSpec, RopeStyle, RopeTable, Span, activate, argmax, attention, encoder_attention,
    gated, gumbel_argmax, layer_norm, linear, log_sum_exp, read_keys, rms_norm, rms_norm_add, rms_norm_to, rope,
    store_kv, top_k,
};

/// A call with its shape. `m` is the number of rows.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "fields are named as everywhere in this crate")]
#[non_exhaustive]
pub enum Op {
    /// [`linear()`].
    Linear { kind: BlockType, rows: usize, cols: usize, m: usize },
    /// [`Activations::set`].
    Prepare { form: Form, m: usize, cols: usize },
    /// [`attention()`].
    Attention { spec: AttentionSpec, sequences: Sequences },
    /// [`store_kv`], read back by [`read_keys`].
    StoreKv { spec: AttentionSpec, sequences: Sequences },
    /// [`encoder_attention`].
    Encoder { spec: AttentionSpec, count: usize, len: usize },
    /// [`rms_norm`].
    RmsNorm { m: usize, cols: usize },
    /// [`rms_norm_to`], into bytes.
    RmsNormTo { m: usize, cols: usize },
    /// [`rms_norm_add`].
    RmsNormAdd { m: usize, cols: usize },
    /// [`layer_norm`].
    LayerNorm { m: usize, cols: usize },
    /// [`rope()`].
    Rope { m: usize, heads: usize, head_dim: usize, dim: usize, style: RopeStyle },
    /// [`gated`], into f32.
    Gated { f: Activation, m: usize, cols: usize },
    /// [`activate`].
    Activate { f: Activation, m: usize, cols: usize },
    /// [`argmax`].
    Argmax { n: usize },
    /// [`log_sum_exp`].
    LogSumExp { n: usize },
    /// [`gumbel_argmax`].
    Gumbel { n: usize },
    /// [`top_k`].
    TopK { n: usize, k: usize },
}

/// `count` sequences of equal length: `before` tokens are cached, `len` are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequences {
    /// Sequences.
    pub count: usize,
    /// Tokens already there.
    pub before: usize,
    /// New tokens.
    pub len: usize,
}

impl Sequences {
    fn tokens(self) -> usize {
        self.before + self.len
    }

    /// Pages of every sequence, scattered.
    fn pages(self) -> Vec<Vec<u32>> {
        let n = self.tokens().div_ceil(PAGE_TOKENS);
        (0..self.count).map(|s| (0..n).map(|p| (p * self.count + s) as u32).collect()).collect()
    }

    /// Spans of the new tokens, or of some rows of them, each a span of its own.
    fn spans<'a>(self, pages: &'a [Vec<u32>], only: Option<&[usize]>) -> Vec<Span<'a>> {
        let Some(only) = only else {
            let span = |s: usize| Span { start: s * self.len, len: self.len, position: self.before, pages: &pages[s] };
            return (0..self.count).map(span).collect();
        };
        let span = |(i, row): (usize, &usize)| Span {
            start: i,
            len: 1,
            position: self.before + row % self.len,
            pages: &pages[row / self.len],
        };
        only.iter().enumerate().map(span).collect()
    }
}

/// A call as a closure over its inputs; the result lies in a buffer or in activations.
struct Call<F> {
    out: Vec<f32>,
    to: Activations,
    /// How to read the activations, if they are the result.
    form: Option<Form>,
    call: F,
}

impl<F: FnMut(&Device, &mut Vec<f32>, &mut Activations)> Job for Call<F> {
    fn run(&mut self, dev: &Device) {
        (self.call)(dev, &mut self.out, &mut self.to);
    }

    fn result(&mut self) -> &[f32] {
        if let Some(form) = self.form {
            self.out.clear();
            (0..self.to.rows()).for_each(|row| self.to.read(form, row, &mut self.out));
        }
        &self.out
    }
}

fn call(len: usize, mut call: impl FnMut(&Device, &mut Vec<f32>) + 'static) -> Box<dyn Job> {
    let call = move |dev: &Device, out: &mut Vec<f32>, _: &mut Activations| call(dev, out);
    Box::new(Call { out: vec![0.0; len], to: Activations::new(), form: None, call })
}

fn fill(form: Form, mut call: impl FnMut(&Device, &mut Activations) + 'static) -> Box<dyn Job> {
    let call = move |dev: &Device, _: &mut Vec<f32>, to: &mut Activations| call(dev, to);
    Box::new(Call { out: Vec::new(), to: Activations::new(), form: Some(form), call })
}

/// Bytes of weights that repeated calls cycle through, so that they come from memory as in a model.
const WEIGHTS: usize = 64 << 20;

impl Op {
    /// Independent rows of the result.
    pub(super) fn rows(&self) -> usize {
        match *self {
            Self::Linear { m, .. } | Self::Prepare { m, .. } | Self::RmsNorm { m, .. } | Self::RmsNormAdd { m, .. } => {
                m
            }
            Self::RmsNormTo { m, .. }
            | Self::LayerNorm { m, .. }
            | Self::Rope { m, .. }
            | Self::Gated { m, .. }
            | Self::Activate { m, .. } => m,
            Self::Attention { sequences, .. } => sequences.count * sequences.len,
            Self::StoreKv { .. } | Self::Encoder { .. } => 1,
            Self::Argmax { .. } | Self::LogSumExp { .. } | Self::Gumbel { .. } | Self::TopK { .. } => 1,
        }
    }

    /// Bytes that a call has to move at least.
    pub(super) fn bytes(&self) -> usize {
        match *self {
            Self::Linear { kind, rows, cols, m } => kind.bytes_of(rows * cols).unwrap_or(0) + 4 * m * (rows + cols),
            Self::Prepare { m, cols, .. } | Self::RmsNormTo { m, cols } => 5 * m * cols,
            Self::Attention { spec, sequences } => {
                let tokens =
                    sequences.tokens().min(spec.window.unwrap_or(usize::MAX).saturating_add(sequences.len - 1));
                let queries = sequences.len * spec.heads * spec.head_dim;
                sequences.count * (4 * tokens * spec.kv_heads * spec.head_dim + 8 * queries)
            }
            Self::StoreKv { spec, sequences } => 12 * sequences.count * sequences.len * spec.kv_heads * spec.head_dim,
            Self::Encoder { spec, count, len } => 8 * count * len * (spec.heads + spec.kv_heads) * spec.head_dim,
            Self::RmsNorm { m, cols } | Self::LayerNorm { m, cols } | Self::Activate { m, cols, .. } => 8 * m * cols,
            Self::RmsNormAdd { m, cols } | Self::Gated { m, cols, .. } => 12 * m * cols,
            Self::Rope { m, heads, head_dim, .. } => 8 * m * heads * head_dim,
            Self::Argmax { n } | Self::LogSumExp { n } | Self::Gumbel { n } | Self::TopK { n, .. } => 4 * n,
        }
    }

    /// Operations of a call that are products and sums of products.
    pub(super) fn operations(&self) -> usize {
        match *self {
            Self::Linear { rows, cols, m, .. } => 2 * m * rows * cols,
            Self::Attention { spec, sequences: Sequences { count, before, len } } => {
                let seen = |position: usize| (position + 1).min(spec.window.unwrap_or(usize::MAX));
                4 * count * (before..before + len).map(seen).sum::<usize>() * spec.heads * spec.head_dim
            }
            Self::Encoder { spec, count, len } => 4 * count * len * len * spec.heads * spec.head_dim,
            _ => 0,
        }
    }

    /// The same with no more work than `dev` and the oracle do in a blink, all paths still taken: fewer outputs of a large matrix,
    /// which are all alike, and three splits of a long sequence.
    pub(super) fn within_reach(&self, dev: &Device) -> Self {
        let plain = dev.isa() == Isa::Scalar;
        let few = |m: usize| if plain { m.min(33) } else { m };
        match *self {
            Self::Linear { kind, rows, cols, m } => Self::Linear { kind, rows: rows.min(300), cols, m: few(m) },
            Self::Attention { spec, sequences: Sequences { count, before, len } } => {
                let sequences = Sequences { count: count.min(4), before: before.min(1100), len: len.min(100) };
                Self::Attention { spec, sequences }
            }
            Self::Encoder { spec, count, len } => Self::Encoder { spec, count: count.min(3), len: len.min(130) },
            Self::Gated { f, m, cols } => Self::Gated { f, m: few(m), cols },
            Self::Activate { f, m, cols } => Self::Activate { f, m: few(m), cols },
            other => other,
        }
    }

    /// Whether two results are as equal as they must be.
    pub(super) fn agrees(&self, isa: Isa, got: f32, want: f32) -> bool {
        match self {
            // bf16 pairs are added in another order where there is an instruction for them.
            Self::Linear { kind: BlockType::BF16, cols, .. } => (got - want).abs() <= 1e-5 * (*cols as f32),
            // So they are in tiles, from two parts of every number.
            Self::Attention { .. } if isa == Isa::Amx => (got - want).abs() <= 1e-4,
            _ => got.to_bits() == want.to_bits() || (got == 0.0 && want == 0.0),
        }
    }

    /// The call, on all rows or on `only` some.
    pub(super) fn job(&self, dev: &Device, only: Option<&[usize]>) -> Box<dyn Job> {
        let all: Vec<usize> = (0..self.rows()).collect();
        let at = only.unwrap_or(&all);
        match *self {
            Self::Linear { kind, rows, cols, .. } => product(dev, kind, [rows, cols], at),
            Self::Prepare { form, cols, .. } => prepare(form, cols, at),
            Self::Attention { spec, sequences } => attend(dev, spec, sequences, only),
            Self::StoreKv { spec, sequences } => store(dev, spec, sequences),
            Self::Encoder { spec, count, len } => encode(spec, count, len),
            Self::Rope { heads, head_dim, dim, style, .. } => rotate([heads, head_dim, dim], style, at),
            Self::RmsNorm { cols, .. } => norm(cols, at, rms_norm),
            Self::RmsNormTo { cols, .. } => {
                let (x, weight) = (rows(at, cols, 1), numbers(cols, 2.0, 2));
                fill(Form::Int8, move |dev, to| rms_norm_to(dev, &x, &weight, 1e-5, to, &[Form::Int8]))
            }
            Self::RmsNormAdd { cols, .. } => norm(cols, at, |dev, x, weight, eps, y| {
                y.copy_from_slice(x);
                rms_norm_add(dev, x, weight, eps, y);
            }),
            Self::LayerNorm { cols, .. } => norm(cols, at, |dev, x, weight, eps, y| {
                y.copy_from_slice(x);
                layer_norm(dev, y, weight, weight, eps);
            }),
            Self::Gated { f, cols, .. } => gate(f, cols, at),
            Self::Activate { f, cols, .. } => norm(cols, at, move |dev, x, _, _, y| {
                y.copy_from_slice(x);
                activate(dev, f, y);
            }),
            Self::Argmax { .. } | Self::LogSumExp { .. } | Self::Gumbel { .. } | Self::TopK { .. } => self.choose(),
        }
    }

    /// Passes over logits.
    fn choose(&self) -> Box<dyn Job> {
        let logits = |n: usize| -> Vec<f32> { numbers(n, 2.5, 1).iter().map(|x| x * x * x).collect() };
        match *self {
            Self::Argmax { n } => {
                let x = logits(n);
                call(1, move |dev, out| out[0] = argmax(dev, &x) as f32)
            }
            Self::LogSumExp { n } => {
                let x = logits(n);
                call(1, move |dev, out| out[0] = log_sum_exp(dev, &x))
            }
            Self::TopK { n, k } => {
                let (x, mut best) = (logits(n), Vec::new());
                call(0, move |dev, out| {
                    top_k(dev, &x, k, &mut best);
                    out.clear();
                    out.extend(best.iter().flat_map(|(i, x)| [*i as f32, *x]));
                })
            }
            _ => {
                let x = logits(if let Self::Gumbel { n } = *self { n } else { 0 });
                call(1, move |dev, out| out[0] = gumbel_argmax(dev, &x, 1.0, f32::NEG_INFINITY, 3, 4) as f32)
            }
        }
    }
}

fn product(dev: &Device, kind: BlockType, [n, cols]: [usize; 2], at: &[usize]) -> Box<dyn Job> {
    let (bytes, mut x) = (weights(kind, n * cols), Activations::new());
    x.set(dev, &rows(at, cols, 1), cols, &[form(kind)]);
    let copies = (WEIGHTS / bytes.len().max(1)).clamp(1, 64);
    // Only timing needs more than one, and only small batches read weights faster than they can be computed with.
    let copies = if at.len() <= 16 && n > 300 { copies } else { 1 };
    let matrices: Vec<Matrix> = (0..copies).flat_map(|_| Matrix::pack(dev, kind, n, cols, &bytes)).collect();
    let mut turn = 0;
    call(at.len() * n, move |dev, out| {
        turn = (turn + 1) % matrices.len().max(1);
        if let Some(weight) = matrices.get(turn) {
            linear(dev, &x, &mut [Linear { weight, bias: None, out, accumulate: false }]);
        }
    })
}

fn prepare(form: Form, cols: usize, at: &[usize]) -> Box<dyn Job> {
    let x = rows(at, cols, 1);
    fill(form, move |dev, to| to.set(dev, &x, cols, &[form]))
}

fn norm(cols: usize, at: &[usize], f: impl Fn(&Device, &[f32], &[f32], f32, &mut [f32]) + 'static) -> Box<dyn Job> {
    let (x, weight) = (rows(at, cols, 1), numbers(cols, 2.0, 2));
    call(x.len(), move |dev, out| f(dev, &x, &weight, 1e-5, out))
}

fn gate(f: Activation, cols: usize, at: &[usize]) -> Box<dyn Job> {
    let (gate, up) = (rows(at, cols, 1), rows(at, cols, 2));
    fill(Form::F32, move |dev, to| gated(dev, f, &gate, &up, cols, to, &[Form::F32]))
}

fn rotate([heads, head_dim, dim]: [usize; 3], style: RopeStyle, at: &[usize]) -> Box<dyn Job> {
    let table = RopeTable::new(&RopeSpec { dim, base: 10_000.0, style, scaling: RopeScaling::None }, 8192);
    let x = rows(at, heads * head_dim, 1);
    let positions: Vec<u32> = at.iter().map(|row| (row * 5 % 8192) as u32).collect();
    call(x.len(), move |dev, out| {
        out.copy_from_slice(&x);
        rope(dev, &table, out, head_dim, &positions);
    })
}

/// A cache with everything before and including the new tokens.
fn filled(dev: &Device, spec: &AttentionSpec, sequences: Sequences, pages: &[Vec<u32>]) -> KvCache {
    let AttentionSpec { kv_heads, head_dim, .. } = *spec;
    let mut cache = KvCache::new(&[KvShape { kv_heads, head_dim }], pages.iter().map(Vec::len).sum());
    for (s, pages) in pages.iter().enumerate() {
        let span = Span { start: 0, len: sequences.tokens(), position: 0, pages };
        let kv = |seed: u32| numbers(span.len * kv_heads * head_dim, 2.0, seed + 10 * s as u32);
        store_kv(dev, &mut cache, 0, &[span], &kv(3), &kv(4));
    }
    cache
}

fn attend(dev: &Device, spec: AttentionSpec, sequences: Sequences, only: Option<&[usize]>) -> Box<dyn Job> {
    let pages = sequences.pages();
    let cache = filled(dev, &spec, sequences, &pages);
    let only = only.map(<[usize]>::to_vec);
    let all: Vec<usize> = (0..sequences.count * sequences.len).collect();
    let q = rows(only.as_ref().unwrap_or(&all), spec.heads * spec.head_dim, 1);
    call(q.len(), move |dev, out| {
        attention(dev, &spec, &cache, 0, &sequences.spans(&pages, only.as_deref()), &q, out);
    })
}

fn store(dev: &Device, spec: AttentionSpec, sequences: Sequences) -> Box<dyn Job> {
    let pages = sequences.pages();
    let mut cache = filled(dev, &spec, sequences, &pages);
    let row = spec.kv_heads * spec.head_dim;
    let n = sequences.count * sequences.len * row;
    let (k, v) = (numbers(n, 2.0, 7), numbers(n, 2.0, 8));
    call(sequences.len * row, move |dev, out| {
        let spans = sequences.spans(&pages, None);
        store_kv(dev, &mut cache, 0, &spans, &k, &v);
        spans.first().into_iter().for_each(|span| read_keys(&cache, 0, span, None, out));
    })
}

fn encode(spec: AttentionSpec, count: usize, len: usize) -> Box<dyn Job> {
    let (q, kv) = (count * len * spec.heads * spec.head_dim, count * len * spec.kv_heads * spec.head_dim);
    let (q, k, v) = (numbers(q, 2.0, 1), numbers(kv, 2.0, 2), numbers(kv, 1.0, 3));
    let lens = vec![len; count];
    call(q.len(), move |dev, out| encoder_attention(dev, &spec, &lens, &q, &k, &v, out))
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linear { kind, rows, cols, m } => write!(f, "linear {kind:?} {cols}->{rows} m {m}"),
            Self::Prepare { form, m, cols } => write!(f, "prepare {form:?} {m}x{cols}"),
            Self::Attention { spec, sequences } => write!(f, "attention {} {sequences}", Shape(spec)),
            Self::StoreKv { spec, sequences } => write!(f, "store_kv {} {sequences}", Shape(spec)),
            Self::Encoder { spec, count, len } => write!(f, "encoder {} {count}x{len}", Shape(spec)),
            Self::RmsNorm { m, cols } => write!(f, "rms_norm {m}x{cols}"),
            Self::RmsNormTo { m, cols } => write!(f, "rms_norm_to {m}x{cols}"),
            Self::RmsNormAdd { m, cols } => write!(f, "rms_norm_add {m}x{cols}"),
            Self::LayerNorm { m, cols } => write!(f, "layer_norm {m}x{cols}"),
            Self::Rope { m, heads, head_dim, dim, style } => write!(f, "rope {style:?} {m}x{heads}x{head_dim}/{dim}"),
            Self::Gated { f: of, m, cols } => write!(f, "gated {of:?} {m}x{cols}"),
            Self::Activate { f: of, m, cols } => write!(f, "activate {of:?} {m}x{cols}"),
            Self::Argmax { n } => write!(f, "argmax {n}"),
            Self::LogSumExp { n } => write!(f, "log_sum_exp {n}"),
            Self::Gumbel { n } => write!(f, "gumbel_argmax {n}"),
            Self::TopK { n, k } => write!(f, "top_k {k} of {n}"),
        }
    }
}

/// `9/3x64 w512 c30`: heads, key heads, numbers of a head, window and cap.
struct Shape<'a>(&'a AttentionSpec);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AttentionSpec { heads, kv_heads, head_dim, window, softcap, .. } = self.0;
        write!(f, "{heads}/{kv_heads}x{head_dim}")?;
        window.map_or(Ok(()), |window| write!(f, " w{window}"))?;
        softcap.map_or(Ok(()), |cap| write!(f, " c{cap}"))
    }
}

impl fmt::Display for Sequences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x({}+{})", self.count, self.before, self.len)
    }
}
