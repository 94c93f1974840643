//! Delivers by LMTP (RFC 2033), as a mail server would.

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::within;

/// Delivers a message into a user's INBOX. It is there on return.
pub async fn deliver(port: u16, user: &str, message: &str) {
    within("the delivery by LMTP", try_deliver(port, user, message)).await.expect("LMTP");
}

/// The same; an error where the server is not there to the end.
pub async fn try_deliver(port: u16, user: &str, message: &str) -> std::io::Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?);
    let data = message.replace("\r\n", "\n").replace("\n.", "\n..").replace('\n', "\r\n");
    let commands = [
        String::new(),
        "LHLO test\r\n".to_owned(),
        "MAIL FROM:<sender@example.org>\r\n".to_owned(),
        format!("RCPT TO:<{user}>\r\n"),
        "DATA\r\n".to_owned(),
        format!("{data}\r\n.\r\n"),
    ];
    for command in commands {
        stream.write_all(command.as_bytes()).await?;
        let mut line = String::new();
        while line.as_bytes().get(3).is_none_or(|&byte| byte == b'-') {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        if !line.starts_with(['2', '3']) {
            return Err(std::io::Error::other(format!("LMTP: {command:?} was answered by {line:?}")));
        }
    }
    Ok(())
}
