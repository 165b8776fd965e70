//! `Retry-After` (RFC 9110, 10.2.3): seconds, or a date.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, NaiveDateTime, Utc};
use http::HeaderValue;

/// The wait that a receiver asks for; none if it asks for none that can be read.
pub(super) fn of(value: Option<&HeaderValue>) -> Option<Duration> {
    read(value?.to_str().ok()?.trim(), SystemTime::now())
}

fn read(text: &str, now: SystemTime) -> Option<Duration> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number has mean a long time.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let date = NaiveDateTime::parse_from_str(text, "%a, %d %b %Y %H:%M:%S GMT").ok()?;
    let wait = date.and_utc() - DateTime::<Utc>::from(now);
    Some(wait.to_std().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_read_in_seconds_and_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let seconds = |text: &str| read(text, now).map(|wait| wait.as_secs());
        assert_eq!([seconds("0"), seconds("120")], [Some(0), Some(120)]);
        assert_eq!(seconds("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:00 GMT"), Some(0), "in the past");
        assert!(seconds("99999999999999999999999").unwrap() > 86_400);
        for text in ["", "-1", "1.5", "soon", "Sun, 06 Nov 1994 08:50:37 +0000"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
