//! The event log: durable, ordered, one writer.
//!
//! A source appends drafts together with its own checkpoint; both are on disk when [`EventLog::append`] returns, or
//! neither is. Appends that wait at the same time share one commit. Committed events go, in order, to the
//! hub, and can be read back by topic after any event ID. What subscribers need in memory is rebuilt from here.

mod append;

pub use append::{Append, AppendError, Appended, DedupKey};

/// The log. Cheap to clone; clones share the one writer.
#[derive(Debug, Clone)]
pub struct EventLog {}

/// Why something could not be read from the log.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot read the event log: {0}")]
pub struct ReadError(String);

impl EventLog {
    /// Commits the events and checkpoints of `append`, all or none, and returns one answer for each draft, in order.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was committed then.
    ///
    /// # Cancel safety
    /// Dropping the future does not withdraw what was asked for: it may still be committed.
    pub async fn append(&self, append: Append) -> Result<Vec<Appended>, AppendError> {
        let _ = append;
        Err(AppendError::Closed)
    }

    /// The value of a source's checkpoint, as it was last committed.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn checkpoint(&self, key: &str) -> Result<Option<String>, ReadError> {
        let _ = key;
        Ok(None)
    }
}
