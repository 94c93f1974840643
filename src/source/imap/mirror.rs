//! What the server has said of the opened mailbox and nobody has acted on yet. Pure.
//!
//! Every untagged response of a session passes through here, whenever it comes: servers announce mail in the answer to
//! any command, before and after the `+` of IDLE (RFC 9051 §7). So that no announcement can fall between two commands.

use std::collections::BTreeMap;

use super::protocol::{Response, UidSet};

/// Changes of flags that wait; with more than this it is cheaper to ask for all of them.
const CHANGED_MAX: usize = 10_000;

/// The opened mailbox, by its count, and what was announced in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mirror {
    /// Messages that there are, as EXISTS, EXPUNGE and VANISHED say.
    exists: u32,
    /// Of these, the ones from the first on that were there before or were fetched.
    accounted: u32,
    /// The UIDs of the accounted ones, where they are kept: number n is the nth of them.
    present: Option<UidSet>,
    /// There may be new messages that the count does not show.
    is_in_doubt: bool,
    news: Option<Box<News>>,
}

/// What was announced, apart from new messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct News {
    /// Messages that are gone.
    pub vanished: UidSet,
    /// Messages whose flags were told, and the flags that they have now.
    pub changed: BTreeMap<u32, Vec<String>>,
    /// Flags changed of a message that cannot be named: a server may leave out the UID.
    pub some_changed: bool,
    /// What is gone cannot be named, or the numbers do not fit: the messages that there are must be listed.
    pub some_vanished: bool,
}

impl Mirror {
    /// The mailbox has just been opened, with `exists` messages, all of them accounted for.
    pub(super) fn open(&mut self, exists: u32) {
        (self.exists, self.accounted) = (exists, exists);
    }

    /// Keeps the UIDs of all messages from now on.
    pub(super) fn keep(&mut self, present: UidSet) {
        self.accounted = present.len().min(self.exists);
        self.present = Some(present);
    }

    /// The messages below the position were listed anew.
    pub(super) fn relist(&mut self, present: UidSet) {
        self.accounted = self.accounted.max(present.len()).min(self.exists);
        self.present = Some(present);
    }

    /// Adds messages that were found to be gone.
    pub(super) fn add_vanished(&mut self, gone: &UidSet) {
        if !gone.is_empty() {
            self.news().vanished.extend(gone);
        }
    }

    /// Adds flags that were found to have changed.
    pub(super) fn add_changed(&mut self, changed: BTreeMap<u32, Vec<String>>) {
        if !changed.is_empty() {
            self.news().changed.extend(changed);
        }
    }

    /// The UIDs of the accounted messages, where they are kept.
    #[cfg(test)]
    pub(super) fn present(&self) -> Option<&UidSet> {
        self.present.as_ref()
    }

    /// Takes note of a response. `uid_next` is the first UID that was not reported: what is told of later ones is not
    /// news yet, since they are still to be fetched.
    pub(super) fn hear(&mut self, response: &Response, uid_next: u32) {
        match response {
            Response::Exists(count) => {
                if *count < self.accounted {
                    // Fewer without EXPUNGE: some servers forget to say it. Of those that are left some may be new.
                    self.accounted = *count;
                    self.is_in_doubt = true;
                    self.news().some_vanished = true;
                }
                self.exists = *count;
            }
            Response::Expunge(number) => self.expunge(*number),
            Response::Vanished { earlier: false, uids } => {
                self.exists = self.exists.saturating_sub(uids.len());
                let below = uids.intersection(&UidSet::of_range(1, uid_next.saturating_sub(1)));
                self.accounted = self.accounted.saturating_sub(below.len()).min(self.exists);
                if let Some(present) = &mut self.present {
                    *present = present.difference(uids);
                }
                self.news().vanished.extend(uids);
            }
            Response::Vanished { earlier: true, uids } => self.news().vanished.extend(uids),
            Response::Fetch(number, message) => {
                let Some(flags) = &message.flags else { return };
                let known = message.uid.or_else(|| self.present.as_ref().and_then(|present| present.nth(*number)));
                match known {
                    Some(uid) if uid < uid_next => self.change(uid, flags),
                    Some(_) => {}
                    None if *number > self.accounted => {}
                    None => self.news().some_changed = true,
                }
            }
            _ => {}
        }
    }

