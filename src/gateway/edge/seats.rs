//! Seats for connections, counted in total and per client address.
//!
//! The one rule: a connection without a seat is closed before a byte of it is read, so that neither a crowd nor one
//! greedy address takes all memory and descriptors.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fedgate_core::network::client_network;

/// The seats of one group of listeners.
#[derive(Clone)]
pub(crate) struct ClientSeats(Arc<SeatCounts>);

#[derive(Debug)]
struct SeatCounts {
    total: usize,
    per_source: usize,
    taken: Mutex<SeatsTaken>,
}

/// The count in total, and the count of each client address.
type SeatsTaken = (usize, HashMap<IpAddr, usize>);

/// One connection's seat; given back when dropped.
#[derive(Debug)]
pub(crate) struct ClientSeat {
    counts: Arc<SeatCounts>,
    source: Option<IpAddr>,
}

impl ClientSeats {
    pub(crate) fn new(total: usize, per_source: usize) -> Self {
        Self(Arc::new(SeatCounts { total, per_source, taken: Mutex::default() }))
    }

    /// How many seats are taken.
    pub(crate) fn taken(&self) -> usize {
        self.0.lock().0
    }

    /// Takes a seat, if one is free in total and for this client address: an IPv4 address, or an IPv6 network of 64
    /// bits.
    pub(crate) fn take(&self, client: Option<IpAddr>) -> Option<ClientSeat> {
        let mut taken = self.0.lock();
        let mut source = None;
        // An unknown address (behind a balancer, until its PROXY header) counts only in total.
        if taken.0 >= self.0.total || client.is_some_and(|client| !self.0.add(&mut taken, &mut source, client)) {
            return None;
        }
        taken.0 += 1;
        Some(ClientSeat { counts: Arc::clone(&self.0), source })
    }
}

impl SeatCounts {
    fn lock(&self) -> MutexGuard<'_, SeatsTaken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more connection of an address, unless it has all that it may have.
    fn add(&self, taken: &mut SeatsTaken, source: &mut Option<IpAddr>, client: IpAddr) -> bool {
        // One household or attacker has a whole /64 of IPv6; its single addresses would be endless seats.
        let client = client_network(client);
        let count = taken.1.entry(client).or_default();
        if *count >= self.per_source {
            return false;
        }
        *count += 1;
        *source = Some(client);
        true
    }
}

impl ClientSeat {
    /// Assigns the seat to its client address once that is known; false if that address has all that it may have.
    pub(crate) fn belongs_to(&mut self, client: IpAddr) -> bool {
        let mut taken = self.counts.lock();
        self.counts.add(&mut taken, &mut self.source, client)
    }
}

impl Drop for ClientSeat {
    fn drop(&mut self) {
        let mut taken = self.counts.lock();
        taken.0 = taken.0.saturating_sub(1);
        let Some(source) = self.source else { return };
        match taken.1.get_mut(&source) {
            Some(count) if *count > 1 => *count -= 1,
            // The last seat removes the entry, so that the map holds only addresses with an open connection.
            _ => {
                taken.1.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_total_and_per_source_and_given_back() {
        let seats = ClientSeats::new(3, 2);
        let ip = |text: &str| Some(text.parse().unwrap());
        let first = seats.take(ip("192.0.2.1")).unwrap();
        let _second = seats.take(ip("::ffff:192.0.2.1")).unwrap();
        assert!(seats.take(ip("192.0.2.1")).is_none(), "two of one source");
        let _third = seats.take(ip("2001:db8::1")).unwrap();
        assert!(seats.take(ip("192.0.2.9")).is_none(), "three in total");
        drop(first);
        let _fourth = seats.take(ip("2001:db8::2")).unwrap();
        drop(_second);
        assert!(seats.take(ip("2001:db8::3")).is_none(), "one network of 64 bits is one source");
        let mut behind = seats.take(None).unwrap();
        assert!(behind.belongs_to("192.0.2.7".parse().unwrap()));
        assert_eq!(seats.taken(), 3);
        drop(behind);
        let mut behind = seats.take(None).unwrap();
        assert!(!behind.belongs_to("2001:db8::4".parse().unwrap()), "two of one source behind a balancer");
    }
}
