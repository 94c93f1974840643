//! How far a mailbox was reported, and what follows from it when the mailbox is opened again. Pure.
//!
//! Invariant: every UID below `uid_next` was reported, or was announced as skipped, or does not exist. The cursor
//! is stored in the same commit as the events that it stands for.

use serde::{Deserialize, Serialize};

use crate::event::{AccountName, Topic};
use crate::event_log::DedupKey;

/// A position in one mailbox. A UID means nothing without its UIDVALIDITY: they travel together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    pub uid_validity: u32,
    /// The first UID that was not reported.
    pub uid_next: u32,
}

/// What to do with a mailbox that was just opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resume {
    /// It was never seen, so that nothing in it is new: store this and announce nothing.
    Baseline(Cursor),
    /// Its UIDs were given out anew, so that what is known of them is void: say so, and store this.
    Reset(Cursor),
    /// There is nothing new.
    UpToDate(Cursor),
    /// There may be new messages from `uid_next` on.
    CatchUp(Cursor),
}

impl Cursor {
    /// Decides, with what was stored for the mailbox and what the server says of it now.
    pub(super) fn resume(stored: Option<Stored>, now: Self) -> Resume {
        match stored {
            None => Resume::Baseline(now),
            Some(Stored::At(stored)) if stored.uid_validity == now.uid_validity => {
                if now.uid_next > stored.uid_next {
                    Resume::CatchUp(stored)
                } else {
                    // UIDNEXT must not go down, and does so on replicas that lag and after restores. What comes then
                    // has UIDs below the stored ones; what was reported already is recognised by its key.
                    Resume::UpToDate(now)
                }
            }
            Some(_) => Resume::Reset(now),
        }
    }

    /// The cursor once all up to and including `uid` are reported.
    #[must_use]
    pub(super) fn after(self, uid: u32) -> Self {
        Self { uid_next: self.uid_next.max(uid.saturating_add(1)), ..self }
    }
}

/// What the event log has for a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    At(Cursor),
    /// Something that this version cannot read. To start over in silence would hide that mail may be missed.
    Unreadable,
}

impl Stored {
    pub(super) fn parse(checkpoint: &str) -> Self {
        serde_json::from_str(checkpoint).map_or(Self::Unreadable, Self::At)
    }
}

impl Cursor {
    pub(super) fn to_checkpoint(self) -> String {
        format!(r#"{{"uid_validity":{},"uid_next":{}}}"#, self.uid_validity, self.uid_next)
    }
}

/// The checkpoint's key: `imap/{account}/{mailbox}`, each percent-encoded as in a topic, so that no two mailboxes
/// share one.
pub(super) fn checkpoint_key(account: &AccountName, mailbox: &str) -> String {
    let topic = Topic::mailbox(account, mailbox);
    format!("imap/{}", topic.as_str().trim_start_matches("mail/"))
}

/// Recognises one happening in one mailbox when it is reported again.
pub(in crate::source) fn dedup_key(
    account: &AccountName,
    mailbox: &str,
    uid_validity: u32,
    uid: u32,
    kind: &str,
) -> DedupKey {
    let (uid_validity, uid) = (uid_validity.to_be_bytes(), uid.to_be_bytes());
    DedupKey::of(&[b"imap", account.as_str().as_bytes(), mailbox.as_bytes(), &uid_validity, &uid, kind.as_bytes()])
}

/// Which of many new messages are announced one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// Rising, the newest at most.
    pub uids: Vec<u32>,
    /// The older ones: how many, the first and the last.
    pub skipped: Option<Skipped>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Skipped {
    pub count: usize,
    pub first: u32,
    pub last: u32,
}

impl Plan {
    /// `found` is what the server listed, in any order; `newest_max` is `None` where nothing is skipped.
    pub(super) fn new(mut found: Vec<u32>, newest_max: Option<usize>) -> Self {
        found.sort_unstable();
        found.dedup();
        let surplus = newest_max.map_or(0, |max| found.len().saturating_sub(max));
        let uids = found.split_off(surplus);
        let skipped = match found.as_slice() {
            [] => None,
            [only] => Some(Skipped { count: 1, first: *only, last: *only }),
            [first, .., last] => Some(Skipped { count: found.len(), first: *first, last: *last }),
        };
        Self { uids, skipped }
    }
}

/// Rising UIDs as a sequence set (RFC 9051 §9): `4,7:9`.
pub(super) fn sequence_set(uids: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &uid in uids {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(uid) => *last = uid,
            _ => ranges.push((uid, uid)),
        }
    }
    let texts: Vec<String> = ranges
        .into_iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}:{last}") })
        .collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(uid_validity: u32, uid_next: u32) -> Cursor {
        Cursor { uid_validity, uid_next }
    }

    #[test]
    fn opening_decides_on_validity_first() {
        let stored = |cursor| Some(Stored::At(cursor));
        assert_eq!(Cursor::resume(None, at(1, 9)), Resume::Baseline(at(1, 9)));
        assert_eq!(Cursor::resume(stored(at(1, 5)), at(1, 9)), Resume::CatchUp(at(1, 5)));
        assert_eq!(Cursor::resume(stored(at(1, 9)), at(1, 9)), Resume::UpToDate(at(1, 9)));
        assert_eq!(Cursor::resume(stored(at(1, 9)), at(2, 20)), Resume::Reset(at(2, 20)));
        assert_eq!(Cursor::resume(stored(at(1, 9)), at(1, 4)), Resume::UpToDate(at(1, 4)), "UIDNEXT went down");
        assert_eq!(Cursor::resume(Some(Stored::parse("?")), at(1, 9)), Resume::Reset(at(1, 9)));
    }

    #[test]
    fn checkpoint_survives_and_keys_differ() {
        let cursor = at(u32::MAX, 7);
        assert_eq!(Stored::parse(&cursor.to_checkpoint()), Stored::At(cursor));
        let name = |text| AccountName::parse(text).unwrap();
        assert_eq!(checkpoint_key(&name("alice"), "Lists/rust"), "imap/alice/Lists%2Frust");
        assert_ne!(checkpoint_key(&name("a/b"), "c"), checkpoint_key(&name("a"), "b/c"));
        assert_eq!(at(1, u32::MAX).after(u32::MAX).uid_next, u32::MAX);
    }

    #[test]
    fn sets_are_written_in_ranges() {
        assert_eq!(sequence_set(&[4, 7, 8, 9, u32::MAX]), "4,7:9,4294967295");
        assert_eq!(sequence_set(&[]), "");
    }

    proptest! {
        #[test]
        fn every_uid_is_announced_or_skipped(
            found in proptest::collection::vec(1_u32..500, 0..300),
            max in proptest::option::of(1_usize..100),
        ) {
            let plan = Plan::new(found.clone(), max);
            let (mut all, skipped) = (found, plan.skipped);
            all.sort_unstable();
            all.dedup();
            prop_assert!(plan.uids.is_sorted());
            prop_assert_eq!(plan.uids.len() + skipped.map_or(0, |skipped| skipped.count), all.len());
            prop_assert!(plan.uids.len() <= max.unwrap_or(usize::MAX));
            prop_assert!(all.ends_with(&plan.uids), "the newest are kept");
            if let Some(skipped) = skipped {
                prop_assert!(plan.uids.first().is_some_and(|&first| skipped.last < first));
                prop_assert_eq!(Some(&skipped.first), all.first());
            }
        }
    }
}
