//! Where events come from. Sources append to the event log and know nothing of hub and transports.

pub mod dovecot_push;
pub mod imap;
pub mod intake;
pub mod jmap;
pub mod smtp;
