//! What the sessions of an account and of a connection share, and what outlives a session.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::access::Access;
use super::config::ImapConfig;
use super::cursor::checkpoint_key;
use super::error::ImapError;
use super::handle::Signals;
use super::host::Host;
use super::login::{LoggedIn, log_in};
use super::mailbox_name;
use super::mailboxes::Role;
use super::metrics::METRICS;
use super::refusal::{Refusal, ServerText};
use crate::event::{AccountName, Content, Draft, EventKind, Origin};
use crate::event_log::{Append, DedupKey, EventLog};
use crate::registry::ImapEndpoint;
use crate::source::backoff::after_refused_login;
use crate::source::health::{Condition, Health};

/// Refused logins in a row after which only a person can help.
const REFUSALS_MAX: u32 = 5;
/// What a server wants its user to read is told so often a day at most: it may have much to say.
const ALERTS_A_DAY_MAX: u32 = 50;
/// Refusals over so long a time are as bad.
const REFUSED_FOR_MAX: Duration = Duration::from_hours(72);

/// One account, for all of its connections.
pub(super) struct AccountContext {
    pub name: AccountName,
    pub content: Content,
    pub endpoint: Arc<ImapEndpoint>,
    pub config: Arc<ImapConfig>,
    pub event_log: EventLog,
    pub health: Arc<Health>,
    pub access: Access,
    pub host: Arc<Host>,
    pub logins: Logins,
    pub signals: Arc<Signals>,
    /// Sent after each login where the server offers METADATA.
    pub at_login: Option<Box<str>>,
    /// Where more connections are asked for.
    pub connections: mpsc::Sender<ConnectionRequest>,
    /// Connections that the server allows, as far as is known.
    pub connections_max: AtomicU32,
    /// Whether messages may come from one watched mailbox to another.
    pub several_mailboxes: AtomicBool,
    /// The mailboxes that have connections of their own, besides the first connection's.
    pub hot: Mutex<Vec<Arc<Mailbox>>>,
    /// What the server had to say to its user: when, and how often.
    pub alerts: Alerts,
    /// A mailbox has lost its connection: the first connection is to deal anew.
    pub relist: AtomicBool,
}

/// Counts what a server had to say to its user on one day.
#[derive(Debug, Default)]
pub(super) struct Alerts {
    /// The day since 1970, and in the lowest eight bits how often.
    day_and_count: AtomicU32,
}

impl Alerts {
    fn may_alert(&self, day: u32) -> bool {
        let count = |known: u32| if known >> 8 == day { known & 0xff } else { 0 };
        let more = |known: u32| (count(known) < ALERTS_A_DAY_MAX).then(|| (day << 8) + count(known) + 1);
        self.day_and_count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// The day, counted from 1970.
fn today() -> u32 {
    u32::try_from(Timestamp::now().as_second() / (24 * 60 * 60)).unwrap_or_default()
}

/// What the first connection of an account asks of the supervisor.
pub(super) enum ConnectionRequest {
    /// Watch these mailboxes on connections of their own, and no others.
    Watch(Arc<AccountContext>, Vec<Arc<Mailbox>>),
}

/// One mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mailbox {
    /// As people see it.
    pub name: String,
    pub checkpoint_key: String,
    pub role: Option<Role>,
    /// Whether its messages are new when it is seen for the first time: it was made while the account was watched.
    pub is_young: bool,
}

impl Mailbox {
    pub(super) fn new(account: &AccountName, name: &str, role: Option<Role>) -> Self {
        let name = mailbox_name::canonical(name);
        Self { checkpoint_key: checkpoint_key(account, &name), name, role, is_young: false }
    }

