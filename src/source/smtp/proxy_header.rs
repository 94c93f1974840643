//! What a proxy says of the client whose connection it passes on: the PROXY protocol, versions 1 and 2 (`proxy-protocol.txt`
//! of `HAProxy`).
//!
//! The header stands before everything else, TLS too, and nothing behind it may be read with it. So parsing says how
//! many octets are missing at least, and no more than these are read. The `ppp` crate, which the tests compare
//! with, refuses two things that the standard takes: LOCAL with addresses of any kind, and anything behind `UNKNOWN`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The shortest header: `PROXY UNKNOWN` CRLF.
const SHORTEST: usize = 15;
/// Signature, command, family and length of version 2.
const FIXED: usize = 16;
/// The longest header of version 1, CRLF included.
const TEXT_BYTES_MAX: usize = 107;
/// The longest header of version 2 that is taken; senders are asked to stay within it.
pub(super) const BINARY_BYTES_MAX: usize = 536;

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The proxy itself, which looks after us.
    Proxy,
    /// Somebody whose address the proxy does not tell.
    Unknown,
    /// A client.
    Client(SocketAddr),
}

/// How far a header is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// So many octets are missing at least. Never 0.
    Missing(usize),
    /// It is complete, with the last octet.
    Complete(Source),
}

/// What came is no header.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no PROXY protocol header")]
pub(super) struct NoHeader;

impl From<NoHeader> for io::Error {
    fn from(err: NoHeader) -> Self {
        Self::new(io::ErrorKind::InvalidData, err)
    }
}

/// Parses what came so far.
pub(super) fn parse(input: &[u8]) -> Result<Progress, NoHeader> {
    let begins = |with: &[u8]| input.iter().zip(with).all(|(octet, expected)| octet == expected);
    if begins(b"PROXY ") {
        return parse_text(input);
    }
    if begins(SIGNATURE) { parse_binary(input) } else { Err(NoHeader) }
}

fn parse_text(input: &[u8]) -> Result<Progress, NoHeader> {
    let Some(line) = input.strip_suffix(b"\r\n") else {
        // The end is CRLF, and at most half of it is there.
        let end = if input.last() == Some(&b'\r') { 1 } else { 2 };
        let missing = end.max(SHORTEST.saturating_sub(input.len()));
        let has_end = input.contains(&b'\n');
        return if has_end || input.len() + missing > TEXT_BYTES_MAX {
            Err(NoHeader)
        } else {
            Ok(Progress::Missing(missing))
        };
    };
    let line = std::str::from_utf8(line).map_err(|_| NoHeader)?;
    let mut words = line.split(' ').skip(1);
    let (family, [from, to, from_port, to_port]) = (words.next(), [(); 4].map(|()| words.next().unwrap_or_default()));
    let address = |text: &str| match family {
        Some("TCP4") => text.parse().map(IpAddr::V4).map_err(|_| NoHeader),
        _ => text.parse().map(IpAddr::V6).map_err(|_| NoHeader),
    };
    match family {
        // Whatever stands behind it is to be ignored.
        Some("UNKNOWN") => Ok(Progress::Complete(Source::Unknown)),
        Some("TCP4" | "TCP6") if words.next().is_none() => {
            let (from, _) =
                (SocketAddr::new(address(from)?, port(from_port)?), SocketAddr::new(address(to)?, port(to_port)?));
            let client = SocketAddr::new(from.ip().to_canonical(), from.port());
            Ok(Progress::Complete(Source::Client(client)))
        }
        _ => Err(NoHeader),
    }
}

/// Decimal, without leading zeros or a sign.
fn port(text: &str) -> Result<u16, NoHeader> {
    let port: u16 = text.parse().map_err(|_| NoHeader)?;
    if port.to_string() == text { Ok(port) } else { Err(NoHeader) }
}

fn parse_binary(input: &[u8]) -> Result<Progress, NoHeader> {
    let Some((fixed, rest)) = input.split_first_chunk::<FIXED>() else {
        return Ok(Progress::Missing(FIXED - input.len()));
    };
    let [.., command, family, high, low] = *fixed;
    let len = usize::from(u16::from_be_bytes([high, low]));
    if FIXED + len > BINARY_BYTES_MAX {
        return Err(NoHeader);
    }
    match len.checked_sub(rest.len()) {
        Some(0) => {}
        Some(missing) => return Ok(Progress::Missing(missing)),
        None => return Err(NoHeader),
    }
    let source = match (command, family) {
        // The family means nothing then.
        (0x20, _) => Source::Proxy,
        (0x21, 0x11) => {
            let (from, rest) = rest.split_first_chunk::<4>().ok_or(NoHeader)?;
            // Behind the destination, which has the same length.
            client(Ipv4Addr::from(*from).into(), rest.get(4..))?
        }
        (0x21, 0x21) => {
            let (from, rest) = rest.split_first_chunk::<16>().ok_or(NoHeader)?;
            client(Ipv6Addr::from(*from).into(), rest.get(16..))?
        }
        // Not told, or a Unix socket of the proxy's machine.
        (0x21, 0x00 | 0x31) => Source::Unknown,
        _ => return Err(NoHeader),
    };
    Ok(Progress::Complete(source))
}

