//! TLS to mail servers: whose certificate is trusted, whose key is pinned, who we are, and what connections share.
//!
//! Settings are shared by all connections that trust the same: the system's authorities alone take hundreds of KiB, and
//! with them go the sessions, so that a second connection to a host takes up the first one's (RFC 8446 §2.2).

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::warn;

use super::error::ImapError;
use super::socket::{Socket, unbracketed};
use super::tls_stream::TlsStream;
use crate::pem;
use crate::registry::{CertificatePin, ImapEndpoint};

/// What decides how TLS to a server is done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Trust {
    ca_file: Option<PathBuf>,
    pins: Vec<CertificatePin>,
    anybody: bool,
    client: Option<(PathBuf, PathBuf)>,
}

impl Trust {
    fn of(endpoint: &ImapEndpoint) -> Self {
        let client = endpoint.client_certificate_file.clone();
        Self {
            ca_file: endpoint.ca_file.clone(),
            pins: endpoint.certificate_pin.clone(),
            anybody: endpoint.tls_insecure_accept_any_certificate,
            client: client.map(|certificate| {
                // The key may be in the same file.
                let key = endpoint.client_key_file.clone().unwrap_or_else(|| certificate.clone());
                (certificate, key)
            }),
        }
    }
}

/// TLS settings by what they trust. Cheap to clone; clones share.
#[derive(Debug, Clone, Default)]
pub(super) struct TlsSettings {
    known: Arc<Mutex<HashMap<Trust, Arc<ClientConfig>>>>,
}

impl TlsSettings {
    /// Puts TLS over a stream to the endpoint.
    ///
    /// # Errors
    /// When a file cannot be used, the host is no name, or the handshake fails.
    pub(super) async fn wrap(
        &self,
        stream: TcpStream,
        endpoint: &ImapEndpoint,
        limit: Duration,
    ) -> Result<Socket, ImapError> {
        let host = endpoint.host.as_str();
        let name =
            ServerName::try_from(unbracketed(host).to_owned()).map_err(|_| ImapError::HostName(host.to_owned()))?;
        let trust = Trust::of(endpoint);
        let settings = self.settings(&trust, host).await?;
        let handshake = timeout(limit, TlsStream::connect(settings, name, stream)).await;
        match handshake.map_err(|_| ImapError::Timeout("the TLS handshake", limit))? {
            Ok(stream) => Ok(Socket::Tls(Box::new(stream))),
            Err(err) if is_about_certificate(&err) => {
                // The file may have been renewed since it was read.
                self.lock().remove(&trust);
                Err(match unpinned(&err) {
                    Some(pin) => ImapError::NotPinned(host.to_owned(), pin),
                    None => ImapError::Certificate(host.to_owned(), err),
                })
            }
            Err(err) => Err(ImapError::Tls(host.to_owned(), err)),
        }
    }

