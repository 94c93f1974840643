//! Whom mail is for and what became of it: addresses and clients are the real ones, the answers are simple.

#[path = "../../../../src/source/intake/client.rs"]
#[allow(dead_code, reason = "the log's part of it")]
mod client;
#[path = "../../../../src/source/intake/path.rs"]
#[allow(dead_code, reason = "what routing needs")]
mod path;

/// What `client` takes from the real routing.
mod routing {
    pub(crate) use super::Peer;
}

use std::fmt;
use std::sync::Arc;

pub(crate) use client::Client;
pub(crate) use path::{Path, bracketed};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Loopback,
    Remote,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipient {
    pub path: Path,
    pub destination: Destination,
}

impl Recipient {
    pub(crate) fn new(path: Path, destination: Destination) -> Self {
        Self { path, destination }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination;

#[derive(Debug)]
#[allow(dead_code, reason = "which of them is the input's business")]
pub(crate) enum NoRoute {
    UnknownRecipient,
    ForeignDomain,
}

/// Takes mail for everybody whose name begins with an `a`.
#[derive(Debug)]
pub struct Routing;

/// Routes that never change.
#[derive(Debug)]
pub(crate) struct Routes;

impl Routes {
    pub(crate) fn current(&self) -> Arc<Routing> {
        Arc::new(Routing)
    }
}

impl Routing {
    pub(crate) fn route(&self, path: &Path, peer: Peer) -> Result<Destination, NoRoute> {
        match path.domain() {
            None if peer == Peer::Remote => Err(NoRoute::ForeignDomain),
            _ if path.local().starts_with('a') => Ok(Destination),
            _ => Err(NoRoute::UnknownRecipient),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Committed,
    NoSpace,
    Failed,
    ShuttingDown,
    Loop,
    Refused(Refusal),
}

/// Why nobody takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal;

impl Refusal {
    pub(crate) fn reply(self) -> &'static str {
        "550 5.7.1 No"
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueId(pub usize);

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
