//! `[smtp]`: what the receiver listens on, and the bounds of what it takes.

mod error;
mod listener;

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limits::ListenerSettings;
use super::session::Role;
use super::tls::TlsFiles;
use super::users::UserConfig;
use crate::config::DURATION_MAX;
use crate::source::forward::ForwardConfig;
use crate::source::intake::{Intake, MessageAuthenticationConfig, Path, RouteConfig, WHOLE_MAX};
use crate::source::networks::Networks;

pub use error::SmtpConfigError;
pub use listener::{ListenerConfig, Mode, SocketAddress, TlsMode};

/// `[smtp]`: the mail receiver, for SMTP, submission and LMTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmtpConfig {
    /// Whether to listen on `listen`; what `listener` names is listened on all the same. Default: true.
    pub enabled: bool,
    /// Address and port to listen on. Default: `"127.0.0.1:2525"`, for programs on this machine only.
    pub listen: SocketAddr,
    /// The name in the greeting: a domain, or an address in brackets. Default: the machine's name.
    pub hostname: Option<String>,
    /// When TLS begins on `listen`: `"none"`, `"starttls"` (when the client asks for it) or `"implicit"` (at once).
    /// Default: `"starttls"` where there is a certificate, else `"none"`.
    pub tls: Option<TlsMode>,
    /// The certificate for TLS, with the chain that leads to its authority, as PEM; read again when it changes.
    /// Default: none, and no TLS.
    pub tls_certificate_file: Option<PathBuf>,
    /// The certificate's key, as PEM without a passphrase. Default: in the certificate's file.
    pub tls_key_file: Option<PathBuf>,
    /// The largest message, in octets; announced by SIZE. Default: 26214400 (25 MiB).
    pub message_bytes_max: NonZeroUsize,
    /// How much of one message is kept in memory while it comes in, in octets; a longer one waits in a file without a name
    /// in the data folder's `spool`. Default: 1048576 (1 MiB).
    pub message_memory_bytes_max: NonZeroUsize,
    /// Memory for the messages of all sessions together, in octets. Four of the largest messages have to fit, for they are
    /// needed whole when they are complete; when what remains is used up, smaller messages wait in files too.
    /// Default: 268435456 (256 MiB).
    pub memory_bytes_max: NonZeroUsize,
    /// Files for the messages of all sessions together, in octets; past that, senders are told to try again later.
    /// Default: 4294967296 (4 GiB).
    pub spool_bytes_max: NonZeroUsize,
    /// Recipients of one message. Default: 100, the least that RFC 5321 §4.5.3.1.8 allows.
    pub recipients_max: NonZeroUsize,
    /// Networks of proxies whose connections begin with a header of the PROXY protocol, version 1 or 2, that tells the
    /// client's address: such as `10.0.0.0/8`, `::1`, or `unix` for Unix sockets. Default: none.
    pub proxy_protocol_from: Networks,
    /// Networks of proxies that speak SMTP and may tell whose mail they pass on, by XCLIENT. Default: none.
    pub xclient_from: Networks,
    /// Sessions at the same time; the next client waits unaccepted. Default: 1000.
    pub sessions_max: NonZeroUsize,
    /// Sessions at the same time from one IPv4 address or IPv6 /64 network; the next is refused. Default: 100.
    pub sessions_per_address_max: NonZeroUsize,
    /// How long a client may take to complete a command, and be silent within a message's text. Default: `"5m"`, the
    /// least that RFC 5321 §4.5.3.2.7 allows.
    #[serde(with = "humantime_serde")]
    pub command_timeout: Duration,
    /// The rate below which a message's text counts as drip-fed once `command_timeout` is over, in octets a second.
    /// Default: 500.
    pub data_bytes_per_second_min: NonZeroU32,
    /// How long a client may leave replies unread. Default: `"1m"`.
    #[serde(with = "humantime_serde")]
    pub reply_timeout: Duration,
    /// How long a message may wait for the event log before its sender is told to try again later. Default: `"30s"`.
    #[serde(with = "humantime_serde")]
    pub append_timeout: Duration,
    /// `Received` fields that a message may have; one with more goes round in circles and is refused. Default: 50.
    pub received_max: NonZeroUsize,
    /// Domains in which clients on this machine may write to any account by its name: `account+mailbox@localhost`.
    /// Default: `["localhost"]` while no account is configured, else none.
    pub local_domains: Option<Vec<String>>,
    /// Messages a minute from one IPv4 address or IPv6 /64 network on each listener; the next is to be sent later. Default:
    /// as many as come.
    pub messages_per_minute_max: Option<NonZeroU32>,
    /// Failed logins of one name from one address, after which it is refused there for `auth_lockout`. Default: 10.
    pub auth_failures_max: NonZeroU32,
    /// How long the answer to the first failed login waits; each further one waits twice as long, up to 30 s. Default:
    /// `"1s"`.
    #[serde(with = "humantime_serde")]
    pub auth_failure_delay: Duration,
    /// How long failed logins count. Default: `"15m"`.
    #[serde(with = "humantime_serde")]
    pub auth_lockout: Duration,
    /// Who may log in on listeners whose role is `"submission"`. Default: none.
    pub user: Vec<UserConfig>,
    /// How it is found out who really sent a message.
    pub message_authentication: MessageAuthenticationConfig,
    /// Where mail goes beyond what accounts' `addresses` say, each an account's. Default: none.
    pub route: Vec<RouteConfig>,
    /// More sockets to receive mail on, each with what is spoken there. Default: none.
    pub listener: Vec<ListenerConfig>,
    /// The smart host that mail goes on through, for accounts and routes with a `forward`. Default: none.
    pub forward: Option<ForwardConfig>,
}

