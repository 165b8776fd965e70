//! Records that an upstream finds by id alone, whichever person the path names: the gateway reads them first.
//!
//! The one rule: such a record is shown and changed only if it names the person of the path. So the gateway reads
//! it, and for a read sends what it has read. It forwards a change only after that; a record that cannot be read is
//! not changed.
//!
//! Called by [`super::admit`] for admitted requests, if the route says so.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;
use tokio::time::timeout_at;

use super::body_room::{BodyHolder, BodyRoom, BodyShare};
use super::context::{ASSERTION_REFUSED, RequestContext, ServerState};
use super::hidden_members::{WITHHELD, unreadable};
use super::hop_by_hop::{self, InterimCount};
use super::request::{self, authority};
use super::respond::GatewayAnswer;
use super::retry::MAX_ATTEMPTS;
use crate::balance::UpstreamServer;
use crate::gateway::upstream::{ForwardedFacts, ServedUpstream, ServerAddress, ServerSet, UpstreamSet};
use crate::observe::GatewayMetrics;
use crate::pipeline::{AnswerReach, PageAddresses, Permit, PermitSigner, Pipeline};
use fedgate_core::assertion::RecordScope;
use fedgate_core::codes::AnswerCode;
use fedgate_core::fields::{AnswerKind, MemberRemover, RecordOwnership, answer_kind};
use fedgate_core::methods::is_safe;
use fedgate_core::policy::DenyReason;
use fedgate_core::reasons::RecordReason;

/// Largest record that is read.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// The error if a service does not say whose record is to be changed.
pub(crate) const OWNER_UNKNOWN: ErrorType = ErrorType::Custom(AnswerCode::OwnerUnknown.code());
/// The reason in the record of a request for another person's record.
const OTHER_RECORD: RecordReason = RecordReason::OtherRecord;

/// The reason in the record of a request for a record that cannot be judged.
const UNREADABLE: RecordReason = RecordReason::Answer(AnswerCode::AnswerWithheld);

/// Whether the client's `If-Match` allows this version (RFC 9110, 13.1.1, but for weak versions, which FHIR uses there).
fn allows_version(headers: &HeaderMap, version: &HeaderValue) -> bool {
    let mut conditions = headers.get_all(header::IF_MATCH).iter().peekable();
    let is_listed = |condition: &HeaderValue| {
        let mut listed = condition.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        listed.any(|listed| listed.is_empty() || listed == b"*" || listed == version.as_bytes())
    };
    conditions.peek().is_none() || conditions.any(is_listed)
}

/// A service's answer to the request for a stored record.
struct StoredRecord {
    head: ResponseHeader,
    body: Bytes,
    /// The name of the server.
    authority: String,
    _share: BodyShare,
}

/// The owner of a stored record.
enum FoundOwner {
    /// The person of the path; or none, if the caller may read all records.
    Theirs,
    /// Another person.
    Anothers,
    /// There is no such record.
    Nothing,
    /// The record cannot be read.
    Unreadable,
    /// Any other answer of the service.
    Refused,
}

impl StoredRecord {
    fn find(&self, permit: &Permit, member: &str) -> FoundOwner {
        if self.head.status == StatusCode::NOT_FOUND {
            return FoundOwner::Nothing;
        }
        if !self.head.status.is_success() {
            return FoundOwner::Refused;
        }
        if answer_kind(self.head.status, &self.head.headers) != AnswerKind::Json {
            return FoundOwner::Unreadable;
        }
        match RecordOwnership::of(&self.body, member, permit.subject().unwrap_or_default()) {
            Ok(RecordOwnership::IsSubjects) => FoundOwner::Theirs,
            // A record without an owner is shown only to callers who may read everybody's.
            Ok(RecordOwnership::IsUnnamed) if permit.scope() == RecordScope::Global => FoundOwner::Theirs,
            Ok(RecordOwnership::IsUnnamed | RecordOwnership::IsAnothers) => FoundOwner::Anothers,
            Err(_) => FoundOwner::Unreadable,
        }
    }

