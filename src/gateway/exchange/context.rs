//! The state of one request while it is served: how far it has come, which determines its record and its answer.
//!
//! The one rule: the outcome of a request is read here and nowhere else, so that record, answer and forwarding
//! cannot disagree. Called by the callbacks of [`super::proxy`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, header};
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::ResponseHeader;

use super::beside::BesideRequest;
use super::cors::CorsAnswer;
use super::desync::ServerExchange;
use super::held_body::HeldBody;
use super::hidden_members::AnswerFilter;
use super::hop_by_hop::InterimCount;
use crate::authn::Principal;
use crate::balance::UpstreamServer;
use crate::gateway::edge::forwarded::RequestOrigin;
use crate::gateway::edge::live_traffic::LiveTraffic;
use crate::gateway::edge::pace::{ByteRate, TransferPace};
use crate::gateway::edge::request_seats::RequestSeat;
use crate::gateway::edge::stream_seats::StreamSeat;
use crate::gateway::headers::{CORRELATION_ID, REQUEST_ID};
use crate::gateway::plain_text::random_hexadecimal;
use crate::gateway::upstream::{ConnectionHold, ServedUpstream, ServerAddress, UpstreamSet};
use crate::observe::{RecordRoom, RequestRecord};
use crate::pipeline::{Permit, Pipeline, Refusal};
use fedgate_core::assertion::BUSY_HEADER;
use fedgate_core::codes::AnswerCode;
use fedgate_core::reasons::{RecordDecision, RecordReason, StreamEnd};

/// The reason of requests that cannot be recorded and so are not served.
pub(crate) const NOT_RECORDED: RecordReason = RecordReason::Answer(AnswerCode::NotRecorded);

/// The same as an error of the proxy library.
pub(crate) const UNRECORDED: ErrorType = ErrorType::Custom(AnswerCode::NotRecorded.code());
/// The error of a body that is longer than its route allows.
pub(crate) const BODY_TOO_LARGE: ErrorType = ErrorType::Custom(AnswerCode::BodyTooLarge.code());
/// The error of an answer that refuses the gateway's assertion.
pub(crate) const ASSERTION_REFUSED: ErrorType = ErrorType::Custom(AnswerCode::UpstreamRefused.code());

/// The state of one request while it is served.
pub(crate) struct RequestContext {
    pub(crate) start: Instant,
    pub(crate) time: SystemTime,
    pub(crate) request_id: String,
    pub(crate) cors: CorsAnswer,
    /// The `Strict-Transport-Security` value of an answer over TLS.
    pub(crate) hsts: Option<HeaderValue>,
    pub(crate) outcome: RequestOutcome,
    /// Whether its record was made before it was answered.
    pub(crate) recorded: bool,
    pub(crate) placed: RecordPlacement,
    /// Room for that record, taken before anything was done.
    pub(crate) room: Option<RecordRoom>,
    pub(crate) body_bytes: u64,
    pub(crate) attempts: usize,
    /// The server of the last attempt.
    pub(crate) server: Option<Arc<UpstreamServer<ServerAddress>>>,
    /// When the time of the request at the upstream is up, unless its answer has begun.
    pub(crate) until: Option<Instant>,
    /// That time as a whole.
    total: Option<Duration>,
    /// Set while an answer passes: one that moves has no other end.
    answer: Option<TransferPace>,
    pub(crate) hold: Option<ConnectionHold>,
    /// The exchange of the last attempt.
    pub(crate) exchange: ServerExchange,
    /// Set while a body arrives over HTTP/2, for which pingora has no limit.
    pub(crate) upload: Option<TransferPace>,
    pub(crate) interim: InterimCount,
    /// The state of the server, by its answer.
    pub(crate) server_state: ServerState,
    /// The believed origin of the request.
    pub(crate) origin: RequestOrigin,
    /// Set if another proxy holds the request, and only asks about it.
    pub(crate) beside: Option<Box<BesideRequest>>,
    traffic: Arc<LiveTraffic>,
    seat: Option<RequestSeat>,
    stream_seat: Option<StreamSeat>,
    /// Why the gateway ended it, if it is a stream.
    pub(crate) stream_end: Option<StreamEnd>,
    pub(crate) held: Option<HeldBody>,
    /// The version of the stored record that was judged before a change.
    pub(crate) judged_version: Option<HeaderValue>,
    pub(crate) passing: AnswerFilter,
}

/// The state of a server, by its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerState {
    /// It serves.
    Serves,
    /// It serves others, but not this request now: counts neither for it nor against it.
    IsBusy,
    /// It cannot serve.
    Fails,
}

