//! Exits on trial: what a student writes with them, beside what it writes without.
//!
//! How sure a token must be to leave is found token by token, behind documents that went all the way. Whoever writes with exits leans on tokens that left, so whole
//! answers are compared before a student is let out with them.

use std::path::Path;

use futures_util::{StreamExt, TryStreamExt, stream};
use protocol::{GenerateRequest, Sampling};
use train::{Calibrated, Sample, Written};

use super::{
    DistillArgs,
    own::{self, Words},
};
use crate::model;

/// Documents whose answers are written, at most.
const ASKED: usize = 200;
/// Answers that are written at the same time: a row leaves whoever is beside it.
const TOGETHER: usize = 8;

/// What the student is asked, in its tokens.
pub(super) struct Asked<'a> {
    requests: Vec<GenerateRequest>,
    ends: &'a [u32],
}

impl<'a> Asked<'a> {
    pub(super) fn new(args: &DistillArgs, held_out: &[Sample], words: &'a Words, context: usize) -> Self {
        let longest = args.rows.min(context);
        let prompts = held_out.iter().map(own::prompt).filter(|prompt| prompt.len() < longest).take(ASKED);
        let request = |prompt: &[u32]| {
            let room = args.max_tokens.min(longest - prompt.len());
            own::request(prompt, room, Sampling { temperature: 0.0, ..Sampling::default() })
        };
        Self { requests: prompts.map(request).collect(), ends: &words.ends }
    }

    /// The tokens of all answers of the student in a folder.
    pub(super) async fn answers(&self, args: &DistillArgs, student: &Path) -> anyhow::Result<Vec<Vec<u32>>> {
        let engine = model::load(&student.display().to_string(), &args.engine).await?;
        let answers = self.requests.iter().map(|request| own::until_end(&engine, request.clone(), self.ends));
        stream::iter(answers).buffered(TOGETHER).try_collect().await
    }
}

/// What became of an exit.
pub(super) fn described(exit: &Calibrated) -> String {
    let Calibrated { after, threshold, tokens, left, wrong } = exit;
    match threshold {
        Some(threshold) => format!(
            "Behind {after} layers tokens leave from a probability of {threshold} on; token by token {left} of {tokens} held-out ones that came as far could, \
             {wrong} of them with another word than all layers have"
        ),
        None if *left == 0 => format!(
            "Nobody leaves behind {after} layers: {tokens} held-out tokens do not show that 99 % of those who left would be right"
        ),
        None => format!("Nobody leaves behind {after} layers: at every threshold whole answers were others too often"),
    }
}

/// What was found of whole answers.
pub(super) fn compared(written: &Written) -> String {
    let Written { answers, tokens, changed } = written;
    format!("Of {answers} answers {changed} were others with exits than without, in {tokens} tokens up to there")
}
