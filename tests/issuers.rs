//! Tokens of others: every algorithm, several issuers, keys that change, and what forgers try.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::KeyPair as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use support::problem::Problem;
use support::server::{Options, Server};
use support::signer::{KeyServer, Signer, jwks, pem, unsigned, write};
use support::{eventually, within};

const ISSUER: &str = "https://login.example.org";
const ALGORITHMS: [Algorithm; 12] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

fn claims() -> Value {
    json!({ "iss": ISSUER, "mercure": { "subscribe": ["*"], "publish": ["*"] } })
}

async fn start(config: String) -> Server {
    Server::with(Options { config, ..Options::default() }).await
}

/// 200 for a token that counts, else the status and the name of the problem.
async fn outcome(server: &Server, token: &str) -> (u16, String) {
    let request = || server.client.get(format!("{}/api/events?limit=1", server.http)).bearer_auth(token);
    let response = within("an answer", request().send()).await.expect("an answer");
    if response.status() == 200 {
        return (200, String::new());
    }
    let problem = Problem::of(request()).await;
    if problem.status == 401 {
        assert!(problem.headers["www-authenticate"].to_str().unwrap().contains("invalid_token"));
    }
    (problem.status, problem.detail)
}

async fn refusal(server: &Server, token: &str) -> String {
    let (status, detail) = outcome(server, token).await;
    assert_eq!(status, 401, "{detail} {token}");
    detail
}

