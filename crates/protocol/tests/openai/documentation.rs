//! The field tables of docs/api.md are those of the code.

use expect_test::expect_file;
use protocol::{
    anthropic,
    openai::fields::{OBJECTS, Object},
};

const MARK: &str = "<!-- The tables below are generated";

fn table(object: &Object) -> String {
    let mut out = format!("\n### {}\n\n| field | | |\n|---|---|---|\n", object.schema);
    for field in object.fields {
        let name = if field.extension { format!("*`{}`*", field.name) } else { format!("`{}`", field.name) };
        out += &format!("| {name} | {} | {} |\n", field.fate.word(), field.note);
    }
    out
}

#[test]
fn documentation_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api.md");
    let page = std::fs::read_to_string(path).unwrap();
    let mark = page.find(MARK).expect("the mark in front of the tables");
    let line = page[mark..].lines().next().unwrap();
    let tables: String = OBJECTS.iter().chain(anthropic::fields::OBJECTS).map(|object| table(object)).collect();
    expect_file![path].assert_eq(&format!("{}{line}\n{tables}", &page[..mark]));
}