impl ServerState {
    /// Reads the head of an answer. A slow query of one caller must not take a server from all others, so a server
    /// may mark such a 503 as busy. Any other 503 counts as a failure.
    pub(crate) fn by(response: &ResponseHeader) -> Self {
        match response.status.as_u16() {
            503 if response.headers.contains_key(BUSY_HEADER) => Self::IsBusy,
            502..=504 => Self::Fails,
            _ => Self::Serves,
        }
    }
}

/// How far a request has come.
pub(crate) enum RequestOutcome {
    /// Nothing was decided.
    Undecided,
    /// It was answered without a decision: OPTIONS, or a malformed head; with the reason for the record.
    Answered(RecordReason),
    /// The pipeline refused it.
    Refused(Box<Refusal>),
    /// The pipeline admitted it.
    Permitted(Box<Permit>),
    /// The pipeline admitted it, but it was refused because of its connection, its body or its record; with the
    /// reason for the record. This permit is no key to forwarding.
    Unserved(Box<Permit>, RecordReason),
}

/// The record of an anonymous request on a public route: its own or a merged one. Decided before it is forwarded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RecordPlacement {
    /// Nothing was decided.
    Undecided,
    /// In a record of its own.
    Alone,
    /// In a merged record of many requests.
    Merged,
}

impl Drop for RequestContext {
    fn drop(&mut self) {
        self.traffic.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

impl RequestContext {
    /// A request that begins now; it is in flight until this is dropped.
    pub(crate) fn new(traffic: Arc<LiveTraffic>) -> Self {
        // From here on a stop waits for this request. The drop ends that, in whichever way the request ends.
        traffic.in_flight.fetch_add(1, Ordering::AcqRel);
        Self {
            start: Instant::now(),
            time: SystemTime::now(),
            // 128 random bits: an id leads to a record, so none may repeat or be guessed.
            request_id: random_hexadecimal::<16>(),
            cors: CorsAnswer::default(),
            hsts: None,
            outcome: RequestOutcome::Undecided,
            recorded: false,
            placed: RecordPlacement::Undecided,
            room: None,
            body_bytes: 0,
            attempts: 0,
            server: None,
            until: None,
            total: None,
            answer: None,
            hold: None,
            exchange: ServerExchange::default(),
            upload: None,
            interim: InterimCount::default(),
            server_state: ServerState::Serves,
            origin: RequestOrigin::default(),
            beside: None,
            traffic,
            seat: None,
            stream_seat: None,
            stream_end: None,
            held: None,
            judged_version: None,
            passing: AnswerFilter::default(),
        }
    }

    /// The target of the request that a proxy holds and asks about.
    pub(crate) fn told_target(&self) -> Option<&Bytes> {
        self.beside.as_ref().and_then(|beside| beside.target())
    }

    /// Takes a seat for this request, which it has until it ends; false if none is free for its client address.
    pub(crate) fn take_seat(&mut self) -> bool {
        self.seat = self.traffic.seats.take(self.origin.client);
        self.seat.is_some()
    }

    /// Counts the seat among those of anonymous callers; false if they have all of theirs.
    pub(crate) fn is_anonymous(&mut self) -> bool {
        self.seat.as_mut().is_some_and(|seat| self.traffic.seats.is_anonymous(seat, self.origin.client))
    }

    /// Whether it is answered by a stream.
    pub(crate) fn is_stream(&self) -> bool {
        self.stream_seat.is_some()
    }

    /// Exchanges the seat for one among the streams; false if none is free for its client address or its account.
    pub(crate) fn becomes_stream(&mut self, is_http2: bool) -> Result<bool> {
        let account = self.permit()?.principal().map(|principal| principal.account());
        self.stream_seat = self.traffic.stream_seats.take(self.origin.client, account, is_http2);
        self.seat = None;
        Ok(self.stream_seat.is_some())
    }

    /// Takes the permit away from a request that is not forwarded after all.
    pub(crate) fn is_unserved(&mut self, reason: RecordReason) {
        if let RequestOutcome::Permitted(permit) = std::mem::replace(&mut self.outcome, RequestOutcome::Undecided) {
            self.outcome = RequestOutcome::Unserved(permit, reason);
        }
    }

    /// The upstream of a permitted request.
    pub(crate) fn upstream<'a>(&self, upstreams: &'a UpstreamSet) -> Result<&'a ServedUpstream> {
        let upstream = upstreams.find(self.permit()?.upstream());
        upstream.ok_or_else(|| Error::explain(ErrorType::InternalError, "a route leads to no upstream"))
    }

