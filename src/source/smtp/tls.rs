//! TLS of the receiver: the certificate and its key out of PEM files, read again when the files change.
//!
//! Certificates are renewed while postrider runs. A handshake that comes a minute after the files were looked at looks
//! again; what cannot be used then is told once and changes nothing, since an old certificate is better than none.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::client::danger::ServerCertVerifier as _;
use rustls::{CertificateError, ServerConfig};
use rustls_pki_types::{ServerName, UnixTime};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::pem;

/// How often the files are looked at, at most.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its key; both may be in one file.
    pub key: PathBuf,
}

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file could not be read.
    #[error("cannot read the {0} for the mail receiver's TLS, {path}", path = .1.display())]
    Read(&'static str, PathBuf, #[source] io::Error),
    /// There is no usable certificate in the file.
    #[error("cannot use the certificate {}: {}; see `smtp.tls_certificate_file`", .0.display(), .1)]
    Certificate(PathBuf, String),
    /// There is no usable key in the file.
    #[error("cannot use the key {}: {}; see `smtp.tls_key_file`", .0.display(), .1)]
    Key(PathBuf, String),
    /// They are of different pairs.
    #[error(
        "the certificate {} and the key {} do not belong together: {}; see `smtp.tls_key_file`",
        .0.certificate.display(), .0.key.display(), .1
    )]
    Mismatch(TlsFiles, rustls::Error),
}

/// A listener's certificate. Clones share.
#[derive(Debug, Clone)]
pub struct ServerTls {
    files: Arc<TlsFiles>,
    current: Arc<Mutex<Current>>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// The files that were read last, whether they could be used or not.
    seen: [Option<Stamp>; 2],
    look_at: Instant,
}

/// What changes when a file is written or replaced.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    octets: u64,
    inode: u64,
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        // Before they are read: what is written meanwhile is seen as a change.
        let seen = files.stamps();
        let config = files.load()?;
        let current = Current { config, seen, look_at: Instant::now() + LOOK_EVERY };
        Ok(Self { files: Arc::new(files), current: Arc::new(Mutex::new(current)) })
    }

    /// What does the next handshake.
    pub(super) async fn acceptor(&self) -> TlsAcceptor {
        if self.is_due() {
            let tls = self.clone();
            if tokio::task::spawn_blocking(move || tls.look_again()).await.is_err() {
                warn!("the certificate was not looked at, postrider is stopping");
            }
        }
        TlsAcceptor::from(Arc::clone(&self.lock().config))
    }

    /// Lets the next handshake look at the files at once.
    pub fn look_soon(&self) {
        self.lock().look_at = Instant::now();
    }

    /// Whether it is time to look; said to one caller only.
    fn is_due(&self) -> bool {
        let (now, mut current) = (Instant::now(), self.lock());
        let due = current.look_at <= now;
        if due {
            current.look_at = now + LOOK_EVERY;
        }
        due
    }

    fn look_again(&self) {
        let seen = self.files.stamps();
        if self.lock().seen == seen {
            return;
        }
        let loaded = self.files.load();
        let mut current = self.lock();
        current.seen = seen;
        match loaded {
            Ok(config) => {
                current.config = config;
                info!(certificate = %self.files.certificate.display(), "new certificate taken over");
            }
            Err(err) => warn!(
                error = &err as &dyn std::error::Error,
                "new certificate not taken over, the one that was read before goes on"
            ),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TlsFiles {
    fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let certificate = read("certificate", &self.certificate)?;
        let chain =
            pem::certificates(&certificate).map_err(|why| TlsError::Certificate(self.certificate.clone(), why))?;
        let key = pem::private_key(&read("key", &self.key)?).map_err(|why| TlsError::Key(self.key.clone(), why))?;
        // Given explicitly: with two providers in one binary rustls refuses to guess.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            // TLS 1.2 and 1.3; older ones are out of use (RFC 8996).
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
        config.map(Arc::new).map_err(|err| match err {
            rustls::Error::InvalidCertificate(why) => TlsError::Certificate(self.certificate.clone(), why.to_string()),
            rustls::Error::InconsistentKeys(_) => TlsError::Mismatch(self.clone(), err),
            err => TlsError::Key(self.key.clone(), err.to_string()),
        })
    }

    /// What clients that verify certificates make of it when the server is called `name`, for people.
    ///
    /// # Errors
    /// Why they would not take it, or it cannot be used.
    pub fn explain(&self, name: &str) -> Result<String, String> {
        use CertificateError as Wrong;
        let told = |err: TlsError| match err.source() {
            Some(cause) => format!("{err}: {cause}"),
            None => err.to_string(),
        };
        self.load().map_err(told)?;
        let path = self.certificate.display();
        let pem = read("certificate", &self.certificate).map_err(told)?;
        let chain = pem::certificates(&pem)?;
        let (Some((own, others)), Ok(server)) = (chain.split_first(), ServerName::try_from(name)) else {
            return Ok(format!("{path} can be used; no certificate can be for `{name}`, see `smtp.hostname`"));
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = rustls_platform_verifier::Verifier::new(provider).map_err(|err| err.to_string())?;
        match verifier.verify_server_cert(own, others, &server, &[], UnixTime::now()) {
            Ok(_) => Ok(format!("{path} is good for {name}")),
            Err(rustls::Error::InvalidCertificate(Wrong::Expired | Wrong::ExpiredContext { .. })) => {
                Err(format!("{path} has expired; renew it"))
            }
            Err(rustls::Error::InvalidCertificate(Wrong::NotValidYet | Wrong::NotValidYetContext { .. })) => {
                Err(format!("{path} is not valid yet; set the clock right"))
            }
            Err(rustls::Error::InvalidCertificate(Wrong::NotValidForName | Wrong::NotValidForNameContext { .. })) => {
                Err(format!("{path} is not for `{name}`; set `smtp.hostname` to the name that clients connect to"))
            }
            Err(rustls::Error::InvalidCertificate(Wrong::UnknownIssuer)) => Ok(format!(
                "{path} can be used; clients that verify certificates do not know who signed it, or lack the chain"
            )),
            Err(err) => Ok(format!("{path} can be used; clients that verify certificates may refuse it: {err}")),
        }
    }

    /// None of a file that is not there: reading it says why.
    fn stamps(&self) -> [Option<Stamp>; 2] {
        [&self.certificate, &self.key].map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
            Some(Stamp { modified: metadata.modified().ok()?, octets: metadata.len(), inode })
        })
    }
}

