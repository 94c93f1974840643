//! MIME to summary: what a notification shows of a message.
//!
//! Pure functions over bytes that anybody may have sent: no I/O, no clock, and no error, because a message that cannot
//! be read must still be announced. Everything is bounded (octets of a field, addresses, parts, nesting, text) and takes
//! linear time without recursion. The decoders are our own: general parsers refuse or misread too much of the mail that
//! is really sent. Sources call this and put the result into their events; trimming by account is theirs.

mod address;
mod attachment_bodies;
pub mod authentication;
mod charset;
mod date;
mod encoded_word;
mod flowed;
mod header;
mod html;
mod message_id;
mod mime_tree;
mod parameters;
mod printable;
mod readable;
mod trace;
mod transfer;

use std::borrow::Cow;

use crate::event::{Address, Attachment, Content, MessageSummary, Priority};

pub(crate) use attachment_bodies::attachment_bodies;
pub(crate) use parameters::filename;
pub use readable::{TextPart, preview, preview_of_text, text};
pub(crate) use trace::{Trace, trace};

use header::Fields;
use mime_tree::{Part, Tree};

/// The header fields that [`summarise_header`] reads, for IMAP's `HEADER.FIELDS` list.
pub const SUMMARY_FIELDS: &[&str] = &[
    "FROM",
    "REPLY-TO",
    "TO",
    "CC",
    "SUBJECT",
    "DATE",
    "MESSAGE-ID",
    "IN-REPLY-TO",
    "REFERENCES",
    "LIST-ID",
    "AUTO-SUBMITTED",
    "IMPORTANCE",
    "X-PRIORITY",
    "PRIORITY",
    "X-MSMAIL-PRIORITY",
];

/// Senders that are named. More than one is rare.
const FROM_MAX: usize = 5;

/// Recipients that are named, in each of To, Cc and Reply-To.
const RECIPIENTS_MAX: usize = 20;

/// Newest references that are kept beside the first: enough to find the thread.
const NEWEST_REFERENCES_MAX: usize = 9;

/// Longest subject, in characters.
const SUBJECT_CHARS_MAX: usize = 1_000;

/// Attachments that are listed.
const ATTACHMENTS_MAX: usize = 50;

/// Text parts that are tried until one has something to read.
const BODIES_TRIED_MAX: usize = 5;

/// Summarises a whole message as SMTP receives it. Makes no preview and no text that `content` does not ask for.
pub fn summarise(raw: &[u8], content: Content) -> MessageSummary {
    let size = u64::try_from(raw.len()).ok();
    let raw = with_line_feeds(raw);
    let mut summary = MessageSummary { size, ..summarise_header(&raw) };
    if content == Content::None {
        return summary;
    }
    let tree = mime_tree::split(&raw);
    let mut body = Body::default();
    if content >= Content::Preview {
        body = Body::find(&tree, content);
    }
    summary.attachments = attachments(&tree, body.part);
    summary.preview = body.preview;
    summary.text = body.text;
    summary.parse_error = tree.incomplete;
    summary
}

