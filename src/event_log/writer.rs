//! The one thread that writes: takes all that waits, commits once, tells the tails, answers all.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::append::{AppendError, Appended, Prepared, Row};
use super::keys::{KeyChanges, Keys};
use super::outbox::{OutboxState, OutboxTotals};
use super::retention::Retention;
use super::tail::Tails;
use super::topics::TopicTable;
use super::{Committed, EventLogConfig, Position, sightings};
use crate::event::{EventId, EventIdGenerator};

/// Events in one commit: bounds what one answer waits for.
const BATCH_EVENTS_MAX: usize = 1024;
/// How often retention looks, when nothing is committed.
const IDLE_TICK: Duration = Duration::from_secs(5);
/// Below this the volume counts as full, whatever name SQLite gives to the failure.
const FULL_BYTES: u64 = 1 << 20;

pub(super) type Reply = oneshot::Sender<Result<Vec<Appended>, AppendError>>;

/// What the writer is asked to do.
#[allow(
    clippy::large_enum_variant,
    reason = "appends are all that comes, but for the end; a box would cost each of them"
)]
pub(super) enum Command {
    Append {
        prepared: Prepared,
        reply: Reply,
        place: OwnedSemaphorePermit,
    },
    Close,
    #[cfg(test)]
    Panic,
}

pub(super) struct Writer {
    connection: Connection,
    path: PathBuf,
    topics: TopicTable,
    tails: Tails,
    retention: Retention,
    keys: Keys,
    ids: EventIdGenerator,
    /// Moves only when a commit has returned.
    head: Position,
    outbox: OutboxTotals,
    outbox_state: Arc<OutboxState>,
    /// The last commit failed: said once, and once more when it is over.
    failing: bool,
}

/// One batch on its way to disk. What it changes outside the database is undone when it fails.
struct Batch<'a> {
    transaction: Transaction<'a>,
    topics: &'a TopicTable,
    keys: &'a Keys,
    key_changes: KeyChanges,
    ids: &'a mut EventIdGenerator,
    now: Timestamp,
    /// `now` as events say it.
    time: String,
    head: Position,
    outbox: OutboxTotals,
    bytes: u64,
    committed: Vec<Arc<Committed>>,
    new_topics: Vec<Box<str>>,
}

/// What the writer has to know of a batch that is on disk.
struct Done {
    head: Position,
    key_changes: KeyChanges,
    outbox: OutboxTotals,
    bytes: u64,
    committed: Vec<Arc<Committed>>,
}

impl Writer {
    pub(super) fn new(
        mut connection: Connection,
        path: PathBuf,
        topics: TopicTable,
        tails: Tails,
        outbox_state: Arc<OutboxState>,
        config: &EventLogConfig,
    ) -> rusqlite::Result<Self> {
        let retention = Retention::load(&connection, config)?;
        let newest: Option<(i64, [u8; 16])> = connection
            .query_row("SELECT position, id FROM event ORDER BY position DESC LIMIT 1", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        let (head, newest) = match newest {
            Some((position, id)) => (Position(position), Some(EventId::from_bytes(id))),
            None => retention.floor(),
        };
        let mut statement = connection.prepare("SELECT name, id FROM topic")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            topics.insert(row.get(0)?, row.get(1)?);
        }
        drop(rows);
        drop(statement);
        let keys = Keys::load(&mut connection, head)?;
        tails.start_at(head, newest);
        let outbox = OutboxTotals::load(&connection)?;
        outbox_state.committed(outbox);
        Ok(Self {
            connection,
            path,
            topics,
            tails,
            retention,
            keys,
            ids: EventIdGenerator::after(newest),
            head,
            outbox,
            outbox_state,
            failing: false,
        })
    }

