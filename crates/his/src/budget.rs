//! The memory that bodies, documents and lists may take in this process: in total, and for each caller.
//!
//! The one rule: room is reserved before bytes are read, whether from the store or from a client, and is returned when
//! the bytes have left the process. So a client that does not read its answer uses only its own share. Every wait for
//! room has a bound. One record of up to [`SMALL_BYTES`] needs no room.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use fedgate_base::db::{DbError, WaitReason};

/// The unit of account: one KiB.
const UNIT: usize = 1024;
/// One caller may hold this fraction of the budget (a quarter).
const SHARE: usize = 4;
/// How many callers are kept that hold nothing.
const CALLERS: usize = 1024;

/// A record of up to this size is read without asking for room. A socket takes it at once, however slow its
/// reader is, so memory never holds more of them than there are connections to the store. So callers that hold
/// all the room cannot keep others from reading such a record.
pub(super) const SMALL_BYTES: usize = 32 * UNIT;

/// How long a request waits for room before any byte of its answer is sent.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer that has begun waits for room for its next piece. After that it is broken off.
const PATIENCE_WITHIN: Duration = Duration::from_secs(30);

/// How far an answer has progressed.
#[derive(Debug, Clone, Copy)]
pub(super) enum AnswerStage {
    /// No byte was sent yet: a failure still becomes a status, so the wait is short.
    Before,
    /// The answer has begun: a failure breaks it off, so the wait is longer.
    Within,
}

impl AnswerStage {
    /// How long to wait for room.
    pub(super) fn patience(self) -> Duration {
        match self {
            Self::Before => PATIENCE,
            Self::Within => PATIENCE_WITHIN,
        }
    }

    /// Asks the store, whose own waits are short. Within an answer a question that found no connection is
    /// repeated for as long as room would be waited for.
    ///
    /// # Errors
    /// Any failure of the store. Before an answer, and after that time, this includes that no connection became
    /// free.
    pub(super) async fn ask<T, F>(self, mut question: impl FnMut() -> F) -> Result<T, DbError>
    where
        F: Future<Output = Result<T, DbError>>,
    {
        let deadline = match self {
            Self::Before => Instant::now(),
            Self::Within => Instant::now() + PATIENCE_WITHIN,
        };
        loop {
            match question().await {
                // Only the lack of a connection is waited for again: it passes as other requests end.
                Err(error) if error.waited_for() == Some(WaitReason::Turn) && Instant::now() < deadline => {}
                answer => return answer,
            }
        }
    }
}

/// The budget of this process.
pub(super) struct ByteBudget {
    /// `None`: no bound.
    total: Option<Arc<Semaphore>>,
    share: usize,
    callers: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// Room that returns to the budget when this value is dropped.
pub(super) struct HeldBytes {
    /// The permits of the caller and of the total; `None` without a bound, or for zero bytes.
    room: Option<[OwnedSemaphorePermit; 2]>,
}

impl ByteBudget {
    /// A budget of `bytes` in total; 0 means no bound.
    pub(super) fn new(bytes: usize) -> Self {
        Self::in_parts(bytes, SHARE)
    }

    /// As [`ByteBudget::new`], for parsed bodies. The largest of them counts as a whole share, and two fit at a
    /// time.
    pub(super) fn of_trees(bytes: usize) -> Self {
        Self::in_parts(bytes, 2)
    }

    fn in_parts(bytes: usize, parts: usize) -> Self {
        let units = (bytes / UNIT).min(Semaphore::MAX_PERMITS);
        let total = (bytes > 0).then(|| Arc::new(Semaphore::new(units)));
        Self { total, share: (units / parts).max(1), callers: Mutex::default() }
    }

    /// Waits for room; `None` if there is none in time. A request for more than a caller's share counts as the
    /// whole share, so that it passes alone.
    pub(super) async fn hold(&self, caller: &str, bytes: usize, patience: Duration) -> Option<HeldBytes> {
        let mut held = HeldBytes::nothing();
        self.top_up(caller, &mut held, bytes, patience).await?;
        Some(held)
    }

    /// Waits until `held` covers `bytes`, if it does not yet. The caller keeps its room while it waits for
    /// more, so use this only where the need is rare: two callers that wait for each other both fail, after
    /// `patience`.
    pub(super) async fn top_up(
        &self,
        caller: &str,
        held: &mut HeldBytes,
        bytes: usize,
        patience: Duration,
    ) -> Option<()> {
        let Some(total) = &self.total else { return Some(()) };
        let wanted = bytes.div_ceil(UNIT).clamp(1, self.share).saturating_sub(held.units());
        if wanted == 0 {
            return Some(());
        }
        let (units, own) = (u32::try_from(wanted).ok()?, self.caller(caller));
        let both = async {
            // The caller's own share comes first: a caller that has used it up waits there, without holding
            // room of others.
            let own = own.acquire_many_owned(units).await.ok()?;
            let total = Arc::clone(total).acquire_many_owned(units).await.ok()?;
            Some([own, total])
        };
        // On a timeout both permits drop here, so a failed wait costs nothing.
        held.add(timeout(patience, both).await.ok().flatten()?);
        Some(())
    }

    fn caller(&self, caller: &str) -> Arc<Semaphore> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= CALLERS {
            // Callers that hold or wait for room have a second reference to their share.
            // INVARIANT: an entry that is in use stays, or the same caller would get a second share.
            callers.retain(|_, share| Arc::strong_count(share) > 1);
        }
        Arc::clone(callers.entry(caller.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.share))))
    }
}

