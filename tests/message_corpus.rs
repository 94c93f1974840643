//! The hard messages in `tests/messages`: what postrider makes of each, compared with what a reader would.
//!
//! The same messages are given to two parsers that are in wide use. Counted is who reads the subject, the sender and the
//! text as the expectation has them, which is the little that a notification needs:
//!
//! | of 140 messages | subject | sender | text | all three |
//! |---|---|---|---|---|
//! | postrider | 140 | 140 | 140 | 140 |
//! | mail-parser 0.11.9 | 131 | 131 | 116 | 100 |
//! | mailparse 0.18.0 | 128 | 127 | 114 | 93 |
//!
//! Blanks are not counted, nor the targets of links, and where no text is expected none is compared. The messages were
//! chosen for what is known to go wrong, and postrider was mended until it read them all, so that the table says where the
//! others differ and not how often they do on usual mail.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::format_push_string,
    reason = "what fails in a test fails the test"
)]

use std::collections::BTreeMap;
use std::path::Path;

use mailparse::MailHeaderMap;
use postrider::event::Content;
use postrider::message::summarise;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Expected {
    about: String,
    summary: BTreeMap<String, Value>,
}

struct Message {
    name: String,
    raw: Vec<u8>,
    expected: Expected,
}

fn messages() -> Vec<Message> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/messages");
    let mut messages: Vec<Message> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "eml"))
        .map(|path| {
            let expected = std::fs::read(path.with_extension("json")).expect("an expectation beside each message");
            Message {
                name: path.file_stem().unwrap().to_string_lossy().into_owned(),
                raw: std::fs::read(&path).unwrap(),
                expected: serde_json::from_slice(&expected).unwrap_or_else(|err| panic!("{}: {err}", path.display())),
            }
        })
        .collect();
    messages.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(messages.len() >= 60, "the corpus is in the repository");
    messages
}

/// The fields in which two summaries differ, a line for each side.
fn difference(expected: &BTreeMap<String, Value>, found: &BTreeMap<String, Value>) -> String {
    let keys: std::collections::BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let show = |value: Option<&Value>| value.map_or_else(|| "absent".to_owned(), ToString::to_string);
    keys.into_iter()
        .filter(|key| expected.get(*key) != found.get(*key))
        .map(|key| {
            format!("  {key}\n    expected {}\n    found    {}\n", show(expected.get(key)), show(found.get(key)))
        })
        .collect::<Vec<_>>()
        .concat()
}

