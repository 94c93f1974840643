//! `[smtp]`: what the receiver listens on, and the bounds of what it takes.

use std::collections::HashSet;
use std::fmt;
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
use crate::source::forward::{ForwardConfig, ForwardConfigError};
use crate::source::intake::{
    Intake, MessageAuthenticationConfig, MessageAuthenticationConfigError, Path, RouteConfig, WHOLE_MAX,
};
use crate::source::networks::Networks;

/// `[smtp]`: the SMTP receiver.
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

/// `[[smtp.listener]]`: one more socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// What is spoken: `"smtp"`, `"submission"` for programs that log in first, or `"lmtp"` for a mail server that hands
    /// over mail for final delivery.
    pub role: Role,
    /// Address and port, or the absolute path of a Unix socket.
    pub listen: SocketAddress,
    /// Who may connect to a Unix socket, as the permissions of its file. Default: `"0660"`, its user and group.
    #[serde(default)]
    pub mode: Mode,
    /// When TLS begins, as `smtp.tls`. Default: `"starttls"` where there is a certificate and the socket is no Unix
    /// socket, else `"none"`.
    #[serde(default)]
    pub tls: Option<TlsMode>,
    /// A certificate of its own. Default: `smtp.tls_certificate_file`.
    #[serde(default)]
    pub tls_certificate_file: Option<PathBuf>,
    /// The key of its certificate. Default: in the file of its own certificate, else `smtp.tls_key_file`.
    #[serde(default)]
    pub tls_key_file: Option<PathBuf>,
    /// Networks whose connections here begin with a header of the PROXY protocol. Default: `smtp.proxy_protocol_from`.
    #[serde(default)]
    pub proxy_protocol_from: Option<Networks>,
    /// Networks that may use XCLIENT here. Default: `smtp.xclient_from`.
    #[serde(default)]
    pub xclient_from: Option<Networks>,
    /// The largest message here. Default: `smtp.message_bytes_max`.
    #[serde(default)]
    pub message_bytes_max: Option<NonZeroUsize>,
    /// Recipients of one message here. Default: `smtp.recipients_max`.
    #[serde(default)]
    pub recipients_max: Option<NonZeroUsize>,
    /// Sessions here at the same time; those of all listeners stay within `smtp.sessions_max`. Default: none.
    #[serde(default)]
    pub sessions_max: Option<NonZeroUsize>,
    /// Sessions here at the same time from one address, counted apart from other listeners. Default:
    /// `smtp.sessions_per_address_max`, counted together.
    #[serde(default)]
    pub sessions_per_address_max: Option<NonZeroUsize>,
    /// Messages a minute from one address here. Default: `smtp.messages_per_minute_max`.
    #[serde(default)]
    pub messages_per_minute_max: Option<NonZeroU32>,
    /// How long a command may take here. Default: `smtp.command_timeout`.
    #[serde(default, with = "humantime_serde")]
    pub command_timeout: Option<Duration>,
    /// The rate below which text is drip-fed here. Default: `smtp.data_bytes_per_second_min`.
    #[serde(default)]
    pub data_bytes_per_second_min: Option<NonZeroU32>,
    /// How long replies may stay unread here. Default: `smtp.reply_timeout`.
    #[serde(default, with = "humantime_serde")]
    pub reply_timeout: Option<Duration>,
    /// Whether messages are verified that come here. Default: for SMTP, what `smtp.message_authentication` says; for LMTP
    /// false, since the mail server has done so.
    #[serde(default)]
    pub verify: Option<bool>,
}

impl ListenerConfig {
    /// A listener that gives nothing that `[smtp]` gives.
    pub fn new(role: Role, listen: SocketAddress) -> Self {
        Self {
            role,
            listen,
            mode: Mode::default(),
            tls: None,
            tls_certificate_file: None,
            tls_key_file: None,
            proxy_protocol_from: None,
            xclient_from: None,
            message_bytes_max: None,
            recipients_max: None,
            sessions_max: None,
            sessions_per_address_max: None,
            messages_per_minute_max: None,
            command_timeout: None,
            data_bytes_per_second_min: None,
            reply_timeout: None,
            verify: None,
        }
    }