    /// Adds the request id, the client's own id, and HSTS to an answer.
    pub(crate) fn identify(&self, response: &mut ResponseHeader) -> Result<()> {
        response.insert_header(REQUEST_ID, &self.request_id)?;
        if let Some(hsts) = &self.hsts {
            response.insert_header(header::STRICT_TRANSPORT_SECURITY, hsts)?;
        }
        match &self.origin.request_id {
            Some(chosen) => response.insert_header(CORRELATION_ID, chosen),
            None => Ok(()),
        }
    }

    /// Begins the time of the request at the upstream, unless it runs already: reading a record before a change is
    /// part of it, and so is a second attempt.
    pub(crate) fn begin(&mut self, time: Option<Duration>, now: Instant) {
        (self.total, self.answer) = (time, None);
        self.until = self.until.or_else(|| time.map(|time| now + time));
    }

    /// Gives an answer whose head has come its own time: it may take one total time for each quota of bytes, so that a
    /// long one that moves is not cut, and one that drips is.
    pub(crate) fn answer_begins(&mut self, tempo: ByteRate) {
        self.answer = self.total.map(|total| TransferPace::begin(tempo.over(total)));
        self.move_hold();
    }

    /// Counts bytes of an answer; an error if it is out of time.
    pub(crate) fn answered(&mut self, bytes: usize) -> Result<()> {
        self.in_time()?;
        if self.answer.as_mut().is_some_and(|pace| pace.moved(bytes as u64)) {
            self.move_hold();
        }
        Ok(())
    }

    pub(crate) fn is_out_of_time(&self) -> bool {
        match &self.answer {
            Some(pace) => pace.is_too_slow(),
            None => self.until.is_some_and(|until| Instant::now() >= until),
        }
    }

    /// When the connection to the server is ended: the request's time is up, or its body comes too slowly.
    pub(crate) fn end(&self) -> Option<Instant> {
        let until = self.answer.as_ref().map(TransferPace::until).or(self.until);
        until.into_iter().chain(self.upload.as_ref().map(TransferPace::until)).min()
    }

    fn move_hold(&mut self) {
        if let (Some(end), Some(hold)) = (self.end(), &mut self.hold) {
            hold.move_to(end);
        }
    }

    /// Counts bytes of a body, and moves the end of its connection.
    pub(crate) fn uploaded(&mut self, bytes: u64, is_end: bool) {
        let Some(upload) = &mut self.upload else { return };
        let has_more_time = upload.moved(bytes);
        if is_end {
            self.upload = None;
        }
        match (self.end(), &mut self.hold) {
            (Some(end), Some(hold)) if is_end || has_more_time => hold.move_to(end),
            (None, hold) => *hold = None,
            _ => {}
        }
    }

    /// An error if the time is up. A connection that was shut down for it may look like a proper end of the answer,
    /// so nothing is passed on after that.
    pub(crate) fn in_time(&self) -> Result<()> {
        if self.is_out_of_time() {
            return Err(Error::explain(ErrorType::ReadTimedout, "the request's time is up").into_up());
        }
        Ok(())
    }

    /// The error with the name of the server, for the operator's log.
    pub(crate) fn with_server(&self, error: Box<Error>) -> Box<Error> {
        match &self.server {
            Some(server) => error.more_context(format!("server {}", server.name)),
            None => error,
        }
    }

    /// The permit, to note what the answer says of its subject.
    pub(crate) fn permit_mut(&mut self) -> Result<&mut Permit> {
        match &mut self.outcome {
            RequestOutcome::Permitted(permit) => Ok(permit),
            RequestOutcome::Undecided
            | RequestOutcome::Answered(_)
            | RequestOutcome::Refused(_)
            | RequestOutcome::Unserved(..) => Error::e_explain(ErrorType::InternalError, "a request has no permit"),
        }
    }

    pub(crate) fn permit(&self) -> Result<&Permit> {
        match &self.outcome {
            RequestOutcome::Permitted(permit) => Ok(permit),
            RequestOutcome::Undecided
            | RequestOutcome::Answered(_)
            | RequestOutcome::Refused(_)
            | RequestOutcome::Unserved(..) => {
                Error::e_explain(ErrorType::InternalError, "a request without a permit was about to be forwarded")
            }
        }
    }
}

