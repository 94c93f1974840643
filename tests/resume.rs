//! An event ID from one transport resumes on any other, and the answer says where history begins.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use support::server::{Options, Server};
use support::stream::{Stream, WebSocket, parse_sse};
use support::{eventually, within};

const NDJSON: &str = "application/x-ndjson";
const SSE: &str = "text/event-stream";

async fn publish_ten(server: &Server) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(server.publish("t/resume", &json!(n)).await);
        server.publish("t/other", &json!("not for us")).await;
    }
    ids
}

fn id(event: &Value) -> String {
    event["id"].as_str().expect("an ID").to_owned()
}

async fn poll(server: &Server, path: &str) -> (reqwest::StatusCode, Value) {
    let response = server.get(path).header("accept", "application/json").send();
    let response = within("the poll's answer", response).await.expect("an answer");
    let status = response.status();
    (status, response.json().await.unwrap_or(Value::Null))
}

#[tokio::test]
async fn an_id_from_sse_resumes_on_every_transport() {
    let server = Server::start().await;
    let mut sse = Stream::open(&server, "/events?topic=t/resume", SSE).await;
    let ids = publish_ten(&server).await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(sse.sse().await.id);
    }
    assert_eq!(seen, ids[..4]);
    let from = seen.last().expect("four were seen");
    let path = format!("/events?topic=t/resume&last_event_id={from}");

    let (status, answer) = poll(&server, &format!("{path}&wait=5")).await;
    let events = answer["events"].as_array().expect("events");
    assert_eq!((status.as_u16(), events.iter().map(id).collect::<Vec<_>>()), (200, ids[4..].to_vec()));
    assert_eq!(answer["last_event_id"], json!(ids[9]));

    let (_, answer) = poll(&server, &path).await;
    assert_eq!(answer["events"].as_array().expect("events").iter().map(id).collect::<Vec<_>>(), ids[4..]);

    let mut lines = Stream::open(&server, &path, NDJSON).await;
    assert_eq!(lines.headers["last-event-id"], from.as_str());
    let mut multipart = Stream::open(&server, &path, "multipart/x-mixed-replace").await;
    let mut websocket = WebSocket::open(&server, &path).await;
    assert_eq!(websocket.headers["last-event-id"], from.as_str());
    let mut browser = Stream::open_with(&server, "/events?topic=t/resume", SSE, &server.token, Some(from)).await;
    for wanted in &ids[4..] {
        assert_eq!(&id(&lines.event().await), wanted);
        assert_eq!(&id(&multipart.event().await), wanted);
        assert_eq!(&id(&websocket.event().await), wanted);
        assert_eq!(&browser.sse().await.id, wanted);
    }
    // History has gone over to live on each of them.
    let live = server.publish("t/resume", &json!("live")).await;
    assert_eq!(id(&lines.event().await), live);
    assert_eq!(id(&multipart.event().await), live);
    assert_eq!(id(&websocket.event().await), live);
    assert_eq!(browser.sse().await.id, live);
}

#[tokio::test]
async fn resume_after_a_restart_repeats_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = || Options { data_dir: Some(folder.path().join("data")), ..Options::default() };
    let mut server = Server::with(options()).await;
    let ids = publish_ten(&server).await;
    assert_eq!(server.terminate().await, Some(0));
    let server = Server::with(options()).await;
    let path = format!("/events?topic=t/%7Bx%7D&topic=t/resume&last_event_id={}", ids[7]);
    let mut lines = Stream::open(&server, &path, NDJSON).await;
    let mut seen = Vec::new();
    while seen.last() != ids.last() {
        let event = lines.event().await;
        if event["topics"] == json!(["t/resume"]) {
            seen.push(id(&event));
        }
    }
    assert_eq!(seen, ids[8..]);
    let later = server.publish("t/resume", &json!("later")).await;
    assert!(later > ids[9], "IDs go on rising after a restart");
}

#[tokio::test]
async fn the_answer_says_when_history_is_not_whole() {
    let server = Server::start().await;
    let ids = publish_ten(&server).await;
    let unknown = "urn:uuid:0199d2a0-0000-7000-8000-000000000001";
    for from in [unknown, "earliest"] {
        let mut lines = Stream::open(&server, &format!("/events?topic=t/resume&last_event_id={from}"), NDJSON).await;
        assert_eq!(lines.headers["last-event-id"], "earliest");
        let hello: Value = serde_json::from_str(&lines.record().await.expect("a record")).expect("JSON");
        assert_eq!(hello, json!({ "control": "hello", "last_event_id": "earliest" }));
        assert_eq!(id(&lines.event().await), ids[0]);
    }
}

/// A browser sends back the last ID that it read, and a stream without any would begin at the moment of the reconnect.
#[tokio::test]
async fn an_event_source_that_had_no_event_yet_resumes_where_it_began() {
    let server = Server::start().await;
    server.publish("t/other", &json!("so that there is an ID")).await;
    let path = "/events?topic=t/resume";
    let mut quiet = Stream::open(&server, path, SSE).await;
    let hello = parse_sse(&quiet.record().await.expect("a record"));
    assert_eq!(quiet.headers["last-event-id"], hello.id.as_str());
    drop(quiet);
    let missed = server.publish("t/resume", &json!("meanwhile")).await;
    let mut back = Stream::open_with(&server, path, SSE, &server.token, Some(&hello.id)).await;
    assert_eq!(back.sse().await.id, missed);
}

