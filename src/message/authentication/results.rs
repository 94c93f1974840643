//! Reads one `Authentication-Results` field (RFC 8601 §2.2).
//!
//! One pass without recursion, bounded in what it keeps. It stands on nothing else, so that it can be fuzzed alone. What
//! is wrong in one result leaves the others as they are: a result that cannot be read is one that is not there. Whether
//! its writer may be believed is the caller's question.

/// How much of a field is read, in octets; Postfix's `header_size_limit`.
const FIELD_BYTES_MAX: usize = 102_400;

/// Results of one field.
const RESULTS_MAX: usize = 32;

/// Properties, and comments, of one result.
const PROPERTIES_MAX: usize = 16;

/// Longest value that is kept, in octets; a longer one is dropped, for a cut one is another.
const VALUE_BYTES_MAX: usize = 512;

/// What one server says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthenticationResults {
    /// What the server calls itself.
    pub authserv_id: String,
    /// What it found.
    pub results: Vec<MethodResult>,
}

/// What one method found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MethodResult {
    /// `spf`, `dkim`, …, in lower case.
    pub method: String,
    /// A keyword, in lower case.
    pub result: String,
    /// What was looked at: `smtp.mailfrom` and the like, in lower case, with the value as written.
    pub properties: Vec<(String, String)>,
    /// What is written for people.
    pub comments: Vec<String>,
}

impl MethodResult {
    /// The value of the first property of this name.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|(property, _)| property == name).map(|(_, value)| value.as_str())
    }
}

/// Reads the field's value, folded or not. None where nobody says it, or in a version that is not known (RFC 8601 §2.5).
pub fn parse(value: &[u8]) -> Option<AuthenticationResults> {
    let mut lexer = Lexer { rest: value.get(..FIELD_BYTES_MAX).unwrap_or(value), comments: Vec::new() };
    lexer.blanks();
    let authserv_id = lexer.value().filter(|id| !id.is_empty())?;
    lexer.blanks();
    let version = lexer.word(b";");
    if !version.is_empty() && version != b"1" {
        return None;
    }
    let mut results = Vec::new();
    while results.len() < RESULTS_MAX && lexer.skip_past(b';') {
        results.extend(lexer.result());
    }
    Some(AuthenticationResults { authserv_id, results })
}

/// What is left of the field.
struct Lexer<'a> {
    rest: &'a [u8],
    /// Those of the result that is being read.
    comments: Vec<String>,
}

