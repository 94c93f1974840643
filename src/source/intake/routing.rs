//! Which account and mailbox a recipient means. Pure: made once from the configuration, asked at every RCPT.
//!
//! The receiver relays nothing. An address belongs to an account that lists it, or, for clients on this machine, to
//! the account that its local part names in one of the local domains; everything else is refused.

use std::collections::{HashMap, HashSet};

use super::path::Path;
use crate::event::{AccountName, Content};
use crate::registry::Account;

/// The mailbox of an address that names none (RFC 9051 §5.1 spells it so).
const INBOX: &str = "INBOX";

/// The addresses that mail is taken for.
#[derive(Debug, Clone, Default)]
pub struct Routing {
    /// `local@domain` in lower case, or `postmaster` alone.
    addresses: HashMap<String, Owner>,
    /// Domains of `addresses`.
    domains: HashSet<String>,
    /// In lower case. Any local part is an account in these, for clients on this machine.
    local_domains: HashSet<String>,
    /// Configured accounts by their name in lower case.
    accounts: HashMap<String, Owner>,
    postmaster: Option<Owner>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    account: AccountName,
    content: Content,
}

/// Why the configuration does not say where mail goes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoutingError {
    /// An entry of `addresses` is no address.
    #[error("account `{account}` lists the address `{address}`, which is not of the form `local@domain`")]
    Address {
        /// The account.
        account: AccountName,
        /// Its entry.
        address: String,
    },
    /// One address in two accounts.
    #[error("the accounts `{first}` and `{second}` both list the address `{address}`; remove it from one of them")]
    Twice {
        /// The account that lists it first.
        first: AccountName,
        /// The other one.
        second: AccountName,
        /// The address.
        address: String,
    },
    /// An entry of `local_domains` is no domain.
    #[error("`smtp.local_domains` lists `{0}`, which is not a domain")]
    Domain(String),
}

/// Where the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// On this machine.
    Loopback,
    /// Anywhere else.
    Remote,
}

/// Where the mail of one recipient goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    pub account: AccountName,
    pub mailbox: String,
    /// How much of a message the account's events carry.
    pub content: Content,
}

/// Why a recipient is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoute {
    /// The domain is ours, the local part is not.
    UnknownRecipient,
    /// The domain is somebody else's.
    ForeignDomain,
}

impl Routing {
    /// Learns who lists which address. `local_domains` is the setting of this name.
    ///
    /// # Errors
    /// See [`RoutingError`].
    pub fn new(accounts: &[Account], local_domains: Option<&[String]>) -> Result<Self, RoutingError> {
        let mut routing = Self::default();
        for account in accounts {
            let owner = Owner { account: account.name.clone(), content: account.content };
            routing.accounts.insert(account.name.as_str().to_ascii_lowercase(), owner.clone());
            for address in &account.addresses {
                routing.insert(address, &owner)?;
            }
        }
        let only_localhost = ["localhost".to_owned()];
        let local_domains = local_domains.unwrap_or(if accounts.is_empty() { &only_localhost } else { &[] });
        for domain in local_domains {
            let path = Path::parse(&format!("postmaster@{domain}")).filter(|_| !domain.starts_with('['));
            path.ok_or_else(|| RoutingError::Domain(domain.clone()))?;
            routing.local_domains.insert(domain.to_ascii_lowercase());
        }
        Ok(routing)
    }

    fn insert(&mut self, address: &str, owner: &Owner) -> Result<(), RoutingError> {
        let wrong = || RoutingError::Address { account: owner.account.clone(), address: address.to_owned() };
        let path = Path::parse(address).ok_or_else(wrong)?;
        let local = path.local().to_ascii_lowercase();
        match self.addresses.insert(key(&local, path.domain()), owner.clone()) {
            Some(first) if first != *owner => {
                let (first, second) = (first.account, owner.account.clone());
                return Err(RoutingError::Twice { first, second, address: address.to_owned() });
            }
            _ => {}
        }
        if local == "postmaster" && (self.postmaster.is_none() || path.domain().is_none()) {
            self.postmaster = Some(owner.clone());
        }
        self.domains.extend(path.domain().map(str::to_ascii_lowercase));
        Ok(())
    }

