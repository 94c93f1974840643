//! The octets of one response as atoms, strings and lists (RFC 9051 §4), borrowed and read one after the other.
//!
//! A stream and no tree: `()()()…` would make a tree many times as large as its octets. Lists nest to a depth at which
//! the stack of whoever reads them by recursion holds; what is skipped is skipped by counting.
//!
//! Tolerant of what servers send: spaces where there should be none or several, line ends between tokens, `\*` and
//! `[Mailbox]` as atoms, any octets in strings. What has a length, a quote or a parenthesis too few is [`Malformed`].

use std::borrow::Cow;

use super::framer::literal_len;

/// Nested lists. Real mail needs ten.
pub const DEPTH_MAX: u32 = 40;

/// The octets do not go on as they should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// What stands next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token<'a> {
    /// `(`
    Open,
    /// `)`
    Close,
    /// Anything that is not in quotes and no literal; `NIL` too.
    Atom(&'a [u8]),
    /// A quoted string, without its escapes, or a literal.
    String(Cow<'a, [u8]>),
}

/// An item of FETCH: `BODY[HEADER.FIELDS (FROM)]<0>` has the name `BODY` and the section `HEADER.FIELDS (FROM)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item<'a> {
    /// As the server writes it.
    pub name: &'a [u8],
    /// What stands in brackets.
    pub section: Option<&'a [u8]>,
}

/// Reads tokens. To look ahead, clone it: it is two words and a count.
#[derive(Debug, Clone)]
pub struct Tokens<'a> {
    rest: &'a [u8],
    depth: u32,
}

impl<'a> Tokens<'a> {
    /// From the beginning of `octets`.
    pub const fn new(octets: &'a [u8]) -> Self {
        Self { rest: octets, depth: 0 }
    }

    /// What was not read, without the spaces before it.
    pub fn rest(&self) -> &'a [u8] {
        self.rest.trim_ascii_start()
    }

    /// Whether nothing follows.
    pub fn is_at_end(&self) -> bool {
        self.rest().is_empty()
    }

    /// Whether a list begins.
    pub fn is_at_open(&self) -> bool {
        self.rest().first() == Some(&b'(')
    }

    /// Whether a list ends.
    pub fn is_at_close(&self) -> bool {
        self.rest().first() == Some(&b')')
    }

    /// The next token; nothing at the end.
    ///
    /// # Errors
    /// When a string has no end, or lists nest too deep.
    pub fn next(&mut self) -> Result<Option<Token<'a>>, Malformed> {
        let token = self.scan()?;
        match token {
            Some(Token::Open) => {
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    return Err(Malformed);
                }
            }
            Some(Token::Close) => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        Ok(token)
    }

    /// Goes into a list.
    ///
    /// # Errors
    /// When there is none, or it is too deep in others.
    pub fn open(&mut self) -> Result<(), Malformed> {
        if self.is_at_open() && self.next()? == Some(Token::Open) { Ok(()) } else { Err(Malformed) }
    }

    /// Leaves a list if that is its end.
    ///
    /// # Errors
    /// When nothing follows at all: the list should have had an end.
    pub fn close(&mut self) -> Result<bool, Malformed> {
        if self.is_at_close() {
            return self.next().map(|_| true);
        }
        if self.is_at_end() { Err(Malformed) } else { Ok(false) }
    }

    /// An atom or a string; nothing for NIL.
    ///
    /// # Errors
    /// When something else follows.
    pub fn string(&mut self) -> Result<Option<Cow<'a, [u8]>>, Malformed> {
        if self.is_at_open() || self.is_at_close() {
            return Err(Malformed);
        }
        match self.next()? {
            Some(Token::Atom(atom)) if atom.eq_ignore_ascii_case(b"NIL") => Ok(None),
            Some(Token::Atom(atom)) => Ok(Some(Cow::Borrowed(atom))),
            Some(Token::String(string)) => Ok(Some(string)),
            _ => Err(Malformed),
        }
    }

    /// The same as text: what is not UTF-8 is replaced.
    ///
    /// # Errors
    /// When something else follows.
    pub fn text(&mut self) -> Result<Option<String>, Malformed> {
        Ok(self.string()?.map(|octets| lossy(&octets)))
    }

    /// The strings of a list, at most `max` of them; NIL and lists in it are passed over.
    ///
    /// # Errors
    /// When there is no list, or it does not end.
    pub fn texts(&mut self, max: usize) -> Result<Vec<String>, Malformed> {
        let mut texts = Vec::new();
        self.open()?;
        while !self.close()? {
            if self.is_at_open() || texts.len() >= max {
                self.skip()?;
            } else if let Some(text) = self.text()? {
                texts.push(text);
            }
        }
        Ok(texts)
    }

    /// A number, in quotes or not; nothing for anything else of one token.
    ///
    /// # Errors
    /// When no token follows.
    pub fn number(&mut self) -> Result<Option<u64>, Malformed> {
        Ok(self.string()?.and_then(|digits| number(&digits)))
    }

    /// Passes over one value: a token, or a list with all that is in it, however deep.
    ///
    /// # Errors
    /// When there is none, or it has no end.
    pub fn skip(&mut self) -> Result<(), Malformed> {
        let mut depth = 0_u32;
        loop {
            match self.scan()? {
                None => return Err(Malformed),
                Some(Token::Open) => depth = depth.saturating_add(1),
                Some(Token::Close) => depth = depth.checked_sub(1).ok_or(Malformed)?,
                Some(_) => {}
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// The name of an item of FETCH; nothing where there is another kind of token.
    ///
    /// # Errors
    /// When its section does not end.
    pub fn item(&mut self) -> Result<Option<Item<'a>>, Malformed> {
        let rest = self.rest();
        let end = rest.iter().position(|octet| ends_atom(*octet) || *octet == b'[').unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if name.is_empty() || matches!(name.first(), Some(b'"' | b'{' | b'~')) {
            return Ok(None);
        }
        let Some(after) = after.strip_prefix(b"[") else {
            self.rest = after;
            return Ok(Some(Item { name, section: None }));
        };
        let end = section_len(after)?;
        let section = after.get(..end).ok_or(Malformed)?;
        let after = after.get(end + 1..).unwrap_or_default();
        // `<0>`: where the octets begin. Only beginnings are ever asked for.
        self.rest = match after.strip_prefix(b"<").map(|origin| (origin, memchr::memchr(b'>', origin))) {
            Some((origin, Some(at))) => origin.get(at + 1..).unwrap_or_default(),
            _ => after,
        };
        Ok(Some(Item { name, section: Some(section) }))
    }

    /// The next token without counting how deep it is.
    fn scan(&mut self) -> Result<Option<Token<'a>>, Malformed> {
        self.rest = self.rest();
        let Some((&first, after)) = self.rest.split_first() else { return Ok(None) };
        let token = match first {
            b'(' => {
                self.rest = after;
                Token::Open
            }
            b')' => {
                self.rest = after;
                Token::Close
            }
            b'"' => {
                let (inside, after) = quoted(after)?;
                self.rest = after;
                Token::String(unescaped(inside))
            }
            _ => {
                if let Some((octets, after)) = literal(self.rest)? {
                    self.rest = after;
                    Token::String(Cow::Borrowed(octets))
                } else {
                    let end = self.rest.iter().position(|octet| ends_atom(*octet)).unwrap_or(self.rest.len());
                    let (atom, after) = self.rest.split_at(end);
                    self.rest = after;
                    Token::Atom(atom)
                }
            }
        };
        Ok(Some(token))
    }
}

