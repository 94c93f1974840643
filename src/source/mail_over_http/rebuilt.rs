//! A message made of the fields that a provider has taken it apart into. Pure.
//!
//! The header is kept as the provider gives it, without the fields that spoke of the old body; the body is made anew
//! with lettre. Such a message has no signatures that could be checked, and providers can post the original: the
//! README says how.

use aws_lc_rs::digest::{Context, SHA256};
use lettre::message::header::{ContentType, HeaderName, HeaderValue, Headers};
use lettre::message::{Attachment, MultiPart, MultiPartKind, SinglePart};

use super::form::Field;

/// Fields that describe a body, which is another now.
const OF_BODY: [&str; 2] = ["Content-", "MIME-Version"];
/// Fields of one message.
const FIELDS_MAX: usize = 500;
/// The longest value of a field, in octets; Postfix's limit for one.
const VALUE_BYTES_MAX: usize = 102_400;

/// What a provider says of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    /// All fields of the header, decoded.
    pub(super) header: Vec<(String, String)>,
    /// What stands in the header, for providers that give little of it.
    pub(super) usual: Vec<(&'static str, Option<String>)>,
    pub(super) text: Option<String>,
    pub(super) html: Option<String>,
    pub(super) files: Vec<File>,
}

/// An attachment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) content_type: String,
    /// For what HTML shows, without angle brackets.
    pub(super) content_id: Option<String>,
    pub(super) content: Vec<u8>,
}

impl File {
    /// A file of a form.
    pub(super) fn of_field(field: &Field) -> Self {
        Self {
            name: field.filename.clone().unwrap_or_default(),
            content_type: field.content_type.clone().unwrap_or_default(),
            content_id: None,
            content: field.content.to_vec(),
        }
    }
}

impl Parsed {
    /// About how long the message will be, at least.
    pub(super) fn len(&self) -> usize {
        let header = self.header.iter().map(|(name, value)| name.len() + value.len());
        let texts = [&self.text, &self.html].into_iter().flatten().map(String::len);
        header.chain(texts).chain(self.files.iter().map(|file| file.content.len())).sum()
    }

    /// The message.
    pub(super) fn into_message(self) -> Vec<u8> {
        let Self { header, usual, text, html, files } = self;
        let has = |name: &str| header.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        let missing = usual.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)));
        let missing = missing.filter(|(name, value)| !value.is_empty() && !has(name));
        let own = header.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut message = Vec::new();
        for (name, value) in own.chain(missing).take(FIELDS_MAX) {
            message.extend_from_slice(field(name, value).as_bytes());
        }
        message.extend_from_slice(b"MIME-Version: 1.0\r\n");
        message.extend_from_slice(&body(text, html, files));
        message
    }
}

/// One field, encoded where it is not ASCII; nothing where it cannot be one or was the old body's.
fn field(name: &str, value: &str) -> String {
    let of_body = OF_BODY.iter().any(|of| name.get(..of.len()).is_some_and(|start| start.eq_ignore_ascii_case(of)));
    if of_body || value.len() > VALUE_BYTES_MAX {
        return String::new();
    }
    let Ok(name) = HeaderName::new_from_ascii(name.to_owned()) else { return String::new() };
    // Folding is lettre's; a line end of theirs could begin a field of its own.
    let value =
        value.split(['\r', '\n', '\0']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let mut headers = Headers::new();
    headers.insert_raw(HeaderValue::new(name, value.trim().to_owned()));
    headers.to_string()
}

fn body(text: Option<String>, html: Option<String>, files: Vec<File>) -> Vec<u8> {
    let digest = digest_of(text.as_deref(), html.as_deref(), &files);
    let parts = |kind, of: &str| MultiPart::builder().kind(kind).boundary(format!("{digest}-{of}")).build();
    let readable = match (text.filter(|text| !text.is_empty()), html.filter(|html| !html.is_empty())) {
        (text, None) => Err(SinglePart::plain(text.unwrap_or_default())),
        (None, Some(html)) => Err(SinglePart::html(html)),
        (Some(text), Some(html)) => Ok(parts(MultiPartKind::Alternative, "text")
            .singlepart(SinglePart::plain(text))
            .singlepart(SinglePart::html(html))),
    };
    if files.is_empty() {
        return readable.map_or_else(|part| part.formatted(), |parts| parts.formatted());
    }
    let mixed = parts(MultiPartKind::Mixed, "all");
    let mut all = match readable {
        Ok(parts) => mixed.multipart(parts),
        Err(part) => mixed.singlepart(part),
    };
    for file in files {
        let kind = ContentType::parse(&file.content_type).or_else(|_| ContentType::parse("application/octet-stream"));
        let name = file.name.replace(char::is_control, " ");
        let is_id = |id: &String| !id.is_empty() && id.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '<' | '>'));
        let attachment = match file.content_id.filter(is_id) {
            Some(id) => Attachment::new_inline_with_name(id, name),
            None => Attachment::new(name),
        };
        all = all.singlepart(attachment.body(file.content, kind.unwrap_or(ContentType::TEXT_PLAIN)));
    }
    all.formatted()
}

