//! The HTTP edge: the listener with its limits, who a request comes from, and how errors are told.
//!
//! Transports, the API and the page are routers that meet here; none of them sees a socket. What all of them need to
//! answer a request (the [`Gate`], the [`Problem`]) is here too, so that they need not know each other.

mod body;
mod config;
mod cors;
mod entity_tag;
mod fallback;
mod gate;
mod handover;
mod host;
mod large_body;
mod opening;
mod problem;
mod serve;
mod stall;
mod unread;

pub use body::{media_type, parse_object, read_body, unsupported_media_type};
pub use config::{HttpConfig, HttpConfigError};
pub use cors::cors;
pub use entity_tag::{entity_tag, matches_tag};
pub use fallback::{method_not_allowed, not_found};
pub use gate::Gate;
pub use handover::{Handover, Held, LAST_CHUNK, Offer, Taken, chunk};
pub use host::host;
pub use large_body::{BodyMemory, HeldBody};
pub use problem::Problem;
pub use serve::serve;
pub use unread::read_past_body;
