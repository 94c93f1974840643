//! PGP within the text of a message (RFC 9580 §6.2, §7): what is encrypted there is not shown, what is signed is.

use std::borrow::Cow;

use crate::event::Security;

const MESSAGE: &str = "-----BEGIN PGP MESSAGE";
const SIGNED: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const BEGIN: &str = "-----BEGIN PGP ";
const END: &str = "-----END PGP ";

/// How a text is protected, from its raw octets: the lines in question are the same in every transfer encoding but
/// base64, in which hardly anybody sends them.
pub(super) fn security(raw: &[u8]) -> Option<Security> {
    let starts = |mark: &str| {
        let found = memchr::memmem::find_iter(raw, mark.as_bytes());
        found.into_iter().any(|at| at.checked_sub(1).is_none_or(|before| raw.get(before) == Some(&b'\n')))
    };
    if !starts(BEGIN) {
        None
    } else if starts(MESSAGE) {
        Some(Security::PgpEncrypted)
    } else {
        starts(SIGNED).then_some(Security::PgpSigned)
    }
}

/// The text without its armored blocks and without the frame of what is signed. A block without end goes on to the end.
pub(super) fn removed(text: &str) -> Cow<'_, str> {
    if !text.contains(BEGIN) {
        return Cow::Borrowed(text);
    }
    let mut kept = String::with_capacity(text.len());
    let mut state = State::Shown;
    for line in text.lines() {
        state = match state {
            State::Shown | State::Signed if line.starts_with(SIGNED) => State::Hash,
            State::Shown | State::Signed if line.starts_with(BEGIN) => State::Armor,
            State::Armor if line.starts_with(END) => State::Shown,
            // Fields like `Hash: SHA256` stand before the text that is signed.
            State::Hash if line.trim().is_empty() => State::Signed,
            State::Signed | State::Shown => {
                // What begins with a hyphen is escaped where it is signed (RFC 9580 §7.2).
                let line = line.strip_prefix("- ").filter(|_| state == State::Signed).unwrap_or(line);
                kept.push_str(line);
                kept.push('\n');
                state
            }
            state => state,
        };
    }
    Cow::Owned(kept)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Shown,
    Hash,
    Signed,
    Armor,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_shown_and_what_is_encrypted_is_not() {
        let signed = format!(
            "{SIGNED}\nHash: SHA256\n\nHello\n- -- \n{BEGIN}SIGNATURE-----\n\niQ==\n{END}SIGNATURE-----\nP.S.\n"
        );
        assert_eq!(removed(&signed), "Hello\n-- \nP.S.\n");
        assert_eq!(security(signed.as_bytes()), Some(Security::PgpSigned));
        let encrypted = format!("Look:\n{MESSAGE}-----\n\nhQEMA\n{END}MESSAGE-----\nbye\n");
        assert_eq!(removed(&encrypted), "Look:\nbye\n");
        assert_eq!(security(encrypted.as_bytes()), Some(Security::PgpEncrypted));
        assert_eq!(removed(&format!("{MESSAGE}-----\ncut")), "");
        let key = "-----BEGIN PGP PUBLIC KEY BLOCK-----\nx\n";
        assert_eq!((removed(key), security(key.as_bytes())), (Cow::Borrowed(""), None));
        assert_eq!(security(b"he wrote -----BEGIN PGP MESSAGE-----"), None);
        assert_eq!(removed("plain\r\ntext"), "plain\r\ntext");
    }
}
