//! Errors as people and programs can use them: `application/problem+json` (RFC 9457).

use std::collections::HashMap;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use crate::auth::TokenError;
use crate::event_log::{AppendError, ReadError};
use crate::hub::SubscribeError;

/// An answer that says what was wrong and what to do.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    /// The last word of `type`: stable, for programs.
    name: &'static str,
    detail: String,
    header: Option<Box<(HeaderName, HeaderValue)>>,
    /// One more member of the answer, for programs.
    member: Option<Box<(&'static str, Value)>>,
}

impl Problem {
    /// A problem; `name` must stay the same for ever, `detail` is for people.
    pub fn new(status: StatusCode, name: &'static str, detail: impl Into<String>) -> Self {
        Self { status, name, detail: detail.into(), header: None, member: None }
    }

    /// The request itself is wrong.
    pub fn bad_request(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, name, detail)
    }

    /// A token is needed (RFC 6750 §3.1: no error code where none was sent).
    pub fn unauthorized() -> Self {
        let detail = "a token is needed: send `Authorization: Bearer TOKEN`, or sign in on the page; \
                      `postrider token --subscribe TOPIC` makes one";
        let problem = Self::new(StatusCode::UNAUTHORIZED, "token-needed", detail);
        problem.with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"postrider\""))
    }

    /// A user name and a password are needed (RFC 7617), and those that came are not right.
    pub fn credentials_needed(detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::UNAUTHORIZED, "credentials-needed", detail);
        problem.with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"postrider\""))
    }

    /// The token does not allow it.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        let challenge = HeaderValue::from_static("Bearer realm=\"postrider\", error=\"insufficient_scope\"");
        Self::new(StatusCode::FORBIDDEN, "not-allowed", detail).with(header::WWW_AUTHENTICATE, challenge)
    }

    /// It cannot be done now; `seconds` later it may be.
    pub fn unavailable(name: &'static str, detail: impl Into<String>, seconds: u32) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, name, detail).with_retry_after(seconds)
    }

    /// The same told with another status, for a client that knows only that.
    #[must_use]
    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// It may be tried again in so many seconds.
    #[must_use]
    pub fn with_retry_after(self, seconds: u32) -> Self {
        self.with(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Says more, to programs (RFC 9457 §3.2).
    #[must_use]
    pub fn with_member(self, name: &'static str, value: Value) -> Self {
        Self { member: Some(Box::new((name, value))), ..self }
    }

    /// The connection ends with this answer.
    #[must_use]
    pub(super) fn closing(self) -> Self {
        self.with(header::CONNECTION, HeaderValue::from_static("close"))
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What programs know it by.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What is said to people.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl From<TokenError> for Problem {
    fn from(err: TokenError) -> Self {
        if err == TokenError::NoKeys {
            return Self::unavailable("issuer-keys", err.to_string(), 10);
        }
        let challenge = HeaderValue::from_static("Bearer realm=\"postrider\", error=\"invalid_token\"");
        Self::new(StatusCode::UNAUTHORIZED, "token-invalid", err.to_string()).with(header::WWW_AUTHENTICATE, challenge)
    }
}

impl From<ReadError> for Problem {
    fn from(err: ReadError) -> Self {
        tracing::error!(error = %err, source = ?std::error::Error::source(&err), "the event log cannot be read");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "event-log", "the event log cannot be read; see postrider's log")
    }
}

impl From<SubscribeError> for Problem {
    fn from(err: SubscribeError) -> Self {
        match err {
            SubscribeError::TooMany => Self::unavailable("too-many-subscribers", err.to_string(), 10),
            SubscribeError::Read(err) => err.into(),
        }
    }
}

impl From<AppendError> for Problem {
    fn from(err: AppendError) -> Self {
        match err {
            AppendError::NoSpace(_) => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "no-space", "no space is left for the event log; try later")
            }
            AppendError::Closed => Self::unavailable("shutting-down", "postrider is shutting down", 5),
            _ => Self::unavailable("event-log", "the event log cannot be written; see postrider's log", 5),
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(flatten)]
    member: Option<HashMap<&'static str, Value>>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            r#type: format!("urn:postrider:problem:{}", self.name),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            member: self.member.map(|member| HashMap::from([*member])),
        };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.header.map(|header| *header));
        response
    }
}
