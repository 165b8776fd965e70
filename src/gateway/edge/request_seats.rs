//! Seats for requests in progress, counted in total and per client address.
//!
//! The one rule: every request in progress has a seat, over either version of HTTP, and a request without one is
//! refused before anything is done for it. There are as many seats as connections. So the streams of a few HTTP/2
//! connections take no more memory and descriptors than as many clients of HTTP/1.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::connection_slots::{ConnectionSlot, ConnectionSlots};

/// How long no request must be refused before a shortage counts as over.
const SHORTAGE_OVER: Duration = Duration::from_secs(5);

/// The seats of one gateway.
pub(crate) struct RequestSeats {
    all: ConnectionSlots,
    /// Anonymous callers have half of the seats: known callers are served beside any number of unknown ones.
    anonymous: ConnectionSlots,
    /// Whether requests were refused of late. Read before the lock, which a request with a seat seldom needs.
    is_short: AtomicBool,
    last_refusal: Mutex<Option<Instant>>,
}

/// The seat of one request; given back when dropped.
#[derive(Debug)]
pub(crate) struct RequestSeat {
    _seat: ConnectionSlot,
    /// Set once the caller is known to be anonymous.
    among_anonymous: Option<ConnectionSlot>,
}

impl RequestSeats {
    /// So many seats in total, and for one client address.
    pub(crate) fn new(total: usize, per_source: usize) -> Self {
        Self {
            all: ConnectionSlots::new(total, per_source),
            anonymous: ConnectionSlots::new(total.div_ceil(2), per_source),
            is_short: AtomicBool::new(false),
            last_refusal: Mutex::default(),
        }
    }

    /// Takes a seat, if one is free in total and for this client address.
    pub(crate) fn take(&self, client: Option<IpAddr>) -> Option<RequestSeat> {
        let Some(seat) = self.all.take(client) else {
            self.note_refusal(client);
            return None;
        };
        if self.is_short.load(Ordering::Acquire) {
            self.note_seat();
        }
        Some(RequestSeat { _seat: seat, among_anonymous: None })
    }

    /// Counts a seat among those of anonymous callers; false if they have all of theirs.
    pub(crate) fn is_anonymous(&self, seat: &mut RequestSeat, client: Option<IpAddr>) -> bool {
        seat.among_anonymous = self.anonymous.take(None);
        let has_seat = seat.among_anonymous.is_some();
        if !has_seat {
            self.note_refusal(client);
        }
        has_seat
    }

    /// Logs the beginning of a shortage.
    fn note_refusal(&self, client: Option<IpAddr>) {
        let last = self.last_refusal.lock().unwrap_or_else(PoisonError::into_inner).replace(Instant::now());
        self.is_short.store(true, Ordering::Release);
        if last.is_none() {
            let client = client.map(tracing::field::display);
            tracing::warn!(
                client,
                in_progress = self.all.taken(),
                "requests are refused as busy: too many are in progress, in total, of anonymous callers, or of this \
                 client address"
            );
        }
    }

    /// Logs the end of a shortage.
    fn note_seat(&self) {
        let mut last = self.last_refusal.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() > SHORTAGE_OVER) {
            *last = None;
            self.is_short.store(false, Ordering::Release);
            tracing::info!("no request has been refused as busy for a while: fewer are in progress");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_callers_have_half_of_the_seats_and_one_address_its_share() {
        let seats = RequestSeats::new(6, 4);
        let ip = |text: &str| Some(text.parse().unwrap());
        let mut held: Vec<_> = (0..4).map(|_| seats.take(ip("192.0.2.1")).unwrap()).collect();
        assert!(seats.take(ip("192.0.2.1")).is_none(), "four of one address");
        let granted = held.iter_mut().filter_map(|seat| seats.is_anonymous(seat, None).then_some(())).count();
        assert_eq!(granted, 3);
        let others = [seats.take(ip("192.0.2.2")), seats.take(None)];
        assert!(others.iter().all(Option::is_some) && seats.take(None).is_none(), "six in total");
        held.truncate(1);
        assert!(seats.take(ip("192.0.2.1")).is_some_and(|mut seat| seats.is_anonymous(&mut seat, None)));
    }
}
