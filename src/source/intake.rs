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
use delivery::Found;
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

    /// Commits to `event_log` what `routing` says; gives up on a commit after `append_timeout`.
    pub fn new(routing: Routing, event_log: EventLog, append_timeout: Duration) -> Self {
        let spool = Spool::new(event_log.folder().join("spool"));
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
        self.commit(mail, examined, &verdicts).await
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
        let committed = if taken.is_empty() { Outcome::Committed } else { self.commit(mail, examined, &taken).await };
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

    async fn commit(&self, mail: Mail, examined: Examined, verdicts: &[Verdict]) -> Outcome {
        let Examined { octets, trace, authentication } = examined;
        let forwards: Result<Vec<Forward>, Outcome> =
            mail.recipients.iter().map(|to| Forward::of(to, self.forwarding.as_ref(), &trace)).collect();
        let forwards = match forwards {
            Ok(forwards) if forwards.iter().all(|forward| matches!(forward, Forward::Loop)) => {
                debug!(queue_id = %mail.queue_id, "mail loop, the message was forwarded from here before");
                return Outcome::Loop;
            }
            Ok(forwards) => forwards,
            Err(outcome) => return outcome,
        };
        // Who would refuse it, and cannot be answered alone, gets it marked.
        let suspicious: Vec<bool> = verdicts.iter().map(|verdict| *verdict != Verdict::Accept).collect();
        for _ in suspicious.iter().filter(|&&suspicious| suspicious) {
            self.authenticator.count(Verdict::Mark);
        }
        let found = Found { octets: octets.into_bytes(), authentication, suspicious, forwards };
        delivery::commit(self, mail, found).await
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
