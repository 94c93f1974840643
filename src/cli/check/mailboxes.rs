//! What `postrider check` says of an account's mailboxes: what the server is, how it will be watched, and what makes
//! that slow. Pure; what is to be known of this machine comes as an argument.

use std::net::SocketAddr;
use std::time::Duration;

use postrider::registry::{ImapEndpoint, ImapSecurity};
use postrider::source::imap::{ImapConfig, ProbeReport};

/// More than this is worth a word.
const SLOW_LOGIN: Duration = Duration::from_secs(2);
const SLOW_IDLE: Duration = Duration::from_secs(1);
/// Debian's and others' limit: fewer than the mailboxes that a small server's users have open.
const INOTIFY_INSTANCES_FEW: u32 = 128;
/// Dovecot's `mail_max_userip_connections` unless somebody changed it.
const DOVECOT_CONNECTIONS: usize = 10;

/// What is offered and of use, with what it is good for.
const USEFUL: [(&str, &str); 9] = [
    ("NOTIFY", "all mailboxes on one connection"),
    ("QRESYNC", "catching up in one answer"),
    ("CONDSTORE", "changes of flags without looking at each message"),
    ("LIST-STATUS", "all mailboxes' counts in one answer"),
    ("PREVIEW", "the server's own preview text"),
    ("OBJECTID", "moved messages are recognised"),
    ("ESEARCH", "short answers to searches"),
    ("MOVE", "moving messages"),
    ("METADATA", "Dovecot's push can be switched on"),
];

/// Everything about an account, and whether it can be watched.
pub struct Found<'a> {
    pub endpoint: &'a ImapEndpoint,
    pub config: &'a ImapConfig,
    pub report: &'a ProbeReport,
    /// `fs.inotify.max_user_instances` of this machine.
    pub inotify_instances: Option<u32>,
}

