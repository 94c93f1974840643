//! A Dovecot that pushes and the postrider that receives it: what the README has an operator write into both
//! configurations.

use std::net::TcpListener;

use postrider::source::dovecot_push::metadata_command;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::dovecot::{Dovecot, PASSWORD};
use super::server::Options;
use super::within;

/// What Dovecot sends to be let in.
pub const SECRET: &str = "dovecot-secret";

/// A port for the receiver, which Dovecot's configuration names before postrider has started.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Dovecot's configuration for the OX driver, as the README has it.
pub fn ox(port: u16, secret: &str) -> String {
    format!(
        "mail_plugins = notify push_notification\nmail_attribute_dict = file:%h/dovecot-attributes\n\
         protocol imap {{\n  imap_metadata = yes\n}}\nplugin {{\n  \
         push_notification_driver = ox:url=http://postrider:{secret}@127.0.0.1:{port}/dovecot/push\n}}\n"
    )
}

/// The same for the Lua driver.
pub fn lua(port: u16) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/config/dovecot/postrider.lua");
    format!(
        "mail_plugins = mail_lua notify push_notification push_notification_lua\nplugin {{\n  \
         push_notification_driver = lua:file={script}\n  \
         postrider_url = http://127.0.0.1:{port}/dovecot/push\n  postrider_secret = {SECRET}\n}}\n"
    )
}

/// How to start a postrider that receives pushes about these accounts.
pub fn options(port: u16, accounts: &str) -> Options {
    Options {
        http: Some(format!("127.0.0.1:{port}")),
        config: format!("[dovecot]\nsecret_env = 'POSTRIDER_DOVECOT_SECRET'\n{accounts}"),
        environment: vec![("POSTRIDER_DOVECOT_SECRET".to_owned(), SECRET.to_owned())],
        ..Options::default()
    }
}

/// Asks Dovecot for pushes about a user, with the command that the watcher sends.
pub async fn ask_for_pushes(dovecot: &Dovecot, user: &str, token: &str) {
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", dovecot.imap_port)).await.unwrap());
    let commands = [format!("a LOGIN {user} {PASSWORD}\r\n"), format!("b {}\r\n", metadata_command(token))];
    for (tag, command) in ["a ", "b "].into_iter().zip(commands) {
        stream.write_all(command.as_bytes()).await.unwrap();
        let mut line = String::new();
        while !line.starts_with(tag) {
            line.clear();
            assert!(within("IMAP", stream.read_line(&mut line)).await.unwrap() > 0);
        }
        assert!(line[2..].starts_with("OK"), "{command} was answered by {line}");
    }
}
