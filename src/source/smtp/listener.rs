//! Accepts connections, within bounds, and ends them in order when postrider stops.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, debug_span, error, info, warn};

use super::budget::MemoryBudget;
use super::config::SmtpConfig;
use super::connection::{Connection, Shutdown};
use super::metrics::SmtpMetrics;
use super::routing::{Peer, Routing};
use super::session::{Policy, Role};
use crate::event_log::EventLog;
use crate::metrics::Metrics;

/// First and longest pause after accepting failed: there are no file descriptors left, and trying at once again would
/// only burn the processor.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Time for the last 421 when the grace is over, and for the event log to answer what it was asked.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Everything that sessions share.
#[derive(Debug)]
pub struct Receiver {
    pub(super) config: SmtpConfig,
    pub(super) policy: Policy,
    pub(super) event_log: EventLog,
    pub(super) budget: Arc<MemoryBudget>,
    pub(super) metrics: SmtpMetrics,
}

impl Receiver {
    /// A receiver that commits to `event_log`, and whose numbers `metrics` tells. The caller has checked `config`.
    pub fn new(config: SmtpConfig, routing: Routing, event_log: EventLog, metrics: &Metrics) -> Self {
        let policy = Policy {
            hostname: config.announced_name(),
            message_bytes_max: config.message_bytes_max.get(),
            recipients_max: config.recipients_max.get(),
            routing: Arc::new(routing),
            role: Role::Smtp,
        };
        let budget = MemoryBudget::new(config.memory_bytes_max.get());
        Self { config, policy, event_log, budget, metrics: SmtpMetrics::registered(metrics) }
    }
}

/// Receives mail on `listener` until `stop` is cancelled, and returns when the last session is over.
///
/// At `stop` no connection is accepted any more, and sessions without a message on its way end with 421 4.3.2. Messages
/// that are on their way may complete within `grace`. The event log has to be open until this returns, which is five
/// seconds after the grace at the latest.
///
/// # Cancel safety
/// Dropping the future cuts all sessions off where they are; what was answered with 250 is committed.
pub async fn serve(listener: TcpListener, receiver: Receiver, grace: Duration, stop: CancellationToken) {
    let shutdown = Shutdown { stop, now: CancellationToken::new() };
    let receiver = Arc::new(receiver);
    let addresses = Addresses::new(receiver.config.sessions_per_address_max.get());
    let mut accept = Accept::new(listener, receiver.config.sessions_max.get());
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.stop.cancelled() => break,
            Some(ended) = sessions.join_next() => report(ended),
            (stream, address, slot) = accept.next() => match addresses.enter(address.ip()) {
                Some(place) => {
                    let session = session(stream, address, Arc::clone(&receiver), shutdown.clone());
                    sessions.spawn(async move {
                        session.await;
                        drop((slot, place));
                    });
                }
                None => refuse(stream, address, &receiver),
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
    info!("SMTP receiver stopped");
}

async fn session(stream: TcpStream, address: SocketAddr, receiver: Arc<Receiver>, shutdown: Shutdown) {
    let peer = if address.ip().to_canonical().is_loopback() { Peer::Loopback } else { Peer::Remote };
    receiver.metrics.sessions.inc();
    // Replies are written whole: waiting for more of them would only delay the client's next command.
    if let Err(err) = stream.set_nodelay(true) {
        debug!(error = %err, "connection lost before the greeting");
    } else {
        let span = debug_span!("smtp.session", client.address = %address);
        Connection::new(stream, peer, &receiver, &shutdown).run().instrument(span).await;
    }
    receiver.metrics.sessions_ended.inc();
}

/// Tells a client without waiting for it that its address has too many sessions.
fn refuse(stream: TcpStream, address: SocketAddr, receiver: &Receiver) {
    receiver.metrics.sessions_refused.inc();
    debug!(client.address = %address, "too many sessions from this address");
    let text = format!("421 4.7.0 {} Too many sessions from your address\r\n", receiver.policy.hostname);
    // The socket's buffer is empty: this does not block, and who is gone already misses nothing.
    drop(stream.into_std().and_then(|mut stream| stream.write_all(text.as_bytes())));
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

/// Takes connections, each with a free slot.
struct Accept {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    pause: Duration,
}

impl Accept {
    fn new(listener: TcpListener, sessions_max: usize) -> Self {
        // A semaphore that could not be that large would panic.
        let slots = Arc::new(Semaphore::new(sessions_max.min(Semaphore::MAX_PERMITS)));
        Self { listener, slots, pause: Duration::ZERO }
    }

    /// The next connection. The slot comes first, so that clients beyond the limit wait in the kernel's queue. Cancel
    /// safe: a connection is not lost, and a pause that was cut short begins anew.
    async fn next(&mut self) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
        let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
            // Nobody closes the semaphore.
            return std::future::pending().await;
        };
        loop {
            if !self.pause.is_zero() {
                tokio::time::sleep(self.pause).await;
            }
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    self.pause = Duration::ZERO;
                    return (stream, address, slot);
                }
                Err(err) if is_of_the_connection(&err) => {
                    debug!(error = %err, "connection lost before it was accepted");
                }
                Err(err) => {
                    let (first, longest) = ACCEPT_PAUSE;
                    self.pause = (self.pause * 2).clamp(first, longest);
                    warn!(error = %err, retry_in = ?self.pause, "cannot accept SMTP connections");
                }
            }
        }
    }
}

/// Errors of a connection that ended before it was accepted; the next may be fine (accept(2)).
fn is_of_the_connection(err: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(err.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// How many sessions each address has.
#[derive(Clone)]
struct Addresses {
    sessions_max: usize,
    sessions: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One session's place; left when dropped.
struct Place {
    addresses: Addresses,
    network: IpAddr,
}

impl Addresses {
    fn new(sessions_max: usize) -> Self {
        Self { sessions_max, sessions: Arc::default() }
    }

    /// A place for one more session, if the address has not too many.
    fn enter(&self, address: IpAddr) -> Option<Place> {
        let network = network_of(address);
        let mut sessions = self.lock();
        let count = sessions.entry(network).or_default();
        if *count >= self.sessions_max {
            return None;
        }
        *count += 1;
        Some(Place { addresses: self.clone(), network })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Nothing can panic between two counts that belong together.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut sessions = self.addresses.lock();
        match sessions.get_mut(&self.network) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(sessions.remove(&self.network)),
        }
    }
}

/// What one client can choose addresses from: with IPv6 it has a /64 network at least (RFC 6177 §2).
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_so_many_places() {
        let addresses = Addresses::new(2);
        let [one, other]: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        let first = addresses.enter(one);
        let second = addresses.enter("::ffff:192.0.2.1".parse().unwrap());
        assert!(first.is_some() && second.is_some());
        assert!(addresses.enter(one).is_none() && addresses.enter(other).is_some());
        drop(first);
        assert!(addresses.enter(one).is_some());
        drop(second);
        assert!(addresses.lock().is_empty(), "who is gone leaves nothing behind");
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let network = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), network("2001:db8:1:2::1"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
    }
}
