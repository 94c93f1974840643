//! Which account, mailbox and topics a recipient means. Pure: made from the configuration, asked at every RCPT.
//!
//! What names an address most exactly decides: the address itself, then what is before its `+`, then a pattern, then a
//! regular expression, then all of its domain. Nothing is relayed but by `forward`: an address that leads to no account is
//! refused. An address with a secret that is missing or wrong is like one that is not there at all.

mod build;
mod config;
mod secret;
mod secrets;
mod table;
mod template;
mod wildcards;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use regex::Regex;

use self::table::{Domain, Exact, Target};
use super::path::Path;
use crate::event::{AccountName, Content, Topic};
use crate::registry::ForwardTo;

pub use build::RoutingError;
pub use config::RouteConfig;
pub(crate) use secret::AddressSecret;
pub use secrets::AddressSecrets;
pub use table::Entry;

/// The mailbox of an address that names none (RFC 9051 §5.1 spells it so).
const INBOX: &str = "INBOX";

/// The addresses that mail is taken for.
#[derive(Debug, Clone, Default)]
pub struct Routing {
    exact: Exact,
    /// By their names in lower case; those of `exact` too, so that their other local parts are known to be nobody's.
    domains: HashMap<String, Domain>,
    /// In the order of the configuration.
    expressions: Vec<(Regex, Arc<Target>)>,
    /// In lower case. Any local part is an account in these, for clients on this machine.
    local_domains: HashSet<String>,
    /// Configured accounts by their name in lower case.
    accounts: HashMap<String, Arc<Target>>,
    postmaster: Option<Arc<Target>>,
    has_secrets: bool,
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
    /// Topics beside that of the mailbox.
    pub topics: Vec<Topic>,
    /// Where the message goes on to.
    pub forward: Option<Arc<ForwardTo>>,
    /// What the address had to end with, so that it is shown nowhere.
    pub secret: Option<AddressSecret>,
}

impl Destination {
    /// A mailbox of an account, and nothing beside; INBOX is the one name without case (RFC 9051 §5.1).
    pub(crate) fn new(account: AccountName, mailbox: &str, content: Content) -> Self {
        let inbox = mailbox.is_empty() || mailbox.eq_ignore_ascii_case(INBOX);
        let mailbox = if inbox { INBOX } else { mailbox }.to_owned();
        Self { account, mailbox, content, topics: Vec::new(), forward: None, secret: None }
    }

    /// All topics that its events carry: who may publish on these may bring mail here.
    pub(crate) fn all_topics(&self) -> Vec<Topic> {
        let mailbox = Topic::mailbox(&self.account, &self.mailbox);
        std::iter::once(mailbox).chain(self.topics.iter().cloned()).collect()
    }
}

/// Why a recipient is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoute {
    /// The domain is ours, the local part is not.
    UnknownRecipient,
    /// The domain is somebody else's.
    ForeignDomain,
}

/// One way to read a local part: all of it, or what is left when its end is a secret.
#[derive(Debug, Clone, Copy)]
struct Reading<'a> {
    local: &'a str,
    /// `local` in lower case.
    lower: &'a str,
    secret: Option<&'a str>,
}

impl<'a> Reading<'a> {
    /// Whether a place that wants a secret, or none, takes this.
    fn opens(&self, target: &Target) -> bool {
        match (&target.secret, self.secret) {
            (None, None) => true,
            (Some(wanted), Some(given)) => wanted.is(given),
            _ => false,
        }
    }

    /// What is before the first `+`, in lower case, and what is behind it.
    fn split(&self) -> (&'a str, &'a str) {
        let (base, _) = self.lower.split_once('+').unwrap_or((self.lower, ""));
        let (_, detail) = self.local.split_once('+').unwrap_or((self.local, ""));
        (base, detail)
    }
}

/// Where an entry of the configuration leads that is about the recipient; what it makes of it may be nothing.
type Found = Result<Destination, NoRoute>;

impl Routing {
    /// The account, mailbox and topics of `recipient`.
    pub(crate) fn route(&self, recipient: &Path, peer: Peer) -> Result<Destination, NoRoute> {
        let local = recipient.local();
        let lower = local.to_ascii_lowercase();
        let domain = recipient.domain().map(str::to_ascii_lowercase);
        let readings = self.readings(&local, &lower);
        let Some(domain) = domain.as_deref() else { return self.without_domain(&readings, peer) };
        // Each step for all readings before the next step for any: what is named more exactly wins, secret or not.
        let steps = [Self::by_address, Self::by_base, Self::by_pattern, Self::by_expression, Self::by_domain];
        for step in steps {
            if let Some(found) = readings.iter().find_map(|reading| step(self, reading, domain)) {
                return found;
            }
        }
        if peer == Peer::Loopback && self.local_domains.contains(domain) {
            readings.iter().find_map(|reading| self.by_name(reading)).ok_or(NoRoute::UnknownRecipient)
        } else if self.domains.contains_key(domain) {
            Err(NoRoute::UnknownRecipient)
        } else {
            Err(NoRoute::ForeignDomain)
        }
    }

