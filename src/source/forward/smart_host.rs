//! The smart host: connections to it, and one message over one of them.
//!
//! lettre speaks SMTP. Its transport does not say whether it was the host that refused us or a message that was
//! refused, and giving up mail because a password has expired would lose it; so its connection is driven step by step.
//! Whatever goes wrong before MAIL is the host's trouble, whatever comes after it the message's.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lettre::transport::smtp;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters};
use lettre::transport::smtp::extension::{ClientId, Extension};
use lettre::transport::smtp::response::Response;
use secrecy::ExposeSecret;
use tokio::time::{Instant, timeout};

use super::config::ForwardConfig;
use super::lines::lines;
use crate::event_log::Waiting;
use crate::registry::{ImapSecurity, PasswordError};

/// A connection that was idle for longer is not used again: servers close them after a minute or more.
const IDLE_MAX: Duration = Duration::from_secs(20);
/// For the answer to QUIT.
const GOODBYE: Duration = Duration::from_secs(1);
/// Octets that are handed over at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// The rate below which a message counts as stuck, in octets a second.
const BYTES_PER_SECOND_MIN: u64 = 1000;
/// Characters of a reply that are kept.
const REASON_CHARACTERS_MAX: usize = 500;

/// Why the smart host takes nothing from us at the moment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The password.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The file with authorities.
    #[error("cannot use the certificate authorities in {0}: {1}")]
    CaFile(PathBuf, String),
    /// It could not be reached, or it refuses us.
    #[error("the smart host {host} does not take mail: {step}: {why}")]
    Refused {
        /// The host.
        host: String,
        /// What was tried.
        step: &'static str,
        /// What came of it.
        why: String,
    },
}

/// Why a message was not sent.
#[derive(Debug)]
pub(super) enum SendError {
    /// No message goes through the host at the moment.
    Host(HostError),
    /// This one may go later.
    Later(String),
    /// This one never goes.
    Never(String),
}

/// The smart host and the connections to it that are not in use.
#[derive(Debug)]
pub(crate) struct SmartHost {
    config: ForwardConfig,
    hello: ClientId,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: AsyncSmtpConnection,
    since: Instant,
}

impl std::fmt::Debug for Idle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Idle").field("since", &self.since).finish_non_exhaustive()
    }
}

impl SmartHost {
    /// The configured host; `hostname` is what we call ourselves there.
    pub(crate) fn new(config: ForwardConfig, hostname: &str) -> Self {
        Self { config, hello: ClientId::Domain(hostname.to_owned()), idle: Mutex::default() }
    }

    /// Sends a message to one recipient; what the host said to it.
    ///
    /// # Cancel safety
    /// A message whose future is dropped may have been sent.
    pub(super) async fn send(&self, waiting: &Waiting, message: &[u8]) -> Result<String, SendError> {
        // A connection that was idle may be gone without having said so: that is nobody's failure.
        while let Some(Idle { mut connection, .. }) = self.take_idle() {
            match self.begin(&mut connection, waiting, message).await {
                Err(Failure { severity: Severity::Broken, .. }) => {}
                begun => return self.finish(connection, begun, waiting, message).await,
            }
        }
        let mut connection = self.connect().await.map_err(SendError::Host)?;
        let begun = self.begin(&mut connection, waiting, message).await;
        self.finish(connection, begun, waiting, message).await
    }

    /// Connects and logs in, to see whether that works; what there is to say of it.
    ///
    /// # Errors
    /// See [`HostError`].
    pub(crate) async fn probe(&self) -> Result<String, HostError> {
        let mut connection = self.connect().await?;
        let encrypted = if connection.is_encrypted() { "with TLS" } else { "without TLS" };
        // It has said what it had to say: whether it says goodbye is not our concern.
        drop(timeout(self.config.connect_timeout, connection.quit()).await);
        let user = self.config.username.as_ref().map(|user| format!(", logged in as {user}")).unwrap_or_default();
        Ok(format!("{}:{} answers {encrypted}{user}", self.config.host, self.config.port()))
    }

