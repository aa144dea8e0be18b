//! Check digits. Each function is given a match of its shape and says whether the sum holds.

/// Luhn's sum (ISO/IEC 7812).
pub(super) fn luhn(digits: &[u8]) -> bool {
    let doubled = |d: u8| if d > 4 { d * 2 - 9 } else { d * 2 };
    let sum: u32 =
        digits.iter().rev().enumerate().map(|(i, d)| u32::from(if i % 2 == 1 { doubled(*d) } else { *d })).sum();
    sum.is_multiple_of(10)
}

/// How long the card number at the beginning of these digits and separators is. A number ends where a group ends, so that a
/// card before another number is found.
pub(super) fn card(bytes: &[u8]) -> Option<usize> {
    let ends: Vec<(usize, u8)> =
        bytes.iter().enumerate().filter(|(_, b)| b.is_ascii_digit()).map(|(i, b)| (i + 1, b - b'0')).collect();
    let digits: Vec<u8> = ends.iter().map(|(_, d)| *d).collect();
    let group_ends = |n: usize| bytes.get(ends[n - 1].0).is_none_or(|b| !b.is_ascii_digit());
    (13..=digits.len().min(19))
        .rev()
        .find(|n| group_ends(*n) && issued(&digits[..*n]) && luhn(&digits[..*n]))
        .map(|n| ends[n - 1].0)
}

/// Whether an issuer has numbers that begin so and are so long.
fn issued(digits: &[u8]) -> bool {
    let head = digits[..4].iter().fold(0u32, |n, d| n * 10 + u32::from(*d));
    let varied = digits.iter().any(|d| *d != digits[0]);
    varied
        && matches!(
            (head, digits.len()),
            (4000..=4999, 13 | 16 | 19)
                | (5100..=5599 | 2221..=2720, 16)
                | (3400..=3499 | 3700..=3799, 15)
                | (3000..=3059 | 3600..=3699 | 3800..=3999, 14..=19)
                | (2200..=2204 | 3528..=3589 | 6011 | 6200..=6299 | 6440..=6599, 16..=19)
                | (5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763, 13..=19)
        )
}

/// The remainder of a number by 97, letters counting as 10 to 35.
fn mod_97(characters: impl Iterator<Item = u8>) -> u32 {
    characters.fold(0, |rest, c| match c {
        b'0'..=b'9' => (rest * 10 + u32::from(c - b'0')) % 97,
        _ => (rest * 100 + u32::from(c.to_ascii_uppercase() - b'A') + 10) % 97,
    })
}

/// Lengths of IBANs by country (SWIFT's registry).
const IBANS: &str = "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 \
    EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 \
    LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 \
    RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30";

/// How long the IBAN at the beginning of these letters, digits and separators is.
pub(super) fn iban(bytes: &[u8]) -> Option<usize> {
    let country = std::str::from_utf8(bytes.get(..2)?).ok()?;
    let n: usize = IBANS.split(' ').find_map(|entry| entry.strip_prefix(country))?.parse().ok()?;
    let characters: Vec<(usize, u8)> =
        bytes.iter().enumerate().filter(|(_, b)| b.is_ascii_alphanumeric()).map(|(i, b)| (i + 1, *b)).collect();
    let end = characters.get(n - 1)?.0;
    if bytes.get(end).is_some_and(u8::is_ascii_alphanumeric) {
        return None;
    }
    let number = characters[..n].iter().map(|(_, b)| *b);
    (mod_97(number.clone().skip(4).chain(number.take(4))) == 1).then_some(end)
}

/// The sum of digits times weights.
fn weighted(digits: &[u8], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).map(|(d, w)| u32::from(*d) * w).sum()
}

/// The digits among these bytes.
fn digits(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().filter(|b| b.is_ascii_digit()).map(|b| b - b'0').collect()
}

