//! The SMTP receiver over real sockets, with a real event log, against real clients: lettre, swaks and Python's
//! smtplib, and a raw one where a client is meant to misbehave.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what fails in a test fails the test")]

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use lettre::message::Mailbox;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use postrider::event::{Event, TopicMatcher};
use postrider::event_log::{EventLog, EventLogConfig, Position, Selection};
use postrider::metrics::Metrics;
use postrider::registry::Account;
use postrider::source::intake::{Intake, Routing};
use postrider::source::smtp::{Listener, Receiver, SmtpConfig, serve};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

const TEN_SECONDS: Duration = Duration::from_secs(10);

/// A receiver with an event log of its own.
struct Server {
    address: SocketAddr,
    event_log: EventLog,
    stop: CancellationToken,
    running: JoinSet<()>,
    _folder: TempDir,
}

impl Server {
    /// With the accounts alice and bob at example.org, and the given lines of `[smtp]`.
    async fn start(settings: &str) -> Self {
        Self::start_with_grace(settings, Duration::from_secs(5)).await
    }

    async fn start_with_grace(settings: &str, grace: Duration) -> Self {
        let account = |name| {
            let text = format!("name = '{name}'\ncontent = 'text'\naddresses = ['{name}@example.org']");
            toml::from_str::<Account>(&text).unwrap()
        };
        let config: SmtpConfig = toml::from_str(&format!("listen = '127.0.0.1:0'\n{settings}")).unwrap();
        config.check().unwrap();
        let routing = Routing::new(&[account("alice"), account("bob")], config.local_domains.as_deref()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let event_log = EventLog::open(folder.path(), &EventLogConfig::default()).unwrap();
        let mut listeners = Vec::new();
        for listener in config.listeners() {
            listeners.push(Listener::bind(&listener).await.unwrap());
        }
        let address = listeners.first().and_then(Listener::address).unwrap();
        let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
        let intake = Intake::new(routing, event_log.clone(), config.append_timeout);
        running.spawn(serve(listeners, Receiver::new(config, intake, &Metrics::default()), grace, stop.clone()));
        Self { address, event_log, stop, running, _folder: folder }
    }

    /// All events so far, oldest first.
    async fn events(&self) -> Vec<Event> {
        let all = Selection::unrestricted([TopicMatcher::parse("*").unwrap()]);
        let (mut events, mut after) = (Vec::new(), Position::START);
        // A page ends by bytes too.
        loop {
            let page = self.event_log.read_after(&all, after, 10_000).await.unwrap();
            events.extend(page.events.iter().map(|event| serde_json::from_slice::<Event>(&event.json).unwrap()));
            if page.scanned_to >= page.head {
                return events;
            }
            after = page.scanned_to;
        }
    }

    async fn client(&self) -> Client {
        let mut client = Client::connect(self.address).await;
        client.expect("220 ").await;
        client
    }

    /// Waits until the receiver has ended.
    async fn ended(&mut self) {
        timeout(TEN_SECONDS, self.running.join_next()).await.expect("the receiver ends").unwrap().unwrap();
    }
}

/// A client that says exactly what it is told to.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        Self { stream: BufReader::new(TcpStream::connect(address).await.unwrap()) }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The next reply, all its lines.
    async fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let start = reply.len();
            let read = timeout(TEN_SECONDS, self.stream.read_line(&mut reply)).await;
            let read = read.unwrap_or_else(|_| panic!("no reply, only {reply:?}")).unwrap();
            if read == 0 || reply.as_bytes().get(start + 3) != Some(&b'-') {
                return reply;
            }
        }
    }

    async fn expect(&mut self, start: &str) -> String {
        let reply = self.reply().await;
        assert!(reply.starts_with(start), "expected {start}, got {reply:?}");
        reply
    }

    async fn ask(&mut self, command: &str, start: &str) -> String {
        self.send(format!("{command}\r\n")).await;
        self.expect(start).await
    }

    /// Up to the text of a message for alice.
    async fn begin_message(&mut self) {
        self.ask("EHLO client.example", "250-").await;
        self.ask("MAIL FROM:<sender@x.example>", "250 2.1.0").await;
        self.ask("RCPT TO:<alice@example.org>", "250 2.1.5").await;
        self.ask("DATA", "354").await;
    }

    async fn expect_end(&mut self) {
        let mut rest = Vec::new();
        timeout(TEN_SECONDS, self.stream.read_to_end(&mut rest)).await.expect("the server closes").unwrap();
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}

