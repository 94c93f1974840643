//! Runs the sessions of all listeners, within bounds, and ends them in order when postrider stops.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, debug_span, error, info, warn};

use super::config::{SmtpConfig, TlsMode};
use super::connection::{Connection, Shutdown};
use super::holding::Room;
use super::listener::{Accept, Listener, Remote, Stream, peek, read_proxy_header, say_at_once};
use super::logins::Logins;
use super::metrics::SmtpMetrics;
use super::patience::Patience;
use super::places::Addresses;
use super::proxy_header::Source;
use super::rate::MessageRate;
use super::session::{Policy, Role};
use super::users::Users;
use crate::auth::SigningKey;
use crate::metrics::Metrics;
use crate::source::intake::{Client, Intake, Peer};
use crate::source::networks::Networks;

/// Time for the last 421 when the grace is over, and for the event log to answer what it was asked.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A proxy's header comes with the connection; one that was lost on the way is sent again after three seconds.
const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything that sessions share.
#[derive(Debug)]
pub struct Receiver {
    pub(super) config: SmtpConfig,
    pub(super) intake: Intake,
    pub(super) room: Room,
    pub(super) metrics: SmtpMetrics,
    /// Without it, nobody can log in.
    pub(super) logins: Option<Logins>,
    addresses: Addresses,
    patience: Patience,
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
        Self { config, intake, room, metrics, logins: None, addresses, patience: Patience::default(), slots }
    }

    /// Lets users log in on listeners for submission, and the bearers of tokens that `key` has signed.
    #[must_use]
    pub fn with_users(mut self, users: Users, key: Option<Arc<SigningKey>>) -> Self {
        self.logins = Some(Logins::new(users, key, &self.config));
        self
    }

    fn users(&self) -> Option<Arc<Users>> {
        self.logins.as_ref().map(|logins| Arc::clone(&logins.users))
    }

    /// What holds for the sessions of a listener.
    pub(super) fn policy(&self, listener: &Listener) -> Policy {
        let Listener { settings, tls, .. } = listener;
        Policy {
            role: settings.role,
            hostname: self.config.announced_name(),
            tls: settings.tls,
            certificate: tls.clone(),
            rate: settings.limits.messages_per_minute_max.map(MessageRate::new).map(Mutex::new),
            users: self.users().filter(|_| settings.role == Role::Submission),
            limits: settings.limits.clone(),
            xclient_from: settings.xclient_from.clone(),
            verify: settings.verify,
            routes: self.intake.routes(),
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
    let entrance = Arc::new(Entrance::of(&listener, &receiver));
    let mut accept = Accept::new(listener, Arc::clone(&receiver.slots));
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.stop.cancelled() => break,
            Some(ended) = sessions.join_next() => report(ended),
            (stream, remote, slot) = accept.next() => {
                let session = session(stream, remote, Arc::clone(&receiver), Arc::clone(&entrance), shutdown.clone());
                sessions.spawn(async move {
                    session.await;
                    drop(slot);
                });
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

/// What a listener's sessions share.
#[derive(Debug)]
struct Entrance {
    policy: Policy,
    addresses: Addresses,
    /// Who passes on the connections of others, and says so before anything else.
    proxies: Networks,
}

impl Entrance {
    fn of(listener: &Listener, receiver: &Receiver) -> Self {
        let policy = receiver.policy(listener);
        let own = policy.limits.sessions_per_address_max;
        let addresses = own.map_or_else(|| receiver.addresses.clone(), Addresses::new);
        Self { policy, addresses, proxies: listener.settings.proxy_protocol_from.clone() }
    }
}

async fn session(
    mut stream: Stream,
    remote: Remote,
    receiver: Arc<Receiver>,
    entrance: Arc<Entrance>,
    shutdown: Shutdown,
) {
    let mut client = Client::at(remote.address.map(|address| address.ip().to_canonical()), remote.peer);
    if client.is_in(&entrance.proxies) {
        // On the heap, so that no session is larger for the rest of its life.
        let header = Box::pin(read_proxy_header(&mut stream));
        let header = tokio::select! {
            () = shutdown.stop.cancelled() => return,
            header = timeout(PROXY_HEADER_TIMEOUT, header) => header,
        };
        match header.map_err(io::Error::from).flatten() {
            Ok(source) => tell(source, &mut client),
            Err(err) => {
                // Either the proxy is not set up, or its address should not be listed: somebody waits for mail.
                warn!(proxy.address = client.address.map(tracing::field::display), error = %err,
                    "no PROXY protocol header from an address in `proxy_protocol_from`, connection closed");
                return;
            }
        }
    }
    let span = debug_span!("smtp.session", client.address = client.address.map(tracing::field::display));
    let mut seat = entrance.addresses.seat();
    if !seat.take(client.address) {
        span.in_scope(|| refuse(stream, &receiver, &entrance.policy));
        return;
    }
    // Programs on this machine may come as often as they like, and so may who passes on the mail of others.
    let is_stranger = client.peer == Peer::Remote && !client.is_in(&entrance.policy.xclient_from);
    let address = client.address.filter(|_| is_stranger);
    if let Some(pause) = address.and_then(|address| receiver.patience.pause(address, Instant::now())) {
        receiver.metrics.sessions_paused.inc();
        let waiting = waits(&stream, pause, &entrance.policy, &shutdown).instrument(span.clone());
        if !Box::pin(waiting).await {
            return;
        }
    }
    receiver.metrics.sessions.inc();
    let session = Connection::new(stream, client, seat, &receiver, &entrance.policy, &shutdown);
    let has_brought_mail = session.run().instrument(span).await;
    receiver.metrics.sessions_ended.inc();
    if let Some(address) = address {
        receiver.patience.ended(address, has_brought_mail, Instant::now());
    }
}

/// Lets a client wait for the greeting; says whether it has.
async fn waits(stream: &Stream, pause: Duration, policy: &Policy, shutdown: &Shutdown) -> bool {
    // Who began together does not go on together.
    let pause = sleep(pause.mul_f64(1.0 + rand::random::<f64>()));
    tokio::pin!(pause);
    let is_there = tokio::select! {
        () = shutdown.stop.cancelled() => return false,
        () = &mut pause => return true,
        is_there = has_not_waited(stream, policy) => is_there,
    };
    debug!("client did not wait for the greeting, connection closed");
    if is_there {
        // Closed at once, it would be here again at once.
        tokio::select! {
            () = shutdown.stop.cancelled() => {}
            () = pause => {}
        }
    }
    false
}

/// Returns when the client has hung up, or has spoken where it has to wait for the greeting (RFC 5321 §3.1); says whether
/// it is still there.
async fn has_not_waited(stream: &Stream, policy: &Policy) -> bool {
    if policy.tls == TlsMode::Implicit {
        return std::future::pending().await; // Here the client speaks first.
    }
    // An error is an end, too; what it was does not matter.
    peek(stream, &mut [0]).await.is_ok_and(|octets| octets > 0)
}

/// Makes `client` what a proxy says of it. Only the proxy itself may be on this machine.
fn tell(source: Source, client: &mut Client) {
    match source {
        Source::Proxy => {}
        Source::Unknown => *client = Client::at(None, Peer::Remote),
        Source::Client(address) => *client = Client::at(Some(address.ip()), Peer::Remote),
    }
}

/// Tells a client without waiting for it that its address has too many sessions.
fn refuse(stream: Stream, receiver: &Receiver, policy: &Policy) {
    receiver.metrics.sessions_refused.inc();
    debug!("too many sessions from this address");
    if policy.tls == TlsMode::Implicit {
        return; // What comes in the clear is an error to the client, whatever it says.
    }
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
