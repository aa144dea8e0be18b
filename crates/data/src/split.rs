//! What is held out: whole groups, by the hash of their name, so that a group that is held out today is held out in every later set.

use crate::row::sha256;

/// Where a group stands between 0 and 1: those below the share are held out.
pub(crate) fn place(group: &str, seed: u64) -> f64 {
    let sum = sha256(format!("{seed}\0{group}").as_bytes());
    // Thirteen hexadecimal digits are what a float holds exactly.
    u64::from_str_radix(&sum[..13], 16).map_or(0.0, |at| at as f64 / (1u64 << 52) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_kept() {
        let below =
            |share: f64, seed| (0..10_000).filter(|i| place(&format!("group {i}"), seed) < share).count() as f64;
        let check = |share: f64, seed| {
            let deviation = (10_000.0 * share * (1.0 - share)).sqrt();
            let n = below(share, seed);
            assert!((n - 10_000.0 * share).abs() <= 4.0 * deviation, "{n} of 10000 at {share}");
        };
        for (share, seed) in [(0.0, 0), (0.05, 1), (0.1, 2), (0.5, 3), (1.0, 4)] {
            check(share, seed);
        }
        assert_ne!(place("a", 0), place("a", 1));
    }
}
