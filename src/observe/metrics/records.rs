//! Counts of the records that the gateway writes.

use prometheus::{Error, IntCounter, IntGauge};

use fedgate_base::metrics::MetricRegistrar;

/// Counts of records.
pub struct RecordMetrics {
    /// Records that were lost for lack of room.
    pub lost: IntCounter,
    /// Requests of anonymous callers without a record of their own.
    pub merged: IntCounter,
    /// Bytes of records.
    pub bytes: IntCounter,
    free: IntGauge,
}

impl RecordMetrics {
    pub(super) fn new(new: &MetricRegistrar<'_>) -> Result<Self, Error> {
        Ok(Self {
            lost: new.counter("fedgate_records_lost_total", "Records for which there was no room")?,
            merged: new.counter(
                "fedgate_records_merged_total",
                "Requests of anonymous callers that share a record with others",
            )?,
            bytes: new.counter("fedgate_records_bytes_total", "Bytes of records")?,
            free: new
                .gauge("fedgate_records_free_bytes", "Room on the disk of the file of records; 0 where unknown")?,
        })
    }

    /// Sets the free room for records.
    pub(in crate::observe) fn free(&self, bytes: u64) {
        self.free.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
