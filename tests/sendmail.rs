//! `postrider sendmail` as cron, scripts and mail programs call it: the real program against the real server, and
//! against one that says what is needed here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use support::server::{Options, Server};
use support::{eventually, within};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;

const ACCOUNTS: &str = "[smtp]\nlocal_domains = ['localhost']\n\
                        [[account]]\nname = 'alice'\ncontent = 'text'\naddresses = ['alice@example.org']\n";

/// A folder with a link to the program, called `sendmail`.
struct Sendmail {
    folder: TempDir,
    /// What the program is told besides: where the server is.
    variables: Vec<(&'static str, String)>,
}

/// How a call ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    errors: String,
    output: String,
}

impl Sendmail {
    /// For a server that listens here, as its configuration says.
    fn to(smtp: &str, config: Option<&Path>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        symlink(env!("CARGO_BIN_EXE_postrider"), folder.path().join("sendmail")).unwrap();
        symlink(env!("CARGO_BIN_EXE_postrider"), folder.path().join("mailq")).unwrap();
        let mut variables = vec![("POSTRIDER_SMTP__LISTEN", smtp.to_owned())];
        variables.extend(config.map(|config| ("POSTRIDER_CONFIG", config.to_str().unwrap().to_owned())));
        Self { folder, variables }
    }

    fn of(server: &Server) -> Self {
        Self::to(&server.smtp, Some(&server.config))
    }

    fn link(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env_clear().env("LOGNAME", "root").env("HOME", self.folder.path()).kill_on_drop(true);
        command.env("PATH", format!("{}:{}", self.folder.path().display(), std::env::var("PATH").unwrap()));
        command.envs(self.variables.iter().cloned());
        command
    }

    async fn run(&self, arguments: &[&str], input: &str) -> Ended {
        self.run_as(self.link("sendmail"), arguments, input).await
    }

    async fn run_as(&self, program: impl AsRef<Path>, arguments: &[&str], input: &str) -> Ended {
        let mut command = self.command(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut stdin = child.stdin.take().unwrap();
        // A program that refuses its arguments does not read.
        drop(stdin.write_all(input.as_bytes()).await);
        drop(stdin);
        let output = within("sendmail to end", child.wait_with_output()).await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ended { code: output.status.code(), errors: text(output.stderr), output: text(output.stdout) }
    }
}

async fn server(config: &str) -> Server {
    Server::with(Options { config: config.to_owned(), ..Options::default() }).await
}

/// Takes everything for one session, save what begins with a key of `answers`; gives what it was told.
async fn scripted(answers: &'static [(&'static str, &'static str)]) -> (String, JoinSet<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let session = async move {
        let mut stream = BufReader::new(listener.accept().await.unwrap().0);
        let (mut said, mut in_text) = (String::new(), false);
        stream.write_all(b"220 test\r\n").await.unwrap();
        loop {
            let start = said.len();
            if stream.read_line(&mut said).await.unwrap_or(0) == 0 {
                return said;
            }
            let line = &said[start..];
            if in_text && line != ".\r\n" {
                continue;
            }
            let answer = answers.iter().find(|(begin, _)| line.starts_with(begin)).map(|(_, answer)| *answer);
            let usual = if line.starts_with("DATA") { "354 go on" } else { "250 fine" };
            in_text = line.starts_with("DATA") && answer.is_none();
            stream.write_all(format!("{}\r\n", answer.unwrap_or(usual)).as_bytes()).await.unwrap();
        }
    };
    let mut task = JoinSet::new();
    task.spawn(session);
    (address, task)
}

