//! Reading back: by topic after a position, the newest, and where an event ID stands.
//!
//! A few read-only connections serve all replays; each read is one snapshot on a blocking thread. A page says how far
//! the log was looked at, so that a reader knows when it has seen everything that was committed at that moment.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, Statement, params};
use tokio::sync::Semaphore;

use super::topics::TopicTable;
use super::{Committed, MessageKey, Position, Sighting, schema, sightings};
use crate::event::{AccountName, EventId, Topic, TopicMatcher};

/// Reads that run at once: more would only queue for the two or four cores that there are.
const READERS: usize = 4;
/// With more topics than this, walking over all events is cheaper than one index search for each topic.
const TOPICS_MAX: usize = 64;
/// Rows that one walk looks at before it returns what it has, so that a rare topic does not hold a reader for long.
const WALK_ROWS_MAX: usize = 4096;
/// Bytes of JSON after which a page ends: a publisher's event may have 2 MiB, and a page may be in memory once for each
/// subscriber.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// Why something could not be read from the log.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot read the event log")]
pub struct ReadError(#[source] Arc<rusqlite::Error>);

impl From<rusqlite::Error> for ReadError {
    fn from(err: rusqlite::Error) -> Self {
        Self(Arc::new(err))
    }
}

/// Which events somebody gets: those on the topics that they asked for, as far as they may see them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selection {
    /// What was asked for; an event is wanted when one of its topics is matched.
    pub wanted: Arc<[TopicMatcher]>,
    /// What a token allows; a private event may be seen when one of its topics is matched.
    pub allowed: Arc<[TopicMatcher]>,
}

impl Selection {
    /// Everything on these topics, private or not: for postrider's own use.
    pub fn unrestricted(wanted: impl Into<Arc<[TopicMatcher]>>) -> Self {
        Self { wanted: wanted.into(), allowed: Arc::new([TopicMatcher::all()]) }
    }

    /// What the bearer of a token gets of what it asks for.
    ///
    /// Where nothing is public, "everything" can only be what the token allows, and that is then asked for: a few topics
    /// are looked up, where everybody's events would be walked over for somebody's.
    pub fn of_token(
        wanted: impl Into<Arc<[TopicMatcher]>>,
        allowed: impl Into<Arc<[TopicMatcher]>>,
        public: bool,
    ) -> Self {
        let (wanted, allowed) = (wanted.into(), allowed.into());
        if !public && wanted.iter().any(TopicMatcher::is_all) {
            return Self { wanted: allowed.clone(), allowed };
        }
        Self { wanted, allowed }
    }

    /// Whether an event is wanted and may be seen.
    pub fn admits(&self, topics: &[Topic], private: bool) -> bool {
        let any = |matchers: &[TopicMatcher]| topics.iter().any(|topic| matchers.iter().any(|m| m.matches(topic)));
        any(&self.wanted) && self.may_see(topics, private)
    }

    /// Whether an event may be seen.
    pub fn may_see(&self, topics: &[Topic], private: bool) -> bool {
        !private || topics.iter().any(|topic| self.allowed.iter().any(|m| m.matches(topic)))
    }
}

/// Where a subscriber goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// What it has seen: the first event that it gets is after this.
    pub after: Position,
    /// The asked event is in the log, so that nothing between is missing. Otherwise `after` is the beginning.
    pub found: bool,
}

/// Part of the log, as one subscriber may see it.
#[derive(Debug, Default)]
pub struct Page {
    /// What was admitted, in the order of the log.
    pub events: Vec<Committed>,
    /// Everything up to here was looked at.
    pub scanned_to: Position,
    /// The newest position when the page was read: there is more after `scanned_to` if this is larger.
    pub head: Position,
}

/// The read-only connections, opened as they are needed.
pub(super) struct Readers {
    path: PathBuf,
    topics: TopicTable,
    idle: Arc<Mutex<Vec<Connection>>>,
    slots: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(path: PathBuf, topics: TopicTable) -> Self {
        Self { path, topics, idle: Arc::default(), slots: Arc::new(Semaphore::new(READERS)) }
    }

