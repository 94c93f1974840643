//! Mail that goes on: the real program in the delivery path, in front of another postrider and of a smart host that
//! misbehaves.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use lettre::AsyncTransport;
use lettre::address::Envelope;
use serde_json::{Value, json};
use support::check::Checked;
use support::server::{Options, Server};
use support::smart_host::{Act, SmartHost};
use support::{eventually, within};

const RETRY: &str = "retry_first = \"50ms\"\nretry_max = \"200ms\"\n";

/// Alice, whose mail goes on to bob at the smart host; `more` are lines of `[smtp.forward]`.
fn config(host: &str, more: &str) -> String {
    let (host, port) = host.rsplit_once(':').unwrap();
    let security = if more.contains("security") { "" } else { "security = \"none\"\n" };
    format!(
        "[smtp.forward]\nhost = \"{host}\"\nport = {port}\n{security}{RETRY}{more}\n\
         [[account]]\nname = \"alice\"\naddresses = [\"alice@example.org\"]\nforward = {{ to = [\"bob@b.example\"] }}\n\
         [[account]]\nname = \"carol\"\naddresses = [\"carol@example.org\"]\n"
    )
}

async fn start(config: String, data_dir: Option<&Path>) -> Server {
    Server::with(Options { config, data_dir: data_dir.map(Path::to_owned), ..Options::default() }).await
}

/// Sends as it is; the code of the answer.
async fn send(server: &Server, from: Option<&str>, to: &[&str], message: &str) -> u16 {
    let to = to.iter().map(|to| to.parse().unwrap()).collect();
    let envelope = Envelope::new(from.map(|from| from.parse().unwrap()), to).unwrap();
    match within("an answer", server.mailer().send_raw(&envelope, message.as_bytes())).await {
        Ok(response) => u16::from(response.code()),
        Err(err) => u16::from(err.status().expect("a reply")),
    }
}

/// A message without the end of its last line, which lettre adds.
fn message(id: &str) -> String {
    format!("From: Ada <ada@x.example>\r\nMessage-ID: <{id}@x.example>\r\nSubject: {id}\r\n\r\n.dot\r\n..\r\ngrüße")
}

async fn events(server: &Server, kind: &str) -> Vec<Value> {
    server.whole_log().await.into_iter().filter(|event| event["kind"] == kind).collect()
}

async fn event(server: &Server, kind: &str) -> Value {
    eventually(&format!("an event {kind}"), || async { events(server, kind).await.pop() }).await
}

/// The number of a line of `/metrics`.
async fn metric(server: &Server, name: &str) -> String {
    let told = server.client.get(format!("{}/metrics", server.http)).bearer_auth(&server.token).send().await.unwrap();
    let told = told.text().await.unwrap();
    let line = told.lines().find(|line| line.starts_with(&format!("postrider_{name} ")));
    match line {
        Some(line) => line.rsplit_once(' ').unwrap().1.to_owned(),
        // A result that has not been counted yet.
        None if name.contains('{') => "0".to_owned(),
        None => panic!("{name} in {told}"),
    }
}

