//! A message as it comes in, within its limit. No I/O.
//!
//! What is too big, or has no place any more, is dropped at once; the rest of it is only counted, so that the session
//! stays in step. What takes too much memory is handed out block by block; where it waits is the caller's business.

use crate::source::intake::Outcome;

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The message, dots unstuffed, with the CRLF of its last line.
    Message(Text),
    /// It was longer than allowed, and is gone.
    TooBig,
    /// [`Collector::give_up`] was called, for this reason, and it is gone.
    GivenUp(Outcome),
    /// It goes on and on past the limit: there is no end to wait for.
    Endless,
}

/// A message, or its end where the beginning was handed out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Text {
    /// Octets that were handed out by [`Collector::take_block`].
    pub handed_out: usize,
    /// The octets behind them.
    pub rest: Vec<u8>,
}

/// A refused message is read to its end to stay in step, but not for longer than this many times the limit.
const ENDLESS_FACTOR: usize = 8;

/// Collects one message.
#[derive(Debug)]
pub(super) struct Collector {
    text: Text,
    /// Octets so far, also those that were dropped or handed out.
    received: usize,
    bytes_max: usize,
    kept: Kept,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Yes,
    TooBig,
    GivenUp(Outcome),
}

impl Collector {
    /// Takes messages of up to `bytes_max` octets.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { text: Text::default(), received: 0, bytes_max, kept: Kept::Yes }
    }

    /// Octets that were handed out, octets that are here, and octets of memory that these take.
    pub(super) fn held(&self) -> (usize, usize, usize) {
        let Text { handed_out, rest } = &self.text;
        (*handed_out, rest.len(), rest.capacity())
    }

    /// Octets so far.
    pub(super) fn received(&self) -> usize {
        self.received
    }

    /// Forgets the message because of `outcome`; what is still to come is counted and dropped.
    pub(super) fn give_up(&mut self, outcome: Outcome) {
        self.drop_message(Kept::GivenUp(outcome));
    }

    /// Whether `more` octets would make it so large that its end is not worth waiting for.
    pub(super) fn is_endless(&self, more: usize) -> bool {
        self.received.saturating_add(more) > self.bytes_max.saturating_mul(ENDLESS_FACTOR)
    }

    /// The reason why nothing is kept of it any more.
    pub(super) fn refused(&self) -> Option<Ended> {
        match self.kept {
            Kept::Yes => None,
            Kept::TooBig => Some(Ended::TooBig),
            Kept::GivenUp(outcome) => Some(Ended::GivenUp(outcome)),
        }
    }

    /// Hands out what is in memory of it. What was handed out before is its beginning: where that is nothing, the block
    /// begins the message.
    pub(super) fn take_block(&mut self) -> Text {
        let block = Text { handed_out: self.text.handed_out, rest: std::mem::take(&mut self.text.rest) };
        self.text.handed_out += block.rest.len();
        block
    }

    /// Adds octets of the message.
    pub(super) fn push(&mut self, octets: &[u8]) {
        self.received = self.received.saturating_add(octets.len());
        if self.received > self.bytes_max && self.kept == Kept::Yes {
            self.drop_message(Kept::TooBig);
        }
        if self.kept == Kept::Yes {
            // Doubling as `Vec` does it would take almost twice the limit for a message that keeps it.
            let text = &mut self.text.rest;
            let (len, capacity) = (text.len(), text.capacity());
            if len + octets.len() > capacity && capacity > 0 {
                let grown = capacity.saturating_mul(2).min(self.bytes_max).max(len + octets.len());
                text.reserve_exact(grown - len);
            }
            text.extend_from_slice(octets);
        }
    }

    /// What became of it; begins anew.
    pub(super) fn end(&mut self) -> Ended {
        self.refused().unwrap_or_else(|| Ended::Message(std::mem::take(&mut self.text)))
    }

    fn drop_message(&mut self, kept: Kept) {
        self.kept = kept;
        self.text = Text::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(collector: &Collector) -> usize {
        collector.held().2
    }

    #[test]
    fn a_message_takes_no_more_memory_than_its_limit() {
        let mut collector = Collector::new(1000);
        for _ in 0..100 {
            collector.push(b"123456789\n");
            assert!(memory(&collector) <= 1000, "{}", memory(&collector));
        }
        assert_eq!(collector.refused(), None);
        collector.push(b"x");
        assert_eq!((memory(&collector), collector.received(), collector.end()), (0, 1001, Ended::TooBig));
    }

    #[test]
    fn blocks_and_the_rest_are_the_message() {
        let mut collector = Collector::new(10);
        collector.push(b"abc");
        assert_eq!(collector.take_block(), Text { handed_out: 0, rest: b"abc".to_vec() });
        assert_eq!(memory(&collector), 0);
        collector.push(b"de");
        assert_eq!(collector.take_block(), Text { handed_out: 3, rest: b"de".to_vec() });
        collector.push(b"fghij");
        assert_eq!(collector.end(), Ended::Message(Text { handed_out: 5, rest: b"fghij".to_vec() }));
        collector.push(b"k");
        assert_eq!(collector.end(), Ended::TooBig, "what was handed out counts");
    }

    #[test]
    fn what_was_given_up_is_counted_only() {
        let mut collector = Collector::new(10);
        collector.push(b"abc");
        collector.give_up(Outcome::Failed);
        collector.push(b"def");
        assert_eq!((memory(&collector), collector.received()), (0, 6));
        assert!(collector.is_endless(75) && !collector.is_endless(74));
        assert_eq!(collector.end(), Ended::GivenUp(Outcome::Failed));
    }
}