    /// The record without the members that its route hides.
    fn without_hidden(mut self, remover: Option<MemberRemover>) -> Result<Self> {
        let Some(mut remover) = remover else { return Ok(self) };
        let mut shown = Vec::with_capacity(self.body.len());
        remover.feed(&self.body, &mut shown).and_then(|()| remover.finish()).map_err(unreadable)?;
        self.body = shown.into();
        // It describes the record with these members.
        self.head.remove_header(&header::ETAG);
        Ok(self)
    }

    /// The record with another text. What named the version of the service's answer would tell of what was left out.
    fn edited(mut self, text: String) -> Self {
        self.head.remove_header(&header::ETAG);
        self.head.remove_header(&header::LAST_MODIFIED);
        self.body = text.into();
        self
    }

    /// The record, as the answer to a read.
    fn relayed(self) -> GatewayAnswer {
        let content_type = self.head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let status = self.head.status.as_u16();
        let mut answer = GatewayAnswer::relayed(status, content_type.unwrap_or("application/json"), self.body);
        // What a later condition needs, and who reads it in which language.
        for name in [header::ETAG, header::LAST_MODIFIED, header::CONTENT_LANGUAGE] {
            if let Some(value) = self.head.headers.get(&name).and_then(|value| value.to_str().ok()) {
                answer = answer.with_header(name, value);
            }
        }
        answer
    }

    /// The service's refusal without its body, which may show anything.
    fn refusal(&self) -> GatewayAnswer {
        let answer = GatewayAnswer::relayed(self.head.status.as_u16(), "application/json", Bytes::new());
        match self.head.headers.get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()) {
            Some(challenge) => answer.with_header(header::WWW_AUTHENTICATE, challenge),
            None => answer,
        }
    }
}

/// Runs work within the time that is left.
async fn within<T>(until: Option<Instant>, done: impl Future<Output = Result<T>>) -> Result<T> {
    let Some(until) = until else { return done.await };
    let late = |_| Err(Error::explain(ErrorType::ReadTimedout, "the request's time is up").into_up());
    timeout_at(until.into(), done).await.unwrap_or_else(late)
}

/// The words of fedhis. They are the same whether the record does not exist or is another person's, so the answer
/// does not tell which ids exist.
fn none_here(method: &Method) -> GatewayAnswer {
    let is_read = is_safe(method.as_str());
    GatewayAnswer::error(if is_read { AnswerCode::OwnPageNotRead } else { AnswerCode::OwnPageNotWritten })
}

/// Reads and checks such records.
pub(crate) struct OwnerCheck {
    pipeline: Arc<Pipeline>,
    upstreams: Arc<UpstreamSet>,
    signer: PermitSigner,
    held_bodies: Arc<BodyRoom>,
    metrics: Arc<GatewayMetrics>,
}

impl OwnerCheck {
    /// Reads from these upstreams; its bytes count with those of held bodies.
    pub(crate) fn new(
        pipeline: Arc<Pipeline>,
        upstreams: Arc<UpstreamSet>,
        signer: PermitSigner,
        held_bodies: Arc<BodyRoom>,
        metrics: Arc<GatewayMetrics>,
    ) -> Self {
        Self { pipeline, upstreams, signer, held_bodies, metrics }
    }

