//! pingora's callbacks, in the order in which they are called.
//!
//! Each translates and none decides. The permit in the context is the only key to forwarding: without one,
//! `upstream_peer` has no peer to give.

use std::net::IpAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use pingora_core::protocols::Digest;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use super::Traffic;
use super::answer;
use super::body::{self, Held, Room, Unheld};
use super::context::{Context, NOT_RECORDED, Outcome, failure};
use super::cors::Cors;
use super::forwarded::Origin;
use super::keep::NotRecorded;
use super::pace::{Tempo, Upload};
use super::refuse::not_recorded;
use super::request;
use super::respond::{Answer, REQUEST_ID};
use super::supervise::{contained, contained_now};
use super::tls::{ClientCertificate, Tls};
use super::upstream::{SERVICES_OWN, Servers, Told, Upstream, Upstreams};
use crate::assertion::Minter;
use crate::config::{ClientsConfig, Config, CorsConfig, ProxiesConfig};
use crate::fields::BodyFault;
use crate::observe::Recorder;
use crate::pipeline::{Authorization, Permit, Pipeline, Refusal, RequestHead};

/// Most bytes that are sent over HTTP/2 in one piece.
const H2_CHUNK_BYTES: u64 = 64 * 1024;
/// Most attempts of one request, for methods that may be repeated.
pub(super) const MAX_ATTEMPTS: usize = 2;
/// Most interim answers (1xx) to one request.
const MAX_INTERIM: u32 = 8;

/// The gateway as pingora sees it.
pub(super) struct Gateway {
    pub(super) pipeline: Arc<Pipeline>,
    minter: Minter,
    upstreams: Arc<Upstreams>,
    pub(super) recorder: Recorder,
    cors: CorsConfig,
    pub(super) realm: String,
    traffic: Arc<Traffic>,
    proxies: ProxiesConfig,
    clients: ClientsConfig,
    tls: Option<Arc<Tls>>,
    body_tempo: Tempo,
    /// How long one chunk of an answer may take over HTTP/2.
    send_patience: Duration,
    held_bodies: Arc<Room>,
}

impl Gateway {
    pub(super) fn new(
        config: &Config,
        pipeline: Arc<Pipeline>,
        minter: Minter,
        upstreams: Arc<Upstreams>,
        recorder: Recorder,
        traffic: Arc<Traffic>,
        tls: Option<Arc<Tls>>,
    ) -> Self {
        let limits = &config.gateway.limits;
        Self {
            pipeline,
            minter,
            upstreams,
            recorder,
            cors: config.cors.clone(),
            realm: config.authentication.realm.clone(),
            traffic,
            proxies: config.gateway.proxies.clone(),
            clients: config.tls.clients.clone(),
            tls,
            body_tempo: Tempo::new(limits.body, limits.bytes_per_second),
            send_patience: limits.send + Duration::from_secs(H2_CHUNK_BYTES.div_ceil(limits.bytes_per_second)),
            held_bodies: Arc::default(),
        }
    }

    /// The account that the certificate stands for which the client of a connection has shown.
    fn certified(&self, session: &Session) -> Option<String> {
        let learned = session.digest()?.proxy_digest.as_ref()?.user_data.as_ref()?;
        let shown = learned.downcast_ref::<ClientCertificate>()?;
        if !self.tls.as_ref()?.still_trusts(shown) {
            return None;
        }
        let listed = self.clients.accounts.get(&shown.sha256);
        let named = || shown.common_name.as_ref().filter(|_| self.clients.common_name);
        listed.or_else(named).cloned()
    }

    /// The upstream of a permitted request.
    fn upstream(&self, ctx: &Context) -> Result<&Upstream> {
        let upstream = self.upstreams.find(ctx.permit()?.upstream());
        upstream.ok_or_else(|| Error::explain(ErrorType::InternalError, "a route leads to no upstream"))
    }

    /// Counts a failure of the server, and says whether the request may be sent once more.
    ///
    /// What may change something twice is never repeated, whatever is known of the first attempt (RFC 9110, 9.2.2).
    fn may_repeat(&self, session: &Session, ctx: &Context, is_servers_fault: bool, is_unserved: bool) -> bool {
        let (Ok(upstream), Some(server)) = (self.upstream(ctx), &ctx.server) else { return false };
        if is_servers_fault {
            upstream.servers.failed(server, self.recorder.metrics());
        }
        let repeats = is_unserved
            && session.req_header().method.is_idempotent()
            && ctx.attempts < MAX_ATTEMPTS
            && !ctx.is_out_of_time();
        if repeats {
            upstream.servers.retried(server, self.recorder.metrics());
        }
        repeats
    }

