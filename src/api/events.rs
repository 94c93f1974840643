//! `GET /api/events`: the newest events that the token may see, newest first.

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use url::form_urlencoded;

use super::Api;
use crate::event::TopicMatcher;
use crate::event_log::Selection;
use crate::http::Problem;

/// Events in one answer, where the client does not say.
const LIMIT: usize = 50;
/// The most that a client may say.
const LIMIT_MAX: usize = 500;

pub(super) async fn newest(
    State(api): State<Api>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    let authority = api.gate.reader(&headers).await?;
    if authority.is_anonymous() {
        return Err(Problem::unauthorized());
    }
    let (topics, limit) = parse(&query.unwrap_or_default())?;
    let selection = Selection::of_token(topics, authority.subscribe_matchers(), api.hub.config().public);
    let events = api.event_log.read_newest(&selection, limit).await?;
    let mut body = b"{\"events\":[".to_vec();
    for (index, event) in events.iter().rev().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&event.json);
    }
    body.extend_from_slice(b"]}\n");
    Ok(([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body))
}

fn parse(query: &str) -> Result<(Vec<TopicMatcher>, usize), Problem> {
    let (mut topics, mut limit) = (Vec::new(), LIMIT);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "topic" => {
                let matcher = TopicMatcher::parse(&value)
                    .map_err(|err| Problem::bad_request("topic-invalid", format!("`topic`: {err}")))?;
                topics.push(matcher);
            }
            "limit" => {
                limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit)).ok_or_else(|| {
                    Problem::bad_request("limit-invalid", format!("`limit` is a number from 1 to {LIMIT_MAX}"))
                })?;
            }
            other => {
                let detail = format!("unknown parameter `{other}`; there are `topic` and `limit`");
                return Err(Problem::bad_request("parameter-unknown", detail));
            }
        }
    }
    if topics.is_empty() {
        topics.push(TopicMatcher::all());
    }
    Ok((topics, limit))
}
