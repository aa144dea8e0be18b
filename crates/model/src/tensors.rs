//! Where a checkpoint's tensors are, and reading them.
//!
//! Files stay open and are read by position, a piece at a time: the bytes of a checkpoint are never all in memory, and a file
//! that was cut after its header was read gives [`Problem::Bounds`].
//!
//! Whole numbers with scales in a tensor of their own ([`Scales`]) are handed on as the blocks that GGUF has of them.

use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use half::f16;
use kernels::BlockType;

use crate::{Error, Problem};

/// Numbers in a block of [`BlockType::Q8_0`], which begins with its scale.
const BLOCK: usize = 32;
/// Bytes of that scale.
const SCALE: usize = 2;

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name in the file.
    pub name: String,
    /// How its numbers are stored.
    pub kind: BlockType,
    /// Dimensions, slowest first: a matrix is `[rows, cols]`.
    pub shape: Vec<usize>,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Bytes, as they are handed on.
    pub bytes: u64,
    /// Where the scales are of a tensor whose numbers alone stand at `offset`, 8 bits each.
    pub scales: Option<Scales>,
}

/// Factors of whole numbers, in a tensor beside them: `weight_scale` of compressed-tensors (format `int-quantized`, symmetric).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scales {
    /// How they are stored.
    pub kind: BlockType,
    /// First byte of them, from the start of the file.
    pub offset: u64,
    /// Consecutive numbers of a row that have one in common: a multiple of 32.
    pub group: usize,
}

impl TensorInfo {
    /// Computes the length from the shape.
    pub(crate) fn new(name: String, kind: BlockType, shape: Vec<usize>, offset: u64) -> Result<Self, Problem> {
        let cols = shape.last().copied().unwrap_or(1);
        if !cols.is_multiple_of(kind.block_len()) {
            let what = format!("has {cols} columns, not a multiple of {}, the block of {kind:?}", kind.block_len());
            return Err(Problem::tensor(name, what));
        }
        let numbers = shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
        match numbers.and_then(|n| kind.bytes_of(n)) {
            Some(0) | None => Err(Problem::tensor(name, format!("has the impossible shape {shape:?}"))),
            Some(bytes) => Ok(Self { name, kind, shape, offset, bytes: bytes as u64, scales: None }),
        }
    }

    /// Whole numbers of this shape at `offset`, with the scales that another tensor is.
    pub(crate) fn scaled(name: String, shape: Vec<usize>, offset: u64, by: &Self) -> Result<Self, Problem> {
        let tensor = Self::new(name, BlockType::Q8_0, shape, offset)?;
        let group = tensor.numbers() / by.numbers();
        let whole = group * by.numbers() == tensor.numbers() && group.is_multiple_of(BLOCK);
        if group == 0 || !whole || by.shape.first() != tensor.shape.first() {
            let what = format!(
                "has the shape {:?} and scales of the shape {:?}: each row needs one, or one for every {BLOCK} numbers or a multiple of that",
                tensor.shape, by.shape
            );
            return Err(Problem::tensor(tensor.name, what));
        }
        Ok(Self { scales: Some(Scales { kind: by.kind, offset: by.offset, group }), ..tensor })
    }

    /// The bytes of the file that are this tensor's: where they begin, and how many.
    fn extents(&self) -> impl Iterator<Item = (u64, u64)> {
        let numbers = self.numbers() as u64;
        let of = |scales: Scales| (scales.offset, numbers / scales.group as u64 * scales.kind.block_bytes() as u64);
        let own = if self.scales.is_some() { numbers } else { self.bytes };
        std::iter::once((self.offset, own)).chain(self.scales.map(of))
    }

    /// Numbers.
    pub fn numbers(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Every tensor inside the file, none twice, none on another's bytes.
pub(crate) fn check_layout(tensors: &[TensorInfo], file_len: u64) -> Result<(), Problem> {
    let mut names: Vec<_> = tensors.iter().map(|t| &t.name).collect();
    names.sort_unstable();
    if let Some(twin) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Problem::tensor(twin[0], "stands there twice"));
    }
    let mut extents: Vec<_> =
        tensors.iter().flat_map(|t| t.extents().map(move |(offset, needs)| (offset, needs, &t.name))).collect();
    extents.sort_unstable();
    for &(offset, needs, name) in &extents {
        if offset.checked_add(needs).is_none_or(|end| end > file_len) {
            return Err(Problem::Bounds { tensor: name.clone(), needs, offset, end: file_len });
        }
    }
    match extents.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
        None => Ok(()),
        Some(pair) => {
            let (first, (offset, _, second)) = (pair[0].2, pair[1]);
            Err(Problem::Overlap { first: first.clone(), second: second.clone(), offset })
        }
    }
}

