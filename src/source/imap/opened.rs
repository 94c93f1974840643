//! One opened mailbox: where it was left off, what came since, and each change as an event.
//!
//! The position moves only in the commit that stores the events it stands for, and only over messages that the server
//! sent, or that it did not have when it was asked for them. How changes are noticed is [`super::live`]'s, how they are
//! found after an absence [`super::catch_up`]'s.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

use super::context::Mailbox;
use super::cursor::{Cursor, Plan, sequence_set};
use super::error::ImapError;
use super::fetch::{Detail, MissingText, Summarised, Wanted, internal_date};
use super::link::Link;
use super::mirror::{Mirror, News};
use super::protocol::{Fetched, Response, UidSet};
use super::refusal::Refusal;
use super::report::{Arrival, Report};
use crate::event::Counts;
use crate::event_log::Sighting;

/// Messages in one FETCH and one commit.
pub(super) const BATCH: usize = 50;
/// Pauses before a message that was announced and was not there is asked for again: a replica may lag behind.
const LAGGING: [Duration; 3] = [Duration::from_secs(1), Duration::from_millis(1700), Duration::from_millis(2900)];
/// Sessions that failed over a message after which it is announced without being read.
const UNREADABLE_AFTER: u32 = 6;
/// How often a search is asked for whose answer makes no sense.
const SEARCHES_MAX: usize = 2;
/// How long a connection that watches the mailbox from which a message may have been moved is given to notice.
const ELSEWHERE_WITHIN: Duration = Duration::from_millis(1500);
const ELSEWHERE_PAUSE: Duration = Duration::from_millis(50);

/// A mailbox that is open on a connection.
pub(super) struct Opened {
    pub mailbox: Arc<Mailbox>,
    pub cursor: Cursor,
    pub mirror: Mirror,
    /// The mailboxes were looked at from which messages may have been moved here.
    pub looked: bool,
    /// When the newest of the messages was received that were reported last, in seconds since 1970.
    pub latest_received: Option<i64>,
}

fn received(message: &Fetched) -> Option<i64> {
    message.internal_date.as_deref().and_then(internal_date).map(Timestamp::as_second)
}

/// What is to be known of listed messages besides what was fetched.
#[derive(Debug, Default)]
struct New {
    /// Those that are not announced one by one.
    skipped: UidSet,
    /// Those of which less is known than the account wants.
    reduced: UidSet,
}

/// What became of an attempt to report everything.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub(super) enum Settled {
    /// Everything is reported.
    Done,
    /// A message may have been moved here from this mailbox: report what is gone there first.
    LookFirst(String),
}

/// The session cannot go on without an answer.
pub(super) fn unanswered() -> ImapError {
    ImapError::Protocol("an answer to SEARCH that cannot be read".to_owned())
}

impl Opened {
    /// Reports everything that was announced.
    pub(super) async fn settle(&mut self, link: &mut Link) -> Result<Settled, ImapError> {
        loop {
            if let Some(news) = self.mirror.take_news() {
                self.report_news(link, *news).await?;
            } else if self.mirror.has_new() {
                let settled = self.fetch_new(link).await?;
                if settled != Settled::Done {
                    return Ok(settled);
                }
            } else {
                return Ok(Settled::Done);
            }
        }
    }

    /// When the newest message of the last report was received; asked again, there is none.
    pub(super) fn take_latest_received(&mut self) -> Option<i64> {
        self.latest_received.take()
    }

    /// Stores that everything up to a modification sequence is reported.
    /// `known_gone` are the removals that had been reported when the server named it.
    pub(super) async fn reach(&mut self, link: &Link, mod_seq: u64, known_gone: &UidSet) -> Result<(), ImapError> {
        if self.mirror.has_news() || self.cursor.mod_seq == mod_seq {
            return Ok(());
        }
        self.cursor.move_to_mod_seq(mod_seq, known_gone);
        self.store(link).await
    }

