//! `[http]`: the listener and its limits.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[http]`: the listener and its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Address and port to listen on. There is no TLS here: put a reverse proxy before anything but loopback.
    /// Default: `"127.0.0.1:8025"`.
    pub listen: SocketAddr,
    /// The address under which people reach the page, for the sign-in link. Default: made from `listen`.
    pub public_url: Option<String>,
    /// Connections at the same time; more wait unaccepted. Default: 20,000.
    pub connections_max: usize,
    /// Longest time for a request's head to arrive. Default: `"10s"`.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// A client whose socket takes nothing for this long is disconnected; it resumes by its last event ID.
    /// Default: `"5m"`.
    #[serde(with = "humantime_serde")]
    pub stall_timeout: Duration,
}

impl HttpConfig {
    /// Where `listen` is by default.
    pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8025);
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: Self::LISTEN,
            public_url: None,
            connections_max: 20_000,
            header_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_mins(5),
        }
    }
}
