//! The record of a request, and what waits for it.
//!
//! The one rule: where answers wait for their records, nobody is told of a refusal, nor of what may have changed something,
//! before the record of it is on disk, or taken from stdout where there is no file. What cannot be recorded is answered 503.
//!
//! An anonymous caller's request may be merged with others; its id is another one then, so it is recorded before it is
//! answered whether its answer waits for that or not.

use std::sync::Arc;

use pingora_core::{Error, Result};
use pingora_proxy::Session;

use super::context::{NOT_RECORDED, RecordPlacement, RequestContext, RequestOutcome};
use super::request;
use super::respond::GatewayAnswer;
use crate::observe::{GatewayMetrics, RecordDetail, RequestRecord, RequestRecorder};
use crate::pipeline::Pipeline;
use fedgate_core::network::client_network;

/// That a record is not kept.
pub(crate) struct NotRecorded;

/// Makes the records of requests, and waits for them.
#[derive(Clone)]
pub(crate) struct RecordKeeper {
    pipeline: Arc<Pipeline>,
    recorder: RequestRecorder,
}

impl RecordKeeper {
    /// Of requests that this pipeline decides.
    pub(crate) fn new(pipeline: Arc<Pipeline>, recorder: RequestRecorder) -> Self {
        Self { pipeline, recorder }
    }

    pub(crate) fn metrics(&self) -> &Arc<GatewayMetrics> {
        self.recorder.metrics()
    }

    /// Makes the record of a request, which is answered with `status`, and waits until it is kept, where answers wait for
    /// that: of all that the gateway says itself, and of what may have changed something.
    pub(crate) async fn keep(
        &self,
        session: &Session,
        ctx: &mut RequestContext,
        status: u16,
        error: Option<&Error>,
    ) -> Result<(), NotRecorded> {
        // OPTIONS tells what anybody may know; and what cannot be recorded is refused at once.
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
        if ctx.recorded || ctx.placed == RecordPlacement::Merged || !waits && !may_be_merged {
            return Ok(());
        }
        ctx.recorded = true;
        let room = ctx.room.take();
        let kept = self.with_record(session, ctx, status, error, |record| self.recorder.keep(record, room));
        if let Some(id) = kept.request_id() {
            id.clone_into(&mut ctx.request_id);
        }
        if !waits || self.recorder.kept(kept).await { Ok(()) } else { Err(NotRecorded) }
    }

    /// Decides, before it is forwarded, whether what is allowed to anybody has a record of its own: if not, its id is another
    /// one, by which the service behind is to know it.
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

    /// Makes sure, before anything is done, that what may change something can be recorded; false if it cannot.
    pub(crate) fn can_record(&self, session: &Session, ctx: &mut RequestContext) -> bool {
        if self.recorder.refuses() {
            return false;
        }
        if self.recorder.answers_wait() && !session.req_header().method.is_safe() {
            ctx.room = self.recorder.room();
            return ctx.room.is_some();
        }
        true
    }

    /// What is recorded of a request that was told `status`.
    pub(crate) fn with_record<T>(
        &self,
        session: &Session,
        ctx: &RequestContext,
        status: u16,
        error: Option<&Error>,
        use_it: impl FnOnce(&RequestRecord<'_>) -> T,
    ) -> T {
        let client = ctx.origin.client.map(|ip| ip.to_string()).unwrap_or_default();
        let target = request::target(session);
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
            decision: "refuse",
            reason: "undecided",
            lacks: None,
            status,
            duration: ctx.start.elapsed(),
            policy: policy.fingerprint(),
            trace_id: ctx.origin.trace_id(),
            detail: detail(session, ctx),
        };
        ctx.outcome.tell(&mut record, &self.pipeline, error);
        use_it(&record)
    }

    /// Answers a request here, once that is on record.
    pub(crate) async fn answer(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
        answer: GatewayAnswer,
    ) -> Result<bool> {
        let answer = match self.keep(session, ctx, answer.status(), None).await {
            Ok(()) => answer,
            Err(NotRecorded) => GatewayAnswer::not_recorded(),
        };
        answer.send(session, ctx).await.map(|()| true)
    }
}

/// Whether a request must have a record of its own, as far as it has come.
fn detail(session: &Session, ctx: &RequestContext) -> RecordDetail {
    let is_anonymous = match &ctx.outcome {
        RequestOutcome::Undecided | RequestOutcome::Answered(_) => true,
        RequestOutcome::Refused(refusal) => refusal.is_anonymous(),
        RequestOutcome::Unserved(permit, _) => permit.principal().is_none(),
        // What may have changed something has a record of its own, whoever did it.
        RequestOutcome::Permitted(permit) => permit.principal().is_none() && session.req_header().method.is_safe(),
    };
    match is_anonymous && ctx.placed != RecordPlacement::Alone {
        true => RecordDetail::WithinRate(ctx.origin.client.map(client_network)),
        false => RecordDetail::Always,
    }
}

/// The status the client was told, if it was.
pub(crate) fn final_status(session: &Session) -> Option<u16> {
    let written = session.response_written()?.status;
    (!written.is_informational()).then(|| written.as_u16())
}
