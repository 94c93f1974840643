//! Command lines out of a stream of bytes. No I/O.
//!
//! Only CRLF ends a line (RFC 5321 §2.3.8). A line that holds a bare CR or LF, or a NUL, is one malformed line,
//! not two commands: that another server along the way saw something else is what SMTP smuggling lives on. What is
//! too long is dropped as it comes, up to its end, so that it costs one reply and no memory.

use std::borrow::Cow;

/// Longest command line with its CRLF. RFC 5321 §4.5.3.1.4 promises 512 octets; extensions add to that.
const LINE_BYTES_MAX: usize = 2048;
/// Past this, a line has no end that is worth waiting for.
const ENDLESS_BYTES: usize = 1024 * 1024;
/// The first octet of a TLS record with a handshake in it (RFC 8446 §5.1): a control character, so never a command.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a line turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// A line without its CRLF; neither CR nor LF nor NUL is in it.
    Text(Cow<'a, [u8]>),
    /// A line with a CR, LF or NUL in it.
    Malformed,
    /// A line that was longer than allowed.
    TooLong,
    /// A line that does not end.
    Endless,
    /// The beginning of a TLS handshake.
    TlsHello,
}

/// Holds the line that is not complete yet.
#[derive(Debug)]
pub(super) struct LineReader {
    /// Longest line with its CRLF.
    bytes_max: usize,
    /// Its beginning; of a line that is too long, the last octet only.
    partial: Vec<u8>,
    /// Octets of a too long line that were dropped; 0 otherwise.
    dropped: usize,
}

impl Default for LineReader {
    fn default() -> Self {
        Self { bytes_max: LINE_BYTES_MAX, partial: Vec::new(), dropped: 0 }
    }
}

impl LineReader {
    /// How long the next line may be, if not as long as a command; to be said between lines only.
    pub(super) fn allow(&mut self, bytes_max: Option<usize>) {
        self.bytes_max = bytes_max.unwrap_or(LINE_BYTES_MAX);
    }

    /// Takes at most one line from the front of `input`. Gives how much of it was used, and the line if it is complete;
    /// without a line, everything was used.
    pub(super) fn take<'a>(&mut self, input: &'a [u8]) -> (usize, Option<Line<'a>>) {
        if self.dropped == 0 && self.partial.first().or(input.first()) == Some(&TLS_HANDSHAKE) {
            return (input.len(), Some(Line::TlsHello));
        }
        let Some(used) = self.line_end(input) else {
            let endless = self.keep(input);
            return (input.len(), endless.then_some(Line::Endless));
        };
        let (head, _) = input.split_at(used);
        let len = self.dropped + self.partial.len() + used;
        let line = if len > ENDLESS_BYTES {
            Line::Endless
        } else if len > self.bytes_max {
            Line::TooLong
        } else if self.partial.is_empty() {
            text(Cow::Borrowed(head))
        } else {
            self.partial.extend_from_slice(head);
            text(Cow::Owned(std::mem::take(&mut self.partial)))
        };
        self.reset();
        (used, Some(line))
    }

    /// Whether what came so far ends with a bare LF. Its sender believes that to be a line and waits for a reply.
    pub(super) fn waits_behind_bare_lf(&self) -> bool {
        self.partial.last() == Some(&b'\n')
    }

    /// Forgets the incomplete line.
    pub(super) fn reset(&mut self) {
        self.dropped = 0;
        // An idle session keeps no buffer.
        self.partial = Vec::new();
    }

    /// The octets of `input` up to and with the first CRLF, which the network may have cut in two.
    fn line_end(&self, input: &[u8]) -> Option<usize> {
        if self.partial.last() == Some(&b'\r') && input.first() == Some(&b'\n') {
            return Some(1);
        }
        memchr::memmem::find(input, b"\r\n").map(|at| at + 2)
    }

    /// Keeps the beginning of a line; true when it is too long to ever end.
    fn keep(&mut self, input: &[u8]) -> bool {
        let len = self.dropped + self.partial.len() + input.len();
        if len <= self.bytes_max {
            self.partial.extend_from_slice(input);
            return false;
        }
        let last = input.last().or(self.partial.last()).copied();
        self.partial = last.into_iter().collect();
        self.dropped = len - self.partial.len();
        len > ENDLESS_BYTES
    }
}

