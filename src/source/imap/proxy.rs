//! Through a proxy to a server: SOCKS 5 (RFC 1928, RFC 1929) and CONNECT (RFC 9110 §9.3.6). The proxy gets the server's
//! name, not its address, so that only it asks a name server. Deadlines are the caller's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use crate::registry::{PasswordError, ProxyAddress, ProxyKind};

/// Longest head of a proxy's answer.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Why a proxy did not connect us.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The connection to it broke.
    #[error("the connection to it broke")]
    Io(#[source] io::Error),
    /// It is not a proxy of that kind.
    #[error("it does not speak {0}; check the beginning of `proxy`")]
    Other(&'static str),
    /// It wants to know who we are, or does not believe us.
    #[error("it wants another user name or password; check `proxy` and `proxy_password_file`")]
    Credentials,
    /// It cannot or may not connect us.
    #[error("it answered: {0}")]
    Refused(String),
    /// The name of the server is too long for it.
    #[error("the name of the server is too long for it")]
    Name,
    /// There is no password for it.
    #[error(transparent)]
    Password(#[from] PasswordError),
}

/// Asks a proxy for a connection to `host`, and leaves the stream where the server's first octet is the next.
pub(super) async fn through(
    proxy: &ProxyAddress,
    password: Option<&SecretString>,
    stream: &mut TcpStream,
    host: &str,
    port: u16,
) -> Result<(), ProxyError> {
    let login = proxy.username.as_deref().map(|name| (name, password.map_or("", |password| password.expose_secret())));
    let asked = match proxy.kind {
        ProxyKind::Socks5 => socks5(stream, login, host, port).await,
        ProxyKind::Http => connect(stream, login, host, port).await,
    };
    // What hangs up in the middle does not speak what it should.
    asked.map_err(|err| match (err, proxy.kind) {
        (ProxyError::Io(err), ProxyKind::Socks5) if err.kind() == io::ErrorKind::UnexpectedEof => {
            ProxyError::Other("SOCKS 5")
        }
        (err, _) => err,
    })
}

async fn socks5(stream: &mut TcpStream, login: Option<(&str, &str)>, host: &str, port: u16) -> Result<(), ProxyError> {
    let methods: &[u8] = if login.is_some() { &[5, 2, 0, 2] } else { &[5, 1, 0] };
    stream.write_all(methods).await.map_err(ProxyError::Io)?;
    match (read::<2>(stream).await?, login) {
        ([5, 0], _) => {}
        ([5, 2], Some((name, password))) => {
            stream.write_all(&socks5_login(name, password)?).await.map_err(ProxyError::Io)?;
            let [_, status] = read::<2>(stream).await?;
            if status != 0 {
                return Err(ProxyError::Credentials);
            }
        }
        ([5, 2 | 0xff], _) => return Err(ProxyError::Credentials),
        _ => return Err(ProxyError::Other("SOCKS 5")),
    }
    stream.write_all(&socks5_request(host, port)?).await.map_err(ProxyError::Io)?;
    let [version, reply, _, kind] = read::<4>(stream).await?;
    if version != 5 {
        return Err(ProxyError::Other("SOCKS 5"));
    }
    if reply != 0 {
        return Err(ProxyError::Refused(socks5_reason(reply).to_owned()));
    }
    // Where it connects from: of no interest, and to be read.
    match kind {
        1 => drop(read::<6>(stream).await?),
        4 => drop(read::<18>(stream).await?),
        3 => {
            let [len] = read::<1>(stream).await?;
            let mut rest = vec![0; usize::from(len) + 2];
            stream.read_exact(&mut rest).await.map_err(ProxyError::Io)?;
        }
        _ => return Err(ProxyError::Other("SOCKS 5")),
    }
    Ok(())
}

/// RFC 1929 §2.
fn socks5_login(name: &str, password: &str) -> Result<Zeroizing<Vec<u8>>, ProxyError> {
    let len = |text: &str| u8::try_from(text.len()).ok().filter(|len| *len > 0).ok_or(ProxyError::Credentials);
    let mut octets = Zeroizing::new(Vec::with_capacity(3 + name.len() + password.len()));
    octets.extend([1, len(name)?]);
    octets.extend(name.as_bytes());
    octets.push(len(password)?);
    octets.extend(password.as_bytes());
    Ok(octets)
}

/// RFC 1928 §4: CONNECT.
fn socks5_request(host: &str, port: u16) -> Result<Vec<u8>, ProxyError> {
    let mut octets = vec![5, 1, 0];
    match (host.parse::<Ipv4Addr>(), host.parse::<Ipv6Addr>()) {
        (Ok(address), _) => {
            octets.push(1);
            octets.extend(address.octets());
        }
        (_, Ok(address)) => {
            octets.push(4);
            octets.extend(address.octets());
        }
        _ => {
            octets.extend([3, u8::try_from(host.len()).map_err(|_| ProxyError::Name)?]);
            octets.extend(host.as_bytes());
        }
    }
    octets.extend(port.to_be_bytes());
    Ok(octets)
}

/// RFC 1928 §6.
fn socks5_reason(reply: u8) -> &'static str {
    match reply {
        1 => "general failure",
        2 => "not allowed by its rules",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "timed out on the way",
        7 => "it cannot connect to others",
        8 => "it does not know this kind of address",
        _ => "a reply that has no meaning",
    }
}

async fn connect(stream: &mut TcpStream, login: Option<(&str, &str)>, host: &str, port: u16) -> Result<(), ProxyError> {
    let place = if host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()) {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let credentials = Zeroizing::new(match login {
        Some((name, password)) => {
            let plain = Zeroizing::new(format!("{name}:{password}"));
            format!("Proxy-Authorization: Basic {}\r\n", BASE64.encode(plain.as_bytes()))
        }
        None => String::new(),
    });
    let request = Zeroizing::new(format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{}\r\n", credentials.as_str()));
    stream.write_all(request.as_bytes()).await.map_err(ProxyError::Io)?;
    let mut head = Vec::new();
    // One at a time: what is behind the head is the server's already.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD_BYTES_MAX {
            return Err(ProxyError::Other("HTTP"));
        }
        head.push(stream.read_u8().await.map_err(ProxyError::Io)?);
    }
    connected(&head)
}

