//! `[jmap]`: how JMAP servers are watched. Where they are is each account's own section.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::DURATION_MAX;

/// `[jmap]`: the watcher of JMAP accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JmapConfig {
    /// How often the server is asked to say that the event stream is alive (RFC 8620 §7.3). A stream that was silent
    /// for two and a half times as long counts as dead. Default: `"1m"`.
    #[serde(with = "humantime_serde")]
    pub ping: Duration,
    /// Pause between questions for changes where the server has no event stream. Default: `"1m"`.
    #[serde(with = "humantime_serde")]
    pub poll_interval: Duration,
    /// Messages that came while nobody watched and that are announced one by one, the newest; one `MailboxOverflow`
    /// stands for older ones. Default: 200.
    pub catch_up_max: NonZeroUsize,
    /// Messages of an account, the newest, whose flags and mailboxes are remembered, so that what changed can be told.
    /// Default: 1000.
    pub remembered_max: NonZeroUsize,
    /// For the connection, TLS included. Default: `"10s"`.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Silence before and in an answer. Default: `"1m"`.
    #[serde(with = "humantime_serde")]
    pub answer_timeout: Duration,
    /// The first pause before a failed connection is tried again; it doubles with each failure. Default: `"2s"`.
    #[serde(with = "humantime_serde")]
    pub retry_first: Duration,
    /// The longest such pause. Default: `"10m"`.
    #[serde(with = "humantime_serde")]
    pub retry_max: Duration,
}

impl Default for JmapConfig {
    fn default() -> Self {
        Self {
            ping: Duration::from_mins(1),
            poll_interval: Duration::from_mins(1),
            catch_up_max: NonZeroUsize::MIN.saturating_add(199),
            remembered_max: NonZeroUsize::MIN.saturating_add(999),
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_mins(1),
            retry_first: Duration::from_secs(2),
            retry_max: Duration::from_mins(10),
        }
    }
}

/// Why the section cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JmapConfigError {
    /// The pauses contradict each other.
    #[error("`jmap.retry_first` is longer than `jmap.retry_max`; make one of them fit the other")]
    RetryOrder,
    /// A time of zero would spin or fail at once.
    #[error("`jmap.{0}` must be at least {1:?}")]
    TooShort(&'static str, Duration),
    /// No clock reaches that.
    #[error("`jmap.{0}` must be at most 366 days")]
    TooLong(&'static str),
}

impl JmapConfig {
    /// Checks what a type cannot say.
    ///
    /// # Errors
    /// See [`JmapConfigError`].
    pub fn check(&self) -> Result<(), JmapConfigError> {
        let second = Duration::from_secs(1);
        let least = [
            ("ping", self.ping, second),
            ("poll_interval", self.poll_interval, second),
            ("connect_timeout", self.connect_timeout, second),
            ("answer_timeout", self.answer_timeout, second),
            ("retry_first", self.retry_first, Duration::from_millis(100)),
            ("retry_max", self.retry_max, Duration::ZERO),
        ];
        if let Some((name, ..)) = least.iter().find(|(_, value, _)| *value > DURATION_MAX) {
            return Err(JmapConfigError::TooLong(name));
        }
        if let Some((name, _, least)) = least.into_iter().find(|(_, value, least)| value < least) {
            return Err(JmapConfigError::TooShort(name, least));
        }
        if self.retry_first > self.retry_max { Err(JmapConfigError::RetryOrder) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_is_valid_and_survives_toml() {
        let config = JmapConfig::default();
        assert_eq!(config.check(), Ok(()));
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<JmapConfig>(&text).unwrap(), config);
        let with = |text| toml::from_str::<JmapConfig>(text).unwrap().check();
        assert_eq!(with("retry_max = '1s'"), Err(JmapConfigError::RetryOrder));
        assert_eq!(with("retry_max = '500000000000years'"), Err(JmapConfigError::TooLong("retry_max")));
        assert!(matches!(with("ping = '0s'"), Err(JmapConfigError::TooShort("ping", _))));
    }
}
