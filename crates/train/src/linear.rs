//! A linear layer that learns: wholly, by a low-rank adapter beside it (LoRA, Hu et al. 2021), or not at all.
//!
//! Frozen weights are packed once, in both directions; those that learn are packed anew after every step of the optimizer. The base of an
//! adapter is what the checkpoint says, block types and their rounding included: it learns over the very weights it will run over.

use std::ops::Range;

use kernels::{Aligned, Device, Dropout, LeftPanels, Precision, RightPanels, Vectors, add, copy, dropout, gemm};
use model::LinearLayer;

use crate::{Kind, Params};

/// How an adapter begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lora {
    /// Columns of its waist.
    pub rank: usize,
    /// It is added `alpha / rank` times.
    pub alpha: f32,
    /// Of its first numbers.
    pub seed: u64,
}

impl Lora {
    fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }
}

/// What of a model learns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Learned {
    /// Nothing: losses can be had, no gradients.
    Nothing,
    /// Every weight.
    All,
    /// An adapter beside each linear layer of the blocks.
    Adapters(Lora),
}

#[derive(Debug, Default)]
enum Part {
    #[default]
    Frozen,
    Whole {
        weight: Range<usize>,
    },
    Adapter(Box<Adapter>),
}

#[derive(Debug)]
struct Adapter {
    /// `[rank][inputs]`.
    a: Range<usize>,
    /// `[outputs][rank]`.
    b: Range<usize>,
    rank: usize,
    scale: f32,
    panels: [RightPanels; 4],
}

/// The name of the layer that makes logits.
pub(crate) const HEAD: &str = "head";

/// Which of an adapter's panels is which.
const A_ROWS: usize = 0;
const B_ROWS: usize = 1;
const A_COLUMNS: usize = 2;
const B_COLUMNS: usize = 3;

/// `y (+)= x Wᵀ + b`, with its gradient.
#[derive(Debug, Default)]
pub(crate) struct Linear {
    outputs: usize,
    inputs: usize,
    bias: Vec<f32>,
    learned_bias: Option<Range<usize>>,
    part: Part,
    /// Rows of the weight: the way on.
    rows: RightPanels,
    /// Its columns: the way back.
    columns: RightPanels,
}

/// Room for packed operands, kept from product to product.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) left: LeftPanels,
    pub(crate) right: RightPanels,
    /// Columns of what products read, for the gradients of their weights.
    seen: RightPanels,
    waist: LeftPanels,
    low: Aligned,
    /// An adapter's input with what is left out of it, or that input's gradient.
    thinned: Aligned,
    thin: LeftPanels,
}

/// What a product reads, which lies packed in `scratch.left` on the way on.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    pub(crate) x: &'a [f32],
    /// What an adapter does not see of it.
    pub(crate) drop: Option<&'a Dropout>,
}

/// A result's gradient and where it leads.
#[derive(Debug)]
pub(crate) struct Back<'a> {
    pub(crate) dy: &'a [f32],
    pub(crate) dx: &'a mut [f32],
    /// Adds to `dx`.
    pub(crate) onto: bool,
    /// Takes the gradients of what learns.
    pub(crate) params: &'a mut Params,
}

/// Where and in what products are computed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Math<'a> {
    pub(crate) dev: &'a Device,
    pub(crate) precision: Precision,
}

impl Linear {
    pub(crate) fn new(math: Math<'_>, layer: &LinearLayer, name: &str, learned: Learned, params: &mut Params) -> Self {
        let matrix = layer.matrix();
        let (outputs, inputs) = (matrix.rows(), matrix.cols());
        let mut weight = vec![0.0; outputs * inputs];
        weight.chunks_exact_mut(inputs).enumerate().for_each(|(row, to)| matrix.row(row, to));
        let bias = layer.bias().map(<[f32]>::to_vec).unwrap_or_default();
        let whole = learned == Learned::All;
        let kind = if name == HEAD { Kind::Table } else { Kind::Matrix };
        let part = match learned {
            Learned::Nothing => Part::Frozen,
            Learned::All => Part::Whole { weight: params.add(name.to_owned(), kind, [outputs, inputs], &weight) },
            Learned::Adapters(lora) => Part::Adapter(Box::new(Adapter::new(lora, name, [outputs, inputs], params))),
        };
        let bias_name = || format!("{name}.bias");
        let learned_bias =
            (whole && !bias.is_empty()).then(|| params.add(bias_name(), Kind::Vector, [1, outputs], &bias));
        let (rows, columns) = Default::default();
        let mut linear = Self { outputs, inputs, bias, learned_bias, part, rows, columns };
        linear.pack(math, &weight);
        linear
    }

