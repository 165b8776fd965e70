//! pingora's callbacks, in the order in which they are called.
//!
//! Each translates and none decides. The permit in the context is the only key to forwarding: without one,
//! `upstream_peer` has no peer to give.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use super::answer;
use super::context::{NOT_RECORDED, RequestContext, ServerTold, failure};
use super::hop;
use super::judge::RequestJudge;
use super::keep::{NotRecorded, RecordKeeper, final_status};
use super::pairing::{ServerExchange, end_once};
use super::panics::{contained, contained_now};
use super::repeat::RepeatPolicy;
use super::respond::GatewayAnswer;
use super::signer::DecisionSigner;
use crate::gateway::edge::pace::{ByteRate, UploadPace};
use crate::gateway::edge::tls::ServedTls;
use crate::gateway::edge::traffic::LiveTraffic;
use crate::gateway::upstream::{ForwardedFacts, SERVICES_OWN, ServerSet, UpstreamSet};
use crate::observe::{GatewayMetrics, RequestRecorder};
use crate::pipeline::Pipeline;
use fedgate_base::config::Config;
use fedgate_core::assertion::{AssertionMinter, CLOCK_HEADER};

/// Bytes of a body that are sent to a server without asking whether it takes them.
const UNASKED_BYTES: u64 = 64 * 1024;

/// The gateway as pingora sees it: each collaborator answers what one phase asks.
pub(crate) struct GatewayProxy {
    judge: RequestJudge,
    keeper: RecordKeeper,
    repeats: RepeatPolicy,
    signer: DecisionSigner,
    upstreams: Arc<UpstreamSet>,
    metrics: Arc<GatewayMetrics>,
    traffic: Arc<LiveTraffic>,
    body_tempo: ByteRate,
}

impl GatewayProxy {
    pub(crate) fn new(
        config: &Config,
        pipeline: Arc<Pipeline>,
        minter: AssertionMinter,
        upstreams: Arc<UpstreamSet>,
        recorder: RequestRecorder,
        traffic: Arc<LiveTraffic>,
        tls: Option<Arc<ServedTls>>,
    ) -> Self {
        let limits = &config.gateway.limits;
        let metrics = Arc::clone(recorder.metrics());
        let signer = DecisionSigner::new(Arc::clone(&pipeline), minter);
        let keeper = RecordKeeper::new(Arc::clone(&pipeline), recorder);
        Self {
            judge: RequestJudge::new(config, pipeline, Arc::clone(&upstreams), keeper.clone(), signer.clone(), tls),
            keeper,
            repeats: RepeatPolicy::new(Arc::clone(&upstreams), Arc::clone(&metrics)),
            signer,
            upstreams,
            metrics,
            traffic,
            body_tempo: ByteRate::new(limits.body, limits.bytes_per_second),
        }
    }
}

#[async_trait]
impl ProxyHttp for GatewayProxy {
    type CTX = RequestContext;

