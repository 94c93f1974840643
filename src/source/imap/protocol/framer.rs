//! Octets in, whole responses out: where a response ends, and no more than that.
//!
//! A response is a line, unless that line ends in `{n}`: then n octets of a literal follow, and the rest of the
//! response after them (RFC 9051 §4.3). Quotes are not looked at on purpose. A quoted string cannot end a line in `{n}`,
//! and a server that forgets to escape a quote would otherwise have a literal (a stranger's mail) read as responses.
//!
//! The buffer holds what arrived of one response and not what was announced; no octet is searched twice; an empty
//! framer holds no buffer, for ten thousand of them wait at the same time. A broken limit ends the connection, because
//! nobody knows where the next response would begin.

use std::fmt;

/// Octets of a response outside literals: the structure of a message with a thousand parts fits.
pub const LINE_BYTES_MAX: usize = 256 * 1024;
/// The same for SEARCH, ESEARCH and VANISHED, which may name each message of a great mailbox.
pub const SET_LINE_BYTES_MAX: usize = RESPONSE_BYTES_MAX;
/// Octets of one literal; the most that is asked for is `text_bytes_max`, 512 KiB at the utmost.
pub const LITERAL_BYTES_MAX: u64 = 1024 * 1024;
/// Octets of one response.
pub const RESPONSE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Octets from the end of a line in which `{n}` is looked for: longer numbers are none that anybody means.
const ANNOUNCEMENT_BYTES_MAX: usize = 40;

/// Which limit was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// A line without end.
    Line,
    /// A literal that is too large, or would make the response too large.
    Literal,
    /// A response that is too large.
    Response,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Line => "a line that is too long",
            Self::Literal => "the announcement of a literal that is too large",
            Self::Response => "a response that is too large",
        })
    }
}

impl std::error::Error for FrameError {}

/// Cuts a stream into responses.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    /// Where the current response begins.
    start: usize,
    /// Where its current line begins: behind the end of the buffer while a literal is incomplete.
    line: usize,
    /// There is no line end between `line` and here.
    searched: usize,
    /// Octets of its earlier lines.
    line_bytes: usize,
    failed: Option<FrameError>,
}

impl Framer {
    /// One that has seen nothing.
    pub const fn new() -> Self {
        Self { buffer: Vec::new(), start: 0, line: 0, searched: 0, line_bytes: 0, failed: None }
    }

    /// Takes what arrived. After it [`Self::next`] is to be called until it has nothing more: only that enforces the
    /// limits.
    pub fn push(&mut self, octets: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.line -= self.start;
            self.searched -= self.start;
            self.start = 0;
        }
        let needed = self.buffer.len() + octets.len();
        if needed > self.buffer.capacity() {
            // Doubling, yet not past what a response may have.
            let wanted = (self.buffer.capacity() * 2).min(RESPONSE_BYTES_MAX + octets.len()).max(needed);
            self.buffer.reserve_exact(wanted - self.buffer.len());
        }
        self.buffer.extend_from_slice(octets);
    }

    /// Hands the next whole response, with its line end, to `read`.
    ///
    /// # Errors
    /// When the server broke a limit; from then on always.
    pub fn next<T>(&mut self, read: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        match self.find_end() {
            Ok(None) => {
                self.release();
                Ok(None)
            }
            Ok(Some(end)) => {
                let value = read(self.buffer.get(self.start..end).unwrap_or_default());
                (self.start, self.line, self.searched, self.line_bytes) = (end, end, end, 0);
                self.release();
                Ok(Some(value))
            }
            Err(error) => {
                *self = Self { failed: Some(error), ..Self::new() };
                Err(error)
            }
        }
    }

    /// Octets of a response that is not whole yet.
    #[cfg(test)]
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// What the buffer takes.
    #[cfg(test)]
    fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    fn release(&mut self) {
        if self.start == self.buffer.len() {
            *self = Self::new();
        }
    }

    fn find_end(&mut self) -> Result<Option<usize>, FrameError> {
        loop {
            let Some(unsearched) = self.buffer.get(self.searched..) else { return Ok(None) };
            let line_end = memchr::memchr(b'\n', unsearched).map(|at| self.searched + at + 1);
            self.check(line_end.unwrap_or(self.buffer.len()))?;
            let Some(end) = line_end else {
                self.searched = self.buffer.len();
                return Ok(None);
            };
            let line = self.buffer.get(self.line..end).unwrap_or_default();
            let Some(octets) = announced(line).filter(|_| !is_text(self.response())) else { return Ok(Some(end)) };
            if octets > LITERAL_BYTES_MAX {
                return Err(FrameError::Literal);
            }
            let octets = usize::try_from(octets).map_err(|_| FrameError::Literal)?;
            if end - self.start + octets > RESPONSE_BYTES_MAX {
                return Err(FrameError::Literal);
            }
            self.line_bytes += line.len();
            self.line = end + octets;
            self.searched = self.line;
        }
    }

    /// Whether the current line may go on to `end`. The answer must not depend on how the octets were cut, so that the
    /// limit that is broken first decides, wherever the line ends.
    fn check(&self, end: usize) -> Result<(), FrameError> {
        let line_max = if end - self.line + self.line_bytes > LINE_BYTES_MAX && names_a_set(self.response()) {
            SET_LINE_BYTES_MAX
        } else {
            LINE_BYTES_MAX
        };
        let by_line = self.line + line_max.saturating_sub(self.line_bytes);
        let by_response = self.start + RESPONSE_BYTES_MAX;
        if end <= by_line.min(by_response) {
            Ok(())
        } else if by_line <= by_response {
            Err(FrameError::Line)
        } else {
            Err(FrameError::Response)
        }
    }

    fn response(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }
}

