//! A JMAP server for tests: Cyrus' methods, behind an event stream that the test writes. Debian's Cyrus answers 204
//! where its event stream should be, since that is built with WebSocket support only.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use super::mail_server::PASSWORD;

/// The server. Gone when it is dropped.
pub struct JmapFront {
    pub port: u16,
    pub shared: Arc<Shared>,
    _task: JoinSet<()>,
}

/// What the test decides, and learns.
pub struct Shared {
    cyrus: String,
    client: reqwest::Client,
    /// What goes to all open streams; `None` ends them.
    events: broadcast::Sender<Option<String>>,
    /// Streams that were opened.
    pub streams: AtomicUsize,
    /// Requests with method calls.
    pub calls: AtomicUsize,
    /// The status of every answer, unless 0.
    pub refusal: AtomicU16,
    /// The next question for changes gets `cannotCalculateChanges`.
    pub forgetful: AtomicBool,
}

impl JmapFront {
    /// Starts one before the Cyrus at this port.
    pub async fn start(cyrus: u16) -> Self {
        let shared = Arc::new(Shared {
            cyrus: format!("http://127.0.0.1:{cyrus}/jmap/"),
            client: reqwest::Client::new(),
            events: broadcast::channel(16).0,
            streams: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            refusal: AtomicU16::new(0),
            forgetful: AtomicBool::new(false),
        });
        let router = Router::new()
            .route("/session", get(session))
            .route("/jmap/", post(methods))
            .route("/events/", get(events))
            .with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, shared, _task: task }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/session", self.port)
    }

    /// Writes to all open streams.
    pub fn write(&self, text: &str) {
        // Without a stream there is nobody to hear it.
        drop(self.shared.events.send(Some(text.to_owned())));
    }

    /// Says that something changed.
    pub fn changed(&self, user: &str) {
        let states = json!({ "Email": "another", "Mailbox": "another" });
        let change = json!({ "@type": "StateChange", "changed": { user: states } });
        self.write(&format!("event: state\ndata: {change}\n\n"));
    }

    /// Ends all open streams.
    pub fn cut(&self) {
        drop(self.shared.events.send(None));
    }

    pub fn streams(&self) -> usize {
        self.shared.streams.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn refused(&self) -> Option<Response> {
        let status = StatusCode::from_u16(self.refusal.load(Ordering::SeqCst)).ok()?;
        Some((status, [(header::RETRY_AFTER, "1")]).into_response())
    }

    async fn ask(&self, headers: &HeaderMap, body: Option<Bytes>) -> Value {
        let request = match body {
            Some(body) => self.client.post(&self.cyrus).header("content-type", "application/json").body(body),
            None => self.client.get(&self.cyrus),
        };
        let authorization = headers.get(header::AUTHORIZATION).expect("credentials");
        let answer = request.header(header::AUTHORIZATION, authorization).send().await.unwrap();
        answer.json().await.unwrap()
    }
}

async fn session(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    if let Some(refused) = shared.refused() {
        return refused;
    }
    let mut session = shared.ask(&headers, None).await;
    session["eventSourceUrl"] = json!("/events/?types={types}&closeafter={closeafter}&ping={ping}");
    axum::Json(session).into_response()
}

async fn methods(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(refused) = shared.refused() {
        return refused;
    }
    shared.calls.fetch_add(1, Ordering::SeqCst);
    let mut answer = shared.ask(&headers, Some(body)).await;
    for response in answer["methodResponses"].as_array_mut().unwrap() {
        if response[2] == "email_changes" && shared.forgetful.swap(false, Ordering::SeqCst) {
            *response = json!(["error", { "type": "cannotCalculateChanges" }, "email_changes"]);
        }
    }
    axum::Json(answer).into_response()
}

async fn events(State(shared): State<Arc<Shared>>, uri: axum::http::Uri) -> Response {
    if let Some(refused) = shared.refused() {
        return refused;
    }
    assert_eq!(uri.query().unwrap().split("&ping=").next(), Some("types=Email,Mailbox&closeafter=no"));
    let receiver = shared.events.subscribe();
    shared.streams.fetch_add(1, Ordering::SeqCst);
    let texts = stream::unfold(receiver, async |mut receiver| {
        let text = receiver.recv().await.ok()??;
        Some((Ok::<_, Infallible>(text), receiver))
    });
    let body = Body::from_stream(stream::once(async { Ok(": open\n\n".to_owned()) }).chain(texts));
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

/// Calls methods of a Cyrus as a mail program would; the first answer's arguments.
pub async fn call(cyrus: u16, user: &str, method: &str, arguments: Value) -> Value {
    let mut arguments = arguments;
    arguments["accountId"] = json!(user);
    let using = ["urn:ietf:params:jmap:core", "urn:ietf:params:jmap:mail"];
    let request = json!({ "using": using, "methodCalls": [[method, arguments, "0"]] });
    let post = reqwest::Client::new().post(format!("http://127.0.0.1:{cyrus}/jmap/")).json(&request);
    let answer: Value = post.basic_auth(user, Some(PASSWORD)).send().await.unwrap().json().await.unwrap();
    let [name, arguments, _] = answer["methodResponses"][0].as_array().unwrap().as_slice() else {
        panic!("{answer}");
    };
    assert_eq!(name, method, "{answer}");
    for refused in ["notCreated", "notUpdated", "notDestroyed"] {
        assert!(arguments[refused].is_null(), "{answer}");
    }
    arguments.clone()
}
