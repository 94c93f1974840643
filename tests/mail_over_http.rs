//! Mail over HTTP: the real program, spoken to as a program with a token does, and as Mailgun, SendGrid and Postmark do
//! by their documentation. Signatures are made by Python's hmac and by the cryptographic library alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use std::process::Command;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use support::problem::{Problem, exchange};
use support::server::{Options, Server};
use support::within;

const ACCOUNTS: &str = "[[account]]\nname = 'alice'\ncontent = 'text'\naddresses = ['alice@example.org']\n\
                        [[account]]\nname = 'bob'\ncontent = 'text'\naddresses = ['bob@example.org']\n";
const MAILGUN_KEY: &str = "key-3ax6xnjp29jd6fds4gc373sgvjxteol0";
const SECRET: &str = "s3:cret";
const MIME: &str = "From: Ada Lovelace <ada@x.example>\r\nTo: alice@example.org\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\
                    Message-ID: <one@x.example>\r\n\r\nHello \u{26a1}\r\n";

async fn start(settings: &str) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let mailgun = folder.path().join("mailgun.key");
    let postmark = folder.path().join("postmark.secret");
    std::fs::write(&mailgun, format!("{MAILGUN_KEY}\n")).unwrap();
    std::fs::write(&postmark, format!("{SECRET}\n")).unwrap();
    let config = format!(
        "{settings}\n[mail_over_http]\nmailgun_signing_key_file = '{}'\npostmark_secret_file = '{}'\n{ACCOUNTS}",
        mailgun.display(),
        postmark.display(),
    );
    // Secrets are read at the start, so that the folder may go.
    Server::with(Options { config, ..Options::default() }).await
}

fn post(server: &Server, path: &str) -> RequestBuilder {
    server.client.post(format!("{}{path}", server.http))
}

fn raw(server: &Server, query: &str, token: &str) -> RequestBuilder {
    let request = post(server, &format!("/api/mail{query}")).header("content-type", "message/rfc822");
    request.bearer_auth(token).body(MIME)
}

async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = within("an answer", request.send()).await.expect("an answer");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

/// Mailgun's signature of now, or of so many seconds ago, by Python.
fn mailgun_fields(seconds_ago: i64, token: &str, key: &str) -> [(&'static str, String); 3] {
    let time = (Timestamp::now().as_second() - seconds_ago).to_string();
    let script = "import sys, hmac, hashlib\nkey, time, token = sys.argv[1:]\n\
                  print(hmac.new(key.encode(), (time + token).encode(), hashlib.sha256).hexdigest())";
    let output = Command::new("python3").args(["-c", script, key, &time, token]).output().expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let signature = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    [("timestamp", time), ("token", token.to_owned()), ("signature", signature)]
}

/// A form as providers write it.
fn multipart(fields: &[(&str, &str)], files: &[(&str, &str, &str, &str)]) -> (String, String) {
    let field = |(name, value): &(&str, &str)| {
        format!("--xYzZY\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let file = |(name, filename, kind, content): &(&str, &str, &str, &str)| {
        format!(
            "--xYzZY\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{filename}\"\r\n\
             Content-Type: {kind}\r\n\r\n{content}\r\n"
        )
    };
    let parts = fields.iter().map(field).chain(files.iter().map(file));
    let body = parts.chain(["--xYzZY--\r\n".to_owned()]).collect::<String>();
    ("multipart/form-data; boundary=xYzZY".to_owned(), body)
}

#[tokio::test]
async fn a_message_becomes_the_event_that_smtp_would_have_made() {
    let server = start("").await;
    let (status, told) = answer(raw(
        &server,
        "?recipient=alice%2BLists/rust@example.org&recipient=bob@example.org&sender=ada@x.example",
        &server.token,
    ))
    .await;
    assert_eq!(status, 201, "{told}");
    assert_eq!(told["recipients"][0]["topic"], "mail/alice/Lists%2Frust");
    let events = server.whole_log().await;
    let [alice, bob] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&alice["mailbox"], &alice["source"]), (&json!("Lists/rust"), &json!("http")));
    assert_eq!(alice["envelope"]["queue_id"], told["queue_id"]);
    assert_eq!(alice["envelope"]["mail_from"], "ada@x.example");
    assert_eq!((&bob["account"], &bob["message"]["subject"]), (&json!("bob"), &json!("Grüße")));
    assert_eq!(bob["message"]["text"].as_str().map(str::trim), Some("Hello ⚡"));
    // The answer was lost, and the program sends it again, now by SMTP.
    assert_eq!(answer(raw(&server, "?recipient=bob@example.org", &server.token)).await.0, 201);
    assert_eq!(server.whole_log().await.len(), 2, "a repeated message is no second event");
}

