//! `GET /.well-known/mercure/subscriptions…`: who is subscribed to what. An access token asks in the words of the current
//! draft, another in those of the older dialect: the same path means different things in them.

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use url::Url;

use super::parameters::Parameters;
use super::presence::{Entry, Presence};
use super::{Dialect, SUBSCRIPTIONS, discovery, refused, who};
use crate::event::Topic;
use crate::http::{Problem, entity_tag, matches_tag};
use crate::transport::Transports;

pub(super) async fn answer(State(transports): State<Transports>, request: Request) -> Response {
    found(&transports, &request.into_parts().0).await.unwrap_or_else(|problem| refused(&transports, problem))
}

async fn found(transports: &Transports, request: &Parts) -> Result<Response, Problem> {
    let presence = transports.presence.as_ref().ok_or_else(|| {
        let detail = "subscriptions are not told here; set `mercure.subscriptions = true` to have them told";
        Problem::new(StatusCode::NOT_FOUND, "subscriptions-off", detail)
    })?;
    let parameters = Parameters::parse(request.uri.query().unwrap_or_default().as_bytes())?;
    let authority = who(transports, &request.headers, &parameters).await?;
    if authority.is_anonymous() {
        return Err(Problem::unauthorized());
    }
    let path = request.uri.path();
    if !authority.may_see(&[Topic::stored(path)]) {
        let detail = "the token does not cover this path, which it must as it would a topic";
        return Err(Problem::forbidden(detail));
    }
    let dialect = if authority.claims().is_access_token { Dialect::Current } else { Dialect::Legacy };
    let document = document(presence, path, dialect)?;
    Ok(respond(request, presence, &transports.hub_url, &document, dialect))
}

/// What is at a path.
fn document(presence: &Presence, path: &str, dialect: Dialect) -> Result<Value, Problem> {
    let rest = path.strip_prefix(SUBSCRIPTIONS).unwrap_or_default();
    let segments: Vec<String> =
        rest.split('/').skip(1).map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned()).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let one = |is_it: &dyn Fn(&Entry) -> bool| {
        let entries = presence.active(|entry| entry.dialect == dialect && is_it(entry));
        entries.first().map(|entry| entry.document(true)).ok_or_else(unknown)
    };
    let several = |is_it: &dyn Fn(&Entry) -> bool| {
        let entries = presence.active(|entry| entry.dialect == dialect && is_it(entry));
        let documents: Vec<Value> = entries.iter().map(|entry| entry.document(true)).collect();
        Ok(collection(presence, path, dialect, &documents))
    };
    match (dialect, segments.as_slice()) {
        (_, []) => several(&|_| true),
        (Dialect::Legacy, [topic]) => several(&|entry| *entry.matched == **topic),
        (Dialect::Legacy, [topic, who]) => one(&|entry| *entry.matched == **topic && *entry.subscriber == **who),
        (Dialect::Current, [kind, text]) => several(&|entry| entry.match_type == *kind && *entry.matched == **text),
        (Dialect::Current, [kind, text, who]) => {
            one(&|entry| entry.match_type == *kind && *entry.matched == **text && *entry.subscriber == **who)
        }
        _ => Err(unknown()),
    }
}

fn unknown() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "subscription-unknown", "there is no such subscription, or not any more")
}

fn collection(presence: &Presence, path: &str, dialect: Dialect, subscriptions: &[Value]) -> Value {
    match dialect {
        Dialect::Legacy => json!({
            "@context": "https://mercure.rocks/",
            "id": path,
            "type": "Subscriptions",
            "lastEventID": presence.last_event_id(),
            "subscriptions": subscriptions,
        }),
        Dialect::Current => json!({ "id": path, "type": "subscriptions", "subscriptions": subscriptions }),
    }
}

fn respond(request: &Parts, presence: &Presence, hub: &Url, document: &Value, dialect: Dialect) -> Response {
    let body = document.to_string();
    let tag = entity_tag(body.as_bytes());
    let known = request.headers.get(header::IF_NONE_MATCH).is_some_and(|tags| matches_tag(tags, &tag));
    let mut response = if known { StatusCode::NOT_MODIFIED.into_response() } else { body.into_response() };
    let content_type = match dialect {
        Dialect::Legacy => "application/ld+json",
        Dialect::Current => "application/json",
    };
    let link = match dialect {
        Dialect::Legacy => discovery::link(hub),
        Dialect::Current => HeaderValue::try_from(format!(
            "<{}>; rel=\"mercure\"; last-event-id=\"{}\"; type=\"mercure\"; content-type=\"application/json\"",
            hub.path(),
            presence.last_event_id()
        ))
        .ok(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.extend(HeaderValue::try_from(tag).ok().map(|tag| (header::ETAG, tag)));
    headers.extend(link.map(|link| (header::LINK, link)));
    response
}
