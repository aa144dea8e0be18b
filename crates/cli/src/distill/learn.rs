//! From a teacher to a student: cut out of it, taught in rounds, saved.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, ensure};
use data::Encoder;
use hub::Entry;
use kernels::{Device, Precision};
use model::{Adapter, Model, ModelSpec};
use protocol::Prompt;
use serde::Serialize;
use serde_json::{Value, json};
use text::Tokenizer;
use tokio::runtime::Handle;
use train::{
    Bits, Calibrated, Cut, Distillation, Exits, Files, Learned, Length, Network, Plan, Sample, Student, Trainer,
    Written, merge_adapter,
};

use super::{
    DistillArgs, adapter, early, lessons,
    own::{self, Asked, Words},
};
use crate::{
    answers,
    data::sets,
    model as models, screen,
    train::{
        device,
        documents::{Documents, Source},
        run::{self, Run, Stop},
    },
};

/// Samples that say what of the teacher matters.
const WEIGHED: usize = 64;

/// What is to be made.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) args: DistillArgs,
    /// The data set by name and digest, if it is one.
    pub(super) set: Option<String>,
    pub(super) teacher: String,
    pub(super) entry: Entry,
    /// The run's.
    pub(super) folder: PathBuf,
    /// Where the student goes.
    pub(super) student: PathBuf,
}

/// What was made.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Made {
    pub(super) documents: usize,
    pub(super) left_out: usize,
    pub(super) steps: u64,
    pub(super) seconds: f64,
    pub(super) vocabulary: usize,
    pub(super) parameters: usize,
    pub(super) teacher_parameters: usize,
    pub(super) bytes: u64,
    pub(super) teacher_bytes: u64,
    /// Of the held-out documents whose tokens the student has all.
    pub(super) held_out_loss: Option<f64>,
    /// Of the same documents.
    pub(super) exits: Vec<Calibrated>,
    /// Answers with exits beside answers without, at the last thresholds that were tried.
    pub(super) written: Option<Written>,
}

/// Questions of held-out documents, with the answers that stand there.
pub(super) type Questions = Vec<(Prompt, String)>;

/// What rounds begin with.
struct Lessons {
    learned: Vec<Sample>,
    held_out: Vec<Sample>,
    words: Words,
    files: Files,
}

impl Job {
    /// `None` if it was stopped on the way; then it goes on from there.
    pub(super) fn run(
        &self,
        [data, held_out]: [Option<Source>; 2],
        stop: &Stop,
    ) -> anyhow::Result<Option<(Made, Questions)>> {
        let dev = device(self.args.engine.threads.unwrap_or(0))?;
        let mut model = Model::load(&dev, &self.entry.path, &|_, _| {})?;
        ensure!(
            !model.spec().encoder,
            "{} is an embedding model: it writes nothing that could be learned",
            self.teacher
        );
        let written = engine::tokenizer_files(&model, &self.entry.path)?;
        let (tokenizer, template) = engine::words(&mut model, &self.entry.path)?;
        let encoder = Encoder::new(&tokenizer, template.as_ref());
        let longest = self.args.rows.min(model.spec().context) + 1;
        let mut documents = Documents::new(data.context("no documents")?, held_out, &encoder, longest)?;
        let teacher = self.network(&dev, &model)?;
        drop(model);
        let (teacher_parameters, documents_read) = (teacher.params.values.len(), documents.learned.len());
        let Some(lessons) = self.prepare(&dev, teacher, &mut documents, (&tokenizer, written), stop)? else {
            return Ok(None);
        };
        let Some((report, held_out_loss)) = self.rounds(&dev, &lessons, stop)? else { return Ok(None) };
        let asked = documents.held_out_documents.iter().filter_map(|document| answers::question(&document.form));
        let made = Made {
            documents: documents_read,
            left_out: documents.left_out,
            steps: report.steps,
            seconds: report.seconds,
            vocabulary: Tokenizer::from_json(lessons.files.tokenizer.to_string().as_bytes(), None)?.len(),
            parameters: report.parameters,
            teacher_parameters,
            bytes: fs::metadata(self.student.join("model.safetensors"))?.len(),
            teacher_bytes: self.entry.size,
            held_out_loss,
            exits: report.exits,
            written: report.written,
        };
        Ok(Some((made, asked.collect())))
    }