#[test]
fn each_message_is_read_as_a_reader_would() {
    let mut wrong = String::new();
    for Message { name, raw, expected } in messages() {
        let found = serde_json::to_value(summarise(&raw, Content::Text)).unwrap();
        let found: BTreeMap<String, Value> = serde_json::from_value(found).unwrap();
        let difference = difference(&expected.summary, &found);
        if !difference.is_empty() {
            wrong.push_str(&format!("{name}: {}\n{difference}", expected.about));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// What a notification shows, and what all parsers can be asked for.
#[derive(Default)]
struct Shown {
    subject: String,
    /// `name <address>`, each.
    from: Vec<String>,
    text: String,
}

impl Shown {
    fn expected(summary: &BTreeMap<String, Value>) -> Self {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let from = summary["from"].as_array().unwrap();
        let from = from.iter().map(|one| sender(one["name"].as_str(), one["address"].as_str())).collect();
        Self { subject: text(summary.get("subject")), from, text: text(summary.get("text")) }
    }

    fn of_postrider(raw: &[u8]) -> Self {
        let summary = summarise(raw, Content::Text);
        let from = summary.from.iter().map(|one| sender(one.name.as_deref(), Some(&one.address))).collect();
        Self { subject: summary.subject.unwrap_or_default(), from, text: summary.text.unwrap_or_default() }
    }

    fn of_mail_parser(raw: &[u8]) -> Self {
        let Some(message) = mail_parser::MessageParser::default().parse(raw) else { return Self::default() };
        let from = message.from().into_iter().flat_map(mail_parser::Address::iter);
        Self {
            subject: message.subject().unwrap_or_default().to_owned(),
            from: from.map(|one| sender(one.name(), one.address())).collect(),
            text: message.body_text(0).unwrap_or_default().into_owned(),
        }
    }

    fn of_mailparse(raw: &[u8]) -> Self {
        let Ok(mail) = mailparse::parse_mail(raw) else { return Self::default() };
        let from = mail.get_headers().get_first_header("From").and_then(|from| mailparse::addrparse_header(from).ok());
        let from = from.iter().flat_map(|list| list.iter()).filter_map(|one| match one {
            mailparse::MailAddr::Single(one) => Some(sender(one.display_name.as_deref(), Some(&one.addr))),
            mailparse::MailAddr::Group(_) => None,
        });
        let texts = mail.parts().filter(|part| matches!(&*part.ctype.mimetype, "text/plain" | "text/html"));
        let mut texts: Vec<(bool, String)> =
            texts.filter_map(|part| Some((part.ctype.mimetype == "text/html", part.get_body().ok()?))).collect();
        // Plain text goes first only where it is an alternative.
        if mail.parts().any(|part| part.ctype.mimetype == "multipart/alternative") {
            texts.sort_by_key(|(is_html, _)| *is_html);
        }
        let text = texts.into_iter().find(|(_, text)| !text.trim().is_empty());
        Self {
            subject: mail.get_headers().get_first_value("Subject").unwrap_or_default(),
            from: from.collect(),
            text: match text {
                Some((true, html)) => nanohtml2text::html2text(&html),
                Some((false, plain)) => plain,
                None => String::new(),
            },
        }
    }

    /// Whether subject, sender and text are those that are expected.
    fn agrees(&self, expected: &Self) -> [bool; 3] {
        [
            words(&self.subject) == words(&expected.subject),
            self.from == expected.from,
            expected.text.is_empty() || words(&self.text) == words(&expected.text),
        ]
    }
}

fn sender(name: Option<&str>, address: Option<&str>) -> String {
    format!("{} <{}>", name.unwrap_or_default(), address.unwrap_or_default())
}

/// Without blanks and without the targets of links, in which converters of HTML differ.
fn words(text: &str) -> String {
    let mut pieces = text.split(" (https://");
    let first = pieces.next().unwrap_or_default().to_owned();
    let rest = pieces.map(|piece| piece.split_once(')').map_or("", |(_, rest)| rest));
    std::iter::once(first.as_str()).chain(rest).flat_map(str::split_whitespace).collect()
}

type Reader = fn(&[u8]) -> Shown;

/// How many messages the table above says that each parser reads: subject, sender, text, and all three.
const TABLE: [(&str, Reader, [usize; 4]); 3] = [
    ("postrider", Shown::of_postrider, [140, 140, 140, 140]),
    ("mail-parser", Shown::of_mail_parser, [131, 131, 116, 100]),
    ("mailparse", Shown::of_mailparse, [128, 127, 114, 93]),
];

#[test]
fn the_table_of_who_reads_what_is_true() {
    let messages = messages();
    let (mut wrong, mut told) = (false, String::new());
    for (parser, read, expected) in TABLE {
        let (mut counts, mut missed) = ([0; 4], Vec::new());
        for message in &messages {
            let agrees = read(&message.raw).agrees(&Shown::expected(&message.expected.summary));
            let all = agrees.iter().all(|agrees| *agrees);
            for (count, agrees) in counts.iter_mut().zip(agrees.into_iter().chain([all])) {
                *count += usize::from(agrees);
            }
            if !all {
                missed.push(message.name.as_str());
            }
        }
        wrong |= counts != expected;
        told.push_str(&format!("\n{parser}: {counts:?}, the table says {expected:?}; misses {missed:?}"));
    }
    assert!(!wrong, "{told}");
}
