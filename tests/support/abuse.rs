//! Clients that no mail server asked for: each kind of abuse that a port on the Internet meets, again and again.
//!
//! What a server answers them is the conformance tests' matter; here they are only there, all at once, while honest
//! senders go on.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rand::{Rng, RngCore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::mail_client::{MailClient, Target};

/// What one client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abuse {
    /// An octet of a command now and then (slowloris).
    SlowCommand,
    /// An octet of a message now and then.
    SlowText,
    /// Greets, and is silent.
    Silence,
    /// Random octets.
    Garbage,
    /// Commands with NULs in them.
    Nuls,
    /// Lines of a megabyte.
    LongLines,
    /// RSET without end, and reads no reply.
    ResetFlood,
    /// Says everything before the greeting.
    EarlyTalker,
    /// A browser's form.
    Http,
    /// Connects and closes.
    ConnectFlood,
    /// Announces chunks that are far too large, and sends some of them.
    HugeChunk,
    /// Ends in the middle of a chunk.
    CutChunk,
    /// Guesses recipients.
    UnknownRecipients,
    /// Commands behind STARTTLS.
    StartTls,
    /// Closes its direction in the middle of a message.
    HalfClose,
    /// A message larger than the limit.
    Oversized,
    /// Messages that are hard to parse.
    MimeBomb,
    /// Guesses passwords.
    Passwords,
    /// Error after error.
    Errors,
    /// A TLS hello where none is expected.
    TlsHello,
}

use Abuse::{
    ConnectFlood, CutChunk, EarlyTalker, Errors, Garbage, HalfClose, Http, HugeChunk, LongLines, MimeBomb, Nuls,
    Oversized, Passwords, ResetFlood, Silence, SlowCommand, SlowText, StartTls, TlsHello, UnknownRecipients,
};

impl Abuse {
    pub const ALL: [Self; 20] = [
        SlowCommand,
        SlowText,
        Silence,
        Garbage,
        Nuls,
        LongLines,
        ResetFlood,
        EarlyTalker,
        Http,
        ConnectFlood,
        HugeChunk,
        CutChunk,
        UnknownRecipients,
        StartTls,
        HalfClose,
        Oversized,
        MimeBomb,
        Passwords,
        Errors,
        TlsHello,
    ];

