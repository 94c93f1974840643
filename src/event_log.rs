//! The event log: durable, ordered, one writer.
//!
//! A source appends drafts together with its own checkpoint; both are on disk when [`EventLog::append`] returns, or
//! neither is. Appends that wait at the same time share one commit. Committed events go, in order, to every
//! [`Tail`], and can be read back by topic after any position. What subscribers need in memory is rebuilt from here.
//!
//! Inside is SQLite: one thread owns the writing connection, a few read-only connections serve replays. A lock file
//! keeps a second process out, since positions and IDs are given out from memory.

mod append;
mod config;
mod keys;
mod outbox;
mod read;
mod retention;
mod schema;
mod sightings;
mod tail;
mod topics;
mod writer;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use fs2::FileExt;
use tokio::sync::{Semaphore, oneshot};

pub use append::{Append, AppendError, Appended, DedupKey};
pub use config::{EventLogConfig, EventLogConfigError};
pub use outbox::{OutboxDue, OutboxId, OutboxLimits, OutboxTotals, Outgoing, OutgoingTo, Settlement, Waiting};
pub use read::{Page, ReadError, Selection, Start};
pub use sightings::{MessageKey, Sighting};
pub use tail::{Tail, TailBatch};

use self::append::Prepared;
use self::outbox::OutboxState;
use self::read::Readers;
use self::tail::Tails;
use self::topics::TopicTable;
use self::writer::{Command, Writer};
use crate::event::{AccountName, EventId, Topic};

/// An event's place in the order of this log. Rises by one with each event; 0 is before the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(i64);

impl Position {
    /// Before everything.
    pub const START: Self = Self(0);

    /// For tests of what is done with positions.
    #[cfg(test)]
    pub(crate) fn at(position: i64) -> Self {
        Self(position)
    }

    /// How many events were committed up to here.
    pub fn count(self) -> u64 {
        self.0.unsigned_abs()
    }

    /// The position before this one.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0 - 1)
    }
}

/// An event as the log has it: what is needed to route it, and its JSON, ready to be sent.
#[derive(Debug, Clone)]
pub struct Committed {
    /// Its place in the log.
    pub position: Position,
    /// Its public ID.
    pub id: EventId,
    /// The name of its type: the kind, or what its publisher called it.
    pub name: Box<str>,
    /// What it is about.
    pub topics: Box<[Topic]>,
    /// Whether only subscribers whose token covers it may see it.
    pub private: bool,
    /// The whole event ([`crate::event::Event`]) as JSON on one line.
    pub json: Bytes,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The data folder cannot be made or used.
    #[error("cannot use the data folder {0}; give another with --data-dir")]
    Folder(PathBuf, #[source] io::Error),
    /// Another process has it.
    #[error("another postrider is using the data folder {0}; stop it, or give another with --data-dir")]
    InUse(PathBuf),
    /// It was written by a later version of postrider.
    #[error(
        "the event log {path} has format {found}, this postrider knows formats up to {known}; \
         run the newer postrider, or give another --data-dir"
    )]
    Newer {
        /// The log's file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format that is understood.
        known: i64,
    },
    /// SQLite refused.
    #[error("cannot open the event log {0}")]
    Sqlite(PathBuf, #[source] rusqlite::Error),
    /// No thread for the writer.
    #[error("cannot start the event log's writer")]
    Thread(#[source] io::Error),
}

/// The log. Cheap to clone; clones share the one writer.
#[derive(Clone)]
pub struct EventLog {
    shared: Arc<Shared>,
}

struct Shared {
    folder: PathBuf,
    commands: SyncSender<Command>,
    /// One permit for each place in `commands`, so that sending never blocks a runtime thread.
    places: Arc<Semaphore>,
    tails: Tails,
    readers: Readers,
    outbox: Arc<OutboxState>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl std::fmt::Debug for EventLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLog").finish_non_exhaustive()
    }
}

impl EventLog {
    /// The log's file in the data folder.
    pub const FILE: &'static str = "postrider.db";