fn mail(to: &[&str]) -> Message {
    let mut message = Message::builder().from("Ada <ada@x.example>".parse().unwrap()).message_id(None);
    for to in to {
        message = message.to(to.parse::<Mailbox>().unwrap());
    }
    message.subject("hello").body(".first line is a dot\r\n".to_owned()).unwrap()
}

fn lettre(server: &Server) -> AsyncSmtpTransport<Tokio1Executor> {
    AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1").port(server.address.port()).build()
}

#[tokio::test]
async fn lettre_delivers_to_two_accounts_in_one_message() {
    let server = Server::start("").await;
    let reply = lettre(&server).send(mail(&["alice@example.org", "Bob <bob+Lists/rust@example.org>"])).await.unwrap();
    // The reply came after the commit, so that the events are there already.
    let events = server.events().await;
    let [alice, bob] = &events[..] else { panic!("{events:?}") };
    assert_eq!(alice.draft.topics[0].as_str(), "mail/alice/INBOX");
    assert_eq!(bob.draft.topics[0].as_str(), "mail/bob/Lists%2Frust");
    let envelope = alice.draft.envelope.as_ref().unwrap();
    let (from, to) = (envelope.mail_from.as_deref(), envelope.rcpt_to.as_deref());
    assert_eq!((from, to), (Some("ada@x.example"), Some("alice@example.org")));
    assert!(reply.message().any(|line| line.ends_with(&format!("queued as {}", envelope.queue_id))), "{reply:?}");
    assert_eq!(bob.draft.envelope.as_ref().unwrap().queue_id, envelope.queue_id);
    let message = alice.draft.message.as_ref().unwrap();
    assert!(message.message_id.is_some() && message.received.is_some() && message.size.is_some());
}

#[tokio::test]
async fn swaks_delivers() {
    let server = Server::start("").await;
    let output = tokio::process::Command::new("swaks")
        .args(["--server", &server.address.to_string(), "--from", "cron@x.example", "--pipeline"])
        .args(["--to", "alice@example.org,bob@example.org", "--body", "it works"])
        .stdin(Stdio::null())
        .output();
    let output = timeout(TEN_SECONDS, output).await.expect("swaks ends").expect("swaks is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(server.events().await.len(), 2);
}

#[tokio::test]
async fn smtplib_delivers_and_hears_of_refused_recipients() {
    let server = Server::start("").await;
    let script = format!(
        "import smtplib\ns = smtplib.SMTP('127.0.0.1', {})\n\
         refused = s.sendmail('a@x.example', ['alice@example.org', 'x@example.org', 'y@z.example'], 'Subject: hi\\n\\n.\\n..\\n')\n\
         assert {{k: v[0] for k, v in refused.items()}} == {{'x@example.org': 550, 'y@z.example': 550}}, refused\n\
         s.verify('alice'); s.noop(); s.help(); s.quit()\n",
        server.address.port()
    );
    let output = tokio::process::Command::new("python3").args(["-c", &script]).output();
    let output = timeout(TEN_SECONDS, output).await.expect("python3 ends").expect("python3 is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(server.events().await.len(), 1);
}

#[tokio::test]
async fn a_repeated_message_is_one_event_if_it_has_a_message_id() {
    let server = Server::start("").await;
    let (transport, with_id) = (lettre(&server), mail(&["alice@example.org"]));
    for _ in 0..2 {
        transport.send(with_id.clone()).await.unwrap();
    }
    assert_eq!(server.events().await.len(), 1);
    for _ in 0..2 {
        let mut client = server.client().await;
        client.begin_message().await;
        client.ask("Subject: disk full\r\n\r\nagain\r\n.", "250 2.0.0").await;
    }
    assert_eq!(server.events().await.len(), 3, "two equal alerts without an identifier may well be two");
}

#[tokio::test]
async fn two_addresses_of_one_mailbox_make_one_event() {
    let server = Server::start("").await;
    let mut client = server.client().await;
    client.ask("EHLO c", "250-").await;
    client.ask("MAIL FROM:<>", "250").await;
    for recipient in ["alice@example.org", "ALICE+inbox@example.org", "alice+other@example.org"] {
        client.ask(&format!("RCPT TO:<{recipient}>"), "250").await;
    }
    client.ask("DATA", "354").await;
    client.ask("hi\r\n.", "250").await;
    let mailboxes: Vec<_> = server.events().await.into_iter().map(|event| event.draft.mailbox.unwrap()).collect();
    assert_eq!(mailboxes, ["INBOX", "other"]);
}

#[tokio::test]
async fn pipelined_commands_are_answered_in_order_and_in_one_write() {
    let server = Server::start("").await;
    let mut client = Client::connect(server.address).await;
    // Early: before the greeting.
    client.send("EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<x@example.org>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n").await;
    for code in ["220", "250-", "250 2.1.0", "550 5.1.1", "250 2.1.5", "354"] {
        client.expect(code).await;
    }
    client.send("one\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n").await;
    for code in ["250 2.0.0", "250 2.1.0", "250 2.1.5", "354"] {
        client.expect(code).await;
    }
    client.send("two\r\n.\r\nQUIT\r\n").await;
    client.expect("250 2.0.0").await;
    client.expect("221 2.0.0").await;
    client.expect_end().await;
    assert_eq!(server.events().await.len(), 2);
}

#[tokio::test]
async fn a_half_closed_client_still_hears_what_became_of_its_message() {
    let server = Server::start("").await;
    let mut client = server.client().await;
    client.begin_message().await;
    client.send("hi\r\n.\r\n").await;
    client.stream.get_mut().shutdown().await.unwrap();
    client.expect("250 2.0.0").await;
    client.expect_end().await;
}

#[tokio::test]
async fn a_half_closed_client_hears_of_its_last_chunk_and_what_it_left_unfinished_is_no_mail() {
    let server = Server::start("").await;
    let mut chunked = server.client().await;
    chunked.send("EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<alice@example.org>\r\nBDAT 4 LAST\r\nhi\r\n").await;
    chunked.stream.get_mut().shutdown().await.unwrap();
    for code in ["250-", "250 2.1.0", "250 2.1.5", "250 2.0.0"] {
        chunked.expect(code).await;
    }
    chunked.expect_end().await;
    let mut unfinished = server.client().await;
    unfinished.begin_message().await;
    unfinished.send("half\r\n.\r").await;
    unfinished.stream.get_mut().shutdown().await.unwrap();
    unfinished.expect_end().await;
    assert_eq!(server.events().await.len(), 1);
}

#[tokio::test]
async fn a_large_message_arrives_and_a_larger_one_leaves_the_session_in_step() {
    let server = Server::start("message_bytes_max = 2000000").await;
    let mut client = server.client().await;
    client.begin_message().await;
    let line = format!("{}\r\n", "x".repeat(998));
    client.send(line.repeat(1900)).await;
    client.ask(".", "250 2.0.0").await;
    client.begin_message().await;
    client.send(line.repeat(2100)).await;
    client.ask(".", "552 5.3.4").await;
    client.ask("MAIL FROM:<> SIZE=2000001", "552 5.3.4").await;
    client.ask("NOOP", "250").await;
    let events = server.events().await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].draft.message.as_ref().unwrap().size, Some(1_900_000));
}

