//! A network as a teacher.

use kernels::{Branch, Device, TEACHER_TOKENS, log_sum_exp, top_k};

use super::Network;
use crate::sample::pack;
use crate::{Batch, Sample, Teacher};

impl Network {
    /// What it says of samples, in micro-batches of at most so many rows: the `k` likeliest tokens of every row that is learned. Students learn from
    /// that; and a run that must not drift away from its beginning is held to what its network said then.
    ///
    /// # Panics
    /// When a sample does not pass [`crate::check`], or `k` is above [`TEACHER_TOKENS`].
    pub fn teach(&mut self, dev: &Device, samples: &[Sample], (k, rows): (usize, usize)) -> Vec<Teacher> {
        assert!(k <= TEACHER_TOKENS, "{TEACHER_TOKENS} tokens of a row are the most");
        let batches = pack(samples.iter(), rows, &Batch::default());
        batches.iter().flat_map(|batch| self.teach_batch(dev, batch, k)).collect()
    }

    /// What it says of each document of a batch.
    fn teach_batch(&mut self, dev: &Device, batch: &Batch, k: usize) -> Vec<Teacher> {
        let pass = self.pass(dev, batch, false);
        self.forward(pass);
        self.on(pass, self.tape.end(self.spec.layers.len()));
        let (mut all, mut best) = (Teacher::default(), Vec::new());
        for portion in self.portions(batch) {
            self.logits(pass, &portion);
            for (at, row) in portion.into_iter().enumerate() {
                let logits = self.capped(at);
                let sum = log_sum_exp(dev, logits);
                top_k(dev, logits, k, &mut best);
                let (ids, logprobs): (Vec<u32>, Vec<f32>) = best.iter().map(|(id, x)| (*id, x - sum)).unzip();
                all.skip_to(row);
                all.push(&ids, &logprobs);
            }
        }
        self.leave_head();
        all.skip_to(batch.tokens.len());
        let document = |branch: &Branch| {
            let mut own = Teacher::default();
            own.skip_to(branch.shared.len());
            branch.own.clone().map(|row| all.row(row)).for_each(|(ids, logprobs)| own.push(ids, logprobs));
            own
        };
        batch.branches.iter().map(document).collect()
    }

    /// A row's logits with their cap.
    pub(super) fn capped(&mut self, at: usize) -> &[f32] {
        let logits = &mut self.room.logits[at * self.spec.vocab..][..self.spec.vocab];
        if let Some(cap) = self.spec.logit_softcap {
            logits.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
        }
        logits
    }
}