    fn expunge(&mut self, number: u32) {
        self.exists = self.exists.saturating_sub(1);
        if number > self.accounted {
            return;
        }
        let accounted = self.accounted;
        self.accounted = accounted.saturating_sub(1).min(self.exists);
        if let Some(present) = &mut self.present {
            match present.nth(number).filter(|_| present.len() == accounted) {
                Some(uid) => {
                    present.remove(uid);
                    self.news().vanished.insert(uid);
                }
                None => self.news().some_vanished = true,
            }
        }
    }

    fn change(&mut self, uid: u32, flags: &[String]) {
        let news = self.news();
        if news.changed.len() < CHANGED_MAX {
            news.changed.insert(uid, flags.to_vec());
        } else {
            news.changed.clear();
            news.some_changed = true;
        }
    }

    fn news(&mut self) -> &mut News {
        self.news.get_or_insert_default()
    }

    /// Everything that was announced apart from new messages, once.
    pub(super) fn take_news(&mut self) -> Option<Box<News>> {
        self.news.take()
    }

    /// Whether something of what was announced can only be found out by asking.
    pub(super) fn needs_questions(&self) -> bool {
        self.unaccounted() > 0 || self.news.as_ref().is_some_and(|news| news.some_changed || news.some_vanished)
    }

    /// Whether there is anything to act on.
    pub(super) fn has_news(&self) -> bool {
        self.news.is_some() || self.has_new()
    }

    /// Whether there are messages to be looked at, or may be.
    pub(super) fn has_new(&self) -> bool {
        self.unaccounted() > 0 || self.is_in_doubt
    }

    /// Whether there may be new messages that the count does not show, once.
    pub(super) fn take_doubt(&mut self) -> bool {
        std::mem::take(&mut self.is_in_doubt)
    }

    /// The message with this sequence number and UID was looked at, and so were all before it.
    pub(super) fn account_to(&mut self, number: u32, uid: u32) {
        self.accounted = self.accounted.max(number).min(self.exists);
        if let Some(present) = &mut self.present {
            present.insert(uid);
        }
    }

    /// These were listed, and will not be looked at.
    pub(super) fn pass_over(&mut self, uids: &UidSet) {
        if let Some(present) = &mut self.present {
            present.extend(uids);
        }
    }

    /// New messages were looked at. If there are not as many as there should be then, others went without a word.
    pub(super) fn compare(&mut self) {
        if self.unaccounted() == 0 && self.present.as_ref().is_some_and(|present| present.len() != self.exists) {
            self.news().some_vanished = true;
        }
    }

    /// All that there is was looked at.
    pub(super) fn account_all(&mut self) {
        self.accounted = self.exists;
        self.compare();
    }

    /// Messages that were announced and not looked at.
    pub(super) fn unaccounted(&self) -> u32 {
        self.exists.saturating_sub(self.accounted)
    }

