//! What gets an account's connections in beside its endpoint: the password or token, and what connections of all
//! accounts share.

use std::sync::Arc;

use secrecy::SecretString;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;

use super::config::ImapConfig;
use super::error::ImapError;
use super::oauth::{AccessToken, Http, Oauth, OauthError, Tokens};
use super::provider::{Providers, Quirks};
use super::sasl::Secret;
use super::tls::TlsSettings;
use crate::event::AccountName;
use crate::registry::{Credentials, Field, ImapEndpoint, OauthConfig, PasswordError, printed_by};

/// What the connections of all accounts share.
#[derive(Debug, Default)]
pub(super) struct Ways {
    tls: TlsSettings,
    providers: Providers,
    credentials: Option<Credentials>,
    http: Http,
}

impl Ways {
    pub(super) fn new(config: &ImapConfig, credentials: Option<Credentials>) -> Arc<Self> {
        let providers = Providers::load(config.providers_file.as_deref()).unwrap_or_else(|err| {
            // It was right when the configuration was checked.
            warn!(error = %err, "going on without the operator's providers");
            Providers::default()
        });
        Arc::new(Self { providers, credentials, ..Self::default() })
    }

    /// For the connections of one account to a host.
    pub(super) fn access(self: &Arc<Self>, account: AccountName, host: &str) -> Access {
        let quirks = self.providers.quirks(host);
        Access { account, quirks, ways: self.clone(), tokens: Mutex::default() }
    }
}

/// What gets the connections of one account in.
#[derive(Debug)]
pub(super) struct Access {
    account: AccountName,
    quirks: Quirks,
    ways: Arc<Ways>,
    tokens: Mutex<Tokens>,
}

/// A password or a token, and how long it counts.
pub(super) struct Proof {
    pub secret: Secret,
    /// Nothing where it does not end, or nobody says when.
    pub expires_at: Option<Instant>,
}

impl Access {
    pub(super) fn tls(&self) -> &TlsSettings {
        &self.ways.tls
    }

    /// What is particular about the account's server.
    pub(super) fn quirks(&self) -> &Quirks {
        &self.quirks
    }

    /// The name of the account's provider, if it is a known one.
    pub(super) fn provider(&self, endpoint: &ImapEndpoint) -> Option<&str> {
        self.ways.providers.name(&endpoint.host)
    }

    /// What proves who we are: a password is fetched now, a token when the one that is kept is over.
    pub(super) async fn proof(&self, endpoint: &ImapEndpoint) -> Result<Proof, ImapError> {
        if let Some(command) = &endpoint.access_token_command {
            let secret = Secret::Token(printed_by(command).await?);
            return Ok(Proof { secret, expires_at: None });
        }
        if let Some(config) = &endpoint.oauth {
            let token = self.token(config).await?;
            return Ok(Proof { secret: Secret::Token(token.value), expires_at: token.expires_at });
        }
        let password = self.password(endpoint).await?;
        Ok(Proof { secret: Secret::Password(password), expires_at: None })
    }

    /// Takes note that a proof was refused, so that a token is not used again.
    pub(super) async fn forget(&self, proof: &Proof) {
        if let Secret::Token(token) = &proof.secret {
            self.tokens.lock().await.forget(token);
        }
    }

    /// Held while a token is fetched, so that an account's connections need one between them.
    async fn token(&self, config: &OauthConfig) -> Result<AccessToken, OauthError> {
        let mut tokens = self.tokens.lock().await;
        if let Some(token) = tokens.fresh(Instant::now()) {
            return Ok(token);
        }
        let none = || OauthError::NotLoggedIn(self.account.clone());
        let credentials = self.ways.credentials.as_ref().ok_or_else(none)?;
        let oauth = Oauth::with_http(config, &self.ways.providers, self.ways.http.clone()).await?;
        tokens.refresh(&oauth, &self.account, credentials).await
    }

    async fn password(&self, endpoint: &ImapEndpoint) -> Result<SecretString, PasswordError> {
        match (endpoint.password().await, &self.ways.credentials) {
            (Err(PasswordError::NotConfigured), Some(credentials)) => {
                let stored = credentials.fetch(&self.account, Field::Password).await?;
                stored.ok_or(PasswordError::NotConfigured)
            }
            (password, _) => password,
        }
    }
}