impl Default for SmtpConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 2525)),
            hostname: None,
            tls: None,
            tls_certificate_file: None,
            tls_key_file: None,
            message_bytes_max: MESSAGE_BYTES_MAX,
            message_memory_bytes_max: MESSAGE_MEMORY_BYTES_MAX,
            memory_bytes_max: MEMORY_BYTES_MAX,
            spool_bytes_max: SPOOL_BYTES_MAX,
            recipients_max: HUNDRED,
            proxy_protocol_from: Networks::default(),
            xclient_from: Networks::default(),
            sessions_max: THOUSAND,
            sessions_per_address_max: HUNDRED,
            command_timeout: Duration::from_mins(5),
            data_bytes_per_second_min: DATA_BYTES_PER_SECOND_MIN,
            reply_timeout: Duration::from_mins(1),
            append_timeout: Duration::from_secs(30),
            received_max: NonZeroUsize::MIN.saturating_add(Intake::RECEIVED_MAX - 1),
            local_domains: None,
            messages_per_minute_max: None,
            auth_failures_max: TEN,
            auth_failure_delay: Duration::from_secs(1),
            auth_lockout: Duration::from_mins(15),
            user: Vec::new(),
            message_authentication: MessageAuthenticationConfig::default(),
            route: Vec::new(),
            listener: Vec::new(),
            forward: None,
        }
    }
}

const MESSAGE_BYTES_MAX: NonZeroUsize = non_zero(25 * 1024 * 1024);
const MESSAGE_MEMORY_BYTES_MAX: NonZeroUsize = non_zero(1024 * 1024);
const MEMORY_BYTES_MAX: NonZeroUsize = non_zero(256 * 1024 * 1024);
const SPOOL_BYTES_MAX: NonZeroUsize = non_zero(4 * 1024 * 1024 * 1024);
const TEN: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);
const HUNDRED: NonZeroUsize = non_zero(100);
const THOUSAND: NonZeroUsize = non_zero(1000);
const DATA_BYTES_PER_SECOND_MIN: NonZeroU32 = NonZeroU32::MIN.saturating_add(499);

/// For constants, which the compiler evaluates: adding to one needs no unwrapping.
const fn non_zero(number: usize) -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(number - 1)
}

