//! The application behind a connection: the gateway, the redirect to HTTPS, or the admin listener.
//!
//! The one rule: the edge does not know which of them it serves. Strictly read bytes go in, and the connection
//! comes back out if it may carry another request.

use std::pin::Pin;
use std::sync::Arc;

use pingora_core::apps::{HttpServerApp, ReusedHttpStream, ServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;

/// A future that lives as long as its application, in the form that pingora makes.
pub(crate) type ServedFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Any application of pingora's.
pub(crate) trait Application: Send + Sync {
    /// Serves one HTTP/1 request; returns the connection if it may carry another.
    fn serve_request<'a>(
        &'a self,
        session: ServerSession,
        stopping: &'a ShutdownWatch,
    ) -> ServedFuture<'a, Option<ReusedHttpStream>>;

    /// Serves an HTTP/2 connection to its end.
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
