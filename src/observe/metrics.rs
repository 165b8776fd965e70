//! Metrics in the format of Prometheus.
//!
//! The one rule: labels are bounded, and no figure holds personal data.

mod connections;
mod records;
mod sampled;
mod upstreams;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGaugeVec, Registry};

pub use connections::{ConnectionMetrics, OpenConnection};
use fedgate_base::log;
use fedgate_base::metrics::{self, MetricRegistrar};
pub use records::RecordMetrics;
use sampled::{LOG_LINES_LOST, SampledMetrics};
pub use upstreams::UpstreamMetrics;

/// The upper bounds of the duration's buckets, in seconds.
const BUCKETS: &[f64] = &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The counts and measurements of one gateway.
pub struct GatewayMetrics {
    registry: Registry,
    requests: IntCounterVec,
    duration: Histogram,
    refusals: IntCounterVec,
    /// Bodies refused for a member that the caller may not write.
    pub members_refused: IntCounter,
    /// Members removed from answers.
    pub members_removed: IntCounter,
    account_changes: IntCounterVec,
    policy: IntGaugeVec,
    certificates: IntGaugeVec,
    /// Counts of connections and streams.
    pub connections: ConnectionMetrics,
    /// Counts of records.
    pub records: RecordMetrics,
    /// Counts of upstreams.
    pub upstreams: UpstreamMetrics,
    sampled: SampledMetrics,
    scraping: Mutex<()>,
}

impl GatewayMetrics {
    /// Registers all metrics.
    ///
    /// # Errors
    /// None in practice, because a test registers them.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let new = MetricRegistrar::of(&registry);
        Ok(Self {
            requests: new.counters(
                "fedgate_requests_total",
                "Requests by decision and status",
                &["decision", "status"],
            )?,
            duration: new.histogram(
                "fedgate_request_duration_seconds",
                "From the head of a request to the end of its answer, or to its beginning where it waits for the record",
                BUCKETS,
            )?,
            refusals: new.counters(
                "fedgate_refusals_total",
                "Requests that were not forwarded, or failed, by reason",
                &["reason"],
            )?,
            members_refused: new.counter(
                "fedgate_members_refused_total",
                "Bodies with a member that the caller may not write",
            )?,
            members_removed: new.counter("fedgate_members_removed_total", "Members left out of answers")?,
            account_changes: new.counters(
                "fedgate_account_changes_total",
                "Changes of accounts that were recorded here, by the way they were made",
                &["via"],
            )?,
            policy: new.gauges("fedgate_policy_info", "The policy in force", &["fingerprint"])?,
            certificates: new.gauges(
                "fedgate_certificate_not_after_timestamp_seconds",
                "When a certificate that is in force ends, in seconds since 1970",
                &["key", "file", "subject"],
            )?,
            connections: ConnectionMetrics::new(&new)?,
            records: RecordMetrics::new(&new)?,
            upstreams: UpstreamMetrics::new(&new)?,
            sampled: SampledMetrics::new(&new)?,
            scraping: Mutex::new(()),
            registry,
        })
    }

    /// Counts one request, and how long it took, unless it was a stream.
    pub(super) fn request(&self, decision: &str, status: u16, duration: Option<Duration>) {
        self.requests.with_label_values(&[decision, status_text(status)]).inc();
        if let Some(duration) = duration {
            self.duration.observe(duration.as_secs_f64());
        }
    }

    /// Counts one request that was not forwarded, or failed; `reason` is a word of the records.
    pub(super) fn refusal(&self, reason: &str) {
        self.refusals.with_label_values(&[reason]).inc();
    }

    /// Counts one recorded change of an account; `via` is a word of the events.
    pub fn account_change(&self, via: &str) {
        self.account_changes.with_label_values(&[via]).inc();
    }

    /// All metrics in the text format of Prometheus, with the current values from `samples`. Calls take turns, so that
    /// no reader sees another's samples half set.
    pub fn scrape(&self, samples: impl FnOnce(&Self)) -> Vec<u8> {
        let _one = self.scraping.lock().unwrap_or_else(PoisonError::into_inner);
        samples(self);
        self.sample(LOG_LINES_LOST, log::lost());
        metrics::text(&self.registry)
    }

    /// Sets a sampled figure, whose name must be registered.
    pub fn sample(&self, name: &str, value: u64) {
        self.sampled.set(name, value);
    }

    /// Names the policy in force, as the only one.
    pub fn policy_in_force(&self, fingerprint: &str) {
        self.policy.reset();
        self.policy.with_label_values(&[fingerprint]).set(1);
    }

    /// Forgets all certificates.
    pub fn no_certificates(&self) {
        self.certificates.reset();
    }

    /// Sets when a certificate in force expires. Of two certificates with one name in one file (a renewal), the later
    /// one counts.
    pub fn certificate(&self, key: &str, file: &str, subject: &str, not_after: i64) {
        let gauge = self.certificates.with_label_values(&[key, file, subject]);
        gauge.set(gauge.get().max(not_after));
    }
}

/// The statuses that occur, without an allocation. Others become `other`, so that an upstream cannot create labels.
fn status_text(status: u16) -> &'static str {
    match status {
        0 => "0",
        200 => "200",
        201 => "201",
        204 => "204",
        206 => "206",
        302 => "302",
        304 => "304",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        409 => "409",
        411 => "411",
        412 => "412",
        413 => "413",
        414 => "414",
        415 => "415",
        416 => "416",
        422 => "422",
        429 => "429",
        431 => "431",
        500 => "500",
        502 => "502",
        503 => "503",
        504 => "504",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded_and_samples_are_written() {
        let metrics = GatewayMetrics::new().unwrap();
        (0..2000).for_each(|status| metrics.request("allow", status, Some(Duration::from_millis(1))));
        metrics.sample("fedgate_cache_hits_total", 7);
        metrics.policy_in_force("p1");
        metrics.policy_in_force("p2");
        let text = String::from_utf8(metrics.scrape(|_| {})).unwrap();
        assert!(text.lines().filter(|line| line.starts_with("fedgate_requests_total")).count() < 30, "{text}");
        assert!(text.contains("\nfedgate_cache_hits_total 7\n"), "{text}");
        assert!(text.contains("fingerprint=\"p2\"") && !text.contains("p1"));
        assert!(text.contains("fedgate_request_duration_seconds_count 2000"));
    }
}
