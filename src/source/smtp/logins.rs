//! Finds out whether clients are who they say they are, and keeps those off that guess.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::config::SmtpConfig;
use super::lockout::{Failed, Lockout};
use super::metrics::SmtpMetrics;
use super::sasl::{Attempt, Evidence, Secret, Verdict};
use super::users::{Identity, Reach, Users, as_compared};
use crate::auth::{Authority, Carrier, SigningKey};

/// Passwords that are checked at the same time. Each takes a processor for about a millisecond.
const AT_ONCE: usize = 2;

/// Judges attempts to log in.
#[derive(Debug)]
pub(super) struct Logins {
    pub users: Arc<Users>,
    key: Option<Arc<SigningKey>>,
    lockout: Mutex<Lockout>,
    places: Semaphore,
}

impl Logins {
    /// `key` is what tokens are signed with, if they count.
    pub(super) fn new(users: Users, key: Option<Arc<SigningKey>>, config: &SmtpConfig) -> Self {
        let (max, delay) = (config.auth_failures_max.get(), config.auth_failure_delay);
        let lockout = Mutex::new(Lockout::new(max, delay, config.auth_lockout));
        Self { users: Arc::new(users), key, lockout, places: Semaphore::new(AT_ONCE) }
    }

    /// Whether it is them. A failure takes its time, and that of the user who is not there as long as any other.
    ///
    /// # Cancel safety
    /// An attempt that is given up while its failure waits was counted.
    pub(super) async fn judge(&self, attempt: Attempt, address: Option<IpAddr>, metrics: &SmtpMetrics) -> Verdict {
        let Attempt { mechanism, name, evidence } = attempt;
        // Many spellings are one name: each must not have failures of its own.
        let name = as_compared(&name);
        if self.lock().is_locked(address, &name, Instant::now()) {
            metrics.auth_lockouts.inc();
            return Verdict::LockedOut;
        }
        let Ok(identity) = self.identify(&name, evidence).await else { return Verdict::Unavailable };
        // Many may have been tried at once, and each must not count alone.
        if self.lock().is_locked(address, &name, Instant::now()) {
            metrics.auth_lockouts.inc();
            return Verdict::LockedOut;
        }
        if let Some(identity) = identity {
            self.lock().succeeded(address, &name);
            metrics.auth_successes.inc();
            debug!(user = identity.name, mechanism = mechanism.name(), "logged in");
            return Verdict::Granted(identity);
        }
        metrics.auth_failures.inc();
        let Failed { delay, is_locked } = self.lock().failed(address, &name, Instant::now());
        // What is no user's name may be a password in the wrong field.
        let user = self.users.identity(&name).map(|identity| identity.name.clone());
        if is_locked {
            metrics.auth_lockouts.inc();
            let address = address.map(tracing::field::display);
            warn!(client.address = address, user, "too many wrong passwords, locked out for a while");
        } else {
            debug!(user, mechanism = mechanism.name(), "wrong password or token");
        }
        sleep(delay).await;
        if is_locked { Verdict::LockedOut } else { Verdict::Denied }
    }

    async fn identify(&self, name: &str, evidence: Evidence) -> Result<Option<Arc<Identity>>, Unavailable> {
        match evidence {
            Evidence::Proof(is_right) => Ok(self.users.identity(name).filter(|_| is_right)),
            Evidence::Token(token) => Ok(self.bearer(&token).map(Arc::new)),
            Evidence::Password(password) => {
                let _place = self.places.acquire().await.map_err(|_| Unavailable)?;
                let (users, name) = (Arc::clone(&self.users), name.to_owned());
                let checking = tokio::task::spawn_blocking(move || users.log_in(&name, password.expose()));
                checking.await.map_err(|_| Unavailable)
            }
        }
    }

