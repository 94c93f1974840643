//! The hub under the Mercure protocol, in both dialects, as its clients use it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use std::time::Instant;

use jsonwebtoken::{Algorithm, Header};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use support::problem::Problem;
use support::server::{Options, Server};
use support::signer::{Signer, jwks, write};
use support::stream::Stream;
use support::{eventually, within};

const HUB: &str = "/.well-known/mercure";
const ISSUER: &str = "https://login.example.org";

async fn start(config: &str) -> Server {
    Server::with(Options { config: config.to_owned(), ..Options::default() }).await
}

fn get(server: &Server, path: &str) -> RequestBuilder {
    server.client.get(format!("{}{path}", server.http))
}

async fn open(request: RequestBuilder) -> Stream {
    let response = within("the stream to begin", request.send()).await.expect("an answer");
    assert_eq!(response.status(), 200, "{:?}", response.headers());
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut stream = Stream::of(response);
    assert_eq!(stream.record().await.as_deref(), Some(":"), "a comment, at once");
    stream
}

async fn subscribe(server: &Server, query: &str, token: &str) -> Stream {
    open(get(server, &format!("{HUB}?{query}")).bearer_auth(token)).await
}

fn post(server: &Server, form: &[(&str, &str)]) -> RequestBuilder {
    server.client.post(format!("{}{HUB}", server.http)).form(form)
}

/// Publishes and returns the ID.
async fn publish(server: &Server, token: &str, form: &[(&str, &str)]) -> String {
    let response = within("an answer", post(server, form).bearer_auth(token).send()).await.expect("an answer");
    let (status, kind) = (response.status(), response.headers()["content-type"].clone());
    let body = response.text().await.expect("a body");
    assert_eq!((status.as_u16(), kind.to_str().unwrap()), (200, "text/plain; charset=utf-8"), "{body}");
    body
}

async fn refused(request: RequestBuilder) -> (u16, String, String) {
    let problem = Problem::of(request).await;
    let challenge = problem.headers.get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
    (problem.status, problem.name, challenge.unwrap_or_default())
}

#[tokio::test]
async fn selectors_choose_and_the_token_decides_what_of_private_updates_is_seen() {
    let server = start("[hub]\npublic = true\n").await;
    let token = server.token_for(&["--subscribe", "https://a.example/users/{id}"]).await;
    let all = |token| subscribe(&server, "topic=*", token);
    let (mut own, mut everything) = (all(&token).await, all(&server.token).await);
    let mut nobody = open(get(&server, &format!("{HUB}?topic=*"))).await;
    let template = "topic=https%3A%2F%2Fa.example%2Fbooks%2F%7Bid%7D&topic=https%3A%2F%2Fa.example%2Fx";
    let mut selected = subscribe(&server, template, &token).await;

    let fields = [
        ("topic", "https://a.example/books/1"),
        ("data", "one\ntwo\r\nthree\rfour"),
        ("type", "book"),
        ("retry", "1500"),
    ];
    let id = publish(&server, &server.token, &[&fields[..], &[("id", "mine"), ("unknown", "x")]].concat()).await;
    assert!(id.starts_with("urn:uuid:"));
    let wanted = format!("event: book\nretry: 1500\nid: {id}\ndata: one\ndata: two\ndata: three\ndata: four");
    for stream in [&mut own, &mut everything, &mut nobody, &mut selected] {
        assert_eq!(stream.record().await.as_ref(), Some(&wanted));
    }
    // Private: one of the topics, an alternate too, has to be the token's; the routing has to match as well.
    for private in ["", "on", "0"] {
        let form = [("topic", "https://b.example/"), ("topic", "https://a.example/users/7"), ("private", private)];
        let id = publish(&server, &server.token, &form).await;
        for stream in [&mut own, &mut everything] {
            assert_eq!(stream.record().await, Some(format!("id: {id}\ndata: ")));
        }
    }
    let hidden = publish(&server, &server.token, &[("topic", "https://b.example/"), ("private", "")]).await;
    assert_eq!(everything.record().await, Some(format!("id: {hidden}\ndata: ")));
    let last = publish(&server, &server.token, &[("topic", "https://a.example/x"), ("data", "öffentlich")]).await;
    for stream in [&mut own, &mut everything, &mut nobody, &mut selected] {
        assert_eq!(stream.record().await, Some(format!("id: {last}\ndata: öffentlich")));
    }
}

