//! The hub beside nchan, in subscribers reached per second, time and memory: `cargo bench --bench hub`.
//!
//! `fanbench`, a load tool of its own, is client and publisher in one and the referee: it counts every delivery, and a
//! run in which one is lost, repeated or out of order counts for nothing. Its program is named by `FANBENCH`. nchan is
//! Debian's (`apt-get install nginx libnginx-mod-nchan`), with one worker. Client and servers have a core each, every
//! run has a fresh server, the servers take turns, and what is printed are medians.
//!
//! nchan keeps its messages in memory; postrider's are in its log on disk before a subscriber gets them.
//!
//! Rows are named to run them alone: `steady`, `burst`, `websocket`, `longpoll`, `users`, `solo`, `idle`,
//! `idle-websocket`. `BENCH_ROUNDS` (5) and `BENCH_SUBSCRIBERS` (10,000) make it shorter; `BENCH_POSTRIDER` names
//! another build of postrider to measure, and `BENCH_VERBOSE=1` shows each run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a benchmark")]

#[path = "hub/peers.rs"]
mod peers;
#[path = "../support/mod.rs"]
mod support;

use std::process::{Command, Stdio};

use peers::Peer;
use serde_json::Value;

/// Where the subscribers and publishers run, as `taskset` takes it.
const CLIENT_CORE: &str = "0";
/// Where the servers run.
const SERVERS_CORE: &str = "1";

/// What is done, what is read off, and what has to be reached beside nchan.
struct Row {
    name: &'static str,
    transport: &'static str,
    /// Of `fanbench`.
    load: &'static [&'static str],
    /// Topics are as many as subscribers.
    own_topics: bool,
    figures: &'static [Figure],
}

struct Figure {
    name: &'static str,
    of: fn(&Value) -> f64,
    target: Target,
}

/// What has to be reached, and what is aimed at.
enum Target {
    /// At least so many times nchan's.
    AtLeast(f64, f64),
    /// At most so many times nchan's.
    AtMost(f64, f64),
    /// At most this, whatever nchan's is.
    Below(f64, f64),
}

const RATE: fn(&Value) -> f64 = |run| run["deliveries_per_s"].as_f64().expect("a number");
const IDLE_BYTES: fn(&Value) -> f64 = |run| run["idle_pss_per_subscriber"].as_f64().expect("a number");
const ANSWER_MS: fn(&Value) -> f64 = |run| run["publish_response_us"]["p50"].as_f64().expect("a number") / 1000.0;
const LAST_MS: fn(&Value) -> f64 = |run| run["fanout_complete_us"]["p50"].as_f64().expect("a number") / 1000.0;

const ROWS: [Row; 8] = [
    Row {
        name: "steady",
        transport: "sse",
        load: &["--messages", "100", "--window", "4"],
        own_topics: false,
        figures: &[
            Figure { name: "deliveries/s", of: RATE, target: Target::AtLeast(2.5, 4.0) },
            Figure { name: "publish answered, p50 ms", of: ANSWER_MS, target: Target::Below(5.0, 1.0) },
        ],
    },
    Row {
        name: "burst",
        transport: "sse",
        load: &["--messages", "100", "--window", "16", "--publishers", "8"],
        own_topics: false,
        figures: &[Figure { name: "deliveries/s", of: RATE, target: Target::AtLeast(5.0, 12.0) }],
    },
    Row {
        name: "websocket",
        transport: "ws",
        load: &["--messages", "100", "--window", "4"],
        own_topics: false,
        figures: &[Figure { name: "deliveries/s", of: RATE, target: Target::AtLeast(2.0, 3.0) }],
    },
    Row {
        name: "longpoll",
        transport: "longpoll",
        load: &["--messages", "20", "--window", "4"],
        own_topics: false,
        figures: &[Figure { name: "deliveries/s", of: RATE, target: Target::AtLeast(1.0, 1.5) }],
    },
    Row {
        name: "users",
        transport: "sse",
        load: &["--messages", "30000", "--publishers", "4"],
        own_topics: true,
        figures: &[Figure { name: "deliveries/s", of: RATE, target: Target::AtLeast(1.0, 1.3) }],
    },
    Row {
        name: "solo",
        transport: "sse",
        load: &["--messages", "8", "--rate", "2"],
        own_topics: false,
        figures: &[Figure { name: "last one reached, p50 ms", of: LAST_MS, target: Target::AtMost(0.75, 0.65) }],
    },
    Row {
        name: "idle",
        transport: "sse",
        load: &["--messages", "0", "--settle", "5"],
        own_topics: false,
        figures: &[Figure { name: "bytes each", of: IDLE_BYTES, target: Target::Below(3000.0, 1800.0) }],
    },
    Row {
        name: "idle-websocket",
        transport: "ws",
        load: &["--messages", "0", "--settle", "5"],
        own_topics: false,
        figures: &[Figure { name: "bytes each", of: IDLE_BYTES, target: Target::Below(3000.0, 1800.0) }],
    },
];

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let Some(fanbench) = std::env::var_os("FANBENCH") else {
        eprintln!(
            "hub: the load tool's program is missing: build fanbench in release mode and set FANBENCH to its path"
        );
        std::process::exit(1);
    };
    let subscribers: u32 = number("BENCH_SUBSCRIBERS").unwrap_or(10_000);
    let load = Load { program: fanbench, subscribers };
    let chosen = |row: &&Row| arguments.is_empty() || arguments.iter().any(|name| name == row.name);
    for row in ROWS.iter().filter(chosen) {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..number("BENCH_ROUNDS").unwrap_or(5) {
            theirs.extend(load.run(row, &Peer::nchan().await));
            ours.extend(load.run(row, &Peer::postrider().await));
        }
        report(row, &ours, &theirs);
    }
}

