//! How clients find the hub and learn what it can do: `Link` headers, and its metadata as a protected resource (RFC 9728).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use url::Url;

use super::METADATA_PATH;
use crate::auth::{ACCESS_TOKEN_COOKIE, ACCESS_TOKEN_DETAIL_TYPE};
use crate::transport::Transports;

/// Resources whose changes the hub tells.
const TOLD: [&str; 4] = ["/", "/events", "/api/events", "/api/accounts"];

/// Middleware: names the hub in answers about what it tells of.
pub async fn advertise(State(hub): State<Arc<Url>>, request: Request, next: Next) -> Response {
    let told = TOLD.contains(&request.uri().path());
    let mut response = next.run(request).await;
    if told && response.status().is_success() {
        response.headers_mut().extend(link(&hub).map(|link| (header::LINK, link)));
    }
    response
}

/// Where the hub is, on the host that the client knows.
pub(super) fn link(hub: &Url) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("<{}>; rel=\"mercure\"", hub.path())).ok()
}

/// Where [`metadata`] are.
pub(super) fn metadata_url(hub: &Url) -> String {
    hub.join(METADATA_PATH).map_or_else(|_| METADATA_PATH.to_owned(), String::from)
}

/// `GET /.well-known/oauth-protected-resource/.well-known/mercure`.
pub(super) async fn metadata(State(transports): State<Transports>) -> impl IntoResponse {
    let issuers: Vec<&str> = transports.gate.issuers().collect();
    let document = json!({
        "resource": transports.hub_url.as_str(),
        "bearer_methods_supported": ["header"],
        "authorization_servers": issuers,
        "authorization_details_types_supported": [ACCESS_TOKEN_DETAIL_TYPE],
        "mercure_cookie": ACCESS_TOKEN_COOKIE,
        "mercure_subscriptions": transports.presence.is_some(),
        "mercure_matcher_types_supported": ["exact", "urlpattern"],
    });

    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(document))
}
