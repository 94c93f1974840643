//! Settings that each are right and contradict each other, or do nothing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::{Config, Places, Problem};
use crate::event::AccountName;
use crate::registry::{Account, ForwardTo, ImapEndpoint, ImapSecurity, JmapEndpoint, LoginMechanism};
use crate::source::imap::provider::Providers;
use crate::source::intake::{AddressSecrets, Routing, RoutingError};

/// Everything that is wrong, in no order.
pub(super) fn check(config: &Config, places: &Places) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut section = |name: &str, checked: Result<(), String>| {
        problems.extend(checked.err().map(|message| Problem { place: places.of(name).cloned(), message }));
    };
    // Each module's own check, one line for each section that has one.
    section("http", config.http.check().map_err(|err| err.to_string()));
    section("stream", config.stream.check().map_err(|err| err.to_string()));
    section("event_log", config.event_log.check().map_err(|err| err.to_string()));
    section("imap", config.imap.check().map_err(|err| err.to_string()));
    section("dovecot", config.dovecot.check().map_err(|err| err.to_string()));
    let providers = Providers::load(config.imap.providers_file.as_deref());
    section("imap.providers_file", providers.as_ref().map(drop).map_err(ToString::to_string));
    section("jmap", config.jmap.check().map_err(|err| err.to_string()));
    section("attachments", config.attachments.check().map_err(|err| err.to_string()));
    section("mail_over_http", config.mail_over_http.check().map_err(|err| err.to_string()));
    section("auth", config.auth.check().map_err(|err| err.to_string()));
    section("smtp", config.smtp.check().map_err(|err| err.to_string()));
    section("smtp.user", known_accounts(config));
    section("log.filter", config.log.env_filter().map(drop).map_err(|err| err.to_string()));

    let providers = providers.unwrap_or_default();
    duplicate_names(config, places, &mut problems);
    problems.extend(forwards(config, places));
    if !duplicate_addresses(config, places, &mut problems) {
        problems.extend(recipients(config, places));
    }
    for (index, account) in config.account.iter().enumerate() {
        if let Some(imap) = &account.imap {
            let prefix = format!("account[{index}].imap");
            let check = ImapCheck { account, imap, prefix: &prefix, places, providers: &providers };
            problems.extend(check.all().into_iter().flatten());
            problems.extend(check.pushes(config.dovecot.is_enabled()));
        }
        if let Some(jmap) = &account.jmap {
            problems.extend(check_jmap(account, jmap, &format!("account[{index}].jmap"), places));
        }
    }
    problems
}

/// Who may write to an account that there is not may write to nobody.
fn known_accounts(config: &Config) -> Result<(), String> {
    let is_known = |name: &AccountName| config.account.iter().any(|account| account.name == *name);
    let mut wanted = config.smtp.user.iter().flat_map(|user| user.accounts.iter().map(move |name| (user, name)));
    match wanted.find(|(_, name)| !is_known(name)) {
        Some((user, name)) => {
            Err(format!("the `smtp.user` `{}` may write to the account `{name}`, which there is not", user.name))
        }
        None => Ok(()),
    }
}

fn duplicate_names(config: &Config, places: &Places, problems: &mut Vec<Problem>) {
    let mut seen = HashMap::new();
    for (index, account) in config.account.iter().enumerate() {
        let path = format!("account[{index}].name");
        if let Some(first) = seen.insert(&account.name, path.clone()) {
            let first = places.name(&first, "name");
            let message = format!("there is another account `{}`, see its {first}; rename one of them", account.name);
            problems.push(Problem { place: places.of(&path).cloned(), message });
        }
    }
}

/// Mail to one address can only go to one account. Local parts may differ in case by the standard (RFC 5321 §2.4), but
/// nobody means two people by that. Says whether there are any.
fn duplicate_addresses(config: &Config, places: &Places, problems: &mut Vec<Problem>) -> bool {
    let before = problems.len();
    let mut seen: HashMap<String, (String, &Account)> = HashMap::new();
    for (index, account) in config.account.iter().enumerate() {
        let path = format!("account[{index}].addresses");
        for (at, address) in account.addresses.iter().enumerate() {
            let own = format!("{path}[{at}]");
            if let Some((first, owner)) = seen.insert(address.to_lowercase(), (own.clone(), account)) {
                let first = places.name(&first, "addresses");
                let message = format!(
                    "the address `{address}` of account `{}` is given before, in {first} of account `{}`; mail to it \
                     can go to one of them only",
                    account.name, owner.name
                );
                problems.push(Problem { place: places.of(&own).cloned(), message });
            }
        }
    }
    problems.len() > before
}

