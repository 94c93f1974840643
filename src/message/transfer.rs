//! Forgiving decoders of base64 and quoted-printable (RFC 2045 §6).
//!
//! They give what can be read and never fail: real mail has list footers after base64, lost padding, raw 8-bit bytes
//! in quoted-printable, and IMAP hands out parts that are cut anywhere. All are one pass over the input.

use memchr::memchr;

use crate::event::Defect;
use crate::message::defects::Defects;

/// Content-Transfer-Encoding, as far as it matters for reading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Encoding {
    /// 7bit, 8bit, binary, and whatever is unknown.
    #[default]
    Identity,
    Base64,
    QuotedPrintable,
}

impl Encoding {
    /// Reads the field's value; a comment or parameter after it, as some mailers add, is ignored.
    pub(super) fn parse(value: &str, defects: &mut Defects) -> Self {
        let token = value.trim().trim_matches('"');
        let end = token.find(|c: char| c == ';' || c == '(' || c.is_whitespace()).unwrap_or(token.len());
        match token.get(..end).unwrap_or_default().to_ascii_lowercase().as_str() {
            "base64" => Self::Base64,
            "quoted-printable" => Self::QuotedPrintable,
            token => {
                defects.note_if(!matches!(token, "7bit" | "8bit" | "binary"), Defect::EncodingUnknown);
                Self::Identity
            }
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Identity => "8bit",
            Self::Base64 => "base64",
            Self::QuotedPrintable => "quoted-printable",
        }
    }

    pub(super) fn decode(self, raw: &[u8]) -> Vec<u8> {
        match self {
            Self::Identity => raw.to_vec(),
            Self::Base64 => base64_body(raw),
            Self::QuotedPrintable => quoted_printable(raw),
        }
    }

    /// Size after decoding, without the memory for it; and what is wrong with the encoding.
    pub(super) fn measure(self, raw: &[u8], defects: &mut Defects) -> usize {
        match self {
            Self::Identity => raw.len(),
            Self::Base64 => measure_base64(raw, defects),
            Self::QuotedPrintable => {
                let mut len = 0_usize;
                for_each_quoted_printable_run(raw, |run| len = len.saturating_add(run.len()));
                let valid = raw.is_ascii() && memchr::memchr_iter(b'=', raw).all(|at| escapes(raw.get(at..)));
                defects.note_if(!valid, Defect::QuotedPrintableInvalid);
                len
            }
        }
    }
}

/// The value of a base64 digit (RFC 4648 §4).
pub(super) fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte.wrapping_sub(b'A')),
        b'a'..=b'z' => Some(byte.wrapping_sub(b'a').wrapping_add(26)),
        b'0'..=b'9' => Some(byte.wrapping_sub(b'0').wrapping_add(52)),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// Four digits carry three octets; padding makes up for those that are missing in the last group.
fn measure_base64(raw: &[u8], defects: &mut Defects) -> usize {
    let (mut digits, mut pads, mut junk) = (0_usize, 0_usize, 0_usize);
    for &byte in raw {
        let counter = match byte {
            b'=' => &mut pads,
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            byte if digit(byte).is_some() => &mut digits,
            _ => &mut junk,
        };
        *counter = counter.saturating_add(1);
    }
    let whole = digits.saturating_add(pads).is_multiple_of(4);
    defects.note_if(!whole || junk > 0, Defect::Base64Invalid);
    // Divided first, so that it cannot overflow.
    (digits / 4).saturating_mul(3).saturating_add((digits % 4).saturating_mul(3) / 4)
}

/// Whether the `=` that these octets begin with is an escape or a soft line break (RFC 2045 §6.7).
fn escapes(octets: Option<&[u8]>) -> bool {
    match octets {
        Some([_, high, low, ..]) if hex(*high).is_some() && hex(*low).is_some() => true,
        Some([_, after @ ..]) => {
            let blanks = after.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            matches!(after.get(blanks..), Some([] | [b'\n', ..] | [b'\r', b'\n', ..]))
        }
        _ => false,
    }
}

/// Collects digits into octets; whatever bits are over at the end are dropped.
#[derive(Default)]
struct Base64 {
    out: Vec<u8>,
    bits: u32,
    bit_count: u32,
}

impl Base64 {
    fn push(&mut self, byte: u8) {
        if let Some(value) = digit(byte) {
            self.bits = (self.bits << 6) | u32::from(value);
            self.bit_count = self.bit_count.saturating_add(6);
            if self.bit_count >= 8 {
                self.bit_count = self.bit_count.saturating_sub(8);
                self.out.push(u8::try_from((self.bits >> self.bit_count) & 0xff).unwrap_or_default());
            }
        }
    }