#[tokio::test]
async fn mail_is_private_whatever_is_configured() {
    let server = start("[hub]\npublic = true\n").await;
    let mut nobody = open(get(&server, &format!("{HUB}?topic=*&topic=mail%2Falice%2FINBOX"))).await;
    let mut alice = subscribe(&server, "topic=mail%2Falice%2FINBOX", &server.token).await;
    server.send("alice@localhost", "for alice", "alone").await;
    let record = alice.record().await.unwrap();
    let data: Value = serde_json::from_str(record.split_once("\ndata: ").unwrap().1).unwrap();
    assert_eq!((&data["kind"], &data["message"]["subject"]), (&json!("MessageNew"), &json!("for alice")));
    assert!(!record.contains("event:"), "`onmessage` gets it: {record}");
    // What somebody publishes about mail is as private, in either way of publishing.
    publish(&server, &server.token, &[("topic", "mail/alice/INBOX"), ("data", "public?")]).await;
    let request = server.client.post(format!("{}/events", server.http)).bearer_auth(&server.token);
    let told = json!({ "topics": ["x", "mail/alice/INBOX"], "data": "public?", "private": false });
    assert_eq!(request.json(&told).send().await.unwrap().status(), 200);
    let last = publish(&server, &server.token, &[("topic", "a"), ("data", "x")]).await;
    assert_eq!(nobody.record().await, Some(format!("id: {last}\ndata: x")));
    // History has no more.
    let mut nobody = open(get(&server, &format!("{HUB}?topic=*&lastEventID=earliest"))).await;
    assert_eq!(nobody.record().await, Some(format!("id: {last}\ndata: x")));
}

#[tokio::test]
async fn nothing_is_public_and_nobody_anonymous_unless_configured() {
    let server = Server::start().await;
    let anonymous = refused(get(&server, &format!("{HUB}?topic=a"))).await;
    assert_eq!((anonymous.0, &*anonymous.1), (401, "token-needed"));
    let metadata = format!("resource_metadata=\"{}/.well-known/oauth-protected-resource{HUB}\"", server.http);
    assert_eq!(anonymous.2, format!("Bearer {metadata}"));
    let (status, _, challenge) = refused(post(&server, &[("topic", "a")]).bearer_auth(&server.token)).await;
    assert_eq!((status, challenge.contains("insufficient_scope")), (403, true), "not private, which it must be here");
    publish(&server, &server.token, &[("topic", "a"), ("private", "")]).await;
    let publisher = server.token_for(&["--publish", "a"]).await;
    let (status, _, challenge) = refused(get(&server, &format!("{HUB}?topic=a")).bearer_auth(&publisher)).await;
    assert_eq!((status, challenge), (403, format!("Bearer error=\"insufficient_scope\", {metadata}")));
    let form = [("topic", "a"), ("topic", "b"), ("private", "")];
    assert_eq!(refused(post(&server, &form).bearer_auth(&publisher)).await.0, 403, "every topic must be covered");
    assert_eq!(refused(post(&server, &form)).await.2, format!("Bearer {metadata}"));
    let (status, _, challenge) = refused(post(&server, &form).bearer_auth("no.such.token")).await;
    assert_eq!((status, challenge), (401, format!("Bearer error=\"invalid_token\", {metadata}")));
    let twice = post(&server, &form).bearer_auth(&publisher).header("authorization", "Bearer x");
    let (status, _, challenge) = refused(twice).await;
    assert_eq!((status, challenge), (400, format!("Bearer error=\"invalid_request\", {metadata}")));
}

