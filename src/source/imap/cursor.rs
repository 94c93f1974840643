//! How far a mailbox was reported, and what follows from it when the mailbox is opened again. Pure.
//!
//! Invariant: every UID below `uid_next` was reported, or was announced as skipped, or does not exist; every change up
//! to `mod_seq` was. The cursor is stored in the same commit as the events that it stands for.

use serde::{Deserialize, Serialize};

use super::flags::KnownFlags;
use super::protocol::{StatusItems, UidSet};
use super::uid_text;
use crate::event::{AccountName, Topic};
use crate::event_log::DedupKey;

/// A position in one mailbox. A UID means nothing without its UIDVALIDITY: they travel together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    pub uid_validity: u32,
    /// The first UID that was not reported.
    pub uid_next: u32,
    /// All changes up to this modification sequence were reported (RFC 7162); 0 where the mailbox has none.
    #[serde(default)]
    pub mod_seq: u64,
    /// Messages that were reported as removed since `mod_seq`: a server may tell of them again.
    #[serde(default, with = "uid_text", skip_serializing_if = "UidSet::is_empty")]
    pub gone: UidSet,
    /// What is known of flags; nothing where no event is wanted of them, and in positions of the first format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<Box<KnownFlags>>,
    /// The messages below `uid_next` that there are, where removals are wanted and the server does not tell UIDs.
    #[serde(default, with = "optional_uids", skip_serializing_if = "Option::is_none")]
    pub present: Option<UidSet>,
    /// The mailbox's lasting identifier (RFC 8474).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailbox_id: Option<Box<str>>,
    /// When the mailbox was last known to be reported in full, in seconds since 1970.
    #[serde(default)]
    pub seconds: i64,
}

mod optional_uids {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::super::protocol::UidSet;
    use super::super::uid_text;

