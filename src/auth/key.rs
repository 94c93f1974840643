//! The key that tokens are signed with, in the data folder.
//!
//! Invariant: the file is there whole or not at all, and whoever else starts at the same moment gets the same key.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;

use aws_lc_rs::hmac;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Map, Value};

use super::verifier::{decode, validation};
use super::{Claims, TokenError};

/// Signs tokens and verifies them, with HS256.
#[derive(Clone)]
pub struct SigningKey {
    root: hmac::Key,
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is none yet.
    #[error("there is no token key at {0}; start the server once, or name its data folder with --data-dir")]
    Absent(PathBuf),
    /// The file could not be read.
    #[error("cannot read the token key at {0}; run as the server's user, or put it right there")]
    Read(PathBuf, #[source] io::Error),
    /// The file could not be made.
    #[error("cannot create the token key at {0}; make its folder writable, or choose another with --data-dir")]
    Create(PathBuf, #[source] io::Error),
    /// It has too few bytes to be safe.
    #[error(
        "the token key at {0} has {1} bytes, at least {min} are needed; remove it and a new one is made (tokens that \
         the old one signed are void then)",
        min = SigningKey::BYTES_MIN
    )]
    TooShort(PathBuf, usize),
    /// It is so large that it is surely something else.
    #[error("the token key at {0} has more than {max} bytes; is it another file?", max = SigningKey::BYTES_MAX)]
    TooLong(PathBuf),
    /// Other users of the machine may read or write it.
    #[error("the token key at {0} is open to other users (mode {1:o}); run `chmod 600` on it")]
    Open(PathBuf, u32),
    /// The system has no randomness to give.
    #[error("the system gave no random bytes for the token key")]
    Random,
}

impl SigningKey {
    /// The key's name in the data folder.
    pub const FILE_NAME: &'static str = "token.key";
    /// RFC 7518 §3.2: a key must be no shorter than HS256's hash.
    pub const BYTES_MIN: usize = 32;
    /// A longer token is refused before any work is done on it.
    pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
    const BYTES_MAX: usize = 4096;

    /// The key of the data folder; it and the folder are made if they are not there.
    ///
    /// # Errors
    /// See [`KeyError`]; never [`KeyError::Absent`].
    pub fn load_or_create(data_dir: &Path) -> Result<Self, KeyError> {
        match Self::load(data_dir) {
            Err(KeyError::Absent(path)) => {
                create(data_dir, &path)?;
                Self::load(data_dir)
            }
            loaded => loaded,
        }
    }

    /// The key of the data folder.
    ///
    /// # Errors
    /// See [`KeyError`]; [`KeyError::Absent`] when the server never ran.
    pub fn load(data_dir: &Path) -> Result<Self, KeyError> {
        let path = data_dir.join(Self::FILE_NAME);
        let file = match File::open(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Err(KeyError::Absent(path)),
            opened => opened.map_err(|err| KeyError::Read(path.clone(), err))?,
        };
        refuse_open_to_others(&file, &path)?;
        let mut secret = Vec::with_capacity(Self::BYTES_MIN);
        let limit = Self::BYTES_MAX as u64 + 1;
        file.take(limit).read_to_end(&mut secret).map_err(|err| KeyError::Read(path.clone(), err))?;
        match secret.len() {
            len if len < Self::BYTES_MIN => Err(KeyError::TooShort(path, len)),
            len if len > Self::BYTES_MAX => Err(KeyError::TooLong(path)),
            _ => Ok(Self::of(&secret)),
        }
    }

    fn of(secret: &[u8]) -> Self {
        install_provider();
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Self {
            root,
            encoding: EncodingKey::from_secret(secret),
            decoding: DecodingKey::from_secret(secret),
            validation: validation(Algorithm::HS256),
        }
    }

    /// Another key, for what is no token. Nothing that it signs is good for anything but `purpose`, and it tells nothing of
    /// this key.
    pub fn derived(&self, purpose: &str) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&self.root, purpose.as_bytes()).as_ref())
    }

    /// The token that says this.
    ///
    /// # Panics
    /// Never: HMAC takes any key, and claims are strings, numbers and lists.
    #[expect(clippy::expect_used, reason = "HMAC takes any key, and claims are strings, numbers and lists")]
    pub fn sign(&self, claims: &Claims) -> String {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.encoding).expect("claims can be signed")
    }

    /// What a token says, if this key signed it and it counts now.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        self.verify_at(token, Timestamp::now())
    }

    /// As [`SigningKey::verify`], at another time than now.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify_at(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        let claims = Claims::read(&self.open(token)?, &[], false)?;
        claims.check_times(now)?;
        Ok(claims)
    }

    /// The payload of a token that this key has signed.
    pub(super) fn open(&self, token: &str) -> Result<Map<String, Value>, TokenError> {
        if token.len() > Self::TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        decode(token, &self.decoding, &self.validation)
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(redacted)")
    }
}

/// jsonwebtoken panics at its first use when several providers were compiled in, which any dependency may cause.
fn install_provider() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        if jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default().is_err() {
            tracing::debug!("another provider of token cryptography was installed before");
        }
    });
}

/// Makes the key under a name of its own and links it to its place, which fails where another process was faster:
/// renaming would replace the key that the other is using already.
fn create(data_dir: &Path, path: &Path) -> Result<(), KeyError> {
    let failed = |err| KeyError::Create(path.to_owned(), err);
    let mut secret = [0; SigningKey::BYTES_MIN];
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| KeyError::Random)?;
    let draft = data_dir.join(format!("{}.{}", SigningKey::FILE_NAME, uuid::Uuid::now_v7()));

    create_folder(data_dir).map_err(failed)?;
    let linked = write_new(&draft, &secret).and_then(|()| match fs::hard_link(&draft, path) {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    // A draft that was never written has nothing to remove, and why it was not is what matters.
    let removed = fs::remove_file(&draft);
    linked.map_err(failed)?;
    removed.map_err(failed)?;
    sync_folder(data_dir).map_err(failed)
}

fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn write_new(path: &Path, secret: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(secret)?;
    file.sync_all()
}

/// The name is durable only when its folder is.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

fn refuse_open_to_others(file: &File, path: &Path) -> Result<(), KeyError> {
    match mode_if_open_to_others(file).map_err(|err| KeyError::Read(path.to_owned(), err))? {
        None => Ok(()),
        Some(mode) => Err(KeyError::Open(path.to_owned(), mode)),
    }
}

/// The permissions of a file that other users of the machine may read or write.
#[cfg(unix)]
pub(super) fn mode_if_open_to_others(file: &File) -> io::Result<Option<u32>> {
    use std::os::unix::fs::PermissionsExt;

    let mode = file.metadata()?.permissions().mode() & 0o777;
    Ok((mode | 0o700 != 0o700).then_some(mode))
}

#[cfg(not(unix))]
pub(super) fn mode_if_open_to_others(_: &File) -> io::Result<Option<u32>> {
    Ok(None)
}

#[cfg(test)]
mod tests;