impl<'a> Lexer<'a> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn take(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn take_if(&mut self, wanted: u8) -> bool {
        let is_next = self.peek() == Some(wanted);
        if is_next {
            self.take();
        }
        is_next
    }

    /// White space and comments (CFWS, RFC 5322 §3.2.2).
    fn blanks(&mut self) {
        while let Some(next) = self.peek() {
            match next {
                b'(' => self.comment(),
                _ if next.is_ascii_whitespace() => drop(self.take()),
                _ => break,
            }
        }
    }

    /// A comment, with those in it. One without an end is the rest.
    fn comment(&mut self) {
        let mut text = Vec::new();
        let mut depth = 0_usize;
        while let Some(byte) = self.take() {
            match byte {
                b'(' => depth = depth.saturating_add(1),
                b')' if depth <= 1 => break,
                b')' => depth = depth.saturating_sub(1),
                b'\\' => text.extend(self.take()),
                _ => text.push(byte),
            }
        }
        if self.comments.len() < PROPERTIES_MAX {
            self.comments.extend(kept(&text));
        }
    }

    /// Up to a blank, a comment, a quote, or one of `ends`. May be empty.
    fn word(&mut self, ends: &[u8]) -> &'a [u8] {
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'(' | b'"') || ends.contains(byte);
        let end = self.rest.iter().position(is_end).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, &[]));
        self.rest = rest;
        word
    }

    /// A word or a quoted string, or both in one as in `"a b"@example.org`.
    fn value(&mut self) -> Option<String> {
        let mut value = self.word(b";").to_vec();
        while self.take_if(b'"') {
            self.rest_of_quoted(&mut value);
            value.extend_from_slice(self.word(b";"));
        }
        kept(&value)
    }

    /// Up to and with the quote that ends a quoted string. One without an end is the rest.
    fn rest_of_quoted(&mut self, value: &mut Vec<u8>) {
        while let Some(byte) = self.take().filter(|&byte| byte != b'"') {
            value.extend(if byte == b'\\' { self.take() } else { Some(byte) });
        }
    }

    /// Goes on behind the next `end` that is neither quoted nor in a comment. False where there is none.
    fn skip_past(&mut self, end: u8) -> bool {
        loop {
            self.blanks();
            self.word(&[end]);
            match self.peek() {
                None => return false,
                Some(byte) if byte == end => return self.take_if(end),
                // A quoted string, of which nothing is wanted.
                Some(b'"') => drop(self.value()),
                Some(_) => {}
            }
        }
    }

    /// `method=result reason="…" ptype.property=value …`, up to the next semicolon. None for `none`, and for what is
    /// none of these.
    fn result(&mut self) -> Option<MethodResult> {
        self.comments.clear();
        let (method, result) = self.pair(b"=/;")?;
        let mut properties = Vec::new();
        loop {
            self.blanks();
            if matches!(self.peek(), None | Some(b';')) {
                let comments = std::mem::take(&mut self.comments);
                return Some(MethodResult { method, result: result.to_ascii_lowercase(), properties, comments });
            }
            let before = self.rest.len();
            let found = self.pair(b"=;");
            properties.extend(found.filter(|_| properties.len() < PROPERTIES_MAX));
            if self.rest.len() == before {
                // A quoted string, or a sign, that belongs to nothing.
                let sign = self.take().filter(|&byte| byte != b'"');
                if sign.is_none() {
                    self.rest_of_quoted(&mut Vec::new());
                }
            }
        }
    }

    /// `name=value` with blanks and comments anywhere between, the name in lower case without them; what a method's
    /// version is (`dkim/1`) is passed over.
    fn pair(&mut self, ends: &[u8]) -> Option<(String, String)> {
        let mut name = Vec::new();
        loop {
            self.blanks();
            let word = self.word(ends);
            name.extend_from_slice(word);
            self.blanks();
            // Only around the dot may the name be in pieces (RFC 8601 §2.2).
            let goes_on = name.ends_with(b".") || self.peek() == Some(b'.');
            if !goes_on || word.is_empty() {
                break;
            }
        }
        if ends.contains(&b'/') && self.take_if(b'/') {
            self.blanks();
            self.word(ends);
            self.blanks();
        }
        if name.is_empty() || !self.take_if(b'=') {
            return None;
        }
        self.blanks();
        let value = self.value()?;
        Some((kept(&name)?.to_ascii_lowercase(), value))
    }
}

