//! STATUS (RFC 9051 §7.3.4).

use super::list::mailbox;
use super::response::{MailboxStatus, StatusItems};
use super::tokenizer::{Malformed, Tokens};

/// What follows `* STATUS`.
pub fn parse(tokens: &mut Tokens<'_>) -> Result<MailboxStatus, Malformed> {
    let raw_name = mailbox(tokens)?;
    let mut items = StatusItems::default();
    tokens.open()?;
    while !tokens.close()? {
        let Some(name) = tokens.string()? else { continue };
        if !tokens.is_at_close() {
            item(&name.to_ascii_uppercase(), tokens, &mut items)?;
        }
    }
    Ok(MailboxStatus { raw_name, items })
}

fn item(name: &[u8], tokens: &mut Tokens<'_>, items: &mut StatusItems) -> Result<(), Malformed> {
    if name == b"MAILBOXID" && tokens.is_at_open() {
        items.mailbox_id = tokens.texts(1)?.pop();
        return Ok(());
    }
    if tokens.is_at_open() {
        return tokens.skip();
    }
    let value = tokens.clone().number()?;
    let short = value.and_then(|value| u32::try_from(value).ok());
    match name {
        b"MESSAGES" => items.messages = short,
        b"UIDNEXT" => items.uid_next = short.filter(|uid| *uid > 0),
        b"UIDVALIDITY" => items.uid_validity = short.filter(|value| *value > 0),
        b"UNSEEN" => items.unseen = short,
        b"HIGHESTMODSEQ" => items.highest_mod_seq = value,
        b"MAILBOXID" => items.mailbox_id = tokens.clone().text()?,
        _ => {}
    }
    tokens.skip()
}

#[cfg(test)]
mod tests {
    use super::super::{Response, parse};
    use super::*;

    fn status(line: &str) -> (String, StatusItems) {
        match parse(format!("* STATUS {line}\r\n").as_bytes()) {
            Response::MailboxStatus(status) => (status.raw_name, status.items),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn items_are_read_and_others_passed_over() {
        let line = "\"Lists/a b\" (MESSAGES 231 uidnext 44292 UIDVALIDITY 7 UNSEEN 0 SIZE 99999999999 DELETED 2 \
                    APPENDLIMIT NIL HIGHESTMODSEQ 7011231777 X-LIST (a (b)) MAILBOXID (F1))";
        let expected = StatusItems {
            messages: Some(231),
            uid_next: Some(44292),
            uid_validity: Some(7),
            unseen: Some(0),
            highest_mod_seq: Some(7_011_231_777),
            mailbox_id: Some("F1".into()),
        };
        assert_eq!(status(line), ("Lists/a b".into(), expected));
    }

    #[test]
    fn names_and_lists_may_be_odd() {
        assert_eq!(status("INBOX ()"), ("INBOX".into(), StatusItems::default()));
        assert_eq!(status("{3}\r\na b (MESSAGES 1 )").1.messages, Some(1));
        let (name, items) =
            status("My Folder  (MESSAGES NIL UIDNEXT 0 UNSEEN 99999999999 UIDVALIDITY (x) MAILBOXID y)");
        let expected = StatusItems { mailbox_id: Some("y".into()), ..StatusItems::default() };
        assert_eq!((name.as_str(), items), ("My Folder", expected));
        for wrong in ["", "INBOX", "INBOX MESSAGES 1", "INBOX (MESSAGES 1", "(MESSAGES 1)"] {
            assert_eq!(parse(format!("* STATUS {wrong}\r\n").as_bytes()), Response::Unreadable, "{wrong}");
        }
    }
}
