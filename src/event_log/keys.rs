//! Finds the event of a happening that a source reports again.
//!
//! Keys are random, so that an index that took each one at once would change another page for each event: that was
//! more than half of all that was written. Each event has its key; the index gets it later, out of a bounded store in
//! memory, in the order of the keys, so that those that go in together lie together. What a process had not yet put
//! into the index, the next one does before it begins.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{DedupKey, Position};
use crate::event::EventId;

/// Keys that wait for their place in the index: some 400 KB. Few in tests, so that they get to the index, too.
const WAITING_MAX: usize = if cfg!(test) { 16 } else { 8192 };

/// The keys of all events.
#[derive(Debug)]
pub(super) struct Keys {
    /// What is in the log and may not be in the index.
    waiting: BTreeMap<DedupKey, Position>,
    /// The greatest key that went into the index since the round began.
    reached: Option<DedupKey>,
    /// The newest event when the round began: at its end, all keys up to there are in the index.
    round_from: Position,
}

/// What one commit changes, once it is on disk.
#[derive(Debug, Default)]
pub(super) struct KeyChanges {
    new: HashMap<DedupKey, Position>,
    indexed: Vec<DedupKey>,
    round_ended: bool,
}

impl KeyChanges {
    /// An event of this commit has a key.
    pub(super) fn add(&mut self, key: DedupKey, position: Position) {
        self.new.insert(key, position);
    }
}

