//! The outbox: messages that go on to another server, until that has taken them or they are given up.
//!
//! It lies in the log's own file, so that a message and its events become durable in one transaction. What is settled
//! is remembered for a week by its key alone: a sender who repeats a message because the 250 was lost must not have it
//! sent on twice. Sending is left to others; this only says what is due.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use tokio::sync::Notify;

use super::{DedupKey, ReadError};

/// For how long a message that is settled is recognised: longer than any server tries again (RFC 5321 §4.5.4.1).
const REMEMBERED: Duration = Duration::from_hours(7 * 24);
/// Settled messages that are forgotten at once, so that no commit waits long for it.
const FORGOTTEN_MAX: usize = 100;

/// A message that goes on, to be added with its events by [`super::Append::send_on`].
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The reverse-path; empty for the null path.
    pub mail_from: String,
    /// The message, without what is put before it for each recipient.
    pub message: Bytes,
    /// Whom it goes to. Never empty.
    pub to: Vec<OutgoingTo>,
    /// What may wait together with it; past that nothing of the append is committed.
    pub limits: OutboxLimits,
}

/// One recipient of an [`Outgoing`].
#[derive(Debug, Clone)]
pub struct OutgoingTo {
    /// The forward-path.
    pub address: String,
    /// What is put before the message: header fields, each with its CRLF.
    pub head: String,
    /// For whoever sends it, kept as it is.
    pub note: String,
    /// Recognises the same message to the same recipient, waiting or settled.
    pub key: Option<DedupKey>,
}

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Recipients.
    pub recipients: u64,
    /// Octets of messages.
    pub bytes: u64,
}

/// What waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutboxTotals {
    /// Recipients.
    pub recipients: u64,
    /// Octets of messages.
    pub bytes: u64,
}

/// A message to one recipient, in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutboxId(i64);

/// A message to one recipient that waits to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What it is called.
    pub id: OutboxId,
    /// The reverse-path; empty for the null path.
    pub mail_from: String,
    /// The forward-path.
    pub address: String,
    /// What is put before the message.
    pub head: String,
    /// As it was given.
    pub note: String,
    /// Since when it waits.
    pub queued: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
}

/// What there is to do.
#[derive(Debug, Default)]
pub struct OutboxDue {
    /// To be sent now, the longest due first.
    pub due: Vec<Waiting>,
    /// Waiting for too long.
    pub expired: Vec<Waiting>,
    /// When the next is due that is not due yet.
    pub next: Option<Timestamp>,
    /// Since when the oldest waits.
    pub oldest: Option<Timestamp>,
}

/// What became of an attempt; see [`super::Append::settle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// It is over, whether it was sent or given up.
    Over,
    /// It is tried again then.
    Later(Timestamp),
}

/// What is known of the outbox without asking the disk, and who waits for it to change.
#[derive(Debug, Default)]
pub(super) struct OutboxState {
    recipients: AtomicU64,
    bytes: AtomicU64,
    added: Notify,
}

impl OutboxState {
    /// A commit has changed it.
    pub(super) fn committed(&self, totals: OutboxTotals) {
        self.bytes.store(totals.bytes, Ordering::Relaxed);
        if self.recipients.swap(totals.recipients, Ordering::Relaxed) < totals.recipients {
            self.added.notify_one();
        }
    }

    pub(super) fn totals(&self) -> OutboxTotals {
        let (recipients, bytes) = (self.recipients.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        OutboxTotals { recipients, bytes }
    }

    pub(super) async fn added(self: Arc<Self>) {
        self.added.notified().await;
    }
}

impl OutboxTotals {
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT (SELECT count(*) FROM outgoing WHERE settled_ms IS NULL),
            (SELECT coalesce(sum(size), 0) FROM outgoing_message)";
        connection.query_row(sql, [], |row| Ok(Self { recipients: row.get(0)?, bytes: row.get(1)? }))
    }

    /// Whether a message may wait with what waits already.
    pub(super) fn admit(&self, outgoing: &Outgoing) -> bool {
        let recipients = self.recipients.saturating_add(outgoing.to.len() as u64);
        let bytes = self.bytes.saturating_add(outgoing.message.len() as u64);
        recipients <= outgoing.limits.recipients && bytes <= outgoing.limits.bytes
    }

