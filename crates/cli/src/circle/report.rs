//! What a lap was worth, in figures and in words.

use gateway::laps::{Lap, Outcome, Step};
use ledger::Ledger;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Place,
    traffic::{Between, Traffic, Work},
};
use crate::{audit, compose, screen, size};

/// Traffic before and since.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Numbers {
    /// From the loop's first request until the canary began.
    pub(super) before: Traffic,
    /// Since then.
    pub(super) since: Traffic,
    /// What the teacher would have cost for what students answered since, in nano-units of currency.
    pub(super) saved: u64,
    /// Seconds of processor time that it would have taken for what students were asked since, less what that took; `None` where somebody does not tell.
    #[serde(default)]
    pub(super) saved_processor_seconds: Option<f64>,
    /// Its three letters.
    pub(super) currency: String,
}

/// Counts in the ledger.
pub(super) async fn numbers(place: &Place, lap: &Lap) -> anyhow::Result<Numbers> {
    let ledger = Ledger::open(compose::ledger_settings(&place.settings)?).await?;
    let counted = both(&ledger, place, lap).await;
    ledger.close().await;
    let (before, since) = counted?;
    let price = place.settings.prices.get(&place.section.teacher).cloned().unwrap_or_default();
    let saved_processor_seconds = since.work.saved(before.work.teacher.and(since.work.teacher));
    let currency = place.settings.ledger.currency.clone();
    Ok(Numbers { saved: since.saved(&price), saved_processor_seconds, currency, before, since })
}

async fn both(ledger: &Ledger, place: &Place, lap: &Lap) -> ledger::Result<(Traffic, Traffic)> {
    let (model, began) = (&place.section.rollout, lap.said(Step::Offer)["at"].as_i64());
    let before = Traffic::count(ledger, model, Between { since: None, until: began }).await?;
    Ok((before, Traffic::count(ledger, model, Between { since: began, until: None }).await?))
}

/// A lap in words.
pub(super) fn text(lap: &Lap) -> String {
    let mut lines = vec![format!("Lap {}: {}", lap.number, end(lap))];
    lines.extend(data(lap.said(Step::Data)));
    lines.extend(learned(lap.said(Step::Learn)));
    lines.extend(distilled(lap.said(Step::Distil)));
    lines.extend(evaluated(&lap.said(Step::Evaluate)["measured"]));
    lines.extend(reported(lap).as_ref().map(traffic));
    lines.join("\n")
}

/// All laps, a line each.
pub(super) fn table(laps: &[Lap]) -> Vec<Vec<String>> {
    let head = ["LAP", "ROWS", "STUDENT RIGHT", "TEACHER RIGHT", "BY STUDENT", "OUTCOME"].map(str::to_owned).to_vec();
    let row = |lap: &Lap| {
        let measured = &lap.said(Step::Evaluate)["measured"];
        let accuracy = |who: &str| percent(&measured[who]["accuracy"]);
        let share =
            reported(lap).map_or_else(String::new, |report| format!("{:.1} %", 100.0 * report.since.share().value));
        let rows = lap.said(Step::Data)["train"].as_u64().map_or_else(String::new, |n| n.to_string());
        vec![lap.number.to_string(), rows, accuracy("student"), accuracy("teacher"), share, end(lap)]
    };
    std::iter::once(head).chain(laps.iter().map(row)).collect()
}

/// What it was worth, where that was counted.
fn reported(lap: &Lap) -> Option<Numbers> {
    serde_json::from_value(lap.report.clone()?).ok()
}

fn end(lap: &Lap) -> String {
    match &lap.end {
        None => "under way".to_owned(),
        Some(Outcome::Promoted) => "promoted".to_owned(),
        Some(Outcome::RolledBack { why }) => format!("rolled back: {why}"),
        Some(Outcome::Stopped { why }) => format!("stopped: {why}"),
    }
}

fn data(said: &Value) -> Option<String> {
    let count = |key: &str| said[key].as_u64().unwrap_or(0);
    let dropped: u64 = said["dropped"].as_object()?.values().filter_map(Value::as_u64).sum();
    Some(format!(
        "data       {} rows to learn, {} held out, {dropped} dropped ({})",
        count("train"),
        count("held"),
        set(said)
    ))
}

fn set(said: &Value) -> String {
    let digest = said["digest"].as_str().unwrap_or_default();
    format!("{}@{}", said["name"].as_str().unwrap_or_default(), digest.get(..12).unwrap_or(digest))
}

fn learned(said: &Value) -> Option<String> {
    let loss = |key: &str| said[key].as_f64().unwrap_or(f64::NAN);
    let (adapter, seconds) = (said["adapter"].as_str()?, said["seconds"].as_f64().unwrap_or(0.0));
    let (before, now) = (loss("held_out_loss_before"), loss("held_out_loss"));
    Some(format!("learned    {adapter} in {seconds:.0} s; loss on the held-out rows {before:.3} before, {now:.3} now"))
}

fn distilled(said: &Value) -> Option<String> {
    let (parameters, bytes) = (said["parameters"].as_f64()?, said["bytes"].as_u64()?);
    let (seconds, faster) = (said["seconds"].as_f64()?, said["measured"]["speedup"].as_f64());
    let faster = faster.map_or_else(String::new, |times| format!(", {times:.1} times as fast as the base"));
    Some(format!("distilled  {:.1} million weights, {} in {seconds:.0} s{faster}", parameters / 1e6, size::show(bytes)))
}

