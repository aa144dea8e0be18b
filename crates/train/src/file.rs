//! Numbers in a safetensors file: written beside its name, brought to the disk, and named then, so that under the name there is always a whole file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use half::bf16;
use safetensors::{Dtype, View};

use crate::Error;

/// A tensor to be written.
struct Numbers<'a> {
    numbers: &'a [f32],
    shape: Vec<usize>,
    dtype: Dtype,
}

impl View for Numbers<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self.dtype {
            Dtype::BF16 => self.numbers.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect::<Vec<u8>>(),
            _ => self.numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
        .into()
    }

    fn data_len(&self) -> usize {
        self.numbers.len() * if self.dtype == Dtype::BF16 { 2 } else { 4 }
    }
}

/// Writes tensors, each with its name and shape, in f32.
pub(crate) fn write<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (String, Vec<usize>, &'a [f32])>,
    metadata: HashMap<String, String>,
) -> Result<(), Error> {
    write_as(Dtype::F32, path, tensors, metadata)
}

/// The same in f32 or bf16.
pub(crate) fn write_as<'a>(
    dtype: Dtype,
    path: &Path,
    tensors: impl Iterator<Item = (String, Vec<usize>, &'a [f32])>,
    metadata: HashMap<String, String>,
) -> Result<(), Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let beside = &beside(path);
    let views = tensors.map(|(name, shape, numbers)| (name, Numbers { numbers, shape, dtype }));
    safetensors::serialize_to_file(views, Some(metadata), beside).map_err(|e| io(std::io::Error::other(e)))?;
    File::open(beside).and_then(|file| name(&file, beside, path)).map_err(io)
}

/// Writes a file by `fill`.
pub(crate) fn replace(path: &Path, fill: impl FnOnce(&mut File) -> std::io::Result<()>) -> std::io::Result<()> {
    let beside = &beside(path);
    let mut file = File::create(beside)?;
    fill(&mut file)?;
    name(&file, beside, path)
}

fn beside(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    beside.into()
}

/// Gives a file that was written beside its name this name.
fn name(file: &File, beside: &Path, path: &Path) -> std::io::Result<()> {
    file.sync_all()?;
    fs::rename(beside, path)?;
    sync_parent(path)
}

/// A name is on the disk when its directory is.
pub(crate) fn sync_parent(path: &Path) -> std::io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
