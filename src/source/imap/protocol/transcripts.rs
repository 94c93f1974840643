//! What servers say, whole sessions of it: the tests of framing and reading together.
//!
//! Lines end in LF here and in CRLF when they are used; literals are counted with CRLF.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::framer::frames;
use super::response::{Fetched, Part};
use super::{FrameError, Framer, Response, parse};

/// Dovecot 2.3 with CONDSTORE, QRESYNC, NOTIFY and PREVIEW.
const DOVECOT: &str = r#"* OK [CAPABILITY IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ AUTH=PLAIN] Dovecot ready.
p1 OK [CAPABILITY IMAP4rev1 ID ENABLE IDLE SORT NOTIFY UIDPLUS QRESYNC PREVIEW=FUZZY STATUS=SIZE] Logged in
* ID ("name" "Dovecot")
p2 OK ID completed (0.001 + 0.000 secs).
* ENABLED QRESYNC
p3 OK Enabled (0.001 + 0.000 secs).
* LIST (\HasNoChildren \UnMarked \Trash) "/" Trash
* STATUS Trash (MESSAGES 0 UIDNEXT 1 UIDVALIDITY 1700000002 UNSEEN 0 HIGHESTMODSEQ 1)
* LIST (\HasChildren) "/" "Lists & more"
p4 OK List completed (0.002 + 0.000 + 0.001 secs).
* OK [CLOSED] Previous mailbox closed.
* FLAGS (\Answered \Flagged \Deleted \Seen \Draft $Forwarded)
* OK [PERMANENTFLAGS ()] Read-only mailbox.
* 3 EXISTS
* 0 RECENT
* OK [UNSEEN 2] First unseen.
* OK [UIDVALIDITY 1700000001] UIDs valid
* OK [UIDNEXT 5] Predicted next UID
* OK [HIGHESTMODSEQ 12] Highest
* OK [MAILBOXID (e9b4c6)] Ok
* VANISHED (EARLIER) 2,9:11
* 1 FETCH (UID 1 FLAGS (\Seen) MODSEQ (11))
p5 OK [READ-ONLY] Examine completed (0.001 + 0.000 secs).
+ idling
* OK Still here
* 4 EXISTS
* 1 RECENT
* STATUS Lists (MESSAGES 2 UIDNEXT 3 UNSEEN 1 HIGHESTMODSEQ 4)
* LIST () "/" New ("OLDNAME" (Old))
* LIST (\NonExistent) "/" Gone
* VANISHED 3
p6 OK Idle completed (60.001 + 60.000 + 60.000 secs).
* 3 FETCH (UID 5 FLAGS (\Recent) INTERNALDATE "20-Nov-2026 12:00:00 +0000" RFC822.SIZE 512 MODSEQ (14) BODYSTRUCTURE (("text" "plain" ("charset" "utf-8") NIL NIL "quoted-printable" 24 1 NIL NIL NIL NIL)("application" "pdf" ("name" "a.pdf") NIL NIL "base64" 132 NIL ("attachment" ("filename" "a.pdf")) NIL NIL) "mixed" ("boundary" "x") NIL NIL NIL) BODY[HEADER.FIELDS (FROM SUBJECT)] {37}
From: Ada <a@b>
Subject: =?
 =?

 BODY[1]<0> {9}
hello=)
 PREVIEW {5}
hello)
p7 OK Fetch completed (0.001 + 0.000 secs).
* BAD [ALERT] Too many invalid commands.
* BYE Logging out
p8 OK Logout completed (0.001 + 0.000 secs).
"#;

/// Cyrus 3.6.
const CYRUS: &str = r#"* OK [CAPABILITY IMAP4rev1 LITERAL+ ID ENABLE STARTTLS AUTH=PLAIN SASL-IR] mail Cyrus IMAP 3.6.1 server ready
p1 OK [CAPABILITY IMAP4rev1 LITERAL+ ID ENABLE NOTIFY OBJECTID PREVIEW SAVEDATE] User logged in SESSIONID=<cyrus-1-1>
* LIST (\HasNoChildren) "." "INBOX.Drafts"
* LIST (\Noinferiors) "." "INBOX" ("CHILDINFO" ("SUBSCRIBED"))
p2 OK Completed (0.000 secs 3 calls)
* 1 EXISTS
* 1 RECENT
* FLAGS (\Answered \Flagged \Draft \Deleted \Seen)
* OK [PERMANENTFLAGS (\Answered \Flagged \Draft \Deleted \Seen \*)] Ok
* OK [UIDVALIDITY 1700000003] Ok
* OK [HIGHESTMODSEQ 7] Ok
* OK [MAILBOXID (abc-123)] Ok
* OK [URLMECH INTERNAL] Ok
* OK [ANNOTATIONS 65536] Ok
p3 OK [READ-ONLY] Completed
* 1 FETCH (FLAGS (\Recent) UID 1 EMAILID (M1) THREADID (T1) PREVIEW "first line" SAVEDATE NIL MODSEQ (5))
* ESEARCH (TAG "p4") UID ALL 1:3,9 MODSEQ 7
* SEARCH 1 2 3 (MODSEQ 7)
* SEARCH
p4 OK Completed (1 msgs in 0.000 secs)
+ idling
* 2 EXISTS
* 1 EXPUNGE
p5 OK Completed
"#;

