//! The model hub's API: which files a repository has, at which commit, with which sums.
//!
//! One question (`/api/models/REPO/revision/REV?blobs=true`) answers all of it. Files are then taken from that commit, so
//! that a branch which moves during a download does not mix two states.

use reqwest::Url;
use serde::Deserialize;

use crate::{
    Error, HubName, Progress, Stage, StoredFile,
    hub::Pull,
    name::is_safe_path,
    partial::{Partial, Promise},
    web::{Remote, Web},
};

/// What a repository gave.
pub(crate) struct Fetched {
    pub(crate) files: Vec<StoredFile>,
    pub(crate) load: String,
    pub(crate) licence: String,
    pub(crate) commit: String,
}

#[derive(Debug, Deserialize)]
struct Repository {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Sibling {
    #[serde(rename = "rfilename")]
    path: String,
    size: Option<u64>,
    lfs: Option<Blob>,
}

#[derive(Debug, Clone, Deserialize)]
struct Blob {
    sha256: String,
    size: Option<u64>,
}

/// Brings the file, or the files of the whole model.
pub(crate) async fn fetch(pull: &Pull<'_>, web: &Web, name: &HubName) -> Result<Fetched, Error> {
    (pull.report)(Progress::at(Stage::Resolving, &name.repo));
    let repository = describe(web, name).await?;
    let (files, load) = choose(&repository, name)?;
    let mut count = Count { done: 0, total: files.iter().map(Sibling::bytes).sum() };
    let mut stored = Vec::new();
    for file in &files {
        let file = fetch_file(pull, web, (name, &repository.sha), file, &count).await?;
        count.done += file.size;
        stored.push(file);
    }
    let licence = repository.tags.iter().find_map(|tag| tag.strip_prefix("license:")).unwrap_or_default().to_owned();
    Ok(Fetched { files: stored, load, licence, commit: repository.sha })
}

/// Bytes of the files before the current one, and of all.
struct Count {
    done: u64,
    total: Option<u64>,
}

async fn describe(web: &Web, name: &HubName) -> Result<Repository, Error> {
    let (owner, repo) = name.repo.split_once('/').unwrap_or_default();
    let mut url = web.address(["api", "models", owner, repo, "revision", &name.revision]);
    url.set_query(Some("blobs=true"));
    let body = web.get(&url).await.map_err(|e| explain(e, name))?;
    serde_json::from_slice(&body).map_err(|e| Error::Network {
        url: url.origin().ascii_serialization(),
        reason: format!("this is not the API of a model hub ({e}); check HF_ENDPOINT"),
        kept: 0,
    })
}

async fn fetch_file(
    pull: &Pull<'_>,
    web: &Web,
    (name, commit): (&HubName, &str),
    file: &Sibling,
    count: &Count,
) -> Result<StoredFile, Error> {
    let dest = pull.dest(&file.path);
    if dest.exists() {
        // Left by an interrupted pull: taken up again under its unfinished name, so that its sum is checked like any other.
        let unfinished =
            dest.with_file_name(format!("{}.part", dest.file_name().unwrap_or_default().to_string_lossy()));
        std::fs::rename(&dest, unfinished).map_err(|e| Error::io(&dest, e))?;
    }
    let mut partial = Partial::open(&dest)?;
    let announced = if file.bytes().is_some_and(|size| size == partial.len()) {
        None
    } else {
        let remote = Remote { url: address_of(web, name, commit, &file.path), size: file.bytes() };
        let report = |bytes| {
            let (done, total) = (count.done + bytes, count.total);
            (pull.report)(Progress { stage: Stage::Downloading, item: &file.path, done, total });
        };
        web.download(&remote, &mut partial, report).await.map_err(|e| explain(e, name))?
    };
    let sha256 = file.lfs.as_ref().map(|blob| blob.sha256.clone()).or(announced);
    let promise = Promise { path: file.path.clone(), size: file.bytes(), sha256, by: "hub" };
    pull.settle(partial, &promise)
}

fn address_of(web: &Web, name: &HubName, commit: &str, path: &str) -> Url {
    let (owner, repo) = name.repo.split_once('/').unwrap_or_default();
    web.address([owner, repo, "resolve", commit].into_iter().chain(path.split('/')))
}

/// The files that make the model, and which of them is opened.
fn choose(repository: &Repository, name: &HubName) -> Result<(Vec<Sibling>, String), Error> {
    // Names from a server become paths of ours.
    let all: Vec<&Sibling> = repository.siblings.iter().filter(|s| is_safe_path(&s.path)).collect();
    if let Some(wanted) = &name.file {
        let found = all.iter().find(|s| s.path == *wanted).ok_or_else(|| no_such_file(name, wanted, &all))?;
        return Ok((vec![(*found).clone()], wanted.clone()));
    }
    let parts: Vec<Sibling> = all.iter().filter(|s| belongs(&s.path)).map(|s| (*s).clone()).collect();
    if parts.iter().any(|s| s.path.ends_with(".safetensors")) && parts.iter().any(|s| s.path == "config.json") {
        return Ok((parts, ".".to_owned()));
    }
    match all.iter().filter(|s| s.path.ends_with(".gguf")).collect::<Vec<_>>()[..] {
        [only] => Ok((vec![(*only).clone()], only.path.clone())),
        _ => Err(no_such_file(name, "a whole model (config.json with *.safetensors, or one *.gguf)", &all)),
    }
}

/// The file is part of a model kept as config, tokenizer and shards at the top of its repository.
fn belongs(path: &str) -> bool {
    const NAMES: [&str; 12] = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.json",
        "merges.txt",
        "vocab.txt",
        "chat_template.jinja",
        "model.safetensors.index.json",
        "1_Pooling/config.json",
        "modules.json",
    ];
    // `model*` leaves out second copies of the weights that some repositories carry under other names.
    NAMES.contains(&path) || (path.starts_with("model") && path.ends_with(".safetensors") && !path.contains('/'))
}

