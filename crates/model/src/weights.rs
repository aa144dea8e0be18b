//! Weights: packed from the checkpoint, one tensor at a time, with every shape held against the spec.

use std::collections::HashSet;

use kernels::{Device, Form, Linear, Matrix};

use crate::arch::{Family, Part};
use crate::checkpoint::Checkpoint;
use crate::fields::{Format, key};
use crate::tensors::Located;
use crate::{Error, LayerSpec, ModelSpec, Norms, Problem};

/// A linear layer. Whether it is dense or quantised is its matrix's business; an adapter will be a field here. Families and
/// the decoder only ever see this type, so neither becomes another copy of a model.
#[derive(Debug)]
pub struct LinearLayer {
    matrix: Matrix,
    bias: Option<Vec<f32>>,
}

impl LinearLayer {
    /// One product of a group: `out = x Wᵀ + b`.
    pub(crate) fn to<'a>(&'a self, out: &'a mut [f32]) -> Linear<'a> {
        Linear { weight: &self.matrix, bias: self.bias.as_deref(), out, accumulate: false }
    }

    /// The same, added to the residual.
    pub(crate) fn onto<'a>(&'a self, residual: &'a mut [f32]) -> Linear<'a> {
        Linear { accumulate: true, ..self.to(residual) }
    }

    /// The weights, `[outputs][inputs]`.
    pub fn matrix(&self) -> &Matrix {
        &self.matrix
    }

    /// Added to every row of outputs.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }
}

/// The forms of activations that a group of layers multiplies, each once.
#[derive(Debug)]
pub(crate) struct Forms {
    pub(crate) base: Vec<Form>,
    /// With adapters beside the layers.
    pub(crate) adapted: Vec<Form>,
}

impl Forms {
    fn of(group: &[&LinearLayer]) -> Self {
        let (mut base, mut adapted) = (Vec::new(), vec![Form::Int8]);
        for form in group.iter().map(|layer| layer.matrix.form()) {
            for forms in [&mut base, &mut adapted] {
                if !forms.contains(&form) {
                    forms.push(form);
                }
            }
        }
        Self { base, adapted }
    }
}

/// The products of attention, and the forms of their inputs.
#[derive(Debug)]
pub struct Attention {
    /// Queries.
    pub query: LinearLayer,
    /// Keys.
    pub key: LinearLayer,
    /// Values.
    pub value: LinearLayer,
    /// What follows the heads.
    pub out: LinearLayer,
    /// The norm of every query head, where the spec has it.
    pub query_norm: Option<Vec<f32>>,
    /// The norm of every key head.
    pub key_norm: Option<Vec<f32>>,
    pub(crate) qkv_forms: Forms,
    pub(crate) out_forms: Forms,
}

/// The products of a feed-forward block.
#[derive(Debug)]
pub struct FeedForward {
    /// What goes through the non-linearity, where the block is gated.
    pub gate: Option<LinearLayer>,
    /// Into the block.
    pub up: LinearLayer,
    /// Out of it.
    pub down: LinearLayer,
    pub(crate) up_forms: Forms,
    pub(crate) down_forms: Forms,
}

/// Weight and, for LayerNorm, bias.
#[derive(Debug, Default)]
pub struct Norm {
    /// Factors.
    pub weight: Vec<f32>,
    /// Offsets; empty for RMSNorm.
    pub bias: Vec<f32>,
}

/// Norms by their places; empty where the spec has none.
#[derive(Debug)]
pub struct Layer {
    /// In front of attention.
    pub attention_norm: Norm,
    /// Attention.
    pub attention: Attention,
    /// Behind attention.
    pub post_attention_norm: Norm,
    /// In front of the feed-forward block.
    pub ffn_norm: Norm,
    /// The feed-forward block.
    pub ffn: FeedForward,
    /// Behind it.
    pub post_ffn_norm: Norm,
}

/// All weights of a model.
#[derive(Debug)]
pub struct Weights {
    /// A row for every token.
    pub embedding: LinearLayer,
    /// `None`: the embedding is the head as well.
    pub output: Option<LinearLayer>,
    /// In front of the head.
    pub output_norm: Norm,
    /// Encoders: learned positions, `[context][width]`, with the first token type added, for we have no second.
    pub(crate) positions: Vec<f32>,
    pub(crate) embedding_norm: Norm,
    /// The layers, first to last.
    pub layers: Vec<Layer>,
    /// Bytes of packed matrices.
    pub(crate) bytes: usize,
}

impl Weights {
    /// Loads all weights; `progress(done, total)` counts bytes of the checkpoint.
    pub(crate) fn load(
        dev: &Device,
        checkpoint: &Checkpoint,
        family: &Family,
        spec: &ModelSpec,
        progress: &dyn Fn(u64, u64),
    ) -> Result<Self, Error> {
        let total = checkpoint.tensors.iter().map(|t| t.bytes).sum();
        let mut loader =
            Loader { dev, checkpoint, family, spec, progress, total, done: 0, bytes: 0, used: HashSet::new() };
        let mut weights = loader.weights()?;
        loader.check_all_used()?;
        weights.bytes = loader.bytes;
        Ok(weights)
    }
}

