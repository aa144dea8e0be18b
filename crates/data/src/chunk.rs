//! Documents in pieces that can be learned or asked about: along their headings, and where a section is long, along its paragraphs.
//!
//! HTML becomes Markdown first, so that there is one idea of a heading. A piece begins with its heading, so that it says what it is about.

use std::{fs, path::Path};

use crate::{Error, row::sha256};

/// Characters of the longest piece; a paragraph that is longer is cut at the end of a sentence or a word.
const LONGEST: usize = 2000;
/// Letters below which a piece says too little to be asked about.
const LEAST: usize = 80;

/// A piece of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where it stands: its heading and the line that it begins at, in the document or, of HTML, in its Markdown.
    pub at: String,
    /// What it says, its heading first.
    pub text: String,
}

impl Chunk {
    /// What identifies it.
    pub fn digest(&self) -> String {
        sha256(format!("{}\0{}", self.at, self.text).as_bytes())
    }
}

/// Ends of file names that [`read_chunks`] knows.
pub const DOCUMENTS: [&str; 5] = ["txt", "md", "markdown", "html", "htm"];

/// The pieces of a document: Markdown, HTML or plain text, by its name's end.
///
/// # Errors
/// A file that cannot be read or is no UTF-8 text.
pub fn read_chunks(path: &Path) -> Result<Vec<Chunk>, Error> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(failed)?;
    let end = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    Ok(match end.as_str() {
        "html" | "htm" => chunks_of_html(&text).map_err(failed)?,
        "txt" => sections_cut(vec![Section { line: 1, heading: "", body: &text }]),
        _ => chunks(&text),
    })
}

/// The pieces of a text in HTML.
///
/// # Errors
/// Those of the library that turns it into Markdown.
pub fn chunks_of_html(html: &str) -> std::io::Result<Vec<Chunk>> {
    Ok(chunks(&markdown(html)?))
}

fn markdown(html: &str) -> std::io::Result<String> {
    htmd::HtmlToMarkdown::builder().skip_tags(vec!["script", "style", "head", "nav", "footer"]).build().convert(html)
}

/// The pieces of a text in Markdown.
pub fn chunks(markdown: &str) -> Vec<Chunk> {
    sections_cut(sections(markdown))
}

/// What stands below a heading.
struct Section<'a> {
    line: usize,
    heading: &'a str,
    body: &'a str,
}

/// Headings are lines with up to six `#`, outside of code.
fn sections(text: &str) -> Vec<Section<'_>> {
    let mut sections = vec![Section { line: 1, heading: "", body: "" }];
    let (mut fenced, mut from, mut at) = (false, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        fenced ^= line.trim_start().starts_with("```");
        if let Some(heading) = heading(line).filter(|_| !fenced) {
            end(&mut sections, &text[from..at]);
            sections.push(Section { line: number + 1, heading, body: "" });
            from = at + line.len();
        }
        at += line.len();
    }
    end(&mut sections, &text[from..]);
    sections
}

fn end<'a>(sections: &mut [Section<'a>], body: &'a str) {
    if let Some(last) = sections.last_mut() {
        last.body = body;
    }
}

fn heading(line: &str) -> Option<&str> {
    let text = line.trim_start_matches('#');
    let level = line.len() - text.len();
    ((1..=6).contains(&level) && text.starts_with(' ')).then(|| text.trim())
}

fn sections_cut(sections: Vec<Section<'_>>) -> Vec<Chunk> {
    sections.into_iter().flat_map(cut).collect()
}

/// A section in pieces, none longer than [`LONGEST`] but for its heading.
fn cut(Section { line, heading, body }: Section<'_>) -> Vec<Chunk> {
    let mut pieces: Vec<(usize, String)> = Vec::new();
    for (start, paragraph) in paragraphs(body) {
        for (offset, part) in parts(paragraph) {
            let fits = |last: &(usize, String)| last.1.chars().count() + part.chars().count() + 2 <= LONGEST;
            match pieces.last_mut().filter(|last| fits(last)) {
                Some((_, piece)) => *piece += &format!("\n\n{part}"),
                None => pieces.push((line_of(body, start + offset), part.to_owned())),
            }
        }
    }
    let told = |text: &str| text.chars().filter(|c| c.is_alphabetic()).take(LEAST).count() == LEAST;
    let pieces = pieces.into_iter().filter(|(_, text)| told(text));
    let name = if heading.is_empty() { String::new() } else { format!("{heading}, ") };
    let first = line + usize::from(!heading.is_empty());
    let piece = |(at, text): (usize, String)| Chunk {
        at: format!("{name}line {}", first + at),
        text: if heading.is_empty() { text } else { format!("{heading}\n\n{text}") },
    };
    pieces.map(piece).collect()
}

