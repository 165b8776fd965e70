//! The permit of a running stream: judged again whenever the account, its roles or the policy change.
//!
//! The one rule: a stream runs on only while a request for it would be admitted, with the same scope or a wider one.
//! Its credential is not asked for again, as it was proved against an account that has not changed.
//!
//! The gateway asks before each piece that it passes on, and whenever it is woken.

use std::sync::Arc;

use super::{Permit, Pipeline};
use crate::authn::{Principal, RunningStream, StreamDoubt};
use fedgate_base::moment::BootMoment;
use fedgate_core::assertion::RecordScope;
use fedgate_core::policy::{EndpointId, Method, PolicyDecision, PolicyReach, PolicySet};
use fedgate_core::reasons::StreamEnd;

/// The permit of a running stream. Only a permit of the pipeline begins one.
pub struct StreamPermit {
    running: RunningStream,
    policy: Arc<PolicySet>,
    /// The caller and the question; none for an anonymous caller on a public route.
    asked: Option<AskedStream>,
}

struct AskedStream {
    principal: Arc<Principal>,
    method: Method,
    endpoint: EndpointId,
    subject: Option<Box<str>>,
    scope: RecordScope,
}

impl StreamPermit {
    /// Waits for the lease, if there is none yet.
    pub async fn begins(&self) {
        self.running.begins().await;
    }

    /// Waits until something may have changed.
    pub async fn changed(&self) {
        self.running.changed().await;
    }
}

impl Pipeline {
    /// Begins the stream of an admitted request.
    pub fn begin_stream(&self, permit: &Permit) -> StreamPermit {
        let principal = permit.principal.as_ref();
        let asked = principal.zip(permit.endpoint).map(|(principal, endpoint)| AskedStream {
            principal: Arc::clone(principal),
            method: permit.method,
            endpoint,
            subject: permit.subject.clone(),
            scope: permit.scope(),
        });
        let running = self.authenticator.run_stream(principal.map(|principal| &**principal));
        StreamPermit { running, policy: Arc::clone(&permit.policy), asked }
    }

    /// Whether a stream may pass bytes on now. False if it has to be judged first.
    pub fn permits(&self, stream: &StreamPermit) -> bool {
        let now = BootMoment::now();
        stream.running.is_clear(now) && (stream.asked.is_none() || Arc::ptr_eq(&self.policy.load(), &stream.policy))
    }

    /// Judges a stream again.
    ///
    /// # Errors
    /// It has to end.
    pub async fn judge_stream(&self, stream: &mut StreamPermit) -> Result<(), StreamEnd> {
        let Some(asked) = &mut stream.asked else { return Ok(()) };
        while !stream.running.is_clear(BootMoment::now()) || !Arc::ptr_eq(&self.policy.load(), &stream.policy) {
            if !stream.running.is_vouched(BootMoment::now()) {
                return Err(StreamEnd::AccountsUnconfirmed);
            }
            let policy = self.policy.load_full();
            let looked = stream.running.look(Arc::clone(&asked.principal), &policy).await;
            let principal = looked.map_err(|doubt| match doubt {
                StreamDoubt::AccountChanged => StreamEnd::AccountChanged,
                StreamDoubt::Unconfirmed => StreamEnd::AccountsUnconfirmed,
            })?;
            // Its upstream was told the ids of then: it would go on with one that was taken away, and leave out one that
            // was added.
            if asked.scope == RecordScope::Own && !principal.has_ids_of(&asked.principal) {
                return Err(StreamEnd::OwnIdsChanged);
            }
            asked.principal = principal;
            if !asked.is_allowed() {
                return Err(StreamEnd::RightRevoked);
            }
            stream.policy = policy;
        }
        Ok(())
    }
}

impl AskedStream {
    /// Whether the rights of its caller still reach as far.
    fn is_allowed(&self) -> bool {
        let (own, subject) = (self.principal.own(), self.subject.as_deref());
        match self.principal.rights().decide(own, self.method, self.endpoint, subject) {
            PolicyDecision::Allow(PolicyReach::Global) => true,
            // The assertion that its upstream has may say more than that.
            PolicyDecision::Allow(PolicyReach::Own | PolicyReach::Related) => self.scope != RecordScope::Global,
            PolicyDecision::Deny(_) => false,
        }
    }
}