fn no_such_file(name: &HubName, wanted: &str, all: &[&Sibling]) -> Error {
    let mut listed: Vec<&str> = all.iter().map(|s| s.path.as_str()).filter(|p| p.contains("gguf")).collect();
    if listed.is_empty() {
        listed = all.iter().map(|s| s.path.as_str()).collect();
    }
    listed.truncate(20);
    let hint = format!("name one of its files, as in hf:{}/FILE: {}", name.repo, listed.join(", "));
    Error::NotFound { what: format!("{wanted} in {}", name.repo), hint }
}

/// Adds what the user can do to the hub's refusals.
fn explain(error: Error, name: &HubName) -> Error {
    let page = format!("https://huggingface.co/{}", name.repo);
    match error {
        Error::Access { status, .. } => {
            let hint = if status == 401 {
                format!(
                    "it is gated, private or does not exist. Open {page}, accept its terms if it has some, and set HF_TOKEN \
                     to an access token of your account"
                )
            } else {
                format!("the account of HF_TOKEN may not read it. Open {page} with that account and ask for access")
            };
            Error::Access { repo: name.repo.clone(), status, hint }
        }
        Error::NotFound { .. } => Error::NotFound {
            what: format!("{name} on the model hub"),
            hint: format!("check owner, name and revision `{}`, see {page}", name.revision),
        },
        other => other,
    }
}

impl Sibling {
    fn bytes(&self) -> Option<u64> {
        self.lfs.as_ref().and_then(|blob| blob.size).or(self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The chosen files and what is opened, or a part of the error.
    fn check(paths: &[&str], file: Option<&str>, expected: Result<(&[&str], &str), &str>) {
        let siblings = paths.iter().map(|p| Sibling { path: (*p).to_owned(), size: None, lfs: None }).collect();
        let repository = Repository { sha: "c".to_owned(), siblings, tags: Vec::new() };
        let name = HubName { repo: "o/n".to_owned(), file: file.map(str::to_owned), revision: "main".to_owned() };
        match (choose(&repository, &name), expected) {
            (Ok((files, load)), Ok((want, opened))) => {
                assert_eq!(files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), want);
                assert_eq!(load, opened);
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, _) => panic!("{paths:?}: {:?}", got.map(|(_, load)| load)),
        }
    }

    #[test]
    fn the_files_of_a_model_are_chosen_by_name() {
        let shards =
            ["config.json", "tokenizer.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        check(&shards, None, Ok((&shards, ".")));
        check(
            &["config.json", "model.safetensors", "consolidated.safetensors", "onnx/model.onnx"],
            None,
            Ok((&["config.json", "model.safetensors"], ".")),
        );
        check(&["README.md", "m.gguf"], None, Ok((&["m.gguf"], "m.gguf")));
        check(&["a.gguf", "b.gguf"], None, Err("a.gguf, b.gguf"));
        check(&["a.gguf", "b.gguf"], Some("b.gguf"), Ok((&["b.gguf"], "b.gguf")));
        check(&["a.gguf"], Some("c.gguf"), Err("c.gguf in o/n does not exist: name one of its files"));
        check(&["../../evil", "m.gguf"], Some("../../evil"), Err("does not exist"));
    }
}
