//! Tells a service, signed, which caller the gateway admitted to what.
//!
//! The one rule: only a permit of the pipeline is signed, for the one request that it is for.

use std::sync::Arc;
use std::time::SystemTime;

use crate::pipeline::{Permit, Pipeline};
use fedgate_core::assertion::AssertionMinter;

/// Signs what was decided.
#[derive(Clone)]
pub(crate) struct DecisionSigner {
    pipeline: Arc<Pipeline>,
    minter: Arc<AssertionMinter>,
}

impl DecisionSigner {
    /// With the key of this gateway.
    pub(crate) fn new(pipeline: Arc<Pipeline>, minter: AssertionMinter) -> Self {
        Self { pipeline, minter: Arc::new(minter) }
    }

    /// The assertion of one request of a method, as of now.
    pub(crate) fn sign(&self, permit: &Permit, method: &str, request_id: &str) -> String {
        self.pipeline.assertion(permit, method, request_id, &self.minter, SystemTime::now())
    }
}