    /// Lets a request pass, or answers it; true if it is answered.
    async fn judge(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        if session.is_http2() {
            // A window that a client never opens keeps no socket busy: only this ends the wait for it. It is of one
            // piece.
            session.as_downstream_mut().set_write_timeout(Some(self.send_patience));
        }
        let secure = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        let peer = client_ip(session);
        ctx.origin = Origin::of(&session.req_header().headers, peer, secure, &self.proxies);
        if let Some(given) = ctx.origin.request_id.take() {
            ctx.request_id = given;
        }
        ctx.cors = Cors::of(&session.req_header().headers, &self.cors);
        if !self.can_record(session, ctx) {
            ctx.outcome = Outcome::Answered(NOT_RECORDED);
            return not_recorded(&ctx.request_id).send(session, &ctx.cors, &ctx.request_id).await.map(|()| true);
        }
        let target = request::target(session);
        let head = session.req_header();
        if let Some((answer, word)) = self.without_decision(head, target.as_bytes(), &ctx.request_id) {
            ctx.outcome = Outcome::Answered(word);
            return self.answer(session, ctx, answer).await;
        }
        let authorization = request::authorization(&head.headers);
        // Who says a name and a password is that one, so that nobody asks for the certificate.
        let certified = match authorization {
            Authorization::Absent => self.certified(session),
            Authorization::One(_) | Authorization::Several => None,
        };
        let question = RequestHead {
            method: head.method.as_str(),
            target: target.as_bytes(),
            authorization,
            client: ctx.origin.client,
            certified: certified.as_deref(),
        };
        let refusal = match self.pipeline.admit(question).await {
            Ok(permit) => {
                let declared = request::content_length(&session.req_header().headers);
                if declared.is_some_and(|length| length > permit.max_body_bytes()) {
                    ctx.outcome = Outcome::Permitted(Box::new(permit));
                    let answer = Answer::error(413, "body_too_large", "The body is too large", &ctx.request_id);
                    return self.answer(session, ctx, answer).await;
                }
                match self.take_in(session, &permit).await {
                    Err(Unheld::Refused(fault)) => self.refuse_body(permit, fault),
                    Err(Unheld::Failed(error)) => {
                        ctx.outcome = Outcome::Permitted(Box::new(permit));
                        return Err(error);
                    }
                    Ok(held) => {
                        ctx.outcome = Outcome::Permitted(Box::new(permit));
                        ctx.held = held;
                        return Ok(false);
                    }
                }
            }
            Err(refusal) => refusal,
        };
        let answer = self.refusal_answer(&refusal, &ctx.request_id);
        ctx.outcome = Outcome::Refused(Box::new(refusal));
        self.answer(session, ctx, answer).await
    }

    /// Takes in and judges the body of an admitted request, where its route guards members.
    async fn take_in(&self, session: &mut Session, permit: &Permit) -> Result<Option<Held>, Unheld> {
        let Some(check) = permit.body_check() else { return Ok(None) };
        let limit = permit.max_body_bytes();
        body::hold(session, check, limit, self.body_tempo, &self.held_bodies).await.map(Some)
    }

    /// Refuses an admitted request for its body.
    fn refuse_body(&self, permit: Permit, fault: BodyFault) -> Refusal {
        if matches!(fault, BodyFault::MemberNotPermitted(_)) {
            self.recorder.metrics().members_refused.inc();
        }
        self.pipeline.refuse_body(permit, fault)
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(Arc::clone(&self.traffic))
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        contained(self.judge(session, ctx)).await
    }

