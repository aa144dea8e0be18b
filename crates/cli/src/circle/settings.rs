//! What a lap changes in the settings file, as a person would change it: comments and order stay, and nothing is written that would be refused.

use std::{fs, path::Path};

use anyhow::{Context, ensure};
use gateway::{
    laps::{Lap, Outcome},
    settings::{Loop, Settings},
};
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value, value};

use super::{Place, steps};

/// Has the server load the lap's model of its own, if it made one.
pub(super) fn serve(place: &Place, lap: &Lap) -> anyhow::Result<()> {
    let offered = Offered::of(place, lap)?;
    change(&place.file, |text| offered.load(text))
}

/// Offers the lap's cascade as the rollout's canary.
pub(super) fn offer(place: &Place, lap: &Lap) -> anyhow::Result<()> {
    let offered = Offered::of(place, lap)?;
    change(&place.file, |text| offered.begin(text))
}

/// Takes the canary out again: what was promoted becomes the only version, anything else is forgotten. Nothing happens if it was not offered.
pub(super) fn settle(place: &Place, lap: &Lap, outcome: &Outcome) -> anyhow::Result<()> {
    let offered = Offered::of(place, lap)?;
    change(&place.file, |text| match outcome {
        Outcome::Promoted => offered.promote(text),
        Outcome::RolledBack { .. } | Outcome::Stopped { .. } => offered.withdraw(text),
    })
}

/// Writes the file anew, whole or not at all, if that would be accepted.
fn change(file: &Path, edit: impl FnOnce(&str) -> anyhow::Result<String>) -> anyhow::Result<()> {
    let old = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let new = edit(&old)?;
    if new == old {
        return Ok(());
    }
    let mistakes = Settings::parse(&new).err().unwrap_or_default();
    let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    ensure!(told.is_empty(), "{} would be wrong after the change: {}", file.display(), told.join("; "));
    let beside = file.with_extension("toml.new");
    let written =
        fs::write(&beside, new).and_then(|()| fs::set_permissions(&beside, fs::metadata(file)?.permissions()));
    written.and_then(|()| fs::rename(&beside, file)).with_context(|| format!("cannot write {}", file.display()))
}

/// What is offered, and where.
#[derive(Debug)]
struct Offered<'a> {
    section: &'a Loop,
    /// The cascade's name.
    cascade: String,
    student: String,
    /// The student is a model of its own, which the server has to load.
    distilled: bool,
    calibration: String,
}

impl<'a> Offered<'a> {
    fn of(place: &'a Place, lap: &Lap) -> anyhow::Result<Self> {
        let calibration = steps::calibration(place, lap);
        let calibration = calibration.to_str().context("the path of the calibration is not UTF-8")?.to_owned();
        let student = steps::student(place, lap).unwrap_or_default();
        let distilled = steps::distilled(place, lap).is_some();
        Ok(Self { section: &place.section, cascade: steps::name(place, lap), student, distilled, calibration })
    }

    fn load(&self, text: &str) -> anyhow::Result<String> {
        let mut document: DocumentMut = text.parse()?;
        if self.distilled {
            let models = document.entry("models").or_insert_with(toml_edit::table);
            let models = models.as_table_like_mut().context("write models as a table, [models]")?;
            let students = models.entry("students").or_insert_with(|| value(Array::new()));
            let students = students.as_array_mut().context("write models.students as a list")?;
            if !students.iter().any(|name| name.as_str() == Some(&self.student)) {
                students.push(&self.student);
            }
        }
        Ok(document.to_string())
    }

    fn begin(&self, text: &str) -> anyhow::Result<String> {
        let mut document: DocumentMut = text.parse()?;
        if !tables(&mut document, "cascades")?.iter().any(|table| is(table, &self.cascade)) {
            let mut cascade = Table::new();
            let teacher = &self.section.teacher;
            let pairs = [("student", &self.student), ("teacher", teacher), ("calibration", &self.calibration)];
            cascade.insert("model", value(&self.cascade));
            pairs.into_iter().for_each(|(key, text)| drop(cascade.insert(key, value(text))));
            tables(&mut document, "cascades")?.push(cascade);
        }
        self.rollout(&mut document)?.insert("canary", value(&self.cascade));
        Ok(document.to_string())
    }

    /// The cascade is the only version, and those of earlier laps that nothing else names go.
    fn promote(&self, text: &str) -> anyhow::Result<String> {
        let mut document: DocumentMut = text.parse()?;
        let rollout = self.rollout(&mut document)?;
        let only: InlineTable = [(self.cascade.as_str(), Value::from(100))].into_iter().collect();
        rollout.insert("versions", value(only));
        rollout.remove("canary");
        let earlier =
            |table: &Table| table["model"].as_str().is_some_and(|model| self.is_ours(model) && model != self.cascade);
        tables(&mut document, "cascades")?.retain(|table| !earlier(table));
        self.unload(&mut document, |name| name != self.student);
        Ok(document.to_string())
    }

    /// A lap of this loop is called so.
    fn is_ours(&self, name: &str) -> bool {
        let number = name.strip_prefix(&self.section.name).and_then(|rest| rest.strip_prefix('-'));
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    }

    /// Takes out those of this loop's students that are meant.
    fn unload(&self, document: &mut DocumentMut, meant: impl Fn(&str) -> bool) {
        let students = document.get_mut("models").and_then(|models| models.get_mut("students"));
        if let Some(students) = students.and_then(Item::as_array_mut) {
            let is_ours = |name: &str| name.strip_suffix(steps::STUDENT).is_some_and(|lap| self.is_ours(lap));
            students.retain(|name| !name.as_str().is_some_and(|name| is_ours(name) && meant(name)));
        }
    }

