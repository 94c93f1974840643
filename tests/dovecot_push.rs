//! What a real Dovecot pushes becomes events: by the OX driver and by the Lua script that we ship.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::time::{Duration, Instant};

use postrider::source::dovecot_push::Secret;
use serde_json::{Value, json};
use support::dovecot::{Dovecot, PASSWORD};
use support::dovecot_push::{SECRET, ask_for_pushes, free_port, lua, options, ox};
use support::server::Server;
use support::stream::Stream;
use support::{eventually, within};

/// A Dovecot and the postrider that it pushes to.
struct Pushed {
    dovecot: Dovecot,
    server: Server,
}

impl Pushed {
    /// An account `alice` that is not watched: what is pushed is all that is known of her mail.
    async fn with(port: u16, dovecot: &str) -> Self {
        let dovecot = Dovecot::start_with(dovecot);
        let server = receiver(port, "[[account]]\nname = 'alice'\n").await;
        Self { dovecot, server }
    }

    async fn events(&self) -> Stream {
        Stream::open(&self.server, "/events?topic=*", "application/x-ndjson").await
    }
}

async fn receiver(port: u16, accounts: &str) -> Server {
    Server::with(options(port, accounts)).await
}

/// How often pushes had this result.
async fn counted(server: &Server, result: &str) -> u64 {
    let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    let prefix = format!("postrider_dovecot_push_total{{result=\"{result}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&prefix)).map_or(0, |count| count.parse().unwrap())
}

fn message(subject: &str) -> String {
    format!("From: Ada Lovelace <ada@example.org>\nSubject: {subject}\nMessage-ID: <{subject}@example.org>\n\nHello.\n")
}

/// Of the fields that matter here, those that are there.
fn shown(event: &Value) -> Value {
    let mut shown = json!({});
    for field in ["kind", "mailbox", "old_mailbox", "uid", "flags", "counts"] {
        if let Some(value) = event.get(field) {
            shown[field] = value.clone();
        }
    }
    shown
}

#[tokio::test]
async fn a_delivery_is_an_event_long_before_idle_would_tell() {
    let port = free_port();
    let pushed = Pushed::with(port, &ox(port, SECRET)).await;
    ask_for_pushes(&pushed.dovecot, "alice", "alice").await;
    let mut events = pushed.events().await;
    let mut waits = Vec::new();
    for at in 1..=5 {
        let before = Instant::now();
        pushed.dovecot.deliver("alice", &message("=?utf-8?b?R3LDvMOfZQ==?=")).await;
        let acknowledged = before.elapsed();
        let event = events.event().await;
        waits.push(before.elapsed().saturating_sub(acknowledged));
        assert_eq!((&event["kind"], &event["source"]), (&json!("MessageNew"), &json!("dovecot")));
        assert_eq!(event["topics"], json!(["mail/alice/INBOX"]));
        assert_eq!((&event["uid"], &event["counts"]), (&json!(at), &json!({ "unseen": at })));
        assert!(event["uid_validity"].as_u64().is_some_and(|uid_validity| uid_validity > 0));
        let message = &event["message"];
        assert_eq!(message["from"], json!([{ "name": "Ada Lovelace", "address": "ada@example.org" }]));
        assert_eq!((&message["subject"], &message["preview"]), (&json!("Grüße"), &json!("Hello.")));
    }
    waits.sort();
    println!("event behind the LMTP answer: {waits:?}");
    // With IDLE none can be below 500 ms; the median, since the machine may be busy with other tests.
    assert!(waits[2] < Duration::from_millis(250), "{waits:?}");
    assert_eq!(counted(&pushed.server, "stored").await, 5);
}

#[tokio::test]
async fn an_account_is_found_by_its_token_and_by_no_other() {
    let port = free_port();
    let dovecot = ox(port, SECRET).replace("/dovecot/push\n", "/dovecot/push user_from_metadata\n");
    let pushed = Pushed::with(port, &dovecot).await;
    ask_for_pushes(&pushed.dovecot, "alice", "guessed").await;
    pushed.dovecot.deliver("alice", &message("1")).await;
    eventually("the unknown user to be counted", async || {
        (counted(&pushed.server, "unknown_user").await == 1).then_some(())
    })
    .await;
    assert_eq!(counted(&pushed.server, "stored").await, 0);
    let token = Secret::new("postrider", SECRET.into()).token(&"alice".parse().unwrap());
    let other = Dovecot::start_with(&dovecot);
    ask_for_pushes(&other, "anybody", &token).await;
    let mut events = pushed.events().await;
    other.deliver("anybody", &message("2")).await;
    let event = events.event().await;
    assert_eq!((&event["account"], &event["message"]["subject"]), (&json!("alice"), &json!("2")));
    assert!(!pushed.dovecot.log().contains("Error"), "an unknown user is no error:\n{}", pushed.dovecot.log());
}

#[tokio::test]
async fn a_wrong_secret_is_refused_and_counted_and_delivers_all_the_same() {
    let port = free_port();
    let pushed = Pushed::with(port, &ox(port, "wrong")).await;
    ask_for_pushes(&pushed.dovecot, "alice", "alice").await;
    pushed.dovecot.deliver("alice", &message("1")).await;
    eventually("the refusal to be counted", async || {
        (counted(&pushed.server, "unauthorized").await >= 1).then_some(())
    })
    .await;
    assert_eq!(counted(&pushed.server, "stored").await, 0);
}

#[tokio::test]
async fn what_is_not_understood_is_refused_by_what_is_wrong_with_it() {
    let port = free_port();
    let server = receiver(port, "[[account]]\nname = 'alice'\n").await;
    let push = async |body: Vec<u8>| {
        let request = server.client.put(format!("{}/dovecot/push", server.http)).basic_auth("postrider", Some(SECRET));
        within("an answer", request.body(body).send()).await.unwrap().status().as_u16()
    };
    let good =
        json!({ "user": "alice", "event": "messageNew", "folder": "INBOX", "imap-uidvalidity": 1, "imap-uid": 1 });
    assert_eq!(push(good.to_string().into_bytes()).await, 204);
    assert_eq!(push(b"[]".to_vec()).await, 204);
    for garbage in ["", "{", "null", "[[]]", "\u{0}\u{1}", r#"{"user":"alice"}"#, r#"[{"user":["alice"]}]"#] {
        assert_eq!(push(garbage.into()).await, 400, "{garbage}");
    }
    assert_eq!(push(vec![0xff, 0xfe]).await, 400);
    assert_eq!(push(vec![b' '; 64 * 1024 + 1]).await, 413);
    let deep = "[".repeat(60_000);
    assert_eq!(push(deep.into_bytes()).await, 400);
    assert_eq!(counted(&server, "invalid").await, 10);
    let url = format!("{}/dovecot/push", server.http);
    let answer = server.client.post(&url).bearer_auth(&server.token).body("{}").send().await.unwrap();
    assert_eq!(answer.status(), 401, "a subscriber's token is no secret of Dovecot's");
    assert_eq!(answer.headers()["www-authenticate"], "Basic realm=\"postrider\"");
    let answer = server.client.post(&url).bearer_auth(SECRET).body("[]").send().await.unwrap();
    assert_eq!(answer.status(), 204);
}

#[tokio::test]
async fn without_a_secret_there_is_no_receiver() {
    let server = Server::start().await;
    let url = format!("{}/dovecot/push", server.http);
    let answer = server.client.put(url).basic_auth("postrider", Some("")).body("[]").send().await.unwrap();
    assert_eq!(answer.status(), 404);
}

/// The same message again, as after an answer that was lost.
#[tokio::test]
async fn a_repeated_push_is_no_second_event() {
    let server = receiver(free_port(), "[[account]]\nname = 'alice'\n").await;
    let mut events = Stream::open(&server, "/events?topic=*", "application/x-ndjson").await;
    for (uid, subject) in [(1, "a"), (1, "a"), (2, "b")] {
        let body = json!({ "user": "alice", "event": "messageNew", "folder": "INBOX", "imap-uidvalidity": 1,
            "imap-uid": uid, "subject": subject });
        let request = server.client.put(format!("{}/dovecot/push", server.http)).bearer_auth(SECRET).json(&body);
        assert_eq!(within("an answer", request.send()).await.unwrap().status(), 204);
    }
    assert_eq!(events.event().await["uid"], 1);
    assert_eq!(events.event().await["uid"], 2);
}

/// IMAP and the push both tell of it.
#[tokio::test]
async fn a_watched_account_has_each_message_once_and_at_once() {
    let port = free_port();
    let dovecot = Dovecot::start_with(&ox(port, SECRET));
    let imap = format!(
        "[[account]]\nname = 'a'\n[account.imap]\nhost = '127.0.0.1'\nport = {}\nsecurity = 'none'\n\
         username = 'alice'\npassword_env = 'ALICE'\n",
        dovecot.imap_port
    );
    ask_for_pushes(&dovecot, "alice", "alice").await;
    let mut options = options(port, &imap);
    options.environment.push(("ALICE".to_owned(), PASSWORD.to_owned()));
    let server = Server::with(options).await;
    let mut events = Stream::open(&server, "/events?topic=*&last_event_id=earliest", "application/x-ndjson").await;
    assert_eq!(events.event().await["kind"], "AccountUp");
    let mut waits = Vec::new();
    for uid in 1..=5 {
        dovecot.deliver("alice", &message(&uid.to_string())).await;
        let acknowledged = Instant::now();
        let event = events.event().await;
        waits.push(acknowledged.elapsed());
        assert_eq!(
            (&event["kind"], &event["source"], &event["uid"]),
            (&json!("MessageNew"), &json!("imap"), &json!(uid))
        );
    }
    waits.sort();
    println!("event behind the LMTP answer: {waits:?}");
    assert!(waits[2] < Duration::from_millis(250), "{waits:?}");
    assert_eq!((counted(&server, "watcher_told").await, counted(&server, "stored").await), (5, 0));
}

#[tokio::test]
async fn the_lua_script_tells_all_that_happens() {
    let port = free_port();
    let Pushed { dovecot, server } = Pushed::with(port, &lua(port)).await;
    let mut events = Stream::open(&server, "/events?topic=*", "application/x-ndjson").await;
    let umlaut = "Entwürfe & mehr.台北";
    dovecot.deliver("alice", &message("=?utf-8?b?R3LDvMOfZQ==?=")).await;
    assert_eq!(shown(&events.event().await), json!({ "kind": "MailboxCreate", "mailbox": "INBOX" }));
    let event = events.event().await;
    let counts = json!({ "messages": 1, "unseen": 1 });
    let new = json!({ "kind": "MessageNew", "mailbox": "INBOX", "uid": 1, "flags": [], "counts": counts });
    assert_eq!(shown(&event), new);
    assert_eq!((&event["message"]["subject"], &event["message"]["preview"]), (&json!("Grüße"), &json!("Hello.")));
    assert_eq!(event["message"]["message_id"], "<=?utf-8?b?R3LDvMOfZQ==?=@example.org>");

    dovecot.doveadm(&["mailbox", "create", "-u", "alice", umlaut]).await;
    assert_eq!(shown(&events.event().await), json!({ "kind": "MailboxCreate", "mailbox": umlaut }));
    dovecot.doveadm(&["flags", "add", "-u", "alice", "\\Seen \\Flagged Foo", "mailbox", "INBOX", "1"]).await;
    let counts = json!({ "messages": 1, "unseen": 0 });
    let mut told = [events.event().await, events.event().await];
    told.sort_by_key(|event| event["kind"].to_string());
    let set = json!({ "kind": "FlagsSet", "mailbox": "INBOX", "uid": 1, "flags": ["\\Flagged", "Foo"],
        "counts": counts });
    let read = json!({ "kind": "MessageRead", "mailbox": "INBOX", "uid": 1, "counts": counts });
    assert_eq!([shown(&told[0]), shown(&told[1])], [set, read]);
    dovecot.doveadm(&["flags", "remove", "-u", "alice", "Foo", "mailbox", "INBOX", "1"]).await;
    let cleared = json!({ "kind": "FlagsClear", "mailbox": "INBOX", "uid": 1, "flags": ["Foo"], "counts": counts });
    assert_eq!(shown(&events.event().await), cleared);
    dovecot.doveadm(&["mailbox", "rename", "-u", "alice", umlaut, "Neu"]).await;
    let event = events.event().await;
    assert_eq!(shown(&event), json!({ "kind": "MailboxRename", "mailbox": "Neu", "old_mailbox": umlaut }));
    assert_eq!(event["topics"][0], "mail/alice/Neu");
    dovecot.doveadm(&["expunge", "-u", "alice", "mailbox", "INBOX", "all"]).await;
    let counts = json!({ "messages": 0, "unseen": 0 });
    let gone = json!({ "kind": "MessageExpunge", "mailbox": "INBOX", "uid": 1, "counts": counts });
    assert_eq!(shown(&events.event().await), gone);
    dovecot.doveadm(&["mailbox", "delete", "-u", "alice", "Neu"]).await;
    assert_eq!(shown(&events.event().await), json!({ "kind": "MailboxDelete", "mailbox": "Neu" }));
    assert!(!dovecot.log().contains("postrider was not told"), "{}", dovecot.log());
}

/// Neither waiting nor failing: Dovecot's users do not notice that postrider is down.
#[tokio::test]
async fn without_postrider_dovecot_works_as_ever() {
    for config in [ox(free_port(), SECRET), lua(free_port())] {
        let dovecot = Dovecot::start_with(&config);
        dovecot.deliver("alice", &message("1")).await;
        dovecot.save("alice", "INBOX", &message("2")).await;
        let found = dovecot.doveadm(&["search", "-u", "alice", "all"]).await;
        assert_eq!(found.lines().count(), 2, "{found}");
    }
}
