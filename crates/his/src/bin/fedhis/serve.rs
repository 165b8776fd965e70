//! `fedhis serve`: from the start of the service to its end.
//!
//! The one rule: the service starts without its database, too, and stops if the database has the schema of another
//! release.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use futures_util::future::join_all;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::open;
use super::schema_check::SchemaFound;
use fedgate_base::command::CommandFailure;
use fedgate_base::config::{Address, Config, ConnectionsConfig, HeadsConfig, StoreConfig};
use fedgate_base::db::replicas::Replicas;
use fedgate_base::db::{Database, DbError, schema};
use fedgate_base::descriptors;
use fedgate_base::workers::RequestWorkers;
use fedgate_core::assertion::AssertionVerifier;
use fedgate_his::store::RecordStore;
use fedgate_his::{HisListener, HisService, ListenError, admin_router, router};

/// How often an unavailable database is asked again for its schema.
const SCHEMA_RETRY: Duration = Duration::from_millis(500);
/// How long the threads that serve wait for what runs on them after the last answer.
const LAST_WORK: Duration = Duration::from_secs(1);
/// The most connections to each admin listener.
const ADMIN_CONNECTIONS: usize = 256;
/// The longest time for a head there.
const ADMIN_HEAD: Duration = Duration::from_secs(2);

/// Serves until a signal ends it, or until the schema turns out to be that of another release.
pub(crate) async fn serve(config: &Config) -> Result<(), CommandFailure> {
    // An operator may send SIGHUP to both programs; as in the gateway, it must not end this one.
    let mut hangup = signal(SignalKind::hangup())?;
    // The gateway reports the other warnings about the file.
    config.loose_secrets().iter().for_each(|warning| tracing::warn!("{warning}"));
    let connections = cap_connections(config.his.connections);
    let database = open(config).await?;
    let verifier = AssertionVerifier::from_config(&config.assertion)
        .map_err(|error| CommandFailure::Usage(anyhow!("{}: {error}", config.file.display())))?;
    fedgate_his::check_webhooks(&config.his.webhooks)
        .map_err(|problem| CommandFailure::Usage(anyhow!("{}: {problem}", config.file.display())))?;
    let found = SchemaFound::of(&database).await;
    if let Ok(found) = &found {
        found.check()?;
        if let Ok(Some(unbuilt)) = schema::unbuilt_indexes(&database).await {
            tracing::warn!("{unbuilt}");
        }
        if let Ok(Some(moves)) = schema::unfinished_moves(&database).await {
            tracing::warn!("{moves}");
        }
    }
    // First of all: one that cannot serve begins no history.
    let listener = HisListener::bind(&config.his.listen, "his.listen").await?;
    let records = RecordStore::new(database.clone()).with_replicas(replicas(config, &database)?);
    // Before the first write: the file may be a copy that lacks the last messages.
    records.take_history().await?;
    let service = HisService::new(&config.his, verifier, records.clone())
        .map_err(|problem| CommandFailure::Usage(anyhow!("{}: {problem}", config.file.display())))?;
    let admin = bind_admin(&config.his.admin).await?;
    // All that may lack a descriptor comes before the word that it listens.
    let (workers, threads) = RequestWorkers::start(std::thread::available_parallelism().map_or(1, usize::from))?;
    let stop = until_stopped(StopSignals::new()?, Arc::clone(&service), config.his.stop_delay);
    tracing::info!("listening on {}", listener.address());
    let done = tokio::select! {
        // Also during the stop, so that monitoring sees it.
        never = serve_admin(admin, Arc::clone(&service), connections.heads) => match never {},
        () = listener.serve(&workers, router(service), &connections, stop) => Ok(()),
        failure = until_outdated(found, &database, &records) => Err(failure),
        never = ignore(&mut hangup) => match never {},
    };
    // Closing moves the last writes from the `-wal` file into the store, unless another program has it open.
    tokio::task::spawn_blocking(move || {
        threads.end(LAST_WORK);
        database.close();
    })
    .await?;
    done
}

