//! The mail reader at the other end of a watched account: a client of its own, line by line, that shares no code with
//! postrider. It stores flags, moves, expunges, and creates, renames and deletes mailboxes.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::mail_server::PASSWORD;
use super::within;

/// A connection that is logged in.
pub struct RawImap {
    stream: BufReader<TcpStream>,
    commands: usize,
    /// What the server offers after the login.
    pub capabilities: Vec<String>,
}

impl RawImap {
    pub async fn login(port: u16, user: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the IMAP server");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        let mut imap = Self { stream: BufReader::new(stream), commands: 0, capabilities: Vec::new() };
        let greeting = within("the greeting", imap.line()).await;
        assert!(greeting.starts_with("* OK"), "{greeting}");
        imap.command(&format!("LOGIN {user} {PASSWORD}")).await;
        let answer = imap.command("CAPABILITY").await;
        let line = answer.iter().find(|line| line.starts_with("* CAPABILITY")).expect("capabilities");
        imap.capabilities = line.split_whitespace().skip(2).map(str::to_owned).collect();
        imap
    }

    pub fn offers(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|offered| offered.eq_ignore_ascii_case(capability))
    }

    /// Sends a command, which must be answered by OK; returns the lines before that.
    pub async fn command(&mut self, command: &str) -> Vec<String> {
        let (mut lines, tagged) = within(command, self.ask(command)).await;
        assert!(tagged.starts_with("OK"), "{command}: {tagged}");
        lines.push(tagged);
        lines
    }

    /// Stores a message in a mailbox.
    pub async fn append(&mut self, mailbox: &str, message: &str) {
        let message = message.replace("\r\n", "\n").replace('\n', "\r\n");
        let tag = self.send(&format!("APPEND {mailbox} {{{}}}", message.len())).await;
        let go_on = within("the continuation", self.line()).await;
        assert!(go_on.starts_with('+'), "{go_on}");
        self.stream.write_all(message.as_bytes()).await.expect("it is open");
        self.stream.write_all(b"\r\n").await.expect("it is open");
        let (_, tagged) = within("APPEND", self.until_tagged(&tag)).await;
        assert!(tagged.starts_with("OK"), "APPEND: {tagged}");
    }

    /// Moves messages of the selected mailbox, also where the server has no MOVE (RFC 6851).
    pub async fn move_to(&mut self, uids: &str, mailbox: &str) {
        if self.offers("MOVE") {
            self.command(&format!("UID MOVE {uids} {mailbox}")).await;
        } else {
            self.command(&format!("UID COPY {uids} {mailbox}")).await;
            self.expunge(uids).await;
        }
    }

    /// Removes messages of the selected mailbox for good.
    pub async fn expunge(&mut self, uids: &str) {
        self.command(&format!("UID STORE {uids} +FLAGS.SILENT (\\Deleted)")).await;
        self.command(&format!("UID EXPUNGE {uids}")).await;
    }

    async fn ask(&mut self, command: &str) -> (Vec<String>, String) {
        let tag = self.send(command).await;
        self.until_tagged(&tag).await
    }

    async fn send(&mut self, command: &str) -> String {
        self.commands += 1;
        let tag = format!("t{}", self.commands);
        self.stream.write_all(format!("{tag} {command}\r\n").as_bytes()).await.expect("it is open");
        tag
    }

    async fn until_tagged(&mut self, tag: &str) -> (Vec<String>, String) {
        let mut lines = Vec::new();
        loop {
            let line = self.line().await;
            match line.strip_prefix(tag).and_then(|rest| rest.strip_prefix(' ')) {
                Some(rest) => return (lines, rest.to_owned()),
                None => lines.push(line),
            }
        }
    }

    /// One line; literals are part of it.
    async fn line(&mut self) -> String {
        let mut line = Vec::new();
        loop {
            let read = self.stream.read_until(b'\n', &mut line).await.expect("it is open");
            assert!(read > 0, "the server hung up after {}", String::from_utf8_lossy(&line));
            let text = String::from_utf8_lossy(&line).into_owned();
            let ended = text.trim_end_matches(['\r', '\n']);
            let literal = ended.strip_suffix('}').and_then(|rest| rest.rsplit_once('{')?.1.parse::<usize>().ok());
            let Some(length) = literal else { return ended.to_owned() };
            let start = line.len();
            line.resize(start + length, 0);
            self.stream.read_exact(&mut line[start..]).await.expect("the whole literal");
        }
    }
}
