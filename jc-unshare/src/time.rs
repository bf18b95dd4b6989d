//! Points in time, in seconds since 1970 and in the form of RFC 3339.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The seconds of a day.
const DAY: i64 = 86_400;
/// The years that RFC 3339 can write, in seconds: 0000 to 9999.
const YEARS: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_300_799;

/// The time since 1970. A clock before 1970 counts as 1970.
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The present time in RFC 3339, with nanoseconds.
pub fn rfc3339_now() -> String {
    let now = since_epoch();
    let seconds = rfc3339(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    format!("{}.{:09}Z", seconds.trim_end_matches('Z'), now.subsec_nanos())
}

/// A time in seconds since 1970, as UTC in RFC 3339. Times outside of the years 0000 to 9999 are cut.
pub fn rfc3339(seconds: i64) -> String {
    let seconds = seconds.clamp(*YEARS.start(), *YEARS.end());
    let (days, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    // Years begin in March here, so that a leap day is the last day of a year. 719468 days lie between 0000-03-01 and
    // the epoch, and 146097 days are 400 years.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (i64::MAX, "9999-12-31T23:59:59Z"),
            (i64::MIN, "0000-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn the_present_time_has_nanoseconds() {
        let now = rfc3339_now();
        assert_eq!((now.len(), &now[19..20], &now[29..]), (30, ".", "Z"), "{now}");
    }
}
