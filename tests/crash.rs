//! SIGKILL at random moments under load: what was acknowledged is in the log exactly once, and a subscriber that
//! resumes misses nothing and sees nothing twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lettre::address::Envelope;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use serde_json::Value;
use support::dovecot::Dovecot;
use support::server::{Options, Server};
use support::{eventually, within};
use tokio::sync::watch;
use tokio::task::JoinSet;

const KILLS: usize = 50;
/// Lives in which the IMAP watcher was under way, at least; on a slow machine that may take more kills.
const WATCHED_LIVES: usize = 20;
const KILLS_MAX: usize = 200;
const SENDERS: usize = 4;
/// Longest life of the process before it is killed, in milliseconds.
const LIFE_MS: u64 = 400;

/// Where the process of the moment listens; none while there is none.
#[derive(Clone, Default)]
struct Addresses {
    http: String,
    smtp: String,
    token: String,
}

type Now = watch::Receiver<Option<Addresses>>;

/// Subjects of what was acknowledged: by a 250, or by Dovecot's delivery.
type Acknowledged = Arc<Mutex<BTreeSet<String>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_nothing_and_repeats_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let dovecot = Arc::new(Dovecot::start());
    // The first sight of a mailbox announces nothing: what is delivered from here on must be announced.
    let mut first = start(folder.path(), &dovecot).await;
    eventually("the mailbox to be watched", || async { is_watched(&first).await.then_some(()) }).await;
    first.kill().await;
    let (announce, now) = watch::channel(None);
    let (finish, finished) = watch::channel(false);
    let acknowledged = Acknowledged::default();
    let mut load = JoinSet::new();
    for sender in 0..SENDERS {
        load.spawn(send_mail(sender, now.clone(), finished.clone(), acknowledged.clone()));
    }
    load.spawn(deliver_mail(dovecot.clone(), finished.clone(), acknowledged.clone()));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut subscriber = JoinSet::new();
    subscriber.spawn(follow(now.clone(), seen.clone()));

    let (mut kills, mut watched_lives) = (0, 0);
    while kills < KILLS || (watched_lives < WATCHED_LIVES && kills < KILLS_MAX) {
        kills += 1;
        let mut server = start(folder.path(), &dovecot).await;
        announce.send_replace(Some(addresses(&server)));
        // The one thing in the tests that is left to chance: the moment of death.
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..LIFE_MS))).await;
        if is_watched(&server).await {
            watched_lives += 1;
        }
        announce.send_replace(None);
        server.kill().await;
    }
    let server = start(folder.path(), &dovecot).await;
    announce.send_replace(Some(addresses(&server)));
    finish.send_replace(true);
    within("the load to end", async { while load.join_next().await.is_some() {} }).await;
    let acknowledged = acknowledged.lock().expect("no panic").clone();
    eventually("the subscriber to have seen everything", || async {
        let seen = subjects(&seen.lock().expect("no panic"));
        acknowledged.iter().all(|subject| seen.contains_key(subject)).then_some(())
    })
    .await;
    subscriber.shutdown().await;

    let log = server.whole_log().await;
    let seen = seen.lock().expect("no panic").clone();
    let by_kind = |prefix: &str| acknowledged.iter().filter(|subject| subject.starts_with(prefix)).count();
    println!(
        "{kills} kills ({watched_lives} with IMAP watched): {} mails by SMTP and {} by IMAP acknowledged, {} events",
        by_kind("smtp"),
        by_kind("imap"),
        log.len()
    );
    assert!(by_kind("smtp") > KILLS && by_kind("imap") > KILLS / 2, "there was load");
    assert!(watched_lives >= WATCHED_LIVES, "the watcher was under way in {watched_lives} of {kills} lives");
    let counted = subjects(&log);
    for subject in &acknowledged {
        assert_eq!(counted.get(subject), Some(&1), "{subject} is in the log exactly once");
    }
    let repeated: Vec<_> = counted.iter().filter(|(_, count)| **count != 1).collect();
    assert!(repeated.is_empty(), "{repeated:?}");
    assert_eq!(ids(&log).into_iter().collect::<BTreeSet<_>>().len(), log.len(), "no event ID is there twice");
    // The subscriber may have been behind with events that are not mail, such as AccountUp, when it was stopped.
    assert_eq!(ids(&seen), ids(&log)[..seen.len()], "the subscriber saw the log's order, without gap or repeat");
}

async fn start(folder: &std::path::Path, dovecot: &Dovecot) -> Server {
    // A slow machine is killed again before it watches while Dovecot takes hundreds of mails: all are to be announced.
    let imap = "[imap]\nretry_first = \"200ms\"\ncatch_up_max = 100000\n";
    let config = format!("[smtp]\nlocal_domains = [\"localhost\"]\n{imap}{}", account(dovecot));
    Server::with(Options { data_dir: Some(folder.join("data")), config, ..Options::default() }).await
}

