//! Documents as rows: their pieces as they stand, or questions that a model asks about each piece and answers in the piece's own words.
//!
//! An answer that does not stand in the piece, word for word, is dropped: a model that makes things up teaches nothing.

use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, ensure};
use clap::Args;
use data::{Candidate, Chunk, DOCUMENTS, Dropped, Form, Pass, Place, Row, Source};
use protocol::{Chat, Format, Generate, GenerateRequest, Message, Prompt, Sampling};
use serde::Deserialize;
use serde_json::{Value, json};

use super::source;
use crate::{asked, chat::SourceArgs, model::EngineArgs};

/// Tokens of the longest reply, for each question.
const REPLY: usize = 160;
/// Characters below which a question or an answer says nothing.
const LEAST: usize = 3;

/// Which documents, and who asks.
#[derive(Debug, Args)]
#[command(next_help_heading = "Documents")]
pub(super) struct DocumentArgs {
    /// Take the texts in this folder (.txt, .md, .html) in pieces along their headings
    #[arg(long, value_name = "DIR")]
    from_documents: Option<PathBuf>,
    /// Questions that --model (or --url) asks about a piece; its answers are kept where they stand in the piece, word for word. 0 takes the
    /// pieces as they are
    #[arg(long, value_name = "N", default_value_t = 0, requires = "from_documents")]
    questions: usize,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// A piece with the file it is of.
#[derive(Debug)]
struct Piece {
    file: String,
    chunk: Chunk,
}

impl Piece {
    fn place(&self) -> Place {
        Place { source: self.file.clone(), at: self.chunk.at.clone() }
    }

