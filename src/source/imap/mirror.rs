//! How many messages the server has announced, and how many of them were looked at. Pure.
//!
//! Every untagged response of a session passes through here, whenever it comes: servers announce mail in the answer to
//! any command, before and after the `+` of IDLE (RFC 9051 §7). So that no announcement can fall between two commands.

use super::protocol::Response;

/// The opened mailbox, by its count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mirror {
    /// Messages that there are, as EXISTS and EXPUNGE say.
    exists: u32,
    /// Of these, the ones from the first on that were there before or were fetched.
    accounted: u32,
}

impl Mirror {
    /// Takes note of a response. Those that say nothing of the count are ignored.
    pub(super) fn hear(&mut self, response: &Response) {
        match response {
            Response::Exists(count) => {
                self.exists = *count;
                // Fewer without EXPUNGE: some servers forget to say it.
                self.accounted = self.accounted.min(*count);
            }
            Response::Expunge(number) => {
                self.exists = self.exists.saturating_sub(1);
                if *number <= self.accounted {
                    self.accounted = self.accounted.saturating_sub(1);
                }
            }
            _ => {}
        }
    }

    /// All messages up to sequence number `number` were looked at.
    pub(super) fn account_to(&mut self, number: u32) {
        self.accounted = self.accounted.max(number).min(self.exists);
    }

    /// All that there is was looked at.
    pub(super) fn account_all(&mut self) {
        self.accounted = self.exists;
    }

    /// Messages that were announced and not looked at.
    pub(super) fn unaccounted(self) -> u32 {
        self.exists.saturating_sub(self.accounted)
    }

    pub(super) fn exists(self) -> u32 {
        self.exists
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(exists: u32) -> Mirror {
        let mut mirror = Mirror::default();
        mirror.hear(&Response::Exists(exists));
        mirror.account_all();
        mirror
    }

    #[test]
    fn a_new_message_is_seen_even_when_another_one_went() {
        let mut mirror = at(10);
        mirror.hear(&Response::Exists(11));
        mirror.hear(&Response::Expunge(3));
        assert_eq!((mirror.exists(), mirror.unaccounted()), (10, 1));
        mirror.account_to(10);
        assert_eq!(mirror.unaccounted(), 0);
    }

    #[test]
    fn the_new_message_itself_may_go() {
        let mut mirror = at(10);
        mirror.hear(&Response::Exists(11));
        mirror.hear(&Response::Expunge(11));
        assert_eq!(mirror.unaccounted(), 0);
    }

    proptest! {
        /// Against a model that keeps each message.
        #[test]
        fn count_of_new_messages_is_exact(steps in proptest::collection::vec((0_u8..3, any::<u32>()), 0..60)) {
            let (mut mirror, mut model) = (at(0), Vec::<bool>::new());
            for (step, number) in steps {
                match step {
                    0 => {
                        model.push(false);
                        mirror.hear(&Response::Exists(u32::try_from(model.len()).unwrap()));
                    }
                    1 if !model.is_empty() => {
                        let index = number as usize % model.len();
                        model.remove(index);
                        mirror.hear(&Response::Expunge(u32::try_from(index + 1).unwrap()));
                    }
                    _ => {
                        model.fill(true);
                        mirror.account_all();
                    }
                }
                prop_assert_eq!(mirror.unaccounted() as usize, model.iter().filter(|seen| !**seen).count());
            }
        }
    }
}
