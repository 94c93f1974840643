//! The session while a message's text comes in: after DATA up to the dot, or chunk by chunk (BDAT, RFC 3030 §2).

use super::{Next, Open, Session, TOO_BIG, Transaction, go_on, not_stored, reply};
use crate::source::intake::Outcome;
use crate::source::smtp::collector::{Collector, Ended, Text};
use crate::source::smtp::data::DataReader;

/// Chunks smaller than this, but for the last, only cost time.
const CHUNK_OCTETS_LEAST: u64 = 512;

/// A chunk that is on its way.
#[derive(Debug)]
pub(super) struct Chunk {
    octets: u64,
    left: u64,
    last: bool,
    /// The reply at its end, where it belongs to no message: it is read past, to stay in step.
    refused: Option<&'static str>,
}

/// What the client's octets are at this moment.
#[derive(Debug)]
pub(super) enum Body {
    /// Command lines.
    None,
    /// A message's text.
    Text(DataReader),
    /// A part of a message's text.
    Chunk(Chunk),
}

impl Session<'_> {
    /// Whether a message's text is on its way: the client may finish it even when postrider is shutting down.
    pub(in super::super) fn in_data(&self) -> bool {
        self.collector().is_some()
    }

    /// Octets of text so far of the message that is on its way.
    pub(in super::super) fn data_received(&self) -> Option<usize> {
        self.collector().map(Collector::received)
    }

    /// What there is of the message that is on its way: octets that were handed out, octets that are here, and those that
    /// their buffer takes.
    pub(in super::super) fn data_held(&self) -> (usize, usize, usize) {
        self.collector().map_or((0, 0, 0), Collector::held)
    }

    /// There is no place for the message that is on its way, because of `outcome`: forgets it, and refuses it at its end.
    pub(in super::super) fn give_up_data(&mut self, outcome: Outcome) {
        if let Some(collector) = self.collector_mut() {
            collector.give_up(outcome);
        }
    }

    /// Hands out what is in memory of the message that is on its way.
    pub(in super::super) fn take_block(&mut self) -> Text {
        self.collector_mut().map(Collector::take_block).unwrap_or_default()
    }

    fn collector_mut(&mut self) -> Option<&mut Collector> {
        match &mut self.body {
            Body::Text(data) => Some(data.text_mut()),
            _ => self.transaction.as_mut().and_then(|open| open.chunks.as_mut()),
        }
    }

    fn collector(&self) -> Option<&Collector> {
        match &self.body {
            Body::Text(data) => Some(data.text()),
            _ => self.transaction.as_ref().and_then(|open| open.chunks.as_ref()),
        }
    }

    pub(super) fn start_data(&mut self, out: &mut Vec<u8>) -> Next {
        match self.may_send_text() {
            Err(reply) => self.error(out, reply),
            Ok(open) if open.chunks.is_some() => self.error(out, "503 5.5.1 Send BDAT, as before"),
            Ok(_) => {
                self.body = Body::Text(DataReader::new(self.policy.limits.message_bytes_max));
                go_on(out, "354 End data with <CR><LF>.<CR><LF>")
            }
        }
    }

    /// `BDAT octets [LAST]`. The chunk follows at once, whether it is wanted or not.
    pub(super) fn start_chunk(&mut self, octets: u64, last: bool, out: &mut Vec<u8>) -> Next {
        let bytes_max = self.policy.limits.message_bytes_max;
        let refused = match self.may_send_text() {
            Ok(open) => {
                open.chunks.get_or_insert_with(|| Collector::new(bytes_max));
                None
            }
            Err(reply) => Some(reply),
        };
        let more = usize::try_from(octets).unwrap_or(usize::MAX);
        let endless = |collector: &Collector| collector.is_endless(more);
        if self.collector().map_or_else(|| endless(&Collector::new(bytes_max)), endless) {
            reply(out, TOO_BIG);
            return Next::HangUp;
        }
        if octets == 0 {
            return self.end_of_chunk(&Chunk { octets, left: 0, last, refused }, out);
        }
        self.body = Body::Chunk(Chunk { octets, left: octets, last, refused });
        Next::Read
    }

    /// The transaction, if its text may come now; else the reply that says what is missing.
    fn may_send_text(&mut self) -> Result<&mut Open, &'static str> {
        match &mut self.transaction {
            None => Err("503 5.5.1 Send MAIL first"),
            Some(Open { recipients, refused: true, .. }) if recipients.is_empty() => {
                Err("554 5.5.1 No valid recipients")
            }
            Some(Open { recipients, .. }) if recipients.is_empty() => Err("503 5.5.1 Send RCPT first"),
            Some(open) => Ok(open),
        }
    }

    /// Takes octets of a message, if one is on its way; see [`Session::receive`].
    pub(super) fn text(&mut self, input: &[u8], out: &mut Vec<u8>) -> Option<(usize, Next)> {
        match &mut self.body {
            Body::None => None,
            Body::Text(data) => {
                let (used, ended) = data.take(input);
                let Some(ended) = ended else { return Some((used, Next::Read)) };
                self.body = Body::None;
                // The command that is waited for begins behind the dot.
                self.commands += 1;
                Some((used, self.finish(ended, out)))
            }
            Body::Chunk(chunk) => {
                let used = input.len().min(usize::try_from(chunk.left).unwrap_or(usize::MAX));
                chunk.left -= used as u64;
                let is_whole = chunk.left == 0;
                if chunk.refused.is_none()
                    && let Some(collector) = self.transaction.as_mut().and_then(|open| open.chunks.as_mut())
                {
                    collector.push(input.get(..used).unwrap_or_default());
                }
                if !is_whole {
                    return Some((used, Next::Read));
                }
                let Body::Chunk(chunk) = std::mem::replace(&mut self.body, Body::None) else { return None };
                self.commands += 1;
                Some((used, self.end_of_chunk(&chunk, out)))
            }
        }
    }

    fn end_of_chunk(&mut self, chunk: &Chunk, out: &mut Vec<u8>) -> Next {
        if let Some(reply) = chunk.refused {
            return self.error(out, reply);
        }
        let collector = self.transaction.as_mut().and_then(|open| open.chunks.as_mut());
        match collector.map(|collector| (chunk.last, collector.refused(), collector)) {
            Some((true, _, collector)) => {
                let ended = collector.end();
                self.finish(ended, out)
            }
            Some((false, Some(Ended::TooBig), _)) => self.error(out, TOO_BIG),
            Some((false, Some(Ended::GivenUp(outcome)), _)) => go_on(out, not_stored(outcome)),
            _ if chunk.octets < CHUNK_OCTETS_LEAST => self.idle(out, &took(chunk.octets)),
            _ => go_on(out, &took(chunk.octets)),
        }
    }

    /// The text is over, and with it the transaction.
    fn finish(&mut self, ended: Ended, out: &mut Vec<u8>) -> Next {
        let Some(open) = self.transaction.take() else { return Next::Read };
        self.replies_due = if self.policy.role.replies_for_each() { open.recipients.len() } else { 1 };
        match ended {
            Ended::Message(message) => {
                let Open { from, recipients, .. } = open;
                Next::Deliver(Transaction { from, recipients, message })
            }
            Ended::TooBig => self.for_each_recipient(out, |session, out| session.error(out, TOO_BIG)),
            Ended::GivenUp(outcome) => self.for_each_recipient(out, |_, out| go_on(out, not_stored(outcome))),
            Ended::Endless => {
                reply(out, TOO_BIG);
                Next::HangUp
            }
        }
    }

    /// What is said of the message is said once by SMTP, and once for each accepted recipient by LMTP (RFC 2033 §4.2).
    /// A reply that ends the session ends it for all.
    pub(super) fn for_each_recipient(
        &mut self,
        out: &mut Vec<u8>,
        say: impl FnOnce(&mut Self, &mut Vec<u8>) -> Next,
    ) -> Next {
        let mut said = Vec::new();
        let next = say(self, &mut said);
        let times = if next == Next::HangUp { 1 } else { self.replies_due };
        out.extend(said.repeat(times));
        next
    }
}

fn took(octets: u64) -> String {
    format!("250 2.0.0 {octets} octets received")
}
