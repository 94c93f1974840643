//! The page: static files, embedded in the binary.

use axum::Router;

/// `/` and what the page loads.
pub fn router() -> Router {
    Router::new()
}
