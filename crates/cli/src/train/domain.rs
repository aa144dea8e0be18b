//! Where what is learned lies among all that a model may be asked, so that `MODEL:auto` finds it.

use std::{collections::BTreeMap, sync::Arc};

use data::{Document, Form};
use engine::Engine;
use protocol::{Prompt, TextOrTokens};
use serde::Serialize;
use train::FoundDomain;

use super::{
    documents::{Documents, Source},
    general,
};
use crate::answers;

/// Documents of a file that are looked at.
const LOOKED_AT: usize = 1000;

/// Vectors of what is asked, by the lines of documents.
type ByLine = BTreeMap<usize, Vec<f32>>;

/// Where prompts lie.
#[derive(Debug)]
pub(super) struct Located {
    data: ByLine,
    /// Of the file of held-out documents, where there is one.
    held_out: Option<ByLine>,
    general: Vec<Vec<f32>>,
}

/// How well prompts will be told apart, by those that are held out.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Routing {
    pub(super) threshold: f32,
    /// Share of the domain's prompts that find it.
    pub(super) found: f64,
    /// Share of general prompts that are taken for it.
    pub(super) mistaken: f64,
}

impl Located {
    pub(super) async fn new(engine: &Arc<Engine>, data: &Source, held_out: Option<&Source>) -> anyhow::Result<Self> {
        let general = general::prompts(engine);
        Ok(Self {
            data: by_line(engine, data).await?,
            held_out: match held_out {
                Some(held_out) => Some(by_line(engine, held_out).await?),
                None => None,
            },
            general: engine.locate(&general).await?,
        })
    }

    /// The domain of what was learned; `None` where nothing is asked in it.
    pub(super) fn domain(&self, documents: &Documents) -> Option<FoundDomain> {
        let of = |documents: &[Document], vectors: &ByLine| -> Vec<Vec<f32>> {
            documents.iter().filter_map(|document| vectors.get(&document.line).cloned()).collect()
        };
        let own = of(&documents.learned_documents, &self.data);
        let held_out = of(&documents.held_out_documents, self.held_out.as_ref().unwrap_or(&self.data));
        let [own, held_out, general] =
            [&own, &held_out, &self.general].map(|all| all.iter().map(Vec::as_slice).collect::<Vec<_>>());
        FoundDomain::new(&own, &held_out, &general)
    }
}

impl From<&FoundDomain> for Routing {
    fn from(found: &FoundDomain) -> Self {
        Self { threshold: found.domain.threshold, found: found.found, mistaken: found.mistaken }
    }
}

async fn by_line(engine: &Arc<Engine>, source: &Source) -> anyhow::Result<ByLine> {
    let asked =
        source.documents.iter().take(LOOKED_AT).filter_map(|document| Some((document.line, asked(&document.form)?)));
    let (lines, prompts): (Vec<usize>, Vec<Prompt>) = asked.unzip();
    Ok(lines.into_iter().zip(engine.locate(&prompts).await?).collect())
}

/// What is asked in a document, if anything is; of a text it is the text.
fn asked(form: &Form) -> Option<Prompt> {
    match form {
        Form::Text(text) => Some(Prompt::Raw(TextOrTokens::Text(text.clone()))),
        Form::Chat { messages, .. } if !messages.iter().any(|message| message["role"] == "user") => None,
        Form::Chat { messages, .. } => answers::prompt(&Form::Chat { messages: messages.clone(), tools: Vec::new() }),
        Form::Completion { prompt, .. } if prompt.is_empty() => None,
        Form::Completion { .. } => answers::prompt(form),
    }
}
