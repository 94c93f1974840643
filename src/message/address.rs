//! Address lists (RFC 5322 §3.4), as they are met: empty elements, groups, names in comments, missing brackets.
//!
//! One pass without recursion. What is no address at all is kept as a name, since a notification that says who wrote
//! is worth more than a strict one.

use crate::{
    event::{Address, Defect},
    message::{charset, defects::Defects, encoded_word, header, printable},
};

/// Longest display name, in characters.
const NAME_CHARS_MAX: usize = 200;

/// Longest address, in octets. RFC 5321 §4.5.3.1.3 allows 256; a longer one is dropped, for a cut one is another's.
const ADDRESS_BYTES_MAX: usize = 512;

/// How far an encoded word inside a list is followed, so that a comma in it does not end the element.
const WORD_BYTES_MAX: usize = 1_000;

/// Reads the first `max` addresses of a raw field value.
pub(super) fn parse_list(value: &[u8], max: usize) -> Vec<Address> {
    parse_list_noting(value, max, &mut Defects::default())
}

/// [`parse_list`], which notes what is wrong with the list.
pub(super) fn parse_list_noting(value: &[u8], max: usize, defects: &mut Defects) -> Vec<Address> {
    let value = header::unfold(value);
    let mut lexer = Lexer { rest: &value, quotes: true, comments: true, open_angle: false };
    let mut found = Vec::new();
    let mut element = Element::default();
    while found.len() < max {
        match lexer.next() {
            Some(Token::Comma | Token::Semicolon) => found.extend(std::mem::take(&mut element).finish(defects)),
            // `Group: a@b, c@d;` (RFC 5322 §3.4): the group's name is nobody's.
            Some(Token::Colon) if element.is_group_name() => element = Element::default(),
            Some(token) => element.add(&token),
            None => {
                found.extend(element.finish(defects));
                break;
            }
        }
    }
    defects.note_if(!lexer.quotes || !lexer.comments || lexer.open_angle, Defect::AddressInvalid);
    found
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Comma,
    Semicolon,
    Colon,
    Space,
    /// Without its quotes, still escaped.
    Quoted(&'a [u8]),
    /// Without its parentheses, still escaped.
    Comment(&'a [u8]),
    /// Without its brackets.
    Angle(&'a [u8]),
    Text(&'a [u8]),
}

struct Lexer<'a> {
    rest: &'a [u8],
    /// False once a quote, or comment, was found to be unclosed: the rest is searched once, not once per opening
    /// character.
    quotes: bool,
    comments: bool,
    /// Once a bracket was found to be unclosed.
    open_angle: bool,
}

impl<'a> Lexer<'a> {
    fn split(&mut self, len: usize) -> &'a [u8] {
        let (head, tail) = self.rest.split_at_checked(len).unwrap_or((self.rest, &[]));
        self.rest = tail;
        head
    }

    /// Takes what lies between the current character and the one at `close`.
    fn enclosed(&mut self, close: usize) -> &'a [u8] {
        let whole = self.split(close.saturating_add(1));
        whole.get(1..close).unwrap_or_default()
    }

    fn next(&mut self) -> Option<Token<'a>> {
        let token = match self.rest.first()? {
            b',' => Token::Comma,
            b';' => Token::Semicolon,
            b':' => Token::Colon,
            b'"' => {
                if let Some(close) = self.quotes.then(|| quote_end(self.rest)).flatten() {
                    return Some(Token::Quoted(self.enclosed(close)));
                }
                self.quotes = false;
                Token::Space
            }
            b'(' => {
                if let Some(close) = self.comments.then(|| comment_end(self.rest)).flatten() {
                    return Some(Token::Comment(self.enclosed(close)));
                }
                self.comments = false;
                Token::Space
            }
            b'<' => return Some(self.angle()),
            b'>' | b')' => Token::Space,
            byte if byte.is_ascii_whitespace() => Token::Space,
            _ => return Some(self.text()),
        };
        self.split(1);
        Some(token)
    }

    /// An address in brackets, which a comma, semicolon or the end closes where its own bracket is missing.
    fn angle(&mut self) -> Token<'a> {
        let route = self.rest.starts_with(b"<@");
        let mut quoted = false;
        for (at, byte) in self.rest.iter().enumerate().skip(1) {
            match byte {
                b'"' => quoted = !quoted,
                b'>' if !quoted => return Token::Angle(self.enclosed(at)),
                b'<' if !quoted => {
                    self.open_angle = true;
                    self.split(at);
                    return Token::Space;
                }
                b',' | b';' if !quoted && !route => {
                    self.open_angle = true;
                    return Token::Angle(self.split(at).get(1..).unwrap_or_default());
                }
                _ => {}
            }
        }
        self.open_angle = true;
        Token::Angle(self.split(self.rest.len()).get(1..).unwrap_or_default())
    }

    fn text(&mut self) -> Token<'a> {
        if self.rest.starts_with(b"=?") {
            let window = self.rest.get(..WORD_BYTES_MAX).unwrap_or(self.rest);
            if let Some(len) = encoded_word::word_len(window) {
                return Token::Text(self.split(len));
            }
        }
        let is_special = |byte: &u8| byte.is_ascii_whitespace() || b",;:\"(<>)".contains(byte);
        let len = self.rest.iter().position(is_special).unwrap_or(self.rest.len());
        Token::Text(self.split(len))
    }
}

