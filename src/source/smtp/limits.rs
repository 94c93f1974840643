//! What holds for the sessions of one listener: its own values, and those of `[smtp]` where it gives none.

use std::time::Duration;

use super::config::{ListenerConfig, Mode, SmtpConfig, SocketAddress, TlsMode};
use super::session::Role;
use super::tls::TlsFiles;
use crate::source::networks::Networks;

/// One socket to listen on, with everything that holds there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSettings {
    /// What is spoken.
    pub role: Role,
    /// Where.
    pub listen: SocketAddress,
    /// Who may connect to a Unix socket.
    pub mode: Mode,
    /// When TLS begins.
    pub tls: TlsMode,
    /// With what; none without TLS.
    pub tls_files: Option<TlsFiles>,
    /// Whose connections begin with a header of the PROXY protocol.
    pub proxy_protocol_from: Networks,
    /// Who may use XCLIENT.
    pub xclient_from: Networks,
    /// Whether messages are verified that come here, where the configuration says so.
    pub verify: Option<bool>,
    /// The bounds of its sessions.
    pub limits: Limits,
}

/// The bounds of a listener's sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The largest message, in octets.
    pub message_bytes_max: usize,
    /// Recipients of one message.
    pub recipients_max: usize,
    /// Sessions of this listener alone; none where only the bound of all counts.
    pub sessions_max: Option<usize>,
    /// Sessions from one address on this listener alone; none where only the bound of all counts.
    pub sessions_per_address_max: Option<usize>,
    /// Messages a minute from one address.
    pub messages_per_minute_max: Option<u32>,
    /// How long a client may take to complete a command.
    pub command_timeout: Duration,
    /// The rate below which text is drip-fed, in octets a second.
    pub data_bytes_per_second_min: u32,
    /// How long a client may leave replies unread.
    pub reply_timeout: Duration,
}

impl ListenerSettings {
    pub(super) fn of(listener: &ListenerConfig, all: &SmtpConfig) -> Self {
        let ListenerConfig { role, ref listen, mode, .. } = *listener;
        let tls_files = all.tls_files(listener);
        let tls = all.tls_mode(listener);
        let tls_files = tls_files.filter(|_| tls != TlsMode::None);
        let networks = |own: &Option<Networks>, all: &Networks| own.as_ref().unwrap_or(all).clone();
        Self {
            role,
            listen: listen.clone(),
            mode,
            tls,
            tls_files,
            proxy_protocol_from: networks(&listener.proxy_protocol_from, &all.proxy_protocol_from),
            xclient_from: networks(&listener.xclient_from, &all.xclient_from),
            verify: match role {
                Role::Smtp | Role::Submission => listener.verify.or(all.message_authentication.verify),
                Role::Lmtp => listener.verify,
            },
            limits: Limits::of(listener, all),
        }
    }

    /// Whether only this machine reaches it.
    pub fn is_local(&self) -> bool {
        match &self.listen {
            SocketAddress::Tcp(address) => address.ip().to_canonical().is_loopback(),
            SocketAddress::Unix(_) => true,
        }
    }

    /// Whether any message is verified that comes here: unless the configuration says so, those of other machines are,
    /// which come here by a proxy, too.
    pub fn may_verify(&self) -> bool {
        let brings_others = !self.proxy_protocol_from.is_empty() || !self.xclient_from.is_empty();
        match self.role {
            // Whoever submits mail has logged in, and is known.
            Role::Submission => false,
            Role::Smtp => self.verify.unwrap_or(!self.is_local() || brings_others),
            Role::Lmtp => self.verify == Some(true),
        }
    }

    /// Whether of any message that comes here it is believed what a trusted mail server has written into its header.
    pub fn may_believe(&self) -> bool {
        self.role != Role::Submission && self.verify != Some(true)
    }

    /// What the operator should know of it, and what to do.
    pub fn risk(&self) -> Option<&'static str> {
        (self.role == Role::Lmtp && !self.is_local()).then_some(
            "LMTP has no login: whoever reaches this port from elsewhere can hand over mail, also in the name of a server \
             in `trusted_authserv_ids`; listen on a Unix socket or 127.0.0.1, or let a firewall admit your mail server alone",
        )
    }
}

impl Limits {
    fn of(listener: &ListenerConfig, all: &SmtpConfig) -> Self {
        Self {
            message_bytes_max: listener.message_bytes_max.unwrap_or(all.message_bytes_max).get(),
            recipients_max: listener.recipients_max.unwrap_or(all.recipients_max).get(),
            sessions_max: listener.sessions_max.map(Into::into),
            sessions_per_address_max: listener.sessions_per_address_max.map(Into::into),
            messages_per_minute_max: listener.messages_per_minute_max.or(all.messages_per_minute_max).map(Into::into),
            command_timeout: listener.command_timeout.unwrap_or(all.command_timeout),
            data_bytes_per_second_min: listener
                .data_bytes_per_second_min
                .unwrap_or(all.data_bytes_per_second_min)
                .get(),
            reply_timeout: listener.reply_timeout.unwrap_or(all.reply_timeout),
        }
    }
}
