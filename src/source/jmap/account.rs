//! One watched account: where it left off, what changed since, and the commits that bring both together.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::client::{Client, Session};
use super::config::JmapConfig;
use super::error::JmapError;
use super::mirror::{EmailChanges, Events, MailboxChanges, Mailboxes, Mirror};
use super::object::{Changes, Email, Got, Mailbox, Queried};
use super::request::{Answers, CHANGES_MAX, Request};
use crate::event::{AccountName, Content, Draft, EventKind, Origin, Topic};
use crate::event_log::{Append, AppendError, EventLog};
use crate::registry::JmapEndpoint;
use crate::source::health::{Condition, Health};

/// Answers to "what else changed" before it is cheaper to start over.
const PAGES_MAX: usize = 100;
/// How much earlier than the last look at the account messages are looked for when the server cannot say what changed:
/// its clock may not be ours.
const CLOCKS_APART: SignedDuration = SignedDuration::from_mins(10);

/// What does not change while the account is watched.
pub(super) struct Context {
    pub name: AccountName,
    pub content: Content,
    pub endpoint: Arc<JmapEndpoint>,
    pub config: Arc<JmapConfig>,
    pub event_log: EventLog,
    pub health: Arc<Health>,
}

/// How far the account was reported. Stored in the same commit as the events that it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    /// The server's ID of the account: states mean nothing in another one.
    account: String,
    email_state: String,
    mailbox_state: String,
    /// When it was looked at.
    at: Timestamp,
}

/// An account whose position is known. Outlives connections.
pub(super) struct Account {
    context: Arc<Context>,
    position: Position,
    mirror: Mirror,
}

impl Context {
    /// The name of the only condition that the account has: it has one connection for all of its mailboxes.
    pub(super) const CONNECTION: &'static str = "jmap";

    pub(super) fn report(&self, condition: Condition) {
        self.health.report(Self::CONNECTION, condition);
    }

    fn checkpoint_key(&self) -> String {
        format!("jmap/{}", Topic::account(&self.name).as_str().trim_start_matches("mail/"))
    }

    fn mailboxes_key(&self) -> String {
        format!("{}/mailboxes", self.checkpoint_key())
    }

    /// Commits what `build` makes, and waits until the log takes it: nothing more is asked of the server meanwhile.
    async fn commit(&self, build: impl Fn() -> Append) -> Result<(), JmapError> {
        Ok(self.health.append(&self.event_log, build).await?)
    }
}

impl Account {
    /// Finds out where the account was left, and how it is now. On first sight nothing in it is new.
    pub(super) async fn open(context: Arc<Context>, client: &Client, session: &Session) -> Result<Self, JmapError> {
        let stored = context.event_log.checkpoint(&context.checkpoint_key()).await?;
        let stored_mailboxes = context.event_log.checkpoint(&context.mailboxes_key()).await?;
        let remembered_max = context.config.remembered_max.get();
        let newest = remembered_max.min(session.objects_in_get);
        let request = Request::new(&session.account).email_state().newest(newest, None).their_places().mailboxes();
        let mut answers = client.call(session, &request).await?;
        let emails: Got<Email> = answers.take("state")?;
        let places: Got<Email> = answers.take("places")?;
        let mailboxes: Got<Mailbox> = answers.take("mailboxes")?;

        let wanted = context.endpoint.mailboxes.clone();
        let mut mirror = Mirror::new(context.name.clone(), context.content, wanted, remembered_max);
        mirror.remember(&places.list);
        let position = stored.as_deref().and_then(|text| serde_json::from_str::<Position>(text).ok());
        let unreadable = stored.is_some() && position.is_none();
        let known = position.filter(|position| position.account == session.account);
        let (is_known, mailbox_state) = (known.is_some(), mailboxes.state);
        let now = Position {
            account: session.account.clone(),
            email_state: emails.state,
            mailbox_state,
            at: Timestamp::now(),
        };
        let position =
            known.map_or(now.clone(), |known| Position { mailbox_state: now.mailbox_state.clone(), ..known });
        if let (true, Some(stored)) = (is_known, stored_mailboxes) {
            mirror.set_mailboxes(serde_json::from_str::<Mailboxes>(&stored).unwrap_or_default());
        }
        let mut account = Self { context, position, mirror };
        let changes = account.mirror.difference(mailboxes.list);
        let destroyed = changes.destroyed.clone();
        let mut events = account.mirror.apply(changes, EmailChanges::default());
        account.mirror.forget(&destroyed);
        if !is_known {
            events.clear();
        }
        if unreadable {
            events.push((account.reset("what was stored of the account cannot be read by this version"), None));
        }
        account.commit(events, true).await?;
        Ok(account)
    }

