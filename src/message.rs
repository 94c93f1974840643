//! MIME to summary: what a notification shows of a message.
//!
//! Pure functions over bytes that anybody may have sent: no I/O, no clock, and no error, because a message that cannot
//! be read must still be announced. Everything is bounded (octets of a field, addresses, parts, nesting, text) and takes
//! linear time without recursion. The decoders are our own: general parsers refuse or misread too much of the mail that
//! is really sent. Sources call this and put the result into their events; trimming by account is theirs.

mod address;
mod armor;
mod attachment_bodies;
mod attachments;
pub mod authentication;
mod calendar;
mod charset;
mod date;
mod defects;
mod encoded_word;
mod flowed;
mod header;
mod html;
mod line_ends;
mod message_id;
mod mime_tree;
mod parameters;
mod printable;
mod priority;
mod protection;
mod readable;
mod report;
mod trace;
mod transfer;

use std::borrow::Cow;

use crate::event::{Address, Content, Defect, MessageSummary};

pub(crate) use attachment_bodies::attachment_bodies;
pub use line_ends::lines;
pub(crate) use parameters::filename;
pub use readable::{TextPart, preview, preview_of_text, text};
pub(crate) use trace::{Trace, trace};

use defects::Defects;
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
    "LIST-POST",
    "LIST-UNSUBSCRIBE",
    "PRECEDENCE",
    "AUTO-SUBMITTED",
    "IMPORTANCE",
    "X-PRIORITY",
    "PRIORITY",
    "X-MSMAIL-PRIORITY",
];

/// Of those, the ones that RFC 5322 §3.6 allows once.
const ONCE: &[&str] = &["FROM", "REPLY-TO", "TO", "CC", "SUBJECT", "DATE", "MESSAGE-ID", "IN-REPLY-TO", "REFERENCES"];

/// Senders that are named. More than one is rare.
const FROM_MAX: usize = 5;

/// Recipients that are named, in each of To, Cc and Reply-To.
const RECIPIENTS_MAX: usize = 20;

/// Newest references that are kept beside the first: enough to find the thread.
const NEWEST_REFERENCES_MAX: usize = 9;

/// Longest subject, in characters.
const SUBJECT_CHARS_MAX: usize = 1_000;

/// Text parts that are tried until one has something to read.
const BODIES_TRIED_MAX: usize = 5;

/// Summarises a whole message as SMTP receives it. Makes no preview and no text that `content` does not ask for.
pub fn summarise(raw: &[u8], content: Content) -> MessageSummary {
    let size = u64::try_from(raw.len()).ok();
    let mut defects = Defects::default();
    note_octets(raw, &mut defects);
    let raw = with_line_feeds(raw);
    let mut summary = MessageSummary { size, ..header_summary(&raw, &mut defects) };
    if content == Content::None {
        return finished(summary, defects);
    }
    let tree = mime_tree::split(&raw);
    let mut body = Body::default();
    if content >= Content::Preview {
        body = Body::find(&tree, content, &mut defects);
    }
    summary.attachments = attachments::list(&tree, body.part, &mut defects);
    summary.preview = body.preview;
    summary.text = body.text;
    summary.security = protection::find(&tree);
    summary.report = report::find(&tree);
    summary.calendar = calendar::find(&tree);
    defects.extend(tree.defects);
    finished(summary, defects)
}

fn finished(mut summary: MessageSummary, defects: Defects) -> MessageSummary {
    summary.defects = defects.into_sorted();
    summary.parse_error = summary.defects.iter().any(|defect| defect.loses());
    summary
}

/// Summarises a header block alone, whole or as IMAP's `BODY[HEADER.FIELDS (…)]` gives it with [`SUMMARY_FIELDS`].
///
/// Of a field that is there more than once, the first counts.
pub fn summarise_header(header: &[u8]) -> MessageSummary {
    let mut defects = Defects::default();
    let summary = header_summary(header, &mut defects);
    finished(summary, defects)
}