    /// Works until it is told to close, or nobody is left who could ask.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        let mut closing = false;
        let mut look_again = Instant::now();
        while !closing {
            let patience = look_again.saturating_duration_since(Instant::now());
            let mut batch = Vec::new();
            match commands.recv_timeout(patience) {
                Ok(Command::Close) | Err(RecvTimeoutError::Disconnected) => closing = true,
                Ok(Command::Append { prepared, reply, place }) => {
                    batch.push((prepared, reply, place));
                    closing = gather(&mut batch, commands);
                }
                Err(RecvTimeoutError::Timeout) => {}
                #[cfg(test)]
                Ok(Command::Panic) => panic!("a test asked for it"),
            }
            if !batch.is_empty() {
                self.commit(batch);
            }
            // One small step at a time, so that no append waits for more than one of them; and not after each append,
            // since a log at its limit would then wait for the disk again to remove a single event.
            if closing || look_again <= Instant::now() || self.retention.is_behind() {
                let more = self.retention.step(&mut self.connection, &self.topics, &mut self.keys, Timestamp::now());
                look_again = Instant::now() + if more { Duration::ZERO } else { IDLE_TICK };
            }
        }
        self.tails.close();
        if let Err((_, err)) = self.connection.close() {
            tracing::warn!(error = %err, "the event log's file was not closed cleanly; it is repaired at the next start");
        }
    }

    fn commit(&mut self, batch: Vec<(Prepared, Reply, OwnedSemaphorePermit)>) {
        let (mut asked, mut replies, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for (prepared, reply, place) in batch {
            asked.push(prepared);
            replies.push(reply);
            places.push(place);
        }
        let result = self.write(asked);
        // The queue has room again before the answers go out: whoever is answered can ask at once.
        drop(places);
        match result {
            Ok(answers) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the event log takes events again");
                }
                for (reply, answer) in replies.into_iter().zip(answers) {
                    // A source that no longer waits has its event all the same.
                    let _gone = reply.send(answer).is_err();
                }
            }
            Err(err) => {
                let err = self.append_error(err);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(error = %err, "nothing can be committed to the event log, senders are told to wait");
                }
                for reply in replies {
                    let _gone = reply.send(Err(err.clone())).is_err();
                }
            }
        }
    }

    fn write(&mut self, asked: Vec<Prepared>) -> rusqlite::Result<Vec<Result<Vec<Appended>, AppendError>>> {
        let now = Timestamp::now();
        let mut batch = Batch {
            transaction: self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?,
            topics: &self.topics,
            keys: &self.keys,
            key_changes: KeyChanges::default(),
            ids: &mut self.ids,
            now,
            time: format!("{now:.3}"),
            head: self.head,
            outbox: self.outbox,
            bytes: 0,
            committed: Vec::new(),
            new_topics: Vec::new(),
        };
        let written = asked.into_iter().map(|prepared| batch.append(prepared)).collect::<rusqlite::Result<Vec<_>>>();
        let (answers, done) = batch.finish(written)?;
        let Done { head, key_changes, outbox, bytes, committed } = done;
        self.head = head;
        self.keys.committed(key_changes, head);
        self.retention.add(committed.len() as u64, bytes);
        if std::mem::replace(&mut self.outbox, outbox) != outbox {
            self.outbox_state.committed(outbox);
        }
        self.tails.publish(&committed);
        Ok(answers)
    }

    fn append_error(&self, err: rusqlite::Error) -> AppendError {
        let full = err.sqlite_error_code() == Some(ErrorCode::DiskFull)
            || self.path.parent().is_some_and(|folder| fs2::available_space(folder).is_ok_and(|b| b < FULL_BYTES));
        if full {
            AppendError::NoSpace(self.path.clone())
        } else {
            AppendError::Sqlite(self.path.clone(), Arc::new(err))
        }
    }
}

/// Adds what else waits; says whether the log was asked to close behind it.
fn gather(batch: &mut Vec<(Prepared, Reply, OwnedSemaphorePermit)>, commands: &Receiver<Command>) -> bool {
    let mut events = 0;
    // Where mail comes faster than it can be committed, a larger commit costs each message less: who is about to ask may
    // do so first. Where nobody is, giving way takes no time.
    let mut has_given_way = false;
    while events < BATCH_EVENTS_MAX {
        match commands.try_recv() {
            Ok(Command::Append { prepared, reply, place }) => {
                events += prepared.rows.len().max(1);
                batch.push((prepared, reply, place));
            }
            Ok(Command::Close) => return true,
            #[cfg(test)]
            Ok(Command::Panic) => panic!("a test asked for it"),
            Err(_) if !has_given_way => {
                has_given_way = true;
                std::thread::yield_now();
            }
            Err(_) => break,
        }
    }
    false
}