#[tokio::test]
async fn a_poll_that_has_nothing_new_costs_nothing() {
    let server = Server::start().await;
    let ids = publish_ten(&server).await;
    let path = format!("/events?topic=t/resume&last_event_id={}", ids[9]);
    let first = server.get(&path).header("accept", "application/json").send().await.expect("an answer");
    let tag = first.headers()["etag"].clone();
    let again = || server.get(&path).header("accept", "application/json").header("if-none-match", tag.clone()).send();
    let unchanged = again().await.expect("an answer");
    assert_eq!(unchanged.status(), 304);
    assert_eq!(unchanged.headers()["etag"], tag);
    let new = server.publish("t/resume", &json!("new")).await;
    let changed = again().await.expect("an answer");
    assert_eq!(changed.status(), 200);
    let answer: Value = changed.json().await.expect("JSON");
    assert_eq!(answer["last_event_id"], json!(new));
}

/// A cache that kept the answer before asks whether it still holds, and hands it out again if it is told so.
#[tokio::test]
async fn a_poll_s_tag_is_of_the_whole_answer() {
    let server = Server::start().await;
    let ids = publish_ten(&server).await;
    let get = |path: &'static str, from: &str, tag: &HeaderValue| {
        let request = server.get(path).header("accept", "application/json").header("last-event-id", from);
        let request = request.header("if-none-match", tag);
        async { within("the poll's answer", request.send()).await.expect("an answer") }
    };
    let none = HeaderValue::from_static("\"\"");
    let first = get("/events?topic=t/resume", &ids[7], &none).await;
    let vary: Vec<_> = first.headers().get_all("vary").iter().map(|value| value.to_str().expect("text")).collect();
    assert!(vary.iter().any(|value| value.contains("Last-Event-ID")), "{vary:?}");
    let next = get("/events?topic=t/resume", &ids[9], &first.headers()["etag"]).await;
    assert_eq!(next.status(), 200, "two events again instead of none");
    let last = get("/events?topic=t/resume&limit=2", &ids[7], &none).await;
    server.publish("t/resume", &json!("new")).await;
    let more = get("/events?topic=t/resume&limit=2", &ids[7], &last.headers()["etag"]).await;
    assert_eq!(more.status(), 200, "now there is more");
}

#[tokio::test]
async fn a_poll_is_cut_into_pages_that_join() {
    let server = Server::start().await;
    let ids = publish_ten(&server).await;
    let (mut seen, mut from) = (Vec::new(), "earliest".to_owned());
    loop {
        let (_, answer) = poll(&server, &format!("/events?topic=t/resume&limit=3&last_event_id={from}")).await;
        seen.extend(answer["events"].as_array().expect("events").iter().map(id));
        answer["last_event_id"].as_str().expect("an ID").clone_into(&mut from);
        if answer["more"] == json!(false) {
            break;
        }
    }
    assert_eq!(seen, ids);
}

#[tokio::test]
async fn a_long_poll_is_answered_when_something_comes_and_when_nothing_does() {
    let server = Server::start().await;
    let (status, empty) = poll(&server, "/events?topic=t/resume&wait=0.2").await;
    assert_eq!((status.as_u16(), empty["events"].as_array().map(Vec::len)), (200, Some(0)));
    let waiting = poll(&server, "/events?topic=t/resume&wait=20");
    let publishing = async {
        // The poll must be waiting, or it would only prove that history is read.
        eventually("the poll to wait", || async {
            let metrics = server.get("/metrics").send().await.ok()?.text().await.ok()?;
            metrics.contains("postrider_subscribers 1").then_some(())
        })
        .await;
        server.publish("t/resume", &json!("now")).await
    };
    let ((_, answer), published) = tokio::join!(waiting, publishing);
    assert_eq!(id(&answer["events"][0]), published);
}

#[tokio::test]
async fn topics_are_added_and_dropped_on_a_websocket() {
    let server = Server::start().await;
    let mut socket = WebSocket::open(&server, "/events").await;
    assert_eq!(socket.message().await["control"], "hello");
    socket.say(&json!({ "subscribe": ["t/a", "t/b"] })).await;
    assert_eq!(socket.message().await, json!({ "control": "subscribed", "topics": ["t/a", "t/b"] }));
    let first = server.publish("t/a", &json!(1)).await;
    let second = server.publish("t/b", &json!(2)).await;
    assert_eq!(id(&socket.event().await), first);
    assert_eq!(id(&socket.event().await), second);
    socket.say(&json!({ "unsubscribe": ["t/a"] })).await;
    assert_eq!(socket.message().await, json!({ "control": "subscribed", "topics": ["t/b"] }));
    server.publish("t/a", &json!(3)).await;
    let fourth = server.publish("t/b", &json!(4)).await;
    assert_eq!(id(&socket.event().await), fourth);
    for wrong in [
        json!({ "subscribe": "t/a" }),
        json!({ "subscribe": ["{"] }),
        json!({ "order": 1 }),
        json!(7),
        json!([["t/a"]]),
    ] {
        socket.say(&wrong).await;
        let answer = socket.message().await;
        assert_eq!(answer["control"], "error", "{wrong}: {answer}");
        assert!(answer["detail"].as_str().is_some_and(|detail| detail.len() > 10));
    }
    let fifth = server.publish("t/b", &json!(5)).await;
    assert_eq!(id(&socket.event().await), fifth, "what is wrong changes nothing");
}