/// Index of the quote that closes the one at 0.
fn quote_end(octets: &[u8]) -> Option<usize> {
    let mut escaped = false;
    let end = octets.iter().skip(1).position(|&byte| is_plain(byte, &mut escaped) && byte == b'"')?;
    end.checked_add(1)
}

/// Index of the parenthesis that closes the one at 0; comments nest.
pub(super) fn comment_end(octets: &[u8]) -> Option<usize> {
    let mut escaped = false;
    let mut depth = 0_usize;
    octets.iter().position(|&byte| {
        match (is_plain(byte, &mut escaped), byte) {
            (true, b'(') => depth = depth.saturating_add(1),
            (true, b')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0
    })
}

/// Whether no backslash precedes `byte`; keeps track of backslashes.
fn is_plain(byte: u8, escaped: &mut bool) -> bool {
    let was_escaped = std::mem::replace(escaped, byte == b'\\' && !*escaped);
    !was_escaped
}

/// Undoes quoted pairs (RFC 5322 §3.2.1).
fn unescape(octets: &[u8]) -> Vec<u8> {
    let mut escaped = false;
    octets
        .iter()
        .copied()
        .filter(|&byte| {
            escaped = byte == b'\\' && !escaped;
            !escaped
        })
        .collect()
}

/// What blanks separate: as written, for an address, and without quotes, for a name.
#[derive(Default)]
struct Word {
    written: Vec<u8>,
    shown: Vec<u8>,
    has_at: bool,
}

/// One element of the list while it is read.
#[derive(Default)]
struct Element {
    words: Vec<Word>,
    in_word: bool,
    comment: Vec<u8>,
    angle: Option<Vec<u8>>,
}

impl Element {
    fn is_group_name(&self) -> bool {
        self.angle.is_none() && !self.words.iter().any(|word| word.has_at)
    }

    fn add(&mut self, token: &Token<'_>) {
        match *token {
            Token::Quoted(quoted) => {
                let word = self.word();
                word.written.push(b'"');
                word.written.extend_from_slice(quoted);
                word.written.push(b'"');
                word.shown.extend(unescape(quoted));
            }
            Token::Comment(comment) => {
                if self.comment.is_empty() {
                    self.comment = unescape(comment);
                }
            }
            Token::Angle(angle) => {
                self.angle.get_or_insert_with(|| angle.to_vec());
                self.in_word = false;
            }
            Token::Space => self.in_word = false,
            Token::Text(text) => self.text(text),
            Token::Comma => self.text(b","),
            Token::Semicolon => self.text(b";"),
            Token::Colon => self.text(b":"),
        }
    }

    fn text(&mut self, text: &[u8]) {
        let word = self.word();
        word.written.extend_from_slice(text);
        word.shown.extend_from_slice(text);
        word.has_at |= text.contains(&b'@') && !text.starts_with(b"=?");
    }

    fn word(&mut self) -> &mut Word {
        if !self.in_word || self.words.is_empty() {
            self.in_word = true;
            self.words.push(Word::default());
        }
        let last = self.words.len().saturating_sub(1);
        #[expect(clippy::indexing_slicing, reason = "a word was pushed above where there was none")]
        &mut self.words[last]
    }

    fn finish(self, defects: &mut Defects) -> Option<Address> {
        let is_empty = self.words.is_empty() && self.angle.is_none() && self.comment.is_empty();
        let element = self.read(defects);
        let is_address = element.as_ref().is_some_and(|found| found.address.contains('@'));
        defects.note_if(!is_empty && !is_address, Defect::AddressInvalid);
        element
    }

    fn read(mut self, defects: &mut Defects) -> Option<Address> {
        let address = if let Some(angle) = self.angle.take() {
            clean_address(&angle)?
        } else if let Some(at) = self.words.iter().position(|word| word.has_at) {
            clean_address(&self.words.remove(at).written)?
        } else {
            // `MAILER-DAEMON`, or a local user.
            match self.words.as_slice() {
                [word] if !word.shown.starts_with(b"=?") => {
                    let address = clean_address(&word.shown)?;
                    self.words.clear();
                    address
                }
                _ => String::new(),
            }
        };
        let phrase: Vec<&[u8]> = self.words.iter().map(|word| word.shown.as_slice()).collect();
        let name = name(&phrase.join(&b' '), defects).or_else(|| name(&self.comment, defects));
        (name.is_some() || !address.is_empty()).then_some(Address { name, address })
    }
}

fn name(raw: &[u8], defects: &mut Defects) -> Option<String> {
    let name = printable::line(&encoded_word::decode_noting(raw, defects));
    printable::non_empty(printable::cut_chars(name, NAME_CHARS_MAX))
}

/// None where it is too long to be one.
fn clean_address(raw: &[u8]) -> Option<String> {
    // A source route (RFC 5322 §4.4) says how mail once travelled, not to whom.
    let colon = raw.iter().rposition(|&byte| byte == b':').filter(|_| raw.starts_with(b"@"));
    let raw = colon.and_then(|colon| raw.get(colon.saturating_add(1)..)).unwrap_or(raw);
    if raw.len() > ADDRESS_BYTES_MAX {
        return None;
    }
    let mut address = printable::line(&charset::decode(raw, None));
    if !address.contains('"') {
        address.retain(|c| !c.is_whitespace());
    }
    Some(address)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(value: &[u8]) -> Vec<String> {
        parse_list(value, 20).iter().map(|a| format!("{}|{}", a.name.as_deref().unwrap_or("-"), a.address)).collect()
    }

    #[test]
    fn hard_lists_are_read() {
        for (value, expected) in [
            ("Ada <ada@x>", &["Ada|ada@x"][..]),
            ("a@x,,c@x", &["-|a@x", "-|c@x"]),
            (", ,", &[]),
            ("Team: a@x, B <b@x>;, c@x", &["-|a@x", "B|b@x", "-|c@x"]),
            ("undisclosed-recipients:;", &[]),
            ("a@b (Name)", &["Name|a@b"]),
            ("a@b (N (nested) \\) x)", &["N (nested) ) x|a@b"]),
            ("\"a b\"@c", &["-|\"a b\"@c"]),
            ("\"x, y\" <\"a>b\"@c>", &["x, y|\"a>b\"@c"]),
            ("MAILER-DAEMON (x)", &["x|MAILER-DAEMON"]),
            ("Ada <ada@x", &["Ada|ada@x"]),
            ("Ada <ada@x, b@y", &["Ada|ada@x", "-|b@y"]),
            ("<<ada@x>>", &["-|ada@x"]),
            ("Ada Lovelace ada@x", &["Ada Lovelace|ada@x"]),
            ("\"Ada <ada@x>", &["Ada|ada@x"]),
            ("\"Lovelace\\, \\\"A\\\"\" <a@x>", &["Lovelace, \"A\"|a@x"]),
            ("=?utf-8?Q?Gr=C3=BC,_x?= <a@x>", &["Grü, x|a@x"]),
            ("=?utf-8?Q?G,r?= =?utf-8?Q?=C3=BC?= <a@x>", &["G,rü|a@x"]),
            ("\"=?utf-8?Q?Gr=C3=BC?=\" <a@x>", &["Grü|a@x"]),
            ("<@r,@s:a@x>, b@y; c@z", &["-|a@x", "-|b@y", "-|c@z"]),
            ("a@[IPv6:::1]", &["-|a@[IPv6:::1]"]),
            ("Ada <>", &["Ada|"]),
            ("<>", &[]),
            ("(only", &["-|only"]),
            ("Grü\u{7} <ü@x>", &["Grü|ü@x"]),
        ] {
            assert_eq!(shown(value.as_bytes()), expected, "{value}");
        }
        assert_eq!(shown(b"Gr\xfc <a@x>"), ["Grü|a@x"]);
    }

    #[test]
    fn lists_and_addresses_are_bounded() {
        assert_eq!(parse_list("a@x,".repeat(100).as_bytes(), 20).len(), 20);
        assert_eq!(shown(format!("{}@x, b@y", "a".repeat(1_000)).as_bytes()), ["-|b@y"]);
    }

    /// A megabyte of each; anything quadratic would not end.
    #[test]
    fn bombs_take_linear_time() {
        for unit in ["(", "\"", "<", ",", "a ", "a:", "(\"<", "=?utf-8?Q?", "\\(", "<@", "<\""] {
            parse_list(unit.repeat(1_000_000 / unit.len()).as_bytes(), usize::MAX);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(value in "[a@<>()\",;: =?\\\\ü]{0,60}", max in 0..5_usize) {
            prop_assert!(parse_list(value.as_bytes(), max).len() <= max);
        }
    }
}
