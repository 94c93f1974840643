//! Messages that are too large to wait in memory, by the real program: what it takes of memory and disk, and what happens
//! when there is no more of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use support::eventually;
use support::server::{Options, Server};
use support::smtp_client::SmtpClient;
use support::volume::small_volume;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

const MIB: usize = 1024 * 1024;

/// The most that was ever resident, in MiB.
fn peak_mib(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id().unwrap())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

fn message_ids(log: &[Value]) -> BTreeSet<String> {
    let ids = log.iter().map(|event| event["message"]["message_id"].as_str().expect("a Message-ID").to_owned());
    ids.collect()
}

fn header(id: &str) -> String {
    format!("Message-ID: <{id}@x.example>\r\nSubject: large\r\n\r\n")
}

/// Text of so many octets, in lines of 1000.
fn text(octets: usize) -> Vec<u8> {
    format!("{}\r\n", "x".repeat(998)).repeat(octets / 1000).into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_large_messages_at_once_stay_within_the_memory() {
    const MESSAGES: usize = 200;
    /// What the messages may take together, as the configuration says, and what the program takes besides: itself, the
    /// sockets' blocks, what parsing needs, what the allocator keeps.
    const MEMORY_MIB: usize = 128;
    const BESIDES_MIB: usize = 64;
    let settings = format!("message_bytes_max = {}\nmemory_bytes_max = {}", 20 * MIB, MEMORY_MIB * MIB);
    let config = format!("[smtp]\nsessions_per_address_max = 500\n{settings}\n");
    let server = Server::with(Options { config, ..Options::default() }).await;
    // The last line of nobody's message is sent before everybody else's message is there.
    let (text, all_there) = (Arc::new(text(LARGE)), Arc::new(Barrier::new(MESSAGES)));
    let mut clients = JoinSet::new();
    for number in 0..MESSAGES {
        let (text, all_there, address) = (Arc::clone(&text), Arc::clone(&all_there), server.smtp.clone());
        clients.spawn(async move {
            let mut client = SmtpClient::greeted(&address).await;
            client.begin_message("alice@localhost").await;
            client.send(header(&number.to_string())).await;
            client.send(&*text).await;
            all_there.wait().await;
            client.ask(".", "250 2.0.0").await;
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    let log = server.whole_log().await;
    assert_eq!((log.len(), message_ids(&log).len()), (MESSAGES, MESSAGES));
    assert!(log.iter().all(|event| event["message"]["size"].as_u64().unwrap() > LARGE as u64));
    let peak = peak_mib(&server);
    println!("{MESSAGES} messages of {} MiB at once: at most {peak} MiB", LARGE / MIB);
    assert!(peak < MEMORY_MIB + BESIDES_MIB, "{peak} MiB");
}

const LARGE: usize = 10_000_000;

#[tokio::test]
async fn a_volume_that_is_full_refuses_for_now_what_it_cannot_hold_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    std::fs::create_dir(&data_dir).unwrap();
    let wrapper = small_volume(&data_dir, "16m");
    let options = Options { data_dir: Some(data_dir), wrapper, ..Options::default() };
    let server = Server::with(options).await;

    // The first holds half of the volume while the second finds no space.
    let mut first = SmtpClient::greeted(&server.smtp).await;
    first.begin_message("alice@localhost").await;
    first.send(header("first")).await;
    first.send(text(7 * MIB)).await;
    eventually("the first message to be in the spool", async || (volume_used(&server) > 6 * MIB).then_some(())).await;
    let mut second = SmtpClient::greeted(&server.smtp).await;
    second.begin_message("alice@localhost").await;
    second.send(header("second")).await;
    second.send(text(12 * MIB)).await;
    second.ask(".", "452 4.3.1").await;
    // In step, and there is space again for what fits.
    second.begin_message("alice@localhost").await;
    second.send(header("small")).await;
    second.ask("text\r\n.", "250 2.0.0").await;
    first.ask(".", "250 2.0.0").await;
    second.begin_message("alice@localhost").await;
    second.send(header("second")).await;
    second.send(text(7 * MIB)).await;
    second.ask(".", "250 2.0.0").await;

    let log = server.whole_log().await;
    let expected = ["first", "second", "small"].map(|id| format!("<{id}@x.example>"));
    assert_eq!((log.len(), message_ids(&log)), (3, BTreeSet::from(expected)));
    assert!(volume_used(&server) < 4 * MIB, "the spool is empty");
}

/// Octets that are taken of the volume of the data folder.
fn volume_used(server: &Server) -> usize {
    let pid = server.child.id().unwrap();
    let inside = server.data_dir.strip_prefix("/").unwrap();
    let volume = PathBuf::from(format!("/proc/{pid}/root")).join(inside);
    let space = fs2::statvfs(volume).unwrap();
    usize::try_from(space.total_space() - space.free_space()).unwrap()
}
