//! `[[smtp.user]]`: who may submit mail, and what is kept of their passwords.
//!
//! A password is read once, at the start, and becomes a SCRAM verifier at once: one form for all mechanisms. Whoever asks
//! for a user that there is not gets a verifier too, which no password fits, so that neither reply nor time tells.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::auth::Authority;
use crate::event::AccountName;
use crate::registry::{PasswordError, PasswordSource};
use crate::scram::{Verifier, hmac_sha256, prepared};
use crate::source::intake::Destination;

/// What RFC 7677 §4 asks for at least. More would protect nothing: verifiers are never stored, only their passwords are.
const ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(4095);
const SALT_BYTES: usize = 16;
/// Longer than any session; an instant has no room for the year 9999.
const EXPIRY_MAX: Duration = Duration::from_hours(24 * 365);
/// A multiple of three, so that its base64 has no padding.
const NONCE_BYTES: usize = 18;

/// `[[smtp.user]]`: somebody who may submit mail.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserConfig {
    /// The name to log in with.
    pub name: String,
    /// A file whose first line is the password. One of the three `password_…` keys is needed. Default: none.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// A program and its arguments; the first line that it prints is the password. Default: none.
    #[serde(default)]
    pub password_command: Option<Vec<String>>,
    /// The environment variable that holds the password. Default: none.
    #[serde(default)]
    pub password_env: Option<String>,
    /// Accounts that the user may write to. Default: empty, all of them.
    #[serde(default)]
    pub accounts: Vec<AccountName>,
}

/// Why a user's password is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserError {
    /// It cannot be read.
    #[error("the SMTP user `{0}` has no password, see `[[smtp.user]]`")]
    Password(String, #[source] PasswordError),
    /// The system has no randomness to give, or the process is ending.
    #[error("the system gave no random bytes for the SMTP users' passwords")]
    Random,
}

impl UserConfig {
    /// The password, fetched now.
    ///
    /// # Errors
    /// [`UserError::Password`].
    pub async fn password(&self) -> Result<SecretString, UserError> {
        self.source().password().await.map_err(|err| UserError::Password(self.name.clone(), err))
    }

    /// Where the password is.
    pub(super) fn source(&self) -> PasswordSource<'_> {
        PasswordSource {
            typed: None,
            file: self.password_file.as_deref(),
            env: self.password_env.as_deref(),
            command: self.password_command.as_deref(),
        }
    }
}

/// Everybody who may submit mail, and how they prove who they are. Never changes.
pub struct Users {
    known: HashMap<String, User>,
    takes_tokens: bool,
    /// What salts are made of, and those of users that there are not.
    secret: [u8; 32],
    fresh_nonce: fn() -> Option<String>,
}

struct User {
    verifier: Verifier,
    identity: Arc<Identity>,
}

/// Who has logged in, and to whom they may write.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub name: String,
    pub reach: Reach,
}

/// To whom somebody may write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// To every recipient that postrider takes mail for.
    All,
    Accounts(Vec<AccountName>),
    /// To those whose events the bearer of a token may publish.
    Token(Box<Authority>),
}

impl Identity {
    /// When a token ends, and with it what it allowed.
    pub(super) fn expires_at(&self) -> Option<Instant> {
        let Reach::Token(authority) = &self.reach else { return None };
        let left = authority.expires_at()?.duration_since(Timestamp::now());
        Some(Instant::now() + Duration::try_from(left).unwrap_or_default().min(EXPIRY_MAX))
    }

    pub(super) fn may_write_to(&self, to: &Destination) -> bool {
        match &self.reach {
            Reach::All => true,
            Reach::Accounts(accounts) => accounts.contains(&to.account),
            Reach::Token(authority) => authority.may_publish(&to.all_topics()),
        }
    }
}

