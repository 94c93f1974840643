//! What servers do that they should not: no message is lost or doubled by it, and no connection hangs.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::time::Duration;

use postrider::event::EventKind;
use postrider::registry::AccountState;
use postrider::source::imap::{ImapConfig, ImapError, probe};
use support::scripted_imap::{ScriptedImap, message};
use support::watching::{Watching, config};
use tempfile::tempdir;

#[tokio::test]
async fn a_refused_fetch_loses_nothing() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let mut watching = Watching::start(folder.path(), &[server.account()], config());
    let (mut peer, idle) = server.idling(0, 1).await;
    peer.send("* 1 EXISTS\r\n").await;
    peer.done(&idle).await;
    let tag = peer.command("UID FETCH 1:* ").await;
    peer.send(&format!("{tag} NO [SERVERBUG] internal error\r\n")).await;
    peer.closed().await;

    let mut peer = server.opened(1, 2).await;
    peer.answer("UID FETCH 1:* (UID)", "* 1 FETCH (UID 1)\r\n").await;
    peer.answer("UID FETCH 1 (UID FLAGS", &message(1, 1, "one")).await;
    watching.until(EventKind::MessageNew).await;
    drop(peer);
    watching.stop().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_moves_nothing() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let mut watching = Watching::start(folder.path(), &[server.account()], config());
    let (mut peer, idle) = server.idling(0, 1).await;
    watching.next(EventKind::AccountUp).await;
    peer.send("* 2 EXISTS\r\n").await;
    peer.done(&idle).await;
    peer.command("UID FETCH 1:* ").await;
    peer.send(&message(1, 1, "one")).await;
    drop(peer);

    let mut peer = server.opened(2, 3).await;
    peer.answer("UID FETCH 1:* (UID)", "* 1 FETCH (UID 1)\r\n* 2 FETCH (UID 2)\r\n").await;
    peer.answer("UID FETCH 1:2 (UID FLAGS", &(message(1, 1, "one") + &message(2, 2, "two"))).await;
    assert_eq!(watching.subject().await, "one");
    assert_eq!(watching.subject().await, "two");
    peer.answer("NOOP", "").await;
    drop(peer);
    watching.stop().await;
}

#[tokio::test]
async fn mail_is_heard_of_wherever_it_is_announced() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let mut watching = Watching::start(folder.path(), &[server.account()], config());
    let mut peer = server.opened(0, 1).await;
    peer.answer("NOOP", "* 1 EXISTS\r\n").await;
    peer.answer("UID FETCH 1:* (UID FLAGS", &message(1, 1, "in NOOP")).await;
    assert_eq!(watching.subject().await, "in NOOP");

    let idle = peer.command("IDLE").await;
    peer.send("* 2 EXISTS\r\n+ idling\r\n").await;
    assert_eq!(peer.line().await, "DONE", "only after the continuation, and at once");
    // The end of IDLE announces one more, and its answer comes together with that of the command behind it.
    let fetch = peer.command("UID FETCH 2:* (UID FLAGS").await;
    let messages = message(2, 2, "before the continuation") + &message(3, 3, "at the end of IDLE");
    peer.send(&format!("* 3 EXISTS\r\n{idle} OK idle done\r\n{messages}")).await;
    // One that is announced in the middle of the answer is not in it.
    peer.send(&format!("* 4 EXISTS\r\n{fetch} OK done\r\n")).await;
    assert_eq!(watching.until(EventKind::MessageNew).await.draft.uid, Some(2));
    assert_eq!(watching.subject().await, "at the end of IDLE");
    peer.answer("UID FETCH 4:* (UID FLAGS", &message(4, 4, "in FETCH")).await;
    assert_eq!(watching.subject().await, "in FETCH");
    drop(peer);
    watching.stop().await;
}

#[tokio::test]
async fn the_last_message_is_not_announced_again() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let mut watching = Watching::start(folder.path(), &[server.account()], config());
    let (mut peer, idle) = server.idling(5, 10).await;
    watching.next(EventKind::AccountUp).await;
    // It came and went: `10:*` is then the last of the old ones.
    peer.send("* 6 EXISTS\r\n").await;
    assert_eq!(peer.line().await, "DONE");
    let fetch = peer.command("UID FETCH 10:* (UID FLAGS").await;
    let old = message(5, 9, "old");
    peer.send(&format!("* 6 EXPUNGE\r\n{idle} OK idle done\r\n{old}{fetch} OK done\r\n")).await;
    peer.command("IDLE").await;
    peer.send("* 6 EXISTS\r\n+ idling\r\n").await;
    assert_eq!(peer.line().await, "DONE");
    peer.answer("UID FETCH 10:* (UID FLAGS", &message(6, 11, "new")).await;
    assert_eq!(watching.subject().await, "new");
    drop(peer);
    watching.stop().await;
}