#[tokio::test]
async fn curl_posts_as_the_readme_has_it() {
    let server = Server::start().await;
    let token = server.token_for(&["--publish", "mail/you/{mailbox}"]).await;
    let folder = tempfile::tempdir().unwrap();
    let mail = folder.path().join("mail.txt");
    std::fs::write(&mail, "Subject: Backup failed\n\nDisk full.\n").unwrap();
    let url = format!("{}/api/mail?recipient=you+alerts@localhost&sender=backup@localhost", server.http);
    let output = tokio::process::Command::new("curl")
        .args(["-s", "-w", "%{http_code}", "--data-binary", &format!("@{}", mail.display())])
        .args(["-H", "Content-Type: message/rfc822", "-H", &format!("Authorization: Bearer {token}"), &url])
        .output();
    let output = within("curl", output).await.expect("curl is installed");
    let output = String::from_utf8(output.stdout).unwrap();
    assert!(output.ends_with("201"), "{output}");
    assert_eq!(server.whole_log().await[0]["topics"], json!(["mail/you/alerts"]));
}

#[tokio::test]
async fn what_is_refused_is_named_and_leaves_nothing() {
    let server = start("[smtp]\nmessage_bytes_max = 2000\n").await;
    let own = server.token_for(&["--publish", "mail/alice/{mailbox}"]).await;
    let reader = server.token_for(&["--subscribe", "*"]).await;
    let to_alice = "?recipient=alice@example.org";
    for (request, status, name) in [
        (post(&server, "/api/mail").body(MIME), 401, "token-needed"),
        (raw(&server, to_alice, "x.y.z"), 401, "token-invalid"),
        (raw(&server, to_alice, &reader), 403, "not-allowed"),
        (raw(&server, "?recipient=bob@example.org", &own), 403, "not-allowed"),
        (raw(&server, "?recipient=nobody@example.org", &reader), 403, "not-allowed"),
        (raw(&server, "", &own), 400, "recipient-missing"),
        (raw(&server, "?recipient=alice@example.org&sender=a", &own), 400, "sender-invalid"),
        (raw(&server, "?to=alice@example.org", &own), 400, "parameter-unknown"),
        (post(&server, &format!("/api/mail{to_alice}")).bearer_auth(&own).body(MIME), 415, "media-type"),
        (raw(&server, to_alice, &own).body(""), 400, "message-empty"),
        (raw(&server, to_alice, &own).body("x".repeat(2001)), 413, "body-too-large"),
        (raw(&server, to_alice, &own).body(format!("{}\r\n", "Received: x\r\n".repeat(51))), 422, "mail-loop"),
    ] {
        let problem = Problem::of(request).await;
        assert_eq!((problem.status, &*problem.name), (status, name), "{problem:?}");
    }
    let several = "?recipient=alice@example.org&recipient=nobody@example.org&recipient=x@y.example&recipient=z";
    let (status, told) = answer(raw(&server, several, &own)).await;
    assert_eq!(status, 422);
    let reasons: Vec<_> = told["recipients"].as_array().unwrap().iter().map(|one| one["reason"].clone()).collect();
    assert_eq!(reasons, ["no such recipient here", "not a domain of ours", "not an address"]);
    // A length that is over the limit is refused before any of the body came.
    let head = format!(
        "POST /api/mail{to_alice} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {own}\r\n\
         Content-Type: message/rfc822\r\nContent-Length: 99999999\r\n\r\n"
    );
    let told = exchange(&server, head.as_bytes()).await;
    assert!(told.starts_with("HTTP/1.1 413 ") && told.to_lowercase().contains("connection: close"), "{told}");
    assert_eq!(server.whole_log().await, [json!(null); 0]);
    assert_eq!(answer(raw(&server, to_alice, &own)).await.0, 201, "and others are served on");
}

