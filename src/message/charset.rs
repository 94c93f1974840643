//! Bytes to text, whatever charset they claim.
//!
//! Order: the declared charset, UTF-8, windows-1252. Mailers mislabel so often that bytes which are plainly UTF-8 win
//! over a label they do not fit. What `encoding_rs` refuses, since browsers do, but old mailers sent, is decoded here.

use encoding_rs::{Encoding, WINDOWS_1252};

use crate::event::Defect;
use crate::message::{defects::Defects, transfer};

/// Upper half of IBM code page 437, which DOS mailers used.
const CP437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// Upper half of IBM code page 850.
const CP850: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜø£Ø×ƒáíóúñÑªº¿®¬½¼¡«»░▒▓│┤ÁÂÀ©╣║╗╝¢¥┐└┴┬├─┼ãÃ╚╔╩╦╠═╬¤ðÐÊËÈıÍÎÏ┘┌█▄¦Ì▀ÓßÔÒõÕµþÞÚÛÙýÝ¯´\u{ad}±‗¾¶§÷¸°¨·¹³²■\u{a0}";

/// Decodes `bytes`, which may end in the middle of a character. Never fails; control characters are still in it.
pub(super) fn decode(bytes: &[u8], label: Option<&str>) -> String {
    decode_noting(bytes, label, &mut Defects::default())
}

/// [`decode`], which notes whether the charset is known and the bytes are in it.
pub(super) fn decode_noting(bytes: &[u8], label: Option<&str>, defects: &mut Defects) -> String {
    let label = label.map(clean_label).filter(|label| !label.is_empty());
    match label.as_deref() {
        None => guess(bytes),
        // US-ASCII with high bytes in it is a wrong label.
        Some("us-ascii" | "ascii" | "ansi_x3.4-1968" | "unknown-8bit" | "x-unknown" | "unknown" | "default") => {
            defects.note_if(!bytes.is_ascii(), Defect::WrongCharset);
            guess(bytes)
        }
        Some("utf-7" | "utf7" | "unicode-1-1-utf-7" | "csunicode11utf7" | "x-unicode-2-0-utf-7") => utf7(bytes),
        Some("ibm437" | "cp437" | "437" | "cspc8codepage437") => code_page(bytes, CP437),
        Some("ibm850" | "cp850" | "850" | "cspc850multilingual") => code_page(bytes, CP850),
        Some("iso-2022-kr" | "csiso2022kr") => shifted_korean(bytes),
        Some("hz-gb-2312" | "hz") => hz(bytes),
        Some(label) => match Encoding::for_label_no_replacement(label.as_bytes()) {
            Some(encoding) if encoding == encoding_rs::UTF_8 => {
                let wrong = std::str::from_utf8(bytes).is_err_and(|err| err.error_len().is_some());
                defects.note_if(wrong, Defect::WrongCharset);
                utf8(bytes)
            }
            Some(encoding) => {
                let utf8_instead = !bytes.is_ascii() && std::str::from_utf8(bytes).is_ok();
                defects.note_if(utf8_instead && encoding.decode_without_bom_handling(bytes).1, Defect::WrongCharset);
                declared(bytes, encoding)
            }
            None => {
                defects.note(Defect::UnknownCharset);
                guess(bytes)
            }
        },
    }
}

/// Lower case, without what mailers wrap around it: quotes, a comment, RFC 2231 §5's language; `cp-1252` and such
/// spellings come out as `encoding_rs` knows them.
fn clean_label(label: &str) -> String {
    let label = label.trim().trim_matches(['"', '\'']);
    let end = label.find(|c: char| matches!(c, '(' | '*' | ';' | ',') || c.is_whitespace()).unwrap_or(label.len());
    let label = label.get(..end).unwrap_or_default().trim_matches(['"', '\'']).to_ascii_lowercase();
    match label.as_str() {
        "utf_8" | "utf-8-sig" | "utf8mb4" | "x-utf-8" => "utf-8".to_owned(),
        "ks_c_5601-1987" | "cp949" | "ms949" | "uhc" => "euc-kr".to_owned(),
        "cp932" | "ms932" => "shift_jis".to_owned(),
        "cp936" | "ms936" => "gbk".to_owned(),
        "cp950" => "big5".to_owned(),
        "latin-1" | "iso8859_1" => "iso-8859-1".to_owned(),
        other => match other.strip_prefix("cp-").or_else(|| other.strip_prefix("win-")) {
            Some(number) => format!("windows-{number}"),
            None => other.to_owned(),
        },
    }
}

