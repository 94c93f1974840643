//! An event and the place that its source had reached become durable together or not at all: neither is left behind
//! when the other cannot be written and the process dies.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use std::path::Path;
use std::time::Duration;

use postrider::event_log::EventLog;
use rusqlite::Connection;
use serde_json::{Value, json};
use support::dovecot::{Dovecot, PASSWORD};
use support::eventually;
use support::server::{Options, Server};

/// Lets every write to one table of the log fail, as a fault in the middle of a transaction does.
struct Fault(Connection);

impl Fault {
    fn of(table: &str, data_dir: &Path) -> Self {
        let connection = Connection::open(data_dir.join(EventLog::FILE)).expect("the event log");
        connection.busy_timeout(Duration::from_secs(10)).expect("a time");
        let trigger = format!("CREATE TRIGGER fault BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'fault'); END");
        connection.execute_batch(&trigger).expect("a trigger");
        Self(connection)
    }

    fn end(self) {
        self.0.execute_batch("DROP TRIGGER fault").expect("it was there");
    }
}

async fn start(folder: &Path, dovecot: &Dovecot) -> Server {
    let config = format!(
        "[imap]\nretry_first = \"200ms\"\n[[account]]\nname = \"watched\"\n[account.imap]\nhost = \"127.0.0.1\"\n\
         port = {}\nsecurity = \"none\"\nusername = \"alice\"\npassword_command = [\"echo\", \"{PASSWORD}\"]\n",
        dovecot.imap_port
    );
    Server::with(Options { data_dir: Some(folder.join("data")), config, ..Options::default() }).await
}

async fn account(server: &Server) -> Option<Value> {
    let answer: Value = server.get("/api/accounts").send().await.ok()?.json().await.ok()?;
    Some(answer["accounts"][0].clone())
}

async fn watched(server: &Server) {
    eventually("the mailbox to be watched", || async {
        (account(server).await?["state"] == "connected").then_some(())
    })
    .await;
}

async fn stalled(server: &Server) {
    eventually("the account to say that nothing can be stored", || async {
        account(server).await?["reason"].as_str()?.contains("cannot write the event log").then_some(())
    })
    .await;
}

/// What was announced, in order.
async fn subjects(server: &Server) -> Vec<Value> {
    let path = "/api/events?topic=mail/watched/INBOX&limit=500";
    let answer: Value = server.get(path).send().await.expect("an answer").json().await.expect("JSON");
    let events = answer["events"].as_array().expect("events").iter().rev();
    events.filter(|event| event["kind"] == "MessageNew").map(|event| event["message"]["subject"].clone()).collect()
}

/// Breaks writes to one table while a message comes, kills the process, and looks at what is there before and after.
async fn fault_in(table: &str) {
    let (dovecot, folder) = (Dovecot::start(), tempfile::tempdir().expect("a folder"));
    let mut server = start(folder.path(), &dovecot).await;
    watched(&server).await;
    let fault = Fault::of(table, &server.data_dir);
    dovecot.deliver("alice", "Subject: during the fault\r\n\r\ntext\r\n").await;
    stalled(&server).await;
    assert!(subjects(&server).await.is_empty(), "nothing is announced of which only a part is durable");
    server.kill().await;
    fault.end();

    let server = start(folder.path(), &dovecot).await;
    watched(&server).await;
    dovecot.deliver("alice", "Subject: after the fault\r\n\r\ntext\r\n").await;
    let wanted = [json!("during the fault"), json!("after the fault")];
    eventually("both messages, once each", || async {
        let subjects = subjects(&server).await;
        assert!(wanted.starts_with(&subjects), "{subjects:?}");
        (subjects == wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_place_is_not_kept_without_the_events_before_it() {
    fault_in("event").await;
}

#[tokio::test]
async fn events_are_not_announced_without_the_place_behind_them() {
    fault_in("checkpoint").await;
}
