//! The last quarter of an hour of the metrics, one point a second, for the charts.
//!
//! Once a second the page behind `/metrics` is read, and of it the few series are kept that charts show: counters and histogram
//! buckets as what they grew by, gauges as they stand. A chart over a longer time adds seconds up, buckets included, so its quantiles
//! are those of the whole step and not averages of quantiles. What charts show is declared once, in [`SERIES`] and [`TIMES`].

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::scrape::{self, Line};
use crate::measure::SECOND_BUCKETS;

/// Seconds that are kept.
const KEPT: usize = 15 * 60;

/// How the value of a series is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Of a counter: what it grew by, per second.
    Rate,
    /// Of a gauge: as it stands, added up over its labels.
    Level,
}

/// A metric that charts show, with the labels it is wanted for and how their values begin.
type Source = (&'static str, &'static [(&'static str, &'static str)]);

const REQUESTS: &str = "tessera_http_requests_total";

/// What is counted and what stands: the chart's name for it, and where it is read.
const SERIES: [(&str, Kind, Source); 12] = [
    ("ok", Kind::Rate, (REQUESTS, &[("route", "/v1/"), ("status", "2")])),
    ("refused", Kind::Rate, (REQUESTS, &[("route", "/v1/"), ("status", "4")])),
    ("failed", Kind::Rate, (REQUESTS, &[("route", "/v1/"), ("status", "5")])),
    ("prompt", Kind::Rate, ("tessera_prompt_tokens_total", &[])),
    ("cached", Kind::Rate, ("tessera_cached_tokens_total", &[])),
    ("generated", Kind::Rate, ("tessera_completion_tokens_total", &[])),
    (PASSES, Kind::Rate, ("tessera_batch_rows_count", &[])),
    (ROWS, Kind::Rate, ("tessera_batch_rows_sum", &[])),
    ("running", Kind::Level, ("tessera_running", &[])),
    ("queued", Kind::Level, ("tessera_queued", &[])),
    ("kv", Kind::Level, ("tessera_kv_bytes", &[])),
    ("kv_used", Kind::Level, ("tessera_kv_used_bytes", &[])),
];
const PASSES: &str = "passes";
const ROWS: &str = "rows";

/// What is timed: the chart's name for it, and its histogram.
const TIMES: [(&str, Source); 4] = [
    ("queue", ("tessera_queue_seconds_bucket", &[])),
    ("first_token", ("tessera_ttft_seconds_bucket", &[])),
    ("inter_token", ("tessera_inter_token_seconds_bucket", &[])),
    ("total", ("tessera_http_request_duration_seconds_bucket", &[("route", "/v1/")])),
];

/// The stages of a request (see `journey`), as far as a chart tells them apart.
const STAGES: [(&str, &[&str]); 6] = [
    ("stage.tokens", &["tokens"]),
    ("stage.first_token", &["first_token"]),
    ("stage.queue", &["queue"]),
    ("stage.guard", &["guard"]),
    ("stage.client", &["flush"]),
    ("stage.gateway", &["accept", "auth", "limit", "route", "settle", "rest"]),
];

/// Quantiles that are shown of a time.
const QUANTILES: [(&str, f64); 2] = [("p50", 0.5), ("p95", 0.95)];

/// What is known of a moment, or of a span of time.
#[derive(Debug, Clone, PartialEq)]
struct Point {
    /// Values of the series.
    values: [f64; SERIES.len()],
    /// Counts up to each bound of the times; the last bound is infinity.
    buckets: [[f64; SECOND_BUCKETS.len() + 1]; TIMES.len()],
    /// Seconds spent in each of the stages, and last the requests they were spent on.
    stages: [f64; STAGES.len() + 1],
}

impl Point {
    const ZERO: Self = Self {
        values: [0.0; SERIES.len()],
        buckets: [[0.0; SECOND_BUCKETS.len() + 1]; TIMES.len()],
        stages: [0.0; STAGES.len() + 1],
    };

    /// What the metrics page says.
    fn read(page: &str) -> Self {
        let mut point = Self::ZERO;
        for line in scrape::lines(page) {
            let of = |source: &Source| source.0 == line.name && line.fits(source.1);
            for (value, (.., source)) in point.values.iter_mut().zip(&SERIES) {
                *value += if of(source) { line.value } else { 0.0 };
            }
            for (counts, (_, source)) in point.buckets.iter_mut().zip(&TIMES) {
                if let Some(count) = of(source).then(|| bound(line)).flatten().and_then(|i| counts.get_mut(i)) {
                    *count += line.value;
                }
            }
            point.read_stage(line);
        }
        point
    }

    fn read_stage(&mut self, line: Line<'_>) {
        let Some(stage) = line.label("stage") else { return };
        let [times @ .., requests] = &mut self.stages;
        match line.name {
            "tessera_stage_seconds_sum" => {
                let mut shown = times.iter_mut().zip(&STAGES);
                if let Some((time, _)) = shown.find(|(_, (_, stages))| stages.contains(&stage)) {
                    *time += line.value;
                }
            }
            // Not every request passes every stage; all pass some.
            "tessera_stage_seconds_count" => *requests = requests.max(line.value),
            _ => {}
        }
    }

