//! Reverse-path and forward-path: the addresses of MAIL and RCPT (RFC 5321 §4.1.2, RFC 6531 §3.3).
//!
//! A path is parsed once and stays what it is: the text as the peer wrote it, for the event's envelope, and the
//! place of the `@` that separates local part and domain. A quoted local part may hold an `@` of its own, so
//! nobody else looks for it.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest path that is taken. RFC 5321 §4.5.3.1.3 promises 256 octets; reverse-paths that encode a recipient (VERP,
/// SRS) are longer in real mail.
const PATH_BYTES_MAX: usize = 512;
/// Longest label of a domain (RFC 1035 §2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// One address of the envelope. Only `Postmaster` has no domain (RFC 5321 §4.5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    text: Box<str>,
    local_len: usize,
}

impl Path {
    /// Parses an address without its angle brackets, all of it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(Self::parse_prefix(text)?).filter(|path| path.text.len() == text.len())
    }

    /// Parses the address that `text` begins with; what ends it is left to the caller.
    fn parse_prefix(text: &str) -> Option<Self> {
        let local_len = local_part_len(text)?;
        let (local, rest) = text.split_at(local_len);
        let len = match rest.strip_prefix('@') {
            Some(domain) => local_len + 1 + domain_len(domain)?,
            None if local.eq_ignore_ascii_case("postmaster") => local_len,
            None => return None,
        };
        let text = text.get(..len).filter(|text| text.len() <= PATH_BYTES_MAX)?;
        Some(Self { text: text.into(), local_len })
    }

    /// The one address without a domain.
    pub(crate) fn postmaster() -> Self {
        let text = "postmaster";
        Self { text: text.into(), local_len: text.len() }
    }

    /// The address as the peer wrote it.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The local part without quoting: `"a b"@x` and `a\ b` name the same (RFC 5321 §4.1.2).
    pub(crate) fn local(&self) -> Cow<'_, str> {
        let local = self.text.get(..self.local_len).unwrap_or_default();
        let Some(quoted) = local.strip_prefix('"') else { return Cow::Borrowed(local) };
        let mut plain = String::with_capacity(quoted.len());
        let mut characters = quoted.strip_suffix('"').unwrap_or(quoted).chars();
        while let Some(character) = characters.next() {
            plain.extend(if character == '\\' { characters.next() } else { Some(character) });
        }
        Cow::Owned(plain)
    }

    /// The domain or address literal.
    pub(crate) fn domain(&self) -> Option<&str> {
        self.text.get(self.local_len + 1..)
    }

    /// Whether it needs SMTPUTF8 (RFC 6531 §3.2).
    pub(crate) fn is_internationalized(&self) -> bool {
        !self.text.is_ascii()
    }
}

/// Parses `<…>` at the start of a MAIL or RCPT argument and gives the rest; no path at all is the null path `<>`.
pub(crate) fn bracketed(argument: &str) -> Option<(Option<Path>, &str)> {
    let inner = argument.strip_prefix('<')?;
    let (path, rest) = if let Some(rest) = inner.strip_prefix('>') {
        (None, rest)
    } else {
        let address = skip_source_route(inner)?;
        let path = Path::parse_prefix(address)?;
        let rest = address.get(path.text.len()..)?.strip_prefix('>')?;
        (Some(path), rest)
    };
    (rest.is_empty() || rest.starts_with(' ')).then_some((path, rest))
}

/// A source route must be taken and should be ignored (RFC 5321 §4.1.2, appendix C).
fn skip_source_route(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some(domain) = rest.strip_prefix('@') {
        let after = domain.get(domain_len(domain)?..)?;
        match after.strip_prefix(',') {
            Some(next) if next.starts_with('@') => rest = next,
            _ => return after.strip_prefix(':'),
        }
    }
    Some(rest)
}

/// The octets of the local part that `text` begins with: Dot-string or Quoted-string.
fn local_part_len(text: &str) -> Option<usize> {
    if let Some(quoted) = text.strip_prefix('"') {
        let mut escaped = false;
        for (at, character) in quoted.char_indices() {
            match character {
                _ if character.is_control() => return None,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return Some(at + 2),
                _ => {}
            }
        }
        return None;
    }
    let len = text.find(|c| !is_atext(c) && c != '.').unwrap_or(text.len());
    text.get(..len)?.split('.').all(|atom| !atom.is_empty()).then_some(len)
}

fn is_atext(character: char) -> bool {
    match character {
        _ if character.is_ascii() => character.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(character),
        _ => !character.is_control(),
    }
}