#[tokio::test]
async fn messages_of_all_sessions_stay_within_the_spool() {
    let no_memory = "message_bytes_max = 600000\nmemory_bytes_max = 2400000";
    let server = Server::start(&format!("{no_memory}\nspool_bytes_max = 900000")).await;
    let (mut first, mut second) = (server.client().await, server.client().await);
    let text = format!("{}\r\n", "x".repeat(998)).repeat(500);
    first.begin_message().await;
    first.send(&text).await;
    // What the first one sent is in the server's spool once it has been read; a second message says when.
    second.begin_message().await;
    second.send(&text).await;
    second.send(".\r\n").await;
    let reply = second.reply().await;
    first.send(".\r\n").await;
    let replies = [reply, first.reply().await];
    assert!(replies.iter().any(|reply| reply.starts_with("452 4.3.1")), "{replies:?}");
    second.begin_message().await;
    second.ask("small\r\n.", "250 2.0.0").await;
}

#[tokio::test]
async fn a_line_with_a_bare_lf_is_refused_even_if_nothing_follows() {
    let server = Server::start("").await;
    let mut client = server.client().await;
    client.send("NOOP\n").await;
    client.expect("500 5.5.2").await;
    client.ask("NOOP", "250").await;
    client.send("NOOP\nRSET\r\n").await;
    client.expect("500 5.5.2").await;
    client.ask("NOOP", "250").await;
}

#[tokio::test]
async fn a_browser_and_a_tls_client_are_hung_up_on() {
    let server = Server::start("").await;
    for bytes in
        [&b"POST / HTTP/1.1\r\nHost: mx\r\n\r\nEHLO x\r\nMAIL FROM:<>\r\n"[..], b"\x16\x03\x01\x02\x00\x01\x00"]
    {
        let mut client = server.client().await;
        client.send(bytes).await;
        client.expect("554 5.5.1").await;
        client.expect_end().await;
    }
}

