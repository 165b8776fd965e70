//! Serves one webhook: takes its messages as they come, and sends them lane by lane.
//!
//! The one rule: every message between the first and the stored position was sent or has a row in the store. So a worker
//! that ends at any moment loses nothing, and the next one repeats at most the attempts that were on their way.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::attempt::{AttemptOutcome, ServedWebhook, attempt, give_up};
use super::lanes::WebhookLanes;
use super::rights::MessageRights;
use super::url::WebhookUrl;
use super::{WebhookHub, schedule};
use crate::store::webhooks::{OwnedWebhook, StoredWebhook, WaitingMessage};
use crate::store::{MessageFilter, MessageReach, RecordReach};
use fedgate_base::db::DbError;

/// The most messages that are taken at a time.
const BATCH: usize = 200;
/// The most attempts of one webhook at a time.
const WIDTH: usize = 8;
/// How far a webhook may be ahead of its stored position while none of the messages is for it: in positions, and in time.
const UNSTORED: (u64, Duration) = (1000, Duration::from_secs(5));

/// The pause before a message that found no room beside those of other webhooks.
const NO_ROOM: Duration = Duration::from_millis(50);
/// The pause while there is no policy, or while the store does not answer.
const NO_ANSWER: Duration = Duration::from_secs(1);
/// A receiver that took a message within this time is not away.
const AWAKE: Duration = Duration::from_secs(600);

/// Why a worker ended.
#[derive(Debug)]
pub(super) enum WorkerEnd {
    /// Another process owns the webhook, or it was changed.
    NotOwned,
    /// Another history of messages has begun. What waits here, and how far this worker is, is not as the store has it.
    OtherHistory,
    /// The webhook has ended.
    Ended(String),
    /// The store failed.
    Failed(DbError),
    /// There is no key to sign with.
    NoKey,
    /// An attempt panicked.
    Panicked,
}

impl From<DbError> for WorkerEnd {
    fn from(error: DbError) -> Self {
        Self::Failed(error)
    }
}

/// When to look for further messages.
#[derive(Debug, Clone, Copy)]
enum NextLook {
    /// At this moment, or as soon as the hub has one.
    By(Instant),
    /// Not before this moment: there is no policy, or the store failed.
    NotBefore(Instant),
}

impl NextLook {
    fn at(self) -> Instant {
        match self {
            Self::By(moment) | Self::NotBefore(moment) => moment,
        }
    }
}

/// The worker of one webhook.
pub(super) struct WebhookWorker {
    hub: Arc<WebhookHub>,
    served: Arc<ServedWebhook>,
    lanes: WebhookLanes,
    /// Rows that wait in the store behind this position may not be loaded yet. They come before further messages, of which
    /// some may be about the same persons.
    unloaded: Option<u64>,
    /// Where the search for further messages goes on.
    after: u64,
    stored: (u64, Instant),
    look: NextLook,
    /// How many attempts there may be at a time: fewer while they fail.
    width: usize,
    /// How often in a row the receiver said that it is overloaded, and until when nothing is sent.
    slow: (u32, Instant),
    /// When an attempt last succeeded.
    taken: Option<Instant>,
}

impl WebhookWorker {
    /// Serves a webhook until the lease ends.
    pub(super) async fn run(hub: Arc<WebhookHub>, owned: OwnedWebhook, lease: watch::Receiver<Instant>) -> WorkerEnd {
        let serve = async {
            match Self::begin(hub, &owned).await {
                Ok(mut worker) => worker.serve().await,
                Err(end) => end,
            }
        };
        // The attempts end with this future, since it owns their set.
        tokio::select! {
            biased;
            () = ended(lease) => WorkerEnd::NotOwned,
            end = serve => end,
        }
    }

    async fn begin(hub: Arc<WebhookHub>, owned: &OwnedWebhook) -> Result<Self, WorkerEnd> {
        // First of all: if another history begins meanwhile, the attempts notice it.
        let nobody = MessageReach::new(RecordReach::Nobody, "", &[]);
        let history = hub.store.message_places(0, 1, &MessageFilter::default(), &nobody).await?.history;
        let webhook = hub.store.owned_webhook(owned, &hub.owner).await?.ok_or(WorkerEnd::NotOwned)?;
        let keys = hub.store.webhook_keys(&webhook.id).await?;
        let Ok(url) = WebhookUrl::parse(&webhook.terms.url) else {
            let reason = "the address is not allowed any more";
            hub.store.end_webhook(&webhook, reason).await?;
            return Err(WorkerEnd::Ended(reason.to_owned()));
        };
        let (store, now) = (hub.shares.of(&webhook.account), Instant::now());
        let lanes = WebhookLanes::new(hub.waiting);
        let (after, slow) = (webhook.position, (0, now + webhook.slow_for));
        let served = Arc::new(ServedWebhook { webhook, history, url, keys, store, idle: Default::default() });
        let (unloaded, stored, look) = (Some(0), (after, now), NextLook::By(now));
        Ok(Self { hub, served, lanes, unloaded, after, stored, look, width: WIDTH, slow, taken: None })
    }

