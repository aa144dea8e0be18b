//! Which crate may depend on which. A new edge is a line in this table, and so a thing to review.

use serde_json::Value;

/// The rooms and what they may use. `*` is everything.
const ALLOWED: [(&str, &[&str]); 18] = [
    ("protocol", &[]),
    ("hub", &[]),
    ("kernels", &[]),
    ("text", &[]),
    ("model", &["kernels"]),
    ("engine", &["protocol", "text", "model", "kernels"]),
    ("diffusion", &["protocol", "text", "model", "kernels"]),
    ("reason", &["protocol"]),
    ("guard", &["protocol", "text"]),
    ("ledger", &["protocol"]),
    ("services", &["protocol", "ledger", "guard"]),
    ("gateway", &["services", "protocol", "ledger", "guard"]),
    ("cluster", &["protocol", "model", "kernels"]),
    ("data", &["protocol", "text", "guard", "ledger"]),
    ("train", &["protocol", "kernels", "model", "data", "text"]),
    ("eval", &["protocol", "data", "guard"]),
    ("cli", &["*"]),
    ("xtask", &[]),
];

/// Edges that only tests have.
const ALLOWED_IN_TESTS: [(&str, &str); 0] = [];

/// Complaints about the edges in the output of `cargo metadata`.
pub(super) fn check(metadata: &Value) -> Vec<String> {
    let none = Vec::new();
    let packages = metadata["packages"].as_array().unwrap_or(&none);
    let ours: Vec<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    packages.iter().flat_map(|package| of_package(package, &ours)).collect()
}

fn of_package(package: &Value, ours: &[&str]) -> Vec<String> {
    let name = package["name"].as_str().unwrap_or_default();
    let Some((_, allowed)) = ALLOWED.iter().find(|(crate_name, _)| *crate_name == name) else {
        return vec![format!("{name}: this crate is not in the table of allowed edges (xtask/src/tidy/edges.rs)")];
    };
    let none = Vec::new();
    let dependencies = package["dependencies"].as_array().unwrap_or(&none);
    let forbidden = dependencies.iter().filter_map(|dependency| {
        let on = dependency["name"].as_str().filter(|on| ours.contains(on))?;
        let in_tests = dependency["kind"] == "dev" && (on == name || ALLOWED_IN_TESTS.contains(&(name, on)));
        let fine = in_tests || allowed.contains(&"*") || allowed.contains(&on);
        (!fine).then(|| format!("{name} -> {on}: not an edge that the table allows (xtask/src/tidy/edges.rs)"))
    });
    forbidden.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn edges() {
        let check = |name: &str, dependency: Value, complaints: usize| {
            let packages =
                ["protocol", "engine", "kernels", "model", "cli"].map(|n| json!({"name": n, "dependencies": []}));
            let mut packages = packages.to_vec();
            packages.push(json!({"name": name, "dependencies": [dependency]}));
            let found = check(&json!({ "packages": packages }));
            assert_eq!(found.len(), complaints, "{name}: {found:?}");
        };
        check("model", json!({"name": "kernels", "kind": null}), 0);
        check("engine", json!({"name": "serde", "kind": null}), 0);
        check("cli", json!({"name": "engine", "kind": null}), 0);
        check("kernels", json!({"name": "model", "kind": null}), 1);
        check("gateway", json!({"name": "engine", "kind": null}), 1);
        check("gateway", json!({"name": "engine", "kind": "dev"}), 1);
        check("xtask", json!({"name": "protocol", "kind": "build"}), 1);
        check("common", json!({"name": "serde", "kind": null}), 1);
    }

    #[test]
    fn the_table_has_no_cycle() {
        // Every crate stands after all it may use, but for the composition root and the chores.
        let place = |name: &str| ALLOWED.iter().position(|(n, _)| *n == name);
        for (name, uses) in &ALLOWED[..16] {
            assert!(uses.iter().all(|used| place(used) < place(name)), "{name} uses {uses:?}");
        }
    }
}
