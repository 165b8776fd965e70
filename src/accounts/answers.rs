//! The answers of the watch over the account epoch, on their way to their receiver.
//!
//! The one rule: the epoch of an answer is stored before the receiver learns of it. A read that the receiver lets pass
//! begins later, and so refuses a lower epoch.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{AccountChanges, AccountsError};
use fedgate_base::moment::BootMoment;

/// The receiver of the watch's answers.
pub trait EpochWatch: Send + Sync {
    /// The primary was asked at `asked` and answered `changes`.
    fn confirmed(&self, asked: BootMoment, changes: &AccountChanges);
    /// The accounts cannot be confirmed now; called once for each outage and reason.
    fn lost(&self, error: &AccountsError);
}

/// Passes on the answers of the primary.
pub(super) struct WatchAnswers<'a> {
    /// The epoch of the last answer.
    pub(super) announced: &'a AtomicU64,
    pub(super) watch: &'a dyn EpochWatch,
}

impl WatchAnswers<'_> {
    /// Passes on an answer of the primary to a question of the moment `asked`.
    pub(super) fn confirmed(&self, asked: BootMoment, changes: &AccountChanges) {
        self.announced.store(changes.epoch, Ordering::Release);
        self.watch.confirmed(asked, changes);
    }
}

/// A value that never exists: the watch ends only by an error.
pub(super) enum NeverComes {}
