//! Encoded words (RFC 2047) and raw bytes of unstructured header fields.
//!
//! One pass: nothing is scanned twice, since a sender may put a hundred thousand words in one field. Adjacent words of one
//! charset are joined as bytes before they are converted, because old mailers split characters between words.

use memchr::memmem;

use crate::event::Defect;
use crate::message::{charset, defects::Defects, header, transfer};

/// Longest charset name with a language (RFC 2047 §2 allows 75 octets for the whole word).
const CHARSET_BYTES_MAX: usize = 75;

/// Decodes the raw value of a field, folded or not. Control characters are still in it.
pub(super) fn decode(value: &[u8]) -> String {
    decode_noting(value, &mut Defects::default())
}

/// [`decode`], which notes what is wrong with the value.
pub(super) fn decode_noting(value: &[u8], defects: &mut Defects) -> String {
    let mut decoder = Decoder::default();
    decoder.read(&header::unfold(value));
    defects.note_if(std::str::from_utf8(value).is_err(), Defect::Raw8BitHeader);
    defects.extend(decoder.defects);
    decoder.out
}

/// Length of the encoded word that these octets start with.
pub(super) fn word_len(octets: &[u8]) -> Option<usize> {
    let (_, _, text) = opening(octets)?;
    let head = octets.len().saturating_sub(text.len());
    text_len(text).ok().map(|len| head.saturating_add(len).saturating_add(2))
}

struct Word<'a> {
    charset: &'a [u8],
    bytes: Vec<u8>,
}

enum Parsed<'a> {
    /// A word and what follows it.
    Word(Word<'a>, &'a [u8]),
    /// These octets are no word, and none begins in them. `opened`: they begin like one.
    NoWord { len: usize, opened: bool },
}

impl<'a> Word<'a> {
    /// `candidate` starts with `=?`.
    fn parse(candidate: &'a [u8]) -> Parsed<'a> {
        let Some((charset, encoding, text)) = opening(candidate) else {
            return Parsed::NoWord { len: 2, opened: false };
        };
        let head = candidate.len().saturating_sub(text.len());
        match text_len(text) {
            Ok(len) => {
                let (encoded, rest) = text.split_at_checked(len).unwrap_or((text, &[]));
                let bytes = match encoding {
                    b'B' | b'b' => transfer::base64(encoded),
                    _ => transfer::q_encoding(encoded),
                };
                Parsed::Word(Word { charset, bytes }, rest.get(2..).unwrap_or_default())
            }
            Err(scanned) => Parsed::NoWord { len: head.saturating_add(scanned), opened: true },
        }
    }
}

/// Splits `=?charset?Q?text…` after its third question mark.
fn opening(candidate: &[u8]) -> Option<(&[u8], u8, &[u8])> {
    let after = candidate.strip_prefix(b"=?")?;
    let label = after.get(..CHARSET_BYTES_MAX).unwrap_or(after);
    let end = label.iter().position(|&byte| byte == b'?' || !byte.is_ascii_graphic())?;
    let (charset, rest) = after.split_at_checked(end)?;
    match rest {
        [b'?', encoding @ (b'B' | b'b' | b'Q' | b'q'), b'?', text @ ..] if !charset.is_empty() => {
            Some((charset, *encoding, text))
        }
        _ => None,
    }
}

/// Octets up to the closing `?=`, or, where another word opens first or nothing closes it, the octets before that.
/// A lone `?` belongs to the text: some mailers do not escape it.
fn text_len(text: &[u8]) -> Result<usize, usize> {
    for mark in memchr::memchr_iter(b'?', text) {
        if text.get(mark.saturating_add(1)) == Some(&b'=') {
            return Ok(mark);
        }
        let before = mark.saturating_sub(1);
        if text.get(before) == Some(&b'=') && text.get(before..).and_then(opening).is_some() {
            return Err(before);
        }
    }
    Err(text.len())
}

/// Text so far, and the bytes of the words that are still to be converted together.
#[derive(Default)]
struct Decoder {
    out: String,
    charset: Vec<u8>,
    pending: Vec<u8>,
    defects: Defects,
}

impl Decoder {
    fn read(&mut self, value: &[u8]) {
        let mut rest = value;
        while let Some((plain, candidate)) = memmem::find(rest, b"=?").and_then(|at| rest.split_at_checked(at)) {
            match Word::parse(candidate) {
                Parsed::Word(word, after) => {
                    self.plain(plain, true);
                    self.word(&word);
                    rest = after;
                }
                Parsed::NoWord { len, opened } => {
                    self.defects.note_if(opened, Defect::EncodedWordInvalid);
                    let (broken, after) =
                        rest.split_at_checked(plain.len().saturating_add(len)).unwrap_or((rest, Default::default()));
                    self.plain(broken, false);
                    rest = after;
                }
            }
        }
        self.plain(rest, false);
        self.flush();
    }

