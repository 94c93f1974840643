//! The sources while the server runs: what was started for which configuration, so that it can be changed and ended.

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::event_log::EventLog;
use crate::registry::Registry;
use crate::source::imap::{self, WatcherHandle};
use crate::source::jmap;

/// Everything that brings events. Ends when its token is cancelled.
pub(super) struct Sources {
    event_log: EventLog,
    registry: Registry,
    /// How others speak to the watchers, whichever are running.
    watcher: WatcherHandle,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    watchers: Watchers,
}

/// The IMAP and JMAP watchers of one configuration.
struct Watchers {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Sources {
    pub(super) fn new(
        event_log: EventLog,
        registry: Registry,
        watcher: WatcherHandle,
        stop: CancellationToken,
    ) -> Self {
        let watchers = Watchers { stop: stop.child_token(), tasks: JoinSet::new() };
        Self { event_log, registry, watcher, stop, tasks: JoinSet::new(), watchers }
    }

    /// Adds a source that ends with the others.
    pub(super) fn spawn(&mut self, source: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(source);
    }

    /// Ends the watchers of the old configuration, and starts those of the new one: they catch up from where the old
    /// ones stood.
    pub(super) async fn watch(&mut self, config: &Config) {
        self.watchers.stop.cancel();
        drain(&mut self.watchers.tasks).await;
        self.watchers.stop = self.stop.child_token();
        let watched: Vec<_> = config.account.iter().filter(|account| account.imap.is_some()).cloned().collect();
        if !watched.is_empty() {
            let (log, registry) = (self.event_log.clone(), self.registry.clone());
            let watching = imap::watch(
                watched,
                config.imap.clone(),
                log,
                registry,
                self.watcher.clone(),
                self.watchers.stop.clone(),
            );
            self.watchers.tasks.spawn(watching);
        }
        let watched: Vec<_> = config.account.iter().filter(|account| account.jmap.is_some()).cloned().collect();
        if !watched.is_empty() {
            let (log, registry) = (self.event_log.clone(), self.registry.clone());
            let watching = jmap::watch(watched, config.jmap.clone(), log, registry, self.watchers.stop.clone());
            self.watchers.tasks.spawn(watching);
        }
    }

    /// Waits until all have ended; their token was cancelled.
    pub(super) async fn ended(&mut self) {
        drain(&mut self.watchers.tasks).await;
        drain(&mut self.tasks).await;
    }
}

async fn drain(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(err) = ended {
            tracing::error!(error = %err, "a source failed; please report this as a bug");
        }
    }
}
