//! The log's file: how it is opened, and the format it has.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::OpenError;

/// Each step brings the file from the format of its index to the next; `user_version` says how many were taken.
pub(super) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE event (
        position INTEGER PRIMARY KEY,
        id BLOB NOT NULL UNIQUE,
        time_ms INTEGER NOT NULL,
        name TEXT NOT NULL,
        private INTEGER NOT NULL,
        topics TEXT NOT NULL, -- one a line
        dedup_key BLOB,
        json TEXT NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX event_dedup_key ON event (dedup_key) WHERE dedup_key IS NOT NULL;
    CREATE TABLE topic (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE event_topic (
        topic_id INTEGER NOT NULL,
        position INTEGER NOT NULL,
        PRIMARY KEY (topic_id, position)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE checkpoint (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    -- One row: what is kept, and the newest event that retention has removed.
    CREATE TABLE totals (
        events INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        floor_position INTEGER NOT NULL,
        floor_id BLOB
    ) STRICT;
    INSERT INTO totals VALUES (0, 0, 0, NULL);
",
    "
    -- Messages by what identifies them in every mailbox; gone_ms is 0 while they are where they were seen.
    CREATE TABLE sighting (
        number INTEGER PRIMARY KEY,
        account TEXT NOT NULL,
        message BLOB NOT NULL,
        mailbox TEXT NOT NULL,
        uid_validity INTEGER NOT NULL,
        uid INTEGER NOT NULL,
        gone_ms INTEGER NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX sighting_place ON sighting (account, mailbox, uid_validity, uid);
    CREATE INDEX sighting_message ON sighting (account, message);
    CREATE INDEX sighting_age ON sighting (account, number);
",
    "
    -- Messages that go on to another server, each once.
    CREATE TABLE outgoing_message (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        mail_from TEXT NOT NULL,
        size INTEGER NOT NULL,
        message BLOB NOT NULL
    ) STRICT;
    -- Their recipients; settled_ms says since when one is only remembered.
    CREATE TABLE outgoing (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        message_id INTEGER,
        address TEXT NOT NULL,
        head TEXT NOT NULL,
        note TEXT NOT NULL,
        dedup_key BLOB,
        queued_ms INTEGER NOT NULL,
        due_ms INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        settled_ms INTEGER
    ) STRICT;
    CREATE UNIQUE INDEX outgoing_dedup_key ON outgoing (dedup_key) WHERE dedup_key IS NOT NULL;
    CREATE INDEX outgoing_message_id ON outgoing (message_id) WHERE message_id IS NOT NULL;
    CREATE INDEX outgoing_due ON outgoing (due_ms) WHERE settled_ms IS NULL;
    CREATE INDEX outgoing_age ON outgoing (queued_ms) WHERE settled_ms IS NULL;
    CREATE INDEX outgoing_settled ON outgoing (settled_ms) WHERE settled_ms IS NOT NULL;
",
    "
    -- The events' keys, of all events up to keys_position and of some that are newer.
    CREATE TABLE event_key (key BLOB PRIMARY KEY, position INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    DROP INDEX event_dedup_key;
    ALTER TABLE totals ADD COLUMN keys_position INTEGER NOT NULL DEFAULT 0;
",
];

/// Pages in the write-ahead log before SQLite moves them into the file: 4 MB. Fewer and the pauses are shorter, in which
/// senders wait; with four times as many, one message of a hundred waited half as long again, and no more were taken. A
/// thread of its own for this made both worse.
const CHECKPOINT_PAGES: u32 = 1000;

/// Opens the writing connection and brings the file to the newest format.
pub(super) fn open(path: &Path) -> Result<Connection, OpenError> {
    let sqlite = |err| OpenError::Sqlite(path.to_owned(), err);
    restrict(path).map_err(|err| OpenError::Folder(path.to_owned(), err))?;
    let mut connection = Connection::open(path).map_err(sqlite)?;
    // Must come before the first table is made.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(sqlite)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(sqlite)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(sqlite)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(sqlite)?;
    connection.pragma_update(None, "cache_size", -16_384).map_err(sqlite)?;
    connection.set_prepared_statement_cache_capacity(32);
    migrate(&mut connection, path)?;
    Ok(connection)
}

/// Opens a connection that cannot write.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "cache_size", -8_192)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let sqlite = |err| OpenError::Sqlite(path.to_owned(), err);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sqlite)?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let newer = || OpenError::Newer { path: path.to_owned(), found, known };
    let steps = usize::try_from(found).ok().and_then(|taken| MIGRATIONS.get(taken..)).ok_or_else(newer)?;
    for step in steps {
        transaction.execute_batch(step).map_err(sqlite)?;
    }
    transaction.pragma_update(None, "user_version", known).map_err(sqlite)?;
    transaction.commit().map_err(sqlite)
}

/// Makes the file before SQLite does, readable by its owner alone: it holds what people wrote to each other. The
/// write-ahead log takes its mode from it.
fn restrict(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::File::options();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}
