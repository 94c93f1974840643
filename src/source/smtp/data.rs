//! The text of a message out of DATA: where it ends, and its transparency undone (RFC 5321 §4.1.1.4, §4.5.2). No I/O.
//!
//! Only CRLF counts: the one sequence that ends the text is CRLF `.` CRLF, and only a dot behind CRLF is one that was
//! added for transparency. A bare LF or CR is text like any other octet, so that a message of an old appliance
//! arrives, and nothing that another server took for text can be made to look like the end of it (SMTP smuggling,
//! CVE-2023-51764 and its kin).

use super::collector::{Collector, Ended};

/// What stands before the next octet. The text begins as if behind CRLF: its first line may be the dot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Text,
    Cr,
    CrLf,
    CrLfDot,
    CrLfDotCr,
}

/// Reads one message.
#[derive(Debug)]
pub(super) struct DataReader {
    before: Before,
    text: Collector,
}

impl DataReader {
    /// Takes messages of up to `bytes_max` octets.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { before: Before::CrLf, text: Collector::new(bytes_max) }
    }

    /// The message so far.
    pub(super) fn text(&self) -> &Collector {
        &self.text
    }

    /// The message so far.
    pub(super) fn text_mut(&mut self) -> &mut Collector {
        &mut self.text
    }

    /// Takes text from the front of `input`. Gives how much of it was used and, at the end of the text, what became of
    /// it; before the end, everything was used.
    pub(super) fn take(&mut self, input: &[u8]) -> (usize, Option<Ended>) {
        let mut rest = input;
        while let Some((&octet, after)) = rest.split_first() {
            match (self.before, octet) {
                (Before::CrLfDotCr, b'\n') => return (input.len() - after.len(), Some(self.text.end())),
                (Before::CrLf, b'.') => (self.before, rest) = (Before::CrLfDot, after),
                (Before::CrLfDot, b'\r') => (self.before, rest) = (Before::CrLfDotCr, after),
                (Before::Cr, b'\n') => {
                    self.text.push(b"\n");
                    (self.before, rest) = (Before::CrLf, after);
                }
                // It was no end: the dot was stuffed, the CR behind it is text, and may be half of a CRLF.
                (Before::CrLfDotCr, _) => {
                    self.text.push(b"\r");
                    self.before = Before::Cr;
                }
                (Before::Text | Before::Cr | Before::CrLf | Before::CrLfDot, _) => rest = self.take_text(rest),
            }
            if self.text.is_endless(0) {
                return (input.len() - rest.len(), Some(Ended::Endless));
            }
        }
        (input.len(), None)
    }

    /// Takes text up to the next dot that follows CRLF, and that dot.
    fn take_text<'a>(&mut self, input: &'a [u8]) -> &'a [u8] {
        let Some(at) = memchr::memmem::find(input, b"\r\n.") else {
            self.text.push(input);
            self.before = match input {
                [.., b'\r', b'\n'] => Before::CrLf,
                [.., b'\r'] => Before::Cr,
                _ => Before::Text,
            };
            return &[];
        };
        let (text, rest) = input.split_at(at + 2);
        self.text.push(text);
        self.before = Before::CrLfDot;
        rest.strip_prefix(b".").unwrap_or(rest)
    }
}

