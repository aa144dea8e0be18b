//! Many requests to one service, whose answers are kept in a file, so that nothing is asked twice.

use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use protocol::{Generate, GenerateRequest};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{generate, screen};

/// Requests that are answered at the same time.
const AT_ONCE: usize = 16;

/// An answer as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept<T> {
    key: u64,
    #[serde(alias = "text")]
    answer: T,
}

/// The answers to requests, each by its key, and all that the file held before. `what` is told on the terminal.
pub(crate) async fn answers(
    service: &Arc<dyn Generate>,
    asked: impl IntoIterator<Item = (u64, GenerateRequest)>,
    path: &Path,
    what: &'static str,
) -> anyhow::Result<HashMap<u64, String>> {
    let text = async |request| anyhow::Ok(generate::collect(service.generate(request).await?, false).await?.text);
    kept(asked, path, what, (text, &AtomicBool::new(false))).await
}

/// The same, where what is kept of an answer is what `answer` makes of its request, and nothing more is asked once `stop` is set.
pub(crate) async fn kept<T: Serialize + DeserializeOwned>(
    asked: impl IntoIterator<Item = (u64, GenerateRequest)>,
    path: &Path,
    what: &'static str,
    (answer, stop): (impl AsyncFn(GenerateRequest) -> anyhow::Result<T>, &AtomicBool),
) -> anyhow::Result<HashMap<u64, T>> {
    let mut known = read(path);
    let asked: Vec<_> = asked.into_iter().filter(|(key, _)| !known.contains_key(key)).collect();
    if asked.is_empty() {
        return Ok(known);
    }
    let mut file = OpenOptions::new().create(true).append(true).open(path);
    let file = file.as_mut().map_err(|error| anyhow::anyhow!("cannot write {}: {error}", path.display()))?;
    let bar = screen::count_bar();
    bar.set_message(what);
    bar.set_length(asked.len() as u64);
    let answer = &answer;
    let asked = asked.into_iter().take_while(|_| !stop.load(Ordering::Relaxed));
    let answers = asked.map(async |(key, request)| anyhow::Ok(Kept { key, answer: answer(request).await? }));
    let mut answers = stream::iter(answers).buffer_unordered(AT_ONCE);
    while let Some(kept) = answers.try_next().await? {
        bar.inc(1);
        writeln!(file, "{}", serde_json::to_string(&kept)?).context("cannot keep an answer")?;
        known.insert(kept.key, kept.answer);
    }
    bar.finish_and_clear();
    Ok(known)
}

/// What a run before has kept. A line that was cut off is asked for again.
fn read<T: DeserializeOwned>(path: &Path) -> HashMap<u64, T> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let kept = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    kept.map(|Kept { key, answer }| (key, answer)).collect()
}
