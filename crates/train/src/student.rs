//! A student: a smaller network cut out of a larger one, as a checkpoint that everybody reads.
//!
//! What is cut away is what matters least on samples, by one rule for all (Molchanov et al. 2019): with a gate of 1 on a part's output, the loss changes
//! by `(sum of weight * gradient)` as the gate closes, to the first order; its square, added up over samples, is the part's importance. Parts are
//! whole layers, the inner channels of feed-forward blocks, groups of heads that share a key, and channels of the residual stream.
//! First and last layer always stay: they turn embeddings into something else and back.
//!
//! Everything is cut by picking rows and columns, and so is what Hugging Face orders in another way than GGUF.
//!
//! In 8 bits a student is half as large and does the same: whole numbers beside the scales of their groups, as compressed-tensors has them (its format
//! `int-quantized`, symmetric). The engine multiplies these as they are.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::{fs, io};

use half::f16;
use kernels::Device;
use model::{ModelSpec, hugging_face_config, hugging_face_name, hugging_face_row};
use serde_json::{Value, json};

use crate::file::{self, Numbers, Stored};
use crate::{Batch, Entry, Error, Learned, Network, Sample};

/// How large a student is; `None` leaves a size as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Layers.
    pub layers: Option<usize>,
    /// Width of the residual stream.
    pub width: Option<usize>,
    /// Inner channels of a feed-forward block.
    pub ffn: Option<usize>,
    /// Key and value heads, each with the query heads that belong to it.
    pub kv_heads: Option<usize>,
}

/// What stays of a network, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Layers.
    pub layers: Vec<usize>,
    /// Channels of the residual stream.
    pub channels: Vec<usize>,
    /// Inner channels of each of the network's feed-forward blocks.
    pub inner: Vec<Vec<usize>>,
    /// Key and value heads of each of its layers.
    pub kv_heads: Vec<Vec<usize>>,
    /// Tokens.
    pub tokens: Vec<usize>,
}

/// A network's numbers as a file of Hugging Face's has them.
#[derive(Debug, Clone, PartialEq)]
pub struct Student {
    /// What it is made of.
    pub spec: ModelSpec,
    tied: bool,
    tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
}

/// How many bits a weight has in a file; norms and biases always have 16: bf16 beside 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// Whole numbers with a scale for every group of [`Student::group`].
    Eight,
    /// 16, as bf16.
    Bf16,
    /// 16, as f16; as bf16 where a weight is too large for f16.
    F16,
}

/// What lies beside the weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Files {
    /// `tokenizer.json`.
    pub tokenizer: Value,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Value,
    /// `card.json`: where it comes from.
    pub card: Value,
}

impl Files {
    /// The number of a token that the tokenizer's settings name: other programs look for it in `config.json`.
    fn special(&self, name: &str) -> Option<&Value> {
        let word = self.tokenizer_config.get(name)?;
        let added = self.tokenizer["added_tokens"].as_array()?;
        added.iter().find(|token| token["content"] == *word).map(|token| &token["id"])
    }
}

impl Cut {
    /// All of a network.
    pub fn nothing(spec: &ModelSpec) -> Self {
        Self {
            layers: (0..spec.layers.len()).collect(),
            channels: (0..spec.width).collect(),
            inner: spec.layers.iter().map(|layer| (0..layer.ffn).collect()).collect(),
            kv_heads: spec.layers.iter().map(|layer| (0..layer.attention.kv_heads).collect()).collect(),
            tokens: (0..spec.vocab).collect(),
        }
    }

