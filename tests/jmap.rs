//! JMAP accounts become events, against a real Cyrus: by asking again and again, as its Debian package has no event
//! stream, and by an event stream that is put before it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use postrider::event::{Draft, EventKind};
use postrider::registry::{Account, AccountState, JmapEndpoint};
use postrider::source::jmap::JmapConfig;
use secrecy::SecretString;
use serde_json::json;
use support::check::Checked;
use support::cyrus::Cyrus;
use support::eventually;
use support::jmap_front::{JmapFront, call};
use support::mail_server::{PASSWORD, shared};
use support::watching::Watching;
use tempfile::tempdir;

fn account(url: impl Into<String>, user: &str) -> Account {
    let jmap = JmapEndpoint {
        username: Some(user.to_owned()),
        password_typed: Some(SecretString::from(PASSWORD)),
        ..JmapEndpoint::new(url)
    };
    Account { jmap: Some(jmap.into()), ..Account::new(user.parse().unwrap()) }
}

fn config() -> JmapConfig {
    JmapConfig {
        poll_interval: Duration::from_secs(1),
        retry_first: Duration::from_millis(200),
        ..JmapConfig::default()
    }
}

fn message(subject: &str) -> String {
    format!(
        "From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\nTo: alice@example.org\nSubject: {subject}\n\
         Message-ID: <{subject}@example.org>\nDate: Fri, 20 Nov 2026 12:59:58 +0100\nList-Id: <rust.example.org>\n\n\
         Hello, here is {subject}.\n"
    )
}

/// An account behind a front, watched by its event stream.
struct Pushed {
    cyrus: std::sync::Arc<Cyrus>,
    front: JmapFront,
    watching: Watching,
    user: &'static str,
    _folder: tempfile::TempDir,
}

impl Pushed {
    async fn start(user: &'static str, config: JmapConfig) -> Self {
        let (cyrus, folder) = (shared::<Cyrus>(), tempdir().unwrap());
        cyrus.deliver(user, &message("before")).await;
        let front = JmapFront::start(cyrus.http_port).await;
        let mut watching = Watching::start_jmap(folder.path(), &[account(front.url(), user)], config);
        watching.next(EventKind::AccountUp).await;
        Self { cyrus, front, watching, user, _folder: folder }
    }

    async fn deliver(&self, subject: &str) {
        self.cyrus.deliver(self.user, &message(subject)).await;
    }

    /// Does something as a mail program would, and lets the server say that something changed.
    async fn call(&self, method: &str, arguments: serde_json::Value) -> serde_json::Value {
        let answer = call(self.cyrus.http_port, self.user, method, arguments).await;
        self.front.changed(self.user);
        answer
    }

    async fn next(&mut self, kind: EventKind) -> Draft {
        self.watching.next(kind).await.draft
    }
}

#[tokio::test]
async fn without_an_event_stream_the_server_is_asked_again_and_again() {
    let (cyrus, folder) = (shared::<Cyrus>(), tempdir().unwrap());
    cyrus.deliver("polled", &message("before")).await;
    let url = format!("http://127.0.0.1:{}/.well-known/jmap", cyrus.http_port);
    let accounts = [account(url, "polled")];
    let mut watching = Watching::start_jmap(folder.path(), &accounts, config());
    watching.next(EventKind::AccountUp).await;
    assert_eq!(watching.status().host.as_deref(), Some("127.0.0.1"));
    cyrus
        .deliver(
            "polled",
            &message("Gr=C3=BC=C3=9Fe")
                .replace("Subject: Gr", "Subject: =?utf-8?q?Gr")
                .replace("9Fe\nMes", "9Fe?=\nMes"),
        )
        .await;
    let draft = watching.next(EventKind::MessageNew).await.draft;
    assert_eq!(draft.topics[0].as_str(), "mail/polled/INBOX");
    let counts = draft.counts.unwrap();
    assert_eq!((counts.messages, counts.unseen, draft.flags.as_deref()), (Some(2), Some(2), Some([].as_slice())));
    let message = draft.message.unwrap();
    assert_eq!((message.subject.as_deref(), message.from[0].name.as_deref()), (Some("Grüße"), Some("Jürgen")));
    assert_eq!(message.to[0].address, "alice@example.org");
    assert!(message.preview.unwrap().starts_with("Hello, here is"));
    assert_eq!(message.list_id.as_deref(), Some("rust.example.org"));
    assert_eq!(message.date.as_deref(), Some("2026-11-20T12:59:58+01:00"));
    assert!(message.received.is_some() && message.size.is_some() && message.thread_id.is_some());
    assert_eq!(message.email_id, draft.email_id);
    watching.stop().await;

    for subject in ["one", "two", "three"] {
        cyrus.deliver("polled", &self::message(subject)).await;
    }
    let mut watching = Watching::start_jmap(folder.path(), &accounts, config());
    let mut missed = Vec::new();
    for _ in 0..3 {
        missed.push(watching.subject().await);
    }
    missed.sort();
    assert_eq!(missed, ["one", "three", "two"], "received in the same second, their order is not known");
    watching.next(EventKind::AccountUp).await;
    cyrus.deliver("polled", &self::message("last")).await;
    assert_eq!(watching.subject().await, "last");
    watching.stop().await;
}