    /// A layer whose weight stands in the parameters already, such as a head that is the embedding as well.
    pub(crate) fn shared(math: Math<'_>, weight: Option<Range<usize>>, values: &[f32], inputs: usize) -> Self {
        let part = weight.map_or(Part::Frozen, |weight| Part::Whole { weight });
        let outputs = values.len() / inputs;
        let (rows, columns, bias) = Default::default();
        let mut linear = Self { outputs, inputs, bias, learned_bias: None, part, rows, columns };
        linear.pack(math, values);
        linear
    }

    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    fn pack(&mut self, math: Math<'_>, weight: &[f32]) {
        self.rows.pack(math.dev, math.precision, Vectors::rows(weight, self.inputs));
        self.columns.pack(math.dev, math.precision, Vectors::columns(weight, self.inputs));
    }

    /// Takes in what the optimizer changed.
    pub(crate) fn refresh(&mut self, math: Math<'_>, params: &Params) {
        let range = match &mut self.part {
            Part::Frozen => return,
            Part::Adapter(adapter) => return adapter.refresh(math, params),
            Part::Whole { weight } => weight.clone(),
        };
        self.pack(math, params.value(&range));
        if let Some(bias) = &self.learned_bias {
            self.bias.copy_from_slice(params.value(bias));
        }
    }

    /// Adds an adapter so strongly from now on.
    pub(crate) fn strengthen(&mut self, lora: Lora) {
        if let Part::Adapter(adapter) = &mut self.part {
            adapter.scale = lora.scale();
        }
    }

    /// Frees what was packed of what learns, until [`Linear::refresh`] packs it again.
    pub(crate) fn release(&mut self) {
        match &mut self.part {
            Part::Frozen => {}
            Part::Adapter(adapter) => adapter.panels = Default::default(),
            Part::Whole { .. } => (self.rows, self.columns) = Default::default(),
        }
    }

    /// Bytes of weights that are packed here.
    pub(crate) fn bytes(&self) -> usize {
        let adapter = if let Part::Adapter(adapter) = &self.part { &adapter.panels[..] } else { &[] };
        let panels = [&self.rows, &self.columns].into_iter().chain(adapter);
        panels.map(RightPanels::bytes).sum::<usize>() + size_of_val(self.bias.as_slice())
    }

    /// Columns of what an adapter keeps of the way on.
    pub(crate) fn waist(&self) -> usize {
        if let Part::Adapter(adapter) = &self.part { adapter.rank } else { 0 }
    }

    /// `y (+)= x Wᵀ + b`; `low` keeps the adapter's waist.
    #[expect(clippy::too_many_arguments, reason = "what is read, what is kept, what comes out")]
    pub(crate) fn forward(
        &self,
        math: Math<'_>,
        input: &Input<'_>,
        scratch: &mut Scratch,
        low: &mut [f32],
        onto: bool,
        y: &mut [f32],
    ) {
        gemm(math.dev, &scratch.left, &self.rows, y, onto);
        if !self.bias.is_empty() {
            y.chunks_exact_mut(self.outputs).for_each(|y| y.iter_mut().zip(&self.bias).for_each(|(y, b)| *y += b));
        }
        if let Part::Adapter(adapter) = &self.part {
            adapter.forward(math, input, scratch, low, y);
        }
    }

    /// Packs what the gradients of weights read, once for all products of one input.
    pub(crate) fn see(&self, Math { dev, precision }: Math<'_>, input: &Input<'_>, scratch: &mut Scratch) {
        let thinned = matches!(self.part, Part::Adapter(_)) && input.drop.is_some();
        if !thinned && !matches!(self.part, Part::Frozen) {
            scratch.seen.pack(dev, precision, Vectors::columns(input.x, self.inputs));
        }
    }

    /// `dx (+)= dy W`, and the gradients of what learns, behind [`Linear::see`]. `low` is what [`Linear::forward`] left there.
    pub(crate) fn backward(
        &self,
        math: Math<'_>,
        input: &Input<'_>,
        low: &[f32],
        mut back: Back<'_>,
        scratch: &mut Scratch,
    ) {
        let Math { dev, precision } = math;
        scratch.left.pack(dev, precision, Vectors::rows(back.dy, self.outputs));
        gemm(dev, &scratch.left, &self.columns, back.dx, back.onto);
        match &self.part {
            Part::Frozen => {}
            Part::Adapter(adapter) => adapter.backward(math, input, low, &mut back, scratch),
            Part::Whole { weight } => {
                scratch.left.pack(dev, precision, Vectors::columns(back.dy, self.outputs));
                gemm(dev, &scratch.left, &scratch.seen, back.params.slope(weight), true);
            }
        }
        if let Some(bias) = &self.learned_bias {
            let gradient = back.params.slope(bias);
            back.dy.chunks_exact(self.outputs).for_each(|dy| gradient.iter_mut().zip(dy).for_each(|(g, dy)| *g += dy));
        }
    }
}

