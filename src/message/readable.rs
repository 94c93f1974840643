//! Readable text and preview of one text part, whole or cut anywhere.
//!
//! Each step (transfer encoding, charset, HTML or flowed text) copes with a cut, so an IMAP source may fetch
//! just the first kilobyte or two of a part. Only as many raw octets are decoded as the result can need.

use std::borrow::Cow;

use memchr::memmem;

use crate::event::Defect;
use crate::message::{
    armor, charset,
    defects::Defects,
    flowed,
    html::{self, Ending, Purpose},
    printable,
    transfer::Encoding,
};

/// Longest preview, in characters: what a notification shows.
const PREVIEW_CHARS_MAX: usize = 200;

/// Longest text, in octets.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Raw octets of plain text that a preview is looked for in: enough to get past a long quote at the top.
const PREVIEW_SOURCE_MAX: usize = 32 * 1024;

/// Raw octets of plain text that the text is made of. In quoted-printable, an octet takes three.
const TEXT_SOURCE_MAX: usize = 4 * TEXT_BYTES_MAX;

/// Newsletters have their style sheets before the first word, so HTML gets so much more to read.
const HTML_FACTOR: usize = 8;

/// What is needed to read one text part, whose raw octets may be cut at any point.
#[derive(Debug, Clone, Copy)]
pub struct TextPart<'a> {
    /// `plain` or `html`; anything else is read as plain text.
    pub subtype: &'a str,
    /// The `charset` parameter, as it is written.
    pub charset: Option<&'a str>,
    /// Content-Transfer-Encoding, as it is written.
    pub encoding: &'a str,
    /// `format=flowed` (RFC 3676).
    pub flowed: bool,
    /// `DelSp=yes` (RFC 3676 §4.2).
    pub del_sp: bool,
}

/// The beginning of what can be read in a part: one line, at most 200 characters. None when there is nothing to read.
///
/// Quoted text, the signature and ruled lines are left out where something else is there; what PGP has encrypted in
/// the text is left out always. `raw` may end in the middle
/// of a base64 group, an `=XX`, a character or a tag; more of it gives the same beginning.
pub fn preview(part: &TextPart<'_>, raw: &[u8]) -> Option<String> {
    preview_of(&decode(part, raw, Ending::Cut, Purpose::Preview, &mut Defects::default()))
}

/// [`preview`] of a part that is there to its end; notes what is wrong with the text.
pub(super) fn preview_of_whole(part: &TextPart<'_>, raw: &[u8], defects: &mut Defects) -> Option<String> {
    preview_of(&decode(part, raw, Ending::Whole, Purpose::Preview, defects))
}

fn preview_of(text: &str) -> Option<String> {
    let text = armor::removed(text);
    let own = text.lines().take_while(|line| *line != "-- ").filter(|line| !is_quote(line) && !is_rule(line));
    printable::non_empty(printable::collapse(own, PREVIEW_CHARS_MAX))
        .or_else(|| printable::non_empty(printable::collapse(text.lines(), PREVIEW_CHARS_MAX)))
}

/// A preview of text that the server has decoded and cut already.
pub fn preview_of_text(text: &str) -> Option<String> {
    let text = printable::lines(printable::cut_bytes(text, PREVIEW_SOURCE_MAX));
    printable::non_empty(printable::collapse(text.lines(), PREVIEW_CHARS_MAX))
}

/// All that can be read in a part, with LF line ends, at most 64 KiB. None when there is nothing to read.
pub fn text(part: &TextPart<'_>, raw: &[u8]) -> Option<String> {
    bounded(&decode(part, raw, Ending::Cut, Purpose::Text, &mut Defects::default()))
}

/// [`text`] of a part that is there to its end.
pub(super) fn whole_text(part: &TextPart<'_>, raw: &[u8]) -> Option<String> {
    bounded(&decode(part, raw, Ending::Whole, Purpose::Text, &mut Defects::default()))
}

