//! Whose mail Dovecot speaks of: from its user to our accounts. Pure.

use std::collections::HashMap;

use super::Secret;
use crate::event::{AccountName, Content};
use crate::registry::Account;

/// An account that a notification is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    pub account: AccountName,
    pub content: Content,
    /// The account has a source of its own, which fetches the message with its own cursor. Otherwise the
    /// notification is all that there is.
    pub watched: bool,
}

/// All that an account is called by Dovecot.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// A login name may be that of two accounts, with mailboxes on two servers or two lists of mailboxes.
    users: HashMap<String, Vec<Destination>>,
}

impl Routes {
    /// Dovecot calls an account by its routing token, by its login name at the IMAP server, or, where nothing else is
    /// known of it, by the account's own name or one of its addresses.
    pub(super) fn new(accounts: &[Account], secret: &Secret) -> Self {
        let mut routes = Self::default();
        for account in accounts {
            let watched = account.is_watched();
            let destination = Destination { account: account.name.clone(), content: account.content, watched };
            routes.add(secret.token(&account.name), &destination);
            if let Some(imap) = &account.imap {
                routes.add(imap.username.clone(), &destination);
            } else {
                routes.add(account.name.as_str().to_owned(), &destination);
                for address in &account.addresses {
                    routes.add(address.to_lowercase(), &destination);
                }
            }
        }
        routes
    }

    fn add(&mut self, user: String, destination: &Destination) {
        let destinations = self.users.entry(user).or_default();
        if !destinations.contains(destination) {
            destinations.push(destination.clone());
        }
    }

    /// The accounts of a user; none for one whom nobody here knows.
    pub(super) fn of(&self, user: &str) -> &[Destination] {
        let found = self.users.get(user).or_else(|| self.users.get(&user.to_lowercase()));
        found.map(Vec::as_slice).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;
    use crate::registry::ImapEndpoint;

    fn account(name: &str, addresses: &[&str], username: Option<&str>) -> Account {
        Account {
            addresses: addresses.iter().map(|&address| address.into()).collect(),
            imap: username.map(|username| ImapEndpoint::new("localhost", username).into()),
            ..Account::new(name.parse().unwrap())
        }
    }

    #[test]
    fn a_user_leads_to_the_accounts_that_have_the_name() {
        let secret = Secret::new("postrider", SecretString::from("s"));
        let accounts = [
            account("home", &[], Some("alice")),
            account("work", &[], Some("alice")),
            account("bob", &["Bob@Example.org"], None),
        ];
        let routes = Routes::new(&accounts, &secret);
        let found = |user: &str| -> Vec<_> {
            routes.of(user).iter().map(|found| (found.account.as_str().to_owned(), found.watched)).collect()
        };
        assert_eq!(found("alice"), [("home".to_owned(), true), ("work".to_owned(), true)]);
        assert_eq!(found("home"), [], "a watched account is known by its login name");
        assert_eq!(found("bob"), [("bob".to_owned(), false)]);
        assert_eq!(found("bob@EXAMPLE.org"), [("bob".to_owned(), false)]);
        assert_eq!(found(&secret.token(&accounts[1].name)), [("work".to_owned(), true)]);
        assert_eq!(found("mallory"), []);
    }
}
