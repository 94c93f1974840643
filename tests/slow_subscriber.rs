//! A subscriber that reads nothing costs only itself: memory stays bounded, and it gets all of it when it reads.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use std::time::Duration;

use serde_json::json;
use support::server::Server;
use support::stream::Stream;
use support::within;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const EVENTS: usize = 10_000;
const PUBLISHERS: usize = 16;

/// Publishes events of about 1 KB from several connections at once.
async fn publish_all(server: &Server) {
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let (client, url, token) = (server.client.clone(), format!("{}/events", server.http), server.token.clone());
        publishers.spawn(async move {
            for n in 0..EVENTS / PUBLISHERS {
                let body =
                    json!({ "topics": ["t/slow"], "data": { "publisher": publisher, "n": n, "pad": "x".repeat(900) } });
                let response = client.post(&url).bearer_auth(&token).json(&body).send().await.expect("an answer");
                assert_eq!(response.status(), 200);
            }
        });
    }
    within("everything to be published", async { while publishers.join_next().await.is_some() {} }).await;
}

#[tokio::test]
async fn who_reads_nothing_for_a_while_gets_everything_in_order() {
    let server = Server::start().await;
    // A plain socket with a small buffer, so that the kernel does not hide that nobody reads.
    let address = server.http.trim_start_matches("http://");
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut slow = socket.connect(address.parse().expect("an address")).await.expect("a connection");
    let request = format!(
        "GET /events?topic=t/slow HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nAccept: application/x-ndjson\r\n\r\n",
        server.token
    );
    slow.write_all(request.as_bytes()).await.expect("a request");
    read_head(&mut slow).await;

    // A second subscriber reads all the while and must not be held up.
    let mut quick = Stream::open(&server, "/events?topic=t/slow", "application/x-ndjson").await;
    let reading = async {
        let mut order = Vec::with_capacity(EVENTS);
        while order.len() < EVENTS {
            order.push(quick.event().await["id"].as_str().expect("an ID").to_owned());
        }
        order
    };
    let before = server.memory("VmRSS") / 1024;
    let (order, ()) = tokio::join!(reading, publish_all(&server));
    // To see it over a longer time, as a person would: seconds to wait before the first byte is read.
    if let Some(pause) = std::env::var("SLOW_SUBSCRIBER_PAUSE").ok().and_then(|seconds| seconds.parse().ok()) {
        tokio::time::sleep(Duration::from_secs(pause)).await;
    }
    let grown = (server.memory("VmRSS") / 1024).saturating_sub(before);
    println!("10,000 events of 1 KB passed a subscriber that read nothing: resident memory grew by {grown} KiB");
    // All events are some 11 MB; SQLite's page caches may grow to 64 MiB and more. What would show a subscriber's
    // backlog on the heap is growth far beyond both.
    assert!(grown < 160 * 1024, "resident memory grew by {grown} KiB");

    let seen = within("the slow subscriber to catch up", read_ids(&mut slow)).await;
    assert_eq!(seen.len(), EVENTS);
    assert!(seen == order, "both saw the same order");
    assert!(order.is_sorted());
}

async fn read_head(socket: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("the response's head", socket.read_u8()).await.expect("a byte"));
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
}

/// Reads the chunked stream until all events were seen.
async fn read_ids(socket: &mut TcpStream) -> Vec<String> {
    let (mut text, mut ids) = (Vec::new(), Vec::new());
    let mut chunk = vec![0; 64 * 1024];
    while ids.len() < EVENTS {
        let read = socket.read(&mut chunk).await.expect("the stream goes on");
        assert_ne!(read, 0, "the stream ended after {} events", ids.len());
        text.extend_from_slice(&chunk[..read]);
        // Chunk sizes stand on lines of their own, so that events are found by their own beginning and end.
        while let Some(end) = text.windows(2).position(|bytes| bytes == b"}\n") {
            let line: Vec<u8> = text.drain(..end + 2).collect();
            let line = String::from_utf8(line).expect("UTF-8");
            if let Some(at) = line.find("{\"id\":\"") {
                ids.push(line[at + 7..at + 7 + 45].to_owned());
            }
        }
    }
    ids
}

#[tokio::test]
async fn a_socket_that_takes_nothing_for_the_stall_time_is_closed() {
    let options = support::server::Options {
        config: "[http]\nstall_timeout = \"1s\"\n".into(),
        ..support::server::Options::default()
    };
    let server = Server::with(options).await;
    let stalled = Stream::open(&server, "/events?topic=t/slow", "application/x-ndjson").await;
    let subscribers = || async {
        let metrics = server.get("/metrics").send().await.ok()?.text().await.ok()?;
        let line = metrics.lines().find(|line| line.starts_with("postrider_subscribers "))?.to_owned();
        line.rsplit(' ').next()?.parse::<u32>().ok()
    };
    assert_eq!(subscribers().await, Some(1));
    publish_all(&server).await;
    support::eventually("the stalled subscriber to be closed", || async { (subscribers().await? == 0).then_some(()) })
        .await;
    drop(stalled);
    within("others to be served", server.publish("t/slow", &json!("others go on"))).await;
}