    /// MAIL and RCPT.
    async fn begin(
        &self,
        connection: &mut AsyncSmtpConnection,
        waiting: &Waiting,
        message: &[u8],
    ) -> Result<(), Failure> {
        let server = connection.server_info();
        let is_ascii =
            [waiting.mail_from.as_bytes(), waiting.address.as_bytes(), waiting.head.as_bytes(), header(message)];
        let internationalized = !is_ascii.iter().all(|part| part.is_ascii());
        let mut parameters = String::new();
        // What a server does not announce is not asked of it: it takes 8 bits all the same, or refuses the message.
        if server.supports_feature(Extension::EightBitMime) && !(message.is_ascii() && waiting.head.is_ascii()) {
            parameters.push_str(" BODY=8BITMIME");
        }
        if server.supports_feature(Extension::SmtpUtfEight) && internationalized {
            parameters.push_str(" SMTPUTF8");
        }
        let limit = self.config.answer_timeout;
        let mail = format!("MAIL FROM:<{}>{parameters}\r\n", waiting.mail_from);
        answer(limit, connection.command(mail)).await?;
        answer(limit, connection.command(format!("RCPT TO:<{}>\r\n", waiting.address))).await.map(drop)
    }

    /// DATA, the message, and the answer to it; or the end of a transaction that was refused before.
    async fn finish(
        &self,
        mut connection: AsyncSmtpConnection,
        begun: Result<(), Failure>,
        waiting: &Waiting,
        message: &[u8],
    ) -> Result<String, SendError> {
        let sent = match begun {
            Ok(()) => self.text(&mut connection, waiting, message).await,
            Err(failure) => Err(failure),
        };
        let limit = self.config.answer_timeout;
        let is_usable = match &sent {
            Ok(_) => true,
            Err(failure) if failure.severity == Severity::Broken => false,
            // Other mail may go over it still.
            Err(_) => answer(limit, connection.command("RSET\r\n")).await.is_ok(),
        };
        if is_usable {
            self.lock().push(Idle { connection, since: Instant::now() });
        }
        sent.map_err(|failure| match failure.severity {
            Severity::Permanent => SendError::Never(failure.why),
            Severity::Transient | Severity::Broken => SendError::Later(failure.why),
        })
    }

