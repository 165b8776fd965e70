//! Figures that other modules hold, read when the metrics are read.
//!
//! The one rule: each has a fixed name and help text here. Its name tells its type: a counter ends in `_total`.

use prometheus::{Error, IntCounter, IntGauge};

use fedgate_base::metrics::MetricRegistrar;

/// Log lines that were lost.
pub(super) const LOG_LINES_LOST: &str = "fedgate_log_lines_lost_total";

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

/// All sampled figures, by their names.
pub(super) struct SampledMetrics(Vec<(&'static str, SampledMetric)>);

enum SampledMetric {
    Gauge(IntGauge),
    Counter(IntCounter),
}

impl SampledMetrics {
    pub(super) fn new(new: &MetricRegistrar<'_>) -> Result<Self, Error> {
        let figure = |(name, help): &(&'static str, &str)| {
            Ok((
                *name,
                match name.ends_with("_total") {
                    true => SampledMetric::Counter(new.counter(name, help)?),
                    false => SampledMetric::Gauge(new.gauge(name, help)?),
                },
            ))
        };
        SAMPLED.iter().map(figure).collect::<Result<_, _>>().map(Self)
    }

    /// Sets a figure, whose name must be registered.
    pub(super) fn set(&self, name: &str, value: u64) {
        match self.0.iter().find(|(known, _)| *known == name) {
            Some((_, SampledMetric::Gauge(gauge))) => gauge.set(i64::try_from(value).unwrap_or(i64::MAX)),
            Some((_, SampledMetric::Counter(counter))) => {
                counter.reset();
                counter.inc_by(value);
            }
            None => {}
        }
    }
}
