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