    fn plain(&mut self, bytes: &[u8], before_word: bool) {
        // White space between two words is not shown (RFC 2047 §6.2).
        let separates = before_word && !self.charset.is_empty() && bytes.iter().all(u8::is_ascii_whitespace);
        if !separates && !bytes.is_empty() {
            self.flush();
            self.out.push_str(&charset::decode(bytes, None));
        }
    }

    fn word(&mut self, word: &Word<'_>) {
        if !self.charset.eq_ignore_ascii_case(word.charset) {
            self.flush();
            self.charset = word.charset.to_vec();
        }
        self.pending.extend_from_slice(&word.bytes);
    }

    fn flush(&mut self) {
        let charset = std::mem::take(&mut self.charset);
        let bytes = std::mem::take(&mut self.pending);
        if !charset.is_empty() {
            let label = String::from_utf8_lossy(&charset);
            self.out.push_str(&charset::decode_noting(&bytes, Some(&label), &mut self.defects));
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hard_words_are_read() {
        for (value, expected) in [
            ("=?utf-8?Q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
            ("=?utf-8*de?Q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
            ("=?utf-8?B?R3LDvMOfZQ?=", "Grüße"),
            ("=?utf-8?B?YQ==?=", "a"),
            ("=?utf-8?Q?Gr=C3?= =?utf-8?Q?=BC=C3=9Fe?=", "Grüße"),
            ("=?utf-8?Q?a?=\r\n =?utf-8?Q?b?=", "ab"),
            ("=?utf-8?Q?a?= b =?utf-8?Q?c_d=5F?=", "a b c d_"),
            ("x=?utf-8?Q?a?=y", "xay"),
            ("=?utf-8?Q?a b?c?=", "a b?c"),
            ("=?utf-8?Q?open =?utf-8?Q?a?=", "=?utf-8?Q?open a"),
            ("=?utf-8?Q?open", "=?utf-8?Q?open"),
            ("=?x=? =??Q?a?= =?utf-8?X?a?=", "=?x=? =??Q?a?= =?utf-8?X?a?="),
            ("=?iso-8859-1?Q?=FC?= =?utf-8?Q?=C3=BC?=", "üü"),
            ("=?utf-8?Q??=", ""),
            ("Grüße", "Grüße"),
            ("1 =? 2", "1 =? 2"),
        ] {
            assert_eq!(decode(value.as_bytes()), expected, "{value}");
        }
        assert_eq!(decode(b"Gr\xfc\xdfe"), "Grüße");
    }

    /// Two megabytes of each, past the cap on a field: anything quadratic would not end.
    #[test]
    fn bombs_take_linear_time() {
        for unit in ["=?utf-8?Q?a?= ", "=?utf-8?Q?", "=?", "=?utf-8?Q?a?", "?=", "=?utf-8?B?=", "==?utf-8?Q??"] {
            Decoder::default().read(unit.repeat(2_000_000 / unit.len()).as_bytes());
        }
    }

    proptest! {
        #[test]
        fn words_round_trip_wherever_they_are_split(text in "\\PC{1,60}", cut in any::<prop::sample::Index>()) {
            let bytes = text.as_bytes();
            let (head, tail) = bytes.split_at(cut.index(bytes.len()));
            let word = |part| format!("=?utf-8?B?{}?=", base64::engine::general_purpose::STANDARD.encode(part));
            let quoted = tail.iter().map(|byte| format!("={byte:02X}")).collect::<Vec<_>>().concat();
            prop_assert_eq!(decode(format!("{}\r\n {}", word(head), word(tail)).as_bytes()), text.clone());
            prop_assert_eq!(decode(format!("{} =?UTF-8?q?{quoted}?=", word(head)).as_bytes()), text);
        }

        #[test]
        fn any_bytes_are_decoded(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            decode(&bytes);
        }
    }
}
