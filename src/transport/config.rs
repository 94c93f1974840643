//! `[stream]`: how long streams are quiet, and how long polls wait.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[stream]`: how long streams are quiet, and how long polls wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamConfig {
    /// A stream that was quiet for this long sends a sign of life, so that proxies keep it open and dead peers are
    /// noticed. Default: `"40s"`.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// How long clients wait before they come back after a stream ended; up to twice as long, spread out.
    /// Default: `"2s"`.
    #[serde(with = "humantime_serde")]
    pub retry: Duration,
    /// How long a stream may last, even if its token is good for longer; it ends at a moment of the last fifth of that, lest
    /// all clients come back at once. Default: `"1day"`.
    #[serde(with = "humantime_serde")]
    pub lifetime_max: Duration,
    /// A long poll waits for at most this long, whatever `wait` says. Default: `"60s"`.
    #[serde(with = "humantime_serde")]
    pub long_poll_max: Duration,
    /// Bytes that are joined into one write. Default: 16 KiB.
    pub write_bytes_max: usize,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(40),
            retry: Duration::from_secs(2),
            lifetime_max: Duration::from_hours(24),
            long_poll_max: Duration::from_mins(1),
            write_bytes_max: 16 * 1024,
        }
    }
}

/// Why the section cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`stream.{name}` must be from {least:?} to {most:?}")]
pub struct StreamConfigError {
    name: &'static str,
    least: Duration,
    most: Duration,
}

impl StreamConfig {
    /// Checks what a type cannot say.
    ///
    /// # Errors
    /// For times that would make streams spin, or that no clock can hold.
    pub fn check(&self) -> Result<(), StreamConfigError> {
        let (second, most) = (Duration::from_secs(1), Duration::from_hours(24));
        let times = [
            ("heartbeat", self.heartbeat, second),
            ("retry", self.retry, Duration::ZERO),
            ("lifetime_max", self.lifetime_max, second),
            ("long_poll_max", self.long_poll_max, second),
        ];
        match times.into_iter().find(|(_, time, least)| !(*least..=most).contains(time)) {
            Some((name, _, least)) => Err(StreamConfigError { name, least, most }),
            None => Ok(()),
        }
    }

    /// How long one stream may last.
    pub(super) fn lifetime(&self) -> Duration {
        self.lifetime_max.mul_f64(rand::random_range(0.8..=1.0))
    }

    /// When a client should come back, in milliseconds: not all at the same moment.
    pub(super) fn retry_ms(&self) -> u64 {
        let base = u64::try_from(self.retry.as_millis()).unwrap_or(u64::MAX / 2);
        base + rand::random_range(0..=base)
    }
}