    async fn settings(&self, trust: &Trust, host: &str) -> Result<Arc<ClientConfig>, ImapError> {
        if let Some(settings) = self.lock().get(trust) {
            return Ok(settings.clone());
        }
        if trust.anybody {
            warn!(host, "anybody may answer for this server: tls_insecure_accept_any_certificate is set");
        }
        let settings = Arc::new(load(trust).await?);
        self.lock().insert(trust.clone(), settings.clone());
        Ok(settings)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Trust, Arc<ClientConfig>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn load(trust: &Trust) -> Result<ClientConfig, ImapError> {
    // Given explicitly: with two providers in one binary rustls refuses to guess.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = verifier(trust, &provider).await?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ImapError::TlsSetup)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some((certificate, key)) = &trust.client else { return Ok(builder.with_no_client_auth()) };
    let unusable = |path: &Path, why: String| ImapError::ClientCertificate(path.to_owned(), why);
    let chain = certificates(certificate).await.map_err(|why| unusable(certificate, why))?;
    let text = tokio::fs::read(key).await.map_err(|err| unusable(key, err.to_string()))?;
    let own = pem::private_key(&zeroize::Zeroizing::new(text)).map_err(|why| unusable(key, why))?;
    builder.with_client_auth_cert(chain, own).map_err(|err| unusable(certificate, err.to_string()))
}

async fn verifier(trust: &Trust, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, ImapError> {
    let authority: Option<Arc<dyn ServerCertVerifier>> = if let Some(path) = &trust.ca_file {
        let unusable = |why| ImapError::CaFile(path.clone(), why);
        let mut store = RootCertStore::empty();
        for certificate in certificates(path).await.map_err(unusable)? {
            store.add(certificate).map_err(|err| unusable(err.to_string()))?;
        }
        let built = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone()).build();
        Some(built.map_err(|err| unusable(err.to_string()))?)
    } else if trust.anybody || !trust.pins.is_empty() {
        None
    } else {
        let system = rustls_platform_verifier::Verifier::new(provider.clone()).map_err(ImapError::TlsSetup)?;
        Some(Arc::new(system))
    };
    match authority {
        Some(authority) if trust.pins.is_empty() && !trust.anybody => Ok(authority),
        authority => Ok(Arc::new(Pinned {
            pins: trust.pins.clone(),
            authority: authority.filter(|_| !trust.anybody),
            provider: provider.clone(),
        })),
    }
}

/// All certificates of a PEM file.
async fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    pem::certificates(&tokio::fs::read(path).await.map_err(|err| err.to_string())?)
}

/// Trusts a key instead of who signed it, or both; with neither, anybody.
#[derive(Debug)]
struct Pinned {
    pins: Vec<CertificatePin>,
    authority: Option<Arc<dyn ServerCertVerifier>>,
    provider: Arc<CryptoProvider>,
}

/// The server has another key than the pinned ones.
#[derive(Debug, thiserror::Error)]
#[error("its key is {0}, which is not in `certificate_pin`")]
struct NotPinned(CertificatePin);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !self.pins.is_empty() {
            let pin = pin_of(end_entity)?;
            if !self.pins.contains(&pin) {
                return Err(CertificateError::Other(OtherError(Arc::new(NotPinned(pin)))).into());
            }
        }
        match &self.authority {
            Some(authority) => authority.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    // That the server has the key is proven here, whatever the certificate is worth.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The pin of a certificate's key (RFC 7469 §2.4: SHA-256 of the `SubjectPublicKeyInfo`).
pub(super) fn pin_of(certificate: &CertificateDer<'_>) -> Result<CertificatePin, rustls::Error> {
    let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
    let hash = digest::digest(&digest::SHA256, &key);
    // SHA-256 in base64 is a pin by its form.
    let pin = format!("sha256/{}", BASE64.encode(hash)).parse();
    pin.map_err(|_| rustls::Error::General("the key has no hash".to_owned()))
}

fn rustls_error(err: &io::Error) -> Option<&rustls::Error> {
    err.get_ref().and_then(|inner| inner.downcast_ref())
}

fn is_about_certificate(err: &io::Error) -> bool {
    matches!(rustls_error(err), Some(rustls::Error::InvalidCertificate(_)))
}

/// The key that the server has instead of a pinned one. rustls shows errors of others by their `Debug`.
fn unpinned(err: &io::Error) -> Option<CertificatePin> {
    match rustls_error(err) {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner)))) => {
            inner.downcast_ref::<NotPinned>().map(|NotPinned(pin)| pin.clone())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::HandshakeKind;
    use rustls_pki_types::PrivatePkcs8KeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// Greets so many connections.
    async fn serve(listener: TcpListener, connections: usize) {
        let key = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        for _ in 0..connections {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that trusts nobody goes away in the middle.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            stream.write_all(b"* OK\r\n").await.unwrap();
            stream.shutdown().await.unwrap();
        }
    }

    async fn handshake(settings: &TlsSettings, endpoint: &ImapEndpoint) -> HandshakeKind {
        let stream = TcpStream::connect(("127.0.0.1", endpoint.port())).await.unwrap();
        let Socket::Tls(mut stream) = settings.wrap(stream, endpoint, LIMIT).await.unwrap() else { panic!("no TLS") };
        // The session's ticket comes behind the handshake.
        let mut greeting = String::new();
        stream.read_to_string(&mut greeting).await.unwrap();
        assert_eq!(greeting, "* OK\r\n");
        stream.state().handshake_kind().unwrap()
    }

    #[tokio::test]
    async fn a_second_connection_to_a_host_takes_up_the_session_and_one_with_other_trust_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = Some(listener.local_addr().unwrap().port());
        let endpoint =
            ImapEndpoint { port, tls_insecure_accept_any_certificate: true, ..ImapEndpoint::new("localhost", "alice") };
        let trusting = async {
            let settings = TlsSettings::default();
            let kinds = [handshake(&settings, &endpoint).await, handshake(&settings.clone(), &endpoint).await];
            assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
            // What one account takes without a look must not vouch for it to another.
            let strict = ImapEndpoint { tls_insecure_accept_any_certificate: false, ..endpoint.clone() };
            let pinned = "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".parse().unwrap();
            let strict = ImapEndpoint { certificate_pin: vec![pinned], ..strict };
            let stream = TcpStream::connect(("127.0.0.1", endpoint.port())).await.unwrap();
            assert!(matches!(settings.wrap(stream, &strict, LIMIT).await, Err(ImapError::NotPinned(..))));
        };
        tokio::select! {
            () = serve(listener, 4) => panic!("one more connection than there is"),
            () = trusting => {}
        }
    }
}