    /// Whether the server speaks of a state that is not ours.
    pub(super) fn is_behind(&self, email: Option<&String>, mailbox: Option<&String>) -> bool {
        email.is_some_and(|state| *state != self.position.email_state)
            || mailbox.is_some_and(|state| *state != self.position.mailbox_state)
    }

    /// Asks what changed, and commits what happened.
    pub(super) async fn sync(&mut self, client: &Client, session: &Session) -> Result<(), JmapError> {
        let Position { email_state, mailbox_state, .. } = &self.position;
        let at_once = CHANGES_MAX.min(session.objects_in_get);
        // Messages first: of one that came in between, the mailbox must be known, and not the reverse.
        let request = Request::new(&session.account)
            .email_changes(email_state, self.context.content, at_once)
            .mailbox_changes(mailbox_state, session.objects_in_get);
        let mut answers = client.call(session, &request).await?;
        match self.changes(&mut answers, client, session).await {
            Err(JmapError::CannotCalculateChanges) => self.start_over(client, session).await,
            done => done,
        }
    }

    async fn changes(&mut self, answers: &mut Answers, client: &Client, session: &Session) -> Result<(), JmapError> {
        let first: Changes = answers.take("email_changes")?;
        let (mailboxes, mailbox_state) = self.mailboxes(answers, client, session).await?;
        let gone = mailboxes.destroyed.clone();
        let (emails, skipped) = if first.has_more {
            self.many(first, client, session).await?
        } else {
            let mut created = answers.take::<Got<Email>>("new_emails")?.list;
            created.sort_by(|a, b| b.received_at.cmp(&a.received_at));
            let skipped = created.len().saturating_sub(self.context.config.catch_up_max.get());
            created.truncate(self.context.config.catch_up_max.get());
            let updated = answers.take::<Got<Email>>("changed_emails")?.list;
            (EmailChanges { created, updated, destroyed: first.destroyed, new_state: first.new_state }, skipped)
        };
        let now = (emails.new_state.clone(), mailbox_state);
        if (&now.0, &now.1) == (&self.position.email_state, &self.position.mailbox_state) {
            return Ok(());
        }
        let changed_mailboxes = !mailboxes.now.is_empty() || !mailboxes.destroyed.is_empty();
        let mut events = self.mirror.apply(mailboxes, emails);
        self.mirror.forget(&gone);
        events.extend(self.overflow(skipped).map(|draft| (draft, None)));
        (self.position.email_state, self.position.mailbox_state) = now;
        self.commit(events, changed_mailboxes).await
    }

    /// What changed of the mailboxes, and the state that it leads to. Where the server cannot say, all are compared:
    /// Cyrus cannot once one was removed.
    async fn mailboxes(
        &self,
        answers: &mut Answers,
        client: &Client,
        session: &Session,
    ) -> Result<(MailboxChanges, String), JmapError> {
        match answers.take::<Changes>("mailbox_changes") {
            Ok(changes) if !changes.has_more => {
                let mut now = answers.take::<Got<Mailbox>>("new_mailboxes")?.list;
                now.extend(answers.take::<Got<Mailbox>>("changed_mailboxes")?.list);
                Ok((MailboxChanges { now, destroyed: changes.destroyed }, changes.new_state))
            }
            Ok(_) | Err(JmapError::CannotCalculateChanges) => {
                let request = Request::new(&session.account).mailboxes();
                let all: Got<Mailbox> = client.call(session, &request).await?.take("mailboxes")?;
                Ok((self.mirror.difference(all.list), all.state))
            }
            Err(err) => Err(err),
        }
    }

    /// What changed while nobody watched for long: the IDs of all of it, then the newest of the new messages. Says how
    /// many new ones are passed over, too.
    async fn many(
        &self,
        mut all: Changes,
        client: &Client,
        session: &Session,
    ) -> Result<(EmailChanges, usize), JmapError> {
        for _ in 0..PAGES_MAX {
            if !all.has_more {
                break;
            }
            let request = Request::new(&session.account).more_email_changes(&all.new_state);
            let more: Changes = client.call(session, &request).await?.take("email_changes")?;
            // What changed in two answers is in both.
            all.created.retain(|id| !more.destroyed.contains(id));
            all.created.extend(more.created);
            all.updated.extend(more.updated);
            all.destroyed.extend(more.destroyed);
            (all.new_state, all.has_more) = (more.new_state, more.has_more);
        }
        if all.has_more {
            return Err(JmapError::CannotCalculateChanges);
        }
        let found = all.created.len();
        if found > self.context.config.catch_up_max.get() {
            let newest = self.newest(None, client, session).await?;
            all.created.retain(|id| newest.contains(id));
        }
        let skipped = found.saturating_sub(all.created.len());
        // Of the others it is not known how they were.
        all.updated.retain(|id| self.mirror.remembers(id) && !all.destroyed.contains(id));
        all.updated.sort();
        all.updated.dedup();
        let updated = self.places(&all.updated, client, session).await?;
        let created = self.emails(&all.created, client, session).await?;
        Ok((EmailChanges { created, updated, destroyed: all.destroyed, new_state: all.new_state }, skipped))
    }