    /// Mail programs put messages there, and no mail arrives.
    pub(super) fn is_written_by_programs(&self) -> bool {
        matches!(self.role, Some(Role::Sent | Role::Drafts))
    }
}

/// Lets an account's connections log in one after the other, and none while refused credentials wait: with ten
/// mailboxes a wrong password would else be sent ten times, and ten times are a lock-out.
#[derive(Debug)]
pub(super) struct Logins {
    turn: Semaphore,
    refused: Mutex<Refused>,
    released: Notify,
}

#[derive(Debug, Default)]
struct Refused {
    times: u32,
    since: Option<Instant>,
    not_before: Option<Instant>,
    parked: bool,
}

impl Default for Logins {
    fn default() -> Self {
        Self { turn: Semaphore::new(1), refused: Mutex::default(), released: Notify::new() }
    }
}

impl Logins {
    fn not_before(&self) -> Option<Instant> {
        self.lock().not_before.filter(|&time| time > Instant::now())
    }

    fn accepted(&self) {
        *self.lock() = Refused::default();
    }

    /// Counts a refusal: the account's connections wait, for a time or for a person.
    fn refused(&self, needs_person: bool) {
        let (mut refused, now) = (self.lock(), Instant::now());
        refused.times = refused.times.saturating_add(1);
        let since = *refused.since.get_or_insert(now);
        refused.not_before = Some(now + after_refused_login(refused.times));
        refused.parked = needs_person || refused.times >= REFUSALS_MAX || now.duration_since(since) >= REFUSED_FOR_MAX;
    }

    /// The server asks for patience: no connection of the account is made until then.
    pub(super) fn pause_for(&self, pause: Duration) {
        let (mut refused, until) = (self.lock(), Instant::now() + pause);
        refused.not_before = Some(refused.not_before.map_or(until, |time| time.max(until)));
    }

    /// How long the last refusal still counts.
    pub(super) fn pause(&self) -> Duration {
        self.not_before().map_or(Duration::ZERO, |time| time.saturating_duration_since(Instant::now()))
    }

    /// Whether nothing is tried until a person has done something.
    pub(super) fn is_parked(&self) -> bool {
        self.lock().parked
    }

    /// A person has done something, or asks for another try.
    pub(super) fn release(&self) {
        {
            let mut refused = self.lock();
            (refused.parked, refused.not_before) = (false, None);
        }
        self.released.notify_waiters();
    }

