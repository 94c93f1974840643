//! An OpenID Connect provider for tests, with the parts that a mail program meets: discovery, authorization, tokens,
//! devices, and introspection for the mail server. Its errors are ordered by the test.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use aws_lc_rs::digest;
use axum::extract::{Form, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use postrider::registry::OauthConfig;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub const CLIENT_ID: &str = "postrider-test";

/// A running provider.
pub struct Oidc {
    pub issuer: String,
    known: Arc<Mutex<Known>>,
    _server: JoinSet<()>,
}

/// What it knows.
#[derive(Default)]
pub struct Known {
    pub issuer: String,
    /// What the token endpoint says next, instead of what it would.
    pub ordered: VecDeque<(u16, Value)>,
    /// Access tokens that count, and refresh tokens.
    pub valid: HashSet<String>,
    pub refresh_tokens: HashSet<String>,
    /// Whether a refresh token is replaced with each use.
    pub rotates: bool,
    pub expires_in: u64,
    /// The grant types that were asked for, in order.
    pub asked: Vec<String>,
    /// What the last authorization request said.
    pub authorization: HashMap<String, String>,
    issued: u32,
    challenge: String,
}

impl Known {
    fn grant(&mut self) -> Value {
        self.issued += 1;
        let (access, refresh) = (format!("access-{}", self.issued), format!("refresh-{}", self.issued));
        self.valid.insert(access.clone());
        let mut answer = json!({"access_token": access, "token_type": "Bearer", "expires_in": self.expires_in});
        if self.rotates || self.refresh_tokens.is_empty() {
            self.refresh_tokens.clear();
            self.refresh_tokens.insert(refresh.clone());
            answer["refresh_token"] = json!(refresh);
        }
        answer
    }
}

type Shared = Arc<Mutex<Known>>;

impl Oidc {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let known = Known { issuer: issuer.clone(), expires_in: 3600, ..Known::default() };
        let known = Arc::new(Mutex::new(known));
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(configuration))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .route("/device", post(device))
            .route("/introspect", post(introspect))
            .with_state(known.clone());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { issuer, known, _server: server }
    }

    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    /// What the token endpoint says next, instead of what it would.
    pub fn order(&self, status: u16, answer: Value) {
        self.known().ordered.push_back((status, answer));
    }

    pub fn config(&self) -> OauthConfig {
        OauthConfig::new(&self.issuer, CLIENT_ID)
    }
}

async fn configuration(State(known): State<Shared>) -> Json<Value> {
    let issuer = &known.lock().unwrap().issuer;
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "device_authorization_endpoint": format!("{issuer}/device"),
    }))
}

/// A person who agrees at once.
async fn authorize(State(known): State<Shared>, Query(query): Query<HashMap<String, String>>) -> Redirect {
    assert_eq!((query["response_type"].as_str(), query["client_id"].as_str()), ("code", CLIENT_ID));
    assert_eq!(query["code_challenge_method"], "S256");
    let back = format!("{}?code=the-code&state={}", query["redirect_uri"], query["state"]);
    let mut known = known.lock().unwrap();
    known.challenge.clone_from(&query["code_challenge"]);
    known.authorization = query;
    Redirect::to(&back)
}

async fn token(State(known): State<Shared>, Form(form): Form<HashMap<String, String>>) -> Response {
    let mut known = known.lock().unwrap();
    known.asked.push(form["grant_type"].clone());
    assert_eq!(form["client_id"], CLIENT_ID);
    if let Some((status, answer)) = known.ordered.pop_front() {
        return (StatusCode::from_u16(status).unwrap(), Json(answer)).into_response();
    }
    let is_granted = match form["grant_type"].as_str() {
        "authorization_code" => {
            let verifier = digest::digest(&digest::SHA256, form["code_verifier"].as_bytes());
            form["code"] == "the-code"
                && BASE64URL.encode(verifier) == known.challenge
                && form["redirect_uri"] == known.authorization["redirect_uri"]
        }
        "refresh_token" => known.refresh_tokens.contains(&form["refresh_token"]),
        "urn:ietf:params:oauth:grant-type:device_code" => form["device_code"] == "the-device",
        _ => false,
    };
    if is_granted {
        Json(known.grant()).into_response()
    } else {
        (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response()
    }
}

async fn device(State(known): State<Shared>, Form(form): Form<HashMap<String, String>>) -> Json<Value> {
    assert_eq!(form["client_id"], CLIENT_ID);
    Json(json!({
        "device_code": "the-device",
        "user_code": "WDJB-MJHT",
        "verification_uri": format!("{}/activate", known.lock().unwrap().issuer),
        "expires_in": 60,
        "interval": 1,
    }))
}

/// RFC 7662, as the mail server asks it.
async fn introspect(State(known): State<Shared>, body: String) -> Json<Value> {
    // Dovecot posts the token alone, as `token=…`.
    let token = body.split('&').find_map(|field| field.strip_prefix("token=")).unwrap_or_default();
    let is_active = known.lock().unwrap().valid.contains(token);
    Json(if is_active { json!({"active": true, "username": "alice"}) } else { json!({"active": false}) })
}
