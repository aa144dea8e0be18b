//! A low-rank adapter of a model (LoRA, Hu et al. 2021): numbers that are added beside every linear layer of its blocks, for the rows that ask for it.
//!
//! On disk it is one safetensors file: `layers.3.query.a`, `[rank][inputs]`, and `layers.3.query.b`, `[outputs][rank]`, for each layer and
//! each of query, key, value, out, gate, up and down; the factor `alpha / rank` and whatever else is known of it stand as text in the file's
//! `__metadata__`. It belongs to one base: whoever opens it compares [`OpenedAdapter::base`] with the digest of the model's file.
//!
//! A module of experts is several adapters of one base and a [`Router`] that picks one of them, or none, for every token. Its file has all that the adapters'
//! files have, tensors and metadata alike, under `expert.0.`, `expert.1.` and so on, beside `router.weights`, `[1 + experts][width]`, and `router.bias`. So an
//! adapter is a module of one expert that takes every token, and all that is done with adapters is done with modules.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::path::{Path, PathBuf};

use kernels::{Activations, Beside, Device, Factors, Form, Linear, LowRank, MOST_RANKS, linear, linear_beside};

use crate::model::Batch;
use crate::safetensors::Header;
use crate::tensors::Tensors;
use crate::weights::Forms;
use crate::{Domain, Error, LayerSpec, ModelSpec, Problem, Router, TensorInfo};

/// What stands in the metadata's `format`.
pub const FORMAT: &str = "tessera-adapter-1";
/// What stands there in a module of experts.
pub const EXPERTS_FORMAT: &str = "tessera-experts-1";
/// How many experts it has, in its metadata.
pub const EXPERTS: &str = "experts";
/// The most of them.
pub const MOST_EXPERTS: usize = 64;
/// The layer that its router reads what enters, in its metadata.
pub const ROUTER_LAYER: &str = "router_layer";
/// Its router's tensors: [`Router::weights`], and [`Router::bias`].
pub const ROUTER_WEIGHTS: &str = "router.weights";
/// See [`ROUTER_WEIGHTS`].
pub const ROUTER_BIAS: &str = "router.bias";
/// Tensors of a [`Domain`], where a file has one, `[width]` each: [`Domain::direction`], and [`Domain::general`].
pub const DOMAIN: &str = "domain.direction";
/// See [`DOMAIN`].
pub const GENERAL: &str = "domain.general";
/// Its threshold, in the metadata.
pub const THRESHOLD: &str = "domain_threshold";

/// An adapter or a module of experts, ready to be added; one without experts is beside no model.
#[derive(Debug, Default)]
pub struct Adapter {
    experts: Vec<Expert>,
    /// Without one, the first expert takes every token.
    router: Option<Router>,
}

/// What stands beside the layers from the first that it has on.
#[derive(Debug)]
struct Expert {
    first: usize,
    layers: Vec<LayerAdapter>,
}

/// A file of an adapter or of a module of experts, of which only the header was read.
#[derive(Debug)]
pub struct OpenedAdapter {
    path: PathBuf,
    about: BTreeMap<String, String>,
    experts: Vec<Place>,
    router_layer: Option<usize>,
    tensors: Tensors,
}

/// Where an expert stands in a file, and how strongly it is added.
#[derive(Debug)]
struct Place {
    prefix: String,
    scale: f32,
}

/// What stands before all names of a module's expert.
pub fn expert_prefix(number: usize) -> String {
    format!("expert.{number}.")
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
        let (experts, router_layer) = places(&header.metadata).map_err(wrong)?;
        let mut tensors = Tensors::default();
        tensors.add(path.to_owned(), file, header.tensors)?;
        Ok(OpenedAdapter { path: path.to_owned(), about: header.metadata, experts, router_layer, tensors })
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        let layers = self.experts.iter().flat_map(|expert| &expert.layers);
        layers.flat_map(LayerAdapter::parts).map(LowRank::bytes).sum()
    }
}

impl OpenedAdapter {
    /// What the file says of the adapter.
    pub fn about(&self) -> &BTreeMap<String, String> {
        &self.about
    }

    /// Whether it is a module of experts.
    pub fn is_module(&self) -> bool {
        self.router_layer.is_some()
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
        let router = self.router_layer.map(|layer| self.router(spec, layer)).transpose()?;
        let first = self.router_layer.unwrap_or_default();
        let experts = self.experts.iter().map(|place| self.expert(spec, place, first));
        Ok(Adapter { experts: experts.collect::<Result<_, _>>()?, router })
    }