fn bounded(text: &str) -> Option<String> {
    let text = printable::cut_bytes(text.trim_start_matches('\n').trim_end(), TEXT_BYTES_MAX).trim_end();
    printable::non_empty(text.to_owned())
}

/// Decoded text with LF line ends and without control characters, from as many octets as the purpose needs.
fn decode(part: &TextPart<'_>, raw: &[u8], ending: Ending, purpose: Purpose, defects: &mut Defects) -> String {
    let source_max = match purpose {
        Purpose::Preview => PREVIEW_SOURCE_MAX,
        Purpose::Text => TEXT_SOURCE_MAX,
    };
    let is_html = part.subtype.eq_ignore_ascii_case("html");
    let raw_max = if is_html { source_max.saturating_mul(HTML_FACTOR) } else { source_max };
    let bytes = Encoding::parse(part.encoding, &mut Defects::default()).decode(raw.get(..raw_max).unwrap_or(raw));
    if is_html {
        let label = part.charset.map(Cow::Borrowed).or_else(|| meta_charset(&bytes).map(Cow::Owned));
        defects.note_if(label.is_none() && !bytes.is_ascii(), Defect::WrongCharset);
        let html = charset::decode_noting(&bytes, label.as_deref(), defects);
        let ending = if raw.len() > raw_max { Ending::Cut } else { ending };
        return printable::lines(&html::to_text(&html, purpose, ending, source_max));
    }
    defects.note_if(part.charset.is_none() && !bytes.is_ascii(), Defect::WrongCharset);
    let text = printable::lines(&charset::decode_noting(&bytes, part.charset, defects));
    if part.flowed { flowed::unflow(&text, part.del_sp) } else { text }
}

/// The charset that the HTML itself declares near its top: `<meta charset=…>` or `content="…; charset=…"`.
fn meta_charset(html: &[u8]) -> Option<String> {
    let head = html.get(..1024).unwrap_or(html).to_ascii_lowercase();
    let after = memmem::find(&head, b"charset=").and_then(|at| head.get(at.saturating_add(8)..))?;
    let label = after.strip_prefix(b"\"").or_else(|| after.strip_prefix(b"'")).unwrap_or(after);
    let end = label.iter().position(|byte| !(byte.is_ascii_alphanumeric() || b"-_:.".contains(byte)))?;
    label.get(..end).map(|label| String::from_utf8_lossy(label).into_owned())
}

fn is_quote(line: &str) -> bool {
    line.trim_start().starts_with('>')
}