    /// What is said of one piece stands on one side of the split.
    fn row(&self, form: Form) -> Row {
        Row { form, group: Some(format!("{}, {}", self.file, self.chunk.at)), place: self.place() }
    }
}

/// The rows of the folder, if one is named; `kept` is where answers of the model lie.
pub(super) async fn read(args: &DocumentArgs, kept: &Path) -> anyhow::Result<Option<(Vec<Candidate>, Source)>> {
    let Some(folder) = &args.from_documents else { return Ok(None) };
    let (pieces, sha256) = pieces(folder)?;
    ensure!(
        !pieces.is_empty(),
        "{} has no text of some length in files ending in {}",
        folder.display(),
        DOCUMENTS.join(", ")
    );
    let source = Source { sha256, ..source(&folder.display().to_string(), "documents") };
    if args.questions == 0 {
        let rows = pieces.iter().map(|piece| Ok(piece.row(Form::Text(piece.chunk.text.clone())))).collect();
        return Ok(Some((rows, source)));
    }
    let (service, model) = args.source.open(&args.engine).await?;
    let card = service.models().into_iter().find(|card| model.is_empty() || card.id == model);
    let digest = card.map(|card| format!("{}{}", card.digest, card.adapter)).unwrap_or_default();
    let rows = ask(args.questions, &pieces, (&service, &model, &digest), kept).await?;
    Ok(Some((rows, Source { model: Some(digest), ..source })))
}

/// All files below the folder in pieces, and the sum of what they hold.
fn pieces(folder: &Path) -> anyhow::Result<(Vec<Piece>, String)> {
    let (mut pieces, mut sums) = (Vec::new(), Vec::new());
    for path in files(folder)? {
        let file = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
        let chunks = data::read_chunks(&path)?;
        sums.extend(chunks.iter().map(Chunk::digest));
        pieces.extend(chunks.into_iter().map(|chunk| Piece { file: file.clone(), chunk }));
    }
    Ok((pieces, data::sum(sums)))
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let told = || format!("cannot read {}", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(told)? {
        let path = entry.with_context(told)?.path();
        let end = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if DOCUMENTS.contains(&&*end) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

async fn ask(
    questions: usize,
    pieces: &[Piece],
    (service, model, digest): (&Arc<dyn Generate>, &str, &str),
    kept: &Path,
) -> anyhow::Result<Vec<Candidate>> {
    fs::create_dir_all(kept).with_context(|| format!("cannot make {}", kept.display()))?;
    let asked: Vec<_> = pieces.iter().map(|piece| request(questions, model, &piece.chunk.text)).collect();
    let keys: Vec<u64> = asked.iter().map(|request| key(digest, request)).collect();
    let path = kept.join("questions.jsonl");
    let replies = asked::answers(service, keys.iter().copied().zip(asked), &path, "asking questions").await?;
    let of_piece = |(piece, key): (&Piece, &u64)| told(piece, replies.get(key).map_or("", String::as_str));
    Ok(pieces.iter().zip(&keys).flat_map(of_piece).collect())
}

/// What a reply depends on. The keys of this hasher are fixed.
fn key(digest: &str, request: &GenerateRequest) -> u64 {
    let mut hasher = DefaultHasher::new();
    (digest, format!("{:?}", (&request.prompt, &request.format))).hash(&mut hasher);
    hasher.finish()
}

fn request(questions: usize, model: &str, text: &str) -> GenerateRequest {
    let content = format!(
        "Read this text. Ask {questions} different questions that it answers, each of which makes sense to somebody who does not see the \
         text. Answer each with a passage of the text, copied word for word.\n\n{text}"
    );
    let message = Message { role: "user".to_owned(), content: Some(content), ..Message::default() };
    let prompt = Prompt::Chat(Chat { messages: vec![message], ..Chat::default() });
    GenerateRequest {
        model: model.to_owned(),
        format: Format::JsonSchema(schema(questions)),
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        ..GenerateRequest::new(prompt, REPLY * questions)
    }
}

fn schema(questions: usize) -> Value {
    let text = json!({ "type": "string" });
    let pair = json!({
        "type": "object",
        "properties": { "question": text, "answer": text },
        "required": ["question", "answer"],
        "additionalProperties": false,
    });
    json!({
        "type": "object",
        "properties": { "pairs": { "type": "array", "items": pair, "minItems": 1, "maxItems": questions } },
        "required": ["pairs"],
        "additionalProperties": false,
    })
}

/// What a model replies.
#[derive(Deserialize)]
struct Reply {
    pairs: Vec<Pair>,
}

#[derive(Deserialize)]
struct Pair {
    question: String,
    answer: String,
}

/// The rows of a reply.
fn told(piece: &Piece, reply: &str) -> Vec<Candidate> {
    let dropped = |reason: &str| Dropped { place: piece.place(), pass: Pass::Grounding, reason: reason.to_owned() };
    let Ok(Reply { pairs }) = serde_json::from_str(reply) else {
        return vec![Err(dropped("the model's reply was cut off or is no list of questions"))];
    };
    let text = plain(&piece.chunk.text);
    let row = |Pair { question, answer }: Pair| {
        let (question, answer) = (question.trim(), answer.trim());
        if question.chars().count() < LEAST || answer.chars().count() < LEAST {
            return Err(dropped("its question or answer is empty"));
        }
        if !text.contains(&plain(answer)) {
            return Err(dropped("its answer does not stand in the text"));
        }
        let messages =
            vec![json!({"role": "user", "content": question}), json!({"role": "assistant", "content": answer})];
        Ok(piece.row(Form::Chat { messages, tools: Vec::new() }))
    };
    pairs.into_iter().map(row).collect()
}

/// Without what line ends and capitals change.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_that_quote_are_kept() {
        let text = "Fees\n\nFees are due on the first\nday of every month.";
        let piece = Piece { file: "a.md".to_owned(), chunk: Chunk { at: "line 1".to_owned(), text: text.to_owned() } };
        let check = |reply: &str, expected: &[&str]| {
            let row =
                |row: Candidate| row.map_or_else(|dropped| dropped.reason, |row| row.form.parts()[1].0.to_owned());
            assert_eq!(told(&piece, reply).into_iter().map(row).collect::<Vec<_>>(), expected, "{reply}");
        };
        let pair = |question: &str, answer: &str| json!({"question": question, "answer": answer});
        let pairs = |pairs: &[Value]| json!({ "pairs": pairs }).to_string();
        check(
            &pairs(&[pair("When are fees due?", "on the first day of every month")]),
            &["on the first day of every month"],
        );
        check(&pairs(&[pair("When?", "On the FIRST day ")]), &["On the FIRST day"]);
        check(&pairs(&[pair("When?", "on the second day")]), &["its answer does not stand in the text"]);
        check(&pairs(&[pair("When?", " ")]), &["its question or answer is empty"]);
        check("{\"pairs\":[{\"question\":\"Wh", &["the model's reply was cut off or is no list of questions"]);
        check("", &["the model's reply was cut off or is no list of questions"]);
    }
}
