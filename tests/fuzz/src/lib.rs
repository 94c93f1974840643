//! The parts of postrider that are fuzzed, by their source files alone: a target is built in seconds.

pub mod source;

#[path = "../../../src/source/imap"]
mod imap {
    #[allow(missing_docs, reason = "as in postrider, where it is private")]
    pub mod protocol;
}

#[path = "../../../src"]
#[allow(dead_code, unused_imports, reason = "what sources need of it is not fuzzed")]
mod postrider {
    pub mod event;
    pub mod message;
}

pub use imap::protocol;
pub use postrider::message::authentication::results as authentication_results;
pub use postrider::{event, message};
use protocol::{FrameError, Framer, Response, parse};

/// What a framer makes of octets that arrive in pieces of this length.
pub fn frames(octets: &[u8], piece_len: usize) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let (mut framer, mut frames) = (Framer::new(), Vec::new());
    for piece in octets.chunks(piece_len.max(1)) {
        framer.push(piece);
        loop {
            match framer.next(<[u8]>::to_vec) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(framer.next(<[u8]>::len), Err(error), "an error is for ever");
                    return (frames, Some(error));
                }
            }
        }
    }
    (frames, None)
}

/// Reads `begin`, `octets` and `end` as one response, and as what a framer makes of them: a view must be safe against
/// what no framer would let through.
pub fn responses(begin: &str, octets: &[u8], end: &str) -> Vec<Response> {
    let whole = [begin.as_bytes(), octets, end.as_bytes(), b"\r\n"].concat();
    let (frames, _) = frames(&whole, whole.len());
    std::iter::once(parse(&whole)).chain(frames.iter().map(|frame| parse(frame))).collect()
}

/// Whether a text may be shown on one line.
pub fn is_line(text: &str) -> bool {
    !text.contains(char::is_control)
}

/// What holds for every summary, whatever was summarised.
pub fn check(summary: &event::MessageSummary) {
    let lines = [&summary.subject, &summary.preview, &summary.message_id, &summary.list_id, &summary.date];
    assert!(lines.into_iter().flatten().all(|line| is_line(line) && !line.is_empty()));
    assert!(summary.subject.as_ref().is_none_or(|subject| subject.chars().count() <= 1_000));
    assert!(summary.preview.as_ref().is_none_or(|preview| preview.chars().count() <= 200));
    let text = summary.text.as_deref().unwrap_or_default();
    assert!(text.len() <= 64 * 1024 && !text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')));
    for (list, max) in [(&summary.from, 5), (&summary.to, 20), (&summary.cc, 20), (&summary.reply_to, 20)] {
        assert!(list.len() <= max);
        for one in list {
            let name = one.name.as_deref().unwrap_or_default();
            assert!(is_line(name) && name.chars().count() <= 200);
            // In another charset an octet is up to three in UTF-8.
            assert!(is_line(&one.address) && one.address.len() <= 3 * 512);
        }
    }
    for ids in [&summary.in_reply_to, &summary.references] {
        assert!(ids.len() <= 10 && ids.iter().all(|id| is_line(id) && id.starts_with('<') && id.ends_with('>')));
    }
    assert!(summary.attachments.len() <= 50);
    for attachment in &summary.attachments {
        let name = attachment.filename.as_deref().unwrap_or_default();
        assert!(is_line(name) && name.chars().count() <= 255);
        assert!(is_line(&attachment.content_type) && attachment.content_type.len() <= 127);
    }
    if let Some(report) = &summary.report {
        assert!(report.recipients.len() <= 20);
        for one in &report.recipients {
            let texts = [Some(&one.address), one.action.as_ref(), one.status.as_ref(), one.diagnostic.as_ref()];
            assert!(texts.into_iter().flatten().all(|text| is_line(text) && text.chars().count() <= 300));
        }
    }
    if let Some(calendar) = &summary.calendar {
        let texts = [&calendar.method, &calendar.summary, &calendar.start, &calendar.time_zone];
        assert!(texts.into_iter().flatten().all(|text| is_line(text) && text.chars().count() <= 300));
    }
    assert!(summary.defects.is_sorted_by(|one, next| one < next), "each defect once");
    assert_eq!(summary.parse_error, summary.defects.iter().any(|defect| defect.loses()));
    let json = serde_json::to_vec(summary).expect("a summary is JSON");
    let read: event::MessageSummary = serde_json::from_slice(&json).expect("and is read back");
    assert_eq!(&read, summary);
}

/// The file name that two fields give, each as its value stands in a message.
pub fn filename(disposition: &[u8], content_type: &[u8]) -> Option<String> {
    let fields = [&b"Content-Disposition: "[..], disposition, b"\r\nContent-Type: ", content_type, b"\r\n\r\nx"];
    let summary = message::summarise(&fields.concat(), event::Content::Envelope);
    check(&summary);
    summary.attachments.into_iter().next().and_then(|attachment| attachment.filename)
}
