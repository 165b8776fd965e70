//! Slots for connections, counted in total and per client address.
//!
//! The one rule: a connection without a slot is closed before a byte of it is read, so that neither a crowd nor one
//! greedy address takes all memory and descriptors.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fedgate_core::network::client_network;

/// The slots of one group of listeners.
#[derive(Clone)]
pub(crate) struct ConnectionSlots(Arc<SlotCounts>);

#[derive(Debug)]
struct SlotCounts {
    total: usize,
    per_client: usize,
    taken: Mutex<SlotsTaken>,
}

/// The count in total, and the count of each client address.
type SlotsTaken = (usize, HashMap<IpAddr, usize>);

/// One connection's slot; given back when dropped.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    counts: Arc<SlotCounts>,
    counted: Option<IpAddr>,
}

impl ConnectionSlots {
    pub(crate) fn new(total: usize, per_client: usize) -> Self {
        Self(Arc::new(SlotCounts { total, per_client, taken: Mutex::default() }))
    }

    /// How many slots are taken.
    pub(crate) fn taken(&self) -> usize {
        self.0.lock().0
    }

    /// Takes a slot, if one is free in total and for this client address: an IPv4 address, or an IPv6 network of 64
    /// bits.
    pub(crate) fn take(&self, client: Option<IpAddr>) -> Option<ConnectionSlot> {
        let mut taken = self.0.lock();
        let mut counted = None;
        // An unknown address (behind a balancer, until its PROXY header) counts only in total.
        if taken.0 >= self.0.total || client.is_some_and(|client| !self.0.add(&mut taken, &mut counted, client)) {
            return None;
        }
        taken.0 += 1;
        Some(ConnectionSlot { counts: Arc::clone(&self.0), counted })
    }
}

impl SlotCounts {
    fn lock(&self) -> MutexGuard<'_, SlotsTaken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more connection of an address, unless it has all that it may have.
    fn add(&self, taken: &mut SlotsTaken, counted: &mut Option<IpAddr>, client: IpAddr) -> bool {
        // One household or attacker has a whole /64 of IPv6; its single addresses would be endless slots.
        let client = client_network(client);
        let count = taken.1.entry(client).or_default();
        if *count >= self.per_client {
            return false;
        }
        *count += 1;
        *counted = Some(client);
        true
    }
}

impl ConnectionSlot {
    /// Assigns the slot to its client address once that is known; false if that address has all that it may have.
    pub(crate) fn belongs_to(&mut self, client: IpAddr) -> bool {
        let mut taken = self.counts.lock();
        self.counts.add(&mut taken, &mut self.counted, client)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut taken = self.counts.lock();
        taken.0 = taken.0.saturating_sub(1);
        let Some(client) = self.counted else { return };
        match taken.1.get_mut(&client) {
            Some(count) if *count > 1 => *count -= 1,
            // The last slot removes the entry, so that the map holds only addresses with an open connection.
            _ => {
                taken.1.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_bounded_in_total_and_per_address_and_given_back() {
        let slots = ConnectionSlots::new(3, 2);
        let ip = |text: &str| Some(text.parse().unwrap());
        let first = slots.take(ip("192.0.2.1")).unwrap();
        let _second = slots.take(ip("::ffff:192.0.2.1")).unwrap();
        assert!(slots.take(ip("192.0.2.1")).is_none(), "two of one address");
        let _third = slots.take(ip("2001:db8::1")).unwrap();
        assert!(slots.take(ip("192.0.2.9")).is_none(), "three in total");
        drop(first);
        let _fourth = slots.take(ip("2001:db8::2")).unwrap();
        drop(_second);
        assert!(slots.take(ip("2001:db8::3")).is_none(), "one network of 64 bits is one address");
        let mut behind = slots.take(None).unwrap();
        assert!(behind.belongs_to("192.0.2.7".parse().unwrap()));
        assert_eq!(slots.taken(), 3);
        drop(behind);
        let mut behind = slots.take(None).unwrap();
        assert!(!behind.belongs_to("2001:db8::4".parse().unwrap()), "two of one address behind a balancer");
    }
}
