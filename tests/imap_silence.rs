//! What servers keep to themselves, or tell wrongly: mail that nobody announced, counts that do not fit, half answers.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use postrider::event::EventKind;
use postrider::registry::Account;
use postrider::source::imap::ImapConfig;
use support::scripted_imap::{Peer, ScriptedImap, message};
use support::watching::{Watching, config};
use tempfile::tempdir;

/// So many are announced one by one in these tests.
const ONE_BY_ONE: NonZeroUsize = NonZeroUsize::new(60).unwrap();

fn messages(uids: RangeInclusive<u32>) -> String {
    uids.map(|uid| message(uid, uid, &uid.to_string())).collect()
}

fn uids(uids: RangeInclusive<u32>) -> String {
    let lines: Vec<String> = uids.map(|uid| format!("* {uid} FETCH (UID {uid})\r\n")).collect();
    lines.concat()
}

fn with_events(mut account: Account, events: &[EventKind]) -> Account {
    account.imap_mut().unwrap().events = Some(events.to_vec());
    account
}

/// Answers EXAMINE on a connection that had the mailbox open before.
async fn reopened(peer: &mut Peer, exists: u32, uid_next: u32) {
    let data = format!("* {exists} EXISTS\r\n* OK [UIDVALIDITY 7] ok\r\n* OK [UIDNEXT {uid_next}] ok\r\n");
    peer.answer("EXAMINE", &data).await;
}

/// Messages 1, 2 and 3 are there and known, and their removal is to be told; the connection is in IDLE.
async fn three_that_are_known(server: &ScriptedImap, folder: &Path) -> (Watching, Peer, String) {
    let account = with_events(server.account(), &[EventKind::MessageExpunge]);
    let mut watching = Watching::start(folder, &[account], config());
    let mut peer = server.opened(3, 4).await;
    peer.answer("UID SEARCH ALL", "* SEARCH 1 2 3\r\n").await;
    peer.answer("NOOP", "").await;
    let idle = peer.command("IDLE").await;
    peer.send("+ idling\r\n").await;
    watching.next(EventKind::AccountUp).await;
    (watching, peer, idle)
}

/// The newest 60 of 50,000 are announced one by one, in batches, and the others by the one event after them.
async fn newest_of_fifty_thousand(peer: &mut Peer, watching: &mut Watching) {
    peer.answer("UID FETCH 1:* (UID)", &uids(1..=50_000)).await;
    peer.answer("UID FETCH 49941:49990 (UID FLAGS", &messages(49_941..=49_990)).await;
    peer.answer("UID FETCH 49991:50000 (UID FLAGS", &messages(49_991..=50_000)).await;
    for uid in 49_941..=50_000_u32 {
        assert_eq!(watching.subject().await, uid.to_string());
    }
    let overflow = watching.next(EventKind::MailboxOverflow).await.draft.data.unwrap();
    assert_eq!(overflow, serde_json::json!({ "skipped": 49_940, "uid_first": 1, "uid_last": 49_940 }));
}

#[tokio::test]
async fn thousands_that_come_at_once_are_listed_first_and_the_newest_announced() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let config = ImapConfig { catch_up_max: ONE_BY_ONE, ..config() };
    let mut watching = Watching::start(folder.path(), &[server.account()], config);
    let (mut peer, idle) = server.idling(0, 1).await;
    watching.next(EventKind::AccountUp).await;
    peer.send("* 50000 EXISTS\r\n").await;
    peer.done(&idle).await;
    newest_of_fifty_thousand(&mut peer, &mut watching).await;
    // One that comes alone is told by one command.
    peer.command("IDLE").await;
    peer.send("* 50001 EXISTS\r\n+ idling\r\n").await;
    assert_eq!(peer.line().await, "DONE");
    peer.answer("UID FETCH 50001:* (UID FLAGS", &messages(50_001..=50_001)).await;
    assert_eq!(watching.subject().await, "50001");
    drop(peer);
    watching.stop().await;
}

#[tokio::test]
async fn thousands_that_were_never_announced_are_listed_first_too() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let config = ImapConfig { catch_up_max: ONE_BY_ONE, safety_poll: Duration::from_millis(300), ..config() };
    let mut watching = Watching::start(folder.path(), &[server.account()], config);
    let (mut peer, idle) = server.idling(0, 1).await;
    watching.next(EventKind::AccountUp).await;
    peer.done(&idle).await;
    peer.answer("NOOP", "").await;
    peer.answer("STATUS", "* STATUS INBOX (MESSAGES 50000 UIDNEXT 50001 UIDVALIDITY 7)\r\n").await;
    peer.answer("NOOP", "").await;
    // Whoever keeps quiet may have an old view of the mailbox: it is opened anew.
    reopened(&mut peer, 50_000, 50_001).await;
    newest_of_fifty_thousand(&mut peer, &mut watching).await;
    drop(peer);
    watching.stop().await;
}

