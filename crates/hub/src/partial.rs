//! A file that grows, knows the sum of what it holds, and survives an interruption.
//!
//! One type serves downloads (bytes appended over several connections) and archives (several parts one behind the other):
//! the sum is taken while writing, so joined parts never exist twice on disk. A file found on opening is read once to bring
//! the sum up to date, which also proves that it is readable.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{Error, cache::StoredFile};

/// What is known about a file before it comes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Promise {
    pub(crate) path: String,
    pub(crate) size: Option<u64>,
    pub(crate) sha256: Option<String>,
    /// Who promised the sum, for the record.
    pub(crate) by: &'static str,
}

#[derive(Debug)]
pub(crate) struct Partial {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    len: u64,
}

impl Partial {
    /// Opens `dest` with `.part` behind its name, continuing what is there.
    pub(crate) fn open(dest: &Path) -> Result<Self, Error> {
        let mut path = dest.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
        }
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let file = file.map_err(|e| Error::io(&path, e))?;
        let mut partial = Self { path, file, hasher: Sha256::new(), len: 0 };
        partial.read_existing()?;
        Ok(partial)
    }

    /// Bytes it holds.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(|e| Error::io(&self.path, e))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Throws away what it holds.
    pub(crate) fn restart(&mut self) -> Result<(), Error> {
        self.file.set_len(0).map_err(|e| Error::io(&self.path, e))?;
        self.hasher = Sha256::new();
        self.len = 0;
        Ok(())
    }

    /// Checks size and sum against the promise and moves the file to its name; a wrong one is deleted.
    pub(crate) fn finish(self, dest: &Path, promise: &Promise) -> Result<StoredFile, Error> {
        let found = hex(&self.hasher.finalize());
        let wrong = |expected: String, found: String| {
            // The mismatch is the error to report, also where deleting fails.
            let _ = fs::remove_file(&self.path);
            Err(Error::Checksum { file: promise.path.clone(), expected, found })
        };
        match (&promise.sha256, promise.size) {
            (Some(sum), _) if !sum.eq_ignore_ascii_case(&found) => return wrong(sum.clone(), found),
            (None, Some(size)) if size != self.len => {
                return wrong(format!("that of {size} bytes"), format!("that of {} bytes", self.len));
            }
            _ => {}
        }
        // Without this a power cut after the rename could leave a file of the right size and wrong bytes.
        self.file.sync_all().map_err(|e| Error::io(&self.path, e))?;
        fs::rename(&self.path, dest).map_err(|e| Error::io(dest, e))?;
        let checked = if promise.sha256.is_some() { promise.by } else { "first use" };
        Ok(StoredFile { path: promise.path.clone(), size: self.len, sha256: found, checked: checked.to_owned() })
    }

    fn read_existing(&mut self) -> Result<(), Error> {
        let (len, sum) = digest(&mut self.file).map_err(|e| Error::io(&self.path, e))?;
        (self.len, self.hasher) = (len, sum);
        Ok(())
    }
}

/// The sum of a file, in hexadecimal.
pub(crate) fn sha256_of(path: &Path) -> Result<String, Error> {
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    let (_, hasher) = digest(&mut file).map_err(|e| Error::io(path, e))?;
    Ok(hex(&hasher.finalize()))
}

fn digest(file: &mut File) -> io::Result<(u64, Sha256)> {
    let (mut len, mut hasher, mut buffer) = (0, Sha256::new(), vec![0; 1 << 18]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((len, hasher)),
            n => {
                hasher.update(&buffer[..n]);
                len += n as u64;
            }
        }
    }
}

/// The sum of a text, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = std::fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}"));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The well-known sum of `abc`, written in pieces across two openings.
    #[test]
    fn a_file_continued_has_the_sum_of_the_whole() {
        let dir = scratch("continued");
        let dest = dir.join("file");
        Partial::open(&dest).unwrap().write(b"a").unwrap();
        let mut partial = Partial::open(&dest).unwrap();
        assert_eq!(partial.len(), 1);
        partial.write(b"bc").unwrap();
        let promise = Promise {
            path: "file".to_owned(),
            size: Some(3),
            sha256: Some("BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD".to_owned()),
            by: "test",
        };
        let stored = partial.finish(&dest, &promise).unwrap();
        assert_eq!((stored.size, stored.checked.as_str()), (3, "test"));
        assert_eq!(sha256_of(&dest).unwrap(), stored.sha256);
    }

    #[test]
    fn a_wrong_sum_or_size_deletes_the_file() {
        let dir = scratch("wrong");
        let dest = dir.join("file");
        let promises = [
            Promise { sha256: Some("0".repeat(64)), ..Promise::default() },
            Promise { size: Some(9), ..Promise::default() },
        ];
        for promise in promises {
            let mut partial = Partial::open(&dest).unwrap();
            partial.write(b"abc").unwrap();
            let error = partial.finish(&dest, &promise).unwrap_err();
            assert!(matches!(error, Error::Checksum { .. }), "{error}");
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        }
    }

    /// `/dev/full` accepts nothing, as a full disk does.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_named_and_the_partial_stays() {
        let dir = scratch("full");
        std::os::unix::fs::symlink("/dev/full", dir.join("file.part")).unwrap();
        // The device gives zeros without end when read, so the opening that reads what is there is left out.
        let path = dir.join("file.part");
        let file = OpenOptions::new().append(true).open(&path).unwrap();
        let mut partial = Partial { path: path.clone(), file, hasher: Sha256::new(), len: 0 };
        let error = partial.write(b"abc").unwrap_err();
        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
        assert!(error.to_string().contains("to continue"), "{error}");
        assert!(fs::symlink_metadata(path).is_ok());
    }

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("tessera-partial-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }
}
