//! The parts of postrider that are fuzzed, by their source files alone: a target is built in seconds.

pub mod source;

#[path = "../../../src/source/imap"]
mod imap {
    #[allow(missing_docs, reason = "as in postrider, where it is private")]
    pub mod protocol;
}

#[path = "../../../src"]
#[allow(dead_code, unused_imports, reason = "what sources need of it is not fuzzed")]
mod postrider {
    pub mod event;
}

#[allow(missing_docs, reason = "as in postrider")]
#[path = "../../../src/message/authentication/results.rs"]
pub mod authentication_results;

pub use imap::protocol;
pub use postrider::event;
use protocol::{FrameError, Framer, Response, parse};

/// What a framer makes of octets that arrive in pieces of this length.
pub fn frames(octets: &[u8], piece_len: usize) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let (mut framer, mut frames) = (Framer::new(), Vec::new());
    for piece in octets.chunks(piece_len.max(1)) {
        framer.push(piece);
        loop {
            match framer.next(<[u8]>::to_vec) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(framer.next(<[u8]>::len), Err(error), "an error is for ever");
                    return (frames, Some(error));
                }
            }
        }
    }
    (frames, None)
}

/// Reads `begin`, `octets` and `end` as one response, and as what a framer makes of them: a view must be safe against
/// what no framer would let through.
pub fn responses(begin: &str, octets: &[u8], end: &str) -> Vec<Response> {
    let whole = [begin.as_bytes(), octets, end.as_bytes(), b"\r\n"].concat();
    let (frames, _) = frames(&whole, whole.len());
    std::iter::once(parse(&whole)).chain(frames.iter().map(|frame| parse(frame))).collect()
}
