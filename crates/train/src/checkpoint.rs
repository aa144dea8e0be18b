//! A run as a file: all that the next step depends on, so that a run which was taken up again gives the bits of one that was never stopped.
//!
//! One safetensors file, whole however many ranks the run has: they write it piece by piece and take their own out of it, so that it may go on with other
//! ranks than it was left by. Its tensors are the flat vectors (weights, the optimizer's means, the average); its metadata say which run it is of
//! (plan, data, base and what of it learns), where it stood, and a digest over both, so that a file that rotted is not taken for a run. Random numbers need
//! no room: they are functions of the plan's seed and of where the run stands.
//!
//! Under its name there is always a whole one ([`mod@file`]).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::scale::LossScale;
use crate::watch::Lengths;
use crate::{Error, file, replay};

/// What the file is, for those who meet it.
const FORMAT: (&str, &str) = ("format", "tessera training checkpoint 2");
/// Where in the metadata the run's place stands.
const STATE: &str = "state";
const DIGEST: &str = "digest";
/// What stands for it while it is not known.
const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Where the format has what is no tensor.
const METADATA: &str = "__metadata__";
/// Tensors, in order.
const NAMES: [&str; 4] = ["weights", "mean", "square", "average"];
/// Bytes of a header at most, as the format has it.
const HEADER: u64 = 100_000_000;
/// Numbers that are written, read or hashed at once.
const CHUNK: usize = 4096;

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
    /// Of a run in f16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scale: Option<LossScale>,
}

impl Default for State {
    fn default() -> Self {
        let (rewound, scale) = Default::default();
        Self { step: 0, learned: 0, skipped: 0, rewound, lengths: Lengths::default(), hold: replay::FIRST, scale }
    }
}

/// A run between two steps.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) state: State,
    /// Weights, means, means of squares, average.
    pub(crate) tensors: [Vec<f32>; 4],
}

/// Writes a run's checkpoint: its tensors, which have these lengths, come piece by piece, as they need not all be in memory.
pub(crate) fn write<'a>(
    path: &Path,
    about: &About,
    state: &State,
    lens: [usize; 4],
    pieces: impl Iterator<Item = Cow<'a, [f32]>>,
) -> Result<(), Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let json = serde_json::to_string(state).map_err(|e| io(e.into()))?;
    file::replace(path, |file| {
        let mut header = header(about, &json, lens);
        file.write_all(&bytes(&header)?)?;
        let mut hash = hasher(&json, lens);
        for piece in pieces {
            for numbers in piece.chunks(CHUNK) {
                let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
                hash.update(&bytes);
                file.write_all(&bytes)?;
            }
        }
        // The digest stands in front and is known at the end.
        header[METADATA][DIGEST] = hex(hash).into();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&bytes(&header)?)
    })
    .map_err(io)
}

/// Reads the checkpoint of a run whose tensors have these lengths. `take` gets their numbers piece by piece: the tensor's number, the place of the piece
/// and the piece. What it took counts only when the state comes back.
pub(crate) fn read(
    path: &Path,
    about: &About,
    lens: [usize; 4],
    mut take: impl FnMut(usize, usize, &[f32]),
) -> Result<State, Error> {
    let refused = |what: String| Error::Checkpoint { path: path.to_owned(), what };
    let io = |source| Error::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    let (mut header, end) = read_header(&mut file, size).map_err(refused)?;
    let of = |key: &str| header[METADATA][key].as_str().map(str::to_owned);
    let json = check(of, about).map_err(refused)?;
    let digest = header[METADATA][DIGEST].take();
    header[METADATA][DIGEST] = NO_DIGEST.into();
    if header != self::header(about, &json, lens) || size != end + 4 * lens.iter().sum::<usize>() as u64 {
        return Err(refused("has other tensors than this run, or was cut short: take another".to_owned()));
    }
    let mut hash = hasher(&json, lens);
    for (tensor, len) in lens.into_iter().enumerate() {
        for at in (0..len).step_by(CHUNK) {
            let numbers = read_numbers(&mut file, CHUNK.min(len - at), &mut hash).map_err(io)?;
            if let Some(x) = numbers.iter().find(|x| !x.is_finite()) {
                return Err(refused(format!("tensor {} has {x} in it", NAMES[tensor])));
            }
            take(tensor, at, &numbers);
        }
    }
    if digest != hex(hash) {
        return Err(refused(
            "does not have the digest that it was written with; it is damaged: take another".to_owned(),
        ));
    }
    serde_json::from_str(&json).map_err(|e| refused(format!("`{STATE}`: {e}")))
}

