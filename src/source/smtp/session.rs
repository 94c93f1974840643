//! One SMTP session as a state machine (RFC 5321 §3, §4.1.4): bytes in, replies and what to do next out. No I/O, no
//! clock.
//!
//! The caller owns the socket. It hands in what it read, writes the replies when the input has run dry (RFC 2920 §3.2), and
//! carries out [`Next`]. A message leaves the session as a [`Transaction`]; the session takes no further input until it
//! hears the [`Outcome`], because the reply to the dot is a promise that the event log has to make.

mod body;
mod envelope;
mod introduced;
mod login;
mod role;
mod secured;

use std::sync::{Arc, Mutex};

use super::collector::Text;
use super::command::{self, Command, CommandError};
use super::config::TlsMode;
use super::limits::Limits;
use super::line::{Line, LineReader};
use super::rate::MessageRate;
use super::sasl::{Attempt, Exchange};
use super::tls::ServerTls;
use super::users::{Identity, Users};
use super::xclient;
use crate::source::intake::{Client, Outcome, Path, QueueId, Recipient, Routes};
use crate::source::networks::Networks;
use body::Body;
use envelope::Open;
use introduced::Introduction;
pub use role::Role;

/// Errors without a message in between, after which a client is a nuisance; Postfix's `smtpd_hard_error_limit`.
const ERRORS_MAX: u32 = 20;
/// Commands that move nothing, without a message in between; Postfix's `smtpd_junk_command_limit`.
const IDLE_COMMANDS_MAX: u32 = 100;

/// What holds for all sessions of a listener.
#[derive(Debug)]
pub(super) struct Policy {
    /// What is spoken.
    pub role: Role,
    /// The name in the greeting.
    pub hostname: String,
    /// When TLS begins.
    pub tls: TlsMode,
    /// What TLS is done with: the caller's business.
    pub certificate: Option<ServerTls>,
    /// How many messages addresses send, if that is bounded: the caller's business too.
    pub rate: Option<Mutex<MessageRate>>,
    /// Who can log in; none where nobody can.
    pub users: Option<Arc<Users>>,
    /// The bounds.
    pub limits: Limits,
    /// Who may say whose mail it passes on.
    pub xclient_from: Networks,
    /// Whether messages are verified that come here, where the configuration says so.
    pub verify: Option<bool>,
    /// Where recipients go.
    pub routes: Routes,
}

/// One message with its envelope, to be committed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Transaction {
    /// The reverse-path; none for `<>`.
    pub from: Option<Path>,
    /// The accepted recipients, in the order of their RCPT. Never empty.
    pub recipients: Vec<Recipient>,
    /// The message.
    pub message: Text,
}

/// What the caller does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Write the replies and read on: the input is used up.
    Read,
    /// Commit the message and report to [`Session::delivered`]; only then hand in the rest of the input.
    Deliver(Transaction),
    /// Find out whether it is them and report to [`Session::verified`]; only then hand in the rest of the input.
    Verify(Box<Attempt>),
    /// Another client is taken for ours: see whether it has a place, and call [`Session::greet`].
    NewClient,
    /// Write the replies, do the handshake, and call [`Session::tls_started`].
    StartTls,
    /// The client said QUIT: write the replies and close.
    Quit,
    /// The session ended itself: write the replies and close, whatever the client is still sending.
    HangUp,
}

/// What a client did wrong or in vain; everything but `errors_total` counts from the last message on.
#[derive(Debug, Default)]
struct Misuse {
    errors: u32,
    idle: u32,
    unknown_recipients: u32,
    excess_recipients: u32,
    errors_total: u32,
}

/// One client's dialogue.
#[derive(Debug)]
pub(super) struct Session<'a> {
    policy: &'a Policy,
    client: Client,
    introduction: Introduction,
    lines: LineReader,
    /// The login that is on its way.
    exchange: Option<Box<Exchange>>,
    /// The client's address has sent as much as it may for now.
    is_throttled: bool,
    /// Who has logged in.
    identity: Option<Arc<Identity>>,
    greeted: bool,
    transaction: Option<Open>,
    body: Body,
    /// Replies that the message which was handed out will have.
    replies_due: usize,
    misuse: Misuse,
    commands: u64,
}

impl<'a> Session<'a> {
    /// A session with a client that has just connected.
    pub(super) fn new(policy: &'a Policy, client: Client) -> Self {
        let (lines, misuse) = (LineReader::default(), Misuse::default());
        let (greeted, transaction, body, exchange, identity) = (false, None, Body::None, None, None);
        let introduction = Introduction::allowed(client.is_in(&policy.xclient_from));
        Self {
            policy,
            client,
            introduction,
            lines,
            exchange,
            is_throttled: false,
            identity,
            greeted,
            transaction,
            body,
            replies_due: 1,
            misuse,
            commands: 0,
        }
    }