/// The octets of the domain or address literal that `text` begins with.
fn domain_len(text: &str) -> Option<usize> {
    if let Some(literal) = text.strip_prefix('[') {
        let len = literal.find(']')?;
        return is_address_literal(literal.get(..len)?).then_some(len + 2);
    }
    // The underscore is not allowed in a host name, yet hosts announce themselves with it.
    let in_domain = |c: char| matches!(c, '-' | '.' | '_') || c.is_ascii_alphanumeric() || !c.is_ascii();
    let len = text.find(|c| !in_domain(c)).unwrap_or(text.len());
    text.get(..len)?.split('.').all(is_label).then_some(len)
}

fn is_label(label: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && !label.chars().any(char::is_control)
}

/// RFC 5321 §4.1.3, without the brackets.
fn is_address_literal(literal: &str) -> bool {
    match literal.split_once(':') {
        None => literal.parse::<Ipv4Addr>().is_ok(),
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6") => address.parse::<Ipv6Addr>().is_ok(),
        Some((tag, content)) => {
            let printable = |b: u8| b.is_ascii_graphic() && !b"[]\\".contains(&b);
            is_label(tag) && !content.is_empty() && literal.bytes().all(printable)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(argument: &str) -> Path {
        bracketed(argument).and_then(|(path, _)| path).unwrap_or_else(|| panic!("{argument} is a path"))
    }

    #[test]
    fn paths_of_the_standard_are_taken() {
        assert_eq!(bracketed("<>"), Some((None, "")));
        let plain = path("<alice+lists/rust@mail.example.org>");
        assert_eq!((&*plain.local(), plain.domain()), ("alice+lists/rust", Some("mail.example.org")));
        assert_eq!(path("<@a.example,@b.example:alice@example.org>").as_str(), "alice@example.org");
        assert_eq!(path("<PostMaster>").domain(), None);
        assert_eq!(path("<a@[192.0.2.1]>").domain(), Some("[192.0.2.1]"));
        assert_eq!(path("<a@[IPv6:2001:db8::1]>").domain(), Some("[IPv6:2001:db8::1]"));
        assert!(path("<grüße@exämple.org>").is_internationalized());
        let long = format!("<{}@{}.org>", "l".repeat(64), ["d".repeat(60), "e".repeat(60), "f".repeat(60)].join("."));
        assert!(long.len() > 250 && bracketed(&long).is_some());
        assert_eq!(bracketed("<a@b> SIZE=1").map(|(_, rest)| rest), Some(" SIZE=1"));
    }

    #[test]
    fn quoting_is_undone_and_cannot_move_the_domain() {
        let quoted = path(r#"<"a b\"c>d"@x.example>"#);
        assert_eq!((&*quoted.local(), quoted.domain()), (r#"a b"c>d"#, Some("x.example")));
        let with_at = path(r#"<"alice@example.org"@evil.example>"#);
        assert_eq!((&*with_at.local(), with_at.domain()), ("alice@example.org", Some("evil.example")));
        assert_eq!(with_at.as_str(), r#""alice@example.org"@evil.example"#);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for wrong in [
            "",
            "a@b",
            "<a@b",
            "<a@b>x",
            "<<a@b>>",
            "<a@>",
            "<@b>",
            "<a>",
            "<a b@c>",
            "<.a@b>",
            "<a.@b>",
            "<a..b@c>",
            "<a@b..c>",
            "<a@.b>",
            "<a@b.>",
            "<a@-b>",
            "<a@b->",
            "<a@b@c>",
            "<\"a@b>",
            "<\"a\"b@c>",
            "<a@[1.2.3]>",
            "<a@[]>",
            "<a@[IPv6:x]>",
            "<a\x1b@b>",
            "<a\t@b>",
            "<\"a\u{7}\"@b>",
            "<a@b,c>",
            "<@x:>",
            "<@x,a@b>",
            "<\"\\\"@b>",
        ] {
            assert_eq!(bracketed(wrong), None, "{wrong:?}");
        }
        assert_eq!(bracketed(&format!("<{}@b>", "a".repeat(600))), None);
        assert_eq!(Path::parse("a@b c"), None);
    }

    proptest! {
        #[test]
        fn a_quoted_local_part_survives(local in "[ -~]{0,30}") {
            let quoted: String = local.chars().flat_map(|c| ['\\', c]).collect();
            let argument = format!("<\"{quoted}\"@example.org>");
            let (parsed, rest) = bracketed(&argument).unwrap();
            let parsed = parsed.unwrap();
            prop_assert_eq!((parsed.local(), rest), (Cow::from(local), ""));
        }

        #[test]
        fn no_text_panics(text in "[<>@:,.\"\\\\\\[\\] a-cäIPv6+0-9-]{0,40}|\\PC{0,40}") {
            if let Some((Some(path), _)) = bracketed(&text) {
                prop_assert!(text.contains(path.as_str()));
                prop_assert!(!path.local().chars().any(char::is_control));
            }
        }
    }
}
