//! From a JMAP message to what a notification shows of it. Pure. The server has decoded it; it is bounded and freed of
//! control characters here all the same.

use crate::event::{Address, Attachment, Content, MessageSummary};
use crate::message::{self, TextPart};

use super::object::{BodyPart, Email, EmailAddress};

/// Addresses of one field, and attachments, that are named.
const ADDRESSES_MAX: usize = 20;
const ATTACHMENTS_MAX: usize = 50;

/// The summary, as far as `content` allows.
pub(super) fn summary(email: &Email, content: Content) -> Option<MessageSummary> {
    let mut summary = MessageSummary {
        email_id: message::decoded_line(&email.id),
        thread_id: email.thread_id.as_deref().and_then(message::decoded_line),
        date: email.sent_at.as_deref().and_then(message::decoded_line),
        received: email.received_at.as_deref().and_then(|time| time.parse().ok()),
        size: email.size,
        from: addresses(email.from.as_deref()),
        to: addresses(email.to.as_deref()),
        cc: addresses(email.cc.as_deref()),
        reply_to: addresses(email.reply_to.as_deref()),
        subject: email.subject.as_deref().and_then(message::decoded_line),
        preview: email.preview.as_deref().and_then(message::preview_of_text),
        text: text(email),
        attachments: email.attachments.iter().flatten().take(ATTACHMENTS_MAX).map(attachment).collect(),
        ..header_fields(email)
    };
    if summary.preview.is_none() {
        summary.preview = summary.text.as_deref().and_then(message::preview_of_text);
    }
    summary.trimmed_to(content)
}

/// What is read from header fields as it is for any other source: made into a header again.
fn header_fields(email: &Email) -> MessageSummary {
    let ids = |ids: &Option<Vec<String>>| {
        let bracketed = ids.iter().flatten().map(|id| format!("<{}>", id.trim_matches(['<', '>'])));
        Some(bracketed.collect::<Vec<_>>().join(" ")).filter(|text| !text.is_empty())
    };
    let fields = [
        ("Message-ID", ids(&email.message_id)),
        ("In-Reply-To", ids(&email.in_reply_to)),
        ("References", ids(&email.references)),
        ("List-Id", email.list_id.clone()),
        ("Auto-Submitted", email.auto_submitted.clone()),
        ("Importance", email.importance.clone()),
        ("X-Priority", email.x_priority.clone()),
    ];
    let mut header = String::new();
    for (name, value) in fields {
        let Some(value) = value else { continue };
        header.push_str(name);
        header.push_str(": ");
        // A line break in a value would begin another field.
        header.extend(value.chars().map(|c| if matches!(c, '\r' | '\n') { ' ' } else { c }));
        header.push_str("\r\n");
    }
    message::summarise_header(header.as_bytes())
}

fn addresses(list: Option<&[EmailAddress]>) -> Vec<Address> {
    let address = |one: &EmailAddress| Address {
        name: one.name.as_deref().and_then(message::decoded_line),
        address: one.email.as_deref().and_then(message::decoded_line).unwrap_or_default(),
    };
    let named = |one: &Address| one.name.is_some() || !one.address.is_empty();
    list.unwrap_or_default().iter().map(address).filter(named).take(ADDRESSES_MAX).collect()
}

fn attachment(part: &BodyPart) -> Attachment {
    Attachment {
        filename: part.name.as_deref().and_then(message::decoded_line),
        content_type: part.r#type.as_deref().and_then(message::decoded_line).unwrap_or_default().to_ascii_lowercase(),
        size: part.size.unwrap_or_default(),
        ..Attachment::default()
    }
}

fn text(email: &Email) -> Option<String> {
    let mut texts = Vec::new();
    for part in email.text_body.iter().flatten() {
        let Some(value) = part.part_id.as_ref().and_then(|id| email.body_values.get(id)) else { continue };
        let is_html = part.r#type.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"));
        let subtype = if is_html { "html" } else { "plain" };
        let part = TextPart { subtype, charset: Some("utf-8"), encoding: "8bit", flowed: false, del_sp: false };
        texts.extend(message::text(&part, value.value.as_bytes()));
    }
    // Bounded again, since there may be many parts.
    let part = TextPart { subtype: "plain", charset: Some("utf-8"), encoding: "8bit", flowed: false, del_sp: false };
    message::text(&part, texts.join("\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_shown_as_from_any_other_source() {
        let email: Email = serde_json::from_value(json!({
            "id": "M1", "threadId": "T1", "size": 4711, "receivedAt": "2026-11-20T12:00:00Z",
            "sentAt": "2026-11-20T12:59:58+01:00", "messageId": ["a@b"], "inReplyTo": null, "references": ["x@y", "z@y"],
            "from": [{ "name": "Ada", "email": "ada@example.org" }, { "name": null, "email": null }],
            "to": null, "subject": "a\r\nb\u{7}", "preview": "  first\n line ",
            "attachments": [{ "name": "a.pdf", "type": "Application/PDF", "size": 15, "partId": "2" }],
            "header:List-Id": " Rust <rust.example.org>\r\nX-Priority: 1", "header:Auto-Submitted": " no",
            "textBody": [{ "partId": "1", "type": "text/html" }], "bodyValues": { "1": { "value": "<p>Hi</p>" } },
        }))
        .unwrap();
        let whole = summary(&email, Content::Text).unwrap();
        assert_eq!(whole.message_id.as_deref(), Some("<a@b>"));
        assert_eq!((whole.references.len(), whole.in_reply_to.len()), (2, 0));
        assert_eq!(whole.list_id.as_deref(), Some("rust.example.org"), "and no priority out of its second line");
        assert_eq!((whole.auto_submitted, whole.priority), (false, crate::event::Priority::Low));
        assert_eq!(whole.from, [Address { name: Some("Ada".into()), address: "ada@example.org".into() }]);
        assert_eq!((whole.subject.as_deref(), whole.preview.as_deref()), (Some("a  b"), Some("first line")));
        assert_eq!(whole.text.as_deref(), Some("Hi"));
        assert_eq!(whole.attachments[0].content_type, "application/pdf");
        assert_eq!(whole.date.as_deref(), Some("2026-11-20T12:59:58+01:00"));
        assert_eq!((whole.email_id.as_deref(), whole.thread_id.as_deref()), (Some("M1"), Some("T1")));
        assert!(summary(&email, Content::Preview).unwrap().text.is_none());
        assert!(summary(&email, Content::None).is_none());
    }
}
