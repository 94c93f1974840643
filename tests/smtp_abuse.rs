//! Abuse of all kinds at once from two hundred connections, while honest senders go on: theirs is taken, each once, and
//! the process neither grows nor keeps what is over. `cargo bench --bench smtp_abuse` is the longer one, with a clock.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use std::net::Ipv4Addr;
use std::time::Duration;

use support::abuse::{abusers, config};
use support::dovecot_push::free_port;
use support::eventually;
use support::honest::{Ledger, send_regularly};
use support::mail_client::Target;
use support::server::{Options, Server};
use tokio::task::JoinSet;
use tokio::time::Instant;

const ABUSERS: usize = 200;
const HONEST: usize = 20;
const TIME: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_mail_is_taken_once_while_abuse_of_all_kinds_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    // It may say much of what it is told.
    let errors = Some(folder.path().join("errors"));
    let address = (Ipv4Addr::LOCALHOST, free_port()).into();
    let config = config(address);
    let server = Server::with(Options { config, errors, ..Options::default() }).await;
    let files = server.open_files();
    let (until, ledger) = (Instant::now() + TIME, Ledger::default());
    let mut honest = JoinSet::new();
    for sender in 0..HONEST {
        let target = Target::Smtp { server: address, from: Ipv4Addr::new(198, 51, 100, 1) };
        honest.spawn(send_regularly(target, sender, ledger.clone(), Duration::from_millis(200), until));
    }
    let mut abuse = abusers(address, ABUSERS, Duration::from_millis(200), until);
    while let Some(ended) = honest.join_next().await {
        assert!(!ended.expect("no panic").is_empty(), "each sender got mail through");
    }
    while let Some(ended) = abuse.join_next().await {
        ended.expect("no panic");
    }
    assert!(ledger.counts().taken > 5 * HONEST, "{:?}", ledger.counts());
    eventually("all sessions to be over", || async { (server.open_files() <= files + 10).then_some(()) }).await;
    let log = server.whole_log().await;
    println!("{:?}, {} events, {} KiB at most", ledger.counts(), log.len(), server.memory("VmHWM") / 1024);
    ledger.check(&log);
    let said = std::fs::read_to_string(folder.path().join("errors")).expect("what it said");
    assert!(!said.contains("panic") && !said.contains("ERROR"), "{said}");
}
