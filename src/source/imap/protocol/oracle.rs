//! What imap-proto makes of well-formed responses, in our own types: both must agree.

use std::borrow::Cow;

use imap_proto::{
    AttributeValue, BodyContentCommon, BodyContentSinglePart, BodyStructure, Capability, ContentEncoding, MailboxDatum,
    MessageSection, NameAttribute, Response as Parsed, SectionPath, StatusAttribute,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::response::{Capabilities, Fetched, Listed, MailboxStatus, Part, Response, StatusItems};
use super::{UidSet, parse};

fn oracle(octets: &[u8]) -> Response {
    let (rest, parsed) = Parsed::parse(octets).expect("imap-proto does not take what was generated");
    assert!(rest.is_empty(), "imap-proto leaves octets");
    match parsed {
        Parsed::MailboxData(MailboxDatum::Exists(count)) => Response::Exists(count),
        Parsed::MailboxData(MailboxDatum::List(listed)) => Response::Listed(Box::new(Listed {
            raw_name: listed.name.to_string(),
            delimiter: listed.delimiter.and_then(|text| text.chars().next()),
            attributes: listed.name_attributes.iter().map(attribute).collect(),
            old_raw_name: None,
        })),
        Parsed::MailboxData(MailboxDatum::Status { mailbox, status }) => {
            let mut items = StatusItems::default();
            for item in status {
                match item {
                    StatusAttribute::Messages(count) => items.messages = Some(count),
                    StatusAttribute::UidNext(uid) => items.uid_next = Some(uid),
                    StatusAttribute::UidValidity(value) => items.uid_validity = Some(value),
                    StatusAttribute::Unseen(count) => items.unseen = Some(count),
                    StatusAttribute::HighestModSeq(value) => items.highest_mod_seq = Some(value),
                    _ => {}
                }
            }
            Response::MailboxStatus(Box::new(MailboxStatus { raw_name: mailbox.to_string(), items }))
        }
        Parsed::Expunge(number) => Response::Expunge(number),
        Parsed::Fetch(number, items) => Response::Fetch(number, Box::new(fetched(&items))),
        Parsed::Vanished { earlier, uids } => {
            let mut set = UidSet::new();
            for range in uids {
                set.insert_range(*range.start(), *range.end());
            }
            Response::Vanished { earlier, uids: set }
        }
        Parsed::Capabilities(list) => Response::Capabilities(Capabilities(
            list.iter()
                .map(|capability| match capability {
                    Capability::Imap4rev1 => "IMAP4REV1".to_owned(),
                    Capability::Auth(mechanism) => format!("AUTH={mechanism}"),
                    Capability::Atom(name) => name.to_string(),
                })
                .collect(),
        )),
        other => panic!("{other:?}"),
    }
}

fn attribute(attribute: &NameAttribute<'_>) -> String {
    match attribute {
        NameAttribute::NoSelect => "\\noselect".to_owned(),
        NameAttribute::Marked => "\\marked".to_owned(),
        NameAttribute::Sent => "\\sent".to_owned(),
        NameAttribute::Extension(name) => name.to_ascii_lowercase(),
        other => panic!("{other:?} is not generated"),
    }
}

fn fetched(items: &[AttributeValue<'_>]) -> Fetched {
    let mut message = Fetched::default();
    for item in items {
        match item {
            AttributeValue::Uid(uid) => message.uid = Some(*uid),
            AttributeValue::Flags(flags) => message.flags = Some(flags.iter().map(ToString::to_string).collect()),
            AttributeValue::InternalDate(date) => message.internal_date = Some(date.to_string()),
            AttributeValue::Rfc822Size(size) => message.size = Some(u64::from(*size)),
            AttributeValue::ModSeq(value) => message.mod_seq = Some(*value),
            AttributeValue::BodyStructure(structure) => message.structure = Some(part(structure)),
            AttributeValue::BodySection { section, data, .. } => {
                let octets = data.as_deref().unwrap_or_default().to_vec();
                match section {
                    Some(SectionPath::Full(MessageSection::Header)) => message.header = Some(octets),
                    Some(SectionPath::Part(path, None)) => message.sections.push((path.clone(), octets)),
                    _ => {}
                }
            }
            AttributeValue::EmailId(id) => message.email_id = Some(id.to_string()),
            AttributeValue::ThreadId(id) => message.thread_id = id.as_ref().map(ToString::to_string),
            AttributeValue::GmailLabels(labels) => {
                message.labels = Some(labels.iter().map(ToString::to_string).collect());
            }
            other => panic!("{other:?} is not generated"),
        }
    }
    message
}

fn part(structure: &BodyStructure<'_>) -> Part {
    match structure {
        BodyStructure::Multipart { common, bodies, .. } => {
            Part { children: bodies.iter().map(part).collect(), ..leaf(common, None) }
        }
        BodyStructure::Basic { common, other, .. }
        | BodyStructure::Text { common, other, .. }
        | BodyStructure::Message { common, other, .. } => leaf(common, Some(other)),
    }
}

fn leaf(common: &BodyContentCommon<'_>, single: Option<&BodyContentSinglePart<'_>>) -> Part {
    let disposition = common.disposition.as_ref();
    Part {
        major: common.ty.ty.to_ascii_lowercase(),
        subtype: common.ty.subtype.to_ascii_lowercase(),
        parameters: parameters(common.ty.params.as_deref()),
        disposition: disposition.map(|disposition| disposition.ty.to_ascii_lowercase()),
        disposition_parameters: parameters(disposition.and_then(|disposition| disposition.params.as_deref())),
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
    list.unwrap_or_default().iter().map(|(name, value)| (name.to_ascii_lowercase(), value.to_string())).collect()
}

/// A string in either form. imap-proto leaves escapes in, so that there are none; that is tested elsewhere.
fn string() -> impl Strategy<Value = String> {
    ("[ !#-\\[\\]-~]{0,12}", any::<bool>())
        .prop_map(|(text, quoted)| if quoted { format!("\"{text}\"") } else { format!("{{{}}}\r\n{text}", text.len()) })
}

fn nstring() -> impl Strategy<Value = String> {
    prop_oneof![Just("NIL".to_owned()), string()]
}

fn pairs() -> impl Strategy<Value = String> {
    let some = vec(("\"[A-Za-z]{1,8}\"", string()), 1..3).prop_map(|pairs| {
        let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name} {value}")).collect();
        format!("({})", pairs.join(" "))
    });
    prop_oneof![Just("NIL".to_owned()), some]
}

fn disposition() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("NIL".to_owned()),
        ("\"[A-Za-z]{1,8}\"", pairs()).prop_map(|(kind, pairs)| format!("({kind} {pairs})"))
    ]
}

