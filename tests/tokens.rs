//! Nobody sees what they may not, whatever they ask for and however they ask; pages of other sites can do nothing with
//! somebody's cookie.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use std::time::{Duration, Instant};

use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use support::problem::Problem;
use support::server::{Options, Server};
use support::stream::{Stream, WebSocket, parse_sse};
use support::{eventually, within};
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const NDJSON: &str = "application/x-ndjson";

/// What somebody asks for who would like to see more than their own.
const GREEDY: [&str; 5] =
    ["*", "mail%2F%7B%2Ball%7D", "mail%2F%7Baccount%7D%2F%7Bmailbox%7D", "%7B%2Ball%7D", "mail%7B/a,b%7D"];

/// A subscriber on any of the transports, as a sequence of events.
enum Subscriber {
    Stream(Stream),
    WebSocket(WebSocket),
    Poll { path: String, token: String, from: String, waiting: Vec<Value> },
}

const TRANSPORTS: [&str; 6] = ["sse", "websocket", "stream", "multipart", "long-poll", "poll"];

impl Subscriber {
    /// Subscribes from an event on; `from` may be `earliest`.
    async fn open(server: &Server, transport: &str, topic: &str, token: &str, from: &str) -> Self {
        let path = format!("/events?topic={topic}");
        let resumed = format!("{path}&last_event_id={from}");
        let accept = match transport {
            "sse" => "text/event-stream",
            "stream" => NDJSON,
            "multipart" => "multipart/x-mixed-replace",
            "websocket" => {
                return Self::WebSocket(WebSocket::try_open(server, &resumed, token).await.expect("a WebSocket"));
            }
            _ => {
                let path = format!("{path}&transport={transport}&wait=20");
                return Self::Poll { path, token: token.to_owned(), from: from.to_owned(), waiting: Vec::new() };
            }
        };
        Self::Stream(Stream::open_with(server, &resumed, accept, token, None).await)
    }

    async fn event(&mut self, server: &Server) -> Value {
        match self {
            Self::Stream(stream) if stream.headers["content-type"] == "text/event-stream" => {
                serde_json::from_str(&stream.sse().await.data).expect("JSON")
            }
            Self::Stream(stream) => stream.event().await,
            Self::WebSocket(socket) => socket.event().await,
            Self::Poll { path, token, from, waiting } => {
                while waiting.is_empty() {
                    let url = format!("{}{path}&last_event_id={from}", server.http);
                    let response = within("a poll", server.client.get(url).bearer_auth(&*token).send()).await;
                    let answer: Value = response.expect("an answer").json().await.expect("JSON");
                    answer["last_event_id"].as_str().expect("an ID").clone_into(from);
                    waiting.extend(answer["events"].as_array().expect("events").iter().cloned());
                }
                waiting.remove(0)
            }
        }
    }
}

fn id(event: &Value) -> String {
    event["id"].as_str().expect("an ID").to_owned()
}

/// Sends a mail, and returns the ID of its event.
async fn mail(server: &Server, to: &str, subject: &str) -> String {
    server.send(&format!("{to}@localhost"), subject, "for nobody else").await;
    let newest: Value = server.get("/api/events?limit=1").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(newest["events"][0]["message"]["subject"], subject);
    id(&newest["events"][0])
}