#[tokio::test]
async fn an_answer_with_more_than_was_announced_is_not_kept() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let config = ImapConfig { catch_up_max: ONE_BY_ONE, ..config() };
    let mut watching = Watching::start(folder.path(), &[server.account()], config);
    let (mut peer, idle) = server.idling(0, 1).await;
    watching.next(EventKind::AccountUp).await;
    peer.send("* 1 EXISTS\r\n").await;
    peer.done(&idle).await;
    peer.answer("UID FETCH 1:* (UID FLAGS", &messages(1..=51)).await;
    peer.answer("UID FETCH 1:* (UID)", &uids(1..=61)).await;
    peer.answer("UID FETCH 2:51 (UID FLAGS", &messages(2..=51)).await;
    peer.answer("UID FETCH 52:61 (UID FLAGS", &messages(52..=61)).await;
    for uid in 2..=61_u32 {
        assert_eq!(watching.subject().await, uid.to_string());
    }
    watching.next(EventKind::MailboxOverflow).await;
    drop(peer);
    watching.stop().await;
}

#[tokio::test]
async fn polling_finds_what_noop_does_not_tell() {
    for status in ["* STATUS INBOX (MESSAGES 1 UIDNEXT 2 UIDVALIDITY 7)\r\n", "* STATUS INBOX ()\r\n", ""] {
        let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
        let config = ImapConfig { poll_interval: Duration::from_millis(100), ..config() };
        let mut watching = Watching::start(folder.path(), &[server.account()], config);
        let mut peer = server.opened(0, 1).await;
        peer.answer("NOOP", "").await;
        let idle = peer.command("IDLE").await;
        peer.send(&format!("{idle} NO not now\r\n")).await;
        // STATUS may be refused, too, and a server that tells nothing by it is asked by opening the mailbox.
        let tag = peer.command("STATUS").await;
        let outcome = if status.is_empty() { "NO not of the open mailbox" } else { "OK done" };
        peer.send(&format!("{status}{tag} {outcome}\r\n")).await;
        peer.answer("NOOP", "").await;
        reopened(&mut peer, 1, 2).await;
        peer.answer("UID FETCH 1:* (UID)", &uids(1..=1)).await;
        peer.answer("UID FETCH 1 (UID FLAGS", &messages(1..=1)).await;
        assert_eq!(watching.until(EventKind::MessageNew).await.draft.uid, Some(1), "{status:?}");
        drop(peer);
        watching.stop().await;
    }
}

#[tokio::test]
async fn polling_costs_a_quiet_server_no_more_than_two_questions() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let config = ImapConfig { poll_interval: Duration::from_millis(100), ..config() };
    let watching = Watching::start(folder.path(), &[server.account()], config);
    let mut peer = server.opened(3, 4).await;
    peer.answer("NOOP", "").await;
    let idle = peer.command("IDLE").await;
    peer.send(&format!("{idle} NO not now\r\n")).await;
    for _ in 0..3 {
        peer.answer("STATUS", "* STATUS INBOX (MESSAGES 3 UIDNEXT 4 UIDVALIDITY 7)\r\n").await;
        peer.answer("NOOP", "").await;
    }
    drop(peer);
    watching.stop().await;
}

#[tokio::test]
async fn a_count_that_falls_without_a_word_hides_no_new_message() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let mut watching = Watching::start(folder.path(), &[server.account()], config());
    let (mut peer, idle) = server.idling(3, 4).await;
    watching.next(EventKind::AccountUp).await;
    // Two went, and one came.
    peer.send("* 2 EXISTS\r\n").await;
    peer.done(&idle).await;
    peer.answer("UID FETCH 4:* (UID)", "* 2 FETCH (UID 4)\r\n").await;
    peer.answer("UID FETCH 4 (UID FLAGS", &message(2, 4, "new")).await;
    assert_eq!(watching.subject().await, "new");
    // Nothing came this time.
    peer.command("IDLE").await;
    peer.send("+ idling\r\n* 1 EXISTS\r\n").await;
    assert_eq!(peer.line().await, "DONE");
    peer.answer("UID FETCH 5:* (UID)", "* 1 FETCH (UID 4)\r\n").await;
    peer.command("IDLE").await;
    drop(peer);
    watching.stop().await;
}

