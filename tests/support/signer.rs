//! Somebody who signs tokens with keys of their own, and publishes them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A key with its name.
#[derive(Clone)]
pub struct Signer {
    pub algorithm: Algorithm,
    pub id: String,
    pub key: EncodingKey,
}

impl Signer {
    /// A new key for an algorithm.
    pub fn new(algorithm: Algorithm, id: &str) -> Self {
        install_provider();
        let random = aws_lc_rs::rand::SystemRandom::new();
        let key = match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
                let mut secret = [0; 64];
                aws_lc_rs::rand::fill(&mut secret).unwrap();
                EncodingKey::from_secret(&secret)
            }
            Algorithm::ES256 => {
                let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
                EncodingKey::from_ec_der(pair.as_ref())
            }
            Algorithm::ES384 => {
                let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).unwrap();
                EncodingKey::from_ec_der(pair.as_ref())
            }
            Algorithm::EdDSA => {
                EncodingKey::from_ed_der(Ed25519KeyPair::generate().unwrap().to_pkcs8v1().unwrap().as_ref())
            }
            _ => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
                let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
                let pem = pem("PRIVATE KEY", der.as_ref());
                EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap()
            }
        };
        Self { algorithm, id: id.to_owned(), key }
    }

    /// A token with its name in the header.
    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.clone()), ..Header::new(self.algorithm) };
        self.sign_with(&header, claims)
    }

    /// A token with any header.
    pub fn sign_with(&self, header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &self.key).expect("a token")
    }

    /// What others verify with, as RFC 7517 has it.
    pub fn jwk(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).expect("a public key");
        jwk.common.key_id = Some(self.id.clone());
        serde_json::to_value(jwk).expect("JSON")
    }
}

/// jsonwebtoken panics where several providers were compiled in and none was chosen.
fn install_provider() {
    static INSTALLED: std::sync::Once = std::sync::Once::new();
    INSTALLED.call_once(|| jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default().expect("the only one"));
}

/// DER as PEM.
pub fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// A token that nobody signed, with any header and any signature.
pub fn unsigned(header: &Value, claims: &Value, signature: &str) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", encode(header), encode(claims))
}

pub fn jwks(signers: &[&Signer]) -> String {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() }).to_string()
}

/// A file in a folder.
pub fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;

    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// A web server that publishes keys.
pub struct KeyServer {
    pub url: String,
    known: Arc<Mutex<Known>>,
    _server: JoinSet<()>,
}

#[derive(Default)]
struct Known {
    status: u16,
    answer: String,
    asked: usize,
}

impl KeyServer {
    pub async fn start(answer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let known = Arc::new(Mutex::new(Known { status: 200, answer, asked: 0 }));
        let router = Router::new().route("/keys", get(keys)).with_state(Arc::clone(&known));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, known, _server: server }
    }

    /// What it answers from now on.
    pub fn answer(&self, status: u16, answer: String) {
        let mut known = self.known();
        (known.status, known.answer) = (status, answer);
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.known().asked
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }
}

async fn keys(State(known): State<Arc<Mutex<Known>>>) -> (StatusCode, String) {
    let mut known = known.lock().unwrap();
    known.asked += 1;
    (StatusCode::from_u16(known.status).unwrap(), known.answer.clone())
}
