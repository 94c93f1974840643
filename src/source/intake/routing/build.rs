//! From the configuration to the tables of the routing, with what is wrong about it.

use std::path::PathBuf;
use std::sync::Arc;

use regex::RegexBuilder;

use super::secrets::AddressSecrets;
use super::table::{Entry, Target};
use super::template::{CaptureNames, Template};
use super::wildcards::Wildcard;
use super::{Path, RouteConfig, Routing};
use crate::event::AccountName;
use crate::registry::{Account, ForwardTo, PasswordError};

/// Octets of memory of one compiled expression: far more than any address needs.
const EXPRESSION_BYTES_MAX: usize = 1 << 20;

/// Why the configuration does not say where mail goes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RoutingError {
    /// An entry of `addresses` is no address.
    #[error("{entry} lists the address `{address}`, which is not of the form `local@domain` or `@domain`")]
    Address {
        /// Whose entry.
        entry: Entry,
        /// What it says.
        address: String,
    },
    /// One address leads to two places.
    #[error("{first} and {second} both take `{address}`; remove it from one of them")]
    Twice {
        /// Who takes it first.
        first: Entry,
        /// Who does too.
        second: Entry,
        /// What they take.
        address: String,
    },
    /// An entry of `local_domains` is no domain.
    #[error("`smtp.local_domains` lists `{0}`, which is not a domain")]
    Domain(String),
    /// A route cannot be.
    #[error("{entry} {why}")]
    Route {
        /// Which one.
        entry: Entry,
        /// What is wrong.
        why: String,
    },
    /// Mail cannot go on to what is no address.
    #[error("{entry} forwards to `{address}`, which is not of the form `local@domain`")]
    Forward {
        /// Who forwards.
        entry: Entry,
        /// What it says.
        address: String,
    },
    /// A secret is missing.
    #[error("a secret of addresses cannot be had; see `address_secret_file` and `secret_file`")]
    SecretFile(#[from] PasswordError),
    /// A secret cannot be used.
    #[error("the secret in {file} {why}")]
    Secret {
        /// Where it is.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl RoutingError {
    /// The path of the key that it is about.
    pub fn key(&self) -> String {
        match self {
            Self::Address { entry, .. } | Self::Route { entry, .. } | Self::Forward { entry, .. } => entry.key(),
            Self::Twice { second, .. } => second.key(),
            Self::Domain(_) => "smtp.local_domains".to_owned(),
            Self::SecretFile(_) | Self::Secret { .. } => "smtp".to_owned(),
        }
    }
}

/// What an entry of the configuration stands for.
enum Pattern {
    Address(Path),
    Wildcard(Wildcard, String),
    Domain(String),
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        if let Some(domain) = text.strip_prefix('@').or_else(|| text.strip_prefix("*@")) {
            return is_domain(domain).then(|| Self::Domain(domain.to_ascii_lowercase()));
        }
        let path = Path::parse(text)?;
        let local = path.local().to_ascii_lowercase();
        // A star in quotes is a star.
        match path.domain().filter(|_| local.contains('*') && !text.starts_with('"')) {
            Some(domain) => Some(Self::Wildcard(Wildcard::new(&local), domain.to_ascii_lowercase())),
            None => Some(Self::Address(path)),
        }
    }

    /// The captures that a mailbox or a topic may use: what the stars stand for, then what follows the `+`.
    fn captures(&self) -> CaptureNames {
        let stars = match self {
            Self::Address(_) => 0,
            Self::Wildcard(wildcard, _) => wildcard.stars(),
            Self::Domain(_) => 1,
        };
        CaptureNames::new(stars, [("detail".to_owned(), stars + 1)])
    }
}

fn is_domain(text: &str) -> bool {
    !text.starts_with('[') && Path::parse(&format!("postmaster@{text}")).is_some()
}

impl Routing {
    /// Learns who lists which address; without routes, and for accounts without secrets. `local_domains` is the setting
    /// of this name.
    ///
    /// # Errors
    /// See [`RoutingError`].
    pub fn new(accounts: &[Account], local_domains: Option<&[String]>) -> Result<Self, RoutingError> {
        Self::with_routes(accounts, &[], local_domains, &AddressSecrets::default())
    }

    /// Learns who lists which address, and where the routes lead.
    ///
    /// # Errors
    /// See [`RoutingError`].
    pub fn with_routes(
        accounts: &[Account],
        routes: &[RouteConfig],
        local_domains: Option<&[String]>,
        secrets: &AddressSecrets,
    ) -> Result<Self, RoutingError> {
        let mut routing = Self::default();
        for (index, account) in accounts.iter().enumerate() {
            routing.add_account(index, account, secrets)?;
        }
        for (index, route) in routes.iter().enumerate() {
            routing.add_route(&Entry::Route(index), route, secrets)?;
        }
        let only_localhost = ["localhost".to_owned()];
        let local_domains = local_domains.unwrap_or(if accounts.is_empty() { &only_localhost } else { &[] });
        for domain in local_domains {
            if !is_domain(domain) {
                return Err(RoutingError::Domain(domain.clone()));
            }
            routing.local_domains.insert(domain.to_ascii_lowercase());
        }
        Ok(routing)
    }

    fn add_account(&mut self, index: usize, account: &Account, secrets: &AddressSecrets) -> Result<(), RoutingError> {
        let entry = Entry::Account(index, account.name.clone());
        let target = Arc::new(Target {
            account: account.name.clone(),
            content: account.content,
            mailbox: None,
            topics: Vec::new(),
            secret: account.address_secret_file.as_deref().map(|file| secrets.of(file)).transpose()?,
            forward: forward(&entry, account.forward.as_ref())?,
            entry,
        });
        self.accounts.insert(account.name.as_str().to_ascii_lowercase(), Arc::clone(&target));
        for address in &account.addresses {
            let wrong = || RoutingError::Address { entry: target.entry.clone(), address: address.clone() };
            let pattern = Pattern::parse(address).ok_or_else(wrong)?;
            self.insert(pattern, address, &target)?;
        }
        Ok(())
    }

