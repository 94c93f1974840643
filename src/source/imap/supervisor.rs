//! Keeps every account watched, and brings back what fails.
//!
//! A session is one task. Here is all that outlives it: when it is tried again, and what people are told. A session
//! that panics is a session that failed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use rand::seq::SliceRandom;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug_span, error, info, warn};

use super::access::Ways;
use super::config::ImapConfig;
use super::context::{AccountContext, Alerts, ConnectionContext, ConnectionRequest, Duty, Logins, Mailbox};
use super::error::ImapError;
use super::handle::WatcherHandle;
use super::host::Hosts;
use super::metrics::METRICS;
use super::refusal::Refusal;
use super::session::Session;
use crate::event::{AccountName, Origin};
use crate::event_log::{AppendError, EventLog};
use crate::registry::{Account, AccountChanges, Registry, Succession};
use crate::source::backoff::Backoff;
use crate::source::health::{Announcements, Condition, Health};

/// For sessions to say goodbye, and to finish the commit that they are in.
const GRACE: Duration = Duration::from_secs(4);
/// Pauses where the server asks for patience: dead connections hold their places until it notices.
const AFTER_CAPACITY: Duration = Duration::from_mins(5);
const AFTER_THROTTLED: Duration = Duration::from_mins(10);
/// A session that the server ends in due time begins again after up to so long.
const AFTER_SESSION_OVER: Duration = Duration::from_secs(2);
/// A session that ends sooner was not meant to: it is renewed with the pauses of a failure.
const PLANNED_LEAST: Duration = Duration::from_mins(1);
/// A connection that failed so often in a row is announced as down; the first loss of a watched one is not, since it
/// is mostly back before anybody could act.
const FAILURES_ANNOUNCED: u32 = 2;
/// Requests of accounts for connections that wait here.
const REQUESTS_MAX: usize = 64;
/// How often it is asked whether the machine was asleep, and what counts as sleep.
const CLOCK_INTERVAL: Duration = Duration::from_secs(20);
const ASLEEP: Duration = Duration::from_mins(1);

/// One connection over all of its sessions.
struct Slot {
    context: Arc<ConnectionContext>,
    backoff: Backoff,
    was_watched: bool,
    /// Cancelled when the connection is no longer wanted.
    stop: CancellationToken,
}

/// Watches the mailboxes of the accounts that `changes` bring, as far as they have an IMAP server, until `stop`. What
/// happens there becomes events in `event_log`, together with the positions in the mailboxes; `registry` is told how each
/// account is doing, and `handle` speaks to the watcher meanwhile. An account goes on as it is until `changes` name it.
///
/// Nothing makes it end but `stop`, or that there is nothing to watch and nothing to come: what fails is tried again.
///
/// # Cancel safety
/// Dropping the future ends all connections without a goodbye; nothing is lost, since positions move with the events.
pub async fn watch(
    config: ImapConfig,
    event_log: EventLog,
    registry: Registry,
    handle: WatcherHandle,
    changes: mpsc::Receiver<AccountChanges>,
    stop: CancellationToken,
) {
    let announcements = Arc::new(Announcements::default());
    let (connections, requests) = mpsc::channel(REQUESTS_MAX);
    let config = Arc::new(config);
    let shared = Shared {
        ways: Ways::new(&config, registry.credentials().cloned()),
        hosts: Hosts::new(&config),
        config,
        event_log: event_log.clone(),
        registry,
        handle,
        announcements: announcements.clone(),
        connections,
    };
    let mut announcer = JoinSet::new();
    let announcing = stop.clone();
    announcer.spawn(async move { announcements.announce(&event_log, &announcing).await });
    let sessions = Sessions {
        shared,
        tasks: JoinSet::new(),
        slots: HashMap::new(),
        succession: Succession::default(),
        requests,
        stop: stop.clone(),
    };
    sessions.supervise(changes).await;
    announcer.shutdown().await;
}

/// What all accounts share.
struct Shared {
    ways: Arc<Ways>,
    hosts: Hosts,
    config: Arc<ImapConfig>,
    event_log: EventLog,
    registry: Registry,
    handle: WatcherHandle,
    announcements: Arc<Announcements>,
    connections: mpsc::Sender<ConnectionRequest>,
}

impl Shared {
    fn context(&self, account: Account) -> Option<Arc<AccountContext>> {
        let endpoint = account.imap?;
        let health = Health::new(account.name.clone(), Origin::Imap, self.registry.clone(), self.announcements.clone());
        let access = self.ways.access(account.name.clone(), &endpoint.host);
        let allowed = access.quirks().connections_max.and_then(|max| u32::try_from(max.get()).ok());
        let connections_max = endpoint.connections_max.get().min(allowed.unwrap_or(u32::MAX));
        Some(Arc::new(AccountContext {
            signals: self.handle.register(&account.name),
            at_login: self.handle.command_at_login(&account.name),
            host: self.hosts.host(&endpoint.host, &self.config),
            connections_max: AtomicU32::new(connections_max),
            access,
            name: account.name,
            content: account.content,
            endpoint,
            config: self.config.clone(),
            event_log: self.event_log.clone(),
            health,
            logins: Logins::default(),
            connections: self.connections.clone(),
            several_mailboxes: AtomicBool::new(false),
            alerts: Alerts::default(),
            hot: std::sync::Mutex::default(),
            relist: AtomicBool::new(false),
        }))
    }
}

