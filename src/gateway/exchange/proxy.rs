//! pingora's callbacks, in the order in which they are called.
//!
//! Whether a request is permitted is decided only by the pipeline; a callback translates, and applies bounds (the
//! size of a body, time, retries). The permit in the context is the only key to forwarding: without one,
//! `upstream_peer` has no peer to give.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora_core::connectors::ConnectorOptions;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use super::admit::{AdmissionEnd, RequestAdmission};
use super::beside::{BesideListener, BesideRequest};
use super::context::{BODY_TOO_LARGE, RequestContext, ServerState, UNRECORDED, failure};
use super::desync::end_once;
use super::panics::{contained, contained_now};
use super::recording::{NotRecorded, RecordKeeper, final_status};
use super::respond::GatewayAnswer;
use super::retry::RetryPolicy;
use crate::assertion_signer::AssertionSigner;
use crate::gateway::edge::live_traffic::LiveTraffic;
use crate::gateway::edge::pace::ByteRate;
use crate::gateway::edge::tls::ServedTls;
use crate::gateway::error_text::in_words;
use crate::gateway::upstream::{KeptConnections, UpstreamSet};
use crate::observe::{GatewayMetrics, RequestRecorder};
use crate::pipeline::PermitSigner;
use crate::pipeline::Pipeline;
use fedgate_base::config::{Config, StreamLimits};

/// Bytes of a body that are sent without waiting for the server to take them.
const UNASKED_BYTES: u64 = 64 * 1024;

/// The gateway as pingora sees it: each collaborator answers one phase.
#[derive(Clone)]
pub(crate) struct GatewayProxy {
    pub(super) admission: Arc<RequestAdmission>,
    pub(super) keeper: RecordKeeper,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) retries: RetryPolicy,
    pub(super) signer: PermitSigner,
    pub(super) upstreams: Arc<UpstreamSet>,
    pub(super) metrics: Arc<GatewayMetrics>,
    pub(super) traffic: Arc<LiveTraffic>,
    pub(super) streams: StreamLimits,
    pub(super) body_tempo: ByteRate,
    /// Set on a listener for proxies that ask.
    pub(super) beside: Option<Arc<BesideListener>>,
    /// The connections of reads on this thread.
    pub(super) kept: Arc<KeptConnections>,
}

impl GatewayProxy {
    pub(crate) fn new(
        config: &Config,
        pipeline: Arc<Pipeline>,
        signer: AssertionSigner,
        upstreams: Arc<UpstreamSet>,
        recorder: RequestRecorder,
        traffic: Arc<LiveTraffic>,
        tls: Option<Arc<ServedTls>>,
    ) -> Self {
        let limits = &config.gateway.limits;
        let metrics = Arc::clone(recorder.metrics());
        let signer = PermitSigner::new(Arc::clone(&pipeline), signer);
        let keeper = RecordKeeper::new(Arc::clone(&pipeline), recorder);
        Self {
            admission: Arc::new(RequestAdmission::new(
                config,
                Arc::clone(&pipeline),
                Arc::clone(&upstreams),
                keeper.clone(),
                signer.clone(),
                tls,
            )),
            keeper,
            pipeline,
            streams: limits.streams,
            retries: RetryPolicy::new(Arc::clone(&upstreams), Arc::clone(&metrics)),
            signer,
            upstreams,
            metrics,
            traffic,
            body_tempo: ByteRate::new(limits.body, limits.bytes_per_second),
            beside: None,
            kept: KeptConnections::new(ConnectorOptions::new(0)),
        }
    }

    /// The same for a listener where proxies ask; nothing is forwarded there.
    pub(crate) fn beside(&self, listener: BesideListener) -> Self {
        let kept = KeptConnections::new(ConnectorOptions::new(0));
        Self { beside: Some(Arc::new(listener)), kept, ..self.clone() }
    }

    /// The same with connections to servers of its own, for one thread.
    pub(crate) fn of_thread(&self, options: ConnectorOptions) -> Self {
        Self { kept: KeptConnections::new(options), ..self.clone() }
    }
}

#[async_trait]
impl ProxyHttp for GatewayProxy {
    type CTX = RequestContext;

