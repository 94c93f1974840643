//! A client of SMTP and LMTP for senders that go on whatever happens, and for those that mean no good: the end of a
//! connection is an answer to it, like any other. It comes from the address that it is told to, by the PROXY protocol.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

use super::within;

/// Where a server is, and with it what is spoken there.
#[derive(Debug, Clone)]
pub enum Target {
    /// SMTP, from this machine or, as a proxy says that it is, from any other address.
    Smtp { server: SocketAddr, from: Ipv4Addr },
    /// LMTP on a Unix socket.
    Lmtp(PathBuf),
}

/// One connection.
#[derive(Debug)]
pub struct MailClient {
    stream: BufReader<Either<TcpStream, UnixStream>>,
    is_lmtp: bool,
}

/// A server's reply, all its lines.
#[derive(Debug, Clone)]
pub struct Reply {
    pub code: u16,
    pub text: String,
}

impl Reply {
    /// Whether what was asked for is done, or may go on.
    pub fn is_positive(&self) -> bool {
        self.code < 400
    }

    /// Whether it says that it will never be done.
    pub fn is_permanent(&self) -> bool {
        self.code >= 500
    }

    /// The name that a message was given.
    pub fn queue_id(&self) -> Option<&str> {
        self.text.split_once("queued as ").map(|(_, id)| id.trim())
    }
}

impl Target {
    /// SMTP from 127.0.0.1.
    pub fn smtp(address: &str) -> Self {
        Self::Smtp { server: address.parse().expect("an address"), from: Ipv4Addr::LOCALHOST }
    }
}

impl MailClient {
    /// Connects, and waits for nothing.
    pub async fn connect(target: &Target) -> io::Result<Self> {
        let stream = match target {
            Target::Smtp { server, from } => {
                let mut stream = TcpStream::connect(*server).await?;
                stream.set_nodelay(true)?;
                if *from != Ipv4Addr::LOCALHOST {
                    // As HAProxy would say it: an address of this machine is nobody to be wary of.
                    stream.write_all(format!("PROXY TCP4 {from} 192.0.2.25 1024 25\r\n").as_bytes()).await?;
                }
                Either::Left(stream)
            }
            Target::Lmtp(path) => Either::Right(UnixStream::connect(path).await?),
        };
        Ok(Self { stream: BufReader::with_capacity(1024, stream), is_lmtp: matches!(target, Target::Lmtp(_)) })
    }

    /// Whether each recipient has a reply of its own behind the dot.
    pub fn is_lmtp(&self) -> bool {
        self.is_lmtp
    }

    pub async fn say(&mut self, octets: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(octets.as_ref()).await
    }

    /// Closes the one direction.
    pub async fn say_no_more(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// The next reply. Where the server hangs up before it is whole, that is an error.
    pub async fn reply(&mut self) -> io::Result<Reply> {
        let mut text = String::new();
        loop {
            let start = text.len();
            if within("an SMTP reply", self.stream.read_line(&mut text)).await? == 0 || !text.ends_with("\r\n") {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if text.as_bytes().get(start + 3) != Some(&b'-') {
                let code = text.get(..3).and_then(|code| code.parse().ok());
                return Ok(Reply { code: code.unwrap_or_else(|| panic!("no reply: {text:?}")), text });
            }
        }
    }

    pub async fn ask(&mut self, command: &str) -> io::Result<Reply> {
        self.say(format!("{command}\r\n")).await?;
        self.reply().await
    }

    /// Reads what comes until the server hangs up; how many octets that were.
    pub async fn read_to_end(&mut self) -> io::Result<u64> {
        let mut sink = tokio::io::sink();
        tokio::io::copy(&mut (&mut self.stream).take(u64::MAX), &mut sink).await
    }
}
