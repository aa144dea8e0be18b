//! Trains and measures what `guard` ships.
//!
//! ```sh
//! cargo run --release -p guard --example lab -- train DATASETS    # writes crates/guard/data/toxicity.bin, the same bytes every time
//! cargo run --release -p guard --example lab -- measure DATASETS  # prints the tables of docs/results/services.md
//! cargo run --release -p guard --example lab -- wrong             # own lines that are judged wrongly
//! ```
//!
//! DATASETS is where `cargo xtask test` keeps its data sets (`~/.cache/tessera/tests/datasets`). No row of the labelled
//! tweets is ever printed.

#![expect(clippy::print_stdout, reason = "tables on the screen are what this program is for")]

mod data;
mod disguise;
mod measure;
mod table;

use std::{error::Error, fs, path::Path};

use guard::Sample;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["train", datasets] => train(Path::new(datasets)),
        ["wrong"] => measure::wrong(),
        ["measure", datasets] => measure::all(Path::new(datasets)),
        _ => Err("cargo run --release -p guard --example lab -- train|measure DATASETS, or wrong".into()),
    }
}

/// Tweets of the training part and neutral passages, each class with the weight that evens them out.
fn train(datasets: &Path) -> Result<(), Box<dyn Error>> {
    let tweets: Vec<_> = data::tweets()?.into_iter().filter(|tweet| tweet.part == data::Part::Train).collect();
    let neutral = data::neutral(datasets, data::Part::Train)?;
    let count = |class: u8| tweets.iter().filter(|tweet| tweet.class == class).count() as f32;
    let (hate, offensive, neither) = (count(0), count(1), count(2));
    // Offensive tweets are thirteen times the hateful ones; neutral texts count half as much as tweets that are neither.
    let weights = [(offensive / hate).sqrt(), 1.0, offensive / neither * 0.6];
    let of_tweet = |tweet: data::Tweet| Sample {
        text: tweet.text,
        toxic: tweet.class < 2,
        hate: tweet.class == 0,
        weight: weights[usize::from(tweet.class)],
    };
    let share = offensive * 0.5 / neutral.len() as f32;
    let of_neutral = |text: String| Sample { text, toxic: false, hate: false, weight: share };
    println!(
        "{} tweets ({hate} hate, {offensive} offensive, {neither} neither), {} neutral texts",
        tweets.len(),
        neutral.len()
    );
    let samples: Vec<Sample> = tweets.into_iter().map(of_tweet).chain(neutral.into_iter().map(of_neutral)).collect();
    let file = guard::train(&samples);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/toxicity.bin");
    fs::write(&path, &file)?;
    println!("{} bytes to {}", file.len(), path.display());
    Ok(())
}
