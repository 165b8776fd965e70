//! Whether PostgreSQL has enough connections for all programs.
//!
//! The one rule: it counts what is known to run, gateways by their reports and services by the addresses of their upstream,
//! and one more of each, which replaces another.

use fedgate::gateway::GatewayInspection;
use fedgate_base::command::CommandFailure;
use fedgate_base::config::{Config, StoreConfig};
use fedgate_base::db::Database;
use fedgate_base::db::connection_room::{BESIDE_POOL, RunningPrograms, connection_room};
use serde_json::json;

use super::CheckReport;

impl CheckReport {
    /// Reports how many connections all programs may open, and warns if PostgreSQL has fewer.
    pub(super) async fn connections(
        &mut self,
        config: &Config,
        database: &Database,
        inspection: &GatewayInspection,
    ) -> Result<(), CommandFailure> {
        let (StoreConfig::Postgres(store), Database::Postgres(pool)) = (&config.store, database) else { return Ok(()) };
        let room = connection_room(pool).await;
        let Some(room) = self.unless_forbidden(config, "how many connections there are", room)? else { return Ok(()) };
        let running = RunningPrograms { gateways: room.gateways.max(1), his: services(config, inspection) };
        // A HIS with replicas has a session for questions of its own.
        let asking = if store.replicas.is_empty() { 0 } else { running.his + 1 };
        let (needed, each) = (running.connections(store.pool_size) + asking, store.pool_size + BESIDE_POOL);
        let RunningPrograms { gateways, his } = running;
        self.report.line(&format!(
            "connections    {needed} at most: {each} for each gateway ({gateways}) and HIS ({his}) and for one more of \
             each during a replacement; PostgreSQL has {} for them (`max_connections` {})",
            room.usable, room.most
        ))?;
        let (usable, most) = (room.usable, room.most);
        let found = json!({ "needed": needed, "usable": usable, "max": most, "gateways": gateways, "his": his });
        self.report.note("connections", found);
        if needed > usable {
            self.report.warn(format!(
                "all programs together may open {needed} connections, and PostgreSQL has {usable} for them: beyond that \
                 requests are 503; set `store.pool_size` to {} in all programs, or raise `max_connections`",
                running.pool_size_within(usable.saturating_sub(asking))
            ));
        }
        Ok(())
    }
}

/// How many services of the HIS there are, by the addresses of their upstream.
pub(super) fn services(config: &Config, inspection: &GatewayInspection) -> usize {
    let is_his = |name: &str| config.upstreams.iter().any(|upstream| upstream.name == name && upstream.assertion);
    let services = inspection.upstreams().filter(|(name, _)| is_his(name));
    let addresses = services.flat_map(|(_, servers)| servers.into_iter().map(|(_, addresses)| addresses.max(1)));
    addresses.sum::<usize>().max(1)
}
