//! What a mail server sees that hands over mail by LMTP, over TCP and over a Unix socket; and mail that comes in chunks.
//! The clients are Python's smtplib and swaks.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what fails in a test fails the test"
)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use support::server::{Options, Server};
use support::within;
use tempfile::TempDir;

const ACCOUNTS: &str = "
    [[account]]
    name = 'alice'
    content = 'text'
    addresses = ['alice@example.org']
    [[account]]
    name = 'bob'
    addresses = ['bob@example.org']
";

fn config(socket: &Path) -> String {
    format!("[[smtp.listener]]\nrole = 'lmtp'\nlisten = '{}'\nmode = '0666'\n{ACCOUNTS}", socket.display())
}

async fn started() -> (Server, PathBuf, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("lmtp");
    let server = Server::with(Options { config: config(&socket), ..Options::default() }).await;
    (server, socket, folder)
}

async fn run(program: &str, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(program);
    let output = command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    within(program, output).await.unwrap_or_else(|err| panic!("{program}: {err}"))
}

/// Runs a script of Python's that has `smtplib`, and fails with it.
async fn python(script: &str) {
    let output = run("python3", &["-c", &format!("import smtplib\n{script}")]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn each_recipient_has_its_own_reply_over_a_unix_socket() {
    let (server, socket, _folder) = started().await;
    let mode = std::fs::metadata(&socket).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
    let script = format!(
        "s = smtplib.LMTP('{}')\n\
         refused = s.sendmail('a@x.example', ['alice@example.org', 'x@example.org', 'bob+Lists@example.org'], 'Subject: hi\\n\\n.\\n')\n\
         assert {{k: v[0] for k, v in refused.items()}} == {{'x@example.org': 550}}, refused\n\
         code, text = s.docmd('NOOP')\n\
         assert code == 250, 'in step'\n\
         s.quit()\n",
        socket.display()
    );
    python(&script).await;
    let log = server.whole_log().await;
    let mut topics: Vec<&str> = log.iter().filter_map(|event| event["topics"][0].as_str()).collect();
    topics.sort_unstable();
    assert_eq!(topics, ["mail/alice/INBOX", "mail/bob/Lists"]);
    assert_eq!(log[0]["message"]["text"], ".", "{:#}", log[0]);
}

#[tokio::test]
async fn swaks_speaks_lmtp_over_the_socket() {
    let (server, socket, _folder) = started().await;
    let socket = socket.display().to_string();
    let recipients = "alice@example.org,bob@example.org";
    let output =
        run("swaks", &["--protocol", "LMTP", "--socket", &socket, "--to", recipients, "--from", "a@x.example"]).await;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output).matches("250 2.0.0 Ok: queued as").count(), 2, "{}", said(&output));
    assert_eq!(server.whole_log().await.len(), 2);
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
    let (mut server, socket, _folder) = started().await;
    let again = || Options { config: config(&socket), ..Options::default() };
    let second = tempfile::tempdir().expect("a folder");
    let file = second.path().join("postrider.toml");
    std::fs::write(&file, config(&socket)).expect("the configuration");
    let data_dir = second.path().join("data");
    let arguments =
        ["run", "--http", "127.0.0.1:0", "--smtp", "127.0.0.1:0", "--config", file.to_str().expect("a path")];
    let mut arguments = arguments.to_vec();
    arguments.extend(["--data-dir", data_dir.to_str().expect("a path")]);
    let refused = run(env!("CARGO_BIN_EXE_postrider"), &arguments).await;
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(69), "{errors}");
    assert!(errors.contains("Unix socket") && errors.contains("in use"), "{errors}");
    server.kill().await;
    assert!(socket.exists(), "nobody could remove it");
    let mut server = Server::with(again()).await;
    python(&format!("smtplib.LMTP('{}').quit()", socket.display())).await;
    assert_eq!(server.terminate().await, Some(0));
    assert!(!socket.exists(), "it is removed by who made it");
}

