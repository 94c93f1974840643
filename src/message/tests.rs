//! Whole messages: what smtp.md found parsers to fail on, with the right answers.

mod findings;

use proptest::prelude::*;

use super::attachments::ATTACHMENTS_MAX;
use super::*;
use crate::event::{Address, Attachment, Priority};

fn read(raw: &str) -> MessageSummary {
    summarise(raw.replace('\n', "\r\n").as_bytes(), Content::Text)
}

fn address(name: &str, address: &str) -> Address {
    Address { name: printable::non_empty(name.to_owned()), address: address.to_owned() }
}

const NEWSLETTER: &str = "\
From: =?utf-8?Q?Ada_=C3=9C?= <ada@example.org>
To: a@x, \"B, C\" <b@x>
Subject: =?utf-8?B?R3LDvA==?=
 =?utf-8?B?w59l?=
Date: Fri, 20 Nov 2026 12:59:58 +0100
Message-ID: <1@x>
In-Reply-To: <0@x> (your mail)
References: <a@x> <b@x>
List-Id: News <news.example.org>
Auto-Submitted: auto-generated; x=y
X-Priority: 1 (Highest)
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=m

--m
Content-Type: multipart/alternative; boundary=a

--a
Content-Type: text/plain; charset=utf-8; format=flowed

Hello 
there

--a
Content-Type: multipart/related; boundary=r

--r
Content-Type: text/html

<p>Hello <b>there</b></p>
--r
Content-Type: image/png
Content-ID: <logo>
Content-Transfer-Encoding: base64

AAAA
--r--
--a--
--m
Content-Type: application/pdf; name=x
Content-Disposition: attachment; filename*=utf-8''%C3%BC.pdf
Content-Transfer-Encoding: base64

SGVsbG8=
--m
Content-Type: message/rfc822

Subject: inner

body
--m
Content-Type: text/plain

list footer
--m--
";

#[test]
fn whole_message_is_summarised() {
    let summary = read(NEWSLETTER);
    let attachment = |filename: Option<&str>, content_type: &str, size| Attachment {
        filename: filename.map(str::to_owned),
        content_type: content_type.to_owned(),
        size,
        ..Attachment::default()
    };
    let expected = MessageSummary {
        message_id: Some("<1@x>".into()),
        in_reply_to: vec!["<0@x>".into()],
        references: vec!["<a@x>".into(), "<b@x>".into()],
        date: Some("2026-11-20T12:59:58+01:00".into()),
        size: u64::try_from(NEWSLETTER.replace('\n', "\r\n").len()).ok(),
        from: vec![address("Ada Ü", "ada@example.org")],
        to: vec![address("", "a@x"), address("B, C", "b@x")],
        subject: Some("Grüße".into()),
        preview: Some("Hello there".into()),
        text: Some("Hello there".into()),
        list_id: Some("news.example.org".into()),
        auto_submitted: true,
        priority: Priority::High,
        attachments: vec![
            attachment(Some("ü.pdf"), "application/pdf", 5),
            attachment(Some("inner.eml"), "message/rfc822", 22),
        ],
        ..MessageSummary::default()
    };
    assert_eq!(summary, expected);
}

#[test]
fn content_bounds_the_work() {
    let made = |content| {
        let summary = summarise(NEWSLETTER.as_bytes(), content);
        (summary.attachments.len(), summary.preview.is_some(), summary.text.is_some())
    };
    assert_eq!(made(Content::None), (0, false, false));
    assert_eq!(made(Content::Envelope), (2, false, false));
    assert_eq!(made(Content::Preview), (2, true, false));
    assert_eq!(made(Content::Text), (2, true, true));
}

#[test]
fn header_alone_gives_the_same_envelope() {
    let header = NEWSLETTER.split("\n\n").next().unwrap();
    let whole = summarise(NEWSLETTER.as_bytes(), Content::None);
    assert_eq!(MessageSummary { size: whole.size, ..summarise_header(header.as_bytes()) }, whole);
}

#[test]
fn subject_is_found_and_read() {
    for (header, expected) in [
        ("Subject : x\n", Some("x")),
        ("Subject: first\nSubject: second\n", Some("first")),
        ("  Subject: x\nTo: y\n", Some("x")),
        ("SUBJECT:\tfolded\n\tsubject\n", Some("folded subject")),
        ("Subject: \u{1b}]0;x\u{7}y\u{9b}\n", Some("]0;xy")),
        ("Subject:\n", None),
        ("Subject: =?utf-8?Q?=00?=\n", None),
    ] {
        assert_eq!(summarise_header(header.as_bytes()).subject.as_deref(), expected, "{header:?}");
    }
    assert_eq!(summarise_header(b"Subject: Gr\xfc\xdfe \x9f\x81").subject.as_deref(), Some("Grüße Ÿ"));
    let long = summarise_header(format!("Subject: {}", "ü".repeat(5_000)).as_bytes());
    assert_eq!(long.subject.unwrap().chars().count(), SUBJECT_CHARS_MAX);
}

