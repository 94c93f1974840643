//! How each account is doing, for the API and the page. Kept in memory: after a restart it is found out anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;

use super::{Account, Credentials, ImapEndpoint, JmapEndpoint};
use crate::event::AccountName;

/// What an account's source is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AccountState {
    /// Mail is sent to postrider itself; there is nothing to connect to.
    Receiving,
    /// On the way to a watched mailbox.
    Connecting,
    /// Finding out what came while nobody watched.
    Syncing,
    /// Watched: new mail is known at once.
    Connected,
    /// The connection failed; a new one is tried at `retry_at`.
    ConnectError,
    /// The server refused the credentials.
    AuthenticationError,
}

/// An account's state with what a person needs to judge it.
#[derive(Debug, Clone, Serialize)]
pub struct AccountStatus {
    /// Its name.
    pub name: AccountName,
    /// What its source is doing.
    pub state: AccountState,
    /// Since when.
    pub since: Timestamp,
    /// Why, and what to do, where something is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// The host that is watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The mailboxes that are watched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mailboxes: Vec<String>,
}

/// All accounts and their states. Cheap to clone; clones share.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    accounts: Arc<Mutex<BTreeMap<AccountName, Known>>>,
    credentials: Option<Arc<Credentials>>,
}

/// What is kept of each account: the rest of its status is in its endpoint, which the sources have anyway.
#[derive(Debug, Clone)]
struct Known {
    imap: Option<Arc<ImapEndpoint>>,
    jmap: Option<Arc<JmapEndpoint>>,
    state: AccountState,
    since: Timestamp,
    reason: Option<Box<str>>,
    retry_at: Option<Timestamp>,
}

impl Known {
    fn status(&self, name: &AccountName) -> AccountStatus {
        let (host, mailboxes) = match (&self.imap, &self.jmap) {
            (Some(imap), _) => (Some(imap.host.clone()), imap.mailboxes.to_vec()),
            (None, Some(jmap)) => {
                let url = jmap.session_url().ok();
                (url.and_then(|url| url.host_str().map(str::to_owned)), jmap.mailboxes.clone())
            }
            (None, None) => (None, Vec::new()),
        };
        AccountStatus {
            name: name.clone(),
            state: self.state,
            since: self.since,
            reason: self.reason.as_deref().map(str::to_owned),
            retry_at: self.retry_at,
            host,
            mailboxes,
        }
    }
}

impl Registry {
    /// The accounts of the configuration, none of them connected yet.
    pub fn new(accounts: &[Account]) -> Self {
        let registry = Self::default();
        for account in accounts {
            registry.insert(account);
        }
        registry
    }

    /// The same with the secrets that are stored for the accounts.
    #[must_use]
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self { credentials: Some(Arc::new(credentials)), ..self }
    }

    /// The secrets that are stored for the accounts, where there is a data folder.
    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_deref()
    }

    fn insert(&self, account: &Account) {
        let known = Known {
            imap: account.imap.clone(),
            jmap: account.jmap.clone(),
            state: if account.is_watched() { AccountState::Connecting } else { AccountState::Receiving },
            since: Timestamp::now(),
            reason: None,
            retry_at: None,
        };
        self.lock().insert(account.name.clone(), known);
    }

    /// Forgets the accounts that are no longer configured, and adds those that are new. The others keep their state.
    pub fn replace(&self, accounts: &[Account]) {
        self.lock().retain(|name, _| accounts.iter().any(|account| account.name == *name));
        for account in accounts {
            let known = self.lock().get(&account.name).cloned();
            self.insert(account);
            if let (Some(status), Some(known)) = (self.lock().get_mut(&account.name), known) {
                (status.state, status.since) = (known.state, known.since);
                (status.reason, status.retry_at) = (known.reason, known.retry_at);
            }
        }
    }

    /// Whether an account's source failed, and waits to try again or for a person.
    pub fn is_ailing(&self, name: &AccountName) -> bool {
        let failed = [AccountState::ConnectError, AccountState::AuthenticationError];
        self.lock().get(name).is_some_and(|status| failed.contains(&status.state))
    }

    /// Records that an account's source changed state. An account that is not known is not added.
    pub fn report(&self, name: &AccountName, state: AccountState, reason: Option<String>, retry_at: Option<Timestamp>) {
        if let Some(status) = self.lock().get_mut(name) {
            if status.state != state {
                status.since = Timestamp::now();
            }
            (status.state, status.reason, status.retry_at) = (state, reason.map(Into::into), retry_at);
        }
    }

    /// All accounts in the order of their names.
    pub fn list(&self) -> Vec<AccountStatus> {
        self.lock().iter().map(|(name, known)| known.status(name)).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<AccountName, Known>> {
        // A status is replaced whole, so that what a panicking holder left is still true.
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
