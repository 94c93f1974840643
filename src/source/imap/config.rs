//! `[imap]`: how mailboxes are watched. Where they are is each account's own section.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::DURATION_MAX;

/// `[imap]`: the watcher of IMAP mailboxes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImapConfig {
    /// How long one IDLE lasts before it is renewed, ±10 %. NATs forget quiet connections after 5 to 15 minutes, and
    /// a dead connection is noticed at the latest here. At most 29 minutes (RFC 9051 §6.3.13). Default: `"4m 30s"`.
    #[serde(with = "humantime_serde")]
    pub idle_renew: Duration,
    /// Pause between questions for new mail where the server has no usable IDLE. Default: `"1m"`.
    #[serde(with = "humantime_serde")]
    pub poll_interval: Duration,
    /// New messages of one mailbox that are found at once, mostly since nobody watched, and that are announced one by
    /// one, the newest; one `MailboxOverflow` stands for older ones. Default: 200.
    pub catch_up_max: NonZeroUsize,
    /// Connections to one host that are being set up at the same time. Default: 4.
    pub connects_per_host_max: NonZeroUsize,
    /// New connections in a second, to all hosts together. Default: 50.
    pub connects_per_second: NonZeroU32,
    /// New connections in a second, to one host. Default: 5.
    pub connects_per_host_per_second: NonZeroU32,
    /// How often the mailboxes of an account are looked at that have no connection of their own, where the server does
    /// not tell of them by itself (NOTIFY). Default: `"1m"`.
    #[serde(with = "humantime_serde")]
    pub sweep_interval: Duration,
    /// How often a watched mailbox is looked at although nothing was announced: some servers accept IDLE and never
    /// speak. Default: `"15m"`.
    #[serde(with = "humantime_serde")]
    pub safety_poll: Duration,
    /// Whether NOTIFY (RFC 5465) is used where a server offers it. Default: true.
    pub notify: bool,
    /// Octets of readable text that are fetched for an account with `content = "text"`. Default: 65536.
    pub text_bytes_max: NonZeroU32,
    /// For finding the host's address and connecting to it; the TLS handshake has as long again. Default: `"10s"`.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// For the greeting, and for the answer to each step of logging in; some servers delay both. Default: `"30s"`.
    #[serde(with = "humantime_serde")]
    pub login_timeout: Duration,
    /// For opening a mailbox; a server that has to scan a big one takes seconds, a slow one minutes. Default: `"5m"`.
    #[serde(with = "humantime_serde")]
    pub open_timeout: Duration,
    /// Silence in an answer to any other command. Default: `"1m"`.
    #[serde(with = "humantime_serde")]
    pub answer_timeout: Duration,
    /// For the answer to the end of IDLE; after that the connection counts as dead. Default: `"15s"`.
    #[serde(with = "humantime_serde")]
    pub done_timeout: Duration,
    /// A file in the form of `config/providers.toml` that says more of mail providers, or other things. Default: none.
    pub providers_file: Option<PathBuf>,
    /// The first pause before a lost connection is tried again; it doubles with each failure. Default: `"2s"`.
    #[serde(with = "humantime_serde")]
    pub retry_first: Duration,
    /// The longest such pause. Default: `"10m"`.
    #[serde(with = "humantime_serde")]
    pub retry_max: Duration,
}

impl Default for ImapConfig {
    fn default() -> Self {
        Self {
            idle_renew: Duration::from_secs(270),
            poll_interval: Duration::from_mins(1),
            catch_up_max: NonZeroUsize::MIN.saturating_add(199),
            connects_per_host_max: NonZeroUsize::MIN.saturating_add(3),
            connects_per_second: NonZeroU32::MIN.saturating_add(49),
            connects_per_host_per_second: NonZeroU32::MIN.saturating_add(4),
            sweep_interval: Duration::from_mins(1),
            safety_poll: Duration::from_mins(15),
            notify: true,
            text_bytes_max: NonZeroU32::MIN.saturating_add(65_535),
            connect_timeout: Duration::from_secs(10),
            login_timeout: Duration::from_secs(30),
            open_timeout: Duration::from_mins(5),
            answer_timeout: Duration::from_mins(1),
            done_timeout: Duration::from_secs(15),
            providers_file: None,
            retry_first: Duration::from_secs(2),
            retry_max: Duration::from_mins(10),
        }
    }
}