impl Users {
    /// Reads all passwords. `takes_tokens` says whether postrider's own tokens log in too.
    ///
    /// # Errors
    /// See [`UserError`].
    pub async fn load(config: &[UserConfig], takes_tokens: bool) -> Result<Self, UserError> {
        let mut passwords = Vec::new();
        for user in config {
            passwords.push((user.clone(), user.password().await?));
        }
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| UserError::Random)?;
        // Each password costs a millisecond.
        let deriving = tokio::task::spawn_blocking(move || Self::of(passwords, takes_tokens, secret, random_nonce));
        deriving.await.map_err(|_| UserError::Random)
    }

    fn of(
        passwords: Vec<(UserConfig, SecretString)>,
        takes_tokens: bool,
        secret: [u8; 32],
        fresh_nonce: fn() -> Option<String>,
    ) -> Self {
        let mut users = Self { known: HashMap::new(), takes_tokens, secret, fresh_nonce };
        for (UserConfig { name, accounts, .. }, password) in passwords {
            let verifier = Verifier::derive(&as_compared(password.expose_secret()), users.salt(&name), ITERATIONS);
            let reach = if accounts.is_empty() { Reach::All } else { Reach::Accounts(accounts) };
            let identity = Arc::new(Identity { name: name.clone(), reach });
            users.known.insert(as_compared(&name), User { verifier, identity });
        }
        users
    }

    /// With the same nonce and salts each time, so that a test can compare dialogues.
    #[cfg(test)]
    pub(super) fn predictable(passwords: &[(&str, &str, &[&str])], takes_tokens: bool) -> Self {
        let user = |&(name, password, accounts): &(&str, &str, &[&str])| {
            let accounts = accounts.iter().map(|name| AccountName::parse(name).unwrap()).collect();
            (UserConfig { name: name.to_owned(), accounts, ..UserConfig::default() }, password.into())
        };
        Self::of(passwords.iter().map(user).collect(), takes_tokens, [7; 32], || Some("server-nonce".to_owned()))
    }

    /// Whether anybody has a password here.
    pub(super) fn take_passwords(&self) -> bool {
        !self.known.is_empty()
    }

    /// Whether postrider's own tokens log in.
    pub(super) fn take_tokens(&self) -> bool {
        self.takes_tokens
    }

    /// A nonce that was never used before.
    pub(super) fn nonce(&self) -> Option<String> {
        (self.fresh_nonce)()
    }

    /// Who has this name.
    pub(super) fn identity(&self, name: &str) -> Option<Arc<Identity>> {
        self.known.get(&as_compared(name)).map(|user| Arc::clone(&user.identity))
    }

    /// What a proof for this name is compared with, whether there is such a user or not.
    pub(super) fn verifier(&self, name: &str) -> Verifier {
        let name = as_compared(name);
        match self.known.get(&name) {
            Some(user) => user.verifier.clone(),
            None => Verifier::of_nobody(self.salt(&name), ITERATIONS),
        }
    }

    /// Who has this name and password. Costs the same whether there is such a user or not: about a millisecond, on a
    /// thread that nobody waits for.
    pub(super) fn log_in(&self, name: &str, password: &str) -> Option<Arc<Identity>> {
        let is_right = self.verifier(name).is_password(&as_compared(password));
        self.identity(name).filter(|_| is_right)
    }

    fn salt(&self, name: &str) -> Vec<u8> {
        let mut salt = hmac_sha256(&self.secret, as_compared(name).as_bytes()).as_ref().to_vec();
        salt.truncate(SALT_BYTES);
        salt
    }
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users").field("known", &self.known.len()).finish_non_exhaustive()
    }
}

/// As SASLprep has it; what it cannot have is compared as it is, for mechanisms other than SCRAM.
pub(super) fn as_compared(text: &str) -> String {
    prepared(text).map_or_else(|| text.to_owned(), |prepared| prepared.to_string())
}

fn random_nonce() -> Option<String> {
    let mut nonce = [0; NONCE_BYTES];
    aws_lc_rs::rand::fill(&mut nonce).ok()?;
    Some(BASE64.encode(nonce))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_known_by_name_and_password() {
        let users = Users::predictable(&[("alice", "päss\u{ad}word", &[]), ("bob", "\u{1f512}", &["bob"])], false);
        let name = |name, password| users.log_in(name, password).map(|identity| identity.name.clone());
        assert_eq!(name("alice", "pa\u{308}ssword").as_deref(), Some("alice"), "as SASLprep compares");
        assert_eq!(name("bob", "\u{1f512}").as_deref(), Some("bob"), "SASLprep does not know the character");
        for (user, password) in [("alice", "x"), ("alice", ""), ("Alice", "password"), ("eve", ""), ("", "")] {
            assert_eq!(name(user, password), None, "{user} {password}");
        }
        assert!(!format!("{users:?}").contains("alice"));
    }

    #[test]
    fn who_does_not_exist_has_a_verifier_that_stays_the_same() {
        let users = Users::predictable(&[("alice", "x", &[])], false);
        let (known, nobody) = (users.verifier("alice"), users.verifier("eve"));
        assert_eq!((known.salt.len(), known.iterations), (nobody.salt.len(), nobody.iterations));
        assert_eq!(nobody.salt, users.verifier("eve").salt);
        assert_ne!(nobody.salt, users.verifier("mallory").salt);
    }

    #[tokio::test]
    async fn passwords_are_read_at_the_start_or_named() {
        let user = UserConfig { name: "alice".to_owned(), ..UserConfig::default() };
        let printed = Some(vec!["printf".to_owned(), "s3cret".to_owned()]);
        let users = Users::load(&[UserConfig { password_command: printed, ..user.clone() }], false).await.unwrap();
        assert!(users.log_in("alice", "s3cret").is_some());
        assert_ne!(users.nonce(), users.nonce());
        let missing = UserConfig { password_file: Some("/no/such/file".into()), ..user };
        assert!(Users::load(&[missing], false).await.unwrap_err().to_string().contains("alice"));
    }
}
