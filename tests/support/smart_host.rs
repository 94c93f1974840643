//! A smart host that misbehaves as it is told to: what no real one does on demand. What it takes, it keeps.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::eventually;

/// What it does with one message; by default it takes it.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    /// Answers RCPT with this.
    Rcpt(&'static str),
    /// Answers the text with this.
    Text(&'static str),
    /// Closes the connection in the middle of the text.
    Cut,
    /// Takes the text, and answers it when it is told to.
    Hold,
}

/// A message that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub mail: String,
    pub rcpt: String,
    /// As it came, dots unstuffed.
    pub text: String,
}

impl Taken {
    /// The message without what the forwarder put before it.
    pub fn original(&self) -> &str {
        let (_, mut rest) = self.text.split_once("Received: ").expect("a trace field");
        loop {
            rest = rest.split_once("\r\n").expect("its end").1;
            if !rest.starts_with('\t') {
                return rest;
            }
        }
    }
}

#[derive(Debug, Default)]
struct State {
    taken: Mutex<Vec<Taken>>,
    acts: Mutex<VecDeque<Act>>,
    greeting: Mutex<Option<&'static str>>,
    credentials: Mutex<Vec<String>>,
    begun: Mutex<usize>,
    release: Notify,
}

/// Ends when it is dropped.
pub struct SmartHost {
    pub address: SocketAddr,
    state: Arc<State>,
    _running: JoinSet<()>,
}

impl SmartHost {
    pub async fn start() -> Self {
        Self::at("127.0.0.1:0".parse().expect("an address"), None).await
    }

    /// At an address where there was nothing before, with TLS from the first byte if there is an acceptor.
    pub async fn at(address: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (state, mut running) = (Arc::<State>::default(), JoinSet::new());
        let shared = state.clone();
        running.spawn(async move {
            let mut sessions = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (state, tls) = (shared.clone(), tls.clone());
                sessions.spawn(async move {
                    // Who hangs up has said all.
                    let _gone = match tls {
                        None => session(stream, &state).await.is_err(),
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => session(stream, &state).await.is_err(),
                            Err(_) => true,
                        },
                    };
                });
            }
        });
        Self { address, state, _running: running }
    }

    /// What it does with the next messages.
    pub fn plan(&self, acts: &[Act]) {
        self.state.acts.lock().expect("no panic").extend(acts);
    }

    /// Greets with this from now on, and hangs up if that is a refusal.
    pub fn greet(&self, greeting: Option<&'static str>) {
        *self.state.greeting.lock().expect("no panic") = greeting;
    }

    /// Answers what it holds.
    pub fn release(&self) {
        self.state.release.notify_one();
    }

    /// Messages whose text has come, whatever the answer.
    pub fn begun(&self) -> usize {
        *self.state.begun.lock().expect("no panic")
    }

    pub fn taken(&self) -> Vec<Taken> {
        self.state.taken.lock().expect("no panic").clone()
    }

    /// What AUTH PLAIN brought, decoded.
    pub fn credentials(&self) -> Vec<String> {
        self.state.credentials.lock().expect("no panic").clone()
    }

    /// Waits until it has taken so many.
    pub async fn takes(&self, count: usize) -> Vec<Taken> {
        eventually(&format!("{count} messages at the smart host"), || async {
            Some(self.taken()).filter(|taken| taken.len() >= count)
        })
        .await
    }
}

async fn session(stream: impl AsyncRead + AsyncWrite + Unpin, state: &State) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let greeting = state.greeting.lock().expect("no panic").unwrap_or("220 host ESMTP");
    stream.write_all(format!("{greeting}\r\n").as_bytes()).await?;
    if !greeting.starts_with("220") {
        return Ok(());
    }
    let (mut mail, mut rcpt, mut act) = (String::new(), String::new(), None);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let reply = match line.trim_end().split_once([' ', ':']).unwrap_or((line.trim_end(), "")) {
            ("EHLO", _) => "250-host\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 AUTH PLAIN",
            ("AUTH", plain) => {
                let sent = plain.trim_start_matches("PLAIN ");
                let decoded = base64::engine::general_purpose::STANDARD.decode(sent).expect("base64");
                let text = String::from_utf8(decoded).expect("text").replace('\0', " ");
                let is_right = text.ends_with("right");
                state.credentials.lock().expect("no panic").push(text);
                if is_right { "235 2.7.0 fine" } else { "535 5.7.8 wrong password" }
            }
            ("MAIL", path) => {
                path.clone_into(&mut mail);
                act = state.acts.lock().expect("no panic").pop_front();
                "250 2.1.0 fine"
            }
            ("RCPT", path) => {
                path.clone_into(&mut rcpt);
                match act {
                    Some(Act::Rcpt(refusal)) => refusal,
                    _ => "250 2.1.5 fine",
                }
            }
            ("DATA", _) => {
                stream.write_all(b"354 go on\r\n").await?;
                let Some(text) = text(&mut stream, matches!(act, Some(Act::Cut))).await? else { return Ok(()) };
                *state.begun.lock().expect("no panic") += 1;
                if matches!(act, Some(Act::Hold)) {
                    state.release.notified().await;
                }
                if let Some(Act::Text(refusal)) = act {
                    refusal
                } else {
                    let taken = Taken { mail: mail.clone(), rcpt: rcpt.clone(), text };
                    state.taken.lock().expect("no panic").push(taken);
                    "250 2.0.0 taken"
                }
            }
            ("QUIT", _) => "221 2.0.0 bye",
            _ => "250 2.0.0 fine",
        };
        stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
        stream.flush().await?;
    }
}

/// The text up to its dot; none if it is cut.
async fn text(stream: &mut (impl AsyncBufReadExt + Unpin), cut: bool) -> std::io::Result<Option<String>> {
    let mut text = String::new();
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await? == 0 || cut {
            return Ok(None);
        }
        match line.as_slice() {
            b".\r\n" => return Ok(Some(text)),
            [b'.', rest @ ..] => text.push_str(&String::from_utf8_lossy(rest)),
            line => text.push_str(&String::from_utf8_lossy(line)),
        }
    }
}
