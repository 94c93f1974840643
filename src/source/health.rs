//! How an account is doing, out of how its connections are doing, and the events that say so.
//!
//! The registry is told at once. `AccountUp`, `AccountDown` and `AccountAuthFailed` are appended by one task for all
//! accounts, which compares what was announced with what is: so an event comes once for each transition, in
//! order, and a log that takes nothing at the moment loses no more than what is no longer true when it recovers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::event::{AccountName, Draft, EventKind, Origin};
use crate::event_log::{Append, AppendError, EventLog};
use crate::registry::{AccountState, Registry};

/// Pause after an append that failed.
const APPEND_RETRY: Duration = Duration::from_secs(5);
/// Pauses between attempts to store what happened in a mailbox: the first, and the longest.
const EVENTS_RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// How one connection is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// On the way, or lost for the first time and tried again in a moment: nothing that a person need act on.
    Connecting { reason: Option<String>, retry_at: Option<Timestamp> },
    /// Logged in; `stalled` says why it gets no further, if it does not.
    Syncing { stalled: Option<String> },
    /// Watched.
    Connected,
    /// It failed.
    Failed { reason: String, retry_at: Timestamp },
    /// The credentials were refused; without `retry_at`, nothing is tried until a person acts.
    AuthFailed { reason: String, retry_at: Option<Timestamp> },
}

impl Condition {
    pub(super) const START: Self = Self::Connecting { reason: None, retry_at: None };

    /// The worst condition of its connections is the account's.
    fn severity(&self) -> u8 {
        match self {
            Self::Connected => 0,
            Self::Syncing { .. } => 1,
            Self::Connecting { .. } => 2,
            Self::Failed { .. } => 3,
            Self::AuthFailed { .. } => 4,
        }
    }

    fn state(&self) -> AccountState {
        match self {
            Self::Connecting { .. } => AccountState::Connecting,
            Self::Syncing { .. } => AccountState::Syncing,
            Self::Connected => AccountState::Connected,
            Self::Failed { .. } => AccountState::ConnectError,
            Self::AuthFailed { .. } => AccountState::AuthenticationError,
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::Connecting { reason, .. } => reason.as_deref(),
            Self::Syncing { stalled } => stalled.as_deref(),
            Self::Connected => None,
            Self::Failed { reason, .. } | Self::AuthFailed { reason, .. } => Some(reason),
        }
    }

    fn retry_at(&self) -> Option<Timestamp> {
        match self {
            Self::Connecting { retry_at, .. } | Self::AuthFailed { retry_at, .. } => *retry_at,
            Self::Syncing { .. } | Self::Connected => None,
            Self::Failed { retry_at, .. } => Some(*retry_at),
        }
    }

    /// The event that this condition of an account calls for. On the way from one to the next there is none.
    fn event(&self) -> Option<EventKind> {
        match self {
            Self::Connected => Some(EventKind::AccountUp),
            Self::Failed { .. } => Some(EventKind::AccountDown),
            Self::AuthFailed { .. } => Some(EventKind::AccountAuthFailed),
            Self::Connecting { .. } | Self::Syncing { .. } => None,
        }
    }
}

/// Accounts whose state may have to be announced. One task serves all of them: a task for each would take a kilobyte
/// an account.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    waiting: Mutex<VecDeque<Arc<Health>>>,
    added: Notify,
}

impl Announcements {
    /// Appends the accounts' events until `stop`.
    pub(super) async fn announce(&self, event_log: &EventLog, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let Some(health) = self.take() else {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.added.notified() => continue,
                }
            };
            match health.announce(event_log).await {
                Ok(()) => {}
                Err(AppendError::Closed) => return,
                Err(err) => {
                    warn!(account = %health.account, error = %err, "cannot store the account's change of state");
                    self.add(health);
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = sleep(APPEND_RETRY) => {}
                    }
                }
            }
        }
    }

    fn take(&self) -> Option<Arc<Health>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn add(&self, health: Arc<Health>) {
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            // Each account waits once at most.
            if !waiting.iter().any(|known| Arc::ptr_eq(known, &health)) {
                waiting.push_back(health);
            }
        }
        self.added.notify_one();
    }
}

/// The connections of one account.
#[derive(Debug)]
pub(super) struct Health {
    account: AccountName,
    origin: Origin,
    registry: Registry,
    announcements: Arc<Announcements>,
    states: Mutex<States>,
    this: Weak<Health>,
}

#[derive(Debug, Default)]
struct States {
    /// By the name of the connection.
    conditions: Vec<(Box<str>, Condition)>,
    /// Why nothing is stored.
    stalled: Option<Box<str>>,
    announced: Option<EventKind>,
}

impl States {
    /// The account's condition.
    fn worst(&self) -> Option<Condition> {
        let worst = self.conditions.iter().map(|(_, condition)| condition).max_by_key(|found| found.severity())?;
        match &self.stalled {
            Some(why) if worst.severity() < Condition::START.severity() => {
                Some(Condition::Syncing { stalled: Some(why.to_string()) })
            }
            _ => Some(worst.clone()),
        }
    }

    fn unannounced(&self) -> Option<(EventKind, Option<String>)> {
        let worst = self.worst()?;
        let kind = worst.event().filter(|&kind| Some(kind) != self.announced)?;
        Some((kind, worst.reason().map(str::to_owned)))
    }
}

