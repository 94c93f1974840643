//! Mail received per second beside Postfix's `smtp-sink`: `cargo bench --bench smtp`.
//!
//! `smtp-source` (both come with Debian's postfix package) sends 4 KB messages over 50 sessions to each of the two in
//! turn. The sink keeps nothing; postrider answers each message after its event is on disk. The data folder lies under
//! `CARGO_TARGET_TMPDIR` or the system's temporary folder; how often that disk can `fdatasync` in a second is measured
//! first.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a benchmark")]

#[path = "../support/mod.rs"]
mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::eventually;
use support::server::{Options, Server};

const SESSIONS: &str = "50";
const MESSAGES: u32 = 20_000;
const ROUNDS: usize = 5;

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    println!("fdatasync after appending 4 KB: {:.0}/s", fdatasync_rate(folder.path()));
    let sink = Sink::start().await;
    let options = Options { data_dir: Some(folder.path().join("data")), ..Options::default() };
    let server = Server::with(options).await;
    let (mut sinks, mut ours) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        sinks.push(send(&sink.address));
        ours.push(send(&server.smtp));
        println!("round {round}: smtp-sink {:.0}/s, postrider {:.0}/s", sinks[round - 1], ours[round - 1]);
    }
    let stored = server.get("/metrics").send().await.expect("metrics").text().await.expect("text");
    let events = stored.lines().find(|line| line.starts_with("postrider_events_total")).expect("a counter").to_owned();
    println!("{events} after {} messages", u64::from(MESSAGES) * ROUNDS as u64);
    let (sink, own) = (median(&mut sinks), median(&mut ours));
    println!("medians of {ROUNDS}: smtp-sink {sink:.0}/s, postrider {own:.0}/s, ratio {:.2}", own / sink);
}

/// Messages per second that `smtp-source` gets rid of.
fn send(address: &str) -> f64 {
    let begun = Instant::now();
    let count = MESSAGES.to_string();
    let status = Command::new("/usr/sbin/smtp-source")
        .args(["-s", SESSIONS, "-m", &count, "-l", "4096", "-d", "-f", "a@example.org", "-t", "user@localhost"])
        .arg(format!("inet:{address}"))
        .stdout(Stdio::null())
        .status()
        .expect("smtp-source: install Debian's postfix package");
    assert!(status.success(), "smtp-source to {address}: {status}");
    f64::from(MESSAGES) / begun.elapsed().as_secs_f64()
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn fdatasync_rate(folder: &Path) -> f64 {
    let mut file = std::fs::File::create(folder.join("sync")).expect("a file");
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < Duration::from_secs(2) {
        file.write_all(&[b'x'; 4096]).expect("space");
        file.sync_data().expect("fdatasync");
        count += 1;
    }
    f64::from(count) / begun.elapsed().as_secs_f64()
}

/// A running `smtp-sink`.
struct Sink {
    child: std::process::Child,
    address: String,
}

impl Sink {
    async fn start() -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address").to_string();
        drop(free);
        // As root it insists on giving up its rights.
        let user: &[&str] = if is_root() { &["-u", "nobody"] } else { &[] };
        let child = Command::new("/usr/sbin/smtp-sink")
            .args(user)
            .args([&format!("inet:{address}"), "1000"])
            .spawn()
            .expect("smtp-sink: install Debian's postfix package");
        let sink = Self { child, address };
        eventually("smtp-sink to listen", || async { tokio::net::TcpStream::connect(&sink.address).await.ok() }).await;
        sink
    }
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").expect("/proc")) == 0
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("an exit");
    }
}