/// Alice's INBOX as account `watched`.
fn account(dovecot: &Dovecot) -> String {
    format!(
        "[[account]]\nname = \"watched\"\n[account.imap]\nhost = \"127.0.0.1\"\nport = {}\nsecurity = \"none\"\n\
         username = \"alice\"\npassword_command = [\"echo\", \"{}\"]\n",
        dovecot.imap_port,
        support::dovecot::PASSWORD
    )
}

fn addresses(server: &Server) -> Addresses {
    Addresses { http: server.http.clone(), smtp: server.smtp.clone(), token: server.token.clone() }
}

async fn is_watched(server: &Server) -> bool {
    let Ok(response) = server.get("/api/accounts").send().await else { return false };
    let answer: Value = response.json().await.unwrap_or_default();
    answer["accounts"][0]["state"] == "connected"
}

/// Waits for a process to talk to; none when all is over.
async fn current(now: &mut Now, finished: &watch::Receiver<bool>) -> Option<Addresses> {
    loop {
        let addresses = now.borrow_and_update().clone();
        if addresses.is_some() {
            return addresses;
        }
        if *finished.borrow() || now.changed().await.is_err() {
            return None;
        }
    }
}

/// Sends one mail after the other, each until it is accepted, as a mail server does.
async fn send_mail(sender: usize, mut now: Now, finished: watch::Receiver<bool>, acknowledged: Acknowledged) {
    let envelope = Envelope::new(
        Some("sender@example.org".parse().expect("an address")),
        vec![format!("user{sender}@localhost").parse().expect("an address")],
    )
    .expect("an envelope");
    let mut number = 0;
    while !*finished.borrow() {
        number += 1;
        let subject = format!("smtp-{sender}-{number}");
        let mail = format!(
            "From: sender@example.org\r\nMessage-ID: <{subject}@example.org>\r\nSubject: {subject}\r\n\r\ntext\r\n"
        );
        loop {
            let Some(addresses) = current(&mut now, &finished).await else { return };
            let (host, port) = addresses.smtp.rsplit_once(':').expect("an address");
            let mailer = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
                .port(port.parse().expect("a port"))
                .timeout(Some(Duration::from_secs(10)))
                .build();
            if mailer.send_raw(&envelope, mail.as_bytes()).await.is_ok() {
                acknowledged.lock().expect("no panic").insert(subject);
                break;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Delivers to the watched mailbox, whatever postrider does.
async fn deliver_mail(dovecot: Arc<Dovecot>, finished: watch::Receiver<bool>, acknowledged: Acknowledged) {
    let mut number = 0;
    while !*finished.borrow() {
        number += 1;
        let subject = format!("imap-{number}");
        dovecot.deliver("alice", &format!("From: a@example.org\r\nSubject: {subject}\r\n\r\ntext\r\n")).await;
        acknowledged.lock().expect("no panic").insert(subject);
    }
}

/// Subscribes to everything, and again after the last event that it saw whenever the stream ends.
async fn follow(mut now: Now, seen: Arc<Mutex<Vec<Value>>>) {
    let (_never, finished) = watch::channel(false);
    let client = reqwest::Client::new();
    loop {
        let Some(addresses) = current(&mut now, &finished).await else { return };
        let last = seen.lock().expect("no panic").last().map_or("earliest".to_owned(), id);
        let request = client
            .get(format!("{}/events?topic=*&last_event_id={last}", addresses.http))
            .header("accept", "application/x-ndjson")
            .bearer_auth(&addresses.token);
        let Ok(mut response) = request.send().await else {
            tokio::task::yield_now().await;
            continue;
        };
        assert_eq!(response.headers()["last-event-id"], last.as_str(), "nothing was lost in between");
        let mut buffer = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            buffer.extend_from_slice(&chunk);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                // A line that a kill cut short never has its end: what has one is whole.
                let Ok(value) = serde_json::from_slice::<Value>(&line) else { continue };
                if value.get("control").is_none() {
                    seen.lock().expect("no panic").push(value);
                }
            }
        }
    }
}

fn id(event: &Value) -> String {
    event["id"].as_str().expect("an ID").to_owned()
}

fn ids(events: &[Value]) -> Vec<String> {
    events.iter().map(id).collect()
}

/// How often each message was announced, by subject.
fn subjects(events: &[Value]) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for subject in events.iter().filter_map(|event| event["message"]["subject"].as_str()) {
        *counted.entry(subject.to_owned()).or_default() += 1;
    }
    counted
}
