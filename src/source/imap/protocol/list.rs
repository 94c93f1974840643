//! LIST, LSUB and XLIST (RFC 9051 §7.3.1).

use super::response::Listed;
use super::tokenizer::{Malformed, Tokens, lossy};

/// There are about 20 that mean anything.
const ATTRIBUTES_MAX: usize = 64;

/// What follows `* LIST`.
pub fn parse(tokens: &mut Tokens<'_>) -> Result<Listed, Malformed> {
    let mut attributes = tokens.texts(ATTRIBUTES_MAX)?;
    attributes.iter_mut().for_each(|attribute| attribute.make_ascii_lowercase());
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