    fn withdraw(&self, text: &str) -> anyhow::Result<String> {
        let mut document: DocumentMut = text.parse()?;
        let rollout = self.rollout(&mut document)?;
        if rollout.get("canary").and_then(Item::as_str) == Some(&self.cascade) {
            rollout.remove("canary");
        }
        if document.contains_key("cascades") {
            tables(&mut document, "cascades")?.retain(|table| !is(table, &self.cascade));
        }
        self.unload(&mut document, |name| name == self.student);
        Ok(document.to_string())
    }

    fn rollout<'d>(&self, document: &'d mut DocumentMut) -> anyhow::Result<&'d mut Table> {
        let name = &self.section.rollout;
        let found = tables(document, "rollouts")?.iter_mut().find(|table| is(table, name));
        found.with_context(|| format!("there is no [[rollouts]] with model = {name:?}"))
    }
}

fn is(table: &Table, model: &str) -> bool {
    table.get("model").and_then(Item::as_str) == Some(model)
}

/// The tables of this name, `[[name]]`.
fn tables<'d>(document: &'d mut DocumentMut, name: &str) -> anyhow::Result<&'d mut ArrayOfTables> {
    let item = document.entry(name).or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    item.as_array_of_tables_mut().with_context(|| format!("write {name} as tables, each under [[{name}]]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# ours\n[[upstreams]]\nname = \"big\"\nurl = \"http://127.0.0.1:1\"\nmodels = { large = \"x\" }\n\n\
                          [[rollouts]]\nmodel = \"assistant\" # what callers say\nversions = { large = 100 }\n\n\
                          [[loops]]\nname = \"credit\"\nrollout = \"assistant\"\nteacher = \"large\"\nbase = \"smollm2\"\n";

    fn offered(section: &Loop, lap: u32) -> Offered<'_> {
        let cascade = format!("credit-{lap}");
        let student = format!("smollm2:{cascade}");
        Offered { section, student, distilled: false, calibration: "/c.json".to_owned(), cascade }
    }

    fn distilled(section: &Loop, lap: u32) -> Offered<'_> {
        Offered { student: format!("credit-{lap}-student"), distilled: true, ..offered(section, lap) }
    }

    fn settings(text: &str) -> Settings {
        Settings::parse(text).unwrap_or_else(|mistakes| panic!("{mistakes:?}\n{text}"))
    }

    #[test]
    fn a_lap_comes_and_goes_and_comments_stay() {
        let section = settings(BEFORE).loops.remove(0);
        let (first, second) = (offered(&section, 1), offered(&section, 2));
        let begun = first.begin(BEFORE).unwrap();
        assert_eq!(settings(&begun).rollouts[0].canary, "credit-1");
        assert_eq!(settings(&begun).cascades[0].student, "smollm2:credit-1");
        assert_eq!(first.begin(&begun).unwrap(), begun, "a second time changes nothing");
        let left = settings(&first.withdraw(&begun).unwrap());
        assert_eq!(left, settings(BEFORE), "as if it had never been");
        let promoted = first.promote(&begun).unwrap();
        assert!(promoted.contains("# ours") && promoted.contains("# what callers say"), "{promoted}");
        assert_eq!(settings(&promoted).rollouts[0].versions, [("credit-1".to_owned(), 100)].into());
        let next = second.begin(&promoted).unwrap();
        assert_eq!(settings(&next).cascades.len(), 2, "the old one answers while the new one is tried");
        let done = settings(&second.promote(&next).unwrap());
        assert_eq!(done.cascades.len(), 1);
        assert_eq!((&*done.cascades[0].model, &*done.rollouts[0].canary), ("credit-2", ""));
    }

    #[test]
    fn a_model_of_its_own_is_loaded_until_another_takes_over() {
        let before = format!("{BEFORE}[models]\nstudents = [\"theirs\", \"credit-de-1-student\"] # by hand\n");
        let section = settings(&before).loops.remove(0);
        let (first, second) = (distilled(&section, 1), distilled(&section, 2));
        let students = |text: &str| settings(text).models.students.join(" ");
        let loaded = first.load(&before).unwrap();
        assert_eq!(students(&loaded), "theirs credit-de-1-student credit-1-student");
        assert_eq!(first.load(&loaded).unwrap(), loaded, "a second time changes nothing");
        assert_eq!(settings(&first.withdraw(&loaded).unwrap()), settings(&before), "as if it had never been");
        let promoted = first.promote(&first.begin(&loaded).unwrap()).unwrap();
        assert_eq!(settings(&promoted).cascades[0].student, "credit-1-student");
        let next = second.begin(&second.load(&promoted).unwrap()).unwrap();
        assert_eq!(students(&next), "theirs credit-de-1-student credit-1-student credit-2-student");
        let done = second.promote(&next).unwrap();
        assert_eq!(students(&done), "theirs credit-de-1-student credit-2-student");
        assert!(done.contains("# by hand"), "{done}");
        assert_eq!(students(&first.load(BEFORE).unwrap()), "credit-1-student", "where nothing stood");
        assert_eq!(offered(&section, 1).load(BEFORE).unwrap(), BEFORE, "an adapter needs no loading");
    }

    #[test]
    fn what_cannot_be_changed_is_said() {
        let section = settings(BEFORE).loops.remove(0);
        let lap = offered(&section, 1);
        let check = |text: &str, word: &str| {
            let error = lap.begin(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        };
        check("", "no [[rollouts]]");
        check("rollouts = []", "[[rollouts]]");
        check("cascades = []", "[[cascades]]");
    }
}
