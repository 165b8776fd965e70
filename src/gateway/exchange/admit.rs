//! Everything before a request is forwarded: the pipeline is asked, and a guarded body is read and judged.
//!
//! The one rule: without the pipeline's permit in the context, the request has been answered.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, header};
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::body_room::{BodyHolder, BodyRoom, BodyShare};
use super::context::{NOT_RECORDED, RequestContext, RequestOutcome};
use super::cors::CorsAnswer;
use super::foreign_page::{asked_origin, throttled_address};
use super::held_body::{self, BodyNotHeld, HeldBody};
use super::hidden_members::is_old;
use super::owner_check::OwnerCheck;
use super::recording::RecordKeeper;
use super::refuse::RefusalAnswers;
use super::request::{self, facts};
use super::respond::GatewayAnswer;
use crate::authn::{AskingClient, LineUse};
use crate::gateway::edge::client_socket::ConnectionFacts;
use crate::gateway::edge::forwarded::RequestOrigin;
use crate::gateway::edge::pace::ByteRate;
use crate::gateway::edge::tls::{ClientCertificate, ServedTls};
use crate::gateway::upstream::{ServedUpstream, UpstreamSet};
use crate::pipeline::PermitSigner;
use crate::pipeline::{AuthorizationHeaders, Permit, Pipeline, Refusal, RequestHead};
use fedgate_base::config::{ClientsConfig, Config, ProxiesConfig};
use fedgate_core::admission::{ForeignPage, UnservedDemand, WEBSOCKET_VERSION, check_served, content_length};
use fedgate_core::codes::AnswerCode;
use fedgate_core::fields::BodyFault;
use fedgate_core::methods::may_have_body;
use fedgate_core::origins::OriginRules;

/// Most bytes that are sent over HTTP/2 in one piece.
const H2_CHUNK_BYTES: u64 = 64 * 1024;

/// Headers that concern other records than that of the request: a conditional create searches by a query of its own, a
/// provenance makes a second resource (FHIR R4, 3.1.0.8.1 and 6.3), and a range changes a part of the stored one.
const UNBOUND_HEADERS: [&str; 3] = ["if-none-exist", "x-provenance", "content-range"];

/// How the admission of a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AdmissionEnd {
    /// The permit is in the context; the request is forwarded.
    Passed,
    /// The client has its answer, and nothing is forwarded.
    Answered,
}

/// Judges requests, and answers those that do not pass.
pub(crate) struct RequestAdmission {
    pipeline: Arc<Pipeline>,
    upstreams: Arc<UpstreamSet>,
    keeper: RecordKeeper,
    answers: RefusalAnswers,
    cors: OriginRules,
    proxies: ProxiesConfig,
    clients: ClientsConfig,
    tls: Option<Arc<ServedTls>>,
    pub(super) body_tempo: ByteRate,
    /// How long one piece of an answer may take over HTTP/2.
    send_patience: Duration,
    held_bodies: Arc<BodyRoom>,
    owned: OwnerCheck,
    /// The `Strict-Transport-Security` value of answers over TLS, if configured.
    hsts: Option<HeaderValue>,
}

impl RequestAdmission {
    pub(crate) fn new(
        config: &Config,
        pipeline: Arc<Pipeline>,
        upstreams: Arc<UpstreamSet>,
        keeper: RecordKeeper,
        signer: PermitSigner,
        tls: Option<Arc<ServedTls>>,
    ) -> Self {
        let limits = &config.gateway.limits;
        let held_bodies = Arc::<BodyRoom>::default();
        let metrics = Arc::clone(keeper.metrics());
        let owned =
            OwnerCheck::new(Arc::clone(&pipeline), Arc::clone(&upstreams), signer, Arc::clone(&held_bodies), metrics);
        let realm = config.authentication.realm.clone();
        Self {
            answers: RefusalAnswers::new(Arc::clone(&pipeline), config.gateway.hosts.clone(), realm),
            pipeline,
            upstreams,
            keeper,
            cors: config.cors.clone(),
            proxies: config.gateway.proxies.clone(),
            clients: config.tls.clients.clone(),
            tls,
            body_tempo: ByteRate::new(limits.body, limits.bytes_per_second),
            send_patience: limits.send + Duration::from_secs(H2_CHUNK_BYTES.div_ceil(limits.bytes_per_second)),
            owned,
            held_bodies,
            hsts: strict_transport_security(config.tls.hsts),
        }
    }

