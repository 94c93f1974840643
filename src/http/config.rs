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

/// Why the section cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpConfigError {
    /// None would serve nobody, and a million is beyond what a process may open.
    #[error("`http.connections_max` must be from 1 to {0}")]
    Connections(usize),
    /// A time of zero would refuse everybody, one of years protects nobody.
    #[error("`http.{0}` must be from {1:?} to {2:?}")]
    Time(&'static str, Duration, Duration),
}

impl HttpConfig {
    /// Where `listen` is by default.
    pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8025);
    const CONNECTIONS_LIMIT: usize = 1_000_000;

    /// Checks what a type cannot say.
    ///
    /// # Errors
    /// See [`HttpConfigError`].
    pub fn check(&self) -> Result<(), HttpConfigError> {
        if !(1..=Self::CONNECTIONS_LIMIT).contains(&self.connections_max) {
            return Err(HttpConfigError::Connections(Self::CONNECTIONS_LIMIT));
        }
        let (least, most) = (Duration::from_millis(100), Duration::from_hours(24));
        let times = [("header_timeout", self.header_timeout), ("stall_timeout", self.stall_timeout)];
        match times.into_iter().find(|(_, time)| !(least..=most).contains(time)) {
            Some((name, _)) => Err(HttpConfigError::Time(name, least, most)),
            None => Ok(()),
        }
    }
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
