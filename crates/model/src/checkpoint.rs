//! A checkpoint on disk: its fields, its tensors and what lies beside them, whichever format it has.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::fields::Fields;
use crate::tensors::Tensors;
use crate::{Error, Pooling, Problem, TokenizerSource, gguf, safetensors, vocabulary};

/// No honest `config.json` or tensor index is longer.
const MAX_JSON: u64 = 64 << 20;

/// What `model` knows of a checkpoint before it loads weights.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    /// The file to blame when metadata is wrong.
    pub(crate) path: PathBuf,
    pub(crate) fields: Fields,
    pub(crate) tensors: Tensors,
    pub(crate) tokenizer: TokenizerSource,
    pub(crate) chat_template: Option<String>,
    /// What `1_Pooling/config.json` says (sentence-transformers).
    pub(crate) pooling: Option<Pooling>,
}

impl Checkpoint {
    /// A GGUF file; a directory with `config.json` and safetensors; or such a directory's safetensors file.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let metadata = std::fs::metadata(path).map_err(|e| Problem::from(e).in_file(path))?;
        let is_safetensors = path.extension().is_some_and(|e| e == "safetensors");
        match path.parent() {
            _ if metadata.is_dir() => Self::open_directory(path),
            Some(parent) if is_safetensors => Self::open_directory(parent),
            _ => Self::open_gguf(path),
        }
    }

    fn open_gguf(path: &Path) -> Result<Self, Error> {
        let (file, len) = open(path)?;
        let header = gguf::Header::read(&mut BufReader::with_capacity(1 << 18, &file), len);
        let header = header.map_err(|problem| problem.in_file(path))?;
        let mut tensors = Tensors::default();
        tensors.add(path.to_owned(), file, header.tensors)?;
        let mut fields = Fields::gguf(header.metadata);
        let tokenizer = vocabulary::from_fields(&mut fields).map_err(|problem| problem.in_file(path))?;
        let chat_template = fields.raw_text("tokenizer.chat_template").map(str::to_owned);
        let tokenizer = TokenizerSource::Vocabulary(tokenizer);
        Ok(Self { path: path.to_owned(), fields, tensors, tokenizer, chat_template, pooling: None })
    }

    fn open_directory(directory: &Path) -> Result<Self, Error> {
        let path = directory.join("config.json");
        if !path.is_file() {
            return Err(Problem::NotACheckpoint("there is no config.json".into()).in_file(directory));
        }
        let fields = Fields::hugging_face(&read_json(&path)?);
        let tensors = open_tensors(directory)?;
        let tokenizer = TokenizerSource::Json {
            tokenizer: read_if_there(&directory.join("tokenizer.json"))?.unwrap_or_default(),
            config: read_if_there(&directory.join("tokenizer_config.json"))?,
        };
        let chat_template = find_template(directory)?;
        let pooling = find_pooling(directory)?;
        Ok(Self { path, fields, tensors, tokenizer, chat_template, pooling })
    }

    /// Names the checkpoint's file in an error about its metadata.
    pub(crate) fn blame(&self, problem: Problem) -> Error {
        problem.in_file(&self.path)
    }

    /// The checkpoint's name: what it says, else the file's or directory's.
    pub(crate) fn name(&self) -> String {
        let said = self.fields.raw_text("general.name").or_else(|| self.fields.raw_text("_name_or_path"));
        let directory = self.path.parent().filter(|_| self.path.ends_with("config.json"));
        let found = directory.unwrap_or(&self.path).file_stem().map(|n| n.to_string_lossy());
        said.filter(|name| !name.is_empty()).map_or_else(|| found.unwrap_or_default().into_owned(), str::to_owned)
    }
}

