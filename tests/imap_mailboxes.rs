//! Mailboxes that come and go under the watcher: their connections go to others, and nothing that comes meanwhile is lost.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postrider::event::EventKind;
use postrider::registry::Account;
use postrider::source::imap::ImapConfig;
use support::eventually;
use support::imap_model::{BASIC, Store};
use support::misbehaving_imap::{Fault, MisbehavingImap};
use support::watching::{Watching, config};
use tempfile::tempdir;

/// So seldom that nothing which a test sees comes of it.
const NEVER: Duration = Duration::from_hours(1);

fn with_connections(mut account: Account, connections_max: u32) -> Account {
    account.imap_mut().unwrap().connections_max = connections_max.try_into().unwrap();
    account
}

async fn idling(server: &MisbehavingImap, connections: usize) {
    eventually("connections in IDLE", async || (server.idling() == connections).then_some(())).await;
}

#[tokio::test]
async fn the_connection_of_a_deleted_mailbox_goes_to_another_one_at_once() {
    let store = Store::default();
    for name in ["A", "B", "C"] {
        store.create(name, "");
    }
    let (server, folder) = (MisbehavingImap::start(&store, BASIC, Fault::None).await, tempdir().unwrap());
    let account = with_connections(server.account(&["*"]), 2);
    let config = ImapConfig { sweep_interval: NEVER, safety_poll: NEVER, ..config() };
    let mut watching = Watching::started(folder.path(), &[account], config).await;
    idling(&server, 2).await;
    store.delete("A");
    let deleted = watching.next(EventKind::MailboxDelete).await;
    assert_eq!(deleted.draft.mailbox.as_deref(), Some("A"));
    idling(&server, 2).await;
    // Nobody asks after it: this is heard in IDLE.
    store.deliver("B", "new");
    assert_eq!(watching.subject().await, "new");
    // INBOX and A once each, A in vain, B.
    assert_eq!(server.connections(), 4);
    watching.stop().await;
}

#[tokio::test]
async fn a_mailbox_that_is_missing_keeps_no_other_from_being_watched() {
    let store = Store::default();
    store.create("Work", "");
    let (server, folder) = (MisbehavingImap::start(&store, BASIC, Fault::None).await, tempdir().unwrap());
    let account = with_connections(server.account(&["Missing", "Work"]), 1);
    let mut watching = Watching::started(folder.path(), &[account], config()).await;
    idling(&server, 1).await;
    store.deliver("Work", "new");
    assert_eq!(watching.subject().await, "new");
    watching.stop().await;
}

#[tokio::test]
async fn a_server_that_opens_no_mailbox_twice_is_not_stormed() {
    let store = Store::default();
    for name in ["A", "B", "C", "D"] {
        store.create(name, "");
    }
    // Whoever asks for one of them on a connection that had no other mailbox open is refused.
    let refuse = |line: &str, _: &[String]| {
        let (tag, command) = line.split_once(' ')?;
        let is_first = tag.trim_start_matches('p').parse::<u32>().is_ok_and(|number| number <= 4);
        (is_first && command.starts_with("EXAMINE") && !command.contains("INBOX"))
            .then(|| vec![format!("{tag} NO [NONEXISTENT] no such mailbox\r\n")])
    };
    let server = MisbehavingImap::start(&store, BASIC, Fault::rewrite(usize::MAX, refuse)).await;
    let folder = tempdir().unwrap();
    let account = with_connections(server.account(&["*"]), 2);
    let config = ImapConfig { sweep_interval: NEVER, safety_poll: NEVER, ..config() };
    let watching = Watching::started(folder.path(), &[account], config).await;
    eventually("the second refusal", async || (server.struck() >= 2).then_some(())).await;
    idling(&server, 1).await;
    // The first, the one that was dealt at once, and no more within a sweep's time.
    assert_eq!(server.struck(), 2);
    assert_eq!(server.connections(), 3);
    watching.stop().await;
}

#[tokio::test]
async fn a_home_that_is_no_longer_asked_for_is_left() {
    let store = Store::default();
    for name in ["Lists", "Lists2"] {
        store.create(name, "");
    }
    let is_gone = Arc::new(AtomicBool::new(false));
    let gone = is_gone.clone();
    // It got another name, and the server goes on with it under the old one.
    let leave_out = move |line: &str, said: &[String]| {
        let is_meant = gone.load(Ordering::Relaxed) && line.contains(" LIST ");
        is_meant.then(|| said.iter().filter(|said| !said.ends_with(" Lists\r\n")).cloned().collect())
    };
    let server = MisbehavingImap::start(&store, BASIC, Fault::rewrite(usize::MAX, leave_out)).await;
    let folder = tempdir().unwrap();
    let account = with_connections(server.account(&["Lists*"]), 1);
    let config = ImapConfig { sweep_interval: Duration::from_millis(100), ..config() };
    let mut watching = Watching::started(folder.path(), &[account], config).await;
    store.deliver("Lists", "while it is asked for");
    assert_eq!(watching.subject().await, "while it is asked for");
    is_gone.store(true, Ordering::Relaxed);
    watching.next(EventKind::MailboxDelete).await;
    store.deliver("Lists2", "in the next one");
    assert_eq!(watching.subject().await, "in the next one");
    store.deliver("Lists", "while it is not");
    store.deliver("Lists2", "in the next one again");
    assert_eq!(watching.subject().await, "in the next one again");
    watching.stop().await;
}

#[tokio::test]
async fn other_mailboxes_in_the_configuration_change_one_account_and_no_other() {
    let store = Store::default();
    store.create("Lists", "");
    let (server, folder) = (MisbehavingImap::start(&store, BASIC, Fault::None).await, tempdir().unwrap());
    let named = |name: &str, mailboxes: &[&str]| Account { name: name.parse().unwrap(), ..server.account(mailboxes) };
    let old = [named("alice", &["INBOX"]), named("bob", &["INBOX"])];
    let mut watching = Watching::started(folder.path(), &old, config()).await;
    idling(&server, 2).await;
    // Alice gets a mailbox, bob goes on, and carol comes.
    let new = [named("alice", &["INBOX", "Lists"]), named("bob", &["INBOX"]), named("carol", &["INBOX"])];
    watching.reload(&old, &new).await;
    let mut up = [watching.next(EventKind::AccountUp).await, watching.next(EventKind::AccountUp).await]
        .map(|event| event.draft.account.unwrap().to_string());
    up.sort();
    assert_eq!(up, ["alice", "carol"]);
    idling(&server, 4).await;
    assert_eq!(server.connections(), 2 + 3);
    store.deliver("INBOX", "to all");
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(watching.next(EventKind::MessageNew).await.draft.account.unwrap().to_string());
    }
    told.sort();
    assert_eq!(told, ["alice", "bob", "carol"]);
    // Back, and the others end.
    watching.reload(&new, &old[..1]).await;
    watching.next(EventKind::AccountUp).await;
    idling(&server, 1).await;
    store.deliver("Lists", "of no interest");
    store.deliver("INBOX", "to one");
    let last = watching.next(EventKind::MessageNew).await.draft;
    assert_eq!((last.account.unwrap().as_str(), last.message.unwrap().subject.as_deref()), ("alice", Some("to one")));
    watching.stop().await;
}