#[tokio::test]
async fn a_token_shows_its_own_on_every_transport_and_nothing_else() {
    let server = Server::start().await;
    let token = server.token_for(&["--subscribe", "mail/alice/{mailbox}"]).await;
    let first = mail(&server, "alice", "alice-1").await;
    let foreign = mail(&server, "bob", "bob-1").await;
    mail(&server, "alicette", "not-alice").await;
    server.publish("mail/alice", &json!("of the account, not of a mailbox")).await;
    let second = mail(&server, "alice+Lists", "alice-2").await;
    let own = "mail%2Falice%2F%7Bmailbox%7D";

    let mut live = Vec::new();
    for transport in TRANSPORTS {
        for topic in GREEDY.into_iter().chain([own]) {
            let mut history = Subscriber::open(&server, transport, topic, &token, "earliest").await;
            assert_eq!(id(&history.event(&server).await), first, "{transport} {topic}");
            assert_eq!(id(&history.event(&server).await), second, "{transport} {topic}");
            live.push((transport, topic, history));
            // Somebody else's event is a place in the log like another, and shows nothing.
            let mut resumed = Subscriber::open(&server, transport, topic, &token, &foreign).await;
            assert_eq!(id(&resumed.event(&server).await), second, "{transport} {topic}");
        }
    }
    // All of them wait now; long polls ask again when they are read.
    mail(&server, "bob", "bob-2").await;
    server.publish("mail/bob/INBOX", &json!("to bob")).await;
    let third = mail(&server, "alice", "alice-3").await;
    for (transport, topic, subscriber) in &mut live {
        assert_eq!(id(&subscriber.event(&server).await), third, "{transport} {topic}");
    }
}

#[tokio::test]
async fn asking_for_what_is_somebody_else_s_by_name_is_refused() {
    let config = "[[account]]\nname = \"alice\"\naddresses = [\"alice@localhost\"]\n\
                  [[account]]\nname = \"bob\"\naddresses = [\"bob@localhost\"]\n";
    let server = Server::with(Options { config: config.to_owned(), ..Options::default() }).await;
    let token = server.token_for(&["--subscribe", "mail/alice/{mailbox}", "--account", "alice"]).await;
    let first = mail(&server, "alice", "alice-1").await;
    mail(&server, "bob", "bob-1").await;
    let get = |path: String| server.client.get(format!("{}{path}", server.http)).bearer_auth(&token);
    for topic in ["mail/bob/INBOX", "mail/alice", "mail/alice/INBOX/more", "mail/alice%20/INBOX"] {
        for transport in TRANSPORTS.iter().filter(|name| **name != "websocket") {
            let problem = Problem::of(get(format!("/events?topic={topic}&transport={transport}"))).await;
            assert_eq!((problem.status, &*problem.name), (403, "not-allowed"), "{topic} {transport}");
            assert!(problem.detail.contains("mercure.subscribe"), "{}", problem.detail);
            assert!(problem.headers["www-authenticate"].to_str().unwrap().contains("insufficient_scope"));
        }
        let refused = WebSocket::try_open(&server, &format!("/events?topic={topic}"), &token).await;
        assert!(refused.err().expect("a refusal").to_string().contains("403"), "{topic}");
        let mixed = Problem::of(get(format!("/events?topic=mail/alice/INBOX&topic={topic}"))).await;
        assert_eq!(mixed.status, 403, "one of several is enough");
    }
    // What has no topics of its own to be refused for is only trimmed.
    for path in ["/api/events", "/api/events?topic=mail/bob/INBOX&topic=mail/alice/INBOX", "/api/events?topic=*"] {
        let answer: Value = get(path.to_owned()).send().await.expect("an answer").json().await.expect("JSON");
        let seen: Vec<_> = answer["events"].as_array().expect("events").iter().map(id).collect();
        assert_eq!(seen, [first.as_str()], "{path}");
    }
    let accounts: Value = get("/api/accounts".to_owned()).send().await.unwrap().json().await.expect("JSON");
    let names: Vec<_> = accounts["accounts"].as_array().expect("accounts").iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["alice"]);
    let nothing = server.token_for(&["--publish", "*"]).await;
    let accounts = server.client.get(format!("{}/api/accounts", server.http)).bearer_auth(&nothing).send().await;
    assert_eq!(accounts.unwrap().json::<Value>().await.unwrap(), json!({ "accounts": [] }));
    let events = server.client.get(format!("{}/api/events", server.http)).bearer_auth(&nothing).send().await;
    assert_eq!(events.unwrap().json::<Value>().await.unwrap(), json!({ "events": [] }));
}

