//! IMAP as a language: octets become responses, sets of UIDs are written and read. No I/O, no clock.
//!
//! ```text
//!  octets ── framer (whole responses) ── tokenizer (atoms, strings, lists) ── parse
//!      ├─ reply (OK, NO, …, capabilities) · id
//!      ├─ fetch ── body_structure
//!      ├─ list · status
//!      └─ search · vanished ── uid_set
//!  command, mailbox_name ── what is sent
//! ```
//!
//! What a server sends is hostile: each parser here has caps on length and nesting, allocates nothing that was only
//! announced, and turns what it does not know into [`Response::Other`] or [`Response::Unreadable`], which are counted
//! and skipped. The module uses nothing of the rest of the crate, so that the fuzz targets are built without it.

mod body_structure;
pub mod command;
mod fetch;
mod framer;
mod id;
mod list;
pub mod mailbox_name;
#[cfg(test)]
mod oracle;
mod parse;
mod reply;
mod response;
mod search;
mod status;
pub mod tokenizer;
#[cfg(test)]
mod transcripts;
mod uid_set;
mod vanished;

pub use framer::{FrameError, Framer};
pub use parse::parse;
pub use response::{Capabilities, Code, Condition, Fetched, Listed, MailboxStatus, Part, Reply, Response, StatusItems};
pub use uid_set::UidSet;