/// What is wrong about who gets which mail. The files of secrets are not read: not everybody who reads the
/// configuration may read them.
fn recipients(config: &Config, places: &Places) -> Option<Problem> {
    let (accounts, routes) = (&config.account, &config.smtp.route);
    let routing = AddressSecrets::assumed(accounts, routes)
        .and_then(|secrets| Routing::with_routes(accounts, routes, config.smtp.local_domains.as_deref(), &secrets));
    let err = routing.err()?;
    let message = match &err {
        RoutingError::Twice { first, second, address } => {
            let first_place = places.of(&first.key()).map(|place| format!(" ({place})")).unwrap_or_default();
            format!("{first}{first_place} and {second} both take `{address}`; remove it from one of them")
        }
        err => err.to_string(),
    };
    Some(Problem { place: places.of(&err.key()).cloned(), message })
}

/// Mail that is to go on, and no host to take it.
fn forwards(config: &Config, places: &Places) -> Vec<Problem> {
    if config.smtp.forward.is_some() {
        return Vec::new();
    }
    let goes_on = |forward: &Option<ForwardTo>| forward.as_ref().is_some_and(|forward| !forward.to.is_empty());
    let accounts = config.account.iter().map(|account| &account.forward).enumerate();
    let accounts = accounts.map(|(index, forward)| (format!("account[{index}].forward"), forward));
    let routes = config.smtp.route.iter().map(|route| &route.forward).enumerate();
    let routes = routes.map(|(index, forward)| (format!("smtp.route[{index}].forward"), forward));
    let keys = accounts.chain(routes).filter_map(|(key, forward)| goes_on(forward).then_some(key));
    let message = "`forward` needs a smart host; name it in `[smtp.forward]`";
    keys.map(|key| Problem { place: places.of(&key).cloned(), message: message.to_owned() }).collect()
}

/// One account's `[account.jmap]`.
fn check_jmap(account: &Account, jmap: &JmapEndpoint, prefix: &str, places: &Places) -> Vec<Problem> {
    let at = |key: &str, message: String| {
        let place = places.of(&format!("{prefix}.{key}")).or_else(|| places.of(prefix)).cloned();
        Problem { place, message: format!("account `{}`: {message}", account.name) }
    };
    let mut problems = Vec::new();
    if account.imap.is_some() {
        let message = "`[account.imap]` and `[account.jmap]` would each tell of the same mail; keep one".to_owned();
        problems.push(at("url", message));
    }
    problems.extend(jmap.session_url().err().map(|err| at("url", err.to_string())));
    if jmap.source().given() != 1 && jmap.password_typed.is_none() {
        let message = "the password or token comes from one of `password_file`, `password_command` and `password_env`; \
                       set one of them";
        problems.push(at("url", message.to_owned()));
    }
    problems
}

/// One account's `[account.imap]`.
struct ImapCheck<'a> {
    account: &'a Account,
    imap: &'a ImapEndpoint,
    prefix: &'a str,
    places: &'a Places,
    providers: &'a Providers,
}

