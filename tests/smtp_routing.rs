//! Which mail reaches whom, in the real program: patterns, routes, secrets, and what a reload changes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test's own functions")]

mod support;

use std::fs;

use lettre::address::Envelope;
use lettre::{AsyncTransport, Tokio1Executor};
use serde_json::Value;
use support::server::{Options, Server};
use support::{eventually, within};

const SECRET: &str = "0123456789abcdefSECRET";

/// Sends a message whose `To` is its recipient too; the code of the answer.
async fn send(server: &Server, to: &str) -> u16 {
    let transport: lettre::AsyncSmtpTransport<Tokio1Executor> = server.mailer();
    let envelope = Envelope::new(Some("ada@x.example".parse().unwrap()), vec![to.parse().unwrap()]).unwrap();
    let message = format!("From: ada@x.example\r\nTo: {to}\r\nCc: Alice <{to}>\r\nSubject: to {to}\r\n\r\ntext\r\n");
    match within("an answer", transport.send_raw(&envelope, message.as_bytes())).await {
        Ok(response) => u16::from(response.code()),
        Err(err) => u16::from(err.status().expect("a reply")),
    }
}

#[tokio::test]
async fn recipients_lead_to_accounts_mailboxes_and_topics() {
    let config = r#"
[[smtp.route]]
match = "*.alerts@example.org"
account = "ops"
mailbox = "Alerts"
topics = ["hosts/$1", "alerts"]
[[smtp.route]]
regex = '(?<app>[a-z]+)-(?<id>\d+)@apps\.example'
account = "ops"
mailbox = "Apps/$app"
[[account]]
name = "ops"
addresses = ["ops@example.org", "on-*@example.org"]
[[account]]
name = "rest"
addresses = ["@example.net"]
"#;
    let server = Server::with(Options { config: config.to_owned(), ..Options::default() }).await;
    for (to, code) in [
        ("ops+Lists@example.org", 250),
        ("on-call@example.org", 250),
        ("Web.Alerts@example.org", 250),
        ("shop-17@apps.example", 250),
        ("whoever@example.net", 250),
        ("nobody@example.org", 550),
        ("shop-x@apps.example", 550),
    ] {
        assert_eq!(send(&server, to).await, code, "{to}");
    }
    let log = server.whole_log().await;
    let topics: Vec<Value> = log.iter().map(|event| event["topics"].clone()).collect();
    let wanted = serde_json::json!([
        ["mail/ops/Lists"],
        ["mail/ops/INBOX"],
        ["mail/ops/Alerts", "hosts/Web", "alerts"],
        ["mail/ops/Apps%2Fshop"],
        ["mail/rest/INBOX"]
    ]);
    assert_eq!(Value::from(topics), wanted);
    let token = server.token_for(&["--subscribe", "hosts/Web"]).await;
    let path = |topic: &str| format!("{}/events?topic={topic}&last_event_id=earliest&transport=poll", server.http);
    let seen = async |topic: &str| {
        let answer = server.client.get(path(topic)).bearer_auth(&token).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["events"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(seen("hosts/Web").await, 1, "whoever may see the topic sees the mail on it");
    assert_eq!(seen("mail/ops/Lists").await, 0, "and no other mail");
}

#[tokio::test]
async fn a_secret_is_needed_and_shown_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let (secret, errors) = (folder.path().join("secret"), folder.path().join("errors"));
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let config = format!(
        "[[account]]\nname = \"alice\"\naddresses = [\"alice@example.org\"]\naddress_secret_file = \"{}\"\n",
        secret.display()
    );
    let environment = vec![("POSTRIDER_LOG__FILTER".to_owned(), "trace".to_owned())];
    let options = Options { config, errors: Some(errors.clone()), environment, ..Options::default() };
    let server = Server::with(options).await;
    for (to, code) in [
        ("alice@example.org".to_owned(), 550),
        ("alice+0123456789abcdefsecreT0@example.org".to_owned(), 550),
        (format!("alice+{SECRET}@example.org"), 250),
        (format!("alice+Lists.{}@example.org", SECRET.to_lowercase()), 250),
    ] {
        assert_eq!(send(&server, &to).await, code, "{to}");
    }
    let log = server.whole_log().await;
    let envelope = |event: &Value| event["envelope"]["rcpt_to"].clone();
    assert_eq!(log.iter().map(envelope).collect::<Vec<_>>(), ["alice@example.org", "alice+Lists@example.org"]);
    for event in &log {
        let (to, cc) = (&event["message"]["to"], &event["message"]["cc"]);
        assert!(!format!("{to}{cc}").to_lowercase().contains("secret"), "{event}");
    }
    let said = fs::read_to_string(&errors).unwrap();
    assert!(said.contains("message committed"), "the log was read at all");
    assert!(!said.to_lowercase().contains(&SECRET.to_lowercase()), "{said}");
}

#[tokio::test]
async fn a_reload_changes_who_gets_mail() {
    let alice = "[[account]]\nname = \"alice\"\naddresses = [\"alice@example.org\"]\n";
    let bob = "[[account]]\nname = \"bob\"\naddresses = [\"b-*@example.org\"]\n";
    let route = "[[smtp.route]]\nmatch = \"@example.net\"\naccount = \"bob\"\n";
    let folder = tempfile::tempdir().unwrap();
    let errors = folder.path().join("errors");
    let options = Options { config: alice.to_owned(), errors: Some(errors.clone()), ..Options::default() };
    let server = Server::with(options).await;
    let reload = async |text: String| {
        fs::write(&server.config, text).unwrap();
        server.signal("HUP").await;
    };
    let becomes = async |to: &str, code: u16| {
        eventually(&format!("{code} for {to}"), || async { (send(&server, to).await == code).then_some(()) }).await;
    };
    assert_eq!((send(&server, "alice@example.org").await, send(&server, "b-1@example.org").await), (250, 550));
    reload(format!("{bob}{route}")).await;
    becomes("b-1@example.org", 250).await;
    assert_eq!((send(&server, "alice@example.org").await, send(&server, "x@example.net").await), (550, 250));
    // A contradiction leaves everything as it was.
    reload(format!("{bob}{route}{route}")).await;
    let refused = || async {
        let said = fs::read_to_string(&errors).unwrap();
        (said.contains("not reloaded") && said.contains("both take `@example.net`")).then_some(())
    };
    eventually("the contradiction to be told", refused).await;
    assert_eq!(send(&server, "x@example.net").await, 250);
    reload(alice.to_owned()).await;
    becomes("alice@example.org", 250).await;
    assert_eq!(send(&server, "x@example.net").await, 550);
    assert!(!fs::read_to_string(&errors).unwrap().contains("need a restart"), "nothing of this needs one");
}