    /// Opens the log in `folder`, which is made (for this user alone) if it is not there.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(folder: &Path, config: &EventLogConfig) -> Result<Self, OpenError> {
        make_folder(folder).map_err(|err| OpenError::Folder(folder.to_owned(), err))?;
        let lock = lock(folder)?;
        let path = folder.join(Self::FILE);
        let connection = schema::open(&path)?;
        let topics = TopicTable::default();
        let tails = Tails::default();
        let readers = Readers::new(path.clone(), topics.clone());
        let closing = tails.closing();
        let queue_max = config.queue_max.get();
        let (commands, receiver) = std::sync::mpsc::sync_channel(queue_max);
        let outbox = Arc::<OutboxState>::default();
        let writer = Writer::new(connection, path.clone(), topics, tails.clone(), outbox.clone(), config)
            .map_err(|err| OpenError::Sqlite(path, err))?;
        let thread = std::thread::Builder::new()
            .name("event-log".into())
            .spawn(move || {
                // Also by a panic: who follows the log must notice that nothing will come any more.
                let _closing = closing;
                writer.run(&receiver);
                // Held until the file is closed: the next process must not come earlier.
                drop(lock);
            })
            .map_err(OpenError::Thread)?;
        let shared = Shared {
            folder: folder.to_owned(),
            commands,
            places: Arc::new(Semaphore::new(queue_max)),
            tails,
            readers,
            outbox,
            writer: Mutex::new(Some(thread)),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The data folder that it is in, whose lock it holds: nobody else's files are there.
    pub fn folder(&self) -> &Path {
        &self.shared.folder
    }

    /// Commits the events and checkpoints of `append`, all or none, and returns one answer for each draft, in order.
    /// Waits while the writer's queue is full.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was committed then.
    ///
    /// # Cancel safety
    /// Dropping the future does not withdraw what was asked for: it may still be committed.
    pub async fn append(&self, append: Append) -> Result<Vec<Appended>, AppendError> {
        let prepared = Prepared::new(append)?;
        let place = self.shared.places.clone().acquire_owned().await.map_err(|_| AppendError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let command = Command::Append { prepared, reply, place };
        // A place was acquired: the only way to fail is that the writer is gone.
        self.shared.commands.try_send(command).map_err(|_| AppendError::Closed)?;
        answer.await.map_err(|_| AppendError::Closed)?
    }

    /// The value of a source's checkpoint, as it was last committed.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn checkpoint(&self, key: &str) -> Result<Option<String>, ReadError> {
        self.shared.readers.checkpoint(key.to_owned()).await
    }

    /// Where a message was seen, in any mailbox of the account, oldest first.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn sightings(&self, account: &AccountName, message: MessageKey) -> Result<Vec<Sighting>, ReadError> {
        self.shared.readers.sightings(account.clone(), message).await
    }

    /// Follows what is committed from now on.
    pub fn tail(&self) -> Tail {
        self.shared.tails.add()
    }

    /// The newest committed event that tails have been told of: its position, and its ID unless there has never been
    /// one.
    pub fn head(&self) -> (Position, Option<EventId>) {
        self.shared.tails.head()
    }

