//! From an endpoint to a byte stream: addresses and TCP. What goes over it is the business of `proxy` and `tls`.
//!
//! A watched connection is silent for minutes, so that a peer that vanished has to be found out by the kernel:
//! keep-alive probes, and a limit on how long sent data may stay unacknowledged.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use super::error::ImapError;
use super::tls_stream::TlsStream;
use super::{proxy, tls};
use crate::registry::{CertificatePin, ImapEndpoint, ImapSecurity, ProxyAddress, first_line_of};

/// First probe of a silent connection, then every 15 s; dead after four: two minutes at most.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_mins(1), Duration::from_secs(15), 4);
/// Longest that sent data may stay unacknowledged.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(90);
/// Head start of each address before the next one is tried beside it (RFC 8305 §8).
const ADDRESS_STAGGER: Duration = Duration::from_millis(250);

/// A connection's bytes, protected or not.
pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

impl Socket {
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Plain(stream) => stream.peer_addr().ok(),
            Self::Tls(stream) => stream.tcp().peer_addr().ok(),
        }
    }

    /// The pin of the server's key, where it has shown one.
    pub(super) fn pin(&self) -> Option<CertificatePin> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => tls::pin_of(stream.state().peer_certificates()?.first()?).ok(),
        }
    }

    /// What protects it, for people: `TLS 1.3`.
    pub(super) fn protection(&self) -> Option<String> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(match stream.state().protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2".to_owned(),
                Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3".to_owned(),
                _ => "TLS".to_owned(),
            }),
        }
    }
}

/// Connects by TCP.
///
/// # Errors
/// When the host has no address, none takes the connection in time, or the way to it would need protection that
/// the endpoint does not ask for.
pub(super) async fn connect(endpoint: &ImapEndpoint, limit: Duration) -> Result<TcpStream, ImapError> {
    let way = async {
        match &endpoint.proxy {
            None => direct(endpoint).await,
            Some(proxy) => by_proxy(endpoint, proxy).await,
        }
    };
    let stream = timeout(limit, way).await.map_err(|_| ImapError::Timeout("connecting", limit))??;
    tune(&stream).map_err(ImapError::Io)?;
    Ok(stream)
}

async fn direct(endpoint: &ImapEndpoint) -> Result<TcpStream, ImapError> {
    let (host, port) = (&endpoint.host, endpoint.port());
    let mut addresses = resolve(host, port).await?;
    if endpoint.security == ImapSecurity::None && !endpoint.allow_plaintext {
        // By address, not by name: what `localhost` means is the resolver's to say.
        addresses.retain(|address| address.ip().to_canonical().is_loopback());
        if addresses.is_empty() {
            return Err(ImapError::Plaintext(host.clone()));
        }
    }
    let raced = race(&addresses, endpoint.local_address).await;
    raced.map_err(|source| ImapError::Connect { host: host.clone(), port, source })
}

async fn by_proxy(endpoint: &ImapEndpoint, proxy: &ProxyAddress) -> Result<TcpStream, ImapError> {
    let failed = |err| ImapError::Proxy(proxy.to_string(), err);
    if endpoint.security == ImapSecurity::None && !endpoint.allow_plaintext {
        // Where the proxy goes cannot be seen from here.
        return Err(ImapError::Plaintext(endpoint.host.clone()));
    }
    let password = match &endpoint.proxy_password_file {
        Some(path) => Some(first_line_of(path).await.map_err(|err| failed(err.into()))?),
        None => None,
    };
    let addresses = resolve(&proxy.host, proxy.port).await?;
    let raced = race(&addresses, endpoint.local_address).await;
    let connect = |source| ImapError::Connect { host: proxy.host.clone(), port: proxy.port, source };
    let mut stream = raced.map_err(connect)?;
    stream.set_nodelay(true).map_err(ImapError::Io)?;
    let host = unbracketed(&endpoint.host);
    proxy::through(proxy, password.as_ref(), &mut stream, host, endpoint.port()).await.map_err(failed)?;
    Ok(stream)
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ImapError> {
    let found = tokio::net::lookup_host((unbracketed(host), port)).await;
    Ok(found.map_err(|err| ImapError::Resolve(host.to_owned(), err))?.collect())
}

/// Tries the addresses in the resolver's order, each with a head start, and takes the first that answers.
async fn race(addresses: &[SocketAddr], local: Option<IpAddr>) -> io::Result<TcpStream> {
    // From an address of the one kind there is no way to one of the other.
    let reachable = addresses.iter().filter(|address| local.is_none_or(|own| own.is_ipv4() == address.is_ipv4()));
    let mut tries: FuturesUnordered<_> = (0_u32..)
        .zip(reachable)
        .map(|(turn, address)| async move {
            sleep(ADDRESS_STAGGER.saturating_mul(turn)).await;
            match local {
                None => TcpStream::connect(address).await,
                Some(own) => {
                    let socket = if own.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
                    socket.bind(SocketAddr::new(own, 0))?;
                    socket.connect(*address).await
                }
            }
        })
        .collect();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address that can be reached from here");
    while let Some(tried) = tries.next().await {
        match tried {
            Ok(stream) => return Ok(stream),
            Err(err) => failure = err,
        }
    }
    Err(failure)
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (time, interval, retries) = KEEPALIVE;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(retries))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    Ok(())
}

/// An IPv6 address may be written as in a URL.
pub(super) fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
