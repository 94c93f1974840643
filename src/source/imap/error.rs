//! Why a mailbox is not watched, in words that say what to do. These texts are the `reason` of account events.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::oauth::OauthError;
use super::proxy::ProxyError;
use super::refusal::{Refusal, ServerText};
use super::sasl::SaslError;
use crate::event_log::{AppendError, ReadError};
use crate::registry::{CertificatePin, PasswordError};

/// Why a mailbox could not be watched, or is no longer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImapError {
    /// The password would cross a network unprotected.
    #[error(
        "refusing to send the password to {0} without encryption; set `security = \"tls\"` or \"starttls\", or, if \
         the network is trusted, `allow_plaintext = true`"
    )]
    Plaintext(String),
    /// The host has no address.
    #[error("cannot find the address of {0}; check `host` and the name server")]
    Resolve(String, #[source] io::Error),
    /// No address of the host took the connection.
    #[error("cannot connect to {host} port {port}; check `host`, `port` and that the server is running")]
    Connect {
        /// The configured host.
        host: String,
        /// The port that was tried.
        port: u16,
        /// What the last address answered.
        #[source]
        source: io::Error,
    },
    /// The proxy did not connect us.
    #[error("no way through the proxy {0}")]
    Proxy(String, #[source] ProxyError),
    /// The files with our own certificate and key are not usable.
    #[error("cannot use {0} for the client certificate: {1}")]
    ClientCertificate(PathBuf, String),
    /// The file with certificate authorities is not usable.
    #[error("cannot use `ca_file` {0}: {1}")]
    CaFile(PathBuf, String),
    /// The host is no name that a certificate could carry.
    #[error("`{0}` is not a host name or an address; check `host`")]
    HostName(String),
    /// TLS cannot be set up on this machine.
    #[error("cannot set up TLS")]
    TlsSetup(#[source] rustls::Error),
    /// The certificate is not one to trust.
    #[error(
        "the certificate of {0} is not trusted; if it comes from a private authority, name its certificate in \
         `ca_file`, or name the server's key in `certificate_pin`"
    )]
    Certificate(String, #[source] io::Error),
    /// The server has another key than the pinned ones.
    #[error("the key of {0} is {1}, which is not in `certificate_pin`; ask its operator whether it has a new one")]
    NotPinned(String, CertificatePin),
    /// The handshake failed.
    #[error("TLS with {0} failed; check that `security` and `port` fit the server")]
    Tls(String, #[source] io::Error),
    /// The server does not do STARTTLS.
    #[error("{0} does not offer STARTTLS; set `security = \"tls\"` and its port, mostly 993")]
    NoStarttls(String),
    /// There is no password to log in with.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// There is no token to log in with.
    #[error(transparent)]
    Oauth(#[from] OauthError),
    /// User name or password cannot be sent.
    #[error("user name and password must not contain line breaks or NUL; check where the password comes from")]
    Unsendable,
    /// The server has no way to log in that is known here.
    #[error("{0} offers no way to log in that fits the account's password or token, and `mechanism`; it offers: {1}")]
    NoLoginMethod(String, String),
    /// The exchange failed on our side of it.
    #[error("logging in failed: {0}")]
    Sasl(#[from] SaslError),
    /// The server refused the login.
    #[error("{}: {text} ({method})", login_advice(*.refusal))]
    Login {
        /// How it was tried, for people.
        method: &'static str,
        /// What kind of refusal.
        refusal: Refusal,
        /// What the server wrote.
        text: ServerText,
    },
    /// The server refused to open the mailbox.
    #[error("{}: {text}", mailbox_advice(mailbox, *.refusal))]
    Mailbox {
        /// The mailbox.
        mailbox: String,
        /// What kind of refusal.
        refusal: Refusal,
        /// What the server wrote.
        text: ServerText,
    },
    /// The server refused another command.
    #[error("the server refused {command}: {text}")]
    Refused {
        /// The command's name.
        command: &'static str,
        /// What kind of refusal.
        refusal: Refusal,
        /// What the server wrote.
        text: ServerText,
    },
    /// The server said goodbye.
    #[error("the server closed the connection: {text}")]
    Bye {
        /// What kind of goodbye.
        refusal: Refusal,
        /// What the server wrote.
        text: ServerText,
    },
    /// The session is renewed before the server ends it.
    #[error("the session is over")]
    SessionOver,
    /// Nothing of what is to be watched exists.
    #[error("the server has no mailbox that `mailboxes` asks for: {0}; correct it, or create one")]
    NoMailboxes(String),
    /// The connection ended without a goodbye.
    #[error("the server closed the connection without a word")]
    Closed,
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[source] io::Error),
    /// There was no answer in time.
    #[error("no answer to {0} within {1:?}; the server is slow, or the connection is dead")]
    Timeout(&'static str, Duration),
    /// What the server sent is not IMAP, or breaks a limit.
    #[error("the server sent what cannot be read: {0}")]
    Protocol(String),
    /// The task that watched ended by a bug of postrider.
    #[error("postrider failed inside; please report it with the lines of its log about this")]
    Panicked,
    /// The position in the mailbox could not be read.
    #[error(transparent)]
    Checkpoint(#[from] ReadError),
    /// Nothing can be stored any more.
    #[error(transparent)]
    Append(#[from] AppendError),
}

fn login_advice(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Credentials => {
            "the server refused the user name or password; check both, and whether the provider wants an app password \
             for IMAP"
        }
        Refusal::NeedsPerson => {
            "the server wants a person to act before it lets postrider in; log in at the provider's web page and follow \
             what it says, or make an app password"
        }
        Refusal::Capacity => {
            "the server allows no more connections for this user; close other mail programs or watch fewer mailboxes"
        }
        Refusal::Throttled => "the server limits logins; postrider waits",
        Refusal::NoMailbox | Refusal::NoPermission | Refusal::SessionOver | Refusal::Temporary => {
            "the server cannot log the user in at the moment; if it lasts, ask its operator"
        }
    }
}

fn mailbox_advice(mailbox: &str, refusal: Refusal) -> String {
    match refusal {
        Refusal::NoMailbox => format!("there is no mailbox `{mailbox}`; correct `mailboxes`, or create it"),
        Refusal::NoPermission => format!("the user may not read the mailbox `{mailbox}`; ask its owner for the right"),
        _ => format!("the server did not open the mailbox `{mailbox}`"),
    }
}

impl ImapError {
    /// What kind of refusal it was, if the server refused something.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Login { refusal, .. }
            | Self::Mailbox { refusal, .. }
            | Self::Refused { refusal, .. }
            | Self::Bye { refusal, .. } => Some(*refusal),
            _ => None,
        }
    }

    /// The login was refused because of the credentials: the same ones will be refused again.
    pub fn is_auth(&self) -> bool {
        match self {
            Self::Login { refusal: Refusal::Credentials | Refusal::NeedsPerson, .. } | Self::Unsendable => true,
            Self::Oauth(err) => err.needs_person(),
            _ => false,
        }
    }

    /// The end that every session has: nothing is wrong.
    pub fn is_planned(&self) -> bool {
        matches!(self, Self::SessionOver | Self::Bye { refusal: Refusal::SessionOver, .. })
    }

    /// The pause that the server asked for, at most an hour.
    pub fn asked_pause(&self) -> Option<Duration> {
        match self {
            Self::Login { text, .. }
            | Self::Mailbox { text, .. }
            | Self::Refused { text, .. }
            | Self::Bye { text, .. } => text.asked_pause(),
            _ => None,
        }
    }

    /// The text with all its causes, for people.
    pub fn reason(&self) -> String {
        let mut reason = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(err) = cause {
            let text = err.to_string();
            // Some errors of libraries repeat their cause in their own text.
            if !reason.contains(&text) {
                reason.push_str(": ");
                reason.push_str(&text);
            }
            cause = err.source();
        }
        reason
    }
}