#[tokio::test]
async fn mail_goes_on_through_another_postrider_as_it_came() {
    let bob = "[[account]]\nname = \"bob\"\ncontent = \"text\"\naddresses = [\"bob@b.example\"]\n";
    let next = start(bob.to_owned(), None).await;
    let server = start(config(&next.smtp, ""), None).await;
    for _ in 0..2 {
        // The second time as a sender does whose 250 was lost.
        assert_eq!(send(&server, Some("ada@x.example"), &["alice@example.org"], &message("one")).await, 250);
    }
    assert_eq!(send(&server, None, &["carol@example.org", "alice@example.org"], &message("two")).await, 250);
    let two = || async { Some(events(&next, "MessageNew").await).filter(|events| events.len() >= 2) };
    let arrived = eventually("both messages at the next server", two).await;
    let (one, two) = (&arrived[0], &arrived[1]);
    assert_eq!(one["message"]["subject"], "one");
    assert_eq!(one["message"]["text"], ".dot\n..\ngrüße");
    assert_eq!(
        (&one["envelope"]["mail_from"], &one["envelope"]["rcpt_to"]),
        (&json!("ada@x.example"), &json!("bob@b.example"))
    );
    assert_eq!(two["envelope"]["mail_from"], "", "the null reverse-path stays null");
    assert_eq!(events(&server, "MessageNew").await.len(), 3, "and it is an event here all the same");
    let done = || async { (metric(&server, "forward_queue_recipients").await == "0").then_some(()) };
    eventually("the queue to be empty", done).await;
    assert_eq!(metric(&server, "forward_attempts_total{result=\"sent\"}").await, "2");
    assert_eq!(events(&next, "MessageNew").await.len(), 2, "nothing came twice");
}

#[tokio::test]
async fn what_goes_on_says_where_it_was_and_ends_its_lines_with_crlf() {
    let host = SmartHost::start().await;
    let server = start(config(&host.address.to_string(), "mail_from = \"bounces@example.org\""), None).await;
    let sent = "Subject: s\r\n\r\na\nb\n.\nMAIL FROM:<x@y>\n\rend";
    assert_eq!(send(&server, Some("ada@x.example"), &["alice+Lists@example.org"], sent).await, 250);
    let taken = host.takes(1).await.remove(0);
    assert!(taken.text.starts_with("Delivered-To: alice+Lists@example.org\r\nReceived: from "), "{}", taken.text);
    assert_eq!(taken.original(), "Subject: s\r\n\r\na\r\nb\r\n.\r\nMAIL FROM:<x@y>\r\n\r\nend\r\n");
    assert_eq!((taken.mail.as_str(), taken.rcpt.as_str()), ("FROM:<bounces@example.org>", "TO:<bob@b.example>"));
    let message = message("utf8");
    assert_eq!(send(&server, None, &["alice@example.org"], &message).await, 250);
    let taken = host.takes(2).await.remove(1);
    assert_eq!(taken.original(), format!("{message}\r\n"));
    assert_eq!(taken.mail, "FROM:<> BODY=8BITMIME");
}

#[tokio::test]
async fn temporary_refusals_are_tried_again_and_permanent_ones_are_told() {
    let host = SmartHost::start().await;
    let server = start(config(&host.address.to_string(), ""), None).await;
    host.plan(&[
        Act::Rcpt("451 4.7.1 greylisted"),
        Act::Text("452 4.2.2 full"),
        Act::Cut,
        Act::Text("421 4.3.2 going"),
        Act::Rcpt("530 5.7.0 log in first"),
    ]);
    assert_eq!(send(&server, Some("ada@x.example"), &["alice@example.org"], &message("again")).await, 250);
    host.takes(1).await;
    host.plan(&[Act::Rcpt("550 5.1.1 no such\tuser")]);
    assert_eq!(send(&server, Some("ada@x.example"), &["alice@example.org"], &message("never")).await, 250);
    let failed = event(&server, "ForwardFailed").await;
    assert_eq!(failed["reason"], "550 5.1.1 no such user");
    assert_eq!((&failed["data"], &failed["account"]), (&json!({ "to": "bob@b.example" }), &json!("alice")));
    let arrived = events(&server, "MessageNew").await;
    assert_eq!(failed["envelope"], arrived[1]["envelope"], "it says which message it was");
    assert_eq!(failed["topics"], json!(["mail/alice/INBOX"]));
    assert_eq!(metric(&server, "forward_attempts_total{result=\"deferred\"}").await, "5");
    assert_eq!(metric(&server, "forward_attempts_total{result=\"given_up\"}").await, "1");
    assert_eq!(metric(&server, "forward_queue_octets").await, "0");
    assert_eq!(host.taken().len(), 1);
}

