//! What other parts of postrider have done in a watched account: flags set, messages moved, removed, read in part.
//!
//! Commands run on the connection that watches, one after the other, between two waits: no second login, and no second
//! opinion of what is in the mailbox. They are the only thing that opens a mailbox for writing.

use std::time::Duration;

use tokio::sync::oneshot;
use tracing::debug;

use super::connection::Patience;
use super::error::ImapError;
use super::link::Link;
use super::protocol::{Code, Response, UidSet, mailbox_name};
use super::refusal::During;
use super::session::Session;

/// How long somebody waits for a command, the account's connection included.
pub(super) const ANSWERED_WITHIN: Duration = Duration::from_mins(1);
/// Octets of a part that are fetched at most: what a literal may have.
pub const PART_BYTES_MAX: u32 = 1024 * 1024;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MailboxCommand {
    /// Sets and clears flags.
    Store {
        /// Flags to set, as IMAP writes them: `\Seen`, `$Junk`.
        set: Vec<String>,
        /// Flags to clear.
        clear: Vec<String>,
    },
    /// Moves messages to another mailbox.
    Move {
        /// Its decoded name.
        to: String,
    },
    /// Removes messages for good.
    Expunge,
    /// Reads the beginning of a part of one message, as it is transferred, without setting \Seen.
    FetchPart {
        /// The section number (RFC 9051 §6.4.5.1); empty for the whole message.
        section: Vec<u32>,
        /// Octets at most; see [`PART_BYTES_MAX`].
        bytes_max: u32,
    },
}

/// The messages that a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageSet {
    /// The mailbox, decoded.
    pub mailbox: String,
    /// Its UIDVALIDITY, without which the UIDs mean nothing.
    pub uid_validity: u32,
    /// The UIDs, rising or not.
    pub uids: Vec<u32>,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// Nobody watches this account.
    #[error("the account is not watched")]
    NotWatched,
    /// Too many commands wait.
    #[error("too many commands wait for this account; try again later")]
    Busy,
    /// The account could not be reached in time.
    #[error("the account's server did not answer in time; look whether it was done before it is tried again")]
    Timeout,
    /// The mailbox's UIDs were given out anew.
    #[error("the mailbox has another UIDVALIDITY by now; its messages have other UIDs")]
    UidValidity,
    /// No messages, or flags that are none.
    #[error("{0}")]
    Invalid(&'static str),
    /// The server has no way to do it that leaves other messages alone.
    #[error("the server cannot do this: it offers no {0}")]
    Unsupported(&'static str),
    /// The server refused.
    #[error("{0}")]
    Refused(String),
}

/// A command that waits for its turn.
#[derive(Debug)]
pub(super) struct Request {
    pub messages: MessageSet,
    pub command: MailboxCommand,
    pub reply: oneshot::Sender<Result<Vec<u8>, CommandError>>,
}

impl MailboxCommand {
    /// Finds what must not be sent.
    pub(super) fn check(&self, messages: &MessageSet) -> Result<(), CommandError> {
        if messages.uids.is_empty() || messages.uids.contains(&0) {
            return Err(CommandError::Invalid("name at least one message by its UID"));
        }
        match self {
            Self::Store { set, clear } if set.is_empty() && clear.is_empty() => {
                Err(CommandError::Invalid("name at least one flag to set or to clear"))
            }
            Self::Store { set, clear } if !set.iter().chain(clear).all(|flag| is_flag(flag)) => {
                Err(CommandError::Invalid("a flag is a word, with a backslash before it or without"))
            }
            Self::FetchPart { .. } if messages.uids.len() != 1 => {
                Err(CommandError::Invalid("a part is read of one message"))
            }
            Self::FetchPart { bytes_max, .. } if *bytes_max == 0 || *bytes_max > PART_BYTES_MAX => {
                Err(CommandError::Invalid("so many octets cannot be read at once"))
            }
            _ => Ok(()),
        }
    }

    fn writes(&self) -> bool {
        !matches!(self, Self::FetchPart { .. })
    }
}

/// RFC 9051 §9, `flag`: an atom, after a backslash or not.
fn is_flag(flag: &str) -> bool {
    let atom = flag.strip_prefix('\\').unwrap_or(flag);
    let is_special = |byte: u8| b"(){%*\"\\]".contains(&byte);
    !atom.is_empty() && atom.len() <= 100 && atom.bytes().all(|byte| byte.is_ascii_graphic() && !is_special(byte))
}

impl Session {
    /// Carries out what waits.
    pub(super) async fn run_commands(&mut self) -> Result<(), ImapError> {
        let signals = self.link.account().signals.clone();
        let mut ran = false;
        while let Some(Request { messages, command, reply }) = signals.take_command() {
            // Whoever asked may have given up.
            if reply.is_closed() {
                continue;
            }
            ran = true;
            let done = carry_out(&mut self.link, &messages, &command).await;
            let answer = match done {
                Ok(answer) => Ok(answer),
                Err(Failure::Command(err)) => Err(err),
                Err(Failure::Connection(err)) => {
                    let _gone = reply.send(Err(CommandError::Timeout)).is_err();
                    return Err(err);
                }
            };
            let _gone = reply.send(answer).is_err();
        }
        if ran {
            // Another mailbox may be open, and what was done is to be reported.
            self.go_home(false).await?;
        }
        Ok(())
    }
}

enum Failure {
    /// Of the command alone.
    Command(CommandError),
    /// Of the connection.
    Connection(ImapError),
}

impl From<ImapError> for Failure {
    fn from(err: ImapError) -> Self {
        match err {
            ImapError::Refused { .. } | ImapError::Mailbox { .. } => Self::Command(CommandError::Refused(err.reason())),
            err => Self::Connection(err),
        }
    }
}

async fn carry_out(link: &mut Link, messages: &MessageSet, command: &MailboxCommand) -> Result<Vec<u8>, Failure> {
    open(link, messages, command.writes()).await?;
    let uids: UidSet = messages.uids.iter().copied().collect();
    debug!(account = %link.account().name, mailbox = messages.mailbox, messages = uids.len(), "command");
    match command {
        MailboxCommand::Store { set, clear } => {
            store(link, &uids, "+", set).await?;
            store(link, &uids, "-", clear).await?;
        }
        MailboxCommand::Move { to } if link.offers.r#move => {
            link.run("UID MOVE", &format!("UID MOVE {uids} {}", mailbox_name::to_wire(to)), drop).await?;
        }
        MailboxCommand::Move { to } => {
            if !link.offers.uid_plus {
                return Err(Failure::Command(CommandError::Unsupported("MOVE and no UIDPLUS")));
            }
            link.run("UID COPY", &format!("UID COPY {uids} {}", mailbox_name::to_wire(to)), drop).await?;
            expunge(link, &uids).await?;
        }
        MailboxCommand::Expunge => expunge(link, &uids).await?,
        MailboxCommand::FetchPart { section, bytes_max } => return part(link, &uids, section, *bytes_max).await,
    }
    Ok(Vec::new())
}