fn read(what: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    std::fs::read(path).map(Zeroizing::new).map_err(|err| TlsError::Read(what, path.to_owned(), err))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate for a name and its key, as PEM.
    fn pair(name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn with(certificate: &str, key: &str) -> (Self, TlsFiles) {
            let folder = Self(tempfile::tempdir().unwrap());
            let files =
                TlsFiles { certificate: folder.write("cert.pem", certificate), key: folder.write("key.pem", key) };
            (folder, files)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            // As certbot and others do: the new file takes the old one's name.
            let (path, draft) = (self.0.path().join(name), self.0.path().join("draft"));
            std::fs::write(&draft, text).unwrap();
            std::fs::rename(&draft, &path).unwrap();
            path
        }
    }

    fn refused(certificate: &str, key: &str) -> String {
        let (_folder, files) = Folder::with(certificate, key);
        ServerTls::load(files).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let ((own, key), (_, other)) = (pair("a.example"), pair("b.example"));
        for (certificate, key, words) in [
            ("", key.as_str(), &["cert.pem", "no certificate"][..]),
            (&own, "", &["key.pem", "no private key"]),
            (&own, &own, &["key.pem", "no private key"]),
            (&own, &other, &["cert.pem", "key.pem", "do not belong together"]),
        ] {
            let said = refused(certificate, key);
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
        }
        let missing = TlsFiles { certificate: "/no/such.pem".into(), key: "/no/key.pem".into() };
        assert!(ServerTls::load(missing).unwrap_err().to_string().contains("/no/such.pem"));
        let (folder, _) = Folder::with("", "");
        let both = folder.write("both.pem", &(own + &key));
        ServerTls::load(TlsFiles { certificate: both.clone(), key: both }).expect("both may be in one file");
    }

    /// Its own authority is nobody's: a self-signed one stays a note, and what is wrong all the same is wrong.
    #[test]
    fn what_clients_will_say_is_known_beforehand() {
        let (own, key) = pair("mx.example");
        let (folder, files) = Folder::with(&own, &key);
        let said = files.explain("mx.example").unwrap();
        assert!(said.contains("can be used") && said.contains("do not know who signed it"), "{said}");
        assert!(files.explain("not a name").unwrap().contains("smtp.hostname"));
        let own_key = rcgen::KeyPair::from_pem(&key).unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["mx.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        folder.write("cert.pem", &params.self_signed(&own_key).unwrap().pem());
        assert!(files.explain("mx.example").unwrap_err().contains("has expired"));
        folder.write("cert.pem", "");
        assert!(files.explain("mx.example").unwrap_err().contains("no certificate"));
    }

    #[tokio::test]
    async fn a_new_certificate_is_taken_over_and_a_broken_one_is_not() {
        let (first, key) = pair("a.example");
        let (folder, files) = Folder::with(&first, &key);
        let tls = ServerTls::load(files).unwrap();
        let current = || Arc::clone(&tls.lock().config);
        let look = async || {
            tls.look_soon();
            tls.acceptor().await;
        };
        let before = current();
        let (second, its_key) = pair("b.example");
        folder.write("cert.pem", &second);
        look().await;
        assert!(Arc::ptr_eq(&before, &current()), "the key is still the old one");
        folder.write("key.pem", &its_key);
        tls.acceptor().await;
        assert!(Arc::ptr_eq(&before, &current()), "a minute has not passed");
        look().await;
        let renewed = current();
        assert!(!Arc::ptr_eq(&before, &renewed));
        std::fs::remove_file(folder.0.path().join("key.pem")).unwrap();
        look().await;
        look().await;
        assert!(Arc::ptr_eq(&renewed, &current()));
    }
}
