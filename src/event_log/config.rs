//! `[event_log]`: how long events are kept.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[event_log]`: how long events are kept. An event goes when any of the three limits is passed, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventLogConfig {
    /// Events older than this go. Default: `"30days"`.
    #[serde(with = "humantime_serde")]
    pub retention_age: Duration,
    /// At most this many events are kept. Default: 1,000,000.
    pub retention_events: u64,
    /// At most this many bytes of events (JSON) are kept; the file is about a third larger. Default: 1 GiB.
    pub retention_bytes: u64,
    /// Appends that wait for the writer; past that, sources wait. Default: 1,024.
    pub queue_max: NonZeroUsize,
}

/// Why the section cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventLogConfigError {
    /// The queue's places are allocated at once.
    #[error("`event_log.queue_max` must be at most {0}")]
    Queue(usize),
}

impl EventLogConfig {
    const QUEUE_LIMIT: usize = 100_000;

    /// Checks what a type cannot say.
    ///
    /// # Errors
    /// See [`EventLogConfigError`].
    pub fn check(&self) -> Result<(), EventLogConfigError> {
        if self.queue_max.get() > Self::QUEUE_LIMIT {
            return Err(EventLogConfigError::Queue(Self::QUEUE_LIMIT));
        }
        Ok(())
    }
}

impl Default for EventLogConfig {
    fn default() -> Self {
        Self {
            retention_age: Duration::from_hours(30 * 24),
            retention_events: 1_000_000,
            retention_bytes: 1 << 30,
            queue_max: NonZeroUsize::new(1024).unwrap_or(NonZeroUsize::MIN),
        }
    }
}
