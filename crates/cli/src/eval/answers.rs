//! `tessera eval answers`: how many questions of a file are answered as they should be, by one model or by several beside each other.

use std::path::PathBuf;

use clap::Args;
use eval::{AnswersResult, answers};
use protocol::Generate;

use super::{Counter, questions};
use crate::{
    elsewhere,
    model::{self, EngineArgs},
    screen,
};

/// Options of `eval answers`.
#[derive(Debug, Args)]
pub(crate) struct AnswersArgs {
    /// A model: a catalogue name, hf:owner/name/file, pypi:package==version/member, a path, one of them with an adapter (MODEL:ADAPTER); with
    /// --url, the server's name for it; may be repeated: the others are compared with the first
    #[arg(short, long, value_name = "MODEL", required = true)]
    model: Vec<String>,
    /// Questions with the right answers, that no model has learned, a JSON object a line: {"messages": [..]} that end with the assistant's turn, or
    /// {"prompt": "..", "completion": ".."}; or a data set by name, whose held-out part is asked
    #[arg(short, long, value_name = "FILE|NAME[@DIGEST]")]
    data: PathBuf,
    /// Longest answer
    #[arg(long, value_name = "TOKENS", default_value_t = 256)]
    max_tokens: usize,
    /// Questions at the same time
    #[arg(long, value_name = "N", default_value_t = 8)]
    concurrency: usize,
    /// Ask a server with an OpenAI API that has all of them, such as http://127.0.0.1:8080; a key is taken from the environment variable
    /// TESSERA_API_KEY
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

pub(crate) async fn run(args: AnswersArgs) -> anyhow::Result<()> {
    let asked = questions::read(&questions::file(&args.data)?, args.max_tokens)?;
    let mut found: Vec<AnswersResult> = Vec::new();
    for name in &args.model {
        let bar = Counter::new("questions");
        let progress = |done, all| bar.at(done, all);
        let ask = async |service: &dyn Generate, model: &str| {
            answers(service, model, &asked, args.concurrency, &progress).await
        };
        let mut result = match &args.url {
            Some(url) => ask(&elsewhere::server(url).await?, name).await?,
            None => {
                let engine = model::load(name, &args.engine).await?;
                ask(engine.as_ref(), &engine.card().id.clone()).await?
            }
        };
        result.model.clone_from(name);
        found.push(match found.first() {
            Some(first) => result.beside(first),
            None => result,
        });
    }
    screen::show(args.json, &found, AnswersResult::report(&found))
}
