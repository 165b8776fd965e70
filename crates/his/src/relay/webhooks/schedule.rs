//! When a message is sent again.
//!
//! The one rule: ten attempts, the last one 75 hours after the first, as the specification of Standard Webhooks shows them.

use std::time::Duration;

/// The most attempts for one message.
pub(super) const ATTEMPTS: u32 = 10;
/// The pauses between two attempts, in seconds: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h.
const PAUSES: [u64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];
/// How far a pause may differ, in percent, so that messages that failed together are not sent together.
const JITTER: f64 = 0.1;
/// The longest time that `Retry-After` may ask for.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(86_400);
/// The first pause of a webhook that says it is overloaded without saying for how long, and the longest.
const SLOW: (u64, u64) = (5, 300);

/// The longest pause of a message.
pub(super) const LONGEST: Duration = Duration::from_secs(95_040);

/// The pause after so many attempts; none after the last one. `dice` is between 0 and 1.
pub(super) fn pause(attempts: u32, retry_after: Option<Duration>, dice: f64) -> Option<Duration> {
    if attempts >= ATTEMPTS {
        return None;
    }
    let usual = PAUSES.get(usize::try_from(attempts.saturating_sub(1)).ok()?)?;
    let spread = 1.0 + JITTER * (2.0 * dice.clamp(0.0, 1.0) - 1.0);
    let usual = Duration::from_secs(*usual).mul_f64(spread);
    Some(usual.max(retry_after.unwrap_or_default().min(MOST_RETRY_AFTER)))
}

/// For how long nothing is sent to a webhook that said so many times in a row that it is overloaded.
pub(super) fn slow(times: u32, retry_after: Option<Duration>) -> Duration {
    let doubled = SLOW.0.saturating_mul(1 << times.saturating_sub(1).min(16)).min(SLOW.1);
    retry_after.map_or(Duration::from_secs(doubled), |asked| asked.min(MOST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_attempts_take_75_hours_and_differ_by_a_tenth() {
        let total = |dice: f64| (1..ATTEMPTS).map(|attempts| pause(attempts, None, dice).unwrap()).sum::<Duration>();
        let hours = |time: Duration| time.as_secs_f64() / 3600.0;
        assert!((hours(total(0.5)) - 75.6).abs() < 0.1, "{}", hours(total(0.5)));
        assert!((hours(total(0.0)) - 68.0).abs() < 0.1 && (hours(total(1.0)) - 83.1).abs() < 0.1);
        assert_eq!(pause(ATTEMPTS, None, 0.5), None);
        assert_eq!(pause(ATTEMPTS - 1, None, 1.0), Some(LONGEST));
        let asked = Duration::from_secs(900);
        assert_eq!(pause(1, Some(asked), 0.5), Some(asked));
        assert_eq!(pause(4, Some(asked), 0.5), Some(Duration::from_secs(7200)));
        assert_eq!(pause(1, Some(Duration::MAX), 0.5), Some(MOST_RETRY_AFTER));
    }

    #[test]
    fn an_overloaded_webhook_is_left_alone_for_longer_each_time() {
        let seconds = |times| slow(times, None).as_secs();
        assert_eq!([seconds(1), seconds(2), seconds(3), seconds(7), seconds(1000)], [5, 10, 20, 300, 300]);
        assert_eq!(slow(1, Some(Duration::from_secs(2))).as_secs(), 2);
    }
}