/// The literal that a line announces at its end: `{n}`, `{n+}`, `~{n}`.
fn announced(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"\n")?;
    let line = line.strip_suffix(b"\r").unwrap_or(line).strip_suffix(b"}")?;
    let tail = line.get(line.len().saturating_sub(ANNOUNCEMENT_BYTES_MAX)..)?;
    let digits = tail.get(memchr::memrchr(b'{', tail)? + 1..)?;
    literal_len(digits)
}

/// The number between the braces of an announcement.
pub(super) fn literal_len(digits: &[u8]) -> Option<u64> {
    let digits = digits.strip_suffix(b"+").unwrap_or(digits);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

/// The end of a command, `+`, and the remarks OK, NO, BAD, BYE, PREAUTH: they end in text for people, in which `{7}` is
/// just that, and have no literals.
fn is_text(response: &[u8]) -> bool {
    let Some(data) = response.strip_prefix(b"*") else { return true };
    [&b"OK"[..], b"NO", b"BAD", b"BYE", b"PREAUTH"].iter().any(|condition| begins_with(data, condition))
}

fn names_a_set(response: &[u8]) -> bool {
    let Some(data) = response.strip_prefix(b"*") else { return false };
    [&b"SEARCH"[..], b"ESEARCH", b"VANISHED"].iter().any(|name| begins_with(data, name))
}

fn begins_with(data: &[u8], word: &[u8]) -> bool {
    let data = data.trim_ascii_start();
    data.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word))
        && data.get(word.len()).is_none_or(|next| next.is_ascii_whitespace() || *next == b'[')
}

