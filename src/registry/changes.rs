//! What a new configuration means for accounts that are watched: which end, and which begin. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use secrecy::ExposeSecret;

use super::Account;
use crate::event::AccountName;

/// The difference between two configurations.
#[derive(Debug, Default)]
pub struct AccountChanges {
    /// Accounts that are no longer there, or are there in another form.
    pub gone: BTreeSet<AccountName>,
    /// Accounts that are new, or are there in another form: to be begun once the old form has ended.
    pub come: Vec<Account>,
}

impl AccountChanges {
    /// What is to be done to come from the `old` accounts to the `new` ones. Those that are `ailing` are begun anew
    /// although they are as they were: whoever reloads may have mended what a file or a server said.
    pub fn between<'a>(
        old: impl IntoIterator<Item = &'a Account>,
        new: impl IntoIterator<Item = &'a Account>,
        ailing: impl Fn(&AccountName) -> bool,
    ) -> Self {
        let mut left: BTreeMap<&AccountName, &Account> =
            old.into_iter().map(|account| (&account.name, account)).collect();
        let mut changes = Self::default();
        for account in new {
            match left.remove(&account.name) {
                Some(before) if is_same(before, account) && !ailing(&account.name) => continue,
                Some(before) => drop(changes.gone.insert(before.name.clone())),
                None => {}
            }
            changes.come.push(account.clone());
        }
        changes.gone.extend(left.into_keys().cloned());
        changes
    }

    /// Whether everything stays.
    pub fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.come.is_empty()
    }
}

/// Accounts in their new form that wait until the old one has ended: an account's positions have one writer.
#[derive(Debug, Default)]
pub struct Succession {
    waiting: HashMap<AccountName, Account>,
}

impl Succession {
    /// Takes changes, and gives what may begin at once; `ending` are the accounts whose old form was told to end.
    pub fn take(&mut self, changes: AccountChanges, ending: &BTreeSet<AccountName>) -> Vec<Account> {
        let AccountChanges { gone, come } = changes;
        self.waiting.retain(|account, _| !gone.contains(account));
        let (later, now): (Vec<_>, Vec<_>) = come.into_iter().partition(|account| ending.contains(&account.name));
        self.waiting.extend(later.into_iter().map(|account| (account.name.clone(), account)));
        now
    }

    /// Whether a new form of an account waits.
    pub fn has_next(&self, account: &AccountName) -> bool {
        self.waiting.contains_key(account)
    }

    /// The old form of an account has ended: its new one, if there is one.
    pub fn next(&mut self, account: &AccountName) -> Option<Account> {
        self.waiting.remove(account)
    }
}

/// Whether both are watched alike. Addresses are the mail receiver's business.
fn is_same(one: &Account, other: &Account) -> bool {
    let typed = |account: &Account| {
        let password = account.imap.as_ref().and_then(|imap| imap.password_typed.as_ref());
        password.map(|password| password.expose_secret().to_owned())
    };
    // All keys are written; only what was typed is not.
    let written = |account: &Account| serde_json::to_value((&account.content, &account.imap, &account.jmap)).ok();
    written(one).is_some() && written(one) == written(other) && typed(one) == typed(other)
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;
    use crate::registry::ImapEndpoint;

    fn account(name: &str, host: &str) -> Account {
        Account { imap: Some(ImapEndpoint::new(host, name).into()), ..Account::new(name.parse().unwrap()) }
    }

    fn changes(old: &[Account], new: &[Account]) -> (Vec<String>, Vec<String>) {
        let changes = AccountChanges::between(old, new, |name| name.as_str() == "ailing");
        let names = |names: Vec<&AccountName>| names.into_iter().map(ToString::to_string).collect();
        (names(changes.gone.iter().collect()), names(changes.come.iter().map(|account| &account.name).collect()))
    }

    #[test]
    fn only_what_differs_ends_and_begins() {
        let old = [account("same", "a"), account("moves", "a"), account("goes", "a"), account("ailing", "a")];
        let mut same = account("same", "a");
        same.addresses.push("same@example.org".to_owned());
        let new = [same, account("comes", "a"), account("moves", "b"), account("ailing", "a")];
        let (gone, come) = changes(&old, &new);
        assert_eq!(gone, ["ailing", "goes", "moves"]);
        assert_eq!(come, ["comes", "moves", "ailing"]);
        let typed = |password: &str| {
            let mut account = account("same", "a");
            account.imap_mut().unwrap().password_typed = Some(SecretString::from(password));
            account
        };
        assert_eq!(changes(&[typed("one")], &[typed("one")]), (Vec::new(), Vec::new()));
        assert_eq!(changes(&[typed("one")], &[typed("two")]), (vec!["same".into()], vec!["same".into()]));
    }
}