    fn readings<'a>(&self, local: &'a str, lower: &'a str) -> Vec<Reading<'a>> {
        let mut readings = vec![Reading { local, lower, secret: None }];
        for separator in ['+', '.'].into_iter().filter(|_| self.has_secrets) {
            if let Some((rest, secret)) = local.rsplit_once(separator) {
                let lower = lower.get(..rest.len()).unwrap_or_default();
                readings.push(Reading { local: rest, lower, secret: Some(secret) });
            }
        }
        readings
    }

    fn by_address(&self, reading: &Reading<'_>, domain: &str) -> Option<Found> {
        let target = self.exact.of(reading.lower, Some(domain)).filter(|target| reading.opens(target))?;
        Some(target.destination("", &[]))
    }

    fn by_base(&self, reading: &Reading<'_>, domain: &str) -> Option<Found> {
        let (base, detail) = reading.split();
        let target = self.exact.of(base, Some(domain)).filter(|target| reading.opens(target))?;
        Some(target.destination(detail, &[]))
    }

    fn by_pattern(&self, reading: &Reading<'_>, domain: &str) -> Option<Found> {
        let known = &self.domains.get(domain)?.wildcards;
        let (base, detail) = reading.split();
        // A pattern that has a `+` itself is one of whole local parts.
        let whole = known.find(reading.lower, |wildcard, to| wildcard.has_plus() && reading.opens(to));
        let before_plus = known.find(base, |wildcard, to| !wildcard.has_plus() && reading.opens(to));
        let (wildcard, target) =
            [before_plus, whole].into_iter().flatten().max_by_key(|(wildcard, _)| wildcard.literal_len())?;
        let (lower, detail) = if wildcard.has_plus() { (reading.lower, "") } else { (base, detail) };
        let places = wildcard.captures(lower)?;
        let captures: Vec<&str> =
            places.into_iter().map(|(from, to)| reading.local.get(from..to).unwrap_or_default()).collect();
        Some(target.destination(detail, &captures))
    }

    fn by_expression(&self, reading: &Reading<'_>, domain: &str) -> Option<Found> {
        if self.expressions.is_empty() {
            return None;
        }
        let address = format!("{}@{domain}", reading.local);
        self.expressions.iter().filter(|(_, target)| reading.opens(target)).find_map(|(expression, target)| {
            let found = expression.captures(&address)?;
            let captures: Vec<&str> =
                found.iter().skip(1).map(|capture| capture.map_or("", |capture| capture.as_str())).collect();
            Some(target.destination("", &captures))
        })
    }

    fn by_domain(&self, reading: &Reading<'_>, domain: &str) -> Option<Found> {
        let target = self.domains.get(domain)?.catch_all.as_ref().filter(|target| reading.opens(target))?;
        let (base, detail) = reading.split();
        let base = reading.local.get(..base.len()).unwrap_or_default();
        Some(target.destination(detail, &[base]))
    }

    /// The account that a local part of a local domain names. It need not be configured.
    fn by_name(&self, reading: &Reading<'_>) -> Option<Destination> {
        let (base, detail) = reading.split();
        match self.accounts.get(base) {
            Some(target) => target.destination(detail, &[]).ok().filter(|_| reading.opens(target)),
            None if reading.secret.is_some() => None,
            None => AccountName::parse(base).ok().map(|name| Destination::new(name, detail, Content::default())),
        }
    }

    /// `postmaster`, the one address that may lack its domain (RFC 5321 §4.5.1).
    fn without_domain(&self, readings: &[Reading<'_>], peer: Peer) -> Result<Destination, NoRoute> {
        let whole = |reading: &&Reading<'_>| reading.secret.is_none();
        let reading = readings.iter().find(whole).ok_or(NoRoute::UnknownRecipient)?;
        let found = match &self.postmaster {
            Some(target) => target.destination("", &[]).ok().filter(|_| reading.opens(target)),
            None if peer == Peer::Loopback && !self.local_domains.is_empty() => self.by_name(reading),
            None => None,
        };
        found.ok_or(NoRoute::UnknownRecipient)
    }
}

#[cfg(test)]
mod tests;