/// The configured replicas.
fn replicas(config: &Config, database: &Database) -> Result<Option<Arc<Replicas>>, DbError> {
    match (&config.store, database) {
        (StoreConfig::Postgres(store), Database::Postgres(pool)) => Replicas::of(store, pool),
        (StoreConfig::Postgres(_) | StoreConfig::Sqlite(_), _) => Ok(None),
    }
}

/// The listeners for operators.
async fn bind_admin(addresses: &[SocketAddr]) -> Result<Vec<HisListener>, ListenError> {
    let mut listeners = Vec::new();
    for address in addresses {
        let listener = HisListener::bind(&Address::Tcp(*address), "his.admin").await?;
        tracing::info!("the admin listener is {}", listener.address());
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Answers operators for as long as it is polled.
async fn serve_admin(listeners: Vec<HisListener>, service: Arc<HisService>, heads: HeadsConfig) -> Infallible {
    // Monitoring is near, and a head that comes in crumbs must not keep probes waiting.
    let heads = HeadsConfig { timeout: heads.timeout.min(ADMIN_HEAD), ..heads };
    let limits = ConnectionsConfig { most: Some(ADMIN_CONNECTIONS), heads };
    let router = admin_router(service);
    // Not on the threads of clients, so that monitoring is answered while they are busy.
    let here = RequestWorkers::here();
    join_all(listeners.into_iter().map(|listener| listener.serve(&here, router.clone(), &limits, pending()))).await;
    // Only where there are none.
    pending().await
}

/// Asks an unavailable database for its schema until it answers. Returns only a schema that cannot be used; until the
/// database answers, requests get 503.
async fn until_outdated(
    mut found: Result<SchemaFound, DbError>,
    database: &Database,
    records: &RecordStore,
) -> CommandFailure {
    loop {
        match found {
            Ok(found) => match found.check() {
                Ok(()) => {
                    records.outage().answered();
                    pending().await
                }
                Err(failure) => return failure,
            },
            Err(error @ DbError::Unavailable(_)) => records.outage().failed(error.in_short()),
            Err(error) => return CommandFailure::Failed(error.into()),
        }
        tokio::time::sleep(SCHEMA_RETRY).await;
        found = SchemaFound::of(database).await;
    }
}

/// The signals that end the service.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }
}

/// Waits for a signal. After SIGTERM the service goes on for `delay`, so that balancers notice; SIGINT ends the wait.
async fn until_stopped(mut signals: StopSignals, service: Arc<HisService>, delay: Duration) {
    let is_asked_now = tokio::select! {
        _ = signals.terminate.recv() => false,
        _ = signals.interrupt.recv() => true,
    };
    tracing::info!("stopping");
    service.stop();
    if !is_asked_now {
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            _ = signals.interrupt.recv() => {}
        }
    }
}

/// The configured number of connections, or as many as the limit of open files allows.
fn cap_connections(configured: ConnectionsConfig) -> ConnectionsConfig {
    let limit = descriptors::raise();
    let wanted = configured.most.unwrap_or(usize::MAX);
    let allowed = descriptors::callers(limit, wanted);
    if let Some(most) = configured.most.filter(|most| allowed < *most) {
        tracing::warn!(
            "`his.connections` is {most}, and the limit of {} open files allows {allowed} connections, which \
             applies; raise the limit to {} (`LimitNOFILE` of systemd, `ulimit -n`), or lower the key",
            limit.unwrap_or_default(),
            descriptors::needed_by_callers(most)
        );
    }
    ConnectionsConfig { most: (allowed < usize::MAX).then_some(allowed), ..configured }
}

async fn ignore(hangup: &mut Signal) -> Infallible {
    loop {
        hangup.recv().await;
        tracing::info!("SIGHUP received and ignored; a changed configuration takes effect at the next start");
    }
}
