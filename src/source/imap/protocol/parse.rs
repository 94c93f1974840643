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
        b"SEARCH" => search::parse(&mut tokens).map(|found| Response::Search(Box::new(found))),
        b"ESEARCH" => search::parse_extended(&mut tokens).map(|found| Response::Search(Box::new(found))),
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
