//! How much later than a bare IDLE client a subscriber learns of a mail: `cargo bench --bench delivery`.
//!
//! Both watch the same mailbox of the same private Dovecot in the same run. Each mail is delivered by LMTP; the time
//! runs from Dovecot's acknowledgement to the `EXISTS` that the IDLE client reads, and to the event that an SSE
//! subscriber reads. Dovecot itself waits for about 500 ms before it tells anybody.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a benchmark")]

#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use support::dovecot::{Dovecot, PASSWORD};
use support::server::{Options, Server};
use support::stream::Stream;
use support::{eventually, within};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const MAILS: usize = 200;

#[tokio::main]
async fn main() {
    let dovecot = Dovecot::start();
    let config = format!(
        "[[account]]\nname = \"alice\"\n[account.imap]\nhost = \"127.0.0.1\"\nport = {}\nsecurity = \"none\"\n\
         username = \"alice\"\npassword_command = [\"echo\", \"{PASSWORD}\"]\n",
        dovecot.imap_port
    );
    let server = Server::with(Options { config, ..Options::default() }).await;
    eventually("the mailbox to be watched", || async {
        let text = server.get("/api/accounts").send().await.ok()?.text().await.ok()?;
        text.contains("\"connected\"").then_some(())
    })
    .await;
    let mut idle = Idle::open(dovecot.imap_port).await;
    let mut sse = Stream::open(&server, "/events?topic=mail/alice/INBOX", "text/event-stream").await;

    let (mut bare, mut pushed) = (Vec::new(), Vec::new());
    for number in 0..MAILS {
        let mail = format!(
            "From: Ada <ada@example.org>\r\nTo: alice@example.org\r\nSubject: mail {number}\r\n\
             Message-ID: <{number}@example.org>\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHello {number}\r\n"
        );
        dovecot.deliver("alice", &mail).await;
        let delivered = Instant::now();
        let (exists, event) = tokio::join!(
            async {
                idle.exists().await;
                delivered.elapsed()
            },
            async {
                let event = sse.sse().await;
                assert!(event.data.contains(&format!("mail {number}\"")), "{}", event.data);
                delivered.elapsed()
            }
        );
        bare.push(exists);
        pushed.push(event);
    }
    let mut later: Vec<f64> = pushed.iter().zip(&bare).map(|(event, exists)| ms(*event) - ms(*exists)).collect();
    later.sort_by(f64::total_cmp);
    println!("{MAILS} mails, milliseconds from Dovecot's acknowledgement:");
    report("bare IDLE client, EXISTS", &mut bare);
    report("postrider, event at the SSE subscriber", &mut pushed);
    println!(
        "{:<40} p50 {:8.2}  p90 {:8.2}  p99 {:8.2}",
        "event after EXISTS, mail by mail",
        later[later.len() / 2],
        later[later.len() * 9 / 10],
        later[later.len() * 99 / 100]
    );
    println!("difference of the p50: {:.2} ms", ms(pushed[MAILS / 2]) - ms(bare[MAILS / 2]));
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |percent: usize| ms(times[times.len() * percent / 100]);
    println!("{what:<40} p50 {:8.2}  p90 {:8.2}  p99 {:8.2}", at(50), at(90), at(99));
}

/// The least that an IMAP client can do.
struct Idle {
    stream: BufReader<TcpStream>,
}

impl Idle {
    async fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("Dovecot");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        let mut idle = Self { stream: BufReader::new(stream) };
        idle.line_with("* OK").await;
        idle.say(&format!("a LOGIN alice {PASSWORD}\r\n")).await;
        idle.line_with("a OK").await;
        idle.say("b EXAMINE INBOX\r\n").await;
        idle.line_with("b OK").await;
        idle.say("c IDLE\r\n").await;
        idle.line_with("+").await;
        idle
    }

    async fn say(&mut self, command: &str) {
        self.stream.write_all(command.as_bytes()).await.expect("it is open");
    }

    async fn line_with(&mut self, beginning: &str) {
        let mut line = String::new();
        while !line.starts_with(beginning) {
            line.clear();
            let read = within("a line from Dovecot", self.stream.read_line(&mut line)).await.expect("it is open");
            assert!(read > 0, "Dovecot hung up before {beginning}");
        }
    }

    async fn exists(&mut self) {
        let mut line = String::new();
        while !line.ends_with(" EXISTS\r\n") {
            line.clear();
            within("EXISTS", self.stream.read_line(&mut line)).await.expect("it is open");
        }
    }
}
