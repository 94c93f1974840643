//! A session's socket: reads, writes, waits, and carries out what the session decides.
//!
//! The session itself is pure (`session`); here are the deadlines, the event log and the signals of shutdown. An idle
//! session holds no read buffer: bytes are taken in from a buffer of the runtime's thread in the moment in which they
//! arrive, and only what follows a message that is being committed is kept.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{MutexGuard, PoisonError};
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::channel::Channel;
use super::config::TlsMode;
use super::deadline::Deadline;
use super::holding::{HoldError, Holding, READ_BYTES};
use super::places::Seat;
use super::rate::MessageRate;
use super::receiver::Receiver;
use super::sasl::{Attempt, Verdict};
use super::session::{Next, Policy, Session, Transaction};
use crate::source::intake::{Client, Examine, Mail, Outcome, QueueId};

/// How long a line that ended with LF alone waits for its other half, which a packet may have cut off.
const BARE_LF_WAIT: Duration = Duration::from_secs(1);
/// Longest TLS handshake: it takes a client two answers, and keeps a slot.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long, and how much, a client that was hung up on is listened to: unread input would turn the close into a reset,
/// which destroys the reply that says why.
const LINGER: (Duration, u64) = (Duration::from_secs(1), 4 * 1024 * 1024);
/// Replies of a pipelining client may have grown the buffer; an idle session keeps no more than this.
const REPLY_BYTES_KEPT: usize = 1024;

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The two signals of shutdown.
#[derive(Debug, Clone)]
pub(super) struct Shutdown {
    /// Begin nothing new: a session without a message on its way ends.
    pub stop: CancellationToken,
    /// The grace is over: every session ends that is not being committed.
    pub now: CancellationToken,
}