#[tokio::test]
async fn topics_added_to_a_websocket_are_judged_like_the_first() {
    let server = Server::start().await;
    let token = server.token_for(&["--subscribe", "mail/alice/{mailbox}"]).await;
    let mut socket = WebSocket::try_open(&server, "/events", &token).await.expect("a WebSocket");
    assert_eq!(socket.message().await["control"], "hello");
    socket.say(&json!({ "subscribe": ["mail/bob/INBOX"] })).await;
    let refusal = socket.message().await;
    assert_eq!(refusal["control"], "error", "{refusal}");
    assert!(refusal["detail"].as_str().unwrap().contains("mail/bob/INBOX"), "{refusal}");
    socket.say(&json!({ "subscribe": ["mail/alice/INBOX", "mail/bob/INBOX"] })).await;
    assert_eq!(socket.message().await["control"], "error", "all or nothing");
    socket.say(&json!({ "subscribe": ["*", "mail/bob/{mailbox}", "{+all}"] })).await;
    assert_eq!(socket.message().await["control"], "subscribed");
    mail(&server, "bob", "bob-1").await;
    let first = mail(&server, "alice", "alice-1").await;
    assert_eq!(id(&socket.event().await), first);
    // The same while history is still being read.
    let mut history = WebSocket::try_open(&server, "/events?topic=mail/alice/Other&last_event_id=earliest", &token)
        .await
        .expect("a WebSocket");
    history.say(&json!({ "subscribe": ["*"] })).await;
    let second = mail(&server, "alice", "alice-2").await;
    let seen = id(&history.event().await);
    assert!(seen == first || seen == second, "bob's is not seen");
}

#[tokio::test]
async fn publishing_needs_a_right_to_every_topic() {
    let server = Server::start().await;
    let publisher = server.token_for(&["--publish", "a/{x}", "b"]).await;
    let reader = server.token_for(&["--subscribe", "*"]).await;
    let post =
        |token: &str, body: Value| server.client.post(format!("{}/events", server.http)).bearer_auth(token).json(&body);
    for topics in [json!(["a/1"]), json!(["a/1", "b"]), json!("b")] {
        let allowed = post(&publisher, json!({ "topics": topics })).send().await.expect("an answer");
        assert_eq!(allowed.status(), 200, "{topics}");
    }
    for topics in [json!(["a/1", "c"]), json!(["mail/alice/INBOX"]), json!(["a/1/2"]), json!(["a"]), json!(["b/"])] {
        let problem = Problem::of(post(&publisher, json!({ "topics": topics }))).await;
        assert_eq!((problem.status, &*problem.name), (403, "not-allowed"), "{topics}");
        assert!(problem.detail.contains("mercure.publish"), "{}", problem.detail);
    }
    assert_eq!(Problem::of(post(&reader, json!({ "topic": "b" }))).await.status, 403, "seeing is not publishing");
    let public = Problem::of(post(&publisher, json!({ "topic": "b", "private": false }))).await;
    assert_eq!((public.status, &*public.name), (403, "not-allowed"));
    assert!(public.detail.contains("hub.public"), "{}", public.detail);
    let newest: Value = server.get("/api/events").send().await.unwrap().json().await.expect("JSON");
    assert_eq!(newest["events"].as_array().map(Vec::len), Some(3), "what was refused is not in the log");
}