#[test]
fn priority_is_read_from_the_field_that_says_something() {
    for (header, expected) in [
        ("Importance: High", Priority::High),
        ("Importance: low\nX-Priority: 1", Priority::Low),
        ("Importance: \nX-Priority: 5 (Lowest)", Priority::Low),
        ("Priority: urgent", Priority::High),
        ("X-Priority: 3", Priority::Normal),
        ("X-Priority: 33", Priority::Normal),
        ("Auto-Submitted: auto-generated", Priority::Low),
        ("Auto-Submitted: auto-generated\nImportance: high", Priority::High),
        ("Auto-Submitted: no", Priority::Normal),
        ("Precedence: bulk\nX-Priority: 3", Priority::Normal),
        ("Precedence: List", Priority::Low),
        ("Precedence: first-class", Priority::Normal),
        ("List-Unsubscribe: <https://x.example/u>", Priority::Low),
        ("List-Post: NO\nX-MSMail-Priority: High", Priority::High),
    ] {
        assert_eq!(summarise_header(header.as_bytes()).priority, expected, "{header}");
    }
    assert!(!summarise_header(b"Auto-Submitted: no (a human)").auto_submitted);
}

#[test]
fn first_and_newest_references_are_kept() {
    let ids: Vec<String> = (0..30).map(|n| format!("<{n}@x>")).collect();
    let summary = summarise_header(format!("References: {}", ids.join("\r\n ")).as_bytes());
    assert_eq!(summary.references.len(), 10);
    assert_eq!((summary.references[0].as_str(), summary.references[1].as_str()), ("<0@x>", "<21@x>"));
    assert_eq!(summary.references[9], "<29@x>");
}

#[test]
fn body_is_read_however_it_is_sent() {
    for (raw, expected) in [
        ("\nGrüße", Some("Grüße")),
        ("Content-Type: text\n\nGrüße", Some("Grüße")),
        ("Content-Type: text/plain; charset=us-ascii\n\nGrüße", Some("Grüße")),
        ("Content-Type: text/plain; charset=utf-8 (x)\n\nGrüße", Some("Grüße")),
        ("Content-Type: text/plain; charset='utf-8'\n\nGrüße", Some("Grüße")),
        ("Content-Transfer-Encoding: base64\n\nR3LDvMOfZQ", Some("Grüße")),
        ("Content-Transfer-Encoding: base64\n\nR3LDvMOfZQ==\n____\nlist footer\n", Some("Grüße")),
        ("Content-Transfer-Encoding: quoted-printable\n\nGrü=C3=9Fe a==b!", Some("Grüße a==b!")),
        ("Content-Type: text/html\n\n<p>Grüße", Some("Grüße")),
        ("Content-Type: text/plain; name=body.txt\n\nGrüße", Some("Grüße")),
        ("Content-Type: text/plain\nContent-Disposition: attachment\n\nGrüße", None),
        ("Content-Type: image/png\n\nx", None),
    ] {
        assert_eq!(read(raw).preview.as_deref(), expected, "{raw}");
    }
    assert_eq!(summarise(b"Subject: x\r\rone\rtwo", Content::Preview).preview.as_deref(), Some("one two"));
}

#[test]
fn plain_text_is_preferred_only_among_alternatives() {
    let two = |kind, first_type, first, second_type, second| {
        format!(
            "Content-Type: multipart/{kind}; boundary=b\n\n--b\nContent-Type: {first_type}\n\n{first}\n\
             --b\nContent-Type: {second_type}\n\n{second}\n--b--\n"
        )
    };
    let preview = |raw: String| read(&raw).preview.unwrap();
    assert_eq!(preview(two("alternative", "text/html", "<p>h", "text/plain", "p")), "p");
    assert_eq!(preview(two("alternative", "text/plain", " ", "text/html", "<p>h")), "h");
    assert_eq!(preview(two("mixed", "text/html", "<p>h", "text/plain", "footer")), "h");
    let text_file = two("mixed", "text/plain", "body", "text/plain; name=a.txt", "file");
    assert_eq!(read(&text_file).attachments.len(), 1);
}

#[test]
fn broken_mime_gives_what_can_be_read_and_says_so() {
    let summary = read("Subject: x\nContent-Type: multipart/mixed\n\nstill text");
    assert!(summary.parse_error);
    assert_eq!((summary.subject.as_deref(), summary.preview.as_deref()), (Some("x"), Some("still text")));
    assert!(!read("").parse_error);
    assert_eq!(summarise(b"", Content::Text), MessageSummary { size: Some(0), ..MessageSummary::default() });
}

