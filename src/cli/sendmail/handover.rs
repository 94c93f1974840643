//! Hands a message to the running postrider, by SMTP or LMTP, and learns of each recipient.
//!
//! lettre gives a message up when one recipient is refused; here the others still get it, and whoever called is told
//! whom it did not reach.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use postrider::source::smtp::{Role, SmtpConfig, SocketAddress, TlsMode};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_util::either::Either;

/// The longest wait for a connection on this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait for one reply, and for a message to be read: more than the server waits for its log.
const REPLY_TIMEOUT: Duration = Duration::from_mins(2);
/// The longest line of a reply that is read.
const REPLY_LINE_BYTES_MAX: u64 = 4096;
/// Lines of one reply.
const REPLY_LINES_MAX: usize = 100;

/// A socket that the server listens on, and what it speaks there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    role: Role,
    at: SocketAddress,
}

/// The sockets of a configuration, the likeliest first: what listens on this machine alone takes mail for local users.
pub fn doors(config: &SmtpConfig) -> Vec<Door> {
    let mut doors: Vec<Door> = config
        .listeners()
        .filter(|listener| matches!(listener.role, Role::Smtp | Role::Lmtp) && listener.tls != TlsMode::Implicit)
        .map(|listener| (Door { role: listener.role, at: reachable(listener.listen) }, listener.proxy_protocol_from))
        // There a connection begins with a line that only a proxy has.
        .filter(|(door, proxies)| match &door.at {
            SocketAddress::Tcp(address) => !proxies.contain(address.ip()),
            SocketAddress::Unix(_) => !proxies.contain_unix(),
        })
        .map(|(door, _)| door)
        .collect();
    doors.sort_by_key(|door| match &door.at {
        SocketAddress::Tcp(address) => (!address.ip().is_loopback(), door.role != Role::Smtp),
        SocketAddress::Unix(_) => (false, true),
    });
    doors
}

/// All addresses of a machine are one that it reaches itself at.
fn reachable(at: SocketAddress) -> SocketAddress {
    match at {
        SocketAddress::Tcp(address) if address.ip().is_unspecified() => {
            let own = if address.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) };
            SocketAddress::Tcp(SocketAddr::new(own, address.port()))
        }
        at => at,
    }
}

/// The message and its envelope.
#[derive(Debug, Clone, Copy)]
pub struct Letter<'a> {
    /// The reverse-path; empty for the null sender.
    pub sender: &'a str,
    /// The forward-paths.
    pub recipients: &'a [String],
    /// Whole, with CRLF.
    pub message: &'a [u8],
}

/// Why nothing was handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// There is nobody.
    #[error("postrider cannot be reached ({0}); is `postrider run` running, with this configuration?")]
    Unreachable(String),
    /// The connection broke.
    #[error("the connection to postrider broke off")]
    Broken(#[source] io::Error),
    /// The server did not take part.
    #[error("postrider answered: {0}")]
    Refused(Reply),
}

/// One reply (RFC 5321 §4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// Its lines, without the code and without control characters.
    pub text: String,
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}

impl Reply {
    fn is_positive(&self) -> bool {
        (200..400).contains(&self.code)
    }

    /// Whether the same may succeed later.
    pub fn is_temporary(&self) -> bool {
        (400..500).contains(&self.code)
    }
}

/// What became of a letter.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Handed {
    /// Those who have it.
    pub delivered: Vec<String>,
    /// Those who do not.
    pub refused: Vec<Refusal>,
}

impl Handed {
    fn is_decided(&self, recipient: &String) -> bool {
        self.delivered.contains(recipient) || self.refused.iter().any(|refusal| refusal.recipient == *recipient)
    }
}

/// A recipient who does not get the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// As in the letter.
    pub recipient: String,
    /// What it was for.
    pub why: Why,
}

/// Why a recipient does not get the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The server does not take mail for this recipient.
    Recipient(Reply),
    /// The server does not take the message.
    Message(Reply),
    /// The connection broke off before the server had said anything of it.
    Broken,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Recipient(reply) | Self::Message(reply) => reply.fmt(f),
            Self::Broken => f.write_str("the connection to postrider broke off"),
        }
    }
}

impl Why {
    /// Whether the same may succeed later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Recipient(reply) | Self::Message(reply) => reply.is_temporary(),
            Self::Broken => true,
        }
    }
}