#[tokio::test]
async fn a_cookie_counts_for_the_own_page_and_allowed_ones_only() {
    let config = "[auth]\nallowed_origins = [\"https://mail.example.org\"]\n".to_owned();
    let server = Server::with(Options { config, ..Options::default() }).await;
    let cookie = format!("mercureAuthorization={}", server.token);
    let own = server.http.clone();
    let other_port = "http://127.0.0.1:1".to_owned();
    let foreign = [
        None,
        Some(("origin", "https://evil.example")),
        Some(("origin", "null")),
        Some(("origin", "https://mail.example.org.evil.example")),
        Some(("origin", "http://mail.example.org")),
        Some(("origin", &other_port)),
        Some(("referer", "https://evil.example/https://mail.example.org/")),
    ];
    let referer = format!("{own}/page?x");
    let allowed = [("origin", &*own), ("origin", "https://mail.example.org"), ("referer", &*referer)];
    let with = |request: reqwest::RequestBuilder, from: Option<(&str, &str)>| {
        let request = request.header("cookie", &cookie);
        from.iter().fold(request, |request, (name, value)| request.header(*name, *value))
    };
    let post = || server.client.post(format!("{own}/events")).json(&json!({ "topic": "t" }));
    let web_socket = async |from: Option<(&str, &str)>| {
        let mut request = format!("{}/events?topic=t", own.replacen("http", "ws", 1)).into_client_request().unwrap();
        request.headers_mut().insert("cookie", cookie.parse().unwrap());
        if let Some((name, value)) = from {
            let name: tungstenite::http::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        within("the handshake", tokio_tungstenite::connect_async(request)).await.map(drop)
    };
    for from in foreign {
        let problem = Problem::of(with(post(), from)).await;
        assert_eq!((problem.status, &*problem.name), (403, "foreign-origin"), "{from:?}");
        let refused = web_socket(from).await.expect_err("a refusal");
        assert!(refused.to_string().contains("403"), "{from:?}: {refused}");
        // Reading is what the same-origin policy itself holds back.
        let read = with(server.client.get(format!("{own}/api/events")), from).send().await.expect("an answer");
        assert_eq!(read.status(), 200, "{from:?}");
    }
    for from in allowed {
        assert_eq!(with(post(), Some(from)).send().await.expect("an answer").status(), 200, "{from:?}");
        web_socket(Some(from)).await.unwrap_or_else(|err| panic!("{from:?}: {err}"));
    }
    // A program with the token itself is not a browser that somebody lured.
    let program = post().bearer_auth(&server.token).header("origin", "https://evil.example");
    assert_eq!(program.send().await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn over_http_2_the_own_page_is_the_own_page() {
    let server = Server::start().await;
    let status = async |origin: &str| {
        let output = tokio::process::Command::new("curl")
            .args([
                "-s",
                "--max-time",
                "20",
                "--http2-prior-knowledge",
                "-o",
                "/dev/null",
                "-w",
                "%{http_version} %{http_code}",
            ])
            .args(["-H", &format!("Cookie: mercureAuthorization={}", server.token)])
            .args(["-H", &format!("Origin: {origin}"), "-H", "Content-Type: application/json"])
            .args(["-d", "{\"topic\":\"t\"}", &format!("{}/events", server.http)])
            .output();
        String::from_utf8(within("curl", output).await.expect("curl is installed").stdout).expect("text")
    };
    assert_eq!(status(&server.http).await, "2 200");
    assert_eq!(status("https://evil.example").await, "2 403");
}

#[tokio::test]
async fn a_stream_ends_when_its_token_does() {
    let server = Server::start().await;
    let token = server.token_for(&["--subscribe", "*", "--expires", "2s"]).await;
    let begun = Instant::now();
    let mut lines = Stream::open_with(&server, "/events?topic=*", NDJSON, &token, None).await;
    let mut sse = Stream::open_with(&server, "/events?topic=*", "text/event-stream", &token, None).await;
    let multipart = "multipart/x-mixed-replace";
    let mut parts = Stream::open_with(&server, "/events?topic=*", multipart, &token, None).await;
    let mut socket = WebSocket::try_open(&server, "/events?topic=*", &token).await.expect("a WebSocket");
    let poll = server.client.get(format!("{}/events?topic=*&transport=long-poll&wait=30", server.http));
    let polling = async { poll.bearer_auth(&token).send().await.expect("an answer").json::<Value>().await };
    let last = async |stream: &mut Stream| {
        let mut last = String::new();
        while let Some(record) = stream.record().await {
            last = record;
        }
        last
    };
    let ends = async { (last(&mut lines).await, last(&mut sse).await) };
    let ((line, event), answer) = within("the streams to end", async { tokio::join!(ends, polling) }).await;
    assert!(begun.elapsed() > Duration::from_millis(900), "not before: seconds are cut");
    let bye: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&bye["control"], &bye["reason"]), (&json!("bye"), &json!("token-expired")));
    let event = parse_sse(&event);
    assert!(event.event == "bye" && event.data.contains("token-expired"), "{event:?}");
    assert_eq!(answer.expect("JSON")["events"], json!([]));
    let mut part = parts.record().await.expect("a part");
    while !part.contains("bye") {
        part = parts.record().await.expect("another part");
    }
    assert!(part.contains("token-expired") && part.ends_with("\r\n--postrider--\r\n"), "{part}");
    let mut message = socket.message().await;
    while message["control"] != "bye" {
        message = socket.message().await;
    }
    assert_eq!(message["reason"], "token-expired");
    let close = within("the close frame", socket.socket.next()).await;
    let Some(Ok(tungstenite::Message::Close(Some(frame)))) = close else { panic!("a close frame, not {close:?}") };
    assert_eq!(u16::from(frame.code), 1008);
}

#[tokio::test]
async fn a_session_s_cookie_is_out_of_scripts_reach_and_ends_with_its_token() {
    let server = Server::start().await;
    let token = server.token_for(&["--subscribe", "mail/alice/{mailbox}", "--expires", "1h"]).await;
    let request = server.client.post(format!("{}/api/session", server.http)).json(&json!({ "token": token }));
    let response = request.send().await.expect("an answer");
    assert_eq!((response.status().as_u16(), &response.headers()["cache-control"]), (200, &"no-store".parse().unwrap()));
    let cookie = response.headers()["set-cookie"].to_str().unwrap().to_owned();
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(attribute), "{attribute}");
    }
    let age: u64 = cookie.split("Max-Age=").nth(1).unwrap().split(';').next().unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&age), "nobody lengthens their own: {age}");
    let answer: Value = response.json().await.expect("JSON");
    assert_eq!((&answer["subscribe"], &answer["admin"]), (&json!(["mail/alice/{mailbox}"]), &json!(false)));
    let other = format!("x=y; {}", cookie.split(';').next().unwrap());
    let shown = server.client.get(format!("{}/api/session", server.http)).header("cookie", other).send().await.unwrap();
    assert_eq!(shown.json::<Value>().await.expect("JSON"), answer);
}

