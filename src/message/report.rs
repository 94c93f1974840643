//! Reports on mail that was sent earlier (RFC 6522): delivery status (RFC 3464), disposition (RFC 8098), feedback
//! (RFC 5965).
//!
//! The part that machines read is what counts, wherever in the message it is: what people read differs from program to
//! program and from language to language. All three are blocks of header fields.

use crate::event::{Report, ReportKind, ReportedRecipient};
use crate::message::{
    header::{Field, Fields},
    message_id,
    mime_tree::{Part, Tree},
    printable, summarise_header,
};

/// Recipients that are named.
const RECIPIENTS_MAX: usize = 20;

/// Octets of the report that are read: some hundred recipients.
const SOURCE_MAX: usize = 64 * 1024;

/// Longest diagnostic, in characters.
const DIAGNOSTIC_CHARS_MAX: usize = 300;

/// Longest of the other values, in characters.
const VALUE_CHARS_MAX: usize = 200;

/// What the message reports, if it is a report.
pub(super) fn find(tree: &Tree<'_>) -> Option<Report> {
    let (kind, part) = tree.parts.iter().find_map(|part| Some((kind(&part.content_type.value)?, part)))?;
    let source = part.encoding.decode(part.body.get(..SOURCE_MAX).unwrap_or(part.body));
    let mut report = Report { kind, ..Report::default() };
    match kind {
        ReportKind::DeliveryStatus => report.recipients = delivery_status(&source),
        ReportKind::DispositionNotification => disposition(&source, &mut report),
        ReportKind::FeedbackReport => feedback(&source, &mut report),
    }
    report.original_message_id = report.original_message_id.or_else(|| returned_message_id(tree, part));
    Some(report)
}

fn kind(content_type: &str) -> Option<ReportKind> {
    match content_type {
        // RFC 6533 has an internationalized form of each.
        "message/delivery-status" | "message/global-delivery-status" => Some(ReportKind::DeliveryStatus),
        "message/disposition-notification" | "message/global-disposition-notification" => {
            Some(ReportKind::DispositionNotification)
        }
        "message/feedback-report" => Some(ReportKind::FeedbackReport),
        _ => None,
    }
}

/// The blocks of fields, which empty lines divide.
fn blocks(source: &[u8]) -> impl Iterator<Item = Fields<'_>> {
    let mut rest = source;
    std::iter::from_fn(move || {
        // An empty line too many, as some programs have it, is no block.
        rest = rest.trim_ascii_start();
        let fields = (!rest.is_empty()).then(|| Fields::new(rest))?;
        let after = fields.clone().into_body();
        // A boundary inside stops the fields where they are.
        rest = if after.len() < rest.len() { after } else { &[] };
        Some(fields)
    })
}

fn delivery_status(source: &[u8]) -> Vec<ReportedRecipient> {
    let (mut recipients, mut found) = (Vec::new(), None::<ReportedRecipient>);
    for fields in blocks(source) {
        // A block for each recipient; a program that leaves out the empty lines begins each with one of these.
        recipients.extend(found.take());
        for field in fields {
            let is_final = field.is("Final-Recipient");
            if is_final || field.is("Original-Recipient") {
                if is_final && found.as_ref().is_some_and(|one| one.action.is_some()) {
                    recipients.extend(found.take());
                }
                let one = found.get_or_insert_default();
                if is_final || one.address.is_empty() {
                    one.address = typed(&field);
                }
            } else if let Some(one) = &mut found {
                if field.is("Action") {
                    one.action = word(&field);
                } else if field.is("Status") {
                    one.status = word(&field);
                } else if field.is("Diagnostic-Code") {
                    one.diagnostic = printable::non_empty(printable::cut_chars(typed(&field), DIAGNOSTIC_CHARS_MAX));
                }
            }
        }
        if recipients.len() >= RECIPIENTS_MAX {
            break;
        }
    }
    recipients.extend(found);
    recipients.truncate(RECIPIENTS_MAX);
    recipients
}

fn disposition(source: &[u8], report: &mut Report) {
    let mut one = ReportedRecipient::default();
    for field in blocks(source).flatten() {
        if field.is("Final-Recipient") || field.is("Original-Recipient") && one.address.is_empty() {
            one.address = typed(&field);
        } else if field.is("Original-Message-ID") {
            report.original_message_id = message_id::parse_one(field.value);
        } else if field.is("Disposition") {
            // `manual-action/MDN-sent-manually; displayed/error`
            let kind = text(&field).rsplit(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            one.action = printable::non_empty(kind.split('/').next().unwrap_or_default().trim().to_owned());
        }
    }
    report.recipients.extend(Some(one).filter(|one| *one != ReportedRecipient::default()));
}

fn feedback(source: &[u8], report: &mut Report) {
    for field in blocks(source).flatten() {
        if field.is("Feedback-Type") {
            report.feedback_type = word(&field);
        } else if field.is("Original-Rcpt-To") && report.recipients.len() < RECIPIENTS_MAX {
            let address = text(&field).trim_matches(['<', '>']).to_owned();
            report.recipients.push(ReportedRecipient { address, ..ReportedRecipient::default() });
        }
    }
}

/// The message that came back with the report, or its header, says who it was.
fn returned_message_id(tree: &Tree<'_>, report: &Part<'_>) -> Option<String> {
    let is_returned = |part: &&Part<'_>| {
        matches!(
            part.content_type.value.as_str(),
            "message/rfc822" | "message/global" | "text/rfc822-headers" | "message/rfc822-headers"
        ) && part.parent == report.parent
    };
    let returned = tree.parts.iter().find(is_returned)?;
    let head = returned.encoding.decode(returned.body.get(..SOURCE_MAX).unwrap_or(returned.body));
    summarise_header(&head).message_id
}

fn text(field: &Field<'_>) -> String {
    printable::cut_chars(super::decode_header_text(field.value), VALUE_CHARS_MAX)
}

/// The value behind its type: `rfc822; ada@example.org`, `smtp; 550 5.1.1 No such user`.
fn typed(field: &Field<'_>) -> String {
    let value = super::decode_header_text(field.value);
    let value = value.split_once(';').map_or(value.as_str(), |(_, value)| value).trim();
    printable::cut_chars(value.trim_matches(['<', '>']).to_owned(), DIAGNOSTIC_CHARS_MAX)
}

/// The first word, in lower case: `failed (see below)`.
fn word(field: &Field<'_>) -> Option<String> {
    printable::non_empty(printable::cut_chars(super::first_word(field.value), VALUE_CHARS_MAX))
}