/// GB 11643: provinces 11 to 82, ISO 7064 mod 11-2.
pub(super) fn cn_id(bytes: &[u8]) -> bool {
    let number = digits(&bytes[..17]);
    let sum = weighted(&number, &[7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2]);
    let province = number[0] * 10 + number[1];
    let known = matches!(province, 11..=15 | 21..=23 | 31..=37 | 41..=46 | 50..=54 | 61..=65 | 71 | 81..=83);
    known && b"10X98765432"[(sum % 11) as usize] == bytes[17].to_ascii_uppercase()
}

/// 97 minus the remainder of the first thirteen digits; Corsica's 2A and 2B count as 19 and 18.
pub(super) fn fr_nir(bytes: &[u8]) -> bool {
    let text: Vec<u8> = bytes.iter().copied().filter(|b| *b != b' ').collect();
    let number: u64 = text[..13]
        .iter()
        .map(|b| match b {
            b'A' => 9,
            b'B' => 8,
            digit => digit - b'0',
        })
        .fold(0, |n, d| n * 10 + u64::from(d));
    // 2A is written as 19 and 2B as 18: the ten before it is one less.
    let number = if text[6].is_ascii_alphabetic() { number - 1_000_000 * 10 } else { number };
    let key = u64::from(text[13] - b'0') * 10 + u64::from(text[14] - b'0');
    97 - number % 97 == key
}

/// Areas, groups and serials that were ever given.
pub(super) fn us_ssn(d: &[u8]) -> bool {
    let area = u32::from(d[0]) * 100 + u32::from(d[1]) * 10 + u32::from(d[2]);
    let sample = d == [0, 7, 8, 0, 5, 1, 1, 2, 0] || d == [2, 1, 9, 0, 9, 9, 9, 9, 9];
    area != 0 && area != 666 && d[3..5] != [0, 0] && d[5..9] != [0, 0, 0, 0] && !sample
}

/// Two digits, each mod 11.
pub(super) fn br_cpf(d: &[u8]) -> bool {
    let check = |n: usize| {
        let sum: u32 = d[..n].iter().enumerate().map(|(i, d)| u32::from(*d) * (n + 1 - i) as u32).sum();
        sum * 10 % 11 % 10
    };
    d.iter().any(|x| *x != d[0]) && check(9) == u32::from(d[9]) && check(10) == u32::from(d[10])
}

/// Verhoeff's sum over the dihedral group of order ten.
pub(super) fn verhoeff(digits: &[u8]) -> bool {
    const P: [u8; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    let product = |a: u8, b: u8| match (a < 5, b < 5) {
        (true, true) => (a + b) % 5,
        (true, false) => (a + b - 5) % 5 + 5,
        (false, true) => (a - 5 + 5 - b) % 5 + 5,
        (false, false) => (a + 5 - b) % 5,
    };
    let permuted = |digit: u8, times: usize| (0..times % 8).fold(digit, |d, _| P[usize::from(d)]);
    digits.iter().rev().enumerate().fold(0, |sum, (i, d)| product(sum, permuted(*d, i))) == 0
}

pub(super) fn pl_pesel(d: &[u8]) -> bool {
    weighted(d, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1]).is_multiple_of(10)
}

pub(super) fn kr_rrn(d: &[u8]) -> bool {
    (11 - weighted(&d[..12], &[2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5]) % 11) % 10 == u32::from(d[12])
}

/// The letter is the remainder by 23; X, Y and Z of foreigners count as 0, 1 and 2.
pub(super) fn es_dni(bytes: &[u8]) -> bool {
    let lead = match bytes[0] {
        b'Y' => 1,
        b'Z' => 2,
        _ => 0,
    };
    let number = digits(bytes).iter().fold(lead, |n: u64, d| n * 10 + u64::from(*d));
    bytes.last() == Some(&b"TRWAGMYFPDXBNJZSQVHLCKE"[(number % 23) as usize])
}

/// Odd places have values of their own, even places count as they are; mod 26.
pub(super) fn it_cf(bytes: &[u8]) -> bool {
    const ODD: [u32; 26] =
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
    let value = |b: u8| u32::from(if b.is_ascii_digit() { b - b'0' } else { b - b'A' });
    let sum: u32 =
        bytes[..15].iter().enumerate().map(|(i, b)| if i % 2 == 0 { ODD[value(*b) as usize] } else { value(*b) }).sum();
    sum % 26 == value(bytes[15])
}

