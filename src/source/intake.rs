//! What becomes of mail that is handed to postrider, by whatever way: whom it is for, and its events.
//!
//! SMTP, LMTP and mail over HTTP end here. Each takes a message in as its protocol has it, asks the [`Routing`] about
//! every recipient, hands over a [`Mail`], and tells its client the [`Outcome`], which is a promise of the event log.

mod authentication;
mod client;
mod delivery;
mod path;
mod routing;
mod spool;

use std::sync::Arc;
use std::time::Duration;

use crate::event_log::EventLog;

pub(crate) use client::Client;
pub(crate) use delivery::{Mail, Outcome, QueueId, Recipient};
pub(crate) use path::{Path, bracketed};
pub(crate) use routing::{NoRoute, Peer};
pub use routing::{Routing, RoutingError};
pub(crate) use spool::{Message, Spool};

/// Takes mail for the configured accounts. Clones share everything.
#[derive(Debug, Clone)]
pub struct Intake {
    routing: Arc<Routing>,
    event_log: EventLog,
    spool: Spool,
    append_timeout: Duration,
}

impl Intake {
    /// Commits to `event_log` what `routing` says; gives up on a commit after `append_timeout`.
    pub fn new(routing: Routing, event_log: EventLog, append_timeout: Duration) -> Self {
        let spool = Spool::new(event_log.folder().join("spool"));
        Self { routing: Arc::new(routing), event_log, spool, append_timeout }
    }

    /// Where recipients' mail goes.
    pub(crate) fn routing(&self) -> Arc<Routing> {
        Arc::clone(&self.routing)
    }

    /// Where messages wait that are too large for memory.
    pub(crate) fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Commits one message.
    ///
    /// # Cancel safety
    /// The message may be committed when the future is dropped; its sender does not hear of that and repeats it.
    pub(crate) async fn take(&self, mail: Mail) -> Outcome {
        delivery::commit(&self.event_log, mail, self.append_timeout).await
    }
}