    /// One connection's worth of it.
    async fn once(self, target: &Target) -> io::Result<()> {
        let mut client = MailClient::connect(target).await?;
        match self {
            ConnectFlood => return Ok(()),
            EarlyTalker => {
                client.say(format!("EHLO x\r\n{MAIL}DATA\r\nearly\r\n.\r\nQUIT\r\n").as_bytes()).await?;
                client.read_to_end().await?;
                return Ok(());
            }
            TlsHello => client.say(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await?,
            Http => client.say(b"POST / HTTP/1.1\r\nHost: mx\r\nContent-Length: 99\r\n\r\nEHLO x\r\n").await?,
            _ => {}
        }
        client.reply().await?;
        client.ask("EHLO abuser.example").await?;
        match self {
            SlowCommand => drip(&mut client, b"NOOP slowly ").await?,
            SlowText => {
                begin(&mut client).await?;
                drip(&mut client, b"slowly\r\n").await?;
            }
            Silence => sleep(PATIENCE).await,
            Garbage => flood(&mut client, 64, garbage).await?,
            Nuls => flood(&mut client, 64, || b"NO\0OP\r\nMAIL FROM:<\0@x>\r\n".repeat(20)).await?,
            LongLines => flood(&mut client, 8, || [vec![b'x'; 1 << 20], b"\r\n".to_vec()].concat()).await?,
            ResetFlood => flood(&mut client, usize::MAX, || b"RSET\r\n".repeat(1000)).await?,
            HugeChunk => {
                client.say(format!("{MAIL}BDAT 20000000\r\n").as_bytes()).await?;
                flood(&mut client, 40, || vec![b'x'; 1 << 16]).await?;
            }
            CutChunk => client.say(format!("{MAIL}BDAT 100000 LAST\r\n{}", "x".repeat(50_000)).as_bytes()).await?,
            UnknownRecipients => {
                client.ask("MAIL FROM:<>").await?;
                for number in 0..100 {
                    client.ask(&format!("RCPT TO:<guess{number}@nowhere.example>")).await?;
                }
            }
            StartTls => {
                client.say(format!("STARTTLS\r\n{MAIL}DATA\r\nSubject: injected\r\n\r\n.\r\n").as_bytes()).await?;
                client.say_no_more().await?;
                client.read_to_end().await?;
            }
            HalfClose => {
                begin(&mut client).await?;
                client.say("Subject: half\r\n\r\nnot the end\r\n").await?;
                client.say_no_more().await?;
                client.read_to_end().await?;
            }
            Oversized => {
                begin(&mut client).await?;
                let line = format!("{}\r\n", "x".repeat(998)).repeat(64);
                flood(&mut client, 27 * 16, || line.clone().into_bytes()).await?;
                client.ask(".").await?;
            }
            MimeBomb => {
                for bomb in 0..BOMBS {
                    begin(&mut client).await?;
                    client.say(mime_bomb(bomb)).await?;
                    client.ask("\r\n.").await?;
                }
            }
            Passwords => loop {
                client.ask("AUTH PLAIN AGFsaWNlAGd1ZXNz").await?;
            },
            Errors => loop {
                client.ask("MAIL TO:<what>").await?;
            },
            EarlyTalker | TlsHello | Http | ConnectFlood => {}
        }
        Ok(())
    }
}

/// How long a silent one is silent.
const PATIENCE: Duration = Duration::from_hours(1);
/// An envelope that is in order; abusers have an account of their own.
const MAIL: &str = "MAIL FROM:<>\r\nRCPT TO:<abuser@example.org>\r\n";

/// The configuration of a server that is abused: an account for abusers and one for the honest, and a listener at
/// `address` whose clients may say where they come from.
pub fn config(address: SocketAddr) -> String {
    format!(
        "[[smtp.listener]]\nrole = 'smtp'\nlisten = '{address}'\nproxy_protocol_from = ['127.0.0.0/8']\n\
         verify = false\n\
         [[account]]\nname = 'abuser'\naddresses = ['abuser@example.org']\n\
         [[account]]\nname = 'honest'\naddresses = ['honest@example.org']\n"
    )
}

/// So many clients, of all kinds in turn and from several addresses, until a moment; each comes again `pause` after its
/// connection was over. Panics are for the caller.
pub fn abusers(server: SocketAddr, count: usize, pause: Duration, until: Instant) -> JoinSet<()> {
    let mut all = JoinSet::new();
    for number in 0..count {
        let abuse = Abuse::ALL[number % Abuse::ALL.len()];
        // Fifty from each, so that no limit of an address keeps them out.
        let last = u8::try_from(10 + number / 50).expect("some hundreds of clients");
        let target = Target::Smtp { server, from: Ipv4Addr::new(203, 0, 113, last) };
        all.spawn(async move {
            while Instant::now() < until {
                // Whatever the server does with it, the next one comes.
                let _over = timeout_at(until, abuse.once(&target)).await;
                sleep(pause).await;
            }
        });
    }
    all
}

async fn begin(client: &mut MailClient) -> io::Result<()> {
    client.say(format!("{MAIL}DATA\r\n").as_bytes()).await?;
    for _ in 0..3 {
        client.reply().await?;
    }
    Ok(())
}

async fn drip(client: &mut MailClient, octets: &[u8]) -> io::Result<()> {
    for octet in octets.iter().cycle() {
        client.say([*octet]).await?;
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Says something so many times, and reads nothing.
async fn flood(client: &mut MailClient, times: usize, mut what: impl FnMut() -> Vec<u8>) -> io::Result<()> {
    for _ in 0..times {
        client.say(what()).await?;
    }
    Ok(())
}

fn garbage() -> Vec<u8> {
    let mut octets = vec![0; rand::rng().random_range(1..4096)];
    rand::rng().fill_bytes(&mut octets);
    octets
}

const BOMBS: usize = 6;

/// Messages that cost time or memory; small ones too, since what is small is parsed at once.
fn mime_bomb(number: usize) -> String {
    let nested = |depth: usize| {
        let levels = (0..depth).map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n"));
        levels.collect::<String>()
    };
    let header = "Message-ID:\r\nSubject: bomb\r\n";
    let html = format!("{header}Content-Type: text/html\r\n\r\n");
    match number % BOMBS {
        0 => header.to_owned() + &nested(4_000),
        1 => format!("{header}Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", "--b\r\n\r\nx\r\n".repeat(100_000)),
        2 => html + &"<div><table><tr><td>".repeat(12_000),
        3 => format!("{header}Subject:{}\r\n\r\n", "\r\n =?utf-8?q?=C3=A4?=".repeat(10_000)),
        4 => format!("{header}References:{}\r\n\r\n", "\r\n <a@b.example>".repeat(15_000)),
        _ => format!("{header}To:{}\r\n\r\n{}", "\r\n \"a(b\" <a@b.example>,".repeat(10_000), "&amp;".repeat(400_000)),
    }
}
