//! Who handed mail over, as far as it is known.

use std::net::IpAddr;

use super::routing::Peer;
use crate::source::networks::Networks;

/// Who handed mail over. It is for deciding (routing, limits, sender authentication) and for diagnostics: events do not
/// carry it, since the address of who wrote is nobody's business but the receiver's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    /// Its address; none by a Unix socket, and where a proxy does not tell it.
    pub address: Option<IpAddr>,
    /// Whether it is on this machine. An address that somebody else told (a proxy, XCLIENT) never is.
    pub peer: Peer,
    /// What it called itself, by HELO, EHLO or LHLO.
    pub helo: Option<String>,
    /// Whether it spoke TLS.
    pub tls: bool,
    /// As whom it logged in.
    pub user: Option<String>,
}

impl Client {
    /// Who has just connected from `address`.
    pub(crate) fn at(address: Option<IpAddr>, peer: Peer) -> Self {
        Self { address, peer, helo: None, tls: false, user: None }
    }

    /// Whether it comes from one of these networks.
    pub(crate) fn is_in(&self, networks: &Networks) -> bool {
        match self.address {
            Some(address) => networks.contain(address),
            // Without an address, and here: by a Unix socket.
            None => self.peer == Peer::Loopback && networks.contain_unix(),
        }
    }
}