fn open(path: &Path) -> Result<(File, u64), Error> {
    let file = File::open(path).and_then(|f| f.metadata().map(|m| (f, m.len())));
    file.map_err(|source| Problem::from(source).in_file(path))
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    if path.is_file() { read_bounded(path).map(Some) } else { Ok(None) }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, Error> {
    let (file, len) = open(path)?;
    let mut bytes = Vec::new();
    match file.take(MAX_JSON).read_to_end(&mut bytes) {
        Err(source) => Err(Problem::from(source).in_file(path)),
        Ok(_) if len > MAX_JSON => Err(Problem::NotACheckpoint(format!("{len} bytes of JSON")).in_file(path)),
        Ok(_) => Ok(bytes),
    }
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, Error> {
    let bytes = read_bounded(path)?;
    let wrong = |e: serde_json::Error| Problem::Header { at: 0, what: format!("the JSON says {e}") }.in_file(path);
    serde_json::from_slice(&bytes).map_err(wrong)
}

/// Which file holds which tensor, of a sharded checkpoint.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn open_tensors(directory: &Path) -> Result<Tensors, Error> {
    let (single, index) = (directory.join("model.safetensors"), directory.join("model.safetensors.index.json"));
    let mut tensors = Tensors::default();
    if !index.is_file() {
        add_file(&mut tensors, single)?;
        return Ok(tensors);
    }
    let Index { weight_map } = read_json(&index)?;
    let mut files: Vec<_> = weight_map.values().collect();
    files.sort_unstable();
    files.dedup();
    for name in files {
        add_file(&mut tensors, shard(directory, name).map_err(|problem| problem.in_file(&index))?)?;
    }
    check_scaled(&tensors, &weight_map).map_err(|problem| problem.in_file(&index))?;
    for (name, file) in &weight_map {
        let scales = name.strip_suffix(safetensors::SCALES).is_some_and(|weight| tensors.get(weight).is_some());
        if tensors.get(name).is_none() && !tensors.unreadable.contains_key(name) && !scales {
            return Err(Problem::tensor(name, format!("is not in {file}, where the index says")).in_file(&index));
        }
    }
    Ok(tensors)
}

/// What changes the meaning of 8 bits may stand in another file than they do.
fn check_scaled(tensors: &Tensors, index: &BTreeMap<String, String>) -> Result<(), Problem> {
    let scaled = tensors.iter().filter(|tensor| tensor.scales.is_some());
    let mut beside = scaled.flat_map(|tensor| safetensors::REFUSED.map(|refused| format!("{}{refused}", tensor.name)));
    match beside.find(|name| index.contains_key(name)) {
        Some(name) => Err(Problem::tensor(name, "changes what 8 bits mean, which is not supported")),
        None => Ok(()),
    }
}

/// An index names files beside itself, not anywhere on the machine.
fn shard(directory: &Path, name: &str) -> Result<PathBuf, Problem> {
    if Path::new(name).file_name().is_some_and(|own| own == name) {
        return Ok(directory.join(name));
    }
    Err(Problem::NotACheckpoint(format!("the index names the file {name:?} outside of the directory")))
}

fn add_file(tensors: &mut Tensors, path: PathBuf) -> Result<(), Error> {
    let (file, len) = open(&path)?;
    let header = safetensors::Header::read(&mut BufReader::new(&file), len).map_err(|p| p.in_file(&path))?;
    tensors.unreadable.extend(header.unreadable);
    tensors.add(path, file, header.tensors)
}

/// `chat_template.jinja`, else the template in `tokenizer_config.json`, else its list's `default`.
fn find_template(directory: &Path) -> Result<Option<String>, Error> {
    use serde_json::Value as Json;
    if let Some(bytes) = read_if_there(&directory.join("chat_template.jinja"))? {
        return Ok(Some(String::from_utf8_lossy(&bytes).into_owned()));
    }
    let path = directory.join("tokenizer_config.json");
    if !path.is_file() {
        return Ok(None);
    }
    let text = |json: &Json| json.as_str().map(str::to_owned);
    Ok(match read_json::<Json>(&path)?.get("chat_template") {
        Some(Json::Array(named)) => {
            let default = named.iter().find(|t| t.get("name").and_then(Json::as_str) == Some("default"));
            default.and_then(|t| t.get("template")).and_then(text)
        }
        other => other.and_then(text),
    })
}

/// How sentence-transformers pools this model. Other ways than these three are refused: the vectors would be others.
fn find_pooling(directory: &Path) -> Result<Option<Pooling>, Error> {
    let path = directory.join("1_Pooling").join("config.json");
    if !path.is_file() {
        return Ok(None);
    }
    let config: serde_json::Value = read_json(&path)?;
    let on = |mode: &str| config.get(format!("pooling_mode_{mode}")).and_then(serde_json::Value::as_bool) == Some(true);
    match (on("mean_tokens"), on("cls_token"), on("lasttoken"), on("max_tokens") || on("mean_sqrt_len_tokens")) {
        (true, false, false, false) => Ok(Some(Pooling::Mean)),
        (false, true, false, false) => Ok(Some(Pooling::First)),
        (false, false, true, false) => Ok(Some(Pooling::Last)),
        _ => Err(Problem::field("pooling_mode", "is not mean_tokens, cls_token or lasttoken").in_file(&path)),
    }
}