/// Summarises a header block alone, whole or as IMAP's `BODY[HEADER.FIELDS (…)]` gives it with [`SUMMARY_FIELDS`].
///
/// Of a field that is there more than once, the first counts.
pub fn summarise_header(header: &[u8]) -> MessageSummary {
    let mut first = [None::<&[u8]>; SUMMARY_FIELDS.len()];
    for field in Fields::new(header) {
        if let Some((slot, _)) = first.iter_mut().zip(SUMMARY_FIELDS).find(|(_, name)| field.is(name)) {
            slot.get_or_insert(field.value);
        }
    }
    let field =
        |name: &str| first.iter().zip(SUMMARY_FIELDS).find(|(_, known)| **known == name).and_then(|(value, _)| *value);
    let addresses = |name, max| field(name).map(|value| address::parse_list(value, max)).unwrap_or_default();
    let ids = |name| field(name).map(message_id::parse_list).unwrap_or_default();
    MessageSummary {
        message_id: field("MESSAGE-ID").and_then(message_id::parse_one),
        in_reply_to: first_and_newest(ids("IN-REPLY-TO")),
        references: first_and_newest(ids("REFERENCES")),
        date: field("DATE").and_then(date::parse),
        from: addresses("FROM", FROM_MAX),
        reply_to: addresses("REPLY-TO", RECIPIENTS_MAX),
        to: addresses("TO", RECIPIENTS_MAX),
        cc: addresses("CC", RECIPIENTS_MAX),
        subject: field("SUBJECT")
            .and_then(|value| printable::non_empty(printable::cut_chars(decode_header_text(value), SUBJECT_CHARS_MAX))),
        list_id: field("LIST-ID").and_then(message_id::parse_list_id),
        auto_submitted: field("AUTO-SUBMITTED").is_some_and(|value| {
            let keyword = first_word(value);
            !keyword.is_empty() && keyword != "no"
        }),
        priority: priority(field),
        ..MessageSummary::default()
    }
}

/// Decodes an unstructured header value: encoded words, raw octets of any charset, folding. One line, without control
/// characters.
pub fn decode_header_text(value: &[u8]) -> String {
    printable::line(&encoded_word::decode(value))
}

/// A subject, or a name, that the server has decoded: one line, without control characters, bounded. None for nothing.
pub fn decoded_line(text: &str) -> Option<String> {
    printable::non_empty(printable::cut_chars(printable::line(text), SUBJECT_CHARS_MAX))
}

/// The addresses in a text that the server has decoded, such as `Ada Lovelace <ada@example.org>`.
pub fn decoded_addresses(text: &str) -> Vec<Address> {
    address::parse_list(printable::line(text).as_bytes(), FROM_MAX)
}

/// The first `max` addresses of a raw field value, or of a list that somebody typed; a local user has no `@`.
pub fn addresses(list: &[u8], max: usize) -> Vec<Address> {
    address::parse_list(list, max)
}

/// The identifier in a `Message-ID` that stands alone, with its angle brackets.
pub fn message_id(text: &str) -> Option<String> {
    message_id::parse_one(text.as_bytes())
}

/// Some old programs end lines with CR alone; everything here looks for LF.
fn with_line_feeds(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\n', raw).is_some() || memchr::memchr(b'\r', raw).is_none() {
        return Cow::Borrowed(raw);
    }
    Cow::Owned(raw.iter().map(|&byte| if byte == b'\r' { b'\n' } else { byte }).collect())
}

/// The first identifier began the thread, the newest are the nearest; those between are dropped.
fn first_and_newest(mut ids: Vec<String>) -> Vec<String> {
    if ids.len() > NEWEST_REFERENCES_MAX {
        let newest = ids.len().saturating_sub(NEWEST_REFERENCES_MAX);
        ids.drain(1..newest);
    }
    ids
}

/// The first word of a value in lower case, without a comment or parameters.
fn first_word(value: &[u8]) -> String {
    let text = decode_header_text(value);
    let end = text.find(|c: char| c.is_whitespace() || matches!(c, ';' | '(')).unwrap_or(text.len());
    text.get(..end).unwrap_or_default().to_ascii_lowercase()
}

/// The first field that says something decides: Importance (RFC 2156 §5.3), the widespread X-Priority, Priority.
fn priority<'a>(field: impl Fn(&str) -> Option<&'a [u8]>) -> Priority {
    ["IMPORTANCE", "X-PRIORITY", "PRIORITY", "X-MSMAIL-PRIORITY"]
        .into_iter()
        .find_map(|name| match first_word(field(name)?).as_str() {
            "high" | "urgent" | "highest" | "1" | "2" => Some(Priority::High),
            "low" | "non-urgent" | "lowest" | "4" | "5" => Some(Priority::Low),
            "normal" | "3" => Some(Priority::Normal),
            _ => None,
        })
        .unwrap_or_default()
}

