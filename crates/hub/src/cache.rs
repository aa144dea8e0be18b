//! The directory of verified models: one rename brings an entry in, so whoever finds it finds it whole.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Kind, Name, Progress, Stage,
    partial::{sha256, sha256_of},
    pull::Report,
};

const RECORD: &str = "record.json";

/// A model in the cache, or a path that was named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Entry {
    /// What it was pulled as.
    pub name: String,
    /// What to open: a file or a directory.
    pub path: PathBuf,
    /// Bytes of all its files.
    pub size: u64,
    /// What it is for, where the catalogue knows.
    pub kind: Option<Kind>,
    /// As the source declares it; empty if it declares none.
    pub licence: String,
    /// Where it came from.
    pub source: String,
    /// The commit, for models of a hub.
    pub revision: Option<String>,
    /// The files with their sums.
    pub files: Vec<StoredFile>,
}

impl Entry {
    /// What identifies the weights exactly: the sum of the file, or the sum of the list of its files with their sums. Known for
    /// what came through the hub; a file that did not is read.
    ///
    /// # Errors
    /// If such a file cannot be read.
    pub fn digest(&self) -> Result<String, Error> {
        let list = |files: &[(String, String)]| match files {
            [(sum, _)] => format!("sha256:{sum}"),
            several => {
                let lines: String = several.iter().map(|(sum, path)| format!("{sum}  {path}\n")).collect();
                format!("sha256:{}", sha256(lines.as_bytes()))
            }
        };
        if !self.files.is_empty() {
            let files: Vec<_> = self.files.iter().map(|file| (file.sha256.clone(), file.path.clone())).collect();
            return Ok(list(&files));
        }
        let mut paths = vec![self.path.clone()];
        if self.path.is_dir() {
            let entries = fs::read_dir(&self.path).map_err(|e| Error::io(&self.path, e))?;
            paths = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()).collect();
            paths.sort();
        }
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let summed: Result<Vec<_>, Error> = paths.iter().map(|path| Ok((sha256_of(path)?, name(path)))).collect();
        Ok(list(&summed?))
    }
}

/// A verified file of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoredFile {
    /// Inside the entry.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Sum of its bytes.
    pub sha256: String,
    /// Who vouched for the sum: `catalogue`, `hub`, or `first use` where nobody did.
    pub checked: String,
}

/// What `record.json` holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) load: String,
    pub(crate) kind: Option<Kind>,
    pub(crate) licence: String,
    pub(crate) source: String,
    pub(crate) revision: Option<String>,
    pub(crate) files: Vec<StoredFile>,
}

#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
}

/// Held while a pull writes; the system releases it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held, never read")] File);

impl Cache {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// `$XDG_CACHE_HOME/tessera`, else `~/.cache/tessera`.
    pub(crate) fn default_root() -> PathBuf {
        let xdg = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let base = xdg.or_else(|| env::home_dir().map(|home| home.join(".cache"))).unwrap_or_else(env::temp_dir);
        base.join("tessera")
    }

    /// The complete entry under this key. One with a file of another size than recorded counts as absent.
    pub(crate) fn entry(&self, key: &str) -> Option<Entry> {
        let dir = self.models().join(key);
        let record: Record = serde_json::from_slice(&fs::read(dir.join(RECORD)).ok()?).ok()?;
        let whole = |f: &StoredFile| fs::metadata(dir.join(&f.path)).is_ok_and(|meta| meta.len() == f.size);
        record.files.iter().all(whole).then(|| record.into_entry(&dir))
    }

