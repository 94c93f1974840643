//! Mail that goes on: from the event log's outbox through a smart host, so that postrider can stand in the delivery
//! path.
//!
//! The intake puts a message into the outbox in the same transaction as its events, so that the 250 holds for both;
//! from then on it is sent at least once, with the Message-ID that it came with. `smart_host` has the connections,
//! `dispatcher` decides what is sent when. What is given up is an event and a line in the log: postrider sends no
//! bounces.

mod config;
mod dispatcher;
mod lines;
mod metrics;
mod smart_host;
mod trace;

pub use config::{ForwardConfig, ForwardConfigError};
pub use dispatcher::Forwarder;
pub use smart_host::HostError;
pub(crate) use trace::{Came, Forwarding};

/// Whether the smart host takes mail from us at the moment; what there is to say of it.
///
/// # Errors
/// See [`HostError`].
pub async fn probe(config: &ForwardConfig, hostname: &str) -> Result<String, HostError> {
    smart_host::SmartHost::new(config.clone(), hostname).probe().await
}