impl Health {
    pub(super) fn new(
        account: AccountName,
        origin: Origin,
        registry: Registry,
        announcements: Arc<Announcements>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            account,
            origin,
            registry,
            announcements,
            states: Mutex::default(),
            this: this.clone(),
        })
    }

    /// Records the condition of the connection with this name.
    pub(super) fn report(&self, connection: &str, condition: Condition) {
        self.change(|states| {
            if let Some((_, known)) = states.conditions.iter_mut().find(|(name, _)| **name == *connection) {
                *known = condition;
            } else {
                // Most accounts have one connection, and a vector that grows by itself begins with room for four.
                states.conditions.reserve_exact(1);
                states.conditions.push((connection.into(), condition));
            }
            true
        });
    }

    /// A connection is no longer wanted.
    pub(super) fn forget(&self, connection: &str) {
        self.change(|states| {
            states.conditions.retain(|(name, _)| **name != *connection);
            true
        });
    }

    /// The log takes nothing, or takes events again.
    pub(super) fn stalled(&self, why: Option<String>) {
        self.change(|states| {
            let changes = states.stalled.as_deref() != why.as_deref();
            states.stalled = why.map(Into::into);
            changes
        });
    }

    /// Appends what `build` makes, and waits until the log takes it. Meanwhile nothing more is read, so that TCP holds
    /// the server back; what was fetched stays with the caller and is not fetched again.
    ///
    /// # Errors
    /// Only when the log was closed.
    pub(super) async fn append(&self, event_log: &EventLog, build: impl Fn() -> Append) -> Result<(), AppendError> {
        let (mut pause, longest) = EVENTS_RETRY;
        loop {
            match event_log.append(build()).await {
                Ok(_) => {
                    self.stalled(None);
                    return Ok(());
                }
                Err(AppendError::Closed) => return Err(AppendError::Closed),
                Err(err) => {
                    warn!(account = %self.account, error = %err, retry_in = ?pause, "cannot store events, new mail waits");
                    self.stalled(Some(err.to_string()));
                    sleep(pause).await;
                    pause = pause.saturating_mul(2).min(longest);
                }
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut States) -> bool) {
        let mut states = self.lock();
        if !change(&mut states) {
            return;
        }
        if let Some(worst) = states.worst() {
            // Under the lock, so that the registry sees the changes in their order.
            self.registry.report(&self.account, worst.state(), worst.reason().map(str::to_owned), worst.retry_at());
        }
        if states.unannounced().is_some()
            && let Some(this) = self.this.upgrade()
        {
            self.announcements.add(this);
        }
    }

    /// Appends the event that the account's condition calls for, if it was not the last one.
    async fn announce(&self, event_log: &EventLog) -> Result<(), AppendError> {
        let Some((kind, reason)) = self.lock().unannounced() else { return Ok(()) };
        let mut draft = Draft::of_account(kind, self.origin, &self.account);
        draft.reason.clone_from(&reason);
        event_log.append(Append::event(draft)).await?;
        let changed_again = {
            let mut states = self.lock();
            states.announced = Some(kind);
            states.unannounced().is_some()
        };
        if changed_again && let Some(this) = self.this.upgrade() {
            self.announcements.add(this);
        }
        info!(account = %self.account, %kind, reason, "account changed state");
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, States> {
        // A condition is replaced whole, so that what a panicking holder left is still true.
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Condition {
        Condition::Failed { reason: "no".into(), retry_at: Timestamp::UNIX_EPOCH }
    }

    fn health() -> Arc<Health> {
        let health = Health::new(
            AccountName::parse("alice").unwrap(),
            Origin::Imap,
            Registry::default(),
            Arc::new(Announcements::default()),
        );
        health.report("", Condition::START);
        health.report("Lists", Condition::START);
        health
    }

    #[test]
    fn an_account_is_up_when_all_of_it_is() {
        let health = health();
        health.report("", Condition::Connected);
        assert_eq!(health.lock().unannounced(), None, "the other one is on its way");
        health.report("Lists", Condition::Connected);
        assert_eq!(health.lock().unannounced(), Some((EventKind::AccountUp, None)));
        health.stalled(Some("full".into()));
        assert_eq!(health.lock().worst().unwrap().state(), AccountState::Syncing);
        health.stalled(None);
        health.report("Lists", failed());
        health.forget("Lists");
        assert_eq!(health.lock().unannounced(), Some((EventKind::AccountUp, None)));
    }

    #[test]
    fn a_retry_that_fails_again_is_no_transition() {
        let health = health();
        health.report("", failed());
        let down = Some((EventKind::AccountDown, Some("no".to_owned())));
        assert_eq!(health.lock().unannounced(), down);
        health.lock().announced = Some(EventKind::AccountDown);
        health.report("", Condition::START);
        assert_eq!(health.lock().unannounced(), None, "connecting is not up");
        health.report("", failed());
        assert_eq!(health.lock().unannounced(), None);
        health.lock().announced = Some(EventKind::AccountUp);
        assert_eq!(health.lock().unannounced(), down);
    }

    #[test]
    fn each_account_waits_once_to_be_announced() {
        let health = health();
        health.report("", failed());
        health.report("Lists", failed());
        assert!(health.announcements.take().is_some() && health.announcements.take().is_none());
    }
}
