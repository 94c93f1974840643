//! One answer at a time: at once (short poll), or when there is something (long poll).

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, timeout_at};

use super::Transports;
use super::feed::time_left;
use super::query::Query;
use super::stream::insert_opening;
use crate::auth::Authority;
use crate::event_log::{ReadError, Selection};
use crate::http::{Problem, entity_tag, matches_tag};
use crate::hub::{Batch, Opening, Subscription};

/// How long `transport=long-poll` waits when the client does not say.
const WAIT: Duration = Duration::from_secs(30);

/// Bytes of events after which an answer ends, and says that there is more.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Whether a poll waits for something to answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// It does.
    Long,
    /// It is answered at once.
    None,
}

/// Answers a poll: the events after the one that the client names, and the ID to ask with the next time.
pub(super) async fn subscribe(
    transports: &Transports,
    headers: &HeaderMap,
    selection: Selection,
    query: &Query,
    patience: Patience,
    authority: &Authority,
) -> Result<Response, Problem> {
    let (mut subscription, opening) = transports.hub.subscribe(selection, super::resume(query)).await?;
    let mut answer = Answer { opening, last: opening.to_string(), events: Vec::new(), bytes: 0, more: false };
    answer.collect(&mut subscription, query.limit).await?;
    let wait = match patience {
        Patience::Long => query.wait.unwrap_or(WAIT).min(transports.config.long_poll_max),
        Patience::None => Duration::ZERO,
    };
    if answer.events.is_empty() && !wait.is_zero() {
        // What comes when the token has expired is no longer for its bearer.
        let until = Instant::now() + wait.min(time_left(authority));
        tokio::select! {
            batch = timeout_at(until, subscription.next()) => {
                if let Ok(batch) = batch {
                    answer.add(batch?, query.limit);
                }
            }
            () = transports.stop.cancelled() => {}
        }
    }
    Ok(answer.into_response(headers, wait.is_zero()))
}

struct Answer {
    opening: Opening,
    /// What the client asks with the next time.
    last: String,
    events: Vec<bytes::Bytes>,
    /// Of them all.
    bytes: usize,
    /// There is more already.
    more: bool,
}

impl Answer {
    /// Takes what there is.
    async fn collect(&mut self, subscription: &mut Subscription, limit: usize) -> Result<(), ReadError> {
        while !self.more {
            match subscription.ready().await? {
                Some(Batch::Closed) | None => break,
                Some(batch) => self.add(batch, limit),
            }
        }
        Ok(())
    }

    fn add(&mut self, batch: Batch, limit: usize) {
        let Batch::Updates(updates) = batch else { return };
        for update in &updates {
            if self.events.len() >= limit || self.bytes >= ANSWER_BYTES_MAX {
                self.more = true;
                return;
            }
            self.bytes += update.event.json.len();
            self.events.push(update.event.json.clone());
            self.last = update.event.id.to_string();
        }
    }

    fn into_response(self, request: &HeaderMap, cacheable: bool) -> Response {
        let body = self.body();
        // Of the whole answer: one with these events and one after them name the same ID to go on with, and a cache
        // that was told "unchanged" of the second would hand out the events of the first again.
        let tag = entity_tag(&body);
        let unchanged = request.get(header::IF_NONE_MATCH).is_some_and(|tags| matches_tag(tags, &tag));
        let mut response = if cacheable && unchanged {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            ([(header::CONTENT_TYPE, "application/json")], body).into_response()
        };
        let headers = response.headers_mut();
        insert_opening(headers, self.opening);
        if let Ok(next) = HeaderValue::try_from(self.last) {
            headers.insert(HeaderName::from_static("next-event-id"), next);
        }
        // A poll may be kept and asked about again; a long poll's answer is of the moment.
        let caching = if cacheable { "private, no-cache" } else { "no-store" };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
        if let (true, Ok(tag)) = (cacheable, HeaderValue::try_from(tag)) {
            headers.insert(header::ETAG, tag);
        }
        response
    }

    /// The events are JSON already: they are put together, not encoded again.
    fn body(&self) -> Vec<u8> {
        let mut body =
            format!("{{\"last_event_id\":\"{}\",\"more\":{},\"events\":[", self.last, self.more).into_bytes();
        for (index, event) in self.events.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            body.extend_from_slice(event);
        }
        body.extend_from_slice(b"]}\n");
        body
    }
}
