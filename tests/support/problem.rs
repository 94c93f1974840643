//! Refusals as clients get them, and connections that say anything.

use reqwest::RequestBuilder;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server::Server;
use super::within;

/// A refusal (RFC 9457).
#[derive(Debug)]
pub struct Problem {
    pub status: u16,
    /// The last word of `type`.
    pub name: String,
    pub detail: String,
    pub headers: reqwest::header::HeaderMap,
}

impl Problem {
    /// Sends a request that must be refused, by a whole problem.
    pub async fn of(request: RequestBuilder) -> Self {
        let response = within("the refusal", request.send()).await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = within("the refusal's body", response.text()).await.expect("a body");
        let kind = headers.get("content-type").map(|kind| kind.to_str().expect("ASCII").to_owned());
        assert_eq!(kind.as_deref(), Some("application/problem+json"), "{status} {text}");
        let body: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(body["status"], status, "{text}");
        assert!(body["title"].as_str().is_some_and(|title| !title.is_empty()), "{text}");
        let word = |key: &str| body[key].as_str().unwrap_or_else(|| panic!("{key} in {text}")).to_owned();
        let (kind, detail) = (word("type"), word("detail"));
        assert!(detail.len() > 20, "it says what to do: {text}");
        let name = kind.strip_prefix("urn:postrider:problem:").expect("a type of postrider's").to_owned();
        Self { status, name, detail, headers }
    }
}

/// Sends these bytes and returns all that comes back until the server closes.
pub async fn exchange(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.http.trim_start_matches("http://")).await.expect("a connection");
    stream.write_all(bytes).await.expect("it is open");
    rest(&mut stream).await
}

/// What comes until the server closes; a reset is an end like another.
pub async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(read @ 1..) = within("the server to close", stream.read(&mut chunk)).await {
        answer.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}