/// One client's connection.
pub(super) struct Connection<'a, S> {
    receiver: &'a Receiver,
    policy: &'a Policy,
    shutdown: &'a Shutdown,
    stream: Channel<S>,
    session: Session<'a>,
    /// Where it counts as its address's.
    seat: Seat,
    deadline: Deadline,
    holding: Holding,
    /// Replies that are not written yet.
    out: Vec<u8>,
    /// Input that came together with the end of a message.
    rest: Bytes,
    /// Octets that were taken in since other sessions had their turn.
    in_turn: usize,
    /// Whether a message was committed.
    has_brought_mail: bool,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Connection<'a, S> {
    pub(super) fn new(
        stream: S,
        client: Client,
        seat: Seat,
        receiver: &'a Receiver,
        policy: &'a Policy,
        shutdown: &'a Shutdown,
    ) -> Self {
        let limits = &policy.limits;
        Self {
            receiver,
            policy,
            shutdown,
            stream: Channel::Plain(stream),
            session: Session::new(policy, client),
            seat,
            deadline: Deadline::new(limits.command_timeout, limits.data_bytes_per_second_min, Instant::now()),
            holding: receiver.room.holding(),
            out: Vec::new(),
            rest: Bytes::new(),
            in_turn: 0,
            has_brought_mail: false,
        }
    }

    /// The whole session; whether a message was taken. A connection that breaks is a session's ordinary end.
    pub(super) async fn run(mut self) -> bool {
        match self.dialogue().await {
            Ok(()) => debug!(commands = self.session.commands(), "session ended"),
            Err(err) => debug!(error = %err, commands = self.session.commands(), "connection lost"),
        }
        self.receiver.metrics.errors.inc_by(self.session.errors_total().into());
        self.has_brought_mail
    }

    async fn dialogue(&mut self) -> io::Result<()> {
        if self.policy.tls == TlsMode::Implicit {
            self.start_tls().await?;
        }
        self.session.greet(&mut self.out);
        loop {
            let mut next = if self.rest.is_empty() {
                // The input has run dry: now all replies to it go out in one write (RFC 2920 §3.2).
                self.flush().await?;
                match self.wait().await? {
                    Some(next) => next,
                    None => return Ok(()),
                }
            } else {
                let rest = std::mem::take(&mut self.rest);
                self.take_in(rest)
            };
            match next {
                // On the heap: what it needs is not what an idle session should have room for.
                Next::Deliver(transaction) => next = Box::pin(self.deliver(transaction)).await,
                Next::Verify(attempt) => next = self.verify(*attempt).await,
                Next::NewClient => next = self.new_client(),
                _ => self.hold().await,
            }
            if self.in_turn >= READ_BYTES {
                self.in_turn = 0;
                // Who sends as fast as it can always has more to read; the others have something to say, too.
                yield_now().await;
            }
            match next {
                Next::Read | Next::Deliver(_) | Next::Verify(_) | Next::NewClient => {}
                Next::StartTls => {
                    self.flush().await?;
                    self.start_tls().await?;
                }
                Next::Quit => {
                    self.flush().await?;
                    return self.stream.shutdown().await;
                }
                Next::HangUp => {
                    self.flush().await?;
                    return self.hang_up().await;
                }
            }
        }
    }

    /// A proxy has introduced another client: the session is that client's now.
    fn new_client(&mut self) -> Next {
        let address = self.session.client().address;
        debug!(client.address = address.map(tracing::field::display), "client introduced by XCLIENT");
        if self.seat.take(address) {
            self.session.greet(&mut self.out);
            return Next::Read;
        }
        self.receiver.metrics.sessions_refused.inc();
        self.session.refuse_client(&mut self.out)
    }

    /// Does the TLS handshake. When it fails, nothing can be said any more.
    async fn start_tls(&mut self) -> io::Result<()> {
        let Some(tls) = &self.policy.certificate else { return Err(io::ErrorKind::Unsupported.into()) };
        let acceptor = tls.acceptor().await;
        let limit = HANDSHAKE_TIMEOUT.min(self.policy.limits.command_timeout);
        // Boxed, so that no session is larger for the rest of its life.
        let handshake = timeout(limit, Box::pin(self.stream.start_tls(acceptor)));
        let done = tokio::select! {
            () = self.shutdown.stop.cancelled() => return Err(io::ErrorKind::Interrupted.into()),
            done = handshake => done.map_err(io::Error::from).flatten(),
        };
        let metrics = &self.receiver.metrics;
        let counter = if done.is_ok() { &metrics.tls_handshakes } else { &metrics.tls_failures };
        counter.inc();
        done?;
        self.session.tls_started();
        self.deadline.restart(Instant::now());
        Ok(())
    }

    /// Finds out whether the client is who it says, which may take its time.
    async fn verify(&mut self, attempt: Attempt) -> Next {
        let Receiver { logins, metrics, .. } = self.receiver;
        let judging = async {
            match logins {
                Some(logins) => logins.judge(attempt, self.session.client().address, metrics).await,
                None => Verdict::Unavailable,
            }
        };
        let verdict = tokio::select! {
            () = self.shutdown.stop.cancelled() => return self.session.shut_down(&mut self.out),
            // Boxed, so that no session is larger for the rest of its life.
            verdict = Box::pin(judging) => verdict,
        };
        if let Verdict::Granted(identity) = &verdict {
            self.deadline.end_at(identity.expires_at());
        }
        self.deadline.restart(Instant::now());
        self.session.verified(verdict, &mut self.out)
    }

    /// Waits for input and lets the session have it; none at the end of the connection.
    async fn wait(&mut self) -> io::Result<Option<Next>> {
        let Shutdown { stop, now } = self.shutdown;
        let in_data = self.session.in_data();
        let deadline = self.deadline.at(self.session.data_received());
        let stalled = self.session.waits_behind_bare_lf().then(|| Instant::now() + BARE_LF_WAIT);
        let wake_at = stalled.map_or(deadline, |stalled| stalled.min(deadline));
        // Who always has something to read would never be late.
        if deadline <= Instant::now() {
            return Ok(Some(self.late()));
        }
        // Never `now` without `stop` before it.
        let end = if in_data { now } else { stop };
        tokio::select! {
            biased;
            () = end.cancelled() => Ok(Some(self.session.shut_down(&mut self.out))),
            read = timeout_at(wake_at, self.read()) => match read {
                Ok(read) => read,
                Err(_) if wake_at < deadline => Ok(Some(self.session.end_stalled_line(&mut self.out))),
                Err(_) => Ok(Some(self.late())),
            },
        }
    }

    fn late(&mut self) -> Next {
        self.receiver.metrics.timeouts.inc();
        self.session.time_out(&mut self.out)
    }

    /// Reads once. Cancel safe: what was read is taken in before anybody else gets to run.
    async fn read(&mut self) -> io::Result<Option<Next>> {
        poll_fn(|cx| {
            READ_BUFFER.with_borrow_mut(|buffer| {
                buffer.resize(READ_BYTES, 0);
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
                let input = buffer.filled();
                Poll::Ready(Ok((!input.is_empty()).then(|| self.take_in(input))))
            })
        })
        .await
    }

    /// Hands input to the session and keeps what it does not take yet.
    fn take_in(&mut self, input: impl Input) -> Next {
        if let Some((rate, address)) = self.rate() {
            self.session.throttle(rate.is_exceeded(address, Instant::now()));
        }
        let (used, next) = self.session.receive(input.as_ref(), &mut self.out);
        self.rest = input.into_rest(used);
        self.in_turn = self.in_turn.saturating_add(used);
        self.deadline.advance(self.session.commands(), Instant::now());
        next
    }

    /// The messages of the client's address, if they are counted.
    fn rate(&self) -> Option<(MutexGuard<'a, MessageRate>, IpAddr)> {
        let address = self.session.client().address?;
        let rate = self.policy.rate.as_ref()?;
        Some((rate.lock().unwrap_or_else(PoisonError::into_inner), address))
    }

    /// Takes what the session has of a message, if that is too much to be left to it.
    async fn hold(&mut self) {
        let (handed_out, len, capacity) = self.session.data_held();
        if self.holding.may_keep(handed_out, len, capacity) {
            return;
        }
        let block = self.session.take_block();
        if let Err(err) = self.holding.write(block).await {
            self.not_held(&err);
            self.session.give_up_data(err.outcome());
        }
    }

    fn not_held(&mut self, err: &HoldError) {
        warn!(error = err as &dyn std::error::Error, "message not kept, its sender tries again later");
        self.holding.clear();
        self.receiver.metrics.messages_failed.inc();
    }

    async fn deliver(&mut self, transaction: Transaction) -> Next {
        let Transaction { from, recipients, message } = transaction;
        let Receiver { intake, metrics, .. } = self.receiver;
        let queue_id = QueueId::new();
        let outcomes = match self.holding.complete(message).await {
            Ok(message) => {
                let (origin, client, bytes) = (self.policy.role.origin(), self.session.client().clone(), message.len());
                let is_final_delivery = self.policy.role.replies_for_each();
                let examine = Examine::of(&client, self.policy.verify, is_final_delivery);
                let mail = Mail { origin, queue_id, client, examine, from, recipients, message };
                let outcomes =
                    if is_final_delivery { intake.take_each(mail).await } else { vec![intake.take(mail).await] };
                self.holding.clear();
                if outcomes.contains(&Outcome::Committed) {
                    if let Some((mut rate, address)) = self.rate() {
                        rate.count(address, Instant::now());
                    }
                    metrics.messages.inc();
                    self.has_brought_mail = true;
                    metrics.message_octets.inc_by(bytes as u64);
                } else if !outcomes.iter().all(|outcome| matches!(outcome, Outcome::Refused(_))) {
                    metrics.messages_failed.inc();
                }
                outcomes
            }
            Err(err) => {
                self.not_held(&err);
                vec![err.outcome()]
            }
        };
        self.deadline.restart(Instant::now());
        self.session.delivered(queue_id, &outcomes, &mut self.out)
    }

    /// Writes all replies, within the time that a client has to read them.
    async fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        timeout(self.policy.limits.reply_timeout, async {
            self.stream.write_all(&self.out).await?;
            self.stream.flush().await
        })
        .await??;
        self.out.clear();
        self.out.shrink_to(REPLY_BYTES_KEPT);
        Ok(())
    }

    /// Closes without losing the last reply.
    async fn hang_up(&mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        if self.shutdown.stop.is_cancelled() {
            return Ok(());
        }
        let (time, bytes) = LINGER;
        let mut rest = (&mut self.stream).take(bytes);
        // Whether the client closes, breaks off or talks on: the session is over.
        drop(timeout(time, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await);
        Ok(())
    }
}

