//! Where messages were seen: how a message that was moved or copied is told from a new one.
//!
//! A source says, in the commit of a message's event, which key identifies the message in every mailbox of its account,
//! and later that it is gone. What is known of one account is bounded; the oldest is forgotten first.

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};

use crate::event::AccountName;

/// Sightings that are kept for an account. Each takes about a hundred bytes on disk.
const KEPT_MAX: i64 = 2048;
/// They are counted once in so many.
const COUNTED_EVERY: i64 = 64;

/// What identifies a message in every mailbox of an account: made of the server's identifier, else of what the message
/// says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageKey([u8; 16]);

impl MessageKey {
    /// The key that these parts make, in this order.
    pub fn of(parts: &[&[u8]]) -> Self {
        Self(*super::DedupKey::of(parts).as_bytes())
    }
}

/// A message in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// What identifies it.
    pub message: MessageKey,
    /// Where it was seen.
    pub mailbox: String,
    /// The mailbox's UIDVALIDITY.
    pub uid_validity: u32,
    /// Its UID there.
    pub uid: u32,
    /// When it was found to be no longer there.
    pub gone: Option<Timestamp>,
}

/// What a commit changes.
#[derive(Debug)]
pub(super) enum SightingChange {
    Seen(AccountName, Sighting),
    Gone(AccountName, String, u32, Vec<(u32, u32)>),
}

pub(super) fn write(transaction: &Transaction<'_>, change: &SightingChange, now: Timestamp) -> rusqlite::Result<()> {
    match change {
        SightingChange::Seen(account, seen) => {
            let sql = "INSERT INTO sighting (account, message, mailbox, uid_validity, uid, gone_ms) \
                       VALUES (?1, ?2, ?3, ?4, ?5, 0) ON CONFLICT DO NOTHING";
            let row = params![account.as_str(), seen.message.0, seen.mailbox, seen.uid_validity, seen.uid];
            transaction.prepare_cached(sql)?.execute(row)?;
            if transaction.last_insert_rowid() % COUNTED_EVERY == 0 {
                forget_oldest(transaction, account)?;
            }
        }
        SightingChange::Gone(account, mailbox, uid_validity, uids) => {
            let sql = "UPDATE sighting SET gone_ms = ?6 WHERE account = ?1 AND mailbox = ?2 AND uid_validity = ?3 \
                       AND uid BETWEEN ?4 AND ?5 AND gone_ms = 0";
            let mut statement = transaction.prepare_cached(sql)?;
            for (first, last) in uids {
                let row = params![account.as_str(), mailbox, uid_validity, first, last, now.as_millisecond()];
                statement.execute(row)?;
            }
        }
    }
    Ok(())
}

fn forget_oldest(transaction: &Transaction<'_>, account: &AccountName) -> rusqlite::Result<()> {
    let sql = "DELETE FROM sighting WHERE account = ?1 AND number <= \
               (SELECT number FROM sighting WHERE account = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)";
    transaction.prepare_cached(sql)?.execute(params![account.as_str(), KEPT_MAX])?;
    Ok(())
}

pub(super) fn read(
    connection: &Connection,
    account: &AccountName,
    message: MessageKey,
) -> rusqlite::Result<Vec<Sighting>> {
    let sql = "SELECT mailbox, uid_validity, uid, gone_ms FROM sighting WHERE account = ?1 AND message = ?2 \
               ORDER BY number LIMIT 100";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![account.as_str(), message.0], |row| {
        let gone: i64 = row.get(3)?;
        Ok(Sighting {
            message,
            mailbox: row.get(0)?,
            uid_validity: row.get(1)?,
            uid: row.get(2)?,
            gone: (gone != 0).then(|| Timestamp::from_millisecond(gone).unwrap_or(Timestamp::UNIX_EPOCH)),
        })
    })?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;
    use crate::event_log::{Append, EventLog, EventLogConfig};

    fn seen(message: MessageKey, mailbox: &str, uid: u32) -> Sighting {
        Sighting { message, mailbox: mailbox.to_owned(), uid_validity: 7, uid, gone: None }
    }

    #[tokio::test]
    async fn a_message_is_known_until_too_many_others_are() {
        let folder = tempdir().unwrap();
        let log = EventLog::open(folder.path(), &EventLogConfig::default()).unwrap();
        let (alice, bob) = (AccountName::parse("alice").unwrap(), AccountName::parse("bob").unwrap());
        let key = MessageKey::of(&[b"one"]);
        let mut append = Append::new();
        append.sighting(&alice, seen(key, "INBOX", 4));
        append.sighting(&alice, seen(key, "Lists", 9));
        append.sighting(&bob, seen(key, "INBOX", 4));
        append.gone(&alice, "INBOX", 7, vec![(1, 4)]);
        append.gone(&alice, "Lists", 8, vec![(1, 100)]);
        log.append(append).await.unwrap();
        let found = log.sightings(&alice, key).await.unwrap();
        assert_eq!(found.len(), 2);
        assert!(found[0].gone.is_some() && found[0].mailbox == "INBOX");
        assert_eq!(found[1], seen(key, "Lists", 9), "another UIDVALIDITY is another mailbox");

        let mut append = Append::new();
        for uid in 100..100 + 2 * u32::try_from(KEPT_MAX).unwrap() {
            append.sighting(&alice, seen(MessageKey::of(&[&uid.to_be_bytes()]), "INBOX", uid));
        }
        log.append(append).await.unwrap();
        assert_eq!(log.sightings(&alice, key).await.unwrap(), [], "the oldest are forgotten");
        assert_eq!(log.sightings(&bob, key).await.unwrap().len(), 1);
        log.close().await;
    }
}
