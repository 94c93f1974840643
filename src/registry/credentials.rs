//! Passwords and refresh tokens at rest: sealed with AES-256-GCM in a database of its own in the data folder.
//!
//! Not in the event log's file: that has one writer, the server, and these are written by commands too. What is sealed
//! is bound to its account and field, so that a row that was copied to another account does not open. Keys are read
//! when they are needed and kept no longer; a write reads them inside its transaction, so that a change of keys and a
//! write that meet leave nothing behind that no key opens.

mod key;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::key::{Key, KeySource};
use crate::event::AccountName;

/// `[credentials]`: what passwords and tokens in the data folder are sealed with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CredentialsConfig {
    /// A file with the key: 32 random bytes in base64, one key a line; the first seals, all open. Default: the
    /// variable `POSTRIDER_CREDENTIALS_KEY`, else a key that is made in the data folder.
    pub key_file: Option<PathBuf>,
}

/// Why a secret could not be read or stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// The key is not usable.
    #[error("cannot use the credentials key in {0}: {1}")]
    Key(String, String),
    /// The database is not usable.
    #[error("cannot use the credentials at {0}")]
    Sqlite(PathBuf, #[source] rusqlite::Error),
    /// The folder or the file could not be made.
    #[error("cannot make the credentials at {0}")]
    Create(PathBuf, #[source] std::io::Error),
    /// No key that is there opens it.
    #[error(
        "the stored {field} of account {account} cannot be opened: its key is not the one that is configured, or it was \
         changed; give the key back, or store it again with `postrider account {command} {account}`",
        field = .1.name(), account = .0, command = .1.command()
    )]
    Sealed(AccountName, Field),
    /// The system has no randomness to give.
    #[error("the system gave no random bytes")]
    Random,
    /// The work was abandoned: the process is ending.
    #[error("the credentials could not be read, postrider is stopping")]
    Stopping,
}

/// What is stored of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// Its password.
    Password,
    /// Its OAuth 2.0 refresh token, with whose it is.
    RefreshToken,
}

impl Field {
    fn key(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::RefreshToken => "refresh_token",
        }
    }

    fn of(key: &str) -> Option<Self> {
        [Self::Password, Self::RefreshToken].into_iter().find(|field| field.key() == key)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::RefreshToken => "refresh token",
        }
    }

    fn command(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::RefreshToken => "login",
        }
    }
}

/// The stored secrets. Cheap to clone; clones share.
#[derive(Clone)]
pub struct Credentials {
    path: PathBuf,
    keys: KeySource,
    connection: Arc<Mutex<Option<Connection>>>,
}

/// What a change of keys did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rekeyed {
    /// How many secrets were sealed again.
    pub secrets: usize,
    /// Whether a new key was made; else the first of the operator's keys was used.
    pub is_new_key: bool,
    /// Where the key is.
    pub key: String,
}

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS credential (
        account TEXT NOT NULL,
        field TEXT NOT NULL,
        key_id TEXT NOT NULL,
        nonce BLOB NOT NULL,
        sealed BLOB NOT NULL,
        PRIMARY KEY (account, field)
    ) STRICT, WITHOUT ROWID;
";

/// Longest wait for another process that writes.
const BUSY: Duration = Duration::from_secs(10);

impl Credentials {
    /// The database's name in the data folder.
    pub const FILE_NAME: &'static str = "credentials.sqlite";

    /// Those of a data folder. Nothing is opened or made before it is needed.
    pub fn new(data_dir: &Path, config: &CredentialsConfig) -> Self {
        let keys = KeySource::find(data_dir, config.key_file.as_deref());
        Self { path: data_dir.join(Self::FILE_NAME), keys, connection: Arc::default() }
    }

