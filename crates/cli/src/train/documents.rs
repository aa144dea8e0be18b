//! Documents as samples: those that are learned and those that are measured by.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    path::Path,
};

use anyhow::{Context, ensure};
use data::Encoder;
use hub::Name;
use train::Sample;

use crate::{model, screen};

/// One in so many documents is held out where no other file is.
const HELD_OUT: u64 = 10;
/// Reasons that are shown; the others are counted.
const SHOWN: usize = 5;

/// What there is to learn.
#[derive(Debug)]
pub(super) struct Documents {
    pub(super) learned: Vec<Sample>,
    pub(super) held_out: Vec<Sample>,
    /// Documents that could not be used.
    pub(super) left_out: usize,
    /// What identifies the file.
    pub(super) digest: String,
}

impl Documents {
    /// Reads documents and lays them out, none longer than `longest` tokens. Whatever cannot be used is named.
    pub(super) fn read(
        file: &Path,
        other: Option<&Path>,
        encoder: &Encoder<'_>,
        longest: usize,
    ) -> anyhow::Result<Self> {
        let (all, left_out) = samples(file, encoder, longest)?;
        let (learned, held_out) = match other {
            Some(other) => (all, samples(other, encoder, longest)?.0),
            // By what they say, so that the same document never stands on both sides.
            None => all.into_iter().partition(|sample: &Sample| !is_held_out(sample)),
        };
        ensure!(!learned.is_empty(), "{} leaves nothing to learn", file.display());
        ensure!(
            !held_out.is_empty(),
            "{} has too few documents to hold some out: name others with --held-out",
            file.display()
        );
        let digest = model::hub().locate(&Name::Path(file.to_owned())).context("the data are gone")?.digest()?;
        Ok(Self { learned, held_out, left_out, digest })
    }
}

fn is_held_out(sample: &Sample) -> bool {
    // The keys of this hasher are fixed, so that a run that is taken up again splits alike.
    let mut hasher = DefaultHasher::new();
    sample.tokens.hash(&mut hasher);
    hasher.finish().is_multiple_of(HELD_OUT)
}

fn samples(file: &Path, encoder: &Encoder<'_>, longest: usize) -> anyhow::Result<(Vec<Sample>, usize)> {
    let (mut samples, mut reasons) = (Vec::new(), Vec::new());
    for document in data::read(file)? {
        let encoded = encoder.encode(&document).and_then(|encoded| {
            let tokens = encoded.tokens.len();
            if tokens <= longest { Ok(encoded) } else { Err(format!("it has {tokens} tokens; {longest} fit (--rows)")) }
        });
        match encoded {
            Ok(encoded) => {
                let weights = encoded.learned.iter().map(|learned| f32::from(u8::from(*learned))).collect();
                samples.push(Sample { tokens: encoded.tokens, weights, teacher: None });
            }
            Err(reason) => reasons.push(format!("{}, line {}: left out: {reason}", file.display(), document.line)),
        }
    }
    reasons.iter().take(SHOWN).for_each(screen::note);
    if reasons.len() > SHOWN {
        screen::note(format_args!("and {} more", reasons.len() - SHOWN));
    }
    Ok((samples, reasons.len()))
}
