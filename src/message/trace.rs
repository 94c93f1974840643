//! The way that a message has come (RFC 5321 §4.4): what tells a message that goes round in circles from one that arrives.

use crate::message::{header::Fields, printable};

/// Values of one kind that are kept. Who has more of them than hops are allowed is in a loop anyway.
const VALUES_MAX: usize = 100;

/// Longest value that is compared, in octets: an address, or a host's name.
const VALUE_BYTES_MAX: usize = 512;

/// What a message says of the hops behind it. Only the message's own header counts, not that of one inside it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    /// `Received` fields: one for each server that it came through.
    pub(crate) received: usize,
    /// `Delivered-To`: the mailboxes that it was in, newest first, in lower case. At most 100.
    pub(crate) delivered_to: Vec<String>,
    /// `X-Loop`: the marks of those who forward, newest first, in lower case. At most 100.
    pub(crate) loops: Vec<String>,
}

impl Trace {
    /// Whether the message was in this mailbox before: forwarding it would bring it here again.
    pub(crate) fn was_delivered_to(&self, address: &str) -> bool {
        let address = address.to_ascii_lowercase();
        self.delivered_to.contains(&address) || self.loops.contains(&address)
    }
}

/// Reads the trace fields of a message, or of as much of it as holds the header.
pub(crate) fn trace(raw: &[u8]) -> Trace {
    let mut trace = Trace::default();
    for field in Fields::new(raw) {
        if field.is("Received") {
            trace.received = trace.received.saturating_add(1);
        } else if field.is("Delivered-To") {
            keep(&mut trace.delivered_to, field.value);
        } else if field.is("X-Loop") {
            keep(&mut trace.loops, field.value);
        }
    }
    trace
}

fn keep(values: &mut Vec<String>, value: &[u8]) {
    if values.len() < VALUES_MAX && value.len() <= VALUE_BYTES_MAX {
        let value = printable::line(&String::from_utf8_lossy(value)).to_ascii_lowercase();
        values.extend(printable::non_empty(value.trim_matches(['<', '>']).to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_of_the_message_itself_are_counted() {
        let raw = b"Delivered-To: Alice@Example.org\r\nReceived: from a\r\n\tby b\r\nRECEIVED : from c\r\n\
            X-Loop: <list@x>\r\nDelivered-To:\r\nSubject: Received: no\r\n\r\nReceived: in the body\r\n";
        let trace = trace(raw);
        assert_eq!((trace.received, trace.delivered_to.as_slice()), (2, &["alice@example.org".to_owned()][..]));
        assert!(trace.was_delivered_to("ALICE@example.org") && trace.was_delivered_to("list@x"));
        assert!(!trace.was_delivered_to("bob@example.org"));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let raw = format!("Received: x\nDelivered-To: a@x\nX-Loop: {}\n", "x".repeat(1_000)).repeat(1_000);
        let trace = trace(raw.as_bytes());
        assert_eq!((trace.received, trace.delivered_to.len(), trace.loops.len()), (1_000, VALUES_MAX, 0));
    }
}