#[tokio::test]
async fn the_header_hides_the_query_and_that_the_cookie() {
    let server = Server::start().await;
    let good = server.token_for(&["--subscribe", "*", "--publish", "*"]).await;
    let path = format!("{HUB}?topic=a");
    let with = |bearer: Option<&str>, query: Option<&str>, cookie: Option<&str>| {
        let query = query.map(|token| format!("&authorization={token}")).unwrap_or_default();
        let mut request = get(&server, &format!("{path}{query}"));
        if let Some(token) = bearer {
            request = request.bearer_auth(token);
        }
        match cookie {
            Some(token) => request.header("cookie", format!("mercureAuthorization={token}")),
            None => request,
        }
    };
    for (bearer, query, cookie, counts) in [
        (Some(&*good), None, None, true),
        (None, Some(&*good), None, true),
        (None, None, Some(&*good), true),
        (Some("x"), Some(&*good), Some(&*good), false),
        (None, Some("x"), Some(&*good), false),
        (None, None, Some("x"), false),
        (Some(&*good), Some("x"), Some("x"), true),
        (None, Some(&*good), Some("x"), true),
    ] {
        let status = within("an answer", with(bearer, query, cookie).send()).await.unwrap().status().as_u16();
        assert_eq!(status, if counts { 200 } else { 401 }, "{bearer:?} {query:?} {cookie:?}");
    }
}

#[tokio::test]
async fn cookie_borne_writes_come_from_allowed_origins() {
    let server = start("[auth]\nallowed_origins = ['https://mail.example.org']\n").await;
    let form = [("topic", "a"), ("private", "")];
    let with = |name: &'static str, value: &str| {
        let cookie = format!("mercureAuthorization={}", server.token);
        post(&server, &form).header("cookie", cookie).header(name, value)
    };
    for (name, value, counts) in [
        ("origin", "https://mail.example.org", true),
        ("origin", &*server.http, true),
        ("referer", "https://mail.example.org/inbox?x", true),
        ("origin", "https://mail.example.org.evil.test", false),
        ("origin", "null", false),
        ("referer", "https://evil.test/https://mail.example.org/", false),
        ("x-nothing", "x", false),
    ] {
        if counts {
            assert_eq!(with(name, value).send().await.unwrap().status(), 200, "{name} {value}");
        } else {
            let (status, problem, challenge) = refused(with(name, value)).await;
            assert_eq!((status, &*problem), (400, "foreign-origin"), "{name} {value}");
            assert!(challenge.contains("invalid_request"), "{challenge}");
        }
    }
    // Pages of allowed origins may read what they need, with credentials; others nothing.
    let preflight = |origin: &'static str| {
        let request = server.client.request(reqwest::Method::OPTIONS, format!("{}{HUB}", server.http));
        request.header("origin", origin).header("access-control-request-method", "GET").send()
    };
    let allowed = preflight("https://mail.example.org").await.unwrap();
    assert_eq!(allowed.headers()["access-control-allow-origin"], "https://mail.example.org");
    assert_eq!(allowed.headers()["access-control-allow-credentials"], "true");
    assert!(allowed.headers()["access-control-allow-headers"].to_str().unwrap().contains("cache-control"));
    assert!(!preflight("https://evil.test").await.unwrap().headers().contains_key("access-control-allow-origin"));
    let request = get(&server, &format!("{HUB}?topic=a")).bearer_auth(&server.token);
    let answer = request.header("origin", "https://mail.example.org").send().await.unwrap();
    let exposed = answer.headers()["access-control-expose-headers"].to_str().unwrap();
    assert!(["Link", "Last-Event-ID", "Mercure-Last-Event-ID"].iter().all(|name| exposed.contains(name)), "{exposed}");
}

#[tokio::test]
async fn resuming_tells_where_history_begins() {
    let server = Server::start().await;
    let publish = |topic: &'static str| {
        let server = &server;
        async move { publish(server, &server.token, &[("topic", topic), ("private", ""), ("data", topic)]).await }
    };
    let (first, other, second) = (publish("a").await, publish("b").await, publish("a").await);
    let unknown = "urn:uuid:0199d2a0-0000-7000-8000-000000000001";
    for (asked, told, seen) in [
        (&*first, &*first, vec![&second]),
        (&*other, &*other, vec![&second]),
        (&*second, &*second, vec![]),
        ("earliest", "earliest", vec![&first, &second]),
        (unknown, "earliest", vec![&first, &second]),
        ("of-another-hub", "earliest", vec![&first, &second]),
    ] {
        for dialect in ["legacy", "header", "current"] {
            let request = match dialect {
                "legacy" => get(&server, &format!("{HUB}?topic=a&lastEventID={asked}")),
                // The header is what a browser comes back with to an address that is older.
                "header" => {
                    get(&server, &format!("{HUB}?topic=a&lastEventID={unknown}")).header("last-event-id", asked)
                }
                _ => get(&server, &format!("{HUB}?match=a&last_event_id={asked}")),
            };
            let mut stream = open(request.bearer_auth(&server.token)).await;
            let name = if dialect == "current" { "mercure-last-event-id" } else { "last-event-id" };
            assert_eq!(stream.headers[name], told, "{dialect} {asked}");
            assert!(dialect != "current" || !stream.headers.contains_key("last-event-id"));
            for id in &seen {
                assert_eq!(stream.record().await, Some(format!("id: {id}\ndata: a")), "{dialect} {asked}");
            }
        }
    }
    let live = subscribe(&server, "topic=a", &server.token).await;
    assert!(!live.headers.contains_key("last-event-id"), "nothing was asked");
    assert_eq!(live.headers["x-accel-buffering"], "no");
    assert!(live.headers["link"].to_str().unwrap().contains("rel=\"mercure\""));
}

