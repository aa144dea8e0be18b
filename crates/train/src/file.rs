//! Numbers in a safetensors file: written beside its name, brought to the disk, and named then, so that under the name there is always a whole file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;

use safetensors::{Dtype, View};

use crate::Error;

/// A tensor to be written.
struct Numbers<'a> {
    numbers: &'a [f32],
    shape: Vec<usize>,
}

impl View for Numbers<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into()
    }

    fn data_len(&self) -> usize {
        size_of_val(self.numbers)
    }
}

/// Writes tensors, each with its name and shape.
pub(crate) fn write<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (String, Vec<usize>, &'a [f32])>,
    metadata: HashMap<String, String>,
) -> Result<(), Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = Path::new(&beside);
    let views = tensors.map(|(name, shape, numbers)| (name, Numbers { numbers, shape }));
    safetensors::serialize_to_file(views, Some(metadata), beside).map_err(|e| io(std::io::Error::other(e)))?;
    File::open(beside).and_then(|file| file.sync_all()).map_err(io)?;
    fs::rename(beside, path).map_err(io)?;
    // The name is on the disk when its directory is.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)
}
