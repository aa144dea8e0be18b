//! What the student writes itself, as it stands between two rounds, and what the teacher says of it.
//!
//! On documents a student learns what to write behind what the teacher wrote. What it writes itself leads elsewhere, where nobody has taught it anything:
//! so some documents are answered by the student, the teacher says what it thinks of every token of that, and the student learns from it
//! (on-policy distillation; DistiLLM-2, Ko et al. 2025, arXiv 2503.07067).

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    path::Path,
    sync::atomic::Ordering,
};

use engine::Engine;
use futures_util::StreamExt;
use protocol::{Event, Generate, GenerateRequest, Prompt, Sampling, Stop as Until, TextOrTokens};
use train::Sample;

use super::DistillArgs;
use crate::{answers, asked, train::run::Stop};

/// The student's tokens.
#[derive(Debug, Clone)]
pub(super) struct Words {
    /// What each is called by the teacher.
    pub(super) kept: Vec<u32>,
    /// Those that end an answer.
    pub(super) ends: Vec<u32>,
}

impl Words {
    /// Of a student that has kept these of its teacher's tokens, some of which end an answer.
    pub(super) fn new(kept: Vec<u32>, ends: &[u32]) -> Self {
        let ends = (0..).zip(&kept).filter(|(_, old)| ends.contains(old)).map(|(new, _)| new).collect();
        Self { kept, ends }
    }

    /// An answer behind its prompt, in the teacher's tokens, to be learned whole.
    fn sample(&self, prompt: &[u32], answer: &[u32]) -> Option<Sample> {
        let tokens: Option<_> =
            prompt.iter().chain(answer).map(|token| self.kept.get(*token as usize).copied()).collect();
        let weights = [vec![0.0; prompt.len()], vec![1.0; answer.len()]].concat();
        Some(Sample { tokens: tokens?, weights, teacher: None, own: true })
    }
}

/// What the student's answers are asked by.
pub(super) struct Asked<'a> {
    /// What identifies the student.
    pub(super) digest: String,
    pub(super) documents: &'a [Sample],
    pub(super) words: &'a Words,
    /// The round that begins with it.
    pub(super) round: usize,
    /// Tokens of a prompt and its answer together.
    pub(super) longest: usize,
}

impl Asked<'_> {
    /// The student's answers to a share of the documents, which the teacher has yet to see; those that `path` keeps are not written again. `None` if it was
    /// stopped on the way.
    pub(super) async fn answers(
        &self,
        args: &DistillArgs,
        student: &Engine,
        path: &Path,
        stop: &Stop,
    ) -> anyhow::Result<Option<Vec<Sample>>> {
        let prompts = self.prompts(args);
        let requests = prompts.iter().enumerate().map(|(i, prompt)| self.request(args, i, prompt));
        let requests: Vec<_> = requests.map(|request| (answers::key(&self.digest, &request), request)).collect();
        let keys: Vec<u64> = requests.iter().map(|(key, _)| *key).collect();
        let write = async |request| until_end(student, request, &self.words.ends).await;
        let known = asked::kept(requests, path, "the student answers", (write, stop)).await?;
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let answered = prompts.iter().zip(&keys);
        Ok(Some(answered.filter_map(|(prompt, key)| self.words.sample(prompt, known.get(key)?)).collect()))
    }

    /// Documents up to their last answers, others in every round.
    fn prompts(&self, args: &DistillArgs) -> Vec<&[u32]> {
        let mut order: Vec<usize> = (0..self.documents.len()).collect();
        order.sort_by_cached_key(|at| number((args.seed, self.round, at)));
        order.truncate((args.own * order.len() as f32).round() as usize);
        let prompts = order.into_iter().map(|at| prompt(&self.documents[at]));
        prompts.filter(|prompt| prompt.len() < self.longest).collect()
    }

    fn request(&self, args: &DistillArgs, i: usize, prompt: &[u32]) -> GenerateRequest {
        let room = args.max_tokens.min(self.longest - prompt.len());
        // As it writes, and not what it holds likeliest: it shall hear of all that it might say.
        let sampling = Sampling { seed: Some(number((args.seed, self.round, i, "answer"))), ..Sampling::default() };
        request(prompt, room, sampling)
    }
}

/// A request for an answer of at most so many tokens, to be read by [`until_end`].
pub(super) fn request(prompt: &[u32], room: usize, sampling: Sampling) -> GenerateRequest {
    // The token that ends an answer is one that it chose, and no engine reports it unless it is a token like others.
    let stop = Until { max_tokens: Some(room), ignore_eos: true, ..Until::default() };
    let prompt = Prompt::Raw(TextOrTokens::Tokens(prompt.to_vec()));
    GenerateRequest { sampling, stop, report_tokens: true, ..GenerateRequest::new(prompt, room) }
}