    /// Who brings a token that may publish something; to whom they may write shows with each recipient.
    fn bearer(&self, token: &Secret) -> Option<Identity> {
        let claims =
            self.key.as_ref()?.verify(token.expose()).inspect_err(|err| debug!(error = %err, "bad token")).ok()?;
        let name = claims.bearer().to_owned();
        let may_publish = !claims.mercure.publish.is_empty();
        let reach = Reach::Token(Box::new(Authority::of(claims, Carrier::Header)));
        may_publish.then_some(Identity { name, reach })
    }

    fn lock(&self) -> MutexGuard<'_, Lockout> {
        self.lockout.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The process is ending.
struct Unavailable;

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::super::sasl::Mechanism;
    use super::*;
    use crate::auth::{Claims, MercureClaims};
    use crate::event::TopicMatcher;

    fn logins(key: Option<Arc<SigningKey>>) -> Logins {
        let users = Users::predictable(&[("alice", "pencil", &[])], key.is_some());
        let max = NonZeroU32::new(3).unwrap();
        Logins::new(users, key, &SmtpConfig { auth_failures_max: max, ..SmtpConfig::default() })
    }

    fn attempt(name: &str, evidence: Evidence) -> Attempt {
        Attempt { mechanism: Mechanism::Plain, name: name.to_owned(), evidence }
    }

    fn password(name: &str, password: &str) -> Attempt {
        attempt(name, Evidence::Password(Secret::new(password)))
    }

    /// The clock is paused and runs on by itself where nothing else is to be done.
    #[tokio::test(start_paused = true)]
    async fn the_wrong_ones_wait_longer_each_time_and_are_locked_out_even_with_the_right_password() {
        let (logins, metrics) = (logins(None), SmtpMetrics::default());
        let address = Some(IpAddr::from([192, 0, 2, 1]));
        let mut waited = Vec::new();
        for name in ["alice", "eve"] {
            for _ in 0..3 {
                let began = Instant::now();
                let verdict = logins.judge(attempt(name, Evidence::Proof(false)), address, &metrics).await;
                waited.push((began.elapsed().as_secs(), verdict == Verdict::LockedOut));
            }
        }
        let expected = [(1, false), (2, false), (4, true)];
        assert_eq!(waited, [expected, expected].concat(), "nobody can tell who exists");
        let right = || logins.judge(password("alice", "pencil"), address, &metrics);
        assert_eq!(right().await, Verdict::LockedOut);
        let spelt_otherwise = logins.judge(password("al\u{ad}ice", "pencil"), address, &metrics).await;
        assert_eq!(spelt_otherwise, Verdict::LockedOut, "a soft hyphen makes no other name");
        let elsewhere = Some(IpAddr::from([192, 0, 2, 2]));
        let granted = logins.judge(password("alice", "pencil"), elsewhere, &metrics).await;
        assert!(matches!(granted, Verdict::Granted(_)), "{granted:?}");
        tokio::time::advance(Duration::from_mins(15)).await;
        assert!(matches!(right().await, Verdict::Granted(_)), "it is over in time");
        assert_eq!((metrics.auth_failures.get(), metrics.auth_lockouts.get()), (6, 4));
    }

    #[tokio::test]
    async fn tokens_log_in_that_may_publish_something() {
        let folder = tempfile::tempdir().unwrap();
        let key = Arc::new(SigningKey::load_or_create(folder.path()).unwrap());
        let publish = vec![TopicMatcher::parse("mail/alice/{mailbox}").unwrap()];
        let claims = Claims { mercure: MercureClaims { publish, ..MercureClaims::default() }, ..Claims::default() };
        let logins = logins(Some(Arc::clone(&key)));
        let judge = async |claims: &Claims| logins.bearer(&Secret::new(&key.sign(claims)));
        assert_eq!(judge(&claims).await.map(|identity| identity.name).as_deref(), Some("token"));
        assert_eq!(judge(&Claims { exp: Some(1), ..claims.clone() }).await, None);
        assert_eq!(judge(&Claims::default()).await, None, "it may do nothing here");
        assert_eq!(logins.bearer(&Secret::new("x.y.z")), None);
    }
}