/// How many lines end before a place.
fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count()
}

/// What empty lines divide, each with where it begins.
fn paragraphs(text: &str) -> Vec<(usize, &str)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    let (mut at, mut open) = (0, false);
    for line in text.split_inclusive('\n') {
        if line.trim().is_empty() {
            open = false;
        } else if open {
            found.last_mut().into_iter().for_each(|last| last.1 = at + line.len());
        } else {
            found.push((at, at + line.len()));
            open = true;
        }
        at += line.len();
    }
    found.into_iter().map(|(from, to)| (from, text[from..to].trim_end())).collect()
}

/// A paragraph in parts of at most [`LONGEST`] characters.
fn parts(paragraph: &str) -> Vec<(usize, &str)> {
    let (mut parts, mut from) = (Vec::new(), 0);
    while let Some((limit, _)) = paragraph[from..].char_indices().nth(LONGEST) {
        let room = &paragraph[from..from + limit];
        let sentence = room.rfind(". ").map(|at| at + 2);
        let ideographic = room.rfind('。').map(|at| at + '。'.len_utf8());
        let word = || room.rfind(char::is_whitespace).map(|at| at + 1);
        let end = sentence.max(ideographic).or_else(word).filter(|at| room.is_char_boundary(*at)).unwrap_or(limit);
        parts.push((from, paragraph[from..from + end].trim_end()));
        from += end;
    }
    parts.push((from, &paragraph[from..]));
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pieces_follow_headings() {
        let check = |text: &str, expected: &[(&str, &str)]| {
            let found = chunks(text);
            let found: Vec<_> = found.iter().map(|c| (c.at.as_str(), &c.text[..c.text.len().min(12)])).collect();
            assert_eq!(found, expected, "{text}");
        };
        let words = "Fees are due on the first day of every month and are paid by transfer to the account that is named in the contract.";
        check(words, &[("line 1", "Fees are due")]);
        check(&format!("# Fees\n\n{words}\n"), &[("Fees, line 3", "Fees\n\nFees a")]);
        check(
            &format!("{words}\n# Empty\n## More\n{words}"),
            &[("line 1", "Fees are due"), ("More, line 4", "More\n\nFees a")],
        );
        check("# Short\n\nToo little.", &[]);
        check(&format!("```\n# no heading\n```\n{words}"), &[("line 1", "```\n# no hea")]);
        check(&format!("#hash {words}"), &[("line 1", "#hash Fees a")]);
    }

    #[test]
    fn html_is_read_as_its_text() {
        let words = "Every tenant may end the contract with a notice of three months, counted from the end of the running quarter.";
        let html = format!(
            "<html><head><title>no</title><script>bad()</script></head><body><h2>Notice</h2><p>{words}</p>\
             <p>Q&amp;A</p></body></html>"
        );
        let found = chunks_of_html(&html).unwrap();
        assert_eq!(found, [Chunk { at: "Notice, line 3".to_owned(), text: format!("Notice\n\n{words}\n\nQ&A") }]);
    }

    proptest! {
        /// Nothing is lost but what is too short, nothing is longer than it may be, and any text can be cut.
        #[test]
        fn any_text_is_cut(text in "([a-zé。 .]{0,900}\n{0,2}|# [a-z]{1,5}\n|```\n){0,12}") {
            let found = chunks(&text);
            for chunk in &found {
                let heading = chunk.at.rsplit_once(", ").map_or(0, |(heading, _)| heading.chars().count() + 2);
                prop_assert!(chunk.text.chars().count() <= LONGEST + heading);
            }
            let longest = "abcdefgh ".repeat(1000);
            let whole: String = parts(&longest).iter().map(|(_, part)| part.replace(' ', "")).collect();
            prop_assert_eq!(whole, longest.replace(' ', ""));
        }
    }
}
