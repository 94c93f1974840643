//! Receives what Dovecot's push-notification plugin sends: the fast lane beside IDLE, on which Dovecot waits 500 ms.
//!
//! ```text
//!  endpoint ── who sends (secret) · body → notification → route (whose mail is it?)
//!      ├─ watched account ── tell the watcher: it fetches the message with its own cursor
//!      └─ any other ──────── draft → event log
//! ```
//!
//! Invariants: a push brings nothing twice, since it either only wakes the watcher or has the key under which the
//! watcher would report the same message; nothing depends on a push, since Dovecot does not repeat one that failed;
//! Dovecot is answered within [`ANSWER_WITHIN`], for its delivery waits. Only `endpoint` does I/O.

mod config;
mod draft;
mod endpoint;
mod metadata;
mod notification;
mod route;
mod secret;

pub use config::{DovecotConfig, DovecotConfigError};
pub use endpoint::{ANSWER_WITHIN, Receiver, router};
pub use metadata::metadata_command;
pub use secret::Secret;
