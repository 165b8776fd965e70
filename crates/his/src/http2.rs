//! HTTP/2 without TLS (RFC 9113, 3.3): a gateway sends many streams over one connection.
//!
//! The one rule: a connection is known by its first bytes, and has the guards of any other: a bounded time for them, a
//! bound on silence, and an orderly end. What HTTP/2 adds has bounds of its own below.
//!
//! Called by `listen`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use http_body::{Frame, SizeHint};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::head_timeout::HeadSilence;
use fedgate_base::workers::RequestWorkers;

/// The first bytes of an HTTP/2 connection.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Most streams at a time on one connection. Gateways open at most a thousand.
const STREAMS: u32 = 1024;
/// The window of a request body on a stream, and of all of them on a connection.
const WINDOWS: (u32, u32) = (64 * 1024, 1024 * 1024);
/// Bytes of an answer that wait for the gateway's window, for each stream.
const SEND_BUFFER: usize = 16 * 1024;
/// The size of a head.
const HEAD_BYTES: u32 = 64 * 1024;
/// Streams that the other side resets before they are accepted (rapid reset, CVE-2023-44487).
const RESETS: usize = 20;
/// How often a gateway is asked whether it is still there, and how long it may take to answer.
const PING: Duration = Duration::from_secs(20);

/// A connection whose first bytes were read, and are read again.
pub(super) struct BegunStream<S> {
    stream: S,
    begun: [u8; PREFACE.len()],
    /// The part that is still to be read.
    left: std::ops::Range<usize>,
}

/// Reads as many bytes as tell the version; true for HTTP/2.
///
/// # Errors
/// The connection failed, or ended without a byte.
pub(super) async fn begin<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<(BegunStream<S>, bool)> {
    let (mut begun, mut length) = ([0; PREFACE.len()], 0);
    while PREFACE.starts_with(begun.get(..length).unwrap_or_default()) && length < PREFACE.len() {
        let read = stream.read(begun.get_mut(length..).unwrap_or_default()).await?;
        if read == 0 {
            break;
        }
        length += read;
    }
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((BegunStream { stream, begun, left: 0..length }, begun == PREFACE))
}

/// Gives each request of a connection to the next thread: a gateway sends many over one connection.
#[derive(Clone)]
pub(super) struct SpreadRequests(RequestWorkers);

impl<F> Executor<F> for SpreadRequests
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, request: F) {
        self.0.spawn(request);
    }
}

/// The settings of a connection, whose requests these threads serve.
pub(super) fn builder(workers: &RequestWorkers) -> http2::Builder<SpreadRequests> {
    let mut builder = http2::Builder::new(SpreadRequests(workers.clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEAD_BYTES)
        .max_pending_accept_reset_streams(RESETS)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder
}

/// The requests in service on one connection. While there is none, the connection is silent.
#[derive(Clone)]
pub(super) struct StreamCount(Arc<CountedStreams>);

struct CountedStreams {
    count: AtomicUsize,
    silence: Arc<HeadSilence>,
}

/// One request in service, until its answer is sent.
struct CountedStream(StreamCount);

impl StreamCount {
    pub(super) fn new(silence: Arc<HeadSilence>) -> Self {
        silence.begins();
        Self(Arc::new(CountedStreams { count: AtomicUsize::new(0), silence }))
    }

    /// The router, with its requests counted.
    pub(super) fn around(&self, router: Router) -> Router {
        let counts = self.clone();
        router.layer(from_fn(move |request: Request, next: Next| {
            let counted = counts.begin();
            async move {
                let response: Response = next.run(request).await;
                response.map(|body| Body::new(CountedBody { body, _counted: counted }))
            }
        }))
    }

    fn begin(&self) -> CountedStream {
        if self.0.count.fetch_add(1, Ordering::AcqRel) == 0 {
            self.0.silence.ends();
        }
        CountedStream(self.clone())
    }
}

impl Drop for CountedStream {
    fn drop(&mut self) {
        let CountedStreams { count, silence } = &*self.0.0;
        if count.fetch_sub(1, Ordering::AcqRel) == 1 {
            silence.begins();
        }
    }
}

/// The body of a counted answer.
struct CountedBody {
    body: Body,
    _counted: CountedStream,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BegunStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.left.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, out);
        }
        let count = self.left.len().min(out.remaining());
        let (from, upto) = (self.left.start, self.left.start + count);
        out.put_slice(self.begun.get(from..upto).unwrap_or_default());
        self.left.start = upto;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BegunStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_bytes_tell_the_version_and_none_is_lost() {
        let long = [PREFACE, b"and more"].concat();
        for (sent, is_http2) in
            [(&b"GET / HTTP/1.1\r\n\r\n"[..], false), (b"P", false), (b"PRI * HTTP/1.1\r\n\r\n", false), (&long, true)]
        {
            let (mut here, there) = tokio::io::duplex(5);
            let writer = async {
                tokio::io::AsyncWriteExt::write_all(&mut here, sent).await.unwrap();
                drop(here);
            };
            let reader = async {
                let (mut begun, found) = begin(there).await.unwrap();
                let mut all = Vec::new();
                begun.read_to_end(&mut all).await.unwrap();
                (found, all)
            };
            let ((), found) = tokio::join!(writer, reader);
            assert_eq!(found, (is_http2, sent.to_vec()));
        }
        let (here, there) = tokio::io::duplex(5);
        drop(here);
        assert!(begin(there).await.is_err());
    }
}