    /// The teacher as it answers.
    fn network(&self, dev: &Device, model: &Model) -> anyhow::Result<Network> {
        let mut teacher = Network::new(dev, model, Learned::All, Precision::Bf16);
        if let Some(path) = adapter(&self.args, &self.teacher)? {
            merge_adapter(dev, &mut teacher, &Adapter::open(&path)?)?;
        }
        Ok(teacher)
    }

    /// What identifies the teacher.
    fn digest(&self) -> anyhow::Result<String> {
        let model = self.entry.digest()?;
        let Some(path) = adapter(&self.args, &self.teacher)? else { return Ok(model) };
        Ok(format!("{model} with {}", models::digest(path)?))
    }

    /// The teacher's word on the documents, and the student as it begins, in its folder.
    fn prepare(
        &self,
        dev: &Device,
        mut teacher: Network,
        documents: &mut Documents,
        (tokenizer, [json, config]): (&Arc<Tokenizer>, [Value; 2]),
        stop: &Stop,
    ) -> anyhow::Result<Option<Lessons>> {
        let digest = self.digest()?;
        if self.args.share > 0.0 {
            let told = (&*digest, self.args.top_k, self.args.rows);
            if !lessons::give((dev, &mut teacher), told, &mut documents.learned, &self.folder, stop)? {
                return Ok(None);
            }
        }
        let size = self.args.shape.size(teacher.spec().layers.len());
        let weighed = &documents.learned[..documents.learned.len().min(WEIGHED)];
        let mut cut = Cut::choose(&mut teacher, dev, weighed, size)?;
        let most = (0..self.args.shape.tokens).filter(|token| (*token as usize) < tokenizer.len());
        let used: Vec<u32> = documents.learned.iter().flat_map(|sample| sample.tokens.clone()).chain(most).collect();
        let trimmed = text::trim(&json, &used)?;
        cut.tokens = trimmed.kept.iter().map(|token| *token as usize).collect();
        let card = self.card(&digest, &documents.digest);
        let files = Files { tokenizer: trimmed.tokenizer, tokenizer_config: config, card };
        if self.args.fresh {
            (1..=self.args.rounds).try_for_each(|round| forget(&self.begin(round)))?;
        }
        let student = Student::new(&teacher, &cut)?;
        if self.args.bits == Bits::Eight {
            // Better to hear it now than when it has learned.
            student.group().context("--bits 16 takes any width")?;
        }
        if let Some(heads) = uneven(&student.spec) {
            screen::note(format_args!(
                "transformers 5 refuses a width of {} beside {heads} heads: a multiple of {heads} suits others, too",
                student.spec.width
            ));
        }
        student.save(Bits::Bf16, &files, &self.begin(0))?;
        let rename = |samples: &[Sample]| lessons::rename(samples, &trimmed.kept);
        let (learned, held_out) = (rename(&documents.learned), rename(&documents.held_out));
        let words = Words::new(trimmed.kept, tokenizer.ends());
        Ok(Some(Lessons { learned, held_out, words, files }))
    }

    /// Where the student lies that a round begins with.
    fn begin(&self, round: usize) -> PathBuf {
        self.folder.join(format!("student-{round}"))
    }

    /// Where it comes from.
    fn card(&self, teacher: &str, data: &str) -> Value {
        let DistillArgs { shape, exits, epochs, rounds, emphasis, share, own, top_k, batch, rate, seed, .. } =
            &self.args;
        let licence = Some(self.entry.licence.as_str()).filter(|licence| !licence.is_empty());
        let licence = licence.unwrap_or("not declared by the teacher's source");
        let mut card = json!({
            "made_by": concat!("tessera ", env!("CARGO_PKG_VERSION"), " distill"),
            "teacher": self.teacher,
            "teacher_digest": teacher,
            "data_digest": data,
            "licence": licence,
            "student": format!("{shape:?}"),
            "epochs": epochs, "rounds": rounds, "emphasis": emphasis, "share": share, "top_k": top_k, "batch": batch,
            "rate": rate, "seed": seed,
        });
        // Rounds that were done before there were these options count without them.
        if !exits.is_empty() {
            card["exits"] = json!(exits);
        }
        if *own > 0.0 {
            card["own"] = json!(own);
        }
        if let Some(set) = &self.set {
            card[sets::KEY] = set.as_str().into();
        }
        card
    }

