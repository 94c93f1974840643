//! The table of conformance and abuse (`*.cases`, beside this file): each case is played over SMTP, over LMTP and over
//! LMTP on a Unix socket, against the real program. What can be written there, `README.md` says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what fails in a test fails the test"
)]

#[path = "../support/mod.rs"]
mod support;

mod play;
mod table;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use futures::future::join_all;
use play::Addresses;
use serde_json::{Value, json};
use support::server::{Options, Server};
use table::{Case, Expected, Way};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Played at the same time: below the sessions that one address may have.
const AT_ONCE: usize = 40;
/// What the README promises.
const CASES_LEAST: usize = 100;

const ACCOUNTS: &str = "
    [[account]]
    name = 'alice'
    content = 'text'
    addresses = ['alice@example.org', 'grüße@example.org', '\"quoted local\"@example.org', 'alice@[192.0.2.1]']
    [[account]]
    name = 'bob'
    content = 'text'
    addresses = ['bob@example.org', 'postmaster@example.org']
";

/// The programs that cases run against, by name, with their lines of `[smtp]`.
const SERVERS: [(&str, &str); 5] = [
    ("default", ""),
    ("small", "message_bytes_max = 100000\nrecipients_max = 5"),
    ("impatient", "command_timeout = '2s'\ndata_bytes_per_second_min = 500"),
    ("tls", "{tls}"),
    ("submission", "auth_failure_delay = '10ms'\nauth_failures_max = 1000"),
];

/// Who may log in to `submission`. The password is in the environment.
const USERS: &str = "
    [[smtp.user]]
    name = 'printer'
    password_env = 'PRINTER_PASSWORD'
";

/// All tables beside this file.
fn tables() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/smtp_conformance");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "cases"));
    files.sort();
    let cases = files.iter().flat_map(|file| {
        let group = file.file_stem().unwrap().to_str().unwrap();
        table::parse(group, &fs::read_to_string(file).unwrap()).unwrap_or_else(|err| panic!("{err}"))
    });
    cases.collect()
}

/// A program with its listeners.
struct Target {
    server: Server,
    at: Addresses,
    _folder: TempDir,
}

impl Target {
    async fn start(name: &str) -> Self {
        let (_, settings) = SERVERS.iter().find(|(server, _)| *server == name).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let [chain, key, lmtp_unix] = ["cert.pem", "key.pem", "lmtp"].map(|name| folder.path().join(name));
        let own_key = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&own_key).unwrap();
        fs::write(&chain, own.pem()).unwrap();
        fs::write(&key, own_key.serialize_pem()).unwrap();
        let tls = format!("tls_certificate_file = '{}'\ntls_key_file = '{}'", chain.display(), key.display());
        let listener = |role: &str, listen: &str| format!("[[smtp.listener]]\nrole = '{role}'\nlisten = '{listen}'\n");
        let submits = name == "submission";
        let listeners = [
            listener("lmtp", "127.0.0.1:0"),
            listener("lmtp", lmtp_unix.to_str().unwrap()),
            if submits { listener("submission", "127.0.0.1:0") + USERS } else { String::new() },
        ];
        let settings = settings.replace("{tls}", &tls);
        let config = format!("[smtp]\nhostname = 'mx.example.org'\n{settings}\n{}{ACCOUNTS}", listeners.concat());
        let environment = vec![("PRINTER_PASSWORD".to_owned(), "secret".to_owned())];
        let server = Server::with(Options { config, environment, ..Options::default() }).await;
        let smtp = if submits { server.listeners[2].clone() } else { server.smtp.clone() };
        let certificate = own.der().clone();
        let at = Addresses { smtp, lmtp: server.listeners[0].clone(), lmtp_unix, certificate };
        Self { server, at, _folder: folder }
    }

    /// Plays cases over one way, all at once, and gives what was wrong with each that failed.
    async fn play(&self, cases: &[Case], way: Way) -> Vec<(String, String)> {
        let (slots, mut playing) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
        for case in cases.iter().cloned() {
            let (slots, at, id) = (slots.clone(), self.at.clone(), id(&case, way));
            playing.spawn(async move {
                let _slot = slots.acquire_owned().await.unwrap();
                let result = play::play(&case, way, &at, &id).await;
                (case, result)
            });
        }
        let mut results = Vec::new();
        while let Some(played) = playing.join_next().await {
            results.push(played.unwrap());
        }
        // What was answered with 250 is in the log.
        let log = self.server.whole_log().await;
        let judged = results.into_iter().filter_map(|(case, result)| {
            let err = result.and_then(|()| in_log(&log, &id(&case, way), &case.log)).err()?;
            Some((format!("{}/{} over {}", case.group, case.name, way.name()), err))
        });
        judged.collect()
    }
}

/// The mailbox that a case's mail is for, so that its events can be told from all others.
fn id(case: &Case, way: Way) -> String {
    format!("{}.{}.{}", case.group, case.name, way.name())
}

/// Whether the log holds of a case what it should.
fn in_log(log: &[Value], id: &str, expected: &Expected) -> Result<(), String> {
    let events: Vec<&Value> = log.iter().filter(|event| event["mailbox"] == id).collect();
    if events.len() != expected.events {
        return Err(format!("expected {} events, found {}: {}", expected.events, events.len(), start(&json!(events))));
    }
    let fill_in = |text: &String| String::from_utf8_lossy(&table::octets(text, &[("id", id)]).unwrap()).into_owned();
    for event in events {
        let (message, sender) = (&event["message"], &event["envelope"]["mail_from"]);
        let text = message["text"].as_str().unwrap_or_default();
        let is = |value: &Value, expected: &Option<String>| {
            expected.as_ref().is_none_or(|expected| value == &Value::String(fill_in(expected)))
        };
        let right = is(&message["subject"], &expected.subject)
            && is(sender, &expected.sender)
            && expected.size.is_none_or(|size| message["size"] == size)
            && expected.text.iter().map(fill_in).all(|part| text.contains(&part));
        right.then_some(()).ok_or_else(|| format!("expected {expected:?}, found {}", start(event)))?;
    }
    Ok(())
}

