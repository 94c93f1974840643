//! Fields with parameters: `Content-Type` and `Content-Disposition` (RFC 2045 §5.1, RFC 2231).

use crate::message::{charset, encoded_word, header, printable, transfer};

/// Parameters of one field that are read; a file name in continuations takes several.
const PARAMETERS_MAX: usize = 100;

/// The longest file name, in characters: what file systems allow.
pub(super) const FILENAME_CHARS_MAX: usize = 255;

/// A field's value and its parameters, with their names in lower case and the values still encoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Parameterised {
    /// Lower case, without comments.
    pub(super) value: String,
    parameters: Vec<(String, Vec<u8>)>,
}

impl Parameterised {
    pub(super) fn parse(raw: &[u8]) -> Self {
        let mut pieces = pieces(&header::unfold(raw)).into_iter();
        let value = pieces.next().unwrap_or_default();
        let parameters = pieces
            .filter_map(|piece| {
                let (name, value) = piece.split_at_checked(memchr::memchr(b'=', &piece)?)?;
                let name = String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase();
                Some((name, value.get(1..)?.to_vec()))
            })
            .collect();
        Self { value: printable::line(&String::from_utf8_lossy(&value)).to_ascii_lowercase(), parameters }
    }

    pub(super) fn raw(&self, name: &str) -> Option<&[u8]> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_slice())
    }

    /// The boundary of a multipart, as its octets are. Trailing blanks do not count (RFC 2046 §5.1.1).
    pub(super) fn raw_boundary(&self) -> Option<Vec<u8>> {
        let plain = self.raw("boundary").map(<[u8]>::to_vec);
        let boundary = plain.or_else(|| self.decoded("boundary").map(String::into_bytes))?;
        Some(boundary.trim_ascii_end().to_vec()).filter(|boundary| !boundary.is_empty())
    }

    /// See [`decoded`].
    pub(super) fn decoded(&self, name: &str) -> Option<String> {
        decoded(|name| self.raw(name), name)
    }
}

/// The file name of a part, from the parameters of its Content-Disposition or, as old mailers have it, of its
/// Content-Type. Both are asked for names in lower case, and answer with octets as they stood in the message.
pub(crate) fn filename<'a>(
    disposition: impl Fn(&str) -> Option<&'a [u8]>,
    content_type: impl Fn(&str) -> Option<&'a [u8]>,
) -> Option<String> {
    let name = decoded(disposition, "filename").or_else(|| decoded(content_type, "name"))?;
    Some(printable::cut_chars(name, FILENAME_CHARS_MAX))
}

/// The decoded parameter out of those that `raw` knows. `name*` is preferred over `name`, which senders add for old
/// readers (RFC 2231 §4).
fn decoded<'a>(raw: impl Fn(&str) -> Option<&'a [u8]>, name: &str) -> Option<String> {
    let text = match raw(&format!("{name}*")) {
        Some(value) => {
            let (label, octets) = split_language(value);
            charset::decode(&percent_decoded(octets), label.as_deref())
        }
        None => match continued(&raw, name) {
            Some(text) => text,
            None => encoded_word::decode(raw(name)?),
        },
    };
    printable::non_empty(printable::line(&text))
}

/// Joins `name*0`, `name*1*`, … (RFC 2231 §3). The first one alone names the charset.
fn continued<'a>(raw: impl Fn(&str) -> Option<&'a [u8]>, name: &str) -> Option<String> {
    let mut octets = Vec::new();
    let mut label = None;
    for index in 0..PARAMETERS_MAX {
        if let Some(value) = raw(&format!("{name}*{index}*")) {
            let value = if index == 0 {
                let (found, value) = split_language(value);
                label = found;
                value
            } else {
                value
            };
            octets.extend(percent_decoded(value));
        } else if let Some(value) = raw(&format!("{name}*{index}")) {
            octets.extend_from_slice(value);
        } else if index == 0 {
            return None;
        } else {
            break;
        }
    }
    // Some mailers continue encoded words instead.
    let plain_words = label.is_none() && octets.starts_with(b"=?");
    Some(if plain_words { encoded_word::decode(&octets) } else { charset::decode(&octets, label.as_deref()) })
}

