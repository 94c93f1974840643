//! One opened mailbox: where the last session left off, what came since, and each new message as an event.
//!
//! The position moves only in the commit that stores the events it stands for, and only over messages that the server
//! sent, or that it did not have when it was asked for them. How new mail is noticed is [`super::live`]'s.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::connection::{Connection, Patience};
use super::context::MailboxContext;
use super::cursor::{Cursor, Plan, Resume, Skipped, Stored, sequence_set};
use super::error::ImapError;
use super::fetch::{Detail, MissingText, Wanted};
use super::login::LoggedIn;
use super::mailbox_name;
use super::mirror::Mirror;
use super::protocol::{Capabilities, Code, Fetched, Response};
use super::refusal::During;
use crate::event::{Counts, Draft, EventKind};
use crate::event_log::Append;

/// Messages in one FETCH and one commit.
const BATCH: usize = 50;
/// Pauses before a message that was announced and was not there is asked for again: a replica may lag behind.
const LAGGING: [Duration; 3] = [Duration::from_secs(1), Duration::from_millis(1700), Duration::from_millis(2900)];

/// A mailbox that is open on a connection of its own.
pub(super) struct Session {
    pub(super) context: Arc<MailboxContext>,
    pub(super) connection: Connection,
    pub(super) mirror: Mirror,
    pub(super) can_idle: bool,
    cursor: Cursor,
    wanted: Wanted,
    capabilities: Capabilities,
}

/// What EXAMINE said.
#[derive(Debug, Default)]
pub(super) struct Examined {
    pub mirror: Mirror,
    uid_validity: Option<u32>,
    uid_next: Option<u32>,
}

/// Opens a mailbox to look at it. EXAMINE and never SELECT, which would take \Recent from the user's mail program, and
/// would let a mistake of ours change flags.
pub(super) async fn examine(
    connection: &mut Connection,
    mailbox: &str,
    limit: Duration,
) -> Result<Examined, ImapError> {
    let mut examined = Examined::default();
    let mut counted = false;
    let patience = Patience { what: "EXAMINE", silence: limit, during: During::Open };
    let command = format!("EXAMINE {}", mailbox_name::to_wire(mailbox));
    let opened = connection.run(&command, patience, |response| {
        examined.mirror.hear(&response);
        match response {
            // Only the first count belongs to UIDNEXT; one that follows announces a message already.
            Response::Exists(_) if !counted => {
                counted = true;
                examined.mirror.account_all();
            }
            Response::Status(reply) => match reply.code {
                Some(Code::UidNext(uid)) => examined.uid_next = Some(uid),
                Some(Code::UidValidity(value)) => examined.uid_validity = Some(value),
                _ => {}
            },
            _ => {}
        }
    });
    opened.await.map_err(|err| match err {
        ImapError::Refused { refusal, text, .. } => ImapError::Mailbox { mailbox: mailbox.to_owned(), refusal, text },
        other => other,
    })?;
    Ok(examined)
}

impl Session {
    /// Opens the mailbox and reports what came since it was last watched.
    pub(super) async fn open(context: Arc<MailboxContext>, logged_in: LoggedIn) -> Result<Self, ImapError> {
        let LoggedIn { mut connection, capabilities, .. } = logged_in;
        let account = &context.account;
        let examined = examine(&mut connection, &context.mailbox, account.config.open_timeout).await?;
        let stored = account.event_log.checkpoint(&context.checkpoint_key).await?;
        let mut session = Self {
            can_idle: capabilities.has("IDLE"),
            wanted: wanted(&context, &capabilities),
            // Replaced as soon as it is known.
            cursor: Cursor { uid_validity: 0, uid_next: 1 },
            mirror: examined.mirror,
            connection,
            capabilities,
            context,
        };
        let now = session.position(&examined).await?;
        let stored = stored.as_deref().map(Stored::parse);
        session.resume(stored, now).await?;
        Ok(session)
    }

    /// The mailbox's end. UIDNEXT may be missing (RFC 3501 §7.3.1 made it optional).
    async fn position(&mut self, examined: &Examined) -> Result<Cursor, ImapError> {
        let uid_validity = examined.uid_validity.unwrap_or_else(|| {
            warn!("the server gives the mailbox no UIDVALIDITY, messages are told apart by UID alone");
            0
        });
        let uid_next = match examined.uid_next {
            Some(uid_next) => uid_next,
            None if examined.mirror.exists() == 0 => 1,
            None => self.list("*").await?.into_iter().max().map_or(1, |uid| uid.saturating_add(1)),
        };
        Ok(Cursor { uid_validity, uid_next })
    }

