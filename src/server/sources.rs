//! The sources while the server runs: what was started for which configuration, so that it can be changed and ended.

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::event_log::EventLog;
use crate::registry::{Account, AccountChanges, Registry};
use crate::source::imap::{self, WatcherHandle};
use crate::source::jmap;

/// Everything that brings events. Ends when its token is cancelled.
pub(super) struct Sources {
    event_log: EventLog,
    registry: Registry,
    /// How others speak to the watchers, whichever are running.
    handle: WatcherHandle,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    imap: Watcher,
    jmap: Watcher,
}

/// The watcher of all accounts of one kind; it may not be running.
struct Watcher {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    changes: Option<mpsc::Sender<AccountChanges>>,
}

impl Sources {
    pub(super) fn new(event_log: EventLog, registry: Registry, handle: WatcherHandle, stop: CancellationToken) -> Self {
        let watcher = || Watcher { stop: stop.child_token(), tasks: JoinSet::new(), changes: None };
        let (imap, jmap) = (watcher(), watcher());
        Self { event_log, registry, handle, stop, tasks: JoinSet::new(), imap, jmap }
    }

    /// Adds a source that ends with the others.
    pub(super) fn spawn(&mut self, source: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(source);
    }

    /// Watches the accounts of the new configuration, instead of those of the old one if there was one. Whoever is the
    /// same in both goes on undisturbed, unless the section of its source has changed; the others catch up from where
    /// they stood.
    pub(super) async fn watch(&mut self, old: Option<&Config>, new: &Config) {
        let (log, registry) = (self.event_log.clone(), self.registry.clone());
        let by_imap = |config| accounts(config, |account| account.imap.is_some());
        let old_imap = old.filter(|old| old.imap == new.imap);
        let changes = self.imap.changes(old_imap.map(by_imap), by_imap(new), &registry).await;
        let (section, handle) = (new.imap.clone(), self.handle.clone());
        let start = |changes, stop| imap::watch(section, log.clone(), registry.clone(), handle, changes, stop);
        self.imap.take(changes, &self.stop, start).await;

        let by_jmap = |config| accounts(config, |account| account.jmap.is_some());
        let old_jmap = old.filter(|old| old.jmap == new.jmap);
        let changes = self.jmap.changes(old_jmap.map(by_jmap), by_jmap(new), &registry).await;
        let section = new.jmap.clone();
        let start = |changes, stop| jmap::watch(section, log.clone(), registry.clone(), changes, stop);
        self.jmap.take(changes, &self.stop, start).await;
    }

    /// Waits until all have ended; their token was cancelled.
    pub(super) async fn ended(&mut self) {
        drain(&mut self.imap.tasks).await;
        drain(&mut self.jmap.tasks).await;
        drain(&mut self.tasks).await;
    }
}

impl Watcher {
    /// What is to change. Without `old` accounts that it could go on with, it ends first.
    async fn changes<'a>(
        &mut self,
        old: Option<impl Iterator<Item = &'a Account>>,
        new: impl Iterator<Item = &'a Account>,
        registry: &Registry,
    ) -> AccountChanges {
        let is_running = self.changes.as_ref().is_some_and(|changes| !changes.is_closed());
        let old = old.filter(|_| is_running);
        if old.is_none() {
            self.stop.cancel();
            self.changes = None;
            drain(&mut self.tasks).await;
        }
        AccountChanges::between(old.into_iter().flatten(), new, |name| registry.is_ailing(name))
    }

    /// Hands the changes to what is running, or starts it for them.
    async fn take<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        changes: AccountChanges,
        stop: &CancellationToken,
        start: impl FnOnce(mpsc::Receiver<AccountChanges>, CancellationToken) -> F,
    ) {
        if changes.is_empty() {
            return;
        }
        let sender = self.changes.get_or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(1);
            self.stop = stop.child_token();
            self.tasks.spawn(start(receiver, self.stop.clone()));
            sender
        });
        if sender.send(changes).await.is_err() {
            tracing::error!("the accounts' watcher has failed, reload again; please report this as a bug");
        }
    }
}

fn accounts(config: &Config, is_meant: fn(&Account) -> bool) -> impl Iterator<Item = &Account> {
    config.account.iter().filter(move |account| is_meant(account))
}

async fn drain(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(err) = ended {
            tracing::error!(error = %err, "a source failed; please report this as a bug");
        }
    }
}