#[tokio::test]
async fn mailgun_posts_the_message_itself() {
    let server = start("").await;
    let signed = mailgun_fields(0, "a".repeat(50).as_str(), MAILGUN_KEY);
    let mut fields = vec![("recipient", "alice@example.org".to_owned()), ("sender", "bounce@x.example".to_owned())];
    fields.push(("body-mime", MIME.to_owned()));
    fields.extend(signed.clone());
    let (status, told) = answer(post(&server, "/api/mail/mailgun/mime").form(&fields)).await;
    assert_eq!(status, 200, "{told}");
    let events = server.whole_log().await;
    assert_eq!(events[0]["message"]["message_id"], "<one@x.example>");
    assert_eq!(events[0]["envelope"]["mail_from"], "bounce@x.example");

    // The signature says nothing of the message: it must not bring another one.
    fields[2].1 = MIME.replace("<one@", "<two@");
    let replayed = Problem::of(post(&server, "/api/mail/mailgun/mime").form(&fields)).await;
    assert_eq!((replayed.status, &*replayed.name), (406, "signature-used"));
    for (signed, name) in [
        (mailgun_fields(0, "b", "another key"), "signature-invalid"),
        (mailgun_fields(400, "c", MAILGUN_KEY), "signature-stale"),
        (mailgun_fields(-900, "d", MAILGUN_KEY), "signature-stale"),
        (mailgun_fields(0, "", MAILGUN_KEY), "signature-invalid"),
    ] {
        fields.truncate(3);
        fields.extend(signed);
        let refused = Problem::of(post(&server, "/api/mail/mailgun/mime").form(&fields)).await;
        assert_eq!((refused.status, &*refused.name), (401, name), "Mailgun tries again: {refused:?}");
    }
    assert_eq!(server.whole_log().await.len(), 1);

    // Whom nobody knows will not be known in ten minutes: 406 ends it, and the signature is not used up.
    fields.truncate(3);
    fields.extend(mailgun_fields(0, "e", MAILGUN_KEY));
    fields[0].1 = "nobody@example.org".to_owned();
    let refused = Problem::of(post(&server, "/api/mail/mailgun/mime").form(&fields)).await;
    assert_eq!((refused.status, &*refused.name), (406, "recipient-refused"));
    fields[0].1 = "nobody@example.org, bob@example.org".to_owned();
    assert_eq!(answer(post(&server, "/api/mail/mailgun/mime").form(&fields)).await.0, 200);
    assert_eq!(server.whole_log().await[1]["account"], "bob");
}

#[tokio::test]
async fn mailguns_parts_become_a_message_again() {
    let server = start("").await;
    let [time, token, signature] = mailgun_fields(10, "f", MAILGUN_KEY).map(|(_, value)| value);
    let header = json!([
        ["Message-Id", "<parts@x.example>"],
        ["Subject", "Grüße"],
        ["Content-Type", "text/html"],
        ["Auto-Submitted", "auto-generated"]
    ]);
    let (kind, body) = multipart(
        &[
            ("timestamp", &time),
            ("token", &token),
            ("signature", &signature),
            ("recipient", "alice@example.org"),
            ("sender", "a@x.example"),
            ("from", "Ada <ada@x.example>"),
            ("message-headers", &header.to_string()),
            ("body-plain", "Hallo"),
            ("body-html", "<p>Hallo</p>"),
        ],
        &[("attachment-1", "r.pdf", "application/pdf", "%PDF")],
    );
    let (status, told) = answer(post(&server, "/api/mail/mailgun").header("content-type", kind).body(body)).await;
    assert_eq!(status, 200, "{told}");
    let message = &server.whole_log().await[0]["message"];
    assert_eq!((&message["message_id"], &message["subject"]), (&json!("<parts@x.example>"), &json!("Grüße")));
    assert_eq!((&message["auto_submitted"], &message["preview"]), (&json!(true), &json!("Hallo")));
    assert_eq!(message["from"], json!([{ "name": "Ada", "address": "ada@x.example" }]));
    let file = json!([{ "filename": "r.pdf", "content_type": "application/pdf", "size": 4 }]);
    assert_eq!(message["attachments"], file);
}