/// The header of a file, and where it ends.
fn read_header(file: &mut File, size: u64) -> Result<(Value, u64), String> {
    let broken = |e: &dyn std::fmt::Display| format!("is no whole safetensors file ({e}); take another");
    let mut len = [0; 8];
    file.read_exact(&mut len).map_err(|e| broken(&e))?;
    let len = u64::from_le_bytes(len);
    if len > HEADER.min(size) {
        return Err(broken(&format_args!("its header has {len} bytes")));
    }
    let mut text = vec![0; len as usize];
    file.read_exact(&mut text).map_err(|e| broken(&e))?;
    Ok((serde_json::from_slice(&text).map_err(|e| broken(&e))?, 8 + len))
}

/// Whether a file is of this run, by what its metadata say; its state.
fn check(of: impl Fn(&str) -> Option<String>, about: &About) -> Result<String, String> {
    let of = |key: &str| of(key).ok_or_else(|| format!("says nothing about `{key}`"));
    if of(FORMAT.0)? != FORMAT.1 {
        return Err(format!("is `{}`, not `{}`", of(FORMAT.0)?, FORMAT.1));
    }
    for (key, ours) in about {
        let theirs = of(key)?;
        if theirs != *ours {
            return Err(format!("is of another run: its {key} is {theirs}, here it is {ours}"));
        }
    }
    of(STATE)
}

/// What the file says of itself; its digest is a placeholder of the same length.
fn header(about: &About, state: &str, lens: [usize; 4]) -> Value {
    let mut metadata: About = about.clone();
    metadata.insert(FORMAT.0.to_owned(), FORMAT.1.to_owned());
    metadata.insert(STATE.to_owned(), state.to_owned());
    metadata.insert(DIGEST.to_owned(), NO_DIGEST.to_owned());
    let (mut header, mut end) = (json!({ METADATA: metadata }), 0);
    for (name, len) in NAMES.into_iter().zip(lens) {
        header[name] = json!({"dtype": "F32", "shape": [len], "data_offsets": [end, end + 4 * len]});
        end += 4 * len;
    }
    header
}

/// A header as it stands in the file: the format wants data to begin at a multiple of 8.
fn bytes(header: &Value) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(header)?;
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok([&(text.len() as u64).to_le_bytes()[..], &text].concat())
}

/// The digest is over the state, lengths and numbers.
fn hasher(state: &str, lens: [usize; 4]) -> Sha256 {
    let mut hash = Sha256::new_with_prefix(state);
    lens.iter().for_each(|len| hash.update((*len as u64).to_le_bytes()));
    hash
}

fn read_numbers(file: &mut File, len: usize, hash: &mut Sha256) -> io::Result<Vec<f32>> {
    let mut bytes = vec![0; 4 * len];
    file.read_exact(&mut bytes)?;
    hash.update(&bytes);
    Ok(bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect())
}

/// Takes numbers into a hash, with how many they are.
pub(crate) fn hash_numbers(hash: &mut Sha256, numbers: &[f32]) {
    hash.update((numbers.len() as u64).to_le_bytes());
    for numbers in numbers.chunks(CHUNK) {
        hash.update(numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
    }
}

/// A finished hash in words.
pub(crate) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
