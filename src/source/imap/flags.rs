//! What is known of the messages' flags, so that a change is told from a repetition. Pure.
//!
//! A server says which flags a message has now, again and again; which of them are new can only be told by whoever
//! remembers. \Seen is remembered by the messages that lack it, which are few; the other flags only for accounts that
//! want to hear of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::protocol::UidSet;
use super::uid_text;

/// More ranges than this are not kept for one flag: of a mailbox with more scattered unread messages, the older ones
/// are forgotten. Each takes about ten bytes on disk, in every commit.
const RANGES_MAX: usize = 1000;
/// Flags besides \Seen that are followed in one mailbox: keywords are anybody's to make up.
const FLAGS_MAX: usize = 50;

/// The flags of the messages from `first` on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownFlags {
    /// Of messages with smaller UIDs nothing is known.
    pub first: u32,
    /// Messages without \Seen.
    #[serde(with = "uid_text")]
    unseen: UidSet,
    /// Messages by each other flag, if these are followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    others: Option<BTreeMap<String, FlagUids>>,
}

/// Messages that have a flag.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct FlagUids(#[serde(with = "uid_text")] UidSet);

/// What changed with one message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FlagChange {
    /// \Seen was set.
    pub read: bool,
    /// Other flags that were set.
    pub set: Vec<String>,
    /// Flags that were cleared, \Seen among them.
    pub cleared: Vec<String>,
}

impl KnownFlags {
    /// The flags of a mailbox in which these messages are unseen. With `all`, the other flags are followed too, and
    /// are to be filled in by [`KnownFlags::learn`].
    pub(super) fn new(unseen: UidSet, all: bool) -> Self {
        let mut known = Self { first: 1, unseen, others: all.then(BTreeMap::new) };
        known.shorten();
        known
    }

    /// Whether flags other than \Seen are followed.
    pub(super) fn follows_all(&self) -> bool {
        self.others.is_some()
    }

    pub(super) fn unseen(&self) -> &UidSet {
        &self.unseen
    }

    /// How many messages are unseen, if all are known.
    pub(super) fn unseen_count(&self) -> Option<u32> {
        (self.first <= 1).then(|| self.unseen.len())
    }

    /// Takes note of the flags that a message has now, and says what changed; nothing for a message of which nothing was
    /// known.
    pub(super) fn learn(&mut self, uid: u32, flags: &[String]) -> FlagChange {
        let mut change = FlagChange::default();
        if uid < self.first {
            return change;
        }
        let is = |flag: &str, name: &str| flag.eq_ignore_ascii_case(name);
        if flags.iter().any(|flag| is(flag, "\\Seen")) {
            change.read = self.unseen.remove(uid);
        } else if self.unseen.insert(uid) {
            change.cleared.push("\\Seen".to_owned());
        }
        if let Some(others) = &mut self.others {
            for (name, uids) in others.iter_mut() {
                if !flags.iter().any(|flag| is(flag, name)) && uids.0.remove(uid) {
                    change.cleared.push(name.clone());
                }
            }
            // \Recent says something of sessions and nothing of the message.
            let lasting = flags.iter().filter(|flag| !is(flag, "\\Seen") && !is(flag, "\\Recent"));
            for flag in lasting {
                if let Some(known) = others.keys().find(|name| is(flag, name)).cloned() {
                    let is_new = others.get_mut(&known).is_some_and(|uids| uids.0.insert(uid));
                    change.set.extend(is_new.then_some(known));
                } else if others.len() < FLAGS_MAX {
                    others.insert(flag.clone(), FlagUids(UidSet::of_range(uid, uid)));
                    change.set.push(flag.clone());
                }
            }
            others.retain(|_, uids| !uids.0.is_empty());
        }
        self.shorten();
        change
    }

    /// The messages are no longer there.
    pub(super) fn forget(&mut self, gone: &UidSet) {
        self.unseen = self.unseen.difference(gone);
        for uids in self.others.iter_mut().flat_map(BTreeMap::values_mut) {
            uids.0 = uids.0.difference(gone);
        }
    }

    fn shorten(&mut self) {
        while let Some(middle) = self.middle_of_too_many() {
            self.first = middle;
            self.forget(&UidSet::of_range(1, middle.saturating_sub(1)));
        }
    }

    fn middle_of_too_many(&self) -> Option<u32> {
        let others = self.others.iter().flat_map(BTreeMap::values).map(|uids| &uids.0);
        let too_many = others.chain([&self.unseen]).find(|uids| uids.ranges_len() > RANGES_MAX)?;
        too_many.nth(too_many.len() / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_message_is_read_once() {
        let mut known = KnownFlags::new(UidSet::of_range(4, 6), false);
        assert!(known.learn(5, &flags(&["\\seen", "\\Flagged"])).read);
        assert_eq!(known.learn(5, &flags(&["\\Seen"])), FlagChange::default(), "said again");
        assert_eq!(known.learn(5, &[]).cleared, ["\\Seen"]);
        assert_eq!(known.unseen_count(), Some(3));
        known.forget(&UidSet::of_range(1, 5));
        assert_eq!(known.unseen_count(), Some(1));
    }

    #[test]
    fn other_flags_are_followed_where_they_are_wanted() {
        let mut known = KnownFlags::new(UidSet::new(), true);
        assert_eq!(known.learn(1, &flags(&["\\Seen", "\\Flagged", "$Junk", "\\Recent"])).set, ["\\Flagged", "$Junk"]);
        let change = known.learn(1, &flags(&["\\Seen", "$junk"]));
        assert_eq!((change.set.len(), change.cleared), (0, vec!["\\Flagged".to_owned()]));
        let json = serde_json::to_string(&known).unwrap();
        assert_eq!(serde_json::from_str::<KnownFlags>(&json).unwrap(), known);
    }

    #[test]
    fn what_would_grow_without_end_is_forgotten_from_below() {
        let mut known = KnownFlags::new((1..=4000).map(|number| number * 2).collect(), false);
        assert!(known.unseen().ranges_len() <= RANGES_MAX && known.first > 1);
        assert_eq!(known.unseen_count(), None);
        assert!(!known.learn(2, &flags(&["\\Seen"])).read, "nothing is known of it");
        assert!(known.learn(8000, &flags(&["\\Seen"])).read);
    }
}
