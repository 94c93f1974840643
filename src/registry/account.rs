//! One account, as configured.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{CertificatePin, DmarcFail, JmapEndpoint, ProxyAddress, Requirement};
use crate::event::{AccountName, Content, EventKind};

/// `[[account]]`: somebody's mail.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// The name in topics, events and tokens.
    pub name: AccountName,
    /// How much of a message its events carry: `"none"`, `"envelope"`, `"preview"` or `"text"`. Default: `"preview"`.
    #[serde(default)]
    pub content: Content,
    /// Addresses whose mail is taken for this account, by SMTP, LMTP or HTTP; `local+mailbox@domain` is taken too and names
    /// the mailbox. `*` in a local part stands for anything, `@domain` for all of a domain. Default: none.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Whether the attachments of its mail that is received here are kept for a while, and its events link to them; see
    /// `[attachments]`. Default: false.
    #[serde(default)]
    pub attachments: bool,
    /// What is done with mail that fails DMARC: `"accept"`, `"mark"` (it is suspicious, and of low priority) or
    /// `"refuse"` (where its domain wants that, else marked). Default: `"accept"`.
    #[serde(default)]
    pub dmarc_fail: DmarcFail,
    /// What mail has to prove to be taken: `"dmarc-pass"`. Default: nothing.
    #[serde(default)]
    pub require: Option<Requirement>,
    /// A file whose first line is a secret that each of the addresses has to end with, behind `+` or `.`:
    /// `local+SECRET@domain`. Default: none, whoever knows an address may write to it.
    #[serde(default)]
    pub address_secret_file: Option<PathBuf>,
    /// Where mail that is taken for this account, by SMTP, LMTP or HTTP, goes on to. Default: nowhere, it ends here.
    #[serde(default)]
    pub forward: Option<ForwardTo>,
    /// The IMAP server that holds its mailboxes. Default: none.
    #[serde(default)]
    pub imap: Option<Arc<ImapEndpoint>>,
    /// The JMAP server that holds its mail, instead of an IMAP server. Default: none.
    #[serde(default)]
    pub jmap: Option<Arc<JmapEndpoint>>,
}

/// Where mail goes on to, by the smart host of `[smtp.forward]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardTo {
    /// Addresses that get each message. Default: none.
    #[serde(default)]
    pub to: Vec<String>,
}

/// `[account.imap]`: where an account's mailboxes are, and how to get in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImapEndpoint {
    /// Host name or address of the server.
    pub host: String,
    /// Port. Default: 993 with implicit TLS, else 143.
    #[serde(default)]
    pub port: Option<u16>,
    /// `"tls"` (implicit), `"starttls"`, or `"none"`. Default: `"tls"`.
    #[serde(default)]
    pub security: ImapSecurity,
    /// With `security = "none"`, allows the password to cross a network that is not loopback. Default: false.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// User name at the server.
    pub username: String,
    /// A file whose first line is the password. One of the three `password_…` keys is needed. Default: none.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// A program and its arguments; the first line that it prints is the password. Default: none.
    #[serde(default)]
    pub password_command: Option<Box<[String]>>,
    /// The environment variable that holds the password. Default: none.
    #[serde(default)]
    pub password_env: Option<String>,
    /// A password that was typed at the terminal; never read from a file and never written.
    #[serde(skip)]
    pub password_typed: Option<SecretString>,
    /// A program and its arguments; the first line that it prints is an OAuth 2.0 access token. Default: none.
    #[serde(default)]
    pub access_token_command: Option<Box<[String]>>,
    /// OAuth 2.0 instead of a password. Default: none.
    #[serde(default)]
    pub oauth: Option<Box<OauthConfig>>,
    /// How to log in: `"scram-sha-256"`, `"plain"`, `"login"`, `"oauthbearer"` or `"xoauth2"`. Default: the best that
    /// the server offers and the account has a password or token for.
    #[serde(default)]
    pub mechanism: Option<LoginMechanism>,
    /// Mailboxes to watch: names, patterns (`"Lists/*"`, `"*"` for all; `%` stops at the next level), and special uses
    /// (`"\\Sent"`, RFC 6154). Default: `["INBOX"]`.
    #[serde(default = "inbox")]
    pub mailboxes: Arc<[String]>,
    /// Mailboxes that are left out of what patterns bring, in the same words. Default: `["\\Junk", "\\Trash"]`.
    #[serde(default = "junk_and_trash")]
    pub mailboxes_excluded: Arc<[String]>,
    /// What is reported besides what a watcher must always say: kinds of events. Default: `MessageNew`, `MessageRead`,
    /// `MessageExpunge`, and, where `mailboxes` has a pattern, `MailboxCreate`, `MailboxDelete` and `MailboxRename`.
    #[serde(default)]
    pub events: Option<Vec<EventKind>>,
    /// Connections for this account at most. One is enough where the server has NOTIFY. Default: 3.
    #[serde(default = "three")]
    pub connections_max: NonZeroU32,
    /// A file with the certificate authorities (PEM) that this server's certificate may come from, instead of the
    /// system's. Default: the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Keys, one of which the server's certificate must have, as `"sha256/…"`: of the key, in base64, as
    /// `postrider check` shows it. Who signed the certificate does not matter then, unless `ca_file` says so.
    /// Default: none.
    #[serde(default)]
    pub certificate_pin: Vec<CertificatePin>,
    /// A file with the certificate (PEM, with those between it and the authority) that the server asks of us.
    /// Default: none.
    #[serde(default)]
    pub client_certificate_file: Option<PathBuf>,
    /// The file with its key (PEM). Default: the same file.
    #[serde(default)]
    pub client_key_file: Option<PathBuf>,
    /// Takes any certificate, so that anybody on the way can read the password and the mail. For tests. Default: false.
    #[serde(default)]
    pub tls_insecure_accept_any_certificate: bool,
    /// The proxy to go through: `"socks5://[user@]host:port"` or `"http://…"`. Default: none.
    #[serde(default)]
    pub proxy: Option<Box<ProxyAddress>>,
    /// A file whose first line is the proxy's password. Default: none.
    #[serde(default)]
    pub proxy_password_file: Option<PathBuf>,
    /// The address of this machine to connect from. Default: the system's choice.
    #[serde(default)]
    pub local_address: Option<IpAddr>,
    /// Asks Dovecot, after each login, to push what is delivered to this user; `[dovecot]` receives it. Of no effect
    /// where the server does not offer METADATA. Default: false.
    #[serde(default)]
    pub dovecot_push: bool,
}

