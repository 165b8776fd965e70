//! Metrics in the format of Prometheus, with bounded labels and no personal data.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use fedgate_base::log;

/// The upper bounds of the duration's buckets, in seconds.
const BUCKETS: &[f64] = &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The counts and measurements of one gateway.
pub struct GatewayMetrics {
    registry: Registry,
    requests: IntCounterVec,
    duration: Histogram,
    refusals: IntCounterVec,
    /// Connections refused because a limit was reached.
    pub connections_refused: IntCounter,
    /// Connections whose TLS handshake or PROXY header failed or took too long.
    pub handshakes_failed: IntCounter,
    /// Client certificates that were refused.
    pub certificates_refused: IntCounter,
    /// Bodies refused for a member that the caller may not write.
    pub members_refused: IntCounter,
    /// Members removed from answers.
    pub members_removed: IntCounter,
    /// Records that were lost for lack of room.
    pub records_lost: IntCounter,
    /// Requests of anonymous callers without a record of their own.
    pub records_merged: IntCounter,
    account_changes: IntCounterVec,
    /// Bytes of records.
    pub records_bytes: IntCounter,
    records_free: IntGauge,
    connections: IntGauge,
    ended: IntCounterVec,
    policy: IntGaugeVec,
    certificates: IntGaugeVec,
    upstreams: UpstreamMetrics,
    sampled: Vec<(&'static str, SampledMetric)>,
    scraping: Mutex<()>,
}

/// Counts of upstreams. Both labels are names from the configuration.
struct UpstreamMetrics {
    healthy: IntGaugeVec,
    /// The same under its name before 0.2.0, for one version.
    well: IntGaugeVec,
    failures: IntCounterVec,
    ejections: IntCounterVec,
    retries: IntCounterVec,
    headers_dropped: IntCounterVec,
}

impl UpstreamMetrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &["upstream", "server"])?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["upstream", "server"])?;
            registry.register(Box::new(gauge.clone())).map(|()| gauge)
        };
        let headers_dropped = Opts::new(
            "fedgate_request_headers_dropped_total",
            "Headers of forwarded requests that no list lets pass to the upstream",
        );
        let headers_dropped = IntCounterVec::new(headers_dropped, &["upstream"])?;
        registry.register(Box::new(headers_dropped.clone()))?;
        Ok(Self {
            healthy: gauge(
                "fedgate_upstream_healthy",
                "Healthy addresses of the server, as far as probes and requests have shown",
            )?,
            well: gauge("fedgate_upstream_well", "The old name of fedgate_upstream_healthy")?,
            headers_dropped,
            failures: counter(
                "fedgate_upstream_failures_total",
                "Requests that the server failed: no connection, no or half an answer, 502, 503 or 504",
            )?,
            ejections: counter(
                "fedgate_upstream_ejections_total",
                "Times the server was left out for failing requests",
            )?,
            retries: counter(
                "fedgate_upstream_retries_total",
                "Requests sent a second time, by the server that failed first",
            )?,
        })
    }
}

/// A figure that is sampled when the metrics are read. Its name tells which type it is.
enum SampledMetric {
    Gauge(IntGauge),
    Counter(IntCounter),
}

impl SampledMetric {
    fn register(registry: &Registry, name: &str, help: &str) -> Result<Self, prometheus::Error> {
        if name.ends_with("_total") {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone())).map(|()| Self::Counter(counter))
        } else {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone())).map(|()| Self::Gauge(gauge))
        }
    }
}