    async fn resume(&mut self, stored: Option<Stored>, now: Cursor) -> Result<(), ImapError> {
        let resume = Cursor::resume(stored, now);
        debug!(?stored, ?resume, messages = self.mirror.exists(), "mailbox opened");
        match resume {
            Resume::CatchUp(cursor) => {
                self.cursor = cursor;
                let newest_max = self.context.account.config.catch_up_max.get();
                self.catch_up(Some(newest_max)).await?;
                return Ok(());
            }
            Resume::Baseline(cursor) | Resume::UpToDate(cursor) => {
                if stored != Some(Stored::At(cursor)) {
                    self.commit(&[], cursor, None).await?;
                }
                self.cursor = cursor;
            }
            Resume::Reset(cursor) => {
                info!(?stored, ?now, "UIDVALIDITY changed, the mailbox is watched from here on");
                let mut draft = self.context.draft(EventKind::MailboxReset);
                draft.uid_validity = Some(cursor.uid_validity);
                draft.counts = Some(self.counts());
                let key = self.context.dedup_key(cursor.uid_validity, cursor.uid_next, EventKind::MailboxReset);
                let context = self.context.clone();
                let commit = context.commit(|| {
                    let mut append = Append::new();
                    append.push(draft.clone(), Some(key));
                    append.checkpoint(context.checkpoint_key.as_str(), cursor.to_checkpoint());
                    append
                });
                commit.await?;
                self.cursor = cursor;
            }
        }
        Ok(())
    }

    /// Reports all messages from the position on, at most the `newest_max` newest one by one. Returns how many.
    async fn catch_up(&mut self, newest_max: Option<usize>) -> Result<usize, ImapError> {
        let listed = self.list(&format!("{}:*", self.cursor.uid_next)).await?;
        let plan = Plan::new(listed, newest_max);
        let batches = plan.uids.chunks(BATCH).count();
        for (number, uids) in (1..).zip(plan.uids.chunks(BATCH)) {
            let items = self.wanted.items().to_owned();
            self.context.fetch_begins();
            let mut messages = self.fetch(&sequence_set(uids), &items).await?;
            // Flags of a message further on may change meanwhile; that message has its turn yet.
            messages.retain(|uid, _| uids.binary_search(uid).is_ok());
            // UIDs that the server listed and then left out of a completed FETCH are gone (RFC 9051 §6.4.9).
            let is_last = number == batches;
            let overflow = plan.skipped.filter(|_| is_last);
            let cursor = match uids.last() {
                // The older messages count as reported with the event that stands for them, which comes last.
                Some(&last) if plan.skipped.is_none() || is_last => self.cursor.after(last),
                _ => self.cursor,
            };
            self.report(messages, cursor, overflow).await?;
        }
        Ok(plan.uids.len())
    }

    /// Reports what was announced while the mailbox was watched.
    pub(super) async fn fetch_new(&mut self) -> Result<(), ImapError> {
        // A list that brings nothing is asked for again below, with pauses.
        if self.mirror.unaccounted() as usize > BATCH && self.catch_up(None).await? > 0 {
            return Ok(());
        }
        let range = format!("{}:*", self.cursor.uid_next);
        let items = self.wanted.items().to_owned();
        let mut pauses = LAGGING.into_iter();
        loop {
            self.context.fetch_begins();
            let mut messages = self.fetch(&range, &items).await?;
            let pause = pauses.next();
            if pause.is_some() {
                messages.retain(|_, message| self.wanted.is_answered_by(message));
            }
            if let Some((&last, _)) = messages.last_key_value() {
                return self.report(messages, self.cursor.after(last), None).await;
            }
            if self.mirror.unaccounted() == 0 {
                // It came and went.
                self.context.fetch_is_stored();
                return Ok(());
            }
            let Some(pause) = pause else { break };
            debug!(?pause, "a message that was announced is not there yet");
            sleep(pause).await;
        }
        warn!(announced = self.mirror.unaccounted(), "messages that were announced are not there");
        // The position stays, so that they are asked for again with the next message.
        self.context.fetch_is_stored();
        self.mirror.account_all();
        Ok(())
    }

    /// The UIDs that there are.
    async fn list(&mut self, uids: &str) -> Result<Vec<u32>, ImapError> {
        let mut found = Vec::new();
        self.ask(uids, "(UID)", |_| true, |uid, _| found.push(uid)).await?;
        Ok(found)
    }

    async fn fetch(&mut self, uids: &str, items: &str) -> Result<BTreeMap<u32, Fetched>, ImapError> {
        let mut found: BTreeMap<u32, Fetched> = BTreeMap::new();
        let wanted = self.wanted.clone();
        let is_answer = |message: &Fetched| wanted.is_answered_by(message);
        self.ask(uids, items, is_answer, |uid, message| found.entry(uid).or_default().merge(message)).await?;
        Ok(found)
    }