    /// Padding: what follows starts a new group of four digits.
    fn end_group(&mut self) {
        self.bit_count = 0;
    }
}

/// Decodes all digits there are; for encoded words, which carry no footers.
pub(super) fn base64(raw: &[u8]) -> Vec<u8> {
    let mut decoder = Base64::default();
    for &byte in raw {
        if byte == b'=' {
            decoder.end_group();
        } else {
            decoder.push(byte);
        }
    }
    decoder.out
}

/// Decodes a body, up to a plain-text footer that a mailing list appended.
fn base64_body(raw: &[u8]) -> Vec<u8> {
    let mut decoder = Base64::default();
    decoder.out.reserve(raw.len() / 4 * 3);
    let mut padded = false;
    for line in raw.split(|&byte| byte == b'\n') {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        if !decoder.out.is_empty() && is_footer(line, padded) {
            break;
        }
        for &byte in line {
            if byte == b'=' {
                decoder.end_group();
            } else {
                decoder.push(byte);
            }
        }
        padded = line.ends_with(b"=");
    }
    decoder.out
}

/// Whether a line is prose, not base64 with some junk in it. After padding, only a clean line of whole groups goes on:
/// some mailers encode in pieces.
fn is_footer(line: &[u8], after_padding: bool) -> bool {
    if line.starts_with(b"--") || line.starts_with(b"__") {
        return true;
    }
    let junk = line.iter().filter(|&&byte| digit(byte).is_none() && byte != b'=').count();
    if after_padding {
        return junk > 0 || !line.len().is_multiple_of(4);
    }
    memchr::memchr_iter(b' ', line).count() > 1 || junk.saturating_mul(4) > line.len()
}

/// Decodes a body: RFC 2045 §6.7, keeping what does not fit the rules as it is.
pub(super) fn quoted_printable(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    for_each_quoted_printable_run(raw, |run| out.extend_from_slice(run));
    out
}

fn for_each_quoted_printable_run(raw: &[u8], mut emit: impl FnMut(&[u8])) {
    let mut rest = raw;
    while !rest.is_empty() {
        let (line, ending, next) = split_line(rest);
        let ended = !ending.is_empty();
        // Rule 3: blanks at the end of a line were added on the way.
        let text = if ended { trim_blanks_end(line) } else { line };
        let soft = ended && text.ends_with(b"=");
        let text = if soft { text.strip_suffix(b"=").unwrap_or(text) } else { text };
        quoted_printable_line(text, !ended, &mut emit);
        if !soft {
            emit(ending);
        }
        rest = next;
    }
}

fn split_line(bytes: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let Some((line, rest)) = memchr(b'\n', bytes).and_then(|lf| bytes.split_at_checked(lf)) else {
        return (bytes, &[], &[]);
    };
    let next = rest.get(1..).unwrap_or_default();
    match line.strip_suffix(b"\r") {
        Some(line) => (line, b"\r\n", next),
        None => (line, b"\n", next),
    }
}

fn trim_blanks_end(mut line: &[u8]) -> &[u8] {
    while let [head @ .., b' ' | b'\t' | b'\r'] = line {
        line = head;
    }
    line
}

/// `at_end`: the bytes end here, perhaps in the middle of an `=XX`, which is then dropped.
fn quoted_printable_line(line: &[u8], at_end: bool, emit: &mut impl FnMut(&[u8])) {
    let mut rest = line;
    while let Some((literal, escape)) = memchr(b'=', rest).and_then(|at| rest.split_at_checked(at)) {
        emit(literal);
        rest = match escape {
            [_, high, low, rest @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                emit(&[hex_pair(*high, *low)]);
                rest
            }
            [_, digit] if at_end && hex(*digit).is_some() => &[],
            [_, blanks @ ..] if at_end && trim_blanks_end(blanks).is_empty() => &[],
            [equals, rest @ ..] => {
                emit(std::slice::from_ref(equals));
                rest
            }
            [] => &[],
        };
    }
    emit(rest);
}

/// The Q encoding of encoded words (RFC 2047 §4.2): `_` is a space, there are no lines.
pub(super) fn q_encoding(raw: &[u8]) -> Vec<u8> {
    // Before the escapes, so that an escaped underscore stays one.
    let spaced: Vec<u8> = raw.iter().map(|&byte| if byte == b'_' { b' ' } else { byte }).collect();
    let mut out = Vec::with_capacity(raw.len());
    quoted_printable_line(&spaced, false, &mut |run| out.extend_from_slice(run));
    out
}

