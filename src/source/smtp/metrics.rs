//! What the receiver has done, in numbers. Counters only rise; they are read by whoever reports them.

use std::sync::atomic::{AtomicU64, Ordering};

/// One number.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The number now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

/// The receiver's counters since the start.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct SmtpMetrics {
    /// Sessions that began.
    pub sessions: Counter,
    /// Sessions that ended.
    pub sessions_ended: Counter,
    /// Connections that were refused because their address had too many.
    pub sessions_refused: Counter,
    /// Sessions that ended because the client took too long.
    pub timeouts: Counter,
    /// Messages that were answered with 250.
    pub messages: Counter,
    /// Messages that were complete and could not be committed, or for which there was no memory.
    pub messages_failed: Counter,
    /// Octets of the messages that were answered with 250.
    pub message_bytes: Counter,
    /// Replies that were the client's fault, unknown recipients among them.
    pub errors: Counter,
}