pub(super) fn sg_nric(bytes: &[u8]) -> bool {
    let sum = weighted(&digits(&bytes[1..8]), &[2, 7, 6, 5, 4, 3, 2]);
    let (offset, letters) = match bytes[0] {
        b'S' => (0, b"JZIHGFEDCBA"),
        b'T' => (4, b"JZIHGFEDCBA"),
        b'F' => (0, b"XWUTRQPNMLK"),
        _ => (4, b"XWUTRQPNMLK"),
    };
    letters[((sum + offset) % 11) as usize] == bytes[8]
}

/// Mod 11 over one or two letters (a missing one counts as a space, 36) and six digits.
pub(super) fn hk_id(bytes: &[u8]) -> bool {
    let letters: Vec<u32> =
        bytes.iter().take_while(|b| b.is_ascii_alphabetic()).map(|b| u32::from(b - b'A') + 10).collect();
    let head = if letters.len() == 2 { letters[0] * 9 + letters[1] * 8 } else { 36 * 9 + letters[0] * 8 };
    let sum = head + weighted(&digits(&bytes[letters.len()..letters.len() + 6]), &[7, 6, 5, 4, 3, 2]);
    let check = match bytes[bytes.len() - 2] {
        b'A' => 10,
        digit => u32::from(digit - b'0'),
    };
    (sum + check).is_multiple_of(11)
}

/// The letter stands for a two-digit number (in the order in which counties got theirs); mod 10.
pub(super) fn tw_id(bytes: &[u8]) -> bool {
    const COUNTIES: &[u8] = b"ABCDEFGHJKLMNPQRSTUVXYWZIO";
    let Some(county) = COUNTIES.iter().position(|c| *c == bytes[0]) else { return false };
    let county = county as u32 + 10;
    let sum = county / 10 + county % 10 * 9 + weighted(&digits(&bytes[1..]), &[8, 7, 6, 5, 4, 3, 2, 1, 1]);
    sum.is_multiple_of(10)
}

/// Prefixes that are never given.
pub(super) fn uk_nino(bytes: &[u8]) -> bool {
    !matches!(&bytes[..2], b"BG" | b"GB" | b"KN" | b"NK" | b"NT" | b"TN" | b"ZZ")
}

/// No sum, but no number is one digit over and over either, and E.164 has at most 15.
pub(super) fn phone(digits: &[u8]) -> bool {
    (7..=15).contains(&digits.len()) && digits[digits.len() - 7..].iter().any(|d| *d != digits[digits.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_numbers() {
        assert!(luhn(&[7, 9, 9, 2, 7, 3, 9, 8, 7, 1, 3]));
        assert!(verhoeff(&[2, 3, 6, 3]));
        assert!(!verhoeff(&[2, 3, 6, 4]));
        assert_eq!(card(b"4111 1111 1111 1111 2026"), Some(19));
        assert_eq!(card(b"4111 1111 1111 1112"), None);
        assert_eq!(iban(b"DE89 3704 0044 0532 0130 00"), Some(27));
        assert_eq!(iban(b"AT61 1904 3002 3457 3201 EUR"), Some(24));
        assert!(cn_id(b"11010519491231002X"));
        assert!(fr_nir(b"2 55 08 14 168 025 38"));
        assert!(br_cpf(&[5, 2, 9, 9, 8, 2, 2, 4, 7, 2, 5]));
        assert!(pl_pesel(&[4, 4, 0, 5, 1, 4, 0, 1, 3, 5, 9]));
        assert!(es_dni(b"12345678Z") && es_dni(b"X1234567L"));
        assert!(it_cf(b"RSSMRA85T10A562S"));
        assert!(sg_nric(b"S1234567D"));
        assert!(hk_id(b"A123456(3)"));
        assert!(tw_id(b"A123456789"));
    }
}