#[tokio::test]
async fn tokens_of_every_algorithm_count_and_no_key_does_another_s_work() {
    let folder = tempfile::tempdir().unwrap();
    let signers = ALGORITHMS.map(|algorithm| Signer::new(algorithm, &format!("{algorithm:?}")));
    let file = write(folder.path(), "keys.json", &jwks(&signers.iter().collect::<Vec<_>>()));
    let all: Vec<String> = ALGORITHMS.iter().map(|algorithm| format!("'{algorithm:?}'")).collect();
    let config = format!(
        "[[auth.issuer]]\nissuer = '{ISSUER}'\njwks_file = '{}'\nalgorithms = [{}]\n",
        file.display(),
        all.join(", ")
    );
    let server = start(config).await;
    for signer in &signers {
        assert_eq!(outcome(&server, &signer.sign(&claims())).await.0, 200, "{:?}", signer.algorithm);
        // Without a name each key of the kind is tried.
        let nameless = Header { kid: None, ..Header::new(signer.algorithm) };
        assert_eq!(outcome(&server, &signer.sign_with(&nameless, &claims())).await.0, 200, "{:?}", signer.algorithm);
        for other in signers.iter().filter(|other| other.algorithm != signer.algorithm) {
            let foreign = Header { kid: Some(other.id.clone()), ..Header::new(signer.algorithm) };
            let detail = refusal(&server, &signer.sign_with(&foreign, &claims())).await;
            assert!(detail.contains("key"), "{detail}");
        }
    }
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (rsa, other) = (Signer::new(Algorithm::RS256, "rsa"), Signer::new(Algorithm::RS256, "rsa"));
    let (first, elliptic) = (Signer::new(Algorithm::ES256, "first"), Signer::new(Algorithm::ES256, "second"));
    let set = jwks(&[&rsa, &first]);
    let keys = write(folder.path(), "keys.json", &set);
    let second = write(folder.path(), "second.json", &jwks(&[&elliptic]));
    let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let public = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
    let public_pem = pem("PUBLIC KEY", public.as_ref());
    let third = write(folder.path(), "third.pem", &public_pem);
    let config = format!(
        "[[auth.issuer]]\nissuer = '{ISSUER}'\njwks_file = '{}'\nalgorithms = ['RS256', 'ES256', 'HS256']\n\
         [[auth.issuer]]\nissuer = 'second'\njwks_file = '{}'\n\
         [[auth.issuer]]\nissuer = 'third'\nkey_file = '{}'\n",
        keys.display(),
        second.display(),
        third.display(),
    );
    let server = start(config).await;
    assert_eq!(outcome(&server, &rsa.sign(&claims())).await.0, 200);

    // `none`, however it is written (RFC 8725 §2.1).
    for none in ["none", "None", "NONE", "nOnE", ""] {
        for signature in ["", "AAAA"] {
            refusal(&server, &unsigned(&json!({ "alg": none, "kid": "rsa" }), &claims(), signature)).await;
        }
    }
    // What everybody may know as the secret of an HMAC.
    let jwk = rsa.jwk();
    let n = jwk["n"].as_str().unwrap();
    let third_claims = json!({ "iss": "third", "mercure": { "subscribe": ["*"] } });
    for secret in
        [set.as_bytes(), n.as_bytes(), jwk.to_string().as_bytes(), public_pem.as_bytes(), public.as_ref(), b""]
    {
        for kid in [Some("rsa".to_owned()), None] {
            let header = Header { kid, ..Header::new(Algorithm::HS256) };
            for claims in [&claims(), &third_claims] {
                let token = jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret)).unwrap();
                refusal(&server, &token).await;
            }
        }
    }
    // A key of the token's own, or at an address of its own.
    let own = Header { jwk: Some(serde_json::from_value(other.jwk()).unwrap()), ..Header::new(Algorithm::RS256) };
    refusal(&server, &other.sign_with(&own, &claims())).await;
    let there = KeyServer::start(jwks(&[&other])).await;
    let named = Header { jku: Some(there.url.clone()), x5u: Some(there.url.clone()), ..Header::new(Algorithm::RS256) };
    refusal(&server, &other.sign_with(&named, &claims())).await;
    assert_eq!(there.asked(), 0);
    // The same name, another key; names that are paths, or queries.
    refusal(&server, &other.sign(&claims())).await;
    for id in ["../../../../etc/passwd", "rsa' OR '1'='1", "", "RSA", "rsa\0", &"k".repeat(2000)] {
        let header = Header { kid: Some(id.to_owned()), ..Header::new(Algorithm::RS256) };
        refusal(&server, &rsa.sign_with(&header, &claims())).await;
    }
    // One issuer's key for another issuer's name; an issuer that nobody knows; our own key for their name.
    let mut foreign = claims();
    foreign["iss"] = json!("second");
    refusal(&server, &first.sign(&foreign)).await;
    foreign["iss"] = json!("https://login.example.org/");
    refusal(&server, &first.sign(&foreign)).await;
    foreign["iss"] = json!(7);
    assert!(refusal(&server, &first.sign(&foreign)).await.contains("`iss`"));
    let secret = std::fs::read(server.data_dir.join("token.key")).unwrap();
    let ours = jsonwebtoken::encode(&Header::default(), &claims(), &EncodingKey::from_secret(&secret)).unwrap();
    refusal(&server, &ours).await;
    // An algorithm that the issuer does not use.
    let mut second = claims();
    second["iss"] = json!("second");
    let strong = Signer::new(Algorithm::ES384, "second");
    assert!(refusal(&server, &strong.sign(&second)).await.contains("`algorithms`"));
}

