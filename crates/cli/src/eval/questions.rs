//! Questions with the answers that are wanted, from a file or from the held-out part of a data set.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, ensure};
use clap::Args;
use protocol::{Generate, GenerateRequest};
use services::Target;

use crate::{
    answers,
    data::sets,
    elsewhere,
    model::{self, EngineArgs},
};

/// What is asked, and what should be answered.
pub(super) type Question = (GenerateRequest, String);

/// What is asked, of models that are where.
#[derive(Debug, Args)]
pub(super) struct Asking {
    /// Questions with the right answers, that no model has learned, a JSON object a line: {"messages": [..]} that end with the assistant's turn, or
    /// {"prompt": "..", "completion": ".."}; or a data set by name, whose held-out part is asked
    #[arg(short, long, value_name = "FILE|NAME[@DIGEST]")]
    data: PathBuf,
    /// Longest answer
    #[arg(long, value_name = "TOKENS", default_value_t = 256)]
    max_tokens: usize,
    /// Ask a server with an OpenAI API that has all models, such as http://127.0.0.1:8080; a key is taken from the environment variable
    /// TESSERA_API_KEY
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) engine: EngineArgs,
}

impl Asking {
    /// The file, which is itself or what a data set holds out, and its questions.
    pub(super) fn questions(&self) -> anyhow::Result<(PathBuf, Vec<Question>)> {
        let file = match sets::named(&self.data)? {
            None => self.data.clone(),
            Some(set) => {
                let held = set.manifest.held;
                ensure!(
                    held > 0,
                    "{} holds nothing out: build it with --held-out, or name a file",
                    self.data.display()
                );
                set.held()
            }
        };
        let questions = read(&file, self.max_tokens)?;
        Ok((file, questions))
    }

    /// The model of this name, at the server or loaded here.
    pub(super) async fn target(&self, name: &str) -> anyhow::Result<Target> {
        if let Some(url) = &self.url {
            return Ok(Target { service: Arc::new(elsewhere::server(url).await?), model: name.to_owned() });
        }
        let service = model::load(name, &self.engine).await?;
        // The card of no name in particular is that of the adapter, where the name has one.
        let model = Generate::card(service.as_ref(), "").map(|card| card.id).unwrap_or_default();
        Ok(Target { service, model })
    }
}

/// Each question once, in an order that says nothing about them and is always the same.
fn read(file: &Path, max_tokens: usize) -> anyhow::Result<Vec<Question>> {
    let mut found = Vec::new();
    for document in data::read(file)? {
        let place = || format!("{}, line {}: it asks nothing, or with tools", file.display(), document.line);
        let (prompt, wanted) = answers::question(&document.form).with_context(place)?;
        let mut hasher = DefaultHasher::new();
        format!("{prompt:?}").hash(&mut hasher);
        let mut request = GenerateRequest::new(prompt, max_tokens);
        request.sampling.temperature = 0.0;
        found.push((hasher.finish(), (request, wanted)));
    }
    found.sort_by_key(|(key, _)| *key);
    found.dedup_by_key(|(key, _)| *key);
    Ok(found.into_iter().map(|(_, question)| question).collect())
}