#[tokio::test]
async fn without_a_token_only_what_is_public_is_seen() {
    let config = "[hub]\npublic = true\n".to_owned();
    let server = Server::with(Options { config, ..Options::default() }).await;
    let publish = async |private: Option<bool>| {
        let mut body = json!({ "topic": "news/1" });
        body["private"] = private.map_or(Value::Null, Value::Bool);
        let request = server.client.post(format!("{}/events", server.http)).bearer_auth(&server.token).json(&body);
        id(&request.send().await.expect("an answer").json().await.expect("JSON"))
    };
    mail(&server, "alice", "private-1").await;
    publish(None).await;
    publish(Some(true)).await;
    let first = publish(Some(false)).await;
    let open = async |path: &str| {
        let request = server.client.get(format!("{}{path}", server.http)).send();
        within("the answer", request).await.expect("an answer")
    };
    for topic in GREEDY.into_iter().chain(["news/1"]).filter(|topic| !topic.starts_with("mail")) {
        let path = format!("/events?topic={topic}&last_event_id=earliest&transport=poll");
        let answer: Value = open(&path).await.json().await.expect("JSON");
        let seen: Vec<_> = answer["events"].as_array().expect("events").iter().map(id).collect();
        assert_eq!(seen, [first.as_str()], "{topic}");
    }
    // Live, over a stream and a WebSocket.
    let url = format!("{}/events?topic=*", server.http.replacen("http", "ws", 1));
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("a WebSocket");
    let mut stream = open("/events?topic=*&transport=stream").await;
    mail(&server, "alice", "private-2").await;
    publish(Some(true)).await;
    let second = publish(Some(false)).await;
    let mut text = String::new();
    while text.lines().filter(|line| line.contains("\"id\"")).count() < 1 || !text.ends_with('\n') {
        let chunk = within("a record", stream.chunk()).await.expect("it goes on").expect("it goes on");
        text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
    }
    assert!(text.contains(&second) && !text.contains("private-2"), "{text}");
    let mut seen = Value::Null;
    while seen.get("id").is_none() {
        let message = within("a message", socket.next()).await.expect("it is open").expect("it is open");
        seen = serde_json::from_str(message.to_text().expect("text")).expect("JSON");
    }
    assert_eq!(id(&seen), second);
    for path in ["/events?topic=mail/alice/INBOX", "/api/events", "/api/accounts", "/api/session"] {
        let problem = Problem::of(server.client.get(format!("{}{path}", server.http))).await;
        assert_eq!((problem.status, &*problem.name), (401, "token-needed"), "{path}");
    }
    let publish =
        server.client.post(format!("{}/events", server.http)).json(&json!({ "topic": "t", "private": false }));
    assert_eq!(Problem::of(publish).await.status, 401);
}

