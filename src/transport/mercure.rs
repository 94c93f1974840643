//! The hub under the Mercure protocol, at `/.well-known/mercure`, in both dialects that are spoken: that of the deployed
//! clients (0.24, "legacy" here) and that of the current draft (1.0, IETF draft 08).
//!
//! A subscriber's dialect shows in its parameters, a token's in its header; what is published is the same in both. Events
//! are those of `/events`: what a Mercure publisher sends is `data` there, and what `/events` has is the data here.

mod config;
mod discovery;
mod parameters;
mod presence;
mod publish;
mod subscribe;
mod subscriptions;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use url::Url;

pub use config::MercureConfig;
pub use discovery::advertise;
pub use presence::Presence;

use self::parameters::Parameters;
use super::Transports;
use crate::auth::{ACCESS_TOKEN_COOKIE, Authority, COOKIE_NAME, Carrier, Presented, TokenError};
use crate::http::Problem;

/// Where the hub is.
pub const HUB_PATH: &str = "/.well-known/mercure";
const SUBSCRIPTIONS: &str = "/.well-known/mercure/subscriptions";
/// Where the metadata of the hub as a protected resource are (RFC 9728 §3).
const METADATA_PATH: &str = "/.well-known/oauth-protected-resource/.well-known/mercure";

/// The hub's routes.
pub(super) fn routes() -> Router<Transports> {
    let subscriptions = format!("{SUBSCRIPTIONS}/{{*rest}}");
    Router::new()
        .route(HUB_PATH, get(subscribe::subscribe).post(publish::publish))
        .route(SUBSCRIPTIONS, get(subscriptions::answer))
        .route(&subscriptions, get(subscriptions::answer))
        .route(METADATA_PATH, get(discovery::metadata))
}

/// The hub's address, which is its resource identifier too. What is configured and no address is no reason not to start:
/// the hub then knows itself by the address that it listens on.
///
/// # Panics
/// Never: a socket's address is a host and a port.
#[expect(clippy::expect_used, reason = "a socket's address is a host and a port")]
pub fn hub_url(base_url: &str, listens_at: std::net::SocketAddr) -> Url {
    let configured = Url::parse(&format!("{base_url}{HUB_PATH}")).ok().filter(Url::has_host);
    configured.unwrap_or_else(|| Url::parse(&format!("http://{listens_at}{HUB_PATH}")).expect("an address is a URL"))
}

/// Which of the two is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Legacy,
    Current,
}

/// Who asks. `Authorization` hides the query, that the cookies, and the newer cookie the older one.
async fn who(transports: &Transports, headers: &HeaderMap, parameters: &Parameters) -> Result<Authority, Problem> {
    let legacy = transports.mercure.legacy;
    let cookies: &[&str] = if legacy { &[ACCESS_TOKEN_COOKIE, COOKIE_NAME] } else { &[ACCESS_TOKEN_COOKIE] };
    let in_query = parameters.last("authorization").filter(|_| legacy);
    let bearer = Presented::bearer(headers).map_err(|_| {
        Problem::bad_request("credentials-invalid", "`Authorization` must hold one token, as in `Bearer TOKEN`")
    })?;
    let presented = bearer
        .or_else(|| in_query.map(|token| Presented { token, carrier: Carrier::Query }))
        .or_else(|| Presented::in_cookie(headers, cookies));
    let Some(presented) = presented else { return Ok(Authority::anonymous()) };
    let authority = transports.gate.bearer(presented).await?;
    if !legacy && !authority.claims().is_access_token {
        return Err(TokenError::NotAnAccessToken.into());
    }
    Ok(authority)
}

/// The answer to a request that failed, in the words of RFC 6750 and RFC 9728.
fn refused(transports: &Transports, problem: Problem) -> Response {
    let error = match (problem.status(), problem.name()) {
        (StatusCode::UNAUTHORIZED, "token-needed") => Some(None),
        (StatusCode::FORBIDDEN, "foreign-origin") | (StatusCode::BAD_REQUEST, "credentials-invalid") => {
            Some(Some("invalid_request"))
        }
        (StatusCode::UNAUTHORIZED, _) => Some(Some("invalid_token")),
        (StatusCode::FORBIDDEN, _) => Some(Some("insufficient_scope")),
        _ => None,
    };
    let foreign = problem.name() == "foreign-origin";
    let problem = match problem.status() {
        _ if foreign => problem.with_status(StatusCode::BAD_REQUEST),
        // The reference hub's word for it; a proxy would take 503 for a hub that is down.
        StatusCode::SERVICE_UNAVAILABLE if problem.name() == "too-many-subscribers" => {
            problem.with_status(StatusCode::TOO_MANY_REQUESTS)
        }
        _ => problem,
    };
    let mut response = problem.into_response();
    if let Some(error) = error {
        let code = error.map(|code| format!("error=\"{code}\", ")).unwrap_or_default();
        let challenge = format!("Bearer {code}resource_metadata=\"{}\"", discovery::metadata_url(&transports.hub_url));
        if let Ok(challenge) = HeaderValue::try_from(challenge) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
    }
    response
}
