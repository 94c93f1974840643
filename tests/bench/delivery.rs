//! How long after Dovecot's acknowledgement of a mail a subscriber has it: `cargo bench --bench delivery`.
//!
//! Each mail is delivered by LMTP; the time runs from the `250` that ends the delivery to the event that an SSE
//! subscriber reads. All clients and servers are on this machine, and each number is of 500 mails, or of `BENCH_MAILS`.
//!
//! - `-- idle`: with IDLE, beside a bare IDLE client of the same mailbox in the same run, which reads `EXISTS` and does
//!   nothing more. Dovecot itself waits for about 500 ms before it tells anybody. Then, in mailboxes that nobody else
//!   watches, a bare client that does what is needed to say anything of the mail: DONE and FETCH, of the items that
//!   postrider asks for, in one write.
//! - `-- push`: with Dovecot's push notifications, by the OX driver and by the Lua driver, for accounts that postrider
//!   watches (the push wakes it, and it fetches the mail) and for accounts that it does not (the push is the event).
//!   Dovecot pushes before it acknowledges, so that some events come first: their times are negative.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a benchmark")]

#[path = "../support/mod.rs"]
mod support;

use std::time::Instant;

use futures::future::join_all;
use postrider::message::SUMMARY_FIELDS;
use support::dovecot::{Dovecot, PASSWORD};
use support::dovecot_push::{SECRET, ask_for_pushes, free_port, lua, options, ox};
use support::server::{Options, Server};
use support::stream::Stream;
use support::{eventually, within};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Since Dovecot waits for half a second, some users get their mail side by side; pushed mails come one by one.
const IDLE_USERS: usize = 5;

/// What has Dovecot push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Driver {
    Ox,
    Lua,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Account {
    /// postrider fetches the mail itself.
    Watched,
    /// What Dovecot pushes is all that is known.
    ToldOf,
}

#[tokio::main]
async fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runs = |part: &str| chosen.is_empty() || chosen.iter().any(|name| name == part);
    println!("milliseconds from Dovecot's acknowledgement");
    if runs("idle") {
        idle().await;
    }
    if runs("push") {
        for driver in [Driver::Ox, Driver::Lua] {
            push(driver, Account::Watched).await;
            push(driver, Account::ToldOf).await;
        }
    }
}

/// How many mails each number is of.
fn mails() -> usize {
    std::env::var("BENCH_MAILS").map_or(500, |mails| mails.parse().expect("BENCH_MAILS is a number"))
}

async fn idle() {
    let dovecot = Dovecot::start();
    let users: Vec<String> = (0..IDLE_USERS).map(|number| format!("user{number}")).collect();
    let config: String = users.iter().map(|user| watched_account(&dovecot, user, "")).collect();
    let server = Server::with(Options { config, ..Options::default() }).await;
    watched(&server, IDLE_USERS).await;
    let times = join_all(users.iter().map(|user| beside_idle(&dovecot, &server, user))).await.concat();
    let (mut bare, mut events): (Vec<f64>, Vec<f64>) = times.iter().copied().unzip();
    let mut later: Vec<f64> = times.iter().map(|(exists, event)| event - exists).collect();
    let difference = median(&mut events) - median(&mut bare);
    report("IDLE: bare client, EXISTS", &mut bare);
    report("IDLE: event at the SSE subscriber", &mut events);
    report("IDLE: event after EXISTS, mail by mail", &mut later);
    println!("IDLE: difference of the p50: {difference:.2} ms (goal: 2)");
    drop(server);
    let fetched = join_all((0..IDLE_USERS).map(|number| alone(&dovecot, format!("alone{number}")))).await.concat();
    let (mut bare, mut fetched): (Vec<f64>, Vec<f64>) = fetched.into_iter().unzip();
    report("IDLE: bare client alone, EXISTS", &mut bare);
    report("IDLE: bare client alone, DONE and FETCH after EXISTS", &mut fetched);
}

fn watched_account(dovecot: &Dovecot, user: &str, more: &str) -> String {
    format!(
        "[[account]]\nname = \"{user}\"\n[account.imap]\nhost = \"127.0.0.1\"\nport = {}\nsecurity = \"none\"\n\
         username = \"{user}\"\npassword_command = [\"echo\", \"{PASSWORD}\"]\n{more}",
        dovecot.imap_port
    )
}

/// Waits until so many accounts are watched.
async fn watched(server: &Server, accounts: usize) {
    eventually("the mailboxes to be watched", || async {
        let text = server.get("/api/accounts").send().await.ok()?.text().await.ok()?;
        (text.matches("\"connected\"").count() == accounts).then_some(())
    })
    .await;
}

async fn subscriber(server: &Server, user: &str) -> Stream {
    Stream::open(server, &format!("/events?topic=mail/{user}/INBOX"), "text/event-stream").await
}

fn mail(number: usize) -> String {
    format!(
        "From: Ada <ada@example.org>\r\nTo: alice@example.org\r\nSubject: mail {number}\r\n\
         Message-ID: <{number}@example.org>\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHello {number}\r\n"
    )
}

/// When the subscriber has read the event of a mail.
async fn event(sse: &mut Stream, number: usize) -> Instant {
    loop {
        let event = sse.sse().await;
        if event.event == "MessageNew" {
            assert!(event.data.contains(&format!("mail {number}\"")), "{}", event.data);
            return Instant::now();
        }
    }
}