impl HeldBytes {
    /// No room, for small records.
    pub(super) fn nothing() -> Self {
        Self { room: None }
    }

    fn units(&self) -> usize {
        self.room.as_ref().map_or(0, |[own, _]| own.num_permits())
    }

    fn add(&mut self, more: [OwnedSemaphorePermit; 2]) {
        let Some([own, total]) = &mut self.room else {
            self.room = Some(more);
            return;
        };
        let [more_own, more_total] = more;
        own.merge(more_own);
        total.merge(more_total);
    }

    /// Returns the room that `bytes` do not need.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        for permit in self.room.iter_mut().flatten() {
            let spare = permit.num_permits().saturating_sub(bytes.div_ceil(UNIT));
            drop(permit.split(spare));
        }
    }

    /// Attaches the room to the bytes. It returns when the last reference to them is dropped, which is after
    /// they were sent.
    pub(super) fn around(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        struct PaidBytes<T> {
            bytes: T,
            _held: HeldBytes,
        }
        impl<T: AsRef<[u8]>> AsRef<[u8]> for PaidBytes<T> {
            fn as_ref(&self) -> &[u8] {
                self.bytes.as_ref()
            }
        }
        Bytes::from_owner(PaidBytes { bytes, _held: self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedgate_base::db::NoTurn;

    #[tokio::test(start_paused = true)]
    async fn one_caller_holds_its_share_and_leaves_the_rest_to_others() {
        let budget = ByteBudget::new(64 * UNIT);
        let mut held = vec![];
        for _ in 0..4 {
            held.push(budget.hold("ANA", 4 * UNIT, PATIENCE).await.unwrap().around(vec![0_u8; 9]));
        }
        assert!(budget.hold("ANA", 1, PATIENCE).await.is_none(), "her share");
        for caller in ["BOB", "EVE", "JOE"] {
            held.push(budget.hold(caller, 1 << 30, PATIENCE).await.unwrap().around(Vec::new()));
        }
        assert!(budget.hold("ZOE", 1, PATIENCE).await.is_none(), "the whole");
        let part = held.remove(0).slice(2..4);
        assert!(budget.hold("ANA", 1, PATIENCE).await.is_none(), "a part of the bytes is still there");
        drop(part);
        assert!(budget.hold("ANA", 4 * UNIT, PATIENCE).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn within_an_answer_a_connection_is_waited_for_as_long_as_room_and_before_it_is_not() {
        let asked = async |stage: AnswerStage, free_after: u64| {
            let begun = Instant::now();
            let answer = stage.ask(|| async {
                tokio::time::sleep(Duration::from_secs(2)).await;
                if begun.elapsed() > Duration::from_secs(free_after) { Ok(()) } else { Err(NoTurn::OfAll.into()) }
            });
            (answer.await.is_ok(), begun.elapsed().as_secs())
        };
        assert_eq!(asked(AnswerStage::Within, 19).await, (true, 20));
        assert_eq!(asked(AnswerStage::Within, 3600).await, (false, 30));
        assert_eq!(asked(AnswerStage::Before, 3).await, (false, 2));
        let mut count = 0;
        let fails = AnswerStage::Within.ask(|| {
            count += 1;
            std::future::ready(Err::<(), _>(DbError::Unavailable("away".into())))
        });
        assert!(fails.await.is_err() && count == 1, "a database that is away is reported at once");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_grows_up_to_a_share_and_shrinks_to_what_is_needed() {
        let budget = ByteBudget::new(64 * UNIT);
        let mut held = budget.hold("ANA", 10 * UNIT, PATIENCE).await.unwrap();
        budget.top_up("ANA", &mut held, 12 * UNIT, PATIENCE).await.unwrap();
        assert!(budget.hold("ANA", 5 * UNIT, PATIENCE).await.is_none(), "12 of 16 are held");
        budget.top_up("ANA", &mut held, 1 << 30, PATIENCE).await.unwrap();
        budget.top_up("ANA", &mut held, 1 << 30, PATIENCE).await.expect("the whole share is as much as there is");
        assert!(budget.hold("ANA", 1, PATIENCE).await.is_none());
        held.shrink_to(3 * UNIT + 1);
        let rest = budget.hold("ANA", 12 * UNIT, PATIENCE).await;
        assert!(rest.is_some() && budget.hold("ANA", 1, PATIENCE).await.is_none(), "4 and 12");
        assert!(budget.top_up("ANA", &mut held, 5 * UNIT, PATIENCE).await.is_none());
        drop(held);
        assert!(budget.hold("ANA", 4 * UNIT, PATIENCE).await.is_some(), "what could not grow is given back as it was");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_waits_in_vain_leaves_nothing_behind() {
        let budget = ByteBudget::new(8 * UNIT);
        for at in 0..2 * CALLERS {
            assert!(budget.hold(&at.to_string(), 2 * UNIT, PATIENCE).await.is_some());
        }
        assert!(budget.callers.lock().unwrap().len() <= CALLERS);
        let all = [budget.hold("A", 1 << 20, PATIENCE).await, budget.hold("B", 1 << 20, PATIENCE).await];
        let more = [budget.hold("C", 1 << 20, PATIENCE).await, budget.hold("D", 1 << 20, PATIENCE).await];
        assert!(budget.hold("E", 1, PATIENCE).await.is_none());
        drop((all, more));
        assert!(budget.hold("E", 1 << 20, PATIENCE).await.is_some());
        assert!(ByteBudget::new(0).hold("A", usize::MAX, PATIENCE).await.is_some(), "no bound");
    }
}
