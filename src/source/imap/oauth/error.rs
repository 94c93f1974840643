//! Why there is no token.

use crate::event::AccountName;
use crate::registry::{CredentialsError, PasswordError};

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OauthError {
    /// Nobody has logged in, or to another provider than the configured one.
    #[error("nobody has allowed postrider in yet; run `postrider account login {0}`")]
    NotLoggedIn(AccountName),
    /// What was allowed is no longer: it was withdrawn, or too long unused, or the password was changed.
    #[error("the provider no longer takes the refresh token ({1}); run `postrider account login {0}` again")]
    Withdrawn(AccountName, String),
    /// The provider does not take the client or what it asks for.
    #[error("the provider refused the request ({0}); check `client_id`, `client_secret_file` and `scope`")]
    Client(String),
    /// A person said no.
    #[error("access was not granted ({0})")]
    Denied(String),
    /// A person said nothing.
    #[error("nobody agreed in time; run the command again")]
    Expired,
    /// It may work later.
    #[error("the provider cannot be asked for a token at the moment ({0})")]
    Temporary(String),
    /// What the provider answered makes no sense.
    #[error("the provider's answer cannot be used: {0}")]
    Answer(&'static str),
    /// There is nothing to ask.
    #[error("`{0}` is not known of this OAuth provider; set it in `[account.imap.oauth]`")]
    NoEndpoint(&'static str),
    /// The provider is neither known nor an address.
    #[error("`provider = \"{0}\"` is neither a known provider nor the https address of one")]
    Provider(String),
    /// An address over which a secret must not go.
    #[error("{0} is not an https address")]
    Insecure(String),
    /// The provider keeps its door open for minutes only.
    #[error("the provider gave no refresh token; add what it calls offline access to `scope`, mostly `offline_access`")]
    NoRefreshToken,
    /// The browser's answer could not be waited for.
    #[error("cannot wait for the browser on 127.0.0.1")]
    Listen(#[source] std::io::Error),
    /// The client's secret or the command is not usable.
    #[error(transparent)]
    Secret(#[from] PasswordError),
    /// The stored token is not usable.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

impl OauthError {
    /// The same request will be refused again: a person has to act.
    pub fn needs_person(&self) -> bool {
        matches!(
            self,
            Self::NotLoggedIn(_)
                | Self::Withdrawn(..)
                | Self::Client(_)
                | Self::Denied(_)
                | Self::NoEndpoint(_)
                | Self::Provider(_)
                | Self::Insecure(_)
                | Self::NoRefreshToken
        )
    }
}
