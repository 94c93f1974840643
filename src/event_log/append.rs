//! What is asked of the log's writer, and what it answers.

use std::io;
use std::path::PathBuf;

use crate::event::{Draft, EventId};

/// Recognises the same happening when a source reports it again, after a crash between commit and reply.
///
/// For IMAP made of account, mailbox, UIDVALIDITY, UID and kind; for SMTP of recipient and message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
}

impl Append {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One event that needs no recognising.
    pub fn event(draft: Draft) -> Self {
        Self { drafts: vec![(draft, None)], checkpoints: Vec::new() }
    }

    /// Adds an event; one with a key that the log has already is not written again.
    pub fn push(&mut self, draft: Draft, key: Option<DedupKey>) {
        self.drafts.push((draft, key));
    }

    /// Adds a source's position: `key` is the source's own name for it, `value` replaces what was there.
    pub fn checkpoint(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.checkpoints.push((key.into(), value.into()));
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.drafts.is_empty() && self.checkpoints.is_empty()
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
    Io(PathBuf, #[source] std::sync::Arc<io::Error>),
    /// postrider is shutting down.
    #[error("the event log is closed, postrider is shutting down")]
    Closed,
}
