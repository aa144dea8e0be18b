//! Sizes of files and functions, told and never failed on: a table may be long, and so may a test.
//!
//! Lines are counted that hold code: no blank lines, no comments. Functions are found by a scanner that knows strings,
//! characters, lifetimes and comments, which is all that can disturb the count of braces; no parser is needed for that.

use std::fmt::Write;

use super::SourceFile;

/// Code lines above which a file is named.
const LONG_FILE: usize = 800;
/// Code lines up to which a function is short.
const SHORT_FUNCTION: usize = 25;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 6] = ["utils.rs", "util.rs", "helpers.rs", "helper.rs", "common.rs", "misc.rs"];

/// A function and how many code lines it has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Function {
    place: String,
    lines: usize,
}

pub(super) fn report(files: &[SourceFile]) -> String {
    let rust: Vec<_> = files.iter().filter(|f| f.path.ends_with(".rs")).map(|f| (f, blank(&f.text))).collect();
    let mut sizes: Vec<(usize, &str)> = rust.iter().map(|(f, code)| (count(code), f.path.as_str())).collect();
    let mut functions: Vec<Function> = rust.iter().flat_map(|(f, code)| functions(&f.path, code)).collect();
    sizes.sort_unstable();
    functions.sort_by_key(|f| f.lines);
    let mut text = String::new();
    let total: usize = sizes.iter().map(|s| s.0).sum();
    let file = |share| at(&sizes, share).map_or(0, |s| s.0);
    let function = |share| at(&functions, share).map_or(0, |f| f.lines);
    let short = functions.iter().filter(|f| f.lines <= SHORT_FUNCTION).count();
    let share = 100.0 * short as f64 / functions.len().max(1) as f64;
    // Writing to a string cannot fail.
    let _ =
        writeln!(text, "{} files, {total} code lines; lines per file p50 {} p90 {}", sizes.len(), file(0.5), file(0.9));
    let _ = writeln!(
        text,
        "{} functions; lines p50 {} p90 {}, {share:.1} % within {SHORT_FUNCTION}",
        functions.len(),
        function(0.5),
        function(0.9)
    );
    for f in functions.iter().rev().take(5).filter(|f| f.lines > SHORT_FUNCTION) {
        let _ = writeln!(text, "  long function: {} has {} lines", f.place, f.lines);
    }
    for (lines, path) in sizes.iter().filter(|s| s.0 > LONG_FILE) {
        let _ = writeln!(text, "  long file: {path} has {lines} code lines");
    }
    for (f, _) in rust.iter().filter(|(f, _)| EMPTY_NAMES.iter().any(|name| f.path.ends_with(&format!("/{name}")))) {
        let _ = writeln!(text, "  {}: the name says nothing; name it after what is inside", f.path);
    }
    text
}

fn at<T>(sorted: &[T], share: f64) -> Option<&T> {
    sorted.get((sorted.len().saturating_sub(1) as f64 * share).round() as usize)
}

fn count(code: &str) -> usize {
    code.lines().filter(|line| !line.trim().is_empty()).count()
}

/// The text with comments as spaces and what stands between quotes as `_`, line by line as before.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (len, fill) = token(rest, out.chars().next_back());
        let len = if len == 0 { first.len_utf8() } else { len };
        let (piece, left) = rest.split_at(len);
        out.extend(piece.chars().map(|c| if c == '\n' { c } else { fill.unwrap_or(c) }));
        rest = left;
    }
    out
}

