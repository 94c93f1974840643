//! What is put before a message that goes on, and the outbox's entry for it.

use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::ForwardConfig;
use crate::event::Origin;
use crate::event_log::OutboxLimits;
use crate::source::intake::{Client, QueueId};

/// Longest name of a client that is repeated (RFC 5321 §4.5.3.1.2).
const NAME_BYTES_MAX: usize = 255;

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

    /// The fields that say that the message was here, for `recipient`: by the first we know it again when it comes
    /// back, by the second everybody counts (RFC 5321 §4.4, RFC 9228).
    pub(crate) fn head(&self, recipient: &str, came: &Came<'_>, at: Timestamp) -> String {
        let Came { origin, client, queue_id } = came;
        // The protocols' names are those of RFC 3848.
        let secured = [(client.tls, "S"), (client.user.is_some(), "A")];
        let secured: String = secured.into_iter().filter_map(|(is_so, letter)| is_so.then_some(letter)).collect();
        let with = match origin {
            Origin::Lmtp => format!("LMTP{secured}"),
            Origin::Http => "HTTP".to_owned(),
            _ => format!("ESMTP{secured}"),
        };
        let from = client.address.map(|address| {
            let name = client.helo.as_deref().filter(|name| is_plain(name)).unwrap_or("unknown");
            let tag = if address.is_ipv6() { "IPv6:" } else { "" };
            format!("from {name} ([{tag}{address}])\r\n\t")
        });
        let from = from.unwrap_or_default();
        // Only years beyond 9999 cannot be written.
        let date = rfc2822::DateTimePrinter::new().timestamp_to_string(&at).unwrap_or_default();
        let hostname = &self.hostname;
        format!(
            "Delivered-To: {recipient}\r\nReceived: {from}by {hostname} (postrider) with {with} id {queue_id}\r\n\tfor \
             <{recipient}>; {date}\r\n"
        )
    }
}

/// The way that a message has come.
#[derive(Debug)]
pub(crate) struct Came<'a> {
    pub(crate) origin: Origin,
    pub(crate) client: &'a Client,
    pub(crate) queue_id: QueueId,
}

/// What a client calls itself is its own invention: what is no name, nor an address, is not repeated.
fn is_plain(name: &str) -> bool {
    let is_of_names =
        |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_of_names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::trace;
    use crate::source::intake::Peer;

    #[test]
    fn what_went_on_is_known_again() {
        let own = ForwardConfig { mail_from: Some("bounces@x.example".into()), ..ForwardConfig::new("h") };
        let forwarding = Forwarding::new(&own, "mx.example");
        let helo = Some("client.example".to_owned());
        let client = Client { helo, tls: true, ..Client::at("192.0.2.1".parse().ok(), Peer::Remote) };
        let (queue_id, number) = (QueueId::numbered(7), format!("{:0>32}", 7));
        let came = Came { origin: Origin::Smtp, client: &client, queue_id };
        let head = forwarding.head("Alice@example.org", &came, Timestamp::UNIX_EPOCH);
        assert_eq!(
            head,
            format!(
                "Delivered-To: Alice@example.org\r\nReceived: from client.example ([192.0.2.1])\r\n\tby mx.example \
                 (postrider) with ESMTPS id {number}\r\n\tfor <Alice@example.org>; Thu, 1 Jan 1970 00:00:00 -0000\r\n"
            )
        );
        let liar = Client { helo: Some("x) by y; (z".to_owned()), ..client.clone() };
        let head_of_liar = forwarding.head("a@b", &Came { client: &liar, ..came }, Timestamp::UNIX_EPOCH);
        assert!(head_of_liar.contains("from unknown ([192.0.2.1])"), "{head_of_liar}");
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
