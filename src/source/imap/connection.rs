//! One IMAP connection: sends commands, reads responses, and gives every wait a deadline.
//!
//! A command ends with its tagged OK, or it failed: a refusal, a goodbye, the end of the stream and silence are all
//! errors. What [`super::protocol`] cannot make sense of is counted and passed on as [`Response::Unreadable`]; only a
//! broken frame ends the connection.
//!
//! Ten thousand connections are silent at the same time, so that a silent one has no buffer: what arrives is read into
//! the stack, and only a response that is not whole yet is kept.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, trace};

use super::error::ImapError;
use super::metrics::METRICS;
use super::protocol::command::{self, Command, Line};
use super::protocol::{Code, Condition, FrameError, Framer, MailboxStatus, Reply, Response, parse};
use super::refusal::{During, ServerText, classify};
use super::socket::Socket;

/// Octets that are read at once: what a TLS record can hold, so that rustls has none left over.
const READ_BYTES: usize = 16 * 1024;
/// Mailboxes of which the last word is kept until somebody listens.
const ASIDES_MAX: usize = 5000;

/// A connection to a server, in whatever state.
pub(super) struct Connection {
    socket: Socket,
    framer: Framer,
    tags: u32,
    /// Goes out before the next command, in the same segment.
    queued: Line,
    /// An IDLE that was ended and not answered yet.
    ending: Option<Box<EndingIdle>>,
    unreadable: u64,
    asides: Option<Box<Asides>>,
    alert: Option<Box<Alert>>,
}

/// The last thing that the server wants its user to read.
struct Alert {
    text: ServerText,
    is_told: bool,
}

/// What a server says of mailboxes that are not open, as NOTIFY has it do (RFC 5465).
#[derive(Debug, Default)]
pub(super) struct Asides {
    /// How they are: the last word on each.
    pub statuses: Vec<MailboxStatus>,
    /// Some came, went or got another name.
    pub listed: bool,
    /// The server tells no more.
    pub overflow: bool,
}

struct EndingIdle {
    tag: String,
    answer_by: Instant,
    limit: Duration,
}

/// A command that was queued, and is to be finished.
pub(super) struct Sent {
    tag: String,
    /// What follows, each after a `+`.
    literals: std::vec::IntoIter<Line>,
}

/// How long to wait for a command's answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// What is waited for, for the error.
    pub what: &'static str,
    /// The longest silence, also between two responses.
    pub silence: Duration,
    pub during: During,
}

impl Connection {
    pub(super) fn new(socket: Socket) -> Self {
        Self {
            socket,
            framer: Framer::new(),
            tags: 0,
            queued: Line::default(),
            ending: None,
            unreadable: 0,
            asides: None,
            alert: None,
        }
    }

    /// The stream, for TLS to be put over it. What was read ahead is dropped: somebody on the way may have put
    /// commands' answers there before protection began (RFC 9051 §11.1).
    pub(super) fn into_socket(self) -> Socket {
        self.socket
    }

    /// Responses that made no sense.
    pub(super) fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// Reads one response. `deadline` is absolute, so that the caller can come back to the same wait.
    ///
    /// # Errors
    /// [`ReadError::Elapsed`] at the deadline, with nothing lost; anything else ends the connection.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped: octets that make no response yet stay in the framer.
    pub(super) async fn read_until(&mut self, deadline: Instant) -> Result<Response, ReadError> {
        let response = timeout_at(deadline, self.next_response()).await.map_err(|_| ReadError::Elapsed)?;
        response.map_err(ReadError::Lost)
    }

    async fn next_response(&mut self) -> Result<Response, ImapError> {
        loop {
            let framed = self.framer.next(|octets| (parse(octets), octets.len()));
            let broken = |limit: FrameError| ImapError::Protocol(limit.to_string());
            if let Some((response, len)) = framed.map_err(broken)? {
                self.note(&response, len);
                return Ok(response);
            }
            std::future::poll_fn(|cx| self.poll_fill(cx)).await?;
        }
    }

    /// Keeps what the server says of other mailboxes than the open one, whatever it answers at that moment.
    pub(super) fn keep_asides(&mut self) {
        self.asides.get_or_insert_default();
    }

    /// What was kept, once.
    pub(super) fn take_asides(&mut self) -> Asides {
        self.asides.as_mut().map(|asides| std::mem::take(&mut **asides)).unwrap_or_default()
    }