    async fn upstream_peer(&self, _session: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        contained(async {
            let servers = &self.upstream(ctx)?.servers;
            let now = Instant::now();
            let server = servers.choose(ctx.permit()?, ctx.server.as_deref(), now);
            let Some(server) = server else {
                return Err(
                    Error::explain(ErrorType::ConnectNoRoute, "no server of the upstream has an address").into_up()
                );
            };
            if ctx.attempts == 0 {
                ctx.until = servers.total_timeout().map(|time| now + time);
            }
            ctx.attempts += 1;
            // What was read of the body is sent again, and counted again.
            ctx.body_bytes = 0;
            let peer = Servers::peer(&server, ctx.attempts > 1);
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
        ctx: &mut Context,
    ) -> Result<()> {
        // Over HTTP/1 the guard beneath waits for the body; one that is held has come already.
        if session.is_http2() && ctx.held.is_none() && !session.as_mut().is_body_empty() {
            ctx.upload = Some(Upload::begin(self.body_tempo));
        }
        ctx.hold = ctx.end().and_then(|until| self.upstreams.hold(connection, until));
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        is_end: bool,
        ctx: &mut Context,
    ) -> Result<()> {
        if let Some(held) = &ctx.held {
            return held.release(body, is_end);
        }
        let bytes = body.as_ref().map_or(0, Bytes::len) as u64;
        ctx.uploaded(bytes, is_end);
        ctx.body_bytes += bytes;
        if ctx.body_bytes > ctx.permit()?.max_body_bytes() {
            return Error::e_explain(ErrorType::HTTPStatus(413), "the body is larger than the route allows");
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        contained(async {
            let permit = ctx.permit()?;
            let upstream = self.upstream(ctx)?;
            let assertion = upstream.assertion.then(|| {
                self.pipeline.assertion(
                    permit,
                    request.method.as_str(),
                    &ctx.request_id,
                    &self.minter,
                    SystemTime::now(),
                )
            });
            if permit.remover().is_some() {
                answer::ask_plainly(request)?;
            }
            upstream.rewrite(
                request,
                &Told {
                    target: permit.target(),
                    origin: &ctx.origin,
                    request_id: &ctx.request_id,
                    assertion: assertion.as_deref(),
                },
            )
        })
        .await
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        if response.status.is_informational() {
            ctx.interim += 1;
            // Nobody asked it to switch: what follows a 101 would be read as an answer by some and as none by others.
            if ctx.interim > MAX_INTERIM || response.status == 101 {
                return Err(Error::explain(
                    ErrorType::InvalidHTTPHeader,
                    "an interim answer that nobody asked for, or too many",
                )
                .into_up());
            }
        }
        ctx.server_fails = matches!(response.status.as_u16(), 502..=504);
        ctx.in_time()
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        _end: bool,
        ctx: &mut Context,
    ) -> Result<Option<Duration>> {
        ctx.in_time().map(|()| None)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        contained(async {
        if response.status == 401 && self.upstream(ctx)?.assertion {
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
        if let Some(remover) = ctx.permit()?.remover() {
            ctx.passing = answer::prepare(session, response, remover)?;
        }
        response.insert_header(REQUEST_ID, &ctx.request_id)?;
        ctx.cors.apply(response)?;
        if response.status.is_informational() || session.req_header().method.is_safe() {
            return Ok(());
        }
        self.keep(session, ctx, response.status.as_u16(), None).await.map_err(|NotRecorded| {
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
        ctx: &mut Context,
    ) -> Result<Option<Duration>> {
        contained_now(|| ctx.passing.pass(body, is_end)).map(|()| None)
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Context,
        error: Box<Error>,
    ) -> Box<Error> {
        let mut error = ctx.told_of_server(error);
        error.set_retry(self.may_repeat(session, ctx, true, true));
        error
    }

    /// pingora would repeat as often as it is told to, on any connection that was kept; this repeats once.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Context,
        reused: bool,
    ) -> Box<Error> {
        let is_ours = matches!(error.etype(), ErrorType::Custom(_));
        if ctx.is_out_of_time() && !matches!(error.esource(), ErrorSource::Downstream) && !is_ours {
            // Whatever it looked like when the connection was ended.
            error = Error::because(ErrorType::ReadTimedout, "the request's time is up", error).into_up();
        }
        if ctx.upload.as_ref().is_some_and(Upload::is_too_slow) && !is_ours {
            // What waits to be read came in time: then it is the server that does not take it.
            error = match session.as_mut().read_request_body().now_or_never() {
                None => {
                    self.recorder.metrics().ended("body");
                    Error::because(ErrorType::ReadTimedout, "the body came too slowly", error).into_down()
                }
                Some(_) => {
                    Error::because(ErrorType::WriteTimedout, "the server does not take the body", error).into_up()
                }
            };
            error.set_retry(false);
        }
        error.retry.decide_reuse(reused);
        // A kept connection that the server closed meanwhile: nobody's fault.
        let is_stale = reused && error.retry();
        let is_servers_fault = matches!(error.esource(), ErrorSource::Upstream) && !is_stale;
        let is_unserved =
            is_stale && session.response_written().is_none() && !session.as_ref().retry_buffer_truncated();
        let mut error = ctx.told_of_server(error);
        error.set_retry(self.may_repeat(session, ctx, is_servers_fault, is_unserved));
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Context) -> FailToProxy {
        let (status, code, message) = failure(error);
        let told = final_status(session);
        if ctx.recorded && (told.is_some() || status == 0) {
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
        let answer = match self.keep(session, ctx, told.unwrap_or(status), Some(error)).await {
            Ok(()) => Answer::error(status, code, message, &ctx.request_id),
            Err(NotRecorded) => not_recorded(&ctx.request_id),
        };
        let error_code = answer.status();
        if let Err(error) = answer.send_failure(session, &ctx.cors, &ctx.request_id).await {
            tracing::debug!(request.id = ctx.request_id, %error, "the client did not take the answer");
        }
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Context) {
        if let (None, Some(server), Ok(upstream)) = (error, &ctx.server, self.upstream(ctx)) {
            match ctx.server_fails {
                true => upstream.servers.failed(server, self.recorder.metrics()),
                false => upstream.servers.succeeded(server),
            }
        }
        self.recorder.metrics().members_removed.inc_by(ctx.passing.removed());
        if !ctx.recorded {
            let status = final_status(session).unwrap_or_default();
            let room = ctx.room.take();
            self.with_record(session, ctx, status, error, |record| self.recorder.record(record, room)).await;
        }
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &Context, _error: &Error) -> bool {
        // The record tells it, with the same request id as the answer.
        true
    }
}

/// The status the client was told, if it was.
fn final_status(session: &Session) -> Option<u16> {
    let written = session.response_written()?.status;
    (!written.is_informational()).then(|| written.as_u16())
}

/// The peer's address; none on a Unix socket.
fn client_ip(session: &Session) -> Option<IpAddr> {
    match session.client_addr() {
        Some(SocketAddr::Inet(address)) => Some(address.ip()),
        _ => None,
    }
}
