//! Numbers in a safetensors file: written beside its name, brought to the disk, and named then, so that under the name there is always a whole file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::{Dtype, View};

use crate::Error;

/// How numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    F32,
    F16,
    Bf16,
    /// Whole numbers of 8 bits, the largest of so many always 127 or -127.
    Codes(usize),
    /// What codes are multiplied by, in f16.
    Scales(usize),
}

/// A tensor to be written; of scales the numbers are those that have them.
pub(crate) struct Numbers<'a> {
    pub(crate) numbers: &'a [f32],
    pub(crate) shape: Vec<usize>,
    pub(crate) stored: Stored,
}

impl View for Numbers<'_> {
    fn dtype(&self) -> Dtype {
        match self.stored {
            Stored::F32 => Dtype::F32,
            Stored::F16 => Dtype::F16,
            Stored::Bf16 => Dtype::BF16,
            Stored::Codes(_) => Dtype::I8,
            Stored::Scales(_) => Dtype::F16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let numbers = self.numbers;
        let bytes: Vec<u8> = match self.stored {
            Stored::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Stored::F16 => numbers.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
            Stored::Bf16 => numbers.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
            Stored::Codes(group) => numbers.chunks_exact(group).flat_map(codes).collect(),
            Stored::Scales(group) => {
                numbers.chunks_exact(group).flat_map(|numbers| scale(numbers).to_le_bytes()).collect()
            }
        };
        bytes.into()
    }

    fn data_len(&self) -> usize {
        let numbers = self.numbers.len();
        match self.stored {
            Stored::F32 => 4 * numbers,
            Stored::F16 | Stored::Bf16 => 2 * numbers,
            Stored::Codes(_) => numbers,
            Stored::Scales(group) => 2 * (numbers / group),
        }
    }
}

/// What the codes of a group are multiplied by.
fn scale(numbers: &[f32]) -> f16 {
    f16::from_f32(numbers.iter().fold(0.0_f32, |most, x| most.max(x.abs())) / 127.0)
}

/// The nearest codes to a group's numbers, by its scale as it is stored.
fn codes(numbers: &[f32]) -> impl Iterator<Item = u8> {
    let scale = scale(numbers).to_f32();
    let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
    numbers.iter().map(move |x| ((x * inverse).round().clamp(-127.0, 127.0) as i8).cast_unsigned())
}

/// Writes tensors, each with its name and shape, in f32.
pub(crate) fn write<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (String, Vec<usize>, &'a [f32])>,
    metadata: HashMap<String, String>,
) -> Result<(), Error> {
    let single = |(name, shape, numbers)| (name, Numbers { numbers, shape, stored: Stored::F32 });
    write_as(path, tensors.map(single), metadata)
}

/// Writes tensors, each with its name.
pub(crate) fn write_as<'a>(
    path: &Path,
    views: impl Iterator<Item = (String, Numbers<'a>)>,
    metadata: HashMap<String, String>,
) -> Result<(), Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let beside = &beside(path);
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