/// Whether the head of an answer says that the connection is there.
fn connected(head: &[u8]) -> Result<(), ProxyError> {
    let head = String::from_utf8_lossy(head);
    let status = head.lines().next().unwrap_or_default();
    let code = status.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    match code {
        Some(code) if code.len() == 3 && code.starts_with('2') => Ok(()),
        Some("407") => Err(ProxyError::Credentials),
        Some(_) => Err(ProxyError::Refused(status.chars().filter(|c| !c.is_control()).take(200).collect())),
        None => Err(ProxyError::Other("HTTP")),
    }
}

async fn read<const N: usize>(stream: &mut TcpStream) -> Result<[u8; N], ProxyError> {
    let mut octets = [0; N];
    stream.read_exact(&mut octets).await.map_err(ProxyError::Io)?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_the_standards() {
        assert_eq!(socks5_request("imap.x.org", 993).unwrap(), b"\x05\x01\x00\x03\x0aimap.x.org\x03\xe1");
        assert_eq!(socks5_request("127.0.0.1", 143).unwrap(), b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x8f");
        assert_eq!(socks5_request("::1", 143).unwrap().len(), 22);
        assert!(matches!(socks5_request(&"x".repeat(256), 1), Err(ProxyError::Name)));
        assert_eq!(socks5_login("ada", "pw").unwrap().as_slice(), b"\x01\x03ada\x02pw");
        assert!(matches!(socks5_login("ada", &"x".repeat(256)), Err(ProxyError::Credentials)));
    }

    #[test]
    fn only_a_2xx_is_a_connection() {
        assert!(connected(b"HTTP/1.1 200 Connection established\r\n\r\n").is_ok());
        assert!(connected(b"HTTP/1.0 200\r\n\r\n").is_ok());
        assert!(matches!(connected(b"HTTP/1.1 407 Who?\r\n\r\n"), Err(ProxyError::Credentials)));
        let refused = connected(b"HTTP/1.1 502 Bad\x1b Gateway\r\n\r\n").unwrap_err();
        assert_eq!(refused.to_string(), "it answered: HTTP/1.1 502 Bad Gateway");
        assert!(matches!(connected(b"* OK IMAP4rev1\r\n\r\n"), Err(ProxyError::Other(_))));
    }
}