    /// What was said of mailboxes that came or went was the answer to a question.
    pub(super) fn drop_listed(&mut self) {
        if let Some(asides) = &mut self.asides {
            asides.listed = false;
        }
    }

    /// Whether there is something for [`Connection::take_alert`].
    pub(super) fn has_alert(&self) -> bool {
        self.alert.as_ref().is_some_and(|alert| !alert.is_told)
    }

    /// What the server wants its user to read (RFC 9051 §7.1), once for as long as it says nothing else.
    pub(super) fn take_alert(&mut self) -> Option<ServerText> {
        let alert = self.alert.as_mut().filter(|alert| !alert.is_told)?;
        alert.is_told = true;
        Some(alert.text.clone())
    }

    fn note_alert(&mut self, reply: &Reply) {
        let is_alert = matches!(&reply.code, Some(Code::Named(code)) if code == "ALERT" || code == "OVERQUOTA");
        if is_alert {
            let text = ServerText::of(reply);
            if self.alert.as_ref().is_none_or(|last| last.text != text) {
                self.alert = Some(Box::new(Alert { text, is_told: false }));
            }
        }
    }

    fn note_aside(&mut self, response: &Response) {
        let Some(asides) = &mut self.asides else { return };
        match response {
            Response::MailboxStatus(status) => {
                asides.statuses.retain(|known| known.raw_name != status.raw_name);
                if asides.statuses.len() < ASIDES_MAX {
                    asides.statuses.push((**status).clone());
                }
            }
            Response::Listed(_) => asides.listed = true,
            // The server has stopped telling (RFC 5465 §5.8).
            Response::Status(Reply { code: Some(Code::Named(code)), .. }) if code == "NOTIFICATIONOVERFLOW" => {
                asides.overflow = true;
            }
            _ => {}
        }
    }

