//! What is put before a message that goes on, and the outbox's entry for it.

use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::ForwardConfig;
use crate::event::Origin;
use crate::event_log::OutboxLimits;

/// How mail goes on; known to the intake, which fills the outbox.
#[derive(Debug, Clone)]
pub(crate) struct Forwarding {
    /// The name that we give ourselves.
    hostname: String,
    /// The reverse-path, where it is not the message's own.
    mail_from: Option<String>,
    /// What may wait.
    pub(crate) limits: OutboxLimits,
}

impl Forwarding {
    /// As the section says; `hostname` is what we call ourselves.
    pub(crate) fn new(config: &ForwardConfig, hostname: &str) -> Self {
        Self { hostname: hostname.to_owned(), mail_from: config.mail_from.clone(), limits: config.limits() }
    }

    /// The reverse-path of what goes on. That of a notification stays null: nobody may answer it (RFC 5321 §4.5.5).
    pub(crate) fn mail_from(&self, original: &str) -> String {
        match &self.mail_from {
            Some(own) if !original.is_empty() => own.clone(),
            _ => original.to_owned(),
        }
    }

    /// The fields that say that the message was here, for `recipient`: by the first we know it again when it comes back,
    /// by the second everybody counts (RFC 5321 §4.4, RFC 9228).
    pub(crate) fn head(&self, recipient: &str, origin: Origin, queue_id: &str, at: Timestamp) -> String {
        let with = match origin {
            Origin::Lmtp => "LMTP",
            Origin::Http => "HTTP",
            _ => "ESMTP",
        };
        // Only years beyond 9999 cannot be written.
        let date = rfc2822::DateTimePrinter::new().timestamp_to_string(&at).unwrap_or_default();
        let hostname = &self.hostname;
        format!(
            "Delivered-To: {recipient}\r\nReceived: by {hostname} (postrider) with {with} id {queue_id}\r\n\tfor \
             <{recipient}>; {date}\r\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::trace;

    #[test]
    fn what_went_on_is_known_again() {
        let own = ForwardConfig { mail_from: Some("bounces@x.example".into()), ..ForwardConfig::new("h") };
        let forwarding = Forwarding::new(&own, "mx.example");
        let head = forwarding.head("Alice@example.org", Origin::Smtp, "0199", Timestamp::UNIX_EPOCH);
        assert_eq!(
            head,
            "Delivered-To: Alice@example.org\r\nReceived: by mx.example (postrider) with ESMTP id 0199\r\n\tfor \
             <Alice@example.org>; Thu, 1 Jan 1970 00:00:00 +0000\r\n"
        );
        let seen = trace(format!("{head}Subject: s\r\n\r\n").as_bytes());
        assert!(seen.received == 1 && seen.was_delivered_to("alice@example.org"));
        assert_eq!(
            (forwarding.mail_from("a@b"), forwarding.mail_from("")),
            ("bounces@x.example".into(), String::new())
        );
        let original = Forwarding::new(&ForwardConfig::new("h"), "mx.example");
        assert_eq!(original.mail_from("a@b"), "a@b");
    }
}
