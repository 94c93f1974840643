//! The HTTP edge: the listener with its limits, who a request comes from, and how errors are told.
//!
//! Transports, the API and the page are routers that meet here; none of them sees a socket. What all of them need to
//! answer a request (the [`Gate`], the [`Problem`]) is here too, so that they need not know each other.

mod config;
mod cors;
mod entity_tag;
mod gate;
mod problem;
mod serve;
mod stall;

pub use config::HttpConfig;
pub use cors::cors;
pub use entity_tag::matches_tag;
pub use gate::Gate;
pub use problem::Problem;
pub use serve::serve;
