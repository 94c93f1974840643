//! Keys that change: a key set in a file or behind a URL, read again now and then, and when a token names a key that is
//! not in it.
//!
//! Whoever sends tokens with invented key names must not make us ask without end: between two readings there is a
//! pause, and one task does them all. What was read last counts until something better is read: an address that does
//! not answer, or answers nonsense, takes nobody's keys away.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jsonwebtoken::Algorithm;
use reqwest::Client;
use tokio::io::AsyncReadExt;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::key_set::{KeySet, KeySetError};

/// A set of keys is a few kilobytes.
const SET_BYTES_MAX: usize = 256 * 1024;
/// For the whole answer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause between two readings, whoever asks.
const PAUSE: Duration = Duration::from_secs(10);
/// How long a request waits for the keys that its token needs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why keys were not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The file.
    #[error("cannot read the keys in {0}")]
    File(PathBuf, #[source] io::Error),
    /// The network.
    #[error("no answer from {0}")]
    Unreachable(Url, #[source] reqwest::Error),
    /// An answer that is none.
    #[error("{0} answered {1}")]
    Status(Url, u16),
    /// More than keys.
    #[error("{0} has more than {max} bytes", max = SET_BYTES_MAX)]
    TooLong(String),
    /// Something else than keys.
    #[error("cannot use the keys from {0}")]
    Unusable(String, #[source] KeySetError),
}

/// Where keys are published.
#[derive(Debug, Clone)]
pub(super) enum Place {
    File(PathBuf),
    Url(Url),
}

/// The keys as they were read last.
#[derive(Debug)]
pub(super) struct PublishedKeys {
    place: Place,
    algorithms: Vec<Algorithm>,
    refresh: Duration,
    state: Mutex<State>,
    wanted: Notify,
    /// Counts the readings.
    read: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    /// When reading began the last time.
    begun: Option<Instant>,
    reading: bool,
}

impl PublishedKeys {
    pub(super) fn new(place: Place, algorithms: Vec<Algorithm>, refresh: Duration) -> Self {
        let read = watch::Sender::new(0);
        Self { place, algorithms, refresh, state: Mutex::default(), wanted: Notify::new(), read }
    }

    /// The keys, if there are any yet.
    pub(super) fn now(&self) -> Option<Arc<KeySet>> {
        self.state().keys.clone()
    }

    /// The keys after they were read again, as far as that may be and comes in time; then those that there are.
    pub(super) async fn newer(&self) -> Option<Arc<KeySet>> {
        let mut read = self.read.subscribe();
        let (reading, rests) = {
            let state = self.state();
            (state.reading, state.begun.is_some_and(|begun| begun.elapsed() < PAUSE))
        };
        if !reading {
            self.wanted.notify_one();
        }
        if rests && !reading {
            // They are read when the pause is over: that is too long for a request to wait.
            return self.now();
        }
        // Either it was read, or that takes too long, or the process ends: what is there then counts.
        if timeout(PATIENCE, read.changed()).await.is_err() {
            tracing::debug!(place = %self.place, "the keys of an issuer of tokens take long to read");
        }
        self.now()
    }

    /// Reads them once.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub(super) async fn fetch(&self) -> Result<(), FetchError> {
        {
            let mut state = self.state();
            (state.begun, state.reading) = (Some(Instant::now()), true);
        }
        let read = self.read_set().await;
        self.state().reading = false;
        let keys = read?;
        self.state().keys = Some(Arc::new(keys));
        Ok(())
    }

    async fn read_set(&self) -> Result<KeySet, FetchError> {
        let json = match &self.place {
            Place::File(path) => read_file(path).await?,
            Place::Url(url) => download(url).await?,
        };
        let unusable = |err| FetchError::Unusable(self.place.to_string(), err);
        KeySet::of_jwks(&json, &self.algorithms).map_err(unusable)
    }

    /// Keeps them fresh until `stop`.
    pub(super) async fn keep_fresh(&self, stop: CancellationToken) {
        loop {
            let read = tokio::select! {
                read = self.fetch() => read,
                () = stop.cancelled() => return,
            };
            let next = if let Err(err) = read {
                let known = self.now().is_some();
                let error: &dyn std::error::Error = &err;
                tracing::warn!(error, known, "keys of an issuer of tokens not read, will try again");
                PAUSE
            } else {
                self.refresh
            };
            self.read.send_modify(|count| *count += 1);
            let next = Instant::now() + next;
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.wanted_again() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Somebody needs keys that are not there, and the pause is over.
    async fn wanted_again(&self) {
        self.wanted.notified().await;
        let begun = self.state().begun;
        if let Some(begun) = begun {
            sleep_until(begun + PAUSE).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Url(url) => write!(f, "{url}"),
        }
    }
}

async fn read_file(path: &std::path::Path) -> Result<Vec<u8>, FetchError> {
    let read = async {
        let mut bytes = Vec::new();
        tokio::fs::File::open(path).await?.take(SET_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await?;
        Ok(bytes)
    };
    let bytes: Vec<u8> = read.await.map_err(|err| FetchError::File(path.to_owned(), err))?;
    if bytes.len() > SET_BYTES_MAX { Err(FetchError::TooLong(path.display().to_string())) } else { Ok(bytes) }
}

async fn download(url: &Url) -> Result<Vec<u8>, FetchError> {
    let unreachable = |err: reqwest::Error| FetchError::Unreachable(url.clone(), err.without_url());
    let agent = concat!("postrider/", env!("CARGO_PKG_VERSION"));
    // Made for each reading, of which there are few: the system's certificate authorities may have changed too. Where it
    // would be redirected to was not configured.
    let client = Client::builder().redirect(reqwest::redirect::Policy::none()).user_agent(agent).timeout(FETCH_TIMEOUT);
    let request = client.build().map_err(unreachable)?.get(url.clone()).header("accept", "application/json");
    let mut response = request.send().await.map_err(unreachable)?;
    if !response.status().is_success() {
        return Err(FetchError::Status(url.clone(), response.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > SET_BYTES_MAX {
            return Err(FetchError::TooLong(url.to_string()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    #[tokio::test]
    async fn what_was_read_last_counts_until_something_better_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let keys = PublishedKeys::new(Place::File(path.clone()), vec![Algorithm::EdDSA], Duration::from_mins(1));
        let known = || keys.now().is_some_and(|keys| keys.has(Some("k")));
        assert!(matches!(keys.fetch().await, Err(FetchError::File(..))) && !known());
        std::fs::write(&path, format!(r#"{{"keys":[{{"kty":"from the future"}},7,{ED}]}}"#)).unwrap();
        keys.fetch().await.unwrap();
        assert!(known());
        // A key for encryption, an oct key of three bytes, a curve and an algorithm that are not allowed here.
        let useless = [
            ED.replace("\"kid\"", "\"use\":\"enc\",\"kid\""),
            ED.replace("\"kid\"", "\"key_ops\":[\"sign\"],\"kid\""),
            ED.replace("\"kid\"", "\"alg\":\"ES256\",\"kid\""),
            ED.replace("Ed25519", "P-256"),
            r#"{"kty":"oct","k":"AAAA"}"#.to_owned(),
            format!(r#"{{"kty":"oct","k":"{}"}}"#, "A".repeat(100)),
        ];
        for nonsense in useless.iter().map(|key| format!(r#"{{"keys":[{key}]}}"#)).chain(["{}".into(), "[".into()]) {
            std::fs::write(&path, &nonsense).unwrap();
            assert!(matches!(keys.fetch().await, Err(FetchError::Unusable(..))), "{nonsense}");
            assert!(known(), "{nonsense}");
        }
        std::fs::write(&path, format!(r#"{{"keys":[{ED}]}}{}"#, " ".repeat(SET_BYTES_MAX))).unwrap();
        assert!(matches!(keys.fetch().await, Err(FetchError::TooLong(_))) && known());
    }
}