    /// What matters most to a network on samples, all of whose weights must be learning; all of its tokens.
    ///
    /// # Errors
    /// It is not as large as that, or no student can be.
    pub fn choose(network: &mut Network, dev: &Device, samples: &[Sample], size: Size) -> Result<Self, Error> {
        let spec = network.spec().clone();
        check(&spec, size)?;
        let importance = Importance::of(network, dev, samples)?;
        let mut cut = Self::nothing(&spec);
        if let Some(layers) = size.layers {
            // The ends are above all others.
            let last = importance.layers.len() - 1;
            let ranked = importance.layers.iter().enumerate();
            let ranked: Vec<f64> = ranked.map(|(i, x)| if i == 0 || i == last { f64::INFINITY } else { *x }).collect();
            cut.layers = most(&ranked, layers);
        }
        if let Some(width) = size.width {
            cut.channels = most(&importance.channels, width);
        }
        for layer in 0..spec.layers.len() {
            cut.inner[layer] = most(&importance.inner[layer], size.ffn.unwrap_or(spec.layers[layer].ffn));
            let heads = size.kv_heads.unwrap_or(spec.layers[layer].attention.kv_heads);
            cut.kv_heads[layer] = most(&importance.kv_heads[layer], heads);
        }
        Ok(cut)
    }
}

fn check(spec: &ModelSpec, size: Size) -> Result<(), Error> {
    let ffn = spec.layers.iter().map(|layer| layer.ffn).min().unwrap_or(0);
    let kv_heads = spec.layers.iter().map(|layer| layer.attention.kv_heads).min().unwrap_or(0);
    let sizes = [
        ("layers", size.layers, 2, spec.layers.len()),
        ("channels", size.width, 2, spec.width),
        ("inner channels", size.ffn, 2, ffn),
        ("key heads", size.kv_heads, 1, kv_heads),
    ];
    let wrong = sizes.into_iter().find_map(|(what, size, least, most)| {
        size.filter(|size| !(least..=most).contains(size))
            .map(|size| format!("{size} {what}: the teacher has {most}, and {least} is the least"))
    });
    // Products of bf16 take numbers by twos.
    let odd = [size.width, size.ffn].into_iter().flatten().find(|size| size % 2 == 1);
    let wrong = wrong.or_else(|| odd.map(|size| format!("{size} channels: an even number is needed")));
    wrong.map_or(Ok(()), |what| Err(Error::Student(what)))
}

/// The places of the largest numbers, in order.
fn most(numbers: &[f64], n: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..numbers.len()).collect();
    places.sort_by(|a, b| numbers[*b].total_cmp(&numbers[*a]));
    places.truncate(n);
    places.sort_unstable();
    places
}

/// What the loss would change by without a part, squared, over samples.
#[derive(Debug)]
struct Importance {
    layers: Vec<f64>,
    channels: Vec<f64>,
    inner: Vec<Vec<f64>>,
    kv_heads: Vec<Vec<f64>>,
}

impl Importance {
    fn of(network: &mut Network, dev: &Device, samples: &[Sample]) -> Result<Self, Error> {
        if network.learned() != Learned::All {
            return Err(Error::Student("all weights must be learning".to_owned()));
        }
        let spec = network.spec().clone();
        let mut importance = Self {
            layers: vec![0.0; spec.layers.len()],
            channels: vec![0.0; spec.width],
            inner: spec.layers.iter().map(|layer| vec![0.0; layer.ffn]).collect(),
            kv_heads: spec.layers.iter().map(|layer| vec![0.0; layer.attention.kv_heads]).collect(),
        };
        for sample in samples {
            let mut batch = Batch::default();
            batch.push(&sample.tokens, |i| sample.weights[i] != 0.0);
            batch.average();
            network.learn(dev, &batch);
            importance.add(network);
            network.params.gradient.fill(0.0);
        }
        Ok(importance)
    }