    fn new_ctx(&self) -> RequestContext {
        let mut ctx = RequestContext::new(Arc::clone(&self.traffic));
        ctx.beside = self.beside.as_ref().map(|listener| Box::new(BesideRequest::new(Arc::clone(listener))));
        ctx
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<bool> {
        // True means to pingora that the request has been answered.
        if contained(self.admission.admit(session, ctx)).await? == AdmissionEnd::Answered {
            return Ok(true);
        }
        if ctx.beside.is_some() {
            return contained(Box::pin(self.let_pass(session, ctx))).await.map(|()| true);
        }
        match Self::is_stream(session, ctx) {
            // Boxed: other requests have no room for it.
            true => contained(Box::pin(self.serve_stream(session, ctx))).await.map(|()| true),
            false if Self::is_read(session, ctx) => contained(self.serve_read(session, ctx)).await.map(|()| true),
            false => Ok(false),
        }
    }

    async fn upstream_peer(&self, _session: &mut Session, ctx: &mut RequestContext) -> Result<Box<HttpPeer>> {
        contained_now(|| {
            let server = self.choose_server(ctx)?;
            Ok(server.peer.peer_of_attempt(ctx.attempts > 1))
        })
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        _reused: bool,
        _peer: &HttpPeer,
        connection: RawFd,
        _digest: Option<&Digest>,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        self.connected(session, self.upstreams.line(connection), ctx);
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        is_end: bool,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        contained(async {
            if let Some(held) = &ctx.held {
                held.release(body, is_end);
                return Ok(());
            }
            let bytes = body.as_ref().map_or(0, Bytes::len) as u64;
            ctx.uploaded(bytes, is_end);
            ctx.body_bytes += bytes;
            // Counted as it streams: a chunked body declares no length, and a declared one is checked before.
            if ctx.body_bytes > ctx.permit()?.max_body_bytes() {
                return Error::e_explain(BODY_TOO_LARGE, "the body is larger than the route allows");
            }
            end_once(body, is_end);
            // The buffer of a socket takes this much anyhow.
            if ctx.body_bytes > UNASKED_BYTES {
                ctx.exchange.keep_back(session).await?;
            }
            Ok(())
        })
        .await
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        contained_now(|| {
            *request = self.rewrite_request(request, ctx)?;
            Ok(())
        })
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        contained_now(|| Self::judge_answer(session, response, ctx))
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end: bool,
        ctx: &mut RequestContext,
    ) -> Result<Option<Duration>> {
        ctx.answered(body.as_ref().map_or(0, Bytes::len)).map(|()| None)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        contained(self.finish_head(session, response, ctx)).await
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        is_end: bool,
        ctx: &mut RequestContext,
    ) -> Result<Option<Duration>> {
        contained_now(|| ctx.passing.pass(body, is_end)).map(|()| None)
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut RequestContext,
        error: Box<Error>,
    ) -> Box<Error> {
        self.not_connected(session, error, ctx)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut RequestContext,
        reused: bool,
    ) -> Box<Error> {
        self.attempt_failed(session, error, ctx, reused)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut RequestContext) -> FailToProxy {
        if ctx.stream_end.is_some() {
            // Its answer has begun, and breaks off on purpose.
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        let failed = failure(error);
        let sent_status = final_status(session);
        // A refusal whose client hung up is not logged, or anonymous callers could fill the log.
        if ctx.recorded && (sent_status.is_some() || failed.is_none()) && ctx.permit().is_ok() {
            let error = in_words(error);
            tracing::warn!(request.id = ctx.request_id, error, "an answer broke off that was recorded already");
        }
        let Some(failed) = failed else { return FailToProxy { error_code: 0, can_reuse_downstream: false } };
        let status = failed.status();
        if !matches!(error.esource(), ErrorSource::Downstream) && status >= 500 {
            tracing::warn!(request.id = ctx.request_id, error = in_words(error), "a request could not be forwarded");
        }
        // The recorded answer was not sent; the answer sent instead gets a record that follows.
        ctx.recorded &= sent_status.is_some() || *error.etype() == UNRECORDED;
        let answer = match self.keeper.keep(session, ctx, sent_status.unwrap_or(status), Some(error)).await {
            Ok(()) => GatewayAnswer::error(failed),
            Err(NotRecorded) => GatewayAnswer::not_recorded(),
        };
        let error_code = answer.status();
        if let Err(error) = answer.send_failure(session, ctx).await {
            tracing::debug!(request.id = ctx.request_id, %error, "the client did not receive the answer");
        }
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut RequestContext) {
        if let (None, Some(server), Ok(upstream)) = (error, &ctx.server, ctx.upstream(&self.upstreams)) {
            match ctx.server_state {
                ServerState::Fails => upstream.servers.failed(server, &self.metrics),
                ServerState::Serves => upstream.servers.succeeded(server),
                ServerState::IsBusy => {}
            }
        }
        self.metrics.members_removed.inc_by(ctx.passing.removed());
        self.keeper.complete(session, ctx, error).await;
    }

    fn request_summary(&self, _session: &Session, ctx: &RequestContext) -> String {
        // The record has the rest; a target may hold personal data, which no log may show.
        format!("request {}", ctx.request_id)
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &RequestContext, _error: &Error) -> bool {
        // The record has it, with the same request id as the answer.
        true
    }
}