    async fn text(
        &self,
        connection: &mut AsyncSmtpConnection,
        waiting: &Waiting,
        message: &[u8],
    ) -> Result<String, Failure> {
        answer(self.config.answer_timeout, connection.command("DATA\r\n")).await?;
        let text = lines(message);
        let chunks = std::iter::once(waiting.head.as_bytes()).chain(text.chunks(CHUNK_BYTES));
        let limit = self.config.answer_timeout + Duration::from_secs(text.len() as u64 / BYTES_PER_SECOND_MIN);
        answer(limit, connection.message_iter(chunks)).await
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, HostError> {
        let config = &self.config;
        let host = config.host.trim_start_matches('[').trim_end_matches(']');
        let refused =
            |step| move |failure: Failure| HostError::Refused { host: config.host.clone(), step, why: failure.why };
        let tls = match config.security {
            ImapSecurity::None => None,
            ImapSecurity::Tls | ImapSecurity::Starttls => Some(self.tls(host).await?),
        };
        let implicit = tls.clone().filter(|_| config.security == ImapSecurity::Tls);
        let (limit, address) = (config.connect_timeout, (host, config.port()));
        let connecting = AsyncSmtpConnection::connect_tokio1(address, Some(limit), &self.hello, implicit, None);
        let mut connection = in_time(limit, connecting).await.map_err(refused("connecting"))?;
        if let Some(tls) = tls.filter(|_| config.security == ImapSecurity::Starttls) {
            in_time(limit, connection.starttls(tls, &self.hello)).await.map_err(refused("STARTTLS"))?;
        }
        if let Some((user, password)) = config.credentials().await? {
            let credentials = Credentials::new(user, password.expose_secret().to_owned());
            let login = connection.auth(DEFAULT_MECHANISMS, &credentials);
            in_time(config.answer_timeout, login).await.map_err(refused("logging in"))?;
        }
        Ok(connection)
    }

    async fn tls(&self, host: &str) -> Result<TlsParameters, HostError> {
        let host_name = self.config.host.clone();
        let failed = |err| HostError::Refused { host: host_name, step: "preparing TLS", why: told(&err) };
        let mut builder = TlsParameters::builder(host.to_owned());
        if let Some(file) = &self.config.ca_file {
            let unusable = |why: String| HostError::CaFile(file.clone(), why);
            let pem = tokio::fs::read(file).await.map_err(|err| unusable(err.to_string()))?;
            let authorities = Certificate::from_pem(&pem).map_err(|err| unusable(told(&err)))?;
            builder = builder.certificate_store(CertificateStore::None).add_root_certificate(authorities);
        }
        builder.build_rustls().map_err(failed)
    }

    /// The connection that was used last, if it is still good.
    fn take_idle(&self) -> Option<Idle> {
        let mut idle = self.lock();
        idle.pop_if(|newest| newest.since.elapsed() < IDLE_MAX)
    }

    /// Says goodbye on connections that were idle for too long.
    pub(super) async fn close_idle(&self) {
        let old: Vec<Idle> = self.lock().extract_if(.., |idle| idle.since.elapsed() >= IDLE_MAX).collect();
        goodbye(old).await;
    }

    /// Says goodbye on all connections that are not in use.
    pub(super) async fn close(&self) {
        let all = std::mem::take(&mut *self.lock());
        goodbye(all).await;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of one step of a dialogue.
#[derive(Debug)]
struct Failure {
    severity: Severity,
    why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    /// 5yz (RFC 5321 §4.2.1).
    Permanent,
    /// 4yz.
    Transient,
    /// There was no answer, or none that can be understood.
    Broken,
}

impl Failure {
    fn of(err: &smtp::Error) -> Self {
        let severity = match err.status() {
            // 421 closes the channel, whatever it was the answer to (RFC 5321 §3.8).
            Some(code) if u16::from(code) == 421 => Severity::Broken,
            // That we should log in, or use TLS, is no fault of the message (RFC 4954 §6, RFC 3207 §4).
            Some(code) if [530, 534, 535, 538].contains(&u16::from(code)) => Severity::Transient,
            Some(_) if err.is_permanent() => Severity::Permanent,
            Some(_) => Severity::Transient,
            None => Severity::Broken,
        };
        Self { severity, why: told(err) }
    }
}

/// Nobody waits long for the answer: the connection is over either way.
async fn goodbye(connections: Vec<Idle>) {
    let quits = connections.into_iter().map(|Idle { mut connection, .. }| async move {
        drop(timeout(GOODBYE, connection.quit()).await);
    });
    futures::future::join_all(quits).await;
}

/// The host's answer to a step, as its text.
async fn answer(limit: Duration, step: impl Future<Output = Result<Response, smtp::Error>>) -> Result<String, Failure> {
    let response = in_time(limit, step).await?;
    Ok(response.message().collect::<Vec<_>>().join(" "))
}

async fn in_time<T>(limit: Duration, step: impl Future<Output = Result<T, smtp::Error>>) -> Result<T, Failure> {
    match timeout(limit, step).await {
        Ok(done) => done.map_err(|err| Failure::of(&err)),
        Err(_) => Err(Failure { severity: Severity::Broken, why: format!("no answer within {limit:?}") }),
    }
}

/// The code and text of a reply, or what lettre says of a failure; on one line, and bounded, as it is a stranger's.
fn told(err: &smtp::Error) -> String {
    let source = std::error::Error::source(err).map(ToString::to_string);
    let text = match (err.status(), source) {
        (Some(code), Some(text)) => format!("{code} {text}"),
        _ => err.to_string(),
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_CHARACTERS_MAX).collect()
}

/// The header of a message, or all of one that has nothing else.
fn header(message: &[u8]) -> &[u8] {
    let end = memchr::memmem::find(message, b"\n\r\n").or_else(|| memchr::memmem::find(message, b"\n\n"));
    end.and_then(|end| message.get(..end)).unwrap_or(message)
}
