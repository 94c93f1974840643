//! Keeps every mailbox on a connection of its own, and brings back what fails.
//!
//! A session is one task. Here is all that outlives it: when it is tried again, and what people are told. A session
//! that panics is a session that failed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Semaphore;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info_span, warn};

use super::access::Ways;
use super::backoff::Backoff;
use super::config::ImapConfig;
use super::context::{AccountContext, Logins, MailboxContext};
use super::error::ImapError;
use super::health::{Condition, Health};
use super::mailbox_name;
use super::refusal::Refusal;
use super::session::Session;
use crate::event_log::{AppendError, EventLog};
use crate::registry::{Account, Registry};

/// For sessions to say goodbye, and to finish the commit that they are in.
const GRACE: Duration = Duration::from_secs(4);
/// Pauses where the server asks for patience: dead connections hold their places until it notices.
const AFTER_CAPACITY: Duration = Duration::from_mins(5);
const AFTER_THROTTLED: Duration = Duration::from_mins(10);
/// A connection that failed so often in a row is announced as down; the first loss of a watched one is not, since it
/// is mostly back before anybody could act.
const FAILURES_ANNOUNCED: u32 = 2;

/// One mailbox over all of its sessions.
struct Slot {
    context: Arc<MailboxContext>,
    backoff: Backoff,
    was_watched: bool,
}

/// Watches the mailboxes of all accounts that have an IMAP server, until `stop`. New messages become events in
/// `event_log`, together with the positions in the mailboxes; `registry` is told how each account is doing.
///
/// Nothing makes it end but `stop`, or that there is nothing to watch: what fails is tried again.
///
/// # Cancel safety
/// Dropping the future ends all connections without a goodbye; nothing is lost, since positions move with the events.
pub async fn watch(
    accounts: Vec<Account>,
    config: ImapConfig,
    event_log: EventLog,
    registry: Registry,
    stop: CancellationToken,
) {
    let contexts = contexts(accounts, &Arc::new(config), &event_log, &registry);
    let mut announcers = JoinSet::new();
    let mut sessions = Sessions { tasks: JoinSet::new(), slots: HashMap::new(), stop: stop.clone() };
    for (account, mailboxes) in contexts {
        let (health, event_log, stop) = (account.health.clone(), event_log.clone(), stop.clone());
        announcers.spawn(async move { health.announce(&event_log, &stop).await });
        for mailbox in mailboxes {
            let config = &account.config;
            let backoff = Backoff::new(config.retry_first, config.retry_max);
            let context = Arc::new(MailboxContext::new(account.clone(), mailbox));
            sessions.start(Slot { context, backoff, was_watched: false }, Duration::ZERO);
        }
    }
    sessions.supervise().await;
    announcers.shutdown().await;
}

fn contexts(
    accounts: Vec<Account>,
    config: &Arc<ImapConfig>,
    event_log: &EventLog,
    registry: &Registry,
) -> Vec<(Arc<AccountContext>, Vec<String>)> {
    let ways = Ways::new(config, registry.credentials().cloned());
    let mut hosts: HashMap<String, Arc<Semaphore>> = HashMap::new();
    let mut contexts = Vec::new();
    for account in accounts {
        let Some(endpoint) = account.imap else { continue };
        let mut mailboxes: Vec<String> = Vec::new();
        for mailbox in &endpoint.mailboxes {
            // Named twice it would have two writers of one position.
            let name = mailbox_name::canonical(mailbox);
            if !mailboxes.contains(&name) {
                mailboxes.push(name);
            }
        }
        let places = || Arc::new(Semaphore::new(config.connects_per_host_max.get()));
        let host_connects = hosts.entry(endpoint.host.to_ascii_lowercase()).or_insert_with(places).clone();
        let health = Arc::new(Health::new(account.name.clone(), &mailboxes, registry.clone()));
        let context = AccountContext {
            access: ways.access(account.name.clone()),
            name: account.name,
            content: account.content,
            endpoint,
            config: config.clone(),
            event_log: event_log.clone(),
            health,
            host_connects,
            logins: Logins::default(),
        };
        contexts.push((Arc::new(context), mailboxes));
    }
    contexts
}