    /// What numbers the file has.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.iter()
    }

    /// Those of one name.
    ///
    /// # Errors
    /// They are missing, or cannot be read.
    pub fn numbers(&self, name: &str) -> Result<Vec<f32>, Error> {
        Ok(self.tensor(name.to_owned())?.0)
    }

    /// What it adds to the weight of a linear layer, named as in [`adapted_layers`], of this shape: `alpha / rank * B A`, row by row.
    ///
    /// # Errors
    /// Whatever is wrong with its numbers, naming file and tensor; what a module of experts adds depends on the token, so that no weight can have it.
    pub fn product(&self, layer: usize, name: &str, shape: [usize; 2]) -> Result<Vec<f32>, Error> {
        let (None, [place]) = (self.router_layer, &self.experts[..]) else {
            let what = format!(
                "is {EXPERTS_FORMAT:?}: what a module of experts adds depends on the token; take one of its adapters"
            );
            return Err(Problem::field("format", what).in_file(&self.path));
        };
        let Numbers { rank, a, b } = self.part(place, &format!("layers.{layer}.{name}"), shape)?;
        let [outputs, inputs] = shape;
        let mut product = vec![0.0; outputs * inputs];
        for (row, b) in product.chunks_exact_mut(inputs).zip(b.chunks_exact(rank)) {
            for (a, b) in a.chunks_exact(inputs).zip(b) {
                row.iter_mut().zip(a).for_each(|(row, a)| *row += place.scale * b * a);
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
        let vector = |name: &str| self.finite(name, &[spec.width]);
        Ok(Some(Domain { general: vector(GENERAL)?, direction: vector(DOMAIN)?, threshold }))
    }

    fn router(&self, spec: &ModelSpec, layer: usize) -> Result<Router, Error> {
        if layer >= spec.layers.len() {
            let what =
                format!("is {layer}, but the model has {} layers: the module is of another model", spec.layers.len());
            return Err(Problem::field(ROUTER_LAYER, what).in_file(&self.path));
        }
        let choices = 1 + self.experts.len();
        let weights = self.finite(ROUTER_WEIGHTS, &[choices, spec.width])?;
        Ok(Router { layer, weights, bias: self.finite(ROUTER_BIAS, &[choices])? })
    }

    fn expert(&self, spec: &ModelSpec, place: &Place, first: usize) -> Result<Expert, Error> {
        let layers = spec.layers.iter().enumerate().skip(first);
        let layers = layers.map(|(number, layer)| self.layer(spec, place, number, layer));
        Ok(Expert { first, layers: layers.collect::<Result<_, _>>()? })
    }

    fn layer(&self, spec: &ModelSpec, place: &Place, number: usize, layer: &LayerSpec) -> Result<LayerAdapter, Error> {
        let shapes: BTreeMap<_, _> = adapted_layers(spec, layer).into_iter().collect();
        let group = |names: &[&str]| -> Result<LowRank, Error> {
            let there = names.iter().filter(|name| shapes.contains_key(**name));
            let parts = there.map(|name| self.part(place, &format!("layers.{number}.{name}"), shapes[*name]));
            Ok(place.group(&parts.collect::<Result<Vec<_>, Error>>()?))
        };
        Ok(LayerAdapter {
            qkv: group(&["query", "key", "value"])?,
            out: group(&["out"])?,
            up: group(&["gate", "up"])?,
            down: group(&["down"])?,
        })
    }

    fn part(&self, place: &Place, name: &str, [outputs, inputs]: [usize; 2]) -> Result<Numbers, Error> {
        let name = &format!("{}{name}", place.prefix);
        let (a, a_shape) = self.tensor(format!("{name}.a"))?;
        let (b, b_shape) = self.tensor(format!("{name}.b"))?;
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

    /// Numbers of this shape that can be computed with.
    fn finite(&self, name: &str, want: &[usize]) -> Result<Vec<f32>, Error> {
        let (numbers, shape) = self.tensor(name.to_owned())?;
        if shape != want || numbers.iter().any(|x| !x.is_finite()) {
            let counts = want.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
            let what = format!("is {shape:?}, not {counts} numbers that are finite");
            return Err(Problem::tensor(name, what).in_file(&self.path));
        }
        Ok(numbers)
    }

    fn tensor(&self, name: String) -> Result<(Vec<f32>, &[usize]), Error> {
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

impl Place {
    /// Of the expert whose names all begin with this.
    fn new(about: &BTreeMap<String, String>, prefix: String) -> Result<Self, Problem> {
        let field = |name: &str| format!("{prefix}{name}");
        let found = about.get(&field("format")).map_or("nothing", String::as_str);
        if found != FORMAT {
            let what = format!("is {found:?}, not {FORMAT:?}: this is no adapter of ours");
            return Err(Problem::field(field("format"), what));
        }
        let number = |name: &str| {
            let value = about.get(&field(name)).and_then(|text| text.parse::<f32>().ok());
            let value = value.filter(|x| x.is_finite() && *x > 0.0);
            value.ok_or_else(|| Problem::field(field(name), "must be a positive number"))
        };
        let scale = number("alpha")? / number("rank")?;
        Ok(Self { prefix, scale })
    }

    fn group(&self, parts: &[Numbers]) -> LowRank {
        let scale = self.scale;
        let factors = parts.iter().map(|Numbers { rank, a, b }| Factors { rank: *rank, a, b, scale });
        LowRank::new(&factors.collect::<Vec<_>>())
    }
}

/// The experts of a file, and where its router stands, if it has one.
fn places(about: &BTreeMap<String, String>) -> Result<(Vec<Place>, Option<usize>), Problem> {
    if about.get("format").is_none_or(|format| format != EXPERTS_FORMAT) {
        return Ok((vec![Place::new(about, String::new())?], None));
    }
    let number = |name: &str, range: Range<usize>| {
        let value = about.get(name).and_then(|text| text.parse::<usize>().ok()).filter(|n| range.contains(n));
        let what = || format!("must be a whole number from {} on, below {}", range.start, range.end);
        value.ok_or_else(|| Problem::field(name, what()))
    };
    let experts = number(EXPERTS, 1..MOST_EXPERTS + 1)?;
    let places = (0..experts).map(|i| Place::new(about, expert_prefix(i)));
    Ok((places.collect::<Result<_, _>>()?, Some(number(ROUTER_LAYER, 0..usize::MAX)?)))
}

/// What stands beside the rows of a batch in the layer that they are in; empty where nothing does, which costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Adapted<'a> {
    rows: Vec<Option<&'a Expert>>,
    /// Rows that a router is to tell apart, in front of its layer.
    routed: Vec<(Range<usize>, &'a Adapter, &'a Router)>,
}

/// Picks what stands beside products of one input, and which part of it belongs to the first of them.
pub(crate) type Pick = (fn(&LayerAdapter) -> &LowRank, usize);

impl<'a> Adapted<'a> {
    /// Of all rows, in front of the first layer.
    pub(crate) fn of(batch: &Batch<'a>) -> Self {
        let mut adapted = Self::default();
        if batch.adapters.iter().all(Option::is_none) {
            return adapted;
        }
        for (span, adapter) in batch.spans.iter().zip(batch.adapters) {
            let router = adapter.and_then(|adapter| Some((adapter, adapter.router.as_ref()?)));
            let everywhere = if router.is_some() { None } else { adapter.and_then(|adapter| adapter.experts.first()) };
            let first = adapted.rows.len();
            adapted.rows.extend(std::iter::repeat_n(everywhere, span.len));
            adapted.routed.extend(router.map(|(adapter, router)| (first..adapted.rows.len(), adapter, router)));
        }
        adapted
    }

    /// Lets routers in front of a layer choose by the states of their rows, `[rows][width]`.
    pub(crate) fn route(&mut self, layer: usize, states: &[f32], width: usize) {
        for (rows, adapter, router) in self.routed.iter().filter(|(.., router)| router.layer == layer) {
            for row in rows.clone() {
                let picked = router.pick(&states[row * width..(row + 1) * width]);
                self.rows[row] = picked.map(|expert| &adapter.experts[expert]);
            }
        }
    }

    /// Of these rows, ascending.
    pub(crate) fn only(&self, rows: &[u32]) -> Self {
        if self.rows.is_empty() {
            return Self::default();
        }
        let at = |row: usize| rows.partition_point(|&own| (own as usize) < row);
        let routed =
            self.routed.iter().map(|(range, adapter, router)| (at(range.start)..at(range.end), *adapter, *router));
        Self { rows: rows.iter().map(|row| self.rows[*row as usize]).collect(), routed: routed.collect() }
    }

    /// The forms that an input needs for its products and for what stands beside them.
    pub(crate) fn forms<'f>(&self, forms: &'f Forms) -> &'f [Form] {
        if self.rows.is_empty() { &forms.base } else { &forms.adapted }
    }

    /// The products of a group with what stands beside them.
    pub(crate) fn linear(
        &self,
        dev: &Device,
        x: &Activations,
        (layer, (pick, first)): (usize, Pick),
        room: &mut Vec<u32>,
        group: &mut [Linear<'_>],
    ) {
        if self.rows.is_empty() {
            return linear(dev, x, group);
        }
        let of = |row: usize| self.rows[row].map(|expert| pick(&expert.layers[layer - expert.first]));
        linear_beside(dev, x, group, Beside { of: &of, first, room });
    }
}
