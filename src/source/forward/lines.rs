//! A message as it goes over the wire again: only CRLF ends its lines. Pure.
//!
//! What came in may have bare CRs and LFs in it. Sent on as they are they would let a sender smuggle a second message
//! past a smart host that takes one of them for the end of a line (CVE-2023-51764 and its kin).

use std::borrow::Cow;

use crate::message;

/// The message with every CR and every LF made a CRLF, but for the end of its last line: who sends it ends that.
pub(super) fn lines(message: &[u8]) -> Cow<'_, [u8]> {
    if !has_bare(message) {
        return Cow::Borrowed(message.strip_suffix(b"\r\n").unwrap_or(message));
    }
    let mut clean = Vec::with_capacity(message.len() + message.len() / 64);
    for line in message::lines(message) {
        clean.extend_from_slice(line);
        clean.extend_from_slice(b"\r\n");
    }
    clean.truncate(clean.len().saturating_sub(2));
    Cow::Owned(clean)
}

fn has_bare(message: &[u8]) -> bool {
    let mut ends = memchr::memchr2_iter(b'\r', b'\n', message);
    while let Some(at) = ends.next() {
        if message.get(at..at + 2) != Some(b"\r\n") {
            return true;
        }
        ends.next();
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_crlf_ends_a_line() {
        for (raw, sent) in [
            (&b"a\r\nb\r\n"[..], &b"a\r\nb"[..]),
            (b"a\nb", b"a\r\nb"),
            (b"a\r.\r\nb\r\n", b"a\r\n.\r\nb"),
            (b"a\r\r\n.\r\n", b"a\r\n\r\n."),
            (b"a\n.\nMAIL", b"a\r\n.\r\nMAIL"),
            (b"\r\n", b""),
            (b"", b""),
            (b"a\r", b"a"),
        ] {
            assert_eq!(lines(raw), sent, "{raw:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_bare_is_left_and_clean_mail_stays_as_it_is(raw in "[ab.\r\n]{0,30}") {
            let sent = lines(raw.as_bytes()).into_owned();
            prop_assert!(!has_bare(&sent), "{:?}", sent);
            let text = |octets: &[u8]| octets.iter().copied().filter(|o| !b"\r\n".contains(o)).collect::<Vec<_>>();
            prop_assert_eq!(text(&sent), text(raw.as_bytes()));
            let whole = [&sent[..], b"\r\n"].concat();
            prop_assert_eq!(&lines(&whole)[..], &sent[..]);
        }
    }
}
