//! The record of a request, and the answers that wait for it.
//!
//! The one rule: if answers wait for records, no client learns of a refusal, or of a request that may have changed
//! something, before its record is on disk (or taken from stdout if there is no file). A request that cannot be
//! recorded is answered 503.
//!
//! The request of an anonymous caller may be merged with others. Its id is then that of the merged record, so it is
//! recorded before it is answered, whether or not the answer waits for the disk.

use std::sync::Arc;

use http::StatusCode;
use pingora_core::{Error, Result};
use pingora_proxy::Session;

use super::context::{NOT_RECORDED, RecordPlacement, RequestContext, RequestOutcome};
use super::request;
use super::respond::GatewayAnswer;
use crate::gateway::plain_text;
use crate::observe::{GatewayMetrics, RecordDetail, RequestRecord, RequestRecorder};
use crate::pipeline::Pipeline;
use fedgate_core::methods::is_safe;
use fedgate_core::network::client_network;
use fedgate_core::reasons::{RecordDecision, RecordReason};

/// The record could not be kept.
pub(crate) struct NotRecorded;

/// Makes the records of requests, and waits for them.
#[derive(Clone)]
pub(crate) struct RecordKeeper {
    pipeline: Arc<Pipeline>,
    recorder: RequestRecorder,
}

impl RecordKeeper {
    /// For requests that this pipeline decides.
    pub(crate) fn new(pipeline: Arc<Pipeline>, recorder: RequestRecorder) -> Self {
        Self { pipeline, recorder }
    }

    pub(crate) fn metrics(&self) -> &Arc<GatewayMetrics> {
        self.recorder.metrics()
    }

    /// Makes the record of a request that is answered with `status`. Waits until it is kept if answers wait for
    /// that: those of the gateway itself, and those of requests that may have changed something.
    pub(crate) async fn keep(
        &self,
        session: &Session,
        ctx: &mut RequestContext,
        status: u16,
        error: Option<&Error>,
    ) -> Result<(), NotRecorded> {
        // Two answers wait for no record: that of a request that cannot be recorded, and a 200 without a decision.
        // The latter answers OPTIONS, and reveals nothing that is not public.
        let needs_none = match ctx.outcome {
            RequestOutcome::Answered(NOT_RECORDED) => true,
            RequestOutcome::Answered(_) => status == 200,
            RequestOutcome::Undecided
            | RequestOutcome::Refused(_)
            | RequestOutcome::Permitted(_)
            | RequestOutcome::Unserved(..) => false,
        };
        let waits = self.recorder.answers_wait() && !needs_none;
        let may_be_merged = detail(session, ctx) != RecordDetail::Always;
        // Nothing to do now: it has a record already, is counted in a merged one, or gets one in `complete`.
        if ctx.recorded || ctx.placed == RecordPlacement::Merged || !waits && !may_be_merged {
            return Ok(());
        }
        ctx.recorded = true;
        let room = ctx.room.take();
        let kept = self.with_record(session, ctx, status, error, |record| self.recorder.keep(record, room));
        if let Some(id) = kept.request_id() {
            // The answer carries the id of the merged record, or its client's id would lead to none.
            id.clone_into(&mut ctx.request_id);
        }
        if !waits || self.recorder.kept(kept).await { Ok(()) } else { Err(NotRecorded) }
    }

    /// Decides, before an anonymous request on a public route is forwarded, whether it has a record of its own. If
    /// not, its id becomes that of the merged record, and the upstream receives that id.
    pub(crate) fn place(&self, session: &Session, ctx: &mut RequestContext) {
        if detail(session, ctx) == RecordDetail::Always {
            return;
        }
        ctx.placed = match self.with_record(session, ctx, 0, None, |record| self.recorder.merge(record)) {
            None => RecordPlacement::Alone,
            Some(kept) => {
                kept.request_id().unwrap_or_default().clone_into(&mut ctx.request_id);
                RecordPlacement::Merged
            }
        };
    }

    /// Makes the record of a stream that begins, and waits until it is kept if answers wait for that.
    pub(crate) async fn begin_stream(
        &self,
        session: &Session,
        ctx: &RequestContext,
        status: u16,
    ) -> Result<(), NotRecorded> {
        if ctx.placed == RecordPlacement::Merged {
            return Ok(());
        }
        let kept = self.with_record(session, ctx, status, None, |record| {
            self.recorder.keep_begin(&RequestRecord { reason: RecordReason::StreamBegins, ..*record })
        });
        if !self.recorder.answers_wait() || self.recorder.kept(kept).await { Ok(()) } else { Err(NotRecorded) }
    }

