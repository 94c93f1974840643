//! Makes decoded text safe and short enough to show: no control characters, bounded, cut between characters.
//!
//! Runs after every decoder, since each of them can bring control characters back (`=00`, `&#7;`, windows-1252's
//! holes). JSON, terminals and notification popups downstream rely on it.

use std::borrow::Cow;

/// Drops C0 and C1 control characters; those that separate become spaces.
pub(super) fn line(text: &str) -> String {
    let text: String = text
        .chars()
        .filter_map(|c| match c {
            '\t' | '\n' | '\r' | '\u{85}' => Some(' '),
            c if c.is_control() || c == '\u{feff}' => None,
            c => Some(c),
        })
        .collect();
    text.trim().to_owned()
}

/// Drops C0 and C1 control characters but tabs and line ends; every line end becomes LF.
pub(super) fn lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // Almost everything stays, so it is copied run by run: of each message some kilobytes come through here.
    loop {
        let (run, from) = rest.split_at_checked(clean_len(rest.as_bytes())).unwrap_or((rest, ""));
        out.push_str(run);
        let Some(c) = from.chars().next() else { return out };
        rest = rest.get(run.len().saturating_add(c.len_utf8())..).unwrap_or_default();
        match c {
            '\r' if rest.starts_with('\n') => {}
            '\r' | '\n' => out.push('\n'),
            c if c.is_control() || c == '\u{feff}' => {}
            c => out.push(c),
        }
    }
}

/// How many octets at the beginning stay as they are. Looked at many at a time, which the processor does far faster.
fn clean_len(text: &[u8]) -> usize {
    let chunks = text.chunks(32);
    let clean = chunks
        .take_while(|chunk| !chunk.iter().fold(false, |any, octet| any | may_be_control(*octet)))
        .map(<[u8]>::len)
        .sum();
    let rest = text.get(clean..).unwrap_or_default();
    rest.iter().position(|octet| may_be_control(*octet)).map_or(text.len(), |at| clean.saturating_add(at))
}

/// Whether a character that begins with this octet may be one that [`lines`] changes: C0 except the tab, DEL, C1 (behind
/// 0xC2) or U+FEFF (behind 0xEF).
fn may_be_control(octet: u8) -> bool {
    (octet < b' ' && octet != b'\t') || matches!(octet, 0x7f | 0xc2 | 0xef)
}

/// The first `chars_max` characters.
pub(super) fn cut_chars(mut text: String, chars_max: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(chars_max) {
        text.truncate(end);
    }
    text
}

/// At most `bytes_max` octets, cut between characters.
pub(super) fn cut_bytes(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text)
}

/// One line for a preview: white space collapsed, padding that senders hide there dropped, at most `chars_max`
/// characters.
pub(super) fn collapse<'a>(pieces: impl Iterator<Item = &'a str>, chars_max: usize) -> String {
    let mut out = String::new();
    let mut len = 0_usize;
    let mut gap = false;
    let mut joiner = None;
    for c in pieces.flat_map(|piece| piece.chars().chain([' '])) {
        match c {
            // Most characters are this.
            c if c.is_ascii_graphic() && !gap && joiner.is_none() => {
                out.push(c);
                len = len.saturating_add(1);
            }
            c if c.is_whitespace() => (gap, joiner) = (true, None),
            // They hold emoji and Persian words together; next to white space they are only padding.
            '\u{200c}' | '\u{200d}' => joiner = Some(c),
            c if is_invisible(c) => {}
            c => {
                let before = if gap { Some(' ') } else { joiner };
                for c in before.filter(|_| !out.is_empty()).into_iter().chain([c]) {
                    out.push(c);
                    len = len.saturating_add(1);
                }
                (gap, joiner) = (false, None);
            }
        }
        if len >= chars_max {
            break;
        }
    }
    cut_chars(out, chars_max).trim_end().to_owned()
}

/// Control characters, and those that newsletters pad their hidden preheader with.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2060}' | '\u{feff}'
        )
}

/// A string or nothing: an empty field says nothing.
pub(super) fn non_empty(text: impl Into<Cow<'static, str>>) -> Option<String> {
    Some(text.into().into_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_go() {
        assert_eq!(line("\u{7}a\u{0}b\u{9c}\r\nc "), "ab  c");
        assert_eq!(lines("a\r\nb\rc\u{1b}[0m\td"), "a\nb\nc[0m\td");
        assert_eq!(lines("\u{feff}\u{a0}\u{85}ü\u{7f}ﬀ\r\r\n\n€\r"), "\u{a0}üﬀ\n\n\n€\n");
    }

    #[test]
    fn preheader_padding_goes_but_joined_emoji_stay() {
        let padded = "Sale!\u{a0}\u{200c}\u{a0}\u{200c}\u{34f} now 👩\u{200d}🚀";
        assert_eq!(collapse([padded].into_iter(), 200), "Sale! now 👩\u{200d}🚀");
    }

    #[test]
    fn cuts_fall_between_characters() {
        assert_eq!(cut_bytes("aü", 2), "a");
        assert_eq!(cut_chars("üüü".into(), 2), "üü");
        assert_eq!(collapse(["ab  cd"].into_iter(), 3), "ab");
    }
}