    /// Reports everything that was announced but new messages.
    pub(super) async fn settle_changes(&mut self, link: &mut Link) -> Result<(), ImapError> {
        while let Some(news) = self.mirror.take_news() {
            self.report_news(link, *news).await?;
        }
        Ok(())
    }

    /// Reports removals and changes of flags.
    async fn report_news(&mut self, link: &mut Link, mut news: News) -> Result<(), ImapError> {
        if news.some_vanished && link.wants.expunge {
            news.vanished.extend(&self.missing(link).await?);
        }
        let mut cursor = self.cursor.clone();
        let account = link.account().clone();
        let mailbox = self.mailbox.clone();
        let mut report = Report::new(&account, &mailbox);
        let gone = cursor.newly_gone(&news.vanished);
        report.removed(cursor.uid_validity, &gone, link.wants);
        cursor.forget(&gone);
        if news.some_changed && link.wants.any_flags() {
            self.compare_flags(link, &mut news.changed).await?;
        }
        let below = cursor.uid_next;
        news.changed.retain(|uid, _| *uid < below && !gone.contains(*uid));
        if let Some(flags) = &mut cursor.flags {
            report.flagged(cursor.uid_validity, flags, &news.changed, link.wants);
        }
        if report.is_empty() && cursor == self.cursor {
            return Ok(());
        }
        let counts = self.counts(&cursor);
        report.commit(&mut cursor, counts).await?;
        debug!(%account.name, mailbox = %mailbox.name, gone = gone.len(), changed = news.changed.len(), "changes reported");
        self.cursor = cursor;
        Ok(())
    }

    /// Messages that were there and are not any more, found by listing those that are.
    pub(super) async fn missing(&mut self, link: &mut Link) -> Result<UidSet, ImapError> {
        let Some(before) = self.cursor.present.clone() else { return Ok(UidSet::new()) };
        let exist = self.mirror.exists();
        let Some(found) = self.search(link, "ALL").await? else { return Ok(UidSet::new()) };
        // Meanwhile some may have come, or gone.
        let exist = exist.min(self.mirror.exists());
        if found.len() < exist {
            // No answer at all, or half of one: whoever believed it would have messages vanish that are there.
            let (mailbox, listed) = (&self.mailbox.name, found.len());
            warn!(account = %link.account().name, mailbox, listed, exist, "a list of all messages that lacks some");
            return Ok(UidSet::new());
        }
        self.mirror.relist(found.intersection(&self.below_next()));
        Ok(before.difference(&found))
    }

    /// All UIDs that were reported, or skipped.
    pub(super) fn below_next(&self) -> UidSet {
        UidSet::of_range(1, self.cursor.uid_next.saturating_sub(1))
    }

    /// Finds out which messages were read or unread since, by asking which are unseen now.
    pub(super) async fn compare_flags(
        &mut self,
        link: &mut Link,
        changed: &mut BTreeMap<u32, Vec<String>>,
    ) -> Result<(), ImapError> {
        let Some(known) = self.cursor.flags.clone() else { return Ok(()) };
        if known.follows_all() {
            return self.fetch_all_flags(link, changed).await;
        }
        let below = self.below_next();
        let Some(unseen) = self.search(link, "UNSEEN").await? else { return Ok(()) };
        let unseen = unseen.intersection(&below);
        let no_longer = known.unseen().difference(&unseen);
        // What is no longer unseen was read, or is gone.
        let mut read = UidSet::new();
        if !no_longer.is_empty() {
            let found = self.search(link, &format!("SEEN UID {no_longer}")).await?;
            read = found.unwrap_or_default().intersection(&no_longer);
        }
        changed.extend(read.iter().map(|uid| (uid, vec!["\\Seen".to_owned()])));
        changed.extend(unseen.difference(known.unseen()).iter().map(|uid| (uid, Vec::new())));
        Ok(())
    }

