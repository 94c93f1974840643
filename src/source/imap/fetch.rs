//! What is asked of a new message, and the event that its answer becomes. Pure.
//!
//! One FETCH has to do: each further round trip is time in which nobody knows of the message. It asks for the header
//! fields and not for ENVELOPE, which lacks half of what is wanted (References, List-Id, Auto-Submitted); the fields come
//! as one literal, and [`message`] reads them for all sources.
//! Only PEEK: reading for a notification must not mark a message as seen.

use jiff::Timestamp;
use jiff::fmt::strtime;

use super::offers::Offers;
use super::protocol::{Fetched, Part};

use crate::event::{Content, MessageSummary};
use crate::event_log::MessageKey;
use crate::message::{self, TextPart};

/// Octets of text that a preview is made of.
const PREVIEW_BYTES: u32 = 1024;
/// The same for HTML, which begins with styles.
const HTML_PREVIEW_BYTES: u32 = 16 * 1024;
/// Octets of header fields: anybody can send a `To` of a megabyte.
const HEADER_BYTES: u32 = 64 * 1024;

/// How much is asked. Less than all only when the answers to all could not be read again and again, so that one
/// strange message does not stop its mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Detail {
    Identifiers,
    Header,
    All,
}

impl Detail {
    /// `failures`: how often in a row the answer was not read to its end.
    pub(super) fn after_failures(failures: u32) -> Self {
        match failures {
            0..=2 => Self::All,
            3..=4 => Self::Header,
            _ => Self::Identifiers,
        }
    }
}

/// The items that are asked of each new message of an account.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    items: String,
    content: Content,
    detail: Detail,
    /// How much text, if any.
    text_bytes: Option<u32>,
    text_bytes_max: u32,
    offers: Offers,
}

/// A part whose text is still missing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MissingText {
    pub path: Vec<u32>,
    pub bytes: u32,
}

impl MissingText {
    pub(super) fn item(&self) -> String {
        let path: Vec<String> = self.path.iter().map(ToString::to_string).collect();
        format!("BODY.PEEK[{}]<0.{}>", path.join("."), self.bytes)
    }
}

impl Wanted {
    pub(super) fn new(content: Content, detail: Detail, text_bytes_max: u32, offers: Offers) -> Self {
        let detail = if content == Content::None { Detail::Identifiers } else { detail };
        let text_bytes = match content {
            _ if detail < Detail::All => None,
            Content::None | Content::Envelope => None,
            Content::Preview => Some(PREVIEW_BYTES),
            Content::Text => Some(text_bytes_max),
        };
        let mut items = vec!["UID FLAGS".to_owned()];
        if detail >= Detail::All {
            items.push("INTERNALDATE RFC822.SIZE BODYSTRUCTURE".to_owned());
            if offers.object_id {
                items.push("EMAILID THREADID".to_owned());
            } else if offers.gmail {
                items.push("X-GM-MSGID X-GM-THRID X-GM-LABELS".to_owned());
            }
        }
        if offers.condstore {
            items.push("MODSEQ".to_owned());
        }
        if detail >= Detail::Header {
            let fields = message::SUMMARY_FIELDS.join(" ");
            items.push(format!("BODY.PEEK[HEADER.FIELDS ({fields})]<0.{HEADER_BYTES}>"));
        }
        if offers.preview && content == Content::Preview && text_bytes.is_some() {
            items.push("PREVIEW".to_owned());
        } else if let Some(bytes) = text_bytes {
            // A guess: in most messages the text is part 1, and where it is not, this is the price of one segment.
            items.push(MissingText { path: vec![1], bytes }.item());
        }
        let items = format!("({})", items.join(" "));
        Self { items, content, detail, text_bytes, text_bytes_max, offers }
    }

    /// The same account's, with at most so much detail.
    pub(super) fn with(&self, detail: Detail) -> Self {
        Self::new(self.content, self.detail.min(detail), self.text_bytes_max, self.offers)
    }

    pub(super) fn items(&self) -> &str {
        &self.items
    }

    /// Whether less is asked than the account wants.
    pub(super) fn is_reduced(&self) -> bool {
        self.content != Content::None && self.detail < Detail::All
    }

    /// Whether this is the answer, and not a change of flags that came in between.
    pub(super) fn is_answered_by(&self, message: &Fetched) -> bool {
        if self.detail >= Detail::Header { message.header.is_some() } else { message.flags.is_some() }
    }

    /// What the guess at part 1 did not bring.
    pub(super) fn missing_text(&self, message: &Fetched) -> Option<MissingText> {
        let wanted = self.text_bytes?;
        if message.preview.as_ref().is_some_and(|preview| !preview.is_empty()) && self.content == Content::Preview {
            return None;
        }
        let (path, part) = message.structure.as_ref()?.readable()?;
        let is_html = part.subtype == "html";
        let bytes = if is_html { wanted.max(HTML_PREVIEW_BYTES) } else { wanted };
        match message.section(&path) {
            None => Some(MissingText { path, bytes }),
            Some(sent) => {
                let more = sent.len() < bytes as usize && sent.len() < part.octets as usize;
                let worthwhile = is_html && more && message::preview(&text_part(part), sent).is_none();
                worthwhile.then_some(MissingText { path, bytes })
            }
        }
    }