    /// One more sample, whose gradient stands in the network.
    fn add(&mut self, network: &Network) {
        let mut channels = vec![0.0; self.channels.len()];
        let mut layers = vec![0.0; self.layers.len()];
        for entry in network.params.entries() {
            let (layer, name) = place(&entry.name);
            let slopes = || slopes(network, entry);
            match (layer, name) {
                // Norms are what reads the residual stream.
                (_, "attention_norm" | "ffn_norm" | "output_norm") => add(&mut channels, &slopes()),
                (Some(layer), "out") => {
                    let slopes = slopes();
                    layers[layer] += slopes.iter().sum::<f64>();
                    let heads = self.kv_heads[layer].len();
                    let groups = slopes.chunks_exact(slopes.len() / heads).map(|group| group.iter().sum());
                    add_squares(&mut self.kv_heads[layer], &groups.collect::<Vec<f64>>());
                }
                (Some(layer), "down") => {
                    let slopes = slopes();
                    layers[layer] += slopes.iter().sum::<f64>();
                    add_squares(&mut self.inner[layer], &slopes);
                }
                _ => {}
            }
        }
        add_squares(&mut self.layers, &layers);
        add_squares(&mut self.channels, &channels);
    }
}

fn add(to: &mut [f64], numbers: &[f64]) {
    to.iter_mut().zip(numbers).for_each(|(to, x)| *to += x);
}

fn add_squares(to: &mut [f64], numbers: &[f64]) {
    to.iter_mut().zip(numbers).for_each(|(to, x)| *to += x * x);
}

/// By each column of a matrix, weight times gradient.
fn slopes(network: &Network, entry: &Entry) -> Vec<f64> {
    let cols = entry.shape[1];
    let mut sums = vec![0.0; cols];
    let params = &network.params;
    let rows = params.values[entry.range.clone()].chunks_exact(cols);
    for (weights, gradients) in rows.zip(params.gradient[entry.range.clone()].chunks_exact(cols)) {
        let products = weights.iter().zip(gradients).map(|(weight, gradient)| f64::from(weight * gradient));
        sums.iter_mut().zip(products).for_each(|(sum, product)| *sum += product);
    }
    sums
}

/// A parameter's layer, if it is in one, and its name there.
fn place(name: &str) -> (Option<usize>, &str) {
    let inside = name.strip_prefix("layers.").and_then(|rest| rest.split_once('.'));
    inside.map_or((None, name), |(layer, name)| (layer.parse().ok(), name))
}

impl Student {
    /// What stays of a network, all of whose weights must be parameters.
    ///
    /// # Errors
    /// Its kind cannot be written.
    pub fn new(network: &Network, cut: &Cut) -> Result<Self, Error> {
        if network.learned() != Learned::All {
            return Err(Error::Student("all weights must be learning".to_owned()));
        }
        let teacher = network.spec();
        let spec = smaller(teacher, cut);
        let entries = network.params.entries();
        let tied = entries.iter().all(|entry| entry.name != crate::linear::HEAD);
        // Refuses here what could not be saved at the end.
        hugging_face_config(&spec, tied)?;
        let mut tensors = Vec::new();
        for entry in entries {
            let (layer, name) = place(&entry.name);
            let Some(renamed) = renamed(entry, layer, name, cut) else { continue };
            let [rows, cols] = picks(teacher, cut, layer.unwrap_or(0), name);
            let numbers = gather(&network.params.values[entry.range.clone()], entry.shape, &rows, &cols);
            let shape = if entry.shape[0] == 1 { vec![cols.len()] } else { vec![rows.len(), cols.len()] };
            let full = hugging_face_name(&teacher.family, &renamed);
            tensors.push((full.ok_or_else(|| Error::Student(format!("{renamed} has no name")))?, shape, numbers));
        }
        Ok(Self { spec, tied, tensors })
    }

    /// Weights that it has.
    pub fn parameters(&self) -> usize {
        self.tensors.iter().map(|(_, _, numbers)| numbers.len()).sum()
    }

    /// What its weights can be written with.
    fn possible(&self, bits: Bits) -> Bits {
        let fits = |(_, _, numbers): &(_, _, Vec<f32>)| numbers.iter().all(|x| f16::from_f32(*x).is_finite());
        if bits == Bits::F16 && !self.tensors.iter().all(fits) { Bits::Bf16 } else { bits }
    }