const LOG_LINES_LOST: &str = "fedgate_log_lines_lost_total";
/// The figures that are sampled when the metrics are read: name and help text.
const SAMPLED: &[(&str, &str)] = &[
    ("fedgate_requests_in_flight", "Requests that are being served"),
    ("fedgate_lease_valid", "1 while cached rights may be used"),
    ("fedgate_account_epoch", "The account epoch that was applied last"),
    ("fedgate_policy_faults_total", "Policy files that were refused since the start"),
    ("fedgate_policy_faulty", "1 while the policy file cannot be used and the last good one stays in force"),
    ("fedgate_policy_unkept", "1 while the policy in force could not be kept in `policy.history`, for replay"),
    ("fedgate_certificate_faults", "Faults in the files of certificates; /readyz names them"),
    ("fedgate_records_failing", "1 while records cannot be written"),
    ("fedgate_records_scarce", "1 while their disk is so full that anonymous callers share one record"),
    (LOG_LINES_LOST, "Log lines that were lost because stderr was not read in time"),
    ("fedgate_cache_principals", "Principals held"),
    ("fedgate_cache_hits_total", "Requests answered from a cached principal"),
    ("fedgate_cache_misses_total", "Requests that read the account"),
    ("fedgate_cache_invalidated_total", "Principals dropped because their account changed"),
    ("fedgate_cache_evicted_total", "Principals dropped for room or age"),
    ("fedgate_cache_mean_age_seconds", "Mean age of the principals that were dropped"),
    ("fedgate_cache_proofs", "Verified passwords remembered, right and wrong"),
    ("fedgate_cache_proof_hits_total", "Passwords that were not hashed, because they had been before"),
    ("fedgate_cache_proofs_evicted_total", "Verified passwords forgotten, for room, age or idleness"),
    ("fedgate_cache_proofs_mean_age_seconds", "Mean age of the verified passwords that were forgotten"),
    ("fedgate_cache_recompiled_total", "Rights of cached principals that were compiled again for another policy"),
    ("fedgate_passwords_hashed_total", "Passwords that were hashed to be verified"),
];

