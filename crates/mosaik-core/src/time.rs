//! Instants as text: RFC 3339 in UTC with milliseconds, and back.
//!
//! Invariant: what [`format_ms`] writes, [`parse_ms`] reads as the same number. Years outside
//! 0000..=9999 have no RFC 3339 text; they are written as the bare number of milliseconds.
//!
//! Source: RFC 3339; Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", for the days.

const MS_PER_DAY: i64 = 86_400_000;

/// Text that names no instant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no time: give RFC 3339 (2026-11-21T08:00:00Z, also with an offset), a date \
     (2026-11-21, midnight UTC), or milliseconds since 1970"
)]
pub struct ParseTimeError(String);

/// Writes `ms` since 1970 as `2026-11-21T08:00:00.000Z`, or as the number where a year has not four
/// digits.
pub fn format_ms(ms: i64) -> String {
    let (year, month, day) = civil_from_days(ms.div_euclid(MS_PER_DAY));
    if !(0..=9999).contains(&year) {
        return ms.to_string();
    }
    let rest = ms.rem_euclid(MS_PER_DAY);
    let (seconds, millis) = (rest / 1000, rest % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Reads RFC 3339, a date, or a number of milliseconds since 1970. Digits below the millisecond are
/// refused unless they are zero: nothing that was written down may be lost.
///
/// # Errors
///
/// [`ParseTimeError`] for anything else.
pub fn parse_ms(text: &str) -> Result<i64, ParseTimeError> {
    let bare_number = text.strip_prefix('-').unwrap_or(text);
    if !bare_number.is_empty() && bare_number.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map_err(|_| ParseTimeError(text.into()));
    }
    parse_rfc3339(text).ok_or_else(|| ParseTimeError(text.chars().take(80).collect()))
}

fn parse_rfc3339(text: &str) -> Option<i64> {
    if !text.is_ascii() {
        return None;
    }
    let (date, time) = match text.split_at_checked(10)? {
        (date, "") => (date, None),
        (date, rest) => (date, Some(rest.strip_prefix(['T', 't', ' '])?)),
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    let midnight = days_from_civil(year, month, day) * MS_PER_DAY;
    let Some(time) = time else { return Some(midnight) };
    let (clock, rest) = time.split_at_checked(8)?;
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (millis, zone) = fraction(rest)?;
    let offset_minutes = offset(zone)?;
    Some(midnight + ((hour * 60 + minute - offset_minutes) * 60 + second) * 1000 + millis)
}

/// Reads three numbers of fixed widths with `separator` between them.
fn numbers(text: &str, separator: char, widths: [usize; 3]) -> Option<[i64; 3]> {
    let mut parts = text.split(separator);
    let mut found = [0; 3];
    for (value, width) in found.iter_mut().zip(widths) {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *value = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

/// Splits an optional fraction of a second off the front: its milliseconds, and what follows.
fn fraction(text: &str) -> Option<(i64, &str)> {
    let Some(digits_on) = text.strip_prefix('.') else { return Some((0, text)) };
    let len = digits_on.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = digits_on.split_at(len);
    let (kept, below) = digits.split_at(len.min(3));
    if len == 0 || below.bytes().any(|b| b != b'0') {
        return None;
    }
    Some((format!("{kept:0<3}").parse().ok()?, rest))
}

/// Minutes east of UTC of `Z`, `+02:00`, `-05:30`.
fn offset(zone: &str) -> Option<i64> {
    if zone == "Z" || zone == "z" {
        return Some(0);
    }
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let [hour, minute, _] = numbers(&format!("{rest}:00"), ':', [2, 2, 2])?;
    (hour <= 23 && minute <= 59).then_some(sign * (hour * 60 + minute))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_instants_have_their_text() {
        assert_eq!(format_ms(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(format_ms(1_795_248_000_123), "2026-11-21T08:00:00.123Z");
        assert_eq!(format_ms(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(format_ms(i64::MAX), i64::MAX.to_string());
        assert_eq!(format_ms(951_782_400_000), "2000-02-29T00:00:00.000Z");
    }

    #[test]
    fn offsets_dates_and_numbers_are_read() {
        assert_eq!(parse_ms("2026-11-21T10:00:00+02:00"), Ok(1_795_248_000_000));
        assert_eq!(parse_ms("2026-11-21 02:30:00.5-05:30"), Ok(1_795_248_000_500));
        assert_eq!(parse_ms("2026-11-21"), Ok(1_795_219_200_000));
        assert_eq!(parse_ms("-5"), Ok(-5));
    }

    #[test]
    fn what_is_no_time_or_would_lose_digits_is_refused() {
        for text in [
            "",
            "-",
            "now",
            "2026-13-01",
            "2026-02-29",
            "2026-11-21T24:00:00Z",
            "2026-11-21T08:00Z",
            "2026-11-21T08:00:00",
            "2026-11-21T08:00:00.1234Z",
            "2026-11-21T08:00:00.Z",
            "2026-11-21T08:00:00+2:00",
            "99999999999999999999",
            "２026-11-21",
        ] {
            assert!(parse_ms(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_instant_round_trips(ms: i64, near in -70_000_000_000_000i64..260_000_000_000_000) {
            prop_assert_eq!(parse_ms(&format_ms(ms)), Ok(ms));
            prop_assert_eq!(parse_ms(&format_ms(near)), Ok(near));
        }
    }
}