    pub(super) fn exists(&self) -> u32 {
        self.exists
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::protocol::Fetched;
    use super::*;

    fn opened(exists: u32) -> Mirror {
        let mut mirror = Mirror::default();
        mirror.open(exists);
        mirror
    }

    fn flags(number: u32, uid: Option<u32>) -> Response {
        let fetched = Fetched { uid, flags: Some(vec!["\\Seen".into()]), ..Fetched::default() };
        Response::Fetch(number, Box::new(fetched))
    }

    #[test]
    fn a_new_message_is_seen_even_when_another_one_went() {
        let mut mirror = opened(10);
        mirror.hear(&Response::Exists(11), 11);
        mirror.hear(&Response::Expunge(3), 11);
        assert_eq!((mirror.exists(), mirror.unaccounted()), (10, 1));
        mirror.account_to(10, 11);
        assert_eq!(mirror.unaccounted(), 0);
    }

    #[test]
    fn the_new_message_itself_may_go() {
        let mut mirror = opened(10);
        mirror.hear(&Response::Exists(11), 11);
        mirror.hear(&Response::Expunge(11), 11);
        assert!(!mirror.has_news());
        mirror.hear(&Response::Exists(11), 11);
        mirror.hear(&Response::Vanished { earlier: false, uids: UidSet::of_range(11, 11) }, 11);
        assert_eq!((mirror.exists(), mirror.unaccounted()), (10, 0));
    }

    #[test]
    fn changes_are_kept_by_uid() {
        let mut mirror = opened(3);
        mirror.hear(&flags(2, Some(7)), 10);
        mirror.hear(&flags(2, Some(12)), 10);
        let news = mirror.take_news().unwrap();
        assert_eq!(news.changed.keys().copied().collect::<Vec<_>>(), [7], "12 is still to be fetched");
        mirror.hear(&flags(2, None), 10);
        assert!(mirror.take_news().unwrap().some_changed);
        mirror.keep([4, 7, 9].into_iter().collect());
        mirror.hear(&flags(2, None), 10);
        assert!(mirror.take_news().unwrap().changed.contains_key(&7), "number 2 is UID 7");
    }

    #[test]
    fn fewer_messages_without_a_word_are_looked_into() {
        let mut mirror = opened(3);
        mirror.hear(&Response::Exists(2), 10);
        assert!(mirror.take_news().unwrap().some_vanished);
        assert_eq!(mirror.unaccounted(), 0);
        assert!(mirror.has_news() && mirror.take_doubt() && !mirror.has_news(), "one of the two may be new");
    }

    #[test]
    fn numbers_that_do_not_fit_name_no_message() {
        let mut mirror = opened(3);
        mirror.keep(UidSet::of_range(1, 3));
        mirror.hear(&Response::Exists(4), 4);
        mirror.account_to(4, 5);
        mirror.hear(&Response::Exists(5), 6);
        // One of those before it went without a word.
        mirror.account_to(5, 7);
        mirror.hear(&Response::Exists(4), 8);
        mirror.hear(&Response::Expunge(2), 8);
        let news = mirror.take_news().unwrap();
        assert!(news.some_vanished && news.vanished.is_empty(), "which one is number 2?");
        mirror.relist([3, 5, 7].into_iter().collect());
        mirror.hear(&Response::Expunge(2), 8);
        assert!(mirror.take_news().unwrap().vanished.contains(5));
    }

    #[test]
    fn messages_that_are_passed_over_have_numbers() {
        let mut mirror = opened(1);
        mirror.keep(UidSet::of_range(1, 1));
        mirror.hear(&Response::Exists(4), 2);
        mirror.account_to(4, 4);
        mirror.pass_over(&UidSet::of_range(2, 3));
        mirror.compare();
        assert!(!mirror.has_news());
        mirror.hear(&Response::Expunge(2), 5);
        assert!(mirror.take_news().unwrap().vanished.contains(2));
    }

    proptest! {
        /// Against a model that keeps each message.
        #[test]
        fn counts_and_uids_are_exact(steps in proptest::collection::vec((0_u8..3, any::<u32>()), 0..60)) {
            let (mut mirror, mut model, mut uid_next) = (opened(0), Vec::<(u32, bool)>::new(), 1_u32);
            let mut reported = 1;
            mirror.keep(UidSet::new());
            for (step, number) in steps {
                match step {
                    0 => {
                        model.push((uid_next, false));
                        uid_next += 1;
                        mirror.hear(&Response::Exists(u32::try_from(model.len()).unwrap()), reported);
                    }
                    1 if !model.is_empty() => {
                        let index = number as usize % model.len();
                        let (uid, seen) = model.remove(index);
                        mirror.hear(&Response::Expunge(u32::try_from(index + 1).unwrap()), reported);
                        let vanished = mirror.take_news().is_some_and(|news| news.vanished.contains(uid));
                        prop_assert_eq!(vanished, seen);
                    }
                    _ => {
                        for (number, (uid, seen)) in (1..).zip(&mut model) {
                            *seen = true;
                            mirror.account_to(number, *uid);
                        }
                        reported = uid_next;
                    }
                }
                prop_assert_eq!(mirror.unaccounted() as usize, model.iter().filter(|(_, seen)| !seen).count());
                let present: Vec<u32> = model.iter().filter(|(_, seen)| *seen).map(|(uid, _)| *uid).collect();
                prop_assert_eq!(mirror.present().unwrap().iter().collect::<Vec<_>>(), present);
            }
        }
    }
}
