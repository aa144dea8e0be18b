//! What the teacher answers where documents have no answer.

use std::{fs, path::Path, sync::Arc};

use anyhow::Context;
use data::Form;
use engine::Engine;
use protocol::{GenerateRequest, Prompt, Sampling};

use super::{DistillArgs, sources};
use crate::{answers, train::documents::Source};

/// The documents, with answers in all of them, and how many are the teacher's.
pub(super) async fn fill(
    args: &DistillArgs,
    folder: &Path,
    teacher: &Arc<Engine>,
) -> anyhow::Result<([Option<Source>; 2], usize)> {
    let mut sources = sources(args)?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let documents = sources.iter_mut().flatten().flat_map(|source| &mut source.documents);
    let open = documents.map(|document| &mut document.form).filter(|form| form.is_open());
    let open = open.filter_map(|form| Some((answers::prompt(form)?, form)));
    let (prompts, forms): (Vec<Prompt>, Vec<&mut Form>) = open.unzip();
    if prompts.is_empty() {
        return Ok((sources, 0));
    }
    let requests = prompts.into_iter().map(|prompt| request(args, prompt)).collect();
    let texts = answers::ask(teacher, "the teacher answers", requests, &folder.join("answers.jsonl")).await?;
    let answered = texts.len();
    forms.into_iter().zip(texts).for_each(|(form, text)| form.answer(text));
    Ok((sources, answered))
}

/// A request for one answer.
pub(super) fn request(args: &DistillArgs, prompt: Prompt) -> GenerateRequest {
    let sampling = Sampling { temperature: args.temperature, seed: Some(args.seed), ..Sampling::default() };
    GenerateRequest { sampling, ..GenerateRequest::new(prompt, args.max_tokens) }
}