#[tokio::test]
async fn a_message_that_is_not_there_yet_is_asked_for_again() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let mut watching = Watching::start(folder.path(), &[server.account()], config());
    let (mut peer, idle) = server.idling(0, 1).await;
    watching.next(EventKind::AccountUp).await;
    peer.send("* 1 EXISTS\r\n").await;
    peer.done(&idle).await;
    peer.answer("UID FETCH 1:* (UID FLAGS", "").await;
    // A change of its flags is not the message.
    peer.answer("UID FETCH 1:* (UID FLAGS", "* 1 FETCH (UID 1 FLAGS (\\Seen))\r\n").await;
    peer.answer("UID FETCH 1:* (UID FLAGS", &message(1, 1, "late")).await;
    assert_eq!(watching.subject().await, "late");
    drop(peer);
    watching.stop().await;
}

#[tokio::test]
async fn without_idle_it_polls() {
    for refusal in ["NO not now", "BAD what?", "OK done already"] {
        let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
        let config = ImapConfig { poll_interval: Duration::from_millis(50), ..config() };
        let mut watching = Watching::start(folder.path(), &[server.account()], config);
        let mut peer = server.opened(0, 1).await;
        peer.answer("NOOP", "").await;
        let idle = peer.command("IDLE").await;
        peer.send(&format!("{idle} {refusal}\r\n")).await;
        let status = "* STATUS INBOX (MESSAGES 0 UIDNEXT 1 UIDVALIDITY 7)\r\n";
        peer.answer("STATUS", status).await;
        peer.answer("NOOP", "").await;
        peer.answer("STATUS", status).await;
        peer.answer("NOOP", "* 1 EXISTS\r\n").await;
        peer.answer("UID FETCH 1:* (UID FLAGS", &message(1, 1, "polled")).await;
        assert_eq!(watching.until(EventKind::MessageNew).await.draft.uid, Some(1));
        watching.stop().await;
    }
}

#[tokio::test]
async fn idle_that_the_server_ends_is_begun_again() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let watching = Watching::start(folder.path(), &[server.account()], config());
    let (mut peer, mut idle) = server.idling(0, 1).await;
    for _ in 0..3 {
        peer.send(&format!("{idle} OK idled enough\r\n")).await;
        peer.answer("NOOP", "").await;
        idle = peer.command("IDLE").await;
        peer.send("+ idling\r\n").await;
    }
    peer.send(&format!("{idle} OK idled enough\r\n")).await;
    peer.closed().await;
    server.idling(0, 1).await;
    drop(peer);
    watching.stop().await;
}

#[tokio::test]
async fn idle_is_renewed_and_a_dead_connection_noticed() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let (idle_renew, done_timeout) = (Duration::from_millis(300), Duration::from_millis(300));
    let config = ImapConfig { idle_renew, done_timeout, ..config() };
    let mut watching = Watching::start(folder.path(), &[server.account()], config);
    let (mut peer, idle) = server.idling(0, 1).await;
    watching.next(EventKind::AccountUp).await;
    peer.done(&idle).await;
    peer.answer("NOOP", "").await;
    peer.command("IDLE").await;
    peer.send("+ idling\r\n").await;
    assert_eq!(peer.line().await, "DONE");
    // No answer any more, and none is waited for beyond `done_timeout`.
    let (_second, _) = server.idling(0, 1).await;
    watching.state(AccountState::Connected).await;
    drop(peer);
    watching.stop().await;
}

