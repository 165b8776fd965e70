//! The state that the defence against guessing keeps of one connection: the answers that are held back on it, and
//! the passwords that it has proved.
//!
//! The one rule: a refusal for too many open guesses affects only the connection that holds them. Requests of others
//! never delay a password that was proved at the client address, if it comes over a connection that holds nothing
//! back.
//!
//! Such a password is always compared, at the cost of a keyed hash. So a caller who shares the address can compare one
//! guess on each new connection. The bound: a held answer occupies its connection for up to 10 s, and connections are
//! counted per address. So in 10 s there are no more guesses than connections and answers on them.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::client::ClientAddress;

/// The most answers held back on one connection: as many as are answered within the longest wait.
pub(super) const MOST_HELD_OF_LINE: usize = 20;
/// The most proved passwords that one connection remembers, the latest ones.
const MOST_PROVED: usize = 64;

/// A connection.
#[derive(Debug, Default)]
pub struct ClientLine {
    held: AtomicUsize,
    /// The mark of the last proof, so that a repeated one costs nothing more.
    last: AtomicU64,
    /// Fingerprints of accounts with their passwords.
    proved: Mutex<VecDeque<u64>>,
}

/// Which clients use a connection.
#[derive(Debug, Clone, Copy, Default)]
pub enum LineUse<'a> {
    /// Unknown.
    #[default]
    Unknown,
    /// One client address only.
    Own(&'a ClientLine),
    /// All clients of a trusted proxy.
    Shared(&'a ClientLine),
}

/// A client that presents a credential: its address and connection.
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

    /// Whether the connection is known to hold no answer back.
    pub(super) fn holds_none(self) -> bool {
        self.line().is_some_and(|line| line.held.load(Ordering::Relaxed) == 0)
    }

    /// Whether a client's own connection holds back as many answers as it may. A proxy's connection carries many
    /// clients, and is never full.
    pub(super) fn is_full(self) -> bool {
        // A proxy's connection is never full: one client behind it could otherwise refuse service to the others.
        matches!(self, Self::Own(line) if line.held.load(Ordering::Relaxed) >= MOST_HELD_OF_LINE)
    }

    /// Records that a password was proved. `mark` is any number that differs for another password and costs nothing to
    /// compute.
    pub(super) fn prove(self, mark: u64, fingerprint: impl FnOnce() -> u64) {
        let Some(line) = self.line() else { return };
        // The usual case on a kept connection: the same password again, for one load.
        if line.last.load(Ordering::Relaxed) == mark {
            return;
        }
        let fingerprint = fingerprint();
        let mut proved = line.proved();
        proved.retain(|other| *other != fingerprint);
        // The oldest goes: a client that proves many accounts, such as a portal, must not grow this without bound.
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
        let mut held: Vec<_> = (0..MOST_HELD_OF_LINE).map(|_| own.hold()).collect();
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