    async fn fetch_all_flags(
        &mut self,
        link: &mut Link,
        changed: &mut BTreeMap<u32, Vec<String>>,
    ) -> Result<(), ImapError> {
        let range = format!("1:{}", self.cursor.uid_next.saturating_sub(1).max(1));
        let uid_next = self.cursor.uid_next;
        let command = format!("UID FETCH {range} (UID FLAGS)");
        // An answer that is too long to be news: what it says of flags is for the caller alone.
        let is_news = |response: &Response| !matches!(response, Response::Fetch(..));
        let hear = |response| {
            if let Response::Fetch(_, message) = response
                && let (Some(uid), Some(flags)) = (message.uid, message.flags)
                && uid < uid_next
            {
                changed.insert(uid, flags);
            }
        };
        self.ask_apart(link, "UID FETCH", &command, is_news, hear).await
    }

    /// Reports what was announced while the mailbox was watched: a few messages by one command, since each further one
    /// is time in which nobody knows of them. What are or may be many are listed first.
    pub(super) async fn fetch_new(&mut self, link: &mut Link) -> Result<Settled, ImapError> {
        let is_in_doubt = self.mirror.take_doubt();
        let are_many = self.mirror.unaccounted() as usize > BATCH;
        if is_in_doubt || are_many || link.context.unfinished_fetches() >= UNREADABLE_AFTER {
            let found = self.list_new(link).await?;
            if !found.is_empty() {
                return self.report_listed(link, &found).await;
            }
            // A list that does not bring what was announced is asked for again below, with pauses.
            if self.mirror.unaccounted() == 0 {
                return Ok(Settled::Done);
            }
        }
        let range = UidSet::of_range(self.cursor.uid_next, u32::MAX);
        let mut pauses = LAGGING.into_iter();
        loop {
            let wanted = link.wanted();
            link.context.fetch_begins();
            let unreadable = link.connection.unreadable();
            let mut messages = self.fetch(link, &wanted, &range, wanted.items()).await?;
            let answered = messages.values().filter(|message| wanted.is_answered_by(message)).count();
            // An unreadable line may have been a message's, and of half an answer none may be passed over for the sake
            // of a later one that is whole: which messages there are tells, and so it does if they are more than few.
            let some_unreadable = link.connection.unreadable() > unreadable;
            if some_unreadable || messages.len() > BATCH || (answered > 0 && answered < messages.len()) {
                let found = self.list_new(link).await?;
                return self.report_listed(link, &found).await;
            }
            let pause = pauses.next();
            if pause.is_some() {
                messages.retain(|_, message| wanted.is_answered_by(message));
            }
            if let Some((&last, _)) = messages.last_key_value() {
                return self.report_new(link, &wanted, messages, last, &New::default()).await;
            }
            if self.mirror.unaccounted() == 0 {
                // It came and went.
                link.context.fetch_is_stored();
                return Ok(Settled::Done);
            }
            let Some(pause) = pause else { break };
            debug!(?pause, "a message that was announced is not there yet");
            sleep(pause).await;
        }
        let (mailbox, announced) = (&self.mailbox.name, self.mirror.unaccounted());
        warn!(account = %link.account().name, mailbox, announced, "messages that were announced are not there");
        // The position stays, so that they are asked for again with the next message.
        link.context.fetch_is_stored();
        self.mirror.account_all();
        Ok(Settled::Done)
    }

    /// The UIDs of messages that were not reported.
    pub(super) async fn list_new(&mut self, link: &mut Link) -> Result<UidSet, ImapError> {
        let (uid_next, mut found) = (self.cursor.uid_next, UidSet::new());
        let command = format!("UID FETCH {uid_next}:* (UID)");
        // `n:*` names the last message even when its UID is below n (RFC 9051 §6.4.9).
        let hear = |response| {
            if let Response::Fetch(_, message) = response {
                message.uid.filter(|&uid| uid >= uid_next).map(|uid| found.insert(uid));
            }
        };
        let unreadable = link.connection.unreadable();
        match self.ask(link, "UID FETCH", &command, hear).await {
            Ok(()) if link.connection.unreadable() == unreadable => Ok(found),
            // One message that the server cannot read is enough for it to refuse all of them, or to say nonsense.
            Ok(()) | Err(ImapError::Refused { refusal: Refusal::Temporary, .. }) => {
                let found = self.search(link, &format!("UID {uid_next}:*")).await?.ok_or_else(unanswered)?;
                Ok(found.difference(&self.below_next()))
            }
            Err(err) => Err(err),
        }
    }