#[tokio::test]
async fn check_says_how_an_account_is_watched() {
    let (cyrus, checked) = (shared::<Cyrus>(), Checked::new());
    cyrus.deliver("checked", &message("one")).await;
    let front = JmapFront::start(cyrus.http_port).await;
    let password = checked.file("password", PASSWORD);
    let account = |url: &str, password: &str| {
        format!(
            "[[account]]\nname = \"alice\"\n[account.jmap]\nurl = \"{url}\"\nusername = \"checked\"\n\
             password_file = \"{password}\"\n"
        )
    };
    let (code, told) = checked.check(&account(&front.url(), &password)).await;
    assert!(code == Some(0) && told.contains("account alice  logged in (JMAP), "), "{told}");
    assert!(told.contains("new mail is known at once (event stream)"), "{told}");
    let polled = format!("http://127.0.0.1:{}/.well-known/jmap", cyrus.http_port);
    let (code, told) = checked.check(&account(&polled, &password)).await;
    assert!(code == Some(0) && told.contains("no event stream, new mail is asked for every 60 s"), "{told}");

    // Cyrus is set up to take any password.
    let refusing = JmapFront::start(cyrus.http_port).await;
    refusing.shared.refusal.store(401, Ordering::SeqCst);
    let missing = account(&polled, &password) + "mailboxes = [\"inbox\", \"No such\"]\n";
    for (config, words) in [
        (account(&refusing.url(), &password), "WRONG: the server refused the user name and password"),
        (account(&polled, "/no/such/file"), "WRONG: cannot read the password file /no/such/file"),
        (account("http://127.0.0.1:1/", &password), "check `url` and that the server is running"),
        (missing, "there is no mailbox [\"No such\"]; there are [\"INBOX\""),
    ] {
        let (code, told) = checked.check(&config).await;
        assert!(code == Some(69) && told.contains(words) && !told.contains(PASSWORD), "{told}");
    }
}

#[tokio::test]
async fn a_push_brings_all_that_happens_to_messages() {
    let mut pushed = Pushed::start("pushed", config()).await;
    let mailbox = json!({ "name": "Sent", "parentId": null, "role": "sent" });
    let created = pushed.call("Mailbox/set", json!({ "create": { "s": mailbox } })).await;
    let sent = created["created"]["s"]["id"].clone();
    pushed.next(EventKind::MailboxCreate).await;
    let inbox = pushed.call("Mailbox/query", json!({ "filter": { "role": "inbox" } })).await["ids"][0].clone();
    pushed.deliver("new").await;
    pushed.front.changed("pushed");
    let new = pushed.next(EventKind::MessageNew).await;
    let id = new.email_id.unwrap();
    let update = |patch: serde_json::Value| json!({ "update": { id.clone(): patch } });

    pushed.call("Email/set", update(json!({ "keywords/$seen": true, "keywords/work": true }))).await;
    let read = pushed.next(EventKind::MessageRead).await;
    assert_eq!((read.email_id.as_deref(), read.mailbox.as_deref()), (Some(id.as_str()), Some("INBOX")));
    assert_eq!(read.counts.unwrap().unseen, Some(1));
    assert_eq!(pushed.next(EventKind::FlagsSet).await.flags.unwrap(), ["work"]);
    pushed.call("Email/set", update(json!({ "keywords/$seen": null }))).await;
    assert_eq!(pushed.next(EventKind::FlagsClear).await.flags.unwrap(), ["\\Seen"]);

    pushed.call("Email/set", update(json!({ "mailboxIds": { sent.as_str().unwrap(): true } }))).await;
    let moved = pushed.next(EventKind::MessageMove).await;
    assert_eq!((moved.mailbox.as_deref(), moved.old_mailbox.as_deref()), (Some("Sent"), Some("INBOX")));
    let both = json!({ sent.as_str().unwrap(): true, inbox.as_str().unwrap(): true });
    pushed.call("Email/set", update(json!({ "mailboxIds": both }))).await;
    assert_eq!(pushed.next(EventKind::MessageAppend).await.mailbox.as_deref(), Some("INBOX"));
    pushed.call("Email/set", json!({ "destroy": [id] })).await;
    let mut gone = [pushed.next(EventKind::MessageExpunge).await, pushed.next(EventKind::MessageExpunge).await];
    gone.sort_by_key(|draft| draft.mailbox.clone());
    assert_eq!(gone.map(|draft| draft.mailbox.unwrap()), ["INBOX", "Sent"]);
    assert_eq!(pushed.front.streams(), 1, "one stream for all of it");
    pushed.watching.stop().await;
}

