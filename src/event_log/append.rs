//! What is asked of the log's writer, and what it answers.

use std::path::PathBuf;
use std::sync::Arc;

use super::outbox::{OutboxId, Outgoing, Settlement};
use super::sightings::{Sighting, SightingChange};
use crate::event::{AccountName, Draft, EventId, Topic};

/// Recognises the same happening when a source reports it again, after a crash between commit and reply.
///
/// For IMAP made of account, mailbox, UIDVALIDITY, UID and kind; for SMTP of recipient and message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DedupKey([u8; 16]);

impl DedupKey {
    /// The key of a happening that these parts name, in this order.
    pub fn of(parts: &[&[u8]]) -> Self {
        // Each part is preceded by its length, so that moving a byte from one part to the next makes another key.
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut key = [0; 16];
        for (to, from) in key.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
        Self(key)
    }

    /// The key that has these octets.
    pub(super) fn from_bytes(octets: [u8; 16]) -> Self {
        Self(octets)
    }

    /// The key's octets.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// One source's wish: events and checkpoints that become durable together.
#[derive(Debug, Default)]
pub struct Append {
    pub(super) drafts: Vec<(Draft, Option<DedupKey>)>,
    pub(super) checkpoints: Vec<(String, String)>,
    pub(super) sightings: Vec<SightingChange>,
    pub(super) outgoing: Option<Outgoing>,
    pub(super) settled: Vec<(OutboxId, Settlement)>,
}

impl Append {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One event that needs no recognising.
    pub fn event(draft: Draft) -> Self {
        Self { drafts: vec![(draft, None)], ..Self::default() }
    }

    /// Adds an event; one with a key that the log has already is not written again.
    pub fn push(&mut self, draft: Draft, key: Option<DedupKey>) {
        self.drafts.push((draft, key));
    }

    /// The events, for what is known only once they are made.
    pub(crate) fn drafts_mut(&mut self) -> impl Iterator<Item = &mut Draft> {
        self.drafts.iter_mut().map(|(draft, _)| draft)
    }

    /// Adds a source's position: `key` is the source's own name for it, `value` replaces what was there.
    pub fn checkpoint(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.checkpoints.push((key.into(), value.into()));
    }

    /// Adds that a message was seen in a mailbox, so that it is recognised in another one.
    pub fn sighting(&mut self, account: &AccountName, sighting: Sighting) {
        self.sightings.push(SightingChange::Seen(account.clone(), sighting));
    }

    /// Adds that messages are no longer in a mailbox: ranges of UIDs, first and last.
    pub fn gone(&mut self, account: &AccountName, mailbox: &str, uid_validity: u32, uids: Vec<(u32, u32)>) {
        self.sightings.push(SightingChange::Gone(account.clone(), mailbox.to_owned(), uid_validity, uids));
    }

    /// Adds a message that goes on to another server, one at most. What its recipients have got, or will get, already
    /// is not added again.
    pub fn send_on(&mut self, outgoing: Outgoing) {
        self.outgoing = Some(outgoing);
    }

    /// Adds what became of an attempt to send something of the outbox.
    pub fn settle(&mut self, id: OutboxId, settlement: Settlement) {
        self.settled.push((id, settlement));
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        let Self { drafts, checkpoints, sightings, outgoing, settled } = self;
        drafts.is_empty() && checkpoints.is_empty() && sightings.is_empty() && outgoing.is_none() && settled.is_empty()
    }
}

/// What became of one draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The ID that it has in the log.
    pub id: EventId,
    /// It was in the log already, under this ID.
    pub repeated: bool,
}

/// Why nothing was committed. The source must not tell anybody that it was accepted.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The volume that holds the log is full.
    #[error("no space left for the event log at {0}; free space or shorten `event_log.retention_age`")]
    NoSpace(PathBuf),
    /// The log could not be written.
    #[error("cannot write the event log at {0}")]
    Sqlite(PathBuf, #[source] Arc<rusqlite::Error>),
    /// The event cannot be written as JSON.
    #[error("the event cannot be written as JSON: {0}")]
    Draft(String),
    /// As much waits to be sent on as may.
    #[error("too much mail waits to be forwarded; see `smtp.forward.queue_max` and `smtp.forward.queue_bytes_max`")]
    OutboxFull,
    /// postrider is shutting down.
    #[error("the event log is closed, postrider is shutting down")]
    Closed,
}

/// A draft as the writer takes it: serialised by the source's own task, so that the one writer does not have to.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: Box<str>,
    pub(super) topics: Box<[Topic]>,
    pub(super) private: bool,
    pub(super) key: Option<DedupKey>,
    /// The draft's JSON without its opening brace: ID and time are put before it when it is committed.
    pub(super) json_rest: String,
}

/// An [`Append`] as the writer takes it.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) rows: Vec<Row>,
    pub(super) checkpoints: Vec<(String, String)>,
    pub(super) sightings: Vec<SightingChange>,
    pub(super) outgoing: Option<Outgoing>,
    pub(super) settled: Vec<(OutboxId, Settlement)>,
}

impl Prepared {
    pub(super) fn new(append: Append) -> Result<Self, AppendError> {
        let Append { drafts, checkpoints, sightings, outgoing, settled } = append;
        let rows = drafts.into_iter().map(|(draft, key)| Row::new(draft, key)).collect::<Result<_, _>>()?;
        Ok(Self { rows, checkpoints, sightings, outgoing, settled })
    }
}

impl Row {
    fn new(draft: Draft, key: Option<DedupKey>) -> Result<Self, AppendError> {
        let mut json_rest = serde_json::to_string(&draft).map_err(|err| AppendError::Draft(err.to_string()))?;
        json_rest.remove(0);
        let name = draft.update_type.as_deref().unwrap_or(draft.kind.as_str()).into();
        Ok(Self { name, topics: draft.topics.into(), private: draft.private, key, json_rest })
    }
}
