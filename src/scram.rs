//! The arithmetic of SCRAM-SHA-256 (RFC 5802 §3, RFC 7677), which both of its sides share: `source::imap` logs in with it,
//! `source::smtp` lets log in.
//!
//! A server needs no password, only a [`Verifier`]: whoever reads it can check a login and cannot log in with it.

use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use zeroize::Zeroizing;

const KEY_BYTES: usize = digest::SHA256_OUTPUT_LEN;

/// What the password becomes with the salt.
pub(crate) struct SaltedPassword(Zeroizing<[u8; KEY_BYTES]>);

impl SaltedPassword {
    /// Costs the iterations, so that it does not belong on a thread that others wait for.
    pub(crate) fn derive(password: &str, salt: &[u8], iterations: NonZeroU32) -> Self {
        let mut salted = Zeroizing::new([0; KEY_BYTES]);
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(algorithm, iterations, salt, password.as_bytes(), salted.as_mut_slice());
        Self(salted)
    }

    /// What the client proves that it has.
    pub(crate) fn client_key(&self) -> ClientKey {
        ClientKey(hmac_sha256(self.0.as_slice(), b"Client Key").as_ref().to_vec().into())
    }

    /// What the server proves that it has.
    pub(crate) fn server_key(&self) -> hmac::Tag {
        hmac_sha256(self.0.as_slice(), b"Server Key")
    }
}

/// The key that only who knows the password has.
pub(crate) struct ClientKey(Zeroizing<Vec<u8>>);

impl ClientKey {
    /// Its hash, by which the server knows it.
    pub(crate) fn stored_key(&self) -> digest::Digest {
        digest::digest(&digest::SHA256, &self.0)
    }

    /// The client's proof for an exchange, whose messages so far are `signed`.
    pub(crate) fn proof(&self, signed: &str) -> Zeroizing<Vec<u8>> {
        let signature = hmac_sha256(self.stored_key().as_ref(), signed.as_bytes());
        xor(&self.0, signature.as_ref())
    }
}

/// What a server keeps instead of a password.
#[derive(Clone)]
pub(crate) struct Verifier {
    pub salt: Vec<u8>,
    pub iterations: NonZeroU32,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl Verifier {
    /// Of a password. Costs the iterations.
    pub(crate) fn derive(password: &str, salt: Vec<u8>, iterations: NonZeroU32) -> Self {
        let salted = SaltedPassword::derive(password, &salt, iterations);
        let (stored_key, server_key) = (salted.client_key().stored_key(), salted.server_key());
        Self { salt, iterations, stored_key: stored_key.as_ref().to_vec(), server_key: server_key.as_ref().to_vec() }
    }

    /// Of somebody whom there is not: no password fits, since nothing is known whose hash is all zeros.
    pub(crate) fn of_nobody(salt: Vec<u8>, iterations: NonZeroU32) -> Self {
        Self { salt, iterations, stored_key: vec![0; KEY_BYTES], server_key: vec![0; KEY_BYTES] }
    }

    /// Whether it is the password. Costs the iterations.
    pub(crate) fn is_password(&self, password: &str) -> bool {
        let salted = SaltedPassword::derive(password, &self.salt, self.iterations);
        self.is_client_key(salted.client_key().stored_key().as_ref())
    }

    /// Whether the proof is that of the password, for an exchange whose messages so far are `signed`.
    pub(crate) fn is_proof(&self, proof: &[u8], signed: &str) -> bool {
        let signature = hmac_sha256(&self.stored_key, signed.as_bytes());
        if proof.len() != KEY_BYTES {
            return false;
        }
        let client_key = xor(proof, signature.as_ref());
        self.is_client_key(digest::digest(&digest::SHA256, &client_key).as_ref())
    }

    /// What shows the client that the server knows its password.
    pub(crate) fn server_signature(&self, signed: &str) -> hmac::Tag {
        hmac_sha256(&self.server_key, signed.as_bytes())
    }

    fn is_client_key(&self, hash: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(hash, &self.stored_key).is_ok()
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier(redacted)")
    }
}

/// Name or password as SCRAM has it (SASLprep, RFC 4013, which knows the characters of Unicode 3.2 only); none where it
/// cannot have it.
pub(crate) fn prepared(text: &str) -> Option<Zeroizing<String>> {
    let prepared = stringprep::saslprep(text).ok()?;
    (!prepared.is_empty()).then(|| Zeroizing::new(prepared.into_owned()))
}

/// A name between commas (RFC 5802 §5.1).
pub(crate) fn escaped(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

/// The name that was escaped; none where it was not done right.
pub(crate) fn unescaped(text: &str) -> Option<String> {
    let mut pieces = text.split('=');
    let mut name = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (character, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return None,
        };
        name.push(character);
        name.push_str(rest);
    }
    Some(name)
}

pub(crate) fn hmac_sha256(key: &[u8], data: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data)
}

fn xor(one: &[u8], other: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(one.iter().zip(other).map(|(one, other)| one ^ other).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_knows_its_password_and_no_other() {
        let verifier = Verifier::derive("pencil", b"salt".to_vec(), NonZeroU32::MIN);
        assert!(verifier.is_password("pencil") && !verifier.is_password("Pencil") && !verifier.is_password(""));
        let proof = |password| SaltedPassword::derive(password, b"salt", NonZeroU32::MIN).client_key().proof("signed");
        assert!(verifier.is_proof(&proof("pencil"), "signed"));
        assert!(!verifier.is_proof(&proof("pencil"), "other") && !verifier.is_proof(&proof("pen"), "signed"));
        assert!(!verifier.is_proof(&[], "signed") && !verifier.is_proof(&[0; 33], "signed"));
    }

    #[test]
    fn names_come_back_from_between_their_commas() {
        for name in ["alice", "a=b,c", "=2C", ",,==", ""] {
            assert_eq!(unescaped(&escaped(name)).as_deref(), Some(name));
        }
        for wrong in ["=", "a=2", "a=2c", "=41"] {
            assert_eq!(unescaped(wrong), None, "{wrong}");
        }
    }
}
