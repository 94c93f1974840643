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

#[cfg(test)]
mod tests {
    use super::super::{Response, parse as parse_response};
    use super::*;

    fn structure(structure: &str) -> Part {
        match parse_response(format!("* 3 FETCH (BODYSTRUCTURE {structure} UID 9)\r\n").as_bytes()) {
            Response::Fetch(3, message) if message.uid == Some(9) => message.structure.expect("no structure"),
            other => panic!("{other:?}"),
        }
    }

    fn pairs(parameters: &[(&str, &str)]) -> Vec<(String, String)> {
        parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_structure_keeps_names_types_and_order() {
        let root = structure(
            "((\"TEXT\" \"Plain\" (\"CHARSET\" \"UTF-8\") NIL NIL \"BASE64\" 12 1 NIL NIL NIL NIL)(\"application\" \"pdf\" \
             (\"name\" \"a \\\"b\\\".pdf\") \"<id>\" NIL \"base64\" 99 NIL (\"ATTACHMENT\" (\"filename\" {7}\r\na\"b.pdf)) NIL \
             NIL) \"mixed\" (\"boundary\" \"x\") (\"inline\" NIL) (\"en\" \"de\") \"here\" (1 (2)))",
        );
        assert_eq!((root.major.as_str(), root.subtype.as_str()), ("multipart", "mixed"));
        assert_eq!(
            (root.parameters.clone(), root.disposition.as_deref()),
            (pairs(&[("boundary", "x")]), Some("inline"))
        );
        let [text, pdf] = root.children.as_slice() else { panic!("{root:?}") };
        assert_eq!((text.major.as_str(), text.subtype.as_str(), text.encoding.as_str()), ("text", "plain", "base64"));
        assert_eq!(
            (text.octets, text.has_content_id, text.parameters.clone()),
            (12, false, pairs(&[("charset", "UTF-8")]))
        );
        assert_eq!((pdf.disposition.as_deref(), pdf.has_content_id), (Some("attachment"), true));
        assert_eq!(pdf.disposition_parameters, pairs(&[("filename", "a\"b.pdf")]));
    }

    #[test]
    fn a_message_in_a_message_is_a_file() {
        let inner = "(\"text\" \"plain\" NIL NIL NIL \"7bit\" 5 1)";
        let envelope = "(NIL \"s\" NIL NIL NIL NIL NIL NIL NIL \"<a@b>\")";
        for described in
            [format!("{envelope} {inner} 7 NIL"), format!("{envelope} {inner} 7"), "NIL".to_owned(), String::new()]
        {
            let disposition = if described.ends_with("NIL") { "(\"attachment\" (\"filename\" \"m.eml\"))" } else { "" };
            let part =
                structure(&format!("(\"message\" \"rfc822\" NIL NIL NIL \"8bit\" 123 {described} {disposition})"));
            assert_eq!((part.octets, part.children.len()), (123, 0), "{described}");
            assert_eq!(part.disposition.is_some(), !disposition.is_empty(), "{described}");
        }
    }

    #[test]
    fn what_servers_leave_out_is_missed_by_nobody() {
        let part = structure("(\"text\" \"html\" NIL NIL NIL NIL NIL NIL \"attachment\")");
        assert_eq!((part.octets, part.disposition.as_deref()), (0, Some("attachment")), "no encoding, size and lines");
        let part = structure("(\"text\" \"html\" NIL NIL NIL \"7BIT\" 4 1 NIL \"attachment\")");
        assert_eq!(part.disposition.as_deref(), Some("attachment"));
        let part = structure("(\"image\" \"png\" (\"name\" NIL \"x\") NIL NIL \"base64\" 99999999999 NIL ())");
        assert_eq!((part.octets, part.parameters.len(), part.disposition), (u32::MAX, 0, None));
        assert_eq!(structure("((\"a\" \"b\" NIL NIL NIL \"7bit\" 1))").children.len(), 1, "not even a subtype");
        assert_eq!(structure("((\"a\" \"b\" NIL NIL NIL \"7bit\" 1) \"mixed\")").subtype, "mixed", "BODY");
    }

    #[test]
    fn what_is_none_leaves_the_message() {
        let deep = format!("{}{}", "(".repeat(5000), ")".repeat(5000));
        for wrong in ["NIL", "x", "()", "(())", "(\"a\")", "(\"mixed\" (\"boundary\" \"x\") NIL)", deep.as_str()] {
            let response = parse_response(format!("* 3 FETCH (BODYSTRUCTURE {wrong} UID 9)\r\n").as_bytes());
            let Response::Fetch(3, message) = response else { panic!("{wrong}") };
            assert_eq!((message.structure, message.uid, message.is_broken_off), (None, Some(9), false), "{wrong}");
        }
    }

    #[test]
    fn a_thousand_parts_fit_and_a_million_do_not() {
        let part = "(\"a\" \"b\" (\"c\" \"d\") NIL NIL \"7bit\" 1)";
        assert_eq!(structure(&format!("({} \"mixed\")", part.repeat(1000))).children.len(), 1000);
        let many = structure(&format!("({} \"mixed\")", part.repeat(5000)));
        assert_eq!((many.children.len(), many.subtype.as_str()), (PARTS_MAX, "mixed"));
        let parameters = structure(&format!("(\"a\" \"b\" ({}) NIL NIL \"7bit\" 1)", "\"c\" \"d\" ".repeat(20_000)));
        assert_eq!((parameters.parameters.len(), parameters.octets), (PARAMETERS_MAX, 1));
    }
}