    /// Everything that is counted, to be subtracted or added up; levels are not.
    fn counts(&mut self) -> impl Iterator<Item = &mut f64> {
        let rates = self.values.iter_mut().zip(&SERIES).filter(|(_, (_, kind, _))| *kind == Kind::Rate);
        rates.map(|(value, _)| value).chain(self.buckets.as_flattened_mut()).chain(&mut self.stages)
    }

    /// What happened since an earlier reading. A counter that fell began anew.
    fn since(mut self, mut before: Self) -> Self {
        for (now, before) in self.counts().zip(before.counts()) {
            *now -= if *now >= *before { *before } else { 0.0 };
        }
        self
    }

    /// Takes in the second after.
    fn add(&mut self, next: &Self) {
        let mut sum = next.clone();
        sum.counts().zip(self.counts()).for_each(|(sum, before)| *sum += *before);
        *self = sum;
    }

    fn value(&self, key: &str) -> f64 {
        SERIES.iter().position(|(name, ..)| *name == key).map_or(0.0, |i| self.values[i])
    }
}

/// Which bound of a histogram a line counts up to.
fn bound(line: Line<'_>) -> Option<usize> {
    let bound: f64 = line.label("le")?.parse().ok()?;
    if bound.is_infinite() {
        return Some(SECOND_BUCKETS.len());
    }
    SECOND_BUCKETS.iter().position(|known| (known - bound).abs() < 1e-9)
}

/// The `q`-quantile in milliseconds, linear within its bucket as Prometheus has it; none of nothing.
fn quantile(counts: &[f64], q: f64) -> Option<f64> {
    let rank = counts.last().filter(|n| **n > 0.0)? * q;
    let i = counts.iter().position(|count| *count >= rank)?;
    let (low, below) = i.checked_sub(1).map_or((0.0, 0.0), |i| (SECOND_BUCKETS[i], counts[i]));
    // Beyond the last bound nothing is known but that it was longer.
    let high = SECOND_BUCKETS.get(i).copied().unwrap_or(low);
    let within = if counts[i] > below { (rank - below) / (counts[i] - below) } else { 1.0 };
    Some((low + (high - low) * within) * 1000.0)
}

/// The points, shared by the clock that adds one a second and the charts.
#[derive(Debug)]
pub(crate) struct History {
    kept: Mutex<Kept>,
    ticks: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    last: Option<Point>,
    /// The second it ended, and what happened in it.
    points: VecDeque<(u64, Point)>,
}

impl Default for History {
    fn default() -> Self {
        Self { kept: Mutex::default(), ticks: watch::Sender::new(0) }
    }
}

impl History {
    /// Takes in the metrics page as it stands at `now`, in seconds since 1970.
    pub(crate) fn tick(&self, page: &str, now: u64) {
        let point = Point::read(page);
        let mut kept = self.kept.lock();
        if let Some(last) = kept.last.replace(point.clone()) {
            kept.points.push_back((now, point.since(last)));
            let surplus = kept.points.len().saturating_sub(KEPT);
            kept.points.drain(..surplus);
        }
        drop(kept);
        self.ticks.send_replace(now);
    }

    /// Tells of every tick.
    pub(super) fn ticks(&self) -> watch::Receiver<u64> {
        self.ticks.subscribe()
    }

    /// Columns for charts with one row for every `step` seconds that is over and ended after `after`; and when the last one did.
    pub(super) fn columns(&self, step: u64, after: u64) -> (Value, u64) {
        let rows = self.rows(step, after);
        let end = rows.last().map_or(after, |(end, _)| *end);
        let mut columns = Map::new();
        let mut column = |key: String, values: Vec<Option<f64>>| {
            let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
            columns.insert(key, values.into_iter().map(|value| json!(value.map(rounded))).collect());
        };
        column("at".to_owned(), rows.iter().map(|(end, _)| Some(*end as f64)).collect());
        for (i, (key, kind, _)) in SERIES.iter().enumerate().filter(|(_, (key, ..))| ![PASSES, ROWS].contains(key)) {
            let per = if *kind == Kind::Rate { step as f64 } else { 1.0 };
            column((*key).to_owned(), rows.iter().map(|(_, row)| Some(row.values[i] / per)).collect());
        }
        let batch = |row: &Point| Some(row.value(ROWS) / row.value(PASSES)).filter(|mean| mean.is_finite());
        column("batch".to_owned(), rows.iter().map(|(_, row)| batch(row)).collect());
        for (i, (key, _)) in STAGES.iter().enumerate() {
            let mean =
                |row: &Point| Some(1000.0 * row.stages[i] / row.stages[STAGES.len()]).filter(|ms| ms.is_finite());
            column((*key).to_owned(), rows.iter().map(|(_, row)| mean(row)).collect());
        }
        for (i, (key, _)) in TIMES.iter().enumerate() {
            for (name, q) in QUANTILES {
                column(format!("{key}.{name}"), rows.iter().map(|(_, row)| quantile(&row.buckets[i], q)).collect());
            }
        }
        (Value::Object(columns), end)
    }

