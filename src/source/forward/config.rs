//! `[smtp.forward]`: the smart host that mail goes on through, and how long it waits.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{DURATION_MAX, is_loopback};
use crate::event_log::OutboxLimits;
use crate::registry::{ImapSecurity, PasswordError, PasswordSource};
use crate::source::intake::Path;

/// `[smtp.forward]`: the server that mail goes on through, for accounts and routes with a `forward`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardConfig {
    /// Host name or address of the smart host.
    pub host: String,
    /// Port. Default: 465 with implicit TLS, 587 with STARTTLS, 25 without TLS.
    #[serde(default)]
    pub port: Option<u16>,
    /// `"tls"` (implicit), `"starttls"`, or `"none"`. Default: `"tls"`.
    #[serde(default)]
    pub security: ImapSecurity,
    /// With `security = "none"`, allows the password to cross a network that is not loopback. Default: false.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// A file with the certificate authorities (PEM) that the host's certificate may come from, instead of the
    /// system's. Default: the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// User name at the smart host. Default: none, it lets us send without one.
    #[serde(default)]
    pub username: Option<String>,
    /// A file whose first line is the password. Default: none.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The environment variable that holds the password. Default: none.
    #[serde(default)]
    pub password_env: Option<String>,
    /// The reverse-path of what is sent on. Default: that of the message.
    #[serde(default)]
    pub mail_from: Option<String>,
    /// Messages that are sent at the same time. Default: 4.
    #[serde(default = "in_flight_max")]
    pub in_flight_max: NonZeroUsize,
    /// Recipients that may wait; past that, senders are told to try again later. Default: 10000.
    #[serde(default = "queue_max")]
    pub queue_max: NonZeroU64,
    /// Octets of messages that may wait. Default: 1073741824 (1 GiB).
    #[serde(default = "queue_bytes_max")]
    pub queue_bytes_max: NonZeroU64,
    /// The first pause before a refused message, or a host that does not answer, is tried again; it doubles with each
    /// failure. Default: `"1m"`.
    #[serde(default = "retry_first", with = "humantime_serde")]
    pub retry_first: Duration,
    /// The longest pause. Default: `"1h"`.
    #[serde(default = "retry_max", with = "humantime_serde")]
    pub retry_max: Duration,
    /// After this time a message is given up. Default: `"4days"`.
    #[serde(default = "give_up_after", with = "humantime_serde")]
    pub give_up_after: Duration,
    /// How long the smart host may take to be reached, TLS included. Default: `"30s"`.
    #[serde(default = "connect_timeout", with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long it may take to answer. Default: `"5m"`, the least that RFC 5321 §4.5.3.2 allows.
    #[serde(default = "answer_timeout", with = "humantime_serde")]
    pub answer_timeout: Duration,
}

fn in_flight_max() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(3)
}

fn queue_max() -> NonZeroU64 {
    NonZeroU64::MIN.saturating_add(9_999)
}

fn queue_bytes_max() -> NonZeroU64 {
    NonZeroU64::MIN.saturating_add((1 << 30) - 1)
}

fn retry_first() -> Duration {
    Duration::from_mins(1)
}

fn retry_max() -> Duration {
    Duration::from_hours(1)
}

fn give_up_after() -> Duration {
    Duration::from_hours(4 * 24)
}

fn connect_timeout() -> Duration {
    Duration::from_secs(30)
}

fn answer_timeout() -> Duration {
    Duration::from_mins(5)
}

/// Why the section cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardConfigError {
    /// There is no host.
    #[error("`smtp.forward.host` is empty")]
    Host,
    /// A password without a user, or the reverse.
    #[error("`smtp.forward` needs `username` and one of `password_file` and `password_env`, or none of them")]
    Password,
    /// The password could be read on the way.
    #[error(
        "`smtp.forward.security` is \"none\", and `host` is not this machine: anybody on the way could read the \
         password; use \"tls\" or \"starttls\", or set `allow_plaintext = true` if the way is protected otherwise"
    )]
    Plaintext,
    /// Authorities without TLS.
    #[error("`smtp.forward.ca_file` is of no use with `smtp.forward.security` \"none\"; remove one of them")]
    Authorities,
    /// Not an address.
    #[error("`smtp.forward.mail_from` is `{0}`, which is not of the form `local@domain`")]
    MailFrom(String),
    /// A time that cannot be.
    #[error("`smtp.forward.{0}` must be more than zero and at most 366 days")]
    Time(&'static str),
    /// Pauses that shrink.
    #[error("`smtp.forward.retry_first` is longer than `smtp.forward.retry_max`")]
    Retry,
}