struct Loader<'a> {
    dev: &'a Device,
    checkpoint: &'a Checkpoint,
    family: &'a Family,
    spec: &'a ModelSpec,
    progress: &'a dyn Fn(u64, u64),
    total: u64,
    done: u64,
    bytes: usize,
    used: HashSet<&'a str>,
}

impl<'a> Loader<'a> {
    fn weights(&mut self) -> Result<Weights, Error> {
        let spec = self.spec;
        let embedding = self.linear(Part::TokenEmbedding, 0, [spec.vocab, spec.width])?;
        let output = self.head()?;
        let (output_norm, embedding_norm, positions) = if spec.encoder {
            (Norm::default(), self.norm(Part::EmbeddingNorm, 0, spec.width)?, self.positions()?)
        } else {
            (self.norm(Part::OutputNorm, 0, spec.width)?, Norm::default(), Vec::new())
        };
        let layers = spec.layers.iter().enumerate().map(|(i, l)| self.layer(i, l)).collect::<Result<_, _>>()?;
        Ok(Weights { embedding, output, output_norm, positions, embedding_norm, layers, bytes: 0 })
    }

    /// A head of its own, unless there is none or the config says that the embedding is the head.
    fn head(&mut self) -> Result<Option<LinearLayer>, Error> {
        let tied = self.checkpoint.fields.model().truth(key("", "tie_word_embeddings"));
        let tied = tied.map_err(|problem| self.checkpoint.blame(problem))?;
        let own = self.find(Part::Output, 0, ".weight");
        if !self.spec.encoder && tied != Some(true) && (own.is_some() || tied == Some(false)) {
            return self.linear(Part::Output, 0, [self.spec.vocab, self.spec.width]).map(Some);
        }
        // Some exporters write a tied head all the same.
        self.used.extend(own.map(|head| head.info.name.as_str()));
        Ok(None)
    }

    fn positions(&mut self) -> Result<Vec<f32>, Error> {
        let (context, width) = (self.spec.context, self.spec.width);
        let mut positions = self.vector(Part::PositionEmbedding, 0, ".weight", &[context, width])?;
        let name = self.family.tensor_name(self.checkpoint, Part::TypeEmbedding, 0, ".weight");
        let types = self.require(Part::TypeEmbedding, 0, ".weight")?;
        if types.info.shape.last() != Some(&width) {
            return Err(self.checkpoint.blame(Problem::tensor(name, format!("is not {width} wide"))));
        }
        let types = self.checkpoint.tensors.floats(types)?;
        for row in positions.chunks_exact_mut(width) {
            row.iter_mut().zip(&types).for_each(|(p, t)| *p += t);
        }
        Ok(positions)
    }

    fn layer(&mut self, i: usize, spec: &LayerSpec) -> Result<Layer, Error> {
        let width = self.spec.width;
        let (before, behind) = (spec.norms != Norms::After, spec.norms != Norms::Before);
        Ok(Layer {
            attention_norm: self.norm_if(before, Part::AttentionNorm, i, width)?,
            attention: self.attention(i, spec)?,
            post_attention_norm: self.norm_if(behind, Part::PostAttentionNorm, i, width)?,
            ffn_norm: self.norm_if(before, Part::FfnNorm, i, width)?,
            ffn: self.feed_forward(i, spec)?,
            post_ffn_norm: self.norm_if(behind, Part::PostFfnNorm, i, width)?,
        })
    }

    fn attention(&mut self, i: usize, spec: &LayerSpec) -> Result<Attention, Error> {
        let (a, width) = (spec.attention, self.spec.width);
        let (q_width, kv_width) = (a.heads * a.head_dim, a.kv_heads * a.head_dim);
        let query = self.linear(Part::Query, i, [q_width, width])?;
        let key = self.linear(Part::Key, i, [kv_width, width])?;
        let value = self.linear(Part::Value, i, [kv_width, width])?;
        let out = self.linear(Part::AttentionOut, i, [width, q_width])?;
        let mut head_norm = |part| match spec.qk_norm {
            true => self.norm(part, i, a.head_dim).map(|norm| Some(norm.weight)),
            false => Ok(None),
        };
        let (query_norm, key_norm) = (head_norm(Part::QueryNorm)?, head_norm(Part::KeyNorm)?);
        if spec.qkv_bias {
            for part in [Part::Query, Part::Key, Part::Value] {
                self.require(part, i, ".bias")?;
            }
        }
        let (qkv_forms, out_forms) = (Forms::of(&[&query, &key, &value]), Forms::of(&[&out]));
        Ok(Attention { query, key, value, out, query_norm, key_norm, qkv_forms, out_forms })
    }

    fn feed_forward(&mut self, i: usize, spec: &LayerSpec) -> Result<FeedForward, Error> {
        let (wide, width) = (spec.ffn, self.spec.width);
        let gate = if spec.gated { Some(self.linear(Part::Gate, i, [wide, width])?) } else { None };
        let up = self.linear(Part::Up, i, [wide, width])?;
        let down = self.linear(Part::Down, i, [width, wide])?;
        let up_forms = gate.as_ref().map_or_else(|| Forms::of(&[&up]), |gate| Forms::of(&[gate, &up]));
        let down_forms = Forms::of(&[&down]);
        Ok(FeedForward { gate, up, down, up_forms, down_forms })
    }