    /// The account and mailbox of `recipient`.
    pub(crate) fn route(&self, recipient: &Path, peer: Peer) -> Result<Destination, NoRoute> {
        let (plain, domain) = (recipient.local(), recipient.domain());
        let lower = plain.to_ascii_lowercase();
        if let Some(owner) = self.addresses.get(&key(&lower, domain)) {
            return Ok(owner.mailbox(""));
        }
        let Some(domain) = domain else {
            return match &self.postmaster {
                Some(owner) => Ok(owner.mailbox("")),
                None if peer == Peer::Loopback && !self.local_domains.is_empty() => self.named(&lower, ""),
                None => Err(NoRoute::UnknownRecipient),
            };
        };
        let (_, detail) = plain.split_once('+').unwrap_or((&plain, ""));
        let (base, _) = lower.split_once('+').unwrap_or((&lower, ""));
        if let Some(owner) = self.addresses.get(&key(base, Some(domain))) {
            return Ok(owner.mailbox(detail));
        }
        let domain = domain.to_ascii_lowercase();
        if peer == Peer::Loopback && self.local_domains.contains(&domain) {
            self.named(base, detail)
        } else if self.domains.contains(&domain) {
            Err(NoRoute::UnknownRecipient)
        } else {
            Err(NoRoute::ForeignDomain)
        }
    }

    /// The account that a local part of a local domain names. It need not be configured.
    fn named(&self, local: &str, detail: &str) -> Result<Destination, NoRoute> {
        if let Some(owner) = self.accounts.get(local) {
            return Ok(owner.mailbox(detail));
        }
        let account = AccountName::parse(local).map_err(|_| NoRoute::UnknownRecipient)?;
        Ok(Owner { account, content: Content::default() }.mailbox(detail))
    }
}

impl Owner {
    /// A mailbox of the account; INBOX is the one name without case (RFC 9051 §5.1).
    fn mailbox(&self, detail: &str) -> Destination {
        let inbox = detail.is_empty() || detail.eq_ignore_ascii_case(INBOX);
        let mailbox = if inbox { INBOX } else { detail }.to_owned();
        Destination { account: self.account.clone(), mailbox, content: self.content }
    }
}

