//! Plays one case against a server, as the client that the table describes, and judges what comes back.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsConnector;

use super::table::{Case, Reply, Step, Way, octets};

/// How long a case may take that says nothing of it: more than any, on a busy machine.
const WITHIN: Duration = Duration::from_secs(30);
/// Longest line of a reply with its CRLF (RFC 5321 §4.5.3.1.5).
const REPLY_BYTES_MAX: usize = 512;

/// Where a server listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    pub smtp: String,
    pub lmtp: String,
    pub lmtp_unix: PathBuf,
    /// What its certificate is.
    pub certificate: CertificateDer<'static>,
}

/// A connection, in clear or within TLS.
trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection for S {}

/// Plays the case. Its mail is for the mailbox `id`.
///
/// # Errors
/// What was wrong.
pub async fn play(case: &Case, way: Way, at: &Addresses, id: &str) -> Result<(), String> {
    let began = Instant::now();
    let within = case.within.unwrap_or(WITHIN);
    let mut client = Client::connect(way, at).await.map_err(|err| format!("no connection: {err}"))?;
    let played = timeout(within, client.play(case, way, id)).await;
    let result = played.unwrap_or_else(|_| Err(format!("not over after {:?}", began.elapsed())));
    result.map_err(|err| format!("{err}\n{}", client.transcript.make_contiguous().join("\n")))
}

struct Client {
    stream: BufReader<Box<dyn Connection>>,
    certificate: CertificateDer<'static>,
    /// The last lines of both sides, shortened, for who has to understand a failure.
    transcript: VecDeque<String>,
}

impl Client {
    async fn connect(way: Way, at: &Addresses) -> std::io::Result<Self> {
        let tcp = async |address: &str| {
            let stream = TcpStream::connect(address).await?;
            // Each step is a segment of its own.
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(Box::new(stream))
        };
        let stream: Box<dyn Connection> = match way {
            Way::Smtp => tcp(&at.smtp).await?,
            Way::Lmtp => tcp(&at.lmtp).await?,
            Way::LmtpUnix => Box::new(UnixStream::connect(&at.lmtp_unix).await?),
        };
        let certificate = at.certificate.clone();
        Ok(Self { stream: BufReader::new(stream), certificate, transcript: VecDeque::new() })
    }

    /// The handshake, on the connection as it is.
    async fn begin_tls(&mut self) -> Result<(), String> {
        if !self.stream.buffer().is_empty() {
            return Err(format!("more before the handshake: {}", self.stream.buffer().escape_ascii()));
        }
        let mut trusted = RootCertStore::empty();
        trusted.add(self.certificate.clone()).map_err(|err| err.to_string())?;
        let config = ClientConfig::builder().with_root_certificates(trusted).with_no_client_auth();
        let nobody: Box<dyn Connection> = Box::new(tokio::io::empty());
        let clear = std::mem::replace(&mut self.stream, BufReader::new(nobody)).into_inner();
        let name = ServerName::try_from("localhost").map_err(|err| err.to_string())?;
        let tls = TlsConnector::from(Arc::new(config)).connect(name, clear).await;
        let tls = tls.map_err(|err| format!("no TLS: {err}"))?;
        self.stream = BufReader::new(Box::new(tls));
        Ok(())
    }

    async fn play(&mut self, case: &Case, way: Way, id: &str) -> Result<(), String> {
        let greeting = Reply { codes: vec!["220".into()], to_hello: true, ..Reply::default() };
        if !case.early {
            self.expect(&greeting).await?;
        }
        let (hello, to, to_bob) = (
            if way == Way::Smtp { "EHLO" } else { "LHLO" },
            format!("alice+{id}@example.org"),
            format!("bob+{id}@example.org"),
        );
        let (line, long) = ("x".repeat(1022), "x".repeat(3000));
        let names = [("hello", hello), ("to", &to), ("bob", &to_bob), ("id", id), ("line", &line), ("long", &long)];
        for step in &case.steps {
            match step {
                Step::Send(text) => self.send(&octets(text, &names)?).await,
                Step::Drip(pause, text) => self.drip(*pause, &octets(text, &names)?, false).await,
                Step::Trickle(pause, text) => self.drip(*pause, &octets(text, &names)?, true).await,
                Step::Expect(reply) => {
                    let times = if way == Way::Smtp { reply.times } else { reply.times_by_lmtp };
                    for _ in 0..times {
                        self.expect(reply).await?;
                    }
                }
                Step::Tls => self.begin_tls().await?,
                Step::HalfClose => {
                    // Who was hung up on already cannot; what comes back says whether that was right.
                    drop(self.stream.get_mut().shutdown().await);
                }
                Step::End => self.expect_end().await?,
            }
        }
        if case.goes_on() { self.expect_to_be_in_step().await } else { Ok(()) }
    }