/// Two megabytes of each; anything quadratic would not end.
#[test]
fn bombs_take_linear_time() {
    let multipart = "Content-Type: multipart/mixed; boundary=b\n\n";
    for (head, unit, tail) in [
        ("Subject: ", "=?utf-8?Q?=C3=BC?= ", "\nTo: a@x\n\nbody"),
        ("Subject: ", "=?utf-8?Q?a?=\n ", "\n\nbody"),
        ("To: ", "a <a@x>, ", "\n\n"),
        ("To: ", "(", "\n\n"),
        ("References: ", "<a@x> ", "\n\n"),
        ("Content-Type: text/plain", "; a=b", "\n\n"),
        ("", "X: y\n", "\n"),
        ("", " \n", "\n"),
        (multipart, "--b\n\n", ""),
        (multipart, "--b", ""),
        (multipart, "--b\nContent-Type: multipart/mixed; boundary=b\n\n", ""),
        ("Content-Type: text/html\n\nx", "<a href=x><div>", ""),
        ("Content-Type: text/html\n\nx", "<b style=display:none>", ""),
        ("Content-Transfer-Encoding: quoted-printable\n\n", "=", ""),
        ("Content-Type: text/plain; format=flowed\n\n", "> \n", ""),
    ] {
        let raw = format!("{head}{}{tail}", unit.repeat(2_000_000 / unit.len()));
        let summary = summarise(raw.as_bytes(), Content::Text);
        assert!(summary.to.len() <= RECIPIENTS_MAX && summary.attachments.len() <= ATTACHMENTS_MAX);
    }
    let bomb = format!("Subject: {}\nTo: a@x\n\nbody", "=?utf-8?Q?a?= ".repeat(150_000));
    let summary = summarise(bomb.as_bytes(), Content::Preview);
    assert_eq!((summary.to.len(), summary.preview.as_deref()), (1, Some("body")));
}

/// The inputs that fuzzing found to reach something new, as what each target makes of them: without the fuzzer, and in
/// each run of the tests.
#[test]
fn what_fuzzing_collected_is_survived() {
    let corpora = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let mut inputs = 0;
    for corpus in std::fs::read_dir(corpora).unwrap().map(Result::unwrap) {
        if !corpus.file_name().to_string_lossy().starts_with("mail") {
            continue;
        }
        for input in std::fs::read_dir(corpus.path()).unwrap() {
            let input = std::fs::read(input.unwrap().path()).unwrap();
            for (begin, end) in [
                ("", ""),
                ("Subject: ", "\r\n"),
                ("To: ", "\r\n"),
                ("Date: ", "\r\n"),
                ("Content-Type: application/pdf; ", "\r\n\r\nx"),
                ("Content-Type: text/html\r\n\r\n", ""),
            ] {
                let summary = summarise(&[begin.as_bytes(), &input, end.as_bytes()].concat(), Content::Text);
                let shown = [&summary.subject, &summary.preview, &summary.date];
                assert!(!shown.into_iter().flatten().any(|text| text.contains(char::is_control)));
                assert!(summary.to.len() <= RECIPIENTS_MAX && summary.attachments.len() <= ATTACHMENTS_MAX);
            }
            inputs += 1;
        }
    }
    assert!(inputs > 50, "the corpora are in the repository");
}

proptest! {
    #[test]
    fn any_bytes_give_a_summary(raw in prop::collection::vec(any::<u8>(), 0..400)) {
        summarise(&raw, Content::Text);
    }

    /// Real structure with some octets replaced and the end cut off reaches deeper than noise does.
    #[test]
    fn damaged_message_gives_a_summary(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut raw = NEWSLETTER.as_bytes().to_vec();
        for (at, byte) in damage {
            let at = at.index(raw.len());
            raw[at] = byte;
        }
        raw.truncate(cut.index(raw.len() + 1));
        let summary = summarise(&raw, Content::Text);
        let printable = !summary.subject.unwrap_or_default().contains(char::is_control);
        prop_assert!(printable);
    }
}

#[test]
fn what_is_encrypted_is_the_message_whether_its_text_is_asked_for_or_not() {
    let raw = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n-----BEGIN PGP MESSAGE-----\r\n\r\nhQEMA0\r\n=x\r\n\
        -----END PGP MESSAGE-----\r\n--b\r\n\r\nlist footer \xff\r\n--b--\r\n";
    let (shown, whole) = (summarise(raw, Content::Preview), summarise(raw, Content::Text));
    assert_eq!((&shown.preview, &whole.preview, &shown.text), (&None, &None, &None));
    assert!(whole.text.unwrap().contains("hQEMA0"));
    assert_eq!(shown.defects, whole.defects);
}