    /// The answer to a request for such a record, or none if it is to be forwarded.
    ///
    /// # Errors
    /// The record cannot be read, or the service did not say whose it is.
    pub(crate) async fn answer_for_owner(
        &self,
        session: &Session,
        ctx: &mut RequestContext,
    ) -> Result<Option<GatewayAnswer>> {
        if ctx.permit()?.awaits_answer() {
            return self.answer_for_subject(session, ctx).await;
        }
        if ctx.permit()?.leads_links() {
            return self.answer_with_links(session, ctx).await.map(Some);
        }
        let Some(member) = ctx.permit()?.owner_member() else { return Ok(None) };
        // Boxed: other requests have no room for a connection to be made.
        let record = Box::pin(self.read_record(session, ctx)).await?;
        let method = &session.req_header().method;
        match (record.find(ctx.permit()?, member), is_safe(method.as_str())) {
            (FoundOwner::Theirs, true) => Ok(Some(record.relayed())),
            (FoundOwner::Theirs, false) => Ok(None),
            (FoundOwner::Nothing, _) => Ok(Some(none_here(method))),
            (FoundOwner::Anothers, _) => {
                ctx.is_unserved(OTHER_RECORD);
                Ok(Some(none_here(method)))
            }
            // The client of a change gets the same answer as if the service could not name the owner.
            (FoundOwner::Refused, false) if record.head.status != StatusCode::UNAUTHORIZED => Error::e_explain(
                OWNER_UNKNOWN,
                format!("asked for the record, the service answered {}", record.head.status),
            ),
            (FoundOwner::Refused, _) => Ok(Some(record.refusal())),
            (FoundOwner::Unreadable, true) => Error::e_explain(WITHHELD, "the record is not JSON, or not all of it"),
            (FoundOwner::Unreadable, false) => {
                Error::e_explain(OWNER_UNKNOWN, "the record is not JSON, or not all of it")
            }
        }
    }

    /// The answer to a request whose subject the record names: to a read the record, if it is within the caller's
    /// reach; none to a change of such a record, which is to be forwarded. The client learns nothing of another
    /// person's record, not even that there is one.
    async fn answer_for_subject(&self, session: &Session, ctx: &mut RequestContext) -> Result<Option<GatewayAnswer>> {
        let is_read = is_safe(session.req_header().method.as_str());
        let record = match Box::pin(self.read_record(session, ctx)).await {
            Ok(record) => record,
            // Like a record that cannot be judged, it may be another's.
            Err(error) if *error.etype() == WITHHELD => return Ok(Some(self.withhold(ctx, UNREADABLE))),
            Err(error) => return Err(error),
        };
        let status = record.head.status;
        if status == StatusCode::NOT_FOUND || status == StatusCode::GONE {
            return Ok(Some(GatewayAnswer::error(AnswerCode::NotFound)));
        }
        if status == StatusCode::UNAUTHORIZED && ctx.upstream(&self.upstreams)?.assertion {
            // A 401 would tell the client that its password is wrong.
            return Error::e_explain(ASSERTION_REFUSED, "the upstream refused the assertion");
        }
        if !status.is_success() {
            return match is_read || status == StatusCode::UNAUTHORIZED {
                true => Ok(Some(record.refusal())),
                false => {
                    Error::e_explain(OWNER_UNKNOWN, format!("asked for the record, the service answered {status}"))
                }
            };
        }
        let is_json = answer_kind(status, &record.head.headers) == AnswerKind::Json;
        let reach = match is_json {
            true => self.pipeline.bind_answer(ctx.permit_mut()?, &record.body),
            false => AnswerReach::Unclear,
        };
        match (reach, is_read) {
            (AnswerReach::Within(edited), true) => {
                let record = match edited {
                    Some(edited) => record.edited(edited),
                    None => record,
                };
                let led = self.led_back(record, session, ctx)?;
                Ok(Some(led.without_hidden(ctx.permit()?.remover())?.relayed()))
            }
            (AnswerReach::Within(_), false) if ctx.permit()?.adds_if_match() => {
                let Some(version) = record.head.headers.get(header::ETAG).cloned() else {
                    return Error::e_explain(OWNER_UNKNOWN, "the service names no version (ETag) of the record");
                };
                // The client's condition must hold for the record that was judged, and is replaced by it.
                if !allows_version(&session.req_header().headers, &version) {
                    return Ok(Some(GatewayAnswer::error(AnswerCode::PreconditionFailed)));
                }
                ctx.judged_version = Some(version);
                Ok(None)
            }
            (AnswerReach::Within(_), false) => Ok(None),
            (AnswerReach::Beyond, _) => Ok(Some(self.withhold(ctx, OTHER_RECORD))),
            (AnswerReach::Unclear, _) if is_json => {
                Ok(Some(self.withhold(ctx, RecordReason::Denied(DenyReason::NotBound))))
            }
            (AnswerReach::Unclear, _) => Ok(Some(self.withhold(ctx, UNREADABLE))),
        }
    }

