//! Watches IMAP mailboxes and turns new messages into events.
//!
//! Each configured mailbox has a connection of its own, on which it is opened read-only and waits in IDLE (RFC 2177).
//!
//! ```text
//!  supervisor ── one task per mailbox, back-off, what people are told (health)
//!      └─ login ── socket (TCP, TLS) · refusal · error
//!          └─ session ── where it left off (cursor), catch-up, events (fetch, structure)
//!              └─ live ── IDLE cycle (idle), what was announced (mirror)
//!                  └─ connection ── commands and deadlines · wire (the parser) · guard (its limits)
//! ```
//!
//! Invariants: the position in a mailbox is stored in the same commit as the events before it; it moves only over
//! messages that the server sent or did not have; nothing that is sent can change a message or its flags. What is in
//! `backoff`, `cursor`, `fetch`, `idle`, `mirror`, `refusal` and `structure` does no I/O.

mod backoff;
mod config;
mod connection;
mod context;
mod cursor;
mod error;
mod fetch;
mod guard;
mod handle;
mod health;
mod idle;
mod live;
mod login;
mod mailbox_name;
mod mirror;
mod probe;
mod protocol;
mod refusal;
mod session;
mod socket;
mod structure;
mod supervisor;
mod wire;

pub(in crate::source) use backoff::{Backoff, after_refused_login};
pub use config::{ImapConfig, ImapConfigError};
pub(in crate::source) use cursor::dedup_key;
pub use error::ImapError;
pub use handle::WatcherHandle;
pub(in crate::source) use health::{Condition, Health};
pub(in crate::source) use mailbox_name::canonical as canonical_mailbox;
pub use probe::{ProbeReport, probe};
pub use refusal::{Refusal, ServerText};
pub use supervisor::watch;