#[tokio::test]
async fn a_message_that_cannot_be_read_stops_nothing() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let mut watching = Watching::start(folder.path(), &[server.account()], config());
    let (mut peer, idle) = server.idling(0, 1).await;
    watching.next(EventKind::AccountUp).await;
    peer.send("* 1 EXISTS\r\n").await;
    peer.done(&idle).await;
    // What must not be read to its end breaks the connection, each time.
    peer.answer("UID FETCH 1:* (UID FLAGS INTERNALDATE", "* 1 FETCH (UID 1 BODY[1] {400000000}\r\n").await;
    peer.closed().await;
    for _ in 0..2 {
        let mut peer = server.opened(1, 2).await;
        peer.answer("UID FETCH 1:* (UID)", "* 1 FETCH (UID 1)\r\n").await;
        peer.answer("UID FETCH 1 (UID FLAGS INTERNALDATE", "* 1 FETCH (UID 1 BODY[1] {400000000}\r\n").await;
        peer.closed().await;
    }
    let mut peer = server.opened(1, 2).await;
    peer.answer("UID FETCH 1:* (UID)", "* 1 FETCH (UID 1)\r\n").await;
    let header = "* 1 FETCH (UID 1 FLAGS () BODY[HEADER.FIELDS (SUBJECT)]<0> {14}\r\nSubject: one\r\n)\r\n";
    peer.answer("UID FETCH 1 (UID FLAGS BODY.PEEK[HEADER.FIELDS", header).await;
    let summary = watching.until(EventKind::MessageNew).await.draft.message.unwrap();
    assert!(summary.parse_error && summary.subject.as_deref() == Some("one"), "{summary:?}");
    peer.answer("NOOP", "* 2 EXISTS\r\n").await;
    peer.answer("UID FETCH 2:* (UID FLAGS INTERNALDATE", &message(2, 2, "two")).await;
    assert_eq!(watching.until(EventKind::MessageNew).await.draft.uid, Some(2));
    drop(peer);
    watching.stop().await;
}

#[tokio::test]
async fn a_description_that_makes_no_sense_is_asked_for_with_less() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let mut watching = Watching::start(folder.path(), &[server.account()], config());
    let (mut peer, idle) = server.idling(0, 1).await;
    watching.next(EventKind::AccountUp).await;
    peer.send("* 2 EXISTS\r\n").await;
    peer.done(&idle).await;
    // A list without an end, and nonsense.
    let lines = format!("* 1 FETCH (UID 1 BODYSTRUCTURE {}\r\n* 2 FETCH UID 2\r\n", "(".repeat(1000));
    peer.answer("UID FETCH 1:* (UID FLAGS INTERNALDATE", &lines).await;
    peer.answer("UID FETCH 1:* (UID)", "* 1 FETCH (UID 1)\r\n* 2 FETCH UID 2\r\n").await;
    peer.answer("UID SEARCH UID 1:*", "* SEARCH 1 2\r\n").await;
    peer.answer("UID FETCH 1:2 (UID FLAGS INTERNALDATE", &lines).await;
    let header = "* 1 FETCH (UID 1 FLAGS () BODY[HEADER.FIELDS (SUBJECT)]<0> {14}\r\nSubject: one\r\n)\r\n";
    peer.answer("UID FETCH 1 (UID FLAGS BODY.PEEK[HEADER.FIELDS", header).await;
    peer.answer("UID FETCH 2 (UID FLAGS BODY.PEEK[HEADER.FIELDS", "* 2 FETCH UID 2\r\n").await;
    peer.answer("UID FETCH 2 (UID FLAGS)", "* 2 FETCH UID 2\r\n").await;
    let summary = watching.next(EventKind::MessageNew).await.draft.message.unwrap();
    assert!(summary.parse_error && summary.subject.as_deref() == Some("one"), "{summary:?}");
    let bare = watching.next(EventKind::MessageNew).await.draft;
    assert!(bare.uid == Some(2) && bare.message.unwrap().parse_error, "nothing is known but that it is there");
    drop(peer);
    watching.stop().await;
}

#[tokio::test]
async fn too_many_connections_is_no_wrong_password() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let mut watching = Watching::start(folder.path(), &[server.account()], config());
    let mut peer = server.accept().await;
    peer.send("* OK [CAPABILITY IMAP4rev1 IDLE] ready\r\n").await;
    let tag = peer.command("LOGIN").await;
    peer.send(&format!("{tag} NO [UNAVAILABLE] Maximum number of connections exceeded\r\n")).await;
    let down = watching.next(EventKind::AccountDown).await.draft.reason.unwrap();
    assert!(down.starts_with("the server allows no more connections for this user"), "{down}");
    let status = watching.state(AccountState::ConnectError).await;
    assert!(status.retry_at.unwrap() > jiff::Timestamp::now() + Duration::from_secs(200), "no hammering");
    drop(peer);
    watching.stop().await;
}

