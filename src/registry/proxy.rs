//! `proxy = "socks5://user@host:port"`: the way to a server that is not reached directly. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::Url;

/// A proxy, as configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProxyAddress {
    /// What it speaks.
    pub kind: ProxyKind,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User name there, if it wants one.
    pub username: Option<String>,
}

/// What a proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    /// SOCKS 5 (RFC 1928). The proxy finds the server's address.
    Socks5,
    /// The method CONNECT of HTTP (RFC 9110 §9.3.6).
    Http,
}

/// Why a text names no proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyAddressError {
    /// It is of another form.
    #[error("expected socks5://[user@]host[:port] or http://[user@]host[:port]")]
    Form,
    /// A password is in it.
    #[error("leave the password out of `proxy` and name a file in `proxy_password_file`")]
    Password,
}

impl FromStr for ProxyAddress {
    type Err = ProxyAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|_| ProxyAddressError::Form)?;
        let (kind, usual_port) = match url.scheme() {
            "socks5" | "socks5h" => (ProxyKind::Socks5, 1080),
            "http" => (ProxyKind::Http, 8080),
            _ => return Err(ProxyAddressError::Form),
        };
        if url.password().is_some() {
            return Err(ProxyAddressError::Password);
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(ProxyAddressError::Form)?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(ProxyAddressError::Form);
        }
        let decoded =
            |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned);
        let username = decoded(url.username()).map_err(|_| ProxyAddressError::Form)?;
        if username.len() > 255 || username.chars().any(char::is_control) {
            return Err(ProxyAddressError::Form);
        }
        // The address bar's rules drop a port that is usual for http: what was written counts.
        let port = match url.port() {
            Some(port) => port,
            None if kind == ProxyKind::Http && text.trim_end_matches('/').ends_with(":80") => 80,
            None => usual_port,
        };
        Ok(Self { kind, host: host.to_owned(), port, username: (!username.is_empty()).then_some(username) })
    }
}

impl fmt::Display for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            ProxyKind::Socks5 => "socks5",
            ProxyKind::Http => "http",
        };
        write!(f, "{scheme}://")?;
        if let Some(username) = &self.username {
            write!(f, "{}@", percent_encoding::utf8_percent_encode(username, percent_encoding::NON_ALPHANUMERIC))?;
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl TryFrom<String> for ProxyAddress {
    type Error = ProxyAddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ProxyAddress> for String {
    fn from(address: ProxyAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_being_written() {
        for (text, written) in [
            ("socks5://127.0.0.1:9050", "socks5://127.0.0.1:9050"),
            ("socks5h://ada@proxy.example.org", "socks5://ada@proxy.example.org:1080"),
            ("http://a%40b@proxy:80", "http://a%40b@proxy:80"),
            ("http://[::1]:3128/", "http://[::1]:3128"),
        ] {
            let address: ProxyAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), written);
            assert_eq!(written.parse(), Ok(address));
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused() {
        for (text, error) in [
            ("socks5://ada:hunter2@proxy", ProxyAddressError::Password),
            ("https://proxy", ProxyAddressError::Form),
            ("proxy:1080", ProxyAddressError::Form),
            ("socks5://proxy/path", ProxyAddressError::Form),
            ("", ProxyAddressError::Form),
        ] {
            assert_eq!(text.parse::<ProxyAddress>(), Err(error), "{text}");
        }
    }
}
