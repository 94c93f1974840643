//! OAuth 2.0 for accounts whose provider wants tokens instead of passwords.
//!
//! A person agrees once, by [`browser`] or on another [`device`]; what comes of it is a refresh token, stored sealed
//! with whose it is. From then on `token` fetches access tokens with it. The HTTP is reqwest's, with limits; there is
//! little more to it than forms (RFC 6749 §4.1.3, §6).

pub mod browser;
pub mod device;
mod endpoints;
mod error;
mod http;
mod token;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

pub use self::error::OauthError;
pub(super) use self::http::Http;
pub(super) use self::token::{AccessToken, Tokens};

use self::endpoints::Endpoints;
use super::provider::Providers;
use crate::event::AccountName;
use crate::registry::{Credentials, Field, OauthConfig};

/// One account's OAuth, ready to ask for tokens.
#[derive(Debug)]
pub struct Oauth {
    config: OauthConfig,
    endpoints: Endpoints,
    client_secret: Option<SecretString>,
    http: Http,
}

/// A refresh token as it is stored: it must go to nobody but who gave it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredToken {
    provider: String,
    client_id: String,
    refresh_token: String,
}

impl Oauth {
    /// Finds the endpoints, by the provider's preset or by discovery, and reads the client's secret.
    ///
    /// # Errors
    /// See [`OauthError`].
    pub async fn open(config: &OauthConfig, providers: &Providers) -> Result<Self, OauthError> {
        Self::with_http(config, providers, Http::default()).await
    }

    pub(super) async fn with_http(config: &OauthConfig, providers: &Providers, http: Http) -> Result<Self, OauthError> {
        let endpoints = Endpoints::find(config, providers, &http).await?;
        let client_secret = match &config.client_secret_file {
            Some(path) => Some(crate::registry::first_line_of(path).await?),
            None => None,
        };
        Ok(Self { config: config.clone(), endpoints, client_secret, http })
    }

    /// The form's fields that say which program asks.
    fn client<'a>(&'a self, fields: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let mut fields = fields.to_vec();
        fields.push(("client_id", &self.config.client_id));
        if let Some(secret) = &self.client_secret {
            fields.push(("client_secret", secret.expose_secret()));
        }
        fields
    }

    /// Stores what a login gave.
    ///
    /// # Errors
    /// See [`OauthError`].
    pub async fn store(
        &self,
        refresh_token: &SecretString,
        account: &AccountName,
        credentials: &Credentials,
    ) -> Result<(), OauthError> {
        let stored = StoredToken {
            provider: self.config.provider.clone(),
            client_id: self.config.client_id.clone(),
            refresh_token: refresh_token.expose_secret().to_owned(),
        };
        let text = serde_json::to_string(&stored).map_err(|_| OauthError::Answer("a token that is no text"))?;
        zeroize::Zeroize::zeroize(&mut { stored.refresh_token });
        Ok(credentials.store(account, Field::RefreshToken, &SecretString::from(text)).await?)
    }

    /// The refresh token of an account, if it was given by the provider that is configured.
    async fn stored(&self, account: &AccountName, credentials: &Credentials) -> Result<SecretString, OauthError> {
        let none = || OauthError::NotLoggedIn(account.clone());
        let text = credentials.fetch(account, Field::RefreshToken).await?.ok_or_else(none)?;
        let stored: StoredToken = serde_json::from_str(text.expose_secret()).map_err(|_| none())?;
        let is_theirs = stored.provider == self.config.provider && stored.client_id == self.config.client_id;
        let token = SecretString::from(stored.refresh_token);
        if is_theirs { Ok(token) } else { Err(none()) }
    }
}