    /// All complete entries, by name.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let Ok(dir) = fs::read_dir(self.models()) else { return Vec::new() };
        let keys = dir.flatten().filter_map(|item| item.file_name().into_string().ok());
        let mut entries: Vec<_> = keys.filter_map(|key| self.entry(&key)).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries
    }

    /// Where the files of an unfinished pull grow; `files` in it becomes the entry.
    pub(crate) fn staging(&self, key: &str) -> PathBuf {
        self.root.join("partial").join(key)
    }

    /// Waits until no other process pulls the same name.
    pub(crate) async fn lock(&self, key: &str, report: &Report<'_>) -> Result<Lock, Error> {
        let path = self.root.join("locks").join(key);
        let file = create(&path)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock(file)),
                Err(TryLockError::WouldBlock) => report(Progress::at(Stage::Waiting, key)),
                Err(TryLockError::Error(e)) => return Err(Error::io(&path, e)),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Turns the staged files into an entry, in one rename.
    pub(crate) fn commit(&self, key: &str, record: &Record) -> Result<Entry, Error> {
        let (staged, dir) = (self.staging(key).join("files"), self.models().join(key));
        let text = serde_json::to_vec_pretty(record).map_err(|e| Error::io(&staged, e.into()))?;
        fs::write(staged.join(RECORD), text).map_err(|e| Error::io(&staged, e))?;
        fs::create_dir_all(self.models()).map_err(|e| Error::io(&self.models(), e))?;
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(|e| Error::io(&dir, e))?;
        }
        fs::rename(&staged, &dir).map_err(|e| Error::io(&dir, e))?;
        remove_dir(&self.staging(key))?;
        Ok(record.clone().into_entry(&dir))
    }

    /// Deletes the entry and what an interrupted pull of it left. Returns the bytes freed.
    pub(crate) fn remove(&self, key: &str) -> Result<u64, Error> {
        let dirs = [self.models().join(key), self.staging(key)];
        let freed = dirs.iter().map(|dir| bytes_in(dir)).sum();
        dirs.iter().try_for_each(|dir| remove_dir(dir))?;
        Ok(freed)
    }

    /// Compares a sum that nobody promised with the one seen on first use, or notes it.
    pub(crate) fn pin(&self, name: &Name, file: &StoredFile) -> Result<(), Error> {
        let mut pins = self.pins();
        let label = format!("{name} {}", file.path);
        match pins.get(&label) {
            Some(pinned) if *pinned == file.sha256 => return Ok(()),
            Some(pinned) => {
                let (pinned, found) = (pinned.clone(), file.sha256.clone());
                return Err(Error::Changed { name: label, model: name.to_string(), pinned, found });
            }
            None => pins.insert(label, file.sha256.clone()),
        };
        self.write_pins(&pins)
    }

    /// Forgets the sums seen on first use of this name.
    pub(crate) fn forget(&self, name: &Name) -> Result<(), Error> {
        let (mut pins, prefix) = (self.pins(), format!("{name} "));
        pins.retain(|label, _| !label.starts_with(&prefix));
        self.write_pins(&pins)
    }

    fn models(&self) -> PathBuf {
        self.root.join("models")
    }

    fn pins(&self) -> BTreeMap<String, String> {
        let text = fs::read(self.root.join("pins.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn write_pins(&self, pins: &BTreeMap<String, String>) -> Result<(), Error> {
        let (path, draft) = (self.root.join("pins.json"), self.root.join("pins.json.new"));
        let text = serde_json::to_vec_pretty(pins).map_err(|e| Error::io(&path, e.into()))?;
        fs::create_dir_all(&self.root).map_err(|e| Error::io(&self.root, e))?;
        fs::write(&draft, text).and_then(|()| fs::rename(&draft, &path)).map_err(|e| Error::io(&path, e))
    }
}

impl Record {
    fn into_entry(self, dir: &Path) -> Entry {
        Entry {
            path: if self.load == "." { dir.to_path_buf() } else { dir.join(&self.load) },
            size: self.files.iter().map(|file| file.size).sum(),
            name: self.name,
            kind: self.kind,
            licence: self.licence,
            source: self.source,
            revision: self.revision,
            files: self.files,
        }
    }
}

/// Bytes below a directory.
pub(crate) fn bytes_in(dir: &Path) -> u64 {
    let Ok(items) = fs::read_dir(dir) else { return 0 };
    let size = |item: fs::DirEntry| match item.metadata() {
        Ok(meta) if meta.is_dir() => bytes_in(&item.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    items.flatten().map(size).sum()
}

pub(crate) fn remove_dir(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(dir, e)),
        _ => Ok(()),
    }
}

fn create(path: &Path) -> Result<File, Error> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
    }
    File::create(path).map_err(|e| Error::io(path, e))
}
