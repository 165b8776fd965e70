//! The steps of forwarding a request, in the order in which they are taken. pingora takes them by its callbacks
//! ([`super::proxy`]); reads and streams take them directly ([`super::read`], [`super::stream`]).
//!
//! The one rule: the permit in the context is the only key. No server is chosen without one, and what is sent is the
//! target that was judged.

use std::sync::Arc;
use std::time::Instant;

use http::{Method, header};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::context::{ASSERTION_REFUSED, RequestContext, ServerState, UNRECORDED};
use super::desync::ServerExchange;
use super::hidden_members;
use super::hop_by_hop;
use super::proxy::GatewayProxy;
use super::recording::NotRecorded;
use crate::balance::UpstreamServer;
use crate::gateway::edge::pace::TransferPace;
use crate::gateway::headers::remove_those;
use crate::gateway::upstream::{ForwardedFacts, REMOVED_ANSWER_HEADERS, ServerAddress, ServerLine};
use fedgate_core::assertion::CLOCK_HEADER;

impl GatewayProxy {
    /// The server of the next attempt, which begins.
    pub(super) fn choose_server(&self, ctx: &mut RequestContext) -> Result<Arc<UpstreamServer<ServerAddress>>> {
        let servers = &ctx.upstream(&self.upstreams)?.servers;
        let now = Instant::now();
        let server = servers.choose(ctx.permit()?, ctx.server.as_deref(), now);
        let none = || Error::explain(ErrorType::ConnectNoRoute, "no server of the upstream has an address").into_up();
        let server = server.ok_or_else(none)?;
        ctx.begin(servers.total_timeout(), now);
        ctx.attempts += 1;
        // A second attempt sends the buffered body again, so its bytes are counted again.
        ctx.body_bytes = 0;
        ctx.server = Some(Arc::clone(&server));
        Ok(server)
    }

    /// Begins the attempt on a connection.
    pub(super) fn connected(&self, session: &mut Session, line: Option<ServerLine>, ctx: &mut RequestContext) {
        // Over HTTP/1 the strict reader watches the pace of a body. A held body is complete already.
        if session.is_http2() && ctx.held.is_none() && !session.as_mut().is_body_empty() {
            ctx.upload = Some(TransferPace::begin(self.body_tempo));
        }
        // Set for each attempt: pingora's own timeouts start again with every read.
        ctx.hold = ctx.end().and_then(|until| Some(line.as_ref()?.hold(until)));
        ctx.exchange = ServerExchange::begin(line);
    }

    /// The request that is forwarded, made of the judged one.
    pub(super) fn rewrite_request(&self, client: &RequestHeader, ctx: &RequestContext) -> Result<RequestHeader> {
        let permit = ctx.permit()?;
        let upstream = ctx.upstream(&self.upstreams)?;
        let assertion = upstream.assertion.then(|| self.signer.sign(permit, client.method.as_str(), &ctx.request_id));
        let (mut request, dropped) = upstream.rewrite(
            client,
            &ForwardedFacts {
                target: permit.target(),
                origin: &ctx.origin,
                request_id: &ctx.request_id,
                assertion: assertion.as_deref(),
                host: ctx.server.as_deref().and_then(|server| upstream.own_name(server)),
            },
        )?;
        // Members are removed from JSON that can be read: whole, and not compressed.
        if permit.remover().is_some() {
            hidden_members::ask_plainly(&mut request)?;
        }
        if let Some(version) = &ctx.judged_version {
            request.insert_header(header::IF_MATCH, version)?;
        }
        if ctx.attempts == 1 {
            self.metrics.upstreams.headers_dropped(upstream.name(), dropped);
        }
        // A second attempt closes its connection afterwards, so that its pool stays empty.
        ctx.exchange.tell(&mut request, ctx.attempts == 1 && upstream.servers.keeps_connections())?;
        Ok(request)
    }

    /// Checks the head of an answer, as the server sent it, and removes what belongs to its connection.
    pub(super) fn judge_answer(
        session: &Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        ctx.interim.note(response)?;
        // Before anything else is read of it: no byte of another request's answer goes further than this.
        ctx.exchange.check(response)?;
        ctx.exchange.end(&session.req_header().method, response);
        ctx.server_state = ServerState::by(response);
        hop_by_hop::remove(session.req_header().method == Method::HEAD, response)?;
        ctx.in_time()
    }

    /// Makes the head of an answer the gateway's own, and waits for the record of a write.
    pub(super) async fn finish_head(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        if !response.status.is_informational() {
            ctx.answer_begins(self.body_tempo);
        }
        let is_asserted = ctx.upstream(&self.upstreams)?.assertion;
        if is_asserted {
            self.upstreams.clock_skew().note(response.status == 401 && response.headers.contains_key(CLOCK_HEADER));
        }
        if response.status == 401 && is_asserted {
            // The service does not believe this gateway. A 401 would tell the client that its password is wrong.
            tracing::error!(
                request.id = ctx.request_id,
                "the upstream refused the gateway's assertion; both sides need the same `assertion` settings \
                 and clocks that agree"
            );
            return Error::e_explain(ASSERTION_REFUSED, "the upstream refused the assertion");
        }
        // After the clock header was read, which is one of them.
        remove_those(response, |name| REMOVED_ANSWER_HEADERS.contains(&name));
        if let Some(server) = &ctx.server {
            ctx.upstream(&self.upstreams)?.lead_back(server, response)?;
        }
        if let Some(remover) = ctx.permit()?.remover() {
            ctx.passing = hidden_members::prepare(session, response, remover)?;
        }
        hidden_members::suit(session, response);
        ctx.identify(response)?;
        ctx.cors.apply(response)?;
        // A write is recorded before its answer, a read afterwards. A stream has a record of its beginning.
        if response.status.is_informational() || session.req_header().method.is_safe() || ctx.is_stream() {
            return Ok(());
        }
        self.keeper.keep(session, ctx, response.status.as_u16(), None).await.map_err(|NotRecorded| {
            tracing::error!(
                request.id = ctx.request_id,
                status = response.status.as_u16(),
                "an answer is withheld because it could not be recorded"
            );
            Error::explain(UNRECORDED, "the answer could not be recorded")
        })
    }

    /// Notes that a server could not be reached. The error says whether the request is sent once more.
    pub(super) fn not_connected(&self, session: &Session, error: Box<Error>, ctx: &RequestContext) -> Box<Error> {
        let mut error = ctx.with_server(error);
        error.set_retry(self.retries.may_retry(session, ctx, true, true));
        error
    }

    /// Notes that an attempt failed. The error says whether the request is sent once more.
    pub(super) fn attempt_failed(
        &self,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut RequestContext,
        reused: bool,
    ) -> Box<Error> {
        self.retries.failed(session, error, ctx, reused)
    }
}
