//! From the parser's types to ours. With [`super::connection`] this is all that knows async-imap and imap-proto, so
//! that another parser can take their place.

use std::borrow::Cow;

use imap_proto::{
    AttributeValue, BodyContentCommon, BodyContentSinglePart, BodyStructure, Capability, ContentEncoding, MailboxDatum,
    MessageSection, NameAttribute, Outcome, Response as Parsed, ResponseCode, SectionPath, Status,
};

use super::protocol::{Capabilities, Code, Condition, Fetched, Listed, Part, Reply, Response};

/// A response in our own types.
pub(super) fn response(parsed: &Parsed<'_>) -> Response {
    match parsed {
        Parsed::Continue(outcome) => Response::Continue(outcome.information.as_deref().unwrap_or_default().to_owned()),
        Parsed::Done { tag, status, outcome } => Response::Tagged(tag.0.clone(), reply(status, outcome)),
        Parsed::Data { status, outcome } => Response::Status(reply(status, outcome)),
        Parsed::Capabilities(list) => Response::Capabilities(capabilities(list)),
        Parsed::MailboxData(MailboxDatum::Exists(count)) => Response::Exists(*count),
        Parsed::MailboxData(MailboxDatum::List(listed)) => Response::Listed(Box::new(Listed {
            raw_name: unescaped(&listed.name),
            attributes: listed.name_attributes.iter().map(attribute).collect(),
            ..Listed::default()
        })),
        Parsed::Id(pairs) => Response::Id(
            pairs.iter().flatten().map(|(name, value)| (name.to_ascii_lowercase(), value.to_string())).collect(),
        ),
        Parsed::Expunge(number) => Response::Expunge(*number),
        Parsed::Fetch(number, items) => Response::Fetch(*number, Box::new(fetched(items))),
        _ => Response::Other,
    }
}

fn attribute(attribute: &NameAttribute<'_>) -> String {
    match attribute {
        NameAttribute::NoSelect => "\\noselect".to_owned(),
        NameAttribute::Extension(name) => name.to_ascii_lowercase(),
        _ => String::new(),
    }
}

fn reply(status: &Status, outcome: &Outcome<'_>) -> Reply {
    let condition = match status {
        Status::Ok => Condition::Ok,
        Status::No => Condition::No,
        Status::Bad => Condition::Bad,
        Status::PreAuth => Condition::PreAuth,
        Status::Bye => Condition::Bye,
    };
    let text = outcome.information.as_deref().unwrap_or_default();
    match &outcome.code {
        Some(known) => Reply { condition, code: code(known), text: text.to_owned() },
        // The parser leaves the codes that it does not know in the text: all of RFC 5530, for one.
        None => match code_in_text(text) {
            Some((name, text)) => Reply { condition, code: Some(Code::Named(name)), text: text.to_owned() },
            None => Reply { condition, code: None, text: text.to_owned() },
        },
    }
}

fn code(code: &ResponseCode<'_>) -> Option<Code> {
    match code {
        ResponseCode::Capabilities(list) => Some(Code::Capability(capabilities(list))),
        ResponseCode::UidNext(uid) => Some(Code::UidNext(*uid)),
        ResponseCode::UidValidity(value) => Some(Code::UidValidity(*value)),
        ResponseCode::Alert => Some(Code::Named("ALERT".to_owned())),
        _ => None,
    }
}

/// `[NAME …] text` → the name in upper case, and the text.
fn code_in_text(text: &str) -> Option<(String, &str)> {
    let (code, text) = text.strip_prefix('[')?.split_once(']')?;
    let name = code.split(' ').next().filter(|name| !name.is_empty())?;
    Some((name.to_ascii_uppercase(), text.trim_start()))
}