    /// Runs `read` with a connection on a blocking thread.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Connection, &TopicTable) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ReadError> {
        let gone = || ReadError::from(rusqlite::Error::InvalidQuery);
        let slot = self.slots.clone().acquire_owned().await.map_err(|_| gone())?;
        let (path, topics, idle) = (self.path.clone(), self.topics.clone(), self.idle.clone());
        let task = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            let connection = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut connection = connection.map_or_else(|| schema::open_reader(&path), Ok)?;
            let result = read(&mut connection, &topics);
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            result
        });
        Ok(task.await.map_err(|_| gone())??)
    }

    pub(super) async fn checkpoint(&self, key: String) -> Result<Option<String>, ReadError> {
        self.run(move |connection, _| {
            let mut statement = connection.prepare_cached("SELECT value FROM checkpoint WHERE key = ?1")?;
            statement.query_row([key], |row| row.get(0)).optional()
        })
        .await
    }

    pub(super) async fn sightings(
        &self,
        account: AccountName,
        message: MessageKey,
    ) -> Result<Vec<Sighting>, ReadError> {
        self.run(move |connection, _| sightings::read(connection, &account, message)).await
    }

    pub(super) async fn locate(&self, id: EventId) -> Result<Start, ReadError> {
        self.run(move |connection, _| {
            let mut statement = connection.prepare_cached("SELECT position FROM event WHERE id = ?1")?;
            let position: Option<i64> = statement.query_row([id.as_bytes()], |row| row.get(0)).optional()?;
            // The newest event that retention removed is known too: nothing is missing after it.
            let sql = "SELECT floor_position FROM totals WHERE floor_id = ?1";
            let floor: Option<i64> =
                connection.prepare_cached(sql)?.query_row([id.as_bytes()], |row| row.get(0)).optional()?;
            let found = position.or(floor);
            Ok(Start { after: Position(found.unwrap_or(0)), found: found.is_some() })
        })
        .await
    }

    pub(super) async fn after(&self, selection: Selection, after: Position, max: usize) -> Result<Page, ReadError> {
        self.run(move |connection, topics| {
            let snapshot = connection.transaction()?;
            let head = head(&snapshot)?;
            // The snapshot is open: every topic in it is in the table by now.
            match topics.resolve(&selection.wanted, TOPICS_MAX) {
                Some(numbers) => by_topic(&snapshot, &numbers, &selection, after, max, head),
                None => walk(&snapshot, &selection, after, max, head),
            }
        })
        .await
    }

    pub(super) async fn newest(&self, selection: Selection, max: usize) -> Result<Vec<Committed>, ReadError> {
        self.run(move |connection, topics| {
            let snapshot = connection.transaction()?;
            let numbers = topics.resolve(&selection.wanted, TOPICS_MAX);
            let mut events = match numbers {
                Some(numbers) => {
                    let sql = "SELECT position FROM event_topic WHERE topic_id = ?1 AND position < ?2
                        ORDER BY position DESC LIMIT ?3";
                    let mut positions = positions(&snapshot, sql, &numbers, i64::MAX, max)?;
                    positions.reverse();
                    fetch(&snapshot, positions.into_iter().take(max), &selection)?.0
                }
                None => newest_of_all(&snapshot, &selection, max)?,
            };
            events.reverse();
            Ok(events)
        })
        .await
    }
}

fn head(connection: &Connection) -> rusqlite::Result<Position> {
    let sql = "SELECT coalesce((SELECT max(position) FROM event), (SELECT floor_position FROM totals))";
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).map(Position)
}

const COLUMNS: &str = "SELECT position, id, name, topics, private, json FROM event";

/// Merges what each topic has after a position.
fn by_topic(
    connection: &Connection,
    numbers: &[i64],
    selection: &Selection,
    after: Position,
    max: usize,
    head: Position,
) -> rusqlite::Result<Page> {
    let sql = "SELECT position FROM event_topic WHERE topic_id = ?1 AND position > ?2 ORDER BY position LIMIT ?3";
    let positions = positions(connection, sql, numbers, after.0, max)?;
    // Each topic gave at most `max`: only the first `max` of all are sure to have no gap between them.
    let last = positions.get(max.saturating_sub(1)).copied();
    let (events, cut_at) = fetch(connection, positions.into_iter().take(max), selection)?;
    Ok(Page { events, scanned_to: cut_at.or(last).map_or(head, Position), head })
}

