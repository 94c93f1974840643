//! From a stored position to the mailbox as it is now, by the cheapest way that the server offers.
//!
//! With QRESYNC the answer to EXAMINE has everything but the new messages; with CONDSTORE one more question brings the
//! flags; without either the unseen messages, and where removals are wanted all messages, are listed and compared.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::{debug, info, warn};

use super::context::Mailbox;
use super::cursor::{Cursor, Resume, Stored};
use super::error::ImapError;
use super::fetch::internal_date;
use super::flags::KnownFlags;
use super::link::{Examined, Link};
use super::opened::{BATCH, Opened, Settled, unanswered};
use super::protocol::{Fetched, UidSet};
use super::refusal::Refusal;
use super::report::Report;
use crate::event::Counts;

/// Messages that came so long before the mailbox was last looked at may not have been reported.
const RESET_OVERLAP_SECONDS: i64 = 600;

impl Opened {
    /// Opens a mailbox and reports what came since it was last watched. `looked`: the other mailboxes were looked at
    /// just now.
    pub(super) async fn open(
        link: &mut Link,
        mailbox: &Arc<Mailbox>,
        looked: bool,
    ) -> Result<(Self, Settled), ImapError> {
        let checkpoint = link.account().event_log.checkpoint(&mailbox.checkpoint_key).await?;
        let stored = Stored::parse(checkpoint.as_deref());
        let examined = match link.examine(mailbox, stored.cursor()).await {
            Err(err @ ImapError::Mailbox { refusal, .. }) if stored == Stored::Nothing => {
                Self::note_end(link, mailbox, refusal).await?;
                return Err(err);
            }
            examined => examined?,
        };
        let uid_validity = examined.uid_validity.unwrap_or_else(|| {
            warn!(account = %link.account().name, mailbox = %mailbox.name,
                "the server gives the mailbox no UIDVALIDITY, messages are told apart by UID alone");
            0
        });
        let resume = stored.resume(uid_validity);
        let cursor = match &stored {
            Stored::At(cursor) if resume == Resume::GoOn => Cursor { uid_validity, ..(**cursor).clone() },
            // What came to a mailbox that was made while the account was watched is new.
            _ => Cursor::at(uid_validity, 1),
        };
        let Examined { mirror, uid_next, mod_seq, mailbox_id, .. } = examined;
        let mut opened = Self { mailbox: mailbox.clone(), cursor, mirror, looked, latest_received: None };
        let uid_next = match uid_next {
            Some(uid_next) => uid_next,
            None => opened.find_end(link).await?,
        };
        debug!(account = %link.account().name, mailbox = %mailbox.name, ?resume, messages = opened.mirror.exists(),
            "mailbox opened");
        opened.cursor.mailbox_id = mailbox_id;
        let settled = match resume {
            Resume::GoOn => opened.go_on(link, uid_next, mod_seq).await?,
            Resume::Baseline if mailbox.is_young => opened.go_on(link, uid_next, mod_seq).await?,
            Resume::Baseline => opened.baseline(link, uid_next, mod_seq).await?,
            Resume::Reset => opened.reset(link, stored.cursor(), uid_next, mod_seq).await?,
        };
        Ok((opened, settled))
    }

    /// Notes where a mailbox ends that was never opened and cannot be now: what comes until it can be is new, although
    /// nobody has seen what was there before.
    async fn note_end(link: &mut Link, mailbox: &Mailbox, refusal: Refusal) -> Result<(), ImapError> {
        let mut end = Cursor::before_all();
        if refusal != Refusal::NoMailbox {
            let items = link.status_if_told(&mailbox.name, |_| {}).await?;
            let (Some(uid_validity @ 1..), Some(uid_next @ 1..)) = (items.uid_validity, items.uid_next) else {
                debug!(mailbox = %mailbox.name, "nothing is known of a mailbox that is not opened");
                return Ok(());
            };
            end = Cursor::at(uid_validity, uid_next);
        }
        let no_event = Counts { messages: None, unseen: None };
        Report::new(&link.account().clone(), mailbox).commit(&mut end, no_event).await
    }

    /// UIDNEXT may be missing (RFC 3501 §7.3.1 made it optional).
    async fn find_end(&mut self, link: &mut Link) -> Result<u32, ImapError> {
        if self.mirror.exists() == 0 {
            return Ok(self.cursor.uid_next);
        }
        let mailbox = self.mailbox.name.clone();
        let status = link.status_if_told(&mailbox, |response| self.mirror.hear(response, 1)).await?;
        if let Some(uid_next) = status.uid_next {
            return Ok(uid_next);
        }
        let newest = self.search(link, "UID *").await?.ok_or_else(unanswered)?;
        Ok(newest.last().map_or(1, |uid| uid.saturating_add(1)))
    }

