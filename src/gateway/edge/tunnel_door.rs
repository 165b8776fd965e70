//! The way by which an HTTP/1 connection leaves the strict reader, when its protocol changes to WebSocket.
//!
//! The one rule: a connection leaves only when the exchange that holds its one request asks for it, and nothing of it
//! is read as HTTP afterwards. The strict reader then has no transport any more.
//!
//! [`super::strict_http1`] hands the connection over; the exchange takes it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The door of one connection, whose type is `S`.
pub(crate) struct TunnelDoor<S> {
    /// Bytes have come behind the request that is being served.
    early: AtomicBool,
    wanted: AtomicBool,
    given: Mutex<Option<Box<S>>>,
}

impl<S> Default for TunnelDoor<S> {
    fn default() -> Self {
        Self { early: AtomicBool::default(), wanted: AtomicBool::default(), given: Mutex::default() }
    }
}

impl<S> TunnelDoor<S> {
    /// Whether bytes have come behind the request that is served, before its answer.
    pub(crate) fn has_early_bytes(&self) -> bool {
        self.early.load(Ordering::Acquire)
    }

    /// Notes whether there are such bytes.
    pub(super) fn note_early_bytes(&self, there_are: bool) {
        self.early.store(there_are, Ordering::Release);
    }

    /// Asks for the connection. The next read of the strict reader hands it over.
    pub(crate) fn ask(&self) {
        self.wanted.store(true, Ordering::Release);
    }

    pub(super) fn is_asked(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    pub(super) fn give(&self, connection: S) {
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(connection));
    }

    /// Takes the connection, if it was handed over.
    pub(crate) fn take(&self) -> Option<Box<S>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<S> std::fmt::Debug for TunnelDoor<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TunnelDoor").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}
