//! The event log's volume is full: nothing that was acknowledged is lost, nothing more is acknowledged, and it goes on
//! by itself when there is space again. The volume is a real one of a few megabytes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use std::collections::BTreeSet;

use lettre::AsyncTransport;
use lettre::address::Envelope;
use serde_json::{Value, json};
use support::dovecot::Dovecot;
use support::server::Server;
use support::small_volume::SmallVolume;
use support::stream::Stream;
use support::{eventually, within};

/// Publishes some kilobytes; the event's ID, or the refusal.
async fn publish(small: &SmallVolume, n: usize) -> Result<String, (u16, Value)> {
    let body = json!({ "topic": "t/full", "data": { "n": n, "pad": "x".repeat(4000) } });
    let url = format!("{}/events", small.server.http);
    let request = small.server.client.post(url).bearer_auth(&small.server.token).json(&body);
    let response = within("the answer to a publisher", request.send()).await.expect("an answer");
    let (status, answer) = (response.status().as_u16(), response.json::<Value>().await.expect("JSON"));
    if status == 200 { Ok(answer["id"].as_str().expect("an ID").to_owned()) } else { Err((status, answer)) }
}

/// Publishes until there is no space left; the IDs of what was accepted, and the refusal.
async fn publish_until_refused(small: &SmallVolume) -> (Vec<String>, (u16, Value)) {
    let mut accepted = Vec::new();
    loop {
        match publish(small, accepted.len()).await {
            Ok(id) => accepted.push(id),
            Err(refusal) => return (accepted, refusal),
        }
        assert!(accepted.len() < 10_000, "a small volume is full at some time");
    }
}

/// Sends a mail; the reply to its dot.
async fn mail(small: &SmallVolume, subject: &str) -> Result<String, String> {
    let envelope =
        Envelope::new(Some("a@example.org".parse().unwrap()), vec!["alice@localhost".parse().unwrap()]).unwrap();
    let message = format!("Message-ID: <{subject}@example.org>\r\nSubject: {subject}\r\n\r\ntext\r\n");
    let mailer = small.server.mailer();
    let sent = mailer.send_raw(&envelope, message.as_bytes());
    match within("the reply to the dot", sent).await {
        Ok(reply) => Ok(reply.message().collect::<Vec<_>>().join(" ")),
        Err(err) => Err(err.to_string()),
    }
}

async fn whole_log(server: &Server) -> Vec<Value> {
    let mut stream = Stream::open(server, "/events?topic=*&last_event_id=earliest", "application/x-ndjson").await;
    let end = server.publish("t/end", &json!("end")).await;
    let mut events = Vec::new();
    while events.last().is_none_or(|event: &Value| event["id"] != json!(end)) {
        events.push(stream.event().await);
    }
    events
}

fn subjects(log: &[Value]) -> Vec<&str> {
    log.iter().filter_map(|event| event["message"]["subject"].as_str()).collect()
}

