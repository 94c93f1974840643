//! The real program in a data folder of its own, on ports that the system chose.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use lettre::message::Mailbox;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::within;

/// A running `postrider run`. Killed when it is dropped.
pub struct Server {
    pub child: Child,
    /// `http://127.0.0.1:PORT`.
    pub http: String,
    /// `127.0.0.1:PORT`.
    pub smtp: String,
    /// Where each `[[smtp.listener]]` listens.
    pub listeners: Vec<String>,
    /// The page's address with its token.
    pub sign_in: String,
    /// A token that may do everything.
    pub token: String,
    pub data_dir: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
    pub client: reqwest::Client,
    /// Kept open: a program that cannot write its output would end.
    _output: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    _folder: tempfile::TempDir,
}

/// How to start it.
#[derive(Default)]
pub struct Options {
    pub data_dir: Option<PathBuf>,
    /// Text of a configuration file.
    pub config: String,
    pub http: Option<String>,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// A program, with its first arguments, that gets postrider's command line and becomes it.
    pub wrapper: Vec<String>,
    /// Where diagnostics go, for tests that read them.
    pub errors: Option<PathBuf>,
}

impl Server {
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    /// Starts it and waits until it has said where it listens.
    pub async fn with(options: Options) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data_dir = options.data_dir.clone().unwrap_or_else(|| folder.path().join("data"));
        let config = folder.path().join("postrider.toml");
        std::fs::write(&config, &options.config).expect("a configuration file");
        let http = options.http.as_deref().unwrap_or("127.0.0.1:0");
        let errors = options
            .errors
            .as_ref()
            .map_or_else(Stdio::inherit, |path| std::fs::File::create(path).expect("a file").into());
        let mut child = command(&options.wrapper, &data_dir, &config)
            .args(["--http", http, "--smtp", "127.0.0.1:0"])
            .args(&options.arguments)
            .envs(options.environment.iter().cloned())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("postrider starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let (mut http, mut smtp, mut listeners, mut sign_in) = (None, None, Vec::new(), None);
        within("postrider to say where it listens", async {
            while sign_in.is_none() {
                let line = lines.next_line().await.expect("its output").expect("postrider ended at once");
                let words: Vec<&str> = line.split_whitespace().collect();
                match words.as_slice() {
                    ["HTTP", address, ..] => http = Some((*address).to_owned()),
                    ["SMTP", address, ..] if smtp.is_none() => smtp = Some((*address).to_owned()),
                    ["SMTP" | "LMTP" | "submission", address] => listeners.push((*address).to_owned()),
                    [.., address] if address.contains("/#token=") => sign_in = Some((*address).to_owned()),
                    _ => {}
                }
            }
        })
        .await;
        let sign_in = sign_in.expect("a sign-in link");
        Self {
            child,
            http: http.expect("an HTTP address"),
            smtp: smtp.expect("an SMTP address"),
            listeners,
            token: sign_in.split_once("#token=").expect("a token").1.to_owned(),
            sign_in,
            data_dir,
            config,
            client: reqwest::Client::new(),
            _output: lines,
            _folder: folder,
        }
    }

    /// A token with these matchers, made by the command line.
    pub async fn token_for(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_postrider"))
            .args(["--data-dir", self.data_dir.to_str().expect("a path"), "token"])
            .args(arguments)
            .output()
            .await
            .expect("postrider token");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a token").trim().to_owned()
    }

    /// A request with the token that may do everything.
    pub fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("{}{path}", self.http)).bearer_auth(&self.token)
    }

    /// All events that are kept.
    pub async fn whole_log(&self) -> Vec<Value> {
        let (mut events, mut from) = (Vec::new(), "earliest".to_owned());
        loop {
            let path = format!("/events?topic=*&limit=1000&last_event_id={from}");
            let response = self.get(&path).header("accept", "application/json").send().await.expect("an answer");
            let answer: Value = response.json().await.expect("JSON");
            events.extend(answer["events"].as_array().expect("events").iter().cloned());
            answer["last_event_id"].as_str().expect("an ID").clone_into(&mut from);
            if answer["more"] == false {
                return events;
            }
        }
    }

    /// Publishes an update and returns its ID.
    pub async fn publish(&self, topic: &str, data: &Value) -> String {
        let response = self
            .client
            .post(format!("{}/events", self.http))
            .bearer_auth(&self.token)
            .json(&json!({ "topics": [topic], "data": data }))
            .send()
            .await
            .expect("an answer");
        assert_eq!(response.status(), 200);
        let answer: Value = response.json().await.expect("JSON");
        answer["id"].as_str().expect("an ID").to_owned()
    }

    /// A client that keeps its SMTP connections.
    pub fn mailer(&self) -> AsyncSmtpTransport<Tokio1Executor> {
        let (host, port) = self.smtp.rsplit_once(':').expect("an address");
        AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host).port(port.parse().expect("a port")).build()
    }

    /// Sends one mail with lettre; returns the server's reply.
    pub async fn send(&self, to: &str, subject: &str, body: &str) -> String {
        let mailbox = |text: &str| text.parse::<Mailbox>().expect("an address");
        let message = Message::builder()
            .from(mailbox("Ada Lovelace <ada@example.org>"))
            .to(mailbox(to))
            .subject(subject)
            .body(body.to_owned())
            .expect("a message");
        let response = within("the mail to be accepted", self.mailer().send(message)).await.expect("a 250");
        response.message().collect::<Vec<_>>().join(" ")
    }

    /// A line of proc(5)'s `status` in octets: `VmRSS` is what is resident, `VmHWM` the most that ever was.
    pub fn memory(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(self.proc("status")).expect("it runs");
        let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
        let kilobytes: u64 = value.and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok()).expect("a line");
        kilobytes * 1024
    }

    /// File descriptors that are open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(self.proc("fd")).expect("it runs").count()
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.child.id().expect("it runs")))
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("postrider can be killed");
    }

    /// Sends a signal, named as `kill` does.
    pub async fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().await.expect("kill");
        assert!(sent.success());
    }

    /// SIGTERM; returns the exit code.
    pub async fn terminate(&mut self) -> Option<i32> {
        self.signal("TERM").await;
        within("postrider to stop", self.child.wait()).await.expect("an exit").code()
    }
}

fn command(wrapper: &[String], data_dir: &Path, config: &Path) -> Command {
    let mut words = wrapper.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_postrider")]);
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words);
    command.arg("--config").arg(config).arg("--data-dir").arg(data_dir).arg("run").kill_on_drop(true);
    // A developer's own settings must not decide a test.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("POSTRIDER_")) {
        command.env_remove(name);
    }
    command.env("POSTRIDER_LOG__FILTER", "warn");
    command
}
