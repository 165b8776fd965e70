//! What serves a connection, once it is in: the gateway, the redirect to https or the admin listener.
//!
//! The one rule: the edge does not know which of them it serves. All that it has read strictly goes in, and the connection
//! comes back out when it may carry one more request.

use std::pin::Pin;
use std::sync::Arc;

use pingora_core::apps::{HttpServerApp, ReusedHttpStream, ServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;

/// A future that lives as long as its application, as pingora makes it.
pub(crate) type ServedFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An application of pingora's, whichever it is.
pub(crate) trait Application: Send + Sync {
    /// Serves one request over HTTP/1; the connection, where it may carry another.
    fn serve_request<'a>(
        &'a self,
        session: ServerSession,
        stopping: &'a ShutdownWatch,
    ) -> ServedFuture<'a, Option<ReusedHttpStream>>;

    /// Serves a connection over HTTP/2 to its end.
    fn serve_frames<'a>(&'a self, stream: Stream, stopping: &'a ShutdownWatch) -> ServedFuture<'a, Option<Stream>>;
}

impl<A: HttpServerApp + Send + Sync + 'static> Application for Arc<A> {
    fn serve_request<'a>(
        &'a self,
        session: ServerSession,
        stopping: &'a ShutdownWatch,
    ) -> ServedFuture<'a, Option<ReusedHttpStream>> {
        self.process_new_http(session, stopping)
    }

    fn serve_frames<'a>(&'a self, stream: Stream, stopping: &'a ShutdownWatch) -> ServedFuture<'a, Option<Stream>> {
        self.process_new(stream, stopping)
    }
}