    async fn newest(&self, after: Option<&str>, client: &Client, session: &Session) -> Result<Vec<String>, JmapError> {
        let request = Request::new(&session.account).newest(self.context.config.catch_up_max.get(), after);
        Ok(client.call(session, &request).await?.take::<Queried>("newest")?.ids)
    }

    /// Where messages are now; those that are gone are not among them.
    async fn places(&self, ids: &[String], client: &Client, session: &Session) -> Result<Vec<Email>, JmapError> {
        let mut emails = Vec::new();
        for ids in ids.chunks(session.objects_in_get) {
            let request = Request::new(&session.account).places(ids);
            emails.extend(client.call(session, &request).await?.take::<Got<Email>>("changed_emails")?.list);
        }
        Ok(emails)
    }

    async fn emails(&self, ids: &[String], client: &Client, session: &Session) -> Result<Vec<Email>, JmapError> {
        let mut emails = Vec::new();
        for ids in ids.chunks(CHANGES_MAX.min(session.objects_in_get)) {
            let request = Request::new(&session.account).emails(ids, self.context.content);
            emails.extend(client.call(session, &request).await?.take::<Got<Email>>("new_emails")?.list);
        }
        Ok(emails)
    }

    /// The server cannot say what changed: how the account is now counts from now on. What was received since the last
    /// look and is not remembered is announced, and the messages that are remembered are compared.
    async fn start_over(&mut self, client: &Client, session: &Session) -> Result<(), JmapError> {
        let since = self.position.at.checked_sub(CLOCKS_APART).unwrap_or(Timestamp::MIN);
        // RFC 8620 §1.4: in UTC, without a fraction.
        let after = since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let request = Request::new(&session.account).email_state().mailboxes();
        let mut answers = client.call(session, &request).await?;
        let emails: Got<Email> = answers.take("state")?;
        let mailboxes: Got<Mailbox> = answers.take("mailboxes")?;
        let mut newest = self.newest(Some(&after), client, session).await?;
        newest.retain(|id| !self.mirror.remembers(id));
        let created = self.emails(&newest, client, session).await?;
        let mut destroyed = self.mirror.remembered();
        let updated = self.places(&destroyed, client, session).await?;
        destroyed.retain(|id| updated.iter().all(|email| email.id != *id));
        let changes = self.mirror.difference(mailboxes.list);
        let gone = changes.destroyed.clone();
        let reset = "the server no longer knows what changed; what happened to older messages may be missing";
        // Where all messages can be compared, nothing is missing.
        let mut events: Events = (!self.mirror.is_complete()).then(|| (self.reset(reset), None)).into_iter().collect();
        let emails_now = EmailChanges { created, updated, destroyed, new_state: emails.state.clone() };
        events.extend(self.mirror.apply(changes, emails_now));
        self.mirror.forget(&gone);
        (self.position.email_state, self.position.mailbox_state) = (emails.state, mailboxes.state);
        self.commit(events, true).await
    }

    fn reset(&self, reason: &str) -> Draft {
        let mut draft = Draft::of_account(EventKind::MailboxReset, Origin::Jmap, &self.context.name);
        draft.reason = Some(reason.to_owned());
        draft
    }

    fn overflow(&self, skipped: usize) -> Option<Draft> {
        let mut draft = Draft::of_account(EventKind::MailboxOverflow, Origin::Jmap, &self.context.name);
        draft.reason = Some(format!("{skipped} older messages came while nobody watched and are not announced"));
        (skipped > 0).then_some(draft)
    }

    async fn commit(&mut self, events: Events, with_mailboxes: bool) -> Result<(), JmapError> {
        self.position.at = Timestamp::now();
        let written = |err: serde_json::Error| AppendError::Draft(err.to_string());
        let position = serde_json::to_string(&self.position).map_err(written)?;
        let mailboxes = with_mailboxes.then(|| serde_json::to_string(self.mirror.mailboxes())).transpose();
        let mailboxes = mailboxes.map_err(written)?;
        let context = &self.context;
        let build = || {
            let mut append = Append::new();
            for (draft, key) in &events {
                append.push(draft.clone(), *key);
            }
            append.checkpoint(context.checkpoint_key(), position.clone());
            if let Some(mailboxes) = &mailboxes {
                append.checkpoint(context.mailboxes_key(), mailboxes.clone());
            }
            append
        };
        context.commit(build).await
    }
}
