//! XCLIENT (Postfix's `XCLIENT_README`): a proxy that speaks SMTP itself tells whose mail it passes on. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::command::CommandError;
use super::{parameter, xtext};
use crate::source::intake::{Client, Peer};

/// What EHLO says to those who may use it.
pub(super) const EXTENSION: &str = "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT";

/// What is told of the client.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    address: Word<IpAddr>,
    helo: Word<String>,
    user: Word<String>,
}

/// One attribute.
#[derive(Debug, Default, PartialEq, Eq)]
enum Word<T> {
    /// Not mentioned: it stays what it was.
    #[default]
    Unsaid,
    /// The proxy does not know it.
    Unavailable,
    Is(T),
}

impl<T> Word<T> {
    fn tell(self, known: &mut Option<T>) {
        match self {
            Self::Unsaid => {}
            Self::Unavailable => *known = None,
            Self::Is(value) => *known = Some(value),
        }
    }
}

impl Told {
    /// Makes `client` what was told.
    pub(super) fn tell(self, client: &mut Client) {
        if self.address != Word::Unsaid {
            // On whichever machine that address is, it is not the client at our end of the connection.
            client.peer = Peer::Remote;
        }
        self.address.tell(&mut client.address);
        self.helo.tell(&mut client.helo);
        self.user.tell(&mut client.user);
    }

    /// Whether the client's HELO is told: then the session goes on without one.
    pub(super) fn names_helo(&self) -> bool {
        matches!(self.helo, Word::Is(_))
    }
}

const USAGE: CommandError = CommandError::Argument("501 5.5.4 Syntax: XCLIENT attribute=value...");

/// Parses what follows the verb. What is of no use here is checked all the same.
pub(super) fn parse(argument: &[u8]) -> Result<Told, CommandError> {
    let text = std::str::from_utf8(argument).ok().filter(|text| !text.is_empty()).ok_or(USAGE)?;
    let mut told = Told::default();
    parameter::each(text, |attribute, value| {
        let value = value.filter(|value| !value.is_empty()).ok_or(CommandError::Parameter)?;
        match attribute {
            "ADDR" => told.address = word(value, address)?,
            "HELO" => told.helo = word(value, Some)?,
            "LOGIN" => told.user = word(value, Some)?,
            "NAME" => check(word(value, Some))?,
            "DESTADDR" => check(word(value, address))?,
            "PORT" | "DESTPORT" => check(word(value, |port| port.parse::<u16>().ok()))?,
            "PROTO" if ["SMTP", "ESMTP"].iter().any(|known| value.eq_ignore_ascii_case(known)) => {}
            _ => return Err(CommandError::Parameter),
        }
        Ok(())
    })?;
    Ok(told)
}

/// What is of no use.
fn check<T>(word: Result<Word<T>, CommandError>) -> Result<(), CommandError> {
    word.map(|_| ())
}

fn word<T>(value: &str, read: impl FnOnce(String) -> Option<T>) -> Result<Word<T>, CommandError> {
    if ["[UNAVAILABLE]", "[TEMPUNAVAIL]"].iter().any(|unavailable| value.eq_ignore_ascii_case(unavailable)) {
        return Ok(Word::Unavailable);
    }
    let value = xtext::decode(value)
        .and_then(|octets| String::from_utf8(octets).ok())
        .filter(|text| !text.chars().any(char::is_control));
    value.and_then(read).map(Word::Is).ok_or(CommandError::Parameter)
}

/// An IPv6 address has a tag before it, as in an address literal.
fn address(text: impl AsRef<str>) -> Option<IpAddr> {
    let text = text.as_ref();
    match text.split_at_checked("IPV6:".len()) {
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPV6:") => {
            address.parse::<Ipv6Addr>().ok().map(|address| IpAddr::V6(address).to_canonical())
        }
        _ => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(lines: &[&str]) -> Client {
        let mut client = Client::at(Some(IpAddr::from([127, 0, 0, 1])), Peer::Loopback);
        client.helo = Some("proxy".into());
        for line in lines {
            parse(line.as_bytes()).unwrap().tell(&mut client);
        }
        client
    }

    #[test]
    fn what_is_told_replaces_what_was_known() {
        let told =
            client(&["NAME=spike.example ADDR=192.0.2.1 PORT=4711 PROTO=ESMTP", "HELO=a+2Bb.example login=ada+40x"]);
        let remote = Client::at(Some(IpAddr::from([192, 0, 2, 1])), Peer::Remote);
        assert_eq!(told, Client { helo: Some("a+b.example".into()), user: Some("ada@x".into()), ..remote });
        let v6 = client(&["addr=ipv6:2001:db8::1 DESTADDR=IPV6:::1 DESTPORT=25"]);
        assert_eq!((v6.address, v6.helo.as_deref()), ("2001:db8::1".parse().ok(), Some("proxy")));
        assert_eq!(client(&["ADDR=IPV6:::ffff:192.0.2.1"]).address, "192.0.2.1".parse().ok());
        let unknown = client(&["ADDR=[UNAVAILABLE] HELO=[tempunavail] LOGIN=[UNAVAILABLE] NAME=[TEMPUNAVAIL]"]);
        assert_eq!(unknown, Client::at(None, Peer::Remote));
    }

    #[test]
    fn an_address_that_is_told_is_never_this_machine() {
        for line in ["ADDR=127.0.0.1", "ADDR=IPV6:::1", "ADDR=[UNAVAILABLE]"] {
            assert_eq!(client(&[line]).peer, Peer::Remote, "{line}");
        }
        assert_eq!(client(&["NAME=x"]).peer, Peer::Loopback);
    }

    #[test]
    fn what_cannot_be_is_refused_whole() {
        for wrong in [
            "ADDR=192.0.2.1 BOGUS=1",
            "ADDR=192.0.2.1 ADDR=192.0.2.1",
            "ADDR=2001:db8::1",
            "ADDR=IPV6:192.0.2.1",
            "ADDR=localhost",
            "ADDR=",
            "ADDR",
            "PORT=65536",
            "PROTO=LMTP",
            "HELO=a+",
            "HELO=a+2",
            "HELO=a+GG",
            "HELO=a+0D+0AMAIL",
            "HELO=+FF",
            "NAME=a+00",
        ] {
            assert_eq!(parse(wrong.as_bytes()), Err(CommandError::Parameter), "{wrong}");
        }
        assert_eq!(parse(b""), Err(USAGE));
        assert_eq!(parse(b"HELO=\xff"), Err(USAGE));
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(text in "\\PC{0,20}") {
            let encode = |octet: u8| match octet {
                b'!'..=b'*' | b','..=b'<' | b'>'..=b'~' => char::from(octet).to_string(),
                _ => format!("+{octet:02X}"),
            };
            prop_assert_eq!(xtext::decode(&text.bytes().map(encode).collect::<String>()), Some(text.into_bytes()));
        }

        #[test]
        fn no_octets_panic(octets: Vec<u8>, attribute in "(ADDR|HELO|LOGIN|PORT)=") {
            drop(parse(&[attribute.as_bytes(), &octets].concat()));
        }
    }
}