/// Gmail.
const GMAIL: &str = r#"* OK Gimap ready for requests from 192.0.2.1 x16mb1
* CAPABILITY IMAP4rev1 UNSELECT IDLE NAMESPACE QUOTA ID XLIST CHILDREN X-GM-EXT-1 XYZZY SASL-IR AUTH=XOAUTH2
p1 OK Thats all she wrote! x16mb1
+ eyJzdGF0dXMiOiI0MDAiLCJzY2hlbWVzIjoiQmVhcmVyIn0=
p2 NO [AUTHENTICATIONFAILED] Invalid credentials (Failure)
p3 NO [WEBALERT https://accounts.google.com/signin/continue?sarp=1&scc=1&plt=AKgnsb[x] Web login required.
p4 NO [ALERT] Application-specific password required: https://support.google.com/accounts/answer/185833 (Failure)
* LIST (\HasChildren \Noselect) "/" "[Gmail]"
* LIST (\All \HasNoChildren) "/" "[Gmail]/Alle Nachrichten"
* 9 FETCH (X-GM-THRID 1278455344230334866 X-GM-MSGID 1278455344230334865 X-GM-LABELS ("\\Inbox" \Sent [Mailbox] +IMNews NIL "Entw&APw-rfe") UID 33 FLAGS (\Seen $NotPhishing))
* 9 FETCH (X-GM-LABELS ({7}
a "b" c) UID 33 MODSEQ (98765432109876))
* BYE Session expired, please login again x16mb1
"#;

/// Exchange and Outlook.
const EXCHANGE: &str = r#"* OK The Microsoft Exchange IMAP4 service is ready. [TQBOADIAUABSAA==]
p1 OK LOGIN completed.
* 5 EXISTS
+ IDLE accepted, awaiting DONE command.
p2 OK IDLE completed.
* LIST (\HasNoChildren \Trash) "/" "Deleted Items"
* STATUS "Deleted Items" (MESSAGES 4 UIDNEXT 9 ) 
* 2 FETCH (FLAGS () UID 8 BODYSTRUCTURE ("message" "rfc822" NIL NIL NIL "7bit" 4567 ("Fri, 20 Nov 2026 12:00:00 +0000" "fwd" (("A" NIL "a" "example.org")) NIL NIL NIL NIL NIL NIL "<1@x>") ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 12 1) 30 NIL ("attachment" ("filename" "m.eml")) NIL NIL))
p3 BAD User is authenticated but not connected.
p4 BAD Request is throttled. Suggested Backoff Time: 12345 milliseconds
* BYE Session invalidated - AccessTokenExpired
"#;

/// Courier.
const COURIER: &str = r#"* OK [CAPABILITY IMAP4rev1 UIDPLUS CHILDREN NAMESPACE THREAD=REFERENCES IDLE ACL ACL2=UNION STARTTLS ENABLE UTF8=ACCEPT] Courier-IMAP ready. Copyright 1998-2022 Double Precision, Inc.  See COPYING for distribution information.
p1 OK LOGIN Ok.
* LIST (\HasNoChildren) "." "INBOX.Trash"
* LIST (\Marked \HasChildren) "." "INBOX"
* FLAGS (\Draft \Answered \Flagged \Deleted \Seen \Recent)
* OK [PERMANENTFLAGS (\* \Draft \Answered \Flagged \Deleted \Seen)] Limited
* 1 EXISTS
* 0 RECENT
* OK [UIDVALIDITY 634142371] Ok
* OK [MYRIGHTS "acdilrsw"] ACL
p2 OK [READ-ONLY] Ok
* 1 FETCH (UID 1 BODY[HEADER.FIELDS ("FROM")] {13}
From: a@b

)
* BYE Courier-IMAP server shutting down
"#;

/// What smaller servers say that no standard allows.
const ODD: &str = r#"* OK [ALERT]é ready – fast
* CAPABILITY IMAP4rev2
* FLAGS (\Seen \* )
* 1 FETCH (FLAGS (\* ) UID 1 )
* 2 FETCH (UID 2 RFC822.HEADER  {8}
a: b

  INTERNALDATE NIL)
