//! `[account.jmap]`: where an account's JMAP server is, and how to get in.

use std::path::PathBuf;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::{PasswordError, PasswordSource};

/// `[account.jmap]`: the JMAP server that holds an account's mail.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JmapEndpoint {
    /// The URL of the session resource, or the host's name, at which it is looked for under `/.well-known/jmap`.
    pub url: String,
    /// User name at the server. Without one, the password is a token and is sent as `Authorization: Bearer`.
    #[serde(default)]
    pub username: Option<String>,
    /// A file whose first line is the password or token. One of the three `password_…` keys is needed. Default: none.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// A program and its arguments; the first line that it prints is the password or token. Default: none.
    #[serde(default)]
    pub password_command: Option<Vec<String>>,
    /// The environment variable that holds the password or token. Default: none.
    #[serde(default)]
    pub password_env: Option<String>,
    /// A password for tests and tools; never read from a file and never written.
    #[serde(skip)]
    pub password_typed: Option<SecretString>,
    /// Mailboxes whose events are wanted, as paths with `/`; `INBOX` is the inbox, whatever the server calls it.
    /// Default: empty, all of them.
    #[serde(default)]
    pub mailboxes: Vec<String>,
    /// Allows the password to cross a network that is not loopback without TLS, for a URL with `http:`. Default: false.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// A file with the certificate authorities (PEM) that this server's certificate may come from, instead of the
    /// system's. Default: the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// Why an endpoint's URL cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JmapUrlError {
    /// It is none.
    #[error("`url` is no URL of a JMAP session and no host name; write https://HOST/PATH or HOST")]
    Invalid,
    /// The password has its own place.
    #[error("`url` must not hold a user name or password; they have keys of their own")]
    Credentials,
    /// The password would cross a network in the clear.
    #[error(
        "`url` begins with http:, and its host is not this machine: anybody on the way could read the password; use \
         https:, or set `allow_plaintext = true` if the way is protected otherwise"
    )]
    Plaintext,
}

impl JmapEndpoint {
    /// An endpoint with every default, and no password yet.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// The URL of the session resource.
    ///
    /// # Errors
    /// See [`JmapUrlError`].
    pub fn session_url(&self) -> Result<Url, JmapUrlError> {
        if self.url.is_empty() {
            return Err(JmapUrlError::Invalid);
        }
        let text = if self.url.contains("://") {
            self.url.clone()
        } else {
            // RFC 8620 §2.2.
            format!("https://{}/.well-known/jmap", self.url)
        };
        let url = Url::parse(&text).map_err(|_| JmapUrlError::Invalid)?;
        if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
            return Err(JmapUrlError::Invalid);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(JmapUrlError::Credentials);
        }
        if self.may_send_to(&url) { Ok(url) } else { Err(JmapUrlError::Plaintext) }
    }

    /// Whether credentials may be sent there, as far as encryption is concerned.
    pub fn may_send_to(&self, url: &Url) -> bool {
        url.scheme() == "https" || (url.scheme() == "http" && (self.allow_plaintext || is_loopback(url)))
    }

    /// The password or token, fetched now.
    ///
    /// # Errors
    /// See [`PasswordError`]; a file or a key ring may be there the next time.
    ///
    /// # Cancel safety
    /// Dropping the future ends a command that is running.
    pub async fn password(&self) -> Result<SecretString, PasswordError> {
        self.source().password().await
    }

    /// Where the password or token is.
    pub(crate) fn source(&self) -> PasswordSource<'_> {
        PasswordSource {
            typed: self.password_typed.as_ref(),
            file: self.password_file.as_deref(),
            env: self.password_env.as_deref(),
            command: self.password_command.as_deref(),
        }
    }
}

/// Whether what is sent there stays on this machine.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_enough_and_a_password_stays_private() {
        let url = |text: &str| JmapEndpoint::new(text).session_url().map(String::from);
        assert_eq!(url("jmap.example.org").unwrap(), "https://jmap.example.org/.well-known/jmap");
        assert_eq!(url("jmap.example.org:8443").unwrap(), "https://jmap.example.org:8443/.well-known/jmap");
        assert_eq!(url("https://a.example/jmap/session").unwrap(), "https://a.example/jmap/session");
        assert_eq!(url("http://[::1]:80/jmap").unwrap(), "http://[::1]/jmap");
        assert_eq!(url("http://192.0.2.1/jmap"), Err(JmapUrlError::Plaintext));
        assert_eq!(url("https://u:p@a.example/"), Err(JmapUrlError::Credentials));
        assert_eq!(url("ftp://a.example/"), Err(JmapUrlError::Invalid));
        assert_eq!(url(""), Err(JmapUrlError::Invalid));
        let open = JmapEndpoint { allow_plaintext: true, ..JmapEndpoint::new("http://192.0.2.1/jmap") };
        assert!(open.session_url().is_ok());
    }
}
