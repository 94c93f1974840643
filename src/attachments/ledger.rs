//! What is kept, in memory: how much of whom, and until when. Files are not looked at to answer that.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::AttachmentId;
use crate::event::AccountName;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Whose it is.
    pub account: AccountName,
    /// What it counts for.
    pub bytes: usize,
    /// When it goes.
    pub expires: Timestamp,
    /// The topic of its event, while that is not known to be committed.
    pub pending: Option<String>,
}

/// Which bound there is no room below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// That of the account.
    Account,
    /// That of all.
    All,
}

/// All files and their sums.
#[derive(Debug)]
pub(super) struct Ledger {
    bytes_max: usize,
    account_bytes_max: usize,
    kept: Mutex<Sums>,
}

#[derive(Debug, Default)]
struct Sums {
    entries: HashMap<AttachmentId, Entry>,
    accounts: HashMap<AccountName, usize>,
    bytes: usize,
}

impl Sums {
    fn insert(&mut self, id: AttachmentId, entry: Entry) {
        self.bytes = self.bytes.saturating_add(entry.bytes);
        let account = self.accounts.entry(entry.account.clone()).or_default();
        *account = account.saturating_add(entry.bytes);
        self.entries.insert(id, entry);
    }
}

impl Ledger {
    pub(super) fn new(bytes_max: usize, account_bytes_max: usize) -> Self {
        Self { bytes_max, account_bytes_max, kept: Mutex::default() }
    }

    /// Adds what is there, whether it is within the bounds or, after they were changed, not.
    pub(super) fn insert(&self, id: AttachmentId, entry: Entry) {
        self.locked().insert(id, entry);
    }

    /// Adds what is about to be written, if there is room.
    pub(super) fn reserve(&self, id: AttachmentId, entry: Entry) -> Result<(), Full> {
        let mut kept = self.locked();
        let of_account = kept.accounts.get(&entry.account).copied().unwrap_or_default();
        if of_account.saturating_add(entry.bytes) > self.account_bytes_max {
            return Err(Full::Account);
        }
        if kept.bytes.saturating_add(entry.bytes) > self.bytes_max {
            return Err(Full::All);
        }
        kept.insert(id, entry);
        Ok(())
    }

    pub(super) fn remove(&self, id: AttachmentId) {
        let mut kept = self.locked();
        let Some(entry) = kept.entries.remove(&id) else { return };
        kept.bytes = kept.bytes.saturating_sub(entry.bytes);
        let left = kept.accounts.get(&entry.account).map_or(0, |bytes| bytes.saturating_sub(entry.bytes));
        if left == 0 {
            kept.accounts.remove(&entry.account);
        } else {
            kept.accounts.insert(entry.account, left);
        }
    }

    pub(super) fn confirm(&self, id: AttachmentId) {
        if let Some(entry) = self.locked().entries.get_mut(&id) {
            entry.pending = None;
        }
    }

    /// Those whose event is not known to be committed, with its topic.
    pub(super) fn pending(&self) -> Vec<(AttachmentId, String)> {
        let kept = self.locked();
        kept.entries.iter().filter_map(|(id, entry)| Some((*id, entry.pending.clone()?))).collect()
    }

    /// Those whose time is over.
    pub(super) fn expired(&self, now: Timestamp) -> Vec<AttachmentId> {
        let kept = self.locked();
        kept.entries.iter().filter(|(_, entry)| entry.expires <= now).map(|(id, _)| *id).collect()
    }

    fn locked(&self) -> MutexGuard<'_, Sums> {
        // What a panicking holder left may be a sum too large, which a new start puts right.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_and_all_have_their_bounds_and_what_goes_makes_room() {
        let ledger = Ledger::new(100, 60);
        let entry = |account: &str, bytes| Entry {
            account: account.parse().unwrap(),
            bytes,
            expires: Timestamp::from_second(1000).unwrap(),
            pending: Some("mail/a/INBOX".to_owned()),
        };
        let ids: Vec<_> = (0..4).map(|_| AttachmentId::new()).collect();
        assert_eq!(ledger.reserve(ids[0], entry("a", 50)), Ok(()));
        assert_eq!(ledger.reserve(ids[1], entry("a", 11)), Err(Full::Account));
        assert_eq!(ledger.reserve(ids[1], entry("b", 50)), Ok(()));
        assert_eq!(ledger.reserve(ids[2], entry("c", 1)), Err(Full::All));
        ledger.remove(ids[0]);
        ledger.remove(ids[0]);
        assert_eq!(ledger.reserve(ids[2], entry("a", 50)), Ok(()));
        ledger.confirm(ids[2]);
        assert_eq!(ledger.pending(), [(ids[1], "mail/a/INBOX".to_owned())]);
        assert!(ledger.expired(Timestamp::from_second(999).unwrap()).is_empty());
        assert_eq!(ledger.expired(Timestamp::from_second(1000).unwrap()).len(), 2);
    }
}
