//! A quiet stream shows that it lives, in each format in the way that readers pass over.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use futures::StreamExt;
use support::server::{Options, Server};
use support::stream::{Stream, WebSocket};
use support::within;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn quiet_streams_show_signs_of_life_in_every_format() {
    let config = "[stream]\nheartbeat = \"1s\"\n".to_owned();
    let server = Server::with(Options { config, ..Options::default() }).await;
    let (mut sse, mut lines, mut multipart, mut socket) = tokio::join!(
        Stream::open(&server, "/events?topic=t", "text/event-stream"),
        Stream::open(&server, "/events?topic=t", "application/x-ndjson"),
        Stream::open(&server, "/events?topic=t", "multipart/x-mixed-replace"),
        WebSocket::open(&server, "/events?topic=t"),
    );
    let hello = sse.record().await.expect("a record");
    assert!(hello.starts_with("retry: ") && hello.contains("event: hello\ndata: "), "{hello}");
    assert_eq!(sse.record().await.as_deref(), Some(":"), "a comment (WHATWG HTML §9.2.6)");
    assert_eq!(sse.record().await.as_deref(), Some(":"), "again and again");

    assert!(lines.record().await.expect("a record").contains("\"hello\""));
    assert_eq!(lines.record().await.as_deref(), Some(""), "an empty line");

    // The first delimiter stands before the first part.
    assert!(
        multipart.record().await.expect("a record").ends_with("{\"control\":\"hello\",\"last_event_id\":\"earliest\"}")
    );
    assert_eq!(multipart.record().await.as_deref(), Some("{\"control\":\"heartbeat\"}"));

    assert_eq!(socket.message().await["control"], "hello");
    let ping = within("a ping", socket.socket.next()).await.expect("it is open").expect("a message");
    assert!(matches!(ping, Message::Ping(_)), "{ping:?}");
}
