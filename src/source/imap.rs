//! Watches IMAP accounts and turns what happens in their mailboxes into events.
//!
//! An account has one connection, and more where its server needs them. A connection has one mailbox open, read-only,
//! and waits there in IDLE (RFC 2177); other mailboxes that it looks after are visited when they changed.
//!
//! ```text
//!  supervisor ── one task per connection, back-off, what people are told (health); handle: a word from outside
//!   │  context ── what an account's connections share; host: what all connections to one host share
//!   ├─ login ── access (password or token) · sasl, scram, oauth · socket, proxy, tls · provider · refusal · error
//!   └─ session ── which mailboxes (mailboxes), what became of them (folders), visits · commands of others
//!       ├─ live ── IDLE cycle (idle), polling, sweeps, the look now and then
//!       └─ opened ── one mailbox: position (cursor), what was announced (mirror), flags · fetch, structure
//!           │  catch_up ── what came while nobody watched: QRESYNC, CONDSTORE, or lists that are compared
//!           ├─ report ── changes become events, committed with the position after them
//!           └─ link ── questions and their answers, by what the server offers (offers) and is wanted (wants)
//!               └─ connection ── commands, deadlines, octets ── protocol (the language)
//! ```
//!
//! Invariants: the position in a mailbox is stored in the same commit as the events before it; it moves only over
//! messages that the server sent or did not have; nothing but `commands` sends what can change a message or its flags.
//! What is in `cursor`, `fetch`, `flags`, `idle`, `mailboxes`, `mirror`, `protocol`, `refusal`, `sasl`,
//! `scram` and `structure` does no I/O.

mod access;
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
mod tls_stream;
mod uid_text;
mod wants;

pub use commands::{CommandError, MailboxCommand, MessageSet, PART_BYTES_MAX};
pub use config::{ImapConfig, ImapConfigError};
pub(in crate::source) use cursor::dedup_key;
pub use error::ImapError;
pub use handle::WatcherHandle;
pub(in crate::source) use mailbox_name::canonical as canonical_mailbox;
pub use metrics::register_metrics;
pub use probe::{ProbeReport, probe, probe_account};
pub use proxy::ProxyError;
pub use refusal::{Refusal, ServerText};
pub use sasl::SaslError;
pub use scram::ScramError;
pub use supervisor::watch;

use protocol::mailbox_name;