impl RequestOutcome {
    /// Completes the record of a request by its outcome.
    pub(crate) fn tell<'a>(&'a self, record: &mut RequestRecord<'a>, pipeline: &'a Pipeline, error: Option<&Error>) {
        match self {
            Self::Undecided => {}
            Self::Answered(reason) => {
                record.reason = *reason;
                if record.status == 200 {
                    record.decision = RecordDecision::Answer;
                }
            }
            Self::Refused(refusal) => {
                record.account = refusal.account();
                record.reason = refusal.reason();
                record.lacks = refusal.lacks();
                // The rights denied it, also if a member of the body was the reason.
                if refusal.answer().status() == 403 {
                    record.decision = RecordDecision::Deny;
                }
                if let Some((principal, endpoint, subject)) = refusal.concerns() {
                    record.roles = principal.roles();
                    record.endpoint = endpoint;
                    record.subject = subject;
                    tell_whose(principal, subject, record);
                    record.policy = principal.policy();
                }
            }
            Self::Unserved(permit, reason) => {
                tell_permit(permit, record, pipeline);
                record.reason = *reason;
            }
            Self::Permitted(permit) => {
                tell_permit(permit, record, pipeline);
                (record.decision, record.reason) = match error {
                    Some(error) => {
                        (RecordDecision::Fail, failure(error).map_or(RecordReason::ClientGone, RecordReason::Answer))
                    }
                    // A declared length over the limit, which was refused before the body was read.
                    None if record.status == AnswerCode::BodyTooLarge.status() => {
                        (RecordDecision::Refuse, AnswerCode::BodyTooLarge.into())
                    }
                    None => (RecordDecision::Allow, RecordReason::Admitted(permit.scope())),
                };
            }
        }
    }
}

/// Completes the record of an admitted request with the caller and the permission.
fn tell_permit<'a>(permit: &'a Permit, record: &mut RequestRecord<'a>, pipeline: &'a Pipeline) {
    record.account = permit.principal().map(|principal| principal.account());
    record.roles = permit.principal().map_or(&[][..], |principal| principal.roles());
    record.endpoint = pipeline.endpoint_name(permit);
    record.subject = permit.subject();
    if let Some(principal) = permit.principal() {
        tell_whose(principal, permit.subject(), record);
    }
    record.policy = permit.policy().fingerprint();
}

/// Notes whether the subject is the caller's own person under another id than the account's, or a related person.
fn tell_whose(principal: &Principal, subject: Option<&str>, record: &mut RequestRecord<'_>) {
    let Some(subject) = subject else { return };
    let own = principal.own();
    record.same_person = subject != principal.account() && own.holds(subject);
    record.related = !own.holds(subject) && own.is_related(subject);
}

/// The answer to a failed request; none if the client is gone.
pub(crate) fn failure(error: &Error) -> Option<AnswerCode> {
    use ErrorType::{
        ConnectTimedout, ConnectionClosed, Custom, H2Error, HTTPStatus, ReadError, ReadTimedout, TLSHandshakeTimedout,
        WriteError, WriteTimedout,
    };
    // The error kinds that the strict reader gives for the bytes of a body.
    let kind = error.root_cause().downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    Some(match (error.etype(), error.esource()) {
        (ReadError, ErrorSource::Downstream) if kind == Some(std::io::ErrorKind::InvalidData) => AnswerCode::BadFraming,
        (ReadError, ErrorSource::Downstream) if kind == Some(std::io::ErrorKind::TimedOut) => {
            AnswerCode::RequestTimeout
        }
        // Errors of this gateway's own carry the code of their answer. pingora has names of its own for some faults of
        // a server, such as a chunk that is none.
        (Custom(code), source) => AnswerCode::find(code).unwrap_or(match source {
            ErrorSource::Upstream => AnswerCode::UpstreamUnreachable,
            ErrorSource::Downstream | ErrorSource::Internal | ErrorSource::Unset => AnswerCode::InternalError,
        }),
        (HTTPStatus(_), _) => AnswerCode::BadRequest,
        (ReadTimedout, ErrorSource::Downstream) => AnswerCode::RequestTimeout,
        // `H2Error`: the stream was reset, or its connection ended, while the request was served.
        (WriteError | ReadError | ConnectionClosed | WriteTimedout | H2Error, ErrorSource::Downstream) => return None,
        (_, ErrorSource::Downstream) => AnswerCode::BadRequest,
        (ConnectTimedout | ReadTimedout | WriteTimedout | TLSHandshakeTimedout, ErrorSource::Upstream) => {
            AnswerCode::UpstreamTimeout
        }
        (_, ErrorSource::Upstream) => AnswerCode::UpstreamUnreachable,
        (_, ErrorSource::Internal | ErrorSource::Unset) => AnswerCode::InternalError,
    })
}