    /// What the event says of the message, and what identifies the message in every mailbox.
    pub(super) fn summarise(&self, message: &Fetched) -> Summarised {
        let mut summary = message::summarise_header(message.header.as_deref().unwrap_or_default());
        summary.size = message.size;
        summary.received = message.internal_date.as_deref().and_then(internal_date);
        summary.email_id.clone_from(&message.email_id);
        summary.thread_id.clone_from(&message.thread_id);
        summary.parse_error |= self.is_reduced();
        // The server made it of the whole text; ours, where there is one, replaces it.
        summary.preview = message.preview.as_deref().and_then(server_preview);
        if let Some(structure) = &message.structure {
            summary.attachments = structure.attachments();
            if let Some((path, part)) = structure.readable()
                && let Some(octets) = message.section(&path)
            {
                let part = text_part(part);
                summary.preview = message::preview(&part, octets).or(summary.preview);
                summary.text = (self.content == Content::Text).then(|| message::text(&part, octets)).flatten();
            }
        }
        Summarised { key: message_key(&summary), summary: summary.trimmed_to(self.content) }
    }
}

/// A message, read.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Summarised {
    /// The same in every mailbox of the account. Nothing where neither the server nor the message says who it is.
    pub key: Option<MessageKey>,
    /// As far as the account's `content` setting allows.
    pub summary: Option<MessageSummary>,
}

fn message_key(summary: &MessageSummary) -> Option<MessageKey> {
    if let Some(email_id) = &summary.email_id {
        return Some(MessageKey::of(&[b"email-id", email_id.as_bytes()]));
    }
    // With its size, since some programs give all their messages the same Message-ID.
    let (message_id, size) = (summary.message_id.as_ref()?, summary.size?);
    Some(MessageKey::of(&[b"message-id", message_id.as_bytes(), &size.to_be_bytes()]))
}

/// PREVIEW is plain text in UTF-8 (RFC 8970 §4), of anybody's making.
fn server_preview(text: &str) -> Option<String> {
    let plain = TextPart { subtype: "plain", charset: Some("utf-8"), encoding: "8bit", flowed: false, del_sp: false };
    message::preview(&plain, text.as_bytes())
}

fn text_part(part: &Part) -> TextPart<'_> {
    let is = |name, value| part.parameter(name).is_some_and(|found| found.eq_ignore_ascii_case(value));
    TextPart {
        subtype: &part.subtype,
        charset: part.parameter("charset"),
        encoding: &part.encoding,
        flowed: is("format", "flowed"),
        del_sp: is("delsp", "yes"),
    }
}

/// `17-Jul-1996 02:44:25 -0700` (RFC 9051 §9, `date-time`); the day may have a space for its first digit.
pub(super) fn internal_date(text: &str) -> Option<Timestamp> {
    strtime::parse("%d-%b-%Y %H:%M:%S %z", text.trim()).ok()?.to_timestamp().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(content: Content) -> Wanted {
        Wanted::new(content, Detail::All, 65_536, Offers::default())
    }

    fn html(octets: u32) -> Part {
        Part { major: "text".into(), subtype: "html".into(), encoding: "7bit".into(), octets, ..Part::default() }
    }

    #[test]
    fn no_more_is_asked_than_the_content_setting_allows() {
        assert_eq!(wanted(Content::None).items(), "(UID FLAGS)");
        assert!(!wanted(Content::Envelope).items().contains("BODY.PEEK[1]"));
        assert!(wanted(Content::Preview).items().ends_with(" BODY.PEEK[1]<0.1024>)"));
        assert!(wanted(Content::Text).items().ends_with(" BODY.PEEK[1]<0.65536>)"));
        for content in [Content::Envelope, Content::Preview, Content::Text] {
            let items = wanted(content).items().to_owned();
            assert!(items.matches("BODY").count() == items.matches("BODY.PEEK").count() + 1, "only PEEK: {items}");
        }
    }

    #[test]
    fn answers_that_cannot_be_read_are_asked_for_with_less() {
        let items = |failures| {
            let detail = Detail::after_failures(failures);
            let offers = Offers { object_id: true, ..Offers::default() };
            Wanted::new(Content::Text, detail, 65_536, offers).items().to_owned()
        };
        assert!(items(2).contains("BODYSTRUCTURE") && items(2).contains("EMAILID"));
        assert!(!items(3).contains("BODYSTRUCTURE") && items(3).contains("HEADER.FIELDS"));
        assert_eq!(items(5), "(UID FLAGS)");
    }

    #[test]
    fn text_is_asked_for_again_only_where_the_guess_failed() {
        let wanted = wanted(Content::Preview);
        let plain = Part { major: "text".into(), subtype: "plain".into(), octets: 9000, ..Part::default() };
        let mixed = Part {
            major: "multipart".into(),
            subtype: "mixed".into(),
            children: vec![Part {
                major: "multipart".into(),
                subtype: "alternative".into(),
                children: vec![plain.clone()],
                ..Part::default()
            }],
            ..Part::default()
        };
        let message = |structure, sent: &[u8]| Fetched {
            structure: Some(structure),
            sections: vec![(vec![1], sent.to_vec())],
            ..Fetched::default()
        };
        assert_eq!(wanted.missing_text(&message(plain, b"hello")), None);
        let missing = wanted.missing_text(&message(mixed, b"--boundary")).unwrap();
        assert_eq!(missing.item(), "BODY.PEEK[1.1]<0.1024>");
        assert_eq!(wanted.missing_text(&message(html(9000), b"<p>hello</p>")), None);
        let missing = wanted.missing_text(&message(html(9000), b"<style>p{}")).unwrap();
        assert_eq!(missing.item(), "BODY.PEEK[1]<0.16384>");
        assert_eq!(wanted.missing_text(&message(html(10), b"<style>p{}")), None, "there is no more");
    }

    #[test]
    fn internal_dates_are_read() {
        let at = |text| internal_date(text).map(|time| time.to_string());
        assert_eq!(at("17-Jul-1996 02:44:25 -0700").as_deref(), Some("1996-07-17T09:44:25Z"));
        assert_eq!(at(" 7-Jul-1996 02:44:25 +0000").as_deref(), Some("1996-07-07T02:44:25Z"));
        assert_eq!(at("yesterday"), None);
    }
}