    /// Makes the record of a request that has none yet, at its end.
    pub(crate) async fn complete(&self, session: &Session, ctx: &mut RequestContext, error: Option<&Error>) {
        let status = final_status(session).unwrap_or_default();
        let room = ctx.room.take();
        match (ctx.recorded, &ctx.placed) {
            (true, _) => {}
            (false, RecordPlacement::Merged) => {
                self.with_record(session, ctx, status, error, |record| self.recorder.count(record));
            }
            (false, RecordPlacement::Undecided | RecordPlacement::Alone) => {
                self.with_record(session, ctx, status, error, |record| self.recorder.record(record, room)).await;
            }
        }
    }

    /// Checks, before anything is done, that the request can be recorded; a write takes its room now. False if it
    /// cannot.
    pub(crate) fn can_record(&self, session: &Session, ctx: &mut RequestContext) -> bool {
        if self.recorder.refuses() {
            return false;
        }
        if self.recorder.answers_wait() && !is_safe(session.req_header().method.as_str()) {
            // Taken now: a change that finds no room for its record after it was forwarded cannot be undone.
            ctx.room = self.recorder.room();
            return ctx.room.is_some();
        }
        true
    }

    /// Builds the record of a request that was answered with `status`.
    pub(crate) fn with_record<T>(
        &self,
        session: &Session,
        ctx: &RequestContext,
        status: u16,
        error: Option<&Error>,
        use_it: impl FnOnce(&RequestRecord<'_>) -> T,
    ) -> T {
        let client = ctx.origin.client.map(plain_text::address).unwrap_or_default();
        let target = request::target(session, ctx.told_target());
        // Never the query: it may hold names and dates of birth.
        let path = target.as_bytes().split(|byte| *byte == b'?').next().unwrap_or_default();
        let path = String::from_utf8_lossy(path);
        let policy = self.pipeline.policy();
        let mut record = RequestRecord {
            time: ctx.time,
            request_id: &ctx.request_id,
            client_request_id: ctx.origin.request_id.as_deref(),
            client: &client,
            method: session.req_header().method.as_str(),
            path: &path,
            account: None,
            roles: &[],
            endpoint: "",
            subject: None,
            same_person: false,
            related: false,
            decision: RecordDecision::Refuse,
            reason: RecordReason::Undecided,
            lacks: None,
            status,
            duration: ctx.start.elapsed(),
            is_stream: ctx.is_stream(),
            policy: policy.fingerprint(),
            trace_id: ctx.origin.trace_id(),
            detail: detail(session, ctx),
        };
        ctx.outcome.tell(&mut record, &self.pipeline, error);
        if let Some(end) = ctx.stream_end {
            record.reason = RecordReason::Stream(end);
            record.decision = match end.decision() {
                // It ended before any part of it was sent.
                RecordDecision::Allow if status >= 500 => RecordDecision::Refuse,
                decision => decision,
            };
        }
        use_it(&record)
    }

    /// Answers a request here, after its record is kept.
    pub(crate) async fn answer(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
        answer: GatewayAnswer,
    ) -> Result<()> {
        let answer = match self.keep(session, ctx, answer.status(), None).await {
            Ok(()) => answer,
            Err(NotRecorded) => GatewayAnswer::not_recorded(),
        };
        answer.send(session, ctx).await
    }
}

/// Whether a request must have a record of its own, as far as it has come.
fn detail(session: &Session, ctx: &RequestContext) -> RecordDetail {
    let is_anonymous = match &ctx.outcome {
        RequestOutcome::Undecided | RequestOutcome::Answered(_) => true,
        RequestOutcome::Refused(refusal) => refusal.is_anonymous(),
        RequestOutcome::Unserved(permit, _) => permit.principal().is_none(),
        // A request that may have changed something has its own record, whoever sent it.
        RequestOutcome::Permitted(permit) => {
            permit.principal().is_none() && is_safe(session.req_header().method.as_str())
        }
    };
    match is_anonymous && ctx.placed != RecordPlacement::Alone {
        true => RecordDetail::WithinRate(ctx.origin.client.map(client_network)),
        false => RecordDetail::Always,
    }
}

/// The status that the client received, if any. 101 is the last one of HTTP.
pub(crate) fn final_status(session: &Session) -> Option<u16> {
    let written = session.response_written()?.status;
    (!written.is_informational() || written == StatusCode::SWITCHING_PROTOCOLS).then(|| written.as_u16())
}
