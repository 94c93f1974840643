//! A session's bytes: in the clear, or, from the start or after STARTTLS, through TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A stream with or without TLS over it.
pub(super) enum Channel<S> {
    Plain(S),
    /// Boxed, so that a session without TLS does not pay for it.
    Tls(Box<TlsStream<S>>),
    /// In a handshake, and for good when that failed.
    Lost,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    /// Does the handshake.
    ///
    /// # Errors
    /// What the client did wrong; nothing can be said to it any more.
    ///
    /// # Cancel safety
    /// A handshake that is given up leaves nothing that could be used.
    pub(super) async fn start_tls(&mut self, acceptor: TlsAcceptor) -> io::Result<()> {
        let Self::Plain(stream) = std::mem::replace(self, Self::Lost) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        *self = Self::Tls(Box::new(acceptor.accept(stream).await?));
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Channel<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Lost => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Channel<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Lost => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Lost => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Lost => Poll::Ready(Ok(())),
        }
    }
}
