//! Where a checkpoint's tensors are, and reading them.
//!
//! Files stay open and are read by position, a piece at a time: the bytes of a checkpoint are never all in memory, and a file
//! that was cut after its header was read gives [`Problem::Bounds`].

use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use kernels::BlockType;

use crate::{Error, Problem};

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
    /// Bytes.
    pub bytes: u64,
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
            Some(bytes) => Ok(Self { name, kind, shape, offset, bytes: bytes as u64 }),
        }
    }

    /// Numbers.
    pub fn numbers(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Every tensor inside the file, none twice, none on another's bytes.
pub(crate) fn check_layout(tensors: &[TensorInfo], file_len: u64) -> Result<(), Problem> {
    let mut order: Vec<_> = tensors.iter().collect();
    order.sort_by_key(|t| &t.name);
    if let Some(twin) = order.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(Problem::tensor(&twin[0].name, "stands there twice"));
    }
    for t in tensors {
        if t.offset.checked_add(t.bytes).is_none_or(|end| end > file_len) {
            let (tensor, needs, offset) = (t.name.clone(), t.bytes, t.offset);
            return Err(Problem::Bounds { tensor, needs, offset, end: file_len });
        }
    }
    order.sort_by_key(|t| t.offset);
    match order.windows(2).find(|pair| pair[0].offset + pair[0].bytes > pair[1].offset) {
        None => Ok(()),
        Some(pair) => {
            Err(Problem::Overlap { first: pair[0].name.clone(), second: pair[1].name.clone(), offset: pair[1].offset })
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

    /// Fills `buffer` with the tensor's bytes from `at` on.
    pub(crate) fn read(&self, tensor: &Located, at: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let OpenFile { path, file } = &self.files[tensor.file];
        file.read_exact_at(buffer, tensor.info.offset + at).map_err(|source| {
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

    /// The whole tensor as f32: for norms, biases and the like.
    pub(crate) fn floats(&self, tensor: &Located) -> Result<Vec<f32>, Error> {
        let mut bytes = vec![0; tensor.info.bytes as usize];
        self.read(tensor, 0, &mut bytes)?;
        let mut floats = vec![0.0; tensor.info.numbers()];
        tensor.info.kind.dequantise(&bytes, &mut floats);
        Ok(floats)
    }
}
