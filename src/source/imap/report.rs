//! The events that come out of what was found in a mailbox, and their commit. The drafts are pure.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::context::{AccountContext, Mailbox};
use super::cursor::{Cursor, dedup_key};
use super::error::ImapError;
use super::fetch::{Summarised, internal_date};
use super::flags::KnownFlags;
use super::protocol::{Fetched, UidSet};
use super::wants::Wants;
use crate::event::{Counts, Draft, EventKind, Origin};
use crate::event_log::{Append, Sighting};

/// A message received so long before the mailbox was last looked at is none that was just delivered: a mail program
/// put it there.
const STALE_SECONDS: i64 = 24 * 60 * 60;
/// A message that went elsewhere at most so long ago was moved from there.
const MOVED_WITHIN_SECONDS: i64 = 600;

/// A commit that is being put together for one mailbox.
pub(super) struct Report<'a> {
    account: &'a AccountContext,
    mailbox: &'a Mailbox,
    drafts: Vec<(Draft, bool)>,
    sightings: Vec<Sighting>,
    gone: UidSet,
}

/// What a message that appeared in a mailbox is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Arrival {
    /// New mail.
    New,
    /// One that is in another mailbox too.
    Copy,
    /// One that was in another mailbox until just now.
    Moved(Sighting),
    /// One that is in another mailbox as far as is known: that has to be looked at first.
    Unclear(String),
}

impl Arrival {
    /// Decides by where the message was seen in other mailboxes. `looked`: those were looked at just now.
    pub(super) fn of(elsewhere: &[Sighting], looked: bool, now: Timestamp) -> Self {
        let is_recent = |gone: Timestamp| now.as_second().saturating_sub(gone.as_second()) <= MOVED_WITHIN_SECONDS;
        let newest_gone = elsewhere.iter().filter(|seen| seen.gone.is_some()).max_by_key(|seen| seen.gone);
        if let Some(from) = newest_gone.filter(|seen| seen.gone.is_some_and(is_recent)) {
            return Self::Moved(from.clone());
        }
        match elsewhere.iter().rfind(|seen| seen.gone.is_none()) {
            Some(there) if !looked => Self::Unclear(there.mailbox.clone()),
            None if elsewhere.is_empty() => Self::New,
            // It is somewhere else, or was.
            Some(_) | None => Self::Copy,
        }
    }
}

impl<'a> Report<'a> {
    pub(super) fn new(account: &'a AccountContext, mailbox: &'a Mailbox) -> Self {
        Self { account, mailbox, drafts: Vec::new(), sightings: Vec::new(), gone: UidSet::new() }
    }

    fn draft(&self, kind: EventKind, uid_validity: u32, counts: Option<Counts>) -> Draft {
        let mut draft = Draft::in_mailbox(kind, Origin::Imap, &self.account.name, &self.mailbox.name);
        draft.uid_validity = Some(uid_validity);
        draft.counts = counts;
        draft
    }

    /// A message that appeared.
    pub(super) fn arrived(
        &mut self,
        cursor: &Cursor,
        uid: u32,
        message: &Fetched,
        what: Summarised,
        arrival: &Arrival,
    ) {
        let Summarised { key, summary } = what;
        let received = message.internal_date.as_deref().and_then(internal_date);
        let is_stale = received.is_some_and(|at| at.as_second() < cursor.seconds.saturating_sub(STALE_SECONDS));
        let kind = match arrival {
            Arrival::Moved(_) => EventKind::MessageMove,
            Arrival::New if !is_stale && !self.mailbox.is_written_by_programs() => EventKind::MessageNew,
            Arrival::New | Arrival::Copy | Arrival::Unclear(_) => EventKind::MessageAppend,
        };
        let mut draft = self.draft(kind, cursor.uid_validity, None);
        draft.uid = Some(uid);
        draft.mod_seq = message.mod_seq;
        draft.flags.clone_from(&message.flags);
        draft.message = summary;
        if let Arrival::Moved(from) = arrival {
            draft.topics.push(crate::event::Topic::mailbox(&self.account.name, &from.mailbox));
            draft.old_mailbox = Some(from.mailbox.clone());
            draft.data = Some(serde_json::json!({ "old_uid": from.uid, "old_uid_validity": from.uid_validity }));
        }
        self.drafts.push((draft, true));
        if let Some(message) = key {
            let mailbox = self.mailbox.name.clone();
            self.sightings.push(Sighting { message, mailbox, uid_validity: cursor.uid_validity, uid, gone: None });
        }
    }

    /// Messages that are gone. They must be taken out of the cursor by the caller.
    pub(super) fn removed(&mut self, uid_validity: u32, gone: &UidSet, wants: Wants) {
        if gone.is_empty() {
            return;
        }
        if wants.expunge {
            let draft = of_uids(self.draft(EventKind::MessageExpunge, uid_validity, None), gone);
            self.drafts.push((draft, false));
        }
        self.gone.extend(gone);
    }

