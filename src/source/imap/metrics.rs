//! What the watcher counts: process-wide, since a counter for each account would be a series for each, and static,
//! since a handle would cost every idle connection a pointer.

use std::sync::LazyLock;

use crate::metrics::{Counter, Metrics};

/// All counters of the watcher.
#[derive(Debug, Default)]
pub(super) struct ImapMetrics {
    /// Logins that were accepted.
    pub logins: Counter,
    /// Logins that were refused.
    pub logins_refused: Counter,
    /// Times that IDLE was ended and begun anew.
    pub renewals: Counter,
    /// Times that new mail was found which IDLE should have announced.
    pub missed_push: Counter,
    /// Responses that made no sense.
    pub unreadable: Counter,
    /// Octets that came from servers.
    pub received_octets: Counter,
    /// Sessions that failed.
    pub failures: Counter,
}

/// The counters.
pub(super) static METRICS: LazyLock<ImapMetrics> = LazyLock::new(ImapMetrics::default);

/// Lets `metrics` tell what the watcher counts.
pub fn register_metrics(metrics: &Metrics) {
    let counted = &*METRICS;
    metrics.register(&[
        ("imap_logins", "Logins that IMAP servers accepted", &counted.logins),
        ("imap_logins_refused", "Logins that IMAP servers refused", &counted.logins_refused),
        ("imap_renewals", "Times that IDLE was ended and begun anew", &counted.renewals),
        ("imap_missed_push", "Times that new mail was found which IDLE should have announced", &counted.missed_push),
        ("imap_unreadable", "Responses of IMAP servers that made no sense", &counted.unreadable),
        ("imap_received_octets", "Octets that IMAP servers sent", &counted.received_octets),
        ("imap_failures", "IMAP sessions that failed", &counted.failures),
    ]);
}