    /// A reply too many or too few shows at the latest when the session ends: QUIT has one that no other command has.
    async fn expect_to_be_in_step(&mut self) -> Result<(), String> {
        let one = |code: &str, enhanced: &str| Reply {
            codes: vec![code.to_owned()],
            enhanced: Some(enhanced.to_owned()),
            ..Reply::default()
        };
        self.send(b"NOOP\r\n").await;
        self.expect(&one("250", "2.0.0")).await.map_err(|err| format!("not in step: {err}"))?;
        self.send(b"QUIT\r\n").await;
        self.expect(&one("221", "2.0.0")).await.map_err(|err| format!("not in step: {err}"))?;
        self.expect_end().await
    }

    /// What the server does not take any more is no error yet: what it says decides.
    async fn send(&mut self, octets: &[u8]) {
        self.note("C", octets);
        let stream = self.stream.get_mut();
        drop(stream.write_all(octets).await);
        drop(stream.flush().await);
    }

    /// One octet after the other; a trickle ends when the server has something to say to it.
    async fn drip(&mut self, pause: Duration, octets: &[u8], until_answered: bool) {
        self.note("C", octets);
        let mut ticks = interval(pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for octet in octets {
            tokio::select! {
                _ = self.stream.fill_buf(), if until_answered => return,
                _ = ticks.tick() => {}
            }
            if self.stream.get_mut().write_all(&[*octet]).await.is_err() {
                return;
            }
        }
    }

    async fn expect(&mut self, expected: &Reply) -> Result<(), String> {
        let lines = self.reply().await?;
        let wrong = |what: String| Err(format!("expected {expected:?}: {what}"));
        let Some(last) = lines.last() else { return wrong("the server has closed".into()) };
        let code = last.get(..3).unwrap_or_default();
        if !expected.codes.iter().any(|expected| expected == code) {
            return wrong(format!("got {last:?}"));
        }
        if !lines.iter().all(|line| line.starts_with(code)) {
            return wrong(format!("the lines do not agree: {lines:?}"));
        }
        if expected.contains.as_ref().is_some_and(|text| !lines.iter().any(|line| line.contains(text))) {
            return wrong(format!("got {lines:?}"));
        }
        if expected.lacks.as_ref().is_some_and(|text| lines.iter().any(|line| line.contains(text))) {
            return wrong(format!("got {lines:?}"));
        }
        // RFC 2034 §4: all replies but to greetings, unless they are intermediate.
        let enhanced = last.get(4..).and_then(|text| text.split(' ').next()).filter(|word| is_enhanced(word, code));
        match &expected.enhanced {
            Some(expected) if enhanced != Some(expected) => wrong(format!("got {last:?}")),
            None if enhanced.is_none() && !expected.to_hello && !code.starts_with('3') => {
                wrong(format!("without an enhanced status code: {last:?}"))
            }
            _ => Ok(()),
        }
    }

    /// All lines of the next reply, without their ends; none if the server has closed.
    async fn reply(&mut self) -> Result<Vec<String>, String> {
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            let read = self.stream.read_until(b'\n', &mut line).await;
            read.map_err(|err| format!("no reply: {err}"))?;
            if line.is_empty() {
                return if lines.is_empty() { Ok(lines) } else { Err(format!("half a reply: {lines:?}")) };
            }
            self.note("S", &line);
            let shown = line.escape_ascii().to_string();
            if line.len() > REPLY_BYTES_MAX {
                return Err(format!("a reply of {} octets: {shown}", line.len()));
            }
            let text = line.strip_suffix(b"\r\n").ok_or_else(|| format!("a reply without CRLF: {shown}"))?;
            // What a client sent must not come back as an octet that means something to its terminal.
            if !text.iter().all(|octet| (b' '..=b'~').contains(octet)) {
                return Err(format!("not printable: {shown}"));
            }
            let text = String::from_utf8_lossy(text).into_owned();
            let goes_on = text.as_bytes().get(3) == Some(&b'-');
            let is_reply = text.get(..3).is_some_and(|code| code.parse::<u16>().is_ok())
                && matches!(text.as_bytes().get(3), Some(b'-' | b' '));
            lines.push(text);
            if !is_reply {
                return Err(format!("not a reply: {shown}"));
            }
            if !goes_on {
                return Ok(lines);
            }
        }
    }

    async fn expect_end(&mut self) -> Result<(), String> {
        let mut rest = Vec::new();
        // A reset is an end like another: we may have sent what nobody read.
        drop(self.stream.read_to_end(&mut rest).await);
        if rest.is_empty() { Ok(()) } else { Err(format!("more before the end: {}", rest.escape_ascii())) }
    }

    fn note(&mut self, who: &str, octets: &[u8]) {
        let shown = octets.get(..100).unwrap_or(octets).escape_ascii();
        let more = if octets.len() > 100 { format!("… {} octets", octets.len()) } else { String::new() };
        self.transcript.push_back(format!("    {who}: {shown}{more}"));
        if self.transcript.len() > 15 {
            self.transcript.pop_front();
        }
    }
}

/// `2.1.5` for 250: the class is the code's own (RFC 2034 §4).
fn is_enhanced(word: &str, code: &str) -> bool {
    let numbers: Vec<&str> = word.split('.').collect();
    let is_number = |number: &str| number.parse::<u16>().is_ok();
    matches!(numbers[..], [class, subject, detail]
        if code.starts_with(class) && class.len() == 1 && is_number(subject) && is_number(detail))
}
