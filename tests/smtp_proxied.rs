//! Mail that comes through a proxy, by the real program: the PROXY protocol and XCLIENT, from whom they are taken, and that
//! what a proxy says of its client is what counts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod support;

use std::path::PathBuf;
use std::process::Stdio;

use support::server::{Options, Server};
use support::smtp_client::SmtpClient;
use support::{eventually, within};

/// Without accounts, anybody on this machine may write to `…@localhost`, and nobody else.
const LOCAL: &str = "alice@localhost";

async fn server(settings: &str) -> (Server, PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let errors = folder.path().join("errors");
    let environment = vec![("POSTRIDER_LOG__FILTER".to_owned(), "info,postrider::source=debug".to_owned())];
    let config = format!("[smtp]\n{settings}");
    let server =
        Server::with(Options { config, environment, errors: Some(errors.clone()), ..Options::default() }).await;
    (server, errors, folder)
}

fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &len, rest].concat()
}

async fn logged(errors: &PathBuf, text: &str) {
    eventually(&format!("the log to say {text:?}"), async || {
        std::fs::read_to_string(errors).unwrap().contains(text).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_proxys_header_says_whose_session_it_is() {
    let (server, ..) = server("proxy_protocol_from = ['127.0.0.0/8', 'unix']\nsessions_per_address_max = 1\n").await;
    let v4 = [&[192, 0, 2, 1, 127, 0, 0, 1][..], &4711u16.to_be_bytes(), &25u16.to_be_bytes()].concat();
    for header in [
        b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 25\r\n".to_vec(),
        b"PROXY TCP6 2001:db8::1 ::1 4711 25\r\n".to_vec(),
        binary(0x21, 0x11, &[&v4[..], b"\x04\0\x01x"].concat()),
    ] {
        // The rest of the segment belongs to SMTP.
        let mut mail = SmtpClient::connect(&server.smtp).await;
        mail.send([&header[..], b"EHLO c\r\nMAIL FROM:<>\r\n"].concat()).await;
        mail.expect("220 ").await;
        mail.expect("250-").await;
        mail.expect("250 2.1.0").await;
        // Behind the proxy is somebody else than on this machine.
        mail.ask(&format!("RCPT TO:<{LOCAL}>"), "550 5.7.1").await;
        // The client's places are counted, not the proxy's.
        let mut second = SmtpClient::connect(&server.smtp).await;
        second.send(&header).await;
        second.expect("421 4.7.0").await;
        let mut other = SmtpClient::connect(&server.smtp).await;
        other.send("PROXY TCP4 198.51.100.1 127.0.0.1 4711 25\r\n").await;
        other.expect("220 ").await;
        for mut client in [mail, other] {
            client.ask("QUIT", "221").await;
            client.expect_end().await;
        }
    }
}

#[tokio::test]
async fn a_proxy_that_tells_nothing_gives_no_rights_away() {
    let (server, ..) = server("proxy_protocol_from = ['127.0.0.1']\n").await;
    for (header, may_write) in [
        (b"PROXY UNKNOWN\r\n".to_vec(), false),
        (b"PROXY TCP4 127.0.0.1 127.0.0.1 4711 25\r\n".to_vec(), false),
        (b"PROXY TCP6 ::ffff:127.0.0.1 ::1 4711 25\r\n".to_vec(), false),
        (binary(0x21, 0x00, b""), false),
        // The proxy itself, which is on this machine.
        (binary(0x20, 0x00, b""), true),
    ] {
        let mut client = SmtpClient::connect(&server.smtp).await;
        for octet in &header {
            client.send([*octet]).await;
        }
        client.expect("220 ").await;
        client.ask("EHLO c", "250-").await;
        client.ask("MAIL FROM:<>", "250").await;
        let reply = client.ask(&format!("RCPT TO:<{LOCAL}>"), "").await;
        assert_eq!(reply.starts_with("250"), may_write, "{} gave {reply}", header.escape_ascii());
    }
}

#[tokio::test]
async fn without_its_header_a_proxy_is_hung_up_on_and_from_elsewhere_a_header_is_refused() {
    let (trusting, errors, _folder) = server("proxy_protocol_from = ['127.0.0.1']\n").await;
    for hello in
        [&b"EHLO client.example\r\n"[..], b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\0\0\0\0", b"PROXY TCP4 x y z\r\n"]
    {
        let mut client = SmtpClient::connect(&trusting.smtp).await;
        client.send(hello).await;
        let rest = within("the end", async {
            let mut rest = Vec::new();
            drop(tokio::io::AsyncReadExt::read_to_end(&mut client.stream, &mut rest).await);
            rest
        });
        assert_eq!(rest.await, b"", "{}", hello.escape_ascii());
    }
    logged(&errors, "no PROXY protocol header from an address in `proxy_protocol_from`").await;

    let (other, ..) = server("proxy_protocol_from = ['192.0.2.0/24']\n").await;
    for header in [b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 25\r\n".to_vec(), binary(0x21, 0x11, &[1; 12])] {
        let mut client = SmtpClient::greeted(&other.smtp).await;
        client.send([&header[..], b"EHLO c\r\nQUIT\r\n"].concat()).await;
        let reply = client.reply().await;
        assert!(reply.starts_with("554 5.5.1") || reply.starts_with("500 5."), "{reply}");
    }
}

#[tokio::test]
async fn a_session_behind_xclient_is_its_clients() {
    let (server, errors, _folder) = server("xclient_from = ['127.0.0.1']\nsessions_per_address_max = 2\n").await;
    let mut proxy = SmtpClient::greeted(&server.smtp).await;
    let offers = proxy.ask("EHLO proxy.example", "250-").await;
    assert!(offers.contains("XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n"), "{offers}");
    proxy.ask("XCLIENT ADDR=192.0.2.1 NAME=[UNAVAILABLE] HELO=c.example", "220 ").await;
    logged(&errors, "client introduced by XCLIENT").await;
    proxy.ask("EHLO proxy.example", "250-").await;
    proxy.ask("MAIL FROM:<>", "250").await;
    proxy.ask(&format!("RCPT TO:<{LOCAL}>"), "550 5.7.1").await;
    proxy.ask("RSET", "250").await;
    // The place of the proxy is free again, that of the client is taken.
    let (_one, mut two) = (SmtpClient::greeted(&server.smtp).await, SmtpClient::greeted(&server.smtp).await);
    two.ask("XCLIENT ADDR=192.0.2.1", "220 ").await;
    let mut three = SmtpClient::greeted(&server.smtp).await;
    three.ask("XCLIENT ADDR=192.0.2.1", "421 4.7.0").await;
    three.expect_end().await;
}

#[tokio::test]
async fn swaks_speaks_through_a_proxy_by_either_protocol() {
    let account = "[[account]]\nname = 'alice'\naddresses = ['alice@example.org']\n";
    let settings = format!("xclient_from = ['192.0.2.0/24']\nproxy_protocol_from = ['127.0.0.1']\n{account}");
    let (server, errors, _folder) = server(&settings).await;
    for proxy in [
        &["--proxy-version", "1", "--proxy-family", "TCP4"][..],
        &[
            "--proxy-version",
            "2",
            "--proxy-family",
            "AF_INET",
            "--proxy-protocol",
            "STREAM",
            "--proxy-command",
            "PROXY",
        ],
    ] {
        let addresses = ["--proxy-source", "192.0.2.7", "--proxy-source-port", "4711", "--proxy-dest", "192.0.2.8"];
        let output = tokio::process::Command::new("swaks")
            .args(["--server", &server.smtp, "--from", "a@x.example", "--to", "alice@example.org"])
            .args(proxy)
            .args(addresses)
            .args(["--proxy-dest-port", "25", "--xclient-addr", "198.51.100.7", "--xclient-helo", "c.example"])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = within("swaks to end", output).await.expect("swaks is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    assert_eq!(server.whole_log().await.len(), 2);
    for known in ["address: Some(198.51.100.7)", "helo: Some(\"c.example\")", "peer: Remote"] {
        logged(&errors, known).await;
    }
}
