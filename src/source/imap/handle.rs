//! How other parts of postrider speak to the running watcher: they may know of new mail before its server tells us.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::event::AccountName;

/// Mailboxes that wait to be looked at; when there are more, the safety poll finds the rest.
const CHANGED_MAX: usize = 64;

/// Speaks to the watchers of all accounts. Cheap to clone; clones share. While an account is not watched, what is said
/// of it is dropped: it is found when the account is watched again.
#[derive(Debug, Clone, Default)]
pub struct WatcherHandle {
    accounts: Arc<Mutex<HashMap<AccountName, Arc<Signals>>>>,
}

impl WatcherHandle {
    /// Something changed in a mailbox of an account: look at once. Says whether somebody watches that account.
    pub fn mailbox_changed(&self, account: &AccountName, mailbox: &str) -> bool {
        let signals = self.lock().get(account).cloned();
        signals.inspect(|signals| signals.mailbox_changed(mailbox)).is_some()
    }

    /// Tries an account again at once that waits after a failure, or that was parked since its credentials were
    /// refused. Says whether there is such an account.
    pub fn retry(&self, account: &AccountName) -> bool {
        let signals = self.lock().get(account).cloned();
        signals.inspect(|signals| signals.retry.notify_waiters()).is_some()
    }

    pub(super) fn register(&self, account: &AccountName) -> Arc<Signals> {
        self.lock().entry(account.clone()).or_default().clone()
    }

    pub(super) fn forget(&self, account: &AccountName) {
        self.lock().remove(account);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AccountName, Arc<Signals>>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was said to the watcher of one account and not taken yet.
#[derive(Debug, Default)]
pub(super) struct Signals {
    changed: Mutex<Vec<Box<str>>>,
    pub(super) wake: Notify,
    pub(super) retry: Notify,
}

impl Signals {
    pub(super) fn mailbox_changed(&self, mailbox: &str) {
        {
            let mut changed = self.changed();
            if changed.len() < CHANGED_MAX && !changed.iter().any(|name| **name == *mailbox) {
                changed.push(mailbox.into());
            }
        }
        self.wake.notify_waiters();
    }

    /// Takes one of the mailboxes that changed, of those that the caller looks after.
    pub(super) fn take_changed(&self, is_mine: impl Fn(&str) -> bool) -> Option<Box<str>> {
        let mut changed = self.changed();
        let index = changed.iter().position(|name| is_mine(name))?;
        Some(changed.swap_remove(index))
    }

    pub(super) fn has_changed(&self, is_mine: impl Fn(&str) -> bool) -> bool {
        self.changed().iter().any(|name| is_mine(name))
    }

    fn changed(&self) -> MutexGuard<'_, Vec<Box<str>>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_takes_what_it_looks_after() {
        let (handle, alice) = (WatcherHandle::default(), AccountName::parse("alice").unwrap());
        assert!(!handle.mailbox_changed(&alice, "INBOX"), "nobody watches yet");
        let signals = handle.register(&alice);
        for mailbox in ["INBOX", "Lists", "INBOX"] {
            assert!(handle.mailbox_changed(&alice, mailbox));
        }
        assert_eq!(signals.take_changed(|name| name == "Lists").as_deref(), Some("Lists"));
        assert!(!signals.has_changed(|name| name == "Lists"));
        assert_eq!(signals.take_changed(|_| true).as_deref(), Some("INBOX"));
        assert_eq!(signals.take_changed(|_| true), None);
        handle.forget(&alice);
        assert!(!handle.retry(&alice));
    }
}
