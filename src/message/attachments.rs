//! The parts that are files, with their names: those that they have, and those that mail programs would give them.

use crate::event::Attachment;
use crate::message::{
    defects::Defects,
    mime_tree::{Part, Tree},
    parameters::FILENAME_CHARS_MAX,
    printable, summarise_header,
};

/// Attachments that are listed.
pub(super) const ATTACHMENTS_MAX: usize = 50;

/// Octets of an attached message in which its subject is looked for.
const HEADER_MAX: usize = 64 * 1024;

/// What is told of each file of a message, in their order, without the part that is shown as its text.
pub(super) fn list(tree: &Tree<'_>, body: Option<usize>, defects: &mut Defects) -> Vec<Attachment> {
    let listed = |part: &Part<'_>| Attachment {
        filename: part.filename().or_else(|| usual_filename(part)),
        content_type: part.content_type.value.clone(),
        size: u64::try_from(part.encoding.measure(part.body, defects)).unwrap_or(u64::MAX),
        ..Attachment::default()
    };
    files(tree, body).map(listed).collect()
}

/// The parts that are files, without the part that is shown as the text.
pub(super) fn files<'a, 'raw>(tree: &'a Tree<'raw>, body: Option<usize>) -> impl Iterator<Item = &'a Part<'raw>> {
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

/// What a part without a name is called by those who save it.
fn usual_filename(part: &Part<'_>) -> Option<String> {
    match part.content_type.value.as_str() {
        "message/rfc822" | "message/global" => Some(message_filename(part)),
        "application/ms-tnef" | "application/vnd.ms-tnef" => Some("winmail.dat".to_owned()),
        "application/pkcs7-mime" | "application/x-pkcs7-mime" => Some("smime.p7m".to_owned()),
        "application/pkcs7-signature" | "application/x-pkcs7-signature" => Some("smime.p7s".to_owned()),
        "application/pgp-signature" => Some("signature.asc".to_owned()),
        _ => None,
    }
}

/// A message has its subject for a name.
fn message_filename(part: &Part<'_>) -> String {
    const SUFFIX: &str = ".eml";
    let head = part.encoding.decode(part.body.get(..HEADER_MAX).unwrap_or(part.body));
    let subject = summarise_header(&head).subject.unwrap_or_else(|| "message".to_owned());
    // What no file system takes, or takes for more than a name.
    let name = subject.replace(['/', '\\', ':', '*', '?', '"', '<', '>', '|'], "_");
    let name = printable::cut_chars(name, FILENAME_CHARS_MAX.saturating_sub(SUFFIX.len()));
    format!("{}{SUFFIX}", name.trim())
}