    fn new_ctx(&self) -> RequestContext {
        RequestContext::new(Arc::clone(&self.traffic))
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<bool> {
        contained(self.judge.judge(session, ctx)).await
    }

    async fn upstream_peer(&self, _session: &mut Session, ctx: &mut RequestContext) -> Result<Box<HttpPeer>> {
        contained(async {
            let servers = &ctx.upstream(&self.upstreams)?.servers;
            let now = Instant::now();
            let server = servers.choose(ctx.permit()?, ctx.server.as_deref(), now);
            let Some(server) = server else {
                return Err(
                    Error::explain(ErrorType::ConnectNoRoute, "no server of the upstream has an address").into_up()
                );
            };
            ctx.begin(servers.total_timeout(), now);
            ctx.attempts += 1;
            // What was read of the body is sent again, and counted again.
            ctx.body_bytes = 0;
            let peer = ServerSet::peer(&server, ctx.attempts > 1);
            ctx.server = Some(server);
            Ok(peer)
        })
        .await
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
        // Over HTTP/1 the guard beneath waits for the body; one that is held has come already.
        if session.is_http2() && ctx.held.is_none() && !session.as_mut().is_body_empty() {
            ctx.upload = Some(UploadPace::begin(self.body_tempo));
        }
        ctx.hold = ctx.end().and_then(|until| self.upstreams.hold(connection, until));
        ctx.exchange = ServerExchange::begin(self.upstreams.line(connection));
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        is_end: bool,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        if let Some(held) = &ctx.held {
            held.release(body, is_end);
            return Ok(());
        }
        let bytes = body.as_ref().map_or(0, Bytes::len) as u64;
        ctx.uploaded(bytes, is_end);
        ctx.body_bytes += bytes;
        if ctx.body_bytes > ctx.permit()?.max_body_bytes() {
            return Error::e_explain(ErrorType::HTTPStatus(413), "the body is larger than the route allows");
        }
        end_once(body, is_end);
        // What a socket has room for anyhow is not asked about.
        if ctx.body_bytes > UNASKED_BYTES {
            ctx.exchange.keep_back(session).await?;
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        contained(async {
            let permit = ctx.permit()?;
            let upstream = ctx.upstream(&self.upstreams)?;
            let assertion =
                upstream.assertion.then(|| self.signer.sign(permit, request.method.as_str(), &ctx.request_id));
            if permit.remover().is_some() {
                answer::ask_plainly(request)?;
            }
            let dropped = upstream.rewrite(
                request,
                &ForwardedFacts {
                    target: permit.target(),
                    origin: &ctx.origin,
                    request_id: &ctx.request_id,
                    assertion: assertion.as_deref(),
                    host: ctx.server.as_deref().and_then(|server| upstream.own_name(server)),
                },
            )?;
            if ctx.attempts == 1 {
                self.metrics.headers_dropped(upstream.name(), dropped);
            }
            // A second attempt finds no kept connection, since none of its kind is kept.
            ctx.exchange.tell(request, ctx.attempts == 1 && upstream.servers.keeps_connections())
        })
        .await
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        ctx.interim.note(response)?;
        ctx.exchange.check(response)?;
        ctx.exchange.end(&session.req_header().method, response);
        ctx.server_told = ServerTold::by(response);
        hop::take_off(session.req_header().method == Method::HEAD, response)?;
        ctx.in_time()
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        _end: bool,
        ctx: &mut RequestContext,
    ) -> Result<Option<Duration>> {
        ctx.in_time().map(|()| None)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        contained(async {
        let is_asserted = ctx.upstream(&self.upstreams)?.assertion;
        if is_asserted {
            self.upstreams.clocks().note(response.status == 401 && response.headers.contains_key(CLOCK_HEADER));
        }
        if response.status == 401 && is_asserted {
            // The service does not believe this gateway. That is nobody's wrong password, and must not look like one.
            tracing::error!(
                request.id = ctx.request_id,
                "the upstream refused the gateway's assertion; both sides need the same `assertion` settings and clocks \
                 that agree"
            );
            return Error::e_explain(ErrorType::HTTPStatus(502), "the upstream refused the assertion");
        }
        for name in SERVICES_OWN {
            response.remove_header(*name);
        }
        if let Some(server) = &ctx.server {
            ctx.upstream(&self.upstreams)?.lead_back(server, response)?;
        }
        if let Some(remover) = ctx.permit()?.remover() {
            ctx.passing = answer::prepare(session, response, remover)?;
        }
        answer::suit(session, response);
        ctx.identify(response)?;
        ctx.cors.apply(response)?;
        if response.status.is_informational() || session.req_header().method.is_safe() {
            return Ok(());
        }
        self.keeper.keep(session, ctx, response.status.as_u16(), None).await.map_err(|NotRecorded| {
            tracing::error!(
                request.id = ctx.request_id,
                status = response.status.as_u16(),
                "an answer is withheld, because it could not be recorded"
            );
            Error::explain(ErrorType::Custom(NOT_RECORDED), "the answer could not be recorded")
        })
        }).await
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
        let mut error = ctx.told_of_server(error);
        error.set_retry(self.repeats.may_repeat(session, ctx, true, true));
        error
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut RequestContext,
        reused: bool,
    ) -> Box<Error> {
        self.repeats.failed(session, error, ctx, reused)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut RequestContext) -> FailToProxy {
        let (status, code, message) = failure(error);
        let told = final_status(session);
        // A refusal that its client did not wait for is nothing to log, or whoever is nobody could fill the log.
        if ctx.recorded && (told.is_some() || status == 0) && ctx.permit().is_ok() {
            tracing::warn!(request.id = ctx.request_id, %error, "an answer broke off that was recorded already");
        }
        if status == 0 {
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        if !matches!(error.esource(), ErrorSource::Downstream) && status >= 500 {
            tracing::warn!(request.id = ctx.request_id, %error, "a request could not be forwarded");
        }
        // Recorded with an answer that was not sent: what is sent instead gets the last word.
        ctx.recorded &= told.is_some() || *error.etype() == ErrorType::Custom(NOT_RECORDED);
        let answer = match self.keeper.keep(session, ctx, told.unwrap_or(status), Some(error)).await {
            Ok(()) => GatewayAnswer::error(status, code, message),
            Err(NotRecorded) => GatewayAnswer::not_recorded(),
        };
        let error_code = answer.status();
        if let Err(error) = answer.send_failure(session, ctx).await {
            tracing::debug!(request.id = ctx.request_id, %error, "the client did not take the answer");
        }
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut RequestContext) {
        if let (None, Some(server), Ok(upstream)) = (error, &ctx.server, ctx.upstream(&self.upstreams)) {
            match ctx.server_told {
                ServerTold::Fails => upstream.servers.failed(server, &self.metrics),
                ServerTold::Serves => upstream.servers.succeeded(server),
                ServerTold::IsBusy => {}
            }
        }
        self.metrics.members_removed.inc_by(ctx.passing.removed());
        self.keeper.complete(session, ctx, error).await;
    }

    fn request_summary(&self, _session: &Session, ctx: &RequestContext) -> String {
        // The record tells the rest; a target may hold what is nobody else's.
        format!("request {}", ctx.request_id)
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &RequestContext, _error: &Error) -> bool {
        // The record tells it, with the same request id as the answer.
        true
    }
}
