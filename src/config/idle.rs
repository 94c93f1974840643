//! Settings that somebody made and that do nothing, since what they are about is off. Nothing is wrong with them, so that
//! they refuse no start; but who made one expects something of it.

use super::{Config, Places, Problem, is_loopback};
use crate::attachments::AttachmentsConfig;
use crate::event::Content;
use crate::registry::{Account, DmarcFail, ForwardTo, ImapSecurity};
use crate::source::intake::MessageAuthenticationConfig;
use crate::source::jmap::JmapConfig;
use crate::source::smtp::{ListenerSettings, Role, SocketAddress};

/// All of them, in the order of the configuration.
pub(super) fn idle(config: &Config, places: &Places) -> Vec<Problem> {
    let mut idle = Idle { places, found: Vec::new() };
    idle.receiver(config);
    idle.listeners(config);
    idle.verification(config);
    idle.forwarding(config);
    for (index, account) in config.account.iter().enumerate() {
        idle.account(&format!("account[{index}]"), account, config);
    }
    idle.others(config);
    idle.found.sort();
    idle.found
}

struct Idle<'a> {
    places: &'a Places,
    found: Vec<Problem>,
}

impl Idle<'_> {
    /// Names those of `keys`, which are in the section `prefix`, that were made and do nothing.
    fn all(&mut self, does_nothing: bool, prefix: &str, keys: &[&str], why: &str) {
        if !does_nothing {
            return;
        }
        for key in keys {
            let path = if prefix.is_empty() { (*key).to_owned() } else { format!("{prefix}.{key}") };
            if let Some(place) = self.places.of(&path) {
                let message = format!("`{key}` does nothing: {why}");
                self.found.push(Problem { place: Some(place.clone()), message });
            }
        }
    }

    fn receiver(&mut self, config: &Config) {
        let why = "`smtp.enabled` is false; remove one of them";
        self.all(!config.smtp.enabled, "smtp", &["listen", "tls"], why);
        let listeners: Vec<ListenerSettings> = config.smtp.listeners().collect();
        let submits = listeners.iter().any(|listener| listener.role == Role::Submission);
        let why =
            "nobody can log in without a `[[smtp.listener]]` that has `role = \"submission\"`; add one, or remove it";
        self.all(!submits, "smtp", &["user", "auth_failures_max", "auth_failure_delay", "auth_lockout"], why);
        let why = "nothing is listened on; set `smtp.enabled = true`, add a `[[smtp.listener]]`, or remove it";
        self.all(listeners.is_empty(), "smtp", &OF_SESSIONS, why);
        let is_set = config.smtp.message_authentication != MessageAuthenticationConfig::default();
        self.all(listeners.is_empty() && is_set, "smtp", &["message_authentication"], why);
        let certificate = config.smtp.tls_certificate_file.as_ref();
        let is_used = listeners.iter().filter_map(|listener| listener.tls_files.as_ref());
        let is_used = is_used.map(|files| &files.certificate).any(|used| Some(used) == certificate);
        let why = "no listener does TLS with it; let one have `tls`, or remove it";
        self.all(!is_used && !listeners.is_empty(), "smtp", &["tls_certificate_file", "tls_key_file"], why);
    }

    fn listeners(&mut self, config: &Config) {
        // That of `smtp.listen` comes first, if it is there at all.
        let settings = config.smtp.listeners().skip(usize::from(config.smtp.enabled));
        for (index, listener) in settings.enumerate() {
            let prefix = format!("smtp.listener[{index}]");
            let is_tcp = matches!(listener.listen, SocketAddress::Tcp(_));
            self.all(is_tcp, &prefix, &["mode"], "it is for Unix sockets, and this is a port; remove it");
            let why = "this listener has no TLS; set `tls`, or remove it";
            self.all(listener.tls_files.is_none(), &prefix, &["tls_certificate_file", "tls_key_file"], why);
            let why = "who submits mail has logged in, so that it is known who it is; remove it";
            self.all(listener.role == Role::Submission, &prefix, &["verify"], why);
        }
    }

    fn verification(&mut self, config: &Config) {
        let section = "smtp.message_authentication";
        let has_listeners = config.smtp.listeners().next().is_some();
        let why = "no listener verifies: none is reached from other machines, or `verify` is false; remove it, or set \
                   `verify = true`";
        self.all(has_listeners && !verifies(config), section, &["resolver", "timeout"], why);
        let why = "it is for mail that is not verified here, and all of it is; remove it";
        let believes = config.smtp.listeners().any(|listener| listener.may_believe());
        self.all(has_listeners && !believes, section, &["trusted_authserv_ids"], why);
    }

    fn forwarding(&mut self, config: &Config) {
        let goes_on = |forward: &Option<ForwardTo>| forward.as_ref().is_some_and(|forward| !forward.to.is_empty());
        let is_used = config.account.iter().any(|account| goes_on(&account.forward))
            || config.smtp.route.iter().any(|route| goes_on(&route.forward));
        let why = "no account and no route has a `forward` with `to`; add one, or remove it";
        self.all(!is_used, "smtp", &["forward"], why);
        if let Some(forward) = &config.smtp.forward {
            let is_safe = forward.security != ImapSecurity::None || is_loopback(&forward.host);
            self.all(is_safe, "smtp.forward", &["allow_plaintext"], NO_PLAINTEXT);
        }
    }

    fn account(&mut self, prefix: &str, account: &Account, config: &Config) {
        let why = "no mail is taken for the account; give it `addresses` or an `[[smtp.route]]`, or remove it";
        let is_reached = is_reached(account, config);
        self.all(!is_reached, prefix, &OF_RECEIVED_MAIL, why);
        let why = "with `content = \"none\"` no event lists them; choose another `content`, or remove it";
        let keeps = is_reached && account.attachments;
        self.all(keeps && account.content == Content::None, prefix, &["attachments"], why);
        let knows = verifies(config) || !config.smtp.message_authentication.trusted_authserv_ids.is_empty();
        let why = "nothing is known of senders; see `smtp.message_authentication`, or remove it";
        let asks = is_reached && account.dmarc_fail != DmarcFail::Accept;
        self.all(asks && !knows, prefix, &["dmarc_fail"], why);
        if let Some(imap) = &account.imap {
            let is_safe = imap.security != ImapSecurity::None || is_loopback(&imap.host);
            self.all(is_safe, &format!("{prefix}.imap"), &["allow_plaintext"], NO_PLAINTEXT);
        }
        if let Some(jmap) = &account.jmap {
            let is_safe = !jmap.url.starts_with("http://");
            self.all(is_safe, &format!("{prefix}.jmap"), &["allow_plaintext"], NO_PLAINTEXT);
        }
    }

    fn others(&mut self, config: &Config) {
        // A section that is empty says nothing.
        let keeps = config.account.iter().any(|account| account.attachments);
        self.all(
            !keeps && config.attachments != AttachmentsConfig::default(),
            "",
            &["attachments"],
            "no account has `attachments = true`; add it to one, or remove the section",
        );
        let watches = config.account.iter().any(|account| account.jmap.is_some());
        let is_set = config.jmap != JmapConfig::default();
        self.all(
            !watches && is_set,
            "",
            &["jmap"],
            "no account has `[account.jmap]`; add it to one, or remove the section",
        );
        let why = "Dovecot may not push without `secret_file` or `secret_env`; set one, or remove it";
        self.all(!config.dovecot.is_enabled(), "dovecot", &["user"], why);
        let over_http = &config.mail_over_http;
        let has_urls = over_http.sendgrid_secret_file.is_some() || over_http.postmark_secret_file.is_some();
        let why = "it is for `sendgrid_secret_file` and `postmark_secret_file`; set one, or remove it";
        self.all(!has_urls, "mail_over_http", &["user"], why);
        let is_signed = over_http.mailgun_signing_key_file.is_some() || over_http.sendgrid_public_key.is_some();
        let why = "it is for `mailgun_signing_key_file` and `sendgrid_public_key`; set one, or remove it";
        self.all(!is_signed, "mail_over_http", &["signature_age_max"], why);
    }
}

const NO_PLAINTEXT: &str = "the password goes by TLS, or does not leave this machine; remove it";

/// Keys of `[smtp]` that are about sessions.
const OF_SESSIONS: [&str; 13] = [
    "tls_certificate_file",
    "tls_key_file",
    "message_memory_bytes_max",
    "memory_bytes_max",
    "spool_bytes_max",
    "proxy_protocol_from",
    "xclient_from",
    "sessions_max",
    "sessions_per_address_max",
    "command_timeout",
    "data_bytes_per_second_min",
    "reply_timeout",
    "messages_per_minute_max",
];

/// Keys of an account that are about mail that postrider takes in itself.
const OF_RECEIVED_MAIL: [&str; 5] = ["attachments", "dmarc_fail", "require", "address_secret_file", "forward"];

/// Whether postrider verifies any mail itself.
fn verifies(config: &Config) -> bool {
    config.smtp.listeners().any(|listener| listener.may_verify())
}

/// Whether any mail is taken for an account.
fn is_reached(account: &Account, config: &Config) -> bool {
    let by_name = config.smtp.local_domains.as_ref().is_some_and(|domains| !domains.is_empty());
    by_name || !account.addresses.is_empty() || config.smtp.route.iter().any(|route| route.account == account.name)
}