    /// `config.json` of weights by groups of so many numbers, or as 16 bits have them.
    fn config(&self, bits: Bits, group: Option<usize>) -> Result<Value, Error> {
        let mut config = hugging_face_config(&self.spec, self.tied)?;
        if bits == Bits::F16 {
            config["torch_dtype"] = "float16".into();
        }
        if let Some(group) = group {
            config["quantization_config"] = quantised(group);
        }
        Ok(config)
    }

    /// The tensors of its file; matrices by groups of so many numbers, if they are to have 8 bits.
    fn views(&self, bits: Bits, group: Option<usize>) -> impl Iterator<Item = (String, Numbers<'_>)> {
        let whole = if bits == Bits::F16 { Stored::F16 } else { Stored::Bf16 };
        self.tensors.iter().flat_map(move |(name, shape, numbers)| {
            let view = |name: &str, shape: &[usize], stored| {
                (name.to_owned(), Numbers { numbers, shape: shape.to_vec(), stored })
            };
            match (group, &shape[..]) {
                (Some(group), &[rows, cols]) => vec![
                    view(name, shape, Stored::Codes(group)),
                    view(&format!("{name}_scale"), &[rows, cols / group], Stored::Scales(group)),
                ],
                _ => vec![view(name, shape, whole)],
            }
        })
    }

    /// How many numbers of a row have a scale in common in 8 bits.
    ///
    /// # Errors
    /// Its widths are no multiples of 32: it can be had in 16 bits only.
    pub fn group(&self) -> Result<usize, Error> {
        let matrices = || self.tensors.iter().filter_map(|(_, shape, _)| shape.get(1));
        let group = [64, 32].into_iter().find(|group| matrices().all(|cols| cols.is_multiple_of(*group)));
        group.ok_or_else(|| {
            let cols: BTreeSet<_> = matrices().collect();
            Error::Student(format!("widths of {cols:?}: for 8 bits they must be multiples of 32"))
        })
    }

    /// Writes a folder with weights and all that belongs to them, beside its name first: a folder of that name is replaced as a whole.
    ///
    /// # Errors
    /// When it cannot be written; what stood under this name before stands there still, or beside it as `.old`.
    pub fn save(&self, bits: Bits, files: &Files, folder: &Path) -> Result<(), Error> {
        let bits = self.possible(bits);
        let group = if bits == Bits::Eight { Some(self.group()?) } else { None };
        let beside = |ending: &str| PathBuf::from(format!("{}.{ending}", folder.display()));
        let (part, old) = (beside("part"), beside("old"));
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| Error::Io { path, source }
        };
        remove(&part).map_err(at(&part))?;
        fs::create_dir_all(&part).map_err(at(&part))?;
        let mut config = self.config(bits, group)?;
        for (name, field) in [("bos_token", "bos_token_id"), ("eos_token", "eos_token_id")] {
            files.special(name).into_iter().for_each(|id| config[field] = id.clone());
        }
        let texts = [
            ("config.json", &config),
            ("tokenizer.json", &files.tokenizer),
            ("tokenizer_config.json", &files.tokenizer_config),
            ("card.json", &files.card),
        ];
        for (name, json) in texts {
            write_whole(&part.join(name), &format!("{json:#}\n")).map_err(at(&part.join(name)))?;
        }
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        file::write_as(&part.join("model.safetensors"), self.views(bits, group), metadata)?;
        if folder.exists() {
            remove(&old).map_err(at(&old))?;
            fs::rename(folder, &old).map_err(at(folder))?;
        }
        fs::rename(&part, folder).and_then(|()| file::sync_parent(folder)).map_err(at(folder))?;
        remove(&old).map_err(at(&old))
    }
}

