//! Answers of the gateway itself: refusals, and requests that need no decision.

use std::sync::Arc;

use http::{Method, header};
use pingora_http::RequestHeader;

use super::foreign::ForeignFault;
use super::request::{self, METHODS, MalformedRequest};
use super::respond::{GatewayAnswer, RETRY_AFTER};
use crate::authn::AuthnError;
use crate::pipeline::{Pipeline, Refusal};
use fedgate_core::fields::BodyFault;
use fedgate_core::host::HostList;

/// The code for a host that the operator has not listed.
const HOST_NOT_SERVED: &str = "host_not_served";

/// The answer to a request that a page of another origin may not send.
pub(crate) fn foreign_request(fault: ForeignFault) -> GatewayAnswer {
    match fault {
        ForeignFault::Write(_) => {
            GatewayAnswer::error(403, "foreign_origin", "A page of another origin may not send this")
        }
        ForeignFault::Credential => {
            GatewayAnswer::error(403, "foreign_credential", "Pages of this origin may not send a password here")
        }
    }
}

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

    /// The answer to a request that needs no decision, or none if it needs one.
    pub(crate) fn without_decision(
        &self,
        head: &RequestHeader,
        target: &[u8],
    ) -> Option<(GatewayAnswer, &'static str)> {
        let malformed = request::check(head).err();
        if let Some(malformed) = malformed.filter(|malformed| *malformed != MalformedRequest::Method) {
            let answer = GatewayAnswer::error(malformed.status(), malformed.code(), malformed.message());
            return Some((answer.and_close(), malformed.code()));
        }
        if !self.hosts.serves(request::authority(head)) {
            // Another server may serve that host (RFC 9110, 15.5.20), so 421 and not 404.
            return Some((GatewayAnswer::error(421, HOST_NOT_SERVED, "This host is not served here"), HOST_NOT_SERVED));
        }
        let is_known = malformed.is_none();
        if is_known && head.method != Method::OPTIONS {
            return None;
        }
        let not_allowed = |allow: &str| {
            let (code, message) = (MalformedRequest::Method.code(), MalformedRequest::Method.message());
            (GatewayAnswer::error(405, code, message).with_header(header::ALLOW, allow), code)
        };
        // Without authentication, as preflights are: the answer reveals no more than the API's documentation.
        let (answer, word) = match self.pipeline.allowed_methods(target) {
            Ok(Some(allow)) if is_known => (GatewayAnswer::options(allow), "options"),
            Ok(Some(allow)) => not_allowed(allow),
            Ok(None) => (GatewayAnswer::error(404, "not_found", "Not found"), "not_found"),
            // `*`, this server as a whole (RFC 9110, 9.3.7), or another target that is not a path.
            Err(_) if is_known && target == b"*" => (GatewayAnswer::options(METHODS), "options"),
            Err(_) if !is_known => not_allowed(METHODS),
            Err(_) => return None,
        };
        Some((if is_known { answer } else { answer.and_close() }, word))
    }

    /// The answer to a refusal of the pipeline.
    pub(crate) fn of(&self, refusal: &Refusal) -> GatewayAnswer {
        let answer = match refusal.status() {
            401 => return GatewayAnswer::challenge(&self.realm),
            status => GatewayAnswer::error(status, refusal.code(), refusal.message()),
        };
        match refusal {
            // A client that sends ambiguous requests may also mean something else by the next bytes: close.
            Refusal::Path(_) | Refusal::SeveralAuthorizations => answer.and_close(),
            Refusal::MethodNotAllowed { allow } => answer.with_header(header::ALLOW, allow.clone()),
            Refusal::Authn(AuthnError::Unavailable(_) | AuthnError::Busy(_))
            | Refusal::Body { fault: BodyFault::NoRoom, .. } => answer.with_header(header::RETRY_AFTER, RETRY_AFTER),
            Refusal::Authn(AuthnError::Throttled { wait, .. }) => {
                answer.with_header(header::RETRY_AFTER, wait.as_secs().saturating_add(1).to_string())
            }
            Refusal::Authn(_) | Refusal::NotFound { .. } | Refusal::Denied { .. } | Refusal::Body { .. } => answer,
        }
    }
}