    /// Reports listed messages: the newest one by one, and if they are too many, the others by one event.
    pub(super) async fn report_listed(&mut self, link: &mut Link, found: &UidSet) -> Result<Settled, ImapError> {
        let plan = Plan::new(found, link.account().config.catch_up_max.get());
        let size = if link.context.unfinished_fetches() >= UNREADABLE_AFTER { 1 } else { BATCH };
        let batches = plan.uids.chunks(size).count();
        for (number, uids) in (1..).zip(plan.uids.chunks(size)) {
            let wanted = link.wanted();
            link.context.fetch_begins();
            let unreadable = link.connection.unreadable();
            let mut reduced = UidSet::new();
            let asked: UidSet = uids.iter().copied().collect();
            let mut messages = match self.fetch(link, &wanted, &asked, wanted.items()).await {
                // It is there, and cannot be read, again and again: that much is said of it.
                Err(ImapError::Refused { text, refusal, .. }) if size == 1 && refusal == Refusal::Temporary => {
                    warn!(account = %link.account().name, %text, "a message is announced that the server does not show");
                    reduced.extend(&asked);
                    uids.iter().map(|&uid| (uid, Fetched::default())).collect()
                }
                fetched => fetched?,
            };
            let some_unreadable = link.connection.unreadable() > unreadable;
            for &uid in uids {
                // Part of an answer is as good as one that makes no sense; none at all may mean that it is gone.
                let is_whole = messages.get(&uid).map(|message| wanted.is_answered_by(message));
                if is_whole.unwrap_or(!some_unreadable) || reduced.contains(uid) {
                    continue;
                }
                messages.insert(uid, self.fetch_less(link, uid).await?);
                reduced.insert(uid);
            }
            // UIDs that the server listed and then left out of a completed FETCH are gone (RFC 9051 §6.4.9).
            let is_last = number == batches;
            let skipped = if is_last { plan.skipped.clone() } else { UidSet::new() };
            let last = match uids.last() {
                // The older messages count as reported with the event that stands for them, which comes last.
                Some(&last) if plan.skipped.is_empty() || is_last => last,
                _ => self.cursor.uid_next.saturating_sub(1),
            };
            let new = New { skipped, reduced };
            let settled = self.report_new(link, &wanted, messages, last, &new).await?;
            if settled != Settled::Done {
                return Ok(settled);
            }
        }
        Ok(Settled::Done)
    }

    /// Asks for less of a message whose description makes no sense, until the answer can be read; that the message is
    /// there is known.
    async fn fetch_less(&mut self, link: &mut Link, uid: u32) -> Result<Fetched, ImapError> {
        warn!(account = %link.account().name, mailbox = %self.mailbox.name, uid,
            "the server's description of a message makes no sense, asking for less");
        for detail in [Detail::Header, Detail::Identifiers] {
            let wanted = link.wanted().with(detail);
            let mut found = self.fetch(link, &wanted, &UidSet::of_range(uid, uid), wanted.items()).await?;
            if let Some(message) = found.remove(&uid).filter(|message| wanted.is_answered_by(message)) {
                return Ok(message);
            }
        }
        Ok(Fetched::default())
    }

