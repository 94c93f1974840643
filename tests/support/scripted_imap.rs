//! An IMAP server that says what a test makes it say: for what a good server never does.

use postrider::registry::{Account, ImapEndpoint, ImapSecurity};
use secrecy::SecretString;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::within;

/// Listens; each connection is taken by the test.
pub struct ScriptedImap {
    listener: TcpListener,
}

/// One connection, from the server's side.
pub struct Peer {
    stream: BufReader<TcpStream>,
}

impl ScriptedImap {
    pub async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub fn account(&self) -> Account {
        let imap = ImapEndpoint {
            port: Some(self.listener.local_addr().unwrap().port()),
            security: ImapSecurity::None,
            password_typed: Some(SecretString::from("secret")),
            // Nothing is asked but what new mail takes: the dialogues are as short as can be.
            events: Some(Vec::new()),
            ..ImapEndpoint::new("127.0.0.1", "alice")
        };
        Account { imap: Some(imap.into()), ..Account::new("alice".parse().unwrap()) }
    }

    /// The next connection, with nothing said.
    pub async fn accept(&self) -> Peer {
        let (stream, _) = within("a connection", self.listener.accept()).await.unwrap();
        // Else a line waits for the acknowledgement of the one before.
        stream.set_nodelay(true).unwrap();
        Peer { stream: BufReader::new(stream) }
    }

    /// The next connection, logged in, with the mailbox opened.
    pub async fn opened(&self, exists: u32, uid_next: u32) -> Peer {
        let mut peer = self.accept().await;
        peer.send("* OK [CAPABILITY IMAP4rev1 IDLE] ready\r\n").await;
        let tag = peer.command("LOGIN").await;
        peer.send(&format!("{tag} OK [CAPABILITY IMAP4rev1 IDLE] welcome\r\n")).await;
        let tag = peer.command("EXAMINE").await;
        peer.send(&format!(
            "* {exists} EXISTS\r\n* OK [UIDVALIDITY 7] ok\r\n* OK [UIDNEXT {uid_next}] ok\r\n{tag} OK [READ-ONLY] done\r\n"
        ))
        .await;
        peer
    }

    /// The next connection, as far as the first IDLE that was accepted; returns its tag.
    pub async fn idling(&self, exists: u32, uid_next: u32) -> (Peer, String) {
        let mut peer = self.opened(exists, uid_next).await;
        peer.answer("NOOP", "").await;
        let idle = peer.command("IDLE").await;
        peer.send("+ idling\r\n").await;
        (peer, idle)
    }
}

impl Peer {
    pub async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// The same; false once the client has closed.
    pub async fn try_send(&mut self, text: &str) -> bool {
        self.stream.write_all(text.as_bytes()).await.is_ok()
    }

    /// Where the client connected from.
    pub fn address(&self) -> std::net::SocketAddr {
        self.stream.get_ref().peer_addr().unwrap()
    }

    /// Reads a line.
    pub async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = within("a line of the client", self.stream.read_line(&mut line)).await.unwrap();
        assert!(read > 0, "the client closed the connection");
        line.trim_end().to_owned()
    }

    /// Reads a command that begins so, and returns its tag.
    pub async fn command(&mut self, expected: &str) -> String {
        let line = self.line().await;
        let (tag, command) = line.split_once(' ').unwrap_or((&line, ""));
        assert!(command.starts_with(expected), "expected {expected}, got {line:?}");
        tag.to_owned()
    }

    /// Reads a command and completes it after the untagged lines in `data`.
    pub async fn answer(&mut self, expected: &str, data: &str) {
        let tag = self.command(expected).await;
        self.send(&format!("{data}{tag} OK done\r\n")).await;
    }

    /// Takes the DONE of an IDLE and completes it.
    pub async fn done(&mut self, idle: &str) {
        assert_eq!(self.line().await, "DONE");
        self.send(&format!("{idle} OK idle done\r\n")).await;
    }

    /// Waits until the client has closed.
    pub async fn closed(&mut self) {
        let mut rest = Vec::new();
        // Reset is as good as closed.
        drop(within("the client's end", self.stream.read_to_end(&mut rest)).await);
    }
}

/// All that is asked of a new message.
pub fn message(number: u32, uid: u32, subject: &str) -> String {
    let header = format!("Subject: {subject}\r\n\r\n");
    format!(
        "* {number} FETCH (UID {uid} FLAGS () RFC822.SIZE 99 BODYSTRUCTURE \
         (\"text\" \"plain\" NIL NIL NIL \"7bit\" 5 1 NIL NIL NIL NIL) BODY[HEADER.FIELDS (SUBJECT)]<0> {{{}}}\r\n{header} \
         BODY[1]<0> \"hello\")\r\n",
        header.len()
    )
}
