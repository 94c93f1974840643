//! Watches the mail of JMAP accounts (RFC 8620, RFC 8621) and turns what happens into events.
//!
//! ```text
//!  watcher ── one task per account, back-off, what people are told (health)
//!      └─ account ── where it left off, catch-up, commits
//!          ├─ mirror ── what changed → events · summary
//!          └─ client ── HTTP: session, methods (request, object), event stream (event_stream)
//! ```
//!
//! One connection tells of all mailboxes (RFC 8620 §7.3), and `Email/changes` of exactly what changed. Invariants: the
//! states up to which changes were reported are stored in the same commit as the events; a push only makes us ask, so
//! that nothing depends on one. `event_stream`, `mirror`, `object`, `request` and `summary` do no I/O.

mod account;
mod client;
mod config;
mod error;
mod event_stream;
mod mirror;
mod object;
mod probe;
mod request;
mod summary;
mod watcher;

pub use config::{JmapConfig, JmapConfigError};
pub use error::JmapError;
pub use probe::{ProbeReport, probe};
pub use watcher::watch;