    fn norm_if(&mut self, there: bool, part: Part, i: usize, len: usize) -> Result<Norm, Error> {
        if there { self.norm(part, i, len) } else { Ok(Norm::default()) }
    }

    fn norm(&mut self, part: Part, i: usize, len: usize) -> Result<Norm, Error> {
        let mut weight = self.vector(part, i, ".weight", &[len])?;
        if self.checkpoint.fields.format == Format::HuggingFace {
            weight.iter_mut().for_each(|w| *w += self.family.hf_norm_offset);
        }
        let bias = if self.spec.encoder { self.vector(part, i, ".bias", &[len])? } else { Vec::new() };
        Ok(Norm { weight, bias })
    }

    fn linear(&mut self, part: Part, i: usize, shape: [usize; 2]) -> Result<LinearLayer, Error> {
        let tensor = self.require(part, i, ".weight")?;
        self.check_shape(tensor, &shape)?;
        let matrix = pack(self.dev, self.checkpoint, tensor)?;
        self.bytes += matrix.bytes();
        let bias = match self.find(part, i, ".bias") {
            Some(_) => Some(self.vector(part, i, ".bias", &shape[..1])?),
            None => None,
        };
        Ok(LinearLayer { matrix, bias })
    }

    fn vector(&mut self, part: Part, i: usize, suffix: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        let tensor = self.require(part, i, suffix)?;
        self.check_shape(tensor, shape)?;
        self.checkpoint.tensors.floats(tensor)
    }

    fn find(&self, part: Part, i: usize, suffix: &str) -> Option<&'a Located> {
        self.checkpoint.tensors.get(&self.family.tensor_name(self.checkpoint, part, i, suffix))
    }

    /// Finds a tensor and counts it as used and read.
    fn require(&mut self, part: Part, i: usize, suffix: &str) -> Result<&'a Located, Error> {
        let Some(tensor) = self.find(part, i, suffix) else {
            return Err(self.missing(self.family.tensor_name(self.checkpoint, part, i, suffix)));
        };
        self.used.insert(&tensor.info.name);
        self.done += tensor.info.bytes;
        (self.progress)(self.done, self.total);
        Ok(tensor)
    }

    fn missing(&self, tensor: String) -> Error {
        let family = self.family.name.into();
        self.checkpoint.blame(match self.checkpoint.tensors.unreadable.get(&tensor) {
            Some(kind) => Problem::Type { tensor, kind: kind.clone() },
            None => Problem::MissingTensor { tensor, family },
        })
    }

    fn check_shape(&self, tensor: &Located, expected: &[usize]) -> Result<(), Error> {
        let found = &tensor.info.shape;
        // Vectors may come as matrices of one row, and the other way round.
        let squeeze = |shape: &[usize]| shape.iter().copied().filter(|&dim| dim != 1).collect::<Vec<_>>();
        if squeeze(found) == squeeze(expected) {
            return Ok(());
        }
        let what = format!("has the shape {found:?}, the metadata make it {expected:?}");
        Err(Problem::tensor(&tensor.info.name, what).in_file(self.checkpoint.tensors.path_of(tensor)))
    }

    /// Weights without a place mean a model that computes something else.
    fn check_all_used(&self) -> Result<(), Error> {
        let ignored = |name: &str| self.family.ignored.iter().any(|part| name.contains(part));
        let left = self.checkpoint.tensors.iter().find(|t| !self.used.contains(t.name.as_str()) && !ignored(&t.name));
        left.map_or(Ok(()), |tensor| {
            let (tensor, family) = (tensor.name.clone(), self.family.name.into());
            Err(self.checkpoint.blame(Problem::UnusedTensor { tensor, family }))
        })
    }
}

/// Why a tensor did not pack: its file, or its shape.
enum PackProblem {
    Read(Error),
    Shape(kernels::Error),
}

impl From<kernels::Error> for PackProblem {
    fn from(source: kernels::Error) -> Self {
        Self::Shape(source)
    }
}

/// Packs a tensor straight from its file, a piece at a time.
fn pack(dev: &Device, checkpoint: &Checkpoint, tensor: &Located) -> Result<Matrix, Error> {
    let (info, tensors) = (&tensor.info, &checkpoint.tensors);
    let cols = info.shape.last().copied().unwrap_or(1);
    let read = |at: usize, bytes: &mut [u8]| tensors.read(tensor, at as u64, bytes).map_err(PackProblem::Read);
    Matrix::pack_from(dev, info.kind, info.numbers() / cols, cols, &read).map_err(|problem| match problem {
        PackProblem::Read(error) => error,
        PackProblem::Shape(source) => {
            Problem::Pack { tensor: info.name.clone(), source }.in_file(tensors.path_of(tensor))
        }
    })
}
