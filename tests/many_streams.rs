//! Thousands of streams that open at the same moment: each gets its head, its events once, and leaves nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use std::net::SocketAddr;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use support::server::Server;
use support::{eventually, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Streams at once, where as many files may be open.
const STREAMS: usize = 10_000;
/// A race shows itself in one of many.
const ROUNDS: u8 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_ten_thousand_streams_at_once_gets_its_head_and_its_event() {
    let streams = STREAMS.min(files_max() - 200);
    let server = Server::start().await;
    for round in 0..ROUNDS {
        let mut opening = JoinSet::new();
        for number in 0..streams {
            let accept = if number % 2 == 0 { "text/event-stream" } else { "application/x-ndjson" };
            let (request, address) = (request(&server, accept), address(&server));
            // Another address in each round, so that the ports of the round before can rest.
            opening.spawn(async move { Reader::open(address, 2 + round, &request).await });
        }
        let mut readers = Vec::new();
        while let Some(reader) = within("a stream's head", opening.join_next()).await {
            readers.push(reader.expect("it ran"));
        }
        subscribers(&server, streams).await;
        let mut wanted = Vec::new();
        for number in 0..3 {
            wanted.push(format!("\"id\":\"{}\"", server.publish("t", &json!(number)).await));
        }
        for reader in &mut readers {
            let text = reader.until(&wanted[2]).await;
            let places: Vec<_> = wanted.iter().flat_map(|id| text.match_indices(id)).map(|(at, _)| at).collect();
            assert!(places.len() == 3 && places.is_sorted(), "each event once, in order: {text}");
        }
        drop(readers);
        subscribers(&server, 0).await;
    }
}

/// A connection that was answered on before is given away too, with requests one by one and in one write.
#[tokio::test]
async fn a_stream_may_follow_other_answers_on_its_connection() {
    let server = Server::start().await;
    let healthy = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", address(&server));
    let stream = request(&server, "text/event-stream");
    for pieces in [vec![healthy.clone(), stream.clone()], vec![format!("{healthy}{healthy}{stream}")]] {
        let mut reader = Reader::connect(address(&server), 2).await;
        for piece in &pieces {
            reader.socket.write_all(piece.as_bytes()).await.expect("it is open");
            reader.until("HTTP/1.1 200 OK").await;
        }
        reader.until("event: hello").await;
        subscribers(&server, 1).await;
        let id = server.publish("t", &json!(1)).await;
        reader.until(&id).await;
        drop(reader);
        subscribers(&server, 0).await;
    }
}

/// Who comes while much is published misses nothing of it, and gets nothing twice, however it is handed on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_while_others_are_written_to_sees_every_event_once() {
    const READERS: usize = 60;
    const EVENTS: usize = 400;
    let server = Server::start().await;
    let (mut reading, mut ids) = (JoinSet::new(), Vec::new());
    for number in 0..EVENTS {
        if number % (EVENTS / READERS) == 0 {
            let (request, address) = (request(&server, "application/x-ndjson"), address(&server));
            let request = request.replace("topic=t", "topic=t&last_event_id=earliest");
            reading.spawn(async move { Reader::open(address, 2, &request).await.events(EVENTS).await });
        }
        ids.push(server.publish("t", &json!(number)).await);
    }
    while let Some(seen) = within("all events at a reader", reading.join_next()).await {
        assert_eq!(seen.expect("it ran"), ids);
    }
}

/// How many files this process and the server may each have open.
fn files_max() -> usize {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("up to the maximum");
    limit.maximum.map_or(STREAMS + 200, |files| usize::try_from(files).expect("a number"))
}

fn address(server: &Server) -> SocketAddr {
    server.http.trim_start_matches("http://").parse().expect("an address")
}

fn request(server: &Server, accept: &str) -> String {
    let (host, token) = (address(server), &server.token);
    format!("GET /events?topic=t HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nAccept: {accept}\r\n\r\n")
}

async fn subscribers(server: &Server, count: usize) {
    eventually(&format!("{count} subscribers"), || async {
        let metrics = server.get("/metrics").send().await.ok()?.text().await.ok()?;
        metrics.contains(&format!("postrider_subscribers {count}\n")).then_some(())
    })
    .await;
}

struct Reader {
    socket: TcpStream,
    /// What was read and not looked at.
    text: String,
}

impl Reader {
    async fn connect(address: SocketAddr, source: u8) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from(([127, 0, 0, source], 0))).expect("an address of this machine");
        let socket = within("a connection", socket.connect(address)).await.expect("a connection");
        Self { socket, text: String::new() }
    }

    async fn open(address: SocketAddr, source: u8, request: &str) -> Self {
        let mut reader = Self::connect(address, source).await;
        reader.socket.write_all(request.as_bytes()).await.expect("it is open");
        let head = reader.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        reader
    }

    /// Reads up to a text and returns it all.
    async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.text.find(end) {
                let rest = self.text.split_off(at + end.len());
                return std::mem::replace(&mut self.text, rest);
            }
            self.read().await;
        }
    }

    /// The IDs of so many events. Chunk sizes stand on lines of their own.
    async fn events(mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.len() < count {
            let line = self.until("\n").await;
            ids.extend(line.strip_prefix("{\"id\":\"").map(|rest| rest[..45].to_owned()));
        }
        ids
    }

    async fn read(&mut self) {
        let mut chunk = [0; 4096];
        let read = within("more of the stream", self.socket.read(&mut chunk)).await.expect("it is open");
        assert_ne!(read, 0, "the stream ended: {}", self.text);
        self.text.push_str(std::str::from_utf8(&chunk[..read]).expect("ASCII"));
    }
}