    /// The first reply. A client that talks before it is merely early: its commands wait like pipelined ones.
    pub(super) fn greet(&self, out: &mut Vec<u8>) {
        let Policy { hostname, role, .. } = self.policy;
        reply(out, &format!("220 {hostname} {} postrider", role.protocol()));
    }

    /// Takes bytes from the client, appends replies to `out`, and says how much of the input was used.
    pub(super) fn receive(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Next) {
        let mut used = 0;
        while let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty()) {
            let (taken, next) = self.text(rest, out).unwrap_or_else(|| self.line(rest, out));
            used += taken;
            match next {
                Next::Read => {}
                Next::StartTls => return (input.len(), Self::grant_tls(input.len() - used, out)),
                next => return (used, next),
            }
        }
        (used, Next::Read)
    }

    /// Reports what became of the message that [`Next::Deliver`] handed out: for each recipient, or once for all. What
    /// is said of it is said once by SMTP, and for each accepted recipient by LMTP (RFC 2033 §4.2). A reply that ends the
    /// session ends it for all.
    pub(super) fn delivered(&mut self, queue_id: QueueId, outcomes: &[Outcome], out: &mut Vec<u8>) -> Next {
        let mut next = Next::Read;
        for at in 0..self.replies_due {
            let outcome = outcomes.get(at).or(outcomes.last()).copied().unwrap_or(Outcome::Failed);
            next = self.say(queue_id, outcome, out);
            if next == Next::HangUp {
                break;
            }
        }
        next
    }

    fn say(&mut self, queue_id: QueueId, outcome: Outcome, out: &mut Vec<u8>) -> Next {
        match outcome {
            Outcome::Committed => {
                self.misuse = Misuse { errors_total: self.misuse.errors_total, ..Misuse::default() };
                go_on(out, &format!("250 2.0.0 Ok: queued as {queue_id}"))
            }
            // Not the client's error, so it does not count against it.
            Outcome::NoSpace | Outcome::Failed => go_on(out, not_stored(outcome)),
            Outcome::ShuttingDown => self.shut_down(out),
            Outcome::Loop => go_on(out, "554 5.4.6 Too many hops: the message goes round in circles"),
            // Nor is this: a relay hands on what others wrote.
            Outcome::Refused(refusal) => go_on(out, refusal.reply()),
        }
    }

    /// Says whether the client's address has sent as much as it may for now.
    pub(super) fn throttle(&mut self, is_throttled: bool) {
        self.is_throttled = is_throttled;
    }

    /// Ends the session because postrider is shutting down.
    pub(super) fn shut_down(&self, out: &mut Vec<u8>) -> Next {
        reply(out, &format!("421 4.3.2 {} is shutting down, try again later", self.policy.hostname));
        Next::HangUp
    }

    /// Ends the session because its client has too many of them.
    pub(super) fn refuse_client(&self, out: &mut Vec<u8>) -> Next {
        reply(out, &format!("421 4.7.0 {} Too many sessions from your address", self.policy.hostname));
        Next::HangUp
    }

    /// Ends the session because the client took too long.
    pub(super) fn time_out(&self, out: &mut Vec<u8>) -> Next {
        reply(out, &format!("421 4.4.2 {} timed out waiting for you", self.policy.hostname));
        Next::HangUp
    }

    /// Whom it talks to, as far as is known by now.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Lines so far. A deadline holds for a command, however slowly its octets drip in.
    pub(super) fn commands(&self) -> u64 {
        self.commands
    }

    /// Replies so far that were errors of the client.
    pub(super) fn errors_total(&self) -> u32 {
        self.misuse.errors_total
    }

    /// Whether the client has sent a line that ends with LF alone, and nothing behind it. See [`Session::end_stalled_line`].
    pub(super) fn waits_behind_bare_lf(&self) -> bool {
        matches!(self.body, Body::None) && self.lines.waits_behind_bare_lf()
    }

    /// Refuses a line that ended with LF alone when nothing follows it. Only CRLF ends a command, so that the two
    /// lines of `NOOP LF NOOP CRLF` are one error; but who typed the first by hand should hear of it and come in step.
    pub(super) fn end_stalled_line(&mut self, out: &mut Vec<u8>) -> Next {
        self.lines.reset();
        self.exchange = None;
        self.commands += 1;
        self.error(out, MALFORMED)
    }

    fn line(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Next) {
        self.lines.allow(self.line_bytes_max());
        let (used, line) = self.lines.take(input);
        let Some(line) = line else { return (used, Next::Read) };
        self.commands += 1;
        let next = match line {
            Line::Text(line) => self.answer(&line, out).unwrap_or_else(|| match command::parse(&line) {
                Ok(command) => self.command(command, out),
                Err(err) => self.refuse(err, out),
            }),
            Line::Malformed => {
                self.exchange = None;
                self.error(out, MALFORMED)
            }
            Line::TooLong => match self.exchange.take() {
                Some(_) => self.error(out, "500 5.5.6 Authentication exchange line is too long"),
                None => self.error(out, "500 5.5.2 Line too long"),
            },
            Line::Endless => {
                reply(out, "421 4.7.0 Line too long, closing");
                Next::HangUp
            }
            Line::TlsHello => self.refuse(CommandError::OtherProtocol, out),
        };
        (used, next)
    }

    fn refuse(&mut self, err: CommandError, out: &mut Vec<u8>) -> Next {
        match self.error(out, err.reply()) {
            Next::Read if err == CommandError::OtherProtocol => Next::HangUp,
            next => next,
        }
    }

    fn command(&mut self, command: Command, out: &mut Vec<u8>) -> Next {
        match command {
            // Each protocol has its own greeting, so that a client that is at the wrong port learns it (RFC 2033 §4.1).
            Command::Helo(_) | Command::Ehlo(_) if self.policy.role == Role::Lmtp => {
                self.error(out, "500 5.5.1 This is LMTP: send LHLO")
            }
            Command::Lhlo(_) if self.policy.role != Role::Lmtp => self.error(out, "500 5.5.1 This is SMTP: send EHLO"),
            Command::Helo(name) => self.hello(name, out, false),
            Command::Ehlo(name) | Command::Lhlo(name) => self.hello(name, out, true),
            Command::Mail(mail) => self.mail(mail, out),
            Command::Rcpt(path) => self.rcpt(path, out),
            Command::Data => self.start_data(out),
            Command::Bdat { octets, last } => self.start_chunk(octets, last, out),
            Command::Rset => {
                self.transaction = None;
                self.idle(out, "250 2.0.0 Ok")
            }
            Command::Noop => self.idle(out, "250 2.0.0 Ok"),
            // RFC 5321 §3.5.3: neither confirms nor denies, so that VRFY is no way to guess addresses.
            Command::Vrfy => self.idle(out, "252 2.5.2 Cannot VRFY, send some mail and try"),
            Command::Help => {
                self.idle(out, "214 2.0.0 EHLO HELO LHLO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT")
            }
            Command::StartTls => self.start_tls(out),
            Command::Auth(auth) => self.auth(&auth, out),
            Command::XClient(told) => self.introduce(told, out),
            Command::Quit => {
                reply(out, "221 2.0.0 Bye");
                Next::Quit
            }
        }
    }

    fn hello(&mut self, name: String, out: &mut Vec<u8>, extended: bool) -> Next {
        // RFC 5321 §4.1.4: EHLO in the middle of a session is an RSET too.
        self.transaction = None;
        self.greeted = true;
        if self.introduction != Introduction::WithHelo {
            self.client.helo = Some(name);
        }
        let hostname = &self.policy.hostname;
        if !extended {
            return self.idle(out, &format!("250 {hostname}"));
        }
        let Limits { message_bytes_max, recipients_max, .. } = &self.policy.limits;
        let mut lines = vec![hostname.clone(), format!("SIZE {message_bytes_max}")];
        lines.push(format!("LIMITS RCPTMAX={recipients_max}"));
        lines.extend(["PIPELINING", "8BITMIME", "SMTPUTF8", "CHUNKING"].map(str::to_owned));
        lines.extend(self.offers_starttls().then(|| "STARTTLS".to_owned()));
        lines.extend(self.offered_mechanisms());
        lines.extend((self.introduction != Introduction::Refused).then(|| xclient::EXTENSION.to_owned()));
        lines.push("ENHANCEDSTATUSCODES".to_owned());
        let (last, others) = lines.split_last().map_or(("", &[][..]), |(last, others)| (last.as_str(), others));
        let others: String = others.iter().flat_map(|line| ["250-", line, "\r\n"]).collect();
        self.idle(out, &format!("{others}250 {last}"))
    }

    /// Refuses something, or has enough of it.
    fn error(&mut self, out: &mut Vec<u8>, text: &str) -> Next {
        self.misuse.errors += 1;
        self.misuse.errors_total = self.misuse.errors_total.saturating_add(1);
        self.soft(out, text, self.misuse.errors > ERRORS_MAX)
    }

    fn idle(&mut self, out: &mut Vec<u8>, text: &str) -> Next {
        self.misuse.idle += 1;
        self.soft(out, text, self.misuse.idle > IDLE_COMMANDS_MAX)
    }

    fn soft(&self, out: &mut Vec<u8>, text: &str, enough: bool) -> Next {
        if enough {
            reply(out, &format!("421 4.7.0 {} has had enough of this, closing", self.policy.hostname));
            return Next::HangUp;
        }
        go_on(out, text)
    }
}

const MALFORMED: &str = "500 5.5.2 Only CRLF ends a line";
const TOO_BIG: &str = "552 5.3.4 Message is larger than SIZE";

/// Of a message that may well be stored later.
fn not_stored(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::NoSpace => "452 4.3.1 Insufficient system storage",
        _ => "451 4.3.0 Message not stored, try again later",
    }
}

fn go_on(out: &mut Vec<u8>, text: &str) -> Next {
    reply(out, text);
    Next::Read
}

fn reply(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod login_tests;
#[cfg(test)]
mod tests;
