//! Tries the name servers once: for `postrider check`.

use std::time::Duration;

use super::config::{MessageAuthenticationConfig, NameServer};
use super::verifier::{NameServerError, ResolverError, Verifier};

/// Why nothing can be found out about senders.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// There are no name servers.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// They are of no use.
    #[error(transparent)]
    NameServer(#[from] NameServerError),
}

/// Asks each of the configured name servers, or the system's together, and says how soon the answer came. Asks nobody
/// where verification is not built in.
pub async fn probe_name_servers(
    config: &MessageAuthenticationConfig,
) -> Vec<(Option<NameServer>, Result<Duration, ProbeError>)> {
    if cfg!(not(feature = "mail-auth")) {
        return Vec::new();
    }
    if config.resolver.is_empty() {
        return vec![(None, probe(config).await)];
    }
    let mut found = Vec::new();
    for &server in &config.resolver {
        let alone = MessageAuthenticationConfig { resolver: vec![server], ..config.clone() };
        found.push((Some(server), probe(&alone).await));
    }
    found
}

async fn probe(config: &MessageAuthenticationConfig) -> Result<Duration, ProbeError> {
    Ok(Verifier::new(config)?.probe().await?)
}