    /// LMTP on the Unix socket `path`.
    pub fn lmtp(path: impl Into<PathBuf>) -> Self {
        Self::new(Role::Lmtp, SocketAddress::Unix(path.into()))
    }
}

/// When TLS begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// Never.
    #[default]
    None,
    /// When the client asks for it (RFC 3207).
    Starttls,
    /// Before anything is said (RFC 8314 §3).
    Implicit,
}

/// Where to listen: `127.0.0.1:24`, or `/run/postrider/lmtp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SocketAddress {
    /// Address and port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl TryFrom<String> for SocketAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.starts_with('/') {
            return Ok(Self::Unix(PathBuf::from(text)));
        }
        let address = text.parse().map_err(|_| {
            format!("`{text}` is neither ADDRESS:PORT, such as `127.0.0.1:24`, nor the absolute path of a Unix socket")
        })?;
        Ok(Self::Tcp(address))
    }
}

impl From<SocketAddress> for String {
    fn from(address: SocketAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A file's permissions, as chmod takes them: octal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mode(u32);

impl Mode {
    /// As the system takes them.
    pub(super) fn bits(self) -> u32 {
        self.0
    }
}

impl Default for Mode {
    fn default() -> Self {
        Self(0o660)
    }
}

impl TryFrom<String> for Mode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bits = u32::from_str_radix(&text, 8).ok().filter(|&bits| bits <= 0o777);
        bits.map(Self)
            .ok_or_else(|| format!("`{text}` are no permissions: give octal digits up to 0777, such as `0660`"))
    }
}

