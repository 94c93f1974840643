//! Somebody else who signs tokens: which of them count, and what they are verified with.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jsonwebtoken::Algorithm;

use super::config::{IssuerConfig, safe_url};
use super::key::mode_if_open_to_others;
use super::key_set::{KeySet, KeySetError};
use super::published_keys::{FetchError, Place, PublishedKeys};

/// A public key is a few kilobytes at most, a secret one line.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Why there is nothing to verify an issuer's tokens with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssuerError {
    /// The file could not be read.
    #[error("cannot read {0} for {1}; run as a user who may, or put the path right")]
    Read(PathBuf, String, #[source] io::Error),
    /// Other users of the machine may read the secret.
    #[error("{0}, the secret of {1}, is open to other users (mode {2:o}); run `chmod 600` on it")]
    Open(PathBuf, String, u32),
    /// There is no key in it.
    #[error("cannot use {0} for {1}")]
    Key(PathBuf, String, #[source] KeySetError),
    /// The file is there, and holds no keys.
    #[error(transparent)]
    Set(#[from] FetchError),
}

/// An issuer of tokens.
#[derive(Debug, Clone)]
pub struct Issuer {
    pub(super) name: Option<String>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) audience: Vec<String>,
    pub(super) keys: Keys,
}

/// What its tokens are verified with.
#[derive(Debug, Clone)]
pub(super) enum Keys {
    Fixed(Arc<KeySet>),
    Published(Arc<PublishedKeys>),
}

impl Issuer {
    /// Reads what is in files; keys behind a URL are fetched later.
    ///
    /// # Errors
    /// See [`IssuerError`].
    pub async fn load(config: &IssuerConfig) -> Result<Self, IssuerError> {
        let algorithms = config.algorithms();
        let published = |place| Arc::new(PublishedKeys::new(place, algorithms.clone(), config.jwks_refresh));
        let keys = if let Some(path) = &config.key_file {
            Keys::Fixed(Arc::new(read_key(path, config)?))
        } else if let Some(path) = &config.secret_file {
            Keys::Fixed(Arc::new(read_secret(path, config)?))
        } else if let Some(path) = &config.jwks_file {
            let keys = published(Place::File(path.clone()));
            keys.fetch().await?;
            Keys::Published(keys)
        } else if let Some(url) = config.jwks_url.as_deref().and_then(safe_url) {
            Keys::Published(published(Place::Url(url)))
        } else {
            // What the configuration's check has refused verifies nothing.
            Keys::Fixed(Arc::default())
        };
        let (name, audience) = (config.issuer.clone(), config.audience.clone());
        Ok(Self { name, algorithms, audience, keys })
    }

    /// Fetches its keys once, to see whether that can be done.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn try_fetch(&self) -> Result<(), FetchError> {
        match &self.keys {
            Keys::Published(keys) => keys.fetch().await,
            Keys::Fixed(_) => Ok(()),
        }
    }
}

fn read_key(path: &Path, config: &IssuerConfig) -> Result<KeySet, IssuerError> {
    let unreadable = |err| IssuerError::Read(path.to_owned(), config.name(), err);
    let pem = read(&File::open(path).map_err(unreadable)?).map_err(unreadable)?;
    KeySet::of_pem(&pem).map_err(|err| IssuerError::Key(path.to_owned(), config.name(), err))
}

fn read_secret(path: &Path, config: &IssuerConfig) -> Result<KeySet, IssuerError> {
    let unreadable = |err| IssuerError::Read(path.to_owned(), config.name(), err);
    let file = fs::File::open(path).map_err(unreadable)?;
    if let Some(mode) = mode_if_open_to_others(&file).map_err(unreadable)? {
        return Err(IssuerError::Open(path.to_owned(), config.name(), mode));
    }
    let text = zeroize::Zeroizing::new(read(&file).map_err(unreadable)?);
    let line = text.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
    KeySet::of_secret(line).map_err(|err| IssuerError::Key(path.to_owned(), config.name(), err))
}

fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}