#[tokio::test]
async fn a_host_that_refuses_everybody_costs_no_mail() {
    let host = SmartHost::start().await;
    host.greet(Some("554 5.7.1 not you"));
    let server = start(config(&host.address.to_string(), ""), None).await;
    for id in ["one", "two", "three"] {
        assert_eq!(send(&server, Some("ada@x.example"), &["alice@example.org"], &message(id)).await, 250);
    }
    let refused = || async {
        let count: u32 = metric(&server, "forward_attempts_total{result=\"host_failed\"}").await.parse().ok()?;
        (count >= 3).then_some(())
    };
    eventually("some attempts", refused).await;
    assert_eq!(metric(&server, "forward_queue_recipients").await, "3");
    host.greet(None);
    let subjects: BTreeSet<_> = host.takes(3).await.iter().map(|taken| taken.original().to_owned()).collect();
    assert_eq!(subjects.len(), 3);
    assert!(events(&server, "ForwardFailed").await.is_empty());
}

#[tokio::test]
async fn mail_is_given_up_when_its_time_is_over() {
    let host = SmartHost::start().await;
    host.greet(Some("554 5.7.1 not you"));
    let server = start(config(&host.address.to_string(), "give_up_after = \"1s\""), None).await;
    assert_eq!(send(&server, Some("ada@x.example"), &["alice@example.org"], &message("old")).await, 250);
    let failed = event(&server, "ForwardFailed").await;
    assert!(failed["reason"].as_str().unwrap().starts_with("not taken within 1s"), "{failed}");
    assert_eq!(metric(&server, "forward_queue_recipients").await, "0");
}

#[tokio::test]
async fn kill_9_before_it_has_gone_on_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // Nobody listens there yet.
    let address: SocketAddr = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap()
    };
    let mut server = start(config(&address.to_string(), ""), Some(&data)).await;
    let ids: Vec<String> = (0..20).map(|n| format!("killed-{n}")).collect();
    for id in &ids {
        assert_eq!(send(&server, Some("ada@x.example"), &["alice@example.org"], &message(id)).await, 250);
    }
    server.kill().await;
    let host = SmartHost::at(address, None).await;
    // The first answer is lost to a second kill: what it was about comes again, with the same Message-ID.
    host.plan(&[Act::Hold, Act::Hold, Act::Hold, Act::Hold]);
    let mut server = start(config(&address.to_string(), ""), Some(&data)).await;
    eventually("texts at the host", || async { (host.begun() >= 1).then_some(()) }).await;
    server.kill().await;
    (0..4).for_each(|_| host.release());
    let server = start(config(&address.to_string(), ""), Some(&data)).await;
    let all = || async {
        let seen: BTreeSet<String> = host.taken().iter().map(|taken| id_of(taken.original())).collect();
        (seen.len() == ids.len()).then_some(seen)
    };
    let seen = eventually("all messages at the host", all).await;
    assert_eq!(seen, ids.iter().cloned().collect());
    let done = || async { (metric(&server, "forward_queue_recipients").await == "0").then_some(()) };
    eventually("the queue to be empty", done).await;
    assert!(host.taken().len() <= ids.len() + 4, "only what was under way came twice: {}", host.taken().len());
}

fn id_of(message: &str) -> String {
    let (_, rest) = message.split_once("Message-ID: <").unwrap();
    rest.split_once('@').unwrap().0.to_owned()
}

#[tokio::test]
async fn sigterm_lets_what_is_under_way_end() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let host = SmartHost::start().await;
    host.plan(&[Act::Hold]);
    let mut server = start(config(&host.address.to_string(), ""), Some(&data)).await;
    assert_eq!(send(&server, Some("ada@x.example"), &["alice@example.org"], &message("last")).await, 250);
    eventually("the text at the host", || async { (host.begun() == 1).then_some(()) }).await;
    let (code, ()) = tokio::join!(server.terminate(), async { host.release() });
    assert_eq!(code, Some(0));
    let server = start(config(&host.address.to_string(), ""), Some(&data)).await;
    assert_eq!(metric(&server, "forward_queue_recipients").await, "0");
    assert_eq!(host.taken().len(), 1, "what was taken is not sent again");
}

