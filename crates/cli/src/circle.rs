//! `tessera loop`: the traffic of a rollout becomes a data set, the data set an adapter or a model of its own, that the student of a cascade, and the
//! cascade takes the traffic over if it is good enough.
//!
//! A lap runs the very commands that a person would type, one behind the other ([`steps`]), and keeps what each of them said ([`laps`]). What it
//! changes of the server it changes in the settings file, as a person would ([`settings`]); the server follows by itself. So every step can be
//! looked at, repeated and undone by hand. A step that is done is not done again: a lap that was stopped goes on where it was. Each gate
//! that a lap does not pass ends it, and nothing of it stays in the settings.

mod report;
mod settings;
mod steps;
mod traffic;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use gateway::{
    laps::{self, Lap, Outcome, Step},
    settings::{Loop, Settings, Span},
};

use crate::{
    compose::{self, FileArgs},
    screen, serve,
};

/// Options of `loop`.
#[derive(Debug, Args)]
pub(crate) struct LoopArgs {
    #[command(subcommand)]
    verb: LoopVerb,
}

#[derive(Debug, Subcommand)]
enum LoopVerb {
    /// Run a lap, or go on with one that was stopped
    Run(RunArgs),
    /// Show the laps of a loop, or the report of one of them
    Show {
        #[command(flatten)]
        place: PlaceArgs,
        /// The lap [default: all of them]
        #[arg(long, value_name = "N")]
        lap: Option<u32>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give a lap up that was stopped, and take what it changed out of the settings
    Abandon(PlaceArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    server: ServerArgs,
    /// Run laps for ever, one begun this long behind the one before (units: m, h, d)
    #[arg(long, value_name = "TIME")]
    every: Option<Span>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// The running server that the loop is for.
#[derive(Debug, Clone, Args)]
pub(super) struct ServerArgs {
    /// The server; TESSERA_API_KEY is an admin's key for it
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub(super) url: String,
}

#[derive(Debug, Args)]
struct PlaceArgs {
    /// The loop, as the settings call it
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    file: FileArgs,
}

/// A loop, its settings, and where its laps are kept.
#[derive(Debug)]
pub(super) struct Place {
    /// The settings file.
    pub(super) file: PathBuf,
    pub(super) settings: Settings,
    /// The loop's own.
    pub(super) section: Loop,
    /// A folder for each lap.
    pub(super) folder: PathBuf,
}

impl Place {
    fn find(args: &PlaceArgs) -> anyhow::Result<Self> {
        let file = args.file.path().context("a loop needs a settings file: `tessera config init` writes one")?;
        let settings = Settings::load(&file)?;
        let named = settings.loops.iter().find(|section| section.name == args.name).cloned();
        let section = named.with_context(|| format!("{} has no [[loops]] called {}", file.display(), args.name))?;
        let folder = compose::loops()?.join(&section.name);
        Ok(Self { file: file.canonicalize()?, settings, section, folder })
    }
}

pub(crate) async fn run(args: LoopArgs) -> anyhow::Result<()> {
    match args.verb {
        LoopVerb::Run(args) => repeat(&args).await,
        LoopVerb::Show { place, lap, json } => show(&Place::find(&place)?, lap, json),
        LoopVerb::Abandon(place) => abandon(&Place::find(&place)?),
    }
}

async fn repeat(args: &RunArgs) -> anyhow::Result<()> {
    loop {
        let lap = once(&Place::find(&args.place)?, &args.server).await?;
        screen::show(args.json, &lap, report::text(&lap))?;
        let Some(Span(every)) = args.every else { return Ok(()) };
        tokio::select! {
            () = tokio::time::sleep(left(every, &lap)) => {}
            () = serve::interrupt() => return Ok(()),
        }
    }
}

/// Until the next lap.
fn left(every: Duration, lap: &Lap) -> Duration {
    let since = laps::micros().saturating_sub(lap.began);
    every.saturating_sub(Duration::from_micros(u64::try_from(since).unwrap_or(0)))
}

/// A lap from its first step that is not done to its end.
async fn once(place: &Place, server: &ServerArgs) -> anyhow::Result<Lap> {
    let mut lap = Lap::open(&place.folder)?;
    loop {
        if let Some(outcome) = steps::outcome(&place.section, &lap) {
            end(place, &mut lap, outcome).await?;
            return Ok(lap);
        }
        let Some(step) = lap.next() else { return Ok(lap) };
        screen::note(format_args!("{} {}, {}", place.section.name, lap.number, step.about()));
        let said = steps::run(step, place, &lap, server).await?;
        lap.keep(&place.folder, step, said)?;
    }
}

/// Leaves the settings as the outcome wants them, and counts what it was worth where callers met it.
async fn end(place: &Place, lap: &mut Lap, outcome: Outcome) -> anyhow::Result<()> {
    // Until it is evaluated it has changed nothing.
    if lap.steps.contains_key(&Step::Evaluate) {
        settings::settle(place, lap, &outcome)?;
    }
    if lap.steps.contains_key(&Step::Offer) {
        lap.report = Some(serde_json::to_value(report::numbers(place, lap).await?)?);
    }
    Ok(lap.end(&place.folder, outcome)?)
}

fn show(place: &Place, number: Option<u32>, json: bool) -> anyhow::Result<()> {
    let laps = laps::all(&place.folder)?;
    match number {
        None => screen::show(json, &laps, screen::table(&report::table(&laps))),
        Some(number) => {
            let lap = laps.iter().find(|lap| lap.number == number);
            let lap = lap.with_context(|| format!("{} has no lap {number}", place.section.name))?;
            screen::show(json, lap, report::text(lap))
        }
    }
}

fn abandon(place: &Place) -> anyhow::Result<()> {
    let mut lap = Lap::open(&place.folder)?;
    ensure!(!lap.steps.is_empty(), "no lap of {} is under way", place.section.name);
    let outcome = Outcome::Stopped { why: "it was given up by a person".to_owned() };
    settings::settle(place, &lap, &outcome)?;
    let number = lap.number;
    lap.end(&place.folder, outcome)?;
    Ok(screen::line(format_args!("{} {number} is given up", place.section.name))?)
}
