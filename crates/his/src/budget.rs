//! The bytes that bodies, documents and lists may take of this process's memory, all together and for each caller.
//!
//! The one rule: whatever is read from the store for a client, or from a client for the store, is paid for before, and given
//! back when it has left this process. So readers that do not read hold their own share and nothing else, and who waits for
//! room waits with a bound. One record of up to [`SMALL_BYTES`] alone costs nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use fedgate_base::db::{DbError, WaitReason};

/// What is counted: a KiB.
const UNIT: usize = 1024;
/// Which part of the budget one caller may hold.
const SHARE: usize = 4;
/// How many callers are remembered that hold nothing.
const CALLERS: usize = 1024;

/// A record of so many bytes is read without asking for room: a socket takes it at once, however slow its reader is, so no
/// more than there are connections to the store stand in memory. Callers that hold all the room keep nobody from reading such.
pub(super) const SMALL_BYTES: usize = 32 * UNIT;

/// How long a request waits for room before anything of its answer was sent.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer that has begun waits for room for its next piece, before it is broken off.
const PATIENCE_WITHIN: Duration = Duration::from_secs(30);

/// How far an answer is.
#[derive(Debug, Clone, Copy)]
pub(super) enum AnswerStage {
    /// Nothing of it was sent: what fails is told by its status, soon.
    Before,
    /// It has begun: what fails breaks it off, so more is waited for than for an answer.
    Within,
}

impl AnswerStage {
    /// How long room is waited for.
    pub(super) fn patience(self) -> Duration {
        match self {
            Self::Before => PATIENCE,
            Self::Within => PATIENCE_WITHIN,
        }
    }

    /// Asks the store, which makes nobody wait for long: within an answer again and again, for as long as room is waited for.
    ///
    /// # Errors
    /// What the store reports, once it is something else than that no connection is free, or none became free.
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
                Err(error) if error.waited_for() == Some(WaitReason::Turn) && Instant::now() < deadline => {}
                answer => return answer,
            }
        }
    }
}

/// The budget of this process.
pub(super) struct ByteBudget {
    /// None: without bound.
    total: Option<Arc<Semaphore>>,
    share: usize,
    callers: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// Room that is given back when this is dropped.
pub(super) struct HeldBytes {
    /// Of the caller and of all; none without a bound, or for nothing.
    room: Option<[OwnedSemaphorePermit; 2]>,
}

impl ByteBudget {
    /// So many bytes in all; 0 for any number.
    pub(super) fn new(bytes: usize) -> Self {
        Self::in_parts(bytes, SHARE)
    }

    /// As [`Budget::new`], for parsed bodies: of the largest, which count as a whole share, there are two at a time.
    pub(super) fn of_trees(bytes: usize) -> Self {
        Self::in_parts(bytes, 2)
    }

    fn in_parts(bytes: usize, parts: usize) -> Self {
        let units = (bytes / UNIT).min(Semaphore::MAX_PERMITS);
        let total = (bytes > 0).then(|| Arc::new(Semaphore::new(units)));
        Self { total, share: (units / parts).max(1), callers: Mutex::default() }
    }

    /// Waits for room; none if there is none in time. What is larger than a caller's share counts as all of it, so that it passes
    /// alone.
    pub(super) async fn hold(&self, caller: &str, bytes: usize, patience: Duration) -> Option<HeldBytes> {
        let mut held = HeldBytes::nothing();
        self.top_up(caller, &mut held, bytes, patience).await?;
        Some(held)
    }

    /// Waits for as much room as makes `held` one of so many bytes, if it is less. Whoever holds some waits for more here, so
    /// this is for what is rarely needed: two that wait for each other wait in vain.
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
            // First the caller's own, so that who has no share left holds up nobody else.
            let own = own.acquire_many_owned(units).await.ok()?;
            let total = Arc::clone(total).acquire_many_owned(units).await.ok()?;
            Some([own, total])
        };
        held.add(timeout(patience, both).await.ok().flatten()?);
        Some(())
    }

    fn caller(&self, caller: &str) -> Arc<Semaphore> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= CALLERS {
            // Who waits or holds has another reference.
            callers.retain(|_, share| Arc::strong_count(share) > 1);
        }
        Arc::clone(callers.entry(caller.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.share))))
    }
}

impl HeldBytes {
    /// No room, for what is small.
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

    /// Gives back what so many bytes do not need.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        for permit in self.room.iter_mut().flatten() {
            let spare = permit.num_permits().saturating_sub(bytes.div_ceil(UNIT));
            drop(permit.split(spare));
        }
    }

    /// The bytes, which give their room back when the last reference to them is gone: when they were sent.
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
        assert!(fails.await.is_err() && count == 1, "a database that is away is told at once");
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
    async fn who_waits_in_vain_leaves_nothing_behind() {
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
