//! A connection's first bytes, read under a deadline and put back.
//!
//! hyper-util looks at them to tell HTTP/1 from HTTP/2, and starts no clock before it knows: a peer that sends half of
//! HTTP/2's preface would hold its connection for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// What an HTTP/2 client begins with (RFC 9113 §3.4). No HTTP/1 request begins so.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose first bytes were read already and are read again.
#[derive(Debug)]
pub(super) struct Opened<T> {
    inner: T,
    first: [u8; PREFACE.len()],
    /// How many of `first` there are, and how many of them were read again.
    len: usize,
    replayed: usize,
}

impl<T: AsyncRead + Unpin> Opened<T> {
    /// Reads until it is clear which version of HTTP is spoken, or until `stop`.
    ///
    /// # Errors
    /// When that takes longer than `limit`, or the stream fails.
    pub(super) async fn read(inner: T, limit: Duration, stop: &CancellationToken) -> io::Result<Self> {
        let mut opened = Self { inner, first: [0; PREFACE.len()], len: 0, replayed: 0 };
        let in_time = tokio::select! {
            read = timeout(limit, opened.fill()) => read,
            () = stop.cancelled() => Ok(Ok(())),
        };
        in_time.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no request"))??;
        Ok(opened)
    }

    /// Whether HTTP/2 is spoken.
    pub(super) fn is_http2(&self) -> bool {
        self.first.get(..self.len) == Some(PREFACE)
    }

    /// The stream, without what was not read again.
    pub(super) fn into_inner(self) -> T {
        self.inner
    }

    /// # Cancel safety
    /// What was read stays.
    async fn fill(&mut self) -> io::Result<()> {
        while let (known, free @ [_, ..]) = self.first.split_at_mut(self.len) {
            if !PREFACE.starts_with(known) {
                break;
            }
            let read = self.inner.read(free).await?;
            if read == 0 {
                break;
            }
            self.len += read;
        }
        Ok(())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Opened<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let again = this.first.get(this.replayed..this.len).unwrap_or_default();
        if again.is_empty() {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        let count = again.len().min(buf.remaining());
        buf.put_slice(again.get(..count).unwrap_or_default());
        this.replayed += count;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Opened<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    async fn opened_in(pieces: &[&[u8]]) -> io::Result<Opened<tokio::io::DuplexStream>> {
        let (near, mut far) = duplex(1024);
        let writing = async {
            for piece in pieces {
                far.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            far
        };
        let stop = CancellationToken::new();
        let (opened, far) = tokio::join!(Opened::read(near, Duration::from_secs(10), &stop), writing);
        drop(far);
        opened
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_preface_is_given_up() {
        for pieces in [&[][..], &[&b"P"[..]], &[&b"PRI * HTTP/2.0\r\n\r\n"[..], b"SM\r\n\r"]] {
            assert_eq!(opened_in(pieces).await.unwrap_err().kind(), io::ErrorKind::TimedOut, "{pieces:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_process_does_not_wait_for_the_deadline() {
        let (near, _far) = duplex(16);
        let stop = CancellationToken::new();
        stop.cancel();
        let begun = tokio::time::Instant::now();
        Opened::read(near, Duration::from_secs(10), &stop).await.unwrap();
        assert!(begun.elapsed().is_zero());
    }

    proptest! {
        /// Whatever is sent, in whatever pieces, is read as it was sent.
        #[test]
        fn nothing_is_lost_or_repeated(
            preface in 0..=PREFACE.len(), rest in "[ -~\r\n]{1,40}", cut in any::<prop::sample::Index>(), size in 1..40_usize
        ) {
            let sent = [&PREFACE[..preface], b"\0", rest.as_bytes()].concat();
            let (head, tail) = sent.split_at(cut.index(sent.len()));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let read = runtime.block_on(async {
                let mut opened = opened_in(&[head, tail]).await.unwrap();
                let (mut read, mut chunk) = (Vec::new(), vec![0; size]);
                loop {
                    match opened.read(&mut chunk).await.unwrap() {
                        0 => break read,
                        count => read.extend_from_slice(&chunk[..count]),
                    }
                }
            });
            prop_assert_eq!(read, sent);
        }
    }
}
