//! One IMAP connection: sends commands, reads responses, and gives every wait a deadline.
//!
//! Of async-imap only the reading of responses is used. Its own commands turn a refusal into an empty success and a
//! lost connection into a partial one, and wait without end: mail would be skipped in silence. Here a command ends
//! with its tagged OK, or it failed; the end of the stream is an error; what the parser cannot take, panics included,
//! ends the connection and nothing else.

use std::io;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use async_imap::Client;
use futures::FutureExt;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::trace;

use super::error::ImapError;
use super::guard::Guarded;
use super::protocol::{Condition, Reply, Response};
use super::refusal::{During, ServerText, classify};
use super::socket::Socket;
use super::wire;

/// A connection to a server, in whatever state.
pub(super) struct Connection {
    client: Client<Guarded<Socket>>,
    tags: u32,
    /// Goes out before the next command, in the same segment.
    queued: Vec<u8>,
    /// An IDLE that was ended and not answered yet.
    ending: Option<EndingIdle>,
}

struct EndingIdle {
    tag: String,
    answer_by: Instant,
    limit: Duration,
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
        Self { client: Client::new(Guarded::new(socket)), tags: 0, queued: Vec::new(), ending: None }
    }

    /// The stream, for TLS to be put over it. What was read ahead is dropped: somebody on the way may have put
    /// commands' answers there before protection began (RFC 9051 §11.1).
    pub(super) fn into_socket(self) -> Socket {
        self.client.into_inner().into_inner()
    }

    /// Reads one response. `deadline` is absolute, so that the caller can come back to the same wait.
    ///
    /// # Errors
    /// [`ReadError::Elapsed`] at the deadline, with nothing lost; anything else ends the connection.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped: octets that make no response yet stay in the buffer.
    pub(super) async fn read_until(&mut self, deadline: Instant) -> Result<Response, ReadError> {
        let reading = AssertUnwindSafe(self.client.read_response()).catch_unwind();
        match timeout_at(deadline, reading).await {
            Err(_) => Err(ReadError::Elapsed),
            // imap-proto panics on some texts, `* OK [ALERT]é` for one. The buffer is not to be trusted after that.
            Ok(Err(_)) => Err(ReadError::Lost(ImapError::Protocol("the parser failed".to_owned()))),
            Ok(Ok(Err(err))) => Err(ReadError::Lost(unreadable(err))),
            Ok(Ok(Ok(None))) => Err(ReadError::Lost(ImapError::Closed)),
            Ok(Ok(Ok(Some(data)))) => {
                let response = wire::response(data.parsed());
                if let Response::Status(reply) = &response {
                    trace!(condition = ?reply.condition, code = ?reply.code, "server remark");
                }
                Ok(response)
            }
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
    ///
    /// One write matters: as several small segments a command waits for the peer's delayed acknowledgement.
    pub(super) async fn send(&mut self, command: &str, limit: Duration) -> Result<String, ImapError> {
        self.tags = self.tags.wrapping_add(1);
        let tag = format!("p{}", self.tags);
        let mut bytes = std::mem::take(&mut self.queued);
        for piece in [&tag, " ", command, "\r\n"] {
            bytes.extend_from_slice(piece.as_bytes());
        }
        self.write(&bytes, limit).await?;
        // The line may have held a password.
        bytes.fill(0);
        Ok(tag)
    }

    /// Sends a line that is not a command: the answer to a `+`.
    pub(super) async fn send_line(&mut self, line: &str, limit: Duration) -> Result<(), ImapError> {
        let mut bytes = [line.as_bytes(), b"\r\n"].concat();
        self.write(&bytes, limit).await?;
        bytes.fill(0);
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8], limit: Duration) -> Result<(), ImapError> {
        let stream = self.client.get_mut();
        let writing = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        let written = timeout(limit, writing).await.map_err(|_| ImapError::Timeout("sending", limit))?;
        written.map_err(ImapError::Io)
    }

    /// Ends the IDLE with this tag: DONE goes out with the next command, whose answer may come before or after that
    /// of IDLE. Saves a round trip where it counts.
    pub(super) fn queue_done(&mut self, tag: String, limit: Duration) {
        self.queued.extend_from_slice(b"DONE\r\n");
        self.ending = Some(EndingIdle { tag, answer_by: Instant::now() + limit, limit });
    }

    /// Runs a command to its tagged OK, and hands every other response to `hear`.
    ///
    /// # Errors
    /// When the server refuses it, says goodbye, or is silent for too long.
    pub(super) async fn run(
        &mut self,
        command: &str,
        patience: Patience,
        hear: impl FnMut(Response),
    ) -> Result<Reply, ImapError> {
        self.run_continued(command, None, patience, hear).await
    }

    /// The same for a command that goes on with `line` once the server has sent its `+`.
    pub(super) async fn run_continued(
        &mut self,
        command: &str,
        mut line: Option<&str>,
        patience: Patience,
        mut hear: impl FnMut(Response),
    ) -> Result<Reply, ImapError> {
        let tag = self.send(command, patience.silence).await?;
        loop {
            match (self.answer(patience).await?, line) {
                (Response::Tagged(answered, reply), _) if answered == tag => return accepted(reply, patience),
                (Response::Continue(_), Some(text)) => {
                    self.send_line(text, patience.silence).await?;
                    line = None;
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
    pub(super) async fn logout(mut self, limit: Duration) {
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

fn unreadable(err: io::Error) -> ImapError {
    match err.kind() {
        io::ErrorKind::InvalidData => ImapError::Protocol(err.to_string()),
        // The parser's own errors carry the whole buffer in their text: mail that must not get into an event.
        io::ErrorKind::Other => ImapError::Protocol("a response that is not understood".to_owned()),
        io::ErrorKind::UnexpectedEof => ImapError::Closed,
        _ => ImapError::Io(err),
    }
}
