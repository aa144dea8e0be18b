//! Rules about the text of files. What a rule looks for is spelt in two halves here, or the rule would find itself.

use std::collections::BTreeMap;

use super::SourceFile;

/// Crates that may have features: a feature has one home and is forwarded once in `cli`. That of `train` is MPI, a library of the system's that most
/// machines do not have.
const FEATURE_HOMES: [&str; 4] = ["crates/kernels/", "crates/cluster/", "crates/train/", "crates/cli/"];
/// Crates that never see a wire type.
const COMPUTE_TOWER: [&str; 4] = ["crates/kernels/", "crates/model/", "crates/text/", "crates/engine/"];
/// Hosts of package registries: packages are named by name and found by their tools.
const REGISTRIES: [&str; 7] = [
    concat!("py", "pi.org"),
    concat!("python", "hosted.org"),
    concat!("npm", "js.org"),
    concat!("npm", "js.com"),
    concat!("static.crates", ".io"),
    concat!("index.crates", ".io"),
    concat!("deb.", "debian.org"),
];

/// Complaints about files.
pub(super) fn check(files: &[SourceFile]) -> Vec<String> {
    let mut complaints: Vec<String> = files.iter().flat_map(of_file).collect();
    complaints.extend(lint_tables(files));
    complaints.extend(shelf(files));
    complaints
}

fn of_file(file: &SourceFile) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut complain = |message: String| complaints.push(format!("{}: {message}", file.path));
    if file.path.ends_with(".rs") {
        if !file.text.starts_with("//!") {
            complain("the first line is no `//!` design note: say what this file is for, and why it is so".into());
        }
        if file.path.ends_with("/lib.rs")
            && !file.text.lines().any(|l| l.starts_with("//!") && l.contains("Invariant:"))
        {
            complain("no `Invariant:` in the crate's design note: say what must stay true, best an absence".into());
        }
        code_lines(&file.text, |number, code| {
            if is_feature_gate(code) && !FEATURE_HOMES.iter().any(|home| file.path.starts_with(home)) {
                complain(format!("line {number}: features live in kernels, cluster, train and cli only"));
            }
            if code.contains("openai") && COMPUTE_TOWER.iter().any(|room| file.path.starts_with(room)) {
                complain(format!("line {number}: the compute tower knows no wire types"));
            }
        });
    }
    if file.path != "Cargo.lock" && file.path != "fuzz/Cargo.lock" {
        let named = REGISTRIES.iter().filter(|host| file.text.contains(**host));
        named.for_each(|host| {
            complain(format!("names the package registry {host}: name the package, its tool knows where"))
        });
    }
    complaints
}

/// Calls `each` with every line's number and what of it stands before a comment.
fn code_lines(text: &str, mut each: impl FnMut(usize, &str)) {
    for (i, line) in text.lines().enumerate() {
        each(i + 1, line.split("//").next().unwrap_or_default());
    }
}

fn is_feature_gate(code: &str) -> bool {
    let spaceless: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    spaceless.contains("cfg") && spaceless.contains(concat!("fea", "ture=\""))
}

/// Every library of others that the workspace takes stands on the shelf, with its reason.
fn shelf(files: &[SourceFile]) -> Vec<String> {
    let find = |path: &str| files.iter().find(|f| f.path == path).map_or("", |f| f.text.as_str());
    let written = find("ARCHITECTURE.md").lines().skip_while(|line| *line != "## The shelf").skip(1);
    let rows: Vec<&str> = written.take_while(|line| !line.starts_with("## ")).filter(|l| l.starts_with('|')).collect();
    let in_name = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let named = |name: &str| rows.iter().any(|row| row.split(|c| !in_name(c)).any(|word| word == name));
    let taken = section(find("Cargo.toml"), "[workspace.dependencies]");
    let missing = taken.iter().filter(|(name, value)| !value.contains("path =") && !named(name));
    missing
        .map(|(name, _)| format!("ARCHITECTURE.md: the shelf lacks {name}: say what it is for, and why it"))
        .collect()
}

/// The kernels' lint table is the workspace's but for `unsafe_code`: cargo does not merge the two.
fn lint_tables(files: &[SourceFile]) -> Vec<String> {
    let find = |path: &str| files.iter().find(|f| f.path == path).map_or("", |f| f.text.as_str());
    let (workspace, kernels) = (find("Cargo.toml"), find("crates/kernels/Cargo.toml"));
    let mut complaints = Vec::new();
    for tool in ["rust", "clippy"] {
        let mut ours = section(kernels, &format!("[lints.{tool}]"));
        let mut theirs = section(workspace, &format!("[workspace.lints.{tool}]"));
        ours.remove("unsafe_code");
        theirs.remove("unsafe_code");
        let names: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
        for name in names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name)) {
            let show = |value: Option<&String>| value.map_or("absent".to_owned(), String::clone);
            complaints.push(format!(
                "crates/kernels/Cargo.toml: lint {tool}::{name} is {} here and {} in the workspace: only unsafe_code may differ",
                show(ours.get(name)),
                show(theirs.get(name))
            ));
        }
    }
    complaints
}

