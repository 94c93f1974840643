//! What an operator does: checks, looks at the demo, reloads, starts twice by mistake, watches through a restart.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use support::dovecot::{Dovecot, PASSWORD};
use support::imap_model::{BASIC, Store};
use support::misbehaving_imap::{Fault, MisbehavingImap};
use support::server::{Options, Server};
use support::{eventually, within};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// The program in an empty environment.
fn postrider(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    command.env_clear().env("HOME", home).env("TMPDIR", home).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Exit code, standard output and standard error.
fn ended(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

async fn run(home: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    ended(&within("postrider to end", postrider(home, arguments).output()).await.expect("it runs"))
}

async fn interrupt(child: &Child) {
    let pid = child.id().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.expect("kill").success());
}

fn account(name: &str, dovecot: &Dovecot, password: &str, mailboxes: &str) -> String {
    format!(
        "[[account]]\nname = \"{name}\"\n[account.imap]\nhost = \"127.0.0.1\"\nport = {}\nsecurity = \"none\"\n\
         username = \"{name}\"\npassword_command = [\"echo\", \"{password}\"]\nmailboxes = {mailboxes}\n",
        dovecot.imap_port
    )
}

#[tokio::test]
async fn check_says_of_each_part_whether_it_works() {
    let dovecot = Dovecot::start();
    let home = tempfile::tempdir().expect("a folder");
    let data = home.path().join("data").to_str().expect("a path").to_owned();
    let file = home.path().join("p.toml");
    let check = async |text: &str| {
        fs::write(&file, format!("[http]\nlisten = \"127.0.0.1:0\"\n[smtp]\nlisten = \"127.0.0.1:0\"\n{text}"))
            .unwrap();
        run(home.path(), &["--data-dir", &data, "--config", file.to_str().expect("a path"), "check"]).await
    };
    let good = account("alice", &dovecot, PASSWORD, "[\"inbox\"]");
    let (code, output, errors) = check(&good).await;
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{output}");
    let line = |output: &str, part: &str| {
        output.lines().find(|line| line.starts_with(part)).unwrap_or_else(|| panic!("{part}: {output}")).to_owned()
    };
    assert!(line(&output, "account alice").contains("logged in (no encryption)"), "{output}");
    assert!(line(&output, "account alice").contains("IDLE"), "{output}");
    assert!(line(&output, "data folder").contains("can be used"), "{output}");

    // One that is broken does not hide the others, in whatever way it is broken.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let unreachable = account("carol", &dovecot, PASSWORD, "[\"INBOX\"]")
        .replace(&format!("port = {}", dovecot.imap_port), &format!("port = {closed}"));
    let wrong = [
        &good,
        &account("bob", &dovecot, "wr0ng", "[\"INBOX\"]"),
        &unreachable,
        &account("dave", &dovecot, PASSWORD, "[\"INBOX\", \"No such\"]"),
    ];
    let (code, output, errors) = check(&wrong.map(String::as_str).concat()).await;
    assert_eq!(code, Some(69), "{output}{errors}");
    assert!(errors.starts_with("postrider: 3 of the configured parts do not work"), "{errors}");
    assert!(line(&output, "account alice").contains("logged in"), "{output}");
    assert!(line(&output, "account bob").contains("WRONG: "), "{output}");
    assert!(line(&output, "account carol").contains("Connection refused"), "{output}");
    assert!(line(&output, "account dave").contains("No such"), "{output}");
    assert!(!output.contains("wr0ng") && !errors.contains("wr0ng"), "no password is shown");

    let (code, output, errors) = check("[[account]]\nname = 7\n").await;
    assert_eq!((code, output.as_str()), (Some(78), ""), "{errors}");
    assert!(errors.contains("p.toml:6:"), "{errors}");
}

#[tokio::test]
async fn the_demo_sends_its_mails_and_leaves_nothing() {
    let home = tempfile::tempdir().expect("a folder");
    let mut demo = postrider(home.path(), &["demo", "--http", "127.0.0.1:0", "--smtp", "127.0.0.1:0"]);
    let mut demo = demo.spawn().expect("it runs");
    let mut lines = BufReader::new(demo.stdout.take().expect("its output")).lines();
    let (mut sign_in, mut folder, mut mails) = (None, None, 0);
    while mails < 4 {
        let line = within("a line", lines.next_line()).await.expect("its output").expect("it goes on");
        mails += usize::from(line.starts_with("sent: "));
        sign_in = sign_in.or_else(|| line.contains("/#token=").then(|| line.trim().to_owned()));
        folder =
            folder.or_else(|| Some(PathBuf::from(line.trim().strip_prefix("POSTRIDER_DATA_DIR=")?.split(' ').next()?)));
    }
    let (folder, link) = (folder.expect("a data folder"), sign_in.expect("a sign-in link"));
    let (url, token) = link.split_once("/#token=").expect("a token");
    assert!(url.starts_with("http://127.0.0.1:") && folder.starts_with(home.path()), "{url} {}", folder.display());
    let events = reqwest::Client::new().get(format!("{url}/api/events")).bearer_auth(token).send().await;
    let events: Value = events.expect("an answer").json().await.expect("JSON");
    let subjects: Vec<_> = events["events"].as_array().unwrap().iter().map(|e| &e["message"]["subject"]).collect();
    assert_eq!(subjects.len(), 4, "{subjects:?}");
    assert!(subjects.contains(&&json!("Lunch on Friday?")), "{subjects:?}");
    let mailboxes: Vec<_> = events["events"].as_array().unwrap().iter().map(|e| &e["topics"][0]).collect();
    assert!(mailboxes.contains(&&json!("mail/ada/lists")), "{mailboxes:?}");

    interrupt(&demo).await;
    assert_eq!(within("the demo to end", demo.wait()).await.expect("an end").code(), Some(130));
    assert!(!folder.exists(), "{} is left", folder.display());
    assert_eq!(fs::read_dir(home.path()).expect("a folder").count(), 0, "nothing is left");
}

#[tokio::test]
async fn a_reload_takes_what_it_can_and_says_what_it_cannot() {
    let dovecot = Dovecot::start();
    let home = tempfile::tempdir().expect("a folder");
    let errors = home.path().join("errors");
    let smtp = "[smtp]\nlocal_domains = [\"localhost\"]\n";
    let alice = account("alice", &dovecot, PASSWORD, "[\"INBOX\"]");
    let server =
        Server::with(Options { config: format!("{smtp}{alice}"), errors: Some(errors.clone()), ..Options::default() })
            .await;
    let states = || async {
        let answer: Value = server.get("/api/accounts").send().await.ok()?.json().await.ok()?;
        let accounts = answer["accounts"].as_array()?.iter();
        Some(accounts.map(|one| format!("{} {}", one["name"], one["state"]).replace('"', "")).collect::<Vec<_>>())
    };
    let are = async |wanted: &[&str]| {
        let found = || async { (states().await? == wanted).then_some(()) };
        eventually(&format!("the accounts to be {wanted:?}"), found).await;
    };
    let log = || fs::read_to_string(&errors).expect("the diagnostics");
    let reload = async |text: String| {
        fs::write(&server.config, text).expect("a file");
        server.signal("HUP").await;
    };
    let said = async |words: &[&str]| {
        let found = || async { words.iter().all(|word| log().contains(word)).then_some(()) };
        eventually(&format!("the diagnostics to say {words:?}"), found).await;
    };
    are(&["alice connected"]).await;

    let bob = account("bob", &dovecot, PASSWORD, "[\"INBOX\"]");
    reload(format!("{smtp}{alice}{bob}")).await;
    are(&["alice connected", "bob connected"]).await;
    // What comes to an account that was there before is announced once, and not lost by the reload.
    dovecot.deliver("alice", "Subject: through the reload\r\n\r\ntext\r\n").await;
    reload(format!("{smtp}{bob}")).await;
    are(&["bob connected"]).await;
    dovecot.deliver("alice", "Subject: while nobody watched\r\n\r\ntext\r\n").await;
    reload(format!("{smtp}{alice}")).await;
    are(&["alice connected"]).await;
    let subjects = || async {
        let answer: Value = server.get("/api/events?topic=mail/alice/INBOX").send().await.ok()?.json().await.ok()?;
        let events = answer["events"].as_array()?.iter().rev();
        let subjects: Vec<Value> = events.map(|event| event["message"]["subject"].clone()).collect();
        (subjects.len() >= 2).then_some(subjects)
    };
    assert_eq!(eventually("both messages", subjects).await, ["through the reload", "while nobody watched"]);

    reload(format!("{smtp}[http\n")).await;
    said(&["configuration not reloaded, going on as before", "postrider.toml:3:"]).await;
    are(&["alice connected"]).await;
    reload(format!("{smtp}{alice}[http]\nconnections_max = 7\n[log]\nformat = \"json\"\n")).await;
    said(&["changed settings that need a restart", "[http]", "log.format"]).await;
    are(&["alice connected"]).await;
    server.publish("t", &json!("it goes on")).await;
}

#[tokio::test]
async fn a_reload_leaves_accounts_alone_that_stay_as_they_are() {
    let imap = MisbehavingImap::start(&Store::default(), BASIC, Fault::None).await;
    let port = imap.account(&["INBOX"]).imap.and_then(|imap| imap.port).expect("a port");
    let account = |name: &str| {
        format!(
            "[[account]]\nname = \"{name}\"\n[account.imap]\nhost = \"127.0.0.1\"\nport = {port}\nsecurity = \"none\"\n\
             username = \"{name}\"\npassword_command = [\"echo\", \"secret\"]\n"
        )
    };
    let (alice, bob) = (account("alice"), account("bob"));
    let server = Server::with(Options { config: alice.clone(), ..Options::default() }).await;
    let idling = async |count: usize| eventually("IDLE", || async { (imap.idling() == count).then_some(()) }).await;
    let reload = async |text: String| {
        fs::write(&server.config, text).expect("a file");
        server.signal("HUP").await;
    };
    idling(1).await;
    reload(format!("{alice}{bob}")).await;
    idling(2).await;
    assert_eq!(imap.connections(), 2, "alice's connection is the one that it was");
    reload(alice.clone()).await;
    idling(1).await;
    reload(format!("[log]\nfilter = \"debug\"\n{alice}{bob}")).await;
    idling(2).await;
    assert_eq!(imap.connections(), 3, "alice's connection is the one that it was");
    // What counts for all of them takes a new start.
    reload(format!("[imap]\nidle_renew = \"3m\"\n{alice}{bob}")).await;
    eventually("new connections", || async { (imap.connections() == 5).then_some(()) }).await;
    idling(2).await;
}

#[tokio::test]
async fn a_reload_changes_what_is_logged() {
    let home = tempfile::tempdir().expect("a folder");
    let (errors, file) = (home.path().join("errors"), home.path().join("p.toml"));
    fs::write(&file, "[log]\nfilter = \"warn\"\n").unwrap();
    let stderr = fs::File::create(&errors).unwrap();
    let data = home.path().join("data");
    let arguments = ["--config", file.to_str().unwrap(), "--data-dir", data.to_str().unwrap(), "run"];
    let mut server =
        postrider(home.path(), &[&arguments[..], &["--http", "127.0.0.1:0", "--smtp", "127.0.0.1:0"]].concat())
            .stderr(stderr)
            .spawn()
            .expect("it runs");
    let mut lines = BufReader::new(server.stdout.take().expect("its output")).lines();
    let mut smtp = String::new();
    while smtp.is_empty() {
        let line = within("a line", lines.next_line()).await.expect("its output").expect("it goes on");
        line.trim().strip_prefix("SMTP").unwrap_or_default().trim().clone_into(&mut smtp);
    }
    let log = || fs::read_to_string(&errors).expect("the diagnostics");
    let hangup = async |text: &str| {
        fs::write(&file, text).unwrap();
        let pid = server.id().expect("it runs").to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().await.expect("kill").success());
    };
    let session = async || {
        let stream = tokio::net::TcpStream::connect(&smtp).await.expect("a connection");
        let mut lines = BufReader::new(stream).lines();
        within("the greeting", lines.next_line()).await.expect("it is open").expect("a line");
    };
    session().await;
    assert_eq!(log(), "", "a session is nothing to warn of");
    hangup("[log]\nfilter = \"info\"\n").await;
    eventually("the reload to be said", || async { log().contains("configuration reloaded").then_some(()) }).await;
    assert!(!log().contains("DEBUG"), "{}", log());
    hangup("[log]\nfilter = \"debug\"\n").await;
    eventually("a session to be logged", || async {
        session().await;
        log().contains("DEBUG").then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_taken_is_named_with_the_way_out() {
    let server = Server::start().await;
    let home = tempfile::tempdir().expect("a folder");
    let own = home.path().join("data").to_str().expect("a path").to_owned();
    let taken = server.data_dir.to_str().expect("a path").to_owned();
    let (http, free) = (server.http.trim_start_matches("http://"), "127.0.0.1:0");
    for (arguments, expected, way_out) in [
        (["--data-dir", &own, "run", "--http", http, "--smtp", free], "listen on", "--http ADDR:PORT"),
        (["--data-dir", &own, "run", "--http", free, "--smtp", &server.smtp], "listen on", "--smtp ADDR:PORT"),
        (["--data-dir", &taken, "run", "--http", free, "--smtp", free], "another postrider is using", "--data-dir"),
    ] {
        let (code, output, errors) = run(home.path(), &arguments).await;
        assert_eq!((code, output.as_str()), (Some(69), ""), "{arguments:?}: {errors}");
        assert!(errors.starts_with("postrider: ") && errors.contains(expected), "{errors}");
        assert!(errors.contains(way_out) && errors.lines().count() == 1, "{errors}");
    }
    let file = home.path().join("a file");
    fs::write(&file, "").unwrap();
    let arguments = ["--data-dir", file.to_str().unwrap(), "run", "--http", free, "--smtp", free];
    let (code, _, errors) = run(home.path(), &arguments).await;
    assert_eq!(code, Some(78), "{errors}");
    assert!(errors.contains("cannot use the data folder") && errors.contains("--data-dir"), "{errors}");
    server.publish("t", &json!("the first goes on")).await;
}

/// `postrider watch`, piped.
struct Watch {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    fn start(data_dir: &Path, url: &str) -> Self {
        let mut command = postrider(data_dir, &["watch", "--url", url, "t/{x}"]);
        command.env("POSTRIDER_DATA_DIR", data_dir).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("it runs");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Self { _child: child, lines }
    }

    async fn id(&mut self) -> String {
        let line = within("a line of watch", self.lines.next_line()).await.expect("its output").expect("it goes on");
        let event: Value = serde_json::from_str(&line).expect("a line is JSON");
        event["id"].as_str().expect("an ID").to_owned()
    }
}

#[tokio::test]
async fn watch_prints_each_event_once_through_restarts() {
    let home = tempfile::tempdir().expect("a folder");
    let data_dir = home.path().join("data");
    let options = |http: Option<String>| Options { data_dir: Some(data_dir.clone()), http, ..Options::default() };
    let mut server = Server::with(options(None)).await;
    let address = server.http.trim_start_matches("http://").to_owned();
    let mut watch = Watch::start(&data_dir, &server.http);
    let watched = async |server: &Server| {
        eventually("watch to be subscribed", || async {
            let metrics = server.get("/metrics").send().await.ok()?.text().await.ok()?;
            metrics.contains("postrider_subscribers 1\n").then_some(())
        })
        .await;
    };
    watched(&server).await;
    // Nothing was there to resume from yet: what comes before watch is back must not be lost.
    server.kill().await;
    let mut server = Server::with(options(Some(address.clone()))).await;
    let mut published = vec![server.publish("t/1", &json!(1)).await];
    assert_eq!(watch.id().await, published[0]);
    published.push(server.publish("t/2", &json!(2)).await);
    assert_eq!(watch.id().await, published[1]);
    assert_eq!(server.terminate().await, Some(0));
    let server = Server::with(options(Some(address))).await;
    published.push(server.publish("t/3", &json!(3)).await);
    server.publish("u/3", &json!("not asked for")).await;
    assert_eq!(watch.id().await, published[2]);
    watched(&server).await;
    published.push(server.publish("t/4", &json!(4)).await);
    assert_eq!(watch.id().await, published[3]);
}

#[tokio::test]
async fn what_was_counted_is_told_as_prometheus_reads_it() {
    let config = "[[account]]\nname = 'alice'\naddresses = ['alice@localhost']\n".to_owned();
    let server = Server::with(Options { config, ..Options::default() }).await;
    server.send("alice@localhost", "one", "text").await;
    let answer = server.get("/metrics").send().await.expect("an answer");
    let format = answer.headers()["content-type"].to_str().expect("text").to_owned();
    assert!(format.starts_with("application/openmetrics-text; version=1.0.0"), "{format}");
    let told = answer.text().await.expect("text");
    let lines: Vec<&str> = told.lines().collect();
    for line in [
        "postrider_events_total 1",
        "postrider_subscribers 0",
        "postrider_accounts{state=\"receiving\"} 1",
        "postrider_smtp_messages_total 1",
        "postrider_imap_logins_total 0",
        "# EOF",
    ] {
        assert!(lines.contains(&line), "{line} is not in {told}");
    }
}
