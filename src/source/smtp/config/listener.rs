//! `[[smtp.listener]]`: one more socket, and what is spoken there.

use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::session::Role;
use crate::source::networks::Networks;

/// `[[smtp.listener]]`: one more socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// What is spoken: `"smtp"`, `"submission"` for programs that log in first, or `"lmtp"` for a mail server that hands
    /// over mail for final delivery.
    pub role: Role,
    /// Address and port, or the absolute path of a Unix socket.
    pub listen: SocketAddress,
    /// Who may connect to a Unix socket, as the permissions of its file. Default: `"0660"`, its user and group.
    #[serde(default)]
    pub mode: Mode,
    /// When TLS begins, as `smtp.tls`. Default: `"starttls"` where there is a certificate and the socket is no Unix
    /// socket, else `"none"`.
    #[serde(default)]
    pub tls: Option<TlsMode>,
    /// A certificate of its own. Default: `smtp.tls_certificate_file`.
    #[serde(default)]
    pub tls_certificate_file: Option<PathBuf>,
    /// The key of its certificate. Default: in the file of its own certificate, else `smtp.tls_key_file`.
    #[serde(default)]
    pub tls_key_file: Option<PathBuf>,
    /// Networks whose connections here begin with a header of the PROXY protocol. Default: `smtp.proxy_protocol_from`.
    #[serde(default)]
    pub proxy_protocol_from: Option<Networks>,
    /// Networks that may use XCLIENT here. Default: `smtp.xclient_from`.
    #[serde(default)]
    pub xclient_from: Option<Networks>,
    /// The largest message here. Default: `smtp.message_bytes_max`.
    #[serde(default)]
    pub message_bytes_max: Option<NonZeroUsize>,
    /// Recipients of one message here. Default: `smtp.recipients_max`.
    #[serde(default)]
    pub recipients_max: Option<NonZeroUsize>,
    /// Sessions here at the same time; those of all listeners stay within `smtp.sessions_max`. Default: none.
    #[serde(default)]
    pub sessions_max: Option<NonZeroUsize>,
    /// Sessions here at the same time from one address, counted apart from other listeners. Default:
    /// `smtp.sessions_per_address_max`, counted together.
    #[serde(default)]
    pub sessions_per_address_max: Option<NonZeroUsize>,
    /// Messages a minute from one address here. Default: `smtp.messages_per_minute_max`.
    #[serde(default)]
    pub messages_per_minute_max: Option<NonZeroU32>,
    /// How long a command may take here. Default: `smtp.command_timeout`.
    #[serde(default, with = "humantime_serde")]
    pub command_timeout: Option<Duration>,
    /// The rate below which text is drip-fed here. Default: `smtp.data_bytes_per_second_min`.
    #[serde(default)]
    pub data_bytes_per_second_min: Option<NonZeroU32>,
    /// How long replies may stay unread here. Default: `smtp.reply_timeout`.
    #[serde(default, with = "humantime_serde")]
    pub reply_timeout: Option<Duration>,
    /// Whether messages are verified that come here. Default: for SMTP, what `smtp.message_authentication` says; for LMTP
    /// false, since the mail server has done so.
    #[serde(default)]
    pub verify: Option<bool>,
}

impl ListenerConfig {
    /// A listener that gives nothing that `[smtp]` gives.
    pub fn new(role: Role, listen: SocketAddress) -> Self {
        Self {
            role,
            listen,
            mode: Mode::default(),
            tls: None,
            tls_certificate_file: None,
            tls_key_file: None,
            proxy_protocol_from: None,
            xclient_from: None,
            message_bytes_max: None,
            recipients_max: None,
            sessions_max: None,
            sessions_per_address_max: None,
            messages_per_minute_max: None,
            command_timeout: None,
            data_bytes_per_second_min: None,
            reply_timeout: None,
            verify: None,
        }
    }

    /// LMTP on the Unix socket `path`.
    pub fn lmtp(path: impl Into<PathBuf>) -> Self {
        Self::new(Role::Lmtp, SocketAddress::Unix(path.into()))
    }
}

/// When TLS begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// Never.
    #[default]
    None,
    /// When the client asks for it (RFC 3207).
    Starttls,
    /// Before anything is said (RFC 8314 §3).
    Implicit,
}

/// Where to listen: `127.0.0.1:24`, or `/run/postrider/lmtp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SocketAddress {
    /// Address and port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl TryFrom<String> for SocketAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.starts_with('/') {
            return Ok(Self::Unix(PathBuf::from(text)));
        }
        let address = text.parse().map_err(|_| {
            format!("`{text}` is neither ADDRESS:PORT, such as `127.0.0.1:24`, nor the absolute path of a Unix socket")
        })?;
        Ok(Self::Tcp(address))
    }
}

impl From<SocketAddress> for String {
    fn from(address: SocketAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A file's permissions, as chmod takes them: octal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mode(u32);

impl Mode {
    /// As the system takes them.
    pub(in crate::source::smtp) fn bits(self) -> u32 {
        self.0
    }
}

impl Default for Mode {
    fn default() -> Self {
        Self(0o660)
    }
}

impl TryFrom<String> for Mode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bits = u32::from_str_radix(&text, 8).ok().filter(|&bits| bits <= 0o777);
        bits.map(Self)
            .ok_or_else(|| format!("`{text}` are no permissions: give octal digits up to 0777, such as `0660`"))
    }
}

impl From<Mode> for String {
    fn from(mode: Mode) -> Self {
        format!("{:04o}", mode.0)
    }
}