#[tokio::test]
async fn what_is_not_imap_is_an_error_and_no_crash() {
    for (greeting, expected) in [
        ("220 mail.example.org ESMTP\r\n".to_owned(), "cannot be read"),
        ("* BYE overloaded\r\n".to_owned(), "overloaded"),
        ("x".repeat(300_000), "a line that is too long"),
        ("* OK ready\r\n* 1 FETCH (BODY[] {400000000}\r\n".to_owned(), "a literal that is too large"),
    ] {
        let server = ScriptedImap::start().await;
        let account = server.account();
        let config = config();
        let serve = async {
            let mut peer = server.accept().await;
            peer.send(&greeting).await;
            peer.closed().await;
        };
        let (probed, ()) = tokio::join!(probe(account.imap.as_ref().unwrap(), &config), serve);
        let reason = probed.unwrap_err().reason();
        assert!(reason.contains(expected), "{greeting:.40}: {reason}");
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for() {
    let server = ScriptedImap::start().await;
    let config = ImapConfig { login_timeout: Duration::from_millis(200), ..config() };
    let account = server.account();
    let serve = async { server.accept().await.closed().await };
    let (probed, ()) = tokio::join!(probe(account.imap.as_ref().unwrap(), &config), serve);
    assert!(matches!(probed.unwrap_err(), ImapError::Timeout(..)));
}

#[tokio::test]
async fn without_starttls_nothing_is_said_in_the_clear() {
    let server = ScriptedImap::start().await;
    let mut account = server.account();
    let endpoint = account.imap_mut().unwrap();
    endpoint.security = postrider::registry::ImapSecurity::Starttls;
    for greeting in ["* OK ready\r\n", "* PREAUTH welcome\r\n"] {
        let serve = async {
            let mut peer = server.accept().await;
            peer.send(greeting).await;
            if greeting.starts_with("* OK") {
                let tag = peer.command("STARTTLS").await;
                peer.send(&format!("{tag} BAD unknown command\r\n")).await;
            }
            peer.closed().await;
        };
        let config = config();
        let (probed, ()) = tokio::join!(probe(endpoint, &config), serve);
        assert!(matches!(probed.unwrap_err(), ImapError::NoStarttls(_)), "{greeting}");
    }
}

#[tokio::test]
async fn a_log_that_takes_nothing_is_waited_for() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let mut watching = Watching::start(folder.path(), &[server.account()], config());
    let (mut peer, idle) = server.idling(0, 1).await;
    watching.next(EventKind::AccountUp).await;
    let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let database = files.into_iter().find(|path| path.extension().is_some_and(|end| end == "db")).unwrap();
    let other = rusqlite::Connection::open(database).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    peer.send("* 1 EXISTS\r\n").await;
    peer.done(&idle).await;
    peer.answer("UID FETCH 1:* (UID FLAGS", &message(1, 1, "kept")).await;
    let status = watching.state(AccountState::Syncing).await;
    assert!(status.reason.unwrap().contains("cannot write the event log"));
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(watching.subject().await, "kept");
    watching.state(AccountState::Connected).await;
    peer.command("IDLE").await;
    drop(peer);
    watching.stop().await;
}

#[tokio::test]
async fn uids_that_come_again_are_announced_once() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let mut watching = Watching::start(folder.path(), &[server.account()], config());
    let (mut peer, idle) = server.idling(5, 10).await;
    watching.next(EventKind::AccountUp).await;
    peer.send("* 6 EXISTS\r\n").await;
    peer.done(&idle).await;
    peer.answer("UID FETCH 10:* (UID FLAGS", &message(6, 10, "ten")).await;
    assert_eq!(watching.subject().await, "ten");
    drop(peer);

    // A replica that does not have it yet, and gets it while it is watched.
    let mut peer = server.opened(5, 10).await;
    peer.answer("UID FETCH 10:* (UID)", "").await;
    peer.answer("NOOP", "* 7 EXISTS\r\n").await;
    let both = message(6, 10, "ten") + &message(7, 11, "eleven");
    peer.answer("UID FETCH 10:* (UID FLAGS", &both).await;
    assert_eq!(watching.subject().await, "eleven");
    drop(peer);
    watching.stop().await;
}