fn declared(bytes: &[u8], encoding: &'static Encoding) -> String {
    if encoding == encoding_rs::ISO_2022_JP {
        let bytes = without_idle_escapes(bytes);
        return encoding.decode_without_bom_handling(&bytes).0.trim_end_matches('\u{fffd}').to_owned();
    }
    let (text, had_errors) = encoding.decode_with_bom_removal(bytes);
    if had_errors
        && !bytes.is_ascii()
        && let Some(utf8) = utf8_up_to_a_cut(bytes)
    {
        return utf8.to_owned();
    }
    // A character that was cut in half at the end says nothing.
    text.trim_end_matches('\u{fffd}').to_owned()
}

/// The bytes as UTF-8, if they are; their last character may be cut in half.
fn utf8_up_to_a_cut(bytes: &[u8]) -> Option<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(err) if err.error_len().is_none() => std::str::from_utf8(bytes.get(..err.valid_up_to())?).ok(),
        Err(_) => None,
    }
}

/// ISO-2022-JP without escape sequences that another follows at once, as where encoded words were joined: browsers take
/// those for an error, and so does `encoding_rs`.
fn without_idle_escapes(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        if let [0x1b, b'(' | b'$', _, after @ ..] = rest
            && after.first() == Some(&0x1b)
        {
            rest = after;
            continue;
        }
        out.push(byte);
        rest = tail;
    }
    out
}

/// Nothing is declared that helps: UTF-8 where the bytes have a single well-formed UTF-8 character, else windows-1252.
fn guess(bytes: &[u8]) -> String {
    if !bytes.is_ascii() && bytes.utf8_chunks().any(|chunk| !chunk.valid().is_ascii()) {
        utf8(bytes)
    } else {
        WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned()
    }
}

/// UTF-8, with each byte that does not fit read as windows-1252: one bad byte must not spoil the text around it.
fn utf8(bytes: &[u8]) -> String {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut out = String::with_capacity(bytes.len());
    let mut clean = true;
    let mut chunks = bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        out.push_str(chunk.valid());
        let cut_in_half = clean && chunks.peek().is_none() && is_incomplete(chunk.invalid());
        if !chunk.invalid().is_empty() && !cut_in_half {
            clean = false;
            out.push_str(&WINDOWS_1252.decode_without_bom_handling(chunk.invalid()).0);
        }
    }
    out
}

/// Whether these bytes begin a UTF-8 character and end before it does.
fn is_incomplete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|err| err.error_len().is_none())
}

fn code_page(bytes: &[u8], upper_half: &str) -> String {
    let upper_half: Vec<char> = upper_half.chars().collect();
    bytes
        .iter()
        .filter_map(|&byte| match byte.checked_sub(128) {
            None => Some(char::from(byte)),
            Some(upper) => upper_half.get(usize::from(upper)).copied(),
        })
        .collect()
}

/// UTF-7 (RFC 2152): base64 of UTF-16 between `+` and whatever is no base64 digit; `-` there is dropped. Browsers refuse
/// it, but Exchange sent it for years.
fn utf7(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((plain, shifted)) = memchr::memchr(b'+', rest).and_then(|at| rest.split_at_checked(at)) {
        out.push_str(&guess(plain));
        let shifted = shifted.get(1..).unwrap_or_default();
        let len = shifted.iter().take_while(|&&byte| transfer::digit(byte).is_some()).count();
        let (encoded, after) = shifted.split_at_checked(len).unwrap_or((shifted, &[]));
        if let (b"", [b'-', after @ ..]) = (encoded, after) {
            out.push('+');
            rest = after;
            continue;
        }
        let utf16 = transfer::base64(encoded);
        out.push_str(encoding_rs::UTF_16BE.decode_without_bom_handling(&utf16).0.trim_end_matches('\u{fffd}'));
        rest = after.strip_prefix(b"-").unwrap_or(after);
    }
    out.push_str(&guess(rest));
    out
}