    #[expect(clippy::ref_option, reason = "the signature that serde calls")]
    pub(super) fn serialize<S: Serializer>(set: &Option<UidSet>, serializer: S) -> Result<S::Ok, S::Error> {
        match set {
            Some(set) => uid_text::serialize(set, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<UidSet>, D::Error> {
        #[derive(Deserialize)]
        struct Text(#[serde(with = "uid_text")] UidSet);
        Ok(Option::<Text>::deserialize(deserializer)?.map(|text| text.0))
    }
}

/// What to do with a mailbox that was just opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resume {
    /// It was never seen, so that nothing in it is new: store where it ends and announce nothing.
    Baseline,
    /// Its UIDs were given out anew, so that what is known of them is void.
    Reset,
    /// Go on from where it was left.
    GoOn,
}

impl Cursor {
    /// A position of which nothing but the UIDs is known.
    pub(super) fn at(uid_validity: u32, uid_next: u32) -> Self {
        Self {
            uid_validity,
            uid_next,
            mod_seq: 0,
            gone: UidSet::new(),
            flags: None,
            present: None,
            mailbox_id: None,
            seconds: 0,
        }
    }

    /// A position in a mailbox that does not exist: all that it will ever hold comes after it.
    pub(super) fn before_all() -> Self {
        Self::at(0, 1)
    }

    fn is_before_all(&self) -> bool {
        (self.uid_validity, self.uid_next) == (0, 1)
    }

    /// Moves past everything up to and including `uid`.
    pub(super) fn advance(&mut self, uid: u32) {
        self.uid_next = self.uid_next.max(uid.saturating_add(1));
    }

    /// Moves to a modification sequence up to which everything was reported. It may go back, after a restore.
    /// `known_gone` are the removals that had been reported when the server named it: later ones may come after it.
    pub(super) fn move_to_mod_seq(&mut self, mod_seq: u64, known_gone: &UidSet) {
        if self.mod_seq != mod_seq {
            self.mod_seq = mod_seq;
            self.gone = self.gone.difference(known_gone);
        }
    }

    /// Takes the messages out of everything that is known.
    pub(super) fn forget(&mut self, gone: &UidSet) {
        if let Some(flags) = &mut self.flags {
            flags.forget(gone);
        }
        match &mut self.present {
            Some(present) => *present = present.difference(gone),
            None => self.gone.extend(gone),
        }
    }

    /// Of messages that a server says are gone, those that were there as far as is known and were not reported.
    pub(super) fn newly_gone(&self, vanished: &UidSet) -> UidSet {
        let below = UidSet::of_range(1, self.uid_next.saturating_sub(1));
        let reported = vanished.intersection(&below).difference(&self.gone);
        match &self.present {
            Some(present) => reported.intersection(present),
            None => reported,
        }
    }

    /// Whether the mailbox is as it was left, as far as STATUS can tell.
    pub(super) fn agrees_with(&self, status: &StatusItems) -> bool {
        let is_same = status.uid_validity == Some(self.uid_validity) && status.uid_next == Some(self.uid_next);
        let messages = self.present.as_ref().map(UidSet::len);
        is_same
            && match status.highest_mod_seq {
                Some(mod_seq) if self.mod_seq > 0 => mod_seq == self.mod_seq,
                _ => {
                    let unseen = self.flags.as_ref().and_then(|flags| flags.unseen_count());
                    (messages.is_none() || messages == status.messages) && (unseen.is_none() || unseen == status.unseen)
                }
            }
    }

    pub(super) fn to_checkpoint(&self) -> String {
        // Numbers, strings and maps with string keys: there is nothing in it that JSON cannot say.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What the event log has for a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stored {
    Nothing,
    At(Box<Cursor>),
    /// Something that this version cannot read. To start over in silence would hide that mail may be missed.
    Unreadable,
}

impl Stored {
    pub(super) fn parse(checkpoint: Option<&str>) -> Self {
        match checkpoint.map(serde_json::from_str) {
            None => Self::Nothing,
            Some(Ok(cursor)) => Self::At(Box::new(cursor)),
            Some(Err(_)) => Self::Unreadable,
        }
    }

    /// The position, if it can be asked for in the mailbox as it is now.
    pub(super) fn cursor(&self) -> Option<&Cursor> {
        match self {
            Self::At(cursor) => Some(cursor),
            Self::Nothing | Self::Unreadable => None,
        }
    }

    pub(super) fn resume(&self, uid_validity: u32) -> Resume {
        match self {
            Self::Nothing => Resume::Baseline,
            Self::At(cursor) if cursor.uid_validity == uid_validity || cursor.is_before_all() => Resume::GoOn,
            Self::At(_) | Self::Unreadable => Resume::Reset,
        }
    }
}

/// The checkpoint's key: `imap/{account}/{mailbox}`, each percent-encoded as in a topic, so that no two mailboxes
/// share one.
pub(super) fn checkpoint_key(account: &AccountName, mailbox: &str) -> String {
    let topic = Topic::mailbox(account, mailbox);
    format!("imap/{}", topic.as_str().trim_start_matches("mail/"))
}

/// Recognises one happening in one mailbox when it is reported again.
pub(crate) fn dedup_key(account: &AccountName, mailbox: &str, uid_validity: u32, uid: u32, kind: &str) -> DedupKey {
    let (uid_validity, uid) = (uid_validity.to_be_bytes(), uid.to_be_bytes());
    DedupKey::of(&[b"imap", account.as_str().as_bytes(), mailbox.as_bytes(), &uid_validity, &uid, kind.as_bytes()])
}

/// Which of many new messages are announced one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// Rising, the newest at most.
    pub uids: Vec<u32>,
    /// The older ones.
    pub skipped: UidSet,
}

impl Plan {
    /// At most the `newest_max` newest are announced one by one.
    pub(super) fn new(found: &UidSet, newest_max: usize) -> Self {
        let surplus = (found.len() as usize).saturating_sub(newest_max);
        Self { uids: found.iter().skip(surplus).collect(), skipped: found.iter().take(surplus).collect() }
    }
}

/// UIDs as a sequence set (RFC 9051 §9): `4,7:9`, and `12:*` for all from 12 on.
pub(super) fn sequence_set(uids: &UidSet) -> String {
    let set = uids.to_string();
    match set.strip_suffix(&format!(":{}", u32::MAX)) {
        Some(begin) => format!("{begin}:*"),
        None => set,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn opening_decides_on_validity_first() {
        let stored = Stored::At(Box::new(Cursor::at(1, 5)));
        assert_eq!(Stored::Nothing.resume(1), Resume::Baseline);
        assert_eq!(stored.resume(1), Resume::GoOn);
        assert_eq!(stored.resume(2), Resume::Reset);
        assert_eq!(Stored::parse(Some("?")).resume(1), Resume::Reset);
        let absent = Stored::parse(Some(&Cursor::before_all().to_checkpoint()));
        assert_eq!(absent.resume(1), Resume::GoOn, "what did not exist has no UIDVALIDITY to lose");
    }

    #[test]
    fn checkpoint_survives_and_keys_differ() {
        let mut cursor = Cursor::at(u32::MAX, 7);
        cursor.flags = Some(Box::new(KnownFlags::new(UidSet::of_range(3, 4), true)));
        cursor.present = Some(UidSet::of_range(1, 6));
        cursor.mailbox_id = Some("F1".into());
        cursor.move_to_mod_seq(u64::MAX >> 1, &UidSet::new());
        assert_eq!(Stored::parse(Some(&cursor.to_checkpoint())), Stored::At(Box::new(cursor)));
        let first_format = r#"{"uid_validity":1,"uid_next":9}"#;
        assert_eq!(Stored::parse(Some(first_format)), Stored::At(Box::new(Cursor::at(1, 9))));
        let name = |text| AccountName::parse(text).unwrap();
        assert_eq!(checkpoint_key(&name("alice"), "Lists/rust"), "imap/alice/Lists%2Frust");
        assert_ne!(checkpoint_key(&name("a/b"), "c"), checkpoint_key(&name("a"), "b/c"));
    }

    #[test]
    fn sets_of_uids_are_written_as_servers_read_them() {
        let of = |ranges: &[(u32, u32)]| {
            let mut uids = UidSet::new();
            ranges.iter().for_each(|(first, last)| uids.insert_range(*first, *last));
            sequence_set(&uids)
        };
        assert_eq!(of(&[(4, 4), (7, 9)]), "4,7:9");
        assert_eq!(of(&[(12, u32::MAX)]), "12:*");
        assert_eq!(of(&[(u32::MAX, u32::MAX)]), u32::MAX.to_string());
    }

    #[test]
    fn a_removal_is_reported_once() {
        let mut cursor = Cursor::at(1, 10);
        let vanished = UidSet::of_range(8, 12);
        assert_eq!(cursor.newly_gone(&vanished), UidSet::of_range(8, 9), "what was never reported is not");
        cursor.forget(&UidSet::of_range(8, 9));
        assert_eq!(cursor.newly_gone(&vanished), UidSet::new(), "told again");
        cursor.move_to_mod_seq(5, &UidSet::of_range(9, 9));
        assert_eq!(cursor.gone, UidSet::of_range(8, 8), "this one may have gone since");
        cursor.gone = UidSet::new();
        cursor.present = Some(UidSet::of_range(1, 2));
        assert_eq!(cursor.newly_gone(&UidSet::of_range(2, 9)), UidSet::of_range(2, 2));
        cursor.advance(u32::MAX);
        assert_eq!(cursor.uid_next, u32::MAX);
    }

    proptest! {
        #[test]
        fn every_uid_is_announced_or_skipped(
            found in proptest::collection::btree_set(1_u32..500, 0..300),
            max in 1_usize..100,
        ) {
            let plan = Plan::new(&found.iter().copied().collect(), max);
            let all: Vec<u32> = plan.skipped.iter().chain(plan.uids.iter().copied()).collect();
            prop_assert_eq!(all, found.into_iter().collect::<Vec<_>>(), "in order, the newest last");
            prop_assert!(plan.uids.len() <= max);
            prop_assert!(plan.skipped.is_empty() || plan.uids.len() == max);
        }
    }
}