#[tokio::test]
async fn flags_that_change_meanwhile_announce_nothing() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let mut watching = Watching::start(folder.path(), &[server.account()], config());
    let (mut peer, _) = server.idling(0, 1).await;
    watching.next(EventKind::AccountUp).await;
    peer.send("* BYE moving\r\n").await;
    drop(peer);
    let mut peer = server.opened(60, 61).await;
    let lines = |range: std::ops::RangeInclusive<u32>| range.map(|uid| format!("* {uid} FETCH (UID {uid})\r\n"));
    peer.answer("UID FETCH 1:* (UID)", &lines(1..=60).collect::<String>()).await;
    let messages = |range: std::ops::RangeInclusive<u32>| range.map(|uid| message(uid, uid, &uid.to_string()));
    let flags = "* 60 FETCH (UID 60 FLAGS (\\Seen))\r\n";
    peer.answer("UID FETCH 1:50 (", &(flags.to_owned() + &messages(1..=50).collect::<String>())).await;
    peer.answer("UID FETCH 51:60 (", &messages(51..=60).collect::<String>()).await;
    for uid in 1..=60 {
        assert_eq!(watching.subject().await, uid.to_string());
    }
    drop(peer);
    watching.stop().await;
}

#[tokio::test]
async fn a_search_that_is_not_answered_takes_no_message_away() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let mut account = server.account();
    account.imap_mut().unwrap().events = Some(vec![EventKind::MessageExpunge]);
    let mut watching = Watching::start(folder.path(), &[account], config());
    let mut peer = server.opened(3, 4).await;
    peer.answer("UID SEARCH ALL", "* SEARCH 1 2 3\r\n").await;
    peer.answer("NOOP", "").await;
    peer.command("IDLE").await;
    peer.send("+ idling\r\n* BYE moving\r\n").await;
    drop(peer);

    // One message is gone. The first answer is nonsense, twice; the second is missing, the third is short of one.
    for (answers, short) in [(2, "* SEARCH x\r\n"), (1, ""), (1, "* SEARCH 1\r\n")] {
        let mut peer = server.opened(2, 4).await;
        for _ in 0..answers {
            peer.answer("UID SEARCH ALL", short).await;
        }
        peer.answer("NOOP", "").await;
        peer.command("IDLE").await;
        peer.send("+ idling\r\n* BYE moving\r\n").await;
    }
    let mut peer = server.opened(2, 4).await;
    peer.answer("UID SEARCH ALL", "* SEARCH 1 3\r\n").await;
    assert_eq!(watching.until(EventKind::MessageExpunge).await.draft.uid, Some(2), "and no other");
    drop(peer);
    watching.stop().await;
}

#[tokio::test]
async fn what_a_server_wants_its_user_to_read_is_told_once_a_day() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let mut watching = Watching::start(folder.path(), &[server.account()], config());
    let (mut peer, idle) = server.idling(0, 1).await;
    watching.next(EventKind::AccountUp).await;
    peer.send("* OK [ALERT] Down for repairs\u{7} tonight\r\n* OK [ALERT] Down for repairs\u{7} tonight\r\n").await;
    peer.done(&idle).await;
    peer.answer("NOOP", "").await;
    let alert = watching.event().await.draft;
    assert_eq!(
        (alert.kind, alert.reason.as_deref()),
        (EventKind::AccountAlert, Some("[ALERT] Down for repairs tonight"))
    );
    assert_eq!((alert.mailbox, alert.topics[0].as_str()), (None, "mail/alice"));
    drop(peer);

    // Said again on another connection, it is the same; something else is not.
    let mut peer = server.opened(0, 1).await;
    peer.answer("NOOP", "* OK [ALERT] Down for repairs\u{7} tonight\r\n").await;
    let idle = peer.command("IDLE").await;
    peer.send("+ idling\r\n* NO [OVERQUOTA] Your mailbox is full\r\n").await;
    peer.done(&idle).await;
    peer.answer("NOOP", "").await;
    let alert = watching.until(EventKind::AccountAlert).await.draft;
    assert_eq!(alert.reason.as_deref(), Some("[OVERQUOTA] Your mailbox is full"));
    watching.stop().await;
}