/// An open connection.
pub struct OpenConnection(IntGauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl GatewayMetrics {
    /// Registers all metrics.
    ///
    /// # Errors
    /// None in practice, because a test registers them.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let requests = IntCounterVec::new(
            Opts::new("fedgate_requests_total", "Requests by decision and status"),
            &["decision", "status"],
        )?;
        let refusals = IntCounterVec::new(
            Opts::new("fedgate_refusals_total", "Requests that were not forwarded, or failed, by reason"),
            &["reason"],
        )?;
        let handshakes_failed = IntCounter::new(
            "fedgate_handshakes_failed_total",
            "Connections closed for a TLS handshake or PROXY header that failed or took too long",
        )?;
        let duration = HistogramOpts::new(
            "fedgate_request_duration_seconds",
            "From the head of a request to the end of its answer, or to its beginning where it waits for the record",
        );
        let duration = Histogram::with_opts(duration.buckets(BUCKETS.to_vec()))?;
        let connections_refused = IntCounter::new("fedgate_connections_refused_total", "Connections over a limit")?;
        let certificates_refused = IntCounter::new(
            "fedgate_client_certificates_refused_total",
            "Client certificates that were refused: in a handshake, or of a connection that lasted",
        )?;
        registry.register(Box::new(certificates_refused.clone()))?;
        let members_refused =
            IntCounter::new("fedgate_members_refused_total", "Bodies with a member that the caller may not write")?;
        let members_removed = IntCounter::new("fedgate_members_removed_total", "Members left out of answers")?;
        let connections = IntGauge::new("fedgate_connections", "Connections now")?;
        let policy = IntGaugeVec::new(Opts::new("fedgate_policy_info", "The policy in force"), &["fingerprint"])?;
        let certificates = Opts::new(
            "fedgate_certificate_not_after_timestamp_seconds",
            "When a certificate that is in force ends, in seconds since 1970",
        );
        let certificates = IntGaugeVec::new(certificates, &["key", "file", "subject"])?;
        registry.register(Box::new(certificates.clone()))?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(refusals.clone()))?;
        registry.register(Box::new(handshakes_failed.clone()))?;
        let ended = Opts::new("fedgate_connections_ended_total", "Connections ended by a limit of time");
        let ended = IntCounterVec::new(ended, &["limit"])?;
        registry.register(Box::new(ended.clone()))?;
        registry.register(Box::new(connections_refused.clone()))?;
        let records_lost = IntCounter::new("fedgate_records_lost_total", "Records for which there was no room")?;
        registry.register(Box::new(records_lost.clone()))?;
        let records_merged = IntCounter::new(
            "fedgate_records_merged_total",
            "Requests of anonymous callers that share a record with others",
        )?;
        registry.register(Box::new(records_merged.clone()))?;
        let account_changes = IntCounterVec::new(
            Opts::new(
                "fedgate_account_changes_total",
                "Changes of accounts that were recorded here, by the way they were made",
            ),
            &["via"],
        )?;
        registry.register(Box::new(account_changes.clone()))?;
        let records_bytes = IntCounter::new("fedgate_records_bytes_total", "Bytes of records")?;
        registry.register(Box::new(records_bytes.clone()))?;
        let records_free =
            IntGauge::new("fedgate_records_free_bytes", "Room on the disk of the file of records; 0 where unknown")?;
        registry.register(Box::new(records_free.clone()))?;
        registry.register(Box::new(members_refused.clone()))?;
        registry.register(Box::new(members_removed.clone()))?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(policy.clone()))?;
        let upstreams = UpstreamMetrics::new(&registry)?;
        let sampled =
            SAMPLED.iter().map(|(name, help)| SampledMetric::register(&registry, name, help).map(|of| (*name, of)));
        let sampled = sampled.collect::<Result<_, _>>()?;
        Ok(Self {
            registry,
            requests,
            duration,
            refusals,
            connections_refused,
            records_lost,
            records_merged,
            account_changes,
            records_bytes,
            records_free,
            handshakes_failed,
            ended,
            certificates_refused,
            members_refused,
            members_removed,
            connections,
            policy,
            certificates,
            upstreams,
            sampled,
            scraping: Mutex::new(()),
        })
    }

    /// Counts one request.
    pub(super) fn request(&self, decision: &str, status: u16, duration: Duration) {
        self.requests.with_label_values(&[decision, status_text(status)]).inc();
        self.duration.observe(duration.as_secs_f64());
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
        self.text()
    }

    /// Sets a sampled figure, whose name must be registered.
    pub fn sample(&self, name: &str, value: u64) {
        match self.sampled.iter().find(|(known, _)| *known == name) {
            Some((_, SampledMetric::Gauge(gauge))) => gauge.set(i64::try_from(value).unwrap_or(i64::MAX)),
            Some((_, SampledMetric::Counter(counter))) => {
                counter.reset();
                counter.inc_by(value);
            }
            None => {}
        }
    }

    /// Sets how many addresses of a server are healthy.
    pub fn upstream_healthy(&self, upstream: &str, server: &str, addresses: usize) {
        let addresses = i64::try_from(addresses).unwrap_or(i64::MAX);
        for gauge in [&self.upstreams.healthy, &self.upstreams.well] {
            gauge.with_label_values(&[upstream, server]).set(addresses);
        }
    }

    /// Counts a request that a server failed.
    pub fn upstream_failed(&self, upstream: &str, server: &str) {
        self.upstreams.failures.with_label_values(&[upstream, server]).inc();
    }

    /// Counts an ejection.
    pub fn upstream_ejected(&self, upstream: &str, server: &str) {
        self.upstreams.ejections.with_label_values(&[upstream, server]).inc();
    }

    /// Counts a request that is sent a second time.
    pub fn upstream_retried(&self, upstream: &str, server: &str) {
        self.upstreams.retries.with_label_values(&[upstream, server]).inc();
    }

    /// Counts the headers of one forwarded request that were dropped for its upstream.
    pub fn headers_dropped(&self, upstream: &str, count: usize) {
        if count > 0 {
            self.upstreams.headers_dropped.with_label_values(&[upstream]).inc_by(count as u64);
        }
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

    /// All metrics as text (Prometheus exposition format 0.0.4).
    fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be written");
        }
        text
    }

    /// Sets the free room for records.
    pub(super) fn records_free(&self, bytes: u64) {
        self.records_free.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Counts a connection that was ended by a time limit.
    pub fn ended(&self, limit: &'static str) {
        self.ended.with_label_values(&[limit]).inc();
    }

    /// Counts a connection as open until the returned value is dropped.
    pub fn connection(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection(self.connections.clone())
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
    fn labels_are_bounded_and_samples_are_told() {
        let metrics = GatewayMetrics::new().unwrap();
        (0..2000).for_each(|status| metrics.request("allow", status, Duration::from_millis(1)));
        metrics.sample("fedgate_cache_hits_total", 7);
        metrics.policy_in_force("p1");
        metrics.policy_in_force("p2");
        let text = String::from_utf8(metrics.text()).unwrap();
        assert!(text.lines().filter(|line| line.starts_with("fedgate_requests_total")).count() < 30, "{text}");
        assert!(text.contains("\nfedgate_cache_hits_total 7\n"), "{text}");
        assert!(text.contains("fingerprint=\"p2\"") && !text.contains("p1"));
        assert!(text.contains("fedgate_request_duration_seconds_count 2000"));
    }
}