#[tokio::test]
async fn a_push_brings_mailboxes_that_come_and_go() {
    let mut pushed = Pushed::start("mailboxes", config()).await;
    let created =
        pushed.call("Mailbox/set", json!({ "create": { "a": { "name": "Entwürfe & mehr", "parentId": null } } }));
    let id = created.await["created"]["a"]["id"].as_str().unwrap().to_owned();
    let draft = pushed.next(EventKind::MailboxCreate).await;
    assert_eq!(draft.topics[0].as_str(), "mail/mailboxes/Entw%C3%BCrfe%20%26%20mehr");
    pushed.call("Mailbox/set", json!({ "update": { id.as_str(): { "name": "Neu" } } })).await;
    let draft = pushed.next(EventKind::MailboxRename).await;
    assert_eq!((draft.mailbox.as_deref(), draft.old_mailbox.as_deref()), (Some("Neu"), Some("Entwürfe & mehr")));
    pushed.call("Mailbox/set", json!({ "destroy": [id] })).await;
    assert_eq!(pushed.next(EventKind::MailboxDelete).await.mailbox.as_deref(), Some("Neu"));
    pushed.watching.stop().await;
}

#[tokio::test]
async fn what_comes_while_the_stream_is_lost_comes_once() {
    let mut pushed = Pushed::start("lost", config()).await;
    for (at, ending) in ["", "event: state\n", "data: \u{fffd}\n\n"].into_iter().enumerate() {
        pushed.deliver(&format!("m{at}")).await;
        pushed.front.write(ending);
        pushed.front.cut();
        assert_eq!(pushed.watching.subject().await, format!("m{at}"));
        eventually("the stream to be opened again", async || (pushed.front.streams() == at + 2).then_some(())).await;
    }
    let garbage = "data: ".to_owned() + &"x".repeat(100_000) + "\n\n";
    pushed.front.write(&garbage);
    eventually("a stream after the one that was too long", async || (pushed.front.streams() == 5).then_some(())).await;
    pushed.deliver("after").await;
    pushed.front.write("event: state\ndata: no JSON\n\n");
    assert_eq!(pushed.watching.subject().await, "after");
    pushed.watching.stop().await;
}

#[tokio::test]
async fn a_stream_that_says_nothing_is_given_up() {
    let mut pushed = Pushed::start("silent", JmapConfig { ping: Duration::from_secs(1), ..config() }).await;
    pushed.deliver("unheard").await;
    assert_eq!(pushed.watching.subject().await, "unheard", "nobody said that it came");
    assert!(pushed.front.streams() >= 2);
    pushed.watching.stop().await;
}