#[tokio::test]
async fn what_cannot_be_published_or_asked_for_is_told() {
    let server = Server::start().await;
    let bad = |status: u16, name: &'static str| (status, name.to_owned());
    for (form, wanted) in [
        (vec![("data", "x")], bad(400, "topic-missing")),
        (vec![("topic", "*")], bad(400, "topic-invalid")),
        (vec![("topic", "")], bad(400, "topic-invalid")),
        (vec![("topic", "a"), ("id", "#a")], bad(400, "id-invalid")),
        (vec![("topic", "a"), ("id", "earliest")], bad(400, "id-invalid")),
        (vec![("topic", "a"), ("id", "a\nb")], bad(400, "id-invalid")),
        (vec![("topic", "a"), ("id", "a\u{200e}b")], bad(400, "id-invalid")),
        (vec![("topic", "a"), ("type", "mercure")], bad(400, "type-invalid")),
        (vec![("topic", "a"), ("type", "a\nid: x")], bad(400, "type-invalid")),
        (vec![("topic", "a"), ("retry", "+5")], bad(400, "retry-invalid")),
        (vec![("topic", "a"), ("retry", "1.5")], bad(400, "retry-invalid")),
        (vec![("topic", "/.well-known/mercure/subscriptions/a/b")], bad(400, "topic-reserved")),
        (vec![("topic", "https://other.example/.well-known/mercure")], bad(400, "topic-reserved")),
        (vec![("topic", "x"), ("topic", "/x/../.well-known/%6dercure/y")], bad(400, "topic-reserved")),
        (vec![("topic", "/a/%2e%2e/.well-known/mercure%2Fy")], bad(400, "topic-reserved")),
        (vec![("topic", "mercure/subscriptions/a/b")], bad(400, "topic-reserved")),
    ] {
        let form = [&form[..], &[("private", "")]].concat();
        let (status, name, _) = refused(post(&server, &form).bearer_auth(&server.token)).await;
        assert_eq!((status, name), wanted, "{form:?}");
    }
    publish(&server, &server.token, &[("topic", "/.well-known/mercurex"), ("private", "")]).await;
    let long = "x".repeat(1024 * 1024);
    let too_long = post(&server, &[("topic", "a"), ("data", &long)]).bearer_auth(&server.token);
    assert_eq!(refused(too_long).await.0, 413);
    for query in
        ["", "topic=", "topic=a%7Bb", "Match=a", "match=a&topic=b", "match_regexp=a", "match=%FF", "match=a%00"]
    {
        let (status, _, challenge) = refused(get(&server, &format!("{HUB}?{query}")).bearer_auth(&server.token)).await;
        assert_eq!((status, &*challenge), (400, ""), "{query}");
    }
}

#[tokio::test]
async fn too_many_connections_are_told_so() {
    let server = start("[hub]\nsubscribers_max = 1\n").await;
    let _first = subscribe(&server, "topic=a", &server.token).await;
    let problem = Problem::of(get(&server, &format!("{HUB}?topic=a")).bearer_auth(&server.token)).await;
    assert_eq!((problem.status, problem.headers.contains_key("retry-after")), (429, true));
}

/// A server that trusts a login server.
async fn with_issuer(more: &str) -> (Server, Signer, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::new(Algorithm::ES256, "k");
    let keys = write(folder.path(), "keys.json", &jwks(&[&signer]));
    let issuer = format!("[[auth.issuer]]\nissuer = '{ISSUER}'\njwks_file = '{}'\n", keys.display());
    (start(&format!("{more}\n{issuer}")).await, signer, folder)
}