    /// The answer to a caller with a global reach, of a route that leads links back to the gateway.
    async fn answer_with_links(&self, session: &Session, ctx: &mut RequestContext) -> Result<GatewayAnswer> {
        let record = Box::pin(self.read_record(session, ctx)).await?;
        let remover = ctx.permit()?.remover();
        let is_json = answer_kind(record.head.status, &record.head.headers) == AnswerKind::Json;
        match (record.head.status, is_json) {
            (StatusCode::UNAUTHORIZED, _) => Ok(record.refusal()),
            (_, true) => Ok(self.led_back(record, session, ctx)?.without_hidden(remover)?.relayed()),
            // It was asked for without a coding.
            (_, false) if remover.is_none() && !record.head.headers.contains_key(header::CONTENT_ENCODING) => {
                Ok(record.relayed())
            }
            (status, false) if status.is_success() => Error::e_explain(WITHHELD, "the answer is not JSON"),
            (_, false) => Ok(record.refusal()),
        }
    }

    /// The record with links to the gateway instead of links to the service.
    fn led_back(&self, record: StoredRecord, session: &Session, ctx: &RequestContext) -> Result<StoredRecord> {
        let permit = ctx.permit()?;
        if !permit.leads_links() {
            return Ok(record);
        }
        let asked = authority(session.req_header());
        let host = ctx.origin.hosts(asked).next().unwrap_or_default();
        let scheme = if ctx.origin.is_secure() { "https" } else { "http" };
        // Without a name of its own, the gateway is the host of the link that the client follows.
        let origin = if host.is_empty() { String::new() } else { format!("{scheme}://{host}") };
        let target = request::target(session, None);
        let target = std::str::from_utf8(target.as_bytes()).unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        let authorities: Vec<&str> =
            [&record.authority, asked, &host].into_iter().filter(|name| !name.is_empty()).collect();
        let addresses = PageAddresses { origin: &origin, authorities: &authorities, path };
        let led = self.pipeline.led_back(permit, &addresses, &record.body);
        Ok(match led {
            Some(led) => record.edited(led),
            None => record,
        })
    }

    /// Answers as if there were no record, and records why.
    fn withhold(&self, ctx: &mut RequestContext, reason: RecordReason) -> GatewayAnswer {
        ctx.is_unserved(reason);
        GatewayAnswer::error(AnswerCode::NotFound)
    }

    /// Asks a server for the record of an admitted request, once: its connection is fresh, so only silence or a
    /// fault of the server ends it.
    async fn read_record(&self, session: &Session, ctx: &mut RequestContext) -> Result<StoredRecord> {
        let upstream = ctx.upstream(&self.upstreams)?;
        let servers = &upstream.servers;
        // This read uses up the time of the change that follows.
        ctx.begin(servers.total_timeout(), Instant::now());
        let (server, peer, stream) = self.connect(servers, ctx).await?;
        let request = self.record_request(session, ctx, upstream, upstream.own_name(&server))?;
        let share = BodyShare::of(&self.held_bodies, BodyHolder::of(ctx.permit()?, ctx.origin.client));
        match within(ctx.until, ask(&peer, stream, request, server.peer.authority(), share)).await {
            Ok(record) => {
                match ServerState::by(&record.head) {
                    ServerState::Fails => servers.failed(&server, &self.metrics),
                    ServerState::Serves => servers.succeeded(&server),
                    ServerState::IsBusy => {}
                }
                Ok(record)
            }
            // A refusal of the gateway itself is not the server's fault.
            Err(error) if matches!(error.etype(), ErrorType::Custom(_)) => Err(error),
            Err(error) => {
                servers.failed(&server, &self.metrics);
                Err(error.more_context(format!("server {}", server.name)).into_up())
            }
        }
    }