/// The positions that each topic has on one side of `bound`, at most `max` for each, sorted.
fn positions(
    connection: &Connection,
    sql: &str,
    numbers: &[i64],
    bound: i64,
    max: usize,
) -> rusqlite::Result<Vec<i64>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut positions: Vec<i64> = Vec::new();
    for number in numbers {
        for position in statement.query_map(params![number, bound, max], |row| row.get(0))? {
            positions.push(position?);
        }
    }
    positions.sort_unstable();
    positions.dedup();
    Ok(positions)
}

/// The events at these positions that are admitted, and the position after which there was no more room.
fn fetch(
    connection: &Connection,
    positions: impl Iterator<Item = i64>,
    selection: &Selection,
) -> rusqlite::Result<(Vec<Committed>, Option<i64>)> {
    let mut statement = connection.prepare_cached(&format!("{COLUMNS} WHERE position = ?1"))?;
    let (mut events, mut bytes) = (Vec::new(), 0);
    for position in positions {
        let event = statement.query_row([position], committed)?;
        if selection.admits(&event.topics, event.private) {
            bytes += event.json.len();
            events.push(event);
            if bytes > PAGE_BYTES_MAX {
                return Ok((events, Some(position)));
            }
        }
    }
    Ok((events, None))
}

/// Looks at every event after a position.
fn walk(
    connection: &Connection,
    selection: &Selection,
    after: Position,
    max: usize,
    head: Position,
) -> rusqlite::Result<Page> {
    let sql = format!("{COLUMNS} WHERE position > ?1 ORDER BY position LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut page = Page { events: Vec::new(), scanned_to: head, head };
    let (mut looked_at, mut bytes) = (0, 0);
    let mut last = after;
    admitted(&mut statement, params![after.0, WALK_ROWS_MAX], selection, |position, event| {
        looked_at += 1;
        last = position;
        bytes += event.as_ref().map_or(0, |event| event.json.len());
        page.events.extend(event);
        page.events.len() < max && bytes <= PAGE_BYTES_MAX
    })?;
    if page.events.len() >= max || bytes > PAGE_BYTES_MAX || looked_at == WALK_ROWS_MAX {
        page.scanned_to = last;
    }
    Ok(page)
}

fn newest_of_all(connection: &Connection, selection: &Selection, max: usize) -> rusqlite::Result<Vec<Committed>> {
    let mut statement = connection.prepare_cached(&format!("{COLUMNS} ORDER BY position DESC LIMIT ?1"))?;
    let (mut events, mut bytes) = (Vec::new(), 0);
    admitted(&mut statement, params![WALK_ROWS_MAX], selection, |_, event: Option<Committed>| {
        bytes += event.as_ref().map_or(0, |event| event.json.len());
        events.extend(event);
        events.len() < max && bytes <= PAGE_BYTES_MAX
    })?;
    Ok(events)
}

/// Gives each row's position, and its event if it is admitted, to `take`, until that says no.
fn admitted(
    statement: &mut Statement<'_>,
    params: impl rusqlite::Params,
    selection: &Selection,
    mut take: impl FnMut(Position, Option<Committed>) -> bool,
) -> rusqlite::Result<()> {
    let mut rows = statement.query(params)?;
    while let Some(row) = rows.next()? {
        let topics = topics(row)?;
        let event = if selection.admits(&topics, row.get(4)?) { Some(committed(row)?) } else { None };
        if !take(Position(row.get(0)?), event) {
            break;
        }
    }
    Ok(())
}

fn topics(row: &Row<'_>) -> rusqlite::Result<Box<[Topic]>> {
    Ok(row.get_ref(3)?.as_str()?.lines().map(Topic::stored).collect())
}

fn committed(row: &Row<'_>) -> rusqlite::Result<Committed> {
    Ok(Committed {
        position: Position(row.get(0)?),
        id: EventId::from_bytes(row.get(1)?),
        name: row.get(2)?,
        topics: topics(row)?,
        private: row.get(4)?,
        json: Bytes::from(row.get::<_, String>(5)?),
    })
}