impl Account {
    /// An account with every default: no address, and no mailbox that is watched.
    pub fn new(name: AccountName) -> Self {
        Self {
            name,
            content: Content::default(),
            addresses: Vec::new(),
            attachments: false,
            dmarc_fail: DmarcFail::default(),
            require: None,
            address_secret_file: None,
            forward: None,
            imap: None,
            jmap: None,
        }
    }

    /// The endpoint, to be changed before anything is started with it.
    pub fn imap_mut(&mut self) -> Option<&mut ImapEndpoint> {
        self.imap.as_mut().map(Arc::make_mut)
    }

    /// Whether its mail is somewhere where it is watched.
    pub fn is_watched(&self) -> bool {
        self.imap.is_some() || self.jmap.is_some()
    }

    /// Whether its password was typed at the terminal, so that no file knows it.
    pub fn is_typed(&self) -> bool {
        self.imap.as_ref().is_some_and(|imap| imap.password_typed.is_some())
    }
}

/// What nearly all accounts have is there once.
fn inbox() -> Arc<[String]> {
    static INBOX: LazyLock<Arc<[String]>> = LazyLock::new(|| Arc::new(["INBOX".to_owned()]));
    INBOX.clone()
}

fn junk_and_trash() -> Arc<[String]> {
    static EXCLUDED: LazyLock<Arc<[String]>> = LazyLock::new(|| Arc::new(["\\Junk".to_owned(), "\\Trash".to_owned()]));
    EXCLUDED.clone()
}

fn three() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(2)
}

impl ImapEndpoint {
    /// An endpoint with every default: TLS, INBOX, and no password yet.
    pub fn new(host: impl Into<String>, username: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port: None,
            security: ImapSecurity::default(),
            allow_plaintext: false,
            username: username.into(),
            password_file: None,
            password_command: None,
            password_env: None,
            password_typed: None,
            access_token_command: None,
            oauth: None,
            mechanism: None,
            mailboxes: inbox(),
            mailboxes_excluded: junk_and_trash(),
            events: None,
            connections_max: three(),
            ca_file: None,
            certificate_pin: Vec::new(),
            client_certificate_file: None,
            client_key_file: None,
            tls_insecure_accept_any_certificate: false,
            proxy: None,
            proxy_password_file: None,
            local_address: None,
            dovecot_push: false,
        }
    }

    /// The port to connect to: the configured one, else what IANA assigned.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.security {
            ImapSecurity::Tls => 993,
            ImapSecurity::Starttls | ImapSecurity::None => 143,
        })
    }
}

/// How the connection to an IMAP server is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImapSecurity {
    /// TLS from the first byte (RFC 8314 §3.2).
    #[default]
    Tls,
    /// TLS by STARTTLS before anything else is said (RFC 9051 §6.2.1).
    Starttls,
    /// None. Refused unless the server is on loopback, or `allow_plaintext` is set.
    None,
}

/// `[account.imap.oauth]`: where an account's tokens come from. A person agrees once, with `postrider account login`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OauthConfig {
    /// `"google"`, `"microsoft"`, or the address of an OpenID Connect issuer.
    pub provider: String,
    /// What postrider is called at the provider: it has to be registered there.
    pub client_id: String,
    /// A file whose first line is the client's secret, where the provider gives one. Default: none.
    #[serde(default)]
    pub client_secret_file: Option<PathBuf>,
    /// What is asked for. Default: the provider's own scope for mail.
    #[serde(default)]
    pub scope: Option<String>,
    /// Where tokens are given. Default: the provider's.
    #[serde(default)]
    pub token_endpoint: Option<String>,
    /// Where a person agrees. Default: the provider's.
    #[serde(default)]
    pub authorization_endpoint: Option<String>,
    /// Where a login on another device begins. Default: the provider's.
    #[serde(default)]
    pub device_authorization_endpoint: Option<String>,
}

impl OauthConfig {
    /// A client at a provider, with every default.
    pub fn new(provider: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            provider: provider.into(),
            client_id: client_id.into(),
            client_secret_file: None,
            scope: None,
            token_endpoint: None,
            authorization_endpoint: None,
            device_authorization_endpoint: None,
        }
    }
}

/// How to log in, where that is not left to what the server offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoginMechanism {
    /// SCRAM-SHA-256 (RFC 7677): the password is not shown to the server.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// PLAIN (RFC 4616).
    Plain,
    /// The command LOGIN, or the mechanism of that name.
    Login,
    /// OAUTHBEARER (RFC 7628), with a token.
    Oauthbearer,
    /// XOAUTH2, Google's and Microsoft's form of it.
    Xoauth2,
}

impl fmt::Display for ImapSecurity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls => "TLS",
            Self::Starttls => "STARTTLS",
            Self::None => "no encryption",
        })
    }
}
