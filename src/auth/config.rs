//! `[auth]`: who may write from a browser, and whose tokens count.

use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde::{Deserialize, Serialize};
use url::Url;

use super::SiteOrigin;
use crate::config::is_loopback;

/// `[auth]`: tokens and where they may come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// Other sites whose pages may write with the cookie, for example `"https://mail.example.org"`. Default: none, only
    /// postrider's own page may.
    pub allowed_origins: Vec<SiteOrigin>,
    /// Others whose tokens count besides postrider's own. Default: none.
    pub issuer: Vec<IssuerConfig>,
}

/// `[[auth.issuer]]`: somebody else who signs tokens, and what they are verified with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IssuerConfig {
    /// What the claim `iss` of its tokens says. Without one these are the tokens that name no issuer, as most signers for
    /// Mercure make them. Default: none.
    pub issuer: Option<String>,
    /// Where its keys are published, as a JSON Web Key Set. Default: none.
    pub jwks_url: Option<String>,
    /// A file with such a set. Default: none.
    pub jwks_file: Option<PathBuf>,
    /// A file with one public key, as PEM. Default: none.
    pub key_file: Option<PathBuf>,
    /// A file whose first line is a secret that the issuer has too. Default: none.
    pub secret_file: Option<PathBuf>,
    /// How its tokens may be signed. Default: `["EdDSA", "ES256", "RS256"]`; `["HS256"]` with a secret.
    pub algorithms: Option<Vec<Algorithm>>,
    /// What the claim `aud` has to name, one of these. Default: the address of the hub, where there is an `aud`.
    pub audience: Vec<String>,
    /// How often the set of keys is read again; a token with a key that is not in it has it read at once. Default: `"15m"`.
    #[serde(with = "humantime_serde")]
    pub jwks_refresh: Duration,
}

impl Default for IssuerConfig {
    fn default() -> Self {
        Self {
            issuer: None,
            jwks_url: None,
            jwks_file: None,
            key_file: None,
            secret_file: None,
            algorithms: None,
            audience: Vec::new(),
            jwks_refresh: Duration::from_mins(15),
        }
    }
}

/// Why the section cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthConfigError {
    /// Nothing, or too much, to verify with.
    #[error("{0} needs one of `jwks_url`, `jwks_file`, `key_file` and `secret_file`, and one only")]
    Keys(String),
    /// Whoever is on the way could give us keys of their own.
    #[error("the `jwks_url` of {0} must begin with https://; http:// is for this machine only")]
    Url(String),
    /// Of which it is not clear whose keys count.
    #[error("{0} is there twice; put all that its tokens are verified with into one set of keys")]
    Twice(String),
    /// What the keys cannot do.
    #[error(
        "{0} has `algorithms` that its keys are not for: HS256, HS384 and HS512 are for a secret or a `jwks_file`, \
             the others for public keys; at least one is needed"
    )]
    Algorithms(String),
    /// Too often, or hardly ever.
    #[error("the `jwks_refresh` of {0} must be from {1:?} to {2:?}")]
    Refresh(String, Duration, Duration),
}

impl AuthConfig {
    /// Checks what a type cannot say.
    ///
    /// # Errors
    /// See [`AuthConfigError`].
    pub fn check(&self) -> Result<(), AuthConfigError> {
        for (at, issuer) in self.issuer.iter().enumerate() {
            issuer.check()?;
            let before = self.issuer.iter().take(at);
            // Of those who sign without a name there may be several: one for publishers, one for subscribers.
            if issuer.issuer.is_some() && before.into_iter().any(|other| other.issuer == issuer.issuer) {
                return Err(AuthConfigError::Twice(issuer.name()));
            }
        }
        Ok(())
    }
}

impl IssuerConfig {
    const REFRESH_MIN: Duration = Duration::from_mins(1);
    const REFRESH_MAX: Duration = Duration::from_hours(24);

