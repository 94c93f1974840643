//! `/api/session`: the page's sign-in. A token becomes a cookie that scripts cannot read.
//!
//! The sign-in link carries a token that lives for an hour, behind `#`, so that it reaches no server log. It alone is
//! exchanged for a session that lives longer; any other token goes into the cookie as it is, since nobody may lengthen
//! their own.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Api;
use crate::auth::{COOKIE_NAME, Claims, MercureClaims, PostriderClaims};
use crate::event::TopicMatcher;
use crate::http::{Problem, media_type, parse_object, read_body, unsupported_media_type};

/// How long a sign-in link is good.
pub const SIGN_IN_LIFETIME: Duration = Duration::from_hours(1);
/// How long the session is good that it begins.
const SESSION_LIFETIME: Duration = Duration::from_hours(30 * 24);
/// The longest body of a sign-in: a token and what is around it.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// The subject of the link's token.
const SIGN_IN_SUBJECT: &str = "sign-in-link";

/// What the sign-in link's token says: everything may be seen and done, for an hour.
pub fn sign_in_claims(now: Timestamp) -> Claims {
    Claims {
        mercure: MercureClaims {
            subscribe: vec![TopicMatcher::all()],
            publish: vec![TopicMatcher::all()],
            ..MercureClaims::default()
        },
        postrider: PostriderClaims { accounts: vec!["*".to_owned()], admin: true },
        exp: Some(expiry(now, SIGN_IN_LIFETIME)),
        sub: Some(SIGN_IN_SUBJECT.to_owned()),
        ..Claims::default()
    }
}

/// Seconds since 1970, as JWT counts them.
fn expiry(now: Timestamp, lifetime: Duration) -> u64 {
    u64::try_from(now.as_second()).unwrap_or(0).saturating_add(lifetime.as_secs())
}

/// What the page sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignIn {
    token: String,
}

/// What the page learns of its session.
#[derive(Debug, Serialize)]
pub(super) struct Session {
    subscribe: Vec<TopicMatcher>,
    accounts: Vec<String>,
    admin: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Timestamp>,
}

impl From<&Claims> for Session {
    fn from(claims: &Claims) -> Self {
        Self {
            subscribe: claims.mercure.subscribe.clone(),
            accounts: claims.postrider.accounts.clone(),
            admin: claims.postrider.admin,
            expires: claims.expires_at(),
        }
    }
}

/// `POST`: begins a session.
pub(super) async fn begin(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    // A page of another site can send this type only after a preflight, which it does not pass: nobody is signed in
    // as somebody else unawares.
    if media_type(request.headers()) != "application/json" {
        return Err(unsupported_media_type("application/json"));
    }
    let body = read_body(request, BODY_BYTES_MAX).await?;
    let sign_in: SignIn = parse_object(&body).map_err(|err| {
        // Not the error itself, which may quote the token.
        let (line, column) = (err.line(), err.column());
        let detail = format!("expected {{\"token\": \"TOKEN\"}}, which ends to be so at line {line}, column {column}");
        Problem::bad_request("json-invalid", detail)
    })?;
    let mut claims = api.gate.token(&sign_in.token).await?;
    // A subject alone is a name that a token's owner may have chosen: the link's token may do everything anyway.
    let token = if claims.sub.as_deref() == Some(SIGN_IN_SUBJECT) && claims.postrider.admin {
        (claims.exp, claims.sub) = (Some(expiry(Timestamp::now(), SESSION_LIFETIME)), Some("session".to_owned()));
        api.gate.sign(&claims)
    } else {
        sign_in.token
    };
    let lifetime = claims
        .exp
        .map_or(SESSION_LIFETIME.as_secs(), |exp| exp.saturating_sub(expiry(Timestamp::now(), Duration::ZERO)));
    let mut response = Json(Session::from(&claims)).into_response();
    set_cookie(&mut response, &token, lifetime, api.secure_cookie)?;
    Ok(response)
}

/// `GET`: what the session allows.
pub(super) async fn show(State(api): State<Api>, headers: HeaderMap) -> Result<Json<Session>, Problem> {
    let authority = api.gate.reader(&headers).await?;
    if authority.is_anonymous() {
        return Err(Problem::unauthorized());
    }
    Ok(Json(authority.claims().into()))
}

/// `DELETE`: ends it in this browser.
pub(super) async fn end(State(api): State<Api>) -> Result<Response, Problem> {
    let mut response = StatusCode::NO_CONTENT.into_response();
    set_cookie(&mut response, "", 0, api.secure_cookie)?;
    Ok(response)
}

fn set_cookie(response: &mut Response, token: &str, seconds: u64, secure: bool) -> Result<(), Problem> {
    let secure = if secure { "; Secure" } else { "" };
    let cookie = format!("{COOKIE_NAME}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
    let mut value = HeaderValue::try_from(cookie)
        .map_err(|_| Problem::bad_request("token-invalid", "the token has characters that no token has"))?;
    value.set_sensitive(true);
    response.headers_mut().insert(header::SET_COOKIE, value);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(())
}