/// Not ambiguous, although a local part may hold an `@`: a domain holds none.
fn key(local_lower: &str, domain: Option<&str>) -> String {
    let mut key = String::with_capacity(local_lower.len() + 1 + domain.map_or(0, str::len));
    key.push_str(local_lower);
    if let Some(domain) = domain {
        key.push('@');
        key.push_str(domain);
        key.make_ascii_lowercase();
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str, addresses: &[&str]) -> Account {
        Account {
            content: Content::Envelope,
            addresses: addresses.iter().map(|&address| address.to_owned()).collect(),
            ..Account::new(AccountName::parse(name).unwrap())
        }
    }

    type Found = Result<(String, String, Content), NoRoute>;

    fn route(routing: &Routing, address: &str, peer: Peer) -> Found {
        let found = routing.route(&Path::parse(address).unwrap(), peer)?;
        Ok((found.account.to_string(), found.mailbox, found.content))
    }

    fn found(account: &str, mailbox: &str) -> (String, String, Content) {
        (account.into(), mailbox.into(), Content::Envelope)
    }

    #[test]
    fn listed_addresses_are_taken_from_everywhere() {
        let accounts =
            [account("alice", &["Alice@Example.org", "a+b@example.org"]), account("bob", &["bob@x.example"])];
        let routing = Routing::new(&accounts, None).unwrap();
        let remote = |address| route(&routing, address, Peer::Remote);
        assert_eq!(remote("aLICE@eXAMPLE.org"), Ok(found("alice", "INBOX")));
        assert_eq!(remote("alice+Lists/rust@example.org"), Ok(found("alice", "Lists/rust")));
        assert_eq!(remote("alice+a+b@example.org"), Ok(found("alice", "a+b")));
        assert_eq!(remote("alice+@example.org"), Ok(found("alice", "INBOX")));
        assert_eq!(remote("alice+inbox@example.org"), Ok(found("alice", "INBOX")));
        assert_eq!(remote("\"alice+two words\"@example.org"), Ok(found("alice", "two words")));
        assert_eq!(remote("a+b@example.org"), Ok(found("alice", "INBOX")), "an exact address wins");
        assert_eq!(remote("a@example.org"), Err(NoRoute::UnknownRecipient));
        assert_eq!(remote("alice@x.example"), Err(NoRoute::UnknownRecipient));
        assert_eq!(remote("alice@elsewhere.example"), Err(NoRoute::ForeignDomain));
        assert_eq!(remote("\"alice@example.org\"@evil.example"), Err(NoRoute::ForeignDomain));
        assert_eq!(route(&routing, "alice@localhost", Peer::Loopback), Err(NoRoute::ForeignDomain));
    }

    #[test]
    fn local_domains_are_for_this_machine_only() {
        let domains = ["Box.Lan".to_owned()];
        let routing = Routing::new(&[account("Alice", &["alice@example.org"])], Some(&domains)).unwrap();
        assert_eq!(route(&routing, "alice+x@box.lan", Peer::Loopback), Ok(found("Alice", "x")));
        let unconfigured = Ok(("cron".into(), "INBOX".into(), Content::default()));
        assert_eq!(route(&routing, "Cron@box.lan", Peer::Loopback), unconfigured);
        assert_eq!(route(&routing, "+x@box.lan", Peer::Loopback), Err(NoRoute::UnknownRecipient));
        assert_eq!(route(&routing, "cron@box.lan", Peer::Remote), Err(NoRoute::ForeignDomain));
    }

    #[test]
    fn without_any_account_localhost_is_local() {
        let routing = Routing::new(&[], None).unwrap();
        let alice = Ok(("alice".into(), "INBOX".into(), Content::default()));
        assert_eq!(route(&routing, "alice@localhost", Peer::Loopback), alice);
        assert_eq!(route(&routing, "alice@[127.0.0.1]", Peer::Loopback), Err(NoRoute::ForeignDomain));
        assert_eq!(route(&routing, "alice@localhost", Peer::Remote), Err(NoRoute::ForeignDomain));
        let nowhere = Routing::new(&[], Some(&[])).unwrap();
        assert_eq!(route(&nowhere, "alice@localhost", Peer::Loopback), Err(NoRoute::ForeignDomain));
    }

    #[test]
    fn postmaster_needs_no_domain() {
        let listed = Routing::new(&[account("alice", &["postmaster@example.org"])], None).unwrap();
        assert_eq!(route(&listed, "Postmaster", Peer::Remote), Ok(found("alice", "INBOX")));
        let alone =
            Routing::new(&[account("a", &["postmaster@x.example"]), account("b", &["postmaster"])], None).unwrap();
        assert_eq!(route(&alone, "postmaster", Peer::Remote), Ok(found("b", "INBOX")));
        let nobody = Routing::new(&[account("alice", &["alice@example.org"])], None).unwrap();
        assert_eq!(route(&nobody, "postmaster", Peer::Loopback), Err(NoRoute::UnknownRecipient));
        let local = Routing::new(&[], None).unwrap();
        assert!(route(&local, "postmaster", Peer::Loopback).is_ok());
        assert_eq!(route(&local, "postmaster", Peer::Remote), Err(NoRoute::UnknownRecipient));
    }

    #[test]
    fn contradictions_are_errors_that_name_both() {
        let twice = [account("alice", &["a@b.example"]), account("bob", &["A@B.example"])];
        let err = Routing::new(&twice, None).unwrap_err().to_string();
        assert!(err.contains("alice") && err.contains("bob"), "{err}");
        assert!(Routing::new(&[account("alice", &["a@b.example", "A@b.example"])], None).is_ok());
        let wrong = Routing::new(&[account("alice", &["alice"])], None);
        assert!(matches!(wrong, Err(RoutingError::Address { .. })), "{wrong:?}");
        for domain in ["", "a b", "[127.0.0.1]", "a@b"] {
            assert_eq!(Routing::new(&[], Some(&[domain.into()])).unwrap_err(), RoutingError::Domain(domain.into()));
        }
    }
}
