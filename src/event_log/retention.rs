//! Removes the oldest events, in steps so small that an append hardly waits for one.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::keys::Keys;
use super::topics::TopicTable;
use super::{DedupKey, EventLogConfig, Position};
use crate::event::EventId;

/// Events that one step removes: with 100, a commit beside it waits for some 13 ms at most.
const STEP: i64 = 100;
/// Bytes beyond what is to be kept that do not wait.
const BEHIND_BYTES: u64 = 1 << 20;
/// Free pages that one step gives back to the file system.
const VACUUM_PAGES: u32 = 64;

/// What is kept, and the newest event that was removed.
#[derive(Debug)]
pub(super) struct Retention {
    age: Duration,
    events_max: u64,
    bytes_max: u64,
    events: u64,
    bytes: u64,
    floor: (Position, Option<EventId>),
    /// When the oldest event was committed, if that is known.
    oldest: Option<Timestamp>,
}

impl Retention {
    pub(super) fn load(connection: &Connection, config: &EventLogConfig) -> rusqlite::Result<Self> {
        connection.query_row("SELECT events, bytes, floor_position, floor_id FROM totals", [], |row| {
            let floor_id: Option<[u8; 16]> = row.get(3)?;
            Ok(Self {
                age: config.retention_age,
                events_max: config.retention_events,
                bytes_max: config.retention_bytes,
                events: row.get(0)?,
                bytes: row.get(1)?,
                floor: (Position(row.get(2)?), floor_id.map(EventId::from_bytes)),
                oldest: None,
            })
        })
    }

    /// The newest event that was removed.
    pub(super) fn floor(&self) -> (Position, Option<EventId>) {
        self.floor
    }

    /// Records, in the transaction that adds them, how much is kept.
    pub(super) fn count(transaction: &Transaction<'_>, events: u64, bytes: u64) -> rusqlite::Result<()> {
        let sql = "UPDATE totals SET events = events + ?1, bytes = bytes + ?2";
        transaction.prepare_cached(sql)?.execute(params![events, bytes]).map(drop)
    }

    /// Events were committed.
    pub(super) fn add(&mut self, events: u64, bytes: u64) {
        self.events += events;
        self.bytes += bytes;
    }

    /// Whether a whole step is due because of what was committed since the last: that does not wait for its time.
    pub(super) fn is_behind(&self) -> bool {
        self.events.saturating_sub(self.events_max) >= STEP.unsigned_abs()
            || self.bytes.saturating_sub(self.bytes_max) >= BEHIND_BYTES
    }

    /// Removes some of what is due; says whether there is more. A failure is logged, and tried again later.
    pub(super) fn step(
        &mut self,
        connection: &mut Connection,
        topics: &TopicTable,
        keys: &mut Keys,
        now: Timestamp,
    ) -> bool {
        let removed = self
            .due(connection, now)
            .and_then(|due| if due { self.remove(connection, topics, keys, now) } else { Ok(false) });
        removed.unwrap_or_else(|err| {
            tracing::warn!(error = %err, "old events could not be removed from the event log, will try again");
            false
        })
    }

    fn limit(&self, now: Timestamp) -> Timestamp {
        now.checked_sub(self.age).unwrap_or(Timestamp::MIN)
    }

    fn due(&mut self, connection: &Connection, now: Timestamp) -> rusqlite::Result<bool> {
        if self.events == 0 {
            return Ok(false);
        }
        if self.oldest.is_none() {
            let mut statement = connection.prepare_cached("SELECT time_ms FROM event ORDER BY position LIMIT 1")?;
            let oldest: Option<i64> = statement.query_row([], |row| row.get(0)).optional()?;
            self.oldest = oldest.and_then(|ms| Timestamp::from_millisecond(ms).ok());
        }
        let too_old = self.oldest.is_some_and(|oldest| oldest < self.limit(now));
        Ok(too_old || self.events > self.events_max || self.bytes > self.bytes_max)
    }

    fn remove(
        &mut self,
        connection: &mut Connection,
        topics: &TopicTable,
        keys: &mut Keys,
        now: Timestamp,
    ) -> rusqlite::Result<bool> {
        let limit_ms = self.limit(now).as_millisecond();
        let (mut events, mut bytes, mut floor) = (0_u64, 0_u64, self.floor);
        let (mut names, mut gone): (Vec<String>, Vec<(DedupKey, Position)>) = Default::default();
        let transaction = connection.transaction()?;
        {
            let sql = "SELECT position, id, time_ms, topics, length(CAST(json AS BLOB)), dedup_key FROM event
                ORDER BY position LIMIT ?1";
            let mut statement = transaction.prepare_cached(sql)?;
            let mut rows = statement.query([STEP])?;
            while let Some(row) = rows.next()? {
                let time_ms: i64 = row.get(2)?;
                let kept = (self.events - events, self.bytes.saturating_sub(bytes));
                if time_ms >= limit_ms && kept.0 <= self.events_max && kept.1 <= self.bytes_max {
                    break;
                }
                let position: i64 = row.get(0)?;
                let topics: String = row.get(3)?;
                for name in topics.lines() {
                    let sql = "DELETE FROM event_topic WHERE position = ?1 AND topic_id = (SELECT id FROM topic WHERE name = ?2)";
                    transaction.prepare_cached(sql)?.execute(params![position, name])?;
                }
                names.extend(topics.lines().map(str::to_owned));
                let key: Option<[u8; 16]> = row.get(5)?;
                gone.extend(key.map(|key| (DedupKey::from_bytes(key), Position(position))));
                events += 1;
                bytes += row.get::<_, u64>(4)?;
                floor = (Position(position), Some(EventId::from_bytes(row.get(1)?)));
            }
        }
        transaction.prepare_cached("DELETE FROM event WHERE position <= ?1")?.execute([floor.0.0])?;
        let sql = "UPDATE totals SET events = events - ?1, bytes = bytes - ?2, floor_position = ?3, floor_id = ?4";
        let floor_id = floor.1.as_ref().map(EventId::as_bytes);
        transaction.prepare_cached(sql)?.execute(params![events, bytes.min(self.bytes), floor.0.0, floor_id])?;
        Keys::unindex(&transaction, &gone)?;
        let unused = drop_unused_topics(&transaction, names)?;
        transaction.commit()?;
        keys.removed(&gone);
        for name in unused {
            topics.remove(&name);
        }
        (self.events, self.bytes) = (self.events - events, self.bytes.saturating_sub(bytes));
        (self.floor, self.oldest) = (floor, None);
        connection.pragma(None, "incremental_vacuum", VACUUM_PAGES, |_| Ok(()))?;
        Ok(events > 0)
    }
}

/// Forgets topics that no event has any more, so that publishers who make up topics do not fill the table for ever.
fn drop_unused_topics(transaction: &Transaction<'_>, mut names: Vec<String>) -> rusqlite::Result<Vec<String>> {
    names.sort_unstable();
    names.dedup();
    let sql = "DELETE FROM topic WHERE name = ?1
        AND NOT EXISTS (SELECT 1 FROM event_topic WHERE topic_id = topic.id)";
    let mut statement = transaction.prepare_cached(sql)?;
    let mut unused = Vec::new();
    for name in names {
        if statement.execute([&name])? > 0 {
            unused.push(name);
        }
    }
    Ok(unused)
}
