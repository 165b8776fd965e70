//! Reads that a replica may answer.
//!
//! The one rule: a read of a record, or of a chunk of a list, is asked as a whole on one server, and none of it is passed on
//! before it is complete. So what a replica fails to answer is asked again on the primary, and nobody notices. Whatever
//! decides (a write and the reads before it, accounts, rights, messages, merges, changes) asks the primary alone.

use std::sync::Arc;

use super::super::shares::StoreTurn;
use super::PostgresStore;
use fedgate_base::db::replicas::{FreshReplica, ReplicaFigures, Replicas};

impl PostgresStore {
    /// The same store, with replicas.
    pub(in super::super) fn with_replicas(self, replicas: Option<Arc<Replicas>>) -> Self {
        Self { replicas, ..self }
    }

    /// The same store, whose reads of records and lists replicas may answer.
    pub(in super::super) fn reading_replicas(self) -> Self {
        Self { reads_replicas: true, ..self }
    }

    /// How many replicas there are.
    pub(in super::super) fn replicas(&self) -> usize {
        self.replicas.as_ref().map_or(0, |replicas| replicas.count())
    }

    /// Follows the replicas for as long as it is polled.
    pub(in super::super) async fn watch_replicas(&self) {
        if let Some(replicas) = &self.replicas {
            replicas.watch_over().await;
        }
    }

    pub(in super::super) fn replica_figures(&self) -> Option<&ReplicaFigures> {
        Some(self.replicas.as_ref()?.figures())
    }

    /// A replica that shows everything which was acknowledged before this moment, and the caller's turn there.
    pub(super) async fn fresh_replica(&self) -> Option<(FreshReplica, StoreTurn)> {
        let replicas = self.replicas.as_ref().filter(|_| self.reads_replicas)?;
        // Boxed: without replicas no request should carry its room.
        Box::pin(replicas.fresh(|number| self.turns.replica(number))).await
    }
}
