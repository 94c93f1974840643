//! The receiver is killed, stopped, or out of space while many senders are at work, over SMTP and LMTP: every 250 is in
//! the log once under its queue ID, what is not in the log had no 250, and honest senders hear of nothing permanent.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use std::path::Path;
use std::time::Duration;

use support::honest::{Attempt, Ledger, Mail, attempt, greet};
use support::mail_client::Target;
use support::server::{Options, Server};
use support::small_volume::SmallVolume;
use support::{eventually, within};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Senders by each of the two protocols.
const SENDERS: usize = 20;
/// Longest life of the process before it ends, in milliseconds.
const LIFE_MS: u64 = 300;
const LIVES: usize = 8;
/// Mails that are taken before the disk is full, and between two times.
const MAILS: usize = 600;

/// Where the server of the moment takes mail; none while there is none.
#[derive(Debug, Clone)]
struct Targets {
    smtp: Target,
    lmtp: Target,
}

type Now = watch::Receiver<Option<Targets>>;

/// What the senders have in common.
struct Load {
    ledger: Ledger,
    announce: watch::Sender<Option<Targets>>,
    finish: watch::Sender<bool>,
    senders: JoinSet<()>,
}

impl Load {
    /// Senders that send until they are told to finish.
    fn start() -> Self {
        let (ledger, mut senders) = (Ledger::default(), JoinSet::new());
        let (announce, now) = watch::channel(None);
        let (finish, finished) = watch::channel(false);
        for number in 0..2 * SENDERS {
            let is_lmtp = number % 2 == 1;
            let sender =
                Sender { number, is_lmtp, now: now.clone(), finished: finished.clone(), ledger: ledger.clone() };
            senders.spawn(sender.run());
        }
        Self { ledger, announce, finish, senders }
    }

    fn announce(&self, server: &Server, socket: &Path) {
        let targets = Targets { smtp: Target::smtp(&server.smtp), lmtp: Target::Lmtp(socket.to_owned()) };
        self.announce.send_replace(Some(targets));
    }

    async fn end(&mut self) {
        self.finish.send_replace(true);
        within("the senders to end", async {
            while let Some(ended) = self.senders.join_next().await {
                ended.expect("no panic");
            }
        })
        .await;
    }
}

struct Sender {
    number: usize,
    is_lmtp: bool,
    now: Now,
    finished: watch::Receiver<bool>,
    ledger: Ledger,
}

impl Sender {
    /// Sends one mail after the other, each until it is taken; over one connection as long as there is one.
    async fn run(mut self) {
        let mut client = None;
        for message in 0_usize.. {
            let number = self.number;
            let to = |name: &str| format!("{name}{number}@localhost");
            // By LMTP each recipient has a reply of its own.
            let recipients = if self.is_lmtp { vec![to("one"), to("two")] } else { vec![to("user")] };
            let mail = Mail { message_id: format!("<{number}.{message}@example.org>"), recipients, lines: 5 };
            let mut tried_before = false;
            loop {
                if *self.finished.borrow() {
                    return;
                }
                if client.is_none() {
                    let Some(targets) = self.current().await else { return };
                    let target = if self.is_lmtp { targets.lmtp } else { targets.smtp };
                    // A greeting of 421 is an honest server's way to say that it is about to end.
                    match greet(&target).await {
                        Ok(Ok(greeted)) => client = Some(greeted),
                        Ok(Err(reply)) => assert!(!reply.is_permanent(), "{reply:?}"),
                        Err(_) => {}
                    }
                }
                let Some(open) = &mut client else {
                    tokio::task::yield_now().await;
                    continue;
                };
                let attempt = attempt(open, &mail).await;
                self.ledger.note(&mail, &attempt, tried_before);
                match attempt {
                    Attempt::Taken { .. } => break,
                    Attempt::Later(reply) if reply.code != 421 => {}
                    Attempt::Later(_) | Attempt::Cut => client = None,
                    Attempt::Refused(_) => return,
                }
                tried_before = true;
            }
        }
    }

    /// Waits for a server; none when all is over.
    async fn current(&mut self) -> Option<Targets> {
        loop {
            let targets = self.now.borrow_and_update().clone();
            if targets.is_some() {
                return targets;
            }
            tokio::select! {
                changed = self.now.changed() => changed.ok()?,
                _ = self.finished.wait_for(|finished| *finished) => return None,
            }
        }
    }
}

fn lmtp(socket: &Path) -> String {
    format!("[[smtp.listener]]\nrole = 'lmtp'\nlisten = '{}'\n", socket.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_stopped_under_load_each_250_is_in_the_log_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data_dir, socket) = (folder.path().join("data"), folder.path().join("lmtp"));
    let start =
        || Server::with(Options { data_dir: Some(data_dir.clone()), config: lmtp(&socket), ..Options::default() });
    let mut load = Load::start();
    let mut taken = 0;
    for life in 0..LIVES {
        let mut server = start().await;
        load.announce(&server, &socket);
        eventually("mails to be taken", || async { (load.ledger.counts().taken > taken).then_some(()) }).await;
        // The one thing that is left to chance: the moment of the end.
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..LIFE_MS))).await;
        load.announce.send_replace(None);
        if life % 2 == 0 {
            server.kill().await;
        } else {
            assert_eq!(server.terminate().await, Some(0), "it ends in order, and within the grace");
        }
        taken = load.ledger.counts().taken;
    }
    let server = start().await;
    load.announce(&server, &socket);
    load.end().await;
    let (log, counts) = (server.whole_log().await, load.ledger.counts());
    println!("{LIVES} ends: {counts:?}, {} events", log.len());
    assert!(counts.taken > 20 * LIVES && counts.cut > LIVES, "there was load: {counts:?}");
    load.ledger.check(&log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_load_puts_off_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("lmtp");
    let small = SmallVolume::of(128, lmtp(&socket)).await;
    let mut load = Load::start();
    load.announce(&small.server, &socket);
    let take_more = async || {
        let enough = load.ledger.counts().taken + MAILS;
        eventually("mails to be taken", || async { (load.ledger.counts().taken >= enough).then_some(()) }).await;
    };
    for _ in 0..3 {
        take_more().await;
        let before = load.ledger.counts();
        small.fill();
        // Not at once: what the log has written over again and again needs no new space.
        eventually("senders to be put off", || async {
            (load.ledger.counts().later >= before.later + 4 * SENDERS).then_some(())
        })
        .await;
        small.free();
    }
    take_more().await;
    load.end().await;
    let (log, counts) = (small.server.whole_log().await, load.ledger.counts());
    println!("full three times: {counts:?}, {} events", log.len());
    assert_eq!(counts.cut, 0, "a full disk ends no session");
    load.ledger.check(&log);
}
