//! `[hub]`: who may subscribe without a token, and how much waits for one subscriber.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

/// `[hub]`: who may subscribe without a token, and how much waits for one subscriber.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HubConfig {
    /// Allows public updates: publishers may mark an update as not private, and subscribers without a token get those.
    /// Mail is private whatever this says. Default: false.
    pub public: bool,
    /// Events that wait for one subscriber; past that, it reads from the log until it has caught up. Default: 256.
    pub queue_max: NonZeroUsize,
    /// Subscribers at the same time; more are told to come back later. Default: 20,000.
    pub subscribers_max: usize,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self { public: false, queue_max: NonZeroUsize::new(256).unwrap_or(NonZeroUsize::MIN), subscribers_max: 20_000 }
    }
}
