//! Whether the replicas of `store.read_uris` can be read as the HIS reads them.
//!
//! The one rule: a replica that cannot be read is a warning, because the primary answers in its place.

use fedgate::gateway::GatewayInspection;
use fedgate_base::command::CommandFailure;
use fedgate_base::config::{Config, StoreConfig};
use fedgate_base::db::Database;
use fedgate_base::db::connection_room::RunningPrograms;
use fedgate_base::db::replicas::{ReplicaFound, inspect};
use serde_json::{Value, json};

use super::CheckReport;
use super::connections::services;

impl CheckReport {
    /// Reports what was found at each replica, and warns of those that the HIS would not read.
    pub(super) async fn replicas(
        &mut self,
        config: &Config,
        database: &Database,
        inspection: &GatewayInspection,
    ) -> Result<(), CommandFailure> {
        let (StoreConfig::Postgres(store), Database::Postgres(pool)) = (&config.store, database) else { return Ok(()) };
        if store.replicas.is_empty() {
            return Ok(());
        }
        let found = inspect(store, pool).await;
        let question = "whether replicas follow the primary";
        let Some(found) = self.unless_forbidden(config, question, found)? else { return Ok(()) };
        let running = RunningPrograms { gateways: 1, his: services(config, inspection) };
        let needed = running.connections_at_replica(store.pool_size);
        let mut members: Vec<Value> = vec![];
        for ReplicaFound { place, lag, usable } in found {
            members.push(json!({ "replica": place, "lag_bytes": lag.as_ref().ok(), "problem": lag.as_ref().err(), "usable": usable, "needed": needed }));
            match lag {
                Ok(bytes) => self.report.line(&format!(
                    "replica        number {place} of `store.read_uris` follows the primary, {bytes} bytes behind; {needed} \
                     connections at most"
                ))?,
                Err(problem) => self.report.warn(format!(
                    "number {place} of `store.read_uris` is not read: {problem}; the primary answers its reads"
                )),
            }
            if let Some(usable) = usable.filter(|usable| *usable < needed) {
                self.report.warn(format!(
                    "number {place} of `store.read_uris` has {usable} connections for programs, and all services of the \
                     HIS together may open {needed}; raise its `max_connections`, or lower `store.pool_size`"
                ));
            }
        }
        self.report.note("replicas", members);
        Ok(())
    }
}