fn ends_atom(octet: u8) -> bool {
    matches!(octet, b'(' | b')') || octet.is_ascii_whitespace()
}

/// Octets before the bracket that ends a section. Names of header fields in it may be strings.
fn section_len(section: &[u8]) -> Result<usize, Malformed> {
    let mut rest = section;
    loop {
        rest = match rest.first() {
            None => return Err(Malformed),
            Some(b']') => return Ok(section.len() - rest.len()),
            Some(b'"') => quoted(rest.get(1..).unwrap_or_default())?.1,
            Some(_) => match literal(rest)? {
                Some((_, after)) => after,
                None => rest.get(1..).unwrap_or_default(),
            },
        };
    }
}

/// A string, and what follows it.
type Split<'a> = (&'a [u8], &'a [u8]);

/// What stands between the quotes, and what follows; `octets` begin after the first quote.
fn quoted(octets: &[u8]) -> Result<Split<'_>, Malformed> {
    let mut end = 0;
    loop {
        end += memchr::memchr3(b'"', b'\\', b'\n', octets.get(end..).unwrap_or_default()).ok_or(Malformed)?;
        match octets.get(end) {
            Some(b'"') => break,
            // The escaped octet is part of the string, whatever it is.
            Some(b'\\') if octets.get(end + 1).is_some_and(|next| *next != b'\n') => end += 2,
            _ => return Err(Malformed),
        }
    }
    Ok((octets.get(..end).unwrap_or_default(), octets.get(end + 1..).unwrap_or_default()))
}

/// Only what must be escaped is unescaped: some servers send `C:\temp` as it is.
fn unescaped(inside: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', inside).is_none() {
        return Cow::Borrowed(inside);
    }
    let mut plain = Vec::with_capacity(inside.len());
    let mut rest = inside.iter().copied().peekable();
    while let Some(octet) = rest.next() {
        if octet == b'\\'
            && let Some(escaped) = rest.next_if(|next| matches!(next, b'"' | b'\\'))
        {
            plain.push(escaped);
        } else {
            plain.push(octet);
        }
    }
    Cow::Owned(plain)
}

/// A literal and what follows; nothing if what begins here is none.
fn literal(octets: &[u8]) -> Result<Option<Split<'_>>, Malformed> {
    let Some(announced) = octets.strip_prefix(b"~").unwrap_or(octets).strip_prefix(b"{") else { return Ok(None) };
    let digits = announced.iter().take_while(|octet| octet.is_ascii_digit() || **octet == b'+').count();
    let (digits, after) = announced.split_at(digits);
    let after = after.strip_prefix(b"}");
    let after = after.and_then(|after| after.strip_prefix(b"\r\n").or_else(|| after.strip_prefix(b"\n")));
    let (Some(len), Some(after)) = (literal_len(digits), after) else { return Ok(None) };
    let len = usize::try_from(len).map_err(|_| Malformed)?;
    after.split_at_checked(len).map(Some).ok_or(Malformed)
}

