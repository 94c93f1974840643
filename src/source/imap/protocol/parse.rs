//! One whole response, of whatever kind, to its typed view.
//!
//! Nothing here fails: what is not understood is [`Response::Other`] where it could be an extension, and
//! [`Response::Unreadable`] where it is nonsense, or known by name and yet not to be made sense of.

use super::response::Response;
use super::tokenizer::{Malformed, Tokens, nonzero, number};
use super::{fetch, id, list, reply, search, status, vanished};

/// Longest tag that is taken for one: ours are short.
const TAG_BYTES_MAX: usize = 64;

/// Reads one response, as [`super::Framer`] cut it out.
pub fn parse(response: &[u8]) -> Response {
    let line = response.strip_suffix(b"\n").unwrap_or(response);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let read = match line.first() {
        Some(b'+') => Some(reply::continuation(line)),
        Some(b'*') => untagged(line.get(1..).unwrap_or_default()),
        _ => tagged(line),
    };
    read.unwrap_or(Response::Unreadable)
}

fn tagged(line: &[u8]) -> Option<Response> {
    let (tag, rest) = line.split_at(memchr::memchr(b' ', line)?);
    let is_tag = (1..=TAG_BYTES_MAX).contains(&tag.len()) && tag.iter().all(u8::is_ascii_graphic);
    let reply = reply::parse(rest)?;
    is_tag.then(|| Response::Tagged(String::from_utf8_lossy(tag).into_owned(), reply))
}

fn untagged(data: &[u8]) -> Option<Response> {
    let data = data.trim_ascii_start();
    if let Some(reply) = reply::parse(data) {
        return Some(Response::Status(reply));
    }
    let mut tokens = Tokens::new(data);
    let first = word(&mut tokens)?;
    if first.first().is_some_and(u8::is_ascii_digit) {
        return numbered(first, &mut tokens);
    }
    let view = match first.to_ascii_uppercase().as_slice() {
        b"CAPABILITY" => return Some(Response::Capabilities(reply::capabilities(tokens.rest()))),
        b"ENABLED" => return Some(Response::Enabled(reply::capabilities(tokens.rest()))),
        b"LIST" | b"LSUB" | b"XLIST" => list::parse(&mut tokens).map(|listed| Response::Listed(Box::new(listed))),
        b"STATUS" => status::parse(&mut tokens).map(|status| Response::MailboxStatus(Box::new(status))),
        b"SEARCH" => return Some(search::response(search::parse(&mut tokens))),
        b"ESEARCH" => return Some(search::response(search::parse_extended(&mut tokens))),
        b"VANISHED" => vanished::parse(&mut tokens),
        b"ID" => id::parse(&mut tokens).map(Response::Id),
        name => return is_name(name).then_some(Response::Other),
    };
    view.ok()
}

/// `n EXISTS` and the like.
fn numbered(digits: &[u8], tokens: &mut Tokens<'_>) -> Option<Response> {
    match word(tokens)?.to_ascii_uppercase().as_slice() {
        b"EXISTS" => number(digits).and_then(|count| u32::try_from(count).ok()).map(Response::Exists),
        b"EXPUNGE" => nonzero(digits).map(Response::Expunge),
        b"FETCH" => {
            let message = nonzero(digits)?;
            fetch::parse(tokens).ok().map(|fetched| Response::Fetch(message, Box::new(fetched)))
        }
        name => (number(digits).is_some() && is_name(name)).then_some(Response::Other),
    }
}

fn word<'a>(tokens: &mut Tokens<'a>) -> Option<&'a [u8]> {
    let word: Result<_, Malformed> = tokens.item();
    word.ok().flatten().map(|item| item.name)
}

fn is_name(name: &[u8]) -> bool {
    name.first().is_some_and(u8::is_ascii_alphabetic)
        && name.iter().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::super::response::{Capabilities, Code, Condition, Reply};
    use super::*;

    #[test]
    fn what_is_numbered_is_counted() {
        assert_eq!(parse(b"* 23 EXISTS\r\n"), Response::Exists(23));
        assert_eq!(parse(b"* 0 exists\r\n"), Response::Exists(0));
        assert_eq!(parse(b"*  4  Expunge \n"), Response::Expunge(4));
        assert_eq!(parse(b"* 3 RECENT\r\n"), Response::Other);
        for wrong in
            ["0 EXPUNGE", "4294967296 EXISTS", "7x EXISTS", "-1 EXISTS", "1", "1 FETCH", "0 FETCH (UID 1)", "1 (a)"]
        {
            assert_eq!(parse(format!("* {wrong}\r\n").as_bytes()), Response::Unreadable, "{wrong}");
        }
    }

    #[test]
    fn what_could_be_an_extension_is_of_no_interest_and_nonsense_is_unreadable() {
        for other in [
            "FLAGS (\\Answered \\Seen)",
            "NAMESPACE ((\"\" \"/\")) NIL NIL",
            "QUOTAROOT INBOX \"\"",
            "METADATA \"\" (/shared/x {3}\r\nabc)",
            "XYZZY",
            "NO-MORE",
            "X-WEIRD é (\"",
            "SORT 2 3",
        ] {
            assert_eq!(parse(format!("* {other}\r\n").as_bytes()), Response::Other, "{other}");
        }
        for nonsense in [
            "",
            "*",
            "* ",
            "* (",
            "* é",
            "* [x]",
            "220 ESMTP",
            "HTTP/1.1 400 Bad Request",
            "\0",
            "*\0",
            "p1",
            "p1 FINE",
            " OK",
        ] {
            assert_eq!(parse(format!("{nonsense}\r\n").as_bytes()), Response::Unreadable, "{nonsense}");
        }
        let long_tag = [&b"x".repeat(TAG_BYTES_MAX + 1)[..], b" OK done"].concat();
        assert_eq!(parse(&long_tag), Response::Unreadable);
    }

    #[test]
    fn the_end_of_a_command_has_its_tag() {
        let reply = Reply { condition: Condition::No, code: Some(Code::Named("LIMIT".into())), text: "wait".into() };
        assert_eq!(parse(b"p12 NO [LIMIT] wait\r\n"), Response::Tagged("p12".into(), reply));
        let reply = Reply { condition: Condition::Ok, code: None, text: String::new() };
        assert_eq!(parse(b"p12 ok"), Response::Tagged("p12".into(), reply));
    }

    #[test]
    fn capabilities_are_in_upper_case_wherever_they_stand() {
        let expected = || Capabilities(vec!["IMAP4REV2".into(), "AUTH=PLAIN".into()]);
        assert_eq!(parse(b"* CAPABILITY IMAP4rev2  auth=Plain \r\n"), Response::Capabilities(expected()));
        assert_eq!(parse(b"* ENABLED imap4rev2 Auth=plain\r\n"), Response::Enabled(expected()));
        assert_eq!(parse(b"* ENABLED\r\n"), Response::Enabled(Capabilities::default()));
        let Response::Status(greeting) = parse(b"* PREAUTH [CAPABILITY imap4rev2 auth=PLAIN] hello\r\n") else {
            panic!("no greeting")
        };
        assert_eq!((greeting.condition, greeting.code), (Condition::PreAuth, Some(Code::Capability(expected()))));
    }
}
