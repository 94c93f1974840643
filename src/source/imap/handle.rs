//! How other parts of postrider speak to the running watcher: they may know of new mail before its server tells us.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::event::AccountName;

/// Speaks to the watchers of all accounts. Cheap to clone; clones share. While an account is not watched, what is said
/// of it is dropped: it is found when the account is watched again.
#[derive(Debug, Clone, Default)]
pub struct WatcherHandle {
    accounts: Arc<Mutex<HashMap<AccountName, Arc<Signals>>>>,
}

/// What was said to the watcher of one account and not taken yet.
#[derive(Debug, Default)]
pub(super) struct Signals {
    changed: Mutex<Vec<String>>,
    wake: Notify,
}

/// Mailboxes that wait to be looked at; more than these say no more than that everything must be looked at.
const CHANGED_MAX: usize = 64;

impl WatcherHandle {
    /// Something changed in a mailbox of an account: look at once. Says whether somebody watches that account.
    pub fn mailbox_changed(&self, account: &AccountName, mailbox: &str) -> bool {
        let Some(signals) = self.lock().get(account).cloned() else { return false };
        {
            let mut changed = signals.changed.lock().unwrap_or_else(PoisonError::into_inner);
            if changed.len() < CHANGED_MAX && !changed.iter().any(|name| name == mailbox) {
                changed.push(mailbox.to_owned());
            }
        }
        signals.wake.notify_one();
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AccountName, Arc<Signals>>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
