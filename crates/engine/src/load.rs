//! Files become an engine: the model's weights, its tokenizer and its chat template are joined here.

use std::{path::Path, sync::Arc};

use kernels::Device;
use model::{Model, TokenizerSource};
use serde_json::{Value, json};
use text::{ChatTemplate, Tokenizer};

use crate::{Engine, EngineConfig, Error, executor::ModelExecutor};

impl Engine {
    /// Loads a GGUF file, or a directory with `config.json`, safetensors and `tokenizer.json`. `progress(done, total)`
    /// counts bytes of weights. Install the metrics recorder first.
    ///
    /// # Errors
    /// Whatever is wrong with the files, naming the file.
    pub fn load(path: &Path, config: EngineConfig, progress: &dyn Fn(u64, u64)) -> Result<Self, Error> {
        let device = Device::new(threads(&config));
        let mut model =
            Model::load(&device, path, progress).map_err(|source| Error::Model { path: path.to_owned(), source })?;
        let (tokenizer, template) = words(&mut model, path)?;
        let name = if config.name.is_empty() { name_of(path) } else { config.name };
        let spec = Arc::new(model.spec().clone());
        let executor = ModelExecutor::new(model, device, config.kv_bytes);
        let engine = Self::start(executor, tokenizer, template, EngineConfig { name, ..config })?;
        Ok(engine.with_spec(spec))
    }
}

/// A model's tokenizer and its chat template, if it has one; `path` is where it was loaded from.
///
/// # Errors
/// Whatever is wrong with them.
pub fn words(model: &mut Model, path: &Path) -> Result<(Arc<Tokenizer>, Option<ChatTemplate>), Error> {
    let text_error = |source| Error::Text { path: path.to_owned(), source };
    let tokenizer = Arc::new(tokenizer(model.take_tokenizer_source()).map_err(text_error)?);
    if tokenizer.len() > model.spec().vocab {
        let (tokens, vocab) = (tokenizer.len(), model.spec().vocab);
        return Err(Error::Mismatch { path: path.to_owned(), tokens, vocab });
    }
    let template = model.chat_template().map(|source| ChatTemplate::new(source, &tokenizer));
    Ok((tokenizer, template.transpose().map_err(text_error)?))
}

/// A model's tokenizer as `tokenizer.json` and `tokenizer_config.json`, wherever it came from; the chat template stands in the latter.
///
/// # Errors
/// It is of a kind that is not written.
pub fn tokenizer_files(model: &Model, path: &Path) -> Result<[Value; 2], Error> {
    let text_error = |source| Error::Text { path: path.to_owned(), source };
    let broken = |error: serde_json::Error| text_error(text::Error::Tokenizer(error.to_string()));
    match model.tokenizer_source() {
        TokenizerSource::Vocabulary(vocabulary) => {
            let vocabulary = plain(vocabulary.clone());
            let said = |id: Option<u32>| id.and_then(|id| vocabulary.tokens.get(id as usize)).map(String::as_str);
            let config = text::tokenizer_config(said(vocabulary.bos), said(vocabulary.eos), model.chat_template());
            Ok([text::tokenizer_json(&vocabulary).map_err(text_error)?, config])
        }
        TokenizerSource::Json { tokenizer, config } => {
            let mut config = config.as_deref().map_or_else(|| Ok(json!({})), serde_json::from_slice).map_err(broken)?;
            if let Some(template) = model.chat_template() {
                config["chat_template"] = template.into();
            }
            Ok([serde_json::from_slice(tokenizer).map_err(broken)?, config])
        }
    }
}

fn threads(config: &EngineConfig) -> usize {
    match config.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

fn name_of(path: &Path) -> String {
    path.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy().into_owned())
}

fn tokenizer(source: TokenizerSource) -> Result<Tokenizer, text::Error> {
    match source {
        TokenizerSource::Vocabulary(vocabulary) => Tokenizer::from_vocabulary(&plain(vocabulary)),
        TokenizerSource::Json { tokenizer, config } => Tokenizer::from_json(&tokenizer, config.as_deref()),
    }
}

/// The model's vocabulary as `text` wants it: the two crates do not know each other.
fn plain(vocabulary: model::Vocabulary) -> text::Vocabulary {
    let model::Vocabulary { kind, pre, tokens, scores, types, merges, .. } = vocabulary;
    let model::Vocabulary { bos, eos, eot, unk, pad, add_bos, add_eos, add_space_prefix, .. } = vocabulary;
    text::Vocabulary {
        kind,
        pre,
        tokens,
        scores,
        types,
        merges,
        bos,
        eos,
        eot,
        unk,
        pad,
        add_bos,
        add_eos,
        add_space_prefix,
    }
}
