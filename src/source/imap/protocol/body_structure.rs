//! BODYSTRUCTURE and BODY (RFC 9051 §7.5.2): which parts a message has.
//!
//! Parts are read by recursion, whose depth the tokenizer limits. A message in a message counts as a file: what it
//! holds is passed over.

use super::response::Part;
use super::tokenizer::{Malformed, Tokens, lossy, number};

/// A message with a thousand parts exists.
const PARTS_MAX: usize = 2000;
/// Parameters of all parts together: each takes ten times what it takes on the wire.
const PARAMETERS_MAX: usize = 10_000;

/// What may still be stored; what comes after that is passed over.
struct Room {
    parts: usize,
    parameters: usize,
}

/// Reads a structure; nothing for NIL.
pub fn parse(tokens: &mut Tokens<'_>) -> Result<Option<Part>, Malformed> {
    if !tokens.is_at_open() {
        return tokens.string().map(|_| None);
    }
    part(tokens, &mut Room { parts: PARTS_MAX, parameters: PARAMETERS_MAX }).map(Some)
}

fn part(tokens: &mut Tokens<'_>, room: &mut Room) -> Result<Part, Malformed> {
    tokens.open()?;
    let part = if tokens.is_at_open() { multipart(tokens, room)? } else { leaf(tokens, room)? };
    // Languages, locations, and what is to come.
    while !tokens.close()? {
        tokens.skip()?;
    }
    Ok(part)
}

fn multipart(tokens: &mut Tokens<'_>, room: &mut Room) -> Result<Part, Malformed> {
    let mut multipart = Part { major: "multipart".to_owned(), ..Part::default() };
    while tokens.is_at_open() {
        if let Some(left) = room.parts.checked_sub(1) {
            room.parts = left;
            multipart.children.push(part(tokens, room)?);
        } else {
            tokens.skip()?;
        }
    }
    if !tokens.is_at_close() {
        multipart.subtype = lower(tokens)?;
    }
    if !tokens.is_at_close() {
        multipart.parameters = parameters(tokens, room)?;
    }
    disposition(tokens, room, &mut multipart)?;
    Ok(multipart)
}

fn leaf(tokens: &mut Tokens<'_>, room: &mut Room) -> Result<Part, Malformed> {
    let mut leaf = Part { major: lower(tokens)?, subtype: lower(tokens)?, ..Part::default() };
    leaf.parameters = parameters(tokens, room)?;
    leaf.has_content_id = tokens.string()?.is_some_and(|id| !id.is_empty());
    // The description.
    tokens.string()?;
    leaf.encoding = lower(tokens)?;
    leaf.octets = tokens.number()?.map_or(0, |octets| u32::try_from(octets).unwrap_or(u32::MAX));
    if leaf.major == "message" {
        // Envelope and structure of the message in it.
        while tokens.is_at_open() {
            tokens.skip()?;
        }
    }
    // Its lines: of texts and messages, if the server has not forgotten them.
    if next_is_number(tokens)? {
        tokens.skip()?;
    }
    // Its MD5.
    if !tokens.is_at_close() && !tokens.is_at_open() {
        tokens.string()?;
    }
    disposition(tokens, room, &mut leaf)?;
    Ok(leaf)
}

fn next_is_number(tokens: &Tokens<'_>) -> Result<bool, Malformed> {
    if tokens.is_at_close() || tokens.is_at_open() {
        return Ok(false);
    }
    Ok(tokens.clone().string()?.is_some_and(|digits| number(&digits).is_some()))
}

/// `("attachment" ("filename" "a.pdf"))`, NIL, and of some servers the word alone.
fn disposition(tokens: &mut Tokens<'_>, room: &mut Room, part: &mut Part) -> Result<(), Malformed> {
    if tokens.is_at_close() {
        return Ok(());
    }
    if !tokens.is_at_open() {
        part.disposition = tokens.text()?.map(|kind| kind.to_ascii_lowercase());
        return Ok(());
    }
    tokens.open()?;
    if !tokens.is_at_close() {
        part.disposition = tokens.text()?.map(|kind| kind.to_ascii_lowercase());
    }
    if !tokens.is_at_close() {
        part.disposition_parameters = parameters(tokens, room)?;
    }
    while !tokens.close()? {
        tokens.skip()?;
    }
    Ok(())
}

/// `("charset" "utf-8" …)`, or NIL.
fn parameters(tokens: &mut Tokens<'_>, room: &mut Room) -> Result<Vec<(String, String)>, Malformed> {
    let mut parameters = Vec::new();
    if !tokens.is_at_open() {
        return tokens.string().map(|_| parameters);
    }
    tokens.open()?;
    while !tokens.close()? {
        let name = tokens.string()?;
        let value = if tokens.is_at_close() { None } else { tokens.string()? };
        if let (Some(name), Some(value), Some(left)) = (name, value, room.parameters.checked_sub(1)) {
            room.parameters = left;
            parameters.push((lossy(&name).to_ascii_lowercase(), lossy(&value)));
        }
    }
    Ok(parameters)
}

fn lower(tokens: &mut Tokens<'_>) -> Result<String, Malformed> {
    Ok(tokens.text()?.unwrap_or_default().to_ascii_lowercase())
}
