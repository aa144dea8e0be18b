//! Documents as samples: those that are learned and those that are measured by. Whoever learns from documents reads them here.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use data::{Document, Encoder, Form};
use hub::Name;
use train::Sample;

use crate::{model, screen};

/// One in so many documents is held out where no other file is.
const HELD_OUT: u64 = 10;
/// Reasons that are shown; the others are counted.
const SHOWN: usize = 5;

/// A file and what it holds.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) file: PathBuf,
    pub(crate) documents: Vec<Document>,
}

impl Source {
    /// Documents in each of which there is something to learn.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        Ok(Self { file: file.to_owned(), documents: data::read(file)? })
    }
}

/// What there is to learn.
#[derive(Debug)]
pub(crate) struct Documents {
    pub(crate) learned: Vec<Sample>,
    /// What the learned samples were made from, each at its sample's place.
    pub(crate) learned_documents: Vec<Document>,
    pub(crate) held_out: Vec<Sample>,
    /// What the held-out samples were made from, each at its sample's place.
    pub(crate) held_out_documents: Vec<Document>,
    /// Documents that could not be used.
    pub(crate) left_out: usize,
    /// What identifies the file.
    pub(crate) digest: String,
}

impl Documents {
    /// Lays documents out, none longer than `longest` tokens. Whatever cannot be used is named.
    pub(crate) fn new(
        source: Source,
        other: Option<Source>,
        encoder: &Encoder<'_>,
        longest: usize,
    ) -> anyhow::Result<Self> {
        let file = source.file.clone();
        let (all, left_out) = samples(source, encoder, longest);
        let (learned, held_out): (Vec<_>, Vec<_>) = match other {
            Some(other) => (all, samples(other, encoder, longest).0),
            // By what they say, so that the same document never stands on both sides.
            None => all.into_iter().partition(|(sample, _)| !is_held_out(sample)),
        };
        ensure!(!learned.is_empty(), "{} leaves nothing to learn", file.display());
        ensure!(
            !held_out.is_empty(),
            "{} has too few documents to hold some out: name others with --held-out",
            file.display()
        );
        let digest = model::hub().locate(&Name::Path(file)).context("the data are gone")?.digest()?;
        let (learned, learned_documents) = learned.into_iter().unzip();
        let (held_out, held_out_documents) = held_out.into_iter().unzip();
        Ok(Self { learned, learned_documents, held_out, held_out_documents, left_out, digest })
    }

    /// Learns these forms in place of those that stand on their lines; how many fitted.
    pub(crate) fn rewrite(&mut self, forms: &BTreeMap<usize, Form>, encoder: &Encoder<'_>, longest: usize) -> usize {
        let mut rewritten = 0;
        for (learned, document) in self.learned.iter_mut().zip(&mut self.learned_documents) {
            let Some(form) = forms.get(&document.line) else { continue };
            let other = Document { line: document.line, form: form.clone() };
            if let Ok(sample) = sample(&other, encoder, longest) {
                (*learned, *document) = (sample, other);
                rewritten += 1;
            }
        }
        rewritten
    }
}

fn is_held_out(sample: &Sample) -> bool {
    // The keys of this hasher are fixed, so that a run that is taken up again splits alike.
    let mut hasher = DefaultHasher::new();
    sample.tokens.hash(&mut hasher);
    hasher.finish().is_multiple_of(HELD_OUT)
}

/// The samples of a file with their documents, and how many were left out, which is told.
pub(crate) fn samples(source: Source, encoder: &Encoder<'_>, longest: usize) -> (Vec<(Sample, Document)>, usize) {
    let (mut samples, mut reasons) = (Vec::new(), Vec::new());
    for document in source.documents {
        match sample(&document, encoder, longest) {
            Ok(sample) => samples.push((sample, document)),
            Err(reason) => {
                reasons.push(format!("{}, line {}: left out: {reason}", source.file.display(), document.line));
            }
        }
    }
    reasons.iter().take(SHOWN).for_each(screen::note);
    if reasons.len() > SHOWN {
        screen::note(format_args!("and {} more", reasons.len() - SHOWN));
    }
    (samples, reasons.len())
}

fn sample(document: &Document, encoder: &Encoder<'_>, longest: usize) -> Result<Sample, String> {
    let encoded = encoder.encode(document)?;
    let tokens = encoded.tokens.len();
    if tokens > longest {
        return Err(format!("it has {tokens} tokens; {longest} fit (--rows)"));
    }
    let weights = encoded.learned.iter().map(|learned| f32::from(u8::from(*learned))).collect();
    Ok(Sample { tokens: encoded.tokens, weights, ..Sample::default() })
}
