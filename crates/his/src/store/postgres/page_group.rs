//! New pages that are stored together: one round trip and one commit for all that wait.
//!
//! The one rule: company makes no difference to a page. A page that is not simply stored (its id is taken, its person is
//! missing or locked, the statement failed) is stored again by itself, and only that decides what its caller is told.
//!
//! A page that comes while few are being stored is stored at once, by itself. Those that come meanwhile wait, and whoever
//! is ready first has all of them stored. So nobody waits for company, and the more wait, the less each costs.
//!
//! A page that waits for a lock holds up the others for [`PATIENCE`] at most. A caller that goes away loses no page of
//! others: a task of its own stores them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::super::shares::StoreTurn;
use super::super::{CreateResult, RecordKey, RecordReach};
use super::PostgresStore;
use fedgate_base::db::{DbError, NoTurn, WaitReason};

/// The most pages that wait, and are stored together.
pub(in crate::store) const PLACES: usize = 64;
/// A longer page is stored by itself.
const MOST_BYTES: usize = 64 * 1024;
/// How many sessions store pages of this kind at a time: while one waits for the disk, another is at work.
const TURNS: usize = 2;
/// How long pages wait for one that others hold up. `fedgate_store_pages` waits as long for a lock.
const PATIENCE: Duration = Duration::from_millis(50);
const STORE: &str = "SELECT fedgate_store_pages($1, $2, $3, $4, $5)";

/// The pages that wait.
#[derive(Default)]
pub(super) struct PageGroup(Mutex<WaitingPages>);

#[derive(Default)]
struct WaitingPages {
    pages: Vec<WaitingPage>,
    /// How many turns are in use. INVARIANT: with a free one, no page waits.
    turns: usize,
}

struct WaitingPage {
    id: String,
    book: String,
    text: String,
    reached: Option<String>,
    actor: Option<String>,
    told: oneshot::Sender<GroupOutcome>,
    _place: StoreTurn,
}

/// What came of a page in company.
enum GroupOutcome {
    /// It is stored.
    Stored,
    /// The others made no difference: this text has to be stored by itself.
    Alone(String),
    /// No session was free in time.
    NoTurn,
    /// The database is away; whether the page is stored is unknown.
    Away(String),
}

/// The right to store pages. When it ends, the pages that wait are stored under it.
struct GroupTurn {
    store: PostgresStore,
}

impl PostgresStore {
    pub(in super::super) async fn create(
        &self,
        key: &RecordKey,
        text: String,
        reach: &RecordReach,
    ) -> Result<CreateResult, DbError> {
        let (RecordKey::Page { person, page }, Some(reached)) = (key, only_one(reach)) else {
            return self.create_alone(key, &text, reach).await;
        };
        if text.len() > MOST_BYTES {
            return self.create_alone(key, &text, reach).await;
        }
        let Some(place) = self.turns.place().await? else { return self.create_alone(key, &text, reach).await };
        if let Some(turn) = self.turn() {
            let mut alone = Box::pin(self.create_alone(key, &text, reach));
            if let Ok(created) = timeout(PATIENCE, &mut alone).await {
                return created;
            }
            // Something holds this page up. The others go on.
            drop(turn);
            return alone.await;
        }
        let (told, outcome) = oneshot::channel();
        self.wait(WaitingPage {
            id: page.clone(),
            book: person.clone(),
            text,
            reached: reached.map(str::to_owned),
            actor: self.acts(),
            told,
            _place: place,
        });
        match outcome.await {
            Ok(GroupOutcome::Stored) => Ok(CreateResult::Done),
            Ok(GroupOutcome::Alone(text)) => self.create_alone(key, &text, reach).await,
            Ok(GroupOutcome::NoTurn) => Err(NoTurn::OfWrites.into()),
            Ok(GroupOutcome::Away(reason)) => Err(DbError::Unavailable(reason.into())),
            Err(_) => Err(NoTurn::Stopping.into()),
        }
    }

    /// A turn, if one is free.
    fn turn(&self) -> Option<GroupTurn> {
        let mut waiting = self.pages.waiting();
        let is_free = waiting.turns < TURNS;
        waiting.turns += usize::from(is_free);
        is_free.then(|| GroupTurn { store: self.clone() })
    }

    /// Lets a page wait. If all turns have ended meanwhile, one begins.
    fn wait(&self, page: WaitingPage) {
        self.pages.waiting().pages.push(page);
        drop(self.turn());
    }

    /// Stores pages together, and tells each caller what came of it.
    async fn store_together(&self, pages: Vec<WaitingPage>) {
        let stored = self.stored(&pages).await;
        for (number, page) in (1..).zip(pages) {
            let outcome = match &stored {
                Ok(stored) if stored.contains(&number) => GroupOutcome::Stored,
                Err(error) if error.waited_for() == Some(WaitReason::Turn) => GroupOutcome::NoTurn,
                // The server's answer is that nothing was stored. Without one, nobody knows.
                Err(error) if error.is_unavailable() && !error.is_answer() => GroupOutcome::Away(error.in_short()),
                Ok(_) | Err(_) => GroupOutcome::Alone(page.text),
            };
            // A caller may have gone.
            let _ = page.told.send(outcome);
        }
    }

    /// Stores pages in one statement. Returns the numbers of those that are stored.
    async fn stored(&self, pages: &[WaitingPage]) -> Result<Vec<i32>, DbError> {
        let session = self.pool.get_with(self.turns.write_together().await?).await?;
        let statement = session.prepare_cached(STORE).await?;
        let texts = |of: fn(&WaitingPage) -> Option<&str>| pages.iter().map(of).collect::<Vec<_>>();
        let (ids, books) = (texts(|page| Some(&page.id)), texts(|page| Some(&page.book)));
        let (documents, reached) = (texts(|page| Some(&page.text)), texts(|page| page.reached.as_deref()));
        let actors = texts(|page| page.actor.as_deref());
        let rows = session.query(&statement, &[&ids, &books, &documents, &reached, &actors]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}

/// The only person within reach, or none if everybody is. Nothing if there are several.
fn only_one(reach: &RecordReach) -> Option<Option<&str>> {
    match reach.ids() {
        None => Some(None),
        Some([only]) => Some(Some(only)),
        Some(_) => None,
    }
}

impl PageGroup {
    fn waiting(&self) -> MutexGuard<'_, WaitingPages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WaitingPages {
    /// The pages that wait and whose callers are still there, in the order of their ids: two statements with the same pages
    /// do not wait for each other in a circle.
    fn take(&mut self) -> Vec<WaitingPage> {
        let mut pages = std::mem::take(&mut self.pages);
        pages.retain(|page| !page.told.is_closed());
        pages.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        pages
    }
}

impl Drop for GroupTurn {
    fn drop(&mut self) {
        let mut waiting = self.store.pages.waiting();
        let pages = waiting.take();
        let runtime = if pages.is_empty() { None } else { Handle::try_current().ok() };
        let Some(runtime) = runtime else {
            waiting.turns -= 1;
            return;
        };
        drop(waiting);
        let turn = Self { store: self.store.clone() };
        // It ends within the limits of its statement. Its own end takes the pages that came meanwhile.
        runtime.spawn(async move {
            turn.store.store_together(pages).await;
            drop(turn);
        });
    }
}
