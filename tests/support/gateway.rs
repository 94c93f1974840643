//! A proxy that programs ask for connections, by SOCKS 5 or CONNECT: remembers what it was asked.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What it speaks.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Socks5,
    Http,
}

/// A running proxy that connects everything to one server, whatever name it is asked for.
pub struct Gateway {
    pub port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    _running: JoinSet<()>,
}

impl Gateway {
    /// With `login` only those who have it get through.
    pub async fn start(kind: Kind, server: u16, login: Option<(&'static str, &'static str)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut running = JoinSet::new();
        let names = asked.clone();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let names = names.clone();
                connections.spawn(async move {
                    // A client that goes away in the middle is no failure of the proxy.
                    drop(serve(stream, kind, server, login, &names).await);
                });
            }
        });
        Self { port, asked, _running: running }
    }

    /// `host:port` of each connection that was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    kind: Kind,
    server: u16,
    login: Option<(&str, &str)>,
    names: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let granted = match kind {
        Kind::Socks5 => socks5(&mut stream, login).await?,
        Kind::Http => http(&mut stream, login).await?,
    };
    let Some(name) = granted else { return Ok(()) };
    names.lock().unwrap().push(name);
    let mut upstream = TcpStream::connect(("127.0.0.1", server)).await?;
    let answer: &[u8] = match kind {
        Kind::Socks5 => &[5, 0, 0, 3, 1, b'x', 0, 1],
        Kind::Http => b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n",
    };
    stream.write_all(answer).await?;
    copy_bidirectional(&mut stream, &mut upstream).await.map(drop)
}

async fn text(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut text = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut text).await?;
    Ok(String::from_utf8(text).unwrap())
}

async fn socks5(stream: &mut TcpStream, login: Option<(&str, &str)>) -> std::io::Result<Option<String>> {
    assert_eq!(stream.read_u8().await?, 5);
    let mut methods = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut methods).await?;
    let wanted = if login.is_some() { 2 } else { 0 };
    if !methods.contains(&wanted) {
        stream.write_all(&[5, 0xff]).await?;
        return Ok(None);
    }
    stream.write_all(&[5, wanted]).await?;
    if let Some((name, password)) = login {
        assert_eq!(stream.read_u8().await?, 1);
        let given = (text(stream).await?, text(stream).await?);
        if given != (name.to_owned(), password.to_owned()) {
            stream.write_all(&[1, 1]).await?;
            return Ok(None);
        }
        stream.write_all(&[1, 0]).await?;
    }
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let host = match head {
        [5, 1, 0, 3] => text(stream).await?,
        [5, 1, 0, 1] => {
            let mut address = [0; 4];
            stream.read_exact(&mut address).await?;
            std::net::Ipv4Addr::from(address).to_string()
        }
        other => panic!("{other:?}"),
    };
    let port = stream.read_u16().await?;
    if host == "refused.example.org" {
        stream.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
        return Ok(None);
    }
    Ok(Some(format!("{host}:{port}")))
}

async fn http(stream: &mut TcpStream, login: Option<(&str, &str)>) -> std::io::Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let place = head.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap().to_owned();
    assert!(head.contains(&format!("\r\nHost: {place}\r\n")), "{head}");
    if let Some((name, password)) = login {
        let wanted = format!("Proxy-Authorization: Basic {}\r\n", BASE64.encode(format!("{name}:{password}")));
        if !head.contains(&wanted) {
            stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await?;
            return Ok(None);
        }
    }
    if place.starts_with("refused.example.org") {
        stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await?;
        return Ok(None);
    }
    Ok(Some(place))
}
