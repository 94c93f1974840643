//! What may follow the path in MAIL and RCPT: `keyword=value` (RFC 5321 §4.1.2), of each extension that is announced.
//!
//! Those of delivery status notifications (RFC 3461 §4) are taken from clients that send them although DSN is not
//! announced, and change nothing: who hands mail to postrider stays responsible for telling its sender.

use super::command::CommandError;
use super::xtext;

/// Longest envelope identifier (RFC 3461 §4.4) and original recipient (§4.2), in octets.
const ENVID_BYTES_MAX: usize = 100;
const ORCPT_BYTES_MAX: usize = 500;
/// Longest `AUTH=` (RFC 4954 §5): 500 octets with its keyword and the blank before it.
const SUBMITTER_BYTES_MAX: usize = 494;

/// What MAIL says besides the reverse-path.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct MailParameters {
    /// The size that the message will have, in octets (RFC 1870 §6); 0 where nothing was said.
    pub size: u64,
    /// Addresses and headers may hold UTF-8 (RFC 6531 §3.4).
    pub smtputf8: bool,
}

/// Parses what follows the reverse-path.
pub(super) fn of_mail(text: &str) -> Result<MailParameters, CommandError> {
    let mut found = MailParameters::default();
    each(text, |keyword, value| {
        match (keyword, value) {
            ("SIZE", Some(value)) => found.size = size(value)?,
            // Data is taken as octets, so that both bodies are the same to us (RFC 6152 §2).
            ("BODY", Some(value)) => one_of(value, &["7BIT", "8BITMIME"])?,
            ("SMTPUTF8", None) => found.smtputf8 = true,
            ("RET", Some(value)) => one_of(value, &["FULL", "HDRS"])?,
            ("ENVID", Some(value)) => xtext(value, ENVID_BYTES_MAX)?,
            // Who has submitted it first, as the client believes (RFC 4954 §5): nobody here needs to know.
            ("AUTH", Some(value)) => xtext(value, SUBMITTER_BYTES_MAX)?,
            ("SIZE" | "BODY" | "SMTPUTF8" | "RET" | "ENVID" | "AUTH", _) => return Err(CommandError::Parameter),
            _ => return Err(CommandError::UnknownParameter),
        }
        Ok(())
    })?;
    Ok(found)
}

/// Checks what follows the forward-path.
pub(super) fn of_rcpt(text: &str) -> Result<(), CommandError> {
    each(text, |keyword, value| match (keyword, value) {
        ("NOTIFY", Some(value)) if value.eq_ignore_ascii_case("NEVER") => Ok(()),
        ("NOTIFY", Some(value)) => {
            value.split(',').try_for_each(|condition| one_of(condition, &["SUCCESS", "FAILURE", "DELAY"]))
        }
        ("ORCPT", Some(value)) => {
            let (kind, address) = value.split_once(';').ok_or(CommandError::Parameter)?;
            let is_kind = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            if is_kind { xtext(address, ORCPT_BYTES_MAX) } else { Err(CommandError::Parameter) }
        }
        ("NOTIFY" | "ORCPT", None) => Err(CommandError::Parameter),
        _ => Err(CommandError::UnknownParameter),
    })
}

/// Calls `take` with each keyword, in upper case, and its value. None may come twice.
pub(super) fn each(
    text: &str,
    mut take: impl FnMut(&str, Option<&str>) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let mut seen = Vec::new();
    for parameter in text.split_ascii_whitespace() {
        let (keyword, value) = match parameter.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (parameter, None),
        };
        let keyword = keyword.to_ascii_uppercase();
        take(&keyword, value)?;
        if seen.contains(&keyword) {
            return Err(CommandError::Parameter);
        }
        seen.push(keyword);
    }
    Ok(())
}

fn one_of(value: &str, known: &[&str]) -> Result<(), CommandError> {
    if known.iter().any(|known| value.eq_ignore_ascii_case(known)) { Ok(()) } else { Err(CommandError::Parameter) }
}

/// Up to 20 digits (RFC 1870 §6). What does not fit 64 bits is more than any limit.
fn size(value: &str) -> Result<u64, CommandError> {
    if value.is_empty() || value.len() > 20 || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(CommandError::Parameter);
    }
    Ok(value.parse().unwrap_or(u64::MAX))
}

/// Printable ASCII, with everything else escaped (RFC 3461 §4); UTF-8 too, for the addresses of RFC 6533.
fn xtext(value: &str, bytes_max: usize) -> Result<(), CommandError> {
    let fits = !value.is_empty() && value.len() <= bytes_max && !value.chars().any(char::is_control);
    if fits && xtext::decode(value).is_some() { Ok(()) } else { Err(CommandError::Parameter) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_may_be_asked_for() {
        for taken in [
            "RET=full ENVID=QQ314159",
            "ret=HDRS",
            "ENVID=a+2Bb",
            "SIZE=1 BODY=8BITMIME RET=FULL",
            "AUTH=<>",
            "AUTH=e+3Dmc2@example.com",
        ] {
            assert!(of_mail(taken).is_ok(), "{taken}");
        }
        for taken in ["NOTIFY=NEVER", "notify=success,Failure,DELAY ORCPT=rfc822;Bob@x.example", "ORCPT=utf-8;ü@x"] {
            assert_eq!(of_rcpt(taken), Ok(()), "{taken}");
        }
    }

    #[test]
    fn what_cannot_be_is_named() {
        for wrong in [
            "RET=ALL",
            "RET",
            "ENVID=",
            "ENVID=a+",
            "ENVID=+GG",
            "RET=FULL RET=FULL",
            "AUTH",
            "AUTH=",
            "AUTH=a+x",
            "BODY=BINARYMIME",
        ] {
            assert_eq!(of_mail(wrong), Err(CommandError::Parameter), "{wrong}");
        }
        let long = format!("ENVID={}", "x".repeat(101));
        assert_eq!(of_mail(&long), Err(CommandError::Parameter));
        for wrong in ["NOTIFY=NEVER,SUCCESS", "NOTIFY=", "NOTIFY", "ORCPT=bob@x", "ORCPT=;bob", "ORCPT=rfc822;"] {
            assert_eq!(of_rcpt(wrong), Err(CommandError::Parameter), "{wrong}");
        }
        assert_eq!(of_mail("NOTIFY=NEVER"), Err(CommandError::UnknownParameter));
        assert_eq!(of_rcpt("SIZE=1"), Err(CommandError::UnknownParameter));
        // Not announced, also under TLS: who asks for it wants it for the whole way (RFC 8689 §2), and we cannot promise
        // what push services and web pages do.
        assert_eq!(of_mail("REQUIRETLS"), Err(CommandError::UnknownParameter));
    }
}