/// `ports` are those of source and destination; what follows them, the standard's TLVs, says nothing that is needed.
fn client(address: IpAddr, ports: Option<&[u8]>) -> Result<Source, NoHeader> {
    let ([high, low, _, _], _) = ports.and_then(<[u8]>::split_first_chunk::<4>).ok_or(NoHeader)?;
    let port = u16::from_be_bytes([*high, *low]);
    Ok(Source::Client(SocketAddr::new(address.to_canonical(), port)))
}

#[cfg(test)]
mod tests {
    use ppp::{HeaderResult, v1, v2};
    use proptest::prelude::*;

    use super::*;

    #[allow(clippy::unnecessary_wraps, reason = "what is compared is what `parse` gives")]
    fn complete(source: Source) -> Result<Progress, NoHeader> {
        Ok(Progress::Complete(source))
    }

    fn at(text: &str) -> Result<Progress, NoHeader> {
        complete(Source::Client(text.parse().unwrap()))
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &len, rest].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0x30, 0x39, 0, 25];

    #[test]
    fn the_text_form_is_strict_in_all_that_counts() {
        let text = |line: &str| parse(format!("PROXY {line}\r\n").as_bytes());
        assert_eq!(text("TCP4 192.0.2.1 192.0.2.2 12345 25"), at("192.0.2.1:12345"));
        assert_eq!(text("TCP6 2001:db8::1 2001:db8::2 0 25"), at("[2001:db8::1]:0"));
        assert_eq!(text("TCP6 ::ffff:192.0.2.1 ::1 1 25"), at("192.0.2.1:1"), "an IPv4 client");
        assert_eq!(text("UNKNOWN"), complete(Source::Unknown));
        assert_eq!(text("UNKNOWN 1 2 3 4 5 6 whatever"), complete(Source::Unknown));
        for wrong in [
            "TCP4 192.0.2.1 192.0.2.2 12345",
            "TCP4 192.0.2.1 192.0.2.2 12345 25 x",
            "TCP4 192.0.2.1 192.0.2.2 12345 25 ",
            "TCP4 192.0.2.1 192.0.2.2 65536 25",
            "TCP4 192.0.2.1 192.0.2.2 012 25",
            "TCP4 192.0.2.1 192.0.2.2 +12 25",
            "TCP4 192.0.2.1 192.0.2.2 12 ",
            "TCP4 2001:db8::1 192.0.2.2 1 25",
            "TCP4 192.0.2.256 192.0.2.2 1 25",
            "TCP6 192.0.2.1 192.0.2.2 1 25",
            "TCP4  192.0.2.1 192.0.2.2 1 25",
            "UDP4 192.0.2.1 192.0.2.2 1 25",
            "tcp4 192.0.2.1 192.0.2.2 1 25",
            "",
        ] {
            assert_eq!(text(wrong), Err(NoHeader), "{wrong}");
        }
        for wrong in ["EHLO", "proxy ", "PROXY\r\n", "\x16\x03\x01", "GET / HTTP/1.1\r\n", "PROXY UNKNOWN\nEHLO"] {
            assert_eq!(parse(wrong.as_bytes()), Err(NoHeader), "{wrong}");
        }
        assert_eq!(parse(format!("PROXY UNKNOWN {}", "x".repeat(91)).as_bytes()), Ok(Progress::Missing(2)));
        assert_eq!(parse(format!("PROXY UNKNOWN {}", "x".repeat(92)).as_bytes()), Err(NoHeader));
    }

    #[test]
    fn the_binary_form_is_taken_with_whatever_follows_the_addresses() {
        assert_eq!(parse(&binary(0x21, 0x11, &V4)), at("192.0.2.1:12345"));
        assert_eq!(parse(&binary(0x21, 0x11, &[&V4[..], b"\x04\0\x03abc"].concat())), at("192.0.2.1:12345"));
        let mapped: Ipv6Addr = "::ffff:192.0.2.1".parse().unwrap();
        let v6 = [&mapped.octets()[..], &[0; 16], &[0, 7, 0, 25]].concat();
        assert_eq!(parse(&binary(0x21, 0x21, &v6)), at("192.0.2.1:7"));
        for family in [0x00, 0x11, 0x31, 0xff] {
            assert_eq!(parse(&binary(0x20, family, b"x")), complete(Source::Proxy), "{family}");
        }
        assert_eq!(parse(&binary(0x21, 0x00, b"")), complete(Source::Unknown));
        assert_eq!(parse(&binary(0x21, 0x31, &[0; 216])), complete(Source::Unknown));
        for (command, family, rest) in
            [(0x22, 0x11, &V4[..]), (0x11, 0x11, &V4), (0x21, 0x12, &V4), (0x21, 0x41, &V4), (0x21, 0x11, &V4[..11])]
        {
            assert_eq!(parse(&binary(command, family, rest)), Err(NoHeader), "{command:x} {family:x}");
        }
        assert_eq!(parse(&binary(0x21, 0x11, &[0; 520])), at("0.0.0.0:0"));
        assert_eq!(parse(&binary(0x21, 0x11, &[0; 521])), Err(NoHeader));
        assert_eq!(parse(&binary(0x21, 0x11, &[0; 521])[..FIXED]), Err(NoHeader), "before it has come");
    }

    /// Why there is a parser of our own.
    #[test]
    fn another_parser_refuses_what_the_standard_takes() {
        let local = binary(0x20, 0x11, b"");
        assert_eq!(parse(&local), complete(Source::Proxy));
        assert!(matches!(HeaderResult::parse(&local), HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_))));
        let unknown = b"PROXY UNKNOWN 1 2 3 4 5 6\r\n";
        assert_eq!(parse(unknown), complete(Source::Unknown));
        assert!(v1::Header::try_from(&unknown[..]).is_err());
    }

    fn header() -> impl Strategy<Value = Vec<u8>> {
        let v4 = (any::<Ipv4Addr>(), any::<u16>()).prop_map(|(from, port)| format!("TCP4 {from} 192.0.2.2 {port} 25"));
        let v6 = (any::<Ipv6Addr>(), any::<u16>()).prop_map(|(from, port)| format!("TCP6 {from} ::1 {port} 25"));
        let text = prop_oneof![v4, v6, "UNKNOWN( [a-z0-9]{1,9}){0,3}"];
        let families = (prop::sample::select(vec![0x20, 0x21]), prop::sample::select(vec![0x00, 0x11, 0x21, 0x31]));
        let binaries = (families, prop::collection::vec(any::<u8>(), 216..400));
        prop_oneof![
            text.prop_map(|line| format!("PROXY {line}\r\n").into_bytes()),
            binaries.prop_map(|((command, family), rest)| binary(command, family, &rest)),
        ]
    }

    proptest! {
        /// Every beginning of a header asks for more, and for no more than there is.
        #[test]
        fn a_header_is_read_to_its_end_and_not_beyond(header in header()) {
            let mut len = 0;
            while len < header.len() {
                let Ok(Progress::Missing(octets)) = parse(&header[..len]) else { panic!("{len} of {header:?}") };
                prop_assert!(octets > 0 && len + octets <= header.len());
                len += octets;
            }
            prop_assert!(matches!(parse(&header), Ok(Progress::Complete(_))));
            for len in 0..header.len() {
                prop_assert!(matches!(parse(&header[..len]), Ok(Progress::Missing(_))));
            }
        }

        #[test]
        #[allow(clippy::match_same_arms, reason = "the arms bind different types")]
        fn another_parser_agrees(header in header()) {
            let told = match HeaderResult::parse(&header) {
                HeaderResult::V2(Ok(v2::Header { command: v2::Command::Local, .. })) => Source::Proxy,
                HeaderResult::V2(Ok(v2::Header { addresses: v2::Addresses::IPv4(ip), .. })) => {
                    Source::Client((ip.source_address, ip.source_port).into())
                }
                HeaderResult::V2(Ok(v2::Header { addresses: v2::Addresses::IPv6(ip), .. })) => {
                    Source::Client((ip.source_address.to_canonical(), ip.source_port).into())
                }
                HeaderResult::V1(Ok(v1::Header { addresses: v1::Addresses::Tcp4(ip), .. })) => {
                    Source::Client((ip.source_address, ip.source_port).into())
                }
                HeaderResult::V1(Ok(v1::Header { addresses: v1::Addresses::Tcp6(ip), .. })) => {
                    Source::Client((ip.source_address.to_canonical(), ip.source_port).into())
                }
                HeaderResult::V1(Ok(_)) | HeaderResult::V2(Ok(_)) => Source::Unknown,
                refused => panic!("{refused:?}"),
            };
            prop_assert_eq!(parse(&header), Ok(Progress::Complete(told)));
        }

        #[test]
        fn no_octets_panic(prefix in prop_oneof![Just(&b""[..]), Just(&b"PROXY "[..]), Just(&SIGNATURE[..])], rest: Vec<u8>) {
            let input = [prefix, &rest].concat();
            if let Ok(Progress::Missing(octets)) = parse(&input) {
                prop_assert!(octets > 0 && input.len() + octets <= BINARY_BYTES_MAX);
            }
        }
    }
}
