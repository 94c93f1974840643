//! What is found out about a message: its defects, how it is protected, reports and invitations.

use super::*;
use crate::event::{Calendar, Report, ReportKind, ReportedRecipient, Security};

#[test]
fn what_is_wrong_is_named_once_and_costs_nothing_else() {
    let multipart = "Content-Type: multipart/mixed; boundary=b\n\n";
    for (raw, expected) in [
        (NEWSLETTER, &[][..]),
        ("From: Ada <ada@x>\nSubject: Grüße\n\nx", &[]),
        ("From ada Mon Jan 1\nSubject: x\n\nx", &[]),
        ("Subject: x\njunk\njunk\n\nx", &[Defect::HeaderWithoutColon]),
        (" Subject: x\n\nx", &[Defect::HeaderIndented]),
        ("Subject: x\n--b\nx", &[Defect::HeaderNotEnded]),
        ("Subject: x\nSubject: y\nSubject: z\n\nx", &[Defect::DuplicateHeader]),
        ("Subject: =?utf-8?Q?x\n\nx", &[Defect::EncodedWordInvalid]),
        ("Subject: =?x-klingon?Q?=FC?=\n\nx", &[Defect::UnknownCharset]),
        ("Subject: =?us-ascii?Q?=C3=BC?=\n\nx", &[Defect::WrongCharset]),
        ("To: a@x, b, c@x\n\nx", &[Defect::AddressInvalid]),
        ("From: Ada <ada@x\n\nx", &[Defect::AddressInvalid]),
        ("To: undisclosed-recipients:;\n\nx", &[]),
        ("Date: yesterday\n\nx", &[Defect::DateInvalid]),
        ("Message-ID: abc\n\nx", &[Defect::MessageIdInvalid]),
        ("Message-ID: <a@x>\nContent-Type: text\n\nx", &[Defect::ContentTypeInvalid]),
        ("Content-Transfer-Encoding: x-uuencode\n\nx", &[Defect::EncodingUnknown]),
        ("Content-Transfer-Encoding: base64\n\nR3JldQ", &[Defect::Base64Invalid]),
        ("Content-Transfer-Encoding: quoted-printable\n\n=XX", &[Defect::QuotedPrintableInvalid]),
        ("\nGrüße", &[Defect::WrongCharset]),
        ("Content-Type: text/plain; charset=x-klingon\n\nx", &[Defect::UnknownCharset]),
        ("Content-Type: multipart/mixed\n\n--b\nContent-Type: text/plain\n\nx\n--b--", &[Defect::BoundaryMissing]),
        (&format!("{multipart}x"), &[Defect::BoundaryNotFound]),
        (&format!("{multipart}--b\n\nx"), &[Defect::MultipartNotClosed]),
        (&format!("{multipart}--b\n\nx\n--b--"), &[]),
        ("Subject: x\n\na\0b", &[Defect::NulOctets]),
    ] {
        assert_eq!(read(raw).defects, expected, "{raw}");
    }
    assert_eq!(summarise(b"a: b\r\n\r\nx\ny\r\n", Content::None).defects, [Defect::BareLineEnds]);
    assert_eq!(summarise(b"a: b\r\n\r\nx\ry\r\n", Content::None).defects, [Defect::BareLineEnds]);
    assert_eq!(summarise(b"a: b\n\nx\n", Content::None).defects, []);
    let long = read(&format!("Subject: {}\n\nx", "x".repeat(200_000)));
    assert!(long.defects == [Defect::HeaderTooLong] && long.parse_error);
    assert_eq!(summarise_header(b"Subject: Gr\xfc\n").defects, [Defect::Raw8BitHeader]);
}

