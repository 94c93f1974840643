//! `[shutdown]`: how long stopping may take.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[shutdown]`: stopping on SIGTERM or Ctrl-C.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownConfig {
    /// Time for open sessions and streams to end by themselves before they are closed. Default: `"10s"`.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { grace: Duration::from_secs(10) }
    }
}