    async fn serve(&mut self) -> WorkerEnd {
        match self.serve_until_error().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn serve_until_error(&mut self) -> Result<std::convert::Infallible, WorkerEnd> {
        // They are tasks of their own. If the search for messages polled them, each could wait for a turn at the store that
        // another holds.
        let mut attempts = JoinSet::new();
        loop {
            if self.lanes.has_room() && Instant::now() >= self.look.at() {
                self.look_for_messages().await?;
            }
            while attempts.len() < self.width.min(WIDTH)
                && let Some((message, permit)) = self.next(attempts.is_empty())
            {
                let (hub, served) = (Arc::clone(&self.hub), Arc::clone(&self.served));
                attempts.spawn(async move {
                    let outcome = attempt(&hub, &served, &message).await;
                    drop(permit);
                    (message, outcome)
                });
            }
            let (wake, last) = (self.wake(attempts.len()), self.hub.last.clone());
            // A pause after a failure is kept, whatever the hub has by then.
            let heeds_messages = self.lanes.has_room() && matches!(self.look, NextLook::By(_));
            tokio::select! {
                Some(ended) = attempts.join_next() => {
                    let (message, outcome) = ended.map_err(|_| WorkerEnd::Panicked)?;
                    self.heed(&message, outcome).await?;
                }
                () = last.after(self.after), if heeds_messages => self.look = NextLook::By(Instant::now()),
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Takes further messages. While the store fails, what is on its way goes on: to end here would send it twice.
    async fn look_for_messages(&mut self) -> Result<(), WorkerEnd> {
        let Err(end) = self.take().await else { return Ok(()) };
        let WorkerEnd::Failed(error) = end else { return Err(end) };
        tracing::debug!("messages for the webhook {} are looked for again: {error}", self.served.webhook.id);
        self.look = NextLook::NotBefore(Instant::now() + NO_ANSWER);
        Ok(())
    }

    /// When there is something to do without a message or an answer.
    fn wake(&self, attempts: usize) -> Instant {
        let now = Instant::now();
        let look = if self.lanes.has_room() { self.look.at() } else { now + UNSTORED.1 };
        match self.lanes.next_due() {
            // A message that is due by now found no room beside other webhooks.
            Some(due) if attempts < self.width => due.max(self.slow.1).max(now + NO_ROOM).min(look),
            // Otherwise the next answer decides.
            Some(_) | None => look,
        }
    }

    /// The next message that is due, and the right to send it: one at a time without asking, further ones as the others
    /// leave room.
    fn next(&mut self, is_first: bool) -> Option<(WaitingMessage, Option<OwnedSemaphorePermit>)> {
        let now = Instant::now();
        if now < self.slow.1 {
            return None;
        }
        let permit = match is_first {
            true => None,
            false => Some(Arc::clone(&self.hub.attempts).try_acquire_owned().ok()?),
        };
        Some((self.lanes.take_due(now)?, permit))
    }

    /// Takes further messages.
    async fn take(&mut self) -> Result<(), WorkerEnd> {
        let (webhook, store) = (&self.served.webhook, &self.served.store);
        let account = store.webhook_account(webhook, &self.hub.owner, self.after).await?.ok_or(WorkerEnd::NotOwned)?;
        let reach = match self.hub.policy.judge(&webhook.account, &account) {
            MessageRights::Within(reach) => reach,
            MessageRights::Unknown => {
                self.look = NextLook::NotBefore(Instant::now() + NO_ANSWER);
                return Ok(());
            }
            MessageRights::Nothing(reason) => return Err(self.end(reason).await?),
        };
        if let Some(known) = self.unloaded {
            return self.load_waiting(known).await;
        }
        let places = store.message_places(self.after, self.batch(), &webhook.terms.filter, &reach).await?;
        // A worker may be ahead of the position that is stored; what is stored is true in every history.
        let is_ahead = self.after > places.last && self.after > webhook.position;
        if is_ahead || places.history != self.served.history {
            return Err(WorkerEnd::OtherHistory);
        }
        if self.after.saturating_add(1) < places.first {
            return Err(self.end("messages were deleted before they could be sent; read the lists again").await?);
        }
        if self.after > places.last {
            return Err(self.end("the messages of this hub begin anew (a restore); read the lists again").await?);
        }
        let upto = places.upto.max(self.after);
        let is_due = upto >= self.stored.0 + UNSTORED.0 || self.stored.1.elapsed() >= UNSTORED.1;
        if !places.found.is_empty() || (is_due && upto > self.stored.0) {
            let at = StoredWebhook { position: self.stored.0, ..webhook.clone() };
            let taken = store.take_messages(&at, &self.hub.owner, upto, &places.found).await?;
            let now = Instant::now();
            for message in taken.ok_or(WorkerEnd::NotOwned)? {
                self.lanes.push(message, now);
            }
            self.stored = (upto, now);
            self.relieve().await;
        } else if is_due {
            self.stored.1 = Instant::now();
        }
        // Only now: messages that could not be taken are looked for again.
        self.after = upto;
        let pause = if self.after < places.last { Duration::ZERO } else { UNSTORED.1 };
        self.look = NextLook::By(Instant::now() + pause);
        Ok(())
    }

    /// Loads rows that wait in the store, in the order of their positions.
    async fn load_waiting(&mut self, known: u64) -> Result<(), WorkerEnd> {
        let batch = self.batch();
        let waiting = self.served.store.waiting_messages(&self.served.webhook.id, known, batch as u64).await?;
        let (now, is_all) = (Instant::now(), waiting.len() < batch);
        self.unloaded = waiting.last().map(|last| last.position).filter(|_| !is_all);
        for mut message in waiting {
            // If the clock of the store was set back, the time is far away.
            message.due = message.due.min(schedule::LONGEST);
            self.lanes.push(message, now);
        }
        self.relieve().await;
        self.look = NextLook::By(now);
        Ok(())
    }

    fn batch(&self) -> usize {
        BATCH.min(self.lanes.most_waiting())
    }

    /// Gives up messages behind which too many wait.
    async fn relieve(&mut self) {
        // A receiver that takes nothing at all keeps its messages: it is away, and nothing is wrong with them.
        let is_awake = self.taken.is_some_and(|taken| taken.elapsed() < AWAKE);
        loop {
            let is_full = is_awake && !self.lanes.has_room();
            let most_failed = || self.lanes.most_failed().filter(|_| is_full);
            let Some(failed) = self.lanes.overfull().or_else(most_failed) else { return };
            if let Err(error) = give_up(&self.hub, &self.served, &mut self.lanes, &failed).await {
                tracing::debug!("a message of the webhook {} is given up later: {error}", self.served.webhook.id);
                return;
            }
        }
    }

    async fn end(&self, reason: &str) -> Result<WorkerEnd, WorkerEnd> {
        self.served.store.end_webhook(&self.served.webhook, reason).await?;
        Ok(WorkerEnd::Ended(reason.to_owned()))
    }

    /// Notes what became of an attempt.
    async fn heed(&mut self, message: &WaitingMessage, outcome: AttemptOutcome) -> Result<(), WorkerEnd> {
        let now = Instant::now();
        match outcome {
            AttemptOutcome::Sent => {
                self.hub.metrics.webhooks.taken.inc();
                self.lanes.settled(&message.lane, now);
                self.width = (self.width + 1).min(WIDTH);
                self.slow.0 = 0;
                self.taken = Some(now);
            }
            AttemptOutcome::Settled => self.lanes.settled(&message.lane, now),
            AttemptOutcome::Later(pause) => self.lanes.again(&message.lane, message.attempts, now + pause),
            AttemptOutcome::Again { attempts, pause, slow } => {
                self.lanes.again(&message.lane, attempts, now + pause);
                self.width = (self.width / 2).max(1);
                if let Some(asked) = slow {
                    self.slow_down(asked, now).await;
                }
                self.relieve().await;
            }
            AttemptOutcome::Ended(reason) => return Err(WorkerEnd::Ended(reason)),
            AttemptOutcome::NotOwned => return Err(WorkerEnd::NotOwned),
            AttemptOutcome::OtherHistory => return Err(WorkerEnd::OtherHistory),
            AttemptOutcome::NoKey => return Err(WorkerEnd::NoKey),
        }
        Ok(())
    }

    /// Sends nothing for a time. Answers to several attempts at once count once.
    async fn slow_down(&mut self, asked: Option<Duration>, now: Instant) {
        if now >= self.slow.1 {
            self.slow.0 = self.slow.0.saturating_add(1);
        }
        let pause = schedule::slow(self.slow.0, asked);
        if now + pause > self.slow.1 {
            self.slow.1 = now + pause;
            let id = &self.served.webhook.id;
            if let Err(error) = self.served.store.slow_webhook(id, pause).await {
                tracing::debug!("the pause of the webhook {id} is known here alone: {error}");
            }
        }
    }
}

/// Waits until the lease has ended, however often it is prolonged.
async fn ended(mut lease: watch::Receiver<Instant>) {
    loop {
        let until = *lease.borrow_and_update();
        tokio::select! {
            () = sleep_until(until) => return,
            changed = lease.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}