/// The running sessions.
struct Sessions {
    tasks: JoinSet<Result<(), ImapError>>,
    slots: HashMap<Id, Slot>,
    stop: CancellationToken,
}

impl Sessions {
    fn start(&mut self, slot: Slot, after: Duration) {
        let (context, stop) = (slot.context.clone(), self.stop.clone());
        let span = info_span!("imap.session", account = %context.account.name, mailbox = %context.mailbox);
        let task = self.tasks.spawn(
            async move {
                if stop.run_until_cancelled(sleep(after)).await.is_none() {
                    return Ok(());
                }
                session(context, &stop).await
            }
            .instrument(span),
        );
        self.slots.insert(task.id(), slot);
    }

    async fn supervise(mut self) {
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                ended = self.tasks.join_next_with_id() => match ended {
                    Some(ended) => self.ended(ended),
                    None => return,
                },
            }
        }
        let drained = timeout(GRACE, async { while self.tasks.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            warn!(open = self.tasks.len(), grace = ?GRACE, "grace period over, dropping IMAP connections");
            self.tasks.shutdown().await;
        }
    }

    fn ended(&mut self, ended: Result<(Id, Result<(), ImapError>), JoinError>) {
        let (id, result) = match ended {
            Ok(ended) => ended,
            Err(err) => {
                error!(error = %err, "an IMAP session panicked");
                (err.id(), Err(ImapError::Panicked))
            }
        };
        let Some(mut slot) = self.slots.remove(&id) else { return };
        match result {
            // A log that is closed is not opened again: postrider is on its way out.
            Ok(()) | Err(ImapError::Append(AppendError::Closed)) => {}
            Err(err) => {
                let after = slot.failed(&err);
                self.start(slot, after);
            }
        }
    }
}

impl Slot {
    /// Takes note of a failure, tells people, and says how long to wait.
    fn failed(&mut self, err: &ImapError) -> Duration {
        let lived = self.context.take_lived();
        self.was_watched |= lived.is_some();
        let pause = self.backoff.after_failure(lived.unwrap_or_default(), rand::random_range(0.5..1.0));
        let after = match err.refusal() {
            _ if err.is_auth() => pause.max(self.context.account.logins.pause()),
            Some(Refusal::Capacity) => pause.max(AFTER_CAPACITY),
            Some(Refusal::Throttled) => pause.max(AFTER_THROTTLED),
            _ => pause,
        };
        let reason = err.reason();
        let (account, mailbox) = (&self.context.account.name, &self.context.mailbox);
        warn!(%account, %mailbox, error = reason, retry_in = ?after, "mailbox is not watched, will try again");
        let pause = SignedDuration::try_from(after).unwrap_or(SignedDuration::MAX);
        let retry_at = Timestamp::now().checked_add(pause).unwrap_or(Timestamp::MAX);
        self.context.report(if err.is_auth() {
            Condition::AuthFailed { reason, retry_at }
        } else if self.was_watched && self.backoff.failures() < FAILURES_ANNOUNCED {
            Condition::Connecting { reason: Some(reason), retry_at: Some(retry_at) }
        } else {
            Condition::Failed { reason, retry_at }
        });
        after
    }
}

async fn session(context: Arc<MailboxContext>, stop: &CancellationToken) -> Result<(), ImapError> {
    let Some(logged_in) = stop.run_until_cancelled(context.account.log_in()).await else { return Ok(()) };
    let logged_in = logged_in?;
    context.report(Condition::Syncing { stalled: None });
    let Some(opened) = stop.run_until_cancelled(Session::open(context, logged_in)).await else { return Ok(()) };
    opened?.watch(stop).await
}