/// The part that is shown, and what it says.
#[derive(Debug, Default)]
struct Body {
    part: Option<usize>,
    preview: Option<String>,
    text: Option<String>,
}

impl Body {
    /// Takes the first part that has something to read. Where alternatives are offered, plain text goes first.
    fn find(tree: &Tree<'_>, content: Content) -> Self {
        let candidates: Vec<usize> =
            (0..tree.parts.len()).filter(|&index| tree.parts.get(index).is_some_and(is_body_text)).collect();
        let mut ordered = candidates.clone();
        if let Some(alternative) = candidates.first().and_then(|&first| enclosing_alternative(tree, first)) {
            // Parts of the alternative come first, among them plain text; the sort keeps the order otherwise.
            ordered.sort_by_key(|&index| {
                let inside = enclosing_alternative(tree, index) == Some(alternative);
                (!inside, tree.parts.get(index).is_some_and(|part| part.content_type.value != "text/plain"))
            });
        }
        let first = ordered.first().copied();
        ordered
            .into_iter()
            .take(BODIES_TRIED_MAX)
            .find_map(|index| Self::read(index, tree.parts.get(index)?, content))
            .unwrap_or(Self { part: first, ..Self::default() })
    }

    fn read(index: usize, part: &Part<'_>, content: Content) -> Option<Self> {
        let charset = part.content_type.decoded("charset");
        let is = |name, value: &str| part.content_type.decoded(name).is_some_and(|v| v.eq_ignore_ascii_case(value));
        let part_to_read = TextPart {
            subtype: part.content_type.value.strip_prefix("text/").unwrap_or("plain"),
            charset: charset.as_deref(),
            encoding: part.encoding.name(),
            flowed: is("format", "flowed"),
            del_sp: is("delsp", "yes"),
        };
        let preview = preview(&part_to_read, part.body)?;
        let text = if content == Content::Text { text(&part_to_read, part.body) } else { None };
        Some(Self { part: Some(index), preview: Some(preview), text })
    }
}

/// Text to read, not a file that happens to be text.
fn is_body_text(part: &Part<'_>) -> bool {
    matches!(part.content_type.value.as_str(), "text/plain" | "text/html")
        && part.disposition.value != "attachment"
        // A message that is nothing but text is shown, whatever its sender called it.
        && (part.parent.is_none() || part.filename().is_none())
}

/// The innermost multipart/alternative around a part.
fn enclosing_alternative(tree: &Tree<'_>, index: usize) -> Option<usize> {
    let parent_of = |index: &usize| tree.parts.get(*index)?.parent;
    std::iter::successors(parent_of(&index), parent_of)
        .find(|&index| tree.parts.get(index).is_some_and(|part| part.content_type.value == "multipart/alternative"))
}

fn attachments(tree: &Tree<'_>, body: Option<usize>) -> Vec<Attachment> {
    let listed = |part: &Part<'_>| Attachment {
        filename: part.filename(),
        content_type: part.content_type.value.clone(),
        size: u64::try_from(part.encoding.decoded_len(part.body)).unwrap_or(u64::MAX),
        ..Attachment::default()
    };
    files(tree, body).map(listed).collect()
}

/// The parts that are files, without the part that is shown as the text.
fn files<'a, 'raw>(tree: &'a Tree<'raw>, body: Option<usize>) -> impl Iterator<Item = &'a Part<'raw>> {
    let is_file = move |(index, part): &(usize, &Part<'_>)| {
        if part.is_multipart() || Some(*index) == body {
            return false;
        }
        let is_named = part.disposition.value == "attachment" || part.filename().is_some();
        let is_shown_by_another = part.content_type.value.starts_with("text/") || part.has_content_id;
        is_named || !is_shown_by_another
    };
    tree.parts.iter().enumerate().filter(is_file).map(|(_, part)| part).take(ATTACHMENTS_MAX)
}

#[cfg(test)]
mod tests;
