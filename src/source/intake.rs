//! What becomes of mail that is handed to postrider, by whatever way: whom it is for, and its events.
//!
//! SMTP, LMTP and mail over HTTP end here. Each takes a message in as its protocol has it, asks the [`Routing`] about
//! every recipient, hands over a [`Mail`], and tells its client the [`Outcome`], which is a promise of the event log.

mod client;
mod delivery;
mod parsing;
mod path;
mod routing;
mod spool;

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use crate::event_log::EventLog;
use crate::message::trace;

pub(crate) use client::Client;
pub(crate) use delivery::{Mail, Outcome, QueueId, Recipient};
use parsing::Parsing;
pub(crate) use path::{Path, bracketed};
pub(crate) use routing::{NoRoute, Peer};
pub use routing::{Routing, RoutingError};
pub(crate) use spool::{Message, Spool, SpoolFile, WHOLE_MAX};

/// Takes mail for the configured accounts. Clones share everything.
#[derive(Debug, Clone)]
pub struct Intake {
    routing: Arc<Routing>,
    event_log: EventLog,
    spool: Spool,
    parsing: Parsing,
    append_timeout: Duration,
    received_max: usize,
}

impl Intake {
    /// Hops that a message may have behind it, unless [`Intake::with_received_max`] says otherwise.
    pub const RECEIVED_MAX: usize = 50;

    /// Commits to `event_log` what `routing` says; gives up on a commit after `append_timeout`.
    pub fn new(routing: Routing, event_log: EventLog, append_timeout: Duration) -> Self {
        let spool = Spool::new(event_log.folder().join("spool"));
        Self {
            routing: Arc::new(routing),
            event_log,
            spool,
            parsing: Parsing::default(),
            append_timeout,
            received_max: Self::RECEIVED_MAX,
        }
    }

    /// Refuses messages with more `Received` fields than this: they go round in circles (RFC 5321 §6.3).
    #[must_use]
    pub fn with_received_max(self, received_max: usize) -> Self {
        Self { received_max, ..self }
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
        let queue_id = mail.queue_id;
        debug!(%queue_id, size = mail.message.len(), client = ?mail.client, "message handed over");
        let octets = match mail.message.whole().await {
            Ok(octets) => octets,
            Err(err) => {
                warn!(%queue_id, error = %err, "message not read back from the spool, its sender tries again later");
                return Outcome::Failed;
            }
        };
        let received = trace(&octets).received;
        if received > self.received_max {
            // Whoever sends it on gets the bounce; anybody can send one, so the log does not fill with them.
            debug!(%queue_id, received, max = self.received_max, "mail loop, message refused");
            return Outcome::Loop;
        }
        delivery::commit(&self.event_log, &self.parsing, mail, octets, self.append_timeout).await
    }
}
