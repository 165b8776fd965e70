//! Retries: whose fault a failed attempt was, and whether the request is sent once more.
//!
//! The one rule: a request that could change something twice is never sent again, whatever is known about the first
//! attempt (RFC 9110, 9.2.2).

use std::sync::Arc;

use futures_util::FutureExt;
use pingora_core::{Error, ErrorSource, ErrorType};
use pingora_proxy::Session;

use super::context::RequestContext;
use crate::gateway::edge::pace::TransferPace;
use crate::gateway::upstream::UpstreamSet;
use crate::observe::GatewayMetrics;
use fedgate_core::methods::is_idempotent;

/// Most attempts of one request, for methods that may be retried.
pub(crate) const MAX_ATTEMPTS: usize = 2;

/// Judges failed attempts.
#[derive(Clone)]
pub(crate) struct RetryPolicy {
    upstreams: Arc<UpstreamSet>,
    metrics: Arc<GatewayMetrics>,
}

impl RetryPolicy {
    /// For requests to these upstreams.
    pub(crate) fn new(upstreams: Arc<UpstreamSet>, metrics: Arc<GatewayMetrics>) -> Self {
        Self { upstreams, metrics }
    }

    /// Counts a failure of the server, and returns whether the request may be sent once more.
    pub(crate) fn may_retry(
        &self,
        session: &Session,
        ctx: &RequestContext,
        is_servers_fault: bool,
        is_unserved: bool,
    ) -> bool {
        let (Ok(upstream), Some(server)) = (ctx.upstream(&self.upstreams), &ctx.server) else { return false };
        if is_servers_fault {
            upstream.servers.failed(server, &self.metrics);
        }
        let retries = is_unserved
            // POST and PATCH never, even if nothing seems to have been sent: a lost answer looks the same as a lost
            // request.
            && is_idempotent(session.req_header().method.as_str())
            && ctx.attempts < MAX_ATTEMPTS
            && !ctx.is_out_of_time();
        if retries {
            upstream.servers.retried(server, &self.metrics);
        }
        retries
    }

    /// The cause of a failed attempt that had a connection.
    ///
    /// pingora would retry as often as configured, on any kept connection; this retries once.
    pub(crate) fn failed(
        &self,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut RequestContext,
        reused: bool,
    ) -> Box<Error> {
        let is_ours = matches!(error.etype(), ErrorType::Custom(_));
        if ctx.is_out_of_time() && !matches!(error.esource(), ErrorSource::Downstream) && !is_ours {
            // `upstream/connections.rs` shut the connection down; the error that pingora saw depends on what it was
            // doing.
            error = Error::because(ErrorType::ReadTimedout, "the request's time is up", error).into_up();
        }
        if ctx.upload.as_ref().is_some_and(TransferPace::is_too_slow) && !is_ours {
            // If bytes of the body wait to be read, the client was in time, and the server does not take them.
            error = match session.as_mut().read_request_body().now_or_never() {
                None => {
                    self.metrics.connections.ended("body");
                    Error::because(ErrorType::ReadTimedout, "the body came too slowly", error).into_down()
                }
                Some(_) => {
                    Error::because(ErrorType::WriteTimedout, "the server does not take the body", error).into_up()
                }
            };
            error.set_retry(false);
        }
        error.retry.decide_reuse(reused);
        // The server closed a kept connection in the meantime, which is normal and no fault of it.
        let is_stale = reused && error.retry();
        let is_servers_fault = matches!(error.esource(), ErrorSource::Upstream) && !is_stale;
        // No byte of an answer has reached the client, and the whole body can be sent again.
        let is_unserved =
            is_stale && session.response_written().is_none() && !session.as_ref().retry_buffer_truncated();
        let mut error = ctx.with_server(error);
        error.set_retry(self.may_retry(session, ctx, is_servers_fault, is_unserved));
        error
    }
}
