//! The signed assertion of a permit: its claims, and the request for the signature, which
//! [`crate::assertion_signer`] makes.
//!
//! The one rule: only a permit of the pipeline is signed, and only for its one request.
//!
//! Called once for each forwarded request, and for each record that is read to learn its owner.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Permit, Pipeline};
use crate::assertion_signer::AssertionSigner;
use crate::routes::{ACCOUNT_ENDPOINT, MATCH_ENDPOINT};
use fedgate_core::assertion::{AssertionClaims, RecordScope};

/// Signs permits for the upstream.
#[derive(Clone)]
pub(crate) struct PermitSigner {
    pipeline: Arc<Pipeline>,
    signer: Arc<AssertionSigner>,
}

impl PermitSigner {
    /// With this gateway's key.
    pub(crate) fn new(pipeline: Arc<Pipeline>, signer: AssertionSigner) -> Self {
        Self { pipeline, signer: Arc::new(signer) }
    }

    /// The assertion for one request with this method, as of now.
    pub(crate) fn sign(&self, permit: &Permit, method: &str, request_id: &str) -> String {
        self.pipeline.assertion(permit, method, request_id, &self.signer, SystemTime::now())
    }
}

impl Pipeline {
    /// The assertion of an admitted request. `method` is the judged one.
    pub fn assertion(
        &self,
        permit: &Permit,
        method: &str,
        request_id: &str,
        signer: &AssertionSigner,
        now: SystemTime,
    ) -> String {
        let (iat, exp) = signer.validity(now);
        let granted = [(permit.account_granted, ACCOUNT_ENDPOINT), (permit.match_granted, MATCH_ENDPOINT)];
        let granted = granted.into_iter().filter(|(is_granted, _)| *is_granted);
        let grants: Vec<String> = granted.map(|(_, name)| name.to_owned()).collect();
        signer.sign(&AssertionClaims {
            iss: signer.issuer().into(),
            aud: signer.audience().into(),
            sub: permit.principal.as_ref().map_or("", |principal| principal.account()).into(),
            same: self.same(permit).into(),
            roles: permit.principal.as_ref().map_or(&[][..], |principal| principal.roles()).into(),
            endpoint: self.endpoint_name(permit).into(),
            method: method.into(),
            path: permit.path().into(),
            scope: permit.scope(),
            subject: permit.subject.as_deref().map(Into::into),
            grants: grants.into(),
            rid: request_id.into(),
            pol: permit.policy.fingerprint().into(),
            iat,
            exp,
        })
    }

    /// The other ids of the caller's person, as far as the decision counts them. For the record of a related person,
    /// that person's id alone: the upstream shows this record, and no other one.
    fn same<'p>(&self, permit: &'p Permit) -> &'p [String] {
        match (&permit.principal, permit.endpoint, permit.scope()) {
            (Some(principal), Some(endpoint), RecordScope::Own) => {
                let own = self.routes.own(endpoint, principal.own());
                match permit.subject.as_deref() {
                    Some(subject) if !own.holds(subject) => own.related_as(subject),
                    _ => own.others(),
                }
            }
            _ => &[],
        }
    }
}
