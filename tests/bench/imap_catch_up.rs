//! What it costs to learn of 15 changes in a mailbox of 100,000 messages: `cargo bench --bench imap_catch_up`.
//!
//! Dovecot, with QRESYNC. While nobody watches, another mail reader marks 10 messages as read and expunges 5. Then the
//! watcher starts again; counted is what the server sends, and how long it takes, from the end of the login until the
//! watcher idles. The bytes are counted by a proxy in between, which costs some microseconds. Median of some runs.
//! Dovecot reads the whole folder again when a maildir was just changed; that is waited for, since it costs whoever
//! opens the mailbox first, however that is done.
//! Beside it: what `UID FETCH 1:* (FLAGS)` would have been, the way to find the same without QRESYNC.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a benchmark")]

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::time::{Duration, Instant};

use postrider::event::{Draft, EventKind};
use postrider::registry::Account;
use support::dovecot::Dovecot;
use support::eventually;
use support::mail_server::account;
use support::owner::Owner;
use support::proxy::{Passed, Proxy};
use support::raw_imap::RawImap;
use support::watching::{Watching, config};

const MESSAGES: u32 = 100_000;
const RUNS: u32 = 7;
const READ: u32 = 10;
const EXPUNGED: u32 = 5;
/// Opening a mailbox whose folder need not be read again is faster than that; reading takes about a second.
const SETTLED: Duration = Duration::from_millis(100);
/// A file has at most 65,000 names on ext4.
const NAMES_MAX: u32 = 10_000;

#[tokio::main]
async fn main() {
    let dovecot = Dovecot::start();
    fill(&dovecot, "alice");
    let mut reader = RawImap::login(dovecot.imap_port, "alice").await;
    let opening = Instant::now();
    reader.command("SELECT INBOX").await;
    println!("{MESSAGES} messages; Dovecot opened the mailbox for the first time in {:?}", opening.elapsed());
    let whole = reader.command("UID FETCH 1:* (FLAGS)").await;
    println!("UID FETCH 1:* (FLAGS): {} bytes", whole.iter().map(|line| line.len() + 2).sum::<usize>());

    let proxy = Proxy::start(dovecot.imap_port).await;
    let (accounts, folder) = ([account(proxy.port, "alice", &["INBOX"])], tempfile::tempdir().expect("a folder"));
    let seeding = Instant::now();
    Watching::started(folder.path(), &accounts, config()).await.stop().await;
    println!("first sight by postrider: {:?}", seeding.elapsed());

    let mut runs = Vec::new();
    for run in 0..RUNS {
        change(&mut reader, run).await;
        settle(&dovecot).await;
        drop(proxy.transcript());
        catch_up(folder.path(), &accounts).await;
        let run = Run::of(&proxy.transcript());
        println!("{} bytes in {:.2} ms: {}", run.bytes, run.ms(), run.commands.join(" | "));
        runs.push(run);
    }
    runs.sort_by_key(|run| run.bytes);
    let bytes = runs[runs.len() / 2].bytes;
    runs.sort_by_key(|run| run.time);
    println!("median: {bytes} bytes (goal: 2048), {:.2} ms (goal: 20)", runs[runs.len() / 2].ms());
}

/// Makes the mailbox by hard links, as if all messages had been there for long.
fn fill(dovecot: &Dovecot, user: &str) {
    let (maildir, owner) = (dovecot.maildir(user), Owner::find());
    for folder in ["", "tmp", "new", "cur"] {
        fs::create_dir_all(maildir.join(folder)).expect("a folder");
        owner.give(&maildir.join(folder));
    }
    owner.give(maildir.parent().expect("a home"));
    let message = "From: Ada <ada@example.org>\nSubject: one of many\n\nHello\n";
    for number in 0..MESSAGES {
        let name =
            |number: u32| maildir.join(format!("cur/{}.M0P1.localhost,S={}:2,", 1_700_000_000 + number, message.len()));
        let first = number - number % NAMES_MAX;
        if number == first {
            fs::write(name(first), message).expect("a message");
            owner.give(&name(first));
        } else {
            fs::hard_link(name(first), name(number)).expect("a link");
        }
    }
}

/// Changes 15 messages, scattered over the mailbox, others in each run.
async fn change(reader: &mut RawImap, run: u32) {
    let step = MESSAGES / (READ + EXPUNGED);
    let uids = |from: u32, count: u32| {
        let uids: Vec<String> = (from..from + count).map(|number| (number * step + run + 1).to_string()).collect();
        uids.join(",")
    };
    reader.command(&format!("UID STORE {} +FLAGS.SILENT (\\Seen)", uids(0, READ))).await;
    reader.expunge(&uids(READ, EXPUNGED)).await;
}

/// Waits until Dovecot opens the mailbox without reading its folder.
async fn settle(dovecot: &Dovecot) {
    eventually("Dovecot to have read its folder", || async {
        let mut reader = RawImap::login(dovecot.imap_port, "alice").await;
        let opening = Instant::now();
        reader.command("EXAMINE INBOX").await;
        (opening.elapsed() < SETTLED).then_some(())
    })
    .await;
}

/// Watches until all changes were told.
async fn catch_up(folder: &std::path::Path, accounts: &[Account]) {
    let mut watching = Watching::start(folder, accounts, config());
    let (mut read, mut expunged, mut up) = (0, 0, false);
    while read < READ || expunged < EXPUNGED || !up {
        let event = watching.event().await.draft;
        match event.kind {
            EventKind::MessageRead => read += messages(&event),
            EventKind::MessageExpunge => expunged += messages(&event),
            EventKind::AccountUp => up = true,
            other => panic!("{other}"),
        }
    }
    assert_eq!((read, expunged), (READ, EXPUNGED));
    watching.stop().await;
}

fn messages(event: &Draft) -> u32 {
    event.uids.as_ref().map_or(1, |uids| {
        let ranges = uids.split(',').map(|range| range.split_once(':').unwrap_or((range, range)));
        ranges.map(|(first, last)| last.parse::<u32>().expect("a UID") - first.parse::<u32>().expect("a UID") + 1).sum()
    })
}

/// What one catch-up cost.
struct Run {
    bytes: usize,
    time: Duration,
    commands: Vec<String>,
}

impl Run {
    /// Cuts the part out of what passed that lies between the login and the first IDLE.
    fn of(passed: &[Passed]) -> Self {
        let says = |passed: &Passed, word: &str| {
            !passed.from_server && String::from_utf8_lossy(&passed.bytes).to_uppercase().contains(word)
        };
        let login = passed.iter().rposition(|passed| says(passed, " LOGIN ") || says(passed, " AUTHENTICATE "));
        let after_login = &passed[login.expect("a login")..];
        let answer = after_login.iter().position(|passed| passed.from_server).expect("an answer to the login");
        let after_login = &after_login[answer + 1..];
        let idle = after_login.iter().position(|passed| says(passed, " IDLE\r\n")).expect("IDLE");
        let (catching_up, idle) = (&after_login[..idle], &after_login[idle]);
        let commands = catching_up.iter().chain([idle]).filter(|passed| !passed.from_server);
        Self {
            bytes: catching_up.iter().filter(|passed| passed.from_server).map(|passed| passed.bytes.len()).sum(),
            time: idle.at - catching_up.first().map_or(idle.at, |first| first.at),
            commands: commands
                .map(|passed| String::from_utf8_lossy(&passed.bytes).trim().replace("\r\n", " / "))
                .collect(),
        }
    }

    fn ms(&self) -> f64 {
        self.time.as_secs_f64() * 1000.0
    }
}
