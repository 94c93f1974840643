//! What is logged at the most talkative: never mail, passwords, tokens or what was published.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use postrider::config::LogConfig;
use serde_json::{Value, json};
use support::dovecot::Dovecot;
use support::mail_client::{MailClient, Target};
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

/// Who was told a queue ID finds the event and the operator's log line by it, and both say nothing private.
#[tokio::test]
async fn a_queue_id_is_in_the_event_and_in_one_line_of_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let errors = folder.path().join("errors");
    let config = "[[smtp.listener]]\nrole = \"lmtp\"\nlisten = \"0.0.0.0:0\"\n\
                  [[account]]\nname = \"quiet\"\naddresses = [\"quiet@example.org\"]\ncontent = \"none\"\n\
                  [[account]]\nname = \"open\"\naddresses = [\"open@example.org\"]\n";
    let server = Server::with(Options {
        config: config.to_owned(),
        errors: Some(errors.clone()),
        // The filter is the default, which the other tests do without.
        environment: [("FORMAT", "json"), ("FILTER", &LogConfig::default().filter)]
            .map(|(key, value)| (format!("POSTRIDER_LOG__{key}"), value.to_owned()))
            .to_vec(),
        ..Options::default()
    })
    .await;
    let mut client = MailClient::connect(&Target::smtp(&server.smtp)).await.unwrap();
    assert_eq!(client.reply().await.unwrap().code, 220);
    let envelope =
        ["EHLO me", "MAIL FROM:<ada@example.net>", "RCPT TO:<quiet@example.org>", "RCPT TO:<open@example.org>"];
    for command in envelope.iter().chain(&["DATA"]) {
        assert!(client.ask(command).await.unwrap().code < 400, "{command}");
    }
    let reply = client.ask("Subject: s\r\n\r\ntext\r\n.").await.unwrap();
    let queue_id = reply.queue_id().unwrap_or_else(|| panic!("{reply:?}")).to_owned();

    let events = server.whole_log().await;
    let mut told: Vec<_> = events.iter().map(|event| (event["account"].as_str(), event["envelope"].clone())).collect();
    told.sort_by_key(|(account, _)| *account);
    let open = json!({ "mail_from": "ada@example.net", "rcpt_to": "open@example.org", "queue_id": queue_id });
    assert_eq!(told, [(Some("open"), open), (Some("quiet"), json!({ "queue_id": queue_id }))]);

    let log = std::fs::read_to_string(&errors).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let named: Vec<_> = lines.iter().filter(|line| line.to_string().contains(&queue_id)).collect();
    assert!(named.len() == 1 && named[0]["level"] == "INFO" && named[0]["fields"]["recipients"] == 2, "{log}");
    assert!(!log.contains("@example"), "no address is logged: {log}");
    let risk = lines.iter().find(|line| line.to_string().contains("LMTP has no login")).expect("a warning");
    assert_eq!(risk["level"], "WARN");
}
