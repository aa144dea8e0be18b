//! Encoders: whole sequences at once, no cache. A step takes as many waiting inputs as make a good batch.

use model::Pooling;

use super::{Core, Output, RequestId};
use crate::{executor::Executor, job::Job};

/// Rows of one batch: enough to keep the arithmetic busy, few enough that a step stays short.
const ENCODE_ROWS: usize = 2048;

impl<E: Executor> Core<E> {
    pub(super) fn encode(&mut self) {
        let jobs = self.take_inputs();
        if jobs.is_empty() {
            return;
        }
        let tokens: Vec<u32> = jobs.iter().flat_map(|(_, job)| job.prompt.iter().copied()).collect();
        let lens: Vec<usize> = jobs.iter().map(|(_, job)| job.prompt.len()).collect();
        let mut hidden = std::mem::take(&mut self.buffers.hidden);
        self.executor.encode(&tokens, &lens, &mut hidden);
        self.count_step(tokens.len());
        let width = self.executor.width();
        let mut rest = &hidden[..];
        for (id, job) in jobs {
            let (states, behind) = rest.split_at(job.prompt.len() * width);
            rest = behind;
            self.hand_out(id, pooled(states, width, self.executor.pooling()));
        }
        self.buffers.hidden = hidden;
    }

    fn take_inputs(&mut self) -> Vec<(RequestId, Job)> {
        let (mut jobs, mut rows) = (Vec::new(), 0);
        while let Some((_, next)) = self.queue.front() {
            rows += next.prompt.len();
            if rows > ENCODE_ROWS && !jobs.is_empty() {
                break;
            }
            jobs.extend(self.queue.pop());
        }
        let now = self.clock.now();
        jobs.iter().for_each(|(id, job)| self.note_admission(*id, 0, now, job.prompt.len()));
        jobs
    }

    fn hand_out(&mut self, id: RequestId, vector: Vec<f32>) {
        let Some(request) = self.requests.get(&id) else { return };
        let usage = request.usage;
        self.meters.count(&usage);
        self.stats.count(&usage);
        self.out.push((id, Ok(Output::Vector(vector))));
        self.forget(id);
    }
}

/// The states of one sequence as one vector (a mean is left as a sum: vectors are normalised later).
fn pooled(states: &[f32], width: usize, pooling: Pooling) -> Vec<f32> {
    let mut rows = states.chunks_exact(width);
    match pooling {
        Pooling::First => rows.next().unwrap_or_default().to_vec(),
        Pooling::Last => rows.next_back().unwrap_or_default().to_vec(),
        Pooling::Mean => {
            let mut sum = vec![0.0; width];
            rows.for_each(|row| sum.iter_mut().zip(row).for_each(|(sum, state)| *sum += state));
            sum
        }
    }
}
