//! Spellings that people read and a list of words does not.

type Disguise = fn(&str) -> String;

/// Every disguise with its name.
pub(crate) const DISGUISES: [(&str, Disguise); 8] = [
    ("none", str::to_owned),
    ("leetspeak", |text| each(text, |c| swap(c, "aeiost", "@31057"))),
    ("Cyrillic and Greek look-alikes", |text| each(text, |c| swap(c, "aceopxyi", "асеорхуі"))),
    ("zero-width characters", |text| text.chars().flat_map(|c| [c, '\u{200b}']).collect()),
    ("full-width", |text| {
        each(text, |c| if c.is_ascii_graphic() { char::from_u32(c as u32 + 0xfee0).unwrap_or(c) } else { c })
    }),
    ("mathematical bold", |text| each(text, bold)),
    ("spaced out", |text| text.chars().flat_map(|c| [c, ' ']).collect()),
    ("dots between letters", |text| text.split(' ').map(dotted).collect::<Vec<_>>().join(" ")),
];

fn each(text: &str, change: impl Fn(char) -> char) -> String {
    text.chars().map(change).collect()
}

fn swap(c: char, from: &str, to: &str) -> char {
    from.chars().zip(to.chars()).find(|(a, _)| *a == c.to_ascii_lowercase()).map_or(c, |(_, b)| b)
}

fn bold(c: char) -> char {
    let code = match c {
        'A'..='Z' => 0x1d400 + (c as u32 - 'A' as u32),
        'a'..='z' => 0x1d41a + (c as u32 - 'a' as u32),
        _ => return c,
    };
    char::from_u32(code).unwrap_or(c)
}

fn dotted(word: &str) -> String {
    word.chars().map(String::from).collect::<Vec<_>>().join(".")
}
