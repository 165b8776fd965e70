//! Webhooks: messages are sent to the addresses that accounts have named, in order, until they are taken or given up.
//!
//! The one rule: one process at a time serves a webhook, and the store says which. A process that does not hear from the
//! store in time stops by itself before another one begins.
//!
//! [`run`] becomes the owner of webhooks and runs a [`worker`] for each. [`lanes`] orders its messages, [`attempt`] sends
//! one of them through [`client`], which checks each [`address`]. [`rights`] says what the account may read, [`keys`] signs,
//! and [`schedule`] says when to try again. [`requests`] serves accounts, and [`desk`] the operator.

mod address;
mod attempt;
mod client;
pub mod desk;
mod keys;
mod lanes;
mod requests;
mod retry_after;
mod rights;
mod schedule;
mod shown;
mod terms;
mod url;
mod worker;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout};

use self::client::WebhookClient;
use self::keys::WebhookSecrets;
pub(crate) use self::requests::{change, create, list, read, remove, rotate};
use self::rights::RightsPolicy;
use self::worker::{WebhookWorker, WorkerEnd};
use super::LastPosition;
use crate::budget::ByteBudget;
use crate::metrics::{HisMetrics, gauge};
use crate::store::webhooks::OwnedWebhook;
use crate::store::{RecordStore, SharedStore};
use fedgate_base::config::{HisConfig, WebhooksConfig};
use fedgate_base::db::DbError;

/// How often to look for webhooks without an owner, and for changes.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a process owns a webhook without hearing from the store, by the clock of the store.
const LEASE: Duration = Duration::from_secs(15);
/// How much earlier it stops by its own clock.
const LEASE_MARGIN: Duration = Duration::from_secs(3);
/// How many messages are on their way at a time, beside one for each webhook.
const SHARED_ATTEMPTS: usize = 64;
/// The part of the bytes in flight that messages to webhooks may take beside all others.
const BUDGET_PART: usize = 4;
/// How often to look whether a webhook is behind.
const BEHIND_EVERY: u32 = 10;
/// Letters and digits of an id.
const ID_LENGTH: usize = 22;

/// The state that all workers share.
pub(super) struct WebhookHub {
    store: RecordStore,
    shares: SharedStore,
    last: LastPosition,
    secrets: WebhookSecrets,
    client: WebhookClient,
    policy: RightsPolicy,
    budget: ByteBudget,
    attempts: Arc<Semaphore>,
    /// The name of this process at the store.
    owner: String,
    metrics: Arc<HisMetrics>,
    behind: Option<Duration>,
    /// The most messages that wait for one webhook in this process. No further ones are taken then.
    waiting: usize,
}

/// A random id.
fn random_id(prefix: &str) -> String {
    let mut id = prefix.to_owned();
    id.extend(rand::rng().sample_iter(rand::distr::Alphanumeric).take(ID_LENGTH).map(char::from));
    id
}

/// Checks what can be checked before the service starts.
///
/// # Errors
/// The file of authorities cannot be used.
pub fn check(config: &WebhooksConfig) -> Result<(), String> {
    WebhookClient::new(config).map(drop)
}

/// Sends messages for as long as it is polled, until the service stops. `changed` says that an account changed a webhook.
pub(super) async fn run(
    store: RecordStore,
    shares: SharedStore,
    last: LastPosition,
    config: HisConfig,
    metrics: Arc<HisMetrics>,
    changed: Arc<Notify>,
    stopping: watch::Receiver<bool>,
) {
    let webhooks = &config.webhooks;
    let secrets = WebhookSecrets::new(&webhooks.secrets);
    if secrets.is_empty() {
        return;
    }
    let client = match WebhookClient::new(webhooks) {
        Ok(client) => client,
        Err(problem) => {
            tracing::error!("no messages are sent to webhooks: {problem}");
            return;
        }
    };
    let (policy, budget) =
        (RightsPolicy::new(webhooks.roles.clone()), ByteBudget::new(config.max_bytes_in_flight / BUDGET_PART));
    let (attempts, owner) = (Arc::new(Semaphore::new(SHARED_ATTEMPTS)), random_id("his_"));
    let (behind, waiting) = (webhooks.behind, webhooks.waiting);
    let hub = Arc::new(WebhookHub {
        store,
        shares,
        last,
        secrets,
        client,
        policy,
        budget,
        attempts,
        owner,
        metrics,
        behind,
        waiting,
    });
    tokio::select! {
        () = hub.policy.follow() => {}
        () = WorkerTable::new(Arc::clone(&hub)).run(&changed, stopping) => {}
    }
    // Another process need not wait for the end of the lease.
    if let Ok(Err(error)) = timeout(LOOK_EVERY, hub.store.leave_webhooks(&hub.owner)).await {
        tracing::debug!("webhooks are left to their leases: {error}");
    }
}

/// A worker that runs.
struct RunningWorker {
    version: i64,
    lease: watch::Sender<Instant>,
    handle: AbortHandle,
}

/// The workers of this process.
struct WorkerTable {
    hub: Arc<WebhookHub>,
    running: HashMap<String, RunningWorker>,
    /// Webhooks whose worker failed are left alone until then.
    pausing: HashMap<String, Instant>,
    behind: HashSet<String>,
    /// Webhooks that no usable key can sign for.
    keyless: HashSet<String>,
    tasks: JoinSet<(String, WorkerEnd)>,
}

