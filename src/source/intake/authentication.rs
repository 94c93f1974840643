//! Who really sent a message.
mod config;
#[cfg(feature = "mail-auth")]
mod evidence;
#[cfg(feature = "mail-auth")]
mod lookups;
mod verdict;
#[cfg(feature = "mail-auth")]
mod verifier;
