//! `tessera generate`: one prompt, one answer; for scripts.

use std::io::{self, Read};

use anyhow::Context;
use clap::Args;
use futures_util::StreamExt;
use protocol::{Chat, Event, EventStream, FinishReason, Message, Prompt, TextOrTokens, Usage};
use serde_json::json;

use crate::{chat::SourceArgs, model::EngineArgs, sampling::SamplingArgs, screen};

/// Options of `generate`.
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// The prompt; without one, or as `-`, it is read from standard input
    prompt: Option<String>,
    #[command(flatten)]
    source: SourceArgs,
    /// What the model is told before the prompt
    #[arg(short, long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,
    /// Continue the prompt itself instead of answering it; always so where the model has no chat template
    #[arg(long)]
    raw: bool,
    /// Print one JSON object: model, text, finish_reason, usage
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// What came.
pub(crate) struct Answer {
    pub(crate) text: String,
    reason: FinishReason,
    pub(crate) usage: Usage,
}

/// Asks once and prints the answer, as it comes or as JSON.
pub(crate) async fn run(args: GenerateArgs) -> anyhow::Result<()> {
    let text = read(args.prompt.as_deref())?;
    let (service, model) = args.source.open(&args.engine).await?;
    let card = service.models().into_iter().find(|card| model.is_empty() || card.id == model);
    let raw = args.raw || card.as_ref().is_some_and(|card| !card.chat);
    let prompt = if raw { Prompt::Raw(TextOrTokens::Text(text)) } else { conversation(args.system.as_deref(), text) };
    let mut request = args.sampling.request(prompt)?;
    request.model.clone_from(&model);
    let answer = collect(service.generate(request).await?, !args.json).await?;
    if args.json {
        return screen::json(&json!({
            "model": card.map_or(model, |card| card.id),
            "text": answer.text,
            "finish_reason": word(answer.reason),
            "usage": {
                "prompt_tokens": answer.usage.prompt_tokens,
                "cached_tokens": answer.usage.cached_tokens,
                "completion_tokens": answer.usage.completion_tokens,
            },
        }));
    }
    screen::line("")?;
    if answer.reason == FinishReason::Length {
        screen::note("(cut at --max-tokens)");
    }
    Ok(())
}

/// The prompt, without the line end that a shell puts behind it.
pub(crate) fn read(prompt: Option<&str>) -> anyhow::Result<String> {
    match prompt {
        Some(text) if text != "-" => Ok(text.to_owned()),
        _ => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).context("the prompt on standard input is not UTF-8 text")?;
            let text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
            anyhow::ensure!(!text.is_empty(), "the prompt is empty: give it as an argument or on standard input");
            Ok(text)
        }
    }
}

fn conversation(system: Option<&str>, text: String) -> Prompt {
    let message = |role: &str, text: String| Message { role: role.into(), content: Some(text), ..Message::default() };
    let system = system.map(|system| message("system", system.to_owned()));
    let messages = system.into_iter().chain([message("user", text)]).collect();
    Prompt::Chat(Chat { messages, ..Chat::default() })
}

/// All of an answer; with `show` each piece is printed as it comes.
pub(crate) async fn collect(mut events: EventStream, show: bool) -> anyhow::Result<Answer> {
    let mut answer = Answer { text: String::new(), reason: FinishReason::Stop, usage: Usage::default() };
    while let Some(event) = events.next().await {
        match event? {
            Event::Text { text, .. } => {
                if show {
                    screen::piece(&text)?;
                }
                answer.text.push_str(&text);
            }
            Event::Finished { reason, .. } => answer.reason = reason,
            Event::Done(usage) => answer.usage = usage,
            _ => {}
        }
    }
    Ok(answer)
}

fn word(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::ContentFilter => "content_filter",
        _ => "stop",
    }
}
