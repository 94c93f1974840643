//! What becomes of mail that is handed to postrider, by whatever way: whom it is for, and its events.
//!
//! SMTP, LMTP and mail over HTTP end here. Each takes a message in as its protocol has it, asks the [`Routing`] about
//! every recipient, hands over a [`Mail`], and tells its client the [`Outcome`], which is a promise of the event log.

mod authentication;
mod client;
mod delivery;
mod forward;
mod keeping;
mod parsing;
mod path;
mod routing;
mod spool;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tracing::{debug, warn};

use crate::attachments::Attachments;
use crate::event::Authentication;
use crate::event_log::EventLog;
use crate::message::{Trace, trace};
use crate::registry::Account;
use crate::source::forward::{ForwardConfig, Forwarding};

use self::forward::Forward;
pub use authentication::{
    Authenticator, MessageAuthenticationConfig, MessageAuthenticationConfigError, NameServer, NameServerError,
    ProbeError, ResolverError, probe_name_servers,
};
pub(crate) use authentication::{Examine, Refusal};
use authentication::{Verdict, refused_for_all};
pub(crate) use client::Client;
use delivery::{Found, Letter};
pub(crate) use delivery::{Mail, Outcome, QueueId, Recipient};
use parsing::Parsing;
pub(crate) use path::{Path, bracketed};
pub use routing::{AddressSecrets, Entry, RouteConfig, Routing, RoutingError};
pub(crate) use routing::{Destination, NoRoute, Peer};
use spool::Whole;
pub(crate) use spool::{Message, Spool, SpoolFile, WHOLE_MAX};

/// The routing of the moment: a reload of the configuration replaces it. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routes(Arc<RwLock<Arc<Routing>>>);

impl Routes {
    /// The routing as it is now. Whoever asks about several recipients of one message keeps it for all of them.
    pub(crate) fn current(&self) -> Arc<Routing> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, routing: Routing) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(routing);
    }
}

impl From<Routing> for Routes {
    fn from(routing: Routing) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(routing))))
    }
}

/// Takes mail for the configured accounts. Clones share everything.
#[derive(Debug, Clone)]
pub struct Intake {
    routes: Routes,
    event_log: EventLog,
    spool: Spool,
    parsing: Parsing,
    attachments: Option<Attachments>,
    authenticator: Arc<Authenticator>,
    append_timeout: Duration,
    received_max: usize,
    forwarding: Option<Forwarding>,
}

impl Intake {
    /// Hops that a message may have behind it, unless [`Intake::with_received_max`] says otherwise.
    pub const RECEIVED_MAX: usize = 50;

    /// The folder in the data folder where large messages wait while they come in.
    pub const SPOOL_FOLDER: &str = "spool";

    /// Commits to `event_log` what `routing` says; gives up on a commit after `append_timeout`.
    pub fn new(routing: Routing, event_log: EventLog, append_timeout: Duration) -> Self {
        let spool = Spool::new(event_log.folder().join(Self::SPOOL_FOLDER));
        Self {
            routes: routing.into(),
            event_log,
            spool,
            parsing: Parsing::default(),
            attachments: None,
            authenticator: Arc::default(),
            append_timeout,
            received_max: Self::RECEIVED_MAX,
            forwarding: None,
        }
    }

    /// Refuses messages with more `Received` fields than this: they go round in circles (RFC 5321 §6.3).
    #[must_use]
    pub fn with_received_max(self, received_max: usize) -> Self {
        Self { received_max, ..self }
    }

    /// Keeps attachments in `attachments`, for the accounts that ask for it.
    #[must_use]
    pub fn with_attachments(self, attachments: Attachments) -> Self {
        Self { attachments: Some(attachments), ..self }
    }

    /// Finds out who sent the mail, by `authenticator`. Without one, nothing is known of that.
    #[must_use]
    pub fn with_authenticator(self, authenticator: Authenticator) -> Self {
        Self { authenticator: Arc::new(authenticator), ..self }
    }

    /// Sends mail on that is for those with a `forward`, as `config` says; `hostname` is what we call ourselves.
    #[must_use]
    pub fn with_forwarding(self, config: &ForwardConfig, hostname: &str) -> Self {
        Self { forwarding: Some(Forwarding::new(config, hostname)), ..self }
    }

    /// Where recipients' mail goes at the moment.
    pub(crate) fn routing(&self) -> Arc<Routing> {
        self.routes.current()
    }

    /// Where recipients' mail goes, now and later.
    pub(crate) fn routes(&self) -> Routes {
        self.routes.clone()
    }

    /// Sends mail elsewhere from now on. A message whose sender has begun keeps to what held then.
    pub fn replace_routing(&self, routing: Routing) {
        self.routes.replace(routing);
    }

    /// Asks of senders from now on what `accounts` want.
    pub fn replace_sender_policies(&self, accounts: &[Account]) {
        self.authenticator.replace_policies(accounts);
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
        let examined = match self.examine(&mail).await {
            Ok(examined) => examined,
            Err(outcome) => return outcome,
        };
        let verdicts = self.authenticator.verdicts(&mail, examined.authentication.as_ref());
        if let Some(refusal) = refused_for_all(&verdicts) {
            self.authenticator.count(Verdict::Refuse(refusal));
            return Outcome::Refused(refusal);
        }
        let letter = match self.letter(mail, examined, &verdicts) {
            Ok(letter) => letter,
            Err(outcome) => return outcome,
        };
        let outcome = delivery::commit(self, letter).await;
        self.count_marked(&verdicts, &vec![outcome; verdicts.len()]);
        outcome
    }

