//! What the routing looks recipients up in.

use std::collections::HashMap;
use std::sync::Arc;

use super::template::Template;
use super::wildcards::Wildcards;
use super::{AddressSecret, Destination, NoRoute};
use crate::event::{AccountName, Content};
use crate::registry::ForwardTo;

/// Where the mail of all recipients goes that one entry of the configuration stands for.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Which entry, for messages about it.
    pub entry: Entry,
    pub account: AccountName,
    pub content: Content,
    /// The mailbox, where the entry says it.
    pub mailbox: Option<Template>,
    pub topics: Vec<Template>,
    pub secret: Option<AddressSecret>,
    pub forward: Option<Arc<ForwardTo>>,
}

impl Target {
    /// Where one recipient's mail goes: `detail` is what followed the `+` of its address. Nowhere if its captures make
    /// no topic, as absurdly long ones.
    pub(super) fn destination(&self, detail: &str, captures: &[&str]) -> Result<Destination, NoRoute> {
        let captures = [captures, &[detail]].concat();
        let mailbox = self.mailbox.as_ref().map(|mailbox| mailbox.expand(&captures));
        let topics = self.topics.iter().map(|topic| topic.topic(&captures)).collect::<Option<_>>();
        let topics = topics.ok_or(NoRoute::UnknownRecipient)?;
        let (forward, secret) = (self.forward.clone(), self.secret.clone());
        let to = Destination::new(self.account.clone(), mailbox.as_deref().unwrap_or(detail), self.content);
        Ok(Destination { topics, forward, secret, ..to })
    }
}

/// An entry of the configuration that says where mail goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// The `addresses` of an account: its place in the list, and its name.
    Account(usize, AccountName),
    /// A `[[smtp.route]]`, by its place in the list.
    Route(usize),
}

impl Entry {
    /// The path of its key in the configuration.
    pub fn key(&self) -> String {
        match self {
            Self::Account(index, _) => format!("account[{index}].addresses"),
            Self::Route(index) => format!("smtp.route[{index}]"),
        }
    }
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Account(_, name) => write!(f, "the account `{name}`"),
            Self::Route(index) => write!(f, "`smtp.route` number {}", index + 1),
        }
    }
}

/// Addresses that are named in full.
#[derive(Debug, Clone, Default)]
pub(super) struct Exact(HashMap<String, Arc<Target>>);

impl Exact {
    /// Adds an address; gives what it leads to already.
    pub(super) fn insert(&mut self, local_lower: &str, domain: Option<&str>, to: Arc<Target>) -> Option<Arc<Target>> {
        self.0.insert(key(local_lower, domain), to)
    }

    /// What an address leads to.
    pub(super) fn of(&self, local_lower: &str, domain: Option<&str>) -> Option<&Arc<Target>> {
        self.0.get(&key(local_lower, domain))
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

/// What is known of the local parts of one domain, apart from those that are named in full.
#[derive(Debug, Clone, Default)]
pub(super) struct Domain {
    pub wildcards: Wildcards<Arc<Target>>,
    pub catch_all: Option<Arc<Target>>,
}
