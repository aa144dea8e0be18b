//! Runs as a picture: what `metrics.jsonl` says, over the steps, in one SVG that needs nothing but a viewer.
//!
//! Drawn by hand and not by a library: a chart's library is a second here and a minute in the build, and none of those tried changes its colours
//! with the reader's theme.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::Value;

use super::run::{METRICS, folder};
use crate::screen;

/// Points of a line at most; each is the mean of its neighbours, so that long runs stay readable and small.
const POINTS: usize = 300;
/// Sizes in pixels: of a panel, and of what stands around it.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 70.0;
const GAP: f64 = 44.0;
const TOP: f64 = 30.0;
/// Colours of runs, for light and for dark readers (Okabe & Ito 2008, told apart by the colour-blind too).
const COLOURS: [[&str; 2]; 6] = [
    ["#0072b2", "#56b4e9"],
    ["#d55e00", "#e69f00"],
    ["#007a5a", "#00c896"],
    ["#a3487f", "#e39cc8"],
    ["#6b5b00", "#f0e442"],
    ["#444444", "#cccccc"],
];

/// What is shown: the field of a line and the panel's title. Fields of one panel share its axis; the second is dashed.
const PANELS: [(&str, &[&str]); 3] = [
    ("loss (dashed: on documents that were held out)", &["loss", "held_out_loss"]),
    ("learning rate", &["rate"]),
    ("tokens/s since the run began or went on", &["tokens_per_second"]),
];

/// Options of `train plot`.
#[derive(Debug, Args)]
pub(crate) struct PlotArgs {
    /// Runs to compare: names of adapters or students, or folders with a metrics.jsonl
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Where the picture goes [default: plot.svg in the first run's folder]
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// A run's numbers.
struct Curves {
    name: String,
    lines: Vec<Value>,
}

type Point = (f64, f64);

pub(crate) fn run(args: &PlotArgs) -> anyhow::Result<()> {
    ensure!(args.runs.len() <= COLOURS.len(), "{} runs are the most in one picture", COLOURS.len());
    let folders = args.runs.iter().map(|run| if run.is_dir() { Ok(run.clone()) } else { folder(run) });
    let folders: Vec<PathBuf> = folders.collect::<anyhow::Result<_>>()?;
    let out = args.out.clone().unwrap_or_else(|| folders[0].join("plot.svg"));
    write(&folders, &out)?;
    Ok(screen::line(out.display())?)
}

/// Draws runs by their folders.
pub(super) fn write(folders: &[PathBuf], out: &Path) -> anyhow::Result<()> {
    let runs = folders.iter().map(|folder| Curves::read(folder)).collect::<anyhow::Result<Vec<_>>>()?;
    fs::write(out, draw(&runs)).with_context(|| format!("cannot write {}", out.display()))
}

impl Curves {
    fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(METRICS);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let lines = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>();
        let lines = lines.with_context(|| format!("{} is no file of metrics", path.display()))?;
        let name =
            folder.file_name().map_or_else(|| folder.display().to_string(), |n| n.to_string_lossy().into_owned());
        Ok(Self { name, lines: kept(lines) })
    }

    fn points(&self, field: &str) -> Vec<Point> {
        let all = self.lines.iter().filter_map(|line| Some((line["step"].as_f64()?, line[field].as_f64()?)));
        let all: Vec<Point> = all.collect();
        let mean = |some: &[Point], of: fn(&Point) -> f64| some.iter().map(of).sum::<f64>() / some.len() as f64;
        let each = all.len().div_ceil(POINTS).max(1);
        all.chunks(each).map(|some| (mean(some, |p| p.0), mean(some, |p| p.1))).collect()
    }
}

/// Lines that still hold: a run that was taken up or went back says some steps again, and what it said of them before is past.
fn kept(lines: Vec<Value>) -> Vec<Value> {
    let step = |line: &Value| line["step"].as_u64().unwrap_or(0);
    let again = |line: &Value| line["loss"].is_number();
    let mut kept: Vec<Value> = Vec::new();
    for line in lines {
        while again(&line) && kept.last().is_some_and(|last| step(last) >= step(&line)) {
            kept.pop();
        }
        kept.push(line);
    }
    kept
}

/// From where to where an axis goes, and its marks: 1, 2 or 5 times a power of ten apart.
struct Axis {
    low: f64,
    high: f64,
    marks: Vec<f64>,
}

impl Axis {
    fn over(numbers: impl Iterator<Item = f64> + Clone) -> Self {
        let (low, high) = (numbers.clone().fold(f64::INFINITY, f64::min), numbers.fold(f64::NEG_INFINITY, f64::max));
        let (low, high) = if low.is_finite() { (low, high) } else { (0.0, 1.0) };
        let span = if high > low { high - low } else { high.abs().max(1.0) };
        let power = 10_f64.powf((span / 4.0).log10().floor());
        let apart = [1.0, 2.0, 5.0, 10.0].map(|times| times * power);
        let apart = apart.into_iter().find(|apart| span / apart <= 4.5).unwrap_or(span);
        let (first, last) = ((low / apart).floor(), (high / apart).ceil().max((low / apart).floor() + 1.0));
        let marks = (0..=(last - first) as u32).map(|i| (first + f64::from(i)) * apart).collect();
        Self { low: first * apart, high: last * apart, marks }
    }