    /// What is stored, if anything is.
    ///
    /// # Errors
    /// See [`CredentialsError`].
    pub fn read(&self, account: &AccountName, field: Field) -> Result<Option<SecretString>, CredentialsError> {
        if !self.path.exists() {
            return Ok(None);
        }
        let row = self.with(|connection| {
            let sql = "SELECT key_id, nonce, sealed FROM credential WHERE account = ? AND field = ?";
            let mut statement = connection.prepare_cached(sql).map_err(|err| self.sqlite(err))?;
            let row = statement.query_row(params![account.as_str(), field.key()], |row| {
                Ok(Sealed { key_id: row.get(0)?, nonce: row.get(1)?, text: row.get(2)? })
            });
            row.optional().map_err(|err| self.sqlite(err))
        })?;
        let Some(row) = row else { return Ok(None) };
        let keys = self.keys.load()?;
        let opened = keys.by_id(&row.key_id).and_then(|key| row.open(key, account, field));
        opened.map(Some).ok_or_else(|| CredentialsError::Sealed(account.clone(), field))
    }

    /// Stores a secret in the place of what was there.
    ///
    /// # Errors
    /// See [`CredentialsError`].
    pub fn write(&self, account: &AccountName, field: Field, secret: &SecretString) -> Result<(), CredentialsError> {
        self.transact(|transaction| {
            let keys = self.keys.load_or_create()?;
            let row = Sealed::seal(keys.first(), account, field, secret)?;
            self.replace(transaction, account.as_str(), field.key(), &row)
        })
    }

    /// Forgets a secret; whether there was one.
    ///
    /// # Errors
    /// See [`CredentialsError`].
    pub fn remove(&self, account: &AccountName, field: Field) -> Result<bool, CredentialsError> {
        self.transact(|transaction| {
            let sql = "DELETE FROM credential WHERE account = ? AND field = ?";
            let removed = transaction.execute(sql, params![account.as_str(), field.key()]);
            removed.map(|rows| rows > 0).map_err(|err| self.sqlite(err))
        })
    }

    /// Seals everything again: with a new key where the key is postrider's own, else with the first of the operator's.
    ///
    /// # Errors
    /// See [`CredentialsError`]; nothing has changed then, or the old key still counts.
    pub fn rekey(&self) -> Result<Rekeyed, CredentialsError> {
        let (secrets, keys, is_new_key) = self.transact(|transaction| {
            let (keys, is_new_key) = self.keys.renew()?;
            let rows = self.all(transaction)?;
            let count = rows.len();
            for (account, field, row) in rows {
                let name = AccountName::parse(&account).ok().zip(Field::of(&field));
                // A row of a newer version's is left as it is.
                let Some((name, kind)) = name else { continue };
                let opened = keys.by_id(&row.key_id).and_then(|key| row.open(key, &name, kind));
                let opened = opened.ok_or_else(|| CredentialsError::Sealed(name.clone(), kind))?;
                self.replace(transaction, &account, &field, &Sealed::seal(keys.first(), &name, kind, &opened)?)?;
            }
            Ok((count, keys, is_new_key))
        })?;
        if is_new_key {
            self.keys.keep_first(&keys)?;
        }
        Ok(Rekeyed { secrets, is_new_key, key: self.keys.to_string() })
    }

    /// As [`Credentials::read`], for where a thread must not be blocked.
    ///
    /// # Errors
    /// See [`CredentialsError`].
    pub async fn fetch(&self, account: &AccountName, field: Field) -> Result<Option<SecretString>, CredentialsError> {
        let (own, account) = (self.clone(), account.clone());
        let read = tokio::task::spawn_blocking(move || own.read(&account, field));
        read.await.map_err(|_| CredentialsError::Stopping)?
    }

    /// As [`Credentials::write`], for where a thread must not be blocked.
    ///
    /// # Errors
    /// See [`CredentialsError`].
    ///
    /// # Cancel safety
    /// What was begun is finished.
    pub async fn store(
        &self,
        account: &AccountName,
        field: Field,
        secret: &SecretString,
    ) -> Result<(), CredentialsError> {
        let (own, account, secret) = (self.clone(), account.clone(), secret.clone());
        let written = tokio::task::spawn_blocking(move || own.write(&account, field, &secret));
        written.await.map_err(|_| CredentialsError::Stopping)?
    }

