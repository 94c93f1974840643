//! A real Chromium without a window, driven over W3C WebDriver by its chromedriver.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::{eventually, within};

/// Neither a sandbox (tests run as root in containers), nor a GPU, nor anything that Chromium does by itself on a
/// network.
const ARGUMENTS: [&str; 11] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--lang=en",
];

/// Names of Chromium in the packages of distributions.
const CHROMIUM: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// The key under which WebDriver hands out elements (W3C WebDriver §12.2).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with a profile of its own. Ended when it is dropped.
pub struct Browser {
    driver: Child,
    /// Kept open: chromedriver would end on a line that it cannot write.
    _output: Lines<BufReader<ChildStdout>>,
    port: u16,
    session: String,
    client: reqwest::Client,
    profile: tempfile::TempDir,
}

impl Browser {
    pub async fn start() -> Self {
        let chromium = CHROMIUM.iter().find_map(|name| in_path(name));
        let chromium = chromium.expect("no Chromium here; install it: apt-get install chromium");
        let driver =
            in_path("chromedriver").expect("no chromedriver here; install it: apt-get install chromium-driver");
        let mut driver = Command::new(driver)
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver starts");
        let mut output = BufReader::new(driver.stdout.take().expect("its output")).lines();
        let port = within("chromedriver to say its port", async {
            loop {
                let line = output.next_line().await.expect("its output").expect("chromedriver ended at once");
                if let Some((_, port)) = line.split_once("started successfully on port ") {
                    return port.trim_end_matches('.').parse().expect("a port");
                }
            }
        })
        .await;
        let profile = tempfile::tempdir().expect("a temporary folder");
        let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        let mut browser = Self { driver, _output: output, port, session: String::new(), client, profile };
        let mut arguments: Vec<String> = ARGUMENTS.map(str::to_owned).into();
        arguments.push(format!("--user-data-dir={}", browser.profile.path().display()));
        let options = json!({ "binary": chromium, "args": arguments });
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let answer = browser.ask("POST", "/session", &wanted).await;
        browser.session = format!("/session/{}", answer["sessionId"].as_str().expect("a session"));
        browser
    }

    /// Goes to an address.
    pub async fn open(&self, url: &str) {
        self.command("POST", "/url", &json!({ "url": url })).await;
    }

    /// Runs the body of a function in the page, and gives what it returns.
    pub async fn run(&self, script: &str) -> Value {
        self.command("POST", "/execute/sync", &json!({ "script": script, "args": [] })).await
    }

    /// The same with a promise, which is awaited.
    pub async fn run_async(&self, script: &str) -> Value {
        let script = format!(
            "const done = arguments[arguments.length - 1];\
             (async () => {{ {script} }})().then(done, (error) => done(`failed: ${{error}}`));"
        );
        self.command("POST", "/execute/async", &json!({ "script": script, "args": [] })).await
    }

    /// Waits until an expression is true in the page; what the page shows then is told if it never is.
    pub async fn sees(&self, what: &str, expression: &str) {
        let script = format!("return Boolean({expression});");
        let seen = eventually(what, async || (self.run(&script).await == true).then_some(()));
        tokio::select! {
            () = seen => {}
            () = self.complain_soon(what) => {}
        }
    }

    /// Fails shortly before `within` would, with more to say.
    async fn complain_soon(&self, what: &str) {
        let before = super::PATIENCE.saturating_sub(Duration::from_secs(2));
        tokio::time::interval_at(tokio::time::Instant::now() + before, before).tick().await;
        let page = self.run("return document.body.innerText;").await;
        let console = self.command("POST", "/se/log", &json!({ "type": "browser" })).await;
        panic!("waited {before:?} in vain for {what}; console: {console}; the page shows:\n{}", text(&page));
    }

    /// Waits until an element that a selector finds has exactly this text.
    pub async fn reads(&self, selector: &str, wanted: &str) {
        let element = format!("document.querySelector({})", json!(selector));
        let what = format!("`{selector}` to read `{wanted}`");
        self.sees(&what, &format!("{element}?.textContent.trim() === {}", json!(wanted))).await;
    }

    /// The text of an element.
    pub async fn text_of(&self, selector: &str) -> String {
        text(&self.run(&format!("return document.querySelector({}).textContent;", json!(selector))).await)
    }

    /// Types as a person does, key by key.
    pub async fn type_into(&self, selector: &str, keys: &str) {
        let path = format!("/element/{}/value", self.element(selector).await);
        self.command("POST", &path, &json!({ "text": keys })).await;
    }

    /// Clicks on the middle of an element, which must be visible.
    pub async fn click(&self, selector: &str) {
        let path = format!("/element/{}/click", self.element(selector).await);
        self.command("POST", &path, &json!({})).await;
    }

    /// The cookies of the page, those too that scripts do not see.
    pub async fn cookies(&self) -> Vec<Value> {
        self.command("GET", "/cookie", &Value::Null).await.as_array().expect("a list").clone()
    }

    /// The addresses that the back button offers, and the present one.
    pub async fn history(&self) -> Vec<String> {
        let command = json!({ "cmd": "Page.getNavigationHistory", "params": {} });
        let answer = self.command("POST", "/goog/cdp/execute", &command).await;
        answer["entries"].as_array().expect("entries").iter().map(|entry| text(&entry["url"])).collect()
    }

    /// Hides the page by making its window an icon.
    pub async fn minimize(&self) {
        self.command("POST", "/window/minimize", &json!({})).await;
    }

    /// Shows the page again.
    pub async fn restore(&self) {
        self.command("POST", "/window/rect", &json!({ "width": 1000, "height": 800 })).await;
    }

    async fn element(&self, selector: &str) -> String {
        let answer = self.command("POST", "/element", &json!({ "using": "css selector", "value": selector })).await;
        text(&answer[ELEMENT])
    }

    async fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        self.ask(method, &format!("{}{path}", self.session), body).await
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self.client.request(method, format!("http://127.0.0.1:{}{path}", self.port));
        if !body.is_null() {
            request = request.json(body);
        }
        let response = within("chromedriver to answer", request.send()).await.expect("an answer");
        let succeeded = response.status().is_success();
        let mut answer: Value = response.json().await.expect("JSON");
        let value = answer["value"].take();
        assert!(succeeded, "{path} {body}: {} {}", value["error"], value["message"]);
        value
    }
}

impl Drop for Browser {
    /// Chromium is not our child but chromedriver's, and would outlive it: the session has to end first. There is no
    /// awaiting here, hence the plain socket.
    fn drop(&mut self) {
        let request = format!("DELETE {} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", self.session);
        let ended = TcpStream::connect(("127.0.0.1", self.port)).and_then(|mut socket| {
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
            socket.write_all(request.as_bytes())?;
            // The answer comes when Chromium has ended; chromedriver keeps the connection open behind it.
            socket.read_exact(&mut [0; 12])
        });
        if let Err(err) = ended {
            eprintln!("the browser may be left running: {err}");
        }
        drop(self.driver.start_kill());
    }
}

fn in_path(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
