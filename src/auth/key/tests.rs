//! What forged, broken, old and oversized tokens meet, and how the key file is made and refused.

use std::os::unix::fs::PermissionsExt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::*;
use crate::auth::{MercureClaims, PostriderClaims};
use crate::event::TopicMatcher;

const NOW: i64 = 1_800_000_000;

fn key() -> SigningKey {
    SigningKey::of(&[7; 32])
}

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

/// A token with any payload, signed with the right key.
fn signed(payload: &Value) -> String {
    install_provider();
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), payload, &key().encoding).unwrap()
}

fn refused(payload: &Value) -> TokenError {
    key().verify_at(&signed(payload), now()).unwrap_err()
}

fn claims() -> Claims {
    Claims {
        mercure: MercureClaims {
            subscribe: vec![TopicMatcher::parse("mail/alice/{mailbox}").unwrap()],
            publish: vec![TopicMatcher::all()],
            payload: None,
        },
        postrider: PostriderClaims { accounts: vec!["alice".into()], admin: true },
        exp: Some(1_800_000_060),
        nbf: Some(1_700_000_000),
        iat: Some(1_700_000_000),
        jti: Some("j".into()),
        sub: Some("alice".into()),
        is_access_token: false,
    }
}

#[test]
fn what_was_signed_is_read_back() {
    let token = key().sign(&claims());
    assert_eq!(key().verify_at(&token, now()), Ok(claims()));
    // The form that Mercure clients and other signers expect.
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let payload: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(payload["mercure"], json!({"subscribe": ["mail/alice/{mailbox}"], "publish": ["*"]}));
    assert_eq!(payload["postrider"], json!({"accounts": ["alice"], "admin": true}));
}

#[test]
fn a_token_of_another_signer_counts_with_few_claims() {
    let payload = json!({"mercure": {"subscribe": ["*"], "payload": {"x": 1}}, "exp": 1_800_000_000.5, "foo": []});
    let read = key().verify_at(&signed(&payload), now()).unwrap();
    assert_eq!((read.mercure.subscribe.len(), read.exp, read.postrider.admin), (1, Some(1_800_000_000), false));
    assert_eq!(key().verify_at(&signed(&json!({})), now()), Ok(Claims::default()));
}

#[test]
fn times_are_kept_to_within_seconds() {
    let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
    let expired = |exp: i64| TokenError::Expired(at(exp));
    assert_eq!(refused(&json!({"exp": NOW - 5})), expired(NOW - 5));
    assert_eq!(refused(&json!({"exp": 0})), expired(0));
    assert!(key().verify_at(&signed(&json!({"exp": NOW - 4})), now()).is_ok());
    assert!(key().verify_at(&signed(&json!({"exp": u64::MAX})), now()).is_ok(), "far away, not an overflow");
    assert_eq!(refused(&json!({"nbf": NOW + 6})), TokenError::NotYet(at(NOW + 6)));
    assert!(key().verify_at(&signed(&json!({"nbf": NOW + 5})), now()).is_ok());
    assert_eq!(expired(0).to_string().split(';').next(), Some("the token expired at 1970-01-01T00:00:00Z"));
}

#[test]
fn each_wrong_claim_is_named() {
    let long = "x".repeat(1025);
    for (payload, name) in [
        (json!({"exp": "tomorrow"}), "`exp`"),
        (json!({"exp": null}), "`exp`"),
        (json!({"exp": -1}), "`exp`"),
        (json!({"exp": 1e300}), "`exp`"),
        (json!({"nbf": true}), "`nbf`"),
        (json!({"jti": 7}), "`jti`"),
        (json!({"mercure": ["*"]}), "`mercure`"),
        (json!({"mercure": {"subscribe": "*"}}), "`mercure.subscribe`"),
        (json!({"mercure": {"subscribe": ["ok", 3]}}), "`mercure.subscribe`"),
        (json!({"mercure": {"publish": ["ok", "{"]}}), "`mercure.publish[1]`"),
        (json!({"mercure": {"publish": [long]}}), "`mercure.publish[0]`"),
        (json!({"postrider": {"admin": "yes"}}), "`postrider.admin`"),
        (json!({"postrider": {"accounts": {}}}), "`postrider.accounts`"),
        (json!({"aud": "somebody else"}), "`aud`"),
        (json!({"aud": 7}), "`aud`"),
    ] {
        match refused(&payload) {
            TokenError::BadClaims(what) => assert!(what.contains(name) && what.len() < 200, "{what}"),
            other => panic!("{payload}: {other:?}"),
        }
    }
    assert_eq!(refused(&json!(["not an object"])), TokenError::Malformed);
}

