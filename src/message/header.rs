//! Splits a header block into its fields (RFC 5322 §2.2).
//!
//! Borrows, decodes nothing and never fails: a line that is no field is skipped, because one broken line must not
//! hide the sender and subject around it. Mailparse refuses such blocks as a whole, and copies every field.

use memchr::memchr;

use crate::event::Defect;
use crate::message::defects::Defects;

/// Longest field value that is decoded, in octets; the rest is ignored. Postfix's `header_size_limit`.
pub(super) const FIELD_BYTES_MAX: usize = 102_400;

/// One field: its name as written and its raw, still folded value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field<'a> {
    name: &'a [u8],
    pub(super) value: &'a [u8],
}

impl Field<'_> {
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// Iterates over the fields of a block; ends at the empty line, at a MIME boundary, or at the end of the bytes.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    at_start: bool,
    ended: bool,
    /// What was wrong with the lines so far.
    pub(super) defects: Defects,
}

impl<'a> Fields<'a> {
    pub(super) fn new(block: &'a [u8]) -> Self {
        Self { rest: block, at_start: true, ended: false, defects: Defects::default() }
    }

    /// What follows the block. Reads the fields that were not read yet.
    pub(super) fn into_body(mut self) -> &'a [u8] {
        while self.next().is_some() {}
        self.rest
    }

    fn take_line(&mut self) -> &'a [u8] {
        let end = memchr(b'\n', self.rest).map_or(self.rest.len(), |lf| lf.saturating_add(1));
        let (line, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, &[]));
        self.rest = rest;
        line
    }

    /// The whole field that starts with `first`, with its continuation lines.
    fn take_continuations(&mut self, start: &'a [u8], first: &'a [u8]) -> &'a [u8] {
        let mut taken = first.len();
        while matches!(self.rest.first(), Some(b' ' | b'\t')) {
            taken = taken.saturating_add(self.take_line().len());
        }
        start.get(..taken).unwrap_or(first)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        while !self.ended && !self.rest.is_empty() {
            let start = self.rest;
            // No field name starts so in practice, while a boundary right after a part's fields is common.
            if start.starts_with(b"--") {
                self.defects.note(Defect::HeaderNotEnded);
                break;
            }
            let line = self.take_line();
            if matches!(line, b"\n" | b"\r\n") {
                break;
            }
            let whole = self.take_continuations(start, line);
            // Some mails start with an indented first line; further in, such a line would be a continuation.
            let first = std::mem::take(&mut self.at_start);
            let whole = if first {
                self.defects.note_if(whole.starts_with(b" ") || whole.starts_with(b"\t"), Defect::HeaderIndented);
                whole.trim_ascii_start()
            } else {
                whole
            };
            if let Some(field) = field(whole) {
                self.defects.note_if(field.value.len() > FIELD_BYTES_MAX, Defect::HeaderTooLong);
                return Some(field);
            }
            // The line that begins a message in an mbox is no part of it.
            let divides_mbox = first && (whole.starts_with(b"From ") || whole.starts_with(b">From "));
            self.defects.note_if(!divides_mbox, Defect::HeaderWithoutColon);
        }
        self.ended = true;
        None
    }
}

/// Parses `name: value`. Blanks before the colon are obsolete but met (RFC 5322 §4.5.8).
fn field(whole: &[u8]) -> Option<Field<'_>> {
    let (name, value) = whole.split_at_checked(memchr(b':', whole)?)?;
    let name = name.trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    is_name.then(|| Field { name, value: value.get(1..).unwrap_or_default().trim_ascii() })
}

/// Undoes folding (RFC 5322 §2.2.3) and cuts to [`FIELD_BYTES_MAX`]; tabs become spaces.
pub(super) fn unfold(value: &[u8]) -> Vec<u8> {
    let value = value.get(..FIELD_BYTES_MAX).unwrap_or(value);
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.iter().peekable();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\r' | b'\n' => {
                // A line end that no blank follows is no fold; what it separates must not run together.
                if !matches!(bytes.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
                    out.push(b' ');
                }
            }
            b'\t' => out.push(b' '),
            byte => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(block: &str) -> Vec<String> {
        Fields::new(block.as_bytes()).map(|field| String::from_utf8_lossy(field.name).into_owned()).collect()
    }

    #[test]
    fn broken_lines_hide_no_other_field() {
        assert_eq!(names("From a@b Mon Jan 1 10:00:00\nSubject : x\njunk\nTo: y\n\nBody: no"), ["Subject", "To"]);
        assert_eq!(names("  From: x\r\nTo: y\r\n\r\n"), ["From", "To"]);
        assert_eq!(names(" junk\r\nTo: y"), ["To"]);
        assert_eq!(names("\r\nTo: y"), Vec::<String>::new());
    }

    #[test]
    fn body_starts_after_the_empty_line_or_at_a_boundary() {
        assert_eq!(Fields::new(b"A: b\r\n\r\nbody").into_body(), b"body");
        assert_eq!(Fields::new(b"A: b\n--x\n").into_body(), b"--x\n");
        assert_eq!(Fields::new(b"A: b").into_body(), b"");
    }

    #[test]
    fn folded_value_is_one_line() {
        let field = Fields::new(b"Subject: a\r\n\tb\r\n c\r\nX: y").next().unwrap();
        assert!(field.is("SUBJECT"));
        assert_eq!(unfold(field.value), b"a b c");
        assert_eq!(unfold(b"a\r\nb"), b"a b");
    }
}
