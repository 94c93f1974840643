//! `[dovecot]`: who may push.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Secret;
use crate::registry::{PasswordError, PasswordSource};

/// `[dovecot]`: the receiver of Dovecot's push notifications. Without a secret there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DovecotConfig {
    /// The user name in the URL that Dovecot is given. Default: `"postrider"`.
    pub user: String,
    /// A file whose first line is the secret that Dovecot sends. Default: none.
    pub secret_file: Option<PathBuf>,
    /// The environment variable that holds the secret. Default: none.
    pub secret_env: Option<String>,
}

impl Default for DovecotConfig {
    fn default() -> Self {
        Self { user: "postrider".to_owned(), secret_file: None, secret_env: None }
    }
}

/// Why the section cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DovecotConfigError {
    /// There are two secrets.
    #[error("`dovecot.secret_file` and `dovecot.secret_env` each give a secret; keep one")]
    TwoSecrets,
    /// Basic authentication ends the name at the first colon (RFC 7617 §2).
    #[error("`dovecot.user` must not be empty or have a colon in it")]
    User,
}

impl DovecotConfig {
    /// Whether anything is received.
    pub fn is_enabled(&self) -> bool {
        self.secret_file.is_some() || self.secret_env.is_some()
    }

    /// Checks what a type cannot say.
    ///
    /// # Errors
    /// See [`DovecotConfigError`].
    pub fn check(&self) -> Result<(), DovecotConfigError> {
        if self.secret_file.is_some() && self.secret_env.is_some() {
            return Err(DovecotConfigError::TwoSecrets);
        }
        if self.user.is_empty() || self.user.contains(':') {
            return Err(DovecotConfigError::User);
        }
        Ok(())
    }

    /// The secret, fetched now; none where the receiver is off.
    ///
    /// # Errors
    /// When the file or the variable cannot be read, or is empty.
    pub async fn secret(&self) -> Result<Option<Secret>, PasswordError> {
        if !self.is_enabled() {
            return Ok(None);
        }
        let (file, env) = (self.secret_file.as_deref(), self.secret_env.as_deref());
        let password = PasswordSource { file, env, ..PasswordSource::default() }.password().await?;
        Ok(Some(Secret::new(&self.user, password)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_off_until_there_is_one_secret() {
        let with = |text| toml::from_str::<DovecotConfig>(text).unwrap();
        assert!(!with("").is_enabled() && with("").check().is_ok());
        assert!(with("secret_env = 'A'").is_enabled());
        assert_eq!(with("secret_env = 'A'\nsecret_file = 'b'").check(), Err(DovecotConfigError::TwoSecrets));
        assert_eq!(with("user = 'a:b'").check(), Err(DovecotConfigError::User));
    }
}
