//! The clock of leases and proofs.
//!
//! The one rule: it runs on while the machine is suspended, which [`std::time::Instant`] does not on Linux. It reads
//! `CLOCK_BOOTTIME` of clock_gettime(2), which nobody can set and which never goes back.

use std::ops::{Add, Sub};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since the machine started, including suspended time. Sums and differences saturate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootMoment(u64);

impl BootMoment {
    /// The present moment.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        // Both are never negative on this clock.
        Self(time.tv_sec.unsigned_abs().saturating_mul(1_000_000_000).saturating_add(time.tv_nsec.unsigned_abs()))
    }

    /// Later than every moment that is reached.
    pub const NEVER: Self = Self(u64::MAX);

    /// The time since `earlier`; zero if that is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// A moment that another process of this machine has written down with [`BootMoment::as_nanos`].
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// For an atomic, in which greater means later.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }
}

impl Add<Duration> for BootMoment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(duration)))
    }
}

impl Sub<Duration> for BootMoment {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanoseconds(duration)))
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics to fail")]
mod tests {
    use std::process::Command;

    use super::*;

    /// Set in the child that runs in its own time namespace.
    const ASLEEP: &str = "FEDGATE_TEST_ASLEEP";

    #[test]
    fn time_asleep_counts() {
        // proc_uptime(5) is this clock, in hundredths of a second.
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime = Duration::from_secs_f64(uptime.split(' ').next().unwrap().parse().unwrap());
        let moment = Duration::from_nanos(BootMoment::now().as_nanos());
        assert!(moment.abs_diff(uptime) < Duration::from_secs(60), "{moment:?} at an uptime of {uptime:?}");
        if std::env::var_os(ASLEEP).is_some() {
            return;
        }
        // As if the machine had slept for 10^6 s: only this clock is ahead (time_namespaces(7)).
        let child = Command::new("unshare")
            .args(["--user", "--map-root-user", "--time", "--boottime", "1000000"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "moment::tests::time_asleep_counts"])
            .env(ASLEEP, "1")
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success() || error.starts_with("unshare"), "{error}");
    }

    #[test]
    fn sums_and_differences_saturate() {
        let (early, late) = (BootMoment(5), BootMoment(u64::MAX - 5));
        assert_eq!((late + Duration::MAX, early - Duration::MAX), (BootMoment(u64::MAX), BootMoment(0)));
        assert_eq!((late.since(early), early.since(late)), (Duration::from_nanos(u64::MAX - 10), Duration::ZERO));
        assert_eq!(early + Duration::from_nanos(2) - Duration::from_nanos(1), BootMoment(6));
    }
}