    /// All rounds that are not done yet, and the student of the last one under its name.
    fn rounds(&self, dev: &Device, lessons: &Lessons, stop: &Stop) -> anyhow::Result<Option<(Report, Option<f64>)>> {
        let mut report = Report::default();
        let mut loss = None;
        for round in 0..self.args.rounds {
            if self.done(round + 1, &lessons.files.card)? {
                continue;
            }
            let Some(held_out) = self.round(dev, lessons, round, (&mut report, stop))? else { return Ok(None) };
            loss = held_out.or(loss);
        }
        let last = load(dev, &self.begin(self.args.rounds))?;
        if !self.args.exits.is_empty() {
            // How sure is enough is a question to the weights that are served, as they are rounded.
            let trial = self.folder.join("trial");
            save(&last, self.args.bits, &[], &lessons.files, &trial)?;
            let mut served = load(dev, &trial)?;
            report.exits = served.calibrate(dev, &lessons.held_out, &self.args.exits, self.args.rows);
            drop(served);
            self.try_exits(&last, lessons, (&trial, &mut report))?;
            forget(&trial)?;
        }
        report.parameters = save(&last, self.args.bits, &report.exits, &lessons.files, &self.student)?;
        (0..=self.args.rounds).try_for_each(|round| forget(&self.begin(round)))?;
        Ok(Some((report, loss)))
    }

    /// Lets the student answer with its exits and without, in a folder that nobody serves, and raises their thresholds until that is the same nearly
    /// everywhere.
    fn try_exits(
        &self,
        student: &Network,
        lessons: &Lessons,
        (trial, report): (&Path, &mut Report),
    ) -> anyhow::Result<()> {
        let asked = early::Asked::new(&self.args, &lessons.held_out, &lessons.words, student.spec().context);
        let answers = || Handle::current().block_on(asked.answers(&self.args, trial));
        let somebody = |exits: &[Calibrated]| exits.iter().any(|exit| exit.threshold.is_some());
        if !somebody(&report.exits) {
            return Ok(());
        }
        let without = answers()?;
        while somebody(&report.exits) {
            save(student, self.args.bits, &report.exits, &lessons.files, trial)?;
            let mut written = Written::default();
            without.iter().zip(answers()?).for_each(|(without, with)| written.add(without, &with));
            report.written = Some(written);
            if written.keeps(self.args.exits.len()) {
                break;
            }
            report.exits.iter_mut().for_each(Calibrated::raise);
        }
        Ok(())
    }

    /// Whether the student stands there that a round begins with.
    fn done(&self, round: usize, card: &Value) -> anyhow::Result<bool> {
        let path = self.begin(round).join("card.json");
        let Ok(text) = fs::read_to_string(&path) else { return Ok(false) };
        let ours = serde_json::from_str::<Value>(&text).is_ok_and(|found| found == *card);
        ensure!(ours, "{} is of a run with other options or data: --fresh begins anew", path.display());
        Ok(true)
    }

    /// One round. Its student is read from its file, so that a run that goes on later begins with the same numbers.
    fn round(
        &self,
        dev: &Device,
        lessons: &Lessons,
        round: usize,
        (report, stop): (&mut Report, &Stop),
    ) -> anyhow::Result<Option<Option<f64>>> {
        let args = &self.args;
        let mut network = load(dev, &self.begin(round))?;
        let mut samples = lessons.learned.clone();
        if round > 0 {
            let wrong = emphasise(dev, &mut network, &mut samples, (args.emphasis, args.rows));
            if wrong == 0.0 {
                // Going on would only shake what is learned: the optimizer takes a gradient of nearly nothing for a direction.
                screen::note(format_args!(
                    "Round {}: no token was wrong, so there is nothing more to learn",
                    round + 1
                ));
                save(&network, Bits::Bf16, &[], &lessons.files, &self.begin(round + 1))?;
                return Ok(Some(None));
            }
            screen::note(format_args!("Round {}: {wrong:.1} % of the tokens were wrong and weigh more", round + 1));
            let Some(own) = self.own(dev, lessons, (round, network.spec().context), stop)? else { return Ok(None) };
            samples.extend(own);
        }
        let plan = Plan {
            length: Length::Epochs(args.epochs / args.rounds as f64),
            rows: args.rows,
            samples: args.batch,
            rate: args.rate * 0.5_f32.powi(round as i32),
            decay: 0.01,
            distil: Distillation { share: args.share, ..Distillation::default() },
            exits: Exits { after: args.exits.clone(), ..Exits::default() },
            seed: args.seed + round as u64,
            checkpoint: 50,
            ..Plan::default()
        };
        let mut trainer = Trainer::new(network, plan, samples, &lessons.files.card.to_string())?;
        let folder = self.folder.join(format!("round-{round}"));
        let mut run = Run::open(dev, &mut trainer, &folder, args.fresh)?;
        let Some(done) = run.finish(dev, stop)? else { return Ok(None) };
        (report.steps, report.seconds) = (report.steps + done.steps, report.seconds + done.seconds);
        let held_out = &lessons.held_out;
        let loss = if held_out.is_empty() { None } else { Some(run.trainer().evaluate(dev, held_out)?) };
        save(&trainer.finish(dev), Bits::Bf16, &[], &lessons.files, &self.begin(round + 1))?;
        run::clear(&folder)?;
        Ok(Some(loss))
    }

