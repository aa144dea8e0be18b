//! Microseconds since 1970 as people write moments, in UTC.

/// Microseconds in a day.
pub(crate) const DAY: i64 = 86_400_000_000;
const SECOND: i64 = 1_000_000;

/// A moment as RFC 3339 writes it, to the millisecond: `2026-11-26T05:11:45.123Z`.
pub fn timestamp(at: i64) -> String {
    let (year, month, day) = civil(at.div_euclid(DAY));
    let of_day = at.rem_euclid(DAY);
    let seconds = of_day / SECOND;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let millis = of_day % SECOND / 1000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Reads a day (`2026-11-26`, its first moment) or a moment of it (`2026-11-26T05:11:45Z`, fractions are dropped); `None` if it is neither.
pub fn parse_timestamp(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00Z"));
    let mut parts = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let time = time.strip_suffix('Z')?.split('.').next()?;
    let mut parts = time.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let fits = (1970..10_000).contains(&year) && (0..24).contains(&hour) && (0..60).contains(&minute);
    let day_number = days(year, month, day);
    // Not every month has a 31st: what comes back must be what went in.
    let exists = (1..=12).contains(&month) && (0..60).contains(&second) && civil(day_number) == (year, month, day);
    (fits && exists).then_some(day_number * DAY + (hour * 3600 + minute * 60 + second) * SECOND)
}

/// Days since 1970 to year, month and day. Howard Hinnant, "chrono-compatible low-level date algorithms".
pub(crate) fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// And back.
pub(crate) fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for day in (0..40_000).step_by(17) {
            let (year, month, of_month) = civil(day);
            assert_eq!(days(year, month, of_month), day);
        }
        assert_eq!(civil(19_782), (2024, 2, 29));
    }

    #[test]
    fn moments_are_written_and_read() {
        let check = |text: &str, at: Option<i64>| assert_eq!(parse_timestamp(text), at, "{text}");
        check("1970-01-01", Some(0));
        check("2024-02-29", Some(19_782 * DAY));
        check("2024-02-29T12:30:01Z", Some(19_782 * DAY + 45_001 * SECOND));
        check("2024-02-29T12:30:01.999Z", Some(19_782 * DAY + 45_001 * SECOND));
        for wrong in
            ["2023-02-29", "2024-13-01", "2024-1", "yesterday", "", "2024-01-01T25:00:00Z", "2024-01-01T10:00:00"]
        {
            check(wrong, None);
        }
        assert_eq!(timestamp(19_782 * DAY + 45_001 * SECOND + 7_999), "2024-02-29T12:30:01.007Z");
    }
}
