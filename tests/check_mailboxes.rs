//! What `postrider check` explains of an account: what the server is, how it will be watched, and what makes it slow.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::fs;
use std::process::Stdio;

use support::dovecot::{Dovecot, PASSWORD};
use support::scripted_imap::ScriptedImap;
use support::within;
use tempfile::tempdir;
use tokio::process::Command;

/// What `check` says of an account `alice` at this port, and its exit code.
async fn check(port: u16, more: &str) -> (Option<i32>, String) {
    let folder = tempdir().unwrap();
    let file = folder.path().join("p.toml");
    let text = format!(
        "http.listen = '127.0.0.1:0'\nsmtp.enabled = false\n[[account]]\nname = 'alice'\n[account.imap]\n\
         host = '127.0.0.1'\nport = {port}\nsecurity = 'none'\nusername = 'alice'\npassword_env = 'PASSWORD'\n{more}"
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    command.env_clear().env("PASSWORD", PASSWORD).args(["check", "--config"]).arg(&file).arg("--data-dir");
    command.arg(folder.path().join("data")).stdin(Stdio::null()).kill_on_drop(true);
    let output = within("check", command.output()).await.unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// The text behind a heading.
fn said<'a>(output: &'a str, heading: &str) -> &'a str {
    let found = output.lines().find_map(|line| line.trim_start().strip_prefix(heading)?.strip_prefix(' '));
    found.expect(heading).trim_start()
}

#[tokio::test]
async fn a_dovecot_is_explained() {
    let dovecot = Dovecot::start_with("auth_mechanisms = plain login scram-sha-256\n");
    dovecot.doveadm(&["mailbox", "create", "-u", "alice", "Lists"]).await;
    let (code, output) = check(dovecot.imap_port, "mailboxes = ['*']\n").await;
    assert_eq!(code, Some(0), "{output}");
    assert!(said(&output, "account alice").starts_with("logged in (no encryption), 2 mailboxes, "), "{output}");
    assert!(said(&output, "server").starts_with("Dovecot"), "{output}");
    assert!(said(&output, "login").starts_with("SCRAM-SHA-256, "), "{output}");
    let watched = said(&output, "watched");
    assert!(
        watched.starts_with("INBOX, Lists: NOTIFY and IDLE on one connection (IDLE is accepted after "),
        "{output}"
    );
    assert!(said(&output, "offered").starts_with("NOTIFY, QRESYNC, CONDSTORE, "), "{output}");
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").unwrap();
    let is_few = limit.trim().parse::<u32>().unwrap() <= 128;
    assert_eq!(output.contains("fs.inotify.max_user_instances"), is_few, "{output}");

    let (code, output) = check(dovecot.imap_port, "mailboxes = ['INBOX', 'Typo']\n").await;
    assert!(code == Some(69) && output.contains("there is no mailbox [\"Typo\"]"), "{output}");
    let (code, output) = check(dovecot.imap_port, "mailboxes = ['Nothing/*']\n").await;
    assert!(code == Some(69) && output.contains("`mailboxes` fits none of"), "{output}");
}

#[tokio::test]
async fn a_server_that_refuses_idle_and_one_that_needs_help_for_it_are_told() {
    let server = ScriptedImap::start().await;
    let port = server.account().imap.unwrap().port();
    let script = async {
        let mut peer = server.accept().await;
        peer.send("* OK [CAPABILITY IMAP4rev1 IDLE ID] Courier-IMAP ready\r\n").await;
        peer.answer("LOGIN", "").await;
        peer.answer("CAPABILITY", "* CAPABILITY IMAP4rev1 IDLE ID\r\n").await;
        peer.answer("ID (\"name\" \"postrider\"", "* ID (\"name\" \"Courier-IMAP\" \"version\" \"5.2\x07\")\r\n").await;
        peer.answer("LIST", "* LIST (\\HasNoChildren) \".\" \"INBOX\"\r\n").await;
        peer.answer("EXAMINE", "* 3 EXISTS\r\n* OK [UIDVALIDITY 1] ok\r\n* OK [UIDNEXT 4] ok\r\n").await;
        let tag = peer.command("IDLE").await;
        peer.send(&format!("{tag} NO not today\r\n")).await;
        peer.command("LOGOUT").await;
    };
    let ((code, output), ()) = tokio::join!(check(port, ""), script);
    assert_eq!(code, Some(0), "{output}");
    assert!(said(&output, "account alice").contains("no IDLE, new mail is asked for"), "{output}");
    assert_eq!(said(&output, "server"), "Courier-IMAP 5.2");
    assert_eq!(said(&output, "watched"), "INBOX: asked for every 60 s (IDLE is offered and refused: not today)");
    assert!(said(&output, "note").starts_with("Courier's IDLE says nothing unless FAM or gamin runs"), "{output}");
}