    /// Commits the messages' events together with the position after them, and only then moves.
    async fn report_new(
        &mut self,
        link: &mut Link,
        wanted: &Wanted,
        mut messages: BTreeMap<u32, Fetched>,
        last: u32,
        new: &New,
    ) -> Result<Settled, ImapError> {
        self.fetch_missing_text(link, wanted, &mut messages).await?;
        let (account, mailbox) = (link.account().clone(), self.mailbox.clone());
        let mut report = Report::new(&account, &mailbox);
        let mut cursor = self.cursor.clone();
        // One for all of them: a thousand copies must not hold up what comes behind.
        let deadline = Instant::now() + ELSEWHERE_WITHIN;
        for (&uid, message) in &messages {
            let mut summarised = wanted.summarise(message);
            if let Some(summary) = summarised.summary.as_mut().filter(|_| new.reduced.contains(uid)) {
                summary.parse_error = true;
            }
            let arrival = self.arrival(link, &summarised, deadline).await?;
            if let Arrival::Unclear(elsewhere) = arrival {
                link.context.fetch_is_stored();
                return Ok(Settled::LookFirst(elsewhere));
            }
            report.arrived(&cursor, uid, message, summarised, &arrival);
            if let (Some(known), Some(flags)) = (&mut cursor.flags, &message.flags) {
                known.learn(uid, flags);
            }
            if let Some(present) = &mut cursor.present {
                present.insert(uid);
            }
        }
        if let Some(present) = &mut cursor.present {
            present.extend(&new.skipped);
        }
        report.skipped(cursor.uid_validity, &new.skipped);
        self.latest_received = messages.values().filter_map(received).max();
        cursor.advance(last);
        let counts = self.counts(&cursor);
        report.commit(&mut cursor, counts).await?;
        link.context.fetch_is_stored();
        self.cursor = cursor;
        self.mirror.pass_over(&new.skipped);
        self.mirror.compare();
        debug!(account = %account.name, mailbox = %mailbox.name, messages = messages.len(), "new mail reported");
        Ok(Settled::Done)
    }

    /// What a message is, by where it was seen before.
    async fn arrival(&self, link: &Link, message: &Summarised, deadline: Instant) -> Result<Arrival, ImapError> {
        let account = link.account();
        let Some(key) = message.key.filter(|_| account.recognises()) else { return Ok(Arrival::New) };
        let mut is_asked = false;
        loop {
            let mut seen = account.event_log.sightings(&account.name, key).await?;
            seen.retain(|sighting: &Sighting| sighting.mailbox != self.mailbox.name);
            let arrival = Arrival::of(&seen, self.looked, Timestamp::now());
            let Arrival::Unclear(elsewhere) = &arrival else { return Ok(arrival) };
            if link.context.looks_after(elsewhere) {
                return Ok(arrival);
            }
            // Another connection watches it, or none does any more.
            if Instant::now() >= deadline {
                return Ok(Arrival::of(&seen, true, Timestamp::now()));
            }
            if !std::mem::replace(&mut is_asked, true) {
                account.signals.mailbox_changed(elsewhere);
            }
            sleep_until(Instant::now() + ELSEWHERE_PAUSE).await;
        }
    }

