//! Sets on disk: digests that stay, names that are found, halves that are not seen, differences.

use super::*;
use crate::{Pass, Personal, Place};

struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tessera-sets-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn row(prompt: &str, completion: &str) -> Row {
    let form = Form::Completion { prompt: prompt.to_owned(), completion: completion.to_owned() };
    Row { form, group: None, place: Place { source: "a".to_owned(), at: "line 1".to_owned() } }
}

fn refined(train: &[(&str, &str)], held: &[(&str, &str)]) -> Refined {
    let rows = |rows: &[(&str, &str)]| rows.iter().map(|(prompt, completion)| row(prompt, completion)).collect();
    let dropped = vec![row("p", "").dropped(Pass::Validation, "empty")];
    Refined { train: rows(train), held: rows(held), dropped, ..Refined::default() }
}

fn options() -> Options {
    Options {
        held_out: 0.1,
        seed: 0,
        near: None,
        languages: Vec::new(),
        longest: 100,
        personal: Personal::Mask,
        quality: true,
        toxicity: true,
    }
}

fn source(name: &str) -> Source {
    Source {
        name: name.to_owned(),
        kind: "jsonl".to_owned(),
        sha256: "00".to_owned(),
        rows: 1,
        licence: None,
        parent: None,
        model: None,
    }
}

fn write(sets: &Sets, refined: &Refined, sources: &[Source], options: &Options, at: &str) -> Set {
    let made = Made { by: "test".to_owned(), at: at.to_owned() };
    sets.write("credit", refined, (sources.to_vec(), options), made).unwrap()
}

#[test]
fn a_digest_is_of_content_and_origin() {
    let home = Home::new("digest");
    let sets = Sets::new(&home.0);
    let refined = refined(&[("p", "c")], &[("q", "d")]);
    let digest = |source: Source, change: fn(&mut Options), at: &str| {
        let mut options = options();
        change(&mut options);
        write(&sets, &refined, &[source], &options, at).manifest.digest
    };
    let usual = digest(source("a"), |_| {}, "2026-01-01");
    assert_eq!(
        usual, "1f03c383798d9a215408dc9b0745be21302197b472f1a21cda0c9ae05b672e7a",
        "an old digest is told from a new one only if this stays"
    );
    assert_eq!(digest(source("elsewhere/a"), |_| {}, "2026-02-01"), usual, "neither names nor times are part of it");
    assert_ne!(digest(Source { licence: Some("MIT".to_owned()), ..source("a") }, |_| {}, "2026-03-01"), usual);
    assert_ne!(digest(source("a"), |options| options.seed = 1, "2026-04-01"), usual);
}

#[test]
fn sets_are_found_by_name_and_digest() {
    let home = Home::new("names");
    let sets = Sets::new(&home.0);
    let open = |text: &str| sets.open(&text.parse().unwrap()).map(|set| set.manifest.train);
    assert_eq!(open("credit").unwrap_err().to_string(), "there is no data set credit");
    let first = write(&sets, &refined(&[("p", "c")], &[]), &[source("a")], &options(), "2026-01-01");
    let second = write(&sets, &refined(&[("p", "c"), ("q", "d")], &[]), &[source("a")], &options(), "2026-01-02");
    assert_eq!(open("credit").unwrap(), 2);
    assert_eq!(open(&first.manifest.reference().to_string()).unwrap(), 1);
    assert_eq!(open(&format!("credit@{}", first.manifest.digest)).unwrap(), 1);
    assert!(open("credit@ffffffffffffffff").is_err());
    assert_eq!(sets.all().unwrap().len(), 2);
    assert_eq!(second.dropped().unwrap().len(), 1);
    let again = write(&sets, &refined(&[("p", "c")], &[]), &[source("a")], &options(), "2026-01-03");
    assert_eq!(again.manifest, first.manifest, "what stands is not written anew");
    assert_eq!(open("credit").unwrap(), 1, "what was made last is the newest");
    for bad in ["", "a/b", ".a", "a@", "a@xyz", "../a"] {
        assert!(bad.parse::<Reference>().is_err(), "{bad}");
    }
}

/// What an interrupted run left is written over, and never seen.
#[test]
fn half_a_set_is_no_set() {
    let home = Home::new("half");
    let sets = Sets::new(&home.0);
    let whole = write(&sets, &refined(&[("p", "c")], &[]), &[source("a")], &options(), "2026-01-01");
    let draft = sets.folder("credit").join(format!(".{}", &whole.manifest.digest[..DIGITS]));
    fs::rename(&whole.folder, &draft).unwrap();
    fs::write(draft.join("train.jsonl"), "{").unwrap();
    assert!(sets.all().unwrap().is_empty());
    let again = write(&sets, &refined(&[("p", "c")], &[]), &[source("a")], &options(), "2026-01-01");
    assert_eq!(fs::read_to_string(again.train()).unwrap(), "{\"prompt\":\"p\",\"completion\":\"c\"}\n");
    assert!(!draft.exists());
}

#[test]
fn differences() {
    let home = Home::new("diff");
    let sets = Sets::new(&home.0);
    let set = |train: &[(&str, &str)], held: &[(&str, &str)]| {
        write(&sets, &refined(train, held), &[source("a")], &options(), "2026-01-01")
    };
    let before = set(&[("p", "c"), ("q", "d"), ("r", "e")], &[("s", "f")]);
    let check = |after: &Set, [added, removed, changed, moved]: [usize; 4], whats: &[&str]| {
        let found = Difference::of(&before, after, 1).unwrap();
        assert_eq!([found.added, found.removed, found.changed, found.moved], [added, removed, changed, moved]);
        assert_eq!(found.examples.iter().map(|change| change.what.as_str()).collect::<Vec<_>>(), whats);
    };
    check(&before, [0; 4], &[]);
    check(
        &set(&[("p", "other"), ("q", "d"), ("s", "f")], &[("t", "g")]),
        [1, 1, 1, 1],
        &["changed", "removed", "added"],
    );
    check(&set(&[("p", "c"), ("p", "c2"), ("q", "d"), ("r", "e")], &[("s", "f")]), [1, 0, 0, 0], &["added"]);
}