/// What stands before a document's last answer.
pub(super) fn prompt(document: &Sample) -> &[u32] {
    let learned = |weight: &f32| *weight != 0.0;
    let end = document.weights.iter().rposition(learned).unwrap_or(0);
    let begin = document.weights[..end].iter().rposition(|weight| !learned(weight)).map_or(0, |at| at + 1);
    &document.tokens[..begin.max(1)]
}

/// An answer's tokens with the one that ends it, if one does.
pub(super) async fn until_end(student: &Engine, request: GenerateRequest, ends: &[u32]) -> anyhow::Result<Vec<u32>> {
    let (mut events, mut tokens) = (student.generate(request).await?, Vec::new());
    while let Some(event) = events.next().await {
        let Event::Tokens { ids, .. } = event? else { continue };
        for id in ids {
            tokens.push(id);
            if ends.contains(&id) {
                return Ok(tokens);
            }
        }
    }
    Ok(tokens)
}

/// Samples in which the teacher's word has its share, as in documents, and where it has none of the student's words nothing is learned.
pub(super) fn weighed(samples: Vec<Sample>, share: f32) -> Vec<Sample> {
    let weighed = |mut sample: Sample| {
        for row in 0..sample.rows() {
            let told = sample.teacher.as_ref().is_some_and(|teacher| !teacher.row(row).0.is_empty());
            sample.weights[row + 1] *= if told { share } else { 0.0 };
        }
        sample
    };
    let all = samples.into_iter().map(weighed);
    all.filter(|sample| sample.weights.iter().any(|weight| *weight > 0.0)).collect()
}

/// A number drawn by what it is for. The keys of this hasher are fixed.
fn number(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use train::Teacher;

    use super::*;
    use crate::distill::lessons;

    fn sample(tokens: &[u32], weights: &[f32]) -> Sample {
        Sample { tokens: tokens.to_vec(), weights: weights.to_vec(), ..Sample::default() }
    }

    #[test]
    fn a_prompt_ends_where_the_last_answer_begins() {
        let check = |weights: &[f32], want: usize| {
            let tokens: Vec<u32> = (0..weights.len() as u32).collect();
            assert_eq!(prompt(&sample(&tokens, weights)).len(), want, "{weights:?}");
        };
        check(&[0.0, 0.0, 1.0, 1.0], 2);
        check(&[0.0, 1.0, 0.0, 0.0, 3.0, 1.0, 0.0], 4);
        check(&[0.0, 1.0, 1.0], 1);
        check(&[1.0, 1.0], 1);
    }

    /// What the student writes is seen by the teacher in its tokens, and learned in the student's, as it was written.
    #[test]
    fn own_words_go_to_the_teacher_and_come_back() {
        let words = Words::new(vec![5, 7, 9, 40], &[9, 2]);
        assert_eq!(words.ends, [2]);
        let mut own = words.sample(&[3, 0], &[1, 3, 2]).unwrap();
        assert_eq!((&own.tokens[..], &own.weights[..]), (&[40, 5, 7, 40, 9][..], &[0.0, 0.0, 1.0, 1.0, 1.0][..]));
        let mut teacher = Teacher::default();
        let told: [(&[u32], &[f32]); 4] =
            [(&[], &[]), (&[7, 8], &[-0.5, -2.0]), (&[8, 6], &[-0.5, -2.0]), (&[9], &[-0.1])];
        told.iter().for_each(|(ids, logprobs)| teacher.push(ids, logprobs));
        own.teacher = Some(teacher);
        let [own] = &weighed(lessons::rename(&[own], &words.kept), 0.5)[..] else { panic!("one sample") };
        assert_eq!((&own.tokens[..], own.own), (&[3, 0, 1, 3, 2][..], true));
        // The teacher names no token of the student's where it wrote its second one: what follows is no truth, and there is nothing to learn.
        assert_eq!(own.weights, [0.0, 0.0, 0.5, 0.0, 0.5]);
        let teacher = own.teacher.as_ref().unwrap();
        assert_eq!((teacher.row(1), teacher.row(3)), ((&[1][..], &[-0.5][..]), (&[2][..], &[-0.1][..])));
        let untold = Sample { own: true, ..sample(&[1, 2], &[0.0, 1.0]) };
        assert_eq!(weighed(vec![untold], 0.5), []);
    }
}
