//! Whatever is sent, the answer says what was wrong, and the others are served on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::SinkExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use lettre::AsyncTransport;
use postrider::auth::SigningKey;
use serde_json::{Value, json};
use support::problem::{Problem, exchange, rest};
use support::server::{Options, Server};
use support::stream::{Stream, WebSocket};
use support::{eventually, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};

/// Publishes and reads back.
async fn assert_serves(server: &Server) {
    let id = server.publish("t/serves", &json!("others")).await;
    let answer = server.get("/api/events?topic=t/serves&limit=1").send().await.expect("an answer");
    let answer: Value = answer.json().await.expect("JSON");
    assert_eq!(answer["events"][0]["id"], json!(id));
}

/// Signs any claims at all with the server's key.
fn sign(server: &Server, algorithm: Algorithm, claims: &Value) -> String {
    // Also makes the library's cryptography ready.
    SigningKey::load(&server.data_dir).expect("the server's key");
    let key = std::fs::read(server.data_dir.join(SigningKey::FILE_NAME)).expect("the key's file");
    jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(&key)).expect("a token")
}

#[tokio::test]
async fn a_token_that_is_not_good_is_refused_everywhere_and_never_repeated() {
    let server = Server::start().await;
    let all = json!({ "mercure": { "subscribe": ["*"], "publish": ["*"] }, "postrider": { "admin": true } });
    let with = |key: &str, value: Value| {
        let mut claims = all.clone();
        claims[key] = value;
        sign(&server, Algorithm::HS256, &claims)
    };
    let good = sign(&server, Algorithm::HS256, &all);
    let parts: Vec<&str> = good.split('.').collect();
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = format!("{}.{}.", part(&json!({ "alg": "none", "typ": "JWT" })), parts[1]);
    let altered = format!("{}.{}.{}", parts[0], part(&json!({ "mercure": { "subscribe": ["*"] } })), parts[2]);
    let cases = [
        ("garbage", "not a token"),
        ("", "not a token"),
        ("a.b.c", "not a token"),
        (&good[..good.len() / 2], "not a token"),
        (&good[..good.len() - 1], "not a token"),
        (&unsigned, "not a token"),
        (&altered, "not signed with this server's key"),
        (&sign(&server, Algorithm::HS512, &all), "not signed with this server's key"),
        (&with("exp", json!(1_700_000_000)), "expired at 2023"),
        (&with("nbf", json!(9_700_000_000_u64)), "not valid before"),
        (&with("exp", json!("soon")), "`exp`"),
        (&with("aud", json!("another")), "`aud`"),
        (&with("mercure", json!("*")), "`mercure`"),
        (&with("mercure", json!({ "subscribe": ["{"] })), "`mercure.subscribe[0]`"),
        (&"x".repeat(SigningKey::TOKEN_BYTES_MAX + 1), "at most 8192 bytes"),
    ];
    for (token, word) in cases {
        for path in
            ["/events?topic=*", "/events?topic=*&transport=poll", "/api/events", "/api/accounts", "/api/session"]
        {
            let problem = Problem::of(server.client.get(format!("{}{path}", server.http)).bearer_auth(token)).await;
            assert_eq!((problem.status, &*problem.name), (401, "token-invalid"), "{path} {token}");
            assert!(problem.detail.contains(word), "{token}: {}", problem.detail);
            assert!(token.len() < 8 || !problem.detail.contains(token));
            assert!(problem.headers["www-authenticate"].to_str().unwrap().contains("error=\"invalid_token\""));
        }
        let publish = server.client.post(format!("{}/events", server.http)).bearer_auth(token);
        assert_eq!(Problem::of(publish.json(&json!({ "topic": "t" }))).await.status, 401, "{token}");
        let sign_in = server.client.post(format!("{}/api/session", server.http)).json(&json!({ "token": token }));
        assert_eq!(Problem::of(sign_in).await.name, "token-invalid", "{token}");
        let refused = WebSocket::try_open(&server, "/events?topic=*", token).await.err().expect("a refusal");
        assert!(refused.to_string().contains("401"), "{refused}");
    }
    assert_serves(&server).await;
}