    fn add_route(&mut self, entry: &Entry, route: &RouteConfig, secrets: &AddressSecrets) -> Result<(), RoutingError> {
        let wrong = |why: String| RoutingError::Route { entry: entry.clone(), why };
        let of_account = self.account(&route.account).cloned();
        let of_account =
            of_account.ok_or_else(|| wrong(format!("leads to the account `{}`, which is not there", route.account)))?;
        let secret = match &route.secret_file {
            Some(file) => Some(secrets.of(file)?),
            None => of_account.secret.clone(),
        };
        let forward = match &route.forward {
            None => of_account.forward.clone(),
            some => forward(entry, some.as_ref())?,
        };
        let target = |names: &CaptureNames| {
            let template = |text: &String| {
                Template::parse(text, names).map_err(|why| wrong(format!("says `{text}`, which {why}")))
            };
            let topic = |text: &String| {
                let topic = template(text)?;
                let possible = topic.topic(&vec!["x"; names.len()]).is_some();
                possible.then_some(topic).ok_or_else(|| {
                    wrong(format!("has the topic `{text}`, which is none; those below `mail/` are the accounts' own"))
                })
            };
            Ok::<_, RoutingError>(Arc::new(Target {
                mailbox: route.mailbox.as_ref().map(template).transpose()?,
                topics: route.topics.iter().map(topic).collect::<Result<_, _>>()?,
                secret: secret.clone(),
                forward: forward.clone(),
                entry: entry.clone(),
                account: of_account.account.clone(),
                content: of_account.content,
            }))
        };
        match (&route.pattern, &route.regex) {
            (Some(text), None) => {
                let pattern = Pattern::parse(text).ok_or_else(|| {
                    wrong(format!("matches `{text}`, which is not of the form `local@domain` or `@domain`"))
                })?;
                let target = target(&pattern.captures())?;
                self.insert(pattern, text, &target)
            }
            (None, Some(text)) => {
                let expression =
                    whole_address(text).map_err(|why| wrong(format!("has a `regex` that is none: {why}")))?;
                if let Some((_, first)) =
                    self.expressions.iter().find(|(known, _)| known.as_str() == expression.as_str())
                {
                    let (first, second) = (first.entry.clone(), entry.clone());
                    return Err(RoutingError::Twice { first, second, address: text.clone() });
                }
                let named = expression.capture_names().enumerate();
                let named = named.filter_map(|(number, name)| Some((name?.to_owned(), number)));
                let target = target(&CaptureNames::new(expression.captures_len() - 1, named))?;
                self.has_secrets |= target.secret.is_some();
                self.expressions.push((expression, target));
                Ok(())
            }
            _ => Err(wrong("needs either `match` or `regex`".to_owned())),
        }
    }

    fn account(&self, name: &AccountName) -> Option<&Arc<Target>> {
        self.accounts.get(&name.as_str().to_ascii_lowercase()).filter(|target| target.account == *name)
    }

    fn insert(&mut self, pattern: Pattern, text: &str, target: &Arc<Target>) -> Result<(), RoutingError> {
        self.has_secrets |= target.secret.is_some();
        let to = Arc::clone(target);
        let first = match pattern {
            Pattern::Address(path) => {
                let local = path.local().to_ascii_lowercase();
                if let Some(domain) = path.domain() {
                    self.domains.entry(domain.to_ascii_lowercase()).or_default();
                }
                if local == "postmaster" && (self.postmaster.is_none() || path.domain().is_none()) {
                    self.postmaster = Some(Arc::clone(target));
                }
                self.exact.insert(&local, path.domain(), to)
            }
            Pattern::Wildcard(wildcard, domain) => {
                self.domains.entry(domain).or_default().wildcards.insert(wildcard, to).cloned()
            }
            Pattern::Domain(domain) => self.domains.entry(domain).or_default().catch_all.replace(to),
        };
        match first {
            // An account may say the same twice.
            Some(first) if !Arc::ptr_eq(&first, target) => {
                let (first, second) = (first.entry.clone(), target.entry.clone());
                Err(RoutingError::Twice { first, second, address: text.to_owned() })
            }
            _ => Ok(()),
        }
    }
}

/// An expression that all of an address has to match. It takes time in proportion to the address, whatever it says.
fn whole_address(text: &str) -> Result<regex::Regex, String> {
    let bounded = |text: &str| RegexBuilder::new(text).case_insensitive(true).size_limit(EXPRESSION_BYTES_MAX).build();
    let told = |err: regex::Error| match err {
        regex::Error::CompiledTooBig(max) => format!("it takes more than {max} octets of memory"),
        // The last line says what is wrong; those before it draw an arrow.
        err => err.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    };
    // Alone first, lest a bracket that closes too much opens the end.
    bounded(text).map_err(told)?;
    bounded(&format!(r"\A(?:{text})\z")).map_err(told)
}

/// Where an entry's mail goes on to, if it does.
fn forward(entry: &Entry, forward: Option<&ForwardTo>) -> Result<Option<Arc<ForwardTo>>, RoutingError> {
    let Some(forward) = forward.filter(|forward| !forward.to.is_empty()) else { return Ok(None) };
    match forward.to.iter().find(|address| Path::parse(address).is_none_or(|path| path.domain().is_none())) {
        Some(address) => Err(RoutingError::Forward { entry: entry.clone(), address: address.clone() }),
        None => Ok(Some(Arc::new(forward.clone()))),
    }
}