/// What a framer makes of octets that arrive in these pieces: the responses before the first error, and the error.
#[cfg(test)]
pub(super) fn frames<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let (mut framer, mut found, mut most) = (Framer::new(), Vec::new(), 0);
    for piece in pieces {
        most = most.max(framer.pending() + piece.len());
        framer.push(piece);
        loop {
            match framer.next(<[u8]>::to_vec) {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
        assert!(framer.capacity() <= 2 * most, "{} octets for {most}", framer.capacity());
        assert!(framer.pending() > 0 || framer.capacity() == 0, "an empty framer keeps its buffer");
    }
    (found, None)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::*;

    fn whole(octets: &[u8]) -> Vec<String> {
        let (frames, error) = frames([octets]);
        assert_eq!(error, None);
        frames.into_iter().map(|frame| String::from_utf8(frame).unwrap()).collect()
    }

    fn error(octets: &[u8]) -> Option<FrameError> {
        frames([octets]).1
    }

    #[test]
    fn a_response_is_a_line_with_its_literals() {
        let first = "* 1 FETCH (BODY[1] {12}\r\n* 2 EXISTS\r\n BODY[2] ~{2+}\r\n)\n X {0}\r\n)\r\n";
        let bare = "* 2 FETCH (BODY[1] {3}\nab\n)\n";
        assert_eq!(whole([first, bare, "+ \r\n", "\r\n"].concat().as_bytes()), [first, bare, "+ \r\n", "\r\n"]);
    }

    #[test]
    fn what_only_looks_like_a_literal_is_none() {
        let lines = [
            "* OK it's 5\" {9999999}\r\n",
            "* bye [ALERT] {5}\r\n",
            "*  NO {5}\r\n",
            "p1 NO no such message {5}\r\n",
            "+ {5}\r\n",
            "* 1 FETCH (X \"{9999999}\" Y \"((\\\"((\")\r\n",
            "* LIST () \"/\" {}\r\n",
            "* LIST () \"/\" {-5}\r\n",
            "* LIST () \"/\" {5} \r\n",
            "* LIST () \"/\" 5}\r\n",
        ];
        assert_eq!(whole(lines.concat().as_bytes()), lines);
        for name in ["OKAY", "NO-MORE"] {
            let response = format!("* {name} {{2}}\r\n\r\n\r\n");
            assert_eq!(whole(response.as_bytes()), [response.as_str()], "no condition, so that it may have a literal");
        }
    }

    /// A file name with a quote that the server did not escape: what the message says must stay a literal.
    #[test]
    fn a_lone_quote_does_not_turn_mail_into_responses() {
        let response = "* 1 FETCH (BODYSTRUCTURE (\"a \"b.pdf\") BODY[1] {14}\r\n\r\n* 7 EXISTS\r\n)\r\n";
        assert_eq!(whole(response.as_bytes()), [response]);
    }

    #[test]
    fn each_limit_is_enforced() {
        assert_eq!(error(b"* 1 FETCH (BODY[1] {1048577}\r\n"), Some(FrameError::Literal));
        assert_eq!(error(b"* 1 FETCH (BODY[1] {99999999999999999999999999}\r\n"), Some(FrameError::Literal));
        assert_eq!(error(&b"x".repeat(LINE_BYTES_MAX)), None);
        assert_eq!(error(&b"x".repeat(LINE_BYTES_MAX + 1)), Some(FrameError::Line));
        let mut literals = b"* 1 FETCH (".to_vec();
        for _ in 0..3 {
            literals.extend(b" {1000000}\r\n");
            literals.extend(b"y".repeat(1_000_000));
        }
        assert_eq!(error(&literals), Some(FrameError::Literal));
        let mut lines = b"* 1 FETCH (".to_vec();
        for _ in 0..3 {
            lines.extend(b"x".repeat(100_000));
            lines.extend(b" {1}\r\ny");
        }
        assert_eq!(error(&lines), Some(FrameError::Line), "all lines of a response together");
        let set = |octets: usize| [b"* VANISHED ".to_vec(), b"1".repeat(octets), b"\r\n".to_vec()].concat();
        assert_eq!(error(&set(RESPONSE_BYTES_MAX - 13)), None);
        assert_eq!(error(&set(RESPONSE_BYTES_MAX - 12)), Some(FrameError::Line));
    }

    #[test]
    fn after_an_error_there_is_nothing_more() {
        let mut framer = Framer::new();
        framer.push(b"* 1 FETCH (BODY[1] {1048577}\r\n");
        assert_eq!(framer.next(<[u8]>::len), Err(FrameError::Literal));
        framer.push(b"* 1 EXISTS\r\n");
        assert_eq!(framer.next(<[u8]>::len), Err(FrameError::Literal));
        assert_eq!(framer.capacity(), 0);
    }

    #[test]
    fn nothing_is_allocated_for_what_is_only_announced() {
        let mut framer = Framer::new();
        framer.push(b"* 1 FETCH (BODY[1] {1048576}\r\nabc");
        assert_eq!(framer.next(<[u8]>::len), Ok(None));
        assert!(framer.capacity() < 100);
    }

    /// Searched anew with each octet, or moved, it would take hours.
    #[test]
    fn two_mebibytes_octet_by_octet_take_no_time() {
        let mut line = b"* SEARCH".to_vec();
        line.extend(b" 123456".repeat(299_000));
        line.extend(b"\r\n");
        let mut framer = Framer::new();
        let mut found = 0;
        for octet in
            line.iter().chain(b"* 1 FETCH (BODY[1] {1000000}\r\n").chain(&vec![b'x'; 1_000_000]).chain(b")\r\n")
        {
            framer.push(&[*octet]);
            found += usize::from(framer.next(|_| ()).unwrap().is_some());
        }
        assert_eq!((found, framer.capacity()), (2, 0));
    }

    proptest! {
        #[test]
        fn any_cut_of_the_octets_gives_the_same_responses(
            pieces in vec(
                select(vec![
                    "* ", "* OK", "* SEARCH ", "* 1 FETCH (", "{5}\r\n", "{5+}\n", "~{0}\r\n", "{2000000}\r\n", "{1000000}\r\n", "\r\n",
                    "\n", "\r", "\"", "some text", " {", "}", "7",
                ]),
                0..40,
            ),
            long in proptest::option::of((any::<Index>(), 0_usize..2_200_000)),
            cuts in vec(any::<Index>(), 0..6),
        ) {
            let mut octets: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.as_bytes().to_vec()).collect();
            if let Some((at, len)) = long {
                octets.insert(at.index(octets.len() + 1), vec![b'z'; len]);
            }
            let octets = octets.concat();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(octets.len() + 1)).collect();
            cuts.sort_unstable();
            let ends = cuts.iter().copied().chain([octets.len()]);
            let starts = std::iter::once(0).chain(cuts.iter().copied());
            let cut: Vec<&[u8]> = starts.zip(ends).map(|(start, end)| &octets[start..end]).collect();
            prop_assert_eq!(frames(cut), frames([&octets[..]]));
        }
    }
}