/// The length of the comment or literal that `rest` starts with, and what to put in its place; nothing for other text.
fn token(rest: &str, before: Option<char>) -> (usize, Option<char>) {
    let after_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), Some(' '));
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), Some(' '));
    }
    if !after_word && let Some(len) = raw_string(rest) {
        return (len, Some('_'));
    }
    if let Some(inner) = rest.strip_prefix('"') {
        return (1 + quoted(inner, '"'), Some('_'));
    }
    if rest.starts_with('\'')
        && let Some(len) = character(rest)
    {
        return (len, Some('_'));
    }
    (0, None)
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut i) = (0, 0);
    let bytes = rest.as_bytes();
    while i < bytes.len() {
        match &bytes[i..bytes.len().min(i + 2)] {
            b"/*" => (depth, i) = (depth + 1, i + 2),
            b"*/" => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

fn raw_string(rest: &str) -> Option<usize> {
    let marks = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = marks.len() - marks.trim_start_matches('#').len();
    let inner = marks[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let len = inner.find(&end).map_or(inner.len(), |i| i + end.len());
    Some(rest.len() - inner.len() + len)
}

/// Bytes up to and including the closing quote.
fn quoted(inner: &str, quote: char) -> usize {
    let mut escaped = false;
    for (i, c) in inner.char_indices() {
        if c == quote && !escaped {
            return i + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    inner.len()
}

/// A character literal, not a lifetime.
fn character(rest: &str) -> Option<usize> {
    let inner = &rest[1..];
    if inner.starts_with('\\') {
        return Some(1 + quoted(inner, '\''));
    }
    let mut chars = inner.chars();
    let first = chars.next()?;
    (chars.next() == Some('\'')).then(|| 1 + first.len_utf8() + 1)
}

fn functions(path: &str, code: &str) -> Vec<Function> {
    let starts =
        code.match_indices("fn ").filter(|(i, _)| !code[..*i].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
    let found = starts.filter_map(|(i, _)| {
        let name: String = code[i + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let body = body(&code[i..])?;
        let line = code[..i].lines().count().max(1);
        (!name.is_empty()).then(|| Function { place: format!("{path}:{line} {name}"), lines: count(body) })
    });
    found.collect()
}

/// From `fn` to the closing brace; `None` for a declaration without a body.
fn body(code: &str) -> Option<&str> {
    // A `;` inside brackets is an array's length, not the end of a declaration.
    let (mut braces, mut brackets) = (0usize, 0usize);
    for (i, c) in code.char_indices() {
        match c {
            '[' | '(' => brackets += 1,
            ']' | ')' => brackets = brackets.saturating_sub(1),
            ';' if braces == 0 && brackets == 0 => return None,
            '{' => braces += 1,
            '}' if braces == 1 => return Some(&code[..=i]),
            '}' => braces = braces.saturating_sub(1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> SourceFile {
        SourceFile { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn comments_and_literals_are_blanked() {
        let check = |text: &str, want: &str| assert_eq!(blank(text), want);
        check("a // {\nb", "a     \nb");
        check("/* { /* { */ } */ c", "                  c");
        check("\"a\\\"{\" + '{' + '\\'' + x", "______ + ___ + ____ + x");
        check("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)");
        check("r#\"{\"\"# + br\"{\" + for_r", "_______ + _____ + for_r");
        check("'é'", "___");
    }

    #[test]
    fn functions_are_found_with_their_lines() {
        let text = "trait T {\n    fn declared(&self, x: [u8; 3]);\n}\nfn long(\n    a: u8,\n) {\n    // why\n\n    if a > 1 { \"}\" } else { '}' };\n}\nfn short() {}\n";
        let found: Vec<_> = functions("a.rs", &blank(text)).into_iter().map(|f| (f.place, f.lines)).collect();
        assert_eq!(found, [("a.rs:3 long".to_owned(), 5), ("a.rs:10 short".to_owned(), 1)]);
    }

    #[test]
    fn what_is_long_or_badly_named_is_told() {
        let long = format!("fn f() {{\n{}}}\n", "    x();\n".repeat(30));
        let found = report(&[file("a/utils.rs", &long), file("a/b.rs", &"use x;\n".repeat(801))]);
        for part in
            ["f has 32 lines", "a/b.rs has 801 code lines", "a/utils.rs: the name says nothing", "0.0 % within 25"]
        {
            assert!(found.contains(part), "{part}: {found}");
        }
    }
}
