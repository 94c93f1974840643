//! What is logged at the most talkative: never mail, passwords, tokens or what was published.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use serde_json::{Value, json};
use support::dovecot::Dovecot;
use support::server::{Options, Server};
use support::stream::{Stream, WebSocket};
use support::{eventually, within};

#[tokio::test]
async fn nothing_that_is_private_is_logged_at_any_level() {
    let dovecot = Dovecot::start();
    let folder = tempfile::tempdir().expect("a folder");
    let errors = folder.path().join("errors");
    // Each word is put where it would be private, and nowhere else.
    let account = format!(
        "[smtp]\nlocal_domains = [\"localhost\"]\n[[account]]\nname = \"watched\"\n[account.imap]\nhost = \"localhost\"\nport = {}\n\
         username = \"alice\"\npassword_command = [\"echo\", \"{}\"]\nca_file = \"{}\"\n",
        dovecot.imaps_port,
        support::dovecot::PASSWORD,
        dovecot.ca_file().display()
    );
    let server = Server::with(Options {
        config: account,
        errors: Some(errors.clone()),
        environment: vec![("POSTRIDER_LOG__FILTER".to_owned(), "trace".to_owned())],
        ..Options::default()
    })
    .await;
    eventually("the mailbox to be watched", || async {
        let answer: Value = server.get("/api/accounts").send().await.ok()?.json().await.ok()?;
        (answer["accounts"][0]["state"] == "connected").then_some(())
    })
    .await;
    let mut socket = WebSocket::open(&server, "/events?topic=*&last_event_id=earliest").await;
    let mut lines = Stream::open(&server, "/events?topic=*&last_event_id=earliest", "application/x-ndjson").await;
    let mail = "From: a@example.org\r\nSubject: Geheimnis-imap-subject\r\n\r\nGeheimnis-imap-text\r\n";
    dovecot.deliver("alice", mail).await;
    server.send("watched@localhost", "Geheimnis-smtp-subject", "Geheimnis-smtp-text").await;
    server.publish("t", &json!("Geheimnis-published")).await;
    socket.say(&json!({ "subscribe": ["Geheimnis-asked"] })).await;
    let sign_in = server.client.post(format!("{}/api/session", server.http)).json(&json!({ "token": server.token }));
    let session = sign_in.send().await.expect("an answer").headers()["set-cookie"].to_str().unwrap().to_owned();
    let cookie = session.split(';').next().unwrap().to_owned();
    let over_http_2 = tokio::process::Command::new("curl")
        .args([
            "-s",
            "--max-time",
            "20",
            "--http2-prior-knowledge",
            "-w",
            "%{http_code}",
            "-H",
            &format!("Cookie: {cookie}"),
        ])
        .arg(format!("{}/events?topic=*&last_event_id=earliest&transport=poll", server.http))
        .output();
    let answer = within("curl", over_http_2).await.expect("curl is installed");
    assert!(answer.stdout.ends_with(b"200") && answer.stdout.len() > 1000);
    let bad = server.client.get(format!("{}/events?topic=*", server.http)).bearer_auth("Geheimnis.bad.token");
    assert_eq!(bad.send().await.expect("an answer").status(), 401);

    // All of it has come and gone.
    let wanted = ["Geheimnis-imap-text", "Geheimnis-smtp-text", "Geheimnis-published"];
    let mut seen = String::new();
    while !wanted.iter().all(|word| seen.contains(word)) || !seen.contains("Geheimnis-asked") {
        seen.push_str(&socket.message().await.to_string());
    }
    let mut streamed = String::new();
    while !wanted.iter().all(|word| streamed.contains(word)) {
        streamed.push_str(&lines.event().await.to_string());
    }
    let log = std::fs::read_to_string(&errors).expect("the diagnostics");
    assert!(log.contains("TRACE") && log.contains("DEBUG"), "it was talkative");
    let line_with = |word: &str| log.lines().find(|line| line.contains(word)).map(str::to_owned);
    assert_eq!(line_with("Geheimnis"), None);
    for token in [&*server.token, &*cookie] {
        // The payload and the signature: what comes before is the same in all tokens.
        for part in token.split('.').skip(1) {
            assert_eq!(line_with(part), None);
        }
    }
    // As LOGIN and AUTHENTICATE PLAIN would show the password.
    for word in [support::dovecot::PASSWORD, "AGFsaWNlAHNlY3JldA"] {
        assert_eq!(line_with(word), None);
    }
}