#[tokio::test]
async fn what_the_server_forgot_is_caught_up_and_said() {
    let config = JmapConfig { remembered_max: std::num::NonZeroUsize::MIN, ..config() };
    let mut pushed = Pushed::start("forgotten", config).await;
    pushed.deliver("known").await;
    pushed.front.changed("forgotten");
    let known = pushed.next(EventKind::MessageNew).await.email_id.unwrap();
    pushed.front.shared.forgetful.store(true, Ordering::SeqCst);
    pushed.deliver("in between").await;
    let seen = json!({ "update": { known: { "keywords/$seen": true } } });
    pushed.call("Email/set", seen).await;
    let reset = pushed.next(EventKind::MailboxReset).await;
    assert!(reset.reason.unwrap().contains("no longer knows"), "it is said");
    pushed.next(EventKind::MessageRead).await;
    // The one from before the account was watched is not remembered, and came in the ten minutes that clocks may be apart.
    let mut told = [pushed.watching.subject().await, pushed.watching.subject().await];
    told.sort();
    assert_eq!(told, ["before", "in between"], "what was announced is not announced again");
    pushed.deliver("next").await;
    pushed.front.changed("forgotten");
    assert_eq!(pushed.watching.subject().await, "next");
    pushed.watching.stop().await;
}

#[tokio::test]
async fn of_many_messages_the_newest_are_announced() {
    // More than one answer has, and fewer.
    for (user, count, max) in [("some", 5, 2), ("many", 105, 3)] {
        let (cyrus, folder) = (shared::<Cyrus>(), tempdir().unwrap());
        cyrus.deliver(user, &message("before")).await;
        let accounts = [account(format!("http://127.0.0.1:{}/jmap", cyrus.http_port), user)];
        let config = JmapConfig { catch_up_max: max.try_into().unwrap(), ..config() };
        let mut watching = Watching::start_jmap(folder.path(), &accounts, config.clone());
        watching.next(EventKind::AccountUp).await;
        watching.stop().await;
        for at in 0..count {
            cyrus.deliver(user, &message(&format!("m{at}"))).await;
        }
        let mut watching = Watching::start_jmap(folder.path(), &accounts, config);
        for _ in 0..max {
            watching.next(EventKind::MessageNew).await;
        }
        let overflow = watching.next(EventKind::MailboxOverflow).await.draft.reason.unwrap();
        assert!(overflow.starts_with(&format!("{} older messages", count - max)), "{overflow}");
        watching.next(EventKind::AccountUp).await;
        watching.stop().await;
    }
}

#[tokio::test]
async fn refusals_are_told_by_their_kind_and_end() {
    let mut pushed = Pushed::start("refused", config()).await;
    pushed.front.shared.refusal.store(401, Ordering::SeqCst);
    pushed.front.cut();
    let reason = pushed.next(EventKind::AccountAuthFailed).await.reason.unwrap();
    assert!(reason.contains("refused the user name and password") && reason.contains("401"), "{reason}");
    let status = pushed.watching.state(AccountState::AuthenticationError).await;
    assert!(status.retry_at.unwrap() > status.since, "a lock-out must not come nearer");
    pushed.watching.stop().await;

    let mut pushed = Pushed::start("throttled", config()).await;
    pushed.front.shared.refusal.store(429, Ordering::SeqCst);
    pushed.front.cut();
    let reason = pushed.next(EventKind::AccountDown).await.reason.unwrap();
    assert!(reason.contains("come back later"), "{reason}");
    pushed.front.shared.refusal.store(0, Ordering::SeqCst);
    pushed.next(EventKind::AccountUp).await;
    pushed.watching.stop().await;
}

#[tokio::test]
async fn the_server_may_go_and_come_back() {
    let (cyrus, folder) = (Cyrus::start(), tempdir().unwrap());
    let url = format!("http://127.0.0.1:{}/jmap", cyrus.http_port);
    cyrus.deliver("restarted", &message("before")).await;
    let mut watching = Watching::start_jmap(folder.path(), &[account(url, "restarted")], config());
    watching.next(EventKind::AccountUp).await;
    cyrus.stop();
    let down = watching.next(EventKind::AccountDown).await.draft.reason.unwrap();
    assert!(down.starts_with("cannot reach http://127.0.0.1"), "{down}");
    cyrus.start_again();
    cyrus.deliver("restarted", &message("while away")).await;
    let mut next = [watching.event().await.draft, watching.event().await.draft];
    next.sort_by_key(|draft| draft.kind.as_str());
    assert_eq!([next[0].kind, next[1].kind], [EventKind::AccountUp, EventKind::MessageNew]);
    watching.stop().await;
}