    fn note(&mut self, response: &Response, len: usize) {
        self.note_aside(response);
        match response {
            Response::Fetch(_, message) if message.is_broken_off && message.uid.is_none() => {
                self.unreadable += 1;
                METRICS.unreadable.inc();
            }
            Response::Search(result) if result.is_broken => {
                self.unreadable += 1;
                METRICS.unreadable.inc();
            }
            Response::Unreadable => {
                self.unreadable += 1;
                METRICS.unreadable.inc();
                // Not a word of its content, which may be mail.
                debug!(octets = len, unreadable = self.unreadable, "the server sent a response that makes no sense");
            }
            Response::Status(reply) => {
                self.note_alert(reply);
                trace!(condition = ?reply.condition, code = ?reply.code, "server remark");
            }
            _ => {}
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ImapError>> {
        let mut space = [MaybeUninit::<u8>::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut space);
        match ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer)) {
            Ok(()) if buffer.filled().is_empty() => Poll::Ready(Err(ImapError::Closed)),
            Ok(()) => {
                METRICS.received_octets.inc_by(buffer.filled().len() as u64);
                self.framer.push(buffer.filled());
                Poll::Ready(Ok(()))
            }
            // TLS that ended without a goodbye.
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Err(ImapError::Closed)),
            Err(err) => Poll::Ready(Err(ImapError::Io(err))),
        }
    }

    /// Reads one response within the patience for it.
    pub(super) async fn read(&mut self, patience: Patience) -> Result<Response, ImapError> {
        match self.read_until(Instant::now() + patience.silence).await {
            Ok(response) => Ok(response),
            Err(ReadError::Elapsed) => Err(ImapError::Timeout(patience.what, patience.silence)),
            Err(ReadError::Lost(err)) => Err(err),
        }
    }

    /// Sends a command, preceded by what is queued, in one write, and returns its tag.
    pub(super) async fn send(&mut self, command: &str, limit: Duration) -> Result<String, ImapError> {
        let sent = self.queue(command);
        self.flush(limit).await?;
        Ok(sent.tag)
    }

    /// Puts a command behind what is queued; it goes out with the next one, or with [`Self::flush`]. Only the last one
    /// may have literals, for the server is asked for them by [`Self::finish`].
    pub(super) fn queue(&mut self, command: impl Into<Command>) -> Sent {
        self.tags = self.tags.wrapping_add(1);
        let tag = format!("p{}", self.tags);
        let (first, literals) = command.into().into_lines(&tag);
        command::extend(&mut self.queued, &first);
        Sent { tag, literals }
    }

    /// Sends a line that is not a command: the answer to a `+`.
    pub(super) async fn send_line(&mut self, line: &str, limit: Duration) -> Result<(), ImapError> {
        let mut octets = command::line(line.as_bytes());
        command::extend(&mut octets, b"\r\n");
        self.write(&octets, limit).await
    }

    /// Ends the IDLE with this tag: DONE goes out with the next command, whose answer may come before or after that
    /// of IDLE. Saves a round trip where it counts.
    pub(super) fn queue_done(&mut self, tag: String, limit: Duration) {
        command::extend(&mut self.queued, b"DONE\r\n");
        self.ending = Some(Box::new(EndingIdle { tag, answer_by: Instant::now() + limit, limit }));
    }

    /// Ends the IDLE with this tag, and waits for its answer.
    pub(super) async fn done(
        &mut self,
        tag: &str,
        patience: Patience,
        hear: impl FnMut(Response),
    ) -> Result<(), ImapError> {
        command::extend(&mut self.queued, b"DONE\r\n");
        self.flush(patience.silence).await?;
        let sent = Sent { tag: tag.to_owned(), literals: Vec::new().into_iter() };
        self.finish(sent, patience, hear).await.map(drop)
    }

    /// Sends what is queued, in one write.
    ///
    /// One write matters: as several small segments a command waits for the peer's delayed acknowledgement.
    pub(super) async fn flush(&mut self, limit: Duration) -> Result<(), ImapError> {
        let line = std::mem::take(&mut self.queued);
        self.write(&line, limit).await
    }

    async fn write(&mut self, octets: &[u8], limit: Duration) -> Result<(), ImapError> {
        let writing = async {
            self.socket.write_all(octets).await?;
            self.socket.flush().await
        };
        let written = timeout(limit, writing).await.map_err(|_| ImapError::Timeout("sending", limit))?;
        written.map_err(ImapError::Io)
    }

    /// Runs a command to its tagged OK, and hands every other response to `hear`.
    ///
    /// # Errors
    /// When the server refuses it, says goodbye, or is silent for too long.
    pub(super) async fn run(
        &mut self,
        command: impl Into<Command>,
        patience: Patience,
        hear: impl FnMut(Response),
    ) -> Result<Reply, ImapError> {
        let sent = self.queue(command);
        self.flush(patience.silence).await?;
        self.finish(sent, patience, hear).await
    }

    /// The same for a command that was queued and went out.
    pub(super) async fn finish(
        &mut self,
        mut sent: Sent,
        patience: Patience,
        mut hear: impl FnMut(Response),
    ) -> Result<Reply, ImapError> {
        loop {
            match (self.answer(patience).await?, sent.literals.as_slice()) {
                (Response::Tagged(tag, reply), _) if tag == sent.tag => return accepted(reply, patience),
                (Response::Continue(_), [literal, ..]) => {
                    self.write(literal, patience.silence).await?;
                    sent.literals.next();
                }
                (response, _) => hear(response),
            }
        }
    }

    /// Reads one response to a command, past that to an IDLE that is ending.
    async fn answer(&mut self, patience: Patience) -> Result<Response, ImapError> {
        loop {
            let silence_ends = Instant::now() + patience.silence;
            let (deadline, overdue) = match &self.ending {
                Some(ending) if ending.answer_by < silence_ends => {
                    (ending.answer_by, ImapError::Timeout("the end of IDLE", ending.limit))
                }
                _ => (silence_ends, ImapError::Timeout(patience.what, patience.silence)),
            };
            let response = match self.read_until(deadline).await {
                Ok(response) => response,
                Err(ReadError::Elapsed) => return Err(overdue),
                Err(ReadError::Lost(err)) => return Err(err),
            };
            match (&response, &self.ending) {
                (Response::Tagged(tag, _), Some(ending)) if *tag == ending.tag => self.ending = None,
                (Response::Status(reply), _) if reply.condition == Condition::Bye => return Err(bye(reply)),
                _ => return Ok(response),
            }
        }
    }

    /// Says goodbye, waits no longer than `limit` for the answer, and closes.
    pub(super) async fn logout(&mut self, limit: Duration) {
        let goodbye = async {
            self.send("LOGOUT", limit).await?;
            loop {
                self.read(Patience { what: "LOGOUT", silence: limit, during: During::Other }).await?;
            }
        };
        // It ends by the server closing, or by the limit; neither is worth a word.
        let farewell: Result<Result<(), ImapError>, _> = timeout(limit, goodbye).await;
        drop(farewell);
    }
}