    /// Lets a request pass, or answers it.
    pub(crate) async fn admit(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<AdmissionEnd> {
        if session.is_http2() {
            // Slow read over HTTP/2: a flow-control window that a client never opens blocks no socket, so only this
            // timeout ends the wait. It applies to each piece.
            session.as_downstream_mut().set_write_timeout(Some(self.send_patience));
        }
        if is_old(session.req_header().version) {
            session.as_downstream_mut().set_ignore_info_resp(true);
        }
        let secure = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        let peer = client_ip(session);
        let fault = match &mut ctx.beside {
            Some(beside) => beside.take_over(session, peer, self.keeper.metrics()).err(),
            None => None,
        };
        let head = session.req_header();
        ctx.origin = match &ctx.beside {
            Some(beside) => beside.origin(session, peer, &self.proxies),
            None => RequestOrigin::of(&head.headers, peer, secure, &self.proxies),
        };
        ctx.hsts = self.hsts.clone().filter(|_| ctx.origin.is_secure());
        let page = self.page(session, &ctx.origin);
        ctx.cors = CorsAnswer::of(&head.headers, &self.cors, page.as_ref());
        // A flood of HTTP/2 streams: without a bound of their own, a few connections would hold all memory and
        // descriptors.
        if !ctx.take_seat() {
            let answer = GatewayAnswer::no_seat(session);
            return self.answer(session, ctx, RequestOutcome::Answered(AnswerCode::ServiceBusy.into()), answer).await;
        }
        // Before any decision and any work: a request that cannot be recorded is not served.
        if !self.keeper.can_record(session, ctx) {
            return self
                .answer(session, ctx, RequestOutcome::Answered(NOT_RECORDED), GatewayAnswer::not_recorded())
                .await;
        }
        if let Some(fault) = fault {
            let answer = GatewayAnswer::error(fault).and_close();
            return self.answer(session, ctx, RequestOutcome::Answered(fault.into()), answer).await;
        }
        let target = request::target(session, ctx.told_target());
        let head = session.req_header();
        if let Some((answer, reason)) = self.answers.without_decision(head, target.as_bytes()) {
            return self.answer(session, ctx, RequestOutcome::Answered(reason), answer).await;
        }
        // Before authentication: a refused page costs no password hash, and learns nothing about the browser's
        // credentials.
        if let Some(Err(fault)) = page.map(|page| page.check(&head.method, &head.headers, &self.cors)) {
            let answer = GatewayAnswer::error(fault.answer());
            return self.answer(session, ctx, RequestOutcome::Answered(fault.reason()), answer).await;
        }
        let question = self.question(session, ctx, page.as_ref(), target.as_bytes());
        match self.pipeline.admit(question).await {
            Ok(permit) => self.admit_body(session, ctx, permit).await,
            Err(refusal) => self.refuse(session, ctx, refusal).await,
        }
    }

    /// The page of another origin that sent the request, if one did.
    fn page<'a>(&self, session: &'a Session, origin: &RequestOrigin) -> Option<ForeignPage<'a>> {
        let head = session.req_header();
        ForeignPage::of(&head.headers, &asked_origin(origin, request::authority(head)), &self.cors)
    }

    /// What the pipeline is asked about a request: its head, and what its client has shown.
    fn question<'a>(
        &'a self,
        session: &'a Session,
        ctx: &RequestContext,
        page: Option<&ForeignPage<'_>>,
        target: &'a [u8],
    ) -> RequestHead<'a> {
        let (head, origin) = (session.req_header(), &ctx.origin);
        let shown = match &ctx.beside {
            // The certificate of the proxy that asks.
            Some(_) => ShownCertificate::Nothing,
            None => self.shown(session, origin.client),
        };
        let authorization = match shown {
            // If a certificate is required, a connection with a lapsed one is anonymous, whatever name and password
            // it sends.
            ShownCertificate::Lapsed if self.tls.as_ref().is_some_and(|tls| tls.requires_certificates()) => {
                AuthorizationHeaders::Absent
            }
            ShownCertificate::Nothing | ShownCertificate::Lapsed | ShownCertificate::Trusted(_) => {
                request::authorization(&head.headers)
            }
        };
        let certified = match shown {
            // A name and password take precedence over the certificate.
            ShownCertificate::Trusted(shown) if matches!(authorization, AuthorizationHeaders::Absent) => {
                self.account_of(shown)
            }
            ShownCertificate::Nothing | ShownCertificate::Lapsed | ShownCertificate::Trusted(_) => None,
        };
        let line = match facts(session) {
            // If the client is not the peer, a proxy sends requests of many clients over this connection.
            Some(facts) if origin.client == client_ip(session) && ctx.beside.is_none() => LineUse::Own(&facts.line),
            Some(facts) => LineUse::Shared(&facts.line),
            None => LineUse::Unknown,
        };
        RequestHead {
            method: head.method.as_str(),
            target,
            authorization,
            client: AskingClient { address: throttled_address(origin.client, page, &self.cors), line },
            certified,
        }
    }

    /// Judges an admitted request by its connection and its body.
    async fn admit_body(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
        permit: Permit,
    ) -> Result<AdmissionEnd> {
        if permit.principal().is_none() && !ctx.is_anonymous() {
            let answer = GatewayAnswer::no_seat(session);
            let outcome = RequestOutcome::Unserved(Box::new(permit), AnswerCode::ServiceBusy.into());
            return self.answer(session, ctx, outcome, answer).await;
        }
        if let Err(unserved) = self.check_served(session, &permit) {
            let mut answer = GatewayAnswer::error(unserved.answer()).and_close();
            if unserved == UnservedDemand::Handshake {
                answer = answer.with_header(header::SEC_WEBSOCKET_VERSION, WEBSOCKET_VERSION);
            }
            let outcome = RequestOutcome::Unserved(Box::new(permit), unserved.answer().into());
            return self.answer(session, ctx, outcome, answer).await;
        }
        if let Some(unsettled) = self.unsettled_beside(session, ctx, &permit).await? {
            let answer = GatewayAnswer::error(unsettled).and_close();
            let outcome = RequestOutcome::Unserved(Box::new(permit), unsettled.into());
            return self.answer(session, ctx, outcome, answer).await;
        }
        // A declared length is refused before a byte of the body is read.
        let declared = content_length(&session.req_header().headers);
        if declared.is_some_and(|length| length > permit.max_body_bytes()) {
            let answer = GatewayAnswer::error(AnswerCode::BodyTooLarge);
            return self.answer(session, ctx, RequestOutcome::Permitted(Box::new(permit)), answer).await;
        }
        let held = match self.take_in(session, &permit, ctx.origin.client).await {
            Ok(held) => held,
            Err(BodyNotHeld::Refused(fault)) => {
                let refusal = self.refuse_body(permit, fault);
                return self.refuse(session, ctx, refusal).await;
            }
            Err(BodyNotHeld::Unexpected) => {
                let answer = GatewayAnswer::error(AnswerCode::BodyNotExpected);
                let outcome = RequestOutcome::Unserved(Box::new(permit), AnswerCode::BodyNotExpected.into());
                return self.answer(session, ctx, outcome, answer).await;
            }
            Err(BodyNotHeld::Failed(error)) => {
                ctx.outcome = RequestOutcome::Permitted(Box::new(permit));
                return Err(error);
            }
        };
        if permit.is_bound() && UNBOUND_HEADERS.iter().any(|name| session.req_header().headers.contains_key(*name)) {
            let refusal = self.pipeline.refuse_unbound(&permit);
            return self.refuse(session, ctx, *refusal).await;
        }
        let body = held.as_ref().map(HeldBody::bytes).unwrap_or_default();
        let permit = match self.pipeline.bind_body(permit, body) {
            Ok(permit) => permit,
            Err(refusal) => return self.refuse(session, ctx, *refusal).await,
        };
        ctx.outcome = RequestOutcome::Permitted(Box::new(permit));
        ctx.held = held;
        if let Some(answer) = self.owned.answer_for_owner(session, ctx).await? {
            Box::pin(self.keeper.answer(session, ctx, answer)).await?;
            return Ok(AdmissionEnd::Answered);
        }
        // Whatever was still to be read has been read: otherwise nothing is forwarded.
        if ctx.permit().is_ok_and(|permit| permit.awaits_body() || permit.awaits_answer()) {
            return Error::e_explain(ErrorType::InternalError, "a request was not bound to its subject");
        }
        self.keeper.place(session, ctx);
        Ok(AdmissionEnd::Passed)
    }

    /// Answers a request that the pipeline refused.
    async fn refuse(&self, session: &mut Session, ctx: &mut RequestContext, refusal: Refusal) -> Result<AdmissionEnd> {
        let answer = self.answers.of(&refusal);
        self.answer(session, ctx, RequestOutcome::Refused(Box::new(refusal)), answer).await
    }

    /// Answers a request here, and records the outcome.
    async fn answer(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
        outcome: RequestOutcome,
        answer: GatewayAnswer,
    ) -> Result<AdmissionEnd> {
        // To a proxy that asks, a success says that the request may pass; without a permit, none may.
        let (outcome, answer) = match ctx.beside.is_some() && answer.status() < 400 {
            false => (outcome, answer),
            true => {
                let refused = AnswerCode::NotDecidedBeside;
                (RequestOutcome::Answered(refused.into()), GatewayAnswer::error(refused))
            }
        };
        ctx.outcome = outcome;
        // Boxed: requests that pass have no room for it.
        Box::pin(self.keeper.answer(session, ctx, answer)).await?;
        Ok(AdmissionEnd::Answered)
    }

    /// Checks that an admitted request wants nothing of its connection that ends at the gateway.
    fn check_served(&self, session: &Session, permit: &Permit) -> Result<(), UnservedDemand> {
        let head = session.req_header();
        let forwards = self.upstreams.find(permit.upstream()).is_some_and(ServedUpstream::forwards_authorization);
        check_served(&head.method, head.version, &head.headers, forwards, permit.opens_websockets())
    }

    /// Reads and judges the body of an admitted request if its route guards members; waits for the end if its
    /// method has no body.
    async fn take_in(
        &self,
        session: &mut Session,
        permit: &Permit,
        client: Option<IpAddr>,
    ) -> Result<Option<HeldBody>, BodyNotHeld> {
        if !may_have_body(session.req_header().method.as_str()) {
            held_body::expect_none(session, self.body_tempo).await?;
            return Ok(None);
        }
        let Some(check) = permit.body_check() else {
            held_body::invite(session).await?;
            return Ok(None);
        };
        let limit = permit.max_body_bytes();
        let share = BodyShare::of(&self.held_bodies, BodyHolder::of(permit, client));
        Box::pin(held_body::hold(session, check, limit, self.body_tempo, share)).await.map(Some)
    }

    /// Refuses an admitted request because of its body.
    fn refuse_body(&self, permit: Permit, fault: BodyFault) -> Refusal {
        if matches!(fault, BodyFault::MemberNotPermitted(_)) {
            self.keeper.metrics().members_refused.inc();
        }
        self.pipeline.refuse_body(permit, fault)
    }

    /// The certificate of the client, and whether it counts now.
    fn shown<'a>(&self, session: &'a Session, client: Option<IpAddr>) -> ShownCertificate<'a> {
        let shown = facts(session).and_then(|facts| facts.certificate.as_ref());
        match (shown, &self.tls) {
            (Some(shown), Some(tls)) if tls.still_trusts(shown, client, self.keeper.metrics()) => {
                ShownCertificate::Trusted(shown)
            }
            (Some(_), _) => ShownCertificate::Lapsed,
            (None, _) => ShownCertificate::Nothing,
        }
    }

    /// The certificate of a connection, if the request counts on it.
    pub(crate) fn certificate_in_use(&self, session: &Session, client: Option<IpAddr>) -> Option<CertificateInUse> {
        let is_required = self.tls.as_ref()?.requires_certificates();
        let named = request::authorization(&session.req_header().headers);
        let counts = matches!(named, AuthorizationHeaders::Absent) || is_required;
        facts(session).filter(|facts| counts && facts.certificate.is_some())?;
        Some(CertificateInUse { digest: Arc::clone(session.digest()?.proxy_digest.as_ref()?), client })
    }

    /// Whether a certificate would not be accepted now.
    pub(crate) fn has_lapsed(&self, used: &CertificateInUse) -> bool {
        let facts = used.digest.user_data.as_ref().and_then(|data| data.downcast_ref::<ConnectionFacts>());
        let shown = facts.and_then(|facts| facts.certificate.as_ref());
        !shown
            .zip(self.tls.as_ref())
            .is_some_and(|(shown, tls)| tls.still_trusts(shown, used.client, self.keeper.metrics()))
    }

    /// The answer to an unauthenticated caller.
    pub(crate) fn challenge(&self) -> GatewayAnswer {
        self.answers.challenge()
    }

    /// The account of a certificate.
    fn account_of<'a>(&'a self, shown: &'a ClientCertificate) -> Option<&'a str> {
        let listed = self.clients.accounts.get(&shown.sha256);
        let named = || shown.common_name.as_ref().filter(|_| self.clients.common_name);
        listed.or_else(named).map(String::as_str)
    }
}

/// The header that keeps browsers on TLS (RFC 6797), for this host only: the gateway knows nothing of its
/// subdomains.
fn strict_transport_security(time: Duration) -> Option<HeaderValue> {
    let value = (!time.is_zero()).then(|| format!("max-age={}", time.as_secs()))?;
    HeaderValue::try_from(value).ok()
}

/// The certificate that a client has shown in its handshake.
#[derive(Clone, Copy)]
enum ShownCertificate<'a> {
    /// No certificate.
    Nothing,
    /// A certificate that would not be accepted now: it has expired or was revoked since.
    Lapsed,
    /// A certificate that counts.
    Trusted(&'a ClientCertificate),
}

/// The certificate that a request counts on, apart from its session.
pub(crate) struct CertificateInUse {
    digest: Arc<ProxyDigest>,
    client: Option<IpAddr>,
}

/// The client's address; none on a Unix socket.
fn client_ip(session: &Session) -> Option<IpAddr> {
    match session.client_addr() {
        Some(SocketAddr::Inet(address)) => Some(address.ip()),
        _ => None,
    }
}