/// What the boundaries are made of: a message that is posted again has to be the same octets, by which it is known, and
/// no part can hold its own digest.
fn digest_of(text: Option<&str>, html: Option<&str>, files: &[File]) -> String {
    let mut context = Context::new(&SHA256);
    let mut part = |octets: &[u8]| {
        context.update(&(octets.len() as u64).to_be_bytes());
        context.update(octets);
    };
    for text in [text, html] {
        part(text.unwrap_or_default().as_bytes());
    }
    for file in files {
        part(file.name.as_bytes());
        part(&file.content);
    }
    let digest = context.finish();
    // 40 digits: a boundary has at most 70 characters (RFC 2046 §5.1.1).
    digest.as_ref().iter().take(20).map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Content;
    use crate::message::summarise;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn what_is_rebuilt_says_what_the_message_said() {
        let parsed = Parsed {
            header: vec![
                pair("Message-ID", "<a@b>"),
                pair("Subject", "Grüße\r\nBcc: x@y"),
                pair("content-type", "text/plain"),
                pair("List-Id", "x <list.example.org>"),
                pair("bad name", "x"),
            ],
            usual: vec![
                ("From", Some("Ada Lövelace <ada@example.org>".to_owned())),
                ("To", Some("bob@example.org".to_owned())),
                ("Subject", Some("another".to_owned())),
                ("Cc", None),
            ],
            text: Some("plain ⚡\n".to_owned()),
            html: Some("<p>html</p>".to_owned()),
            files: vec![File {
                name: "Rechnung ü.pdf".to_owned(),
                content_type: "application/pdf".to_owned(),
                content: b"%PDF".to_vec(),
                ..File::default()
            }],
        };
        let summary = summarise(&parsed.into_message(), Content::Text);
        assert_eq!(summary.message_id.as_deref(), Some("<a@b>"));
        assert_eq!(summary.subject.as_deref(), Some("Grüße Bcc: x@y"));
        assert_eq!(summary.from[0].name.as_deref(), Some("Ada Lövelace"));
        assert_eq!(summary.from[0].address, "ada@example.org");
        assert_eq!((summary.to[0].address.as_str(), summary.to.len()), ("bob@example.org", 1));
        assert_eq!(summary.list_id.as_deref(), Some("list.example.org"));
        assert_eq!(summary.text.as_deref().map(str::trim), Some("plain ⚡"));
        let [file] = &summary.attachments[..] else { panic!("{summary:?}") };
        assert_eq!((file.filename.as_deref(), file.size), (Some("Rechnung ü.pdf"), 4));
    }

    #[test]
    fn a_message_without_anything_is_still_one() {
        let message = Parsed::default().into_message();
        assert!(summarise(&message, Content::Text).text.is_none(), "{}", String::from_utf8_lossy(&message));
        let html = Parsed { html: Some("<p>only this</p>".to_owned()), ..Parsed::default() };
        assert_eq!(summarise(&html.into_message(), Content::Text).preview.as_deref(), Some("only this"));
    }
}