impl ForwardConfig {
    /// A smart host with every default: TLS, and no password.
    pub fn new(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            port: None,
            security: ImapSecurity::default(),
            allow_plaintext: false,
            ca_file: None,
            username: None,
            password_file: None,
            password_env: None,
            mail_from: None,
            in_flight_max: in_flight_max(),
            queue_max: queue_max(),
            queue_bytes_max: queue_bytes_max(),
            retry_first: retry_first(),
            retry_max: retry_max(),
            give_up_after: give_up_after(),
            connect_timeout: connect_timeout(),
            answer_timeout: answer_timeout(),
        }
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.security {
            ImapSecurity::Tls => 465,
            ImapSecurity::Starttls => 587,
            ImapSecurity::None => 25,
        })
    }

    /// What may wait.
    pub(crate) fn limits(&self) -> OutboxLimits {
        OutboxLimits { recipients: self.queue_max.get(), bytes: self.queue_bytes_max.get() }
    }

    /// User name and password, where there are any, fetched now.
    ///
    /// # Errors
    /// See [`PasswordError`].
    pub(super) async fn credentials(&self) -> Result<Option<(String, secrecy::SecretString)>, PasswordError> {
        let Some(username) = &self.username else { return Ok(None) };
        let password = self.source().password().await?;
        Ok(Some((username.clone(), password)))
    }

    fn source(&self) -> PasswordSource<'_> {
        let (file, env) = (self.password_file.as_deref(), self.password_env.as_deref());
        PasswordSource { file, env, ..PasswordSource::default() }
    }

    /// Finds settings that contradict each other or cannot be.
    ///
    /// # Errors
    /// See [`ForwardConfigError`].
    pub fn check(&self) -> Result<(), ForwardConfigError> {
        let plain = self.security == ImapSecurity::None;
        let is_address = |text: &String| Path::parse(text).is_some_and(|path| path.domain().is_some());
        let times = [
            ("retry_first", self.retry_first),
            ("retry_max", self.retry_max),
            ("give_up_after", self.give_up_after),
            ("connect_timeout", self.connect_timeout),
            ("answer_timeout", self.answer_timeout),
        ];
        match self {
            _ if self.host.is_empty() => Err(ForwardConfigError::Host),
            _ if self.source().given() != usize::from(self.username.is_some()) => Err(ForwardConfigError::Password),
            _ if plain && self.username.is_some() && !self.allow_plaintext && !is_loopback(&self.host) => {
                Err(ForwardConfigError::Plaintext)
            }
            _ if plain && self.ca_file.is_some() => Err(ForwardConfigError::Authorities),
            Self { mail_from: Some(address), .. } if !is_address(address) => {
                Err(ForwardConfigError::MailFrom(address.clone()))
            }
            _ if self.retry_first > self.retry_max => Err(ForwardConfigError::Retry),
            _ => match times.iter().find(|(_, time)| time.is_zero() || *time > DURATION_MAX) {
                Some((name, _)) => Err(ForwardConfigError::Time(name)),
                None => Ok(()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_is_enough() {
        let config: ForwardConfig = toml::from_str("host = 'smtp.example.org'").unwrap();
        assert_eq!(config, ForwardConfig::new("smtp.example.org"));
        assert_eq!((config.port(), config.check()), (465, Ok(())));
        assert_eq!((config.queue_max.get(), config.queue_bytes_max.get()), (10_000, 1_073_741_824));
    }

    #[test]
    fn contradictions_are_named() {
        for (text, word) in [
            ("host = ''", "host"),
            ("username = 'a'", "password_file"),
            ("password_env = 'P'", "username"),
            ("username = 'a'\npassword_env = 'P'\npassword_file = 'p'", "one of"),
            ("username = 'a'\npassword_env = 'P'\nsecurity = 'none'", "allow_plaintext"),
            ("ca_file = 'ca.pem'\nsecurity = 'none'", "ca_file"),
            ("mail_from = 'postmaster'", "local@domain"),
            ("retry_first = '2h'", "retry_max"),
            ("give_up_after = '0s'", "give_up_after"),
            ("retry_max = '500000000000years'", "retry_max"),
            ("answer_timeout = '500000000000years'", "answer_timeout"),
        ] {
            let host = if text.starts_with("host") { "" } else { "host = 'smtp.example.org'\n" };
            let err =
                toml::from_str::<ForwardConfig>(&format!("{host}{text}")).unwrap().check().unwrap_err().to_string();
            assert!(err.contains(word), "{text}: {err}");
        }
        let local = "host = '127.0.0.1'\nusername = 'a'\npassword_env = 'P'\nsecurity = 'none'";
        assert_eq!(toml::from_str::<ForwardConfig>(local).unwrap().check(), Ok(()));
    }
}