fn access_token(server: &Server, signer: &Signer, details: &Value, change: impl Fn(&mut Value, &mut Header)) -> String {
    let exp = jiff::Timestamp::now().as_second() + 600;
    let mut claims = json!({ "iss": ISSUER, "aud": format!("{}{HUB}", server.http), "exp": exp, "sub": "alice",
        "authorization_details": details });
    let mut header =
        Header { typ: Some("at+jwt".to_owned()), kid: Some("k".to_owned()), ..Header::new(Algorithm::ES256) };
    change(&mut claims, &mut header);
    signer.sign_with(&header, &claims)
}

fn detail(actions: &[&str], topics: &Value) -> Value {
    json!({ "type": "https://mercure.rocks/authorization-detail", "actions": actions, "topics": topics })
}

type Change = fn(&mut Value, &mut Header);

#[tokio::test]
async fn access_tokens_and_patterns_of_the_current_draft() {
    let (server, signer, _folder) = with_issuer("[http]\n").await;
    let topics =
        json!([{ "match": "https://a.example/books/:id", "match_type": "urlpattern" }, { "match": "{exact}" }]);
    let details = json!([detail(&["subscribe", "publish", "dance"], &topics), { "type": "payment" }]);
    let token = access_token(&server, &signer, &details, |_, _| {});
    let query = "match_urlpattern=https%3A%2F%2Fa.example%2Fbooks%2F*&match=%7Bexact%7D&match_exact=elsewhere";
    let mut stream = subscribe(&server, query, &token).await;
    let mut all = subscribe(&server, "match=*", &token).await;
    for (topic, seen) in [
        ("https://a.example/books/1", true),
        ("https://a.example/books/1/2", false),
        ("elsewhere", false),
        ("exact", false),
        ("{exact}", true),
    ] {
        let id = publish(&server, &server.token, &[("topic", topic), ("private", ""), ("data", topic)]).await;
        if seen {
            for stream in [&mut stream, &mut all] {
                assert_eq!(stream.record().await, Some(format!("id: {id}\ndata: {topic}")));
            }
        }
    }
    publish(&server, &token, &[("topic", "https://a.example/books/2"), ("private", "")]).await;
    let (status, _, challenge) = refused(post(&server, &[("topic", "b"), ("private", "")]).bearer_auth(&token)).await;
    assert_eq!((status, challenge.contains("insufficient_scope")), (403, true));

    // The newer cookie, which hides the older one.
    let path = format!("{HUB}?match=%7Bexact%7D");
    let cookies = format!("mercureAuthorization=x; __Secure-mercure_access_token={token}");
    open(get(&server, &path).header("cookie", cookies)).await;

    // What a token needs (RFC 9068 §4).
    let wrong: [(Change, &str); 8] = [
        (|claims, _| drop(claims.as_object_mut().unwrap().remove("exp")), "exp"),
        (|claims, _| drop(claims.as_object_mut().unwrap().remove("aud")), "aud"),
        (|claims, _| claims["aud"] = json!("https://other.example/"), "aud"),
        (|claims, _| claims["exp"] = json!(1_000_000_000), "expired"),
        (|claims, _| claims["nbf"] = json!(9_000_000_000_u64), "nbf"),
        (|claims, _| claims["authorization_details"][0]["topics"][0]["match_type"] = json!("regexp"), "match_type"),
        (|claims, _| claims["authorization_details"][0]["topics"] = json!("*"), "topics"),
        (|claims, _| drop(claims.as_object_mut().unwrap().remove("iss")), "iss"),
    ];
    for (change, what) in wrong {
        let token = access_token(&server, &signer, &details, change);
        let (status, _, challenge) = refused(get(&server, &path).bearer_auth(&token)).await;
        assert_eq!((status, challenge.contains("error=\"invalid_token\"")), (401, true), "{what}");
    }
    // An access token's `mercure` claim says nothing, as an older token's details do.
    let both: Change = |claims, _| {
        claims["mercure"] = json!({ "subscribe": ["*"], "publish": ["*"] });
        claims["authorization_details"] = json!([]);
    };
    let token = access_token(&server, &signer, &details, both);
    assert_eq!(refused(get(&server, &path).bearer_auth(&token)).await.0, 403);
    let older = access_token(&server, &signer, &details, |_, header| header.typ = Some("JWT".to_owned()));
    assert_eq!(refused(get(&server, &path).bearer_auth(&older)).await.0, 403);
}