impl Found<'_> {
    /// The line that says whether it works.
    pub fn summary(&self) -> Result<String, String> {
        let report = self.report;
        let missing: Vec<_> =
            report.watched.iter().filter_map(|(name, opened)| opened.as_ref().err().map(|_| name)).collect();
        if !missing.is_empty() {
            return Err(format!("logged in, but there is no mailbox {missing:?}; there are {:?}", report.mailboxes));
        }
        if report.chosen.is_empty() {
            return Err(format!("logged in, but `mailboxes` fits none of {:?}", report.mailboxes));
        }
        let protection = report.protection.as_deref().unwrap_or("no encryption");
        let push = if report.idle { "new mail is known at once (IDLE)" } else { "no IDLE, new mail is asked for" };
        Ok(format!("logged in ({protection}), {} mailboxes, {push}", report.mailboxes.len()))
    }

    /// What there is to know beyond that, each with its heading.
    pub fn details(&self) -> Vec<(&'static str, String)> {
        let mut details = vec![("server", self.server()), ("login", self.login())];
        details.extend(self.report.pin.as_ref().map(|pin| ("key", pin.to_string())));
        details.push(("watched", self.watched()));
        details.push(("offered", self.offered()));
        details.extend(self.warnings().into_iter().map(|warning| ("note", warning)));
        details
    }

    fn id(&self, name: &str) -> Option<&str> {
        self.report.server_id.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn is_called(&self, name: &str) -> bool {
        self.id("name").is_some_and(|own| own.to_ascii_lowercase().contains(name))
    }

    fn server(&self) -> String {
        let name = match (self.id("name"), self.id("version")) {
            (Some(name), Some(version)) => format!("{name} {version}"),
            (Some(name), None) => name.to_owned(),
            (None, _) => "does not say what it is".to_owned(),
        };
        match &self.report.provider {
            Some(provider) => format!("{name}; known as {provider}"),
            None => name,
        }
    }

    fn login(&self) -> String {
        let method = self.report.method.unwrap_or("not asked for");
        let took = self.report.login_took;
        let token = self.report.token_lasts.map(|lasts| format!(", the token lasts {}", minutes(lasts)));
        format!("{method}, {} ms{}", took.as_millis(), token.unwrap_or_default())
    }

    fn watched(&self) -> String {
        let chosen = &self.report.chosen;
        let names = match chosen.as_slice() {
            few if few.len() <= 5 => few.join(", "),
            [first, second, ..] => format!("{first}, {second} and {} more", chosen.len() - 2),
            _ => String::new(),
        };
        let accepted = match &self.report.idle_accepted {
            Some(Ok(took)) => format!(" (IDLE is accepted after {:.1} ms)", took.as_secs_f64() * 1000.0),
            Some(Err(text)) => format!(" (IDLE is offered and refused: {text})"),
            None => String::new(),
        };
        let connections = self.connections();
        let how = if !self.report.idle {
            let pause = self.report.quirks.poll_interval.unwrap_or(self.config.poll_interval);
            format!("asked for every {} s", pause.as_secs())
        } else if chosen.len() == 1 {
            "IDLE on one connection".to_owned()
        } else if self.report.notify {
            "NOTIFY and IDLE on one connection".to_owned()
        } else if chosen.len() <= connections {
            format!("IDLE on {} connections", chosen.len())
        } else {
            let pause = self.config.poll_interval.as_secs();
            format!("IDLE on {connections} connections, the others are looked at every {pause} s")
        };
        format!("{names}: {how}{accepted}")
    }

    /// Connections that there may be.
    fn connections(&self) -> usize {
        let own = usize::try_from(self.endpoint.connections_max.get()).unwrap_or(usize::MAX);
        self.report.quirks.connections_max.map_or(own, |known| own.min(known.get()))
    }

    fn offered(&self) -> String {
        let has = |name: &str| self.report.capabilities.iter().any(|capability| capability == name);
        let list = |offered: bool| {
            let names = USEFUL.iter().filter(|(name, _)| has(name) == offered);
            let names: Vec<String> = if offered {
                names.map(|(name, _)| (*name).to_owned()).collect()
            } else {
                names.map(|(name, use_)| format!("{name} ({use_})")).collect()
            };
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        format!("{}; not offered: {}", list(true), list(false))
    }

    /// What makes it slow or dangerous.
    fn warnings(&self) -> Vec<String> {
        let is_here = self.report.address.is_some_and(|address: SocketAddr| address.ip().is_loopback());
        let few = self.inotify_instances.filter(|&instances| instances <= INOTIFY_INSTANCES_FEW);
        let connections = self.connections();
        let unheard = self.report.idle && !self.report.notify && self.report.chosen.len() > 1;
        [
            few.filter(|_| is_here && self.is_called("dovecot")).map(|instances| {
                format!(
                    "fs.inotify.max_user_instances is {instances} on this machine: with more connections in IDLE than \
                     that Dovecot looks every 30 s only; raise it, as with `sysctl fs.inotify.max_user_instances=8192`"
                )
            }),
            self.is_called("courier").then(|| {
                "Courier's IDLE says nothing unless FAM or gamin runs beside it; postrider looks every now and then, and \
                 notices"
                    .to_owned()
            }),
            self.is_called("cyrus").then(|| {
                "Cyrus announces new mail at once only where `idled` runs beside it; else it looks every minute \
                 (`imapidlepoll`)"
                    .to_owned()
            }),
            (unheard && self.is_called("dovecot") && connections + 2 > DOVECOT_CONNECTIONS).then(|| {
                format!(
                    "up to {connections} connections: Dovecot allows one user {DOVECOT_CONNECTIONS} from one address \
                     unless `mail_max_userip_connections` says otherwise"
                )
            }),
            self.report.quirks.connections_max.filter(|max| unheard && self.report.chosen.len() > max.get()).map(|max| {
                format!("this provider allows few connections; postrider uses at most {max}, for all of the user's mailboxes")
            }),
            (self.report.login_took > SLOW_LOGIN).then(|| {
                "logging in is slow: so is coming back after a lost connection; the name server, the server's own check \
                 of passwords or the way to it may be why"
                    .to_owned()
            }),
            self.report.idle_accepted.as_ref().and_then(|accepted| accepted.as_ref().ok()).filter(|took| **took > SLOW_IDLE).map(
                |_| "IDLE is accepted late: between two of them new mail waits for as long".to_owned(),
            ),
            (self.endpoint.security == ImapSecurity::None && !is_here)
                .then(|| "the password and all mail cross the network in the clear".to_owned()),
            self.endpoint
                .tls_insecure_accept_any_certificate
                .then(|| "anybody on the way can read the password and all mail: any certificate is taken".to_owned()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn minutes(time: Duration) -> String {
    format!("{} min", time.as_secs() / 60)
}

/// `fs.inotify.max_user_instances` of this machine, where there is such a thing.
pub fn inotify_instances() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").ok()?.trim().parse().ok()
}
