//! One SMTP session as a state machine (RFC 5321 §3, §4.1.4): bytes in, replies and what to do next out. No I/O, no
//! clock.
//!
//! The caller owns the socket. It hands in what it read, writes the replies when the input has run dry (RFC 2920 §3.2), and
//! carries out [`Next`]. A message leaves the session as a [`Transaction`]; the session takes no further input until it
//! hears the [`Outcome`], because the reply to the dot is a promise that the event log has to make.

mod body;
mod introduced;
mod login;
mod secured;

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::collector::{Collector, Text};
use super::command::{self, Command, CommandError, Mail};
use super::config::TlsMode;
use super::limits::Limits;
use super::line::{Line, LineReader};
use super::parameter::MailParameters;
use super::rate::MessageRate;
use super::sasl::{Attempt, Exchange};
use super::tls::ServerTls;
use super::users::{Identity, Users};
use super::xclient;
use crate::event::Origin;
use crate::source::intake::{Client, NoRoute, Outcome, Path, QueueId, Recipient, Routes, Routing};
use crate::source::networks::Networks;
use body::Body;
use introduced::Introduction;

/// Errors without a message in between, after which a client is a nuisance; Postfix's `smtpd_hard_error_limit`.
const ERRORS_MAX: u32 = 20;
/// Commands that move nothing, without a message in between; Postfix's `smtpd_junk_command_limit`.
const IDLE_COMMANDS_MAX: u32 = 100;
/// Unknown recipients without a message in between: more than a mailing list has stale, less than guessing names needs.
const UNKNOWN_RECIPIENTS_MAX: u32 = 50;
/// Recipients beyond the limit: a client may send all of a long list before it reads a reply (RFC 2920).
const EXCESS_RECIPIENTS_MAX: u32 = 1000;

/// What a listener speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Role {
    /// SMTP (RFC 5321).
    #[default]
    Smtp,
    /// Submission (RFC 6409): SMTP for programs that send mail, which log in first.
    Submission,
    /// LMTP (RFC 2033): a mail server hands over mail for final delivery, and hears of each recipient.
    Lmtp,
}

impl Role {
    /// `SMTP`, `LMTP` or `submission`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Smtp => "SMTP",
            Self::Submission => "submission",
            Self::Lmtp => "LMTP",
        }
    }

    /// What events say of where mail came from.
    pub(super) fn origin(self) -> Origin {
        match self {
            Self::Smtp | Self::Submission => Origin::Smtp,
            Self::Lmtp => Origin::Lmtp,
        }
    }

    /// Whether each recipient's delivery has a reply of its own.
    pub(super) fn replies_for_each(self) -> bool {
        self == Self::Lmtp
    }

    /// The name in the greeting.
    fn protocol(self) -> &'static str {
        match self {
            Self::Smtp | Self::Submission => "ESMTP",
            Self::Lmtp => "LMTP",
        }
    }
}

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

/// A transaction before its text: MAIL was accepted.
#[derive(Debug)]
struct Open {
    from: Option<Path>,
    /// What held at MAIL holds for all recipients.
    routing: Arc<Routing>,
    smtputf8: bool,
    recipients: Vec<Recipient>,
    /// The message, when it comes by BDAT.
    chunks: Option<Collector>,
    /// At least one RCPT was refused, so that "no recipients" is no mistake in the order of commands.
    refused: bool,
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

    fn mail(&mut self, mail: Mail, out: &mut Vec<u8>) -> Next {
        if !self.greeted {
            let hello = if self.policy.role == Role::Lmtp { "LHLO" } else { "EHLO" };
            return self.error(out, &format!("503 5.5.1 Send {hello} first"));
        }
        if let Some(refusal) = self.login_due() {
            return self.error(out, refusal);
        }
        if self.transaction.is_some() {
            return self.error(out, "503 5.5.1 Nested MAIL command");
        }
        if self.is_throttled {
            return self.idle(out, "450 4.7.1 Too many messages from your address, try again later");
        }
        if mail.parameters.size > self.policy.limits.message_bytes_max as u64 {
            return self.error(out, TOO_BIG);
        }
        if !mail.parameters.smtputf8 && mail.from.as_ref().is_some_and(Path::is_internationalized) {
            return self.error(out, NEEDS_SMTPUTF8);
        }
        let Mail { from, parameters: MailParameters { smtputf8, .. } } = mail;
        let (routing, recipients) = (self.policy.routes.current(), Vec::new());
        self.transaction = Some(Open { from, routing, smtputf8, recipients, chunks: None, refused: false });
        go_on(out, "250 2.1.0 Ok")
    }

    fn rcpt(&mut self, path: Path, out: &mut Vec<u8>) -> Next {
        let Some(open) = &mut self.transaction else {
            return self.error(out, "503 5.5.1 Send MAIL first");
        };
        if open.chunks.is_some() {
            return self.error(out, "503 5.5.1 The message has begun");
        }
        if open.recipients.len() >= self.policy.limits.recipients_max {
            // RFC 5321 §4.5.3.1.10: the message goes to those that were accepted, the client sends the rest again.
            self.misuse.excess_recipients += 1;
            return self.soft(
                out,
                "452 4.5.3 Too many recipients",
                self.misuse.excess_recipients > EXCESS_RECIPIENTS_MAX,
            );
        }
        let refusal = if !open.smtputf8 && path.is_internationalized() {
            NEEDS_SMTPUTF8
        } else {
            match open.routing.route(&path, self.client.peer) {
                Ok(destination) if self.identity.as_ref().is_some_and(|own| !own.may_write_to(&destination)) => {
                    "550 5.7.1 You may not write to this recipient"
                }
                Ok(destination) => {
                    open.recipients.push(Recipient::new(path, destination));
                    return go_on(out, "250 2.1.5 Ok");
                }
                Err(NoRoute::UnknownRecipient) => "550 5.1.1 No such recipient here",
                Err(NoRoute::ForeignDomain) => "550 5.7.1 Relaying denied",
            }
        };
        open.refused = true;
        self.misuse.unknown_recipients += 1;
        self.misuse.errors_total = self.misuse.errors_total.saturating_add(1);
        self.soft(out, refusal, self.misuse.unknown_recipients > UNKNOWN_RECIPIENTS_MAX)
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
const NEEDS_SMTPUTF8: &str = "553 5.6.7 Address needs SMTPUTF8";

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
