//! Which reads replicas may answer.
//!
//! The one rule: a store asks the primary alone, unless its caller says that the answer decides nothing.

use std::sync::Arc;

use super::RecordStore;
use fedgate_base::db::replicas::{ReplicaFigures, Replicas};

impl RecordStore {
    /// The same store, which may read from replicas once its caller [says so](Self::reading_replicas).
    #[must_use]
    pub fn with_replicas(self, replicas: Option<Arc<Replicas>>) -> Self {
        match self {
            Self::Postgres(store) => Self::Postgres(store.with_replicas(replicas)),
            Self::Sqlite(_) => self,
        }
    }

    /// The same store for reads whose answers decide nothing: a record, and the chunks of a list. Replicas may answer them,
    /// with everything that was acknowledged before.
    #[must_use]
    pub fn reading_replicas(self) -> Self {
        match self {
            Self::Postgres(store) => Self::Postgres(store.reading_replicas()),
            Self::Sqlite(_) => self,
        }
    }

    /// What is counted of replicas; none without any.
    pub(crate) fn replica_figures(&self) -> Option<&ReplicaFigures> {
        match self {
            Self::Postgres(store) => store.replica_figures(),
            Self::Sqlite(_) => None,
        }
    }
}
