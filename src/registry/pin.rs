//! `"sha256/…"`: the key that a server's certificate must have. Pure.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

/// SHA-256 of a certificate's `SubjectPublicKeyInfo` (RFC 7469 §2.4): it stays when the certificate is renewed with the
/// same key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CertificatePin([u8; 32]);

/// Why a text is no pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected \"sha256/\" and the SHA-256 of the server's public key in base64, as `postrider check` shows it")]
pub struct CertificatePinError;

impl FromStr for CertificatePin {
    type Err = CertificatePinError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hash = text.strip_prefix("sha256/").ok_or(CertificatePinError)?;
        // curl writes it with two slashes; a hash may begin with one.
        let decoded = |text: &str| BASE64.decode(text).ok();
        let hash = decoded(hash).or_else(|| decoded(hash.strip_prefix('/')?)).ok_or(CertificatePinError)?;
        hash.try_into().map(Self).map_err(|_| CertificatePinError)
    }
}

impl fmt::Display for CertificatePin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256/{}", BASE64.encode(self.0))
    }
}

impl TryFrom<String> for CertificatePin {
    type Error = CertificatePinError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<CertificatePin> for String {
    fn from(pin: CertificatePin) -> Self {
        pin.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hash_in_base64_is_a_pin() {
        let text = "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        assert_eq!(text.parse::<CertificatePin>().unwrap().to_string(), text);
        // A hash that begins with a slash, and curl's form.
        let slash = format!("sha256/{}", BASE64.encode([0xfc; 32]));
        assert_eq!(slash.parse::<CertificatePin>().unwrap().to_string(), slash);
        assert_eq!(text.replace("sha256/", "sha256//").parse::<CertificatePin>().unwrap().to_string(), text);
        for wrong in ["", "sha256/", "sha256/AAAA", "sha1/2jmj7l5rSw0yVb/vlWAYkK/YBwk=", "47DEQpj8HBSa"] {
            assert_eq!(wrong.parse::<CertificatePin>(), Err(CertificatePinError), "{wrong}");
        }
    }
}