    /// Connects to a server, or to another one if that fails.
    async fn connect(
        &self,
        servers: &ServerSet,
        ctx: &RequestContext,
    ) -> Result<(Arc<UpstreamServer<ServerAddress>>, Box<HttpPeer>, Stream)> {
        let mut failed = None;
        for attempt in 1..=MAX_ATTEMPTS {
            let but = failed.as_ref().map(|(server, _): &(Arc<_>, _)| &**server);
            let Some(server) = servers.choose(ctx.permit()?, but, Instant::now()) else { break };
            if let Some(but) = but {
                ctx.in_time()?;
                servers.retried(but, &self.metrics);
            }
            let peer = server.peer.peer_of_attempt(attempt > 1);
            match within(ctx.until, self.upstreams.connector().new_stream(&*peer)).await {
                Ok(stream) => return Ok((server, peer, stream)),
                Err(error) => {
                    servers.failed(&server, &self.metrics);
                    let error = error.more_context(format!("server {}", server.name)).into_up();
                    failed = Some((server, error));
                }
            }
        }
        let none = || Error::explain(ErrorType::ConnectNoRoute, "no server of the upstream has an address").into_up();
        Err(failed.map_or_else(none, |(_, error)| error))
    }

    /// The request for a record. Of the client's headers it has only the credential.
    fn record_request(
        &self,
        session: &Session,
        ctx: &RequestContext,
        upstream: &ServedUpstream,
        host: Option<&str>,
    ) -> Result<RequestHeader> {
        let (head, permit) = (session.req_header(), ctx.permit()?);
        // Of a read whose query was judged, the very target; otherwise the record that the path leads to.
        let is_judged = (permit.is_bound() || permit.leads_links()) && is_safe(head.method.as_str());
        let target = if is_judged { permit.target() } else { permit.path() };
        let mut request = RequestHeader::build(Method::GET, target.as_bytes(), Some(12))?;
        request.insert_header(header::HOST, authority(head))?;
        request.insert_header(header::ACCEPT, "application/json")?;
        request.insert_header(header::ACCEPT_ENCODING, "identity")?;
        if let Some(credential) = head.headers.get(header::AUTHORIZATION) {
            request.insert_header(header::AUTHORIZATION, credential)?;
        }
        let assertion = upstream.assertion.then(|| self.signer.sign(permit, "GET", &ctx.request_id));
        let (mut request, _) = upstream.rewrite(
            &request,
            &ForwardedFacts {
                target,
                origin: &ctx.origin,
                request_id: &ctx.request_id,
                assertion: assertion.as_deref(),
                host,
            },
        )?;
        request.insert_header(header::CONNECTION, HeaderValue::from_static("close"))?;
        Ok(request)
    }
}

/// Asks on a connection of its own, which ends with the answer.
async fn ask(
    peer: &HttpPeer,
    stream: Stream,
    request: RequestHeader,
    authority: &str,
    mut share: BodyShare,
) -> Result<StoredRecord> {
    let mut server = HttpSession::new(stream);
    server.read_timeout = peer.options.read_timeout;
    server.write_timeout = peer.options.write_timeout;
    server.write_request_header(Box::new(request)).await?;
    let mut interim = InterimCount::default();
    let mut head = loop {
        let head = server.read_resp_header_parts().await?;
        interim.note(&head)?;
        if !head.status.is_informational() {
            break head;
        }
    };
    hop_by_hop::remove(false, &mut head)?;
    let mut body = BytesMut::new();
    while let Some(chunk) = server.read_body_bytes().await? {
        // This bounds one record; `share` bounds all that are held at a time.
        if body.len() + chunk.len() > MOST_BYTES {
            return Error::e_explain(WITHHELD, "the record is too large");
        }
        share.grow(chunk.len()).map_err(|_| Error::explain(NO_ROOM, "too many records are read at the moment"))?;
        body.extend_from_slice(&chunk);
    }
    Ok(StoredRecord { head: *head, body: body.freeze(), authority: authority.to_owned(), _share: share })
}

/// The error if too many bytes are held already.
pub(crate) const NO_ROOM: ErrorType = ErrorType::Custom(AnswerCode::ServiceBusy.code());
