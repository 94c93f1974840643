//! A secret that another server was told, and sends with each of its requests.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};

/// A user name and a secret.
#[derive(Debug, Clone)]
pub struct SharedSecret {
    user: String,
    secret: SecretString,
}

impl SharedSecret {
    /// A user name, and what proves it.
    pub fn new(user: &str, secret: SecretString) -> Self {
        Self { user: user.to_owned(), secret }
    }

    /// Whether a request carries it: as user and password of its URL (RFC 7617), which is all that most servers can do,
    /// or as a bearer token. How long the comparison takes says nothing of how much was right.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
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

    /// The secret alone, to derive others from.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.secret.expose_secret().as_bytes()
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
        SharedSecret::new("postrider", SecretString::from("s3:cret")).is_in(&headers)
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
}
