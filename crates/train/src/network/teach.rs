//! A network as a teacher.

use kernels::{Device, TEACHER_TOKENS, log_sum_exp, top_k};

use super::Network;
use crate::{Batch, Sample, Teacher};

impl Network {
    /// What it says of a sample: the `k` likeliest tokens of every row that is learned. Students learn from that; and a run that must not drift away
    /// from its beginning is held to what its network said then.
    ///
    /// # Panics
    /// When the sample does not pass [`crate::check`], or `k` is above [`TEACHER_TOKENS`].
    pub fn teach(&mut self, dev: &Device, sample: &Sample, k: usize) -> Teacher {
        assert!(k <= TEACHER_TOKENS, "{TEACHER_TOKENS} tokens of a row are the most");
        let mut batch = Batch::default();
        batch.add(&Sample { teacher: None, ..sample.clone() }, 0..0, 1.0);
        let pass = self.pass(dev, &batch, false);
        self.forward(pass);
        let (mut teacher, mut best) = (Teacher::default(), Vec::new());
        for portion in self.portions(&batch) {
            self.logits(pass, &portion);
            for (at, row) in portion.into_iter().enumerate() {
                let logits = self.capped(at);
                let sum = log_sum_exp(dev, logits);
                top_k(dev, logits, k, &mut best);
                let (ids, logprobs): (Vec<u32>, Vec<f32>) = best.iter().map(|(id, x)| (*id, x - sum)).unzip();
                teacher.skip_to(row);
                teacher.push(&ids, &logprobs);
            }
        }
        self.leave_head();
        teacher.skip_to(sample.rows());
        teacher
    }

    /// A row's logits with their cap.
    fn capped(&mut self, at: usize) -> &[f32] {
        let logits = &mut self.room.logits[at * self.spec.vocab..][..self.spec.vocab];
        if let Some(cap) = self.spec.logit_softcap {
            logits.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
        }
        logits
    }
}
