//! The tables.

use std::{error::Error, path::Path};

use guard::{Direction, Guard, Policy};

use crate::{
    data::{self, Part, Tweet},
    table::{Counts, HEAD, row},
};

/// Everything, as Markdown.
pub(crate) fn all(datasets: &Path) -> Result<(), Box<dyn Error>> {
    let guard = Guard::new(&Policy::default())?;
    toxicity(&guard, datasets)?;
    Ok(())
}

/// Whether a rule of this name found anything.
fn found(guard: &Guard, text: &str, rule: &str) -> bool {
    guard.check(text, Direction::In).verdicts.iter().any(|verdict| verdict.rule == rule)
}

fn toxicity(guard: &Guard, datasets: &Path) -> Result<(), Box<dyn Error>> {
    let tweets: Vec<Tweet> = data::tweets()?.into_iter().filter(|tweet| tweet.part == Part::Test).collect();
    let verdicts: Vec<(Tweet, bool)> = tweets
        .into_iter()
        .map(|tweet| {
            let found = found(guard, &tweet.text, "toxicity");
            (tweet, found)
        })
        .collect();
    let of = |wanted: &dyn Fn(&Tweet) -> bool| {
        Counts::of(verdicts.iter().filter(|(tweet, _)| wanted(tweet)).map(|(tweet, found)| (tweet.class < 2, *found)))
    };
    println!("\n{HEAD}");
    println!("{}", row("Davidson, held out", of(&|_| true)));
    println!("{}", row("of these, hate", of(&|tweet| tweet.class == 0)));
    println!("{}", row("of these, offensive", of(&|tweet| tweet.class == 1)));
    println!("{}", row("of these, neither", of(&|tweet| tweet.class == 2)));
    let neutral = data::neutral(datasets, Part::Test)?;
    println!(
        "{}",
        row(
            "Wikipedia sentences and questions, held out",
            Counts::of(neutral.iter().map(|t| (false, found(guard, t, "toxicity"))))
        )
    );
    Ok(())
}