    /// Text that is not where it was guessed to be. It is a comfort: a refusal of it delays no event.
    async fn fetch_missing_text(
        &mut self,
        link: &mut Link,
        wanted: &Wanted,
        messages: &mut BTreeMap<u32, Fetched>,
    ) -> Result<(), ImapError> {
        let mut missing: BTreeMap<MissingText, Vec<u32>> = BTreeMap::new();
        for (&uid, message) in &*messages {
            if let Some(text) = wanted.missing_text(message) {
                missing.entry(text).or_default().push(uid);
            }
        }
        for (text, uids) in missing {
            let items = format!("(UID {})", text.item());
            match self.fetch(link, wanted, &uids.into_iter().collect(), &items).await {
                Ok(answers) => {
                    for (uid, answer) in answers {
                        if let Some(message) = messages.get_mut(&uid) {
                            message.merge(answer);
                        }
                    }
                }
                Err(ImapError::Refused { text, .. }) => debug!(%text, "no text of a message"),
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }

    /// Fetches messages, of which no more than [`BATCH`] should be asked for. What comes beside the asked ones, as flags
    /// of a message further on that change meanwhile, and more than one beyond the batch is not kept.
    pub(super) async fn fetch(
        &mut self,
        link: &mut Link,
        wanted: &Wanted,
        asked: &UidSet,
        items: &str,
    ) -> Result<BTreeMap<u32, Fetched>, ImapError> {
        let mut found: BTreeMap<u32, Fetched> = BTreeMap::new();
        let uid_next = self.cursor.uid_next;
        let command = format!("UID FETCH {} {items}", sequence_set(asked));
        let patience = link.patience("UID FETCH");
        let mirror = &mut self.mirror;
        let run = link.connection.run(&command, patience, |response| {
            mirror.hear(&response, uid_next);
            let Response::Fetch(number, message) = response else { return };
            let Some(uid) = message.uid.filter(|&uid| asked.contains(uid)) else { return };
            if found.len() > BATCH && !found.contains_key(&uid) {
                return;
            }
            if wanted.is_answered_by(&message) {
                mirror.account_to(number, uid);
            }
            found.entry(uid).or_default().merge(*message);
        });
        run.await?;
        Ok(found)
    }

    /// What a search finds, by UID. Nothing where the server, asked twice, gives no answer that makes sense as a whole:
    /// what was not found would count as gone, or as read.
    pub(super) async fn search(&mut self, link: &mut Link, criteria: &str) -> Result<Option<UidSet>, ImapError> {
        let form = if link.offers.esearch { "RETURN (ALL) " } else { "" };
        let command = format!("UID SEARCH {form}{criteria}");
        for _ in 0..SEARCHES_MAX {
            let (mut found, mut is_answered, mut is_broken) = (UidSet::new(), false, false);
            let unreadable = link.connection.unreadable();
            let hear = |response| {
                if let Response::Search(result) = response {
                    is_answered = true;
                    is_broken |= result.is_broken;
                    found.extend(&result.found);
                }
            };
            self.ask(link, "UID SEARCH", &command, hear).await?;
            let is_missing = !is_answered && link.connection.unreadable() > unreadable;
            if !is_broken && !is_missing {
                return Ok(Some(found));
            }
        }
        warn!(account = %link.account().name, mailbox = %self.mailbox.name, "answers to SEARCH that cannot be read");
        Ok(None)
    }

    /// NOOP: has the server say what it has not said yet.
    pub(super) async fn noop(&mut self, link: &mut Link) -> Result<(), ImapError> {
        self.ask(link, "NOOP", "NOOP", drop).await
    }

    /// Runs a command; the mirror hears everything.
    pub(super) async fn ask(
        &mut self,
        link: &mut Link,
        what: &'static str,
        command: &str,
        hear: impl FnMut(Response),
    ) -> Result<(), ImapError> {
        self.ask_apart(link, what, command, |_| true, hear).await
    }

    /// Runs a command of whose answer the mirror hears what is news; `hear` hears everything.
    async fn ask_apart(
        &mut self,
        link: &mut Link,
        what: &'static str,
        command: &str,
        is_news: impl Fn(&Response) -> bool,
        mut hear: impl FnMut(Response),
    ) -> Result<(), ImapError> {
        let (mirror, uid_next) = (&mut self.mirror, self.cursor.uid_next);
        let hear = |response| {
            if is_news(&response) {
                mirror.hear(&response, uid_next);
            }
            hear(response);
        };
        link.run(what, command, hear).await?;
        Ok(())
    }

    /// How many messages there are.
    pub(super) fn counts(&self, cursor: &Cursor) -> Counts {
        let unseen = cursor.flags.as_ref().and_then(|flags| flags.unseen_count());
        Counts { messages: Some(self.mirror.exists()), unseen }
    }
}