    fn all(&self, transaction: &Transaction<'_>) -> Result<Vec<(String, String, Sealed)>, CredentialsError> {
        let rows = || {
            let mut statement = transaction.prepare("SELECT account, field, key_id, nonce, sealed FROM credential")?;
            let rows = statement.query_map([], |row| {
                let sealed = Sealed { key_id: row.get(2)?, nonce: row.get(3)?, text: row.get(4)? };
                Ok((row.get(0)?, row.get(1)?, sealed))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        rows().map_err(|err| self.sqlite(err))
    }

    fn replace(
        &self,
        transaction: &Transaction<'_>,
        account: &str,
        field: &str,
        row: &Sealed,
    ) -> Result<(), CredentialsError> {
        let sql = "INSERT OR REPLACE INTO credential (account, field, key_id, nonce, sealed) VALUES (?, ?, ?, ?, ?)";
        let written = transaction.execute(sql, params![account, field, row.key_id, row.nonce, row.text]);
        written.map(drop).map_err(|err| self.sqlite(err))
    }

    fn transact<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, CredentialsError>,
    ) -> Result<T, CredentialsError> {
        self.with(|connection| {
            let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
            let transaction = begun.map_err(|err| self.sqlite(err))?;
            let done = work(&transaction)?;
            transaction.commit().map_err(|err| self.sqlite(err))?;
            Ok(done)
        })
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, CredentialsError>,
    ) -> Result<T, CredentialsError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *connection {
            Some(open) => work(open),
            closed => work(closed.insert(self.open()?)),
        }
    }

    fn open(&self) -> Result<Connection, CredentialsError> {
        let created = |err| CredentialsError::Create(self.path.clone(), err);
        key::create_folder(&self.path).map_err(created)?;
        // Before SQLite makes it, so that nobody else reads it; its journal takes the mode over.
        let mut options = std::fs::File::options();
        options.create(true).truncate(false).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&self.path).map_err(created)?;
        let open = || {
            let connection = Connection::open(&self.path)?;
            connection.busy_timeout(BUSY)?;
            // What was sealed with a key that is gone for good reasons must be gone too.
            connection.pragma_update(None, "secure_delete", true)?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.execute_batch(SCHEMA)?;
            Ok(connection)
        };
        open().map_err(|err| self.sqlite(err))
    }

    fn sqlite(&self, err: rusqlite::Error) -> CredentialsError {
        CredentialsError::Sqlite(self.path.clone(), err)
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("path", &self.path).finish_non_exhaustive()
    }
}

/// One secret as it is stored.
struct Sealed {
    key_id: String,
    nonce: Vec<u8>,
    /// With the tag behind it.
    text: Vec<u8>,
}

impl Sealed {
    fn seal(key: &Key, account: &AccountName, field: Field, secret: &SecretString) -> Result<Self, CredentialsError> {
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| CredentialsError::Random)?;
        let secret = secret.expose_secret().as_bytes();
        // With room for the tag, so that the buffer does not move and leave a copy of the secret behind.
        let mut sealed = Vec::with_capacity(secret.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(secret);
        let (aad, once) = (bound_to(account, field), Nonce::assume_unique_for_key(nonce));
        let done = cipher(key).and_then(|cipher| cipher.seal_in_place_append_tag(once, aad, &mut sealed).ok());
        done.ok_or(CredentialsError::Random)?;
        Ok(Self { key_id: key.id().to_owned(), nonce: nonce.to_vec(), text: sealed })
    }

    fn open(&self, key: &Key, account: &AccountName, field: Field) -> Option<SecretString> {
        let nonce = Nonce::try_assume_unique_for_key(&self.nonce).ok()?;
        let mut sealed = Zeroizing::new(self.text.clone());
        let opened = cipher(key)?.open_in_place(nonce, bound_to(account, field), &mut sealed).ok()?;
        std::str::from_utf8(opened).ok().map(SecretString::from)
    }
}

fn cipher(key: &Key) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key.bytes()).ok().map(LessSafeKey::new)
}

/// An account's name has no control characters, so that no two pairs make the same text.
fn bound_to(account: &AccountName, field: Field) -> Aad<Vec<u8>> {
    Aad::from(format!("postrider\0{}\0{}", account.as_str(), field.key()).into_bytes())
}

#[cfg(test)]
mod tests;