impl ImapCheck<'_> {
    fn all(&self) -> [Option<Problem>; 8] {
        [
            self.lonely(),
            self.oauth(),
            self.mechanism(),
            self.password(),
            self.plaintext(),
            self.authorities(),
            self.mailboxes(),
            self.names(),
        ]
    }

    fn path(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    fn named(&self, key: &str) -> String {
        self.places.name(&self.path(key), key)
    }

    /// A problem at a key, or where the section begins if the key was not set.
    fn at(&self, key: &str, message: &str) -> Problem {
        let place = self.places.of(&self.path(key)).or_else(|| self.places.of(self.prefix));
        Problem { place: place.cloned(), message: format!("account `{}`: {message}", self.account.name) }
    }

    fn password(&self) -> Option<Problem> {
        let imap = self.imap;
        let sources: Vec<&str> = [
            ("password_file", imap.password_file.is_some()),
            ("password_command", imap.password_command.is_some()),
            ("password_env", imap.password_env.is_some()),
            ("access_token_command", imap.access_token_command.is_some()),
            ("oauth", imap.oauth.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, is_set)| is_set.then_some(key))
        .collect();
        match sources.as_slice() {
            ["password_command"] if imap.password_command.as_ref().is_some_and(|command| command.is_empty()) => {
                Some(self.at("password_command", "`password_command` is empty; name a program"))
            }
            ["access_token_command"]
                if imap.access_token_command.as_ref().is_some_and(|command| command.is_empty()) =>
            {
                Some(self.at("access_token_command", "`access_token_command` is empty; name a program"))
            }
            [] | [_] => None,
            [.., last] => {
                let all: Vec<String> = sources.iter().map(|key| self.named(key)).collect();
                Some(self.at(last, &format!("{} each give a password or token; keep one", all.join(" and "))))
            }
        }
    }

    fn oauth(&self) -> Option<Problem> {
        let oauth = self.imap.oauth.as_ref()?;
        let is_known = self.providers.oauth(&oauth.provider).is_some() || oauth.provider.contains("://");
        let message = match oauth {
            _ if !is_known => "`provider` is neither a known OAuth provider nor the https address of one",
            _ if oauth.client_id.is_empty() => "`client_id` is empty; register postrider at the provider",
            _ => return None,
        };
        Some(self.at(if is_known { "oauth.client_id" } else { "oauth.provider" }, message))
    }

    /// A password is no token, and the reverse.
    fn mechanism(&self) -> Option<Problem> {
        let wants_token = matches!(self.imap.mechanism?, LoginMechanism::Oauthbearer | LoginMechanism::Xoauth2);
        let has_token = self.imap.oauth.is_some() || self.imap.access_token_command.is_some();
        let mechanism = self.named("mechanism");
        (wants_token != has_token).then(|| {
            let message = if wants_token {
                format!("{mechanism} wants a token; set `access_token_command` or [account.imap.oauth]")
            } else {
                format!("{mechanism} wants a password, and a token is configured; remove one of them")
            };
            self.at("mechanism", &message)
        })
    }

    fn plaintext(&self) -> Option<Problem> {
        let crosses_network = self.imap.security == ImapSecurity::None && !is_loopback(&self.imap.host);
        (crosses_network && !self.imap.allow_plaintext).then(|| {
            let (security, host) = (self.named("security"), self.named("host"));
            let message = format!(
                "{security} is \"none\", and {host} is not this machine: anybody on the way could read the password; \
                 use \"tls\" or \"starttls\", or set `allow_plaintext = true` if the way is protected otherwise"
            );
            self.at("security", &message)
        })
    }

    fn authorities(&self) -> Option<Problem> {
        (self.imap.security == ImapSecurity::None && self.imap.ca_file.is_some()).then(|| {
            let (authorities, security) = (self.named("ca_file"), self.named("security"));
            self.at("ca_file", &format!("{authorities} is of no use with {security} \"none\"; remove one of them"))
        })
    }

    /// Settings that do nothing without another.
    fn lonely(&self) -> Option<Problem> {
        let imap = self.imap;
        let plain = imap.security == ImapSecurity::None;
        let lonely = [
            ("certificate_pin", plain && !imap.certificate_pin.is_empty(), "is of no use with `security = \"none\"`"),
            (
                "client_certificate_file",
                plain && imap.client_certificate_file.is_some(),
                "is of no use with `security = \"none\"`",
            ),
            (
                "client_key_file",
                imap.client_key_file.is_some() && imap.client_certificate_file.is_none(),
                "needs `client_certificate_file`",
            ),
            (
                "proxy_password_file",
                imap.proxy_password_file.is_some() && imap.proxy.as_ref().is_none_or(|proxy| proxy.username.is_none()),
                "needs a user name in `proxy`",
            ),
            (
                "tls_insecure_accept_any_certificate",
                imap.tls_insecure_accept_any_certificate
                    && (imap.ca_file.is_some() || !imap.certificate_pin.is_empty()),
                "contradicts `ca_file` and `certificate_pin`; remove it",
            ),
        ];
        let (key, _, why) = lonely.into_iter().find(|(_, is_lonely, _)| *is_lonely)?;
        Some(self.at(key, &format!("{} {why}", self.named(key))))
    }

    fn mailboxes(&self) -> Option<Problem> {
        let names = &self.imap.mailboxes;
        let message = if names.is_empty() {
            "`mailboxes` is empty, so that nothing would be watched; name one, or remove the key for INBOX".to_owned()
        } else {
            // INBOX is the one name without case (RFC 9051 §5.1).
            let same =
                |a: &str, b: &str| a == b || (a.eq_ignore_ascii_case("inbox") && b.eq_ignore_ascii_case("inbox"));
            let mut numbered = names.iter().enumerate();
            let (_, twice) = numbered.find(|(at, name)| names.iter().take(*at).any(|earlier| same(earlier, name)))?;
            format!("`mailboxes` has `{twice}` twice; remove one")
        };
        Some(self.at("mailboxes", &message))
    }

    fn pushes(&self, received: bool) -> Option<Problem> {
        (self.imap.dovecot_push && !received).then(|| {
            let message = "`dovecot_push` asks Dovecot for pushes that nobody would receive; set `dovecot.secret_file` \
                           or `dovecot.secret_env`, or remove it";
            self.at("dovecot_push", message)
        })
    }

    fn names(&self) -> Option<Problem> {
        let empty = [("host", self.imap.host.is_empty()), ("username", self.imap.username.is_empty())];
        if let Some((key, _)) = empty.into_iter().find(|(_, is_empty)| *is_empty) {
            return Some(self.at(key, &format!("`{key}` is empty")));
        }
        (self.imap.port == Some(0)).then(|| self.at("port", "`port` must not be 0"))
    }
}

/// The longest time that makes sense anywhere. Added to the clock, much more than a human life would overflow it.
pub(crate) const DURATION_MAX: Duration = Duration::from_hours(366 * 24);

/// Whether a connection to the host stays on this machine. Other names are not looked up: DNS may answer anything.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