/// Lines like `-----` that only divide.
fn is_rule(line: &str) -> bool {
    line.chars().all(|c| c.is_whitespace() || matches!(c, '-' | '=' | '_' | '*' | '~' | '#' | '+'))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use proptest::prelude::*;

    use super::*;

    const PLAIN: TextPart<'_> =
        TextPart { subtype: "plain", charset: Some("utf-8"), encoding: "8bit", flowed: false, del_sp: false };
    const HTML: TextPart<'_> = TextPart { subtype: "HTML", charset: None, ..PLAIN };

    #[test]
    fn preview_is_one_line_of_the_senders_own_words() {
        for (raw, expected) in [
            ("\r\n  Hello,\r\n\r\n\tworld \r\n", Some("Hello, world")),
            ("> old\r\n\r\nnew\r\n=====\r\n-- \r\nme", Some("new")),
            ("> only\r\n> quotes", Some("> only > quotes")),
            (" \r\n\u{200b}\r\n", None),
            ("", None),
        ] {
            assert_eq!(preview(&PLAIN, raw.as_bytes()).as_deref(), expected, "{raw:?}");
        }
        let long = preview(&PLAIN, "ü".repeat(1_000).as_bytes()).unwrap();
        assert_eq!(long.chars().count(), PREVIEW_CHARS_MAX);
    }

    #[test]
    fn text_keeps_its_lines_and_is_bounded() {
        assert_eq!(text(&PLAIN, b"\r\na\r\n\r\n  b\x07\r\n").as_deref(), Some("a\n\n  b"));
        let long = text(&PLAIN, "ü ".repeat(100_000).as_bytes()).unwrap();
        assert!(long.len() <= TEXT_BYTES_MAX && long.len() > TEXT_BYTES_MAX - 4);
    }

    #[test]
    fn parts_are_read_through_their_encodings() {
        let part = TextPart { encoding: "BASE64", ..PLAIN };
        assert_eq!(preview(&part, b"R3LDvMOfZQ==\r\n\r\n____\r\nlist footer").as_deref(), Some("Grüße"));
        let part = TextPart { encoding: "quoted-printable", charset: Some("iso-8859-1"), ..PLAIN };
        assert_eq!(preview(&part, b"Gr=FC=\r\n=DFe \xfc").as_deref(), Some("Grüße ü"));
        let part = TextPart { flowed: true, del_sp: true, ..PLAIN };
        assert_eq!(text(&part, b"Wort \r\nteil\r\nEnde").as_deref(), Some("Wortteil\nEnde"));
        assert_eq!(preview(&HTML, b"<meta charset='iso-8859-2'><p style='x'>\xe8</p>").as_deref(), Some("č"),);
        assert_eq!(text(&HTML, b"<p>a<br>b<p>c").as_deref(), Some("a\nb\n\nc"));
    }

    fn encode(encoding: &str, bytes: &[u8]) -> Vec<u8> {
        match encoding {
            "base64" => {
                let encoded = base64::engine::general_purpose::STANDARD.encode(bytes).into_bytes();
                encoded.chunks(76).collect::<Vec<_>>().join(&b"\r\n"[..])
            }
            "quoted-printable" => {
                let escaped: Vec<String> = bytes.iter().map(|byte| format!("={byte:02X}")).collect();
                escaped.chunks(24).map(<[String]>::concat).collect::<Vec<_>>().join("=\r\n").into_bytes()
            }
            _ => bytes.to_vec(),
        }
    }

    proptest! {
        #[test]
        fn cut_part_gives_a_prefix_of_the_whole_preview(
            words in "[a-zü€🚀 \n]{0,80}",
            encoding in prop::sample::select(vec!["8bit", "base64", "quoted-printable"]),
            subtype in prop::sample::select(vec!["plain", "html"]),
            cut in any::<prop::sample::Index>(),
        ) {
            let part = TextPart { subtype, encoding, ..PLAIN };
            let html = words.replace('\n', "<br>").replace('ü', "&uuml;").replace('z', "<a href=\"z\">");
            let content = if subtype == "html" { format!("<p>{html}</p>") } else { words };
            let raw = encode(encoding, content.as_bytes());
            let whole = preview(&part, &raw).unwrap_or_default();
            let beginning = preview(&part, &raw[..cut.index(raw.len() + 1)]).unwrap_or_default();
            prop_assert!(whole.starts_with(&beginning), "{beginning:?} of {whole:?}");
        }

        #[test]
        fn any_bytes_are_read_as_any_part(
            raw in prop::collection::vec(any::<u8>(), 0..300),
            charset in prop::option::of("[a-z0-9-]{0,12}|utf-16|iso-2022-(jp|kr)|hz|gb18030|cp437"),
            encoding in prop::sample::select(vec!["8bit", "base64", "quoted-printable", ""]),
            subtype in prop::sample::select(vec!["plain", "html"]),
            flowed in any::<bool>(),
        ) {
            let part = TextPart { subtype, charset: charset.as_deref(), encoding, flowed, del_sp: flowed };
            let shown = preview(&part, &raw).unwrap_or_default();
            prop_assert!(shown.chars().count() <= PREVIEW_CHARS_MAX && !shown.contains(char::is_control));
            let text = text(&part, &raw).unwrap_or_default();
            prop_assert!(text.len() <= TEXT_BYTES_MAX);
            prop_assert!(!text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')));
        }
    }
}