#[tokio::test]
async fn silence_and_dripping_end_at_the_deadline() {
    let server = Server::start("command_timeout = '1s'").await;
    let mut idle = server.client().await;
    idle.expect("421 4.4.2").await;
    idle.expect_end().await;

    let (mut client, began) = (server.client().await, Instant::now());
    let dripping = async {
        loop {
            if client.stream.write_all(b"x").await.is_err() {
                return;
            }
            let mut line = String::new();
            if timeout(Duration::from_millis(100), client.stream.read_line(&mut line)).await.is_ok() {
                assert!(line.starts_with("421 4.4.2"), "{line}");
                return;
            }
        }
    };
    timeout(TEN_SECONDS, dripping).await.expect("a command that drips in is ended");
    assert!(began.elapsed() < Duration::from_secs(3));

    let mut text = server.client().await;
    text.begin_message().await;
    text.send("Subject: and then nothing\r\n").await;
    text.expect("421 4.4.2").await;
}

#[tokio::test]
async fn sessions_beyond_the_limits_wait_or_are_refused() {
    let server = Server::start("sessions_max = 2").await;
    let (first, _second) = (server.client().await, server.client().await);
    let mut third = Client::connect(server.address).await;
    let greeted = timeout(Duration::from_millis(200), third.stream.fill_buf()).await;
    assert!(greeted.is_err(), "the third waits unaccepted");
    drop(first);
    third.expect("220 ").await;

    let server = Server::start("sessions_per_address_max = 1").await;
    let first = server.client().await;
    let mut second = Client::connect(server.address).await;
    second.expect("421 4.7.0").await;
    drop(first);
    let again = async {
        loop {
            if Client::connect(server.address).await.reply().await.starts_with("220 ") {
                return;
            }
        }
    };
    timeout(TEN_SECONDS, again).await.expect("the place is free again");
}

#[tokio::test]
async fn an_address_sends_so_many_messages_a_minute() {
    let server = Server::start("messages_per_minute_max = 2").await;
    let mut client = server.client().await;
    for _ in 0..2 {
        client.begin_message().await;
        client.ask("hi\r\n.", "250 2.0.0").await;
    }
    client.ask("MAIL FROM:<>", "450 4.7.1").await;
    let mut again = server.client().await;
    again.ask("EHLO c", "250-").await;
    again.send("MAIL FROM:<>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n").await;
    for code in ["450 4.7.1", "503", "503"] {
        again.expect(code).await;
    }
    assert_eq!(server.events().await.len(), 2);
}

#[tokio::test]
async fn shutdown_ends_idle_sessions_and_lets_a_message_complete() {
    let mut server = Server::start("").await;
    let (mut idle, mut busy) = (server.client().await, server.client().await);
    busy.begin_message().await;
    server.stop.cancel();
    idle.expect("421 4.3.2").await;
    idle.expect_end().await;
    busy.ask("hi\r\n.", "250 2.0.0").await;
    busy.expect("421 4.3.2").await;
    server.ended().await;
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
    assert_eq!(server.events().await.len(), 1);
}

#[tokio::test]
async fn shutdown_does_not_wait_longer_than_the_grace() {
    let mut server = Server::start_with_grace("", Duration::from_millis(100)).await;
    let mut busy = server.client().await;
    busy.begin_message().await;
    server.stop.cancel();
    busy.expect("421 4.3.2").await;
    server.ended().await;
}

#[tokio::test]
async fn a_closed_log_means_later_and_never_250() {
    let server = Server::start("").await;
    let mut client = server.client().await;
    client.begin_message().await;
    server.event_log.close().await;
    client.ask("hi\r\n.", "421 4.3.2").await;
    client.expect_end().await;
}

#[tokio::test]
async fn fifty_sessions_lose_and_repeat_nothing() {
    let server = Server::start("").await;
    let (mut sessions, address) = (JoinSet::new(), server.address);
    for session in 0..50 {
        sessions.spawn(async move {
            let mut client = Client::connect(address).await;
            client.expect("220").await;
            for message in 0..10 {
                client.begin_message().await;
                let text = format!("Message-ID: <{session}.{message}@x>\r\n\r\n{}\r\n.", "y".repeat(4000));
                client.ask(&text, "250 2.0.0").await;
            }
            client.ask("QUIT", "221").await;
        });
    }
    while let Some(ended) = sessions.join_next().await {
        ended.unwrap();
    }
    let events = server.events().await;
    let ids: std::collections::HashSet<_> =
        events.iter().map(|event| event.draft.message.as_ref().unwrap().message_id.clone().unwrap()).collect();
    assert_eq!((events.len(), ids.len()), (500, 500));
}
