//! LIST, LSUB and XLIST (RFC 9051 §7.3.1).

use super::response::Listed;
use super::tokenizer::{Malformed, Tokens, lossy};

/// There are about 20 that mean anything.
const ATTRIBUTES_MAX: usize = 64;

/// What follows `* LIST`.
pub fn parse(tokens: &mut Tokens<'_>) -> Result<Listed, Malformed> {
    let mut attributes = tokens.texts(ATTRIBUTES_MAX)?;
    for attribute in &mut attributes {
        attribute.make_ascii_lowercase();
    }
    let delimiter = tokens.text()?.and_then(|text| text.chars().next());
    let raw_name = mailbox(tokens)?;
    let old_raw_name = if tokens.is_at_open() { old_name(tokens)? } else { None };
    Ok(Listed { raw_name, delimiter, attributes, old_raw_name })
}

/// The name of a mailbox, before a list or the end. Some servers send one with spaces and leave out its quotes.
pub(super) fn mailbox(tokens: &mut Tokens<'_>) -> Result<String, Malformed> {
    let begin = tokens.rest();
    let is_string = matches!(begin.first(), Some(b'"' | b'{' | b'~'));
    // A mailbox may be called NIL.
    let name = if begin.get(..3).is_some_and(|name| name.eq_ignore_ascii_case(b"NIL")) {
        tokens.skip()?;
        lossy(begin.get(..begin.len() - tokens.rest().len()).unwrap_or_default().trim_ascii_end())
    } else {
        tokens.text()?.ok_or(Malformed)?
    };
    if is_string || tokens.is_at_open() || tokens.is_at_end() {
        return Ok(name);
    }
    while !tokens.is_at_open() && !tokens.is_at_end() {
        tokens.skip()?;
    }
    let len = begin.len() - tokens.rest().len();
    Ok(lossy(begin.get(..len).unwrap_or_default().trim_ascii_end()))
}

/// `("OLDNAME" ("before") "CHILDINFO" (…))`.
fn old_name(tokens: &mut Tokens<'_>) -> Result<Option<String>, Malformed> {
    let mut found = None;
    tokens.open()?;
    while !tokens.close()? {
        let is_old_name = tokens.string()?.is_some_and(|tag| tag.eq_ignore_ascii_case(b"OLDNAME"));
        if tokens.is_at_close() {
            continue;
        }
        if is_old_name && tokens.is_at_open() {
            tokens.open()?;
            if !tokens.is_at_close() {
                found = Some(mailbox_in_list(tokens)?);
            }
            while !tokens.close()? {
                tokens.skip()?;
            }
        } else {
            tokens.skip()?;
        }
    }
    Ok(found)
}

fn mailbox_in_list(tokens: &mut Tokens<'_>) -> Result<String, Malformed> {
    tokens.text().map(|name| name.unwrap_or_else(|| "NIL".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::{Response, parse};
    use super::*;

    fn listed(line: &str) -> Listed {
        match parse(format!("* {line}\r\n").as_bytes()) {
            Response::Listed(listed) => *listed,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn name(line: &str) -> String {
        listed(&format!("LIST () \"/\" {line}")).raw_name
    }

    #[test]
    fn a_mailbox_has_attributes_a_delimiter_and_a_name() {
        let found = listed(r#"LIST (\HasNoChildren \Sent) "." "INBOX.Gesendet &- mehr""#);
        assert_eq!(found.attributes, ["\\hasnochildren", "\\sent"]);
        assert_eq!((found.delimiter, found.raw_name.as_str()), (Some('.'), "INBOX.Gesendet &- mehr"));
        let flat = listed("LSUB () NIL inbox");
        assert_eq!((flat.delimiter, flat.raw_name.as_str()), (None, "inbox"));
        assert_eq!(listed(r#"LIST (\Noselect) "\\" "a\\b""#).delimiter, Some('\\'));
        assert!(!listed("XLIST (\\Noselect) \"/\" x").is_selectable());
        assert!(!listed("LIST (\\NonExistent) \"/\" x").is_selectable());
    }

    #[test]
    fn names_come_in_every_form() {
        assert_eq!(name(r#""a \"b\" \\c""#), r#"a "b" \c"#);
        assert_eq!(name("{5}\r\na\r\nbc"), "a\r\nbc");
        assert_eq!(name("[Gmail]/Spam"), "[Gmail]/Spam");
        assert_eq!(name("\"Entwürfe\""), "Entwürfe");
        assert_eq!(name("NIL"), "NIL");
        assert_eq!(name("Sent  Items"), "Sent  Items", "without the quotes that it needs");
        assert_eq!(name("Nil Return (\"OLDNAME\" (x))"), "Nil Return");
        assert_eq!(name("\"\""), "");
    }

    #[test]
    fn a_rename_says_what_the_name_was() {
        let found = listed(r#"LIST () "/" New ("OLDNAME" (Old))"#);
        assert_eq!((found.raw_name.as_str(), found.old_raw_name.as_deref()), ("New", Some("Old")));
        let found = listed(r#"LIST (\Subscribed) "/" "New Name" ("CHILDINFO" ("SUBSCRIBED") "oldname" ("Old Name"))"#);
        assert_eq!(found.old_raw_name.as_deref(), Some("Old Name"));
        assert_eq!(listed(r#"LIST () "/" x ("OLDNAME" ())"#).old_raw_name, None);
        assert_eq!(listed(r#"LIST () "/" x ("OLDNAME")"#).old_raw_name, None);
        assert_eq!(listed(r#"LIST () "/" x ("CHILDINFO" ("SUBSCRIBED"))"#).old_raw_name, None);
        assert_eq!(listed(r#"LIST () "/" x ()"#).old_raw_name, None);
    }

    #[test]
    fn what_is_no_mailbox_is_unreadable() {
        for wrong in
            ["", "()", "() \"/\"", "x", "NIL \"/\" x", "(\\a \"/\" x", "() \"/\" \"x", "() \"/\" x (\"OLDNAME\""]
        {
            assert_eq!(parse(format!("* LIST {wrong}\r\n").as_bytes()), Response::Unreadable, "{wrong}");
        }
    }
}