/// The running sessions.
struct Sessions {
    shared: Shared,
    tasks: JoinSet<Result<(), ImapError>>,
    slots: HashMap<Id, Slot>,
    succession: Succession,
    requests: mpsc::Receiver<ConnectionRequest>,
    stop: CancellationToken,
}

impl Sessions {
    fn begin(&mut self, accounts: Vec<Account>) {
        let mut contexts: Vec<_> = accounts.into_iter().filter_map(|account| self.shared.context(account)).collect();
        // Lest the accounts of one host, which stand together, all wait for it while others could go on.
        contexts.shuffle(&mut rand::rng());
        for account in contexts {
            self.add(account, Duty::Account);
        }
    }

    /// Ends what is gone, and begins what has come.
    fn change(&mut self, changes: AccountChanges) {
        for account in &changes.gone {
            self.shared.handle.forget(account);
        }
        let mut ending = BTreeSet::new();
        for slot in self.slots.values().filter(|slot| changes.gone.contains(&slot.context.account.name)) {
            slot.stop.cancel();
            ending.insert(slot.context.account.name.clone());
        }
        let now = self.succession.take(changes, &ending);
        self.begin(now);
    }

    /// Begins an account in its new form if the connection that ended was the last of the old one.
    fn has_ended(&mut self, account: &AccountName) {
        let is_running = |slot: &Slot| slot.context.account.name == *account;
        if self.succession.has_next(account) && !self.slots.values().any(is_running) {
            let new = self.succession.next(account);
            self.begin(new.into_iter().collect());
        }
    }

    /// Adds a connection that is wanted from now on.
    fn add(&mut self, account: Arc<AccountContext>, duty: Duty) {
        let config = &account.config;
        let backoff = Backoff::new(config.retry_first, config.retry_max);
        // Each has its own, the first connections too: a reload may take any account away.
        let stop = self.stop.child_token();
        let context = Arc::new(ConnectionContext::new(account, duty));
        context.report(Condition::START);
        self.start(Slot { context, backoff, was_watched: false, stop }, Duration::ZERO);
    }

    fn start(&mut self, slot: Slot, after: Duration) {
        let (context, stop) = (slot.context.clone(), slot.stop.clone());
        // At `debug`, since a span that is recorded takes half a kilobyte for as long as the connection lives.
        let span = debug_span!("imap.session", account = %context.account.name, connection = context.name());
        let task = self.tasks.spawn(
            async move {
                let waiting = async {
                    let signals = context.account.signals.clone();
                    tokio::select! {
                        () = sleep(after) => {}
                        () = signals.retry.notified() => context.account.logins.release(),
                    }
                };
                if stop.run_until_cancelled(waiting).await.is_none() {
                    return Ok(());
                }
                session(context, &stop).await
            }
            .instrument(span),
        );
        self.slots.insert(task.id(), slot);
    }

    async fn supervise(mut self, mut changes: mpsc::Receiver<AccountChanges>) {
        let stop = self.stop.clone();
        let (mut wall, mut steady) = (SystemTime::now(), Instant::now());
        while !self.tasks.is_empty() || !changes.is_closed() {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                Some(changes) = changes.recv() => self.change(changes),
                Some(request) = self.requests.recv() => self.requested(request),
                () = sleep(CLOCK_INTERVAL) => {
                    let (wall_now, steady_now) = (SystemTime::now(), Instant::now());
                    let passed = wall_now.duration_since(wall).unwrap_or_default();
                    if passed > steady_now.duration_since(steady) + ASLEEP {
                        self.probe_all();
                    }
                    (wall, steady) = (wall_now, steady_now);
                }
            }
        }
        let drained = timeout(GRACE, async { while self.tasks.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            warn!(open = self.tasks.len(), grace = ?GRACE, "grace period over, dropping IMAP connections");
            self.tasks.shutdown().await;
        }
        for slot in self.slots.values() {
            self.shared.handle.forget(&slot.context.account.name);
        }
    }

    /// The machine was asleep: what looks like a connection may be none any more.
    fn probe_all(&self) {
        info!("the clock has jumped, looking at all mailboxes");
        for slot in self.slots.values() {
            slot.context.probe();
        }
    }