#[tokio::test]
async fn two_that_forward_to_each_other_stop() {
    let both = |account: &str, own: &str, other: &str, port: &str| {
        format!(
            "[smtp.forward]\nhost = \"127.0.0.1\"\nport = {port}\nsecurity = \"none\"\n{RETRY}\
             [[account]]\nname = \"{account}\"\naddresses = [\"{own}\"]\nforward = {{ to = [\"{other}\"] }}\n"
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let errors = folder.path().join("errors");
    let second_port = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().port().to_string()
    };
    let first = start(both("a", "a@a.example", "b@b.example", &second_port), None).await;
    let first_port = first.smtp.rsplit_once(':').unwrap().1;
    let listener = format!("[[smtp.listener]]\nrole = \"smtp\"\nlisten = \"127.0.0.1:{second_port}\"\n");
    let second = Server::with(Options {
        config: format!("{listener}{}", both("b", "b@b.example", "a@a.example", first_port)),
        errors: Some(errors.clone()),
        ..Options::default()
    })
    .await;
    assert_eq!(send(&first, Some("ada@x.example"), &["a@a.example"], &message("round")).await, 250);
    let failed = event(&second, "ForwardFailed").await;
    assert!(failed["reason"].as_str().unwrap().starts_with("554 5.4.6"), "{failed}");
    assert_eq!((events(&first, "MessageNew").await.len(), events(&second, "MessageNew").await.len()), (1, 1));
    for server in [&first, &second] {
        let done = || async { (metric(server, "forward_queue_recipients").await == "0").then_some(()) };
        eventually("the queue to be empty", done).await;
    }
    let said = std::fs::read_to_string(&errors).unwrap();
    assert!(said.contains("given up") && said.contains("554 5.4.6"), "{said}");
}

#[tokio::test]
async fn a_loop_of_one_recipient_does_not_keep_the_message_from_the_others() {
    let host = SmartHost::start().await;
    let server = start(config(&host.address.to_string(), ""), None).await;
    let came_back = format!("Delivered-To: Alice@example.org\r\n{}", message("back"));
    assert_eq!(send(&server, Some("ada@x.example"), &["alice@example.org"], &came_back).await, 554);
    assert_eq!(
        send(&server, Some("ada@x.example"), &["alice@example.org", "carol@example.org"], &came_back).await,
        250
    );
    let failed = event(&server, "ForwardFailed").await;
    assert!(failed["reason"].as_str().unwrap().contains("round in circles"), "{failed}");
    assert_eq!(events(&server, "MessageNew").await.len(), 2);
    assert!(host.taken().is_empty());
}

#[tokio::test]
async fn a_full_queue_tells_senders_to_come_back_later() {
    let host = SmartHost::start().await;
    host.greet(Some("421 4.3.2 not now"));
    let server = start(config(&host.address.to_string(), "queue_max = 2"), None).await;
    for (id, code) in [("one", 250), ("two", 250), ("three", 452)] {
        assert_eq!(send(&server, Some("ada@x.example"), &["alice@example.org"], &message(id)).await, code, "{id}");
    }
    assert_eq!(send(&server, Some("ada@x.example"), &["carol@example.org"], &message("three")).await, 250);
    assert_eq!(events(&server, "MessageNew").await.len(), 3, "no event without its message");
    host.greet(None);
    host.takes(2).await;
    let taken = || async {
        let code = send(&server, Some("ada@x.example"), &["alice@example.org"], &message("three")).await;
        (code == 250).then_some(())
    };
    eventually("room for the third", taken).await;
    host.takes(3).await;
}

#[tokio::test]
async fn tls_with_a_company_s_authority_and_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, password) = (folder.path().join("ca.pem"), folder.path().join("password"));
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&ca, own.cert.pem()).unwrap();
    std::fs::write(&password, "wrong\n").unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let settings = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key.into())
        .unwrap();
    let host = SmartHost::at("127.0.0.1:0".parse().unwrap(), Some(std::sync::Arc::new(settings).into())).await;
    let more = |ca: &str| {
        let password = password.display();
        format!("security = \"tls\"\nusername = \"ada\"\npassword_file = \"{password}\"\n{ca}")
    };
    let trusting = more(&format!("ca_file = \"{}\"", ca.display()));
    let address = format!("localhost:{}", host.address.port());

    let (code, told) = Checked::new().check(&config(&address, &more(""))).await;
    assert!(code == Some(69) && told.contains("smart host") && told.contains("certificate"), "{told}");
    let (code, told) = Checked::new().check(&config(&address, &trusting)).await;
    assert!(code == Some(69) && told.contains("logging in: 535"), "{told}");

    let server = start(config(&address, &trusting), None).await;
    assert_eq!(send(&server, Some("ada@x.example"), &["alice@example.org"], &message("tls")).await, 250);
    eventually("a login", || async { (host.credentials().len() >= 2).then_some(()) }).await;
    std::fs::write(&password, "right\n").unwrap();
    host.takes(1).await;
    let (code, told) = Checked::new().check(&config(&address, &trusting)).await;
    assert!(code == Some(0) && told.contains("answers with TLS, logged in as ada"), "{told}");
    assert!(!told.contains("right"), "{told}");
}