fn structure() -> impl Strategy<Value = String> {
    let id = prop_oneof![Just("NIL"), Just("\"<a@b>\"")];
    let encoding = prop_oneof![Just("\"7BIT\""), Just("\"base64\""), Just("\"x-odd\"")];
    let leaf = (
        "(application|image|TEXT)",
        "[a-z]{1,8}",
        pairs(),
        id,
        nstring(),
        encoding,
        any::<u32>(),
        option::of(disposition()),
    );
    let leaf = leaf.prop_map(|(major, subtype, pairs, id, description, encoding, octets, more)| {
        let lines = if major == "TEXT" { " 3" } else { "" };
        let more = more.map(|disposition| format!(" NIL {disposition} NIL NIL")).unwrap_or_default();
        format!("(\"{major}\" \"{subtype}\" {pairs} {id} {description} {encoding} {octets}{lines}{more})")
    });
    leaf.prop_recursive(4, 12, 3, |inner| {
        (vec(inner, 1..4), "\"[a-z]{1,8}\"", option::of((pairs(), disposition()))).prop_map(|(parts, subtype, more)| {
            let more = more.map(|(pairs, disposition)| format!(" {pairs} {disposition} NIL NIL")).unwrap_or_default();
            format!("({} {subtype}{more})", parts.concat())
        })
    })
}

