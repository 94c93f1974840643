//! How other parts of postrider speak to the running watcher: they may know of new mail before its server tells us.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::commands::{ANSWERED_WITHIN, CommandError, MailboxCommand, MessageSet, Request};
use crate::event::AccountName;

/// Mailboxes that wait to be looked at; when there are more, the safety poll finds the rest.
const CHANGED_MAX: usize = 64;
/// Commands that wait for one account.
const COMMANDS_MAX: usize = 64;

/// Speaks to the watchers of all accounts. Cheap to clone; clones share. While an account is not watched, what is said
/// of it is dropped: it is found when the account is watched again.
#[derive(Debug, Clone, Default)]
pub struct WatcherHandle {
    accounts: Arc<Mutex<HashMap<AccountName, Arc<Signals>>>>,
    at_login: Arc<Mutex<HashMap<AccountName, Box<str>>>>,
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

    /// Has something done in a mailbox of a watched account, on the connection that watches it. Returns what was read,
    /// if anything was.
    ///
    /// # Errors
    /// See [`CommandError`].
    ///
    /// # Cancel safety
    /// A command whose turn has come is carried out although nobody waits for it any more.
    pub async fn run(
        &self,
        account: &AccountName,
        messages: MessageSet,
        command: MailboxCommand,
    ) -> Result<Vec<u8>, CommandError> {
        command.check(&messages)?;
        let signals = self.lock().get(account).cloned().ok_or(CommandError::NotWatched)?;
        let (reply, answer) = oneshot::channel();
        signals.add_command(Request { messages, command, reply })?;
        match timeout(ANSWERED_WITHIN, answer).await {
            Ok(Ok(answer)) => answer,
            // The account is no longer watched.
            Ok(Err(_)) => Err(CommandError::NotWatched),
            Err(_) => Err(CommandError::Timeout),
        }
    }

    /// A command that is sent after each login to a server that offers METADATA: it switches on what another source
    /// receives. Its refusal is of no consequence here.
    pub fn at_login(&self, account: &AccountName, command: &str) {
        let mut commands = self.at_login.lock().unwrap_or_else(PoisonError::into_inner);
        commands.insert(account.clone(), command.into());
    }

    pub(super) fn command_at_login(&self, account: &AccountName) -> Option<Box<str>> {
        self.at_login.lock().unwrap_or_else(PoisonError::into_inner).get(account).cloned()
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
    commands: Mutex<VecDeque<Request>>,
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

    fn add_command(&self, request: Request) -> Result<(), CommandError> {
        {
            let mut commands = self.commands();
            if commands.len() >= COMMANDS_MAX {
                return Err(CommandError::Busy);
            }
            commands.push_back(request);
        }
        self.wake.notify_waiters();
        Ok(())
    }

    pub(super) fn take_command(&self) -> Option<Request> {
        self.commands().pop_front()
    }

    pub(super) fn has_commands(&self) -> bool {
        !self.commands().is_empty()
    }

    fn commands(&self) -> MutexGuard<'_, VecDeque<Request>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
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
