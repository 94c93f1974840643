//! Mail received per second beside `smtp-sink`, Postfix and aiosmtpd, and what it costs: `cargo bench --bench smtp`.
//!
//! All numbers of a row are taken in turn, round by round, in one run; what is printed are medians. The senders have
//! one core, the servers the other; Postfix, whose processes are many, has both.
//!
//! - `-- throughput`: `smtp-source` (it comes with Debian's postfix package, as `smtp-sink` does) sends messages of
//!   4 KB: one session and fifty sessions with many messages each, and fifty at a time with one message each.
//!   `smtp-sink` keeps nothing, aiosmtpd keeps nothing, Postfix (it needs root) has each message on disk when it
//!   answers and discards it later; postrider answers when the event is on disk, as it always does.
//! - `-- dots`: how long after the dot its reply comes, with fifty sessions that send as fast as they can.
//! - `-- memory`: what each of 1,000 idle sessions costs, greeted and with one message behind it.
//!
//! Parts are named to run them alone; so are peers, `sink`, `postfix` and `aiosmtpd`, to leave the others out.
//! `BENCH_ROUNDS` (5) and `BENCH_MESSAGES` (20,000 for the fast servers) make it shorter. The data folder lies under
//! `CARGO_TARGET_TMPDIR`; how often that disk can `fdatasync` in a second is measured first.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a benchmark")]

#[path = "smtp/dots.rs"]
mod dots;
#[path = "smtp/peers.rs"]
mod peers;
#[path = "../support/mod.rs"]
mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use peers::Peer;
use support::server::{Options, Server};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

/// Where `smtp-source` and the other clients run, as `taskset` takes it.
const SENDERS_CORE: &str = "0";
/// Where the servers run.
const SERVERS_CORE: &str = "1";
/// Octets of a message.
const LENGTH: usize = 4096;

/// What is sent, and what has to be reached beside `smtp-sink` and Postfix.
struct Row {
    name: &'static str,
    sessions: u32,
    /// One message each, then a new connection.
    one_each: bool,
    /// Of how many messages of a fifty-session run this one has.
    share: u32,
    of_sink: f64,
    of_postfix: Option<f64>,
}

const ROWS: [Row; 3] = [
    Row { name: "1 x many", sessions: 1, one_each: false, share: 4, of_sink: 0.4, of_postfix: None },
    Row { name: "50 x many", sessions: 50, one_each: false, share: 1, of_sink: 0.6, of_postfix: Some(6.0) },
    Row { name: "50 x one each", sessions: 50, one_each: true, share: 2, of_sink: 0.7, of_postfix: None },
];
/// Milliseconds from the dot to its reply, for 99 of 100 messages.
const DOT_MS: f64 = 20.0;
const IDLE_SESSIONS: u16 = 1000;
/// Octets of each.
const IDLE_SESSION: f64 = 8.0 * 1024.0;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|first| first == dots::CLIENT) {
        return dots::client(&arguments[1..]);
    }
    let part = |name: &str| arguments.iter().any(|chosen| chosen == name);
    let all_parts = !["throughput", "dots", "memory"].into_iter().any(part);
    let all_peers = !["sink", "postfix", "aiosmtpd"].into_iter().any(part);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    println!("fdatasync after appending 4 KB: {:.0}/s", fdatasync_rate(folder.path()));
    let server = start(folder.path()).await;
    let mut peers = vec![Peer::of("postrider", &server.smtp)];
    if all_peers || part("sink") {
        peers.push(Peer::sink().await);
    }
    if all_peers || part("postfix") {
        peers.push(Peer::postfix(folder.path()).await);
    }
    if all_peers || part("aiosmtpd") {
        peers.push(Peer::aiosmtpd(Path::new(env!("CARGO_TARGET_TMPDIR"))).await);
    }
    if all_parts || part("throughput") {
        throughput(&peers, &server).await;
    }
    if all_parts || part("dots") {
        latency(&peers);
    }
    drop((peers, server));
    if all_parts || part("memory") {
        memory(folder.path()).await;
    }
}

/// postrider, as it is without a configuration, on the servers' core.
async fn start(folder: &Path) -> Server {
    let wrapper = ["taskset", "-c", SERVERS_CORE].map(str::to_owned).to_vec();
    let data_dir = tempfile::tempdir_in(folder).expect("a folder").keep();
    // With the line of each message in the log, which is there by default.
    let (environment, errors) = (vec![("POSTRIDER_LOG__FILTER".into(), "info".into())], Some(folder.join("log")));
    Server::with(Options { data_dir: Some(data_dir), wrapper, environment, errors, ..Options::default() }).await
}

async fn throughput(peers: &[Peer], server: &Server) {
    let mut sent = 0;
    for row in &ROWS {
        let mut rates = vec![Vec::new(); peers.len()];
        for _ in 0..rounds() {
            for (peer, rates) in peers.iter().zip(&mut rates) {
                let count = messages() / row.share / peer.slower;
                rates.push(send(row, count, &peer.address));
            }
            sent += u64::from(messages() / row.share);
        }
        let medians: Vec<f64> = rates.iter_mut().map(|rates| median(rates)).collect();
        let figures: Vec<_> =
            peers.iter().zip(&medians).map(|(peer, rate)| format!("{} {rate:.0}/s", peer.name)).collect();
        println!("{:<14} {}", row.name, figures.join(", "));
        let beside = |name: &str| peers.iter().position(|peer| peer.name == name).map(|at| medians[0] / medians[at]);
        for (name, least) in [("smtp-sink", Some(row.of_sink)), ("Postfix", row.of_postfix)] {
            if let (Some(ratio), Some(least)) = (beside(name), least) {
                println!("{:<14} {ratio:.2} x {name}, {}", "", verdict(least, ratio >= least));
            }
        }
    }
    let metrics = server.get("/metrics").send().await.expect("metrics").text().await.expect("text");
    let stored = metrics.lines().find_map(|line| line.strip_prefix("postrider_events_total ")).expect("a counter");
    assert_eq!(stored, sent.to_string(), "each message is an event");
}