/// Why the section cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImapConfigError {
    /// The server may hang up on a client that idles for so long.
    #[error("`imap.idle_renew` must be at most 29 minutes, since servers may hang up after 30 (RFC 9051 §6.3.13)")]
    RenewTooLate,
    /// The pauses contradict each other.
    #[error("`imap.retry_first` is longer than `imap.retry_max`; make one of them fit the other")]
    RetryOrder,
    /// A time of zero would spin or fail at once.
    #[error("`imap.{0}` must be at least {1:?}")]
    TooShort(&'static str, Duration),
    /// No clock reaches that.
    #[error("`imap.{0}` must be at most 366 days")]
    TooLong(&'static str),
    /// A literal of that size would be refused as an attack.
    #[error("`imap.text_bytes_max` must be at most {0}")]
    TextTooLong(u32),
}

impl ImapConfig {
    /// More text than this is never asked for: it has to fit in one literal that is accepted from a server.
    const TEXT_BYTES_LIMIT: u32 = 512 * 1024;

    /// Checks what a type cannot say.
    ///
    /// # Errors
    /// See [`ImapConfigError`].
    pub fn check(&self) -> Result<(), ImapConfigError> {
        let second = Duration::from_secs(1);
        let least = [
            ("idle_renew", self.idle_renew, Duration::from_secs(10)),
            ("poll_interval", self.poll_interval, second),
            ("sweep_interval", self.sweep_interval, second),
            ("safety_poll", self.safety_poll, second),
            ("connect_timeout", self.connect_timeout, second),
            ("login_timeout", self.login_timeout, second),
            ("open_timeout", self.open_timeout, second),
            ("answer_timeout", self.answer_timeout, second),
            ("done_timeout", self.done_timeout, second),
            ("retry_first", self.retry_first, Duration::from_millis(100)),
            ("retry_max", self.retry_max, Duration::ZERO),
        ];
        if let Some((name, ..)) = least.iter().find(|(_, value, _)| *value > DURATION_MAX) {
            return Err(ImapConfigError::TooLong(name));
        }
        if let Some((name, _, least)) = least.into_iter().find(|(_, value, least)| value < least) {
            return Err(ImapConfigError::TooShort(name, least));
        }
        if self.idle_renew > Duration::from_mins(29) {
            return Err(ImapConfigError::RenewTooLate);
        }
        if self.retry_first > self.retry_max {
            return Err(ImapConfigError::RetryOrder);
        }
        if self.text_bytes_max.get() > Self::TEXT_BYTES_LIMIT {
            return Err(ImapConfigError::TextTooLong(Self::TEXT_BYTES_LIMIT));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_is_valid_and_survives_toml() {
        let config = ImapConfig::default();
        assert_eq!(config.check(), Ok(()));
        assert_eq!((config.catch_up_max.get(), config.connects_per_host_max.get()), (200, 4));
        assert_eq!(config.text_bytes_max.get(), 65_536);
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<ImapConfig>(&text).unwrap(), config);
        assert_eq!(toml::from_str::<ImapConfig>("").unwrap(), config);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let with = |text| toml::from_str::<ImapConfig>(text).unwrap().check();
        assert_eq!(with("idle_renew = '30m'"), Err(ImapConfigError::RenewTooLate));
        assert_eq!(with("retry_max = '1s'"), Err(ImapConfigError::RetryOrder));
        assert_eq!(with("open_timeout = '500000000000years'"), Err(ImapConfigError::TooLong("open_timeout")));
        assert!(matches!(with("done_timeout = '0s'"), Err(ImapConfigError::TooShort("done_timeout", _))));
        assert!(matches!(with("text_bytes_max = 1000000"), Err(ImapConfigError::TextTooLong(_))));
        assert!(toml::from_str::<ImapConfig>("idle = '1m'").is_err());
    }
}
