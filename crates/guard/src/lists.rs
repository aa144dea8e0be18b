//! Word lists as people write them: `[name]` begins a section, `#` a comment, and words stand between commas.

/// A section of a list.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    pub(crate) name: &'a str,
    /// Its lines, without comments and empty ones.
    pub(crate) lines: Vec<&'a str>,
}

impl<'a> Section<'a> {
    /// The words between commas.
    pub(crate) fn words(&self) -> impl Iterator<Item = &'a str> {
        self.lines.iter().flat_map(|line| line.split(',')).map(str::trim).filter(|word| !word.is_empty())
    }
}

/// The sections of a list, in order.
pub(crate) fn sections(text: &str) -> Vec<Section<'_>> {
    let mut sections = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            sections.push(Section { name, lines: Vec::new() });
        } else if let Some(section) = sections.last_mut() {
            section.lines.push(line);
        }
    }
    sections
}