fn item() -> impl Strategy<Value = String> {
    prop_oneof![
        (1..u32::MAX).prop_map(|uid| format!("UID {uid}")),
        vec("(\\\\Seen|\\\\Flagged|\\$?[A-Za-z]{1,6})", 0..4).prop_map(|flags| format!("FLAGS ({})", flags.join(" "))),
        Just("INTERNALDATE \"17-Jul-1996 02:44:25 -0700\"".to_owned()),
        any::<u32>().prop_map(|size| format!("RFC822.SIZE {size}")),
        (1..i64::MAX).prop_map(|value| format!("MODSEQ ({value})")),
        structure().prop_map(|structure| format!("BODYSTRUCTURE {structure}")),
        nstring().prop_map(|header| format!("BODY[HEADER.FIELDS (FROM SUBJECT)] {header}")),
        (vec(1_u32..99, 1..4), option::of(0_u32..99), nstring()).prop_map(|(path, origin, text)| {
            let path: Vec<String> = path.iter().map(ToString::to_string).collect();
            let origin = origin.map(|origin| format!("<{origin}>")).unwrap_or_default();
            format!("BODY[{}]{origin} {text}", path.join("."))
        }),
        "[A-Za-z0-9_-]{1,12}".prop_map(|id| format!("EMAILID ({id})")),
        "[A-Za-z0-9_-]{1,12}".prop_map(|id| format!("THREADID ({id})")),
        vec("(\\\\Inbox|[A-Za-z]{1,8}|\"[a-z ]{0,8}\")", 0..4)
            .prop_map(|labels| format!("X-GM-LABELS ({})", labels.join(" "))),
    ]
}

fn response() -> impl Strategy<Value = String> {
    let name = prop_oneof!["[A-Za-z./-]{1,12}", string()]
        .prop_filter("NIL is no atom", |name| !name.eq_ignore_ascii_case("NIL"));
    let count = prop_oneof![
        (0..u32::MAX).prop_map(|count| format!("MESSAGES {count}")),
        (0..u32::MAX).prop_map(|count| format!("UNSEEN {count}"))
    ];
    let number = prop_oneof![
        (1..u32::MAX).prop_map(|uid| format!("UIDNEXT {uid}")),
        (1..u32::MAX).prop_map(|value| format!("UIDVALIDITY {value}")),
        (0..i64::MAX).prop_map(|value| format!("HIGHESTMODSEQ {value}")),
    ];
    let uids = vec((1_u32..1000, option::of(1_u32..1000)), 1..6).prop_map(|ranges| {
        let ranges: Vec<String> = ranges
            .into_iter()
            .map(|(first, last)| match last {
                Some(last) => format!("{}:{}", first.min(last), first.max(last)),
                None => first.to_string(),
            })
            .collect();
        ranges.join(",")
    });
    prop_oneof![
        any::<u32>().prop_map(|count| format!("{count} EXISTS")),
        (1..u32::MAX).prop_map(|number| format!("{number} EXPUNGE")),
        (1..u32::MAX, vec(item(), 1..8)).prop_map(|(number, items)| format!("{number} FETCH ({})", items.join(" "))),
        (vec("\\\\(Noselect|Marked|Sent|HasNoChildren)", 0..3), "(NIL|\"/\"|\"[.]\")", name.clone())
            .prop_map(|(attributes, delimiter, name)| format!("LIST ({}) {delimiter} {name}", attributes.join(" "))),
        (name, vec(prop_oneof![count, number], 1..5))
            .prop_map(|(name, items)| format!("STATUS {name} ({})", items.join(" "))),
        (any::<bool>(), uids)
            .prop_map(|(earlier, uids)| format!("VANISHED {}{uids}", if earlier { "(EARLIER) " } else { "" })),
        vec("(IDLE|X-[A-Z]{1,5}|AUTH=PLAIN)", 0..5).prop_map(|words| format!(
            "CAPABILITY IMAP4rev1 {}",
            words.join(" ")
        )
        .trim_end()
        .to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn both_parsers_agree_about_what_is_well_formed(response in response()) {
        let line = format!("* {response}\r\n");
        let ours = parse(line.as_bytes());
        prop_assert_eq!(ours, oracle(line.as_bytes()));
    }
}