    /// Points added up to steps, each with the second it ended.
    fn rows(&self, step: u64, after: u64) -> Vec<(u64, Point)> {
        let kept = self.kept.lock();
        let mut rows: Vec<(u64, Point)> = Vec::new();
        let over = kept.points.back().map_or(0, |(at, _)| at / step * step);
        for (at, point) in &kept.points {
            let end = at.div_ceil(step) * step;
            match rows.last_mut().filter(|(last, _)| *last == end) {
                Some((_, row)) => row.add(point),
                None if end > after && end <= over => rows.push((end, point.clone())),
                None => {}
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(requests: u32, fast: u32, slow: u32, queued: u32) -> String {
        let all = fast + slow;
        format!(
            "tessera_http_requests_total{{route=\"/v1/embeddings\",method=\"POST\",status=\"200\"}} {requests}\n\
             tessera_http_requests_total{{route=\"/console/traffic\",method=\"GET\",status=\"200\"}} 999\n\
             tessera_ttft_seconds_bucket{{model=\"a\",le=\"0.1\"}} {fast}\n\
             tessera_ttft_seconds_bucket{{model=\"a\",le=\"0.15\"}} {fast}\n\
             tessera_ttft_seconds_bucket{{model=\"a\",le=\"0.25\"}} {all}\n\
             tessera_ttft_seconds_bucket{{model=\"a\",le=\"+Inf\"}} {all}\n\
             tessera_queued{{model=\"a\"}} {queued}\ntessera_queued{{model=\"b\"}} 1\n"
        )
    }

    /// What one column says.
    fn column(history: &History, step: u64, key: &str) -> Value {
        history.columns(step, 0).0[key].clone()
    }

    #[test]
    fn counters_grow_and_gauges_stand() {
        let history = History::default();
        for (now, requests, queued) in [(100, 5, 3), (101, 7, 4), (102, 7, 0), (103, 1, 0)] {
            history.tick(&page(requests, 0, 0, queued), now);
        }
        assert_eq!(column(&history, 1, "at"), json!([101.0, 102.0, 103.0]));
        assert_eq!(column(&history, 1, "ok"), json!([2.0, 0.0, 1.0]), "a counter that fell began anew");
        assert_eq!(column(&history, 1, "queued"), json!([5.0, 1.0, 1.0]), "over all models");
        assert_eq!(column(&history, 1, "first_token.p50"), json!([null, null, null]), "nothing was timed");
    }

    #[test]
    fn steps_add_seconds_up_and_only_whole_ones_are_told() {
        let history = History::default();
        for now in 100..=109 {
            let n = now as u32 - 100;
            history.tick(&page(n, 3 * n, n, n), now);
        }
        let (first, end) = history.columns(5, 0);
        assert_eq!((first["at"].clone(), end), (json!([105.0]), 105));
        assert_eq!((&first["ok"], &first["queued"]), (&json!([1.0]), &json!([6.0])), "per second, and as it stood");
        history.tick(&page(10, 30, 10, 10), 110);
        assert_eq!(history.columns(5, end).0["at"], json!([110.0]));
        assert_eq!(history.columns(5, 110).0["at"], json!([]));
    }

    #[test]
    fn stages_are_means_over_requests() {
        let page = |auth: f64, tokens: f64, n: u32| {
            format!(
                "tessera_stage_seconds_sum{{stage=\"auth\"}} {auth}\ntessera_stage_seconds_sum{{stage=\"rest\"}} {auth}\n\
                 tessera_stage_seconds_sum{{stage=\"tokens\"}} {tokens}\ntessera_stage_seconds_count{{stage=\"auth\"}} {n}\n"
            )
        };
        let history = History::default();
        history.tick(&page(1.0, 1.0, 5), 100);
        history.tick(&page(1.001, 1.5, 7), 101);
        history.tick(&page(1.001, 1.5, 7), 102);
        assert_eq!(column(&history, 1, "stage.gateway"), json!([1.0, null]));
        assert_eq!(column(&history, 1, "stage.tokens"), json!([250.0, null]));
    }

    #[test]
    fn quantiles_of_a_step() {
        let history = History::default();
        history.tick(&page(0, 0, 0, 0), 100);
        history.tick(&page(0, 3, 1, 0), 101);
        // Three of four within 100 ms: the median is two thirds up the first buckets' range, p95 lies in 150..250 ms.
        let p50 = column(&history, 1, "first_token.p50")[0].as_f64().unwrap();
        let p95 = column(&history, 1, "first_token.p95")[0].as_f64().unwrap();
        assert!(p50 <= 100.0 && (150.0..=250.0).contains(&p95), "{p50} {p95}");
        assert_eq!(quantile(&[0.0; SECOND_BUCKETS.len() + 1], 0.5), None);
    }

    #[test]
    fn a_quarter_of_an_hour_is_kept() {
        let history = History::default();
        (0..2000).for_each(|now| history.tick("", now));
        assert_eq!(history.columns(1, 0).0["at"].as_array().unwrap().len(), KEPT);
        assert_eq!(*history.ticks().borrow(), 1999);
    }
}