    /// Flags that messages have now.
    pub(super) fn flagged(
        &mut self,
        uid_validity: u32,
        known: &mut KnownFlags,
        changed: &BTreeMap<u32, Vec<String>>,
        wants: Wants,
    ) {
        let (mut read, mut trashed) = (UidSet::new(), UidSet::new());
        let mut flags: BTreeMap<(EventKind, Vec<String>), UidSet> = BTreeMap::new();
        for (&uid, now) in changed {
            let mut change = known.learn(uid, now);
            if change.read {
                read.insert(uid);
            }
            if wants.trash && change.set.iter().any(|flag| flag.eq_ignore_ascii_case("\\Deleted")) {
                trashed.insert(uid);
                change.set.retain(|flag| !flag.eq_ignore_ascii_case("\\Deleted"));
            }
            for (kind, flagged) in [(EventKind::FlagsSet, change.set), (EventKind::FlagsClear, change.cleared)] {
                if wants.flags && !flagged.is_empty() {
                    flags.entry((kind, flagged)).or_default().insert(uid);
                }
            }
        }
        if wants.read && !read.is_empty() {
            self.drafts.push((of_uids(self.draft(EventKind::MessageRead, uid_validity, None), &read), false));
        }
        if !trashed.is_empty() {
            self.drafts.push((of_uids(self.draft(EventKind::MessageTrash, uid_validity, None), &trashed), false));
        }
        for ((kind, flagged), uids) in flags {
            let mut draft = of_uids(self.draft(kind, uid_validity, None), &uids);
            draft.flags = Some(flagged);
            self.drafts.push((draft, false));
        }
    }

    /// Messages that came while nobody watched and that are not announced one by one.
    pub(super) fn skipped(&mut self, uid_validity: u32, skipped: &UidSet) {
        let (Some(first), Some(last)) = (skipped.first(), skipped.last()) else { return };
        let mut draft = self.draft(EventKind::MailboxOverflow, uid_validity, None);
        draft.data = Some(serde_json::json!({ "skipped": skipped.len(), "uid_first": first, "uid_last": last }));
        // Recognised by where it begins: told again, it is the same.
        draft.uid = Some(first);
        self.drafts.push((draft, true));
    }

    /// The mailbox's UIDs were given out anew.
    pub(super) fn reset(&mut self, cursor: &Cursor) {
        let draft = self.draft(EventKind::MailboxReset, cursor.uid_validity, None);
        self.drafts.push((draft, false));
    }

    /// Whether there is anything that a subscriber would see.
    pub(super) fn is_empty(&self) -> bool {
        self.drafts.is_empty() && self.sightings.is_empty() && self.gone.is_empty()
    }

    /// Commits the events together with the position after them.
    ///
    /// # Errors
    /// Only when the log was closed.
    pub(super) async fn commit(mut self, cursor: &mut Cursor, counts: Counts) -> Result<(), ImapError> {
        cursor.seconds = Timestamp::now().as_second();
        let (account, mailbox) = (self.account, self.mailbox);
        for (draft, _) in &mut self.drafts {
            draft.counts = Some(counts);
        }
        let gone: Vec<(u32, u32)> = self.gone.ranges().collect();
        let build = || {
            let mut append = Append::new();
            for (draft, has_key) in &self.drafts {
                let uid = draft.uid.filter(|_| *has_key);
                let mut draft = draft.clone();
                let key = uid.map(|uid| {
                    // Whatever a message turns out to be the second time, it is the same message.
                    let kind = if draft.message_arrives() { EventKind::MessageNew } else { draft.kind };
                    dedup_key(&account.name, &mailbox.name, cursor.uid_validity, uid, kind.as_str())
                });
                if draft.kind == EventKind::MailboxOverflow {
                    draft.uid = None;
                }
                append.push(draft, key);
            }
            for sighting in &self.sightings {
                append.sighting(&account.name, sighting.clone());
            }
            if !gone.is_empty() {
                append.gone(&account.name, &mailbox.name, cursor.uid_validity, gone.clone());
            }
            append.checkpoint(mailbox.checkpoint_key.as_str(), cursor.to_checkpoint());
            append
        };
        account.commit(build).await
    }
}

fn of_uids(mut draft: Draft, uids: &UidSet) -> Draft {
    draft.uid = uids.first().filter(|_| uids.len() == 1);
    draft.uids = Some(uids.to_string());
    draft
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_log::MessageKey;

    fn seen(mailbox: &str, gone: Option<i64>) -> Sighting {
        Sighting {
            message: MessageKey::of(&[b"m"]),
            mailbox: mailbox.to_owned(),
            uid_validity: 1,
            uid: 4,
            gone: gone.map(|second| Timestamp::from_second(second).unwrap()),
        }
    }

    #[test]
    fn a_message_that_was_elsewhere_is_no_new_mail() {
        let now = Timestamp::from_second(10_000).unwrap();
        let of = |elsewhere: &[Sighting], looked| Arrival::of(elsewhere, looked, now);
        assert_eq!(of(&[], false), Arrival::New);
        let (there, left, left_long_ago) = (seen("A", None), seen("A", Some(9_990)), seen("A", Some(5)));
        assert_eq!(of(std::slice::from_ref(&there), false), Arrival::Unclear("A".into()));
        assert_eq!(of(std::slice::from_ref(&there), true), Arrival::Copy);
        assert_eq!(of(&[there, left.clone()], true), Arrival::Moved(left));
        assert_eq!(of(&[left_long_ago], true), Arrival::Copy);
    }
}