/// Opens the mailbox, for writing only if that is needed, and makes sure that it is the one that was meant.
async fn open(link: &mut Link, messages: &MessageSet, writes: bool) -> Result<(), Failure> {
    let (what, config) = (if writes { "SELECT" } else { "EXAMINE" }, link.account().config.clone());
    let patience = Patience { what, silence: config.open_timeout, during: During::Open };
    let command = format!("{what} {}", mailbox_name::to_wire(&messages.mailbox));
    let mut uid_validity = None;
    let opened = link.connection.run(command.as_str(), patience, |response| {
        if let Response::Status(reply) = response
            && let Some(Code::UidValidity(value)) = reply.code
        {
            uid_validity = Some(value);
        }
    });
    opened.await?;
    if uid_validity.is_some_and(|found| found != messages.uid_validity) {
        return Err(Failure::Command(CommandError::UidValidity));
    }
    Ok(())
}

async fn store(link: &mut Link, uids: &UidSet, sign: &str, flags: &[String]) -> Result<(), Failure> {
    if !flags.is_empty() {
        let command = format!("UID STORE {uids} {sign}FLAGS.SILENT ({})", flags.join(" "));
        link.run("UID STORE", &command, drop).await?;
    }
    Ok(())
}

/// Without UIDPLUS every message with \Deleted would go, whoever set it.
async fn expunge(link: &mut Link, uids: &UidSet) -> Result<(), Failure> {
    if !link.offers.uid_plus {
        return Err(Failure::Command(CommandError::Unsupported("UIDPLUS")));
    }
    store(link, uids, "+", &["\\Deleted".to_owned()]).await?;
    link.run("UID EXPUNGE", &format!("UID EXPUNGE {uids}"), drop).await?;
    Ok(())
}

async fn part(link: &mut Link, uids: &UidSet, section: &[u32], bytes_max: u32) -> Result<Vec<u8>, Failure> {
    let path: Vec<String> = section.iter().map(ToString::to_string).collect();
    let command = format!("UID FETCH {uids} (BODY.PEEK[{}]<0.{bytes_max}>)", path.join("."));
    let mut found = None;
    let hear = |response| {
        if let Response::Fetch(_, message) = response
            && let Some(octets) = message.section(section)
        {
            found = Some(octets.to_vec());
        }
    };
    link.run("UID FETCH", &command, hear).await?;
    found.ok_or_else(|| {
        Failure::Command(CommandError::Refused("the server has no such message, or no such part".to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_sent_that_is_not_what_it_seems() {
        let messages = |uids: &[u32]| MessageSet { mailbox: "INBOX".into(), uid_validity: 1, uids: uids.to_vec() };
        let store = |flag: &str| MailboxCommand::Store { set: vec![flag.into()], clear: Vec::new() };
        for flag in ["\\Seen", "$Junk", "NonJunk"] {
            assert_eq!(store(flag).check(&messages(&[1])), Ok(()), "{flag}");
        }
        for flag in ["", "\\", "a b", "a)", "a\r\nA1 LOGOUT", "ä", "\\\\Seen", "*"] {
            assert!(store(flag).check(&messages(&[1])).is_err(), "{flag}");
        }
        assert!(MailboxCommand::Expunge.check(&messages(&[])).is_err());
        assert!(MailboxCommand::Expunge.check(&messages(&[0])).is_err());
        let part = |bytes_max| MailboxCommand::FetchPart { section: vec![1], bytes_max };
        assert!(part(10).check(&messages(&[1])).is_ok() && part(10).check(&messages(&[1, 2])).is_err());
        assert!(part(PART_BYTES_MAX + 1).check(&messages(&[1])).is_err());
    }
}