/// Every sequence around a dot that some server has taken for the end (SEC Consult's list and smtpsmug's).
#[cfg(test)]
pub(super) const SMUGGLING: [&[u8]; 21] = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\n.\r",
    b"\r.\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\n\r.\r\n",
    b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
    b"\r\n.\n\r\n",
    b"\r\n. \r\n",
    b"\r\n .\r\n",
    b"\n.\n\n",
    b"\r\n\r.\r\n",
    b"\n\n.\r\n",
    b"\r\n..\r\n",
    b"\n\r\n\r.\n",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::source::intake::Outcome;
    use crate::source::smtp::collector::Text;

    fn stuff(message: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        for line in message.split_inclusive(|&octet| octet == b'\n') {
            if line.starts_with(b".") && (wire.is_empty() || wire.ends_with(b"\r\n")) {
                wire.push(b'.');
            }
            wire.extend_from_slice(line);
        }
        [&wire[..], b".\r\n"].concat()
    }

    /// What the text became, and what follows it.
    fn read(pieces: &[&[u8]], bytes_max: usize) -> (Option<Ended>, Vec<u8>) {
        let mut reader = DataReader::new(bytes_max);
        for (at, piece) in pieces.iter().enumerate() {
            let (used, ended) = reader.take(piece);
            if ended.is_some() {
                return (ended, [&piece[used..], &pieces[at + 1..].concat()].concat());
            }
            assert_eq!(used, piece.len());
        }
        (None, Vec::new())
    }

    fn message(text: &str) -> (Option<Ended>, Vec<u8>) {
        (Some(Ended::Message(Text { handed_out: 0, rest: text.as_bytes().to_vec() })), Vec::new())
    }

    #[test]
    fn crlf_dot_crlf_ends_the_text_and_leaves_what_follows() {
        assert_eq!(read(&[b"a\r\n.\r\n"], 99), message("a\r\n"));
        assert_eq!(read(&[b".\r\n"], 99), message(""), "the dot may be the first line");
        assert_eq!(read(&[b"a\r\n..b\r\n.c\r\n.\r\n"], 99), message("a\r\n.b\r\nc\r\n"));
        let (ended, rest) = read(&[b"a\r\n.\r\nQUIT\r\n"], 99);
        assert_eq!((ended, &rest[..]), (message("a\r\n").0, &b"QUIT\r\n"[..]));
    }

    #[test]
    fn no_other_sequence_ends_the_text() {
        for variant in SMUGGLING {
            let wire = [b"Subject: x\r\n\r\ntext", variant, b"MAIL FROM:<evil@example.org>\r\n.\r\nNOOP\r\n"].concat();
            let (ended, rest) = read(&[&wire], 999);
            let Some(Ended::Message(message)) = ended else { panic!("{variant:?} gave no message") };
            assert!(message.rest.ends_with(b"MAIL FROM:<evil@example.org>\r\n"), "{}", variant.escape_ascii());
            assert_eq!(rest, b"NOOP\r\n", "{}", variant.escape_ascii());
        }
    }

    #[test]
    fn a_message_that_is_too_big_is_dropped_but_read_to_its_end() {
        assert_eq!(read(&[b"12345678\r\n.\r\n"], 10), message("12345678\r\n"));
        let (ended, rest) = read(&[b"12345678", b"9\r\n.\r", b"\nNOOP\r\n"], 10);
        assert_eq!((ended, &rest[..]), (Some(Ended::TooBig), &b"NOOP\r\n"[..]));
        let mut reader = DataReader::new(10);
        assert_eq!(reader.take(&[b'x'; 80]), (80, None));
        assert_eq!(reader.text().held().2, 0);
        assert_eq!(reader.take(b"x"), (1, Some(Ended::Endless)));
    }

    #[test]
    fn a_message_that_was_given_up_is_read_to_its_end() {
        let mut reader = DataReader::new(99);
        assert_eq!(reader.take(b"abc\r\n"), (5, None));
        assert!(reader.text().held().2 >= 5);
        reader.text_mut().give_up(Outcome::NoSpace);
        assert_eq!(reader.text().held().2, 0);
        assert_eq!(reader.take(b"def\r\n.\r\n"), (8, Some(Ended::GivenUp(Outcome::NoSpace))));
    }

    fn pieces<'a>(wire: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
        cuts.extend([0, wire.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|cut| &wire[cut[0]..cut[1]]).collect()
    }

    proptest! {
        /// Dot-stuffing is undone exactly, however the network cuts the bytes (RFC 5321 §4.5.2).
        #[test]
        fn data_survives_stuffing_and_any_cut(
            lines in prop::collection::vec("[ -~]{0,5}\r\n|\\.{1,3}\r\n|[a.\r\n\\x00]{0,6}\r\n", 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let text = lines.concat();
            let wire = stuff(text.as_bytes());
            prop_assert_eq!(read(&pieces(&wire, &cuts), 9999), message(&text));
        }

        #[test]
        fn any_cut_of_any_octets_gives_the_same(
            wire in prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), any::<u8>()], 0..60),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            prop_assert_eq!(read(&pieces(&wire, &cuts), 20), read(&[&wire], 20));
        }
    }
}