#[tokio::test]
async fn rights_and_audiences_are_the_configuration_s() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::new(Algorithm::EdDSA, "k");
    let keys = write(folder.path(), "keys.json", &jwks(&[&signer]));
    let secret = write(folder.path(), "secret", "a secret of the two of us that is long enough\n");
    let server = start(format!(
        "[http]\npublic_url = 'https://push.example.org'\n[[auth.issuer]]\nissuer = '{ISSUER}'\njwks_file = '{}'\n\
         [[auth.issuer]]\nissuer = 'strict'\njwks_file = '{0}'\naudience = ['https://b.example', 'push']\n\
         [[auth.issuer]]\nsecret_file = '{}'\n",
        keys.display(),
        secret.display(),
    ))
    .await;
    let hub = "https://push.example.org/.well-known/mercure";
    for (issuer, audience, counts) in [
        (ISSUER, json!(null), true),
        (ISSUER, json!(hub), true),
        (ISSUER, json!(["x", hub]), true),
        (ISSUER, json!("https://push.example.org"), false),
        (ISSUER, json!([]), false),
        (ISSUER, json!(7), false),
        ("strict", json!(null), false),
        ("strict", json!(hub), false),
        ("strict", json!("push"), true),
        ("strict", json!(["https://b.example"]), true),
    ] {
        let mut claims = json!({ "iss": issuer, "mercure": { "subscribe": ["*"] } });
        if !audience.is_null() {
            claims["aud"] = audience.clone();
        }
        let (status, detail) = outcome(&server, &signer.sign(&claims)).await;
        assert_eq!(status == 200, counts, "{issuer} {audience} {detail}");
        assert!(counts || detail.contains("`aud`"), "{detail}");
    }
    // A secret that both have, for tokens that name nobody; rights to administrate are for our own key to give.
    let shared = EncodingKey::from_secret(b"a secret of the two of us that is long enough");
    let claims = json!({ "mercure": { "subscribe": ["a"] }, "postrider": { "admin": true, "accounts": ["alice"] } });
    let token = jsonwebtoken::encode(&Header::default(), &claims, &shared).unwrap();
    let request = server.client.get(format!("{}/api/session", server.http)).bearer_auth(&token);
    let session: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!((&session["admin"], &session["accounts"]), (&json!(false), &json!(["alice"])));
    // Our own tokens count beside theirs.
    assert_eq!(outcome(&server, &server.token).await.0, 200);
}

#[tokio::test]
async fn keys_change_while_the_server_runs_and_nobody_makes_it_ask_again_and_again() {
    let (old, new) = (Signer::new(Algorithm::ES256, "old"), Signer::new(Algorithm::ES256, "new"));
    let there = KeyServer::start(jwks(&[&old])).await;
    let server = start(format!("[[auth.issuer]]\nissuer = '{ISSUER}'\njwks_url = '{}'\n", there.url)).await;
    assert_eq!(outcome(&server, &old.sign(&claims())).await.0, 200);
    assert_eq!(there.asked(), 1);

    // A key that is not there has them read again, once; what was there is still there when that fails.
    there.answer(500, "no".to_owned());
    for n in 0..50 {
        let stranger = Header { kid: Some(format!("invented-{n}")), ..Header::new(Algorithm::ES256) };
        refusal(&server, &old.sign_with(&stranger, &claims())).await;
    }
    eventually("the keys to be asked for again", || async { (there.asked() == 2).then_some(()) }).await;
    assert_eq!(outcome(&server, &old.sign(&claims())).await.0, 200);

    there.answer(200, jwks(&[&new]));
    eventually("the new key", || async { (outcome(&server, &new.sign(&claims())).await.0 == 200).then_some(()) }).await;
    let asked = there.asked();
    assert!(asked <= 4, "{asked}");
    // What is no longer published counts no more.
    assert!(refusal(&server, &old.sign(&claims())).await.contains("key"));
}

#[tokio::test]
async fn while_no_keys_could_be_read_the_answer_is_to_try_again() {
    let signer = Signer::new(Algorithm::ES256, "k");
    let there = KeyServer::start("{}".to_owned()).await;
    let server = start(format!("[[auth.issuer]]\nissuer = '{ISSUER}'\njwks_url = '{}'\n", there.url)).await;
    let request = server.client.get(format!("{}/api/events", server.http)).bearer_auth(signer.sign(&claims()));
    let problem = Problem::of(request).await;
    assert_eq!((problem.status, &*problem.name), (503, "issuer-keys"));
    assert!(problem.headers.contains_key("retry-after"));
    // Everybody else is served.
    assert_eq!(outcome(&server, &server.token).await.0, 200);
}