/// ISO-2022-KR (RFC 1557): EUC-KR without the high bit between Shift Out and Shift In.
fn shifted_korean(bytes: &[u8]) -> String {
    let mut shifted = false;
    let mut euc = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [byte, tail @ ..] = rest {
        rest = tail.strip_prefix(b"$)C").filter(|_| *byte == 0x1b).unwrap_or(tail);
        match byte {
            0x0e => shifted = true,
            0x0f | b'\n' => shifted = false,
            _ => {}
        }
        match byte {
            0x0e | 0x0f | 0x1b => {}
            0x21..=0x7e if shifted => euc.push(byte | 0x80),
            byte => euc.push(*byte),
        }
    }
    declared(&euc, encoding_rs::EUC_KR)
}

/// HZ (RFC 1843): GB 2312 without the high bit between `~{` and `~}`.
fn hz(bytes: &[u8]) -> String {
    let mut chinese = false;
    let mut gb = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match (byte, tail) {
            (b'~', [b'{', after @ ..]) if !chinese => (chinese, rest) = (true, after),
            (b'~', [b'}', after @ ..]) if chinese => (chinese, rest) = (false, after),
            (b'~', [b'~', after @ ..]) if !chinese => {
                gb.push(b'~');
                rest = after;
            }
            (b'~', [b'\n', after @ ..]) if !chinese => rest = after,
            (b'\n', _) => {
                chinese = false;
                gb.push(b'\n');
            }
            (0x21..=0x7e, _) if chinese => gb.push(byte | 0x80),
            _ => gb.push(*byte),
        }
    }
    declared(&gb, encoding_rs::GBK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_and_odd_labels_are_read() {
        for (bytes, label, expected) in [
            ("Grüße".as_bytes(), None, "Grüße"),
            ("Grüße".as_bytes(), Some("us-ascii"), "Grüße"),
            ("Grüße".as_bytes(), Some("no-such-charset"), "Grüße"),
            (b"Gr\xfc\xdfe", None, "Grüße"),
            (b"Gr\xfc\xdfe", Some("utf-8"), "Grüße"),
            (b"Gr\xfc\xdfe", Some("iso-8859-1"), "Grüße"),
            ("Grüße".as_bytes(), Some("utf-8 (x)"), "Grüße"),
            ("Grüße".as_bytes(), Some("'utf-8'"), "Grüße"),
            ("Grüße".as_bytes(), Some("UTF-8*de"), "Grüße"),
            ("Grüße".as_bytes(), Some("shift_jis"), "Grﾃｼﾃ歹"),
            (b"caf\xe9", None, "café"),
            (b"5 \xe2\x82\xac for \xe2\x82", Some("gbk"), "5 € for "),
            (b"Gr\xc3\xbc\xc3", Some("utf-8"), "Grü"),
            (b"\xc3\xbc \xff \xc3\xbc", Some("utf-8"), "ü ÿ ü"),
            (b"Gr\x81\xe1e", Some("cp850"), "Grüße"),
            (b"\x9b\xe1", Some("IBM437"), "¢ß"),
            (b"\x1b$)C\x0e>H3g\x0f!", Some("iso-2022-kr"), "안녕!"),
            (b"a~~~{VPND~}b", Some("hz-gb-2312"), "a~中文b"),
            (b"\x1b$B$3$s\x1b(B", Some("iso-2022-jp"), "こん"),
            (b"\x1b$B$3\x1b(B\x1b$B$s\x1b(B", Some("iso-2022-jp"), "こん"),
            (b"\x93\xfa\x96", Some("shift_jis"), "日"),
            (b"Gr+APwA3w-e 1+-1 +ZeVnLA.", Some("utf-7"), "Grüße 1+1 日本."),
            (b"\xef\xbb\xbfa", Some("utf-8"), "a"),
        ] {
            assert_eq!(decode(bytes, label), expected, "{bytes:?} {label:?}");
        }
    }
}
