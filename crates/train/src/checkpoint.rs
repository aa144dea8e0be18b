//! A run as a file: all that the next step depends on, so that a run which was taken up again gives the bits of one that was never stopped.
//!
//! One safetensors file. Its tensors are the flat vectors (weights, the optimizer's means, the average); its metadata say which run it is of
//! (plan, data, base and what of it learns), where it stood, and a digest over both, so that a file that rotted is not taken for a run. Random numbers need
//! no room: they are functions of the plan's seed and of where the run stands.
//!
//! Under its name there is always a whole one ([`file`]).

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::watch::Lengths;
use crate::{Error, file, replay};

/// What the file is, for those who meet it.
const FORMAT: (&str, &str) = ("format", "tessera training checkpoint 1");
/// Where in the metadata the run's place stands.
const STATE: &str = "state";
const DIGEST: &str = "digest";
/// Tensors, in order.
const NAMES: [&str; 4] = ["weights", "mean", "square", "average"];
/// Bytes of a header at most, as the format has it.
const HEADER: u64 = 100_000_000;
/// Numbers that are hashed at once.
const HASHED: usize = 4096;

/// What a run is of; a checkpoint of another is refused.
pub(crate) type About = BTreeMap<String, String>;

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// Steps that are done, whether they were learned from or not.
    pub(crate) step: u64,
    /// Steps of the optimizer.
    pub(crate) learned: u32,
    /// Steps in a row up to now that were not learned from.
    pub(crate) skipped: u32,
    /// The checkpoint that the run went back to last.
    pub(crate) rewound: Option<u64>,
    pub(crate) lengths: Lengths,
    /// What the divergence from the run's beginning weighs in the next step.
    pub(crate) hold: f64,
}

impl Default for State {
    fn default() -> Self {
        Self { step: 0, learned: 0, skipped: 0, rewound: None, lengths: Lengths::default(), hold: replay::FIRST }
    }
}

/// A run between two steps.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) state: State,
    /// Weights, means, means of squares, average.
    pub(crate) tensors: [Vec<f32>; 4],
}

/// Writes a run's checkpoint.
pub(crate) fn write(path: &Path, about: &About, state: &State, tensors: [&[f32]; 4]) -> Result<(), Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let json = serde_json::to_string(state).map_err(|e| io(e.into()))?;
    let mut metadata: HashMap<String, String> = about.clone().into_iter().collect();
    metadata.insert(FORMAT.0.to_owned(), FORMAT.1.to_owned());
    metadata.insert(DIGEST.to_owned(), digest(&json, tensors));
    metadata.insert(STATE.to_owned(), json);
    let tensors = NAMES.into_iter().zip(tensors).map(|(name, x)| (name.to_owned(), vec![x.len()], x));
    file::write(path, tensors, metadata)
}

/// Reads the checkpoint of a run whose tensors have these lengths.
pub(crate) fn read(path: &Path, about: &About, lens: [usize; 4]) -> Result<Snapshot, Error> {
    let refused = |what: String| Error::Checkpoint { path: path.to_owned(), what };
    let io = |source| Error::Io { path: path.to_owned(), source };
    let most = HEADER + 4 * lens.iter().sum::<usize>() as u64;
    let size = fs::metadata(path).map_err(io)?.len();
    if size > most {
        return Err(refused(format!("has {size} bytes, more than this run can have")));
    }
    parse(&fs::read(path).map_err(io)?, about, lens).map_err(refused)
}

fn parse(bytes: &[u8], about: &About, lens: [usize; 4]) -> Result<Snapshot, String> {
    let broken = |e| format!("is no whole safetensors file ({e}); it was cut short or damaged: take another");
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(broken)?;
    let file = SafeTensors::deserialize(bytes).map_err(broken)?;
    let metadata = header.metadata().as_ref().ok_or("says nothing about a run")?;
    let of = |key: &str| metadata.get(key).ok_or_else(|| format!("says nothing about `{key}`"));
    if of(FORMAT.0)? != FORMAT.1 {
        return Err(format!("is `{}`, not `{}`", of(FORMAT.0)?, FORMAT.1));
    }
    for (key, ours) in about {
        let theirs = of(key)?;
        if theirs != ours {
            return Err(format!("is of another run: its {key} is {theirs}, here it is {ours}"));
        }
    }
    let mut tensors: [Vec<f32>; 4] = Default::default();
    for ((name, len), tensor) in NAMES.into_iter().zip(lens).zip(&mut tensors) {
        *tensor = numbers(&file, name, len)?;
    }
    let json = of(STATE)?;
    if *of(DIGEST)? != digest(json, tensors.each_ref().map(Vec::as_slice)) {
        return Err("does not have the digest that it was written with; it is damaged: take another".to_owned());
    }
    let state = serde_json::from_str(json).map_err(|e| format!("`{STATE}`: {e}"))?;
    Ok(Snapshot { state, tensors })
}

fn numbers(file: &SafeTensors<'_>, name: &str, len: usize) -> Result<Vec<f32>, String> {
    let tensor = file.tensor(name).map_err(|e| e.to_string())?;
    if tensor.dtype() != Dtype::F32 || tensor.shape() != [len] {
        return Err(format!("tensor {name} is {:?} {:?}, not F32 [{len}]", tensor.dtype(), tensor.shape()));
    }
    let (fours, _) = tensor.data().as_chunks::<4>();
    let numbers: Vec<f32> = fours.iter().map(|four| f32::from_le_bytes(*four)).collect();
    if numbers.iter().all(|x| x.is_finite()) { Ok(numbers) } else { Err(format!("tensor {name} is not finite")) }
}

fn digest(state: &str, tensors: [&[f32]; 4]) -> String {
    let mut hash = Sha256::new_with_prefix(state);
    tensors.into_iter().for_each(|tensor| hash_numbers(&mut hash, tensor));
    hex(hash)
}

/// Takes numbers into a hash, with how many they are.
pub(crate) fn hash_numbers(hash: &mut Sha256, numbers: &[f32]) {
    hash.update((numbers.len() as u64).to_le_bytes());
    for numbers in numbers.chunks(HASHED) {
        hash.update(numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
    }
}

/// A finished hash in words.
pub(crate) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
