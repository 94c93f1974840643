//! IMAP as a language: octets become responses, sets of UIDs are written and read. No I/O, no clock.
//!
//! What a server sends is hostile: each parser here has caps on length and nesting, allocates nothing that was only
//! announced, and turns what it does not know into [`Response::Other`] or [`Response::Unreadable`], which are counted
//! and skipped. The module uses nothing of the rest of the crate, so that the fuzz targets are built without it.

mod response;
mod uid_set;

pub use response::{
    Capabilities, Code, Condition, Fetched, Listed, MailboxStatus, Part, Reply, Response, SearchResult, StatusItems,
};
pub use uid_set::UidSet;
