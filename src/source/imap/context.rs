//! What the sessions of an account and of a mailbox share, and what outlives a session.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use super::access::Access;
use super::backoff;
use super::config::ImapConfig;
use super::cursor::{checkpoint_key, dedup_key};
use super::error::ImapError;
use super::health::{Condition, Health};
use super::login::{LoggedIn, log_in};
use crate::event::{AccountName, Content, Draft, EventKind, Origin};
use crate::event_log::{Append, AppendError, DedupKey, EventLog};
use crate::registry::ImapEndpoint;

/// Pauses between attempts to store events: the first, and the longest.
const APPEND_RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// One account, for all of its connections.
pub(super) struct AccountContext {
    pub name: AccountName,
    pub content: Content,
    pub endpoint: ImapEndpoint,
    pub config: Arc<ImapConfig>,
    pub event_log: EventLog,
    pub health: Arc<Health>,
    pub access: Access,
    /// Connections to the account's host, of any account, that may be set up at the same time.
    pub host_connects: Arc<Semaphore>,
    pub logins: Logins,
}

/// Lets an account's connections log in one after the other, and none while refused credentials wait: with ten
/// mailboxes a wrong password would else be sent ten times, and ten times are a lock-out.
#[derive(Debug)]
pub(super) struct Logins {
    turn: Semaphore,
    refused: Mutex<Refused>,
}

#[derive(Debug, Default)]
struct Refused {
    times: u32,
    not_before: Option<Instant>,
}

impl Default for Logins {
    fn default() -> Self {
        Self { turn: Semaphore::new(1), refused: Mutex::default() }
    }
}

impl Logins {
    fn not_before(&self) -> Option<Instant> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.not_before.filter(|&time| time > Instant::now())
    }

    fn accepted(&self) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Refused::default();
    }

    /// Counts a refusal, and says how long the account's connections wait.
    fn refused(&self) -> Duration {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.times = refused.times.saturating_add(1);
        let pause = backoff::after_refused_login(refused.times);
        refused.not_before = Some(Instant::now() + pause);
        pause
    }

    /// How long the last refusal still counts.
    pub(super) fn pause(&self) -> Duration {
        self.not_before().map_or(Duration::ZERO, |time| time.saturating_duration_since(Instant::now()))
    }
}

impl AccountContext {
    /// Connects and logs in, when it is this connection's turn.
    pub(super) async fn log_in(&self) -> Result<LoggedIn, ImapError> {
        // Nobody closes a semaphore here, so that a failed acquire cannot happen; it would only lift the limit.
        let _turn = self.logins.turn.acquire().await;
        while let Some(time) = self.logins.not_before() {
            sleep_until(time).await;
        }
        let _place = self.host_connects.acquire().await;
        let logged_in = log_in(&self.endpoint, &self.config, &self.access).await;
        match &logged_in {
            Ok(_) => self.logins.accepted(),
            Err(err) if err.is_auth() => {
                self.logins.refused();
            }
            Err(_) => {}
        }
        logged_in
    }
}

/// One mailbox of an account, over all of its sessions.
pub(super) struct MailboxContext {
    pub account: Arc<AccountContext>,
    pub mailbox: String,
    pub checkpoint_key: String,
    /// How often in a row new messages were fetched whose answers were not read to the end and stored.
    unfinished: AtomicU32,
    watched_since: Mutex<Option<Instant>>,
}

impl MailboxContext {
    pub(super) fn new(account: Arc<AccountContext>, mailbox: String) -> Self {
        let checkpoint_key = checkpoint_key(&account.name, &mailbox);
        let (unfinished, watched_since) = (AtomicU32::new(0), Mutex::new(None));
        Self { account, mailbox, checkpoint_key, unfinished, watched_since }
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
        self.account.health.report(&self.mailbox, condition);
    }

    /// How long the session that just ended was watched.
    pub(super) fn take_lived(&self) -> Option<Duration> {
        let since = self.watched_since.lock().unwrap_or_else(PoisonError::into_inner).take();
        since.map(|since| since.elapsed())
    }

    fn is_watched(&self) -> bool {
        self.watched_since.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(super) fn draft(&self, kind: EventKind) -> Draft {
        Draft::in_mailbox(kind, Origin::Imap, &self.account.name, &self.mailbox)
    }

    pub(super) fn dedup_key(&self, uid_validity: u32, uid: u32, kind: EventKind) -> DedupKey {
        dedup_key(&self.account.name, &self.mailbox, uid_validity, uid, kind.as_str())
    }

    /// Commits what `build` makes, and waits until the log takes it. Meanwhile nothing more is read, so that TCP holds
    /// the server back; what was fetched stays here and is not fetched again.
    ///
    /// # Errors
    /// Only when the log was closed.
    pub(super) async fn commit(&self, build: impl Fn() -> Append) -> Result<(), ImapError> {
        let (mut pause, longest) = APPEND_RETRY;
        let mut failed = false;
        loop {
            match self.account.event_log.append(build()).await {
                Ok(_) => {
                    if failed {
                        self.report(if self.is_watched() {
                            Condition::Connected
                        } else {
                            Condition::Syncing { stalled: None }
                        });
                    }
                    return Ok(());
                }
                Err(AppendError::Closed) => return Err(AppendError::Closed.into()),
                Err(err) => {
                    warn!(error = %err, retry_in = ?pause, "cannot store events, new mail waits");
                    self.report(Condition::Syncing { stalled: Some(err.to_string()) });
                    failed = true;
                    sleep(pause).await;
                    pause = pause.saturating_mul(2).min(longest);
                }
            }
        }
    }
}
