//! What servers keep to themselves, or tell wrongly: mail that nobody announced, counts that do not fit, half answers.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::ops::RangeInclusive;

use postrider::event::EventKind;
use postrider::registry::Account;
use support::scripted_imap::{ScriptedImap, message};
use support::watching::{Watching, config};
use tempfile::tempdir;

fn messages(uids: RangeInclusive<u32>) -> String {
    uids.map(|uid| message(uid, uid, &uid.to_string())).collect()
}

fn with_events(mut account: Account, events: &[EventKind]) -> Account {
    account.imap_mut().unwrap().events = Some(events.to_vec());
    account
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
