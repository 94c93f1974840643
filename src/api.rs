//! Administration and operations over HTTP: accounts, recent events, the page's session, health and metrics.

mod accounts;
mod attachments;
mod events;
mod operations;
mod session;

use axum::Router;
use axum::routing::{get, post};

pub use session::{SIGN_IN_LIFETIME, sign_in_claims};

use crate::attachments::Attachments;
use crate::event_log::EventLog;
use crate::http::Gate;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::registry::Registry;

/// What the API works with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Api {
    /// Accounts and their states.
    pub registry: Registry,
    /// Attachments that are kept.
    pub attachments: Attachments,
    /// Recent events.
    pub event_log: EventLog,
    /// Subscriber counts.
    pub hub: Hub,
    /// What was counted.
    pub metrics: Metrics,
    /// Who asks.
    pub gate: Gate,
    /// The page is reached over HTTPS, so that its cookie may insist on it.
    pub secure_cookie: bool,
}

/// `/api/…`, `/healthz`, `/readyz`, `/metrics`.
pub fn router(api: Api) -> Router {
    api.metrics.register_collector(operations::Standing::of(&api));
    Router::new()
        .route("/api/accounts", get(accounts::list))
        .route("/api/events", get(events::newest))
        .route("/api/session", post(session::begin).get(session::show).delete(session::end))
        .route("/attachments/{id}", get(attachments::fetch))
        .route("/healthz", get(operations::healthz))
        .route("/readyz", get(operations::readyz))
        .route("/metrics", get(operations::metrics))
        .with_state(api)
}
