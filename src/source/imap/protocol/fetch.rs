//! FETCH (RFC 9051 §7.5.2): what is said of one message.
//!
//! An item that cannot be read is passed over, and so is one that nobody asked for; where the list breaks off, what
//! came before it stays, and the message says so. Whoever asked knows which items must be there.

use super::body_structure;
use super::response::Fetched;
use super::tokenizer::{Item, Malformed, Tokens, lossy, nonzero, number};

/// Flags and labels of one message. Gmail allows 10,000 labels in an account; a message with many has ten.
const FLAGS_MAX: usize = 1000;
/// Sections of one message. At most two are asked for.
const SECTIONS_MAX: usize = 100;
/// Numbers in the path of a section.
const PATH_MAX: usize = 50;

/// Identifiers by their origin: RFC 8474's go before Gmail's, whatever their order.
#[derive(Default)]
struct GmailIds {
    message: Option<String>,
    thread: Option<String>,
}

/// What follows `* n FETCH`.
pub fn parse(tokens: &mut Tokens<'_>) -> Result<Fetched, Malformed> {
    let mut message = Fetched::default();
    let mut gmail = GmailIds::default();
    tokens.open()?;
    message.is_broken_off = loop {
        match tokens.close() {
            Ok(true) => break false,
            Ok(false) if next_item(tokens, &mut message, &mut gmail).is_ok() => {}
            Ok(false) | Err(_) => break true,
        }
    };
    message.email_id = message.email_id.or(gmail.message);
    message.thread_id = message.thread_id.or(gmail.thread);
    Ok(message)
}

/// Reads an item, or passes over it.
fn next_item(tokens: &mut Tokens<'_>, message: &mut Fetched, gmail: &mut GmailIds) -> Result<(), Malformed> {
    let Some(item) = tokens.item()? else { return tokens.skip() };
    if tokens.is_at_close() {
        return Ok(());
    }
    let value = tokens.clone();
    if read(item, tokens, message, gmail).is_err() {
        *tokens = value;
        tokens.skip()?;
    }
    Ok(())
}

fn read(item: Item<'_>, tokens: &mut Tokens<'_>, message: &mut Fetched, gmail: &mut GmailIds) -> Result<(), Malformed> {
    // `UID,`: some bridges write their list so.
    let name = item.name.strip_suffix(b",").unwrap_or(item.name).to_ascii_uppercase();
    match (name.as_slice(), item.section) {
        (b"UID", None) => keep(&mut message.uid, tokens.string()?.and_then(|digits| nonzero(&digits))),
        (b"FLAGS", None) => keep(&mut message.flags, list(tokens)?),
        (b"INTERNALDATE", None) => keep(&mut message.internal_date, tokens.text()?),
        (b"RFC822.SIZE", None) => keep(&mut message.size, tokens.number()?),
        (b"MODSEQ", None) => keep(&mut message.mod_seq, one(tokens)?.and_then(|digits| number(digits.as_bytes()))),
        (b"BODYSTRUCTURE" | b"BODY", None) => keep(&mut message.structure, body_structure::parse(tokens)?),
        (b"RFC822.HEADER", None) => message.header = Some(octets(tokens)?),
        (b"BODY" | b"BINARY", Some(section)) => return body_section(section, tokens, message),
        (b"EMAILID", None) => keep(&mut message.email_id, one(tokens)?),
        (b"THREADID", None) => keep(&mut message.thread_id, one(tokens)?),
        (b"X-GM-MSGID", None) => keep(&mut gmail.message, one(tokens)?),
        (b"X-GM-THRID", None) => keep(&mut gmail.thread, one(tokens)?),
        (b"X-GM-LABELS", None) => keep(&mut message.labels, list(tokens)?),
        (b"PREVIEW", None) => message.preview = Some(one(tokens)?.unwrap_or_default()),
        _ => tokens.skip()?,
    }
    Ok(())
}

fn keep<T>(into: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *into = value;
    }
}

/// A list of words; nothing for NIL.
fn list(tokens: &mut Tokens<'_>) -> Result<Option<Vec<String>>, Malformed> {
    if tokens.is_at_open() {
        return tokens.texts(FLAGS_MAX).map(Some);
    }
    // One word without a list is no list.
    tokens.string().map(|_| None)
}

/// A value that stands alone or in a list: `(7)`, `7`, and of drafts of RFC 8970 `(FUZZY "text")`, where the last one
/// is meant. Nothing for NIL.
fn one(tokens: &mut Tokens<'_>) -> Result<Option<String>, Malformed> {
    if tokens.is_at_open() { tokens.texts(2).map(|mut texts| texts.pop()) } else { tokens.text() }
}

fn octets(tokens: &mut Tokens<'_>) -> Result<Vec<u8>, Malformed> {
    Ok(tokens.string()?.unwrap_or_default().into_owned())
}

fn body_section(section: &[u8], tokens: &mut Tokens<'_>, message: &mut Fetched) -> Result<(), Malformed> {
    let section = section.trim_ascii();
    if section.get(..6).is_some_and(|name| name.eq_ignore_ascii_case(b"HEADER")) {
        message.header = Some(octets(tokens)?);
        return Ok(());
    }
    match path(section) {
        Some(path) if message.sections.len() < SECTIONS_MAX => message.sections.push((path, octets(tokens)?)),
        _ => tokens.skip()?,
    }
    Ok(())
}

/// `1.2`; nothing for `1.MIME`, for one.
fn path(section: &[u8]) -> Option<Vec<u32>> {
    let numbers = lossy(section.get(..PATH_MAX * 4).unwrap_or(section));
    numbers.split('.').take(PATH_MAX).map(|number| nonzero(number.as_bytes())).collect()
}
