//! Where a session's message is while it comes in: in memory up to a bound, then in a file of the spool.
//!
//! Both are bounded for all sessions together. When there is no memory left, messages go into files from their first
//! octet on, which is slower and nothing worse; when there is no space left in the spool either, they are refused for
//! now.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::budget::{Budget, Share};
use super::collector::Text;
use super::config::SmtpConfig;
use crate::source::intake::{Message, Outcome, Spool, SpoolFile, WHOLE_MAX};

/// What one read takes: a good part of a socket's buffer, so that a large message needs few of them.
pub(super) const READ_BYTES: usize = 64 * 1024;
/// Octets that are collected for one write to a file.
const BLOCK_BYTES: usize = 256 * 1024;

/// What all sessions share.
#[derive(Debug, Clone)]
pub(super) struct Room {
    memory: Arc<Budget>,
    disk: Arc<Budget>,
    spool: Spool,
    message_memory_bytes_max: usize,
    write_timeout: Duration,
}

/// What one session has of it, and its message as far as that is not in the session.
#[derive(Debug)]
pub(super) struct Holding {
    room: Room,
    memory: Share,
    disk: Share,
    file: Option<SpoolFile>,
}

/// Why a message could not be held.
#[derive(Debug, thiserror::Error)]
pub(super) enum HoldError {
    /// All messages together would take more than they may.
    #[error("the messages that are on their way take all of `smtp.spool_bytes_max`")]
    Full,
    /// The file could not be written.
    #[error("cannot write to the spool in the data folder")]
    Io(#[from] io::Error),
    /// Writing took too long.
    #[error("the spool in the data folder takes too long to be written")]
    Slow,
}

impl HoldError {
    /// What is said of the message.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Full => Outcome::NoSpace,
            Self::Io(err) if matches!(err.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                Outcome::NoSpace
            }
            Self::Io(_) | Self::Slow => Outcome::Failed,
        }
    }
}

impl Room {
    /// As `config` says. Out of the memory, there is always some for the messages that are read back.
    pub(super) fn new(config: &SmtpConfig, spool: Spool) -> Self {
        let largest = config.listeners().map(|listener| listener.limits.message_bytes_max).max().unwrap_or_default();
        let whole = largest.max(config.message_bytes_max.get()).saturating_mul(WHOLE_MAX);
        Self {
            memory: Budget::new(config.memory_bytes_max.get().saturating_sub(whole)),
            disk: Budget::new(config.spool_bytes_max.get()),
            spool,
            message_memory_bytes_max: config.message_memory_bytes_max.get(),
            write_timeout: config.append_timeout,
        }
    }

    /// Nothing, of a session that begins.
    pub(super) fn holding(&self) -> Holding {
        Holding { memory: self.memory.share(), disk: self.disk.share(), file: None, room: self.clone() }
    }
}

impl Holding {
    /// Whether the session may keep the `len` octets that it has in a buffer of `capacity`; `handed_out` were taken from
    /// it before. If not, they go to [`Holding::write`].
    pub(super) fn may_keep(&mut self, handed_out: usize, len: usize, capacity: usize) -> bool {
        if handed_out == 0 {
            self.drop_file(); // It was of a message that was given up.
        }
        let whole_max = self.room.message_memory_bytes_max;
        let len_max = if handed_out == 0 { whole_max } else { whole_max.min(BLOCK_BYTES) };
        // One more read must fit, or the buffer would grow beyond the limit before it is looked at again.
        let fits = len == 0 || len.saturating_add(READ_BYTES) <= len_max;
        fits && self.memory.resize(capacity)
    }