fn capabilities(list: &[Capability<'_>]) -> Capabilities {
    Capabilities(
        list.iter()
            .map(|capability| match capability {
                Capability::Imap4rev1 => "IMAP4REV1".to_owned(),
                Capability::Auth(mechanism) => format!("AUTH={}", mechanism.to_ascii_uppercase()),
                Capability::Atom(name) => name.to_ascii_uppercase(),
            })
            .collect(),
    )
}

fn fetched(items: &[AttributeValue<'_>]) -> Fetched {
    let mut message = Fetched::default();
    for item in items {
        match item {
            AttributeValue::Uid(uid) => message.uid = Some(*uid),
            AttributeValue::Flags(flags) => message.flags = Some(flags.iter().map(ToString::to_string).collect()),
            AttributeValue::InternalDate(date) => message.internal_date = Some(date.to_string()),
            AttributeValue::Rfc822Size(size) => message.size = Some(u64::from(*size)),
            AttributeValue::BodyStructure(structure) => message.structure = Some(part(structure)),
            AttributeValue::BodySection { section, data, .. } => {
                let octets = data.as_deref().unwrap_or_default().to_vec();
                match section {
                    // The parser does not tell HEADER.FIELDS from HEADER; only the former is ever asked for.
                    Some(SectionPath::Full(MessageSection::Header)) => message.header = Some(octets),
                    Some(SectionPath::Part(path, None)) => message.sections.push((path.clone(), octets)),
                    _ => {}
                }
            }
            AttributeValue::EmailId(id) => message.email_id = Some(id.to_string()),
            AttributeValue::ThreadId(id) => message.thread_id = id.as_ref().map(ToString::to_string),
            AttributeValue::GmailMsgId(id) => message.email_id = Some(id.to_string()),
            AttributeValue::GmailThrId(id) => message.thread_id = Some(id.to_string()),
            _ => {}
        }
    }
    message
}

fn part(structure: &BodyStructure<'_>) -> Part {
    match structure {
        BodyStructure::Multipart { common, bodies, .. } => {
            Part { children: bodies.iter().map(part).collect(), ..leaf(common, None) }
        }
        // A message in a message is a file to us: what it holds is not looked at.
        BodyStructure::Basic { common, other, .. }
        | BodyStructure::Text { common, other, .. }
        | BodyStructure::Message { common, other, .. } => leaf(common, Some(other)),
    }
}

fn leaf(common: &BodyContentCommon<'_>, single: Option<&BodyContentSinglePart<'_>>) -> Part {
    Part {
        major: common.ty.ty.to_ascii_lowercase(),
        subtype: common.ty.subtype.to_ascii_lowercase(),
        parameters: parameters(common.ty.params.as_deref()),
        disposition: common.disposition.as_ref().map(|disposition| disposition.ty.to_ascii_lowercase()),
        disposition_parameters: parameters(
            common.disposition.as_ref().and_then(|disposition| disposition.params.as_deref()),
        ),
        encoding: single.map(|single| encoding(&single.transfer_encoding)).unwrap_or_default(),
        has_content_id: single.is_some_and(|single| single.id.is_some()),
        octets: single.map_or(0, |single| single.octets),
        children: Vec::new(),
    }
}

fn encoding(encoding: &ContentEncoding<'_>) -> String {
    match encoding {
        ContentEncoding::SevenBit => "7bit".to_owned(),
        ContentEncoding::EightBit => "8bit".to_owned(),
        ContentEncoding::Binary => "binary".to_owned(),
        ContentEncoding::Base64 => "base64".to_owned(),
        ContentEncoding::QuotedPrintable => "quoted-printable".to_owned(),
        ContentEncoding::Other(name) => name.to_ascii_lowercase(),
    }
}

fn parameters(list: Option<&[(Cow<'_, str>, Cow<'_, str>)]>) -> Vec<(String, String)> {
    list.unwrap_or_default().iter().map(|(name, value)| (name.to_ascii_lowercase(), unescaped(value))).collect()
}

/// Undoes the escapes that the parser leaves in quoted strings (RFC 9051 §9, `quoted`).
fn unescaped(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        // A literal has no escapes, and the parser does not say which of the two it was: only what a quoted string
        // must escape is undone.
        match rest.peek() {
            Some(&next @ ('"' | '\\')) if character == '\\' => {
                plain.push(next);
                rest.next();
            }
            _ => plain.push(character),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Response {
        response(&Parsed::parse(line.as_bytes()).unwrap().1)
    }

    #[test]
    fn codes_that_the_parser_does_not_know_are_found() {
        let Response::Tagged(tag, reply) = parse("A1 NO [AUTHENTICATIONFAILED] Authentication failed.\r\n") else {
            panic!("not tagged")
        };
        assert_eq!(
            (tag.as_str(), reply.condition, reply.text.as_str()),
            ("A1", Condition::No, "Authentication failed.")
        );
        assert_eq!(reply.code, Some(Code::Named("AUTHENTICATIONFAILED".into())));
        let Response::Status(reply) = parse("* OK [UIDNEXT 7] Predicted next UID\r\n") else { panic!("no status") };
        assert_eq!(reply.code, Some(Code::UidNext(7)));
    }

    #[test]
    fn a_structure_keeps_names_types_and_order() {
        let line = "* 3 FETCH (UID 9 BODYSTRUCTURE ((\"text\" \"plain\" (\"charset\" \"utf-8\") NIL NIL \"base64\" 12 1 NIL \
                    NIL NIL NIL)(\"application\" \"pdf\" (\"name\" \"a \\\"b\\\".pdf\") NIL NIL \"base64\" 99 NIL \
                    (\"attachment\" (\"filename\" \"a \\\"b\\\".pdf\")) NIL NIL) \"mixed\" (\"boundary\" \"x\") NIL NIL NIL))\r\n";
        let Response::Fetch(3, message) = parse(line) else { panic!("no fetch") };
        let root = message.structure.unwrap();
        assert_eq!((root.major.as_str(), root.subtype.as_str(), root.children.len()), ("multipart", "mixed", 2));
        assert_eq!(root.children[1].disposition.as_deref(), Some("attachment"));
        assert_eq!(root.children[1].disposition_parameters, [("filename".into(), "a \"b\".pdf".into())]);
        assert_eq!((root.children[0].encoding.as_str(), root.children[0].octets), ("base64", 12));
    }

    #[test]
    fn header_and_sections_are_told_apart() {
        let line =
            "* 1 FETCH (UID 2 BODY[HEADER.FIELDS (FROM)] {9}\r\nFrom: a\r\n BODY[1]<0> \"hello\" BODY[1.2] NIL)\r\n";
        let Response::Fetch(1, message) = parse(line) else { panic!("no fetch") };
        assert_eq!(message.header.as_deref(), Some(&b"From: a\r\n"[..]));
        assert_eq!(message.section(&[1]), Some(&b"hello"[..]));
        assert_eq!(message.section(&[1, 2]), Some(&b""[..]));
        assert_eq!(message.section(&[2]), None);
    }
}