/// Enough of an event to see what it is.
fn start(event: &Value) -> String {
    event.to_string().chars().take(1000).collect()
}

/// Plays every case that is for this way.
async fn all_over(way: Way) {
    let cases: Vec<Case> = tables().into_iter().filter(|case| case.is_for(way)).collect();
    let mut groups = BTreeMap::<&str, usize>::new();
    for case in &cases {
        *groups.entry(&case.group).or_default() += 1;
    }
    let played = SERVERS.map(|(name, _)| {
        let cases: Vec<Case> = cases.iter().filter(|case| case.server == name).cloned().collect();
        async move { (cases.len(), Target::start(name).await.play(&cases, way).await) }
    });
    let played = join_all(played).await;
    let total: usize = played.iter().map(|(cases, _)| cases).sum();
    assert_eq!(total, cases.len(), "a case names a server that there is none of");
    let failed: Vec<_> = played.into_iter().flat_map(|(_, failed)| failed).collect();
    println!("{total} cases over {}: {groups:?}", way.name());
    assert!(total >= CASES_LEAST, "{total} are too few");
    let report = failed.iter().fold(String::new(), |mut report, (case, err)| {
        writeln!(report, "{case}: {err}").unwrap();
        report
    });
    assert!(failed.is_empty(), "{} of {total} failed over {}:\n{report}", failed.len(), way.name());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_cases_pass_over_smtp() {
    all_over(Way::Smtp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_cases_pass_over_lmtp() {
    all_over(Way::Lmtp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_cases_pass_over_lmtp_on_a_unix_socket() {
    all_over(Way::LmtpUnix).await;
}

/// Each of these is wrong in another way; a runner that passed one of them would prove nothing with the rest.
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::too_many_lines, reason = "the lines are a table")]
async fn what_is_not_as_the_table_says_fails() {
    let wrong = "
        case code
          source a test of the runner
          C: NOOP
          S: 251
        case enhanced_code
          source a test of the runner
          C: NOOP
          S: 250 2.1.5
        case text
          source a test of the runner
          C: NOOP
          S: 250 \"something else\"
        case text_that_must_not_be
          source a test of the runner
          C: NOOP
          S: 250 !\"Ok\"
        case reply_too_few
          source a test of the runner
          within 2s
          C: NOOP
          S: 250 x2
        case reply_too_many
          source a test of the runner
          C: NOOP
          C: NOOP
          S: 250
        case end
          source a test of the runner
          within 2s
          C: NOOP
          S: 250
          S: end
        case no_end
          source a test of the runner
          C: QUIT
          S: 221
        case more_before_the_end
          source a test of the runner
          C: NOOP
          C: QUIT
          S: 250
          S: end
        case no_enhanced_code
          source a test of the runner
          C: HELO c
          S: 250
        case event_too_few
          source a test of the runner
          log 2
          data
          C: hi\\r\\n.
          S: 250
        case event_too_many
          source a test of the runner
          data
          C: hi\\r\\n.
          S: 250
        case subject
          source a test of the runner
          log 1
          subject other
          data
          C: Subject: one\\r\\n.
          S: 250
        case text_in_log
          source a test of the runner
          log 1
          text other
          data
          C: \\r\\nsome text\\r\\n.
          S: 250
        case size
          source a test of the runner
          log 1
          size 5
          data
          C: hi\\r\\n.
          S: 250
        case sender
          source a test of the runner
          log 1
          sender somebody@x.example
          data
          C: hi\\r\\n.
          S: 250
        case right
          source a test of the runner
          log 1
          subject one
          sender sender@x.example
          size 22
          text body
          data
          C: Subject: one\\r\\n\\r\\nbody\\r\\n.
          S: 250 2.0.0 \"queued as\"
    ";
    let cases = table::parse("runner", wrong).unwrap();
    let target = Target::start("default").await;
    let failed: Vec<String> = target.play(&cases, Way::Smtp).await.into_iter().map(|(name, _)| name).collect();
    for case in &cases {
        let name = format!("runner/{} over smtp", case.name);
        assert_eq!(failed.contains(&name), case.name != "right", "{name}");
    }
}

#[test]
fn a_table_that_cannot_be_read_says_where() {
    let case = "case a\nsource b\n";
    for wrong in ["source b", "case\nsource b\nhello", "case a\nhello", "case a\nsource b"] {
        assert!(table::parse("t", wrong).is_err(), "{wrong}");
    }
    for step in ["S: 25", "S: 250 x", "S: 250 2.1", "S: 250 \"x", "X: NOOP", "log many", "drip 5: x", "within 3"] {
        let err = table::parse("t", &format!("{case}{step}")).unwrap_err();
        assert!(err.contains(step) && err.contains("t:3"), "{err}");
    }
    for wrong in ["{5*x", "{nobody}", "{x*y}", "\\q", "\\xZ"] {
        assert!(table::octets(wrong, &[]).is_err(), "{wrong}");
    }
    let names = [("to", "a@b")];
    assert_eq!(table::octets("{to}\\r\\n{2*x$to\\x00}ü\\\\", &names).unwrap(), "a@b\r\nxa@b\0xa@b\0ü\\".as_bytes());
}
