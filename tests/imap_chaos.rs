//! Everything goes wrong at once: connections are cut in the middle of an answer, the process is killed, Dovecot is
//! restarted, and mail goes on coming. In the end each message that is in the mailbox was announced exactly once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use support::dovecot::{Dovecot, PASSWORD};
use support::proxy::Proxy;
use support::server::{Options, Server};
use support::{PATIENCE, eventually, lmtp};

const DELIVERIES: usize = 200;
const KILLS: usize = 20;
const RESTARTS: usize = 5;
/// Longest pause between two incidents, in milliseconds.
const PAUSE_MS: u64 = 2000;
/// Between two deliveries, so that mail comes during all incidents.
const PAUSE_MEAN_MS: u64 = PAUSE_MS / 2 * (KILLS + RESTARTS) as u64 / DELIVERIES as u64;

/// What goes wrong besides the network.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Incident {
    Kill,
    Restart,
}

/// `CHAOS_SEED` repeats the same incidents, cuts and pauses; the moments at which they meet remain the machine's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_is_announced_once_whatever_breaks() {
    let seed = std::env::var("CHAOS_SEED").map_or_else(|_| rand::random(), |text| text.parse().expect("a number"));
    println!("CHAOS_SEED={seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let (dovecot, folder) = (Dovecot::start(), tempfile::tempdir().expect("a folder"));
    let proxy = Proxy::start(dovecot.imap_port).await;
    let mut server = start(folder.path(), &proxy).await;
    // The first sight of a mailbox announces nothing: what is delivered from here on must be announced.
    eventually("the mailbox to be watched", || async { is_watched(&server).await.then_some(()) }).await;

    proxy.cut_at_random(chance.random());
    let (pauses, incidents) = (StdRng::seed_from_u64(chance.random()), shuffled(&mut chance));
    tokio::join!(deliver_all(&dovecot, pauses), async {
        for incident in incidents {
            // Left to chance: the moment at which it goes wrong.
            tokio::time::sleep(Duration::from_millis(chance.random_range(0..PAUSE_MS))).await;
            if incident == Incident::Kill {
                server.kill().await;
                server = start(folder.path(), &proxy).await;
            } else {
                tokio::task::block_in_place(|| {
                    dovecot.stop();
                    dovecot.start_again();
                });
            }
        }
    });
    proxy.calm_down();

    let expected = mailbox(&dovecot).await;
    let deadline = Instant::now() + PATIENCE / 2;
    let announced = eventually("the log", || async {
        let announced = announced(&server.whole_log().await);
        (announced.len() >= expected.len() || Instant::now() > deadline).then_some(announced)
    })
    .await;
    println!("{} messages, {} cuts, {KILLS} kills, {RESTARTS} restarts", expected.len(), proxy.cuts());
    assert!(expected.len() >= DELIVERIES);
    assert!(proxy.cuts() >= 10, "the network was bad: {} cuts", proxy.cuts());
    let wrong: Vec<_> = announced.iter().filter(|(_, count)| **count != 1).collect();
    assert!(wrong.is_empty(), "announced more than once: {wrong:?}");
    let missing: Vec<_> = expected.keys().filter(|message| !announced.contains_key(message)).collect();
    assert!(missing.is_empty(), "never announced: {missing:?}");
    assert_eq!(announced.len(), expected.len(), "nothing else was announced: {announced:?}");
}

async fn start(folder: &Path, proxy: &Proxy) -> Server {
    let config = format!(
        "[imap]\nretry_first = \"200ms\"\nretry_max = \"500ms\"\n\
         [[account]]\nname = \"watched\"\n[account.imap]\nhost = \"127.0.0.1\"\nport = {}\nsecurity = \"none\"\n\
         username = \"alice\"\npassword_command = [\"echo\", \"{PASSWORD}\"]\n",
        proxy.port
    );
    Server::with(Options { data_dir: Some(folder.join("data")), config, ..Options::default() }).await
}

async fn is_watched(server: &Server) -> bool {
    let Ok(response) = server.get("/api/accounts").send().await else { return false };
    let answer: Value = response.json().await.unwrap_or_default();
    answer["accounts"][0]["state"] == "connected"
}

fn shuffled(chance: &mut StdRng) -> Vec<Incident> {
    let mut incidents = vec![Incident::Kill; KILLS];
    incidents.resize(KILLS + RESTARTS, Incident::Restart);
    incidents.shuffle(chance);
    incidents
}

/// Delivers until so many were acknowledged. One that was not, because Dovecot ended, may be in the mailbox or not.
async fn deliver_all(dovecot: &Dovecot, mut chance: StdRng) {
    let (mut delivered, mut tried) = (0, 0);
    while delivered < DELIVERIES {
        tried += 1;
        let mail = format!("From: a@example.org\nSubject: mail {tried}\nMessage-ID: <{tried}@example.org>\n\ntext\n");
        delivered += usize::from(lmtp::try_deliver(dovecot.lmtp_port, "alice", &mail).await.is_ok());
        // Left to chance as well: single messages and bursts.
        if chance.random() {
            tokio::time::sleep(Duration::from_millis(chance.random_range(0..4 * PAUSE_MEAN_MS))).await;
        }
    }
}

/// UID and subject of all messages in the mailbox.
async fn mailbox(dovecot: &Dovecot) -> BTreeMap<(u64, String), usize> {
    let listed = dovecot.doveadm(&["-f", "tab", "fetch", "-u", "alice", "uid hdr.subject", "mailbox", "INBOX"]).await;
    let lines = listed.lines().skip(1).map(|line| line.split_once('\t').expect("two columns"));
    lines.map(|(uid, subject)| ((uid.parse().expect("a UID"), subject.to_owned()), 1)).collect()
}

/// How often each message was announced.
fn announced(log: &[Value]) -> BTreeMap<(u64, String), usize> {
    let mut counted = BTreeMap::new();
    for event in log.iter().filter(|event| event["kind"] == "MessageNew") {
        let subject = event["message"]["subject"].as_str().expect("a subject").to_owned();
        *counted.entry((event["uid"].as_u64().expect("a UID"), subject)).or_default() += 1;
    }
    counted
}