impl Adapter {
    /// `A` is drawn evenly from `±1 / sqrt(inputs)`, as PEFT does (Kaiming's rule with `a = √5`); `B` is zero, so that the first step is the base's.
    fn new(lora: Lora, name: &str, [outputs, inputs]: [usize; 2], params: &mut Params) -> Self {
        let mut random = crate::random::Random::new(lora.seed, name);
        let bound = (inputs as f32).sqrt().recip();
        let a: Vec<f32> = (0..lora.rank * inputs).map(|_| bound * random.even()).collect();
        let a = params.add(format!("{name}.a"), Kind::Matrix, [lora.rank, inputs], &a);
        let b = params.add(format!("{name}.b"), Kind::Matrix, [outputs, lora.rank], &vec![0.0; outputs * lora.rank]);
        Self { a, b, rank: lora.rank, scale: lora.scale(), panels: Default::default() }
    }

    fn refresh(&mut self, Math { dev, precision }: Math<'_>, params: &Params) {
        let (a, b) = (params.value(&self.a), params.value(&self.b));
        let inputs = a.len() / self.rank;
        self.panels[A_ROWS].pack(dev, precision, Vectors::rows(a, inputs));
        self.panels[B_ROWS].pack(dev, precision, Vectors::rows(b, self.rank));
        self.panels[A_COLUMNS].pack(dev, precision, Vectors::columns(a, inputs));
        self.panels[B_COLUMNS].pack(dev, precision, Vectors::columns(b, self.rank));
    }

    /// `y += scale x Aᵀ Bᵀ`, `x` without what is left out of it.
    fn forward(
        &self,
        Math { dev, precision }: Math<'_>,
        input: &Input<'_>,
        scratch: &mut Scratch,
        low: &mut [f32],
        y: &mut [f32],
    ) {
        let Scratch { left, waist, thinned, thin, .. } = scratch;
        let seen = if input.drop.is_some() {
            thin.pack(dev, precision, Vectors::rows(self.thin(dev, input, thinned), self.inputs()))
        } else {
            left
        };
        gemm(dev, seen, &self.panels[A_ROWS], low, false);
        low.iter_mut().for_each(|x| *x *= self.scale);
        waist.pack(dev, precision, Vectors::rows(low, self.rank));
        gemm(dev, waist, &self.panels[B_ROWS], y, true);
    }

    fn inputs(&self) -> usize {
        self.a.len() / self.rank
    }

    /// What the adapter sees of its input.
    fn thin<'a>(&self, dev: &Device, input: &Input<'a>, thinned: &'a mut Aligned) -> &'a [f32] {
        let Some(drop) = input.drop else { return input.x };
        thinned.resize(input.x.len());
        copy(dev, thinned, input.x);
        dropout(dev, drop, self.inputs(), thinned);
        thinned
    }

    /// With `h = scale x Aᵀ` kept from the way on: `dB += dyᵀ h`, `dh = scale dy B`, `dA += dhᵀ x`, `dx += dh A`.
    fn backward(
        &self,
        Math { dev, precision }: Math<'_>,
        input: &Input<'_>,
        low: &[f32],
        back: &mut Back<'_>,
        scratch: &mut Scratch,
    ) {
        let (outputs, inputs) = (self.b.len() / self.rank, self.inputs());
        let Scratch { left, right, seen, low: dlow, thinned, .. } = scratch;
        dlow.resize(low.len());
        // `left` holds the rows of `dy` still.
        gemm(dev, left, &self.panels[B_COLUMNS], dlow, false);
        dlow.iter_mut().for_each(|x| *x *= self.scale);
        left.pack(dev, precision, Vectors::columns(back.dy, outputs));
        right.pack(dev, precision, Vectors::columns(low, self.rank));
        gemm(dev, left, right, back.params.slope(&self.b), true);
        left.pack(dev, precision, Vectors::columns(dlow, self.rank));
        if input.drop.is_some() {
            seen.pack(dev, precision, Vectors::columns(self.thin(dev, input, thinned), inputs));
        }
        gemm(dev, left, seen, back.params.slope(&self.a), true);
        left.pack(dev, precision, Vectors::rows(dlow, self.rank));
        let Some(drop) = input.drop else { return gemm(dev, left, &self.panels[A_COLUMNS], back.dx, true) };
        thinned.resize(back.dx.len());
        gemm(dev, left, &self.panels[A_COLUMNS], thinned, false);
        dropout(dev, drop, inputs, thinned);
        add(dev, back.dx, thinned);
    }
}
