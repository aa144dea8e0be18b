//! What the teacher thinks of every place of the documents: its likeliest tokens, kept in the run's folder, in the student's tokens where it learns.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    fs::{self, OpenOptions},
    hash::{Hash, Hasher},
    io::Write,
    path::Path,
};

use anyhow::Context;
use kernels::Device;
use serde::{Deserialize, Serialize};
use train::{Network, Sample, Teacher};

use crate::{screen, train::run::Stop};

/// A lesson as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    key: u64,
    ends: Vec<usize>,
    ids: Vec<u32>,
    logprobs: Vec<f32>,
}

/// Samples that the teacher reads between two looks at whether to stop.
const AT_ONCE: usize = 64;

/// Gives every sample its lesson; `false` if it was stopped on the way, and what was done is kept.
pub(super) fn give(
    (dev, teacher): (&Device, &mut Network),
    (digest, top_k, rows): (&str, usize, usize),
    samples: &mut [Sample],
    folder: &Path,
    stop: &Stop,
) -> anyhow::Result<bool> {
    let path = folder.join("lessons.jsonl");
    let mut known = read(&path);
    let mut file = OpenOptions::new().create(true).append(true).open(&path);
    let file = file.as_mut().map_err(|error| anyhow::anyhow!("cannot write {}: {error}", path.display()))?;
    let bar = screen::count_bar();
    bar.set_message("the teacher reads");
    bar.set_length(samples.len() as u64);
    for some in samples.chunks_mut(AT_ONCE) {
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            bar.finish_and_clear();
            screen::note("Stopped; the same command goes on from there");
            return Ok(false);
        }
        recall(&mut known, (digest, top_k), some);
        let open: Vec<Sample> = some.iter().filter(|sample| sample.teacher.is_none()).cloned().collect();
        let taught = teacher.teach(dev, &open, (top_k, rows));
        for (sample, taught) in some.iter_mut().filter(|sample| sample.teacher.is_none()).zip(taught) {
            let key = key(digest, top_k, sample);
            let kept = Kept { key, ends: taught.ends, ids: taught.ids, logprobs: taught.logprobs };
            writeln!(file, "{}", serde_json::to_string(&kept)?).context("cannot keep a lesson")?;
            sample.teacher = Some(kept.into());
        }
        bar.inc(some.len() as u64);
    }
    bar.finish_and_clear();
    Ok(true)
}

impl From<Kept> for Teacher {
    fn from(Kept { ends, ids, logprobs, .. }: Kept) -> Self {
        Self { ends, ids, logprobs }
    }
}

/// Gives samples the lessons that are known.
fn recall(known: &mut HashMap<u64, Kept>, (digest, top_k): (&str, usize), samples: &mut [Sample]) {
    for sample in samples {
        let lesson = known.remove(&key(digest, top_k, sample));
        sample.teacher = lesson.filter(|lesson| lesson.ends.len() == sample.rows()).map(Teacher::from);
    }
}

/// What a run before has kept. A line that was cut off is made again.
fn read(path: &Path) -> HashMap<u64, Kept> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let kept = text.lines().filter_map(|line| serde_json::from_str::<Kept>(line).ok());
    kept.map(|kept| (kept.key, kept)).collect()
}

fn key(digest: &str, top_k: usize, sample: &Sample) -> u64 {
    let mut hasher = DefaultHasher::new();
    let weights: Vec<u32> = sample.weights.iter().map(|weight| weight.to_bits()).collect();
    (digest, top_k, &sample.tokens, weights).hash(&mut hasher);
    hasher.finish()
}

/// Samples in a vocabulary that has kept these tokens, in this order. What the teacher thought of others goes to its rest.
pub(super) fn rename(samples: &[Sample], kept: &[u32]) -> Vec<Sample> {
    let names: HashMap<u32, u32> = kept.iter().zip(0..).map(|(old, new)| (*old, new)).collect();
    samples.iter().filter_map(|sample| renamed(sample, &names)).collect()
}

fn renamed(sample: &Sample, names: &HashMap<u32, u32>) -> Option<Sample> {
    let tokens: Option<Vec<u32>> = sample.tokens.iter().map(|token| names.get(token).copied()).collect();
    let teacher = sample.teacher.as_ref().map(|teacher| {
        let mut renamed = Teacher::default();
        for row in 0..sample.rows() {
            let (ids, logprobs) = teacher.row(row);
            let known = ids.iter().zip(logprobs).filter_map(|(id, x)| Some((*names.get(id)?, *x)));
            let (ids, logprobs): (Vec<u32>, Vec<f32>) = known.unzip();
            renamed.push(&ids, &logprobs);
        }
        renamed
    });
    Some(Sample { tokens: tokens?, weights: sample.weights.clone(), teacher, own: sample.own })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_get_their_new_names_and_others_go() {
        let teacher = Teacher { ends: vec![2, 3], ids: vec![7, 5, 9], logprobs: vec![-0.5, -1.0, -0.1] };
        let sample = Sample { tokens: vec![5, 9, 7], weights: vec![0.0, 1.0, 1.0], teacher: Some(teacher), own: false };
        let other = Sample { tokens: vec![5, 8], weights: vec![0.0, 1.0], ..Sample::default() };
        let renamed = rename(&[sample, other], &[5, 7, 9]);
        assert_eq!(renamed.len(), 1, "a document with a token that is gone cannot be learned");
        assert_eq!(renamed[0].tokens, [0, 2, 1]);
        let teacher = renamed[0].teacher.as_ref().unwrap();
        assert_eq!((teacher.row(0), teacher.row(1)), ((&[1, 0][..], &[-0.5, -1.0][..]), (&[2][..], &[-0.1][..])));
    }
}
