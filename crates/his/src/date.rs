//! Dates and times as clients and stored pages write them.
//!
//! Accepted are a date, and a date with a time (RFC 3339, also in the forms of Python's `isoformat` and `str`). A
//! time without an offset is UTC, and a date means its first moment.

use chrono::{DateTime, Utc};

/// The length of `2024-05-01`.
const DAY: usize = 10;

/// The moment that a text names.
pub(super) fn instant(text: &str) -> Option<DateTime<Utc>> {
    let midnight = if text.len() == DAY { "T00:00:00" } else { "" };
    let read = |offset| DateTime::parse_from_rfc3339(&format!("{text}{midnight}{offset}")).ok();
    // With its own offset, otherwise as UTC.
    read("").or_else(|| read("Z")).map(|moment| moment.to_utc())
}

/// Whether a text is a date without a time.
pub(super) fn is_day(text: &str) -> bool {
    text.len() == DAY && instant(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_names_its_moment() {
        let noon = instant("2024-05-01T12:00:00Z").unwrap();
        for same in [
            "2024-05-01T12:00:00",
            "2024-05-01 12:00:00",
            "2024-05-01T12:00:00.000000",
            "2024-05-01T14:00:00+02:00",
            "2024-04-30 22:30:00.000-13:30",
            "2024-05-01t12:00:00z",
        ] {
            assert_eq!(instant(same), Some(noon), "{same}");
        }
        assert_eq!(instant("2024-05-01"), instant("2024-05-01T00:00:00Z"));
        assert!(instant("2024-05-01T12:00:00.000001").unwrap() > noon);
        for none in [
            "",
            "bogus",
            "2024",
            "2024-02-30",
            "2024-5-1",
            "2024-05-1Z",
            "01/05/2024",
            "2024-05-01T",
            "2024-05-01T24:00:00",
            "2024-05-01T12:00:00 02:00",
            "2024-05-01T12:00:00ZZ",
            " 2024-05-01",
            "é2024-05-1",
        ] {
            assert_eq!(instant(none), None, "{none}");
        }
        assert!(is_day("2024-05-01") && !is_day("2024-05-01T00:00:00Z") && !is_day("2023-02-29"));
    }
}