    /// Adds a message, for those of its recipients for whom it is not there already.
    pub(super) fn add(&mut self, to: &Transaction<'_>, outgoing: &Outgoing, now: Timestamp) -> rusqlite::Result<()> {
        let mut new = Vec::new();
        for recipient in &outgoing.to {
            if !is_known(to, recipient)? {
                new.push(recipient);
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let sql = "INSERT INTO outgoing_message (mail_from, size, message) VALUES (?1, ?2, ?3)";
        let size = outgoing.message.len() as u64;
        to.prepare_cached(sql)?.execute(params![outgoing.mail_from, size, &outgoing.message[..]])?;
        let message = to.last_insert_rowid();
        let sql = "INSERT INTO outgoing (message_id, address, head, note, dedup_key, queued_ms, due_ms, attempts)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, 0)";
        let mut statement = to.prepare_cached(sql)?;
        for OutgoingTo { address, head, note, key } in &new {
            let key = key.as_ref().map(DedupKey::as_bytes);
            statement.execute(params![message, address, head, note, key, now.as_millisecond()])?;
        }
        self.recipients += new.len() as u64;
        self.bytes += size;
        Ok(())
    }

    /// Records what became of an attempt.
    pub(super) fn settle(
        &mut self,
        on: &Transaction<'_>,
        OutboxId(id): OutboxId,
        settlement: Settlement,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        if let Settlement::Later(due) = settlement {
            let sql = "UPDATE outgoing SET due_ms = ?2, attempts = attempts + 1 WHERE id = ?1";
            return on.prepare_cached(sql)?.execute(params![id, due.as_millisecond()]).map(drop);
        }
        let sql = "SELECT message_id FROM outgoing WHERE id = ?1 AND settled_ms IS NULL";
        let Some(message) = on.prepare_cached(sql)?.query_row([id], |row| row.get::<_, i64>(0)).optional()? else {
            return Ok(());
        };
        let sql = "UPDATE outgoing SET settled_ms = ?2, message_id = NULL, head = '', note = '' WHERE id = ?1";
        on.prepare_cached(sql)?.execute(params![id, now.as_millisecond()])?;
        self.recipients = self.recipients.saturating_sub(1);
        let sql = "DELETE FROM outgoing_message WHERE id = ?1
            AND NOT EXISTS (SELECT 1 FROM outgoing WHERE message_id = ?1) RETURNING size";
        let freed = on.prepare_cached(sql)?.query_row([message], |row| row.get::<_, u64>(0)).optional()?;
        self.bytes = self.bytes.saturating_sub(freed.unwrap_or(0));
        // What has no key cannot be recognised.
        on.prepare_cached("DELETE FROM outgoing WHERE id = ?1 AND dedup_key IS NULL")?.execute([id])?;
        let before = now.checked_sub(REMEMBERED).unwrap_or(Timestamp::MIN).as_millisecond();
        let sql = "DELETE FROM outgoing WHERE id IN
            (SELECT id FROM outgoing WHERE settled_ms < ?1 ORDER BY settled_ms LIMIT ?2)";
        on.prepare_cached(sql)?.execute(params![before, FORGOTTEN_MAX]).map(drop)
    }
}

fn is_known(transaction: &Transaction<'_>, recipient: &OutgoingTo) -> rusqlite::Result<bool> {
    let Some(key) = &recipient.key else { return Ok(false) };
    transaction.prepare_cached("SELECT 1 FROM outgoing WHERE dedup_key = ?1")?.exists([key.as_bytes()])
}

const COLUMNS: &str = "SELECT outgoing.id, mail_from, address, head, note, queued_ms, attempts
    FROM outgoing JOIN outgoing_message ON outgoing_message.id = message_id WHERE settled_ms IS NULL";

/// What is due at `now`, at most `max` of it, and what waits since before `expired_before`.
pub(super) fn due(
    connection: &Connection,
    now: Timestamp,
    expired_before: Timestamp,
    max: usize,
) -> rusqlite::Result<OutboxDue> {
    let read = |sql: &str, at: Timestamp| {
        let mut statement = connection.prepare_cached(sql)?;
        let rows = statement.query_map(params![at.as_millisecond(), max], waiting)?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    let moment = |sql: &str, params: &[&dyn rusqlite::ToSql]| {
        let ms: Option<i64> = connection.prepare_cached(sql)?.query_row(params, |row| row.get(0))?;
        Ok::<_, rusqlite::Error>(ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()))
    };
    let next = "SELECT min(due_ms) FROM outgoing WHERE settled_ms IS NULL AND due_ms > ?1";
    Ok(OutboxDue {
        due: read(&format!("{COLUMNS} AND due_ms <= ?1 ORDER BY due_ms, outgoing.id LIMIT ?2"), now)?,
        expired: read(&format!("{COLUMNS} AND queued_ms < ?1 ORDER BY queued_ms LIMIT ?2"), expired_before)?,
        next: moment(next, &[&now.as_millisecond()])?,
        oldest: moment("SELECT min(queued_ms) FROM outgoing WHERE settled_ms IS NULL", &[])?,
    })
}

fn waiting(row: &Row<'_>) -> rusqlite::Result<Waiting> {
    Ok(Waiting {
        id: OutboxId(row.get(0)?),
        mail_from: row.get(1)?,
        address: row.get(2)?,
        head: row.get(3)?,
        note: row.get(4)?,
        queued: Timestamp::from_millisecond(row.get(5)?).unwrap_or(Timestamp::MIN),
        attempts: row.get(6)?,
    })
}

/// The message that goes to a recipient, unless it is settled.
pub(super) fn message(connection: &Connection, OutboxId(id): OutboxId) -> rusqlite::Result<Option<Bytes>> {
    let sql = "SELECT message FROM outgoing_message WHERE id = (SELECT message_id FROM outgoing WHERE id = ?1)";
    let message: Option<Vec<u8>> = connection.prepare_cached(sql)?.query_row([id], |row| row.get(0)).optional()?;
    Ok(message.map(Bytes::from))
}

impl super::EventLog {
    /// What there is to send at `now`, and what waits since before `expired_before`; at most `max` of each.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn outbox_due(
        &self,
        now: Timestamp,
        expired_before: Timestamp,
        max: usize,
    ) -> Result<OutboxDue, ReadError> {
        self.shared.readers.run(move |connection, _| due(connection, now, expired_before, max)).await
    }

    /// The message that goes to a recipient, unless that is settled.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn outbox_message(&self, id: OutboxId) -> Result<Option<Bytes>, ReadError> {
        self.shared.readers.run(move |connection, _| message(connection, id)).await
    }