/// `name = value` lines below a TOML header, up to the next one.
fn section(toml: &str, header: &str) -> BTreeMap<String, String> {
    let lines = toml.lines().skip_while(|line| line.trim() != header).skip(1).take_while(|line| !line.starts_with('['));
    let pairs = lines.filter_map(|line| line.split('#').next()?.split_once('='));
    pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> Vec<String> {
        check(&[SourceFile { path: path.to_owned(), text: text.to_owned() }])
    }

    #[track_caller]
    fn expect(path: &str, text: &str, part: Option<&str>) {
        let found = complaints(path, text);
        match part {
            None => assert!(found.is_empty(), "{found:?}"),
            Some(part) => assert!(found.len() == 1 && found[0].contains(part), "wanted {part:?}, found {found:?}"),
        }
    }

    #[test]
    fn design_notes() {
        expect("crates/text/src/a.rs", "//! Why.\nfn a() {}\n", None);
        expect("crates/text/src/a.rs", "use std::fmt;\n", Some("design note"));
        expect("crates/text/src/a.rs", "", Some("design note"));
    }

    #[test]
    fn invariants() {
        expect("crates/text/src/lib.rs", "//! Why.\n//!\n//! Invariant: none.\n", None);
        expect("crates/text/src/lib.rs", "//! Why.\n// Invariant: none.\n", Some("Invariant:"));
    }

    #[test]
    fn features() {
        let gate = concat!("//! Why.\n#[cfg(fea", "ture = \"cuda\")]\nfn a() {}\n");
        expect("crates/kernels/src/a.rs", gate, None);
        expect("crates/engine/src/a.rs", gate, Some("line 2: features"));
        expect(
            "crates/engine/src/a.rs",
            concat!("//! Why.\nif cfg!(any(fea", "ture=\"a\", test)) {}\n"),
            Some("features"),
        );
        expect("crates/engine/src/a.rs", "//! Why.\n#[cfg(target_feature = \"avx2\")]\nfn a() {}\n", Some("features"));
        expect("crates/engine/src/a.rs", "//! Why.\n#[cfg(test)]\nfn a() {}\n", None);
    }

    #[test]
    fn wire_types() {
        expect("crates/gateway/src/a.rs", "//! Why.\nuse protocol::openai::ChatRequest;\n", None);
        expect(
            "crates/engine/src/a.rs",
            "//! Why.\nuse protocol::openai::ChatRequest;\n",
            Some("line 2: the compute tower"),
        );
        expect("crates/engine/src/a.rs", "//! Why.\n// As openai does.\n", None);
    }

    #[test]
    fn registries() {
        for host in REGISTRIES {
            expect("docs/a.md", &format!("see https://{host}/x"), Some("package registry"));
            expect("Cargo.lock", host, None);
        }
    }

    #[test]
    fn the_shelf_names_every_library() {
        let file = |path: &str, text: &str| SourceFile { path: path.to_owned(), text: text.to_owned() };
        let cargo = "[workspace.dependencies]\n# ours\ntext = { path = \"crates/text\" }\n# the shelf\nserde = \"1\"\nserde_json = { version = \"1\" }\n\n[profile.dev]\ndebug = 1\n";
        let check = |page: &str, missing: &[&str]| {
            let found = shelf(&[file("Cargo.toml", cargo), file("ARCHITECTURE.md", page)]);
            assert_eq!(found.len(), missing.len(), "{found:?}");
            missing
                .iter()
                .for_each(|name| assert!(found.iter().any(|f| f.contains(&format!("lacks {name}:"))), "{name}"));
        };
        check("## The shelf\n| JSON | serde, serde_json (fast) | |\n## Builds\n", &[]);
        check("## The shelf\n| JSON | serde_json | serde-like |\n", &["serde"]);
        check("serde\n## The shelf\nserde is prose\n## Builds\n| serde_json |\n", &["serde", "serde_json"]);
    }

    #[test]
    fn lint_tables_that_drift() {
        let file = |path: &str, text: &str| SourceFile { path: path.to_owned(), text: text.to_owned() };
        let workspace = "[workspace.lints.rust]\nunsafe_code = \"forbid\" # why\nmissing_docs = \"warn\"\n\n[workspace.lints.clippy]\npanic = \"deny\"\n[profile.dev]\npanic = \"abort\"\n";
        let check = |kernels: &str, count: usize| {
            let found = lint_tables(&[file("Cargo.toml", workspace), file("crates/kernels/Cargo.toml", kernels)]);
            assert_eq!(found.len(), count, "{found:?}");
        };
        check("[lints.rust]\nunsafe_code = \"deny\"\nmissing_docs = \"warn\"\n[lints.clippy]\npanic = \"deny\"\n", 0);
        check("[lints.rust]\nunsafe_code = \"deny\"\nmissing_docs = \"allow\"\n[lints.clippy]\npanic = \"deny\"\n", 1);
        check("[lints.rust]\nmissing_docs = \"warn\"\n", 1);
        check("[lints.rust]\nmissing_docs = \"warn\"\ndead_code = \"allow\"\n[lints.clippy]\npanic = \"deny\"\n", 1);
    }
}
