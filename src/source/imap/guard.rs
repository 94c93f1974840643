//! Limits on what a server may send, enforced before the parser sees a byte.
//!
//! The parser allocates what a literal announces, parses a line anew with each block that arrives, and descends into
//! parentheses on the stack: without limits a hostile server exhausts memory, processor or stack. A connection that
//! breaks a limit is closed; [`super::session`] then asks for less, so that one strange message stops nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Octets of a response outside literals: the structure of a message with a thousand parts fits.
const LINE_BYTES_MAX: usize = 256 * 1024;
/// Octets of one literal; the most that is asked for is `text_bytes_max`, 512 KiB at the utmost.
const LITERAL_BYTES_MAX: u64 = 1024 * 1024;
/// Octets of one response.
const RESPONSE_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Nested parentheses. Real mail needs ten; each level takes the parser 25 KiB of stack in a debug build, of the 2 MiB
/// that a thread has.
const DEPTH_MAX: u32 = 40;

/// Which limit was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum LimitError {
    #[error("the server sent a line of more than {LINE_BYTES_MAX} octets")]
    Line,
    #[error("the server announced a literal of more than {LITERAL_BYTES_MAX} octets")]
    Literal,
    #[error("the server sent a response of more than {RESPONSE_BYTES_MAX} octets")]
    Response,
    #[error("the server sent more than {DEPTH_MAX} nested lists")]
    Depth,
}

/// Follows lines, quoted strings and literals (RFC 9051 §4.3) just closely enough to measure them.
#[derive(Debug, Default)]
struct Meter {
    line_len: usize,
    response_len: u64,
    depth: u32,
    quoted: Quoted,
    announced: Announced,
    /// Octets of a literal that are still to come.
    literal_left: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Quoted {
    #[default]
    No,
    Yes,
    Escape,
}

/// How much of `{n}` CR LF was seen.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Announced {
    #[default]
    Nothing,
    Digits(u64),
    Closed(u64),
    Return(u64),
}

impl Meter {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), LimitError> {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.literal_left > 0 {
                let skipped = usize::try_from(self.literal_left).unwrap_or(usize::MAX).min(bytes.len());
                self.literal_left -= skipped as u64;
                self.grow(skipped as u64)?;
                bytes = bytes.get(skipped..).unwrap_or_default();
            } else {
                self.grow(1)?;
                self.byte(byte)?;
                bytes = rest;
            }
        }
        Ok(())
    }

    fn grow(&mut self, by: u64) -> Result<(), LimitError> {
        self.response_len += by;
        if self.response_len > RESPONSE_BYTES_MAX { Err(LimitError::Response) } else { Ok(()) }
    }

    fn byte(&mut self, byte: u8) -> Result<(), LimitError> {
        self.line_len += 1;
        if self.line_len > LINE_BYTES_MAX {
            return Err(LimitError::Line);
        }
        let announced = std::mem::take(&mut self.announced);
        match (byte, self.quoted) {
            // A quoted string holds no line break: what looks like one was free text with a lone quote in it.
            (b'\n', quoted) => match announced {
                Announced::Return(octets) if quoted == Quoted::No => {
                    if octets > LITERAL_BYTES_MAX {
                        return Err(LimitError::Literal);
                    }
                    self.literal_left = octets;
                }
                _ => *self = Self::default(),
            },
            (_, Quoted::Escape) | (b'"', Quoted::No) => self.quoted = Quoted::Yes,
            (b'\\', Quoted::Yes) => self.quoted = Quoted::Escape,
            (b'"', Quoted::Yes) => self.quoted = Quoted::No,
            (_, Quoted::Yes) => {}
            (b'(', Quoted::No) => {
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    return Err(LimitError::Depth);
                }
            }
            (b')', Quoted::No) => self.depth = self.depth.saturating_sub(1),
            (byte, Quoted::No) => self.announced = announced.after(byte),
        }
        Ok(())
    }
}

impl Announced {
    fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (_, b'{') => Self::Digits(0),
            (Self::Digits(octets), b'0'..=b'9') => {
                Self::Digits(octets.saturating_mul(10).saturating_add(u64::from(byte - b'0')))
            }
            (Self::Digits(octets), b'}') => Self::Closed(octets),
            (Self::Closed(octets), b'\r') => Self::Return(octets),
            _ => Self::Nothing,
        }
    }
}

/// A stream whose reader gets an error where the peer breaks a limit.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    meter: Meter,
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, meter: Meter::default() }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        let fresh = buffer.filled().get(before..).unwrap_or_default();
        Poll::Ready(this.meter.take(fresh).map_err(|limit| io::Error::new(io::ErrorKind::InvalidData, limit)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    fn meter(text: &[u8]) -> Result<(), LimitError> {
        Meter::default().take(text)
    }

    #[test]
    fn each_limit_is_enforced() {
        assert_eq!(meter(b"* 1 FETCH (BODY[1] {1048577}\r\n"), Err(LimitError::Literal));
        assert_eq!(meter(b"* 1 FETCH (BODY[1] {99999999999999999999}\r\n"), Err(LimitError::Literal));
        assert_eq!(meter(&b"(".repeat(DEPTH_MAX as usize + 1)), Err(LimitError::Depth));
        assert_eq!(meter(&b"x".repeat(LINE_BYTES_MAX + 1)), Err(LimitError::Line));
        let mut literals = Vec::new();
        for _ in 0..3 {
            literals.extend(b" {1000000}\r\n");
            literals.extend(b"y".repeat(1_000_000));
        }
        assert_eq!(meter(&literals), Err(LimitError::Response));
    }

    #[test]
    fn what_only_looks_like_a_literal_or_list_is_none() {
        let mut text = b"* 1 FETCH (BODY[1] {12}\r\n{9999999}\r\n( UID 1)\r\n".to_vec();
        text.extend(b"* 1 FETCH (X \"{9999999}\" Y \"((\\\"((\")\r\n".repeat(100));
        text.extend(b"* OK it's 5\" {9999999}\r\n".repeat(2));
        assert_eq!(meter(&text), Ok(()));
    }

    #[test]
    fn the_parser_survives_the_deepest_list_that_is_let_through() {
        // One for FETCH's own list, one for an envelope inside.
        let depth = DEPTH_MAX as usize - 2;
        let message = "(\"message\" \"rfc822\" NIL NIL NIL \"7bit\" 1 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) ";
        for nested in ["(", message] {
            let line = format!("* 1 FETCH (BODYSTRUCTURE {}x{})\r\n", nested.repeat(depth), ")".repeat(depth));
            assert_eq!(meter(line.as_bytes()), Ok(()));
            // The outcome does not matter, only that the stack holds.
            drop(imap_proto::Response::parse(line.as_bytes()));
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_the_bytes_gives_the_same_verdict(
            pieces in proptest::collection::vec(
                proptest::sample::select(vec!["{5}\r\n", "{2000000}\r\n", "\r\n", "\"", "\\", "(", ")", "some text"]),
                0..40,
            ),
            cut in any::<Index>(),
        ) {
            let text = pieces.concat().into_bytes();
            let (head, tail) = text.split_at(cut.index(text.len() + 1));
            let mut meter_in_two = Meter::default();
            prop_assert_eq!(meter_in_two.take(head).and_then(|()| meter_in_two.take(tail)), meter(&text));
        }
    }
}