#[tokio::test]
async fn senders_are_told_to_come_back_and_nothing_acknowledged_is_lost() {
    let mut small = SmallVolume::start(String::new()).await;
    mail(&small, "before").await.expect("a 250");
    let mut live = Stream::open(&small.server, "/events?topic=t/full", "application/x-ndjson").await;
    let (mut accepted, (status, answer)) = publish_until_refused(&small).await;
    assert!(accepted.len() > 10, "there was space at first: {}", accepted.len());
    small.fill();
    assert_eq!(status, 507, "{answer}");
    assert_eq!(answer["type"], "urn:postrider:problem:no-space");
    assert!(answer["detail"].as_str().is_some_and(|detail| detail.contains("no space")), "{answer}");
    // What was written in vain left some room inside the log's files, which small mails may still use.
    let mut mails = vec!["before".to_owned()];
    let refusal = loop {
        let subject = format!("mail-{:04}", mails.len());
        match mail(&small, &subject).await {
            Ok(_) => mails.push(subject),
            Err(refusal) => break refusal,
        }
        assert!(mails.len() < 1000, "a full volume is full");
    };
    assert!(refusal.contains("452") && refusal.contains("4.3.1"), "{refusal}");
    for n in 0..3 {
        let refusal = mail(&small, &format!("lost-{n:04}")).await.expect_err("no 250");
        assert!(refusal.contains("452") && refusal.contains("4.3.1"), "{refusal}");
        assert_eq!(publish(&small, n).await.expect_err("no ID").0, 507);
    }
    // Those who only read are served.
    for id in &accepted {
        assert_eq!(live.event().await["id"], json!(id));
    }
    let newest = small.server.get("/api/events?limit=1&topic=t/full").send().await.expect("an answer");
    assert_eq!(newest.json::<Value>().await.expect("JSON")["events"][0]["id"], json!(accepted.last()));
    assert_eq!(small.server.child.try_wait().expect("its state"), None, "the process lives");

    small.free();
    // At once, and without a restart.
    assert!(mail(&small, "after").await.is_ok_and(|reply| reply.starts_with("2.0.0")), "there is space again");
    let next = publish(&small, 0).await.expect("an ID");
    assert_eq!(live.event().await["id"], json!(next), "live again, and nothing that was refused came in between");
    accepted.push(next);

    let log = whole_log(&small.server).await;
    mails.push("after".to_owned());
    assert_eq!(subjects(&log), mails, "what was accepted and nothing else");
    let published: Vec<&Value> = log.iter().filter(|e| e["topics"][0] == "t/full").map(|e| &e["id"]).collect();
    assert_eq!(published, accepted.iter().map(|id| json!(id)).collect::<Vec<_>>().iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn watched_mailboxes_wait_and_announce_each_message_once() {
    let dovecot = Dovecot::start();
    let account = format!(
        "[[account]]\nname = \"watched\"\n[account.imap]\nhost = \"127.0.0.1\"\nport = {}\nsecurity = \"none\"\n\
         username = \"alice\"\npassword_command = [\"echo\", \"{}\"]\n",
        dovecot.imap_port,
        support::dovecot::PASSWORD
    );
    let small = SmallVolume::start(format!("[imap]\nretry_first = \"200ms\"\n{account}")).await;
    let status = || async {
        let answer: Value = small.server.get("/api/accounts").send().await.ok()?.json().await.ok()?;
        Some(answer["accounts"][0].clone())
    };
    let connected = || async { (status().await?["state"] == "connected").then_some(()) };
    eventually("the mailbox to be watched", connected).await;
    dovecot.deliver("alice", "Subject: first\r\n\r\ntext\r\n").await;
    eventually("the first message", || async {
        let answer: Value = small.server.get("/api/events?limit=5").send().await.ok()?.json().await.ok()?;
        answer["events"].as_array()?.iter().any(|event| event["message"]["subject"] == "first").then_some(())
    })
    .await;

    publish_until_refused(&small).await;
    small.fill();
    // What the refused event had taken of the log's file before it failed is room for some smaller ones.
    let mut delivered = vec!["first".to_owned()];
    let mut is_full = false;
    while !is_full {
        let subject = format!("later {}", delivered.len());
        dovecot.deliver("alice", &format!("Subject: {subject}\r\n\r\ntext\r\n")).await;
        // The operator can see why nothing comes.
        is_full = eventually("a message, or the account to say that there is no space", || async {
            let status = status().await?;
            if status["reason"].as_str().is_some_and(|why| why.contains("no space left for the event log")) {
                return Some(true);
            }
            let answer: Value = small.server.get("/api/events?limit=5").send().await.ok()?.json().await.ok()?;
            answer["events"].as_array()?.iter().any(|event| event["message"]["subject"] == *subject).then_some(false)
        })
        .await;
        delivered.push(subject);
        assert!(delivered.len() < 500, "it is never full");
    }
    small.free();
    eventually("the account to be well again", || async {
        let status = status().await?;
        (status["state"] == "connected" && status.get("reason").is_none()).then_some(())
    })
    .await;
    dovecot.deliver("alice", "Subject: last\r\n\r\ntext\r\n").await;
    delivered.push("last".to_owned());
    let log = eventually("all messages", || async {
        let log = whole_log(&small.server).await;
        subjects(&log).contains(&"last").then_some(log)
    })
    .await;
    assert_eq!(subjects(&log), delivered);
    let ids: BTreeSet<_> = log.iter().map(|event| event["id"].to_string()).collect();
    assert_eq!(ids.len(), log.len());
}
