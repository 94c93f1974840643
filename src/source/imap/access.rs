//! What gets an account's connections in beside its endpoint: the password or token, and what connections of all
//! accounts share.

use secrecy::SecretString;
use tokio::time::Instant;
use tracing::warn;

use super::config::ImapConfig;
use super::error::ImapError;
use super::provider::{Providers, Quirks};
use super::sasl::Secret;
use super::socket::TlsSettings;
use crate::event::AccountName;
use crate::registry::{Credentials, Field, ImapEndpoint, PasswordError};

/// What the connections of all accounts share. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Ways {
    tls: TlsSettings,
    providers: Providers,
    credentials: Option<Credentials>,
}

impl Ways {
    pub(super) fn new(config: &ImapConfig, credentials: Option<Credentials>) -> Self {
        let _ = config;
        Self { tls: TlsSettings::default(), providers: Providers::default(), credentials }
    }

    /// For the connections of one account.
    pub(super) fn access(&self, account: AccountName) -> Access {
        Access { account, ways: self.clone() }
    }
}

/// What gets the connections of one account in.
#[derive(Debug)]
pub(super) struct Access {
    account: AccountName,
    ways: Ways,
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
    pub(super) fn quirks(&self, endpoint: &ImapEndpoint) -> Quirks {
        self.ways.providers.quirks(&endpoint.host)
    }

    /// What proves who we are, fetched now.
    pub(super) async fn proof(&self, endpoint: &ImapEndpoint) -> Result<Proof, ImapError> {
        let password = self.password(endpoint).await?;
        Ok(Proof { secret: Secret::Password(password), expires_at: None })
    }

    /// Takes note that a proof was refused, so that a token is not used again.
    #[expect(clippy::unused_async, reason = "will wait for the token's lock")]
    pub(super) async fn forget(&self, proof: &Proof) {
        let _ = proof;
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
