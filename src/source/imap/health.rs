//! How an account is doing, out of how its connections are doing, and the events that say so.
//!
//! The registry is told at once. `AccountUp`, `AccountDown` and `AccountAuthFailed` are appended by one task for each
//! account, which compares what was announced with what is: so an event comes once for each transition, in
//! order, and a log that takes nothing at the moment loses no more than what is no longer true when it recovers.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
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

/// How one connection is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source) enum Condition {
    /// On the way, or lost for the first time and tried again in a moment: nothing that a person need act on.
    Connecting { reason: Option<String>, retry_at: Option<Timestamp> },
    /// Logged in; `stalled` says why it gets no further, if it does not.
    Syncing { stalled: Option<String> },
    /// Watched.
    Connected,
    /// It failed.
    Failed { reason: String, retry_at: Timestamp },
    /// The credentials were refused.
    AuthFailed { reason: String, retry_at: Timestamp },
}

impl Condition {
    pub(in crate::source) const START: Self = Self::Connecting { reason: None, retry_at: None };

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
            Self::Connecting { retry_at, .. } => *retry_at,
            Self::Syncing { .. } | Self::Connected => None,
            Self::Failed { retry_at, .. } | Self::AuthFailed { retry_at, .. } => Some(*retry_at),
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

/// The connections of one account.
#[derive(Debug)]
pub(in crate::source) struct Health {
    account: AccountName,
    origin: Origin,
    registry: Registry,
    conditions: Mutex<BTreeMap<String, Condition>>,
    changed: Notify,
}

impl Health {
    pub(in crate::source) fn new(account: AccountName, mailboxes: &[String], registry: Registry) -> Self {
        Self::of(Origin::Imap, account, mailboxes, registry)
    }

    /// The same for another source.
    pub(in crate::source) fn of(
        origin: Origin,
        account: AccountName,
        mailboxes: &[String],
        registry: Registry,
    ) -> Self {
        let conditions = mailboxes.iter().map(|mailbox| (mailbox.clone(), Condition::START)).collect();
        Self { account, origin, registry, conditions: Mutex::new(conditions), changed: Notify::new() }
    }

    /// Records a connection's condition.
    pub(in crate::source) fn report(&self, mailbox: &str, condition: Condition) {
        {
            let mut conditions = self.lock();
            conditions.insert(mailbox.to_owned(), condition);
            if let Some(worst) = worst(&conditions) {
                // Under the lock, so that the registry sees the changes in their order.
                self.registry.report(&self.account, worst.state(), worst.reason().map(str::to_owned), worst.retry_at());
            }
        }
        self.changed.notify_one();
    }

    /// Appends the account's events until `stop`.
    pub(in crate::source) async fn announce(&self, event_log: &EventLog, stop: &CancellationToken) {
        let mut announced = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified() => {}
            }
            let Some((kind, reason)) = self.unannounced(announced) else { continue };
            let mut draft = Draft::of_account(kind, self.origin, &self.account);
            draft.reason.clone_from(&reason);
            match event_log.append(Append::event(draft)).await {
                Ok(_) => {
                    announced = Some(kind);
                    info!(account = %self.account, %kind, reason, "account changed state");
                }
                Err(AppendError::Closed) => return,
                Err(err) => {
                    warn!(account = %self.account, error = %err, "cannot store the account's change of state");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = sleep(APPEND_RETRY) => self.changed.notify_one(),
                    }
                }
            }
        }
    }

    fn unannounced(&self, announced: Option<EventKind>) -> Option<(EventKind, Option<String>)> {
        let conditions = self.lock();
        let worst = worst(&conditions)?;
        let kind = worst.event().filter(|&kind| Some(kind) != announced)?;
        Some((kind, worst.reason().map(str::to_owned)))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Condition>> {
        // A condition is replaced whole, so that what a panicking holder left is still true.
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn worst(conditions: &BTreeMap<String, Condition>) -> Option<&Condition> {
    conditions.values().max_by_key(|condition| condition.severity())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Condition {
        Condition::Failed { reason: "no".into(), retry_at: Timestamp::UNIX_EPOCH }
    }

    fn health() -> Health {
        let account = AccountName::parse("alice").unwrap();
        Health::new(account, &["INBOX".into(), "Lists".into()], Registry::default())
    }

    #[test]
    fn an_account_is_up_when_all_of_it_is() {
        let health = health();
        health.report("INBOX", Condition::Connected);
        assert_eq!(health.unannounced(None), None, "the other one is on its way");
        health.report("Lists", Condition::Connected);
        assert_eq!(health.unannounced(None), Some((EventKind::AccountUp, None)));
    }

    #[test]
    fn a_retry_that_fails_again_is_no_transition() {
        let health = health();
        health.report("INBOX", failed());
        let down = Some((EventKind::AccountDown, Some("no".to_owned())));
        assert_eq!(health.unannounced(None), down);
        health.report("INBOX", Condition::START);
        assert_eq!(health.unannounced(Some(EventKind::AccountDown)), None, "connecting is not up");
        health.report("INBOX", failed());
        assert_eq!(health.unannounced(Some(EventKind::AccountDown)), None);
        assert_eq!(health.unannounced(Some(EventKind::AccountUp)), down);
    }
}