/// Hands the letter to the first door that opens.
///
/// # Errors
/// Nobody has it. Where somebody has, what failed for others is theirs.
pub async fn hand_over(doors: &[Door], letter: Letter<'_>, verbose: bool) -> Result<Handed, HandoverError> {
    let mut failures = Vec::new();
    for door in doors {
        match timeout(CONNECT_TIMEOUT, connect(&door.at)).await {
            Ok(Ok(stream)) => {
                let mut dialogue = Dialogue { stream: BufStream::new(stream), lmtp: door.role == Role::Lmtp, verbose };
                return dialogue.whole(letter).await;
            }
            Ok(Err(err)) => failures.push(format!("{}: {err}", door.at)),
            Err(_) => failures.push(format!("{}: no answer within {CONNECT_TIMEOUT:?}", door.at)),
        }
    }
    Err(HandoverError::Unreachable(failures.join("; ")))
}

async fn connect(at: &SocketAddress) -> io::Result<Either<TcpStream, UnixStream>> {
    match at {
        SocketAddress::Tcp(address) => Ok(Either::Left(TcpStream::connect(address).await?)),
        SocketAddress::Unix(path) => Ok(Either::Right(UnixStream::connect(path).await?)),
    }
}

struct Dialogue<S> {
    stream: BufStream<S>,
    lmtp: bool,
    verbose: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Dialogue<S> {
    async fn whole(&mut self, letter: Letter<'_>) -> Result<Handed, HandoverError> {
        let greeting = self.reply().await?;
        Self::positive(greeting)?;
        let hello = self.ask(if self.lmtp { "LHLO localhost" } else { "EHLO localhost" }).await?;
        let smtputf8 = Self::positive(hello)?.text.to_ascii_uppercase().contains("SMTPUTF8");
        let (mut handed, mut recipients) = (Handed::default(), letter.recipients);
        while !recipients.is_empty() {
            match self.transaction(Letter { recipients, ..letter }, smtputf8, &mut handed).await {
                Ok(taken) => recipients = recipients.get(taken..).unwrap_or_default(),
                Err(err) if handed.delivered.is_empty() => return Err(err),
                Err(err) => {
                    let why = match err {
                        HandoverError::Refused(reply) => Why::Message(reply),
                        HandoverError::Broken(_) | HandoverError::Unreachable(_) => Why::Broken,
                    };
                    let left: Vec<&String> = recipients.iter().filter(|left| !handed.is_decided(left)).collect();
                    let refusal = |recipient: &String| Refusal { recipient: recipient.clone(), why: why.clone() };
                    handed.refused.extend(left.into_iter().map(refusal));
                    return Ok(handed);
                }
            }
        }
        // The message is with the server, whether it still says goodbye or not.
        drop(self.ask("QUIT").await);
        Ok(handed)
    }

    /// One transaction, for as many of the recipients as the server takes at once. Gives their number.
    async fn transaction(
        &mut self,
        letter: Letter<'_>,
        smtputf8: bool,
        handed: &mut Handed,
    ) -> Result<usize, HandoverError> {
        let Letter { sender, recipients, message } = letter;
        let utf8 = if smtputf8 && !(sender.is_ascii() && recipients.iter().all(|to| to.is_ascii())) {
            " SMTPUTF8"
        } else {
            ""
        };
        let mail = format!("MAIL FROM:<{sender}> BODY=8BITMIME SIZE={}{utf8}", message.len());
        let reply = self.ask(&mail).await?;
        Self::positive(reply)?;
        let (mut accepted, mut asked) = (Vec::new(), 0);
        for recipient in recipients {
            let reply = self.ask(&format!("RCPT TO:<{recipient}>")).await?;
            if reply.code == 452 && reply.text.starts_with("4.5.3") && !accepted.is_empty() {
                break; // The rest goes into the next transaction (RFC 5321 §4.5.3.1.10).
            }
            asked += 1;
            if reply.is_positive() {
                accepted.push(recipient);
            } else {
                handed.refused.push(Refusal { recipient: recipient.clone(), why: Why::Recipient(reply) });
            }
        }
        if accepted.is_empty() {
            let reply = self.ask("RSET").await?;
            Self::positive(reply)?;
            return Ok(asked);
        }
        let reply = self.ask("DATA").await?;
        Self::positive(reply)?;
        self.text(message).await?;
        let mut answer = None;
        for recipient in accepted {
            // SMTP has one answer for all.
            let reply = match answer.take() {
                Some(reply) => reply,
                None => self.reply().await?,
            };
            if !self.lmtp {
                answer = Some(reply.clone());
            }
            if reply.is_positive() {
                handed.delivered.push(recipient.clone());
            } else {
                handed.refused.push(Refusal { recipient: recipient.clone(), why: Why::Message(reply) });
            }
        }
        Ok(asked)
    }

    fn positive(reply: Reply) -> Result<Reply, HandoverError> {
        if reply.is_positive() { Ok(reply) } else { Err(HandoverError::Refused(reply)) }
    }

    async fn ask(&mut self, command: &str) -> Result<Reply, HandoverError> {
        self.show(">>> ", command);
        self.send(&[command.as_bytes(), b"\r\n"].concat()).await?;
        self.reply().await
    }

    /// Dots at the start of a line are doubled (RFC 5321 §4.5.2).
    async fn text(&mut self, message: &[u8]) -> Result<(), HandoverError> {
        self.show(">>> ", &format!("({} bytes of message)", message.len()));
        let mut stuffed = Vec::with_capacity(message.len() + 5);
        for line in message.split_inclusive(|&byte| byte == b'\n') {
            if line.starts_with(b".") {
                stuffed.push(b'.');
            }
            stuffed.extend_from_slice(line);
        }
        stuffed.extend_from_slice(b".\r\n");
        self.send(&stuffed).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), HandoverError> {
        let sending = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        in_time(sending).await
    }

    async fn reply(&mut self) -> Result<Reply, HandoverError> {
        let (mut code, mut texts) = (0, Vec::new());
        for _ in 0..REPLY_LINES_MAX {
            let mut line = Vec::new();
            in_time((&mut self.stream).take(REPLY_LINE_BYTES_MAX).read_until(b'\n', &mut line)).await?;
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            self.show("", line);
            let parsed = line.get(..3).and_then(|code| code.parse().ok()).filter(|code| (200..600).contains(code));
            code = parsed.ok_or_else(|| {
                HandoverError::Broken(io::Error::new(io::ErrorKind::InvalidData, "the answer is none of SMTP"))
            })?;
            let rest = line.get(3..).unwrap_or_default();
            texts.push(rest.get(1..).unwrap_or_default().replace(char::is_control, " "));
            if !rest.starts_with('-') {
                break;
            }
        }
        Ok(Reply { code, text: texts.join(" ") })
    }

    fn show(&self, direction: &str, line: &str) {
        if self.verbose {
            eprintln!("{direction}{}", line.replace(char::is_control, " "));
        }
    }
}

async fn in_time<T>(io: impl Future<Output = io::Result<T>>) -> Result<T, HandoverError> {
    match timeout(REPLY_TIMEOUT, io).await {
        Ok(done) => done.map_err(HandoverError::Broken),
        Err(_) => Err(HandoverError::Broken(io::ErrorKind::TimedOut.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_on_this_machine_is_tried_first() {
        let text = "listen = '0.0.0.0:25'\n[[listener]]\nrole = 'lmtp'\nlisten = '127.0.0.1:24'\n\
                    [[listener]]\nrole = 'smtp'\nlisten = '192.0.2.1:26'\n[[listener]]\nrole = 'smtp'\nlisten = '[::]:27'\n\
                    [[listener]]\nrole = 'smtp'\nlisten = '127.0.0.1:465'\ntls = 'implicit'\n\
                    [[listener]]\nrole = 'smtp'\nlisten = '127.0.0.1:28'\nproxy_protocol_from = ['127.0.0.0/8']";
        let config: SmtpConfig = toml::from_str(text).unwrap();
        let doors: Vec<String> = doors(&config).iter().map(|door| format!("{:?} {}", door.role, door.at)).collect();
        assert_eq!(doors, ["Smtp 127.0.0.1:25", "Smtp [::1]:27", "Lmtp 127.0.0.1:24", "Smtp 192.0.2.1:26"]);
    }

    /// A server that says each of these once, however it is spoken to.
    async fn told(lines: &'static str, letter: Letter<'_>) -> (Result<Handed, HandoverError>, String) {
        let (client, mut server) = tokio::io::duplex(64 * 1024);
        let lmtp = lines.contains("LMTP");
        let mut dialogue = Dialogue { stream: BufStream::new(client), lmtp, verbose: false };
        server.write_all(lines.as_bytes()).await.unwrap();
        server.shutdown().await.unwrap();
        let result = dialogue.whole(letter).await;
        drop(dialogue);
        let mut said = String::new();
        server.read_to_string(&mut said).await.unwrap();
        (result, said)
    }

    fn outcome(handed: Handed) -> (Vec<String>, Vec<String>) {
        let refused = handed.refused.iter().map(|refusal| format!("{} {}", refusal.recipient, refusal.why)).collect();
        (handed.delivered, refused)
    }

    #[tokio::test]
    async fn what_fails_later_does_not_hide_who_has_it() {
        let recipients = ["a@x", "b@x", "c@x"].map(str::to_owned);
        let letter = Letter { sender: "", recipients: &recipients, message: b"x\r\n" };
        let first = "220 x\r\n250 x\r\n250 ok\r\n250 ok\r\n452 4.5.3 many\r\n354 go\r\n250 done\r\n";
        let broken = "the connection to postrider broke off";
        for (later, b, c) in [
            ("421 4.3.2 going down\r\n", "421 4.3.2 going down", "421 4.3.2 going down"),
            ("250 ok\r\n550 5.1.1 no\r\n250 ok\r\n354 go\r\n", "550 5.1.1 no", broken),
            ("250 ok\r\n250 ok\r\n", broken, broken),
        ] {
            let (result, _) = told(format!("{first}{later}").leak(), letter).await;
            let (delivered, refused) = outcome(result.unwrap());
            assert_eq!((&delivered[..], refused.len()), (&["a@x".to_owned()][..], 2), "{later}");
            assert!(refused.contains(&format!("b@x {b}")) && refused.contains(&format!("c@x {c}")), "{refused:?}");
        }
        let lmtp =
            "220 LMTP\r\n250 x\r\n250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 done\r\n451 4.3.0 no\r\n";
        let (result, _) = told(lmtp, letter).await;
        let (delivered, refused) = outcome(result.unwrap());
        assert_eq!(
            (delivered, refused),
            (vec!["a@x".to_owned()], vec!["b@x 451 4.3.0 no".to_owned(), format!("c@x {broken}")])
        );
        let (result, _) = told("220 x\r\n250 x\r\n250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n", letter).await;
        assert!(matches!(result, Err(HandoverError::Broken(_))), "nobody has it");
    }

    #[tokio::test]
    async fn recipients_beyond_the_limit_get_it_in_another_transaction() {
        let recipients = ["a@x", "b@x", "c@x"].map(str::to_owned);
        let letter = Letter { sender: "", recipients: &recipients, message: b".dot\r\n" };
        let lines = "220 x\r\n250-x\r\n250 SIZE\r\n250 ok\r\n250 ok\r\n550 5.1.1 no\r\n452 4.5.3 many\r\n354 go\r\n\
                     250 done\r\n250 ok\r\n250 ok\r\n354 go\r\n452 4.3.1 full\r\n221 bye\r\n";
        let (result, said) = told(lines, letter).await;
        let (delivered, refused) = outcome(result.unwrap());
        assert_eq!(delivered, ["a@x"]);
        assert_eq!(refused, ["b@x 550 5.1.1 no", "c@x 452 4.3.1 full"]);
        assert_eq!(said.matches("\r\n..dot\r\n.\r\n").count(), 2, "{said}");
        assert_eq!(said.matches("MAIL FROM:<> BODY=8BITMIME SIZE=6\r\n").count(), 2, "{said}");
    }

    #[tokio::test]
    async fn whatever_is_no_smtp_is_an_error() {
        let recipients = ["a@x".to_owned()];
        let letter = Letter { sender: "", recipients: &recipients, message: b"" };
        for lines in ["", "HTTP/1.1 400 Bad Request\r\n", "220", "220 x\r\n999 x\r\n"] {
            let (result, _) = told(lines, letter).await;
            assert!(matches!(result, Err(HandoverError::Broken(_))), "{lines}");
        }
        let (result, _) = told("421 4.3.2 going down\r\n", letter).await;
        assert!(matches!(result, Err(HandoverError::Refused(reply)) if reply.is_temporary()));
    }
}