struct Load {
    program: std::ffi::OsString,
    subscribers: u32,
}

impl Load {
    /// One run; none if it does not count.
    fn run(&self, row: &Row, peer: &Peer) -> Option<Value> {
        let subscribers = self.subscribers.to_string();
        let topics = if row.own_topics { &subscribers } else { "1" };
        let mut command = Command::new("taskset");
        command.args(["-c", CLIENT_CORE]).arg(&self.program).args(["run", "--json", "--transport", row.transport]);
        command.args(["--subscribers", &subscribers, "--topics", topics, "--pid", &peer.pid.to_string()]);
        if !row.load.contains(&"--settle") {
            command.args(["--settle", "1"]);
        }
        command.args(row.load).args(peer.arguments(row.transport)).stderr(Stdio::inherit());
        let output = command.output().expect("FANBENCH names a program");
        assert!(output.status.success(), "fanbench: {}", output.status);
        let run: Value = serde_json::from_slice(&output.stdout).expect("fanbench tells JSON");
        let faults = ["lost", "duplicates", "reordered", "misrouted", "garbled", "failed", "closed_during_run"];
        let wrong: Vec<_> =
            faults.iter().filter(|fault| run[**fault] != 0).map(|f| format!("{f} {}", run[f])).collect();
        let all = run["connected"] == self.subscribers;
        if std::env::var_os("BENCH_VERBOSE").is_some() {
            let figures: Vec<_> = row.figures.iter().map(|f| format!("{:.2} {}", (f.of)(&run), f.name)).collect();
            let cpu = &run["server_cpu_us_per_delivery"];
            println!("  {:<16} {:<10} {}, {cpu:.2} us of CPU each", row.name, peer.name, figures.join(", "));
        }
        if all && wrong.is_empty() {
            return Some(run);
        }
        println!("{:<16} {} INVALID: connected {}, {wrong:?} {}", row.name, peer.name, run["connected"], run["errors"]);
        None
    }
}

fn report(row: &Row, ours: &[Value], theirs: &[Value]) {
    for figure in row.figures {
        let (Some(own), Some(nchan)) = (median(ours, figure.of), median(theirs, figure.of)) else {
            println!("{:<16} {}: no run counts", row.name, figure.name);
            continue;
        };
        let ratio = own / nchan;
        let (target, reached) = match figure.target {
            Target::AtLeast(must, aim) => (format!("at least {must} x, aim {aim} x"), ratio >= must),
            Target::AtMost(must, aim) => (format!("at most {must} x, aim {aim} x"), ratio <= must),
            Target::Below(must, aim) => (format!("at most {must}, aim {aim}"), own <= must),
        };
        let verdict = if reached { "reached" } else { "MISSED" };
        let runs = ours.len().min(theirs.len());
        println!(
            "{:<16} {}: postrider {own:.2}, nchan {nchan:.2}, {ratio:.2} x; {target}: {verdict} ({runs} runs)",
            row.name, figure.name
        );
    }
}

fn median(runs: &[Value], figure: fn(&Value) -> f64) -> Option<f64> {
    let mut values: Vec<f64> = runs.iter().map(figure).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn number<T: std::str::FromStr>(variable: &str) -> Option<T> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}
