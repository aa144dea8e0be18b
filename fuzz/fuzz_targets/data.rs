//! Any bytes as a file of rows, of every layout that is read here, and as a document: rows or reasons come out, and a row reads back as itself.

#![no_main]

use data::{Fields, Layout};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let pair = bytes.first().is_some_and(|byte| byte % 2 == 1).then(|| ["q", "a"].map(str::to_owned));
    let fields = Fields { pair, group: "g".to_owned() };
    // Parquet is left out: the library's panics are caught where it is called, and a fuzzer counts them nevertheless.
    for layout in [Layout::Jsonl, Layout::Csv, Layout::Tsv] {
        let Ok(rows) = data::rows(bytes.to_vec(), layout, "file", &fields) else { continue };
        for mut row in rows.into_iter().flatten() {
            assert_eq!(data::parse_value(row.form.to_json()).as_ref(), Ok(&row.form));
            let parts = row.form.parts().len();
            let mut seen = 0;
            row.form.rewrite(|_| {
                seen += 1;
                None
            });
            assert_eq!(parts, seen);
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for chunk in data::chunks(text) {
        assert!(!chunk.text.is_empty());
    }
    let _ = data::chunks_of_html(text);
});