    /// Asks for messages by UID. What the answer has of UIDs before the position is dropped: `n:*` names the last
    /// message even when its UID is below n (RFC 9051 §6.4.9).
    async fn ask(
        &mut self,
        uids: &str,
        items: &str,
        is_answer: impl Fn(&Fetched) -> bool,
        mut found: impl FnMut(u32, Fetched),
    ) -> Result<(), ImapError> {
        let (patience, uid_next) = (self.patience("UID FETCH"), self.cursor.uid_next);
        let mirror = &mut self.mirror;
        let command = format!("UID FETCH {uids} {items}");
        let run = self.connection.run(&command, patience, |response| {
            mirror.hear(&response);
            let Response::Fetch(number, message) = response else { return };
            let Some(uid) = message.uid else { return };
            if is_answer(&message) {
                mirror.account_to(number);
            }
            if uid >= uid_next {
                found(uid, *message);
            }
        });
        run.await?;
        Ok(())
    }

    /// Commits the messages' events together with the position after them, and only then moves.
    async fn report(
        &mut self,
        mut messages: BTreeMap<u32, Fetched>,
        cursor: Cursor,
        overflow: Option<Skipped>,
    ) -> Result<(), ImapError> {
        self.fetch_missing_text(&mut messages).await?;
        let counts = self.counts();
        let drafts: Vec<Draft> =
            messages.into_iter().map(|(uid, message)| self.message_new(uid, &message, counts)).collect();
        self.commit(&drafts, cursor, overflow).await?;
        self.context.fetch_is_stored();
        if self.wanted.is_reduced() {
            self.wanted = wanted(&self.context, &self.capabilities);
        }
        self.cursor = cursor;
        debug!(messages = drafts.len(), uid_next = cursor.uid_next, "new mail reported");
        Ok(())
    }

    async fn commit(&self, drafts: &[Draft], cursor: Cursor, overflow: Option<Skipped>) -> Result<(), ImapError> {
        let kind = EventKind::MailboxOverflow;
        let overflow = overflow.map(|skipped| {
            let mut draft = self.context.draft(kind);
            draft.uid_validity = Some(cursor.uid_validity);
            draft.counts = Some(self.counts());
            draft.data =
                Some(json!({ "skipped": skipped.count, "uid_first": skipped.first, "uid_last": skipped.last }));
            (draft, self.context.dedup_key(cursor.uid_validity, skipped.first, kind))
        });
        self.context
            .commit(|| {
                let mut append = Append::new();
                for draft in drafts {
                    let key = draft.uid.map(|uid| self.context.dedup_key(cursor.uid_validity, uid, draft.kind));
                    append.push(draft.clone(), key);
                }
                if let Some((draft, key)) = &overflow {
                    append.push(draft.clone(), Some(*key));
                }
                append.checkpoint(self.context.checkpoint_key.as_str(), cursor.to_checkpoint());
                append
            })
            .await
    }

    fn message_new(&self, uid: u32, message: &Fetched, counts: Counts) -> Draft {
        let mut draft = self.context.draft(EventKind::MessageNew);
        draft.uid = Some(uid);
        draft.uid_validity = Some(self.cursor.uid_validity);
        draft.flags.clone_from(&message.flags);
        draft.counts = Some(counts);
        draft.message = self.wanted.summary(message);
        draft
    }

    /// Text that is not where it was guessed to be. It is a comfort: a refusal of it delays no event.
    async fn fetch_missing_text(&mut self, messages: &mut BTreeMap<u32, Fetched>) -> Result<(), ImapError> {
        let mut missing: BTreeMap<MissingText, Vec<u32>> = BTreeMap::new();
        for (&uid, message) in &*messages {
            if let Some(text) = self.wanted.missing_text(message) {
                missing.entry(text).or_default().push(uid);
            }
        }
        for (text, uids) in missing {
            let items = format!("(UID {})", text.item());
            match self.fetch(&sequence_set(&uids), &items).await {
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

    /// NOOP: has the server say what it has not said yet.
    pub(super) async fn noop(&mut self) -> Result<(), ImapError> {
        let (patience, mirror) = (self.patience("NOOP"), &mut self.mirror);
        self.connection.run("NOOP", patience, |response| mirror.hear(&response)).await?;
        Ok(())
    }

    fn counts(&self) -> Counts {
        // How many are unseen would cost a round trip before each event.
        Counts { messages: Some(self.mirror.exists()), unseen: None }
    }

    fn patience(&self, what: &'static str) -> Patience {
        Patience { what, silence: self.context.account.config.answer_timeout, during: During::Other }
    }
}

fn wanted(context: &MailboxContext, capabilities: &Capabilities) -> Wanted {
    let failures = context.unfinished_fetches();
    let detail = Detail::after_failures(failures);
    if detail != Detail::All {
        warn!(failures, ?detail, "answers about new mail cannot be read, asking for less");
    }
    let text_bytes_max = context.account.config.text_bytes_max.get();
    Wanted::new(context.account.content, detail, text_bytes_max, capabilities)
}
