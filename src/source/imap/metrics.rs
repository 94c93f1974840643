//! What the watcher counts, for `/metrics`: process-wide, since a counter for each account would be a series for each.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only rises.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All counters of the watcher.
#[derive(Debug)]
pub(crate) struct ImapMetrics {
    /// Logins that were accepted.
    pub logins: Counter,
    /// Logins that were refused.
    pub logins_refused: Counter,
    /// Times that IDLE was ended and begun anew.
    pub renewals: Counter,
    /// Messages that IDLE should have announced and that were found by asking.
    pub missed_push: Counter,
    /// Responses that made no sense.
    pub unreadable: Counter,
    /// Octets that came from servers.
    pub octets_read: Counter,
    /// Sessions that failed.
    pub failures: Counter,
}

/// The counters.
pub(crate) static METRICS: ImapMetrics = ImapMetrics {
    logins: Counter::new(),
    logins_refused: Counter::new(),
    renewals: Counter::new(),
    missed_push: Counter::new(),
    unreadable: Counter::new(),
    octets_read: Counter::new(),
    failures: Counter::new(),
};

impl ImapMetrics {
    /// Names as they stand in `/metrics`, what they count, and the numbers.
    pub(crate) fn all(&self) -> [(&'static str, &'static str, u64); 7] {
        [
            ("postrider_imap_logins_total", "Logins that IMAP servers accepted.", self.logins.value()),
            ("postrider_imap_logins_refused_total", "Logins that IMAP servers refused.", self.logins_refused.value()),
            ("postrider_imap_renewals_total", "Times that IDLE was ended and begun anew.", self.renewals.value()),
            (
                "postrider_imap_missed_push_total",
                "Messages that IDLE should have announced and that were found by asking.",
                self.missed_push.value(),
            ),
            (
                "postrider_imap_unreadable_total",
                "Responses of IMAP servers that made no sense.",
                self.unreadable.value(),
            ),
            ("postrider_imap_received_octets_total", "Octets that IMAP servers sent.", self.octets_read.value()),
            ("postrider_imap_failures_total", "IMAP sessions that failed.", self.failures.value()),
        ]
    }
}
