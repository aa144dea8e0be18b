//! A low-rank adapter of a model (LoRA, Hu et al. 2021): numbers that are added beside every linear layer of its blocks, for the rows that ask for it.
//!
//! On disk it is one safetensors file: `layers.3.query.a`, `[rank][inputs]`, and `layers.3.query.b`, `[outputs][rank]`, for each layer and
//! each of query, key, value, out, gate, up and down; the factor `alpha / rank` and whatever else is known of it stand as text in the file's
//! `__metadata__`. It belongs to one base: whoever opens it compares [`OpenedAdapter::base`] with the digest of the model's file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use kernels::{Activations, Beside, Device, Factors, Form, Linear, LowRank, MOST_RANKS, linear, linear_beside};

use crate::model::Batch;
use crate::safetensors::Header;
use crate::tensors::Tensors;
use crate::weights::Forms;
use crate::{Domain, Error, LayerSpec, ModelSpec, Problem};

/// What stands in the metadata's `format`.
pub const FORMAT: &str = "tessera-adapter-1";
/// Tensors of a [`Domain`], where a file has one, `[width]` each: [`Domain::direction`], and [`Domain::general`].
pub const DOMAIN: &str = "domain.direction";
/// See [`DOMAIN`].
pub const GENERAL: &str = "domain.general";
/// Its threshold, in the metadata.
pub const THRESHOLD: &str = "domain_threshold";

/// An adapter, ready to be added; one without layers is beside no model.
#[derive(Debug, Default)]
pub struct Adapter {
    layers: Vec<LayerAdapter>,
}

/// An adapter's file, of which only the header was read.
#[derive(Debug)]
pub struct OpenedAdapter {
    path: PathBuf,
    about: BTreeMap<String, String>,
    scale: f32,
    tensors: Tensors,
}

/// What stands beside a layer, by the input that its parts share. One follows the other in memory, as they are read.
#[derive(Debug)]
pub(crate) struct LayerAdapter {
    /// Query, key and value.
    pub(crate) qkv: LowRank,
    pub(crate) out: LowRank,
    /// Gate, if there is one, and up.
    pub(crate) up: LowRank,
    pub(crate) down: LowRank,
}

/// The numbers of one part.
struct Numbers {
    rank: usize,
    a: Vec<f32>,
    b: Vec<f32>,
}

/// The linear layers of a block with their shapes, `[outputs, inputs]`, in the order in which the blocks have them.
pub fn adapted_layers(spec: &ModelSpec, layer: &LayerSpec) -> Vec<(&'static str, [usize; 2])> {
    let (a, width) = (&layer.attention, spec.width);
    let (query, kv) = (a.heads * a.head_dim, a.kv_heads * a.head_dim);
    let mut all = vec![
        ("query", [query, width]),
        ("key", [kv, width]),
        ("value", [kv, width]),
        ("out", [width, query]),
        ("up", [layer.ffn, width]),
        ("down", [width, layer.ffn]),
    ];
    if layer.gated {
        all.insert(4, ("gate", [layer.ffn, width]));
    }
    all
}

impl Adapter {
    /// Reads a file's header.
    ///
    /// # Errors
    /// Whatever is wrong with it, naming the file.
    pub fn open(path: &Path) -> Result<OpenedAdapter, Error> {
        let wrong = |problem: Problem| problem.in_file(path);
        let file = File::open(path).map_err(|source| wrong(source.into()))?;
        let len = file.metadata().map_err(|source| wrong(source.into()))?.len();
        let header = Header::read(&mut BufReader::new(&file), len).map_err(wrong)?;
        let scale = scale(&header.metadata).map_err(wrong)?;
        let mut tensors = Tensors::default();
        tensors.add(path.to_owned(), file, header.tensors)?;
        Ok(OpenedAdapter { path: path.to_owned(), about: header.metadata, scale, tensors })
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.layers.iter().flat_map(LayerAdapter::parts).map(LowRank::bytes).sum()
    }
}

impl OpenedAdapter {
    /// What the file says of the adapter.
    pub fn about(&self) -> &BTreeMap<String, String> {
        &self.about
    }

    /// The digest of the model that it was learned over, as the file says.
    pub fn base(&self) -> &str {
        self.about.get("base").map_or("", String::as_str)
    }

    /// Reads its numbers and holds every shape against the model's.
    ///
    /// # Errors
    /// Whatever is wrong with them, naming file and tensor.
    pub fn load(&self, spec: &ModelSpec) -> Result<Adapter, Error> {
        let layers = spec.layers.iter().enumerate().map(|(i, layer)| self.layer(spec, i, layer));
        Ok(Adapter { layers: layers.collect::<Result<_, _>>()? })
    }

    /// What it adds to the weight of a linear layer, named as in [`adapted_layers`], of this shape: `alpha / rank * B A`, row by row.
    ///
    /// # Errors
    /// Whatever is wrong with its numbers, naming file and tensor.
    pub fn product(&self, layer: usize, name: &str, shape: [usize; 2]) -> Result<Vec<f32>, Error> {
        let Numbers { rank, a, b } = self.part(&format!("layers.{layer}.{name}"), shape)?;
        let [outputs, inputs] = shape;
        let mut product = vec![0.0; outputs * inputs];
        for (row, b) in product.chunks_exact_mut(inputs).zip(b.chunks_exact(rank)) {
            for (a, b) in a.chunks_exact(inputs).zip(b) {
                row.iter_mut().zip(a).for_each(|(row, a)| *row += self.scale * b * a);
            }
        }
        Ok(product)
    }

