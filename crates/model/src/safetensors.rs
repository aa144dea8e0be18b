//! The safetensors header, read with the same suspicion as GGUF's.
//!
//! The format is a length, a JSON object and data. Its own crate wants the whole file in memory or mapped to check a header; a
//! mapped file that shrinks kills the process, so the two steps around `serde_json` stand here. The fuzzer calls
//! [`Header::read`] on arbitrary bytes.
//!
//! Weights of 8 bits are read where compressed-tensors' `int-quantized` has them: `x.weight` in I8 beside `x.weight_scale`, symmetric.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use kernels::BlockType;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::Problem;
use crate::tensors::{TensorInfo, check_layout};

/// Behind the name of a weight of 8 bits: its scales.
pub(crate) const SCALES: &str = "_scale";
/// What must not stand there: zero is zero here, and columns have their groups in order.
pub(crate) const REFUSED: [&str; 2] = ["_zero_point", "_g_idx"];

/// The format's own limit on its header.
const MAX_HEADER: u64 = 100_000_000;

/// All that a safetensors file says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The tensors that can be read, by offset from the start of the file.
    pub tensors: Vec<TensorInfo>,
    /// Texts that whoever wrote the file left in it.
    pub metadata: BTreeMap<String, String>,
    /// The others, by name, with their types: position ids and the like, which no family loads.
    pub unreadable: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Description {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

impl Description {
    fn offset(&self, name: &str, data_start: u64) -> Result<u64, Problem> {
        let begin = self.data_offsets[0];
        data_start.checked_add(begin).ok_or_else(|| Problem::tensor(name, format!("offset {begin} overflows")))
    }

    /// That its place is as long as its shape.
    fn check(&self, name: &str, bytes: u64) -> Result<(), Problem> {
        let [begin, end] = self.data_offsets;
        if end.checked_sub(begin) == Some(bytes) {
            return Ok(());
        }
        Err(Problem::tensor(name, format!("its shape takes {bytes} bytes, its data_offsets are {begin} to {end}")))
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Tensor(Description),
    Texts(BTreeMap<String, String>),
    Other(IgnoredAny),
}

impl Header {
    /// Reads and checks a header. `reader` stands at the start of a file of `file_len` bytes; tensor data is not read.
    ///
    /// # Errors
    /// [`Problem`] for anything that is not a sound safetensors file whose tensors all lie inside `file_len`.
    pub fn read(reader: &mut impl Read, file_len: u64) -> Result<Self, Problem> {
        let json = read_json(reader, file_len)?;
        let entries: BTreeMap<String, Entry> =
            serde_json::from_slice(&json).map_err(|e| Problem::Header { at: 8, what: format!("the JSON says {e}") })?;
        let data_start = 8 + json.len() as u64;
        let mut header = Self { tensors: Vec::new(), metadata: BTreeMap::new(), unreadable: BTreeMap::new() };
        let mut scaled = Vec::new();
        for (name, entry) in entries {
            match entry {
                Entry::Tensor(described) if described.dtype == "I8" => scaled.push((name, described)),
                Entry::Tensor(described) => header.add(name, described, data_start)?,
                Entry::Texts(texts) if name == "__metadata__" => header.metadata = texts,
                Entry::Other(_) if name == "__metadata__" => {}
                Entry::Other(_) if name == "__metadata__" => {}
                Entry::Texts(_) | Entry::Other(_) => {
                    return Err(Problem::tensor(name, "has no dtype, shape and data_offsets"));
                }
            }
        }
        header.add_scaled(scaled, data_start)?;
        header.tensors.sort_by_key(|t| t.offset);
        check_layout(&header.tensors, file_len)?;
        Ok(header)
    }

    fn add(&mut self, name: String, described: Description, data_start: u64) -> Result<(), Problem> {
        let Some(kind) = block_type(&described.dtype) else {
            self.unreadable.insert(name, described.dtype);
            return Ok(());
        };
        let offset = described.offset(&name, data_start)?;
        let tensor = TensorInfo::new(name, kind, described.shape.clone(), offset)?;
        described.check(&tensor.name, tensor.bytes)?;
        self.tensors.push(tensor);
        Ok(())
    }

    /// Weights of 8 bits, each with its scales, which are then no tensor of their own; without scales in this file, or with what is refused, they cannot be read.
    fn add_scaled(&mut self, weights: Vec<(String, Description)>, data_start: u64) -> Result<(), Problem> {
        let mut floats: BTreeMap<String, TensorInfo> = self.tensors.drain(..).map(|t| (t.name.clone(), t)).collect();
        let whole: BTreeSet<String> = weights.iter().map(|(name, _)| name.clone()).collect();
        for (name, described) in weights {
            let there =
                |name: &String| floats.contains_key(name) || whole.contains(name) || self.unreadable.contains_key(name);
            let plain = !REFUSED.iter().any(|refused| there(&format!("{name}{refused}")));
            let scales = if plain { floats.remove(&format!("{name}{SCALES}")) } else { None };
            let Some(scales) = scales else {
                self.unreadable.insert(name, described.dtype);
                continue;
            };
            let offset = described.offset(&name, data_start)?;
            let tensor = TensorInfo::scaled(name, described.shape.clone(), offset, &scales)?;
            described.check(&tensor.name, tensor.numbers() as u64)?;
            self.tensors.push(tensor);
        }
        self.tensors.extend(floats.into_values());
        Ok(())
    }
}

fn read_json(reader: &mut impl Read, file_len: u64) -> Result<Vec<u8>, Problem> {
    let mut len = [0; 8];
    reader.read_exact(&mut len)?;
    let len = u64::from_le_bytes(len);
    if len > MAX_HEADER || len > file_len.saturating_sub(8) {
        let what = format!("the header claims {len} bytes in a file of {file_len}");
        return Err(Problem::Header { at: 0, what });
    }
    let mut json = Vec::new();
    reader.take(len).read_to_end(&mut json)?;
    if json.len() as u64 != len {
        return Err(Problem::Header { at: 8 + json.len() as u64, what: "the file ends inside the header".into() });
    }
    Ok(json)
}

fn block_type(dtype: &str) -> Option<BlockType> {
    match dtype {
        "F32" => Some(BlockType::F32),
        "F16" => Some(BlockType::F16),
        "BF16" => Some(BlockType::BF16),
        _ => None,
    }
}
