//! `tessera audit`: read the log of requests, prove and verify it, take contents away, copy it.
//!
//! All of it works on the ledger's store, beside a running gateway or without one. Checking a proof needs no store, only the log's public
//! key.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use ledger::{
    Content, Conversion, Filter, Given, Kind, Ledger, Outcome, Page, Proof, Record, Scope, Settings, Verification,
    Verifier, parse_timestamp, timestamp,
};
use protocol::{Candidate, Hop, Reason};
use serde_json::json;

use crate::{compose::LedgerArgs, screen};

const DAY: Duration = Duration::from_secs(86_400);

/// Options of `audit`.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
    #[command(subcommand)]
    verb: AuditVerb,
}

/// What to do with the log.
#[derive(Debug, Subcommand)]
enum AuditVerb {
    /// List records, the newest first
    List(ListArgs),
    /// Show one record whole: what was asked, the steps, what was delivered, what was said of it
    Show {
        /// The request's id
        request_id: String,
        /// Only if it is this tenant's
        #[arg(long)]
        tenant: Option<String>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Compute everything again and name the first entry that is not as it was written
    Verify(VerifyArgs),
    /// Write proofs that a request's entries stand in the signed log
    Prove {
        /// The request's id
        request_id: String,
        /// Only if it is this tenant's
        #[arg(long)]
        tenant: Option<String>,
        /// Also disclose the content, whose hash the entry holds
        #[arg(long)]
        disclose: bool,
        /// Write to this file instead of the terminal
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Write the newest signed checkpoint, to be kept elsewhere
    Checkpoint {
        /// Write to this file instead of the terminal
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Print one JSON object, with the log's public key
        #[arg(long)]
        json: bool,
    },
    /// Write the log as plain files in the layout of c2sp.org/tlog-tiles
    Export {
        /// Where to; a second export adds what is new
        directory: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Destroy the contents of a person, or those older than some days; the log stays and verifies
    Erase(EraseArgs),
    /// Write a consistent copy into a new file, beside a running gateway
    Backup {
        /// The new file
        file: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Fill an empty ledger from a backup, and verify it
    Restore {
        /// The backup
        file: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Options of `audit list`.
#[derive(Debug, Args)]
struct ListArgs {
    /// Records of this tenant only
    #[arg(long)]
    tenant: Option<String>,
    /// Of this kind, such as chat or decision
    #[arg(long, value_parser = kind)]
    kind: Option<Kind>,
    /// That asked this model or decision
    #[arg(long)]
    model: Option<String>,
    /// With this key's public part
    #[arg(long)]
    key: Option<String>,
    /// That ended so: served, blocked, refused, failed, aborted or lost
    #[arg(long, value_parser = outcome)]
    outcome: Option<Outcome>,
    /// Accepted on this day (2026-11-26) or at this moment (2026-11-26T12:00:00Z), in UTC, or later
    #[arg(long, value_parser = moment)]
    since: Option<i64>,
    /// Accepted before this day or moment
    #[arg(long, value_parser = moment)]
    until: Option<i64>,
    /// So many at most
    #[arg(short = 'n', long, default_value_t = 20)]
    limit: u32,
    /// Only those of which somebody said something
    #[arg(long)]
    with_feedback: bool,
    /// Only older ones: goes on behind the record with this index
    #[arg(long, value_name = "INDEX")]
    before: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Options of `audit verify`.
#[derive(Debug, Args)]
struct VerifyArgs {
    /// A checkpoint kept elsewhere: shows whether the log's end was cut off or its history written anew
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Check proofs from this file instead, without the ledger
    #[arg(long, value_name = "FILE", requires = "public_key", conflicts_with = "checkpoint")]
    proof: Option<PathBuf>,
    /// The log's public key, as `audit checkpoint --json` prints it
    #[arg(long, value_name = "NAME+ID+KEY", requires = "proof")]
    public_key: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Options of `audit erase`.
#[derive(Debug, Args)]
struct EraseArgs {
    /// The tenant that knows the person
    #[arg(long, default_value = "")]
    tenant: String,
    /// The person, as the tenant's requests name them; empty for the tenant itself
    #[arg(long)]
    subject: Option<String>,
    /// Everybody's contents older than so many days
    #[arg(long, value_name = "DAYS", conflicts_with = "subject")]
    older_than_days: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Does it.
pub(crate) async fn run(args: AuditArgs) -> anyhow::Result<()> {
    let settings = args.ledger.settings()?;
    match args.verb {
        AuditVerb::Verify(VerifyArgs { proof: Some(file), public_key: Some(key), json, .. }) => {
            proof(&file, &key, json)
        }
        AuditVerb::Restore { file, json } => restore(settings, &file, json).await,
        verb => {
            let ledger = Ledger::open(settings).await?;
            let done = with(&ledger, verb).await;
            ledger.close().await;
            done
        }
    }
}

async fn with(ledger: &Ledger, verb: AuditVerb) -> anyhow::Result<()> {
    match verb {
        AuditVerb::List(args) => list(ledger, args).await,
        AuditVerb::Show { request_id, tenant, json } => show(ledger, &request_id, tenant, json).await,
        AuditVerb::Verify(args) => verify(ledger, args.checkpoint.as_deref(), args.json).await,
        AuditVerb::Prove { request_id, tenant, disclose, output } => {
            let proofs = ledger.prove(&scope(tenant), &request_id, disclose).await?;
            write(output.as_deref(), &serde_json::to_string_pretty(&proofs)?)
        }
        AuditVerb::Checkpoint { output, json } => checkpoint(ledger, output.as_deref(), json).await,
        AuditVerb::Export { directory, json } => {
            let checkpoint = ledger.export(&directory).await?;
            let text = format!("{} entries in {}", checkpoint.size, directory.display());
            screen::show(json, &json!({"entries": checkpoint.size, "directory": directory}), text)
        }
        AuditVerb::Erase(args) => erase(ledger, args).await,
        AuditVerb::Backup { file, json } => {
            ledger.backup(&file).await?;
            screen::show(json, &json!({"file": file}), format!("copied to {}", file.display()))
        }
        AuditVerb::Restore { .. } => bail!("a backup is restored into a ledger that is not open"),
    }
}

fn scope(tenant: Option<String>) -> Scope {
    tenant.map_or(Scope::All, Scope::Tenant)
}

async fn list(ledger: &Ledger, args: ListArgs) -> anyhow::Result<()> {
    let ListArgs { tenant, kind, model, key, outcome, since, until, limit, with_feedback, before, json } = args;
    let filter = Filter { kind, model, key_id: key, outcome, since, until, with_feedback };
    let found = ledger.records(&scope(tenant), &filter, Page { before, limit }, ledger::beginnings).await?;
    if json {
        return screen::json(&found);
    }
    let head =
        ["INDEX", "ACCEPTED", "REQUEST", "TENANT", "KIND", "MODEL", "OUTCOME", "COST"].map(str::to_owned).to_vec();
    let row = |record: &Record| {
        let outcome = record.outcome.map_or("running", Outcome::name).to_owned();
        let Record { request_id, tenant, kind, model, cost, log, .. } = record;
        let (kind, at) = (kind.name().to_owned(), timestamp(record.accepted_at));
        vec![
            log.accepted.to_string(),
            at,
            request_id.clone(),
            tenant.clone(),
            kind,
            model.clone(),
            outcome,
            money(*cost),
        ]
    };
    let rows: Vec<_> = std::iter::once(head).chain(found.records.iter().map(row)).collect();
    screen::line(screen::table(&rows))?;
    if let Some(next) = found.next {
        screen::note(format_args!("older ones: --before {next}"));
    }
    Ok(())
}

async fn show(ledger: &Ledger, request_id: &str, tenant: Option<String>, as_json: bool) -> anyhow::Result<()> {
    let record = ledger.record(&scope(tenant), request_id).await?;
    let record = record.with_context(|| format!("there is no request {request_id:?}"))?;
    screen::show(as_json, &record, story(&record))
}

/// What has become of a content, for people.
fn held(content: Content) -> &'static str {
    match content {
        Content::Intact => "as it was written",
        Content::Erased => "erased",
        Content::Altered => "ALTERED",
    }
}

/// A record, for people.
fn story(record: &Record) -> String {
    let place = match record.log.settled {
        Some(settled) => format!("entries {} and {settled}", record.log.accepted),
        None => format!("entry {}", record.log.accepted),
    };
    let signed = if record.log.checkpointed { "under a checkpoint" } else { "not under a checkpoint yet" };
    let mut rows = vec![
        ("request", record.request_id.clone()),
        ("tenant, key", format!("{}, {}", record.tenant, record.key_id)),
        ("asked", format!("{} of {}", record.kind.name(), record.model)),
        ("accepted", timestamp(record.accepted_at)),
        ("settled", record.settled_at.map_or_else(|| "still running".to_owned(), timestamp)),
        ("outcome", record.outcome.map_or("running", Outcome::name).to_owned()),
        ("log", format!("{place}, {signed}")),
        ("content", held(record.content).to_owned()),
        ("configuration", record.config_hash.clone()),
        ("parameters", record.parameters.to_string()),
        ("route", format!("{} ({})", record.route.chosen, record.route.why)),
        ("answered by", format!("{} {} {}", record.answered.model, record.answered.adapter, record.answered.digest)),
        ("tokens", format!("{} in, {} out", record.usage.prompt_tokens, record.usage.completion_tokens)),
        ("processor", processor(record)),
        ("cost", money(record.cost)),
    ];
    rows.extend(record.route.hops.iter().map(|hop| ("way", way(hop))));
    rows.extend(record.error.iter().map(|error| ("error", error.clone())));
    rows.extend(record.verdicts.iter().map(|verdict| ("verdict", verdict.to_string())));
    rows.extend(record.feedback.iter().map(|given| ("feedback", said(given))));
    rows.extend(record.latency.iter().map(|(stage, micros)| ("latency", format!("{stage} {micros} us"))));
    let table = screen::table(&rows.into_iter().map(|(name, text)| vec![name.to_owned(), text]).collect::<Vec<_>>());
    let steps = record.inference_steps.iter().map(|step| format!("{}. {}: {}\n", step.step, step.action, step.result));
    let output = record.output_decision.as_ref().map(ToString::to_string);
    format!(
        "{table}\n\ninput\n{}\n\nsteps\n{}\noutput\n{}",
        record.input_text.as_deref().unwrap_or("-"),
        steps.collect::<String>(),
        output.as_deref().unwrap_or("-")
    )
}

/// What a record says of processor time, for people.
fn processor(record: &Record) -> String {
    let seconds = |micros| format!("{:.3} s", Duration::from_micros(micros).as_secs_f64());
    record.usage.processor_micros.map_or_else(|| "unknown".to_owned(), seconds)
}

/// Feedback, for people.
fn said(given: &Given) -> String {
    let Given { at, given_by, rating, correction, comment, conversion, charges, unbilled, content, .. } = given;
    let cost: i64 = charges.iter().map(|charge| charge.amount).sum();
    let why = unbilled.map(|why| format!(" ({})", why.name())).unwrap_or_default();
    let worth =
        |c: &Conversion| format!("{} worth {} {}, charged {}{why}", c.name, money(c.value), c.currency, money(cost));
    let parts = [
        rating.map(|rating| format!("rated {rating}")),
        conversion.as_ref().map(worth),
        correction.as_ref().map(|text| format!("should have been: {text}")),
        comment.as_ref().map(|text| format!("comment: {text}")),
        (*content != Content::Intact).then(|| format!("words {}", held(*content))),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    format!("{} by {given_by}: {}", timestamp(*at), parts.join("; "))
}

/// A choice on the request's way, for people.
fn way(hop: &Hop) -> String {
    let Hop { asked, model, service, .. } = hop;
    let at = if service.is_empty() { String::new() } else { format!(" at {service}") };
    let mut told = format!("{}: {asked} -> {model}{at}", hop.reason.word());
    let failed: Vec<_> = hop.failed.iter().map(|miss| format!("{} ({})", miss.who, miss.error)).collect();
    let among: Vec<_> = hop.among.iter().map(|one| format!("{} ({})", one.service, compared(one))).collect();
    let by =
        if hop.reason == Reason::Domain { "compared by nearness" } else { "compared, with tokens that waited there" };
    for (what, list) in [("failed before", failed), (by, among)] {
        if !list.is_empty() {
            told += &format!("; {what}: {}", list.join(", "));
        }
    }
    hop.score.map_or(told.clone(), |score| format!("{told}; the student's score: {score:.3}"))
}

/// By what a candidate was compared.
fn compared(one: &Candidate) -> String {
    one.nearness.map_or_else(|| one.busy.to_string(), |nearness| format!("{:.3}", f64::from(nearness) / 1000.0))
}

async fn verify(ledger: &Ledger, outside: Option<&Path>, as_json: bool) -> anyhow::Result<()> {
    let outside = outside.map(|file| {
        let note = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        anyhow::Ok(ledger.verifier().open(&note)?)
    });
    let found = ledger.verify(outside.transpose()?.as_ref()).await?;
    told(&found, as_json)
}

/// Shows what was found; something wrong is an error.
fn told(found: &Verification, as_json: bool) -> anyhow::Result<()> {
    let sums = format!(
        "{} entries, {} of them under a checkpoint; {} checkpoints, {} contents and {} usage rows compared, {} contents erased\nroot {}",
        found.entries, found.signed, found.checkpoints, found.contents, found.usage, found.erased, found.root
    );
    screen::show(as_json, found, sums)?;
    let Some(first) = found.problems.first() else { return Ok(()) };
    let entry = first.entry.map(|entry| format!("entry {entry}: ")).unwrap_or_default();
    let request = first.request_id.as_ref().map(|id| format!(" (request {id})")).unwrap_or_default();
    bail!("the log was altered; {} problems, the first: {entry}{}{request}", found.problems.len(), first.what)
}

/// Checks proofs with the log's public key alone.
fn proof(file: &Path, key: &str, as_json: bool) -> anyhow::Result<()> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let proofs: Vec<Proof> = serde_json::from_str(&text).context("this is no file of `tessera audit prove`")?;
    let verifier = Verifier::decode(key)?;
    let proven = proofs.iter().map(|proof| proof.check(&verifier)).collect::<Result<Vec<_>, _>>()?;
    let line = |proven: &ledger::Proven| {
        let content = proven.content.as_ref().map(|content| format!("\ncontent {content}")).unwrap_or_default();
        format!(
            "entry {} of the {} that {} signed: {}{content}",
            proven.index,
            proven.size,
            verifier.name(),
            proven.entry
        )
    };
    screen::show(as_json, &proven, proven.iter().map(line).collect::<Vec<_>>().join("\n"))
}

async fn checkpoint(ledger: &Ledger, output: Option<&Path>, as_json: bool) -> anyhow::Result<()> {
    let checkpoint = ledger.checkpoint().await?.context("nothing was signed yet")?;
    if as_json {
        let public_key = ledger.verifier().to_string();
        let text = serde_json::to_string_pretty(&json!({"public_key": public_key, "checkpoint": checkpoint}))?;
        return write(output, &text);
    }
    write(output, checkpoint.note.trim_end_matches('\n'))
}

async fn erase(ledger: &Ledger, args: EraseArgs) -> anyhow::Result<()> {
    let contents = match (args.subject, args.older_than_days) {
        (Some(subject), _) => ledger.erase(&args.tenant, &subject).await?,
        (None, Some(days)) => ledger.expire(DAY * days).await?,
        (None, None) => bail!("say whose contents (--subject), or how old ones (--older-than-days)"),
    };
    screen::show(args.json, &json!({"erased": contents}), format!("{contents} contents erased"))
}

async fn restore(settings: Settings, file: &Path, as_json: bool) -> anyhow::Result<()> {
    let (ledger, found) = Ledger::restore(settings, file).await?;
    ledger.close().await;
    told(&found, as_json)
}

fn write(output: Option<&Path>, text: &str) -> anyhow::Result<()> {
    match output {
        Some(file) => fs::write(file, format!("{text}\n")).with_context(|| file.display().to_string()),
        None => Ok(screen::line(text)?),
    }
}

/// Nano-units as a decimal number.
pub(crate) fn money(nano: i64) -> String {
    const UNIT: u64 = 1_000_000_000;
    let sign = if nano < 0 { "-" } else { "" };
    let (whole, rest) = (nano.unsigned_abs() / UNIT, nano.unsigned_abs() % UNIT);
    let text = format!("{sign}{whole}.{rest:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn kind(name: &str) -> Result<Kind, String> {
    let names = || Kind::ALL.map(Kind::name).join(", ");
    Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| format!("one of {}", names()))
}

fn outcome(name: &str) -> Result<Outcome, String> {
    let names = || Outcome::ALL.map(Outcome::name).join(", ");
    Outcome::ALL.into_iter().find(|outcome| outcome.name() == name).ok_or_else(|| format!("one of {}", names()))
}

/// Microseconds since 1970, of a day or a moment as people write it.
pub(crate) fn moment(text: &str) -> Result<i64, String> {
    parse_timestamp(text).ok_or_else(|| "a day (2026-11-26) or a moment (2026-11-26T12:00:00Z) in UTC".to_owned())
}

#[cfg(test)]
mod tests {
    use protocol::Miss;

    use super::*;

    #[test]
    fn money_is_shown_exactly() {
        let check = |nano, text: &str| assert_eq!(money(nano), text);
        check(0, "0");
        check(13, "0.000000013");
        check(-1_500_000_000, "-1.5");
        check(42_000_000_000, "42");
    }

    #[test]
    fn a_way_is_told_with_those_who_failed_and_those_compared() {
        let check = |hop: Hop, told: &str| assert_eq!(way(&hop), told);
        let hop = |reason, service: &str| Hop {
            asked: "fast".into(),
            reason,
            model: "m".into(),
            service: service.into(),
            ..Hop::default()
        };
        check(hop(Reason::Alias, ""), "alias: fast -> m");
        let failed = vec![Miss { who: "a".into(), error: "upstream_failed".into() }];
        check(
            Hop { failed, ..hop(Reason::Fallback, "acme") },
            "fallback: fast -> m at acme; failed before: a (upstream_failed)",
        );
        let among = [("w0", 512), ("w1", 0)]
            .map(|(service, busy)| Candidate { service: service.into(), busy, nearness: None })
            .into();
        check(
            Hop { among, ..hop(Reason::Balanced, "w1") },
            "balanced: fast -> m at w1; compared, with tokens that waited there: w0 (512), w1 (0)",
        );
    }
}