impl Keys {
    /// Completes the index of a log that was just opened, whose newest event is `head`.
    pub(super) fn load(connection: &mut Connection, head: Position) -> rusqlite::Result<Self> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute(
            "INSERT OR REPLACE INTO event_key SELECT dedup_key, position FROM event
                WHERE position > (SELECT keys_position FROM totals) AND dedup_key IS NOT NULL ORDER BY dedup_key",
            [],
        )?;
        transaction.execute("UPDATE totals SET keys_position = ?1", [head.0])?;
        transaction.commit()?;
        Ok(Self { waiting: BTreeMap::new(), reached: None, round_from: head })
    }

    /// The event of this key, also of the commit that is being made.
    pub(super) fn find(
        &self,
        changes: &KeyChanges,
        transaction: &Transaction<'_>,
        key: DedupKey,
    ) -> rusqlite::Result<Option<EventId>> {
        let mut position = changes.new.get(&key).or_else(|| self.waiting.get(&key)).map(|position| position.0);
        if position.is_none() {
            let mut statement = transaction.prepare_cached("SELECT position FROM event_key WHERE key = ?1")?;
            position = statement.query_row([key.as_bytes()], |row| row.get(0)).optional()?;
        }
        let Some(position) = position else { return Ok(None) };
        let mut statement = transaction.prepare_cached("SELECT id FROM event WHERE position = ?1")?;
        let id: Option<[u8; 16]> = statement.query_row([position], |row| row.get(0)).optional()?;
        Ok(id.map(EventId::from_bytes))
    }

    /// Puts into the index what would be too much to wait, with the commit that brings new keys.
    pub(super) fn index(&self, changes: &mut KeyChanges, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let due = (self.waiting.len() + changes.new.len()).saturating_sub(WAITING_MAX);
        if due == 0 {
            return Ok(());
        }
        let mut statement = transaction.prepare_cached("INSERT OR REPLACE INTO event_key VALUES (?1, ?2)")?;
        let reached = self.reached.map_or(Bound::Unbounded, Bound::Excluded);
        for (key, position) in self.waiting.range((reached, Bound::Unbounded)).take(due) {
            statement.execute(params![key.as_bytes(), position.0])?;
            changes.indexed.push(*key);
        }
        // Fewer were left than are due: a new round begins with the next commit.
        changes.round_ended = changes.indexed.len() < due;
        if changes.round_ended {
            transaction.prepare_cached("UPDATE totals SET keys_position = ?1")?.execute([self.round_from.0])?;
        }
        Ok(())
    }

    /// The commit is on disk, and `head` is its newest event.
    pub(super) fn committed(&mut self, changes: KeyChanges, head: Position) {
        let KeyChanges { new, indexed, round_ended } = changes;
        self.reached = indexed.last().copied().or(self.reached);
        for key in indexed {
            self.waiting.remove(&key);
        }
        self.waiting.extend(new);
        if round_ended {
            (self.reached, self.round_from) = (None, head);
        }
    }

    /// Takes the keys of events that are being removed out of the index.
    pub(super) fn unindex(transaction: &Transaction<'_>, gone: &[(DedupKey, Position)]) -> rusqlite::Result<()> {
        let sql = "DELETE FROM event_key WHERE key = ?1 AND position = ?2";
        let mut statement = transaction.prepare_cached(sql)?;
        gone.iter().try_for_each(|(key, position)| statement.execute(params![key.as_bytes(), position.0]).map(drop))
    }

    /// The events of these keys are removed.
    pub(super) fn removed(&mut self, gone: &[(DedupKey, Position)]) {
        for (key, position) in gone {
            if self.waiting.get(key) == Some(position) {
                self.waiting.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::event::{AccountName, Draft, EventKind, Origin};
    use crate::event_log::{Append, Appended, EventLog, EventLogConfig, schema};

    fn key(number: u32) -> DedupKey {
        DedupKey::of(&[&number.to_be_bytes()])
    }

    async fn append(log: &EventLog, numbers: impl Iterator<Item = u32>) -> Vec<Appended> {
        let account = AccountName::parse("alice").unwrap();
        let mut append = Append::new();
        for number in numbers {
            append.push(Draft::in_mailbox(EventKind::MessageNew, Origin::Smtp, &account, "INBOX"), Some(key(number)));
        }
        log.append(append).await.unwrap()
    }

    async fn ids(log: &EventLog, numbers: std::ops::Range<u32>, repeated: bool) -> Vec<EventId> {
        let appended = append(log, numbers).await;
        assert!(appended.iter().all(|one| one.repeated == repeated), "{appended:?}");
        appended.iter().map(|one| one.id).collect()
    }

    fn count(folder: &Path, what: &str) -> u32 {
        let connection = Connection::open(folder.join(EventLog::FILE)).unwrap();
        connection.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get(0)).unwrap()
    }

    #[tokio::test]
    async fn what_happened_is_known_whether_its_key_waits_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let config = EventLogConfig::default();
        let log = EventLog::open(folder.path(), &config).unwrap();
        let mut made = Vec::new();
        // Many rounds, in commits of several sizes.
        for at in 0..60_u32 {
            made.extend(ids(&log, at * 7..at * 7 + at % 8, false).await);
            made.extend(ids(&log, at * 7 + at % 8..at * 7 + 7, false).await);
            if at % 13 == 0 {
                assert_eq!(ids(&log, 0..at * 7, true).await, made[..at as usize * 7]);
            }
        }
        assert_eq!(ids(&log, 0..420, true).await, made);
        let indexed = count(folder.path(), "event_key");
        assert!((404..420).contains(&indexed), "{indexed}");
        log.close().await;
        let log = EventLog::open(folder.path(), &config).unwrap();
        assert_eq!(count(folder.path(), "event_key"), 420);
        assert_eq!(ids(&log, 0..420, true).await, made);
    }

    #[tokio::test]
    async fn the_keys_of_what_retention_removed_are_gone() {
        let folder = tempfile::tempdir().unwrap();
        let config = EventLogConfig { retention_events: 10, ..EventLogConfig::default() };
        for _ in 0..3 {
            let log = EventLog::open(folder.path(), &config).unwrap();
            for at in 0..150 {
                ids(&log, at..at + 1, false).await;
            }
            // All of them are too old now, and those behind them wait.
            ids(&log, 1000..1020, false).await;
            log.close().await;
            let log = EventLog::open(folder.path(), &EventLogConfig { retention_events: 0, ..config.clone() }).unwrap();
            log.close().await;
            assert_eq!(count(folder.path(), "event_key WHERE position NOT IN (SELECT position FROM event)"), 0);
        }
    }

    #[tokio::test]
    async fn a_log_of_the_format_before_is_completed() {
        let folder = tempfile::tempdir().unwrap();
        let connection = Connection::open(folder.path().join(EventLog::FILE)).unwrap();
        schema::MIGRATIONS[..3].iter().for_each(|step| connection.execute_batch(step).unwrap());
        connection.pragma_update(None, "user_version", 3).unwrap();
        let insert = "INSERT INTO event VALUES (1, ?1, 0, 'MessageNew', 1, '', ?2, '{}')";
        connection.execute(insert, params![[7_u8; 16], key(1).as_bytes()]).unwrap();
        drop(connection);
        let log = EventLog::open(folder.path(), &EventLogConfig::default()).unwrap();
        assert_eq!(ids(&log, 1..2, true).await, [EventId::from_bytes([7; 16])]);
        ids(&log, 2..3, false).await;
    }
}