#[tokio::test]
async fn a_count_that_falls_without_a_word_names_what_went_and_what_came_once() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let (mut watching, mut peer, idle) = three_that_are_known(&server, folder.path()).await;
    // Two went, and one came; and one of the removals is told after all.
    peer.send("* 2 EXISTS\r\n").await;
    peer.done(&idle).await;
    peer.answer("UID SEARCH ALL", "* SEARCH 3 4\r\n").await;
    assert_eq!(watching.next(EventKind::MessageExpunge).await.draft.uids.as_deref(), Some("1:2"));
    peer.answer("UID FETCH 4:* (UID)", "* 2 FETCH (UID 4)\r\n").await;
    peer.answer("UID FETCH 4 (UID FLAGS", &message(2, 4, "new")).await;
    assert_eq!(watching.subject().await, "new");
    // The numbers fit again.
    peer.command("IDLE").await;
    peer.send("+ idling\r\n* 1 EXPUNGE\r\n").await;
    assert_eq!(watching.next(EventKind::MessageExpunge).await.draft.uid, Some(3));
    drop(peer);
    watching.stop().await;
}

#[tokio::test]
async fn a_count_that_grows_by_less_than_came_hides_no_removal() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let (mut watching, mut peer, idle) = three_that_are_known(&server, folder.path()).await;
    // One went, and two came.
    peer.send("* 4 EXISTS\r\n").await;
    peer.done(&idle).await;
    peer.answer("UID FETCH 4:* (UID FLAGS", &(message(3, 4, "four") + &message(4, 5, "five"))).await;
    assert_eq!(watching.subject().await, "four");
    assert_eq!(watching.subject().await, "five");
    peer.answer("UID SEARCH ALL", "* SEARCH 1 3 4 5\r\n").await;
    assert_eq!(watching.next(EventKind::MessageExpunge).await.draft.uid, Some(2));
    drop(peer);
    watching.stop().await;
}

#[tokio::test]
async fn a_removal_is_named_rightly_after_messages_were_skipped() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let account = with_events(server.account(), &[EventKind::MessageExpunge]);
    let config = ImapConfig { catch_up_max: NonZeroUsize::MIN, ..config() };
    let mut watching = Watching::start(folder.path(), &[account], config);
    let mut peer = server.opened(1, 2).await;
    peer.answer("UID SEARCH ALL", "* SEARCH 1\r\n").await;
    peer.answer("NOOP", "").await;
    peer.command("IDLE").await;
    peer.send("+ idling\r\n* BYE moving\r\n").await;
    watching.until(EventKind::AccountUp).await;

    let mut peer = server.opened(4, 5).await;
    peer.answer("UID FETCH 2:* (UID)", &uids(2..=4)).await;
    peer.answer("UID FETCH 4 (UID FLAGS", &messages(4..=4)).await;
    assert_eq!(watching.until(EventKind::MessageNew).await.draft.uid, Some(4));
    watching.next(EventKind::MailboxOverflow).await;
    peer.answer("NOOP", "").await;
    peer.command("IDLE").await;
    peer.send("+ idling\r\n* 2 EXPUNGE\r\n").await;
    assert_eq!(watching.next(EventKind::MessageExpunge).await.draft.uid, Some(2));
    drop(peer);
    watching.stop().await;
}

#[tokio::test]
async fn half_an_answer_to_a_search_is_asked_for_again() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let account = with_events(server.account(), &[EventKind::MessageRead]);
    let mut watching = Watching::start(folder.path(), &[account], config());
    let mut peer = server.opened(3, 4).await;
    peer.answer("UID SEARCH UNSEEN", "* SEARCH 1\r\n* SEARCH x\r\n").await;
    peer.answer("UID SEARCH UNSEEN", "* SEARCH 1 2\r\n").await;
    peer.answer("NOOP", "").await;
    peer.command("IDLE").await;
    peer.send("+ idling\r\n* 2 FETCH (UID 2 FLAGS (\\Seen))\r\n").await;
    watching.next(EventKind::AccountUp).await;
    assert_eq!(watching.next(EventKind::MessageRead).await.draft.uid, Some(2));
    drop(peer);
    watching.stop().await;
}

#[tokio::test]
async fn a_search_that_is_never_answered_rightly_holds_nothing_up() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let account = with_events(server.account(), &[EventKind::MessageRead]);
    let mut watching = Watching::start(folder.path(), &[account], config());
    let mut peer = server.opened(3, 4).await;
    for _ in 0..2 {
        peer.answer("UID SEARCH UNSEEN", "* SEARCH 1\r\n* SEARCH x\r\n").await;
    }
    peer.answer("NOOP", "").await;
    let idle = peer.command("IDLE").await;
    peer.send("+ idling\r\n* 4 EXISTS\r\n").await;
    watching.next(EventKind::AccountUp).await;
    peer.done(&idle).await;
    peer.answer("UID FETCH 4:* (UID FLAGS", &messages(4..=4)).await;
    assert_eq!(watching.subject().await, "4");
    drop(peer);
    watching.stop().await;
}
