//! What becomes of mail that is handed to postrider, by whatever way: whom it is for, and its events.
//!
//! SMTP, LMTP and mail over HTTP end here. Each takes a message in as its protocol has it, asks the [`Routing`] about
//! every recipient, hands over a [`Mail`], and tells its client the [`Outcome`], which is a promise of the event log.

mod authentication;
mod client;
mod delivery;
mod parsing;
mod path;
mod routing;
mod spool;

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use crate::event::Authentication;
use crate::event_log::EventLog;
use crate::message::trace;

pub use authentication::{
    Authenticator, MessageAuthenticationConfig, MessageAuthenticationConfigError, NameServer, ResolverError,
};
pub(crate) use authentication::{Examine, Refusal};
use authentication::{Verdict, refused_for_all};
pub(crate) use client::Client;
use delivery::Found;
pub(crate) use delivery::{Mail, Outcome, QueueId, Recipient};
use parsing::Parsing;
pub(crate) use path::{Path, bracketed};
pub(crate) use routing::{NoRoute, Peer};
pub use routing::{Routing, RoutingError};
use spool::Whole;
pub(crate) use spool::{Message, Spool, SpoolFile, WHOLE_MAX};

/// Takes mail for the configured accounts. Clones share everything.
#[derive(Debug, Clone)]
pub struct Intake {
    routing: Arc<Routing>,
    event_log: EventLog,
    spool: Spool,
    parsing: Parsing,
    authenticator: Arc<Authenticator>,
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
            authenticator: Arc::default(),
            append_timeout,
            received_max: Self::RECEIVED_MAX,
        }
    }

    /// Refuses messages with more `Received` fields than this: they go round in circles (RFC 5321 §6.3).
    #[must_use]
    pub fn with_received_max(self, received_max: usize) -> Self {
        Self { received_max, ..self }
    }

    /// Finds out who sent the mail, by `authenticator`. Without one, nothing is known of that.
    #[must_use]
    pub fn with_authenticator(self, authenticator: Authenticator) -> Self {
        Self { authenticator: Arc::new(authenticator), ..self }
    }

    /// Where recipients' mail goes.
    pub(crate) fn routing(&self) -> Arc<Routing> {
        Arc::clone(&self.routing)
    }

    /// Where messages wait that are too large for memory.
    pub(crate) fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Commits one message that has one answer for all its recipients.
    ///
    /// # Cancel safety
    /// The message may be committed when the future is dropped; its sender does not hear of that and repeats it.
    pub(crate) async fn take(&self, mail: Mail) -> Outcome {
        let (octets, found) = match self.examine(&mail).await {
            Ok(examined) => examined,
            Err(outcome) => return outcome,
        };
        let verdicts = self.authenticator.verdicts(&mail, found.as_ref());
        if let Some(refusal) = refused_for_all(&verdicts) {
            self.authenticator.count(Verdict::Refuse(refusal));
            return Outcome::Refused(refusal);
        }
        self.commit(mail, octets, found, &verdicts).await
    }

    /// Commits one message, with an answer for each of its recipients, in their order.
    ///
    /// # Cancel safety
    /// As [`Intake::take`].
    pub(crate) async fn take_each(&self, mut mail: Mail) -> Vec<Outcome> {
        let (octets, found) = match self.examine(&mail).await {
            Ok(examined) => examined,
            Err(outcome) => return vec![outcome; mail.recipients.len()],
        };
        let verdicts = self.authenticator.verdicts(&mail, found.as_ref());
        let is_taken = |verdict: &Verdict| !matches!(verdict, Verdict::Refuse(_));
        let taken: Vec<Verdict> = verdicts.iter().copied().filter(is_taken).collect();
        let mut verdict = verdicts.iter();
        mail.recipients.retain(|_| verdict.next().is_some_and(is_taken));
        let committed =
            if taken.is_empty() { Outcome::Committed } else { self.commit(mail, octets, found, &taken).await };
        let outcome = |verdict: &Verdict| match verdict {
            Verdict::Refuse(refusal) => {
                self.authenticator.count(*verdict);
                Outcome::Refused(*refusal)
            }
            _ => committed,
        };
        verdicts.iter().map(outcome).collect()
    }

    /// Reads a message and finds out what is known of it; else says what its sender is told.
    async fn examine(&self, mail: &Mail) -> Result<(Whole, Option<Authentication>), Outcome> {
        let unreadable = |err| {
            let queue_id = mail.queue_id;
            warn!(%queue_id, error = %err, "message not read back from the spool, its sender tries again later");
            Outcome::Failed
        };
        debug!(queue_id = %mail.queue_id, size = mail.message.len(), client = ?mail.client, "message handed over");
        let octets = mail.message.whole().await.map_err(unreadable)?;
        let received = trace(&octets).received;
        if received > self.received_max {
            // Whoever sends it on gets the bounce; anybody can send one, so the log does not fill with them.
            debug!(queue_id = %mail.queue_id, received, max = self.received_max, "mail loop, message refused");
            return Err(Outcome::Loop);
        }
        self.authenticator.examine(mail, octets).await.map_err(unreadable)
    }

    async fn commit(
        &self,
        mail: Mail,
        octets: Whole,
        authentication: Option<Authentication>,
        verdicts: &[Verdict],
    ) -> Outcome {
        // Who would refuse it, and cannot be answered alone, gets it marked.
        let suspicious: Vec<bool> = verdicts.iter().map(|verdict| *verdict != Verdict::Accept).collect();
        for _ in suspicious.iter().filter(|&&suspicious| suspicious) {
            self.authenticator.count(Verdict::Mark);
        }
        let found = Found { octets, authentication, suspicious };
        delivery::commit(&self.event_log, &self.parsing, mail, found, self.append_timeout).await
    }
}
