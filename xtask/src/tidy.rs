//! `cargo xtask tidy`: the rules of the house that no other tool knows. It takes milliseconds and compiles nothing.
//!
//! Some rules fail: a crate edge that the table does not allow, a file without its design note, a library without its
//! invariant, features outside their homes, wire types in the compute tower, a lint table that drifted, a library that the
//! shelf does not name, a package registry's host name. Others are only told, because a reason may stand against them: sizes of files and functions, names that say
//! nothing. Every rule is a function from text to complaints, so a test can show that it complains.

mod edges;
mod measure;
mod rules;

use std::{fs, path::Path};

use anyhow::{Result, bail};

use crate::run::{cargo, output, root};

/// A file of the repository.
#[derive(Debug, Clone)]
struct SourceFile {
    /// From the root, with `/`.
    path: String,
    text: String,
}

pub(crate) fn tidy() -> Result<()> {
    let metadata = output(&mut cargo(&["metadata", "--no-deps", "--format-version", "1"]))?;
    let mut complaints = edges::check(&serde_json::from_str(&metadata)?);
    let files = files(&root())?;
    complaints.extend(rules::check(&files));
    print!("{}", measure::report(&files));
    if complaints.is_empty() {
        println!("tidy: {} files in order", files.len());
        return Ok(());
    }
    complaints.iter().for_each(|complaint| println!("{complaint}"));
    bail!("tidy has {} complaints", complaints.len())
}

/// Text files of the repository; what is built, downloaded or not text is left out.
fn files(root: &Path) -> Result<Vec<SourceFile>> {
    let mut found = Vec::new();
    walk(root, root, &mut found)?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn walk(root: &Path, directory: &Path, found: &mut Vec<SourceFile>) -> Result<()> {
    const LEFT_OUT: [&str; 7] = [".git", "target", "corpus", "artifacts", "__pycache__", "node_modules", ".venv"];
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() && !LEFT_OUT.iter().any(|name| entry.file_name() == *name) {
            walk(root, &path, found)?;
        } else if kind.is_file()
            && let Ok(text) = fs::read_to_string(&path)
        {
            let path = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
            found.push(SourceFile { path, text });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_repository_is_read() {
        let found = files(&root()).unwrap();
        assert!(found.iter().any(|f| f.path == "xtask/src/tidy.rs" && f.text.starts_with("//!")));
        assert!(found.iter().all(|f| !f.path.starts_with("target/")));
    }
}
