//! The IMAP watcher with an event log of its own, as a test sees it.

use std::path::Path;
use std::time::Duration;

use postrider::event::{Event, EventKind};
use postrider::event_log::{EventLog, EventLogConfig, Tail};
use postrider::registry::{Account, AccountChanges, AccountState, AccountStatus, Registry};
use postrider::source::imap::{self, ImapConfig, WatcherHandle};
use postrider::source::jmap::{self, JmapConfig};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{eventually, within};

/// A running watcher and what it has stored.
pub struct Watching {
    pub event_log: EventLog,
    pub registry: Registry,
    pub handle: WatcherHandle,
    tail: Tail,
    waiting: Vec<Event>,
    changes: mpsc::Sender<AccountChanges>,
    stop: CancellationToken,
    task: JoinSet<()>,
}

/// A channel that brings these accounts.
fn come(accounts: &[Account]) -> (mpsc::Sender<AccountChanges>, mpsc::Receiver<AccountChanges>) {
    let (sender, receiver) = mpsc::channel(1);
    sender.try_send(AccountChanges { come: accounts.to_vec(), ..AccountChanges::default() }).unwrap();
    (sender, receiver)
}

/// The defaults, with short pauses after failures.
pub fn config() -> ImapConfig {
    ImapConfig { retry_first: Duration::from_millis(200), ..ImapConfig::default() }
}

impl Watching {
    /// Starts watching; the log in `folder` may be one from before.
    pub fn start(folder: &Path, accounts: &[Account], config: ImapConfig) -> Self {
        let event_log = EventLog::open(folder, &EventLogConfig::default()).unwrap();
        let registry = Registry::new(accounts);
        let tail = event_log.tail();
        let (stop, handle) = (CancellationToken::new(), WatcherHandle::default());
        let mut task = JoinSet::new();
        let (changes, receiver) = come(accounts);
        task.spawn(imap::watch(config, event_log.clone(), registry.clone(), handle.clone(), receiver, stop.clone()));
        Self { event_log, registry, handle, tail, waiting: Vec::new(), changes, stop, task }
    }

    /// The same for accounts that are watched by JMAP.
    pub fn start_jmap(folder: &Path, accounts: &[Account], config: JmapConfig) -> Self {
        let event_log = EventLog::open(folder, &EventLogConfig::default()).unwrap();
        let registry = Registry::new(accounts);
        let tail = event_log.tail();
        let (stop, handle) = (CancellationToken::new(), WatcherHandle::default());
        let mut task = JoinSet::new();
        let (changes, receiver) = come(accounts);
        task.spawn(jmap::watch(config, event_log.clone(), registry.clone(), receiver, stop.clone()));
        Self { event_log, registry, handle, tail, waiting: Vec::new(), changes, stop, task }
    }

    /// The same, once all accounts are watched and have said so.
    pub async fn started(folder: &Path, accounts: &[Account], config: ImapConfig) -> Self {
        let mut watching = Self::start(folder, accounts, config);
        for _ in accounts {
            watching.until(EventKind::AccountUp).await;
        }
        watching
    }

    /// The accounts are others from now on.
    pub async fn reload(&self, old: &[Account], new: &[Account]) {
        let changes = AccountChanges::between(old, new, |name| self.registry.is_ailing(name));
        self.registry.replace(new);
        self.changes.send(changes).await.unwrap();
    }

    /// The next event.
    pub async fn event(&mut self) -> Event {
        within("an event", self.event_at_last()).await
    }

    /// The same for those who have a deadline of their own.
    pub async fn event_at_last(&mut self) -> Event {
        while self.waiting.is_empty() {
            let batch = self.tail.next().await.expect("the log is open");
            assert!(!batch.gap);
            self.waiting = batch.events.iter().map(|event| serde_json::from_slice(&event.json).unwrap()).collect();
        }
        self.waiting.remove(0)
    }

    /// The next event, which must be of this kind.
    pub async fn next(&mut self, kind: EventKind) -> Event {
        let event = self.event().await;
        assert_eq!(event.draft.kind, kind, "{event:?}");
        event
    }

    /// The next event of this kind; what comes before it is dropped.
    pub async fn until(&mut self, kind: EventKind) -> Event {
        loop {
            let event = self.event().await;
            if event.draft.kind == kind {
                return event;
            }
        }
    }

    /// The next event, a new message, and its subject.
    pub async fn subject(&mut self) -> String {
        let event = self.next(EventKind::MessageNew).await;
        event.draft.message.and_then(|message| message.subject).unwrap_or_default()
    }

    pub fn status(&self) -> AccountStatus {
        self.registry.list().into_iter().next().unwrap()
    }

    pub async fn state(&self, state: AccountState) -> AccountStatus {
        let what = format!("state {state:?}");
        eventually(&what, async || Some(self.status()).filter(|status| status.state == state)).await
    }

    /// Stops watching and closes the log.
    pub async fn stop(mut self) {
        self.stop.cancel();
        within("the watcher's end", self.task.join_next()).await.unwrap().unwrap();
        self.event_log.close().await;
    }
}
