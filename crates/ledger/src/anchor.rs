//! The newest checkpoint, kept beside the keys and so apart from the database.
//!
//! Whoever can write to the database, but not to the directory of the keys, could rewrite entries, take all checkpoints away, and have the next start
//! sign what is left. So the newest checkpoint is written down here every moment, and a log that does not contain it is not signed on. One file
//! for each database, since a key file may serve several.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{Checkpoint, Error, Result, note::Verifier};

/// Where it stands.
#[derive(Debug)]
pub(crate) struct Anchor(PathBuf);

impl Anchor {
    /// For the database at `url`, whose keys are in the file `keys`.
    pub(crate) fn new(keys: &Path, url: &str) -> Self {
        let name = crate::note::hex(&Sha256::digest(url.as_bytes())[..4]);
        Self(crate::keeper::beside(keys, &format!(".{name}.checkpoint")))
    }

    /// For people: what to remove when the database was put back on purpose.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// What was written down last.
    pub(crate) fn read(&self, verifier: &Verifier) -> Result<Option<Checkpoint>> {
        match fs::read_to_string(&self.0) {
            Ok(note) => {
                let named = |error| Error::Settings(format!("{}: {error}", self.0.display()));
                verifier.open(&note).map(Some).map_err(named)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file(&self.0, &error)),
        }
    }

    /// Replaces it as a whole. Gateways that share the keys write under names of their own.
    pub(crate) fn write(&self, checkpoint: &Checkpoint) -> Result<()> {
        let draft = crate::keeper::beside(&self.0, &format!(".{}", std::process::id()));
        let written = fs::write(&draft, &checkpoint.note).and_then(|()| fs::rename(&draft, &self.0));
        written.map_err(|error| Error::file(&self.0, &error))
    }

    /// A backup is put in the database's place on purpose.
    pub(crate) fn forget(&self) -> Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file(&self.0, &error)),
            _ => Ok(()),
        }
    }
}
