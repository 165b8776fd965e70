//! Counts of open connections and requests in flight; a stop waits for them.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch::Sender;

use super::connection_slots::ConnectionSlots;
use super::request_seats::RequestSeats;
use super::stream_seats::StreamSeats;
use fedgate_base::config::LimitsConfig;

/// The traffic that passes through the gateway now.
pub(crate) struct LiveTraffic {
    pub(crate) in_flight: AtomicUsize,
    pub(crate) slots: ConnectionSlots,
    pub(crate) seats: RequestSeats,
    pub(crate) stream_seats: StreamSeats,
    /// True once every answer must be the last of its connection.
    pub(crate) stopping: Sender<bool>,
    /// True once every stream must end, so that its client goes on elsewhere.
    pub(crate) ending_streams: Sender<bool>,
}

impl LiveTraffic {
    pub(crate) fn new(limits: &LimitsConfig) -> Self {
        let slots = ConnectionSlots::new(limits.connections, limits.connections_per_source);
        let seats = RequestSeats::new(limits.connections, limits.connections_per_source);
        Self {
            in_flight: AtomicUsize::default(),
            slots,
            seats,
            stream_seats: StreamSeats::new(&limits.streams, limits.connections),
            stopping: Sender::new(false),
            ending_streams: Sender::new(false),
        }
    }

    /// Requests that are being served.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Open connections, or requests, whichever are more: a request may outlive its connection.
    pub(crate) fn open(&self) -> usize {
        self.slots.taken().max(self.in_flight())
    }

    /// Whether streams must end.
    pub(crate) fn ends_streams(&self) -> bool {
        *self.ending_streams.borrow()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}