/// Bytes of which a part may have to be kept.
trait Input: AsRef<[u8]> {
    fn into_rest(self, used: usize) -> Bytes;
}

impl Input for &[u8] {
    fn into_rest(self, used: usize) -> Bytes {
        Bytes::copy_from_slice(self.get(used..).unwrap_or_default())
    }
}

impl Input for Bytes {
    fn into_rest(mut self, used: usize) -> Bytes {
        self.advance(used);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_log::{EventLog, EventLogConfig};
    use crate::metrics::Metrics;
    use crate::source::intake::{Intake, Peer, Routing};
    use crate::source::smtp::places::Addresses;
    use crate::source::smtp::{Listener, SmtpConfig};

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_given_up_on() {
        let folder = tempfile::tempdir().unwrap();
        let event_log = EventLog::open(folder.path(), &EventLogConfig::default()).unwrap();
        let reply_timeout = Duration::from_millis(50);
        let config = SmtpConfig { listen: "127.0.0.1:0".parse().unwrap(), reply_timeout, ..SmtpConfig::default() };
        let intake = Intake::new(Routing::default(), event_log, config.append_timeout);
        let listener = Listener::bind(&config.listeners().next().unwrap()).await.unwrap();
        let receiver = Receiver::new(config, intake, &Metrics::default());
        let shutdown = Shutdown { stop: CancellationToken::new(), now: CancellationToken::new() };
        // The greeting does not fit into what the network holds for the client.
        let (_client, server) = tokio::io::duplex(8);
        let policy = receiver.policy(&listener);
        let seat = Addresses::new(1).seat();
        let client = Client::at(None, Peer::Loopback);
        let session = Connection::new(server, client, seat, &receiver, &policy, &shutdown).run();
        // What every session has, idle or not; TLS, logins and messages have their own when they come.
        assert!(std::mem::size_of_val(&session) <= 8192, "{} octets", std::mem::size_of_val(&session));
        timeout(Duration::from_secs(5), session).await.expect("the session ends by itself");
    }
}
