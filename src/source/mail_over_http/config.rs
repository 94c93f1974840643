//! `[mail_over_http]`: which providers may post mail, and how they prove that it is them.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::auth::SharedSecret;
use crate::registry::{PasswordError, PasswordSource};

/// `[mail_over_http]`: mail that comes by `POST /api/mail` and from providers. Each provider is off until it has
/// something to prove itself with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MailOverHttpConfig {
    /// Memory for the messages of all requests together, in octets; past that, senders are told to try again later. There
    /// is as much again for requests that are signed, because they have to be read before it is known whose they are.
    /// When either is used up, requests that have been coming in for more than ten seconds are cut off first. One message
    /// may have `smtp.message_bytes_max`. Default: 268435456 (256 MiB).
    pub memory_bytes_max: NonZeroUsize,
    /// A file whose first line is Mailgun's HTTP webhook signing key. Default: none, Mailgun may not post.
    pub mailgun_signing_key_file: Option<PathBuf>,
    /// The public key of a SendGrid security policy with signatures, in base64 as SendGrid shows it. Default: none.
    pub sendgrid_public_key: Option<String>,
    /// A file whose first line is the secret in the URL that SendGrid is given, for accounts without signatures; with
    /// both, both are checked. Default: none.
    pub sendgrid_secret_file: Option<PathBuf>,
    /// A file whose first line is the secret in the URL that Postmark is given. Default: none, Postmark may not post.
    pub postmark_secret_file: Option<PathBuf>,
    /// The user name in the URLs that SendGrid and Postmark are given. Default: `"postrider"`.
    pub user: String,
    /// How far the time in a signature may be from now. Default: `"5m"`.
    #[serde(with = "humantime_serde")]
    pub signature_age_max: Duration,
}

impl Default for MailOverHttpConfig {
    fn default() -> Self {
        Self {
            memory_bytes_max: MEMORY_BYTES_MAX,
            mailgun_signing_key_file: None,
            sendgrid_public_key: None,
            sendgrid_secret_file: None,
            postmark_secret_file: None,
            user: "postrider".to_owned(),
            signature_age_max: Duration::from_mins(5),
        }
    }
}

const MEMORY_BYTES_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(256 * 1024 * 1024 - 1);

/// Why the section cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MailOverHttpConfigError {
    /// Basic authentication ends the name at the first colon (RFC 7617 §2).
    #[error("`mail_over_http.user` must not be empty or have a colon in it")]
    User,
    /// No signature would ever be in time, or replays would have to be remembered for ever.
    #[error("`mail_over_http.signature_age_max` must be from 1 s to 24 h")]
    SignatureAge,
    /// It is no key.
    #[error("`mail_over_http.sendgrid_public_key` is not an ECDSA P-256 public key in base64, as SendGrid shows it")]
    PublicKey,
}

/// A secret that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot receive mail from {provider} without its secret, see `[mail_over_http]`")]
pub struct SecretError {
    provider: &'static str,
    source: PasswordError,
}

/// What providers prove themselves with.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    pub(super) mailgun: Option<SecretString>,
    pub(super) sendgrid_key: Option<Vec<u8>>,
    pub(super) sendgrid: Option<SharedSecret>,
    pub(super) postmark: Option<SharedSecret>,
}

impl Secrets {
    /// Whose they are: these may post.
    pub fn providers(&self) -> Vec<&'static str> {
        let providers = [
            ("Mailgun", self.mailgun.is_some()),
            ("SendGrid", self.sendgrid_key.is_some() || self.sendgrid.is_some()),
            ("Postmark", self.postmark.is_some()),
        ];
        providers.into_iter().filter_map(|(name, may_post)| may_post.then_some(name)).collect()
    }
}

impl MailOverHttpConfig {
    /// Checks what a type cannot say.
    ///
    /// # Errors
    /// See [`MailOverHttpConfigError`].
    pub fn check(&self) -> Result<(), MailOverHttpConfigError> {
        if self.user.is_empty() || self.user.contains(':') {
            return Err(MailOverHttpConfigError::User);
        }
        if !(Duration::from_secs(1)..=Duration::from_hours(24)).contains(&self.signature_age_max) {
            return Err(MailOverHttpConfigError::SignatureAge);
        }
        self.public_key().map(drop)
    }

    /// The DER of SendGrid's key (`SubjectPublicKeyInfo`); PEM's lines around it are forgiven.
    fn public_key(&self) -> Result<Option<Vec<u8>>, MailOverHttpConfigError> {
        let Some(text) = &self.sendgrid_public_key else { return Ok(None) };
        let digits: String = text.lines().filter(|line| !line.starts_with("-----")).collect::<String>();
        let der = STANDARD.decode(digits.trim()).map_err(|_| MailOverHttpConfigError::PublicKey)?;
        ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &der).map_err(|_| MailOverHttpConfigError::PublicKey)?;
        Ok(Some(der))
    }

    /// The secrets, read now.
    ///
    /// # Errors
    /// When a file cannot be read, or is empty.
    pub async fn secrets(&self) -> Result<Secrets, SecretError> {
        let shared = async |provider, file: &Option<PathBuf>| {
            let secret = secret(provider, file.as_deref()).await?;
            Ok::<_, SecretError>(secret.map(|secret| SharedSecret::new(&self.user, secret)))
        };
        Ok(Secrets {
            mailgun: secret("Mailgun", self.mailgun_signing_key_file.as_deref()).await?,
            // It was checked before.
            sendgrid_key: self.public_key().ok().flatten(),
            sendgrid: shared("SendGrid", &self.sendgrid_secret_file).await?,
            postmark: shared("Postmark", &self.postmark_secret_file).await?,
        })
    }
}

async fn secret(provider: &'static str, file: Option<&std::path::Path>) -> Result<Option<SecretString>, SecretError> {
    if file.is_none() {
        return Ok(None);
    }
    let password = PasswordSource { file, ..PasswordSource::default() }.password().await;
    password.map(Some).map_err(|source| SecretError { provider, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_named() {
        let check = |text: &str| toml::from_str::<MailOverHttpConfig>(text).unwrap().check();
        assert_eq!(check(""), Ok(()));
        assert_eq!(MailOverHttpConfig::default().memory_bytes_max.get(), 268_435_456);
        assert_eq!(check("user = 'a:b'"), Err(MailOverHttpConfigError::User));
        assert_eq!(check("signature_age_max = '0s'"), Err(MailOverHttpConfigError::SignatureAge));
        assert_eq!(check("sendgrid_public_key = 'AAAA'"), Err(MailOverHttpConfigError::PublicKey));
        // A key of prime256v1, as `openssl ec -pubout` writes it.
        let key = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li\
                   /hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==";
        assert_eq!(check(&format!("sendgrid_public_key = '{key}'")), Ok(()));
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n{}\n-----END PUBLIC KEY-----", &key[..64], &key[64..]);
        assert_eq!(check(&format!("sendgrid_public_key = '''{pem}'''")), Ok(()));
    }
}
