//! SIGTERM ends everything in order, within the grace period, and says goodbye.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use serde_json::{Value, json};
use support::server::Server;
use support::stream::{Stream, WebSocket, parse_sse};
use support::within;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn streams_say_bye_with_a_reason_and_when_to_come_back() {
    let mut server = Server::start().await;
    let mut lines = Stream::open(&server, "/events?topic=t", "application/x-ndjson").await;
    let mut sse = Stream::open(&server, "/events?topic=t", "text/event-stream").await;
    let mut socket = WebSocket::open(&server, "/events?topic=t").await;
    assert_eq!(socket.message().await["control"], "hello");
    assert_eq!(server.terminate().await, Some(0));

    let mut records = Vec::new();
    while let Some(record) = lines.record().await {
        records.push(record);
    }
    let bye: Value = serde_json::from_str(records.last().expect("a record")).expect("JSON");
    assert_eq!((&bye["control"], &bye["reason"]), (&json!("bye"), &json!("shutting-down")));
    assert!(bye["retry_ms"].as_u64().is_some_and(|ms| ms >= 2000));

    let mut last = None;
    while let Some(record) = sse.record().await {
        last = Some(record);
    }
    assert_eq!(parse_sse(&last.expect("a record")).event, "bye");

    assert_eq!(socket.message().await["control"], "bye");
    let close = within("the close frame", futures::StreamExt::next(&mut socket.socket)).await;
    let Some(Ok(Message::Close(Some(frame)))) = close else { panic!("expected a close frame, got {close:?}") };
    assert_eq!(u16::from(frame.code), 1001);
}

/// RFC 6455 §5.5.1: a close frame is answered with one, or the client takes the end for a failure (1006).
#[tokio::test]
async fn a_websocket_that_its_client_closes_is_closed_cleanly() {
    let server = Server::start().await;
    let mut socket = WebSocket::open(&server, "/events?topic=t").await;
    assert_eq!(socket.message().await["control"], "hello");
    socket.socket.close(None).await.expect("it is open");
    let answer = within("the close frame", futures::StreamExt::next(&mut socket.socket)).await;
    assert!(matches!(answer, Some(Ok(Message::Close(_)))), "{answer:?}");
}

#[tokio::test]
async fn an_idle_smtp_session_gets_421_and_a_waiting_poll_its_answer() {
    let mut server = Server::start().await;
    let stream = tokio::net::TcpStream::connect(&server.smtp).await.expect("a connection");
    let mut smtp = BufReader::new(stream).lines();
    let greeting = within("the greeting", smtp.next_line()).await.expect("it is open").expect("a line");
    assert!(greeting.starts_with("220 "), "{greeting}");
    smtp.get_mut().write_all(b"NOOP\r\n").await.expect("it is open");
    assert!(within("the reply", smtp.next_line()).await.expect("it is open").expect("a line").starts_with("250 "));
    let poll = server.get("/events?topic=t&wait=25").header("accept", "application/json").send();
    let mut polls = JoinSet::new();
    polls.spawn(poll);
    support::eventually("the poll to wait", || async {
        let metrics = server.get("/metrics").send().await.ok()?.text().await.ok()?;
        metrics.contains("postrider_subscribers 1").then_some(())
    })
    .await;
    assert_eq!(server.terminate().await, Some(0));
    let farewell = within("the farewell", smtp.next_line()).await.expect("it is open").expect("a line");
    assert!(farewell.starts_with("421 4.3.2"), "{farewell}");
    let answer: Value =
        polls.join_next().await.expect("one").expect("it ran").expect("an answer").json().await.expect("JSON");
    assert_eq!(answer["events"], json!([]));
}
