//! Requests that another proxy holds while it asks about them (forward auth).
//!
//! The one rule: the request takes the place of the question, so that it is judged and recorded as if the client had
//! sent it here, by the same steps. [`super::let_pass`] answers.
//!
//! Called by [`super::admit`] for the listeners of the section `[beside]`.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::request::{self, facts};
use crate::gateway::edge::forwarded::RequestOrigin;
use crate::gateway::edge::tls::ServedTls;
use crate::observe::GatewayMetrics;
use fedgate_base::config::{ProxiesConfig, ProxyAskers};
use fedgate_core::admission::{OriginalRequest, ProxyQuestion, ProxyStyle};
use fedgate_core::codes::AnswerCode;

/// A listener for the proxies of one style.
pub(crate) struct BesideListener {
    pub(crate) style: ProxyStyle,
    pub(crate) askers: ProxyAskers,
    /// Set where the proxies show certificates.
    pub(crate) tls: Option<Arc<ServedTls>>,
}

/// A request that came through such a listener.
pub(crate) struct BesideRequest {
    listener: Arc<BesideListener>,
    /// Its target, once it is known.
    target: Bytes,
    is_secure: bool,
    is_told: bool,
}

impl BesideRequest {
    pub(crate) fn new(listener: Arc<BesideListener>) -> Self {
        Self { listener, target: Bytes::new(), is_secure: false, is_told: false }
    }

    /// The target of the request that the proxy holds; none while the proxy has not told it.
    pub(crate) fn target(&self) -> Option<&Bytes> {
        self.is_told.then_some(&self.target)
    }

    /// Puts the request that the proxy holds in the place of its question.
    ///
    /// # Errors
    /// This proxy may not ask, or does not tell clearly what it asks about.
    pub(super) fn take_over(
        &mut self,
        session: &mut Session,
        peer: Option<IpAddr>,
        metrics: &GatewayMetrics,
    ) -> Result<(), AnswerCode> {
        let listener = &self.listener;
        let shown = facts(session).and_then(|facts| facts.certificate.as_ref());
        let trusted =
            shown.filter(|shown| listener.tls.as_ref().is_some_and(|tls| tls.still_trusts(shown, peer, metrics)));
        if !listener.askers.may_ask(peer, trusted.map(|shown| &shown.sha256)) {
            return Err(AnswerCode::ProxyUnknown);
        }
        let head = session.req_header();
        let target = request::target(session, None);
        let question = ProxyQuestion {
            method: &head.method,
            target: target.as_bytes(),
            authority: request::authority(head),
            headers: &head.headers,
        };
        let original = OriginalRequest::read(listener.style, &question)?;
        // The path is judged from `target`, byte for byte.
        let mut restored = RequestHeader::build(original.method, b"/", Some(original.headers.len()))
            .map_err(|_| AnswerCode::OriginalUnclear)?;
        restored.set_version(head.version);
        for (name, value) in &original.headers {
            restored.append_header(name, value).map_err(|_| AnswerCode::OriginalUnclear)?;
        }
        *session.req_header_mut() = restored;
        (self.target, self.is_secure, self.is_told) = (original.target.into(), original.is_secure, true);
        Ok(())
    }

    /// The origin of the request, as the proxy tells it; before that, the proxy's own.
    pub(super) fn origin(&self, session: &Session, peer: Option<IpAddr>, proxies: &ProxiesConfig) -> RequestOrigin {
        let headers = &session.req_header().headers;
        match self.is_told {
            true => RequestOrigin::told(headers, self.is_secure, proxies),
            false => RequestOrigin::of(headers, peer, false, &ProxiesConfig::default()),
        }
    }
}