    fn check(&self) -> Result<(), AuthConfigError> {
        let files = [&self.jwks_file, &self.key_file, &self.secret_file];
        let sources = files.iter().filter(|file| file.is_some()).count() + usize::from(self.jwks_url.is_some());
        if sources != 1 {
            return Err(AuthConfigError::Keys(self.name()));
        }
        if self.jwks_url.as_deref().is_some_and(|url| safe_url(url).is_none()) {
            return Err(AuthConfigError::Url(self.name()));
        }
        let (symmetric, public) = (self.secret_file.is_some(), self.key_file.is_some() || self.jwks_url.is_some());
        let algorithms = self.algorithms();
        let fits = |algorithm: &Algorithm| if is_hmac(*algorithm) { !public } else { !symmetric };
        if algorithms.is_empty() || !algorithms.iter().all(fits) {
            return Err(AuthConfigError::Algorithms(self.name()));
        }
        if !(Self::REFRESH_MIN..=Self::REFRESH_MAX).contains(&self.jwks_refresh) {
            return Err(AuthConfigError::Refresh(self.name(), Self::REFRESH_MIN, Self::REFRESH_MAX));
        }
        Ok(())
    }

    /// How its tokens may be signed.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        match &self.algorithms {
            Some(algorithms) => algorithms.clone(),
            None if self.secret_file.is_some() => vec![Algorithm::HS256],
            // RFC 9068 asks for RS256 at least.
            None => vec![Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256],
        }
    }

    /// What it is called in messages.
    pub fn name(&self) -> String {
        match &self.issuer {
            Some(issuer) => format!("the `auth.issuer` `{issuer}`"),
            None => "the `auth.issuer` without a name".to_owned(),
        }
    }
}

fn is_hmac(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
}

/// An address whose answer can be believed: nobody is on the way who could change it.
pub(super) fn safe_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_here = url.host_str().is_some_and(is_loopback);
    (url.scheme() == "https" || (url.scheme() == "http" && is_here)).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), AuthConfigError> {
        toml::from_str::<AuthConfig>(text).unwrap().check()
    }

    #[test]
    fn contradictions_are_told() {
        let url = "jwks_url = 'https://a.example/keys'";
        assert_eq!(check(&format!("[[issuer]]\nissuer = 'a'\n{url}\n[[issuer]]\nsecret_file = 's'")), Ok(()));
        assert_eq!(check("[[issuer]]\nsecret_file = 's'\n[[issuer]]\nsecret_file = 't'"), Ok(()));
        assert!(matches!(check("[[issuer]]\nissuer = 'a'"), Err(AuthConfigError::Keys(_))));
        assert!(matches!(check(&format!("[[issuer]]\n{url}\nkey_file = 'k'")), Err(AuthConfigError::Keys(_))));
        for url in ["http://a.example/keys", "file:///keys", "keys", "ftp://127.0.0.1/keys"] {
            let text = format!("[[issuer]]\njwks_url = '{url}'");
            assert!(matches!(check(&text), Err(AuthConfigError::Url(_))), "{url}");
        }
        assert_eq!(check("[[issuer]]\njwks_url = 'http://127.0.0.1/keys'"), Ok(()));
        let twice = format!("[[issuer]]\nissuer = 'a'\n{url}\n").repeat(2);
        assert!(matches!(check(&twice), Err(AuthConfigError::Twice(name)) if name.contains("`a`")));
        for wrong in [
            "secret_file = 's'\nalgorithms = ['HS256', 'RS256']",
            "key_file = 'k'\nalgorithms = ['HS256']",
            "jwks_url = 'https://a.example/keys'\nalgorithms = ['HS256']",
            "key_file = 'k'\nalgorithms = []",
        ] {
            let text = format!("[[issuer]]\n{wrong}");
            assert!(matches!(check(&text), Err(AuthConfigError::Algorithms(_))), "{wrong}");
        }
        assert!(toml::from_str::<AuthConfig>("[[issuer]]\nalgorithms = ['none']").is_err());
        assert!(matches!(check(&format!("[[issuer]]\n{url}\njwks_refresh = '1s'")), Err(AuthConfigError::Refresh(..))));
    }
}