/// What compressed-tensors' loaders want to know. `transformers` (5.24) multiplies whole numbers as if they were none unless it makes bf16 of them first.
fn quantised(group: usize) -> Value {
    let weights = json!({ "num_bits": 8, "type": "int", "symmetric": true, "strategy": "group", "group_size": group });
    json!({
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "dequantize": true,
        "config_groups": { "group_0": { "targets": ["Linear", "Embedding"], "weights": weights } },
        "ignore": [],
    })
}

fn remove(folder: &Path) -> io::Result<()> {
    if folder.exists() { fs::remove_dir_all(folder) } else { Ok(()) }
}

fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::File::open(path)?.sync_all()
}

fn smaller(teacher: &ModelSpec, cut: &Cut) -> ModelSpec {
    let layer = |&i: &usize| {
        let mut layer = teacher.layers[i].clone();
        let group = layer.attention.heads / layer.attention.kv_heads;
        layer.ffn = cut.inner[i].len();
        layer.attention.kv_heads = cut.kv_heads[i].len();
        layer.attention.heads = group * layer.attention.kv_heads;
        layer
    };
    let layers = cut.layers.iter().map(layer).collect();
    // Exits are calibrated for the weights as they were.
    ModelSpec { width: cut.channels.len(), vocab: cut.tokens.len(), layers, exits: Vec::new(), ..teacher.clone() }
}

/// A parameter's name in the student, if it is still there.
fn renamed(entry: &Entry, layer: Option<usize>, name: &str, cut: &Cut) -> Option<String> {
    let Some(layer) = layer else { return Some(entry.name.clone()) };
    let now = cut.layers.iter().position(|kept| *kept == layer)?;
    Some(format!("layers.{now}.{name}"))
}

/// The rows and columns of a parameter that stay, in the order of the file.
fn picks(teacher: &ModelSpec, cut: &Cut, layer: usize, name: &str) -> [Vec<usize>; 2] {
    let spec = &teacher.layers[layer];
    let (dim, group) = (spec.attention.head_dim, spec.attention.heads / spec.attention.kv_heads);
    let heads = |of: usize| spread(&cut.kv_heads[layer], of);
    let turned = |rows: Vec<usize>| rows.into_iter().map(|row| hugging_face_row(spec, row)).collect();
    let (width, inner) = (|| cut.channels.clone(), || cut.inner[layer].clone());
    match name {
        "embedding" | "head" => [cut.tokens.clone(), width()],
        "query" => [turned(heads(group * dim)), width()],
        "key" => [turned(heads(dim)), width()],
        "value" => [heads(dim), width()],
        "query.bias" => [vec![0], turned(heads(group * dim))],
        "key.bias" => [vec![0], turned(heads(dim))],
        "value.bias" => [vec![0], heads(dim)],
        "out" => [width(), heads(group * dim)],
        "gate" | "up" => [inner(), width()],
        "gate.bias" | "up.bias" => [vec![0], inner()],
        "down" => [width(), inner()],
        "query_norm" | "key_norm" => [vec![0], (0..dim).collect()],
        // Norms, and biases of what goes back into the residual stream.
        _ => [vec![0], width()],
    }
}

/// The members of some groups of so many.
fn spread(groups: &[usize], of: usize) -> Vec<usize> {
    let members = |group: &usize| -> Range<usize> { group * of..(group + 1) * of };
    groups.iter().flat_map(members).collect()
}

fn gather(numbers: &[f32], shape: [usize; 2], rows: &[usize], cols: &[usize]) -> Vec<f32> {
    let row = |row: &usize| &numbers[row * shape[1]..][..shape[1]];
    rows.iter().flat_map(|at| cols.iter().map(|col| row(at)[*col])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_stay_in_order() {
        assert_eq!(most(&[0.5, 3.0, 1.0, 2.0], 2), [1, 3]);
        assert_eq!(spread(&[0, 2], 3), [0, 1, 2, 6, 7, 8]);
        assert_eq!(gather(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3], &[1, 0], &[0, 2]), [4.0, 6.0, 1.0, 3.0]);
    }
}