impl Batch<'_> {
    /// Commits, if all of it was written.
    fn finish<T>(self, written: rusqlite::Result<T>) -> rusqlite::Result<(T, Done)> {
        let Self { transaction, topics, keys, mut key_changes, head, outbox, bytes, committed, new_topics, .. } = self;
        let done = written.and_then(|answers| {
            Retention::count(&transaction, committed.len() as u64, bytes)?;
            keys.index(&mut key_changes, &transaction)?;
            transaction.commit()?;
            Ok((answers, Done { head, key_changes, outbox, bytes, committed }))
        });
        if done.is_err() {
            for name in new_topics {
                topics.remove(&name);
            }
        }
        done
    }

    fn append(&mut self, prepared: Prepared) -> rusqlite::Result<Result<Vec<Appended>, AppendError>> {
        // Before anything else of it: the others of the batch go on.
        if prepared.outgoing.as_ref().is_some_and(|outgoing| !self.outbox.admit(outgoing)) {
            return Ok(Err(AppendError::OutboxFull));
        }
        let mut answers = Vec::with_capacity(prepared.rows.len());
        for row in prepared.rows {
            let known = row.key.map(|key| self.keys.find(&self.key_changes, &self.transaction, key)).transpose()?;
            answers.push(match known.flatten() {
                Some(id) => Appended { id, repeated: true },
                None => Appended { id: self.insert(row)?, repeated: false },
            });
        }
        for (key, value) in prepared.checkpoints {
            let sql = "INSERT INTO checkpoint VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
            self.transaction.prepare_cached(sql)?.execute(params![key, value])?;
        }
        for change in prepared.sightings {
            sightings::write(&self.transaction, &change, self.now)?;
        }
        if let Some(outgoing) = &prepared.outgoing {
            self.outbox.add(&self.transaction, outgoing, self.now)?;
        }
        for (id, settlement) in prepared.settled {
            self.outbox.settle(&self.transaction, id, settlement, self.now)?;
        }
        Ok(Ok(answers))
    }

    fn insert(&mut self, row: Row) -> rusqlite::Result<EventId> {
        let position = Position(self.head.0 + 1);
        let id = self.ids.next(self.now, rand::random());
        let json = format!("{{\"id\":\"{id}\",\"time\":\"{}\",{}", self.time, row.json_rest);
        let names: Vec<&str> = row.topics.iter().map(crate::event::Topic::as_str).collect();
        self.transaction.prepare_cached("INSERT INTO event VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?.execute(
            params![
                position.0,
                id.as_bytes(),
                self.now.as_millisecond(),
                row.name,
                row.private,
                names.join("\n"),
                row.key.as_ref().map(super::DedupKey::as_bytes),
                json
            ],
        )?;
        for topic in &row.topics {
            let number = self.topic_number(topic)?;
            // A publisher may name a topic twice.
            let sql = "INSERT OR IGNORE INTO event_topic VALUES (?1, ?2)";
            self.transaction.prepare_cached(sql)?.execute(params![number, position.0])?;
        }
        if let Some(key) = row.key {
            self.key_changes.add(key, position);
        }
        self.head = position;
        self.bytes += json.len() as u64;
        self.committed.push(Arc::new(Committed {
            position,
            id,
            name: row.name,
            topics: row.topics,
            private: row.private,
            json: Bytes::from(json),
        }));
        Ok(id)
    }

    fn topic_number(&mut self, topic: &crate::event::Topic) -> rusqlite::Result<i64> {
        if let Some(number) = self.topics.number(topic) {
            return Ok(number);
        }
        self.transaction.prepare_cached("INSERT INTO topic (name) VALUES (?1)")?.execute([topic.as_str()])?;
        let number = self.transaction.last_insert_rowid();
        self.topics.insert(topic.as_str().into(), number);
        self.new_topics.push(topic.as_str().into());
        Ok(number)
    }
}