    /// Notes where the mailbox ends, and announces nothing.
    async fn baseline(&mut self, link: &mut Link, uid_next: u32, mod_seq: u64) -> Result<Settled, ImapError> {
        self.cursor.uid_next = uid_next;
        self.learn(link).await?;
        self.cursor.move_to_mod_seq(mod_seq, &UidSet::new());
        self.store(link).await?;
        Ok(Settled::Done)
    }

    pub(super) async fn store(&mut self, link: &Link) -> Result<(), ImapError> {
        let (account, mailbox) = (link.account().clone(), self.mailbox.clone());
        let mut cursor = self.cursor.clone();
        let counts = self.counts(&cursor);
        Report::new(&account, &mailbox).commit(&mut cursor, counts).await?;
        self.cursor = cursor;
        Ok(())
    }

    /// Finds out what has to be known for later changes to be recognised, as far as it is not known. What the server
    /// gives no answer to stays unknown until the mailbox is opened the next time.
    async fn learn(&mut self, link: &mut Link) -> Result<(), ImapError> {
        let below = self.below_next();
        let follows = self.cursor.flags.as_ref().map(|flags| flags.follows_all());
        if !link.wants.any_flags() {
            self.cursor.flags = None;
        } else if follows != Some(link.wants.all_flags()) {
            self.learn_flags(link, &below).await?;
        }
        // With QRESYNC the server tells the UIDs of what is gone.
        if !link.wants.expunge || link.qresync {
            self.cursor.present = None;
        } else if self.cursor.present.is_none() {
            let all = if self.mirror.exists() == 0 { Some(UidSet::new()) } else { self.search(link, "ALL").await? };
            self.cursor.present = all.map(|all| all.intersection(&below));
            if let Some(present) = self.cursor.present.clone() {
                self.mirror.keep(present);
            }
        }
        Ok(())
    }

    async fn learn_flags(&mut self, link: &mut Link, below: &UidSet) -> Result<(), ImapError> {
        let unseen = if below.is_empty() { Some(UidSet::new()) } else { self.search(link, "UNSEEN").await? };
        let follows_all = link.wants.all_flags();
        self.cursor.flags = unseen.map(|unseen| Box::new(KnownFlags::new(unseen.intersection(below), follows_all)));
        if follows_all && !below.is_empty() {
            let mut now = BTreeMap::new();
            self.compare_flags(link, &mut now).await?;
            for (uid, names) in now {
                self.cursor.flags.as_mut().map(|flags| flags.learn(uid, &names));
            }
        }
        Ok(())
    }

    /// Goes on from the stored position.
    async fn go_on(&mut self, link: &mut Link, uid_next: u32, mod_seq: u64) -> Result<Settled, ImapError> {
        let before = self.cursor.clone();
        // UIDNEXT must not go down, and does so on replicas that lag and after restores. What comes then has UIDs below
        // the stored ones; what was reported already is recognised by its key.
        self.cursor.uid_next = self.cursor.uid_next.min(uid_next);
        let has_known = self.cursor.present.is_some();
        self.learn(link).await?;
        let is_shrunk = uid_next < before.uid_next;
        let mut new = UidSet::new();
        if uid_next > self.cursor.uid_next || is_shrunk {
            new = self.list_new(link).await?;
        }
        if is_shrunk {
            // Most of these were reported long ago. What came in place of others is among the newest.
            let surplus = new.len().saturating_sub(u32::try_from(BATCH).unwrap_or(u32::MAX));
            if let Some(last) = new.nth(surplus) {
                new.remove_range(1, last);
            }
        }
        if has_known {
            self.compare_present(link, &new).await?;
        }
        self.ask_for_changes(link, mod_seq).await?;
        self.settle_changes(link).await?;
        if !new.is_empty() {
            let settled = self.report_listed(link, &new).await?;
            if settled != Settled::Done {
                return Ok(settled);
            }
        }
        // All that there is was listed: the server's own count may lag behind.
        self.cursor.uid_next = self.cursor.uid_next.max(uid_next);
        let settled = self.settle(link).await?;
        if settled == Settled::Done {
            self.cursor.move_to_mod_seq(mod_seq, &before.gone);
            if self.cursor != before {
                self.store(link).await?;
            }
        }
        Ok(settled)
    }

