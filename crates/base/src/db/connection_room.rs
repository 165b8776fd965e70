//! How many connections the programs may open, and how many PostgreSQL has for them.
//!
//! The one rule: the greatest number counts, also while instances are replaced: a new one opens its connections before the
//! old one has closed its own. Beyond its limit PostgreSQL refuses connections, and requests are 503.
//!
//! `fedgate check` calls it, and the test of the shipped manifests.

use super::{DbError, SessionPool};

/// The connections of one program beside its pool: the watch over the server, the reports of a gateway or the notices of
/// a HIS, and one for moments in which another is opened.
pub const BESIDE_POOL: usize = 3;
/// The same of a HIS at each replica: the watch over it, and one that looks where new connections lead. At the primary
/// such a HIS has one more, for its questions.
const BESIDE_REPLICA_POOL: usize = 2;
/// The most connections of a migration.
pub const OF_MIGRATION: usize = 2;

/// How many instances run at a time, without those that replace others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningPrograms {
    /// Gateways.
    pub gateways: usize,
    /// Services of the HIS.
    pub his: usize,
}

impl RunningPrograms {
    /// Instances at a time while one of each kind is replaced.
    fn most(self) -> usize {
        self.gateways + self.his + 2
    }

    /// The most connections of all of them, and of a migration.
    pub fn connections(self, pool_size: usize) -> usize {
        self.most() * (pool_size + BESIDE_POOL) + OF_MIGRATION
    }

    /// The most connections of all services of the HIS at one replica.
    pub fn connections_at_replica(self, pool_size: usize) -> usize {
        (self.his + 1) * (pool_size + BESIDE_REPLICA_POOL)
    }

    /// The largest `store.pool_size` with which they have enough; at least 1.
    pub fn pool_size_within(self, connections: usize) -> usize {
        let each = connections.saturating_sub(OF_MIGRATION) / self.most();
        each.saturating_sub(BESIDE_POOL).max(1)
    }
}

/// The connections of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionRoom {
    /// `max_connections`.
    pub most: usize,
    /// Connections that roles like ours can have, in this database.
    pub usable: usize,
    /// Gateways that have reported within a minute.
    pub gateways: usize,
}

/// Asks the server for its limits.
///
/// # Errors
/// The database is away, or cannot tell.
pub async fn connection_room(pool: &SessionPool) -> Result<ConnectionRoom, DbError> {
    let row = pool.get().await?.query_one(LIMITS, &[]).await?;
    let number = |at| -> Result<usize, DbError> { Ok(usize::try_from(row.try_get::<_, i64>(at)?).unwrap_or(0)) };
    Ok(ConnectionRoom { most: number(0)?, usable: number(1)?, gateways: number(2)? })
}

const LIMITS: &str = "
    SELECT most, CASE WHEN datconnlimit < 0 THEN most - kept ELSE least(most - kept, datconnlimit) END,
        (SELECT count(*) FROM fedgate_instances WHERE seen > now() - interval '1 minute')
    FROM pg_database CROSS JOIN (SELECT current_setting('max_connections')::bigint AS most,
        current_setting('superuser_reserved_connections')::bigint
        + coalesce(nullif(current_setting('reserved_connections', true), '')::bigint, 0) AS kept) AS server
    WHERE datname = current_database()";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_that_is_advised_is_the_largest_that_fits() {
        for (gateways, his, usable) in [(1, 1, 97), (3, 2, 97), (3, 3, 97), (2, 2, 197), (9, 9, 97)] {
            let running = RunningPrograms { gateways, his };
            let size = running.pool_size_within(usable);
            assert!(running.connections(size + 1) > usable, "{running:?}");
            assert!(running.connections(size) <= usable || size == 1, "{running:?}");
        }
        assert_eq!(RunningPrograms { gateways: 3, his: 2 }.connections(10), 93);
    }
}
