//! What is counted of replicas.
//!
//! The one rule: labels are bounded: a replica is called by its place in `store.read_uris`, and an outcome is one of a few.
//!
//! The service of the HIS registers them.

use std::sync::OnceLock;

use prometheus::{Error, IntCounter, IntCounterVec, IntGaugeVec};

use crate::metrics::MetricRegistrar;

/// Who answered a read that a replica may answer, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadOutcome {
    /// A replica.
    Replica,
    /// The primary, because each replica is left out.
    Away,
    /// The primary, because no replica had replayed enough.
    Lag,
    /// The primary, because the connections with the replicas are in use.
    Busy,
    /// The primary, because the replica failed.
    Failed,
    /// The primary, because it did not tell its position.
    Unanswered,
}

impl ReadOutcome {
    const ALL: [Self; 6] = [Self::Replica, Self::Away, Self::Lag, Self::Busy, Self::Failed, Self::Unanswered];

    fn name(self) -> &'static str {
        match self {
            Self::Replica => "replica",
            Self::Away => "away",
            Self::Lag => "lag",
            Self::Busy => "busy",
            Self::Failed => "failed",
            Self::Unanswered => "unanswered",
        }
    }

    /// This one, unless it is the mildest: then the other one.
    pub(super) fn or(self, other: Self) -> Self {
        if self == Self::Away { other } else { self }
    }
}

/// The counts of the replicas of one process. Nothing is counted before they are registered.
#[derive(Default)]
pub struct ReplicaFigures(OnceLock<RegisteredFigures>);

struct RegisteredFigures {
    reads: IntCounterVec,
    served: IntCounterVec,
    up: IntGaugeVec,
    lag: IntGaugeVec,
    questions: IntCounter,
    answers: IntCounter,
}

impl ReplicaFigures {
    /// Registers all of them.
    ///
    /// # Errors
    /// A name is registered already.
    pub fn register(&self, new: &MetricRegistrar<'_>) -> Result<(), Error> {
        let figures = RegisteredFigures {
            reads: new.counters(
                "fedhis_replica_reads_total",
                "Reads that a replica may answer: answered by one (replica), or by the primary because of this (away, lag, \
                 busy, failed, unanswered)",
                &["outcome"],
            )?,
            served: new.counters("fedhis_replica_answers_total", "Reads that this replica answered", &["replica"])?,
            up: new.gauges("fedhis_replica_up", "1 if this replica may be read, 0 if it is left out", &["replica"])?,
            lag: new.gauges(
                "fedhis_replica_lag_bytes",
                "How far this replica was behind the log of the primary, when they were last compared",
                &["replica"],
            )?,
            questions: new
                .counter("fedhis_position_questions_total", "Questions to the primary how far its log is on the disk")?,
            answers: new.counter("fedhis_position_answers_total", "Reads for which these questions were asked")?,
        };
        ReadOutcome::ALL.iter().for_each(|outcome| _ = figures.reads.with_label_values(&[outcome.name()]));
        // Whoever registers them twice counts on with the first.
        let _ = self.0.set(figures);
        Ok(())
    }

    pub(super) fn read(&self, outcome: ReadOutcome) {
        if let Some(figures) = self.0.get() {
            figures.reads.with_label_values(&[outcome.name()]).inc();
        }
    }

    /// A read that the replica of this place has answered.
    pub(super) fn served(&self, place: usize) {
        if let Some(figures) = self.0.get() {
            figures.served.with_label_values(&[place.to_string()]).inc();
        }
    }

    /// Whether a replica may be read.
    pub(super) fn up(&self, place: usize, is_up: bool) {
        if let Some(figures) = self.0.get() {
            figures.up.with_label_values(&[place.to_string()]).set(i64::from(is_up));
        }
    }

    /// How many bytes of the primary's log a replica lacks.
    pub(super) fn lag(&self, place: usize, bytes: u64) {
        if let Some(figures) = self.0.get() {
            figures.lag.with_label_values(&[place.to_string()]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    /// A question that was asked for so many reads; for none, it is not counted.
    pub(super) fn question(&self, reads: usize) {
        if let (Some(figures), true) = (self.0.get(), reads > 0) {
            figures.questions.inc();
            figures.answers.inc_by(reads as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_count_has_a_name_that_prometheus_takes() {
        let (figures, registry) = (ReplicaFigures::default(), prometheus::Registry::new());
        figures.read(ReadOutcome::Lag);
        figures.register(&MetricRegistrar::of(&registry)).unwrap();
        figures.read(ReadOutcome::Lag);
        figures.served(1);
        figures.up(1, true);
        figures.lag(1, 17);
        figures.question(3);
        figures.question(0);
        let text = String::from_utf8(crate::metrics::text(&registry)).unwrap();
        for line in [
            "fedhis_replica_reads_total{outcome=\"lag\"} 1",
            "fedhis_replica_reads_total{outcome=\"failed\"} 0",
            "fedhis_replica_answers_total{replica=\"1\"} 1",
            "fedhis_replica_up{replica=\"1\"} 1",
            "fedhis_replica_lag_bytes{replica=\"1\"} 17",
            "fedhis_position_questions_total 1",
            "fedhis_position_answers_total 3",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in {text}");
        }
    }
}
