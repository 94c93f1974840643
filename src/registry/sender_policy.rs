//! What an account asks of whoever sends it mail.

use serde::{Deserialize, Serialize};

/// What is done with mail that fails DMARC: it says that it is from a domain that did not send it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DmarcFail {
    /// The event tells of it.
    #[default]
    Accept,
    /// The event says that the message is suspicious, and its priority is low.
    Mark,
    /// What its domain wants to be rejected is refused; the rest is marked.
    Refuse,
}

/// What mail has to prove to be taken at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Requirement {
    /// It passes DMARC, or its client has logged in.
    #[serde(rename = "dmarc-pass")]
    DmarcPass,
}
