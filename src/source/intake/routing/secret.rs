//! The unguessable part that an address may have to end with: `alice+SECRET@example.org`.
//!
//! It keeps strangers out where an address is otherwise easy to guess. It is no password: whoever is written to from
//! outside has it in the address. So it is never logged, and no event carries it.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use secrecy::{ExposeSecret, SecretString};

/// Shorter ones can be guessed: of 36 characters, 16 are 82 bits.
const CHARACTERS_MIN: usize = 16;

/// Letters, digits, `-` and `_`, without regard to case: some programs write addresses in small letters.
#[derive(Clone)]
pub(crate) struct AddressSecret(Arc<SecretString>);

impl AddressSecret {
    /// Checks a secret.
    ///
    /// # Errors
    /// What is wrong with it; the message does not have it.
    pub(super) fn parse(text: &SecretString) -> Result<Self, String> {
        let text = text.expose_secret();
        if text.len() < CHARACTERS_MIN {
            return Err(format!("has fewer than {CHARACTERS_MIN} characters; `openssl rand -hex 16` makes a good one"));
        }
        if !text.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_')) {
            return Err("has more in it than letters, digits, `-` and `_`".to_owned());
        }
        Ok(Self(Arc::new(SecretString::from(text.to_ascii_lowercase()))))
    }

    /// Whether `given` is the secret. How long that takes says nothing of how much was right, nor of the length.
    pub(super) fn is(&self, given: &str) -> bool {
        let (own, given) = (self.0.expose_secret().as_bytes(), given.to_ascii_lowercase());
        verify_slices_are_equal(digest(&SHA256, own).as_ref(), digest(&SHA256, given.as_bytes()).as_ref()).is_ok()
    }

    /// Takes the secret, with what separates it, out of an address that a message shows.
    pub(crate) fn redact(&self, address: &mut String) {
        let secret = self.0.expose_secret();
        while let Some(at) = address.to_ascii_lowercase().find(secret) {
            let separated = address.get(..at).is_some_and(|before| before.ends_with(['+', '.']));
            address.replace_range(at - usize::from(separated)..at + secret.len(), "");
        }
    }
}

impl PartialEq for AddressSecret {
    fn eq(&self, other: &Self) -> bool {
        self.is(other.0.expose_secret())
    }
}

impl Eq for AddressSecret {}

impl fmt::Debug for AddressSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AddressSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> AddressSecret {
        AddressSecret::parse(&SecretString::from("s3cret-0123456789")).unwrap()
    }

    #[test]
    fn only_the_whole_secret_is_it() {
        assert!(secret().is("S3cret-0123456789"));
        for wrong in ["", "s3cret-012345678", "s3cret-01234567890", "s3cret-012345678x"] {
            assert!(!secret().is(wrong), "{wrong}");
        }
        for wrong in ["short", "with+plus-0123456789", "with.dot-0123456789", "with space 0123456789"] {
            let err = AddressSecret::parse(&SecretString::from(wrong)).unwrap_err();
            assert!(!err.contains(wrong), "{err}");
        }
        assert_eq!(format!("{:?}", secret()), "AddressSecret");
    }

    #[test]
    fn it_is_taken_out_wherever_it_stands() {
        for (text, shown) in [
            ("alice+s3cret-0123456789@x", "alice@x"),
            ("alice.S3CRET-0123456789@x", "alice@x"),
            ("alice+Lists+s3cret-0123456789@x", "alice+Lists@x"),
            ("s3cret-0123456789s3cret-0123456789", ""),
            ("alice@x", "alice@x"),
        ] {
            let mut text = text.to_owned();
            secret().redact(&mut text);
            assert_eq!(text, shown);
        }
    }
}
