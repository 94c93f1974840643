//! Where events come from. Sources append to the event log and know nothing of hub and transports.
//!
//! `backoff` and `health` serve whoever watches mailboxes on other servers, `networks` whoever is connected to.

mod backoff;
pub mod dovecot_push;
pub mod forward;
mod health;
pub mod imap;
pub mod intake;
pub mod jmap;
pub mod mail_over_http;
pub mod networks;
pub mod smtp;