/// A file that stays open for its tensors.
#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    file: File,
}

/// All tensors of a checkpoint, over all of its files.
#[derive(Debug, Default)]
pub(crate) struct Tensors {
    files: Vec<OpenFile>,
    all: Vec<Located>,
    by_name: HashMap<String, usize>,
    /// Tensors with types that cannot be read, and those types: a family may not need them.
    pub(crate) unreadable: HashMap<String, String>,
}

/// A tensor and the file it is in.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) info: TensorInfo,
    file: usize,
}

impl Tensors {
    /// Adds a file's tensors. A name that another file has already gave is refused.
    pub(crate) fn add(&mut self, path: PathBuf, file: File, tensors: Vec<TensorInfo>) -> Result<(), Error> {
        for info in tensors {
            if self.by_name.insert(info.name.clone(), self.all.len()).is_some() {
                return Err(Problem::tensor(info.name, "stands in two files").in_file(&path));
            }
            self.all.push(Located { info, file: self.files.len() });
        }
        self.files.push(OpenFile { path, file });
        Ok(())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &TensorInfo> {
        self.all.iter().map(|t| &t.info)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Located> {
        self.by_name.get(name).map(|&i| &self.all[i])
    }

    pub(crate) fn path_of(&self, tensor: &Located) -> &std::path::Path {
        &self.files[tensor.file].path
    }

    /// Fills `buffer` with the tensor's bytes from `at` on: whole blocks of it.
    pub(crate) fn read(&self, tensor: &Located, at: u64, buffer: &mut [u8]) -> Result<(), Error> {
        match tensor.info.scales {
            Some(scales) => self.read_scaled(tensor, scales, at as usize / (SCALE + BLOCK), buffer),
            None => self.read_at(tensor, tensor.info.offset + at, buffer),
        }
    }

    fn read_at(&self, tensor: &Located, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let OpenFile { path, file } = &self.files[tensor.file];
        file.read_exact_at(buffer, offset).map_err(|source| {
            let problem = match source.kind() {
                ErrorKind::UnexpectedEof => Problem::Bounds {
                    tensor: tensor.info.name.clone(),
                    needs: tensor.info.bytes,
                    offset: tensor.info.offset,
                    end: file.metadata().map_or(0, |m| m.len()),
                },
                _ => source.into(),
            };
            problem.in_file(path)
        })
    }

    /// The blocks from the `first` on: each its group's scale and 32 numbers.
    fn read_scaled(&self, tensor: &Located, scales: Scales, first: usize, buffer: &mut [u8]) -> Result<(), Error> {
        let blocks = first..first + buffer.len() / (SCALE + BLOCK);
        let mut numbers = vec![0; blocks.len() * BLOCK];
        self.read_at(tensor, tensor.info.offset + (first * BLOCK) as u64, &mut numbers)?;
        let group_of = |block: usize| block * BLOCK / scales.group;
        let groups = group_of(first)..(blocks.end * BLOCK).div_ceil(scales.group);
        let width = scales.kind.block_bytes();
        let (mut stored, mut factors) = (vec![0; groups.len() * width], vec![0.0; groups.len()]);
        self.read_at(tensor, scales.offset + (groups.start * width) as u64, &mut stored)?;
        scales.kind.dequantise(&stored, &mut factors);
        if let Some(wrong) = factors.iter().find(|factor| !f16::from_f32(**factor).is_finite()) {
            let problem = Problem::tensor(&tensor.info.name, format!("has the scale {wrong}, which no f16 can be"));
            return Err(problem.in_file(self.path_of(tensor)));
        }
        let records = buffer.chunks_exact_mut(SCALE + BLOCK).zip(numbers.chunks_exact(BLOCK));
        for ((record, numbers), block) in records.zip(blocks) {
            let factor = f16::from_f32(factors[group_of(block) - groups.start]);
            record[..SCALE].copy_from_slice(&factor.to_le_bytes());
            record[SCALE..].copy_from_slice(numbers);
        }
        Ok(())
    }

    /// The whole tensor as f32: for norms, biases and the like.
    pub(crate) fn floats(&self, tensor: &Located) -> Result<Vec<f32>, Error> {
        let mut bytes = vec![0; tensor.info.bytes as usize];
        self.read(tensor, 0, &mut bytes)?;
        let mut floats = vec![0.0; tensor.info.numbers()];
        tensor.info.kind.dequantise(&bytes, &mut floats);
        Ok(floats)
    }
}