#[test]
fn what_is_encrypted_or_signed_is_named() {
    let multipart = |kind: &str, protocol: &str, part: &str| {
        format!(
            "Content-Type: multipart/{kind}; protocol=\"{protocol}\"; boundary=b\n\n--b\n{part}\n\nVersion: 1\n--b\n\
             Content-Type: application/octet-stream\n\nx\n--b--\n"
        )
    };
    let text = "Content-Type: text/plain";
    let smime = |parameter: &str| format!("Content-Type: application/x-pkcs7-mime{parameter}\n\nMII=");
    let encrypted = "Content-Type: application/pgp-encrypted";
    let inline = "\n-----BEGIN PGP MESSAGE-----\n\nhQEM\n-----END PGP MESSAGE-----".to_owned();
    for (raw, expected, preview) in [
        (multipart("signed", "application/pgp-signature", text), &[Security::PgpSigned][..], Some("Version: 1")),
        (multipart("signed", "application/x-pkcs7-signature", text), &[Security::SmimeSigned], Some("Version: 1")),
        (multipart("encrypted", "application/pgp-encrypted", encrypted), &[Security::PgpEncrypted], None),
        (smime("; smime-type=signed-data"), &[Security::SmimeSigned], None),
        (smime(""), &[Security::SmimeEncrypted], None),
        (smime("; smime-type=certs-only"), &[], None),
        (inline, &[Security::PgpEncrypted], None),
    ] {
        let summary = read(&raw);
        assert_eq!((summary.security.as_slice(), summary.preview.as_deref()), (expected, preview), "{raw}");
    }
}

fn report(kind: &str, content: &str) -> Report {
    let raw = format!(
        "Content-Type: multipart/report; report-type={kind}; boundary=b\n\n--b\n\nSorry.\n--b\n\
         Content-Type: message/{kind}\n\n{content}\n--b\nContent-Type: text/rfc822-headers\n\nMessage-ID: <1@x>\n--b--\n"
    );
    read(&raw).report.unwrap()
}

fn recipient(address: &str, action: &str, status: Option<&str>, diagnostic: Option<&str>) -> ReportedRecipient {
    ReportedRecipient {
        address: address.to_owned(),
        action: Some(action.to_owned()),
        status: status.map(str::to_owned),
        diagnostic: diagnostic.map(str::to_owned),
    }
}

#[test]
fn reports_say_of_whom_and_what() {
    let content = "Reporting-MTA: dns; x\n\nOriginal-Recipient: rfc822; a@x\nFinal-Recipient: rfc822;b@x\nAction: Failed\n\
        Status: 5.1.1 (unknown)\nDiagnostic-Code: smtp; 550 No\n\n\nFinal-Recipient: c@x\nAction: delayed\n";
    let failed = Report {
        kind: ReportKind::DeliveryStatus,
        feedback_type: None,
        original_message_id: Some("<1@x>".into()),
        recipients: vec![
            recipient("b@x", "failed", Some("5.1.1"), Some("550 No")),
            recipient("c@x", "delayed", None, None),
        ],
    };
    assert_eq!(report("delivery-status", content), failed);
    let content = "Final-Recipient: rfc822;a@x\nOriginal-Message-ID: <2@x>\n\
        Disposition: manual-action/MDN-sent-manually; displayed";
    let read = report("disposition-notification", content);
    assert_eq!(read.recipients, [recipient("a@x", "displayed", None, None)]);
    assert_eq!(read.original_message_id.as_deref(), Some("<2@x>"));
    let complaint = report("feedback-report", "Feedback-Type: abuse\nOriginal-Rcpt-To: <a@x>");
    assert_eq!((complaint.feedback_type.as_deref(), &*complaint.recipients[0].address), (Some("abuse"), "a@x"));
    for divider in ["", "\n"] {
        let one = format!("Final-Recipient: x; a@x\nAction: failed\n{divider}");
        assert_eq!(report("delivery-status", &one.repeat(100_000)).recipients.len(), 20);
    }
}

#[test]
fn invitations_say_when() {
    let raw = "Content-Type: multipart/alternative; boundary=b\n\n--b\n\nYou are invited\n--b\n\
        Content-Type: text/calendar; method=REQUEST; charset=utf-8\n\nBEGIN:VEVENT\nSUMMARY:Café\n\
        DTSTART:20261120T120000Z\nEND:VEVENT\n--b--\n";
    let summary = read(raw);
    let expected = Calendar {
        method: Some("request".into()),
        summary: Some("Café".into()),
        start: Some("2026-11-20T12:00:00Z".into()),
        time_zone: None,
    };
    assert_eq!((summary.calendar, summary.preview.as_deref()), (Some(expected), Some("You are invited")));
}