#[tokio::test]
async fn other_sites_pages_read_answers_only_if_they_are_allowed_by_name() {
    let config = "[auth]\nallowed_origins = [\"https://mail.example.org\"]\n".to_owned();
    let server = Server::with(Options { config, ..Options::default() }).await;
    let ask = async |method: Method, path: &str, origin: &str, token: &str| {
        let request = server.client.request(method.clone(), format!("{}{path}", server.http)).header("origin", origin);
        let request = if method == Method::OPTIONS {
            request.header("access-control-request-method", "POST")
        } else {
            request.bearer_auth(token)
        };
        within("the answer", request.send()).await.expect("an answer")
    };
    for (method, path, token, status) in [
        (Method::GET, "/events?topic=t&transport=poll", &*server.token, 200),
        (Method::GET, "/events?topic=t&transport=sse", &server.token, 200),
        (Method::GET, "/api/events", &server.token, 200),
        (Method::GET, "/api/events", "bad", 401),
        (Method::GET, "/nope", "bad", 404),
        (Method::OPTIONS, "/events", "", 204),
    ] {
        let allowed = ask(method.clone(), path, "https://mail.example.org", token).await;
        assert_eq!(allowed.status(), status, "{path}");
        let headers = allowed.headers();
        // Refusals too: their page should be able to say what was wrong.
        assert_eq!(headers["access-control-allow-origin"], "https://mail.example.org", "{path}");
        assert_eq!(headers["access-control-allow-credentials"], "true");
        assert!(headers.get_all("vary").iter().any(|vary| vary == "Origin"), "{path}");
        assert_eq!(headers.contains_key("access-control-allow-methods"), method == Method::OPTIONS);
        for origin in ["https://evil.example", "null", "https://mail.example.org:8443", "http://mail.example.org", "*"]
        {
            let other = ask(method.clone(), path, origin, token).await;
            let named: Vec<_> =
                other.headers().keys().filter(|name| name.as_str().starts_with("access-control")).collect();
            assert!(named.is_empty(), "{path} {origin}: {named:?}");
            assert!(other.headers().get_all("vary").iter().any(|vary| vary == "Origin"), "{path}");
        }
    }
    // The streams that were opened by the way are all given up.
    eventually("no subscriber to be left", || async {
        let metrics = server.get("/metrics").send().await.ok()?.text().await.ok()?;
        metrics.contains("postrider_subscribers 0\n").then_some(())
    })
    .await;
}
