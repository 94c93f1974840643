//! Watches IMAP mailboxes and turns new messages into events.
//!
//! Each configured mailbox has a connection of its own, on which it is opened read-only and waits in IDLE (RFC 2177).
//!
//! ```text
//!  supervisor ── one task per mailbox, back-off, what people are told (health)
//!      └─ login ── socket (TCP, TLS) · refusal · error
//!          └─ session ── where it left off (cursor), catch-up, events (fetch, structure)
//!              └─ live ── IDLE cycle (idle), what was announced (mirror)
//!                  └─ connection ── commands, deadlines, octets ── protocol (the language)
//! ```
//!
//! Invariants: the position in a mailbox is stored in the same commit as the events before it; it moves only over
//! messages that the server sent or did not have; nothing that is sent can change a message or its flags. What is in
//! `backoff`, `cursor`, `fetch`, `idle`, `mirror`, `protocol`, `refusal` and `structure` does no I/O.

mod access;
mod backoff;
mod catch_up;
mod commands;
mod config;
mod connection;
mod context;
mod cursor;
mod error;
mod fetch;
mod flags;
mod folders;
mod handle;
mod health;
mod host;
mod idle;
mod link;
mod live;
mod login;
mod mailboxes;
mod metrics;
mod mirror;
pub mod oauth;
mod offers;
mod opened;
mod probe;
mod protocol;
pub mod provider;
mod proxy;
mod refusal;
mod report;
mod sasl;
mod scram;
mod session;
mod socket;
mod structure;
mod supervisor;
mod tls;
mod uid_text;
mod wants;

pub(in crate::source) use backoff::{Backoff, after_refused_login};
pub use commands::{CommandError, MailboxCommand, MessageSet, PART_BYTES_MAX};
pub use config::{ImapConfig, ImapConfigError};
pub(in crate::source) use cursor::dedup_key;
pub use error::ImapError;
pub use handle::WatcherHandle;
pub(in crate::source) use health::{Announcements, Condition, Health};
pub(in crate::source) use mailbox_name::canonical as canonical_mailbox;
pub use probe::{ProbeReport, probe, probe_account};
pub use proxy::ProxyError;
pub use refusal::{Refusal, ServerText};
pub use sasl::SaslError;
pub use scram::ScramError;
pub use supervisor::watch;

use protocol::mailbox_name;

/// What the watcher has counted since the start: names, what they count, and the numbers.
pub fn metrics() -> impl Iterator<Item = (&'static str, &'static str, u64)> {
    metrics::METRICS.all().into_iter()
}
