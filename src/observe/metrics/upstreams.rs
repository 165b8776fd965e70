//! Counts of upstreams. All labels are names from the configuration.

use prometheus::{Error, IntCounterVec, IntGaugeVec};

use fedgate_base::metrics::MetricRegistrar;

/// The labels of a server.
const SERVER: &[&str] = &["upstream", "server"];

/// Counts of upstreams and their servers.
pub struct UpstreamMetrics {
    healthy: IntGaugeVec,
    /// The same under its name before 0.2.0, for one version.
    well: IntGaugeVec,
    failures: IntCounterVec,
    ejections: IntCounterVec,
    retries: IntCounterVec,
    headers_dropped: IntCounterVec,
}

impl UpstreamMetrics {
    pub(super) fn new(new: &MetricRegistrar<'_>) -> Result<Self, Error> {
        Ok(Self {
            healthy: new.gauges(
                "fedgate_upstream_healthy",
                "Healthy addresses of the server, as far as probes and requests have shown",
                SERVER,
            )?,
            well: new.gauges("fedgate_upstream_well", "The old name of fedgate_upstream_healthy", SERVER)?,
            failures: new.counters(
                "fedgate_upstream_failures_total",
                "Requests that the server failed: no connection, no or half an answer, 502, 503 or 504",
                SERVER,
            )?,
            ejections: new.counters(
                "fedgate_upstream_ejections_total",
                "Times the server was left out for failing requests",
                SERVER,
            )?,
            retries: new.counters(
                "fedgate_upstream_retries_total",
                "Requests sent a second time, by the server that failed first",
                SERVER,
            )?,
            headers_dropped: new.counters(
                "fedgate_request_headers_dropped_total",
                "Headers of forwarded requests that no list lets pass to the upstream",
                &["upstream"],
            )?,
        })
    }

    /// Sets how many addresses of a server are healthy.
    pub fn healthy(&self, upstream: &str, server: &str, addresses: usize) {
        let addresses = i64::try_from(addresses).unwrap_or(i64::MAX);
        for gauge in [&self.healthy, &self.well] {
            gauge.with_label_values(&[upstream, server]).set(addresses);
        }
    }

    /// Counts a request that a server failed.
    pub fn failed(&self, upstream: &str, server: &str) {
        self.failures.with_label_values(&[upstream, server]).inc();
    }

    /// Counts an ejection.
    pub fn ejected(&self, upstream: &str, server: &str) {
        self.ejections.with_label_values(&[upstream, server]).inc();
    }

    /// Counts a request that is sent a second time.
    pub fn retried(&self, upstream: &str, server: &str) {
        self.retries.with_label_values(&[upstream, server]).inc();
    }

    /// Counts the headers of one forwarded request that were dropped for its upstream.
    pub fn headers_dropped(&self, upstream: &str, count: usize) {
        if count > 0 {
            self.headers_dropped.with_label_values(&[upstream]).inc_by(count as u64);
        }
    }
}