    /// What the student that a round begins with writes itself, with the teacher's word on it; `None` if it was stopped on the way.
    fn own(
        &self,
        dev: &Device,
        lessons: &Lessons,
        (round, context): (usize, usize),
        stop: &Stop,
    ) -> anyhow::Result<Option<Vec<Sample>>> {
        let (args, student, words) = (&self.args, self.begin(round), &lessons.words);
        if args.own == 0.0 {
            return Ok(Some(Vec::new()));
        }
        let (digest, longest) = (models::digest(student.clone())?, args.rows.min(context));
        let asked = Asked { digest, documents: &lessons.learned, words, round, longest };
        let path = self.folder.join(format!("own-{round}.jsonl"));
        let writing = async {
            let engine = models::load(&student.display().to_string(), &args.engine).await?;
            asked.answers(args, &engine, &path, stop).await
        };
        let Some(mut written) = Handle::current().block_on(writing)? else {
            screen::note("Stopped; the same command goes on from there");
            return Ok(None);
        };
        let mut teacher = self.network(dev, &Model::load(dev, &self.entry.path, &|_, _| {})?)?;
        let told = (&*self.digest()?, args.top_k, args.rows);
        let given = lessons::give((dev, &mut teacher), told, &mut written, &self.folder, stop)?;
        Ok(given.then(|| own::weighed(lessons::rename(&written, &words.kept), args.share)))
    }
}

/// What all rounds took.
#[derive(Debug, Default)]
struct Report {
    steps: u64,
    seconds: f64,
    parameters: usize,
    exits: Vec<Calibrated>,
    written: Option<Written>,
}

/// The heads that the width is no multiple of, which is all the same here.
fn uneven(spec: &ModelSpec) -> Option<usize> {
    let heads = spec.layers.first().map(|layer| layer.attention.heads);
    heads.filter(|heads| !spec.width.is_multiple_of(*heads))
}

fn load(dev: &Device, folder: &Path) -> anyhow::Result<Network> {
    let model = Model::load(dev, folder, &|_, _| {})?;
    Ok(Network::new(dev, &model, Learned::All, Precision::Bf16))
}

/// Saves a network whole, with those of these exits where somebody leaves, and says how many weights it has.
fn save(network: &Network, bits: Bits, exits: &[Calibrated], files: &Files, folder: &Path) -> anyhow::Result<usize> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let mut student = Student::new(network, &Cut::nothing(network.spec()))?;
    student.spec.exits = exits.iter().filter_map(Calibrated::exit).collect();
    student.save(bits, files, folder)?;
    Ok(student.parameters())
}

fn forget(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// Lets tokens weigh more that the student would not have written where they stand; how many in a hundred that were.
fn emphasise(dev: &Device, network: &mut Network, samples: &mut [Sample], (by, rows): (f32, usize)) -> f64 {
    let (mut wrong, mut all) = (0, 0);
    let written = network.teach(dev, samples, (1, rows));
    for (sample, written) in samples.iter_mut().zip(written) {
        for row in 0..sample.rows() {
            if let Some(first) = written.row(row).0.first() {
                all += 1;
                if *first != sample.tokens[row + 1] {
                    wrong += 1;
                    sample.weights[row + 1] *= 1.0 + by;
                }
            }
        }
    }
    100.0 * f64::from(wrong) / f64::from(all.max(1))
}