    /// Waits until the credentials may be sent.
    async fn wait(&self) {
        loop {
            let released = self.released.notified();
            if self.is_parked() {
                released.await;
            } else if let Some(time) = self.not_before() {
                tokio::select! {
                    () = released => {}
                    () = sleep_until(time) => {}
                }
            } else {
                return;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AccountContext {
    /// Connects and logs in, when it is this connection's turn.
    pub(super) async fn log_in(&self) -> Result<LoggedIn, ImapError> {
        // Nobody closes a semaphore here, so that a failed acquire cannot happen; it would only lift the limit.
        let _turn = self.logins.turn.acquire().await;
        loop {
            tokio::select! {
                () = self.logins.wait() => break,
                () = self.signals.retry.notified() => self.logins.release(),
            }
        }
        let _place = self.host.turn().await;
        let logged_in = log_in(&self.endpoint, &self.config, &self.access).await;
        match &logged_in {
            Ok(_) => {
                METRICS.logins.inc();
                self.logins.accepted();
            }
            Err(err) if err.is_auth() => {
                METRICS.logins_refused.inc();
                self.logins.refused(err.refusal() == Some(Refusal::NeedsPerson));
            }
            Err(_) => {}
        }
        logged_in
    }

    /// The mailboxes that have connections of their own, besides the first connection's.
    pub(super) fn hot(&self) -> Vec<Arc<Mailbox>> {
        self.hot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has these mailboxes watched on connections of their own, and no others.
    pub(super) async fn set_hot(self: &Arc<Self>, mailboxes: Vec<Arc<Mailbox>>) {
        self.hot.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&mailboxes);
        let request = ConnectionRequest::Watch(self.clone(), mailboxes);
        // The supervisor is there as long as its connections are.
        let _gone = self.connections.send(request).await.is_err();
    }

    /// Whether it is worth knowing which messages were seen where.
    pub(super) fn recognises(&self) -> bool {
        self.several_mailboxes.load(Ordering::Relaxed)
    }

    /// Commits what `build` makes, and waits until the log takes it. Meanwhile nothing more is read, so that TCP holds
    /// the server back; what was fetched stays here and is not fetched again.
    ///
    /// # Errors
    /// Only when the log was closed.
    pub(super) async fn commit(&self, build: impl Fn() -> Append) -> Result<(), ImapError> {
        Ok(self.health.append(&self.event_log, build).await?)
    }

    /// Tells what the server wants its user to read: the same text once a day, whatever connection it comes by.
    ///
    /// # Errors
    /// Only when the log was closed.
    pub(super) async fn alert(&self, text: &ServerText) -> Result<(), ImapError> {
        let (reason, day) = (text.to_string(), today());
        if !self.alerts.may_alert(day) {
            return Ok(());
        }
        warn!(account = %self.name, text = reason, "the server has something to say to its user");
        let name = self.name.as_str().as_bytes();
        self.commit(|| {
            let mut draft = Draft::of_account(EventKind::AccountAlert, Origin::Imap, &self.name);
            draft.reason = Some(reason.clone());
            let mut append = Append::new();
            append.push(draft, Some(DedupKey::of(&[b"alert", name, &day.to_be_bytes(), reason.as_bytes()])));
            append
        })
        .await
    }
}

/// What a connection is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Duty {
    /// The first: it finds out which mailboxes there are and looks after all that have no connection of their own.
    Account,
    /// One mailbox.
    Mailbox(Arc<Mailbox>),
}

/// One connection, over all of its sessions.
pub(super) struct ConnectionContext {
    pub account: Arc<AccountContext>,
    pub duty: Duty,
    /// How often in a row new messages were fetched whose answers were not read to the end and stored.
    unfinished: AtomicU32,
    watched_since: Mutex<Option<Instant>>,
    /// Names of the mailboxes that it looks after.
    mailboxes: Mutex<Vec<Box<str>>>,
}

impl ConnectionContext {
    pub(super) fn new(account: Arc<AccountContext>, duty: Duty) -> Self {
        let (unfinished, watched_since, mailboxes) = (AtomicU32::new(0), Mutex::default(), Mutex::default());
        Self { account, duty, unfinished, watched_since, mailboxes }
    }

    pub(super) fn look_after<'a>(&self, mailboxes: impl Iterator<Item = &'a str>) {
        *self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner) = mailboxes.map(Into::into).collect();
    }

    pub(super) fn looks_after(&self, mailbox: &str) -> bool {
        let mailboxes = self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner);
        mailboxes.iter().any(|name| **name == *mailbox)
    }

    /// Its name in what people are told.
    pub(super) fn name(&self) -> &str {
        match &self.duty {
            Duty::Account => "",
            Duty::Mailbox(mailbox) => &mailbox.name,
        }
    }

    /// Counted before and not after: a session that panics cannot count.
    pub(super) fn fetch_begins(&self) {
        self.unfinished.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn fetch_is_stored(&self) {
        self.unfinished.store(0, Ordering::Relaxed);
    }

    pub(super) fn unfinished_fetches(&self) -> u32 {
        self.unfinished.load(Ordering::Relaxed)
    }

    pub(super) fn report(&self, condition: Condition) {
        if condition == Condition::Connected {
            self.watched_since.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        }
        self.account.health.report(self.name(), condition);
    }

    /// Leaves its mailbox to the account's first connection. That one itself cannot.
    pub(super) fn give_up(&self) -> bool {
        let Duty::Mailbox(mailbox) = &self.duty else { return false };
        let account = &self.account;
        account.hot.lock().unwrap_or_else(PoisonError::into_inner).retain(|hot| hot.name != mailbox.name);
        account.relist.store(true, Ordering::Relaxed);
        account.signals.wake.notify_waiters();
        true
    }

    /// Has its mailboxes looked at, so that a dead connection is found out.
    pub(super) fn probe(&self) {
        let mailboxes = self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for mailbox in mailboxes {
            self.account.signals.mailbox_changed(&mailbox);
        }
    }

    /// How long the session that just ended was watched.
    pub(super) fn take_lived(&self) -> Option<Duration> {
        let since = self.watched_since.lock().unwrap_or_else(PoisonError::into_inner).take();
        since.map(|since| since.elapsed())
    }
}