impl WorkerTable {
    fn new(hub: Arc<WebhookHub>) -> Self {
        let (running, pausing) = (HashMap::new(), HashMap::new());
        Self { hub, running, pausing, behind: HashSet::new(), keyless: HashSet::new(), tasks: JoinSet::new() }
    }

    async fn run(mut self, changed: &Notify, mut stopping: watch::Receiver<bool>) {
        for turn in 0_u32.. {
            let asked = Instant::now();
            match self.hub.store.own_webhooks(&self.hub.owner, LEASE).await {
                Ok(owned) => self.heed(&owned, asked),
                // The store has logged it. The workers stop when their leases end.
                Err(error) => tracing::debug!("no webhook is owned for longer: {error}"),
            }
            if turn % BEHIND_EVERY == 0
                && let Err(error) = self.look_behind().await
            {
                tracing::debug!("whether webhooks are behind is not known: {error}");
            }
            self.measure();
            let look = asked + LOOK_EVERY;
            loop {
                tokio::select! {
                    () = tokio::time::sleep_until(look) => break,
                    () = changed.notified() => break,
                    // The guard of the value must not live longer than the wait.
                    () = async { drop(stopping.wait_for(|is_stopping| *is_stopping).await) } => {
                        // No attempt is on its way when another process begins.
                        self.tasks.shutdown().await;
                        return;
                    }
                    Some(ended) = self.tasks.join_next() => self.ended(ended),
                }
            }
        }
    }

    fn measure(&self) {
        let figures = &self.hub.metrics.webhooks;
        let counts = [
            (&figures.served, self.running.len()),
            (&figures.behind, self.behind.len()),
            (&figures.without_key, self.keyless.len()),
        ];
        for (figure, count) in counts {
            figure.set(gauge(count as u64));
        }
    }

    /// Starts, prolongs and ends workers, so that they are those of the webhooks that this process owns.
    fn heed(&mut self, owned: &[OwnedWebhook], asked: Instant) {
        let known: HashMap<&str, &OwnedWebhook> = owned.iter().map(|webhook| (webhook.id.as_str(), webhook)).collect();
        self.running.retain(|id, worker| {
            // A worker that panicked is begun again.
            let is_running = !worker.handle.is_finished();
            let is_kept = is_running && known.get(id.as_str()).is_some_and(|webhook| webhook.version == worker.version);
            if !is_kept {
                worker.handle.abort();
            }
            is_kept
        });
        self.pausing.retain(|_, until| *until > asked);
        self.keyless.retain(|id| known.contains_key(id.as_str()) && self.pausing.contains_key(id));
        for webhook in owned {
            let until = asked + webhook.left.saturating_sub(LEASE_MARGIN);
            if let Some(worker) = self.running.get(&webhook.id) {
                worker.lease.send_replace(until);
            } else if !self.pausing.contains_key(&webhook.id) {
                let (lease, receiver) = watch::channel(until);
                let (hub, owned, id) = (Arc::clone(&self.hub), webhook.clone(), webhook.id.clone());
                let handle = self.tasks.spawn(async move { (id, WebhookWorker::run(hub, owned, receiver).await) });
                self.running.insert(webhook.id.clone(), RunningWorker { version: webhook.version, lease, handle });
            }
        }
    }

    fn ended(&mut self, ended: Result<(String, WorkerEnd), tokio::task::JoinError>) {
        // A worker that was aborted has left the table before.
        let Ok((id, end)) = ended else { return };
        match end {
            WorkerEnd::NotOwned => {}
            WorkerEnd::OtherHistory => {
                tracing::info!("the webhook {id} goes on from its stored position, since messages may have been lost");
            }
            WorkerEnd::Panicked => {
                self.pausing.insert(id.clone(), Instant::now() + LOOK_EVERY);
            }
            WorkerEnd::Ended(reason) => tracing::warn!("the webhook {id} has ended: {reason}"),
            WorkerEnd::Failed(error) => {
                tracing::debug!("the webhook {id} is served again in a moment: {error}");
                self.pausing.insert(id.clone(), Instant::now() + LOOK_EVERY);
            }
            WorkerEnd::NoKey => {
                tracing::error!(
                    "the webhook {id} has no key whose secret is in `his.webhook_key_file`; add that secret, or rotate its keys"
                );
                self.pausing.insert(id.clone(), Instant::now() + LOOK_EVERY * 60);
                self.keyless.insert(id.clone());
            }
        }
        // The task of another version may run under this id by now; it is found again by its lease, and ends then.
        if self.running.get(&id).is_some_and(|worker| worker.handle.is_finished()) {
            self.running.remove(&id);
        }
    }

    /// Reports webhooks that are behind, once each.
    async fn look_behind(&mut self) -> Result<(), DbError> {
        self.behind.retain(|id| self.running.contains_key(id));
        let Some(most) = self.hub.behind.filter(|_| !self.running.is_empty()) else { return Ok(()) };
        for webhook in self.hub.store.webhooks(None).await? {
            if !self.running.contains_key(&webhook.id) {
                continue;
            }
            if webhook.behind <= most {
                if self.behind.remove(&webhook.id) {
                    tracing::info!("the webhook {} of {} is no longer behind", webhook.id, webhook.account);
                }
            } else if self.behind.insert(webhook.id.clone()) {
                let problem =
                    webhook.detail.as_deref().unwrap_or("it takes messages more slowly than they are written");
                tracing::warn!(
                    "the webhook {} of {} is behind by {} s, with {} messages that wait: {problem}",
                    webhook.id,
                    webhook.account,
                    webhook.behind.as_secs(),
                    webhook.waiting
                );
            }
        }
        Ok(())
    }
}
