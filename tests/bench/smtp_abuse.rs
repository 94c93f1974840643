//! Honest senders beside abuse: `cargo bench --bench smtp_abuse`.
//!
//! Fifty honest senders deliver four mails a second each, every one over a connection of its own: first alone, then
//! beside 500 connections of all kinds of abuse (`tests/support/abuse.rs`) from ten addresses. What is compared is the
//! time of a whole transaction, from the connection to the last reply, and from the dot to its reply; both may take
//! three times as long as without abuse, for 99 of 100 mails. All come from other machines, as the PROXY protocol says, and
//! limits are postrider's defaults.
//!
//! The server has one core, all clients the other; the abusers are a process that yields to the honest senders, so that
//! the time which is measured is the server's. `BENCH_SECONDS` (600) makes it shorter.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a benchmark")]

#[path = "../support/mod.rs"]
mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use support::abuse::{abusers, config};
use support::dovecot_push::free_port;
use support::honest::{Ledger, Times, send_regularly};
use support::mail_client::Target;
use support::server::{Options, Server};
use support::{eventually, within};
use tokio::task::JoinSet;
use tokio::time::Instant;

const HONEST: usize = 50;
const ABUSERS: usize = 500;
/// Before an abuser comes again.
const PAUSE: Duration = Duration::from_millis(10);
const CLIENTS_CORE: &str = "0";
const SERVER_CORE: &str = "1";
/// How many times longer the honest ones may take.
const FACTOR: f64 = 3.0;
/// The argument that makes this program the abusers.
const ABUSE: &str = "--abuse";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let own_id = std::process::id().to_string();
    let pinned = Command::new("taskset").args(["-acp", CLIENTS_CORE, &own_id]).output().expect("taskset");
    assert!(pinned.status.success());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match arguments.iter().position(|argument| argument == ABUSE) {
        Some(at) => {
            runtime.block_on(abuse(&arguments[at + 1], Duration::from_secs(arguments[at + 2].parse().unwrap())));
        }
        None => runtime.block_on(compare()),
    }
}

async fn compare() {
    let seconds = std::env::var("BENCH_SECONDS").map_or(600, |seconds| seconds.parse().expect("BENCH_SECONDS"));
    let time = Duration::from_secs(seconds);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    // With the lines in the log that are there by default.
    let (environment, errors) =
        (vec![("POSTRIDER_LOG__FILTER".into(), "info".into())], Some(folder.path().join("log")));
    let wrapper = ["taskset", "-c", SERVER_CORE].map(str::to_owned).to_vec();
    let data_dir = Some(folder.path().join("data"));
    let address = (Ipv4Addr::LOCALHOST, free_port()).into();
    let config = config(address);
    let server = Server::with(Options { data_dir, config, environment, wrapper, errors, ..Options::default() }).await;
    let ledger = Ledger::default();
    let alone = honest(address, &ledger, (time / 5).min(Duration::from_mins(1))).await;
    let files = server.open_files();
    println!("alone:        {} {}, {files} files open", figures(&alone), memory(&server));
    let mut abuse = tokio::process::Command::new("nice")
        .args(["-n", "19"])
        .arg(std::env::current_exe().expect("this program"))
        .args([ABUSE, &address.to_string(), &(seconds + 10).to_string()])
        .kill_on_drop(true)
        .spawn()
        .expect("nice");
    eventually("the abusers to be there", || async { (server.open_files() > files + ABUSERS / 2).then_some(()) }).await;
    let beside = honest(address, &ledger, time).await;
    println!("beside abuse: {} {}, {} files open", figures(&beside), memory(&server), server.open_files());
    assert!(abuse.try_wait().expect("its state").is_none(), "the abusers went on to the end");
    let ended = within("the abusers to end", abuse.wait()).await.expect("an exit");
    assert!(ended.success(), "{ended}");
    for (what, of) in [("whole transaction", whole as fn(&Times) -> f64), ("dot to reply", dot)] {
        let ratio = p99(&beside, of) / p99(&alone, of);
        let verdict = if ratio <= FACTOR { "reached" } else { "MISSED" };
        println!("p99 of the {what}: {ratio:.2} x, target {FACTOR}: {verdict}");
    }
    eventually("all sessions to be over", || async { (server.open_files() <= files + 20).then_some(()) }).await;
    let log = server.whole_log().await;
    println!(
        "{:?}, {} events; afterwards {}, {} files open",
        ledger.counts(),
        log.len(),
        memory(&server),
        server.open_files()
    );
    ledger.check(&log);
    println!("each honest 250 is in the log once");
}

async fn abuse(server: &str, time: Duration) {
    let server = server.parse().expect("an address");
    let mut abusers = abusers(server, ABUSERS, PAUSE, Instant::now() + time);
    while let Some(ended) = abusers.join_next().await {
        ended.expect("no panic");
    }
}

async fn honest(server: SocketAddr, ledger: &Ledger, time: Duration) -> Vec<Times> {
    let (until, mut senders) = (Instant::now() + time, JoinSet::new());
    let before = ledger.counts().taken;
    for sender in 0..HONEST {
        // From five mail servers.
        let from = Ipv4Addr::new(198, 51, 100, u8::try_from(sender % 5).expect("five"));
        let target = Target::Smtp { server, from };
        let name = before * HONEST + sender;
        senders.spawn(send_regularly(target, name, ledger.clone(), Duration::from_millis(250), until));
    }
    let mut all = Vec::new();
    while let Some(times) = senders.join_next().await {
        all.extend(times.expect("no panic"));
    }
    all
}

fn whole(times: &Times) -> f64 {
    times.whole.as_secs_f64() * 1000.0
}

fn dot(times: &Times) -> f64 {
    times.dot.as_secs_f64() * 1000.0
}

fn p99(all: &[Times], of: fn(&Times) -> f64) -> f64 {
    at(all, of, 990)
}

fn at(all: &[Times], of: fn(&Times) -> f64, thousandths: usize) -> f64 {
    let mut values: Vec<f64> = all.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() * thousandths / 1000]
}

fn figures(all: &[Times]) -> String {
    let of = |of: fn(&Times) -> f64| {
        format!("p50 {:.2} p99 {:.2} p99.9 {:.2} ms", at(all, of, 500), p99(all, of), at(all, of, 999))
    };
    format!("{} mails, whole {}, dot {},", all.len(), of(whole), of(dot))
}

fn memory(server: &Server) -> String {
    format!("{} MiB resident, {} MiB at most", server.memory("VmRSS") >> 20, server.memory("VmHWM") >> 20)
}