/// `text`, by BDAT in pieces of `size` octets.
fn chunked(connect: &str, recipients: &[&str], text: &str, size: usize) -> String {
    format!(
        "s = {connect}\n\
         s.ehlo_or_helo_if_needed()\n\
         assert s.has_extn('chunking'), s.esmtp_features\n\
         assert s.docmd('MAIL FROM:<a@x.example> BODY=8BITMIME SIZE=9')[0] == 250\n\
         for r in {recipients:?}: assert s.docmd(f'RCPT TO:<{{r}}> NOTIFY=NEVER')[0] == 250\n\
         text = {text:?}.encode()\n\
         chunks = [text[at:at + {size}] for at in range(0, len(text), {size})]\n\
         for chunk in chunks[:-1]:\n\
        \x20   s.send(b'BDAT %d\\r\\n' % len(chunk) + chunk)\n\
        \x20   code, answer = s.getreply()\n\
        \x20   assert code == 250, answer\n\
         s.send(b'BDAT %d LAST\\r\\n' % len(chunks[-1]) + chunks[-1])\n\
         for r in {recipients:?}[:1] if type(s) is smtplib.SMTP else {recipients:?}:\n\
        \x20   code, answer = s.getreply()\n\
        \x20   assert code == 250 and b'queued' in answer, answer\n\
         s.quit()\n"
    )
}

#[tokio::test]
async fn a_message_in_chunks_is_the_message() {
    let (server, socket, _folder) = started().await;
    let (host, port) = server.smtp.split_once(':').expect("an address");
    let text = "Subject: Grüße\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n.\r\n..\r\nÄ\r\n.\r\nthe end";
    let connect = format!("smtplib.SMTP('{host}', {port})");
    python(&chunked(&connect, &["alice@example.org", "bob@example.org"], text, 7)).await;
    let connect = format!("smtplib.LMTP('{}')", socket.display());
    python(&chunked(&connect, &["alice@example.org", "bob@example.org"], text, 1000)).await;
    let log = server.whole_log().await;
    let of_alice: Vec<&Value> = log.iter().filter(|event| event["topics"][0] == "mail/alice/INBOX").collect();
    assert_eq!((log.len(), of_alice.len()), (4, 2));
    for event in of_alice {
        assert_eq!(event["message"]["subject"], "Grüße");
        assert_eq!(event["message"]["text"], ".\n..\nÄ\n.\nthe end");
        assert_eq!(event["message"]["size"], text.len());
    }
}

#[tokio::test]
async fn mail_that_goes_round_in_circles_is_refused_for_good() {
    let (server, socket, _folder) = started().await;
    let (host, port) = server.smtp.split_once(':').expect("an address");
    // Python's own `sendmail` reads one reply where LMTP gives one for each recipient.
    let script = format!(
        "def sent(client, hops, replies):\n\
        \x20   client.ehlo_or_helo_if_needed()\n\
        \x20   client.mail('a@x.example')\n\
        \x20   for to in ['alice@example.org', 'bob@example.org']: assert client.rcpt(to)[0] == 250\n\
        \x20   assert client.docmd('DATA')[0] == 354\n\
        \x20   client.send('Received: from x by y\\r\\n' * hops + 'Subject: hi\\r\\n\\r\\n.\\r\\n')\n\
        \x20   return [client.getreply() for _ in range(replies)]\n\
         for client, replies in (smtplib.LMTP('{}'), 2), (smtplib.SMTP('{host}', {port}), 1):\n\
        \x20   refused = sent(client, 51, replies)\n\
        \x20   assert all(code == 554 and text.startswith(b'5.4.6 ') for code, text in refused), refused\n\
        \x20   taken = sent(client, 50, replies)\n\
        \x20   assert all(code == 250 for code, text in taken), taken\n\
        \x20   client.quit()\n",
        socket.display()
    );
    python(&script).await;
    assert_eq!(server.whole_log().await.len(), 4, "two messages to two accounts");
}
