//! Subscribers as real programs have them: over SSE, NDJSON, WebSocket, long poll and poll.

use futures::{SinkExt, StreamExt};
use reqwest::header::HeaderMap;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::server::Server;
use super::within;

/// An endless answer over HTTP, cut into records.
pub struct Stream {
    pub headers: HeaderMap,
    response: reqwest::Response,
    buffer: Vec<u8>,
    separator: &'static [u8],
}

/// One Server-Sent Event.
#[derive(Debug, Default, PartialEq)]
pub struct Sse {
    pub event: String,
    pub id: String,
    pub data: String,
}

impl Stream {
    /// Opens `GET {path}` with an `Accept` header.
    pub async fn open(server: &Server, path: &str, accept: &str) -> Self {
        Self::open_with(server, path, accept, &server.token, None).await
    }

    pub async fn open_with(server: &Server, path: &str, accept: &str, token: &str, last_id: Option<&str>) -> Self {
        let mut request = server.client.get(format!("{}{path}", server.http)).bearer_auth(token);
        request = request.header("accept", accept);
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let response = within("the stream to begin", request.send()).await.expect("an answer");
        assert_eq!(response.status(), 200, "{path}");
        let separator: &[u8] = match accept {
            "text/event-stream" => b"\n\n",
            "multipart/x-mixed-replace" => b"\r\n--postrider\r\nContent-Type: application/json\r\n\r\n",
            _ => b"\n",
        };
        Self { headers: response.headers().clone(), response, buffer: Vec::new(), separator }
    }

    /// An answer that is a stream of Server-Sent Events.
    pub fn of(response: reqwest::Response) -> Self {
        Self { headers: response.headers().clone(), response, buffer: Vec::new(), separator: b"\n\n" }
    }

    /// The next record; at the end what is left behind the last one, then none.
    pub async fn record(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(self.separator.len()).position(|bytes| bytes == self.separator) {
                let record: Vec<u8> = self.buffer.drain(..at + self.separator.len()).collect();
                return Some(String::from_utf8(record[..at].to_vec()).expect("UTF-8"));
            }
            let chunk = within("a record of the stream", self.response.chunk()).await.expect("the stream goes on");
            let Some(chunk) = chunk else {
                let left = std::mem::take(&mut self.buffer);
                return (!left.is_empty()).then(|| String::from_utf8(left).expect("UTF-8"));
            };
            self.buffer.extend_from_slice(&chunk);
        }
    }

    /// The next event of a stream of JSON; control records are passed over.
    pub async fn event(&mut self) -> Value {
        loop {
            let record = self.record().await.expect("an event before the end");
            let json = record.trim_start_matches("--postrider\r\nContent-Type: application/json\r\n\r\n");
            if json.is_empty() {
                continue;
            }
            let value: Value = serde_json::from_str(json).unwrap_or_else(|err| panic!("{err}: {json:?}"));
            if value.get("control").is_none() {
                return value;
            }
        }
    }

    /// The next Server-Sent Event that is one of the log's.
    pub async fn sse(&mut self) -> Sse {
        loop {
            let record = self.record().await.expect("an event before the end");
            let sse = parse_sse(&record);
            if !sse.id.is_empty() && sse.event != "hello" {
                return sse;
            }
        }
    }
}

/// The fields that the tests look at (WHATWG HTML §9.2.6).
pub fn parse_sse(record: &str) -> Sse {
    let mut sse = Sse::default();
    for line in record.lines() {
        match line.split_once(": ") {
            Some(("event", value)) => value.clone_into(&mut sse.event),
            Some(("id", value)) => value.clone_into(&mut sse.id),
            Some(("data", value)) => sse.data.push_str(value),
            _ => {}
        }
    }
    sse
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// A WebSocket subscriber.
pub struct WebSocket {
    pub headers: HeaderMap,
    pub socket: Socket,
}

impl WebSocket {
    pub async fn open(server: &Server, path: &str) -> Self {
        Self::try_open(server, path, &server.token).await.expect("a WebSocket")
    }

    pub async fn try_open(
        server: &Server,
        path: &str,
        token: &str,
    ) -> Result<Self, tokio_tungstenite::tungstenite::Error> {
        let url = format!("{}{path}", server.http.replacen("http", "ws", 1));
        let mut request = url.into_client_request()?;
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
        let (socket, response) = within("the WebSocket to open", tokio_tungstenite::connect_async(request)).await?;
        Ok(Self { headers: response.headers().clone(), socket })
    }

    /// The next JSON message, control records too.
    pub async fn message(&mut self) -> Value {
        loop {
            let message =
                within("a WebSocket message", self.socket.next()).await.expect("it is open").expect("a message");
            if let Message::Text(text) = message {
                return serde_json::from_str(&text).expect("JSON");
            }
        }
    }

    /// The next event.
    pub async fn event(&mut self) -> Value {
        loop {
            let value = self.message().await;
            if value.get("control").is_none() {
                return value;
            }
        }
    }

    pub async fn say(&mut self, request: &Value) {
        self.socket.send(Message::Text(request.to_string().into())).await.expect("it is open");
    }
}