/// Mail by mail: when a bare client and when the subscriber learned of it.
async fn beside_idle(dovecot: &Dovecot, server: &Server, user: &str) -> Vec<(f64, f64)> {
    let mut idle = Idle::open(dovecot.imap_port, user).await;
    let mut sse = subscriber(server, user).await;
    let mut times = Vec::new();
    for number in 0..mails() / IDLE_USERS {
        dovecot.deliver(user, &mail(number)).await;
        let delivered = Instant::now();
        let (exists, event) = tokio::join!(idle.exists(), event(&mut sse, number));
        times.push((ms(delivered, exists), ms(delivered, event)));
    }
    times
}

/// Mail by mail: when a bare client learned of it, and how much later it had fetched it.
async fn alone(dovecot: &Dovecot, user: String) -> Vec<(f64, f64)> {
    let mut idle = Idle::open(dovecot.imap_port, &user).await;
    let mut times = Vec::new();
    for number in 0..mails() / IDLE_USERS {
        dovecot.deliver(&user, &mail(number)).await;
        let delivered = Instant::now();
        let exists = idle.exists().await;
        let fetched = idle.fetch(number + 1).await;
        times.push((ms(delivered, exists), ms(exists, fetched)));
    }
    times
}

async fn push(driver: Driver, account: Account) {
    let port = free_port();
    let dovecot = Dovecot::start_with(&match driver {
        Driver::Ox => ox(port, SECRET).replace("/dovecot/push\n", "/dovecot/push user_from_metadata\n"),
        Driver::Lua => lua(port),
    });
    let accounts = match account {
        Account::Watched => watched_account(&dovecot, "alice", "dovecot_push = true\n"),
        Account::ToldOf => "[[account]]\nname = 'alice'\n".to_owned(),
    };
    let server = Server::with(options(port, &accounts)).await;
    match (account, driver) {
        (Account::Watched, _) => watched(&server, 1).await,
        (Account::ToldOf, Driver::Ox) => ask_for_pushes(&dovecot, "alice", "alice").await,
        // It tells of everybody.
        (Account::ToldOf, Driver::Lua) => {}
    }
    let mut sse = subscriber(&server, "alice").await;
    let mut times = Vec::new();
    for number in 0..mails() {
        let mail = mail(number);
        let delivery = async {
            dovecot.deliver("alice", &mail).await;
            Instant::now()
        };
        let (delivered, event) = tokio::join!(delivery, event(&mut sse, number));
        times.push(ms(delivered, event));
    }
    let before = times.iter().filter(|&&time| time <= 0.0).count() * 100 / times.len();
    let driver = if driver == Driver::Ox { "OX" } else { "Lua" };
    let account = if account == Account::Watched { "watched account" } else { "account that is not watched" };
    report(&format!("push, {driver} driver, {account}: event"), &mut times);
    println!("    {before} % before the acknowledgement; the p50 has a goal of 5 ms");
}

/// From one moment to another, which may be the earlier one.
fn ms(from: Instant, to: Instant) -> f64 {
    match to.checked_duration_since(from) {
        Some(duration) => duration.as_secs_f64() * 1000.0,
        None => -from.duration_since(to).as_secs_f64() * 1000.0,
    }
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn report(what: &str, times: &mut [f64]) {
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times[times.len() * percent / 100];
    println!("{what:<56} p50 {:8.2}  p95 {:8.2}  p99 {:8.2}  n {}", at(50), at(95), at(99), times.len());
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
        // postrider asks for it too, and Dovecot then numbers the changes of flags in each FETCH.
        idle.say("b ENABLE QRESYNC\r\nc EXAMINE INBOX\r\n").await;
        idle.line_with("c OK").await;
        idle.say("d IDLE\r\n").await;
        idle.line_with("+").await;
        idle
    }

    async fn say(&mut self, command: &str) {
        self.stream.write_all(command.as_bytes()).await.expect("it is open");
    }

    /// Reads up to a line with this beginning; literals are passed over.
    async fn line_with(&mut self, beginning: &str) {
        let mut line = String::new();
        while !line.starts_with(beginning) {
            line.clear();
            let read = within("a line from Dovecot", self.stream.read_line(&mut line)).await.expect("it is open");
            assert!(read > 0, "Dovecot hung up before {beginning}");
            let literal = line.trim_end().strip_suffix('}').and_then(|rest| rest.rsplit_once('{'));
            if let Some((_, octets)) = literal {
                let mut literal = vec![0; octets.parse().expect("a number")];
                self.stream.read_exact(&mut literal).await.expect("a literal");
            }
        }
    }

    async fn exists(&mut self) -> Instant {
        let mut line = String::new();
        while !line.ends_with(" EXISTS\r\n") {
            line.clear();
            within("EXISTS", self.stream.read_line(&mut line)).await.expect("it is open");
        }
        Instant::now()
    }

    /// Ends IDLE, fetches a message as postrider does, and begins IDLE anew.
    async fn fetch(&mut self, uid: usize) -> Instant {
        let fields = SUMMARY_FIELDS.join(" ");
        self.say(&format!(
            "DONE\r\nd UID FETCH {uid}:* (UID FLAGS INTERNALDATE RFC822.SIZE BODYSTRUCTURE MODSEQ \
             BODY.PEEK[HEADER.FIELDS ({fields})]<0.65536> PREVIEW)\r\n"
        ))
        .await;
        self.line_with("d OK Fetch").await;
        let fetched = Instant::now();
        self.say("d IDLE\r\n").await;
        self.line_with("+").await;
        fetched
    }
}
