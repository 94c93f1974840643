//! Endless HTTP answers: Server-Sent Events, newline-delimited JSON, `multipart/x-mixed-replace`.
//!
//! They differ in framing alone. Each begins with the ID before the first event, in the `Last-Event-ID` header and in
//! a first control record, since `EventSource` shows no headers; each ends with a record that says why and when to
//! come back.

use std::convert::Infallible;

use axum::Extension;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use serde_json::json;

use super::feed::{Feed, Next, Reason};
use super::query::Query;
use super::shard::Straggler;
use super::{StreamConfig, Transports};
use crate::auth::Authority;
use crate::event_log::Selection;
use crate::http::{Handover, Problem};
use crate::hub::{Format, Opening};

/// Subscribes and answers with the stream: by a shard, where the connection can be given to one, or as a body.
pub(super) async fn subscribe(
    transports: &Transports,
    format: Format,
    selection: Selection,
    query: &Query,
    authority: &Authority,
    offered: bool,
) -> Result<Response, Problem> {
    let (subscription, opening) = transports.hub.subscribe(selection, super::resume(query)).await?;
    let feed = Feed::new(transports, subscription, authority);
    let first = hello(format, opening, &transports.config);
    if offered {
        let shards = transports.shards.clone();
        let handover = Handover::new(move |taken| {
            if let Some(stream) = Straggler::begin(taken, &first, feed, format) {
                shards.take(stream);
            }
        });
        return Ok((headers(format, opening), Extension(handover)).into_response());
    }
    let writer = Writer { feed: Some(feed), format, config: transports.config.clone(), first: Some(first) };
    let chunks = stream::unfold(writer, |mut writer| async { Some((writer.chunk().await?, writer)) });
    let body = Body::from_stream(futures::StreamExt::map(chunks, Ok::<Bytes, Infallible>));
    Ok((headers(format, opening), body).into_response())
}

struct Writer {
    /// None when the stream has ended.
    feed: Option<Feed>,
    format: Format,
    config: StreamConfig,
    first: Option<Bytes>,
}

impl Writer {
    /// What is written next; none at the end.
    async fn chunk(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let next = self.feed.as_mut()?.next().await;
        Some(match next {
            Next::Updates(updates) => match updates.as_slice() {
                [one] => one.encoded(self.format).clone(),
                several => {
                    let pieces: Vec<&[u8]> =
                        several.iter().map(|update| update.encoded(self.format).as_ref()).collect();
                    pieces.concat().into()
                }
            },
            Next::Heartbeat => heartbeat(self.format),
            Next::Bye(reason) => {
                self.feed = None;
                bye(self.format, reason, &self.config)
            }
        })
    }
}

fn headers(format: Format, opening: Opening) -> HeaderMap {
    let content_type = match format {
        Format::Sse | Format::Mercure => "text/event-stream",
        Format::Lines => "application/x-ndjson",
        Format::Multipart => "multipart/x-mixed-replace; boundary=postrider",
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx buffers answers otherwise; RFC 10036 says the same to everybody.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    headers.insert(HeaderName::from_static("incremental"), HeaderValue::from_static("?1"));
    insert_opening(&mut headers, opening);
    headers
}

/// `Last-Event-ID`: the ID before the first event that is sent.
pub(super) fn insert_opening(headers: &mut HeaderMap, opening: Opening) {
    if let Ok(value) = HeaderValue::try_from(opening.to_string()) {
        headers.insert(HeaderName::from_static("last-event-id"), value);
    }
}

/// The first record.
fn hello(format: Format, opening: Opening, config: &StreamConfig) -> Bytes {
    let last_event_id = opening.to_string();
    match format {
        Format::Sse => {
            let data = json!({ "last_event_id": last_event_id });
            // The field `id` is what `EventSource` comes back with: without it, one that breaks off before its first
            // event would begin anew, and miss what came meanwhile.
            format!("retry: {}\nevent: hello\ndata: {data}\nid: {last_event_id}\n\n", config.retry_ms()).into()
        }
        // At once, so that a browser's `open` does not wait for the first update.
        Format::Mercure => heartbeat(format),
        Format::Lines => format!("{}\n", json!({ "control": "hello", "last_event_id": last_event_id })).into(),
        Format::Multipart => {
            let hello = json!({ "control": "hello", "last_event_id": last_event_id });
            // The very first delimiter has no line break before it.
            format!("{}{hello}{}", Format::NEXT_PART.trim_start_matches("\r\n"), Format::NEXT_PART).into()
        }
    }
}

/// Something that a reader passes over, so that the connection is seen to live.
pub(super) fn heartbeat(format: Format) -> Bytes {
    match format {
        Format::Sse | Format::Mercure => Bytes::from_static(b":\n\n"),
        Format::Lines => Bytes::from_static(b"\n"),
        Format::Multipart => format!("{}{}", json!({ "control": "heartbeat" }), Format::NEXT_PART).into(),
    }
}

/// The last record.
pub(super) fn bye(format: Format, reason: Reason, config: &StreamConfig) -> Bytes {
    let retry_ms = config.retry_ms();
    let record = control_bye(reason, retry_ms);
    match format {
        Format::Sse => {
            let data = json!({ "reason": reason.as_str(), "retry_ms": retry_ms });
            format!("retry: {retry_ms}\nevent: bye\ndata: {data}\n\n").into()
        }
        // Mercure's streams just end.
        Format::Mercure => Bytes::new(),
        Format::Lines => format!("{record}\n").into(),
        Format::Multipart => format!("{record}\r\n--postrider--\r\n").into(),
    }
}

/// The last record of the transports whose records are JSON objects.
pub(super) fn control_bye(reason: Reason, retry_ms: u64) -> String {
    json!({ "control": "bye", "reason": reason.as_str(), "retry_ms": retry_ms }).to_string()
}
