//! Sizes as people write and read them.

/// Reads `512MiB`, `2G`, `1.5 GB` or plain bytes. A bare letter is binary, as memory is counted.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kib" => 1024.0,
        "m" | "mib" => f64::from(1 << 20),
        "g" | "gib" => f64::from(1 << 30),
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        other => return Err(format!("`{other}` is not a unit: write MiB, GiB, MB or GB")),
    };
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is not a size such as 512MiB or 2GiB"))?;
    Ok((number * factor) as u64)
}

/// `98.4 MB`.
pub(crate) fn show(bytes: u64) -> String {
    let bytes = bytes as f64;
    match bytes {
        b if b >= 1e9 => format!("{:.2} GB", b / 1e9),
        b if b >= 1e6 => format!("{:.1} MB", b / 1e6),
        b if b >= 1e3 => format!("{:.1} kB", b / 1e3),
        b => format!("{b} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text, bytes| assert_eq!(parse(text).ok(), bytes, "{text}");
        check("512MiB", Some(512 << 20));
        check("2G", Some(2 << 30));
        check("1.5 GB", Some(1_500_000_000));
        check("100", Some(100));
        check("12 parsecs", None);
        check("GiB", None);
        assert_eq!(show(98_362_432), "98.4 MB");
        assert_eq!(show(12), "12 B");
    }
}