impl From<Mode> for String {
    fn from(mode: Mode) -> Self {
        format!("{:04o}", mode.0)
    }
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

/// Why the section cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SmtpConfigError {
    /// The name is not one that may stand in a greeting.
    #[error("`smtp.hostname` is `{0}`, which is neither a domain nor an address in brackets")]
    Hostname(String),
    /// The messages that are read back do not fit the memory.
    #[error(
        "`smtp.memory_bytes_max` is {memory}, less than {WHOLE_MAX} times `smtp.message_bytes_max`, which is {message}"
    )]
    Memory {
        /// The largest message.
        message: NonZeroUsize,
        /// The memory of all.
        memory: NonZeroUsize,
    },
    /// LMTP where only SMTP may be spoken.
    #[error("a `smtp.listener` speaks LMTP on port 25, which is SMTP's (RFC 2033 §5); 24 is usual for LMTP")]
    LmtpPort,
    /// How senders are verified.
    #[error(transparent)]
    MessageAuthentication(#[from] MessageAuthenticationConfigError),
    /// `[smtp.forward]`.
    #[error(transparent)]
    Forward(#[from] ForwardConfigError),
    /// A time limit that nobody could keep, or that no clock reaches.
    #[error("`smtp.{0}` must be more than zero, or no client could ever be in time, and at most 366 days")]
    Timeout(&'static str),
    /// A pause that no clock reaches.
    #[error("`smtp.{0}` must be at most 366 days")]
    Pause(&'static str),
    /// TLS is wanted, and there is nothing to do it with.
    #[error(
        "the mail listener on {0} has `tls`, and no certificate: set `smtp.tls_certificate_file` and `smtp.tls_key_file`, \
         or `tls = \"none\"`"
    )]
    NoCertificate(SocketAddress),
    /// Passwords would cross a network in the clear.
    #[error(
        "the listener for submission on {0} has no TLS, and is not for this machine only: nobody could log in; set \
         `smtp.tls_certificate_file` and `smtp.tls_key_file`"
    )]
    SubmissionInClear(SocketAddress),
    /// A user whose password is nowhere, or at several places.
    #[error(
        "the password of the `smtp.user` `{0}` comes from one of `password_file`, `password_command` and \
             `password_env`; set one of them"
    )]
    Password(String),
    /// Two users of one name, or one without.
    #[error("each `smtp.user` needs a name of its own; `{0}` is none")]
    UserName(String),
    /// A key, and nothing that it belongs to.
    #[error("`smtp.tls_key_file` is set, and `smtp.tls_certificate_file` is not; set both, or remove the key")]
    LonelyKey,
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
            if user.password_sources() != 1 {
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
mod tests {
    use super::*;

    #[test]
    fn an_empty_section_is_the_default_and_survives_toml() {
        assert_eq!(toml::from_str::<SmtpConfig>("").unwrap(), SmtpConfig::default());
        let default = SmtpConfig::default();
        assert_eq!(default.message_bytes_max.get(), 26_214_400);
        assert_eq!(default.memory_bytes_max.get(), 268_435_456);
        assert_eq!(default.data_bytes_per_second_min.get(), 500);
        assert_eq!(default.check(), Ok(()));
        assert!(toml::from_str::<SmtpConfig>("lisen = 1").is_err());
    }

    #[test]
    fn listeners_are_addresses_or_sockets() {
        let text = "listen = '0.0.0.0:25'\n[[listener]]\nrole = 'lmtp'\nlisten = '/run/lmtp'\nmode = '0666'\n\
                    [[listener]]\nrole = 'smtp'\nlisten = '[::1]:2526'";
        let config = toml::from_str::<SmtpConfig>(text).unwrap();
        let listeners: Vec<String> = config
            .listeners()
            .map(|listener| format!("{:?} {} {}", listener.role, listener.listen, String::from(listener.mode)))
            .collect();
        assert_eq!(listeners, ["Smtp 0.0.0.0:25 0660", "Lmtp /run/lmtp 0666", "Smtp [::1]:2526 0660"]);
        for wrong in
            ["listen = 'lmtp.sock'\nrole = 'lmtp'", "listen = '/x'\nrole = 'lmtp'\nmode = '9'", "listen = '/x'"]
        {
            let err = toml::from_str::<SmtpConfig>(&format!("[[listener]]\n{wrong}")).unwrap_err().to_string();
            assert!(["Unix socket", "octal", "role"].iter().any(|word| err.contains(word)), "{err}");
        }
        let only_lmtp = "enabled = false\n[[listener]]\nrole = 'lmtp'\nlisten = '/x'";
        let only_lmtp = toml::from_str::<SmtpConfig>(only_lmtp).unwrap();
        assert_eq!(only_lmtp.listeners().map(|listener| listener.role).collect::<Vec<_>>(), [Role::Lmtp]);
        let on_25 = "[[listener]]\nrole = 'lmtp'\nlisten = '0.0.0.0:25'";
        assert_eq!(toml::from_str::<SmtpConfig>(on_25).unwrap().check(), Err(SmtpConfigError::LmtpPort));
    }

    #[test]
    fn a_listener_has_its_own_values_and_those_of_all_where_it_gives_none() {
        let text = "tls_certificate_file = 'c'\ntls_key_file = 'k'\nrecipients_max = 7\nreply_timeout = '9s'\n\
                    [[listener]]\nrole = 'lmtp'\nlisten = '/run/lmtp'\nrecipients_max = 8\nsessions_max = 3\n\
                    [[listener]]\nrole = 'smtp'\nlisten = '[::1]:465'\ntls = 'implicit'\ntls_certificate_file = 'd'\n\
                    command_timeout = '1s'\nreply_timeout = '2s'";
        let config = toml::from_str::<SmtpConfig>(text).unwrap();
        assert_eq!(config.check(), Ok(()));
        let all: Vec<_> = config.listeners().collect();
        let tls = |files: (&str, &str)| Some(TlsFiles { certificate: files.0.into(), key: files.1.into() });
        let [main, socket, implicit] = &all[..] else { panic!("{all:?}") };
        assert_eq!((main.tls, &main.tls_files), (TlsMode::Starttls, &tls(("c", "k"))));
        assert_eq!((socket.tls, &socket.tls_files), (TlsMode::None, &None), "nobody can listen in on a Unix socket");
        assert_eq!((implicit.tls, &implicit.tls_files), (TlsMode::Implicit, &tls(("d", "d"))));
        assert_eq!([7, 8, 7], [main, socket, implicit].map(|listener| listener.limits.recipients_max));
        assert_eq!([None, Some(3), None], [main, socket, implicit].map(|listener| listener.limits.sessions_max));
        let timeouts = |of: &ListenerSettings| (of.limits.command_timeout.as_secs(), of.limits.reply_timeout.as_secs());
        assert_eq!([main, socket, implicit].map(timeouts), [(300, 9), (300, 9), (1, 2)]);
    }

    #[test]
    fn contradictions_are_named() {
        let check = |text: &str| toml::from_str::<SmtpConfig>(text).unwrap().check();
        let own = "[[listener]]\nrole = 'smtp'\nlisten = '127.0.0.1:26'\n";
        let at = |port: u16| SocketAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        for (text, expected) in [
            ("tls = 'implicit'".to_owned(), SmtpConfigError::NoCertificate(at(2525))),
            (format!("{own}tls = 'starttls'"), SmtpConfigError::NoCertificate(at(26))),
            ("tls_key_file = 'k'".to_owned(), SmtpConfigError::LonelyKey),
            (format!("{own}tls_key_file = 'k'"), SmtpConfigError::LonelyKey),
            (
                "[[listener]]\nrole = 'submission'\nlisten = '0.0.0.0:587'".to_owned(),
                SmtpConfigError::SubmissionInClear("0.0.0.0:587".to_owned().try_into().unwrap()),
            ),
            ("[[user]]\nname = 'a'".to_owned(), SmtpConfigError::Password("a".to_owned())),
            ("[[user]]\nname = ''\npassword_env = 'P'".to_owned(), SmtpConfigError::UserName(String::new())),
            ("[[user]]\nname = 'a'\npassword_env = 'P'\n".repeat(2), SmtpConfigError::UserName("a".to_owned())),
            (format!("{own}reply_timeout = '0s'"), SmtpConfigError::Timeout("reply_timeout")),
        ] {
            assert_eq!(check(&text), Err(expected), "{text}");
        }
        assert!(check(&format!("{own}message_bytes_max = 300_000_000")).is_err());
        let memory = toml::from_str::<SmtpConfig>("memory_bytes_max = 1000").unwrap().check().unwrap_err().to_string();
        assert!(memory.contains("message_bytes_max") && memory.contains("memory_bytes_max"), "{memory}");
        let zero = toml::from_str::<SmtpConfig>("command_timeout = '0s'").unwrap();
        assert_eq!(zero.check(), Err(SmtpConfigError::Timeout("command_timeout")));
        for name in ["command_timeout", "reply_timeout", "append_timeout"] {
            let endless = toml::from_str::<SmtpConfig>(&format!("{name} = '500000000000years'")).unwrap();
            assert_eq!(endless.check(), Err(SmtpConfigError::Timeout(name)));
        }
        for name in ["auth_failure_delay", "auth_lockout"] {
            let endless = toml::from_str::<SmtpConfig>(&format!("{name} = '500000000000years'")).unwrap();
            assert_eq!(endless.check(), Err(SmtpConfigError::Pause(name)));
        }
        for hostname in ["", "a b", "a\r\n250 b", "-"] {
            let config = SmtpConfig { hostname: Some(hostname.into()), ..SmtpConfig::default() };
            assert_eq!(config.check(), Err(SmtpConfigError::Hostname(hostname.into())));
            assert_eq!(config.announced_name(), "localhost");
        }
        let named = SmtpConfig { hostname: Some("[192.0.2.1]".into()), ..SmtpConfig::default() };
        assert_eq!((named.check(), named.announced_name()), (Ok(()), "[192.0.2.1]".into()));
        assert!(is_hostname(&SmtpConfig::default().announced_name()));
    }
}
