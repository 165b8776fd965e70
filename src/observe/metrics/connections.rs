//! Counts of connections and streams of clients.

use prometheus::{Error, IntCounter, IntCounterVec, IntGauge};

use fedgate_base::metrics::MetricRegistrar;

/// Counts of connections and streams.
pub struct ConnectionMetrics {
    /// Connections refused because a limit was reached.
    pub refused: IntCounter,
    /// Connections whose TLS handshake or PROXY header failed or took too long.
    pub handshakes_failed: IntCounter,
    /// Client certificates that were refused.
    pub certificates_refused: IntCounter,
    open: IntGauge,
    ended: IntCounterVec,
    streams: IntGauge,
    streams_ended: IntCounterVec,
}

/// An open connection.
pub struct OpenConnection(IntGauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl ConnectionMetrics {
    pub(super) fn new(new: &MetricRegistrar<'_>) -> Result<Self, Error> {
        Ok(Self {
            refused: new.counter("fedgate_connections_refused_total", "Connections over a limit")?,
            handshakes_failed: new.counter(
                "fedgate_handshakes_failed_total",
                "Connections closed for a TLS handshake or PROXY header that failed or took too long",
            )?,
            certificates_refused: new.counter(
                "fedgate_client_certificates_refused_total",
                "Client certificates that were refused: in a handshake, or of a connection that lasted",
            )?,
            open: new.gauge("fedgate_connections", "Connections now")?,
            ended: new.counters(
                "fedgate_connections_ended_total",
                "Connections ended by a limit of time",
                &["limit"],
            )?,
            streams: new.gauge("fedgate_streams", "Running streams and long polls")?,
            streams_ended: new.counters(
                "fedgate_streams_ended_total",
                "Streams that the gateway has ended, by reason",
                &["reason"],
            )?,
        })
    }

    /// Counts a connection as open until the returned value is dropped.
    pub fn connection(&self) -> OpenConnection {
        self.open.inc();
        OpenConnection(self.open.clone())
    }

    /// Counts a connection that was ended by a time limit.
    pub fn ended(&self, limit: &'static str) {
        self.ended.with_label_values(&[limit]).inc();
    }

    /// Counts a stream as running until the returned value is dropped.
    pub fn stream(&self) -> OpenConnection {
        self.streams.inc();
        OpenConnection(self.streams.clone())
    }

    /// Counts a stream that the gateway has ended; `reason` is a word of the records.
    pub fn stream_ended(&self, reason: &'static str) {
        self.streams_ended.with_label_values(&[reason]).inc();
    }
}