fn text(line: Cow<'_, [u8]>) -> Line<'_> {
    let content = line.len().saturating_sub(2);
    let malformed = line.get(..content).is_none_or(|line| memchr::memchr3(b'\r', b'\n', 0, line).is_some());
    match line {
        _ if malformed => Line::Malformed,
        Cow::Borrowed(line) => Line::Text(Cow::Borrowed(line.get(..content).unwrap_or_default())),
        Cow::Owned(mut line) => {
            line.truncate(content);
            Line::Text(Cow::Owned(line))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(line: &str) -> Line<'static> {
        Line::Text(Cow::Owned(line.as_bytes().to_vec()))
    }

    fn owned(line: Line<'_>) -> Line<'static> {
        match line {
            Line::Text(text) => Line::Text(Cow::Owned(text.into_owned())),
            Line::Malformed => Line::Malformed,
            Line::TooLong => Line::TooLong,
            Line::Endless => Line::Endless,
            Line::TlsHello => Line::TlsHello,
        }
    }

    /// All lines of pieces that arrive one after the other, up to one after which nobody reads on.
    fn lines(pieces: &[&[u8]]) -> Vec<Line<'static>> {
        let (mut reader, mut lines) = (LineReader::default(), Vec::new());
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                let (used, line) = reader.take(rest);
                rest = &rest[used..];
                lines.extend(line.map(owned));
                if matches!(lines.last(), Some(Line::Endless | Line::TlsHello)) {
                    return lines;
                }
            }
        }
        lines
    }

    #[test]
    fn only_crlf_ends_a_line() {
        assert_eq!(lines(&[b"NOOP\r\nQUIT\r\nREST"]), [text("NOOP"), text("QUIT")]);
        assert_eq!(lines(&[b"NOOP\nQUIT\r\n"]), [Line::Malformed]);
        assert_eq!(lines(&[b"NOOP\rQUIT\r\n"]), [Line::Malformed]);
        assert_eq!(lines(&[b"NOOP\r\r\n"]), [Line::Malformed]);
        assert_eq!(lines(&[b"NO\0OP\r\n"]), [Line::Malformed]);
        assert_eq!(lines(&[b"\r\n"]), [text("")]);
    }

    #[test]
    fn too_long_lines_cost_one_answer_and_no_memory() {
        let exact = "x".repeat(LINE_BYTES_MAX - 2);
        assert_eq!(lines(&[exact.as_bytes(), b"\r\n"]), [text(&exact)]);
        let long = vec![b'x'; 5000];
        assert_eq!(lines(&[&long, b"\r\nNOOP\r\n"]), [Line::TooLong, text("NOOP")]);
        let mut reader = LineReader::default();
        for _ in 0..100 {
            assert_eq!(reader.take(&long), (5000, None));
            assert!(reader.partial.capacity() <= LINE_BYTES_MAX);
        }
        assert_eq!(lines(&vec![&long[..]; 300]), [Line::Endless]);
    }

    #[test]
    fn a_tls_hello_is_known_by_its_first_octet() {
        assert_eq!(lines(&[b"\x16\x03\x01\x02\x00\x01"]), [Line::TlsHello]);
        assert_eq!(lines(&[b"NOOP\r\n\x16"]), [text("NOOP"), Line::TlsHello]);
    }

    #[test]
    fn a_line_that_ends_with_lf_alone_is_seen_to_wait() {
        let mut reader = LineReader::default();
        assert_eq!(reader.take(b"NOOP\n"), (5, None));
        assert!(reader.waits_behind_bare_lf());
        reader.reset();
        assert_eq!(reader.take(b"NOOP\r\n").1, Some(text("NOOP")));
        assert!(!reader.waits_behind_bare_lf());
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_lines(
            parts in prop::collection::vec(prop_oneof![
                Just(b"\r\n".to_vec()), Just(b"\r".to_vec()), Just(b"\n".to_vec()), Just(b"NOOP".to_vec()),
                Just(vec![b'x'; 1500]), prop::collection::vec(any::<u8>(), 0..6),
            ], 0..12),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let whole = parts.concat();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &whole[cut[0]..cut[1]]).collect();
            prop_assert_eq!(lines(&pieces), lines(&[&whole]));
        }
    }
}