fn header_summary(header: &[u8], defects: &mut Defects) -> MessageSummary {
    let mut first = [None::<&[u8]>; SUMMARY_FIELDS.len()];
    let mut fields = Fields::new(header);
    for field in fields.by_ref() {
        if let Some((slot, name)) = first.iter_mut().zip(SUMMARY_FIELDS).find(|(_, name)| field.is(name)) {
            defects.note_if(slot.is_some() && ONCE.contains(name), Defect::DuplicateHeader);
            slot.get_or_insert(field.value);
        }
    }
    defects.extend(fields.defects);
    let field =
        |name: &str| first.iter().zip(SUMMARY_FIELDS).find(|(_, known)| **known == name).and_then(|(value, _)| *value);
    let date = field("DATE").and_then(date::parse);
    defects.note_if(date.is_none() && field("DATE").is_some(), Defect::DateInvalid);
    let is_id =
        |value| message_id::parse_list(value).first().is_some_and(|id| id.contains('@')) && value.contains(&b'<');
    defects.note_if(field("MESSAGE-ID").is_some_and(|value| !is_id(value)), Defect::MessageIdInvalid);
    let mut addresses =
        |name, max| field(name).map(|value| address::parse_list_noting(value, max, defects)).unwrap_or_default();
    let (from, reply_to) = (addresses("FROM", FROM_MAX), addresses("REPLY-TO", RECIPIENTS_MAX));
    let (to, cc) = (addresses("TO", RECIPIENTS_MAX), addresses("CC", RECIPIENTS_MAX));
    let subject = field("SUBJECT").map(|value| printable::line(&encoded_word::decode_noting(value, defects)));
    let ids = |name| field(name).map(message_id::parse_list).unwrap_or_default();
    MessageSummary {
        message_id: field("MESSAGE-ID").and_then(message_id::parse_one),
        in_reply_to: first_and_newest(ids("IN-REPLY-TO")),
        references: first_and_newest(ids("REFERENCES")),
        date,
        from,
        reply_to,
        to,
        cc,
        subject: subject.and_then(|text| printable::non_empty(printable::cut_chars(text, SUBJECT_CHARS_MAX))),
        list_id: field("LIST-ID").and_then(message_id::parse_list_id),
        auto_submitted: priority::is_automatic(field),
        priority: priority::read(field),
        ..MessageSummary::default()
    }
}

/// The addresses of a header's one `From`. None where there is none, or more than one (RFC 5322 §3.6.2).
pub(crate) fn sole_from(header: &[u8]) -> Option<Vec<Address>> {
    let mut senders = Fields::new(header).filter(|field| field.is("From"));
    let sender = senders.next()?;
    senders.next().is_none().then(|| address::parse_list(sender.value, FROM_MAX))
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

/// Notes what no message may contain: NUL (RFC 5322 §4.1), CR or LF alone (§2.3). A message with LF throughout is a local
/// file, and nothing is wrong with it.
fn note_octets(raw: &[u8], defects: &mut Defects) {
    defects.note_if(memchr::memchr(0, raw).is_some(), Defect::NulOctets);
    let (mut with_cr, mut alone) = (false, false);
    for at in memchr::memchr_iter(b'\n', raw) {
        let after_cr = at.checked_sub(1).is_some_and(|before| raw.get(before) == Some(&b'\r'));
        with_cr |= after_cr;
        alone |= !after_cr;
        if with_cr && alone {
            break;
        }
    }
    let cr_alone = memchr::memchr_iter(b'\r', raw).any(|at| raw.get(at.saturating_add(1)) != Some(&b'\n'));
    defects.note_if(with_cr && alone || cr_alone, Defect::BareLineEnds);
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

/// The part that is shown, and what it says.
#[derive(Debug, Default)]
struct Body {
    part: Option<usize>,
    preview: Option<String>,
    text: Option<String>,
}

impl Body {
    /// Takes the first part that has something to read. Where alternatives are offered, plain text goes first.
    fn find(tree: &Tree<'_>, content: Content, defects: &mut Defects) -> Self {
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
            .find_map(|index| Self::read(index, tree.parts.get(index)?, content, defects))
            .unwrap_or(Self { part: first, ..Self::default() })
    }

    fn read(index: usize, part: &Part<'_>, content: Content, defects: &mut Defects) -> Option<Self> {
        let charset = part.content_type.decoded("charset");
        let is = |name, value: &str| part.content_type.decoded(name).is_some_and(|v| v.eq_ignore_ascii_case(value));
        let part_to_read = TextPart {
            subtype: part.content_type.value.strip_prefix("text/").unwrap_or("plain"),
            charset: charset.as_deref(),
            encoding: part.encoding.name(),
            flowed: is("format", "flowed"),
            del_sp: is("delsp", "yes"),
        };
        part.encoding.measure(part.body, defects);
        let preview = readable::preview_of_whole(&part_to_read, part.body, defects);
        // Encrypted text has no preview, and is what the message says all the same, whether it is asked for or not.
        let is_asked_for = content == Content::Text;
        let text =
            (is_asked_for || preview.is_none()).then(|| readable::whole_text(&part_to_read, part.body)).flatten();
        let is_read = preview.is_some() || text.is_some();
        is_read.then(|| Self { part: Some(index), preview, text: text.filter(|_| is_asked_for) })
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

#[cfg(test)]
mod tests;
