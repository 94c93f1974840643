//! From an endpoint to a byte stream: addresses, TCP, TLS.
//!
//! A watched connection is silent for minutes, so that a peer that vanished has to be found out by the kernel:
//! keep-alive probes, and a limit on how long sent data may stay unacknowledged.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::ImapError;
use crate::registry::{ImapEndpoint, ImapSecurity};

/// First probe of a silent connection, then every 15 s; dead after four: two minutes at most.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_mins(1), Duration::from_secs(15), 4);
/// Longest that sent data may stay unacknowledged.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(90);
/// Head start of each address before the next one is tried beside it (RFC 8305 §8).
const ADDRESS_STAGGER: Duration = Duration::from_millis(250);

/// A connection's bytes, protected or not.
#[derive(Debug)]
pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Plain(stream) => stream.peer_addr().ok(),
            Self::Tls(stream) => stream.get_ref().0.peer_addr().ok(),
        }
    }

    /// What protects it, for people: `TLS 1.3`.
    pub(super) fn protection(&self) -> Option<String> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(match stream.get_ref().1.protocol_version() {
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
    let stream = timeout(limit, async {
        let addresses = resolve(endpoint).await?;
        race(&addresses).await.map_err(|source| ImapError::Connect {
            host: endpoint.host.clone(),
            port: endpoint.port(),
            source,
        })
    })
    .await
    .map_err(|_| ImapError::Timeout("connecting", limit))??;
    tune(&stream).map_err(ImapError::Io)?;
    Ok(stream)
}

async fn resolve(endpoint: &ImapEndpoint) -> Result<Vec<SocketAddr>, ImapError> {
    let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((unbracketed(&endpoint.host), endpoint.port()))
        .await
        .map_err(|err| ImapError::Resolve(endpoint.host.clone(), err))?
        .collect();
    if endpoint.security == ImapSecurity::None && !endpoint.allow_plaintext {
        // By address, not by name: what `localhost` means is the resolver's to say.
        addresses.retain(|address| address.ip().to_canonical().is_loopback());
        if addresses.is_empty() {
            return Err(ImapError::Plaintext(endpoint.host.clone()));
        }
    }
    Ok(addresses)
}

/// Tries the addresses in the resolver's order, each with a head start, and takes the first that answers.
async fn race(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut tries: FuturesUnordered<_> = (0_u32..)
        .zip(addresses)
        .map(|(turn, address)| async move {
            sleep(ADDRESS_STAGGER.saturating_mul(turn)).await;
            TcpStream::connect(address).await
        })
        .collect();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
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

/// TLS settings by where their certificates come from, shared by all connections: the system's authorities alone take
/// hundreds of KiB.
#[derive(Debug, Clone, Default)]
pub(super) struct TlsSettings {
    by_ca_file: Arc<Mutex<HashMap<Option<PathBuf>, Arc<ClientConfig>>>>,
}

impl TlsSettings {
    /// Puts TLS over a stream to the endpoint.
    ///
    /// # Errors
    /// When `ca_file` cannot be used, the host is no name, or the handshake fails.
    pub(super) async fn wrap(
        &self,
        stream: TcpStream,
        endpoint: &ImapEndpoint,
        limit: Duration,
    ) -> Result<Socket, ImapError> {
        let host = endpoint.host.as_str();
        let name =
            ServerName::try_from(unbracketed(host).to_owned()).map_err(|_| ImapError::HostName(host.to_owned()))?;
        let connector = TlsConnector::from(self.settings(endpoint.ca_file.as_deref()).await?);
        let handshake = timeout(limit, connector.connect(name, stream)).await;
        match handshake.map_err(|_| ImapError::Timeout("the TLS handshake", limit))? {
            Ok(stream) => Ok(Socket::Tls(Box::new(stream))),
            Err(err) if is_about_certificate(&err) => {
                // The file may have been renewed since it was read.
                self.lock().remove(&endpoint.ca_file);
                Err(ImapError::Certificate(host.to_owned(), err))
            }
            Err(err) => Err(ImapError::Tls(host.to_owned(), err)),
        }
    }

    async fn settings(&self, ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, ImapError> {
        let key = ca_file.map(Path::to_owned);
        if let Some(settings) = self.lock().get(&key) {
            return Ok(settings.clone());
        }
        let settings = Arc::new(load(ca_file).await?);
        self.lock().insert(key, settings.clone());
        Ok(settings)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Option<PathBuf>, Arc<ClientConfig>>> {
        self.by_ca_file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn load(ca_file: Option<&Path>) -> Result<ClientConfig, ImapError> {
    // Given explicitly: with two providers in one binary rustls refuses to guess.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(ImapError::TlsSetup)?;
    Ok(if let Some(path) = ca_file {
        builder.with_root_certificates(authorities(path).await?).with_no_client_auth()
    } else {
        let verifier = rustls_platform_verifier::Verifier::new(provider).map_err(ImapError::TlsSetup)?;
        builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
    })
}

/// An IPv6 address may be written as in a URL.
fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

async fn authorities(path: &Path) -> Result<RootCertStore, ImapError> {
    let unusable = |why: String| ImapError::CaFile(path.to_owned(), why);
    let text = tokio::fs::read(path).await.map_err(|err| unusable(err.to_string()))?;
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|err| unusable(err.to_string()))?;
        store.add(certificate).map_err(|err| unusable(err.to_string()))?;
    }
    if store.is_empty() {
        return Err(unusable("there is no certificate in it (PEM is expected)".to_owned()));
    }
    Ok(store)
}

fn is_about_certificate(err: &io::Error) -> bool {
    let inner = err.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
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
