//! Runs octets through the receiver's parts.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::collector::{Ended, Text};
use super::config::TlsMode;
use super::data::DataReader;
use super::limits::Limits;
use super::proxy_header::{Progress, Source};
use super::sasl::{Evidence, Verdict};
use super::session::{Next, Policy, Role, Session};
use super::users::Users;
use crate::source::intake::{Client, Outcome, Peer, QueueId, Refusal, Routes, bracketed};
use crate::source::networks::Networks;

/// The largest message and how many recipients it may have.
pub const MESSAGE_BYTES_MAX: usize = 300;
const RECIPIENTS_MAX: usize = 3;

/// What a client saw, and what became of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub replies: Vec<u8>,
    /// Each message with the number of its recipients.
    pub messages: Vec<(usize, Vec<u8>)>,
    pub is_over: bool,
}

/// How a session is set up: by the bits of the input's first octet.
#[derive(Debug, Clone, Copy)]
pub struct Setup(pub u8);

impl Setup {
    pub fn is_lmtp(self) -> bool {
        self.0 & 1 != 0
    }

    fn policy(self) -> Policy {
        let networks = if self.0 & 2 == 0 { "[]" } else { "[\"unix\"]" };
        Policy {
            role: if self.is_lmtp() { Role::Lmtp } else { Role::Smtp },
            hostname: "mx.example".to_owned(),
            // What follows STARTTLS depends on what came with it, and is for tests.
            tls: TlsMode::None,
            certificate: None,
            limits: Limits { message_bytes_max: MESSAGE_BYTES_MAX, recipients_max: RECIPIENTS_MAX },
            xclient_from: serde_json::from_str::<Networks>(networks).expect("networks"),
            verify: None,
            rate: None,
            users: (self.0 & 4 != 0).then(|| Arc::new(Users)),
            routes: Routes,
        }
    }

    /// What becomes of the message of this number.
    fn outcome(self, number: usize) -> Outcome {
        let refused = Outcome::Refused(Refusal);
        let outcomes = [Outcome::NoSpace, Outcome::Failed, Outcome::Loop, refused, Outcome::ShuttingDown];
        let chosen = usize::from(self.0 >> 3).wrapping_add(number);
        outcomes.get(chosen % 10).copied().unwrap_or(Outcome::Committed)
    }
}

/// A whole dialogue. Messages leave in blocks of `block_len` octets or more, as those do that take much memory.
pub fn dialogue(setup: Setup, pieces: &[&[u8]], block_len: usize) -> Seen {
    let policy = setup.policy();
    let mut session = Session::new(&policy, Client::at(None, Peer::Loopback));
    let (mut seen, mut blocks) = (Seen::default(), Vec::new());
    session.greet(&mut seen.replies);
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let (used, next) = session.receive(rest, &mut seen.replies);
            rest = &rest[used..];
            assert!(session.data_held().2 <= MESSAGE_BYTES_MAX);
            match next {
                Next::Read => {
                    assert!(rest.is_empty(), "input was left without a reason");
                    break;
                }
                Next::Deliver(transaction) => {
                    assert!((1..=RECIPIENTS_MAX).contains(&transaction.recipients.len()));
                    let message = whole(&mut blocks, transaction.message);
                    assert!(message.len() <= MESSAGE_BYTES_MAX);
                    let number = seen.messages.len();
                    seen.messages.push((transaction.recipients.len(), message));
                    let next = session.delivered(QueueId(number), &[setup.outcome(number)], &mut seen.replies);
                    if !goes_on(&next) {
                        seen.is_over = true;
                        return seen;
                    }
                }
                Next::NewClient => session.greet(&mut seen.replies),
                Next::Verify(attempt) => {
                    let is_right = match &attempt.evidence {
                        Evidence::Password(secret) | Evidence::Token(secret) => secret.expose().len() % 2 == 1,
                        Evidence::Proof(is_right) => *is_right,
                    };
                    let identity = policy.users.as_ref().and_then(|users| users.identity(&attempt.name));
                    let verdict = identity.filter(|_| is_right).map_or(Verdict::Denied, Verdict::Granted);
                    if !goes_on(&session.verified(verdict, &mut seen.replies)) {
                        seen.is_over = true;
                        return seen;
                    }
                }
                Next::StartTls | Next::Quit | Next::HangUp => {
                    seen.is_over = true;
                    return seen;
                }
            }
        }
        if session.data_held().1 >= block_len {
            let block = session.take_block();
            blocks = whole(&mut blocks, block);
        }
    }
    seen
}

/// Whether the session waits for more, behind an answer that may have been one error too many.
fn goes_on(next: &Next) -> bool {
    assert!(matches!(next, Next::Read | Next::HangUp), "{next:?}");
    *next == Next::Read
}

/// The message that begins with `blocks` and ends with `text`.
fn whole(blocks: &mut Vec<u8>, text: Text) -> Vec<u8> {
    let mut message = std::mem::take(blocks);
    message.truncate(text.handed_out);
    assert_eq!(message.len(), text.handed_out, "blocks of another message");
    message.extend(text.rest);
    message
}

/// What the text of DATA became, and what follows it; none before its end.
pub fn text(pieces: &[&[u8]], bytes_max: usize) -> Option<(Result<Vec<u8>, &'static str>, Vec<u8>)> {
    let mut reader = DataReader::new(bytes_max);
    for (at, piece) in pieces.iter().enumerate() {
        let (used, ended) = reader.take(piece);
        assert!(reader.text().held().2 <= bytes_max);
        let Some(ended) = ended else {
            assert_eq!(used, piece.len());
            continue;
        };
        let rest = [&piece[used..], &pieces[at + 1..].concat()].concat();
        let ended = match ended {
            Ended::Message(text) => Ok(text.rest),
            Ended::TooBig => Err("too big"),
            Ended::GivenUp(_) => Err("given up"),
            Ended::Endless => Err("endless"),
        };
        return Some((ended, rest));
    }
    None
}

/// How many octets a header has and whom it names; none where it is incomplete or none.
pub fn proxy_header(input: &[u8]) -> Option<(usize, Option<SocketAddr>)> {
    let mut len = 0;
    loop {
        match super::proxy_header::parse(&input[..len]) {
            Ok(Progress::Missing(octets)) => {
                assert!(octets > 0 && len + octets <= 536);
                len += octets;
                if len > input.len() {
                    return None;
                }
            }
            Ok(Progress::Complete(Source::Client(address))) => return Some((len, Some(address))),
            Ok(Progress::Complete(Source::Proxy | Source::Unknown)) => return Some((len, None)),
            Err(_) => return None,
        }
    }
}

/// Address, HELO and user of a client that XCLIENT told of.
pub fn xclient(argument: &[u8]) -> Option<(Option<IpAddr>, Option<String>, Option<String>)> {
    let mut client = Client::at(None, Peer::Loopback);
    super::xclient::parse(argument).ok()?.tell(&mut client);
    assert!(client.address.is_none() || client.peer == Peer::Remote, "somebody else's address gave rights");
    Some((client.address, client.helo, client.user))
}

/// Local part without its quoting, domain, and what follows the path; the first two are none for `<>`.
pub fn path(argument: &str) -> Option<(Option<(String, Option<String>)>, String)> {
    let (path, rest) = bracketed(argument)?;
    let path = path.map(|path| {
        assert!(path.as_str().len() <= 512 && argument.contains(path.as_str()));
        (path.local().into_owned(), path.domain().map(str::to_owned))
    });
    Some((path, rest.to_owned()))
}