fn latency(peers: &[Peer]) {
    println!("from the dot to its reply, 50 sessions");
    for peer in peers {
        let all: Vec<_> =
            (0..rounds()).map(|_| dots::measure(&peer.address, 50, LENGTH, Duration::from_secs(2))).collect();
        let of = |value: fn(&dots::Dots) -> f64| median(&mut all.iter().map(value).collect::<Vec<_>>());
        let (p50, p99) = (of(|dots| dots.p50), of(|dots| dots.p99));
        let messages: usize = all.iter().map(|dots| dots.messages).sum();
        let verdict = if peer.name == "postrider" { verdict(DOT_MS, p99 <= DOT_MS) } else { String::new() };
        println!("{:<14} p50 {p50:.2} ms, p99 {p99:.2} ms, {messages} messages {verdict}", peer.name);
    }
}

async fn memory(folder: &Path) {
    let server = start(folder).await;
    // What the first sessions of all make for ever is not what each one costs.
    drop(idle_sessions(&server, 1, true).await);
    let before = server.memory("VmRSS");
    let greeted = idle_sessions(&server, IDLE_SESSIONS, false).await;
    let each = each_of(server.memory("VmRSS") - before);
    println!(
        "memory of an idle session: {:.2} KiB, {}",
        each / 1024.0,
        verdict(IDLE_SESSION / 1024.0, each <= IDLE_SESSION)
    );
    drop(greeted);
    let used = idle_sessions(&server, IDLE_SESSIONS, true).await;
    let each = each_of(server.memory("VmRSS") - before);
    println!(
        "after a message of 4 KB: {:.2} KiB, {}",
        each / 1024.0,
        verdict(IDLE_SESSION / 1024.0, each <= IDLE_SESSION)
    );
    drop(used);
}

fn verdict(target: f64, reached: bool) -> String {
    format!("target {target}: {}", if reached { "reached" } else { "MISSED" })
}

fn rounds() -> usize {
    number("BENCH_ROUNDS").unwrap_or(5)
}

fn messages() -> u32 {
    number("BENCH_MESSAGES").unwrap_or(20_000)
}

fn number<T: std::str::FromStr>(variable: &str) -> Option<T> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// Messages per second that `smtp-source` gets rid of.
fn send(row: &Row, count: u32, address: &str) -> f64 {
    let begun = Instant::now();
    let keep: &[&str] = if row.one_each { &[] } else { &["-d"] };
    let status = Command::new("taskset")
        .args(["-c", SENDERS_CORE, "/usr/sbin/smtp-source"])
        .args(["-s", &row.sessions.to_string(), "-m", &count.to_string(), "-l", &LENGTH.to_string()])
        .args(keep)
        .args(["-f", "a@example.org", "-t", "user@localhost"])
        .arg(format!("inet:{address}"))
        .stdout(Stdio::null())
        .status()
        .expect("smtp-source: install Debian's postfix package");
    assert!(status.success(), "smtp-source to {address}: {status}");
    f64::from(count) / begun.elapsed().as_secs_f64()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
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

/// Opens sessions, a hundred from each address, which greet and wait.
async fn idle_sessions(server: &Server, count: u16, with_message: bool) -> Vec<BufReader<TcpStream>> {
    let mut sessions = Vec::new();
    for number in 0..count {
        let socket = TcpSocket::new_v4().expect("a socket");
        let from = format!("127.0.1.{}:0", 1 + number / 90);
        socket.bind(from.parse().expect("an address")).expect("a loopback address");
        let stream = socket.connect(server.smtp.parse().expect("an address")).await.expect("the server");
        let mut session = BufReader::with_capacity(512, stream);
        expect(&mut session, "220").await;
        ask(&mut session, "EHLO bench.example.org", "250").await;
        if with_message {
            ask(&mut session, "MAIL FROM:<a@example.org>", "250").await;
            ask(&mut session, "RCPT TO:<user@localhost>", "250").await;
            ask(&mut session, "DATA", "354").await;
            ask(&mut session, &format!("{}\r\n.", "x".repeat(LENGTH)), "250").await;
        }
        sessions.push(session);
    }
    sessions
}

async fn ask(session: &mut BufReader<TcpStream>, command: &str, code: &str) {
    session.get_mut().write_all(format!("{command}\r\n").as_bytes()).await.expect("it is open");
    expect(session, code).await;
}

async fn expect(session: &mut BufReader<TcpStream>, code: &str) {
    let mut line = String::new();
    while line.as_bytes().get(3).is_none_or(|&octet| octet == b'-') {
        line.clear();
        support::within(code, session.read_line(&mut line)).await.expect("it is open");
    }
    assert!(line.starts_with(code), "{line}");
}

fn each_of(octets: u64) -> f64 {
    f64::from(u32::try_from(octets).expect("less than 4 GiB")) / f64::from(IDLE_SESSIONS)
}