    /// Gives an account connections of its own for these mailboxes, and takes away others.
    fn requested(&mut self, request: ConnectionRequest) {
        let ConnectionRequest::Watch(account, mailboxes) = request;
        let mut missing: Vec<Arc<Mailbox>> = mailboxes;
        let is_running = |slot: &&Slot| !slot.stop.is_cancelled() && Arc::ptr_eq(&slot.context.account, &account);
        // An account that is about to end gets no more of them.
        if !self.slots.values().any(|slot| is_running(&slot)) {
            return;
        }
        for slot in self.slots.values().filter(is_running) {
            let Duty::Mailbox(mailbox) = &slot.context.duty else { continue };
            match missing.iter().position(|wanted| wanted.name == mailbox.name) {
                Some(index) => drop(missing.swap_remove(index)),
                None => slot.stop.cancel(),
            }
        }
        for mailbox in missing {
            self.add(account.clone(), Duty::Mailbox(mailbox));
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
            _ if slot.stop.is_cancelled() => {
                slot.context.account.health.forget(slot.context.name());
                self.has_ended(&slot.context.account.name);
            }
            // A log that is closed is not opened again: postrider is on its way out.
            Ok(()) | Err(ImapError::Append(AppendError::Closed)) => {}
            // The server has no place for it: the account's first connection looks after its mailbox too.
            Err(err) if err.refusal() == Some(Refusal::Capacity) && slot.context.give_up() => {
                slot.failed(&err);
                slot.context.account.health.forget(slot.context.name());
            }
            // What became of the mailbox is found out there, too, and another one may have the connection.
            Err(err @ ImapError::Mailbox { refusal, .. })
                if refusal != Refusal::Throttled && slot.context.give_up() =>
            {
                let account = &slot.context.account;
                warn!(account = %account.name, error = err.reason(), "not opened, its connection is given up");
                account.health.forget(slot.context.name());
            }
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
        let account = self.context.account.clone();
        let lived = self.context.take_lived();
        self.was_watched |= lived.is_some();
        if err.is_planned() && lived.is_some_and(|lived| lived >= PLANNED_LEAST) {
            info!(account = %account.name, connection = self.context.name(), "the session is over, beginning the next");
            self.context.report(Condition::START);
            return AFTER_SESSION_OVER.mul_f64(rand::random_range(0.1..1.0));
        }
        METRICS.failures.inc();
        let pause = self.backoff.after_failure(lived.unwrap_or_default(), rand::random_range(0.5..1.0));
        let asked = err.asked_pause();
        match err.refusal() {
            Some(Refusal::Capacity) => {
                // Fewer connections for this account, of which one is the least.
                let fewer = (account.connections_max.load(Ordering::Relaxed) / 2).max(1);
                account.connections_max.store(fewer, Ordering::Relaxed);
                account.logins.pause_for(asked.unwrap_or(AFTER_CAPACITY));
            }
            Some(Refusal::Throttled) => account.logins.pause_for(asked.unwrap_or(AFTER_THROTTLED)),
            _ => {}
        }
        let is_parked = err.is_auth() && account.logins.is_parked();
        let after = pause.max(account.logins.pause());
        let reason = err.reason();
        let connection = self.context.name();
        if is_parked {
            warn!(account = %account.name, connection, error = reason, "not tried again until a person acts");
        } else {
            warn!(account = %account.name, connection, error = reason, retry_in = ?after, "not watched, will try again");
        }
        let wait = SignedDuration::try_from(after).unwrap_or(SignedDuration::MAX);
        let retry_at = Timestamp::now().checked_add(wait).unwrap_or(Timestamp::MAX);
        self.context.report(if err.is_auth() {
            Condition::AuthFailed { reason, retry_at: (!is_parked).then_some(retry_at) }
        } else if self.was_watched && self.backoff.failures() < FAILURES_ANNOUNCED {
            Condition::Connecting { reason: Some(reason), retry_at: Some(retry_at) }
        } else {
            Condition::Failed { reason, retry_at }
        });
        if is_parked { Duration::ZERO } else { after }
    }
}

async fn session(context: Arc<ConnectionContext>, stop: &CancellationToken) -> Result<(), ImapError> {
    let opening = async {
        let logged_in = context.account.log_in().await?;
        context.report(Condition::Syncing { stalled: None });
        // Boxed, so that it is there once and not once more for each function that it is handed to.
        Session::open(context, logged_in).await.map(Box::new)
    };
    let Some(opened) = stop.run_until_cancelled(Box::pin(opening)).await else { return Ok(()) };
    let mut session = opened?;
    session.watch(stop).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_log::EventLogConfig;
    use crate::registry::ImapEndpoint;

    /// Ten thousand accounts idle in one process: what the future of a session holds, each of them holds. Branches
    /// that are rare belong into boxes.
    #[tokio::test]
    async fn a_session_that_idles_is_small() {
        let folder = tempfile::tempdir().unwrap();
        let event_log = EventLog::open(folder.path(), &EventLogConfig::default()).unwrap();
        let (connections, _requests) = mpsc::channel(1);
        let shared = Shared {
            ways: Arc::default(),
            hosts: Hosts::new(&ImapConfig::default()),
            config: Arc::default(),
            event_log: event_log.clone(),
            registry: Registry::default(),
            handle: WatcherHandle::default(),
            announcements: Arc::default(),
            connections,
        };
        let imap = Some(ImapEndpoint::new("localhost", "alice"));
        let account = Account { imap: imap.map(Arc::new), ..Account::new("alice".parse().unwrap()) };
        let account = shared.context(account).unwrap();
        let context = Arc::new(ConnectionContext::new(account, Duty::Account));
        let stop = CancellationToken::new();
        let size = std::mem::size_of_val(&session(context, &stop));
        assert!(size <= 720, "{size} bytes");
        event_log.close().await;
    }
}