#[tokio::test]
async fn the_older_dialect_can_be_switched_off_and_the_metadata_tell_what_there_is() {
    let (server, signer, _folder) = with_issuer("[mercure]\nlegacy = false\nsubscriptions = true").await;
    let token = access_token(&server, &signer, &json!([detail(&["subscribe"], &json!([{ "match": "a" }]))]), |_, _| {});
    subscribe(&server, "match=a", &token).await;
    assert_eq!(refused(get(&server, &format!("{HUB}?topic=a")).bearer_auth(&token)).await.0, 400);
    let path = format!("{HUB}?match=a");
    let older = refused(get(&server, &path).bearer_auth(&server.token)).await;
    assert_eq!((older.0, older.2.contains("invalid_token")), (401, true));
    assert_eq!(refused(get(&server, &format!("{path}&authorization={token}"))).await.1, "token-needed");
    assert_eq!(
        refused(get(&server, &path).header("cookie", format!("mercureAuthorization={token}"))).await.1,
        "token-needed"
    );
    // postrider's own paths know their tokens all the same.
    assert_eq!(server.get("/api/events").send().await.unwrap().status(), 200);

    let answer = get(&server, &format!("/.well-known/oauth-protected-resource{HUB}")).send().await.unwrap();
    let metadata: Value = answer.json().await.unwrap();
    let wanted = json!({
        "resource": format!("{}{HUB}", server.http),
        "bearer_methods_supported": ["header"],
        "authorization_servers": [ISSUER],
        "authorization_details_types_supported": ["https://mercure.rocks/authorization-detail"],
        "mercure_cookie": "__Secure-mercure_access_token",
        "mercure_subscriptions": true,
        "mercure_matcher_types_supported": ["exact", "urlpattern"],
    });
    assert_eq!(metadata, wanted);
    let page = get(&server, "/").send().await.unwrap();
    assert_eq!(page.headers()["link"], "</.well-known/mercure>; rel=\"mercure\"");
}

/// The next update about one subscription.
async fn told_of(watcher: &mut Stream, id: &str) -> Value {
    loop {
        let record = watcher.record().await.expect("an update");
        let data: Value = serde_json::from_str(record.split_once("data: ").expect("data").1).expect("JSON");
        assert_eq!(record.starts_with("event: mercure\n"), data["type"] == "subscription", "{record}");
        if data["id"] == id {
            return data;
        }
    }
}