    /// Finds what is gone, where the mailbox has another number of messages than it would have had.
    async fn compare_present(&mut self, link: &mut Link, new: &UidSet) -> Result<(), ImapError> {
        let Some(present) = self.cursor.present.clone() else { return Ok(()) };
        if self.mirror.exists() == present.len().saturating_add(new.len()) {
            self.mirror.keep(present);
            return Ok(());
        }
        let gone = self.missing(link).await?;
        self.mirror.add_vanished(&gone);
        Ok(())
    }

    /// Has the server tell of flags that changed. With QRESYNC it has done so already.
    async fn ask_for_changes(&mut self, link: &mut Link, mod_seq: u64) -> Result<(), ImapError> {
        let since = self.cursor.mod_seq;
        let last = self.cursor.uid_next.saturating_sub(1);
        if !link.wants.any_flags() || last == 0 || (link.qresync && since > 0 && mod_seq >= since) {
            return Ok(());
        }
        if link.offers.condstore && since > 0 && mod_seq > 0 {
            if mod_seq != since {
                // After a restore the sequence may have gone back.
                let since = if mod_seq < since { 1 } else { since };
                let command = format!("UID FETCH 1:{last} (UID FLAGS) (CHANGEDSINCE {since})");
                self.ask(link, "UID FETCH", &command, drop).await?;
            }
            return Ok(());
        }
        let mut changed = BTreeMap::new();
        self.compare_flags(link, &mut changed).await?;
        self.mirror.add_changed(changed);
        Ok(())
    }

    /// The mailbox's UIDs were given out anew: what is known of them is void. What may have come meanwhile is reported,
    /// unless it was seen before; the rest is not announced again.
    async fn reset(
        &mut self,
        link: &mut Link,
        before: Option<&Cursor>,
        uid_next: u32,
        mod_seq: u64,
    ) -> Result<Settled, ImapError> {
        info!(account = %link.account().name, mailbox = %self.mailbox.name, "UIDVALIDITY changed, the mailbox is watched from here on");
        let last_seen = before.map_or(0, |cursor| cursor.seconds);
        self.cursor.uid_next = uid_next;
        self.learn(link).await?;
        let (account, mailbox) = (link.account().clone(), self.mailbox.clone());
        let mut report = Report::new(&account, &mailbox);
        report.reset(&self.cursor);
        if last_seen > 0 {
            let first = uid_next.saturating_sub(u32::try_from(BATCH).unwrap_or(u32::MAX)).max(1);
            self.report_recent(link, &mut report, first, last_seen.saturating_sub(RESET_OVERLAP_SECONDS)).await?;
        }
        self.cursor.move_to_mod_seq(mod_seq, &UidSet::new());
        let mut cursor = self.cursor.clone();
        let counts = self.counts(&cursor);
        report.commit(&mut cursor, counts).await?;
        self.cursor = cursor;
        Ok(Settled::Done)
    }

    /// Adds the messages from `first` on that were received since and are not known.
    async fn report_recent(
        &mut self,
        link: &mut Link,
        report: &mut Report<'_>,
        first: u32,
        since: i64,
    ) -> Result<(), ImapError> {
        if first >= self.cursor.uid_next {
            return Ok(());
        }
        let wanted = link.wanted();
        let range = UidSet::of_range(first, self.cursor.uid_next.saturating_sub(1));
        let uid_next = std::mem::replace(&mut self.cursor.uid_next, first);
        let messages = self.fetch(link, &wanted, &range, wanted.items()).await;
        self.cursor.uid_next = uid_next;
        let account = link.account().clone();
        for (uid, message) in messages? {
            let received = message.internal_date.as_deref().and_then(internal_date);
            if received.is_none_or(|at| at.as_second() < since) {
                continue;
            }
            let summarised = wanted.summarise(&message);
            // Without a key nobody can tell whether it was announced; an old message again is worse than none here,
            // since it would be all of the last minutes' mail each time.
            let Some(key) = summarised.key else { continue };
            let seen = account.event_log.sightings(&account.name, key).await?;
            if seen.is_empty() {
                self.report_one(report, uid, &message, summarised);
            }
        }
        Ok(())
    }

    fn report_one(&self, report: &mut Report<'_>, uid: u32, message: &Fetched, what: super::fetch::Summarised) {
        report.arrived(&self.cursor, uid, message, what, &super::report::Arrival::New);
    }
}
