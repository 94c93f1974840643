//! An SMTP client that says exactly what it is told to.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::within;

/// One connection.
pub struct SmtpClient {
    pub stream: BufReader<TcpStream>,
}

impl SmtpClient {
    /// Connects, and no more.
    pub async fn connect(address: &str) -> Self {
        let stream = within("a connection by SMTP", TcpStream::connect(address)).await.expect("a connection");
        Self { stream: BufReader::new(stream) }
    }

    /// Connects and hears the greeting.
    pub async fn greeted(address: &str) -> Self {
        let mut client = Self::connect(address).await;
        client.expect("220 ").await;
        client
    }

    pub async fn send(&mut self, octets: impl AsRef<[u8]>) {
        within("octets to be taken", self.stream.write_all(octets.as_ref())).await.expect("it takes octets");
    }

    /// The next reply, all its lines; what there is of it where the connection ends.
    pub async fn reply(&mut self) -> String {
        let mut reply = String::new();
        within("a reply", async {
            loop {
                let start = reply.len();
                let read = self.stream.read_line(&mut reply).await.expect("a reply");
                if read == 0 || reply.as_bytes().get(start + 3) != Some(&b'-') {
                    break;
                }
            }
        })
        .await;
        reply
    }

    pub async fn expect(&mut self, start: &str) -> String {
        let reply = self.reply().await;
        assert!(reply.starts_with(start), "expected {start}, got {reply:?}");
        reply
    }

    pub async fn ask(&mut self, command: &str, start: &str) -> String {
        self.send(format!("{command}\r\n")).await;
        self.expect(start).await
    }

    /// Up to the text of a message.
    pub async fn begin_message(&mut self, recipient: &str) {
        self.ask("EHLO client.example", "250-").await;
        self.ask("MAIL FROM:<sender@x.example>", "250 2.1.0").await;
        self.ask(&format!("RCPT TO:<{recipient}>"), "250 2.1.5").await;
        self.ask("DATA", "354").await;
    }

    /// Nothing more comes.
    pub async fn expect_end(&mut self) {
        let mut rest = Vec::new();
        within("the end of the connection", self.stream.read_to_end(&mut rest)).await.expect("a clean end");
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}
