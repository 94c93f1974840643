//! `[auth]`: who may write from a browser.

use serde::{Deserialize, Serialize};

use super::SiteOrigin;

/// `[auth]`: tokens and where they may come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// Other sites whose pages may write with the cookie, for example `"https://mail.example.org"`. Default: none, only
    /// postrider's own page may.
    pub allowed_origins: Vec<SiteOrigin>,
}