    /// Finds where a subscriber that has seen everything up to `last_event_id` goes on.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn locate(&self, last_event_id: EventId) -> Result<Start, ReadError> {
        self.shared.readers.locate(last_event_id).await
    }

    /// Reads what `selection` admits after a position, oldest first, at most `events_max` of it.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn read_after(
        &self,
        selection: &Selection,
        after: Position,
        events_max: usize,
    ) -> Result<Page, ReadError> {
        self.shared.readers.after(selection.clone(), after, events_max).await
    }

    /// Reads the newest events that `selection` admits, oldest of them first.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn read_newest(&self, selection: &Selection, events_max: usize) -> Result<Vec<Committed>, ReadError> {
        self.shared.readers.newest(selection.clone(), events_max).await
    }

    /// Ends the writer after what it has been given; later appends get [`AppendError::Closed`]. Tails end.
    pub async fn close(&self) {
        self.shared.places.close();
        let thread = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        let commands = self.shared.commands.clone();
        let joined = tokio::task::spawn_blocking(move || {
            // Only fails when the writer is gone already.
            let _gone = commands.send(Command::Close).is_err();
            thread.join()
        });
        if !matches!(joined.await, Ok(Ok(()))) {
            tracing::error!("the event log's writer ended by a panic");
        }
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn lock(folder: &Path) -> Result<File, OpenError> {
    let unusable = |err| OpenError::Folder(folder.to_owned(), err);
    let path = folder.join("postrider.lock");
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(unusable)?;
    match FileExt::try_lock_exclusive(&file) {
        Ok(()) => Ok(file),
        Err(err) if err.kind() == fs2::lock_contended_error().kind() => Err(OpenError::InUse(folder.to_owned())),
        Err(err) => Err(unusable(err)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::{AccountName, Draft, Event, EventKind, Origin, TopicMatcher};

    fn draft(account: &str, mailbox: &str) -> Draft {
        let account = AccountName::parse(account).unwrap();
        Draft::in_mailbox(EventKind::MessageNew, Origin::Smtp, &account, mailbox)
    }

    fn open(folder: &Path) -> EventLog {
        EventLog::open(folder, &EventLogConfig::default()).unwrap()
    }

    fn all() -> Selection {
        Selection::unrestricted([TopicMatcher::all()])
    }

    fn topic(text: &str) -> Selection {
        Selection::unrestricted([TopicMatcher::parse(text).unwrap()])
    }

    async fn ids(log: &EventLog, selection: &Selection) -> Vec<EventId> {
        let page = log.read_after(selection, Position::START, 1000).await.unwrap();
        page.events.iter().map(|event| event.id).collect()
    }

    #[tokio::test]
    async fn what_was_appended_is_there_after_reopening_with_its_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let log = open(folder.path());
        let mut append = Append::event(draft("alice", "INBOX"));
        append.push(draft("bob", "Lists/rust"), None);
        append.checkpoint("imap/alice/INBOX", "17");
        let appended = log.append(append).await.unwrap();
        log.close().await;
        assert!(matches!(log.append(Append::event(draft("a", "b"))).await, Err(AppendError::Closed)));

        let log = open(folder.path());
        assert_eq!(ids(&log, &all()).await, appended.iter().map(|a| a.id).collect::<Vec<_>>());
        assert_eq!(log.checkpoint("imap/alice/INBOX").await.unwrap().as_deref(), Some("17"));
        assert_eq!(log.head().1, Some(appended[1].id));
        let page = log.read_after(&topic("mail/bob/{mailbox}"), Position::START, 10).await.unwrap();
        let event: Event = serde_json::from_slice(&page.events[0].json).unwrap();
        assert_eq!((event.id, event.draft), (appended[1].id, draft("bob", "Lists/rust")));
        let third = log.append(Append::event(draft("alice", "INBOX"))).await.unwrap()[0].id;
        assert!(third > appended[1].id);
    }

    #[tokio::test]
    async fn the_same_happening_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let log = open(folder.path());
        let key = DedupKey::of(&[b"alice", b"INBOX", b"1", b"2"]);
        let mut append = Append::new();
        append.push(draft("alice", "INBOX"), Some(key));
        append.push(draft("alice", "INBOX"), Some(key));
        let first = log.append(append).await.unwrap();
        assert_eq!((first[0].repeated, first[1]), (false, Appended { id: first[0].id, repeated: true }));
        assert_ne!(DedupKey::of(&[b"ab", b"c"]), DedupKey::of(&[b"a", b"bc"]));
        log.close().await;
        let log = open(folder.path());
        let mut again = Append::new();
        again.push(draft("alice", "INBOX"), Some(key));
        assert_eq!(log.append(again).await.unwrap()[0], first[1]);
        assert_eq!(ids(&log, &all()).await.len(), 1);
    }

    #[tokio::test]
    async fn pages_by_topic_and_by_walk_give_the_same_order_without_gap() {
        let folder = tempfile::tempdir().unwrap();
        let log = open(folder.path());
        for n in 0..300 {
            let mut event = draft(["alice", "bob", "carol"][n % 3], "INBOX");
            event.topics.push(Topic::parse(&format!("extra/{}", n % 7)).unwrap());
            log.append(Append::event(event)).await.unwrap();
        }
        let several = Selection::unrestricted(
            ["mail/alice/INBOX", "mail/bob/{mailbox}", "extra/3"].map(|text| TopicMatcher::parse(text).unwrap()),
        );
        for selection in [several, all()] {
            let whole = ids(&log, &selection).await;
            let (mut paged, mut after) = (Vec::new(), Position::START);
            loop {
                let page = log.read_after(&selection, after, 7).await.unwrap();
                paged.extend(page.events.iter().map(|event| event.id));
                after = page.scanned_to;
                if after == page.head {
                    break;
                }
            }
            assert_eq!(paged, whole);
            assert!(whole.is_sorted() && whole.len() > 200);
            let newest: Vec<_> = log.read_newest(&selection, 5).await.unwrap().iter().map(|e| e.id).collect();
            assert_eq!(newest, whole[whole.len() - 5..]);
        }
    }

    #[tokio::test]
    async fn private_events_need_a_token_that_covers_them() {
        let folder = tempfile::tempdir().unwrap();
        let log = open(folder.path());
        log.append(Append::event(draft("alice", "INBOX"))).await.unwrap();
        log.append(Append::event(Draft { private: false, ..draft("bob", "INBOX") })).await.unwrap();
        let allowed: Arc<[TopicMatcher]> = Arc::new([TopicMatcher::parse("mail/carol/{mailbox}").unwrap()]);
        let selection = Selection { allowed, ..all() };
        let seen = log.read_after(&selection, Position::START, 10).await.unwrap().events;
        assert_eq!(seen.iter().map(|e| e.topics[0].as_str()).collect::<Vec<_>>(), ["mail/bob/INBOX"]);
    }

    #[tokio::test]
    async fn what_is_rare_is_found_under_what_everybody_else_got() {
        let folder = tempfile::tempdir().unwrap();
        let log = open(folder.path());
        let rare = log.append(Append::event(draft("alice", "INBOX"))).await.unwrap()[0].id;
        let mut others = Append::new();
        for _ in 0..5000 {
            others.push(draft("bob", "INBOX"), None);
        }
        log.append(others).await.unwrap();
        let own = [TopicMatcher::parse("mail/alice/{mailbox}").unwrap()];
        let selection = Selection::of_token([TopicMatcher::all()], own, false);
        let newest = log.read_newest(&selection, 10).await.unwrap();
        assert_eq!(newest.iter().map(|event| event.id).collect::<Vec<_>>(), [rare]);
        let page = log.read_after(&selection, Position::START, 10).await.unwrap();
        assert_eq!(page.scanned_to, page.head, "one look suffices");
    }

    #[tokio::test]
    async fn a_page_of_large_events_has_few_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let log = open(folder.path());
        let mut append = Append::new();
        for _ in 0..5 {
            append.push(Draft { data: Some("x".repeat(700_000).into()), ..draft("alice", "INBOX") }, None);
        }
        let appended = log.append(append).await.unwrap();
        for selection in [topic("mail/alice/INBOX"), all()] {
            let (mut seen, mut after) = (Vec::new(), Position::START);
            loop {
                let page = log.read_after(&selection, after, 100).await.unwrap();
                assert!(page.events.len() <= 2, "{} events", page.events.len());
                seen.extend(page.events.iter().map(|event| event.id));
                after = page.scanned_to;
                if after == page.head {
                    break;
                }
            }
            assert_eq!(seen, appended.iter().map(|appended| appended.id).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn a_tail_gets_what_is_committed_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let log = open(folder.path());
        let mut tail = log.tail();
        let appends: Vec<_> = (0..100).map(|_| log.append(Append::event(draft("alice", "INBOX")))).collect();
        let appended = futures::future::try_join_all(appends).await.unwrap();
        let mut told = Vec::new();
        while told.len() < 100 {
            let batch = tokio::time::timeout(Duration::from_secs(5), tail.next()).await.unwrap().unwrap();
            told.extend(batch.events.iter().map(|event| event.id));
        }
        assert_eq!(told, ids(&log, &all()).await);
        let mut answered: Vec<_> = appended.iter().map(|answers| answers[0].id).collect();
        answered.sort_unstable();
        assert_eq!(told, answered);
        log.close().await;
        assert!(tail.next().await.is_none());
    }

    #[tokio::test]
    async fn retention_by_count_keeps_the_newest_and_says_what_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let config = EventLogConfig { retention_events: 10, ..EventLogConfig::default() };
        let log = EventLog::open(folder.path(), &config).unwrap();
        let mut made = Vec::new();
        for n in 0..250 {
            made.push(log.append(Append::event(draft(&format!("user{n}"), "INBOX"))).await.unwrap()[0].id);
        }
        log.close().await;
        let log = EventLog::open(folder.path(), &config).unwrap();
        let kept = ids(&log, &all()).await;
        assert!(kept.len() >= 10 && kept.len() <= 110 && made.ends_with(&kept), "{} kept", kept.len());
        assert_eq!(log.locate(made[0]).await.unwrap(), Start { after: Position::START, found: false });
        assert!(log.locate(kept[0]).await.unwrap().found);
        let newest_gone = made[made.len() - kept.len() - 1];
        assert!(log.locate(newest_gone).await.unwrap().found, "nothing is missing after the newest that is gone");
        assert!(ids(&log, &topic("mail/user0/INBOX")).await.is_empty());
    }

    #[tokio::test]
    async fn retention_of_everything_does_not_give_positions_twice() {
        let folder = tempfile::tempdir().unwrap();
        let config = EventLogConfig { retention_age: Duration::ZERO, ..EventLogConfig::default() };
        let log = EventLog::open(folder.path(), &config).unwrap();
        let first = log.append(Append::event(draft("alice", "INBOX"))).await.unwrap()[0].id;
        tokio::time::sleep(Duration::from_millis(3)).await;
        log.close().await;
        let log = EventLog::open(folder.path(), &config).unwrap();
        assert_eq!(log.head().0, Position(1));
        let second = log.append(Append::event(draft("alice", "INBOX"))).await.unwrap()[0].id;
        assert!(second > first);
        assert_eq!(log.head().0, Position(2));
    }

    #[tokio::test]
    async fn a_writer_that_panics_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let log = open(folder.path());
        let mut tail = log.tail();
        log.shared.commands.send(Command::Panic).unwrap();
        let end = tokio::time::timeout(Duration::from_secs(5), tail.next()).await.expect("the tail to end in 5 s");
        assert!(end.is_none());
        assert!(matches!(log.append(Append::event(draft("a", "b"))).await, Err(AppendError::Closed)));
    }

    #[tokio::test]
    async fn what_is_on_a_very_long_topic_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let log = open(folder.path());
        let appended = log.append(Append::event(draft("alice", &"\u{90e8}".repeat(120)))).await.unwrap();
        for selection in [all(), topic("mail/alice/{mailbox}")] {
            assert_eq!(ids(&log, &selection).await, [appended[0].id]);
        }
    }

    #[tokio::test]
    async fn a_second_process_and_a_newer_format_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let log = open(folder.path());
        let refused = EventLog::open(folder.path(), &EventLogConfig::default()).unwrap_err();
        assert!(matches!(refused, OpenError::InUse(_)), "{refused}");
        log.close().await;
        let connection = rusqlite::Connection::open(folder.path().join(EventLog::FILE)).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        let refused = EventLog::open(folder.path(), &EventLogConfig::default()).unwrap_err();
        assert!(matches!(refused, OpenError::Newer { found: 99, known: 1..99, .. }), "{refused}");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn nobody_else_can_read_the_files() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("state");
        let log = open(&folder);
        log.append(Append::event(draft("alice", "INBOX"))).await.unwrap();
        for file in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let mode = file.metadata().unwrap().permissions().mode();
            assert!(file.file_name() == "postrider.lock" || mode.trailing_zeros() >= 6, "{file:?}: {mode:o}");
        }
    }
}
