//! How much later than a bare IDLE client a subscriber learns of a mail: `cargo bench --bench delivery`.
//!
//! Both watch the same mailbox of the same private Dovecot in the same run. Each mail is delivered by LMTP; the time
//! runs from Dovecot's acknowledgement to the `EXISTS` that the IDLE client reads, and to the event that an SSE
//! subscriber reads. Dovecot itself waits for about 500 ms before it tells anybody, so some users get their mail side by
//! side.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a benchmark")]

#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use futures::future::join_all;
use support::dovecot::{Dovecot, PASSWORD};
use support::server::{Options, Server};
use support::stream::Stream;
use support::{eventually, within};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const USERS: usize = 5;
const MAILS_PER_USER: usize = 100;

#[tokio::main]
async fn main() {
    let dovecot = Dovecot::start();
    let users: Vec<String> = (0..USERS).map(|number| format!("user{number}")).collect();
    let config: String = users.iter().map(|user| account(&dovecot, user)).collect();
    let server = Server::with(Options { config, ..Options::default() }).await;
    eventually("the mailboxes to be watched", || async {
        let text = server.get("/api/accounts").send().await.ok()?.text().await.ok()?;
        (text.matches("\"connected\"").count() == USERS).then_some(())
    })
    .await;
    let times = join_all(users.iter().map(|user| deliver(&dovecot, &server, user))).await.concat();
    let (mut bare, mut pushed): (Vec<Duration>, Vec<Duration>) = times.iter().copied().unzip();
    let mut later: Vec<f64> = times.iter().map(|(exists, event)| ms(*event) - ms(*exists)).collect();
    later.sort_by(f64::total_cmp);
    println!("{} mails, milliseconds from Dovecot's acknowledgement:", times.len());
    report("bare IDLE client, EXISTS", &mut bare);
    report("postrider, event at the SSE subscriber", &mut pushed);
    println!(
        "{:<40} p50 {:8.2}  p90 {:8.2}  p99 {:8.2}",
        "event after EXISTS, mail by mail",
        later[later.len() / 2],
        later[later.len() * 9 / 10],
        later[later.len() * 99 / 100]
    );
    println!("difference of the p50: {:.2} ms (goal: 2)", ms(pushed[pushed.len() / 2]) - ms(bare[bare.len() / 2]));
}

fn account(dovecot: &Dovecot, user: &str) -> String {
    format!(
        "[[account]]\nname = \"{user}\"\n[account.imap]\nhost = \"127.0.0.1\"\nport = {}\nsecurity = \"none\"\n\
         username = \"{user}\"\npassword_command = [\"echo\", \"{PASSWORD}\"]\n",
        dovecot.imap_port
    )
}

/// Mail by mail: when the bare client and when the subscriber learned of it.
async fn deliver(dovecot: &Dovecot, server: &Server, user: &str) -> Vec<(Duration, Duration)> {
    let mut idle = Idle::open(dovecot.imap_port, user).await;
    let mut sse = Stream::open(server, &format!("/events?topic=mail/{user}/INBOX"), "text/event-stream").await;
    let mut times = Vec::new();
    for number in 0..MAILS_PER_USER {
        let mail = format!(
            "From: Ada <ada@example.org>\r\nTo: alice@example.org\r\nSubject: mail {number}\r\n\
             Message-ID: <{number}@example.org>\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHello {number}\r\n"
        );
        dovecot.deliver(user, &mail).await;
        let delivered = Instant::now();
        times.push(tokio::join!(
            async {
                idle.exists().await;
                delivered.elapsed()
            },
            async {
                let event = sse.sse().await;
                assert!(event.data.contains(&format!("mail {number}\"")), "{}", event.data);
                delivered.elapsed()
            }
        ));
    }
    times
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
    async fn open(port: u16, user: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("Dovecot");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        let mut idle = Self { stream: BufReader::new(stream) };
        idle.line_with("* OK").await;
        idle.say(&format!("a LOGIN {user} {PASSWORD}\r\n")).await;
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
