//! What Dovecot proves itself with, and the tokens that are derived from it.

use aws_lc_rs::hmac;
use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;

use crate::auth::SharedSecret;
use crate::event::AccountName;

/// The user name and the secret of `[dovecot]`.
#[derive(Debug, Clone)]
pub struct Secret(SharedSecret);

impl Secret {
    /// A user name, and what proves it.
    pub fn new(user: &str, secret: SecretString) -> Self {
        Self(SharedSecret::new(user, secret))
    }

    /// Whether a request carries it.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        self.0.is_in(headers)
    }

    /// The name under which Dovecot speaks of an account's user where `user_from_metadata` is set: whoever does not
    /// have the secret cannot guess it. The same after each start, so that nothing has to be stored.
    pub fn token(&self, account: &AccountName) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_bytes());
        let mut context = hmac::Context::with_key(&key);
        context.update(b"dovecot_push\0");
        context.update(account.as_str().as_bytes());
        let tag = context.sign();
        // 128 bits are as unguessable as is of use.
        URL_SAFE_NO_PAD.encode(tag.as_ref().get(..16).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_each_accounts_own() {
        let token = |secret: &str, account: &str| {
            Secret::new("postrider", SecretString::from(secret)).token(&AccountName::parse(account).unwrap())
        };
        assert_eq!(token("a", "alice"), token("a", "alice"));
        assert_ne!(token("a", "alice"), token("a", "bob"));
        assert_ne!(token("a", "alice"), token("b", "alice"));
        assert_eq!(token("a", "alice").len(), 22);
    }
}