fn check_timeouts(timeouts: &[(&'static str, Duration)]) -> Result<(), SmtpConfigError> {
    match timeouts.iter().find(|(_, timeout)| timeout.is_zero() || *timeout > DURATION_MAX) {
        Some((name, _)) => Err(SmtpConfigError::Timeout(name)),
        None => Ok(()),
    }
}

impl SmtpConfig {
    /// Finds settings that contradict each other or cannot be.
    ///
    /// # Errors
    /// See [`SmtpConfigError`].
    pub fn check(&self) -> Result<(), SmtpConfigError> {
        if let Some(hostname) = self.hostname.as_ref().filter(|name| !is_hostname(name)) {
            return Err(SmtpConfigError::Hostname(hostname.clone()));
        }
        let is_25 = |at: &SocketAddress| matches!(at, SocketAddress::Tcp(address) if address.port() == 25);
        if self.listener.iter().any(|listener| listener.role == Role::Lmtp && is_25(&listener.listen)) {
            return Err(SmtpConfigError::LmtpPort);
        }
        self.check_users()?;
        self.message_authentication.check(self.listener.iter().any(|listener| listener.verify == Some(true)))?;
        self.forward.as_ref().map_or(Ok(()), ForwardConfig::check)?;
        check_timeouts(&[("append_timeout", self.append_timeout)])?;
        let pauses = [("auth_failure_delay", self.auth_failure_delay), ("auth_lockout", self.auth_lockout)];
        if let Some((name, _)) = pauses.iter().find(|(_, pause)| *pause > DURATION_MAX) {
            return Err(SmtpConfigError::Pause(name));
        }
        // What `[smtp]` says must be right even where nobody listens on `listen`.
        self.all_listeners().try_for_each(|listener| self.check_listener(&listener))
    }

    fn check_users(&self) -> Result<(), SmtpConfigError> {
        let mut names = HashSet::new();
        for user in &self.user {
            if user.name.is_empty() || !names.insert(&user.name) {
                return Err(SmtpConfigError::UserName(user.name.clone()));
            }
            if user.source().given() != 1 {
                return Err(SmtpConfigError::Password(user.name.clone()));
            }
        }
        Ok(())
    }

    fn check_listener(&self, listener: &ListenerConfig) -> Result<(), SmtpConfigError> {
        let settings = ListenerSettings::of(listener, self);
        let (message, memory) = (listener.message_bytes_max.unwrap_or(self.message_bytes_max), self.memory_bytes_max);
        if message.get().saturating_mul(WHOLE_MAX) > memory.get() {
            return Err(SmtpConfigError::Memory { message, memory });
        }
        if settings.tls != TlsMode::None && settings.tls_files.is_none() {
            return Err(SmtpConfigError::NoCertificate(settings.listen));
        }
        if settings.role == Role::Submission && settings.tls == TlsMode::None && !settings.is_local() {
            return Err(SmtpConfigError::SubmissionInClear(settings.listen));
        }
        let has_key = self.tls_key_file.is_some() || listener.tls_key_file.is_some();
        if has_key && self.tls_certificate_file.is_none() && listener.tls_certificate_file.is_none() {
            return Err(SmtpConfigError::LonelyKey);
        }
        let limits = &settings.limits;
        check_timeouts(&[("command_timeout", limits.command_timeout), ("reply_timeout", limits.reply_timeout)])
    }

    /// What is read at the start only: the section without what says where mail goes.
    pub(crate) fn at_start(&self) -> Self {
        Self { route: Vec::new(), local_domains: None, ..self.clone() }
    }

    /// All sockets that mail is received on; that of `listen`, if it is enabled, is the first.
    pub fn listeners(&self) -> impl Iterator<Item = ListenerSettings> + '_ {
        let off = usize::from(!self.enabled);
        self.all_listeners().skip(off).map(|listener| ListenerSettings::of(&listener, self))
    }

    /// That of `listen` first, enabled or not.
    fn all_listeners(&self) -> impl Iterator<Item = ListenerConfig> + '_ {
        let first = ListenerConfig::new(Role::Smtp, SocketAddress::Tcp(self.listen));
        std::iter::once(ListenerConfig { tls: self.tls, ..first }).chain(self.listener.iter().cloned())
    }

    /// Certificate and key of a listener, its own or that of all.
    pub(super) fn tls_files(&self, listener: &ListenerConfig) -> Option<TlsFiles> {
        let (own, key) = (&listener.tls_certificate_file, &listener.tls_key_file);
        let key = key.as_ref().or(self.tls_key_file.as_ref().filter(|_| own.is_none()));
        let certificate = own.as_ref().or(self.tls_certificate_file.as_ref())?;
        Some(TlsFiles { certificate: certificate.clone(), key: key.unwrap_or(certificate).clone() })
    }

    /// When TLS begins on a listener.
    pub(super) fn tls_mode(&self, listener: &ListenerConfig) -> TlsMode {
        let unsaid = match listener.listen {
            SocketAddress::Tcp(_) if self.tls_files(listener).is_some() => TlsMode::Starttls,
            _ => TlsMode::None,
        };
        listener.tls.unwrap_or(unsaid)
    }

    /// The name in the greeting.
    pub fn announced_name(&self) -> String {
        let machine = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let name = self.hostname.clone().or_else(|| machine().map(|name| name.trim().to_owned()));
        name.filter(|name| is_hostname(name)).unwrap_or_else(|| "localhost".to_owned())
    }
}

fn is_hostname(name: &str) -> bool {
    name.is_ascii() && Path::parse(&format!("postmaster@{name}")).is_some()
}

#[cfg(test)]
mod tests;
