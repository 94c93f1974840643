//! Keys of other signers: a public key in PEM, a shared secret, or a JSON Web Key Set (RFC 7517).
//!
//! A key knows which algorithms it is for by what it is, so that no header of a token can have it used otherwise: an RSA
//! key is never the secret of an HMAC (RFC 8725 §2.1). Keys in a token's own header are never looked at.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use serde_json::Value;

const RSA: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];
const HMAC: [(Algorithm, usize); 3] = [(Algorithm::HS256, 32), (Algorithm::HS384, 48), (Algorithm::HS512, 64)];
/// Octets of an uncompressed point: one, and two coordinates.
const P256_POINT: usize = 1 + 2 * 32;
const P384_POINT: usize = 1 + 2 * 48;
/// NIST SP 800-131A, and what the cryptography takes at all.
const RSA_BYTES_MIN: usize = 256;
/// A token without `kid` is tried with each key: some sets hold a hundred, ours to try does not.
const KEYS_MAX: usize = 32;

/// Why there is no key in what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// No public key.
    #[error("there is no public key in PEM in it: RSA, EC (P-256 or P-384) or Ed25519")]
    Pem,
    /// Guessable.
    #[error("it has {0} bytes, and HMAC needs at least 32 (RFC 7518 §3.2)")]
    Short(usize),
    /// No list of keys.
    #[error("it is not a JSON Web Key Set: expected {{\"keys\": [...]}}")]
    NotASet,
    /// None of them is of any use.
    #[error("none of its keys is a signing key of a kind that is understood, or of the allowed algorithms")]
    Empty,
}

/// What tokens are verified with.
#[derive(Clone, Default)]
pub(super) struct KeySet(Vec<Key>);

#[derive(Clone)]
struct Key {
    id: Option<Box<str>>,
    /// The key belongs to nothing else, so that a token need not name it.
    alone: bool,
    algorithms: Vec<Algorithm>,
    verifies: DecodingKey,
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeySet({} keys, redacted)", self.0.len())
    }
}

impl KeySet {
    /// One public key.
    pub(super) fn of_pem(pem: &[u8]) -> Result<Self, KeySetError> {
        let ec = DecodingKey::from_ec_pem(pem).ok().and_then(|key| {
            let algorithm = match key.try_get_as_bytes().map(<[u8]>::len) {
                Ok(P256_POINT) => Algorithm::ES256,
                Ok(P384_POINT) => Algorithm::ES384,
                _ => return None,
            };
            Some((key, vec![algorithm]))
        });
        let ed = || DecodingKey::from_ed_pem(pem).ok().map(|key| (key, vec![Algorithm::EdDSA]));
        let rsa = || DecodingKey::from_rsa_pem(pem).ok().map(|key| (key, RSA.to_vec()));
        let (key, algorithms) = ec.or_else(ed).or_else(rsa).ok_or(KeySetError::Pem)?;
        Ok(Self(vec![Key { id: None, alone: true, algorithms, verifies: key }]))
    }

    /// One secret, which whoever signs has too.
    pub(super) fn of_secret(secret: &[u8]) -> Result<Self, KeySetError> {
        let algorithms = hmac_algorithms(secret.len());
        if algorithms.is_empty() {
            return Err(KeySetError::Short(secret.len()));
        }
        Ok(Self(vec![Key { id: None, alone: true, algorithms, verifies: DecodingKey::from_secret(secret) }]))
    }

    /// Those keys of a set that are for one of the allowed algorithms. Keys of other kinds may stand beside them.
    pub(super) fn of_jwks(json: &[u8], allowed: &[Algorithm]) -> Result<Self, KeySetError> {
        let mut set: Value = serde_json::from_slice(json).map_err(|_| KeySetError::NotASet)?;
        let Some(Value::Array(keys)) = set.get_mut("keys").map(Value::take) else { return Err(KeySetError::NotASet) };
        let keys: Vec<Key> = keys
            .into_iter()
            .filter_map(|value| serde_json::from_value::<Jwk>(value).ok())
            .filter_map(|jwk| Key::of_jwk(&jwk, allowed))
            .take(KEYS_MAX)
            .collect();
        if keys.is_empty() { Err(KeySetError::Empty) } else { Ok(Self(keys)) }
    }

    /// The keys that may have signed a token with this header. What a token names has to be there by that name.
    pub(super) fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &DecodingKey> {
        let named = move |key: &Key| key.alone || id.is_none_or(|id| key.id.as_deref() == Some(id));
        self.0.iter().filter(move |key| named(key) && key.algorithms.contains(&algorithm)).map(|key| &key.verifies)
    }

    /// Whether a key of this name is there, whatever it is for.
    pub(super) fn has(&self, id: Option<&str>) -> bool {
        self.0.iter().any(|key| key.alone || id.is_none_or(|id| key.id.as_deref() == Some(id)))
    }
}

impl Key {
    /// None for a key that is for something else, or not understood.
    fn of_jwk(jwk: &Jwk, allowed: &[Algorithm]) -> Option<Self> {
        let common = &jwk.common;
        let signs = common.public_key_use.as_ref().is_none_or(|r#use| *r#use == PublicKeyUse::Signature);
        let verifies = common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        if !signs || !verifies {
            return None;
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => rsa_algorithms(&key),
            AlgorithmParameters::EllipticCurve(ec) => match (&ec.curve, key.try_get_as_bytes().ok()?.len()) {
                (EllipticCurve::P256, P256_POINT) => vec![Algorithm::ES256],
                (EllipticCurve::P384, P384_POINT) => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
            AlgorithmParameters::OctetKey(_) => hmac_algorithms(key.try_get_as_bytes().ok()?.len()),
            _ => return None,
        };
        // A key that says what it is for is for nothing else (RFC 7517 §4.4).
        let own = common.key_algorithm.map(Algorithm::try_from);
        algorithms.retain(|algorithm| {
            allowed.contains(algorithm) && own.as_ref().is_none_or(|own| own.as_ref().is_ok_and(|own| own == algorithm))
        });
        let id = common.key_id.as_deref().map(Into::into);
        (!algorithms.is_empty()).then_some(Self { id, alone: false, algorithms, verifies: key })
    }
}

fn rsa_algorithms(key: &DecodingKey) -> Vec<Algorithm> {
    let DecodingKeyKind::RsaModulusExponent { n, .. } = key.kind() else { return Vec::new() };
    let bytes = n.iter().skip_while(|byte| **byte == 0).count();
    if bytes >= RSA_BYTES_MIN { RSA.to_vec() } else { Vec::new() }
}

/// RFC 7518 §3.2: a key must be no shorter than the hash.
fn hmac_algorithms(bytes: usize) -> Vec<Algorithm> {
    HMAC.into_iter().filter(|(_, least)| bytes >= *least).map(|(algorithm, _)| algorithm).collect()
}