/// Why there is no response.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The deadline came first; the connection is as good as before.
    Elapsed,
    /// The connection is of no more use.
    Lost(ImapError),
}

pub(super) fn bye(reply: &Reply) -> ImapError {
    ImapError::Bye { refusal: classify(reply, During::Other), text: ServerText::of(reply) }
}

fn accepted(reply: Reply, patience: Patience) -> Result<Reply, ImapError> {
    if reply.condition == Condition::Ok {
        return Ok(reply);
    }
    let refusal = classify(&reply, patience.during);
    Err(ImapError::Refused { command: patience.what, refusal, text: ServerText::of(&reply) })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::protocol::Capabilities;
    use super::*;

    const SOON: Duration = Duration::from_secs(10);
    const PATIENCE: Patience = Patience { what: "a test", silence: SOON, during: During::Other };

    async fn pair() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (peer, _) = listener.accept().await.unwrap();
        peer.set_nodelay(true).unwrap();
        (Connection::new(Socket::Plain(stream)), peer)
    }

    async fn says(peer: &mut TcpStream, text: &str) {
        peer.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads just what is expected, in one piece if it came in one.
    async fn hears(peer: &mut TcpStream, expected: &str) {
        let mut octets = vec![0; 4096];
        let len = timeout(SOON, peer.read(&mut octets)).await.expect("nothing came").unwrap();
        assert_eq!(String::from_utf8_lossy(&octets[..len]), expected);
    }

    #[tokio::test]
    async fn the_end_of_idle_a_fetch_and_the_next_idle_go_out_in_one_write() {
        let (mut connection, mut peer) = pair().await;
        let idle = connection.send("IDLE", SOON).await.unwrap();
        hears(&mut peer, "p1 IDLE\r\n").await;
        connection.queue_done(idle, SOON);
        let fetch = connection.queue("UID FETCH 4:* (UID)");
        let next_idle = connection.send("IDLE", SOON).await.unwrap();
        hears(&mut peer, "DONE\r\np2 UID FETCH 4:* (UID)\r\np3 IDLE\r\n").await;
        says(&mut peer, "p1 OK idle done\r\n* 1 FETCH (UID 4)\r\np2 OK done\r\n+ idling\r\n").await;
        let mut heard = Vec::new();
        connection.finish(fetch, PATIENCE, |response| heard.push(response)).await.unwrap();
        assert!(matches!(heard.as_slice(), [Response::Fetch(1, _)]), "the end of IDLE is nobody's answer: {heard:?}");
        assert!(matches!(connection.read(PATIENCE).await.unwrap(), Response::Continue(_)));
        assert_eq!(next_idle, "p3");
    }

    #[tokio::test]
    async fn what_was_read_of_a_response_survives_a_dropped_wait() {
        let (mut connection, mut peer) = pair().await;
        let begin = "* 1 FETCH (UID 4 BODY[1] {9}\r\nfirst";
        says(&mut peer, begin).await;
        while connection.framer.pending() < begin.len() {
            let waited = connection.read_until(Instant::now() + Duration::from_millis(20)).await;
            assert!(matches!(waited, Err(ReadError::Elapsed)));
        }
        says(&mut peer, " two)\r\n* 2 EX").await;
        let Response::Fetch(1, message) = connection.read(PATIENCE).await.unwrap() else { panic!("no message") };
        assert_eq!(message.section(&[1]), Some(&b"first two"[..]));
        says(&mut peer, "ISTS\r\n").await;
        assert_eq!(connection.read(PATIENCE).await.unwrap(), Response::Exists(2));
    }

    #[tokio::test]
    async fn the_end_of_the_stream_inside_a_response_is_no_response() {
        let (mut connection, mut peer) = pair().await;
        says(&mut peer, "* 1 FETCH (UID 4)\r\np1 OK do").await;
        drop(peer);
        let outcome = connection.run("UID FETCH 4 (UID)", PATIENCE, drop).await;
        assert!(matches!(outcome, Err(ImapError::Closed | ImapError::Io(_))), "{outcome:?}");
    }

    /// Whatever was said before: an answer without its end is none, and nothing is waited for past the deadline.
    #[tokio::test(start_paused = true)]
    async fn after_any_octet_the_end_is_an_error_and_silence_ends_in_time() {
        let responses = [
            "* 2 EXISTS\r\n",
            "* 1 FETCH (UID 4 BODY[1] {11}\r\nfirst\r\ntwo\r FLAGS (\\Seen))\r\n",
            "+ x\r\n",
            "p1 OK a\r\n",
        ];
        let answer = responses.concat();
        for len in 0..answer.len() {
            for is_silent in [true, false] {
                let (mut connection, mut peer) = pair().await;
                says(&mut peer, &answer[..len]).await;
                if !is_silent {
                    peer.shutdown().await.unwrap();
                }
                let (begun, mut heard) = (Instant::now(), 0);
                let outcome = connection.run("UID FETCH 4 (UID)", PATIENCE, |_| heard += 1).await.unwrap_err();
                let waited = begun.elapsed();
                let ends =
                    responses.iter().scan(0, |end, response| Some(std::mem::replace(end, *end + response.len())));
                assert_eq!(heard, ends.skip(1).filter(|&end| end <= len).count(), "after {len}");
                if is_silent {
                    assert!(matches!(outcome, ImapError::Timeout("a test", SOON)), "after {len}: {outcome:?}");
                    assert!(waited >= SOON && waited < SOON + Duration::from_millis(10), "after {len}: {waited:?}");
                } else {
                    assert!(matches!(outcome, ImapError::Closed) && waited < SOON, "after {len}: {outcome:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn nonsense_is_counted_and_the_command_goes_on() {
        let (mut connection, mut peer) = pair().await;
        says(&mut peer, "\r\n* 1 FETCH nonsense\r\n* XYZZY\r\n* 3 EXISTS\r\np1 OK done\r\n").await;
        let mut heard = Vec::new();
        connection.run("NOOP", PATIENCE, |response| heard.push(response)).await.unwrap();
        assert_eq!(heard, [Response::Unreadable, Response::Unreadable, Response::Other, Response::Exists(3)]);
        assert_eq!(connection.unreadable(), 2);
    }

    #[tokio::test]
    async fn literals_wait_for_the_server() {
        let (mut connection, mut peer) = pair().await;
        let server = async {
            hears(&mut peer, "p1 LOGIN {2}\r\n").await;
            says(&mut peer, "* 1 EXISTS\r\n+ go ahead\r\n").await;
            hears(&mut peer, "ä \"b\"\r\n").await;
            says(&mut peer, "+ more\r\np1 NO no\r\n").await;
        };
        let client = async {
            let login = Command::new("LOGIN").for_server(&Capabilities::default()).string("ä").string("b");
            let mut left = Vec::new();
            let refused = connection.run(login, PATIENCE, |response| left.push(response)).await.unwrap_err();
            assert!(matches!(refused, ImapError::Refused { .. }), "{refused:?}");
            assert_eq!(left, [Response::Exists(1), Response::Continue("more".into())]);
        };
        tokio::join!(server, client);
    }

    #[tokio::test]
    async fn what_was_said_before_protection_began_counts_for_nothing_after_it() {
        let (mut connection, mut peer) = pair().await;
        says(&mut peer, "p1 OK begin TLS now\r\n* 7 EXISTS\r\n").await;
        connection.run("STARTTLS", PATIENCE, drop).await.unwrap();
        assert!(connection.framer.pending() > 0, "it was read ahead");
        let mut protected = Connection::new(connection.into_socket());
        says(&mut peer, "p1 OK done\r\n").await;
        protected.run("NOOP", PATIENCE, |response| panic!("{response:?}")).await.unwrap();
    }

    #[tokio::test]
    async fn goodbye_in_the_middle_of_a_login_ends_it_at_once() {
        let (mut connection, mut peer) = pair().await;
        says(&mut peer, "* BYE too busy\r\n").await;
        let outcome = connection.run("AUTHENTICATE PLAIN", PATIENCE, drop).await;
        assert!(matches!(outcome, Err(ImapError::Bye { .. })), "{outcome:?}");
    }
}
