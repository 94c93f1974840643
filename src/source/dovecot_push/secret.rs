//! What Dovecot proves itself with, and the tokens that are derived from it.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};

use crate::event::AccountName;

/// The user name and the secret of `[dovecot]`.
#[derive(Debug, Clone)]
pub struct Secret {
    user: String,
    secret: SecretString,
}

impl Secret {
    /// A user name, and what proves it.
    pub fn new(user: &str, secret: SecretString) -> Self {
        Self { user: user.to_owned(), secret }
    }

    /// Whether a request carries it: as user and password of its URL (RFC 7617), which is all that the OX driver can
    /// do, or as a bearer token. How long the comparison takes says nothing of how much was right.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(header::AUTHORIZATION) else { return false };
        let Some((scheme, sent)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else { return false };
        let sent = sent.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return same(sent.as_bytes(), self.secret.expose_secret().as_bytes());
        }
        let decoded = STANDARD.decode(sent).unwrap_or_default();
        let wanted = SecretString::from(format!("{}:{}", self.user, self.secret.expose_secret()));
        scheme.eq_ignore_ascii_case("basic") && same(&decoded, wanted.expose_secret().as_bytes())
    }

    /// The name under which Dovecot speaks of an account's user where `user_from_metadata` is set: whoever does not
    /// have the secret cannot guess it. The same after each start, so that nothing has to be stored.
    pub fn token(&self, account: &AccountName) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.expose_secret().as_bytes());
        let mut context = hmac::Context::with_key(&key);
        context.update(b"dovecot_push\0");
        context.update(account.as_str().as_bytes());
        let tag = context.sign();
        // 128 bits are as unguessable as is of use.
        URL_SAFE_NO_PAD.encode(tag.as_ref().get(..16).unwrap_or_default())
    }
}

/// Compared by digests, so that not even the length shows.
fn same(a: &[u8], b: &[u8]) -> bool {
    verify_slices_are_equal(digest(&SHA256, a).as_ref(), digest(&SHA256, b).as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(authorization: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        Secret::new("postrider", SecretString::from("s3:cret")).is_in(&headers)
    }

    #[test]
    fn only_the_secret_opens() {
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert!(accepts(&basic("postrider:s3:cret")) && accepts("bearer s3:cret"));
        for wrong in ["postrider:s3:cre", "postrider:", "other:s3:cret", "s3:cret", ""] {
            assert!(!accepts(&basic(wrong)), "{wrong}");
        }
        for wrong in ["Bearer s3:cre", "Bearer ", "Basic ?", "Digest s3:cret", "s3:cret", "Bearer"] {
            assert!(!accepts(wrong), "{wrong}");
        }
    }

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
