//! xtext (RFC 3461 §4): text without blanks, in which `+` and two hexadecimal digits are an octet. Pure.

/// The octets that it stands for; none where an escape is none.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('+');
    let mut octets = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (escape, rest) = part.split_at_checked(2)?;
        octets.push(u8::from_str_radix(escape, 16).ok()?);
        octets.extend_from_slice(rest.as_bytes());
    }
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_hexadecimal_digits_are_an_escape() {
        assert_eq!(decode("a+2Bb+e9\u{e9}"), Some([&b"a+b\xe9"[..], "\u{e9}".as_bytes()].concat()));
        for wrong in ["+", "+2", "a+2", "+2g", "++2b", "+-1", "+\u{e9}", "+ 1"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}
