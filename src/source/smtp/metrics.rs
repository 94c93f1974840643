//! What the receiver counts.

use crate::metrics::{Counter, Metrics};

/// The receiver's counters since the start.
#[derive(Debug, Clone, Default)]
pub(super) struct SmtpMetrics {
    /// Sessions that began.
    pub sessions: Counter,
    /// Sessions that ended.
    pub sessions_ended: Counter,
    /// Connections that were refused because their address had too many.
    pub sessions_refused: Counter,
    /// Connections that had to wait for the greeting, because their address often comes for nothing.
    pub sessions_paused: Counter,
    /// Sessions that ended because the client took too long.
    pub timeouts: Counter,
    /// TLS handshakes that were completed.
    pub tls_handshakes: Counter,
    /// TLS handshakes that failed or took too long.
    pub tls_failures: Counter,
    /// Clients that logged in.
    pub auth_successes: Counter,
    /// Wrong passwords and tokens.
    pub auth_failures: Counter,
    /// Logins that were refused after too many failures.
    pub auth_lockouts: Counter,
    /// Messages that were answered with 250.
    pub messages: Counter,
    /// Messages that were complete and not committed: they could not be, there was no memory for them, or they went round
    /// in circles.
    pub messages_failed: Counter,
    /// Octets of the messages that were answered with 250.
    pub message_octets: Counter,
    /// Replies that were the client's fault, unknown recipients among them.
    pub errors: Counter,
}

impl SmtpMetrics {
    /// Counters that `metrics` tells.
    pub(super) fn registered(metrics: &Metrics) -> Self {
        let counted = Self::default();
        metrics.register(&[
            ("smtp_sessions", "SMTP sessions that began", &counted.sessions),
            ("smtp_sessions_ended", "SMTP sessions that ended", &counted.sessions_ended),
            ("smtp_sessions_refused", "Connections whose address had too many sessions", &counted.sessions_refused),
            ("smtp_sessions_paused", "Connections that had to wait for the greeting", &counted.sessions_paused),
            ("smtp_timeouts", "SMTP sessions whose client took too long", &counted.timeouts),
            ("smtp_tls_handshakes", "TLS handshakes with SMTP clients", &counted.tls_handshakes),
            ("smtp_tls_failures", "TLS handshakes with SMTP clients that failed", &counted.tls_failures),
            ("smtp_auth_successes", "SMTP clients that logged in", &counted.auth_successes),
            ("smtp_auth_failures", "Wrong passwords and tokens of SMTP clients", &counted.auth_failures),
            ("smtp_auth_lockouts", "SMTP logins refused after too many failures", &counted.auth_lockouts),
            ("smtp_messages", "Messages that were answered with 250", &counted.messages),
            ("smtp_messages_failed", "Messages that were complete and could not be stored", &counted.messages_failed),
            ("smtp_message_octets", "Octets of the messages that were answered with 250", &counted.message_octets),
            ("smtp_errors", "Replies that were the client's fault", &counted.errors),
        ]);
        counted
    }
}
