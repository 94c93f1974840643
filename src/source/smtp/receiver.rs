//! Runs the sessions of all listeners, within bounds, and ends them in order when postrider stops.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, debug_span, error, info, warn};

use super::config::SmtpConfig;
use super::connection::{Connection, Shutdown};
use super::holding::Room;
use super::listener::{Accept, Listener, Remote, Stream, say_at_once};
use super::metrics::SmtpMetrics;
use super::places::{Addresses, Place};
use super::session::{Policy, Role};
use crate::metrics::Metrics;
use crate::source::intake::{Client, Intake};

/// Time for the last 421 when the grace is over, and for the event log to answer what it was asked.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Everything that sessions share.
#[derive(Debug)]
pub struct Receiver {
    pub(super) config: SmtpConfig,
    pub(super) intake: Intake,
    pub(super) room: Room,
    pub(super) metrics: SmtpMetrics,
    addresses: Addresses,
    /// For sessions at the same time.
    slots: Arc<Semaphore>,
}

impl Receiver {
    /// A receiver that hands mail to `intake`, and whose numbers `metrics` tells. The caller has checked `config`.
    pub fn new(config: SmtpConfig, intake: Intake, metrics: &Metrics) -> Self {
        let room = Room::new(&config, intake.spool().clone());
        let addresses = Addresses::new(config.sessions_per_address_max.get());
        // A semaphore that could not be that large would panic.
        let slots = Arc::new(Semaphore::new(config.sessions_max.get().min(Semaphore::MAX_PERMITS)));
        let metrics = SmtpMetrics::registered(metrics);
        Self { config, intake, room, metrics, addresses, slots }
    }

    /// What holds for the sessions of a listener.
    pub(super) fn policy(&self, role: Role) -> Policy {
        Policy {
            role,
            hostname: self.config.announced_name(),
            message_bytes_max: self.config.message_bytes_max.get(),
            recipients_max: self.config.recipients_max.get(),
            routing: self.intake.routing(),
        }
    }
}

/// Receives mail on all of `listeners` until `stop` is cancelled, and returns when the last session is over.
///
/// At `stop` no connection is accepted any more, and sessions without a message on its way end with 421 4.3.2. Messages
/// that are on their way may complete within `grace`. The event log has to be open until this returns, which is five
/// seconds after the grace at the latest.
///
/// # Cancel safety
/// Dropping the future cuts all sessions off where they are; what was answered with 250 is committed.
pub async fn serve(listeners: Vec<Listener>, receiver: Receiver, grace: Duration, stop: CancellationToken) {
    let receiver = Arc::new(receiver);
    let serving = listeners.into_iter().map(|listener| listen(listener, Arc::clone(&receiver), grace, stop.clone()));
    join_all(serving).await;
    info!("mail receiver stopped");
}

async fn listen(listener: Listener, receiver: Arc<Receiver>, grace: Duration, stop: CancellationToken) {
    let shutdown = Shutdown { stop, now: CancellationToken::new() };
    let policy = Arc::new(receiver.policy(listener.role));
    let mut accept = Accept::new(listener, Arc::clone(&receiver.slots));
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.stop.cancelled() => break,
            Some(ended) = sessions.join_next() => report(ended),
            (stream, remote, slot) = accept.next() => match receiver.place_for(remote) {
                Ok(place) => {
                    let session = session(stream, remote, Arc::clone(&receiver), Arc::clone(&policy), shutdown.clone());
                    sessions.spawn(async move {
                        session.await;
                        drop((slot, place));
                    });
                }
                Err(TooMany) => refuse(stream, remote, &receiver, &policy),
            }
        }
    }
    drop(accept); // New connections go to another node while the open ones finish.
    if timeout(grace, drain(&mut sessions)).await.is_err() {
        warn!(open = sessions.len(), ?grace, "grace period over, closing the rest");
        shutdown.now.cancel();
        if timeout(LAST_WORDS, drain(&mut sessions)).await.is_err() {
            sessions.shutdown().await;
        }
    }
}

/// A client's address has too many sessions.
struct TooMany;

impl Receiver {
    /// A place for one more session of the client's address; a Unix socket has none, and no such limit.
    fn place_for(&self, remote: Remote) -> Result<Option<Place>, TooMany> {
        let Some(address) = remote.address else { return Ok(None) };
        self.addresses.enter(address.ip()).map(Some).ok_or(TooMany)
    }
}

async fn session(stream: Stream, remote: Remote, receiver: Arc<Receiver>, policy: Arc<Policy>, shutdown: Shutdown) {
    receiver.metrics.sessions.inc();
    let span = debug_span!("smtp.session", client.address = remote.address.map(tracing::field::display));
    let client = Client::at(remote.address.map(|address| address.ip().to_canonical()), remote.peer);
    Connection::new(stream, client, &receiver, &policy, &shutdown).run().instrument(span).await;
    receiver.metrics.sessions_ended.inc();
}

/// Tells a client without waiting for it that its address has too many sessions.
fn refuse(stream: Stream, remote: Remote, receiver: &Receiver, policy: &Policy) {
    receiver.metrics.sessions_refused.inc();
    debug!(client.address = remote.address.map(tracing::field::display), "too many sessions from this address");
    say_at_once(stream, &format!("421 4.7.0 {} Too many sessions from your address\r\n", policy.hostname));
}

async fn drain(sessions: &mut JoinSet<()>) {
    while let Some(ended) = sessions.join_next().await {
        report(ended);
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(err) = ended {
        error!(error = %err, "an SMTP session failed; please report this as a bug");
    }
}