    /// How much waits in the outbox.
    pub fn outbox_totals(&self) -> OutboxTotals {
        self.shared.outbox.totals()
    }

    /// Waits until something was added to the outbox; at once if that has happened since the last time. For one waiter.
    pub async fn outbox_added(&self) {
        Arc::clone(&self.shared.outbox).added().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{AccountName, Draft, EventKind, Origin};
    use crate::event_log::{Append, AppendError, EventLog, EventLogConfig, Position, Selection};

    const LIMITS: OutboxLimits = OutboxLimits { recipients: 3, bytes: 20 };

    fn to(address: &str, key: Option<&[u8]>) -> OutgoingTo {
        let key = key.map(|key| DedupKey::of(&[key]));
        OutgoingTo { address: address.into(), head: "Delivered-To: a\r\n".into(), note: "n".into(), key }
    }

    fn append(message: &'static [u8], to: Vec<OutgoingTo>) -> Append {
        let account = AccountName::parse("alice").unwrap();
        let mut append = Append::event(Draft::in_mailbox(EventKind::MessageNew, Origin::Smtp, &account, "INBOX"));
        append.send_on(Outgoing { mail_from: "x@y".into(), message: message.into(), to, limits: LIMITS });
        append
    }

    async fn waiting(log: &EventLog) -> Vec<Waiting> {
        log.outbox_due(Timestamp::MAX, Timestamp::MIN, 10).await.unwrap().due
    }

    async fn settle(log: &EventLog, id: OutboxId, settlement: Settlement) {
        let mut append = Append::new();
        append.settle(id, settlement);
        log.append(append).await.unwrap();
    }

    #[tokio::test]
    async fn a_message_waits_through_a_restart_until_each_recipient_is_settled() {
        let folder = tempfile::tempdir().unwrap();
        let log = EventLog::open(folder.path(), &EventLogConfig::default()).unwrap();
        log.append(append(b"message", vec![to("b@x", None), to("c@x", None)])).await.unwrap();
        log.close().await;
        let log = EventLog::open(folder.path(), &EventLogConfig::default()).unwrap();
        assert_eq!(log.outbox_totals(), OutboxTotals { recipients: 2, bytes: 7 });
        let both = waiting(&log).await;
        assert_eq!(both.iter().map(|one| one.address.as_str()).collect::<Vec<_>>(), ["b@x", "c@x"]);
        settle(&log, both[0].id, Settlement::Over).await;
        assert_eq!(log.outbox_message(both[0].id).await.unwrap(), None);
        assert_eq!(log.outbox_message(both[1].id).await.unwrap().unwrap(), "message");
        let later = Timestamp::now() + Duration::from_hours(1);
        settle(&log, both[1].id, Settlement::Later(later)).await;
        let now = log.outbox_due(Timestamp::now(), Timestamp::MIN, 10).await.unwrap();
        assert_eq!((now.due.len(), now.next.map(Timestamp::as_millisecond)), (0, Some(later.as_millisecond())));
        assert_eq!(waiting(&log).await[0].attempts, 1);
        let expired = log.outbox_due(Timestamp::now(), Timestamp::MAX, 10).await.unwrap().expired;
        assert_eq!(expired.len(), 1);
        settle(&log, both[1].id, Settlement::Over).await;
        settle(&log, both[1].id, Settlement::Over).await;
        assert_eq!(log.outbox_totals(), OutboxTotals::default());
    }

    #[tokio::test]
    async fn what_was_sent_on_is_not_sent_on_again() {
        let folder = tempfile::tempdir().unwrap();
        let log = EventLog::open(folder.path(), &EventLogConfig::default()).unwrap();
        for _ in 0..2 {
            log.append(append(b"m", vec![to("b@x", Some(b"k"))])).await.unwrap();
        }
        let one = waiting(&log).await;
        assert_eq!(one.len(), 1);
        settle(&log, one[0].id, Settlement::Over).await;
        log.append(append(b"m", vec![to("b@x", Some(b"k")), to("c@x", None)])).await.unwrap();
        assert_eq!(waiting(&log).await.iter().map(|one| one.address.as_str()).collect::<Vec<_>>(), ["c@x"]);
    }

    #[test]
    fn what_was_sent_on_is_remembered_for_a_week() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = crate::event_log::schema::open(&folder.path().join("log.db")).unwrap();
        let transaction = connection.transaction().unwrap();
        let day = |n: i64| Timestamp::UNIX_EPOCH + Duration::from_hours(24) * u32::try_from(n).unwrap();
        let mut totals = OutboxTotals::default();
        let add = |totals: &mut OutboxTotals, key: Option<&[u8]>, now| {
            let to = vec![to("b@x", key)];
            let outgoing = Outgoing { mail_from: "x@y".into(), message: "m".into(), to, limits: LIMITS };
            totals.add(&transaction, &outgoing, now).unwrap();
            let found = due(&transaction, now, Timestamp::MIN, 10).unwrap().due;
            found.last().map(|waiting| waiting.id)
        };
        let settle =
            |totals: &mut OutboxTotals, id, now| totals.settle(&transaction, id, Settlement::Over, now).unwrap();
        let first = add(&mut totals, Some(b"k"), day(0)).unwrap();
        settle(&mut totals, first, day(0));
        assert_eq!(add(&mut totals, Some(b"k"), day(6)), None);
        for now in [day(6), day(8)] {
            let other = add(&mut totals, None, now).unwrap();
            settle(&mut totals, other, now);
        }
        assert!(add(&mut totals, Some(b"k"), day(8)).is_some());
        let rows: i64 = transaction.query_row("SELECT count(*) FROM outgoing", [], |row| row.get(0)).unwrap();
        assert_eq!((rows, totals), (1, OutboxTotals { recipients: 1, bytes: 1 }), "and nothing else is left");
    }

    #[tokio::test]
    async fn a_full_outbox_refuses_the_message_with_its_events_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let log = EventLog::open(folder.path(), &EventLogConfig::default()).unwrap();
        log.append(append(b"0123456789", vec![to("b@x", None)])).await.unwrap();
        let refused = log.append(append(b"01234567890", vec![to("b@x", None)])).await;
        assert!(matches!(refused, Err(AppendError::OutboxFull)), "{refused:?}");
        let refused = log.append(append(b"1", vec![to("b@x", None), to("c@x", None), to("d@x", None)])).await;
        assert!(matches!(refused, Err(AppendError::OutboxFull)), "{refused:?}");
        let (fits, full) = tokio::join!(
            log.append(append(b"1", vec![to("c@x", None)])),
            log.append(append(b"01234567890", vec![to("b@x", None)])),
        );
        assert!(fits.is_ok() && full.is_err(), "one commit, two answers");
        let all = Selection::unrestricted([crate::event::TopicMatcher::all()]);
        assert_eq!(log.read_after(&all, Position::START, 10).await.unwrap().events.len(), 2);
        tokio::time::timeout(Duration::from_secs(5), log.outbox_added()).await.expect("it was told of what came");
    }
}