#[tokio::test]
async fn what_cron_sends_is_an_event() {
    let server = server(ACCOUNTS).await;
    let mail = "From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@box> backup\nAuto-Submitted: auto-generated\n\
                Content-Type: text/plain; charset=UTF-8\n\n.\nGrüße: disk full\r50%\r100%\n";
    let ended = Sendmail::of(&server).run(&["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root"], mail).await;
    assert_eq!((ended.code, &*ended.errors, &*ended.output), (Some(0), "", ""));
    let events = server.whole_log().await;
    let event = events.iter().find(|event| event["kind"] == "MessageNew").expect("an event");
    assert_eq!((&event["account"], &event["source"]), (&"root".into(), &"smtp".into()));
    assert_eq!(event["envelope"]["mail_from"], "root@localhost");
    assert_eq!(event["envelope"]["rcpt_to"], "root@localhost");
    let message = &event["message"];
    assert_eq!((&message["subject"], &message["auto_submitted"]), (&"Cron <root@box> backup".into(), &true.into()));
    assert!(message["preview"].as_str().unwrap().starts_with(". Grüße: disk full"), "{message}");
    assert!(message["message_id"].as_str().unwrap().ends_with("@localhost>"), "{message}");
    assert!(message["date"].is_string(), "{message}");
}

#[tokio::test]
async fn bcc_is_a_recipient_whom_nobody_learns_of() {
    let (address, mut session) = scripted(&[]).await;
    let sendmail = Sendmail::to(&address, None);
    let mail =
        "To: Ada <ada@x.example>, root\nCc: bob@x.example\nBcc: secret@x.example\nSubject: s\n\n..\n.\nnot this\n";
    let ended = sendmail.run(&["-t", "-F", "Grüne Ada", "-oem", "-f", "ada@x.example"], mail).await;
    assert_eq!((ended.code, &*ended.errors), (Some(0), ""));
    let said = within("the session's end", session.join_next()).await.unwrap().unwrap();
    let recipients: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("RCPT TO:")).collect();
    assert_eq!(recipients, ["<ada@x.example>", "<root@localhost>", "<bob@x.example>", "<secret@x.example>"]);
    assert!(said.contains("MAIL FROM:<ada@x.example> "), "{said}");
    assert!(said.contains("From: =?utf-8?b?R3LDvG5lIEFkYQ==?= <ada@x.example>\r\n"), "{said}");
    assert!(said.contains("\r\n\r\n...\r\n.\r\n"), "{said}");
    let text = said.split_once("DATA\r\n").unwrap().1;
    assert!(!text.contains("secret") && !text.contains("Bcc") && !text.contains("not this"), "{text}");
}

#[tokio::test]
async fn pythons_subprocess_and_mutts_options_deliver() {
    let server = server(ACCOUNTS).await;
    let sendmail = Sendmail::of(&server);
    let script = "import subprocess\nfrom email.message import EmailMessage\n\
                  m = EmailMessage()\nm['To'] = 'alice@example.org'\nm['From'] = 'Ada <ada@x.example>'\n\
                  m['Subject'] = 'from Python ⚡'\nm.set_content('hello\\n.\\nworld')\n\
                  subprocess.run(['sendmail', '-t', '-oi'], input=m.as_bytes(), check=True)\n";
    let ended = sendmail.run_as("python3", &["-c", script], "").await;
    assert_eq!((ended.code, &*ended.errors), (Some(0), ""));
    let mail = "From: Ada <ada@x.example>\nTo: alice@example.org\nSubject: from mutt\n\nhi\n";
    let arguments = ["-oem", "-oi", "-f", "ada@x.example", "--", "alice@example.org"];
    assert_eq!(sendmail.run(&arguments, mail).await.code, Some(0));
    let subjects: Vec<Value> =
        server.whole_log().await.iter().map(|event| event["message"]["subject"].clone()).collect();
    assert_eq!(subjects, ["from Python ⚡", "from mutt"]);
}

#[tokio::test]
async fn who_is_refused_is_named_and_the_others_get_it() {
    let server = server(&ACCOUNTS.replace("local_domains = ['localhost']", "")).await;
    let sendmail = Sendmail::of(&server);
    let ended = sendmail.run(&["alice@example.org", "nobody@example.org", "root"], "hi\n").await;
    assert_eq!(ended.code, Some(67), "{ended:?}");
    assert!(ended.errors.contains("postrider: root: no domain"), "{}", ended.errors);
    assert!(ended.errors.contains("postrider: nobody@example.org: 550 5.1.1"), "{}", ended.errors);
    assert_eq!(server.whole_log().await.len(), 1);
}