/// The value of a hexadecimal digit of either case.
pub(super) fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn hex_pair(high: u8, low: u8) -> u8 {
    (hex(high).unwrap_or_default() << 4) | hex(low).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_base64(raw: &str) -> String {
        String::from_utf8(Encoding::Base64.decode(raw.as_bytes())).unwrap()
    }

    #[test]
    fn base64_survives_junk_footers_and_lost_padding() {
        assert_eq!(from_base64("SGVsbG8gd29ybGQ="), "Hello world");
        assert_eq!(from_base64("SGVsbG8gd29ybGQ"), "Hello world");
        assert_eq!(from_base64("SGVs*bG8gd2!9ybGQ="), "Hello world");
        assert_eq!(from_base64("SGVsbG 8gd\r\n29ybGQ="), "Hello world");
        assert_eq!(from_base64("SGVsbG8gd29ybGQ=\r\nlist mailing list\r\n"), "Hello world");
        assert_eq!(from_base64("SGVsbG8gd29ybGQh\r\n_______\r\nlist mailing list\r\n"), "Hello world!");
        assert_eq!(from_base64("SGVsbG8gd29ybGQh\r\nSent from the new mailing list\r\n"), "Hello world!");
        assert_eq!(from_base64("SGVsbG8=\r\nIHdvcmxk\r\n"), "Hello world");
        assert_eq!(from_base64("SGVsbG8gd29yb"), "Hello wor", "half a group at the cut");
    }

    #[test]
    fn quoted_printable_keeps_what_it_cannot_read() {
        let decode = |raw: &[u8]| String::from_utf8(quoted_printable(raw)).unwrap();
        assert_eq!(decode("Grüße =C3=BC".as_bytes()), "Grüße ü");
        assert_eq!(decode(b"a=\r\nb= \t\nc \t\r\nd"), "abc\r\nd");
        assert_eq!(decode(b"1==2 =ZZ =e4".get(..8).unwrap()), "1==2 =ZZ");
        assert_eq!(decode(b"a==\nb"), "a=b");
        for cut in [&b"a="[..], b"a=C", b"a=\r", b"a= "] {
            assert_eq!(decode(cut), "a", "{cut:?}");
        }
    }

    #[test]
    fn decoded_size_is_known_without_decoding() {
        for (encoding, raw) in [
            (Encoding::Base64, &b"SGVsbG8gd29ybGQ=\r\n"[..]),
            (Encoding::Base64, b"SGVsbG8g\r\nd29ybGQh\r\n"),
            (Encoding::QuotedPrintable, b"a=\r\nb=C3=BC \r\n"),
            (Encoding::Identity, b"a=b"),
        ] {
            let mut defects = Defects::default();
            assert_eq!(encoding.measure(raw, &mut defects), encoding.decode(raw).len());
            assert_eq!(defects.into_sorted(), []);
        }
    }

    #[test]
    fn what_is_wrong_with_an_encoding_is_noted() {
        for (encoding, raw) in [
            (Encoding::Base64, &b"SGVsbG8gd29ybGQ"[..]),
            (Encoding::Base64, b"SGVs*bG8="),
            (Encoding::Base64, b"SGVsbG8=\r\n___\r\nfooter"),
            (Encoding::QuotedPrintable, b"a=ZZ"),
            (Encoding::QuotedPrintable, b"a==\n"),
            (Encoding::QuotedPrintable, b"\xfc"),
            (Encoding::QuotedPrintable, b"= x\n"),
        ] {
            let mut defects = Defects::default();
            encoding.measure(raw, &mut defects);
            assert_eq!(defects.into_sorted().len(), 1, "{}", raw.escape_ascii());
        }
    }

    #[test]
    fn encoding_is_read_through_case_and_comments() {
        for (value, encoding, defects) in [
            (" BASE64 (x)", Encoding::Base64, &[][..]),
            ("Quoted-Printable;", Encoding::QuotedPrintable, &[]),
            ("8bit", Encoding::Identity, &[]),
            ("x-uuencode", Encoding::Identity, &[Defect::EncodingUnknown]),
        ] {
            let mut found = Defects::default();
            assert_eq!((Encoding::parse(value, &mut found), found.into_sorted().as_slice()), (encoding, defects));
        }
    }
}
