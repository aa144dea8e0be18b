//! Files as candidates: what is read, what is refused and why, and damage.

use std::sync::Arc;

use parquet::{
    basic::Compression,
    data_type::{ByteArray, ByteArrayType},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};

use super::*;

fn fields(pair: Option<[&str; 2]>, group: &str) -> Fields {
    Fields { pair: pair.map(|pair| pair.map(str::to_owned)), group: group.to_owned() }
}

/// Each row as its place with its first part, or with the reason.
fn told(name: &str, content: &[u8], fields: &Fields) -> Vec<String> {
    let dir = std::env::temp_dir().join(format!("tessera-read-{}-{name}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(name);
    fs::write(&path, content).unwrap();
    let read = read_rows(&path, name, fields);
    fs::remove_dir_all(&dir).unwrap();
    let row = |candidate: Candidate| match candidate {
        Ok(row) => {
            let parts = row.form.parts().iter().map(|(text, _)| *text).collect::<Vec<_>>().join("|");
            format!("{}: {parts} ({})", row.place.at, row.group.unwrap_or_default())
        }
        Err(dropped) => format!("{}: {}", dropped.place.at, dropped.reason),
    };
    match read {
        Ok(file) => file.rows.into_iter().map(row).collect(),
        Err(error) => vec![error.to_string()],
    }
}

/// Expected is what each line must contain.
fn check(name: &str, content: &[u8], fields: &Fields, expected: &[&str]) {
    let found = told(name, content, fields);
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{name}: {found} has no {expected}");
    }
}

#[test]
fn json_lines() {
    let usual = fields(None, "group");
    let lines =
        b"{\"text\":\"a\",\"group\":7}\n\n[1]\n{\"prompt\":\"p\"}\n\xff\n{\"prompt\":\"p\",\"completion\":\"c\"}";
    check(
        "rows.jsonl",
        lines,
        &usual,
        &[
            "line 1: a (7)",
            "line 3: it is no JSON object",
            "line 4: its completion is missing",
            "line 5: it is no JSON",
            "line 6: p|c ()",
        ],
    );
    let renamed = fields(Some(["q", "a"]), "topic");
    let lines = b"{\"q\":\"p\",\"a\":12,\"topic\":\"x\"}\n{\"q\":\"p\"}\n";
    check("rows.jsonl", lines, &renamed, &["line 1: p|12 (x)", "line 2: it has no `a`"]);
}

#[test]
fn tables() {
    let usual = fields(None, "group");
    let csv = "prompt,completion,group\n\"two,\nlines\",c,g\np\np,\n";
    check(
        "rows.csv",
        csv.as_bytes(),
        &usual,
        &["line 2: two,\nlines|c (g)", "line 4: it has 1 fields, the head 3", "line 5: it has 2 fields"],
    );
    check("rows.csv", b"q,a\np,\n", &fields(Some(["q", "a"]), "g"), &["line 2: it has no `a`"]);
    check("rows.csv", b"q,a\n\xff,b\n", &fields(Some(["q", "a"]), "g"), &["line 2: it cannot be read"]);
    check("rows.tsv", b"text\tgroup\nhello\tg\n", &usual, &["line 2: hello (g)"]);
    check("rows.csv", b"", &usual, &[]);
}

/// A file of two columns of texts.
fn parquet_file(rows: &[[&str; 2]]) -> Vec<u8> {
    let schema = "message schema { REQUIRED BINARY prompt (UTF8); REQUIRED BINARY completion (UTF8); }";
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for column in 0..2 {
        let values: Vec<ByteArray> = rows.iter().map(|row| row[column].into()).collect();
        let mut open = group.next_column().unwrap().unwrap();
        open.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        open.close().unwrap();
    }
    group.close().unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn parquet_files() {
    let usual = fields(None, "group");
    let file = parquet_file(&[["p", "c"], ["q", ""]]);
    check("rows.parquet", &file, &usual, &["row 1: p|c ()", "row 2: its completion is missing"]);
    check(
        "rows.parquet",
        &file[..file.len() - 5],
        &usual,
        &["rows.parquet: it is no Parquet file that can be read here"],
    );
    check("rows.parquet", b"PAR1", &usual, &["it is no Parquet file"]);
}

/// Damage in the part that describes a file is an error, also where the library panics, and never a fault.
#[test]
fn damaged_parquet_files_are_refused() {
    let file = parquet_file(&[["a prompt", "a completion"], ["another", "one"]]);
    let footer = u32::from_le_bytes(file[file.len() - 8..file.len() - 4].try_into().unwrap()) as usize;
    let damaged = (file.len() - 8 - footer..file.len()).map(|at| {
        let mut damaged = file.clone();
        damaged[at] = !damaged[at];
        parquet(damaged)
    });
    let refused = damaged.filter(Result::is_err).count();
    assert!(refused > footer / 2, "{refused} of {footer} bytes were missed");
}