#[test]
fn forged_signatures_are_refused() {
    let token = key().sign(&claims());
    assert_eq!(SigningKey::of(&[8; 32]).verify_at(&token, now()), Err(TokenError::BadSignature));

    let [head, payload, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let more = URL_SAFE_NO_PAD.encode(json!({"postrider": {"admin": true}}).to_string());
    assert_eq!(key().verify_at(&format!("{head}.{more}.{signature}"), now()), Err(TokenError::BadSignature));
    assert_eq!(key().verify_at(&format!("{head}.{payload}."), now()), Err(TokenError::BadSignature));

    // RFC 8725 §2.1: a header that names another algorithm must not choose how the token is checked.
    for (algorithm, expected) in [
        ("none", TokenError::Malformed),
        ("NONE", TokenError::Malformed),
        ("RS256", TokenError::BadSignature),
        ("ES256", TokenError::BadSignature),
        ("HS512", TokenError::BadSignature),
    ] {
        let head = URL_SAFE_NO_PAD.encode(json!({"typ": "JWT", "alg": algorithm}).to_string());
        for signature in [signature, ""] {
            let forged = format!("{head}.{payload}.{signature}");
            assert_eq!(key().verify_at(&forged, now()), Err(expected.clone()), "{algorithm}");
        }
    }
}

#[test]
fn an_extension_marked_critical_is_refused() {
    let mut header = Header::new(Algorithm::HS256);
    header.crit = Some(vec!["b64".into()]);
    let token = jsonwebtoken::encode(&header, &json!({}), &key().encoding).unwrap();
    assert_eq!(key().verify_at(&token, now()), Err(TokenError::Malformed));
}

#[test]
fn no_cut_of_a_token_counts() {
    let token = key().sign(&claims());
    for end in 0..token.len() {
        let cut = &token[..end];
        let error = key().verify_at(cut, now()).unwrap_err();
        assert!(matches!(error, TokenError::Malformed | TokenError::BadSignature), "{end}: {error:?}");
        assert!(cut.is_empty() || !error.to_string().contains(&token[..token.len().min(12)]));
    }
    for text in ["", ".", "..", "...", "a.b.c", "\u{0}", "grün.grün.grün", "Bearer x"] {
        assert_eq!(key().verify_at(text, now()), Err(TokenError::Malformed), "{text}");
    }
}

#[test]
fn a_megabyte_is_refused_before_it_is_looked_at() {
    // It is signed well, so that only its length can be the reason.
    let token = signed(&json!({"filler": "x".repeat(1 << 20)}));
    assert_eq!(key().verify_at(&token, now()), Err(TokenError::Malformed));
}

#[test]
fn the_key_is_made_once_and_is_nobody_elses() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("not/yet/there");
    assert!(matches!(SigningKey::load(&data_dir), Err(KeyError::Absent(_))));
    let token = SigningKey::load_or_create(&data_dir).unwrap().sign(&claims());
    assert_eq!(SigningKey::load_or_create(&data_dir).unwrap().verify_at(&token, now()), Ok(claims()));

    let names: Vec<_> = fs::read_dir(&data_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["token.key"], "no draft is left");
    let metadata = fs::metadata(data_dir.join("token.key")).unwrap();
    assert_eq!((metadata.permissions().mode() & 0o777, metadata.len()), (0o600, 32));
    assert_eq!(fs::metadata(&data_dir).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn whoever_starts_at_the_same_moment_gets_the_same_key() {
    let folder = tempfile::tempdir().unwrap();
    let barrier = std::sync::Barrier::new(8);
    let tokens: Vec<String> = std::thread::scope(|scope| {
        let make = || {
            barrier.wait();
            SigningKey::load_or_create(folder.path()).unwrap().sign(&claims())
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let key = SigningKey::load(folder.path()).unwrap();
    assert!(tokens.iter().all(|token| key.verify_at(token, now()).is_ok()));
}

#[test]
fn unsafe_key_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token.key");
    let write = |bytes: &[u8], mode| {
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        SigningKey::load_or_create(folder.path()).map(|_| ()).unwrap_err()
    };
    assert!(matches!(write(&[1; 31], 0o600), KeyError::TooShort(_, 31)));
    assert!(matches!(write(&[], 0o600), KeyError::TooShort(_, 0)));
    assert!(matches!(write(&[1; 5000], 0o600), KeyError::TooLong(_)));
    let open = write(&[1; 32], 0o644);
    assert!(matches!(open, KeyError::Open(_, 0o644)), "{open:?}");
    assert!(open.to_string().contains("mode 644") && open.to_string().contains("chmod 600"), "{open}");
    assert!(matches!(write(&[1; 32], 0o620), KeyError::Open(_, 0o620)));
}

#[test]
fn debug_shows_no_key() {
    assert_eq!(format!("{:?}", key()), "SigningKey(redacted)");
}
