//! Gathers what is written to a client until it is flushed: a head and a small body go out as one.
//!
//! The one rule: a connection on which nothing waits to be sent has no buffer. Most connections of a hub are silent,
//! and the buffer would be a third of their memory.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes that are gathered.
const MOST_BYTES: usize = 4096;

/// A transport with such a buffer.
pub(crate) struct WriteBuffer<T> {
    inner: T,
    waiting: Vec<u8>,
    /// How many bytes of `waiting` are sent.
    sent: usize,
}

impl<T: AsyncWrite + Unpin> WriteBuffer<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, waiting: Vec::new(), sent: 0 }
    }

    /// Passes on all that waits.
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.waiting.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        (self.waiting, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// Makes room for so many bytes; false if there are too many to be gathered.
    fn poll_room(&mut self, cx: &mut Context<'_>, count: usize) -> Poll<io::Result<bool>> {
        if self.waiting.len() + count > MOST_BYTES {
            ready!(self.poll_empty(cx))?;
        }
        if count >= MOST_BYTES {
            return Poll::Ready(Ok(false));
        }
        if self.waiting.capacity() == 0 && count > 0 {
            self.waiting.reserve_exact(MOST_BYTES);
        }
        Poll::Ready(Ok(true))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WriteBuffer<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, out)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WriteBuffer<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !ready!(self.poll_room(cx, bytes.len()))? {
            return Pin::new(&mut self.inner).poll_write(cx, bytes);
        }
        self.waiting.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = slices.iter().fold(0usize, |count, slice| count.saturating_add(slice.len()));
        if !ready!(self.poll_room(cx, count))? {
            return Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        }
        slices.iter().for_each(|slice| self.waiting.extend_from_slice(slice));
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_empty(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_empty(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Numbers, so that a lost or moved byte shows.
    fn numbers(from: usize, count: usize) -> Vec<u8> {
        (from..from + count).map(|n| (n % 251) as u8).collect()
    }

    #[tokio::test]
    async fn every_byte_arrives_in_its_order_whatever_the_sizes() {
        // A pipe that takes little at a time.
        let (ours, mut theirs) = duplex(700);
        let sizes = [1, 0, 4095, 1, 4096, 5000, 3, 4094, 2, 4093, 12_000, 4095];
        let writing = tokio::spawn(async move {
            let (mut buffer, mut at) = (WriteBuffer::new(ours), 0);
            for (turn, size) in sizes.into_iter().enumerate() {
                let bytes = numbers(at, size);
                if turn % 2 == 0 {
                    buffer.write_all(&bytes).await.unwrap();
                } else {
                    let (left, right) = bytes.split_at(size / 3);
                    let mut slices = &mut [IoSlice::new(left), IoSlice::new(right)][..];
                    while slices.iter().any(|slice| !slice.is_empty()) {
                        let count = buffer.write_vectored(slices).await.unwrap();
                        IoSlice::advance_slices(&mut slices, count);
                    }
                }
                if turn % 5 == 4 {
                    buffer.flush().await.unwrap();
                }
                at += size;
            }
            buffer.shutdown().await.unwrap();
        });
        let mut arrived = Vec::new();
        theirs.read_to_end(&mut arrived).await.unwrap();
        writing.await.unwrap();
        assert!(arrived == numbers(0, sizes.iter().sum()), "{} bytes", arrived.len());
    }

    #[tokio::test]
    async fn small_writes_go_out_as_one_and_then_there_is_no_buffer() {
        let (ours, mut theirs) = duplex(64 * 1024);
        let mut buffer = WriteBuffer::new(ours);
        buffer.write_all(b"head").await.unwrap();
        buffer.write_all(b"body").await.unwrap();
        let mut block = [0; 64];
        assert!(tokio::time::timeout(std::time::Duration::from_millis(20), theirs.read(&mut block)).await.is_err());
        buffer.flush().await.unwrap();
        assert_eq!(theirs.read(&mut block).await.unwrap(), 8, "one read finds both");
        assert_eq!(buffer.waiting.capacity(), 0);
    }
}
