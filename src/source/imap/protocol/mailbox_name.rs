//! Mailbox names on the wire: modified UTF-7 in a quoted string (RFC 3501 §5.1.3). Pure.
//!
//! All that RFC 9051 servers accept in UTF-8 they accept in this form too as long as UTF8=ACCEPT is not enabled.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::command::quoted;

/// Base64 with `,` for `/` and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::IMAP_MUTF7,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// The name that events, topics and checkpoints use for a configured mailbox: INBOX has one spelling (RFC 9051 §5.1).
pub fn canonical(name: &str) -> String {
    if name.eq_ignore_ascii_case("INBOX") { "INBOX".to_owned() } else { name.to_owned() }
}

/// A mailbox name as it stands in a command.
pub fn to_wire(name: &str) -> String {
    quoted(&encode(name))
}

fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    let mut shifted: Vec<u8> = Vec::new();
    for character in name.chars() {
        if matches!(character, ' '..='~') {
            flush(&mut shifted, &mut encoded);
            encoded.push(character);
            if character == '&' {
                encoded.push('-');
            }
        } else {
            let mut units = [0; 2];
            shifted.extend(character.encode_utf16(&mut units).iter().flat_map(|unit| unit.to_be_bytes()));
        }
    }
    flush(&mut shifted, &mut encoded);
    encoded
}

fn flush(shifted: &mut Vec<u8>, encoded: &mut String) {
    if !shifted.is_empty() {
        encoded.push('&');
        BASE64.encode_string(&shifted, encoded);
        encoded.push('-');
        shifted.clear();
    }
}

/// A name that the server sent, for people. What is not modified UTF-7 stays as it is.
pub fn decode(raw: &str) -> String {
    let mut decoded = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((plain, shifted)) = rest.split_once('&') {
        decoded.push_str(plain);
        let Some((encoded, after)) = shifted.split_once('-') else { return raw.to_owned() };
        rest = after;
        if encoded.is_empty() {
            decoded.push('&');
            continue;
        }
        match utf16(encoded) {
            Some(text) => decoded.push_str(&text),
            None => return raw.to_owned(),
        }
    }
    decoded.push_str(rest);
    decoded
}

fn utf16(encoded: &str) -> Option<String> {
    let octets = BASE64.decode(encoded).ok()?;
    let (units, []) = octets.as_chunks::<2>() else { return None };
    let units: Vec<u16> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
    String::from_utf16(&units).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_the_standard() {
        assert_eq!(encode("~peter/mail/台北/日本語"), "~peter/mail/&U,BTFw-/&ZeVnLIqe-");
        assert_eq!(encode("Entwürfe & mehr"), "Entw&APw-rfe &- mehr");
        assert_eq!(to_wire("a\"b\\c"), r#""a\"b\\c""#);
        assert_eq!(decode("broken &xx"), "broken &xx");
        assert_eq!(canonical("inbox"), "INBOX");
        assert_eq!(canonical("Inbox/x"), "Inbox/x");
    }

    proptest! {
        #[test]
        fn any_name_survives_and_is_ascii_without_line_breaks(name in any::<String>()) {
            let encoded = encode(&name);
            prop_assert!(encoded.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(decode(&encoded), name);
        }

        #[test]
        fn no_raw_name_panics(raw in any::<String>()) {
            decode(&raw);
        }
    }
}