    /// The share of the way from low to high.
    fn share(&self, x: f64) -> f64 {
        (x - self.low) / (self.high - self.low)
    }
}

/// A number as one says it.
fn said(x: f64) -> String {
    let plain = x == 0.0 || (1e-3..1e6).contains(&x.abs());
    if plain { format!("{}", (x * 1e6).round() / 1e6) } else { format!("{x:.0e}") }
}

fn draw(runs: &[Curves]) -> String {
    let height = TOP + PANELS.len() as f64 * (HEIGHT + GAP);
    let width = LEFT + WIDTH + 20.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n<style>{}</style>\n\
         <rect class=\"page\" width=\"{width}\" height=\"{height}\"/>\n",
        style()
    );
    legend(&mut svg, runs);
    for (i, (title, fields)) in PANELS.iter().enumerate() {
        panel(&mut svg, runs, TOP + i as f64 * (HEIGHT + GAP), (title, fields));
    }
    svg + "</svg>\n"
}

fn style() -> String {
    let colours = |dark: usize| {
        let of = |(i, colour): (usize, &[&str; 2])| {
            format!(".r{i}{{stroke:{0}}}text.r{i}{{fill:{0};stroke:none}}", colour[dark])
        };
        COLOURS.iter().enumerate().map(of).collect::<String>()
    };
    format!(
        "text{{font:12px system-ui,sans-serif;fill:#333}}.page{{fill:#fff}}.grid{{stroke:#ddd}}\
         polyline{{fill:none;stroke-width:1.6;stroke-linejoin:round}}.f1{{stroke-dasharray:5 4}}{}\
         @media(prefers-color-scheme:dark){{text{{fill:#ccc}}.page{{fill:#16181d}}.grid{{stroke:#3a3d45}}{}}}",
        colours(0),
        colours(1)
    )
}

/// Names of runs, in their colours. They are file names, which may be anything.
fn legend(svg: &mut String, runs: &[Curves]) {
    for (i, run) in runs.iter().enumerate() {
        let name = run.name.replace('&', "&amp;").replace('<', "&lt;");
        let x = LEFT + i as f64 * WIDTH / runs.len() as f64;
        let _ = writeln!(svg, "<text class=\"r{i}\" x=\"{x:.0}\" y=\"18\" font-weight=\"bold\">{name}</text>");
    }
}

fn panel(svg: &mut String, runs: &[Curves], top: f64, (title, fields): (&str, &[&str])) {
    let lines = runs
        .iter()
        .enumerate()
        .flat_map(|(i, run)| fields.iter().enumerate().map(move |(dash, field)| (i, dash, run.points(field))));
    let lines: Vec<(usize, usize, Vec<Point>)> = lines.collect();
    let all = || lines.iter().flat_map(|(_, _, points)| points);
    let (steps, values) = (Axis::over(all().map(|p| p.0)), Axis::over(all().map(|p| p.1)));
    let across = |x: f64| LEFT + WIDTH * steps.share(x);
    let down = |y: f64| top + GAP / 2.0 + HEIGHT * (1.0 - values.share(y));
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{:.1}\">{title}</text>", top + 14.0);
    for mark in &values.marks {
        let (y, right) = (down(*mark), LEFT + WIDTH);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>");
        let _ =
            writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", LEFT - 8.0, y + 4.0, said(*mark));
    }
    for mark in &steps.marks {
        let (x, y) = (across(*mark), down(values.low) + 16.0);
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{}</text>", said(*mark));
    }
    for (run, dash, points) in &lines {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{:.1},{:.1}", across(*x), down(*y))).collect();
        let _ = writeln!(svg, "<polyline class=\"r{run} f{dash}\" points=\"{}\"/>", points.join(" "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn steps_that_were_said_again_count_once() {
        let lines = [1, 2, 3, 2, 3, 4].map(|step| json!({"step": step, "loss": 1.0}));
        let lines = [vec![json!({"step": 0, "held_out_loss": 2.0})], lines.to_vec()].concat();
        let steps =
            |lines: Vec<Value>| kept(lines).iter().map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>();
        assert_eq!(steps(lines.clone()), [0, 1, 2, 3, 4]);
        assert_eq!(steps([lines, vec![json!({"step": 4, "held_out_loss": 1.5})]].concat()), [0, 1, 2, 3, 4, 4]);
    }

    #[test]
    fn axes_hold_all_numbers_between_round_marks() {
        let cases: [(&[f64], &[f64]); 5] = [
            (&[0.3, 2.9], &[0.0, 1.0, 2.0, 3.0]),
            (&[1e-4, 9e-4], &[0.0, 2e-4, 4e-4, 6e-4, 8e-4, 1e-3]),
            (&[7.0], &[6.0, 8.0]),
            (&[0.0, 0.0], &[0.0, 0.5]),
            (&[], &[0.0, 0.5, 1.0]),
        ];
        for (numbers, marks) in cases {
            let axis = Axis::over(numbers.iter().copied());
            let near =
                axis.marks.len() == marks.len() && axis.marks.iter().zip(marks).all(|(a, b)| (a - b).abs() < 1e-9);
            assert!(near, "{numbers:?}: {:?}, not {marks:?}", axis.marks);
        }
    }

    #[test]
    fn a_picture_has_a_line_for_every_run_and_field_and_no_script() {
        let run = |name: &str, steps: u64| Curves {
            name: name.to_owned(),
            lines: (1..=steps)
                .map(|step| json!({"step": step, "loss": 3.0 / step as f64, "rate": 1e-3, "tokens_per_second": 900}))
                .collect(),
        };
        let svg = draw(&[run("a<b", 3), run("b", 1000)]);
        assert_eq!(svg.matches("<polyline").count(), 8);
        assert!(svg.contains("a&lt;b") && svg.contains("prefers-color-scheme:dark") && !svg.contains("<script"));
        let longest = svg.lines().map(|line| line.matches(',').count()).max().unwrap();
        assert!(longest <= POINTS, "{longest} points in a line");
    }
}