#[tokio::test]
async fn starttls_is_done_or_nothing_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&certificate, own.cert.pem()).unwrap();
    std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
    let (file, key) = (certificate.display(), key.display());
    let next = start(
        format!(
            "[smtp]\ntls_certificate_file = \"{file}\"\ntls_key_file = \"{key}\"\n\
             [[account]]\nname = \"bob\"\naddresses = [\"bob@b.example\"]\n"
        ),
        None,
    )
    .await;
    let more = format!("security = \"starttls\"\nca_file = \"{file}\"\n");
    let address = format!("localhost:{}", next.smtp.rsplit_once(':').unwrap().1);
    let server = start(config(&address, &more), None).await;
    assert_eq!(send(&server, Some("ada@x.example"), &["alice@example.org"], &message("safe")).await, 250);
    assert_eq!(event(&next, "MessageNew").await["message"]["subject"], "safe");
    let (_, told) = Checked::new().check(&config(&address, &more)).await;
    assert!(told.contains("answers with TLS"), "{told}");

    let without = SmartHost::start().await;
    let address = format!("localhost:{}", without.address.port());
    let server = start(config(&address, &more), None).await;
    assert_eq!(send(&server, Some("ada@x.example"), &["alice@example.org"], &message("clear")).await, 250);
    let refused = || async {
        let count = metric(&server, "forward_attempts_total{result=\"host_failed\"}").await;
        (count != "0").then_some(())
    };
    eventually("an attempt", refused).await;
    assert_eq!((without.begun(), metric(&server, "forward_queue_recipients").await.as_str()), (0, "1"));
}

/// Larger than what is kept in memory while it comes in.
#[tokio::test]
async fn a_large_message_goes_on_octet_for_octet() {
    let host = SmartHost::start().await;
    let server = start(config(&host.address.to_string(), ""), None).await;
    let body: String = (0..200_000)
        .map(|n| format!("{}line {n} grüße\r\n", if n % 7 == 0 { "." } else { "" }))
        .collect::<Vec<_>>()
        .concat();
    let sent = format!("{}\r\n{body}end", message("large"));
    assert!(sent.len() > 3 << 20);
    assert_eq!(send(&server, Some("ada@x.example"), &["alice@example.org"], &sent).await, 250);
    let taken = host.takes(1).await.remove(0);
    assert!(taken.original().strip_suffix("\r\n") == Some(&sent), "it is another message");
}
