//! The answer to a proxy that asks whether a request may pass ([`super::beside`]).
//!
//! The one rule: it is a success only with a permit that the head alone has settled, for the target that the proxy will
//! forward. Its facts are always told in full, so that none that a client has sent stays in the place of one.
//!
//! Called by [`super::admit`] and [`super::proxy`].

use http::header;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use pingora_core::Result;
use pingora_proxy::Session;

use super::admit::RequestAdmission;
use super::context::RequestContext;
use super::held_body::{self, BodyNotHeld};
use super::proxy::GatewayProxy;
use super::respond::GatewayAnswer;
use crate::gateway::headers::{ACCOUNT, ENDPOINT, ROLES, SCOPE, SUBJECT};
use crate::pipeline::Permit;
use fedgate_core::assertion::{self, RecordScope};
use fedgate_core::codes::AnswerCode;

impl RequestAdmission {
    /// Why a permit does not settle the request of a proxy that asks, if so: the decision would need more than a head,
    /// or the proxy would forward another target than the judged one.
    pub(super) async fn unsettled_beside(
        &self,
        session: &mut Session,
        ctx: &RequestContext,
        permit: &Permit,
    ) -> Result<Option<AnswerCode>> {
        let Some(target) = ctx.told_target() else { return Ok(None) };
        if !permit.is_settled_by_head(session.req_header().method.as_str()) || permit.target().as_bytes() != target {
            return Ok(Some(AnswerCode::NotDecidedBeside));
        }
        match held_body::expect_none(session, self.body_tempo).await {
            Ok(()) => Ok(None),
            Err(BodyNotHeld::Failed(error)) => Err(error),
            Err(BodyNotHeld::Refused(_) | BodyNotHeld::Unexpected) => Ok(Some(AnswerCode::BodyNotExpected)),
        }
    }
}

impl GatewayProxy {
    /// Tells the proxy that the request may pass, and for whom.
    pub(super) async fn let_pass(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<()> {
        let permit = ctx.permit()?;
        let method = session.req_header().method.as_str();
        let signs = ctx.upstream(&self.upstreams)?.assertion;
        let assertion = if signs { self.signer.sign(permit, method, &ctx.request_id) } else { String::new() };
        let scope = match permit.scope() {
            RecordScope::Own => "own",
            RecordScope::Global => "global",
            RecordScope::Public => "public",
        };
        let roles = permit.principal().map_or(&[][..], |principal| principal.roles());
        let roles: Vec<String> = roles.iter().map(|role| encoded(role)).collect();
        // Each of them always, so that none that a client has sent stays in its place.
        let answer = GatewayAnswer::passes()
            .with_header(ACCOUNT, encoded(permit.principal().map_or("", |principal| principal.account())))
            .with_header(ROLES, roles.join(","))
            .with_header(ENDPOINT, encoded(self.pipeline.endpoint_name(permit)))
            .with_header(SUBJECT, encoded(permit.subject().unwrap_or_default()))
            .with_header(SCOPE, scope)
            .with_header(header::HeaderName::from_static(assertion::HEADER), assertion);
        self.keeper.answer(session, ctx, answer).await
    }
}

/// A text as the value of a header: visible ASCII without commas, the rest percent-encoded.
fn encoded(text: &str) -> String {
    const KEPT_OUT: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b',').add(b'"');
    utf8_percent_encode(text, KEPT_OUT).to_string()
}