#[tokio::test]
async fn without_a_token_it_says_how_to_get_one() {
    let server = Server::start().await;
    for path in ["/events?topic=*", "/events?topic=t&transport=poll", "/api/events", "/api/accounts", "/api/session"] {
        let problem = Problem::of(server.client.get(format!("{}{path}", server.http))).await;
        assert_eq!((problem.status, &*problem.name), (401, "token-needed"), "{path}");
        assert!(problem.detail.contains("postrider token"), "{}", problem.detail);
        // RFC 6750 §3.1: no error code for who sent nothing.
        assert_eq!(problem.headers["www-authenticate"], "Bearer realm=\"postrider\"");
    }
    let publish = server.client.post(format!("{}/events", server.http)).json(&json!({ "topic": "t" }));
    assert_eq!(Problem::of(publish).await.status, 401);

    let both = server.get("/api/events").header("authorization", "Bearer another");
    assert_eq!(Problem::of(both).await.name, "token-invalid", "which of two is meant?");
    let megabyte =
        format!("GET /api/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", "x".repeat(1 << 20));
    let mut stream = TcpStream::connect(server.http.trim_start_matches("http://")).await.expect("a connection");
    // The server may hang up before it has read all of it.
    drop(within("the request", stream.write_all(megabyte.as_bytes())).await);
    let answer = rest(&mut stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_serves(&server).await;
}

#[tokio::test]
async fn what_is_wrong_in_a_subscriber_s_request_is_named() {
    let server = Server::start().await;
    let cases = [
        ("/events", 400, "topic-missing", "say what to subscribe to"),
        ("/events?topic=", 400, "topic-invalid", "must not be empty"),
        ("/events?topic=%00", 400, "topic-invalid", "control characters"),
        ("/events?topic=%0D%0Adata:x", 400, "topic-invalid", "control characters"),
        ("/events?topic=a%7Bb", 400, "topic-invalid", "URI template"),
        ("/events?topic=t&last_event_id=17", 400, "event-id-invalid", "urn:uuid:"),
        ("/events?topic=t&last_event_id=urn:uuid:x", 400, "event-id-invalid", "urn:uuid:"),
        ("/events?topic=t&limit=0", 400, "limit-invalid", "from 1 to 1000"),
        ("/events?topic=t&limit=1001", 400, "limit-invalid", "from 1 to 1000"),
        ("/events?topic=t&limit=-1", 400, "limit-invalid", "from 1 to 1000"),
        ("/events?topic=t&wait=soon", 400, "wait-invalid", "number of seconds"),
        ("/events?topic=t&wait=NaN", 400, "wait-invalid", "number of seconds"),
        ("/events?topic=t&wait=inf", 400, "wait-invalid", "number of seconds"),
        ("/events?topic=t&wait=1e400", 400, "wait-invalid", "number of seconds"),
        ("/events?topic=t&transport=pigeon", 400, "transport-invalid", "one of sse"),
        ("/events?topic=t&transport=websocket", 426, "upgrade-required", "ws://"),
        ("/api/events?limit=0", 400, "limit-invalid", "from 1 to 500"),
        ("/api/events?topic=%7B", 400, "topic-invalid", "URI template"),
        ("/api/events?order=up", 400, "parameter-unknown", "`topic` and `limit`"),
    ];
    for (path, status, name, word) in cases {
        let problem = Problem::of(server.get(path)).await;
        assert_eq!((problem.status, &*problem.name), (status, name), "{path}");
        assert!(problem.detail.contains(word), "{path}: {}", problem.detail);
    }
    let long = Problem::of(server.get(&format!("/events?topic={}", "a".repeat(2000)))).await;
    assert_eq!((long.status, &*long.name), (400, "topic-invalid"));
    let many = Problem::of(server.get(&format!("/events?{}", "topic=a&".repeat(101)))).await;
    assert_eq!((many.status, &*many.name), (400, "too-many-topics"));
    let header = Problem::of(server.get("/events?topic=t").header("last-event-id", "17")).await;
    assert_eq!((header.status, &*header.name), (400, "event-id-invalid"));
    for accept in ["text/html", "image/*", "text/event-stream;q=0", ";;;,,,"] {
        let problem = Problem::of(server.get("/events?topic=t").header("accept", accept)).await;
        assert_eq!((problem.status, &*problem.name), (406, "not-acceptable"), "{accept}");
        assert!(problem.detail.contains("text/event-stream"));
    }
    // A wait beyond all clocks is a long one, no error, and is cut to the server's longest.
    let poll = server.get("/events?topic=t&wait=1e18&last_event_id=earliest").header("accept", "application/json");
    server.publish("t", &json!(1)).await;
    assert_eq!(within("the poll", poll.send()).await.expect("an answer").status(), 200);
    assert_serves(&server).await;
}

#[tokio::test]
async fn what_is_wrong_in_a_publisher_s_request_is_named() {
    let server = Server::start().await;
    let post = |kind: Option<&str>, body: Vec<u8>| {
        let request = server.client.post(format!("{}/events", server.http)).bearer_auth(&server.token).body(body);
        kind.iter().fold(request, |request, kind| request.header("content-type", *kind))
    };
    let (json_type, form_type) = (Some("application/json"), Some("application/x-www-form-urlencoded"));
    let deep = format!("{{\"topic\":\"t\",\"data\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let many = json!({ "topics": vec!["t"; 21] }).to_string();
    let long_type = json!({ "topic": "t", "type": "x".repeat(101) }).to_string();
    let cases: &[(Option<&str>, &[u8], u16, &str)] = &[
        (None, b"topic=t", 415, "media-type"),
        (Some("text/plain"), b"topic=t", 415, "media-type"),
        (Some("multipart/form-data; boundary=x"), b"--x--", 415, "media-type"),
        (Some("nonsense"), b"{}", 415, "media-type"),
        (json_type, b"", 400, "json-invalid"),
        (json_type, b"{", 400, "json-invalid"),
        (json_type, b"[]", 400, "json-invalid"),
        (json_type, b"[\"t\",\"data\"]", 400, "json-invalid"),
        (json_type, b"null", 400, "json-invalid"),
        (json_type, b"\"topic\"", 400, "json-invalid"),
        (json_type, b"{\"topic\":\"\xff\xfe\"}", 400, "json-invalid"),
        (json_type, b"{\"topic\":\"\\ud800\"}", 400, "json-invalid"),
        (json_type, b"{\"topic\":7}", 400, "json-invalid"),
        (json_type, b"{\"topic\":\"t\",\"datum\":1}", 400, "json-invalid"),
        (json_type, b"{\"topic\":\"t\",\"topics\":[\"u\"]}", 400, "json-invalid"),
        (json_type, b"{\"topic\":\"t\"} trailing", 400, "json-invalid"),
        (json_type, b"{\"topic\":\"t\",\"data\":1e999}", 400, "json-invalid"),
        (json_type, deep.as_bytes(), 400, "json-invalid"),
        (json_type, b"{}", 400, "topic-missing"),
        (json_type, b"{\"topics\":[]}", 400, "topic-missing"),
        (json_type, many.as_bytes(), 400, "topic-missing"),
        (json_type, b"{\"topic\":\"\"}", 400, "topic-invalid"),
        (json_type, b"{\"topic\":\"*\"}", 400, "topic-invalid"),
        (json_type, b"{\"topic\":\"a\\nb\"}", 400, "topic-invalid"),
        (json_type, b"{\"topic\":\"t\",\"type\":\"\"}", 400, "type-invalid"),
        (json_type, b"{\"topic\":\"t\",\"type\":\"bye\"}", 400, "type-invalid"),
        (json_type, b"{\"topic\":\"t\",\"type\":\"x\\r\\ndata: y\"}", 400, "type-invalid"),
        (json_type, long_type.as_bytes(), 400, "type-invalid"),
        (form_type, b"", 400, "topic-missing"),
        (form_type, b"data=x", 400, "topic-missing"),
        (form_type, b"topic=%00", 400, "topic-invalid"),
        (form_type, b"topic=t&private=perhaps", 400, "private-invalid"),
        (form_type, b"topic=t&datum=x", 400, "field-unknown"),
        (form_type, b"topic=t&type=hello", 400, "type-invalid"),
    ];
    for (kind, body, status, name) in cases {
        let problem = Problem::of(post(*kind, body.to_vec())).await;
        let body = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!((problem.status, &*problem.name), (*status, *name), "{kind:?} {body}: {}", problem.detail);
    }
    // Bytes that are not UTF-8 have a meaning in forms (URL Standard §5.1): they become U+FFFD.
    let lenient = post(form_type, b"topic=t&data=%FF".to_vec()).send().await.expect("an answer");
    assert_eq!(lenient.status(), 200);
    let newest: Value = server.get("/api/events?limit=1").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(newest["events"][0]["data"], "\u{fffd}");

    let at_once = format!(
        "POST /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n",
        server.token
    );
    let announced = exchange(&server, format!("{at_once}Content-Length: 3000000\r\n\r\n").as_bytes()).await;
    assert!(announced.starts_with("HTTP/1.1 413 ") && announced.contains("problem:body-too-large"), "{announced}");
    let mut stream = TcpStream::connect(server.http.trim_start_matches("http://")).await.expect("a connection");
    stream.write_all(format!("{at_once}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await.expect("it is open");
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    for _ in 0..33 {
        stream.write_all(chunk.as_bytes()).await.expect("2 MiB and a little are read");
    }
    let counted = rest(&mut stream).await;
    assert!(counted.starts_with("HTTP/1.1 413 ") && counted.contains("more than 2097152 bytes"), "{counted}");
    let broken = exchange(&server, format!("{at_once}Transfer-Encoding: chunked\r\n\r\nzz\r\n").as_bytes()).await;
    assert!(broken.starts_with("HTTP/1.1 400 "), "{broken}");
    assert_serves(&server).await;
}

#[tokio::test]
async fn a_sign_in_that_is_none_is_a_problem_that_does_not_quote_it() {
    let server = Server::start().await;
    let post = |kind: &str, body: String| {
        server.client.post(format!("{}/api/session", server.http)).header("content-type", kind).body(body)
    };
    for kind in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let problem = Problem::of(post(kind, format!("{{\"token\":\"{}\"}}", server.token))).await;
        assert_eq!((problem.status, &*problem.name), (415, "media-type"), "{kind}");
        assert!(problem.detail.contains("application/json"), "{}", problem.detail);
    }
    for body in [
        "",
        "{",
        "[]",
        "[\"s3cret\"]",
        "\"s3cret\"",
        "{\"token\":7}",
        "{\"tokn\":\"s3cret\"}",
        "{\"token\":\"x\",\"more\":1}",
    ] {
        let problem = Problem::of(post("application/json", body.to_owned())).await;
        assert_eq!((problem.status, &*problem.name), (400, "json-invalid"), "{body}");
        assert!(problem.detail.contains("{\"token\": \"TOKEN\"}"), "{}", problem.detail);
        assert!(!problem.detail.contains("s3cret"), "{}", problem.detail);
    }
    // Nobody uses a connection again on which a body was left unread.
    let large = Problem::of(post("application/json", format!("{{\"token\":\"{}\"}}", "x".repeat(1 << 20)))).await;
    assert_eq!((large.status, &*large.name), (413, "body-too-large"));
    assert_eq!(large.headers["connection"], "close");
    assert_serves(&server).await;
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_are_problems_too() {
    let server = Server::start().await;
    for path in ["/nope", "/events/", "/api", "/api/nope", "/%00", "/%ff", "/..%2f..%2fetc%2fpasswd", "/index.php"] {
        let problem = Problem::of(server.get(path)).await;
        assert_eq!((problem.status, &*problem.name), (404, "not-found"), "{path}");
    }
    for (method, path, allowed) in [
        ("PUT", "/events", "GET,HEAD,CONNECT,POST"),
        ("DELETE", "/events", "GET,HEAD,CONNECT,POST"),
        ("PATCH", "/api/accounts", "GET,HEAD"),
        ("POST", "/api/events", "GET,HEAD"),
        ("PUT", "/api/session", "POST,GET,HEAD,DELETE"),
        ("POST", "/", "GET,HEAD"),
        ("BREW", "/healthz", "GET,HEAD"),
        ("OPTIONS", "/metrics", "GET,HEAD"),
    ] {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let problem = Problem::of(server.client.request(method.clone(), format!("{}{path}", server.http))).await;
        assert_eq!((problem.status, &*problem.name), (405, "method-not-allowed"), "{method} {path}");
        assert_eq!(problem.headers["allow"], allowed, "{method} {path}");
    }
    assert_serves(&server).await;
}

#[tokio::test]
async fn what_is_not_http_ends_its_own_connection_only() {
    let server = Server::start().await;
    let mut stream = Stream::open(&server, "/events?topic=t/serves", "application/x-ndjson").await;
    let huge = "a".repeat(20_000);
    // A ClientHello as curl begins it.
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x8f\x1d\r\n\r\n";
    let cases: &[(&[u8], &str)] = &[
        (tls, "HTTP/1.1 400 "),
        (b"\r\n\r\n\r\n\0\0\0\0", "HTTP/1.1 400 "),
        (b"EHLO example.org\r\n\r\n", "HTTP/1.1 400 "),
        (b"GET / HTTP/9.9\r\n\r\n", "HTTP/1.1 400 "),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", "HTTP/1.1 400 "),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", "HTTP/1.1 400 "),
        (b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 400 "),
        (b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "HTTP/1.1 400 "),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot a frame at all, and long enough to be one", ""),
        // What follows a whole request is the next one: it is answered, then the garbage.
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n\x01\x02garbage\r\n\r\n", "HTTP/1.1 200 "),
    ];
    for (bytes, begin) in cases {
        let answer = exchange(&server, bytes).await;
        assert!(answer.starts_with(begin), "{:?}: {answer}", String::from_utf8_lossy(bytes));
    }
    let pipelined = exchange(&server, cases[cases.len() - 1].0).await;
    assert!(pipelined.contains("\r\n\r\nok\n") && pipelined.contains("HTTP/1.1 400 "), "{pipelined}");
    let header = exchange(&server, format!("GET / HTTP/1.1\r\nHost: x\r\nX: {huge}\r\n\r\n").as_bytes()).await;
    assert!(header.starts_with("HTTP/1.1 431 "), "{header}");
    let path = exchange(&server, format!("GET /{huge} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
    assert!(path.starts_with("HTTP/1.1 431 ") || path.starts_with("HTTP/1.1 414 "), "{path}");
    let fields = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "x: y\r\n".repeat(1000));
    assert!(exchange(&server, fields.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let id = server.publish("t/serves", &json!("others")).await;
    assert_eq!(stream.event().await["id"], json!(id), "who was subscribed has noticed nothing");
}

#[tokio::test]
async fn a_request_that_never_comes_is_not_waited_for() {
    let config = "[http]\nheader_timeout = \"300ms\"\n".to_owned();
    let server = Server::with(Options { config, ..Options::default() }).await;
    let mut subscriber = Stream::open(&server, "/events?topic=t/serves", "application/x-ndjson").await;
    let begun = Instant::now();
    let beginnings: [&[u8]; 6] = [
        b"",
        b"G",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow",
        b"P",
        b"PRI * HTTP/2.0\r\n\r\n",
        // After an answer the next request has a deadline too.
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    let ends = beginnings.map(|bytes| exchange(&server, bytes));
    let answers = futures::future::join_all(ends).await;
    assert!(begun.elapsed() >= Duration::from_millis(300), "they were given their time");
    assert!(answers[..5].iter().all(|answer| answer.is_empty() || answer.starts_with("HTTP/1.1 408 ")), "{answers:?}");
    assert!(answers[5].starts_with("HTTP/1.1 200 "), "{answers:?}");
    let id = server.publish("t/serves", &json!("others")).await;
    assert_eq!(subscriber.event().await["id"], json!(id), "a stream has no such deadline");
}

#[tokio::test]
async fn a_websocket_that_breaks_the_rules_is_closed_alone() {
    let server = Server::start().await;
    let handshake = |change: &dyn Fn(&mut reqwest::header::HeaderMap)| {
        let mut request = server.get("/events?topic=t").build().expect("a request");
        let headers = request.headers_mut();
        for (name, value) in [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ] {
            headers.insert(name, value.parse().expect("a header"));
        }
        change(headers);
        reqwest::RequestBuilder::from_parts(server.client.clone(), request)
    };
    let old = handshake(&|headers| drop(headers.insert("sec-websocket-version", "8".parse().expect("a header"))));
    let keyless = handshake(&|headers| drop(headers.remove("sec-websocket-key")));
    for request in [old, keyless] {
        let problem = Problem::of(request).await;
        assert_eq!((problem.status, &*problem.name), (400, "handshake-invalid"), "{}", problem.detail);
    }

    let mut other = WebSocket::open(&server, "/events?topic=t/serves").await;
    let mut header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
    header.mask = Some([1, 2, 3, 4]);
    let not_text = Frame::from_payload(header, b"\xff\xfe".to_vec().into());
    for wrong in
        [Message::Binary(vec![1, 2, 3].into()), Message::Text("x".repeat(100_000).into()), Message::Frame(not_text)]
    {
        let mut socket = WebSocket::open(&server, "/events?topic=t/serves").await;
        socket.socket.send(wrong).await.expect("it is open");
        let end = async { while let Some(Ok(_)) = futures::StreamExt::next(&mut socket.socket).await {} };
        within("the WebSocket to end", end).await;
    }
    let mut socket = WebSocket::open(&server, "/events").await;
    assert_eq!(socket.message().await["control"], "hello");
    let many: Vec<String> = (0..1001).map(|n| format!("t/{n}")).collect();
    socket.say(&json!({ "subscribe": many })).await;
    let answer = socket.message().await;
    assert!(answer["control"] == "error" && answer["detail"].as_str().unwrap().contains("at most 1000"), "{answer}");
    let id = server.publish("t/serves", &json!("others")).await;
    assert_eq!(other.event().await["id"], json!(id));
    // All that were closed are gone from the hub.
    eventually("the closed subscribers to be gone", || async {
        let metrics = server.get("/metrics").send().await.ok()?.text().await.ok()?;
        metrics.contains("postrider_subscribers 2\n").then_some(())
    })
    .await;
    let url = format!("{}/nope", server.http.replacen("http", "ws", 1));
    let elsewhere = tokio_tungstenite::connect_async(url.into_client_request().expect("a request")).await;
    assert!(elsewhere.expect_err("a refusal").to_string().contains("404"));
}

#[tokio::test]
async fn mail_that_is_broken_is_an_event_all_the_same() {
    let server = Server::start().await;
    let nested = (0..200).fold(String::new(), |text, n| {
        format!("{text}Content-Type: multipart/mixed; boundary=\"b{n}\"\r\n\r\n--b{n}\r\n")
    });
    let fields = "X-Filler: y\r\n".repeat(5000);
    let messages: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"\r\n".to_vec(),
        b"no header at all, just text\r\n".to_vec(),
        b": no name\r\n\tfolded from nothing\r\n\r\nx".to_vec(),
        b"Subject: \xff\xfe\x80 raw octets\r\nFrom: \xe4@\xf6\r\n\r\n\xff\xfe".to_vec(),
        b"Subject: =?utf-8?B?/////w==?= =?utf-8?Q?=ZZ?= =?nope?Q?x?= =?utf-8?X?y?= =?\r\n\r\nx".to_vec(),
        b"From: <<<>>>,,;;@@ \"unclosed (\r\nTo: group: a, b; c <\r\nDate: Mon, 99 Foo 99999 99:99\r\n\r\nx".to_vec(),
        b"Message-ID: <\r\nReferences: <a <b> c> > <\r\nIn-Reply-To: \r\n\r\nx".to_vec(),
        b"Content-Type: multipart/mixed\r\n\r\nno boundary\r\n".to_vec(),
        b"Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n\r\n----\r\n".to_vec(),
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nnever closed"
            .to_vec(),
        b"Content-Type: text/plain; charset=\"no-such\"\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!!====\r\n"
            .to_vec(),
        b"Content-Type: text/html; charset=utf-7\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<<b=\r\n=3D="
            .to_vec(),
        b"Content-Type: ;;;=;\"\r\nContent-Disposition: attachment; filename*=utf-8''%ff%; filename*0*=\r\n\r\nx"
            .to_vec(),
        format!("{nested}deep").into_bytes(),
        format!("{fields}Subject: far down\r\n\r\nx").into_bytes(),
    ];
    let envelope = lettre::address::Envelope::new(
        Some("sender@example.org".parse().expect("an address")),
        vec!["alice@localhost".parse().expect("an address")],
    )
    .expect("an envelope");
    let mailer = server.mailer();
    for message in &messages {
        let sent = within("the reply to the dot", mailer.send_raw(&envelope, message)).await;
        let reply = sent.unwrap_or_else(|err| panic!("{err}: {:?}", String::from_utf8_lossy(message)));
        assert_eq!(reply.code().to_string(), "250", "{reply:?}");
    }
    let path = "/events?topic=mail/alice/INBOX&last_event_id=earliest&transport=poll";
    let log: Value = server.get(path).send().await.expect("an answer").json().await.expect("JSON");
    let events = log["events"].as_array().expect("events");
    assert_eq!(events.len(), messages.len(), "each of them, once: {log:#}");
    assert!(events.iter().all(|event| event["kind"] == "MessageNew" && event["message"]["size"].is_u64()), "{log:#}");
    let mut greeting = vec![0; 4];
    let mut smtp = TcpStream::connect(&server.smtp).await.expect("a connection");
    within("the greeting", smtp.read_exact(&mut greeting)).await.expect("a greeting");
    assert_eq!(greeting, b"220 ", "SMTP goes on");
}

#[test]
fn a_configuration_that_cannot_work_is_refused_before_a_port_is_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("p.toml");
    let run = |text: &[u8]| {
        std::fs::write(&file, text).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
        command.env_clear().env("HOME", folder.path()).args(["--config", file.to_str().unwrap(), "run"]);
        // Where it is not refused it would run on: it must not, and not on the usual ports either.
        let output = command.args(["--http", "127.0.0.1:0", "--smtp", "off"]).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (text, word) in [
        (&b"\xff\xfe"[..], "UTF-8"),
        (b"[http", "p.toml:1:"),
        (b"[http]\nlisten = 7", "p.toml:2:"),
        (b"[http]\nlisten = 'localhost'", "p.toml:2:"),
        (b"[http]\nconnections_max = 0", "`http.connections_max` must be from 1 to"),
        (b"[http]\nheader_timeout = '0s'", "`http.header_timeout` must be from 100ms to"),
        (b"[http]\nstall_timeout = '1000000years'", "`http.stall_timeout` must be from"),
        (b"[stream]\nheartbeat = '0s'", "`stream.heartbeat` must be from 1s to"),
        (b"[stream]\nlong_poll_max = '1000000years'", "`stream.long_poll_max` must be from"),
        (b"[stream]\nretry = 'soon'", "p.toml:2:"),
        (b"[event_log]\nqueue_max = 0", "p.toml:2:"),
        (b"[event_log]\nqueue_max = 1000000000000", "`event_log.queue_max` must be at most"),
        (b"[event_log]\nretention_events = -1", "p.toml:2:"),
        (b"[auth]\nallowed_origins = ['*']", "not an origin"),
        (b"[log]\nfilter = '=='", "`log.filter`"),
        (b"[[account]]\nname = ''", "p.toml:2:"),
        (b"[[account]]\nname = 'a'\n[[account]]\nname = 'a'", "rename one of them"),
        (b"[[account]]\nname = 'a'\naddresses = ['nowhere']", "nowhere"),
    ] {
        let (code, errors) = run(text);
        let text = String::from_utf8_lossy(text);
        assert_eq!(code, Some(78), "{text}: {errors}");
        assert!(errors.starts_with("postrider: ") && errors.contains(word), "{text}: {errors}");
        assert!(!errors.contains("panicked"), "{errors}");
    }
}