/// As text, unless it is too long.
fn kept(value: &[u8]) -> Option<String> {
    (value.len() <= VALUE_BYTES_MAX).then(|| String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(value: &str) -> Option<String> {
        use std::fmt::Write;
        let parsed = parse(value.as_bytes())?;
        let mut text = parsed.authserv_id;
        for result in parsed.results {
            write!(text, " | {}={}", result.method, result.result).unwrap();
            for (name, value) in result.properties {
                write!(text, " {name}=<{value}>").unwrap();
            }
            for comment in result.comments {
                write!(text, " ({comment})").unwrap();
            }
        }
        Some(text)
    }

    /// The examples of RFC 8601, appendix B.
    #[test]
    fn the_standards_examples_are_read() {
        for (field, expected) in [
            ("example.org 1; none", "example.org"),
            (
                "example.com;\r\n          spf=pass smtp.mailfrom=example.net",
                "example.com | spf=pass smtp.mailfrom=<example.net>",
            ),
            (
                "example.com;\r\n          auth=pass (cram-md5) smtp.auth=sender@example.net;\r\n          \
                 spf=pass smtp.mailfrom=example.net",
                "example.com | auth=pass smtp.auth=<sender@example.net> (cram-md5) | spf=pass \
                 smtp.mailfrom=<example.net>",
            ),
            (
                "example.com; iprev=pass\r\n policy.iprev=192.0.2.200",
                "example.com | iprev=pass policy.iprev=<192.0.2.200>",
            ),
            (
                "example.com;\r\n dkim=pass (good signature) header.d=example.com",
                "example.com | dkim=pass header.d=<example.com> (good signature)",
            ),
            (
                "example.net;\r\n      dkim=pass reason=\"good signature\"\r\n        \
                 header.i=@mail-router.example.net;\r\n      dkim=fail reason=\"bad signature\"\r\n        \
                 header.i=@newyork.example.com",
                "example.net | dkim=pass reason=<good signature> header.i=<@mail-router.example.net> | dkim=fail \
                 reason=<bad signature> header.i=<@newyork.example.com>",
            ),
            (
                "foo.example.net (foobar) 1 (baz);\r\n      dkim (Because I like it) / 1 (One yay) = (wait for it) \
                 fail\r\n        policy (A dot can go here) . (like that) expired\r\n        (this surprised me) = \
                 (as I wasn't expecting it) 1362471462",
                "foo.example.net | dkim=fail policy.expired=<1362471462> (Because I like it) (One yay) (wait for it) \
                 (A dot can go here) (like that) (this surprised me) (as I wasn't expecting it)",
            ),
        ] {
            assert_eq!(shown(field).as_deref(), Some(expected), "{field}");
        }
    }

    /// As OpenDKIM, OpenDMARC, Rspamd, Google and Microsoft write.
    #[test]
    fn what_servers_write_is_read() {
        for (field, expected) in [
            (
                "mail.example.org; dmarc=fail (p=reject dis=none) header.from=example.com",
                "mail.example.org | dmarc=fail header.from=<example.com> (p=reject dis=none)",
            ),
            (
                "mx;\r\n\tdkim=pass (2048-bit key; unprotected) header.d=a.example header.i=@a.example \
                 header.a=rsa-sha256 header.s=s1 header.b=abc/+1=",
                "mx | dkim=pass header.d=<a.example> header.i=<@a.example> header.a=<rsa-sha256> header.s=<s1> \
                 header.b=<abc/+1=> (2048-bit key; unprotected)",
            ),
            ("\"mx one\"; spf=Pass smtp.mailfrom=\"a b\"@c.example", "mx one | spf=pass smtp.mailfrom=<a b@c.example>"),
            ("mx;", "mx"),
            ("mx; spf=none;; bogus; dkim = pass;", "mx | spf=none | dkim=pass"),
            ("mx; a=b junk \" ; \" header.d=\"x;\\\"y\" =; c=d", "mx | a=b header.d=<x;\"y> | c=d"),
            ("mx; a=b (unclosed ; c=d", "mx | a=b (unclosed ; c=d)"),
        ] {
            assert_eq!(shown(field).as_deref(), Some(expected), "{field}");
        }
        for nothing in [
            "",
            "  ",
            "; spf=pass",
            "mx 2; spf=pass",
            "(only a comment)",
            "mx x; spf=pass",
            // Microsoft's, by nobody
            "spf=pass (sender IP is 192.0.2.1) smtp.mailfrom=a.example; dkim=pass",
        ] {
            assert_eq!(shown(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let many = format!("mx{}", "; spf=pass".repeat(10_000));
        assert_eq!(parse(many.as_bytes()).unwrap().results.len(), RESULTS_MAX);
        let rich = format!("mx; a=b{}{}", " c.d=e".repeat(1000), " (f)".repeat(1000));
        let rich = parse(rich.as_bytes()).unwrap();
        assert_eq!(
            (rich.results[0].properties.len(), rich.results[0].comments.len()),
            (PROPERTIES_MAX, PROPERTIES_MAX)
        );
        let long = format!("mx; spf=pass smtp.mailfrom={}", "a".repeat(VALUE_BYTES_MAX + 1));
        assert_eq!(parse(long.as_bytes()).unwrap().results[0].properties, []);
        assert_eq!(parse("(".repeat(1_000_000).as_bytes()), None);
    }

    proptest! {
        #[test]
        fn no_field_panics_or_hangs(field in "[a-z;=./\"()\\\\ \r\n]{0,80}", octets in prop::collection::vec(any::<u8>(), 0..80)) {
            drop(parse(field.as_bytes()));
            drop(parse(&octets));
            let padded = format!("mx; spf=pass smtp.mailfrom=a.example; {field}");
            let parsed = parse(padded.as_bytes()).unwrap();
            prop_assert_eq!(parsed.results[0].property("smtp.mailfrom"), Some("a.example"));
        }
    }
}
