//! Teacher and student, asked the same questions in turns.

use std::{sync::Arc, time::Instant};

use engine::Engine;
use eval::{Estimate, wilson};
use protocol::{Generate, Prompt};
use serde::Serialize;

use super::{DistillArgs, answers, learn::Questions};
use crate::{generate, model, screen, size};

/// Questions that are asked at most.
const ASKED: usize = 200;

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    teacher: Side,
    student: Side,
    /// The student's tokens a second by the teacher's.
    speedup: f64,
    /// The share of its layers that the student's tokens went through.
    layers_run: f64,
}

/// One of the two.
#[derive(Debug, Serialize)]
struct Side {
    /// Answers that are, character by character, those of the documents.
    exact: Estimate,
    tokens_per_second: f64,
    seconds_per_answer: f64,
}

#[derive(Debug, Default)]
struct Tally {
    exact: usize,
    tokens: usize,
    seconds: f64,
}

impl Tally {
    #[expect(
        clippy::disallowed_methods,
        reason = "how fast it is, for whoever reads the report; nothing depends on it"
    )]
    async fn ask(
        &mut self,
        args: &DistillArgs,
        engine: &Arc<Engine>,
        prompt: Prompt,
        want: &str,
    ) -> anyhow::Result<()> {
        let mut request = answers::request(args, prompt);
        // What is compared is what each holds likeliest.
        request.sampling.temperature = 0.0;
        let started = Instant::now();
        let answer = generate::collect(engine.generate(request).await?, false).await?;
        self.seconds += started.elapsed().as_secs_f64();
        self.tokens += answer.usage.completion_tokens;
        self.exact += usize::from(answer.text.trim() == want.trim());
        Ok(())
    }

    fn side(&self, n: usize) -> Side {
        Side {
            exact: wilson(self.exact, n),
            tokens_per_second: self.tokens as f64 / self.seconds.max(1e-9),
            seconds_per_answer: self.seconds / n.max(1) as f64,
        }
    }
}

/// Asks both, one question at a time, in turns: whatever else the machine does meets both alike.
pub(super) async fn both(args: &DistillArgs, names: [&str; 2], questions: &Questions) -> anyhow::Result<Measured> {
    let engines = [model::load(names[0], &args.engine).await?, model::load(names[1], &args.engine).await?];
    let asked = &questions[..questions.len().min(ASKED)];
    let mut tallies = [Tally::default(), Tally::default()];
    let bar = screen::count_bar();
    bar.set_message("asking both");
    bar.set_length(asked.len() as u64);
    for (prompt, want) in asked {
        for (tally, engine) in tallies.iter_mut().zip(&engines) {
            tally.ask(args, engine, prompt.clone(), want).await?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let written = tallies[1].tokens;
    let [teacher, student] = tallies.map(|tally| tally.side(asked.len()));
    let layers = ::model::inspect(&model::fetch(names[1]).await?.path)?.spec.layers.len();
    let skipped = engines[1].stats().skipped_layers as f64;
    let layers_run = 1.0 - skipped / (written * layers).max(1) as f64;
    let speedup = student.tokens_per_second / teacher.tokens_per_second.max(1e-9);
    Ok(Measured { teacher, student, speedup, layers_run })
}

impl Measured {
    /// Both beside each other.
    pub(super) fn table(&self, parameters: [usize; 2], bytes: [u64; 2]) -> String {
        let head = ["", "exact answers", "tokens/s", "seconds an answer", "weights", "file"];
        let row = |name: &str, side: &Side, at: usize| {
            let Estimate { value, low, high, n } = side.exact;
            vec![
                name.to_owned(),
                format!("{:.1} % ({:.1} to {:.1}, n = {n})", 100.0 * value, 100.0 * low, 100.0 * high),
                format!("{:.0}", side.tokens_per_second),
                format!("{:.3}", side.seconds_per_answer),
                format!("{:.1} M", parameters[at] as f64 / 1e6),
                size::show(bytes[at]),
            ]
        };
        let rows =
            [head.map(str::to_owned).to_vec(), row("teacher", &self.teacher, 0), row("student", &self.student, 1)];
        let early = if self.layers_run < 1.0 {
            format!(", through {:.0} % of its layers", 100.0 * self.layers_run)
        } else {
            String::new()
        };
        format!("{}\n{:.1} times the teacher's tokens a second{early}", screen::table(&rows), self.speedup)
    }
}