#[tokio::test]
async fn a_unix_socket_with_lmtp_will_do() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("lmtp");
    let config = format!(
        "[smtp]\nenabled = false\nlocal_domains = ['box.lan']\n\
         [[smtp.listener]]\nrole = 'lmtp'\nlisten = '{}'\n",
        socket.display()
    );
    // The support's `--smtp` switches the other listener on: the program that sends must not find it.
    let server = server(&config).await;
    eventually("the socket", || async { socket.exists().then_some(()) }).await;
    let mut sendmail = Sendmail::of(&server);
    sendmail.variables.retain(|(name, _)| *name == "POSTRIDER_CONFIG");
    let ended = sendmail.run(&["-v", "ops+disk", "+nobody@box.lan"], "Subject: full\n\nhi\n").await;
    assert_eq!(ended.code, Some(67), "{ended:?}");
    assert!(ended.errors.contains("LHLO") && ended.errors.contains("RCPT TO:<ops+disk@box.lan>"), "{}", ended.errors);
    let events = server.whole_log().await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((&events[0]["source"], &events[0]["mailbox"]), (&"lmtp".into(), &"disk".into()));
}

#[tokio::test]
async fn each_failure_has_its_exit_code() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let sendmail = Sendmail::to(&closed, None);
    for (arguments, input, code, word) in [
        (&["root"][..], "hi\n", 75, "cannot be reached"),
        (&[], "hi\n", 64, "no recipients"),
        (&["-t"], "Subject: x\n\nTo: a@b\n", 64, "names no recipients"),
        (&["-Z", "root"], "", 64, "unknown option `-Z`"),
        (&["-bs"], "", 64, "127.0.0.1:2525"),
        (&["\"root> SIZE=1\r\nRCPT TO:<x\"@y"], "", 65, "not an address"),
        (&["-f", "<a\u{7}@b", "root"], "", 75, "cannot be reached"),
        (&["--config", "/no/such.toml", "root"], "", 78, "/no/such.toml"),
    ] {
        let ended = sendmail.run(arguments, input).await;
        assert_eq!(ended.code, Some(code), "{arguments:?} {ended:?}");
        assert!(ended.errors.starts_with("postrider: ") && ended.errors.contains(word), "{arguments:?} {ended:?}");
    }
    let queue = sendmail.run_as(sendmail.link("mailq"), &[], "").await;
    assert_eq!((queue.code, queue.output.contains("Mail queue is empty")), (Some(0), true));
    assert_eq!(sendmail.run(&["-q"], "").await.code, Some(0));

    let limited = [("MAIL", "552 5.3.4 too large")];
    for (answers, code) in [
        (&limited[..], 69),
        (&[("RCPT", "451 4.3.0 later")], 75),
        (&[("DATA", "421 4.3.2 going down")], 75),
        (&[(".", "452 4.3.1 full")], 75),
        (&[(".", "554 5.6.0 no")], 69),
        (&[("EHLO", "554 5.5.1 no")], 69),
    ] {
        let (address, mut session) = scripted(Box::leak(Box::<[_]>::from(answers))).await;
        let ended = Sendmail::to(&address, None).run(&["root"], "hi\n").await;
        assert_eq!(ended.code, Some(code), "{answers:?} {ended:?}");
        within("the session's end", session.join_next()).await.unwrap().unwrap();
    }
    let mut sendmail = Sendmail::to(&closed, None);
    sendmail.variables.push(("POSTRIDER_SMTP__MESSAGE_BYTES_MAX", "10".to_owned()));
    assert_eq!(sendmail.run(&["root"], "12345678901").await.code, Some(65));
}