/// A number of digits alone.
pub fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

/// A number that is a UID or a sequence number.
pub fn nonzero(digits: &[u8]) -> Option<u32> {
    number(digits).and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0)
}

/// Octets as text.
pub fn lossy(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// The first `chars_max` characters of what may be long.
pub fn bounded(octets: &[u8], chars_max: usize) -> String {
    // No character takes more than four octets.
    let octets = octets.get(..chars_max * 4).unwrap_or(octets);
    String::from_utf8_lossy(octets).chars().take(chars_max).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(octets: &[u8]) -> Result<Vec<Token<'_>>, Malformed> {
        let (mut tokens, mut all) = (Tokens::new(octets), Vec::new());
        while let Some(token) = tokens.next()? {
            all.push(token);
        }
        Ok(all)
    }

    fn atom(text: &str) -> Token<'_> {
        Token::Atom(text.as_bytes())
    }

    fn string(text: &str) -> Token<'_> {
        Token::String(Cow::Borrowed(text.as_bytes()))
    }

    #[test]
    fn tokens_are_told_apart() {
        assert_eq!(
            all(b"(\\* [Gmail]/x +IMNews  NIL)\"a b\"{3}\r\n)\r\n~{2}\n\0\"7 a\"b").unwrap(),
            [
                Token::Open,
                atom("\\*"),
                atom("[Gmail]/x"),
                atom("+IMNews"),
                atom("NIL"),
                Token::Close,
                string("a b"),
                string(")\r\n"),
                string("\0\""),
                atom("7"),
                atom("a\"b"),
            ]
        );
    }

    #[test]
    fn escapes_are_undone_and_what_is_none_stays() {
        assert_eq!(all(br#""a \"b\" \\ C:\temp""#).unwrap(), [string(r#"a "b" \ C:\temp"#)]);
        assert_eq!(all(br#""""\\""#).unwrap(), [string(""), string("\\")]);
    }

    #[test]
    fn what_has_no_end_is_malformed() {
        for octets in [&b"\"abc"[..], b"\"abc\\", b"\"abc\r\n\"", b"{5}\r\nabc", b"{99999999999999999999999}\r\na"] {
            assert_eq!(all(octets), Err(Malformed), "{}", lossy(octets));
        }
        assert_eq!(all(b"{5} {x}").unwrap(), [atom("{5}"), atom("{x}")], "no literals");
        assert_eq!(Tokens::new(b"(a (b)").skip(), Err(Malformed));
        assert_eq!(Tokens::new(b")").skip(), Err(Malformed));
    }

    #[test]
    fn lists_nest_to_a_depth_and_are_passed_over_at_any() {
        let nested = |depth: usize| [b"(".repeat(depth), b")".repeat(depth), b" next".to_vec()].concat();
        assert!(all(&nested(DEPTH_MAX as usize)).is_ok());
        assert_eq!(all(&nested(DEPTH_MAX as usize + 1)), Err(Malformed));
        let deep = nested(100_000);
        let mut tokens = Tokens::new(&deep);
        assert_eq!(tokens.skip(), Ok(()));
        assert_eq!(tokens.next(), Ok(Some(atom("next"))));
    }

    #[test]
    fn items_have_sections() {
        let octets = b"UID 4 BODY[HEADER.FIELDS (\"X-]\" {2}\r\n]] FROM)]<0> NIL BODY[]{1}\r\nx BODY[1 ";
        let mut tokens = Tokens::new(octets);
        let mut items = Vec::new();
        while let Ok(Some(item)) = tokens.item() {
            items.push((lossy(item.name), item.section.map(lossy)));
            tokens.skip().unwrap();
        }
        let expected = [
            ("UID".to_owned(), None),
            ("BODY".to_owned(), Some("HEADER.FIELDS (\"X-]\" {2}\r\n]] FROM)".to_owned())),
            ("BODY".to_owned(), Some(String::new())),
        ];
        assert_eq!(items, expected, "and the last one does not end");
    }

    #[test]
    fn text_is_cut_at_characters() {
        assert_eq!(bounded("äöü".as_bytes(), 2), "äö");
        assert_eq!(bounded(&b"\xff".repeat(9), 2), "\u{fffd}\u{fffd}");
    }

    proptest! {
        #[test]
        fn a_string_survives_in_either_form(text in any::<String>()) {
            prop_assume!(!text.contains('\n'));
            let quoted = super::super::command::quoted(&text);
            let literal = format!("{{{}}}\r\n{text}", text.len());
            for form in [quoted, literal] {
                let mut tokens = Tokens::new(form.as_bytes());
                prop_assert_eq!(tokens.text(), Ok(Some(text.clone())));
                prop_assert!(tokens.is_at_end());
            }
        }
    }
}