#[tokio::test]
async fn subscriptions_are_told_and_listed() {
    let (server, signer, _folder) = with_issuer("[mercure]\nsubscriptions = true").await;
    let root = format!("{HUB}/subscriptions");
    let mut watcher =
        subscribe(&server, "topic=%2F.well-known%2Fmercure%2Fsubscriptions%7B%2Ftopic,subscriber%7D", &server.token)
            .await;
    // The watcher itself came before it could hear of it.
    let topics = json!([{ "match": "https://a.example/:x", "match_type": "urlpattern" },
        { "match": format!("{root}*"), "match_type": "urlpattern" }]);
    let mut details = detail(&["subscribe"], &topics);
    details["payload"] = json!({ "name": "Alice" });
    let token = access_token(&server, &signer, &json!([details]), |_, _| {});
    let current = subscribe(&server, "match_urlpattern=https%3A%2F%2Fa.example%2F:x", &token).await;
    let legacy = subscribe(&server, "topic=a%2F%7Bb%7D", &server.token).await;

    let list = |path: String, token: String| {
        let request = get(&server, &path).bearer_auth(token);
        async move { request.send().await.unwrap() }
    };
    let answer = list(format!("{root}/a%2F%7Bb%7D"), server.token.clone()).await;
    assert_eq!(answer.headers()["content-type"], "application/ld+json");
    let tag = answer.headers()["etag"].clone();
    let told: Value = answer.json().await.unwrap();
    let one = &told["subscriptions"][0];
    let id = one["id"].as_str().unwrap();
    assert_eq!(told["type"], "Subscriptions");
    assert!(told["lastEventID"].as_str().unwrap().starts_with("urn:uuid:"));
    assert_eq!((&one["topic"], &one["active"], &one["type"]), (&json!("a/{b}"), &json!(true), &json!("Subscription")));
    let path = format!("{root}/a%2F%7Bb%7D/{}", one["subscriber"].as_str().unwrap().replace(':', "%3A"));
    assert_eq!(id, path);
    assert_eq!(list(id.to_owned(), server.token.clone()).await.json::<Value>().await.unwrap(), *one);
    let again = get(&server, &format!("{root}/a%2F%7Bb%7D")).bearer_auth(&server.token).header("if-none-match", tag);
    assert_eq!(again.send().await.unwrap().status(), 304);
    let told = told_of(&mut watcher, id).await;
    assert_eq!((&told["active"], &told["@context"]), (&json!(true), &json!("https://mercure.rocks/")));

    // The same in the words of the current draft, for who asks with its tokens.
    let answer = list(root.clone(), token.clone()).await;
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert!(answer.headers()["link"].to_str().unwrap().contains("last-event-id=\"urn:uuid:"));
    let told: Value = answer.json().await.unwrap();
    let one = &told["subscriptions"][0];
    assert_eq!((told["subscriptions"].as_array().unwrap().len(), &one["type"]), (1, &json!("subscription")));
    assert_eq!((&one["match_type"], &one["match"]), (&json!("urlpattern"), &json!("https://a.example/:x")));
    assert_eq!(one["payload"], json!({ "name": "Alice" }));
    let single = list(one["id"].as_str().unwrap().to_owned(), token.clone()).await;
    assert_eq!(single.json::<Value>().await.unwrap(), *one);

    // Who may not see the path, or asks for what is not there.
    let other = server.token_for(&["--subscribe", "a/{b}"]).await;
    assert_eq!(refused(get(&server, &root).bearer_auth(&other)).await.0, 403);
    assert_eq!(refused(get(&server, &root)).await.0, 401);
    let nowhere = format!("{root}/a%2F%7Bb%7D/nobody");
    assert_eq!(refused(get(&server, &nowhere).bearer_auth(&server.token)).await.0, 404);

    // They end with their connections, and that is told too.
    drop((current, legacy));
    assert_eq!(told_of(&mut watcher, id).await["active"], false);
    eventually("both to be gone", || async {
        let left: Value = list(format!("{root}/a%2F%7Bb%7D"), server.token.clone()).await.json().await.unwrap();
        left["subscriptions"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let server = Server::start().await;
    let token = server.token_for(&["--subscribe", "a", "--expires", "2s"]).await;
    let mut stream = subscribe(&server, "topic=a", &token).await;
    assert_eq!(stream.record().await, None, "it just ends");
}

#[tokio::test]
async fn streams_end_when_their_time_is_over_and_not_all_at_once() {
    let server = start("[stream]\nlifetime_max = '3s'\n").await;
    // How long each lasts by itself: that they are opened one after the other spreads nothing.
    let lasts = |mut stream: Stream, begun: Instant| async move {
        assert_eq!(stream.record().await, None);
        begun.elapsed().as_secs_f64()
    };
    let mut streams = Vec::new();
    for _ in 0..12 {
        let begun = Instant::now();
        streams.push(lasts(subscribe(&server, "topic=a", &server.token).await, begun));
    }
    let lasted = futures::future::join_all(streams).await;
    let (shortest, longest) =
        lasted.iter().fold((f64::MAX, 0.0), |(least, most), &time| (time.min(least), time.max(most)));
    assert!(shortest >= 2.4, "{lasted:?}");
    // Twelve of them within a sixth of the time that they are spread over would be chance in a hundred million.
    assert!(longest - shortest > 0.1, "{lasted:?}");
    // postrider's own streams say why.
    let mut stream = Stream::open(&server, "/events?topic=a", "application/x-ndjson").await;
    stream.record().await.expect("hello");
    let bye: Value = serde_json::from_str(&stream.record().await.expect("bye")).unwrap();
    assert_eq!((&bye["control"], &bye["reason"]), (&json!("bye"), &json!("lifetime-over")));
}
