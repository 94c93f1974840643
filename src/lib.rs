//! postrider turns new mail into push.
//!
//! Sources ([`source`]) watch mailboxes or receive mail, append events to the durable [`event_log`], the hub
//! hands committed events to subscribers, and a transport carries them over HTTP. See the README's architecture
//! section for the map.

pub mod api;
pub mod attachments;
pub mod auth;
pub mod config;
pub mod event;
pub mod event_log;
pub mod http;
pub mod hub;
pub mod message;
pub mod metrics;
mod pem;
pub mod registry;
mod scram;
pub mod server;
pub mod source;
pub mod transport;
pub mod web;
