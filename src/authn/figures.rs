//! The figures of the authenticator's caches, for operators.
//!
//! The one rule: nothing is decided by them. The metrics, and the report of this instance, have them.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::Authenticator;

/// The figures of an instance's caches since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheFigures {
    /// Principals in the cache now.
    pub principals: u64,
    /// Requests answered from a cached principal.
    pub hits: u64,
    /// Requests that read the account.
    pub misses: u64,
    /// Passwords that were hashed.
    pub hashed: u64,
    /// Verified passwords remembered, right and wrong.
    pub proofs: u64,
    /// Passwords that were not hashed, because the same comparison was known.
    pub proof_hits: u64,
    /// Verified passwords that were dropped for lack of room, for age or for lack of use.
    pub proofs_evicted: u64,
    /// Their mean age in seconds.
    pub proofs_mean_age_seconds: u64,
    /// Times that rights of a cached principal were compiled again for another policy.
    pub recompiled: u64,
    /// Principals dropped because their account changed.
    pub invalidated: u64,
    /// Principals dropped for lack of room or for age.
    pub evicted: u64,
    /// Mean age in seconds of the principals that were dropped for any reason.
    pub mean_age_seconds: u64,
}

impl Authenticator {
    /// The figures of the caches so far.
    pub fn figures(&self) -> CacheFigures {
        // What is over is dropped now, before it is counted.
        let proofs = self.proofs.count();
        let (proofs_unused, proofs_evicted, proofs_mean_age_seconds) = self.proofs.dropped().figures();
        CacheFigures {
            recompiled: self.recompiled.load(Ordering::Relaxed),
            // Unused proofs that were found when they were asked for count here, too.
            proofs_evicted: proofs_unused + proofs_evicted,
            proofs_mean_age_seconds,
            hashed: self.hashed.load(Ordering::Relaxed),
            proofs,
            proof_hits: self.proof_hits.load(Ordering::Relaxed),
            ..self.principals.figures()
        }
    }
}
