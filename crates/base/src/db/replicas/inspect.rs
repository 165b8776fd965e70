//! What `fedgate check` finds at each replica.
//!
//! The one rule: a replica is asked for what a running HIS would find out too late: whether it is a standby of the very
//! server that takes the writes, with the same database.

use tokio::time::timeout;
use tokio_postgres::types::PgLsn;

use super::super::route::WrongServer;
use super::super::{DbError, SessionPool, postgres};
use super::ANSWER_LIMIT;
use crate::config::PostgresConfig;

/// What was found at a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaFound {
    /// Its place in `store.read_uris`, from 1.
    pub place: usize,
    /// Why it cannot be read; otherwise how many bytes of the primary's log it lacked.
    pub lag: Result<u64, String>,
    /// How many connections it has for roles like ours, if it answered.
    pub usable: Option<usize>,
}

/// Asks each replica. The connections are those of the configuration, with its role.
///
/// # Errors
/// The primary is away, or a setting is unusable.
pub async fn inspect(config: &PostgresConfig, primary: &SessionPool) -> Result<Vec<ReplicaFound>, DbError> {
    let mut all = Vec::new();
    for (at, replica) in config.replicas.iter().enumerate() {
        let row = primary.get().await?.query_one(PRIMARY, &[]).await?;
        let (position, wanted): (PgLsn, ServerContent) = (row.try_get(0)?, ServerContent::of(&row)?);
        let route = std::sync::Arc::clone(postgres::replica_pool(&config.of_replica(replica))?.route());
        let (place, mut usable) = (at + 1, None);
        let asked = async {
            let reached = route.reach().await.map_err(|error| match error.wrong_server() {
                Some(WrongServer::TakesWrites) => "it takes writes, so it is no standby".to_owned(),
                Some(_) | None => error.in_short(),
            })?;
            let (client, connection) = (reached.client, reached.connection);
            let answer = tokio::select! {
                answer = timeout(ANSWER_LIMIT, client.query_one(STANDBY, &[])) => answer,
                ended = connection => return Err(ended.err().map_or_else(|| "it has closed the session".to_owned(), |error| DbError::from(error).in_short())),
            };
            let row = match answer {
                Ok(Ok(row)) => row,
                Ok(Err(error)) => return Err(DbError::from(error).in_short()),
                Err(_) => return Err("it does not answer".to_owned()),
            };
            let read = || -> Result<_, DbError> {
                let replayed: Option<PgLsn> = row.try_get(0)?;
                Ok((replayed, ServerContent::of(&row)?, row.try_get::<_, bool>(4)?, row.try_get::<_, i64>(5)?))
            };
            let (replayed, found, is_standby, room) = read().map_err(|error| error.in_short())?;
            usable = usize::try_from(room).ok();
            match replayed {
                _ if !is_standby => Err("it is no standby: it was set read-only".to_owned()),
                _ if found.cluster != wanted.cluster => Err("it is a server of another cluster".to_owned()),
                _ if found.database != wanted.database || found.store != wanted.store => {
                    Err(format!("it leads to another database than `store.uri` (`{}`)", wanted.database))
                }
                None => Err("it has replayed nothing yet".to_owned()),
                Some(replayed) => Ok(u64::from(position).saturating_sub(u64::from(replayed))),
            }
        };
        let lag = asked.await;
        all.push(ReplicaFound { place, lag, usable });
    }
    Ok(all)
}

/// Which data a server has.
struct ServerContent {
    cluster: String,
    database: String,
    store: Option<String>,
}

impl ServerContent {
    fn of(row: &tokio_postgres::Row) -> Result<Self, DbError> {
        Ok(Self { cluster: row.try_get(1)?, database: row.try_get(2)?, store: row.try_get(3)? })
    }
}

const PRIMARY: &str = "
    SELECT pg_current_wal_flush_lsn(), (SELECT system_identifier::text FROM pg_control_system()), current_database()::text,
        (SELECT id FROM fedgate_store)";
const STANDBY: &str = "
    SELECT pg_last_wal_replay_lsn(), (SELECT system_identifier::text FROM pg_control_system()), current_database()::text,
        (SELECT id FROM fedgate_store), pg_is_in_recovery(),
        current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint
            - coalesce(nullif(current_setting('reserved_connections', true), '')::bigint, 0)";
