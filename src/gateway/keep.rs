//! The record of a request, and what waits for it.
//!
//! The one rule: where answers wait for their records, nobody is told of a refusal, nor of what may have changed something,
//! before the record of it is on disk, or taken from stdout where there is no file. What cannot be recorded is answered 503.

use pingora_core::{Error, Result};
use pingora_proxy::Session;

use super::context::{Context, Outcome};
use super::proxy::Gateway;
use super::refuse::not_recorded;
use super::request;
use super::respond::Answer;
use crate::observe::Record;

/// That a record is not kept.
pub(super) struct NotRecorded;

impl Gateway {
    /// Makes the record of a request, which is answered with `status`, and waits until it is kept, where answers wait for
    /// that: of all that the gateway says itself, and of what may have changed something.
    pub(super) async fn keep(
        &self,
        session: &Session,
        ctx: &mut Context,
        status: u16,
        error: Option<&Error>,
    ) -> Result<(), NotRecorded> {
        let needs_none = matches!(ctx.outcome, Outcome::Answered(_)) && status == 200;
        if !self.recorder.answers_wait() || ctx.recorded || needs_none {
            return Ok(());
        }
        ctx.recorded = true;
        let room = ctx.room.take();
        let kept = self.with_record(session, ctx, status, error, |record| self.recorder.keep(record, room));
        if self.recorder.kept(kept).await { Ok(()) } else { Err(NotRecorded) }
    }

    /// Makes sure, before anything is done, that what may change something can be recorded; false if it cannot.
    pub(super) fn can_record(&self, session: &Session, ctx: &mut Context) -> bool {
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
    pub(super) fn with_record<T>(
        &self,
        session: &Session,
        ctx: &Context,
        status: u16,
        error: Option<&Error>,
        use_it: impl FnOnce(&Record<'_>) -> T,
    ) -> T {
        let client = ctx.origin.client.map(|ip| ip.to_string()).unwrap_or_default();
        let target = request::target(session);
        let path = target.as_bytes().split(|byte| *byte == b'?').next().unwrap_or_default();
        let path = String::from_utf8_lossy(path);
        let policy = self.pipeline.policy();
        let mut record = Record {
            time: ctx.time,
            request_id: &ctx.request_id,
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
        };
        ctx.outcome.tell(&mut record, &self.pipeline, error);
        use_it(&record)
    }

    /// Answers a request here, once that is on record.
    pub(super) async fn answer(&self, session: &mut Session, ctx: &mut Context, answer: Answer) -> Result<bool> {
        let answer = match self.keep(session, ctx, answer.status(), None).await {
            Ok(()) => answer,
            Err(NotRecorded) => not_recorded(&ctx.request_id),
        };
        answer.send(session, &ctx.cors, &ctx.request_id).await.map(|()| true)
    }
}