    /// Commits one message, with an answer for each of its recipients, in their order.
    ///
    /// # Cancel safety
    /// As [`Intake::take`].
    pub(crate) async fn take_each(&self, mut mail: Mail) -> Vec<Outcome> {
        let examined = match self.examine(&mail).await {
            Ok(examined) => examined,
            Err(outcome) => return vec![outcome; mail.recipients.len()],
        };
        let verdicts = self.authenticator.verdicts(&mail, examined.authentication.as_ref());
        let is_taken = |verdict: &Verdict| !matches!(verdict, Verdict::Refuse(_));
        let taken: Vec<Verdict> = verdicts.iter().copied().filter(is_taken).collect();
        let mut verdict = verdicts.iter();
        mail.recipients.retain(|_| verdict.next().is_some_and(is_taken));
        let outcomes = match self.letter(mail, examined, &taken) {
            _ if taken.is_empty() => Vec::new(),
            Ok(letter) => delivery::commit_each(self, letter).await,
            Err(outcome) => vec![outcome; taken.len()],
        };
        self.count_marked(&taken, &outcomes);
        let mut outcomes = outcomes.into_iter();
        let outcome = |verdict: &Verdict| match verdict {
            Verdict::Refuse(refusal) => {
                self.authenticator.count(*verdict);
                Outcome::Refused(*refusal)
            }
            _ => outcomes.next().unwrap_or(Outcome::Failed),
        };
        verdicts.iter().map(outcome).collect()
    }

    /// Reads a message and finds out what is known of it; else says what its sender is told.
    async fn examine(&self, mail: &Mail) -> Result<Examined, Outcome> {
        let unreadable = |err| {
            let queue_id = mail.queue_id;
            warn!(%queue_id, error = %err, "message not read back from the spool, its sender tries again later");
            Outcome::Failed
        };
        debug!(queue_id = %mail.queue_id, size = mail.message.len(), client = ?mail.client, "message handed over");
        let octets = mail.message.whole().await.map_err(unreadable)?;
        let trace = trace(&octets);
        let received = trace.received;
        if received > self.received_max {
            // Whoever sends it on gets the bounce; anybody can send one, so the log does not fill with them.
            debug!(queue_id = %mail.queue_id, received, max = self.received_max, "mail loop, message refused");
            return Err(Outcome::Loop);
        }
        let (octets, authentication) =
            self.authenticator.examine(mail, octets, &self.parsing).await.map_err(unreadable)?;
        Ok(Examined { octets, trace, authentication })
    }

    /// What is to be committed of a message; else what its sender is told of all recipients.
    fn letter(&self, mail: Mail, examined: Examined, verdicts: &[Verdict]) -> Result<Letter, Outcome> {
        let Examined { octets, trace, authentication } = examined;
        let forwards: Vec<Forward> =
            mail.recipients.iter().map(|to| Forward::of(to, self.forwarding.as_ref(), &trace)).collect();
        if forwards.iter().all(|forward| matches!(forward, Forward::Loop)) {
            debug!(queue_id = %mail.queue_id, "mail loop, the message was forwarded from here before");
            return Err(Outcome::Loop);
        }
        // Who would refuse it, and cannot be answered alone, gets it marked.
        let suspicious: Vec<bool> = verdicts.iter().map(|verdict| *verdict != Verdict::Accept).collect();
        Ok(Letter { mail, found: Found { octets: octets.into_bytes(), authentication, suspicious, forwards } })
    }

    /// Counts those recipients who got the message marked.
    fn count_marked(&self, verdicts: &[Verdict], outcomes: &[Outcome]) {
        let is_marked =
            |(verdict, outcome): (&Verdict, &Outcome)| *verdict != Verdict::Accept && *outcome == Outcome::Committed;
        let marked = verdicts.iter().zip(outcomes).filter(|&both| is_marked(both));
        marked.for_each(|_| self.authenticator.count(Verdict::Mark));
    }
}

/// A message that was read, and what is known of it.
struct Examined {
    octets: Whole,
    /// Where it has been.
    trace: Trace,
    /// Who sent it, as far as that is known.
    authentication: Option<Authentication>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_log::EventLogConfig;
    use crate::metrics::Metrics;

    #[test]
    fn only_what_was_stored_counts_as_marked() {
        let folder = tempfile::tempdir().unwrap();
        let event_log = EventLog::open(folder.path(), &EventLogConfig::default()).unwrap();
        let metrics = Metrics::default();
        let authenticator = Authenticator::new(&MessageAuthenticationConfig::default(), &[], &metrics).unwrap();
        let intake =
            Intake::new(Routing::default(), event_log, Duration::from_secs(5)).with_authenticator(authenticator);
        let verdicts = [Verdict::Mark, Verdict::Mark, Verdict::Accept, Verdict::Refuse(Refusal::DmarcFail)];
        let outcomes = [Outcome::Failed, Outcome::Committed, Outcome::Committed, Outcome::Committed];
        intake.count_marked(&verdicts, &outcomes);
        let told = metrics.encoded().unwrap();
        assert!(told.contains("postrider_mail_verdicts_total{result=\"marked\"} 2\n"), "{told}");
    }
}