#[tokio::test]
async fn sendgrids_signature_is_of_the_time_and_the_whole_body() {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).unwrap();
    // SubjectPublicKeyInfo of a point on prime256v1 (RFC 5480): the same 26 octets before each.
    let prefix = STANDARD.decode("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgA=").unwrap();
    let public = STANDARD.encode([&prefix[..], key.public_key().as_ref()].concat());
    let config = format!("[mail_over_http]\nsendgrid_public_key = '{public}'\n{ACCOUNTS}");
    let server = Server::with(Options { config, ..Options::default() }).await;
    let envelope = r#"{"to":["alice@example.org","x@example.org"],"from":"ada@x.example"}"#;
    let (kind, body) = multipart(&[("email", MIME), ("envelope", envelope), ("to", "alice@example.org")], &[]);
    let dated = |time: i64, signed: &str, body: &str| {
        let signature = key.sign(&random, signed.as_bytes()).unwrap();
        let request = post(&server, "/api/mail/sendgrid").header("content-type", &kind).body(body.to_owned());
        let request = request.header("x-twilio-email-event-webhook-timestamp", time.to_string());
        request.header("x-twilio-email-event-webhook-signature", STANDARD.encode(signature.as_ref()))
    };
    let signed = |time: i64, body: &str| dated(time, &format!("{time}{body}"), body);
    let now = Timestamp::now().as_second();
    for (request, name) in [
        (signed(now, &body).body(body.replace("Hello", "Jello")), "signature-invalid"),
        (dated(now + 1, &format!("{now}{body}"), &body), "signature-invalid"),
        (post(&server, "/api/mail/sendgrid").header("content-type", &kind).body(body.clone()), "signature-invalid"),
        (signed(now - 301, &body), "signature-stale"),
    ] {
        let refused = Problem::of(request).await;
        assert_eq!((refused.status, &*refused.name), (503, name), "SendGrid tries 5xx again only: {refused:?}");
    }
    assert_eq!(server.whole_log().await.len(), 0);
    let (status, told) = answer(signed(now, &body)).await;
    assert_eq!(status, 200, "{told}");
    assert_eq!(Problem::of(signed(now, &body)).await.status, 409, "a signature brings mail once");
    let events = server.whole_log().await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["message"]["message_id"], "<one@x.example>");
    let body = body.replace("\"alice@example.org\",", "");
    assert_eq!(Problem::of(signed(now, &body)).await.status, 422);
}

