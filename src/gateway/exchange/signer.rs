//! Requests the assertion of a permit for an upstream. [`crate::minting`] makes the signature.
//!
//! The one rule: only a permit of the pipeline is signed, and only for its one request.

use std::sync::Arc;
use std::time::SystemTime;

use crate::minting::AssertionMinter;
use crate::pipeline::{Permit, Pipeline};

/// Signs decisions.
#[derive(Clone)]
pub(crate) struct DecisionSigner {
    pipeline: Arc<Pipeline>,
    minter: Arc<AssertionMinter>,
}

impl DecisionSigner {
    /// With this gateway's key.
    pub(crate) fn new(pipeline: Arc<Pipeline>, minter: AssertionMinter) -> Self {
        Self { pipeline, minter: Arc::new(minter) }
    }

    /// The assertion for one request with this method, as of now.
    pub(crate) fn sign(&self, permit: &Permit, method: &str, request_id: &str) -> String {
        self.pipeline.assertion(permit, method, request_id, &self.minter, SystemTime::now())
    }
}