    /// Takes the end of what there is of the message by now.
    ///
    /// # Errors
    /// The message is then lost.
    ///
    /// # Cancel safety
    /// When the future is dropped, the message is lost.
    pub(super) async fn write(&mut self, block: Text) -> Result<(), HoldError> {
        let Text { handed_out, rest } = block;
        if handed_out == 0 {
            self.drop_file();
        }
        if !self.disk.resize(handed_out + rest.len()) {
            return Err(HoldError::Full);
        }
        let file = self.file.get_or_insert_with(|| self.room.spool.file());
        debug_assert_eq!(file.len(), handed_out, "blocks come in order");
        let written = timeout(self.room.write_timeout, file.append(rest)).await;
        self.memory.clear();
        Ok(written.map_err(|_| HoldError::Slow)??)
    }

    /// The message, now that its end is there. It counts until [`Holding::clear`].
    ///
    /// # Errors
    /// The message is then lost.
    ///
    /// # Cancel safety
    /// When the future is dropped, the message is lost.
    pub(super) async fn complete(&mut self, text: Text) -> Result<Message, HoldError> {
        if text.handed_out == 0 && self.memory.resize(text.rest.capacity()) {
            return Ok(text.rest.into());
        }
        self.write(text).await?;
        Ok(self.file.take().map_or_else(|| Vec::new().into(), Message::Spooled))
    }

    /// There is no message any more.
    pub(super) fn clear(&mut self) {
        self.memory.clear();
        self.drop_file();
    }

    fn drop_file(&mut self) {
        self.file = None;
        self.disk.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn room(folder: &tempfile::TempDir, settings: &str) -> Room {
        Room::new(&toml::from_str(settings).unwrap(), Spool::new(folder.path().join("spool")))
    }

    fn text(handed_out: usize, rest: &[u8]) -> Text {
        Text { handed_out, rest: rest.to_vec() }
    }

    #[tokio::test]
    async fn a_message_goes_to_the_spool_before_it_takes_more_than_its_memory() {
        let folder = tempfile::tempdir().unwrap();
        let mut holding = room(&folder, "").holding();
        assert!(holding.may_keep(0, MIB - READ_BYTES, MIB) && !holding.may_keep(0, MIB - READ_BYTES + 1, MIB));
        assert!(holding.may_keep(5, BLOCK_BYTES - READ_BYTES, BLOCK_BYTES));
        assert!(!holding.may_keep(5, BLOCK_BYTES - READ_BYTES + 1, BLOCK_BYTES));
        holding.clear();

        let small = holding.complete(text(0, b"small")).await.unwrap();
        assert!(matches!(small, Message::Memory(_)));
        assert!(!folder.path().join("spool").exists());
        holding.write(text(0, b"one, ")).await.unwrap();
        holding.write(text(5, b"two, ")).await.unwrap();
        let large = holding.complete(text(10, b"three")).await.unwrap();
        assert!(matches!(large, Message::Spooled(_)));
        assert_eq!(&large.whole().await.unwrap()[..], b"one, two, three");
    }

    #[tokio::test]
    async fn a_message_that_was_given_up_is_no_part_of_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let mut holding = room(&folder, "spool_bytes_max = 10").holding();
        holding.write(text(0, b"given up")).await.unwrap();
        holding.write(text(0, b"next, ")).await.unwrap();
        let next = holding.complete(text(6, b"end")).await.unwrap();
        assert_eq!(&next.whole().await.unwrap()[..], b"next, end");
        assert!(matches!(holding.write(text(9, b"!!")).await, Err(HoldError::Full)));
        assert!(holding.may_keep(0, 0, 0), "the next has begun");
        holding.write(text(0, b"0123456789")).await.unwrap();
    }

    #[tokio::test]
    async fn without_memory_the_spool_takes_everything() {
        let folder = tempfile::tempdir().unwrap();
        let room = room(&folder, "message_bytes_max = 10\nmemory_bytes_max = 140");
        let (mut first, mut second) = (room.holding(), room.holding());
        assert!(first.may_keep(0, 0, 60));
        assert!(!second.may_keep(0, 0, 60), "40 are for the messages that are read back");
        let message = second.complete(text(0, &[b'x'; 60])).await.unwrap();
        assert!(matches!(message, Message::Spooled(_)));
        first.clear();
        assert!(second.may_keep(0, 0, 60));
    }
}
