//! The metrics of the service.
//!
//! The one rule: labels are bounded, and no figure holds personal data. A figure that depends on the database is kept up
//! to date by the work that reads it anyway, so reading the metrics asks the database nothing.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, Registry};

use fedgate_base::db::replicas::ReplicaFigures;
use fedgate_base::log;
use fedgate_base::metrics::{self, MetricRegistrar};

/// The upper bounds of the duration's buckets, in seconds.
const BUCKETS: &[f64] = &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The counts and measurements of one fedhis.
pub(super) struct HisMetrics {
    registry: Registry,
    requests: IntCounterVec,
    duration: Histogram,
    log_lines_lost: IntGauge,
    last_position: IntGauge,
    readers: IntGauge,
    messages_waiting: IntGauge,
    messages_waiting_seconds: IntGauge,
    /// Counts of webhooks.
    pub(super) webhooks: WebhookMetrics,
}

/// Counts of the webhooks that this process serves.
pub(super) struct WebhookMetrics {
    /// Those that are served.
    pub(super) served: IntGauge,
    /// Those that are behind by more than `his.webhook_behind_seconds`.
    pub(super) behind: IntGauge,
    /// Those without a usable key.
    pub(super) without_key: IntGauge,
    /// Messages that their receivers have taken.
    pub(super) taken: IntCounter,
    /// Attempts that failed.
    pub(super) failed: IntCounter,
    /// Messages that became dead letters.
    pub(super) dead: IntCounter,
}

/// A reader of messages that is served.
pub(super) struct MessageReaderCount(IntGauge);

impl Drop for MessageReaderCount {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl HisMetrics {
    /// Registers all metrics, and those of replicas.
    ///
    /// # Errors
    /// None in practice, because a test registers them.
    pub(super) fn new(replicas: &ReplicaFigures) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let new = MetricRegistrar::of(&registry);
        replicas.register(&new)?;
        Ok(Self {
            requests: new.counters("fedhis_requests_total", "Requests by the status of their answers", &["status"])?,
            duration: new.histogram(
                "fedhis_request_duration_seconds",
                "From the head of a request to the beginning of its answer, without those that wait for messages",
                BUCKETS,
            )?,
            log_lines_lost: new.gauge(
                "fedhis_log_lines_lost",
                "Log lines that were lost since the start, because stderr was not read in time",
            )?,
            last_position: new.gauge("fedhis_last_position", "The last position of a message, as far as known here")?,
            readers: new
                .gauge("fedhis_message_readers", "Requests that read or await messages, and streams of them")?,
            messages_waiting: new.gauge("fedhis_messages_waiting", "Committed messages without a position")?,
            messages_waiting_seconds: new.gauge(
                "fedhis_messages_waiting_seconds",
                "How long the oldest committed message has waited for its position",
            )?,
            webhooks: WebhookMetrics::new(&new)?,
            registry,
        })
    }

    /// Counts one request, and how long it took until its answer began, unless it waited for messages.
    pub(super) fn request(&self, status: u16, duration: Option<Duration>) {
        // The statuses are those of this service alone, so they are few.
        self.requests.with_label_values(&[status.to_string()]).inc();
        if let Some(duration) = duration {
            self.duration.observe(duration.as_secs_f64());
        }
    }

    /// Counts a reader of messages until the returned value is dropped.
    pub(super) fn reader(&self) -> MessageReaderCount {
        self.readers.inc();
        MessageReaderCount(self.readers.clone())
    }

    /// Notes how many committed messages wait for positions, and for how long the oldest has.
    pub(super) fn unplaced(&self, count: u64, waited: Duration) {
        self.messages_waiting.set(gauge(count));
        self.messages_waiting_seconds.set(gauge(waited.as_secs()));
    }

    /// All metrics as text.
    pub(super) fn scrape(&self, last_position: u64) -> Vec<u8> {
        self.last_position.set(gauge(last_position));
        self.log_lines_lost.set(gauge(log::lost()));
        metrics::text(&self.registry)
    }
}

impl WebhookMetrics {
    fn new(new: &MetricRegistrar<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            served: new.gauge("fedhis_webhooks", "Webhooks that this process serves")?,
            behind: new.gauge("fedhis_webhooks_behind", "Of these, those that are behind")?,
            without_key: new.gauge("fedhis_webhooks_without_key", "Webhooks that no usable key can sign for")?,
            taken: new.counter("fedhis_webhook_messages_total", "Messages that a receiver has taken")?,
            failed: new.counter("fedhis_webhook_failures_total", "Attempts to send a message that failed")?,
            dead: new.counter("fedhis_webhook_dead_letters_total", "Messages that became dead letters")?,
        })
    }
}

/// A count as the value of a gauge.
pub(super) fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_metric_has_a_name_that_prometheus_takes_and_no_other_has() {
        let metrics = HisMetrics::new(&ReplicaFigures::default()).unwrap();
        metrics.request(200, Some(Duration::from_millis(3)));
        metrics.unplaced(2, Duration::from_secs(7));
        let text = String::from_utf8(metrics.scrape(17)).unwrap();
        for line in [
            "fedhis_requests_total{status=\"200\"} 1",
            "fedhis_request_duration_seconds_bucket{le=\"0.005\"} 1",
            "fedhis_messages_waiting 2",
            "fedhis_messages_waiting_seconds 7",
            "fedhis_last_position 17",
            "fedhis_webhooks_behind 0",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in {text}");
        }
    }
}
