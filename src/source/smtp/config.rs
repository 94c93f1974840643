//! `[smtp]`: what the receiver listens on, and the bounds of what it takes.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::path::Path;

/// `[smtp]`: the SMTP receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmtpConfig {
    /// Whether to receive mail at all. Default: true.
    pub enabled: bool,
    /// Address and port to listen on. Default: `"127.0.0.1:2525"`, for programs on this machine only.
    pub listen: SocketAddr,
    /// The name in the greeting: a domain, or an address in brackets. Default: the machine's name.
    pub hostname: Option<String>,
    /// The largest message, in octets; announced by SIZE. Default: 26214400 (25 MiB).
    pub message_bytes_max: NonZeroUsize,
    /// Memory for the messages of all sessions together, in octets; past that, senders are told to try again later.
    /// Default: 268435456 (256 MiB).
    pub memory_bytes_max: NonZeroUsize,
    /// Recipients of one message. Default: 100, the least that RFC 5321 §4.5.3.1.8 allows.
    pub recipients_max: NonZeroUsize,
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
    /// Domains in which clients on this machine may write to any account by its name: `account+mailbox@localhost`.
    /// Default: `["localhost"]` while no account is configured, else none.
    pub local_domains: Option<Vec<String>>,
}

impl Default for SmtpConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 2525)),
            hostname: None,
            message_bytes_max: MESSAGE_BYTES_MAX,
            memory_bytes_max: MEMORY_BYTES_MAX,
            recipients_max: HUNDRED,
            sessions_max: THOUSAND,
            sessions_per_address_max: HUNDRED,
            command_timeout: Duration::from_mins(5),
            data_bytes_per_second_min: DATA_BYTES_PER_SECOND_MIN,
            reply_timeout: Duration::from_mins(1),
            append_timeout: Duration::from_secs(30),
            local_domains: None,
        }
    }
}

const MESSAGE_BYTES_MAX: NonZeroUsize = non_zero(25 * 1024 * 1024);
const MEMORY_BYTES_MAX: NonZeroUsize = non_zero(256 * 1024 * 1024);
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
    /// Not even one message fits the memory.
    #[error("`smtp.message_bytes_max` is {message}, more than `smtp.memory_bytes_max`, which is {memory}")]
    Memory {
        /// The largest message.
        message: NonZeroUsize,
        /// The memory of all.
        memory: NonZeroUsize,
    },
    /// A time limit of zero.
    #[error("`smtp.{0}` is zero: no client could ever be in time")]
    Timeout(&'static str),
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
        let (message, memory) = (self.message_bytes_max, self.memory_bytes_max);
        if message > memory {
            return Err(SmtpConfigError::Memory { message, memory });
        }
        let timeouts = [
            ("command_timeout", self.command_timeout),
            ("reply_timeout", self.reply_timeout),
            ("append_timeout", self.append_timeout),
        ];
        match timeouts.iter().find(|(_, timeout)| timeout.is_zero()) {
            Some((name, _)) => Err(SmtpConfigError::Timeout(name)),
            None => Ok(()),
        }
    }

    /// The name in the greeting.
    pub(super) fn announced_name(&self) -> String {
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
    fn contradictions_are_named() {
        let memory = toml::from_str::<SmtpConfig>("memory_bytes_max = 1000").unwrap().check().unwrap_err().to_string();
        assert!(memory.contains("message_bytes_max") && memory.contains("memory_bytes_max"), "{memory}");
        let zero = toml::from_str::<SmtpConfig>("command_timeout = '0s'").unwrap();
        assert_eq!(zero.check(), Err(SmtpConfigError::Timeout("command_timeout")));
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