#[tokio::test]
async fn sendgrids_parts_come_with_a_secret_and_charsets() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let config = format!("[mail_over_http]\nsendgrid_secret_file = '{}'\nuser = 'sg'\n{ACCOUNTS}", secret.display());
    let server = Server::with(Options { config, ..Options::default() }).await;
    let fields = [
        ("headers", "Message-ID: <sg@x.example>\nSubject: folded\n subject\nContent-Type: text/plain\n"),
        ("from", "Ada <ada@x.example>"),
        ("to", "alice@example.org"),
        ("text", "GRUSS"),
        ("charsets", r#"{"to":"UTF-8","text":"iso-8859-1"}"#),
        ("envelope", r#"{"to":["alice@example.org"],"from":""}"#),
    ];
    let (kind, body) = multipart(&fields, &[("attachment1", "a.txt", "text/plain", "x")]);
    let body = body.replace("GRUSS", "Gr?~e").into_bytes();
    let body: Vec<u8> = body
        .into_iter()
        .map(|byte| match byte {
            b'?' => 0xfc,
            b'~' => 0xdf,
            byte => byte,
        })
        .collect();
    let request = || post(&server, "/api/mail/sendgrid").header("content-type", &kind).body(body.clone());
    assert_eq!(Problem::of(request()).await.status, 503);
    assert_eq!(Problem::of(request().basic_auth("postrider", Some(SECRET))).await.status, 503);
    assert_eq!(answer(request().basic_auth("sg", Some(SECRET))).await.0, 200);
    let events = server.whole_log().await;
    let message = &events[0]["message"];
    assert_eq!((&message["subject"], &message["preview"]), (&json!("folded subject"), &json!("Grüße")));
    assert_eq!((&message["attachments"][0]["filename"], events.len()), (&json!("a.txt"), 1));
}

#[tokio::test]
async fn postmark_posts_json_with_the_message_or_its_parts() {
    let server = start("").await;
    let parts = json!({
        "From": "ada@x.example", "FromFull": { "Email": "ada@x.example", "Name": "Ada" },
        "To": "alice@example.org", "ToFull": [{ "Email": "alice@example.org", "Name": "", "MailboxHash": "" }],
        "OriginalRecipient": "alice+bills@example.org", "Subject": "Grüße", "MessageID": "22c74902-a0c1",
        "Date": "Thu, 5 Apr 2012 16:59:01 +0200", "TextBody": "Hallo", "HtmlBody": "", "MessageStream": "inbound",
        "Headers": [{ "Name": "Message-ID", "Value": "<pm@x.example>" },
                    { "Name": "Return-Path", "Value": "<bounce@x.example>" }],
        "Attachments": [{ "Name": "r.pdf", "Content": STANDARD.encode("%PDF"), "ContentType": "application/pdf",
                          "ContentLength": 4, "ContentID": "" }],
    });
    let request = |body: &Value| post(&server, "/api/mail/postmark").json(body);
    let proven = |body: &Value| request(body).basic_auth("postrider", Some(SECRET));
    for wrong in
        [request(&parts), request(&parts).basic_auth("postrider", Some("s3:cre")), request(&parts).bearer_auth("x")]
    {
        let refused = Problem::of(wrong).await;
        assert_eq!((refused.status, &*refused.name), (401, "credentials-needed"), "Postmark tries again");
    }
    assert_eq!(server.whole_log().await.len(), 0);
    assert_eq!(answer(proven(&parts)).await.0, 200);
    let mut raw = parts.clone();
    raw["RawEmail"] = MIME.into();
    assert_eq!(answer(proven(&raw)).await.0, 200);
    let events = server.whole_log().await;
    let (parsed, whole) = (&events[0]["message"], &events[1]["message"]);
    assert_eq!((&events[0]["mailbox"], &parsed["message_id"]), (&json!("bills"), &json!("<pm@x.example>")));
    assert_eq!((&parsed["subject"], &parsed["date"]), (&json!("Grüße"), &json!("2012-04-05T16:59:01+02:00")));
    assert_eq!(events[0]["envelope"]["mail_from"], "bounce@x.example");
    assert_eq!((&parsed["attachments"][0]["size"], &whole["message_id"]), (&json!(4), &json!("<one@x.example>")));

    raw["OriginalRecipient"] = "nobody@example.org".into();
    assert_eq!(Problem::of(proven(&raw)).await.status, 403, "which ends Postmark's retries");
    assert_eq!(Problem::of(proven(&json!([1]))).await.status, 403);
}

#[tokio::test]
async fn a_provider_that_is_not_configured_may_not_post() {
    let server = Server::start().await;
    for (path, setting) in [
        ("/api/mail/mailgun", "mailgun_signing_key_file"),
        ("/api/mail/mailgun/mime", "mailgun_signing_key_file"),
        ("/api/mail/sendgrid", "sendgrid_public_key"),
        ("/api/mail/postmark", "postmark_secret_file"),
    ] {
        let refused = Problem::of(post(&server, path).body("{}")).await;
        assert_eq!(refused.name, "provider-off", "{path}");
        assert!(refused.detail.contains(setting), "{path}: {}", refused.detail);
    }
    let metrics = server.client.get(format!("{}/metrics", server.http)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("postrider_mail_over_http_total{result=\"unauthorized\"} 4"), "{metrics}");
}