fn evaluated(measured: &Value) -> Option<String> {
    measured.as_object()?;
    let right = |who: &str| percent(&measured[who]["accuracy"]);
    let ratio = |of: &str| measured[of]["value"].as_f64().unwrap_or(f64::NAN);
    Some(format!(
        "measured   right: student {}, teacher {}, cascade {}; the student answers {}; a cascade's answer takes {:.2} of the teacher's time",
        right("student"),
        right("teacher"),
        right("cascade"),
        percent(&measured["accepted"]),
        ratio("cost")
    ))
}

fn percent(estimate: &Value) -> String {
    let part = |key: &str| estimate[key].as_f64().map(|value| 100.0 * value);
    let (Some(value), Some(low), Some(high)) = (part("value"), part("low"), part("high")) else { return String::new() };
    format!("{value:.1} % ({low:.1} to {high:.1}, n = {})", estimate["n"])
}

fn traffic(numbers: &Numbers) -> String {
    let Numbers { before, since, saved, currency, .. } = numbers;
    let rows = [("before the canary", before), ("since", since)].map(|(name, traffic)| {
        let eval::Estimate { value, low, high, .. } = traffic.share();
        let share = format!("{:.1} % ({:.1} to {:.1})", 100.0 * value, 100.0 * low, 100.0 * high);
        let tokens = (traffic.teacher_tokens[0] + traffic.teacher_tokens[1]).to_string();
        vec![name.to_owned(), traffic.requests.to_string(), share, format!("{:.3}", traffic.seconds_each()), tokens]
    });
    let head = ["TRAFFIC", "ANSWERED", "BY STUDENT", "SECONDS EACH", "TEACHER'S TOKENS"].map(str::to_owned).to_vec();
    let table = screen::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>());
    let saved = audit::money(i64::try_from(*saved).unwrap_or(i64::MAX));
    format!("{table}\nsaved      {saved} {currency} of the teacher's price\n{}", processor(numbers))
}

/// What was computed for it, by who did.
fn processor(Numbers { before, since, saved_processor_seconds, .. }: &Numbers) -> String {
    let each = |work: Work| match work.each() {
        Some(seconds) => format!("{seconds:.3} s each (n = {})", work.told),
        None => "unknown".to_owned(),
    };
    let (student, both) = (each(since.work.student), each(since.work.both));
    let teacher = each(before.work.teacher.and(since.work.teacher));
    let saved = saved_processor_seconds.map_or_else(|| "unknown".to_owned(), |seconds| format!("{seconds:.1} s"));
    format!("processor  student {student}, teacher {teacher}, teacher behind a student {both}; saved {saved}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_lap_reads_as_a_story() {
        let estimate = |value: f64| json!({ "value": value, "low": value - 0.1, "high": value + 0.1, "n": 50 });
        let measured = json!({
            "student": { "accuracy": estimate(0.8) }, "teacher": { "accuracy": estimate(0.9) }, "cascade": { "accuracy": estimate(0.88) },
            "accepted": estimate(0.6), "cost": estimate(0.5),
        });
        let steps = [
            (
                Step::Data,
                json!({ "name": "credit", "digest": "0123456789abcdef", "train": 90, "held": 10, "dropped": { "near": 2 } }),
            ),
            (
                Step::Learn,
                json!({ "adapter": "smollm2:credit-1", "seconds": 9.0, "held_out_loss_before": 1.1, "held_out_loss": 0.2 }),
            ),
            (
                Step::Distil,
                json!({ "parameters": 7_600_000, "bytes": 8_000_000, "seconds": 60.0, "measured": { "speedup": 12.3 } }),
            ),
            (Step::Evaluate, json!({ "measured": measured })),
        ];
        let mut lap = Lap { number: 1, began: 0, steps: steps.into(), end: Some(Outcome::Promoted), report: None };
        let told = text(&lap);
        for words in [
            "promoted",
            "90 rows",
            "credit@0123456789ab",
            "smollm2:credit-1",
            "7.6 million weights, 8.0 MB in 60 s, 12.3 times as fast",
            "80.0 % (70.0 to 90.0, n = 50)",
            "0.50 of the teacher's",
        ] {
            assert!(told.contains(words), "{words}: {told}");
        }
        let mut since = Traffic { requests: 10, by_student: 6, ..Traffic::default() };
        since.work.student = Work { answers: 6, told: 6, seconds: 1.5 };
        let before = Traffic::default();
        let (saved, saved_processor_seconds, currency) = (1_500_000, Some(7.25), "USD".to_owned());
        lap.report =
            Some(serde_json::to_value(Numbers { before, since, saved, saved_processor_seconds, currency }).unwrap());
        let words = "student 0.250 s each (n = 6), teacher unknown, teacher behind a student unknown; saved 7.2 s";
        assert!(text(&lap).contains(words), "{}", text(&lap));
        assert!(text(&lap).contains("60.0 % (") && text(&lap).contains("0.0015 USD"), "{}", text(&lap));
        assert_eq!(table(std::slice::from_ref(&lap))[1][4], "60.0 %");
        for part in ["before", "since"] {
            lap.report.as_mut().unwrap()[part].as_object_mut().unwrap().remove("work");
        }
        lap.report.as_mut().unwrap().as_object_mut().unwrap().remove("saved_processor_seconds");
        assert!(text(&lap).contains("saved unknown"), "a lap from before: {}", text(&lap));
    }

    #[test]
    fn a_lap_that_did_nothing_says_so() {
        let lap = Lap { number: 2, began: 0, steps: [].into(), end: None, report: None };
        assert_eq!(text(&lap), "Lap 2: under way");
    }
}
