//! WebSocket (RFC 6455): JSON text messages; topics can be added and dropped while it is open.
//!
//! The server sends events as they are in the log, and control records: `hello`, `subscribed`, `error`, `bye`. The
//! client sends `{"subscribe": ["topic"]}` or `{"unsubscribe": ["topic"]}`.

use axum::RequestExt;
use axum::extract::Request;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::http::StatusCode;
use axum::response::Response;
use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::json;

use super::Transports;
use super::feed::{Feed, Next, Reason};
use super::query::{Query, matcher};
use super::stream::{control_bye, insert_opening};
use crate::auth::Authority;
use crate::event::TopicMatcher;
use crate::http::{Problem, parse_object};
use crate::hub::Opening;

/// tungstenite allocates its read buffer at once: 128 KiB for each socket, if nothing is said.
const READ_BUFFER: usize = 4096;
/// The longest message that a client may send: a list of topics.
const MESSAGE_MAX: usize = 64 * 1024;
/// Topics on one connection.
const TOPICS_MAX: usize = 1000;

/// What a client says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    unsubscribe: Vec<String>,
}

/// Subscribes and upgrades.
pub(super) async fn subscribe(
    transports: Transports,
    request: Request,
    query: Query,
    authority: Authority,
) -> Result<Response, Problem> {
    let upgrade: WebSocketUpgrade = request.extract().await.map_err(|err| {
        Problem::new(StatusCode::BAD_REQUEST, "handshake-invalid", format!("not a WebSocket handshake: {err}"))
    })?;
    let selection = transports.selection(&authority, query.topics.clone())?;
    let (subscription, opening) = transports.hub.subscribe(selection, super::resume(&query)).await?;
    let feed = Feed::new(&transports, subscription, &authority);
    let counted = transports.upgraded.token();
    let connection = Connection { transports, feed, authority, topics: query.topics };
    let mut response = upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(MESSAGE_MAX)
        .max_frame_size(MESSAGE_MAX)
        .on_upgrade(move |socket| async move {
            connection.run(socket, opening).await;
            drop(counted);
        });
    insert_opening(response.headers_mut(), opening);
    Ok(response)
}

struct Connection {
    transports: Transports,
    feed: Feed,
    authority: Authority,
    topics: Vec<TopicMatcher>,
}

impl Connection {
    /// Serves the socket until either side ends it. A failed write means that the peer is gone.
    async fn run(mut self, mut socket: WebSocket, opening: Opening) {
        let hello = json!({ "control": "hello", "last_event_id": opening.to_string() }).to_string();
        if socket.send(text(hello)).await.is_err() {
            return;
        }
        loop {
            let sent = tokio::select! {
                next = self.feed.next() => match next {
                    Next::Updates(updates) => send_all(&mut socket, &updates).await,
                    Next::Heartbeat => socket.send(Message::Ping(bytes::Bytes::new())).await,
                    Next::Bye(reason) => return self.bye(socket, reason).await,
                },
                message = socket.next() => match message {
                    Some(Ok(Message::Text(request))) => {
                        let answer = self.change(&request);
                        socket.send(text(answer)).await
                    }
                    Some(Ok(Message::Binary(_))) => return close(socket, close_code::UNSUPPORTED, "text only").await,
                    // Pings were answered by the library, pongs need nothing.
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
                    Some(Ok(Message::Close(_))) => return answer_close(socket).await,
                    Some(Err(_)) | None => return,
                },
            };
            if sent.is_err() {
                return;
            }
        }
    }

    /// Adds and drops topics; the answer says which there are now, or why nothing was changed.
    fn change(&mut self, request: &str) -> String {
        match self.changed_topics(request) {
            Ok((topics, selection)) => {
                self.feed.subscription.select(selection);
                self.topics = topics;
                let names: Vec<&str> = self.topics.iter().map(TopicMatcher::as_str).collect();
                json!({ "control": "subscribed", "topics": names }).to_string()
            }
            Err(problem) => json!({ "control": "error", "detail": problem.detail() }).to_string(),
        }
    }

    fn changed_topics(&self, request: &str) -> Result<(Vec<TopicMatcher>, crate::event_log::Selection), Problem> {
        let change: Change = parse_object(request.as_bytes()).map_err(|err| {
            let detail = format!("expected {{\"subscribe\": [\"topic\"]}} or {{\"unsubscribe\": [\"topic\"]}}: {err}");
            Problem::bad_request("message-invalid", detail)
        })?;
        let mut topics = self.topics.clone();
        topics.retain(|topic| !change.unsubscribe.iter().any(|dropped| dropped == topic.as_str()));
        for added in &change.subscribe {
            let added = matcher(added)?;
            if !topics.contains(&added) {
                topics.push(added);
            }
            // At once: a message has room for many more, and each is compared with all before it.
            if topics.len() > TOPICS_MAX {
                let detail = format!("at most {TOPICS_MAX} topics on one connection; use a URI template");
                return Err(Problem::bad_request("too-many-topics", detail));
            }
        }
        let selection = self.transports.selection(&self.authority, topics.clone())?;
        Ok((topics, selection))
    }

    async fn bye(self, mut socket: WebSocket, reason: Reason) {
        let retry_ms = self.transports.config.retry_ms();
        if socket.send(text(control_bye(reason, retry_ms))).await.is_err() {
            return;
        }
        let code = match reason {
            Reason::TokenExpired => close_code::POLICY,
            Reason::ShuttingDown | Reason::LifetimeOver | Reason::LogUnavailable => close_code::AWAY,
        };
        close(socket, code, reason.as_str()).await;
    }
}

fn text(json: String) -> Message {
    Message::Text(json.into())
}

/// Queues all and flushes once.
async fn send_all(socket: &mut WebSocket, updates: &[std::sync::Arc<crate::hub::Update>]) -> Result<(), axum::Error> {
    for update in updates {
        // The log holds text: this only fails for a log that somebody wrote into.
        let Ok(json) = Utf8Bytes::try_from(update.event.json.clone()) else { continue };
        socket.feed(Message::Text(json)).await?;
    }
    socket.flush().await
}

/// Sends the answer to a close frame (RFC 6455 §5.5.1): the library made it, but would only write it with the next read.
async fn answer_close(mut socket: WebSocket) {
    if let Err(err) = socket.flush().await {
        tracing::debug!(error = %err, "the WebSocket was closed without an answer");
    }
}

/// Closes with a reason. The peer's answer is not waited for: the connection ends with the socket.
async fn close(mut socket: WebSocket, code: u16, reason: &'static str) {
    let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
    if let Err(err) = socket.send(Message::Close(Some(frame))).await {
        tracing::debug!(error = %err, "the WebSocket was closed already");
    }
}
