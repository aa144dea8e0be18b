//! What a network holds likeliest behind its layers, and how sure it is there.

use kernels::{Device, argmax, log_sum_exp};

use super::{Network, Pass};
use crate::sample::pack;
use crate::{Batch, Sample};

/// The likeliest token, and its probability.
pub(crate) type Likeliest = (usize, f32);

impl Network {
    /// Of every token of the samples' answers that another one follows, what is likeliest behind each of these numbers of layers, `[after][token]`.
    pub(crate) fn likeliest(
        &mut self,
        dev: &Device,
        samples: &[Sample],
        after: &[usize],
        rows: usize,
    ) -> Vec<Vec<Likeliest>> {
        let mut all = vec![Vec::new(); after.len()];
        for batch in pack(samples.iter(), rows, &Batch::default()) {
            let judged = answers(&batch);
            let batch = Batch { weights: judged, ..batch };
            let pass = self.pass(dev, &batch, false);
            self.forward(pass);
            all.iter_mut().zip(after).for_each(|(all, after)| self.judge(pass, *after, all));
            self.leave_head();
        }
        all
    }

    fn judge(&mut self, pass: Pass<'_>, after: usize, all: &mut Vec<Likeliest>) {
        self.on(pass, self.tape.end(after));
        for portion in self.portions(pass.batch) {
            self.logits(pass, &portion);
            all.extend((0..portion.len()).map(|at| {
                let (dev, logits) = (pass.math.dev, self.capped(at));
                let best = argmax(dev, logits);
                (best, (logits[best] - log_sum_exp(dev, logits)).exp())
            }));
        }
    }
}

/// 1 for rows that may leave early: their own token was learned, so they are no prompt's, and so was the next.
fn answers(batch: &Batch) -> Vec<f32> {
    let mut judged = vec![0.0; batch.weights.len()];
    for row in batch.branches.iter().flat_map(|branch| branch.own.clone().skip(1)) {
        let both = batch.weights[row - 1] != 0.0 && batch.weights[row] != 0.0;
        judged[row] = f32::from(u8::from(both));
    }
    judged
}
