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

#[cfg(test)]
mod tests {
    use super::super::{Response, parse as parse_response};
    use super::*;

    fn fetched(items: &str) -> Fetched {
        match parse_response(format!("* 7 FETCH {items}\r\n").as_bytes()) {
            Response::Fetch(7, message) => *message,
            other => panic!("{items}: {other:?}"),
        }
    }

    #[test]
    fn what_is_asked_for_is_read() {
        let message = fetched(
            "(UID 4827313 FLAGS (\\Seen $Junk NonJunk) INTERNALDATE \"17-Jul-1996 02:44:25 -0700\" RFC822.SIZE 4286 \
             MODSEQ (624140003) EMAILID (M6d99ac3275bb4e) THREADID (T64b478a75b7ea9) PREVIEW \"Grüße \\\"x\\\"\")",
        );
        let expected = Fetched {
            uid: Some(4_827_313),
            flags: Some(vec!["\\Seen".into(), "$Junk".into(), "NonJunk".into()]),
            internal_date: Some("17-Jul-1996 02:44:25 -0700".into()),
            size: Some(4286),
            mod_seq: Some(624_140_003),
            email_id: Some("M6d99ac3275bb4e".into()),
            thread_id: Some("T64b478a75b7ea9".into()),
            preview: Some("Grüße \"x\"".into()),
            ..Fetched::default()
        };
        assert_eq!(message, expected);
    }

    #[test]
    fn header_and_sections_are_told_apart() {
        let message = fetched(
            "(UID 2 BODY[HEADER.FIELDS (FROM \"X-]\")] {9}\r\nFrom: a\r\n BODY[1]<0> \"hello\" BODY[1.2]<0> NIL \
             BODY[] \"all\" BODY[1.MIME] \"m\" BINARY[3] ~{2}\r\n\0) BINARY.SIZE[3] 2)",
        );
        assert_eq!(message.header.as_deref(), Some(&b"From: a\r\n"[..]));
        assert_eq!(message.section(&[1]), Some(&b"hello"[..]));
        assert_eq!(message.section(&[1, 2]), Some(&b""[..]));
        assert_eq!(message.section(&[3]), Some(&b"\0)"[..]));
        assert_eq!((message.section(&[2]), message.sections.len(), message.is_broken_off), (None, 3, false));
        assert_eq!(fetched("(BODY[HEADER.FIELDS (FROM)] NIL)").header, Some(Vec::new()));
        assert_eq!(fetched("(BODY[header.fields (From)]{0}\r\n)").header, Some(Vec::new()));
        assert_eq!(fetched("(RFC822.HEADER  \"a: b\")").header, Some(b"a: b".to_vec()));
    }

    #[test]
    fn gmail_is_read_as_it_writes() {
        let message = fetched(
            "(X-GM-THRID 1278455344230334866 X-GM-MSGID 1278455344230334865 X-GM-LABELS (\\Inbox \"\\\\Sent\" [Mailbox] \
             +IMNews NIL {6}\r\na (b) \" Entw&APw-rfe\") UID 1)",
        );
        assert_eq!(message.labels.unwrap(), ["\\Inbox", "\\Sent", "[Mailbox]", "+IMNews", "a (b) ", " Entw&APw-rfe"]);
        assert_eq!(message.email_id.as_deref(), Some("1278455344230334865"));
        assert_eq!((message.thread_id.as_deref(), message.uid), (Some("1278455344230334866"), Some(1)));
        let both = fetched("(X-GM-MSGID 1 EMAILID (M2) X-GM-THRID 3 THREADID NIL)");
        assert_eq!((both.email_id.as_deref(), both.thread_id.as_deref()), (Some("M2"), Some("3")));
    }

    #[test]
    fn odd_messages_keep_what_is_readable() {
        assert_eq!(fetched("()"), Fetched::default());
        assert_eq!(fetched("(UID, NIL RFC822.SIZE 5 )").size, Some(5));
        assert_eq!(fetched("(INTERNALDATE NIL FLAGS NIL UID 3)"), Fetched { uid: Some(3), ..Fetched::default() });
        assert_eq!(fetched("( FLAGS  (\\*  NIL \\Seen )  UID   3 )").flags.unwrap(), ["\\*", "\\Seen"]);
        assert_eq!(fetched("(UID 0 FLAGS ())").uid, None);
        assert_eq!(fetched("(UID (1) FLAGS () RFC822.SIZE x MODSEQ () UID 9)").uid, Some(9));
        assert_eq!(
            fetched("(\"x\" (y) UID 4 SAVEDATE NIL X-NEW (a (b \")\")) RFC822.SIZE 99999999999 UID)").uid,
            Some(4)
        );
        assert_eq!(fetched("(RFC822.SIZE 99999999999)").size, Some(99_999_999_999));
        assert_eq!(fetched("(ENVELOPE (\"d\" \"bad \\x escape\" NIL) UID 5)").uid, Some(5));
        assert_eq!(fetched("(PREVIEW NIL UID 5)").preview.as_deref(), Some(""));
        assert_eq!(fetched("(PREVIEW (FUZZY {3}\r\na b) UID 5)").preview.as_deref(), Some("a b"));
        assert_eq!(fetched("(BODYSTRUCTURE ((((x UID 5").uid, None);
    }

    #[test]
    fn a_list_without_an_end_says_so() {
        for items in
            ["(UID 5", "(UID 5 BODY[1", "(UID 5 FLAGS (a", "(UID 5 BODY[1] \"x", "(UID 5 BODYSTRUCTURE (((", "(UID 5 ("]
        {
            let message = fetched(items);
            assert_eq!((message.uid, message.is_broken_off), (Some(5), true), "{items}");
        }
        let mut message = fetched("(UID 5)");
        message.merge(fetched("(FLAGS ("));
        assert!(message.is_broken_off);
        assert_eq!(parse_response(b"* 7 FETCH UID 5\r\n"), Response::Unreadable);
    }

    #[test]
    fn what_is_stored_has_an_end() {
        assert_eq!(fetched(&format!("(FLAGS ({}) UID 1)", "a ".repeat(9000))).flags.unwrap().len(), FLAGS_MAX);
        let message = fetched(&format!("({} UID 1)", "BODY[1.2.3] \"x\" ".repeat(9000)));
        assert_eq!((message.sections.len(), message.uid), (SECTIONS_MAX, Some(1)));
        let message = fetched(&format!("(BODY[{}1] \"x\")", "1.".repeat(9000)));
        assert!(message.sections.iter().all(|(path, _)| path.len() <= PATH_MAX));
    }
}
