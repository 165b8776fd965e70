//! Chooses the answer to a refused request, and to one that needs no decision. [`super::respond`] writes it.

use std::sync::Arc;

use http::header;
use pingora_http::RequestHeader;

use super::request;
use super::respond::{GatewayAnswer, RETRY_AFTER};
use crate::authn::AuthnError;
use crate::pipeline::{Pipeline, Refusal};
use fedgate_core::admission::answer_early;
use fedgate_core::codes::AnswerCode;
use fedgate_core::fields::BodyFault;
use fedgate_core::host::HostList;
use fedgate_core::methods::ALL_METHODS;
use fedgate_core::path::CanonicalPath;
use fedgate_core::reasons::RecordReason;

/// Makes the answers to refused requests.
pub(crate) struct RefusalAnswers {
    pipeline: Arc<Pipeline>,
    hosts: HostList,
    realm: String,
}

impl RefusalAnswers {
    /// For the served hosts, with the realm of the challenge.
    pub(crate) fn new(pipeline: Arc<Pipeline>, hosts: HostList, realm: String) -> Self {
        Self { pipeline, hosts, realm }
    }

    /// The answer to a request that needs no decision, with the reason for its record; none if it needs one.
    pub(crate) fn without_decision(
        &self,
        head: &RequestHeader,
        target: &[u8],
    ) -> Option<(GatewayAnswer, RecordReason)> {
        let allowed = |path: &CanonicalPath<'_>| self.pipeline.routes().allowed_methods(path);
        let early = answer_early(&request::parsed(head), target, &self.hosts, allowed)?;
        let answer = match (early.refusal(), early.allow()) {
            (None, allow) => GatewayAnswer::options(allow.unwrap_or(ALL_METHODS)),
            (Some(refusal), None) => GatewayAnswer::error(refusal),
            (Some(refusal), Some(allow)) => GatewayAnswer::error(refusal).with_header(header::ALLOW, allow),
        };
        Some((if early.closes() { answer.and_close() } else { answer }, early.reason()))
    }

    /// The answer to an unauthenticated caller.
    pub(crate) fn challenge(&self) -> GatewayAnswer {
        GatewayAnswer::challenge(&self.realm)
    }

    /// The answer to a refusal of the pipeline.
    pub(crate) fn of(&self, refusal: &Refusal) -> GatewayAnswer {
        let answer = match refusal.answer() {
            AnswerCode::Unauthenticated => return self.challenge(),
            answer => GatewayAnswer::error(answer),
        };
        match refusal {
            // A client that sends ambiguous requests may also mean something else by the next bytes: close.
            Refusal::Path(_) | Refusal::SeveralAuthorizations => answer.and_close(),
            Refusal::MethodNotAllowed { allow } => answer.with_header(header::ALLOW, allow.clone()),
            Refusal::Authn(AuthnError::Busy(_)) => {
                let wait = self.pipeline.busy_wait();
                answer.with_header(header::RETRY_AFTER, wait.as_secs().saturating_add(1).to_string())
            }
            Refusal::Authn(AuthnError::Unavailable(_)) | Refusal::Body { fault: BodyFault::NoRoom, .. } => {
                answer.with_header(header::RETRY_AFTER, RETRY_AFTER)
            }
            Refusal::Authn(AuthnError::Throttled { wait, .. }) => {
                answer.with_header(header::RETRY_AFTER, wait.as_secs().saturating_add(1).to_string())
            }
            Refusal::Authn(_)
            | Refusal::NotFound { .. }
            | Refusal::Denied { .. }
            | Refusal::PageLink { .. }
            | Refusal::Body { .. } => answer,
        }
    }
}
