//! `[mercure]`: the hub under the Mercure protocol.

use serde::{Deserialize, Serialize};

/// `[mercure]`: the hub under the Mercure protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MercureConfig {
    /// Whether the dialect of Mercure before 1.0 is spoken too: `topic` selectors, tokens with the claim `mercure`, tokens
    /// in addresses and in the cookie `mercureAuthorization`. Default: true, for that is what most clients speak.
    pub legacy: bool,
    /// Whether it is told, by private updates and an API, who is subscribed to what. Default: false.
    pub subscriptions: bool,
}

impl Default for MercureConfig {
    fn default() -> Self {
        Self { legacy: true, subscriptions: false }
    }
}
