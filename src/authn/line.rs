//! One connection of a client, as far as guessing goes: the answers that are held back on it, and the passwords it has proved.
//!
//! The one rule: what is refused here for many open guesses is the connection's own doing. Nobody else's requests make a
//! password wait that was proved at the client address, over a connection that holds nothing back.
//!
//! That such a password is always compared costs a keyed hash, and lets whoever shares the address compare one guess on each
//! new connection. What bounds him is that an answer held back keeps its connection's place, for 10 s at most: connections are
//! counted per address, so there are no more guesses in 10 s than places and answers on them.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::client::ClientAddress;

/// Answers held back on one connection at a time, as many as are answered within the longest wait.
pub(super) const MOST_HELD: usize = 20;
/// Proved passwords that one connection is remembered for, the latest.
const MOST_PROVED: usize = 64;

/// A connection.
#[derive(Debug, Default)]
pub struct ClientLine {
    held: AtomicUsize,
    /// What was proved last, to look at nothing else while it stays the same.
    last: AtomicU64,
    /// Fingerprints of accounts with their passwords.
    proved: Mutex<VecDeque<u64>>,
}

/// Whose requests come over a connection.
#[derive(Debug, Clone, Copy, Default)]
pub enum LineUse<'a> {
    /// Nothing is known of it.
    #[default]
    Unknown,
    /// Those of the client address.
    Own(&'a ClientLine),
    /// Those of all clients of a trusted proxy.
    Shared(&'a ClientLine),
}

/// Who asks: an address, and the connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct AskingClient<'a> {
    /// The address.
    pub address: ClientAddress,
    /// The connection.
    pub line: LineUse<'a>,
}

impl From<ClientAddress> for AskingClient<'_> {
    fn from(address: ClientAddress) -> Self {
        Self { address, line: LineUse::Unknown }
    }
}

impl From<Option<IpAddr>> for AskingClient<'_> {
    fn from(address: Option<IpAddr>) -> Self {
        ClientAddress::from(address).into()
    }
}

/// An answer that is held back on a connection, until dropped.
pub(super) struct HeldAnswer<'a>(Option<&'a ClientLine>);

impl Drop for HeldAnswer<'_> {
    fn drop(&mut self) {
        if let Some(line) = self.0 {
            line.held.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl<'a> LineUse<'a> {
    fn line(self) -> Option<&'a ClientLine> {
        match self {
            Self::Unknown => None,
            Self::Own(line) | Self::Shared(line) => Some(line),
        }
    }

    /// Counts an answer that is held back.
    pub(super) fn hold(self) -> HeldAnswer<'a> {
        let line = self.line();
        if let Some(line) = line {
            line.held.fetch_add(1, Ordering::Relaxed);
        }
        HeldAnswer(line)
    }

    /// Whether no answer is held back, as far as is known.
    pub(super) fn holds_none(self) -> bool {
        self.line().is_some_and(|line| line.held.load(Ordering::Relaxed) == 0)
    }

    /// Whether one client holds as many answers back as it may. A proxy's connection is that of many clients.
    pub(super) fn is_full(self) -> bool {
        matches!(self, Self::Own(line) if line.held.load(Ordering::Relaxed) >= MOST_HELD)
    }

    /// Notes that a password was proved; `mark` is any number that differs for another one and costs nothing.
    pub(super) fn prove(self, mark: u64, fingerprint: impl FnOnce() -> u64) {
        let Some(line) = self.line() else { return };
        if line.last.load(Ordering::Relaxed) == mark {
            return;
        }
        let fingerprint = fingerprint();
        let mut proved = line.proved();
        proved.retain(|other| *other != fingerprint);
        if proved.len() >= MOST_PROVED {
            proved.pop_front();
        }
        proved.push_back(fingerprint);
        line.last.store(mark, Ordering::Relaxed);
    }

    /// Whether a password was proved over this connection.
    pub(super) fn has_proved(self, fingerprint: u64) -> bool {
        self.line().is_some_and(|line| line.proved().contains(&fingerprint))
    }
}

impl ClientLine {
    fn proved(&self) -> MutexGuard<'_, VecDeque<u64>> {
        self.proved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_of_one_client_is_full_and_one_of_many_is_not() {
        let line = ClientLine::default();
        let (own, shared) = (LineUse::Own(&line), LineUse::Shared(&line));
        assert!(own.holds_none() && !LineUse::Unknown.holds_none());
        let mut held: Vec<_> = (0..MOST_HELD).map(|_| own.hold()).collect();
        assert!(own.is_full() && !shared.is_full() && !own.holds_none());
        held.pop();
        assert!(!own.is_full());
        drop(held);
        assert!(shared.holds_none());
    }

    #[test]
    fn the_latest_proved_passwords_of_a_connection_are_known() {
        let line = ClientLine::default();
        let own = LineUse::Own(&line);
        (1..=70).for_each(|n| own.prove(n, || n * 10));
        own.prove(70, || panic!("it is looked at once"));
        assert!(own.has_proved(70 * 10) && own.has_proved(7 * 10) && !own.has_proved(6 * 10));
        assert!(!LineUse::Unknown.has_proved(700));
    }
}
