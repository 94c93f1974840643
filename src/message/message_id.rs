//! Identifiers in header fields: `Message-ID` and its lists (RFC 5322 §3.6.4), `List-Id` (RFC 2919).

use crate::message::{address, charset, header, printable};

/// Longest identifier, in octets; a longer one is dropped, for a cut one is another's. A line has at most 998 octets.
const ID_BYTES_MAX: usize = 998;

/// All identifiers of a list, with their angle brackets. Where none has brackets, words with an `@` count.
pub(super) fn parse_list(value: &[u8]) -> Vec<String> {
    let value = without_comments(&header::unfold(value));
    let bracketed = bracketed(&value);
    if bracketed.is_empty() {
        bare_words(&value).filter(|word| word.contains(&b'@')).filter_map(with_brackets).collect()
    } else {
        bracketed
    }
}

/// The one identifier of `Message-ID`. Broken programs leave out the brackets and the `@`.
pub(super) fn parse_one(value: &[u8]) -> Option<String> {
    let first = parse_list(value).into_iter().next();
    first.or_else(|| with_brackets(bare_words(&without_comments(&header::unfold(value))).next()?))
}

/// The identifier in `List-Id`, without its brackets.
pub(super) fn parse_list_id(value: &[u8]) -> Option<String> {
    let value = header::unfold(value);
    if let Some(open) = value.iter().rposition(|&byte| byte == b'<') {
        let id = value.get(open.saturating_add(1)..)?.split(|&byte| byte == b'>').next()?;
        return clean(id);
    }
    let value = without_comments(&value);
    let words: Vec<&[u8]> = bare_words(&value).collect();
    match words.as_slice() {
        [word] => clean(word),
        words => clean(words.iter().rfind(|word| word.contains(&b'.'))?),
    }
}

fn bracketed(value: &[u8]) -> Vec<String> {
    let mut ids = Vec::new();
    let mut rest = value;
    while let Some(open) = memchr::memchr(b'<', rest) {
        let after = rest.get(open.saturating_add(1)..).unwrap_or_default();
        let end = memchr::memchr3(b'>', b'<', b',', after).unwrap_or(after.len());
        let (id, tail) = after.split_at_checked(end).unwrap_or((after, &[]));
        ids.extend(with_brackets(id));
        rest = tail;
    }
    ids
}

fn bare_words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte.is_ascii_whitespace() || matches!(byte, b',' | b'<' | b'>' | b'"' | b';'))
        .filter(|word| !word.is_empty())
}

fn with_brackets(id: &[u8]) -> Option<String> {
    clean(id).map(|id| format!("<{id}>"))
}

fn clean(id: &[u8]) -> Option<String> {
    if id.len() > ID_BYTES_MAX {
        return None;
    }
    let mut id = printable::line(&charset::decode(id, None));
    // Folding in the middle of an identifier leaves a blank there.
    id.retain(|c| !c.is_whitespace());
    printable::non_empty(id)
}

/// Drops comments outside of brackets; an unclosed one stays.
fn without_comments(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    let mut in_id = false;
    while let Some((&byte, tail)) = rest.split_first() {
        match byte {
            b'<' => in_id = true,
            b'>' => in_id = false,
            _ => {}
        }
        if byte == b'(' && !in_id {
            let Some(close) = address::comment_end(rest) else {
                out.extend_from_slice(rest);
                break;
            };
            rest = rest.get(close.saturating_add(1)..).unwrap_or_default();
            out.push(b' ');
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_id_lists_are_read() {
        for (value, expected) in [
            ("<p@x> (comment)", &["<p@x>"][..]),
            ("<a>,<b>", &["<a>", "<b>"]),
            ("<a@x>\r\n\t<b@x>", &["<a@x>", "<b@x>"]),
            ("<a@\r\n x>", &["<a@x>"]),
            ("a@x b@y", &["<a@x>", "<b@y>"]),
            ("Your message of \"Monday\" <a@x>", &["<a@x>"]),
            ("<a@x", &["<a@x>"]),
            ("<a@x <b@x>", &["<a@x>", "<b@x>"]),
            ("<> nothing", &[]),
            ("(<c@x>) <a(1)@x>", &["<a(1)@x>"]),
        ] {
            assert_eq!(parse_list(value.as_bytes()), expected, "{value}");
        }
        assert_eq!(parse_one(b"abc123").as_deref(), Some("<abc123>"));
        assert_eq!(parse_one(b" "), None);
    }

    #[test]
    fn list_id_is_found_in_every_form() {
        for (value, expected) in [
            ("Rust <rust.example.org>", Some("rust.example.org")),
            ("\"a <b>\" <rust.example.org>", Some("rust.example.org")),
            ("a.b", Some("a.b")),
            ("a.b (the list)", Some("a.b")),
            ("The list a.b", Some("a.b")),
            ("no list", None),
        ] {
            assert_eq!(parse_list_id(value.as_bytes()).as_deref(), expected, "{value}");
        }
    }
}