* 3 FETCH (UID, NIL RFC822.SIZE 77)
* 4 FETCH ()
* 5 FETCH (UID 5 ENVELOPE ("d" "bad \q escape" NIL NIL NIL NIL NIL NIL NIL NIL) BINARY[1] ~{3}
abc BODY[2] NIL)
* STATUS INBOX ()
* STATUS My Box (MESSAGES 1 SIZE 5000000000 MAILBOXID (x) DELETED 0 APPENDLIMIT NIL)
* NAMESPACE (("" "/")) NIL NIL
* ID ()
* ID NIL
* XUNHEARD of {3}
abc (
+ go ahead
+
p9 OK
"#;

const ALL: [(&str, &str); 6] = [
    ("Dovecot", DOVECOT),
    ("Cyrus", CYRUS),
    ("Gmail", GMAIL),
    ("Exchange", EXCHANGE),
    ("Courier", COURIER),
    ("odd", ODD),
];

fn wire(transcript: &str) -> Vec<u8> {
    transcript.replace('\n', "\r\n").into_bytes()
}

fn responses(octets: &[u8]) -> Vec<Response> {
    let (frames, error) = frames([octets]);
    assert_eq!(error, None);
    frames.iter().map(|frame| parse(frame)).collect()
}

#[test]
fn every_response_of_every_server_is_understood() {
    for (server, transcript) in ALL {
        let octets = wire(transcript);
        let (frames, error) = frames([&octets[..]]);
        assert_eq!((error, frames.concat() == octets), (None, true), "{server}");
        for frame in frames {
            let response = parse(&frame);
            assert_ne!(response, Response::Unreadable, "{server}: {}", String::from_utf8_lossy(&frame));
            if let Response::Fetch(_, message) = response {
                assert!(!message.is_broken_off, "{server}: {}", String::from_utf8_lossy(&frame));
            }
        }
    }
}

#[test]
fn nothing_of_a_new_message_is_missing() {
    let messages: Vec<Fetched> = responses(&wire(DOVECOT))
        .into_iter()
        .filter_map(|response| match response {
            Response::Fetch(3, message) => Some(*message),
            _ => None,
        })
        .collect();
    let [message] = messages.as_slice() else { panic!("{messages:?}") };
    assert_eq!((message.uid, message.size, message.mod_seq), (Some(5), Some(512), Some(14)));
    assert_eq!(message.header.as_deref(), Some(&b"From: Ada <a@b>\r\nSubject: =?\r\n =?\r\n\r\n"[..]));
    assert_eq!(message.section(&[1]), Some(&b"hello=)\r\n"[..]));
    assert_eq!(message.preview.as_deref(), Some("hello"));
    assert_eq!(message.structure.as_ref().map(|structure| structure.children.len()), Some(2));
}

/// What a response takes in memory beside itself, by capacity.
fn heap_bytes(response: &Response) -> usize {
    fn texts(texts: &Vec<String>) -> usize {
        texts.capacity() * size_of::<String>() + texts.iter().map(String::capacity).sum::<usize>()
    }
    fn pairs(pairs: &Vec<(String, String)>) -> usize {
        let texts: usize = pairs.iter().map(|(name, value)| name.capacity() + value.capacity()).sum();
        pairs.capacity() * size_of::<(String, String)>() + texts
    }
    fn part(whole: &Part) -> usize {
        let children: usize = whole.children.iter().map(part).sum();
        let parameters = pairs(&whole.parameters) + pairs(&whole.disposition_parameters);
        whole.children.capacity() * size_of::<Part>() + children + parameters + whole.major.capacity()
    }
    match response {
        Response::Continue(text) => text.capacity(),
        Response::Tagged(_, reply) | Response::Status(reply) => reply.text.capacity(),
        Response::Capabilities(list) | Response::Enabled(list) => texts(&list.0),
        Response::Vanished { uids, .. } => uids.ranges_len() * 8,
        Response::Search(result) => result.found.ranges_len() * 8,
        Response::Id(fields) => pairs(fields),
        Response::Listed(listed) => texts(&listed.attributes) + listed.raw_name.capacity(),
        Response::Fetch(_, message) => {
            let lists = message.flags.as_ref().map_or(0, texts) + message.labels.as_ref().map_or(0, texts);
            let sections: usize = message.sections.iter().map(|(_, octets)| octets.capacity()).sum();
            let header = message.header.as_ref().map_or(0, Vec::capacity);
            lists + sections + header + message.structure.as_ref().map_or(0, part)
        }
        _ => 0,
    }
}

/// The most that what is stored may take beside the octets that it came from.
const OVERHEAD_BYTES_MAX: usize = 4 * 1024 * 1024;

#[test]
fn what_is_stored_of_the_densest_responses_is_bounded() {
    let dense = |begin: &str, unit: &str, end: &str| {
        [begin, &unit.repeat(250_000 / unit.len()), end, "\r\n"].concat().into_bytes()
    };
    let responses = [
        dense("* 1 FETCH (FLAGS (", "a ", "))"),
        dense("* 1 FETCH (X-GM-LABELS (", "\"\"", "))"),
        dense("* 1 FETCH (", "BODY[1]\"\"", ")"),
        dense("* 1 FETCH (BODYSTRUCTURE (", "(\"\"\"\"()NIL NIL\"\"1)", "))"),
        dense("* 1 FETCH (BODYSTRUCTURE (\"\"\"\"(", "\"\"\"\"", "))"),
        dense("* CAPABILITY", " a", ""),
        dense("* ID (", "\"\"\"\"", ")"),
        dense("* LIST (", "a ", ") NIL a"),
        dense("* SEARCH", " 1 3", ""),
        dense("* OK [CAPABILITY", " a", "] x"),
    ];
    for response in responses {
        let taken = heap_bytes(&parse(&response));
        assert!(taken <= response.len() + OVERHEAD_BYTES_MAX, "{taken}: {}", String::from_utf8_lossy(&response[..40]));
    }
}

/// The inputs that fuzzing found to reach something new, as each kind of response: without the fuzzer, and in each run of
/// the tests.
#[test]
fn what_fuzzing_collected_is_survived() {
    let corpora = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let mut inputs = 0;
    for corpus in std::fs::read_dir(corpora).unwrap() {
        let corpus = corpus.unwrap();
        if corpus.file_name().to_string_lossy().starts_with("mail") {
            continue; // Those are read by `message`.
        }
        for input in std::fs::read_dir(corpus.path()).unwrap() {
            let input = std::fs::read(input.unwrap().path()).unwrap();
            for begin in
                ["", "* ", "* OK ", "* 1 FETCH (", "* 1 FETCH (BODYSTRUCTURE ", "* LIST ", "* STATUS ", "* SEARCH "]
            {
                let octets = [begin.as_bytes(), &input, b")\r\n"].concat();
                assert!(heap_bytes(&parse(&octets)) <= octets.len() * 100);
                let pieces = octets.chunks(7);
                assert_eq!(frames(pieces), frames([&octets[..]]));
            }
            inputs += 1;
        }
    }
    assert!(inputs > 100, "the corpora are in the repository");
}

fn any_transcript() -> impl Strategy<Value = Vec<u8>> {
    (0..ALL.len()).prop_map(|index| wire(ALL[index].1))
}

proptest! {
    #[test]
    fn any_cut_of_a_session_gives_the_same_responses(octets in any_transcript(), cuts in vec(any::<Index>(), 0..40)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(octets.len() + 1)).collect();
        cuts.sort_unstable();
        let (mut framer, mut found, mut from) = (Framer::new(), Vec::new(), 0);
        for end in cuts.into_iter().chain([octets.len()]) {
            framer.push(&octets[from..end]);
            while let Some(response) = framer.next(parse).unwrap() {
                found.push(response);
            }
            from = end;
        }
        prop_assert_eq!(found, responses(&octets));
    }

    /// Real sessions with octets changed, doubled and taken out reach deeper than noise does.
    #[test]
    fn nothing_that_a_server_sends_panics_or_takes_more_than_its_cap(
        octets in any_transcript(),
        changes in vec((any::<Index>(), proptest::option::of(any::<u8>()), 0_usize..40), 0..20),
    ) {
        let mut octets = octets;
        for (at, octet, len) in changes {
            let at = at.index(octets.len());
            let end = (at + len).min(octets.len());
            match octet {
                Some(octet) => octets[at] = octet,
                None if len % 2 == 0 => drop(octets.drain(at..end)),
                None => {
                    let copied = octets[at..end].to_vec();
                    octets.splice(at..at, copied);
                }
            }
            if octets.is_empty() {
                octets.push(b'*');
            }
        }
        let (frames, error) = frames([&octets[..]]);
        prop_assert!(matches!(error, None | Some(FrameError::Literal)), "{:?}", error);
        for frame in frames {
            prop_assert!(heap_bytes(&parse(&frame)) <= frame.len() + OVERHEAD_BYTES_MAX);
        }
    }

    #[test]
    fn noise_panics_nobody(octets in vec(any::<u8>(), 0..200)) {
        parse(&octets);
        for begin in ["* 1 FETCH (", "* LIST ", "* STATUS ", "* OK [", "* ESEARCH ", "* ID ", "* VANISHED "] {
            parse(&[begin.as_bytes(), &octets].concat());
        }
    }
}