    /// Where its domain lies, if the file says so.
    ///
    /// # Errors
    /// Whatever is wrong with that, naming file and tensor.
    pub fn domain(&self, spec: &ModelSpec) -> Result<Option<Domain>, Error> {
        let Some(threshold) = self.about.get(THRESHOLD) else { return Ok(None) };
        let threshold = threshold.parse::<f32>().ok().filter(|x| x.is_finite());
        let threshold = threshold.ok_or_else(|| Problem::field(THRESHOLD, "must be a number").in_file(&self.path))?;
        let vector = |name: &str| -> Result<Vec<f32>, Error> {
            let (numbers, shape) = self.numbers(name.to_owned())?;
            if shape != [spec.width] || numbers.iter().any(|x| !x.is_finite()) {
                let what = format!("is {shape:?}, not {} numbers", spec.width);
                return Err(Problem::tensor(name, what).in_file(&self.path));
            }
            Ok(numbers)
        };
        Ok(Some(Domain { general: vector(GENERAL)?, direction: vector(DOMAIN)?, threshold }))
    }

    fn layer(&self, spec: &ModelSpec, number: usize, layer: &LayerSpec) -> Result<LayerAdapter, Error> {
        let shapes: BTreeMap<_, _> = adapted_layers(spec, layer).into_iter().collect();
        let group = |names: &[&str]| -> Result<LowRank, Error> {
            let there = names.iter().filter(|name| shapes.contains_key(**name));
            let parts = there.map(|name| self.part(&format!("layers.{number}.{name}"), shapes[*name]));
            Ok(self.group(&parts.collect::<Result<Vec<_>, Error>>()?))
        };
        Ok(LayerAdapter {
            qkv: group(&["query", "key", "value"])?,
            out: group(&["out"])?,
            up: group(&["gate", "up"])?,
            down: group(&["down"])?,
        })
    }

    fn group(&self, parts: &[Numbers]) -> LowRank {
        let scale = self.scale;
        let factors = parts.iter().map(|Numbers { rank, a, b }| Factors { rank: *rank, a, b, scale });
        LowRank::new(&factors.collect::<Vec<_>>())
    }

    fn part(&self, name: &str, [outputs, inputs]: [usize; 2]) -> Result<Numbers, Error> {
        let (a, a_shape) = self.numbers(format!("{name}.a"))?;
        let (b, b_shape) = self.numbers(format!("{name}.b"))?;
        let rank = a_shape.first().copied().unwrap_or_default();
        if !(1..=MOST_RANKS).contains(&rank) || a_shape != [rank, inputs] || b_shape != [outputs, rank] {
            let what = format!(
                "has shapes {a_shape:?} and {b_shape:?}, but the model needs [rank, {inputs}] and [{outputs}, rank] \
                 with a rank of 1 to {MOST_RANKS}: the adapter is of another model"
            );
            return Err(Problem::tensor(name, what).in_file(&self.path));
        }
        Ok(Numbers { rank, a, b })
    }

    fn numbers(&self, name: String) -> Result<(Vec<f32>, &[usize]), Error> {
        let Some(tensor) = self.tensors.get(&name) else {
            let what = "is missing: the file is incomplete, or of another model";
            return Err(Problem::tensor(name, what).in_file(&self.path));
        };
        Ok((self.tensors.floats(tensor)?, &tensor.info.shape))
    }
}

impl LayerAdapter {
    fn parts(&self) -> impl Iterator<Item = &LowRank> {
        [&self.qkv, &self.out, &self.up, &self.down].into_iter()
    }
}

/// `alpha / rank`.
fn scale(about: &BTreeMap<String, String>) -> Result<f32, Problem> {
    let found = about.get("format").map_or("nothing", String::as_str);
    if found != FORMAT {
        return Err(Problem::field("format", format!("is {found:?}, not {FORMAT:?}: this is no adapter of ours")));
    }
    let number = |name: &str| {
        let value = about.get(name).and_then(|text| text.parse::<f32>().ok()).filter(|x| x.is_finite() && *x > 0.0);
        value.ok_or_else(|| Problem::field(name, "must be a positive number"))
    };
    Ok(number("alpha")? / number("rank")?)
}

/// The adapters of a batch's rows; empty where none has one, which costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Adapted<'a>(Vec<Option<&'a Adapter>>);

/// Picks what stands beside products of one input, and which part of it belongs to the first of them.
pub(crate) type Pick = (fn(&LayerAdapter) -> &LowRank, usize);

impl<'a> Adapted<'a> {
    /// Of all rows.
    pub(crate) fn of(batch: &Batch<'a>) -> Self {
        if batch.adapters.iter().all(Option::is_none) {
            return Self::default();
        }
        let spans = batch.spans.iter().zip(batch.adapters);
        Self(spans.flat_map(|(span, adapter)| std::iter::repeat_n(*adapter, span.len)).collect())
    }

    /// Of these rows.
    pub(crate) fn only(&self, rows: &[u32]) -> Self {
        if self.0.is_empty() { Self::default() } else { Self(rows.iter().map(|row| self.0[*row as usize]).collect()) }
    }

    /// The forms that an input needs for its products and for what stands beside them.
    pub(crate) fn forms<'f>(&self, forms: &'f Forms) -> &'f [Form] {
        if self.0.is_empty() { &forms.base } else { &forms.adapted }
    }

    /// The products of a group with what stands beside them.
    pub(crate) fn linear(
        &self,
        dev: &Device,
        x: &Activations,
        (layer, (pick, first)): (usize, Pick),
        room: &mut Vec<f32>,
        group: &mut [Linear<'_>],
    ) {
        if self.0.is_empty() {
            return linear(dev, x, group);
        }
        let of = |row: usize| self.0[row].map(|adapter| pick(&adapter.layers[layer]));
        linear_beside(dev, x, group, Beside { of: &of, first, room });
    }
}