/// Splits `charset'language'octets`; without the quotes, all of it is octets.
fn split_language(value: &[u8]) -> (Option<String>, &[u8]) {
    let mut parts = value.splitn(3, |&byte| byte == b'\'');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(label), Some(_), Some(octets)) => (Some(String::from_utf8_lossy(label).into_owned()), octets),
        _ => (None, value),
    }
}

fn percent_decoded(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if let [high, low, after @ ..] = tail
            && let (b'%', Some(high), Some(low)) = (byte, transfer::hex(*high), transfer::hex(*low))
        {
            out.push((high << 4) | low);
            rest = after;
        } else {
            out.push(byte);
        }
    }
    out
}

/// Splits at semicolons outside of quotes; drops quotes, their escapes, comments, and blanks around values that are not
/// quoted.
fn pieces(value: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = vec![];
    let mut piece = Vec::new();
    // Where the piece ends but for blanks that are not quoted.
    let mut solid = 0_usize;
    let (mut quoted, mut depth) = (false, 0_usize);
    let mut bytes = value.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            // Only before a character that needs it: Windows paths come unescaped.
            b'\\' if quoted && matches!(bytes.peek(), Some(b'"' | b'\\')) => piece.extend(bytes.next()),
            b'"' if depth == 0 => quoted = !quoted,
            b'(' if !quoted => depth = depth.saturating_add(1),
            b')' if !quoted && depth > 0 => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            byte if !quoted && byte.is_ascii_whitespace() => {
                if !piece.is_empty() && !piece.ends_with(b"=") {
                    piece.push(byte);
                }
                continue;
            }
            b';' if !quoted => {
                piece.truncate(solid);
                pieces.push(std::mem::take(&mut piece));
                if pieces.len() > PARAMETERS_MAX {
                    return pieces;
                }
            }
            byte => piece.push(byte),
        }
        solid = piece.len();
    }
    piece.truncate(solid);
    pieces.push(piece);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filename(value: &str) -> Option<String> {
        Parameterised::parse(value.as_bytes()).decoded("filename")
    }

    #[test]
    fn filenames_are_read_in_every_form() {
        for (value, expected) in [
            ("attachment; filename=a.pdf", "a.pdf"),
            ("attachment; FileName = \"a;b \\\"c\\\".pdf\"", "a;b \"c\".pdf"),
            ("attachment; filename*=UTF-8''Gr%C3%BC%c3%9fe.txt; filename=\"x.txt\"", "Grüße.txt"),
            ("attachment; filename=x.txt; filename*=iso-8859-1'de'Gr%FC.txt", "Grü.txt"),
            ("attachment; filename*0*=utf-8''Gr%C3; filename*1*=%BC; filename*2=%e.txt", "Grü%e.txt"),
            ("attachment; filename*1=b.txt; filename*0=a", "ab.txt"),
            ("attachment; filename=\"=?utf-8?Q?Gr=C3=BC.txt?=\"", "Grü.txt"),
            ("attachment; filename=Grü.txt (comment)", "Grü.txt"),
            ("attachment; filename*=a%20b%2", "a b%2"),
            ("attachment; filename=\"C:\\dir\\a.txt\"", "C:\\dir\\a.txt"),
            ("attachment; filename=\"unclosed; x.txt", "unclosed; x.txt"),
            ("attachment; filename*0=\"a \"; filename*1 = b ; filename*2=\" c\" ", "a b c"),
        ] {
            assert_eq!(filename(value).as_deref(), Some(expected), "{value}");
        }
        assert_eq!(filename("attachment; filename=\"\""), None);
    }

    #[test]
    fn value_is_lower_case_without_comments() {
        assert_eq!(Parameterised::parse(b"Text/HTML (x); charset=utf-8").value, "text/html");
        assert_eq!(Parameterised::parse(b"").value, "");
    }

    /// A megabyte of each; anything quadratic would not end.
    #[test]
    fn bombs_take_linear_time() {
        for unit in [";a=b", ";", "(", "\"", ";filename*0*=a", "%41"] {
            filename(&unit.repeat(1_000_000 / unit.len()));
        }
    }
}
