//! The session against whole dialogues and against every cut of them.

use proptest::prelude::*;

use super::super::data::SMUGGLING;
use super::*;
use crate::event::AccountName;
use crate::registry::Account;
use crate::source::intake::{Peer, Routing};
use crate::source::smtp::SmtpConfig;

fn remote() -> Client {
    Client::at(None, Peer::Remote)
}

pub(super) fn policy() -> Policy {
    policy_of(Role::Smtp)
}

fn policy_of(role: Role) -> Policy {
    let alice = Account {
        addresses: vec!["alice@example.org".into(), "grüße@example.org".into()],
        ..Account::new(AccountName::parse("alice").unwrap())
    };
    let routes = Routing::new(&[alice], None).unwrap().into();
    let limits = Limits { message_bytes_max: 1000, ..SmtpConfig::default().listeners().next().unwrap().limits };
    Policy {
        role,
        hostname: "mx.example".into(),
        tls: TlsMode::None,
        certificate: None,
        rate: None,
        users: None,
        limits,
        xclient_from: Networks::default(),
        verify: None,
        routes,
    }
}

/// What a client saw and what was handed out.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    replies: String,
    messages: Vec<Transaction>,
    end: Option<Next>,
}

/// Runs a dialogue whose bytes arrive in pieces; every message is committed.
fn run(policy: &Policy, pieces: &[&[u8]]) -> Seen {
    run_in(&mut Session::new(policy, remote()), pieces)
}

fn run_in(session: &mut Session<'_>, pieces: &[&[u8]]) -> Seen {
    let (mut out, mut seen) = (Vec::new(), Seen::default());
    'pieces: for piece in pieces {
        let mut rest = *piece;
        loop {
            let (used, next) = session.receive(rest, &mut out);
            rest = &rest[used..];
            match next {
                Next::Deliver(transaction) => {
                    let queue_id = QueueId::numbered(seen.messages.len() as u128);
                    seen.messages.push(transaction);
                    assert_eq!(session.delivered(queue_id, &[Outcome::Committed], &mut out), Next::Read);
                }
                Next::Read => {
                    assert!(rest.is_empty(), "input was left without a reason");
                    break;
                }
                Next::NewClient => session.greet(&mut out),
                Next::StartTls => {
                    assert!(rest.is_empty(), "what came in the clear was left");
                    session.tls_started();
                    break;
                }
                Next::Verify(_) => panic!("nobody can log in"),
                end => {
                    seen.end = Some(end);
                    break 'pieces;
                }
            }
        }
    }
    seen.replies = String::from_utf8(out).unwrap();
    seen
}

fn talk_lmtp(dialogue: &str) -> Seen {
    run(&policy_of(Role::Lmtp), &[dialogue.replace('\n', "\r\n").as_bytes()])
}

fn talk(dialogue: &str) -> Seen {
    run(&policy(), &[dialogue.replace('\n', "\r\n").as_bytes()])
}

/// The code and enhanced code of every reply.
fn codes(seen: &Seen) -> Vec<String> {
    codes_of(&seen.replies)
}

pub(super) fn codes_of(replies: &str) -> Vec<String> {
    let last_lines = replies.lines().filter(|line| line.as_bytes().get(3) == Some(&b' '));
    last_lines
        .map(|line| {
            let mut words = line.split(' ');
            let (code, enhanced) = (words.next().unwrap(), words.next().unwrap());
            let is_enhanced = enhanced.split('.').count() == 3 && enhanced.starts_with(&code[..1]);
            if is_enhanced { format!("{code} {enhanced}") } else { code.to_owned() }
        })
        .collect()
}

const TRANSACTION: &str = "EHLO c\nMAIL FROM:<bob@x.example>\nRCPT TO:<alice@example.org>\nDATA\n";

#[test]
fn who_sends_too_much_is_asked_to_come_later() {
    let policy = policy();
    let (mut session, mut out) = (Session::new(&policy, remote()), Vec::new());
    for (is_throttled, code) in [(true, "450 4.7.1"), (false, "250 2.1.0")] {
        session.throttle(is_throttled);
        session.receive(b"EHLO c\r\n", &mut Vec::new());
        out.clear();
        session.receive(b"MAIL FROM:<>\r\n", &mut out);
        assert!(out.starts_with(code.as_bytes()), "{}", out.escape_ascii());
    }
}

#[test]
fn a_message_goes_from_ehlo_to_quit() {
    let seen = talk(&format!("{TRANSACTION}Subject: hi\n\n..dot\n.\nQUIT\n"));
    assert_eq!(codes(&seen), ["250", "250 2.1.0", "250 2.1.5", "354", "250 2.0.0", "221 2.0.0"]);
    assert!(seen.replies.contains(&format!("250 2.0.0 Ok: queued as {:032}\r\n", 0)), "{}", seen.replies);
    assert_eq!(seen.end, Some(Next::Quit));
    let [message] = &seen.messages[..] else { panic!("{seen:?}") };
    assert_eq!(message.message.rest, b"Subject: hi\r\n\r\n.dot\r\n");
    assert_eq!(message.from.as_ref().map(Path::as_str), Some("bob@x.example"));
    assert_eq!(message.recipients[0].destination.mailbox, "INBOX");
}

#[test]
fn ehlo_names_the_extensions_and_helo_does_not() {
    let replies = talk("EHLO c\n").replies;
    for line in [
        "250-mx.example",
        "250-SIZE 1000",
        "250-PIPELINING",
        "250-8BITMIME",
        "250-CHUNKING",
        "250-LIMITS RCPTMAX=100",
        "250 ENHANCEDSTATUSCODES",
    ] {
        assert!(replies.lines().any(|got| got == line), "{line} is missing: {replies}");
    }
    assert_eq!(talk("HELO c\n").replies, "250 mx.example\r\n");
}

#[test]
fn commands_out_of_order_are_refused_and_change_nothing() {
    assert_eq!(codes(&talk("MAIL FROM:<>\nRCPT TO:<alice@example.org>\nDATA\n")), ["503 5.5.1"; 3]);
    let nested = talk("EHLO c\nMAIL FROM:<>\nMAIL FROM:<>\nDATA\nRCPT TO:<alice@example.org>\nDATA\n.\n");
    assert_eq!(codes(&nested)[1..], ["250 2.1.0", "503 5.5.1", "503 5.5.1", "250 2.1.5", "354", "250 2.0.0"]);
    for reset in ["RSET", "EHLO c", "HELO c"] {
        let seen = talk(&format!("EHLO c\nMAIL FROM:<>\nRCPT TO:<alice@example.org>\n{reset}\nDATA\n"));
        assert_eq!(codes(&seen).last().unwrap(), "503 5.5.1", "{reset}");
    }
    let after = talk(&format!("{TRANSACTION}.\nDATA\n"));
    assert_eq!(codes(&after).last().unwrap(), "503 5.5.1", "a message ends its transaction");
}

#[test]
fn recipients_are_judged_one_by_one() {
    let dialogue = "EHLO c\nMAIL FROM:<>\nRCPT TO:<nobody@example.org>\nRCPT TO:<a@b.example>\nDATA\n\
                    RCPT TO:<alice+x@example.org>\nDATA\n.\n";
    let seen = talk(dialogue);
    let expected = ["550 5.1.1", "550 5.7.1", "554 5.5.1", "250 2.1.5", "354", "250 2.0.0"];
    assert_eq!(codes(&seen)[2..], expected);
    assert_eq!(seen.messages[0].recipients.len(), 1);
    assert_eq!(seen.messages[0].recipients[0].destination.mailbox, "x");
}

#[test]
fn recipients_beyond_the_limit_are_for_the_next_transaction() {
    let recipients = "RCPT TO:<alice@example.org>\n".repeat(150);
    let seen = talk(&format!("EHLO c\nMAIL FROM:<>\n{recipients}DATA\n.\n"));
    let codes = codes(&seen);
    assert!(codes[2..102].iter().all(|code| code == "250 2.1.5"));
    assert!(codes[102..152].iter().all(|code| code == "452 4.5.3"));
    assert_eq!(seen.messages[0].recipients.len(), 100);
}

#[test]
fn the_size_limit_holds_at_mail_and_at_the_dot() {
    assert_eq!(codes(&talk("EHLO c\nMAIL FROM:<> SIZE=1001\n"))[1], "552 5.3.4");
    assert_eq!(codes(&talk("EHLO c\nMAIL FROM:<> SIZE=1000\n"))[1], "250 2.1.0");
    let seen = talk(&format!("{TRANSACTION}{}\n.\nNOOP\n", "x".repeat(1001)));
    assert_eq!(codes(&seen)[3..], ["354", "552 5.3.4", "250 2.0.0"]);
    assert_eq!(seen.messages, []);
    let endless = talk(&format!("{TRANSACTION}{}", "x".repeat(9000)));
    assert_eq!((codes(&endless).pop().unwrap(), endless.end), ("552 5.3.4".to_owned(), Some(Next::HangUp)));
}

#[test]
fn utf8_addresses_need_smtputf8() {
    let plain = talk("EHLO c\nMAIL FROM:<ä@x.example>\nMAIL FROM:<>\nRCPT TO:<grüße@example.org>\n");
    assert_eq!(codes(&plain)[1..], ["553 5.6.7", "250 2.1.0", "553 5.6.7"]);
    let announced = talk("EHLO c\nMAIL FROM:<ä@x.example> SMTPUTF8\nRCPT TO:<grüße@example.org>\n");
    assert_eq!(codes(&announced)[1..], ["250 2.1.0", "250 2.1.5"]);
}

#[test]
fn what_did_not_end_with_crlf_is_one_error() {
    for line in ["NOOP\nNOOP\r\n", "NOOP\rNOOP\r\n", "NO\0OP\r\n", "NOOP\r\r\n"] {
        let seen = run(&policy(), &[line.as_bytes(), b"NOOP\r\n"]);
        assert_eq!(codes(&seen), ["500 5.5.2", "250 2.0.0"], "{line:?}");
    }
    let long = run(&policy(), &[&[b'x'; 4000], b"\r\nNOOP\r\n"]);
    assert_eq!(codes(&long), ["500 5.5.2", "250 2.0.0"]);
    let endless = run(&policy(), &[&vec![b'x'; 1024 * 1024 + 1]]);
    assert_eq!((codes(&endless), endless.end), (vec!["421 4.7.0".to_owned()], Some(Next::HangUp)));
}

#[test]
fn a_line_behind_a_bare_lf_can_be_given_up_on() {
    let policy = policy();
    let (mut session, mut out) = (Session::new(&policy, remote()), Vec::new());
    assert_eq!(session.receive(b"NOOP\n", &mut out), (5, Next::Read));
    assert!(session.waits_behind_bare_lf() && out.is_empty());
    assert_eq!(session.end_stalled_line(&mut out), Next::Read);
    assert!(!session.waits_behind_bare_lf());
    session.receive(b"NOOP\r\n", &mut out);
    assert_eq!(out, b"500 5.5.2 Only CRLF ends a line\r\n250 2.0.0 Ok\r\n");
}

#[test]
fn every_dot_sequence_has_exactly_one_reply() {
    for variant in SMUGGLING {
        let start = TRANSACTION.replace('\n', "\r\n");
        let evil = b"MAIL FROM:<evil@x.example>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\nevil\r\n.\r\n";
        let seen = run(&policy(), &[start.as_bytes(), b"text", variant, evil]);
        assert_eq!(codes(&seen)[3..], ["354", "250 2.0.0"], "{}", variant.escape_ascii());
        assert_eq!(seen.messages.len(), 1, "{}", variant.escape_ascii());
    }
}

#[test]
fn other_protocols_end_the_session() {
    for line in
        ["POST / HTTP/1.1\nHost: mx\n\nEHLO c\n", "PROXY TCP4 192.0.2.1 192.0.2.2 1 25\nEHLO c\n", "\x16\x03\x01"]
    {
        let seen = talk(line);
        assert_eq!((codes(&seen), seen.end), (vec!["554 5.5.1".to_owned()], Some(Next::HangUp)), "{line:?}");
    }
}

#[test]
fn who_only_costs_time_is_shown_the_door() {
    for (line, served) in [("BOGUS\n", 20), ("RSET\n", 100), ("NOOP\n", 100), ("EHLO c\n", 100)] {
        let seen = talk(&line.repeat(2000));
        let codes = codes(&seen);
        assert_eq!((codes.len(), &*codes[served]), (served + 1, "421 4.7.0"), "{line}");
        assert_eq!(seen.end, Some(Next::HangUp));
    }
    let guesses = talk(&format!("EHLO c\nMAIL FROM:<>\n{}", "RCPT TO:<x@example.org>\n".repeat(100)));
    assert_eq!(codes(&guesses).last().unwrap(), "421 4.7.0");
    let message = "MAIL FROM:<>\nRCPT TO:<alice@example.org>\nDATA\n.\nRSET\n";
    let busy = talk(&format!("EHLO c\n{}", message.repeat(500)));
    assert_eq!((busy.messages.len(), busy.end), (500, None), "a message makes up for what came before");
}

#[test]
fn failures_to_commit_are_for_later_but_loops_are_for_ever() {
    let policy = policy();
    for (outcome, code, next) in [
        (Outcome::NoSpace, "452 4.3.1", Next::Read),
        (Outcome::Failed, "451 4.3.0", Next::Read),
        (Outcome::ShuttingDown, "421 4.3.2", Next::HangUp),
        (Outcome::Loop, "554 5.4.6", Next::Read),
    ] {
        let (mut session, mut out) = (Session::new(&policy, remote()), Vec::new());
        let wire = format!("{TRANSACTION}hi\n.\n").replace('\n', "\r\n");
        let (used, handed_out) = session.receive(wire.as_bytes(), &mut out);
        assert!(used == wire.len() && matches!(handed_out, Next::Deliver(_)));
        out.clear();
        assert_eq!(session.delivered(QueueId::numbered(1), &[outcome], &mut out), next);
        assert!(out.starts_with(code.as_bytes()), "{}", out.escape_ascii());
    }
}

#[test]
fn a_message_without_a_place_is_refused_at_its_end_for_the_reason_that_it_has_none() {
    let policy = policy();
    for (outcome, reply) in [
        (Outcome::NoSpace, "452 4.3.1 Insufficient system storage\r\n"),
        (Outcome::Failed, "451 4.3.0 Message not stored, try again later\r\n"),
    ] {
        for (begin, end) in [("DATA\nbegin\n", "end\n.\n"), ("BDAT 10\nbegin\n", "x\nBDAT 1 LAST\nx")] {
            let (mut session, mut out) = (Session::new(&policy, remote()), Vec::new());
            let receive = |session: &mut Session<'_>, text: &str, out: &mut Vec<u8>| {
                session.receive(text.replace('\n', "\r\n").as_bytes(), out).1
            };
            receive(&mut session, &format!("{CHUNKED}{begin}"), &mut out);
            assert!(session.in_data() && session.data_held().1 > 0);
            session.give_up_data(outcome);
            assert_eq!(session.data_held(), (0, 0, 0));
            out.clear();
            assert_eq!(receive(&mut session, end, &mut out), Next::Read);
            let times = if begin.starts_with("BDAT") { 2 } else { 1 };
            assert_eq!(String::from_utf8_lossy(&out), reply.repeat(times));
        }
    }
}

const CHUNKED: &str = "EHLO c\nMAIL FROM:<>\nRCPT TO:<alice@example.org>\n";

#[test]
fn a_message_may_come_in_chunks() {
    let seen = talk(&format!("{CHUNKED}BDAT 4\nab\nBDAT 5\n.\n\nBDAT 0 LAST\nNOOP\n"));
    assert_eq!(codes(&seen)[3..], ["250 2.0.0", "250 2.0.0", "250 2.0.0", "250 2.0.0"]);
    assert!(seen.replies.contains("250 2.0.0 5 octets received\r\n"), "{}", seen.replies);
    assert_eq!(seen.messages[0].message.rest, b"ab\r\n.\r\n\r\n");
    let one = talk(&format!("{CHUNKED}BDAT 3 LAST\na\0bNOOP\n"));
    assert_eq!((one.messages[0].message.rest.as_slice(), codes(&one).len()), (&b"a\0b"[..], 5), "octets are octets");
}

#[test]
fn a_chunk_that_belongs_nowhere_is_read_past() {
    for (before, code) in [
        ("", "503 5.5.1"),
        ("EHLO c\nMAIL FROM:<>\n", "503 5.5.1"),
        ("EHLO c\nMAIL FROM:<>\nRCPT TO:<x@example.org>\n", "554 5.5.1"),
    ] {
        let codes = codes(&talk(&format!("{before}BDAT 6 LAST\nQUIT\nNOOP\n")));
        assert_eq!(codes[codes.len() - 2..], [code, "250 2.0.0"], "{before}");
    }
    let endless = talk(&format!("{CHUNKED}BDAT 8001\nx"));
    assert_eq!((codes(&endless).pop().unwrap(), endless.end), ("552 5.3.4".to_owned(), Some(Next::HangUp)));
}

#[test]
fn a_message_that_has_begun_in_chunks_ends_in_chunks() {
    let begun = format!("{CHUNKED}BDAT 1\nx");
    for (line, code) in [
        ("DATA", "503 5.5.1"),
        ("MAIL FROM:<>", "503 5.5.1"),
        ("RCPT TO:<alice@example.org>", "503 5.5.1"),
        ("NOOP", "250 2.0.0"),
    ] {
        let seen = talk(&format!("{begun}{line}\nBDAT 1 LAST\ny"));
        assert_eq!(codes(&seen)[4..], [code, "250 2.0.0"], "{line}");
        assert_eq!(seen.messages[0].message.rest, b"xy", "{line}");
    }
    let reset = talk(&format!("{begun}RSET\nBDAT 1 LAST\ny"));
    assert_eq!((codes(&reset)[4..].to_vec(), reset.messages.len()), (vec!["250 2.0.0".into(), "503 5.5.1".into()], 0));
}

#[test]
fn the_size_limit_holds_for_all_chunks_together() {
    let big = "x".repeat(600);
    let seen = talk(&format!("{CHUNKED}BDAT 600\n{big}BDAT 600\n{big}BDAT 600\n{big}BDAT 0 LAST\nNOOP\n"));
    assert_eq!(codes(&seen)[3..], ["250 2.0.0", "552 5.3.4", "552 5.3.4", "552 5.3.4", "250 2.0.0"]);
    assert_eq!(seen.messages, []);
    let drips = talk(&format!("{CHUNKED}{}", "BDAT 1\nx".repeat(200)));
    assert_eq!(codes(&drips).pop().unwrap(), "421 4.7.0", "such chunks only cost time");
}

#[test]
fn lmtp_replies_for_each_recipient() {
    let recipients = "RCPT TO:<alice@example.org>\nRCPT TO:<x@example.org>\nRCPT TO:<alice+x@example.org>\n";
    let seen = talk_lmtp(&format!("LHLO c\nMAIL FROM:<>\n{recipients}DATA\nhi\n.\nNOOP\n"));
    let expected = ["250 2.1.5", "550 5.1.1", "250 2.1.5", "354", "250 2.0.0", "250 2.0.0", "250 2.0.0"];
    assert_eq!(codes(&seen)[2..], expected);
    assert_eq!(seen.replies.matches("queued as").count(), 2);
    let big = "x".repeat(1001);
    let seen = talk_lmtp(&format!("LHLO c\nMAIL FROM:<>\n{recipients}BDAT 1001 LAST\n{big}QUIT\n"));
    assert_eq!(codes(&seen)[5..], ["552 5.3.4", "552 5.3.4", "221 2.0.0"]);
    let nobody = talk_lmtp("LHLO c\nMAIL FROM:<>\nRCPT TO:<x@example.org>\nDATA\n");
    assert_eq!(codes(&nobody)[3], "554 5.5.1");
}

#[test]
fn each_protocol_has_its_own_greeting() {
    assert_eq!(codes(&talk("LHLO c\nEHLO c\n")), ["500 5.5.1", "250"]);
    let lmtp = talk_lmtp("EHLO c\nHELO c\nMAIL FROM:<>\nLHLO c\n");
    assert_eq!(codes(&lmtp), ["500 5.5.1", "500 5.5.1", "503 5.5.1", "250"]);
    assert!(lmtp.replies.contains("Send LHLO first"), "{}", lmtp.replies);
}

/// Everybody without an address may introduce others; the clients of a test have none.
pub(super) fn proxied_policy() -> Policy {
    #[derive(serde::Deserialize)]
    struct Setting {
        xclient_from: Networks,
    }
    let Setting { xclient_from } = toml::from_str("xclient_from = ['unix']").unwrap();
    Policy { xclient_from, ..policy() }
}

fn proxied(dialogue: &str) -> (Seen, Client) {
    let (policy, wire) = (proxied_policy(), dialogue.replace('\n', "\r\n"));
    let mut session = Session::new(&policy, Client::at(None, Peer::Loopback));
    let seen = run_in(&mut session, &[wire.as_bytes()]);
    (seen, session.client().clone())
}

#[test]
fn a_trusted_proxy_introduces_its_client() {
    let (seen, client) = proxied("EHLO proxy\nXCLIENT ADDR=192.0.2.1 NAME=x\nMAIL FROM:<>\nEHLO c\nMAIL FROM:<>\n");
    assert_eq!(codes(&seen), ["250", "220", "503 5.5.1", "250", "250 2.1.0"]);
    assert_eq!(seen.replies.matches("250-XCLIENT NAME ADDR").count(), 2, "{}", seen.replies);
    let expected = Client::at("192.0.2.1".parse().ok(), Peer::Remote);
    assert_eq!(client, Client { helo: Some("c".into()), ..expected.clone() });

    let (seen, client) = proxied("XCLIENT HELO=c ADDR=192.0.2.1\nMAIL FROM:<>\nRSET\nEHLO proxy\n");
    assert_eq!(codes(&seen), ["220", "250 2.1.0", "250 2.0.0", "250"]);
    assert_eq!(client, Client { helo: Some("c".into()), ..expected }, "the proxy's own name is nobody's");
}

#[test]
fn only_a_trusted_proxy_introduces_and_only_between_transactions() {
    let seen = talk("EHLO c\nXCLIENT ADDR=192.0.2.1\nMAIL FROM:<>\n");
    assert_eq!(codes(&seen), ["250", "550 5.7.0", "250 2.1.0"]);
    assert!(!seen.replies.contains("XCLIENT"), "{}", seen.replies);
    let (seen, client) = proxied("EHLO proxy\nMAIL FROM:<>\nXCLIENT ADDR=192.0.2.1\nRSET\nXCLIENT ADDR=x\n");
    assert_eq!(codes(&seen)[2..], ["503 5.5.1", "250 2.0.0", "501 5.5.4"]);
    assert_eq!(client.address, None);
    let nuisance = proxied(&"XCLIENT ADDR=192.0.2.1\n".repeat(200)).0;
    assert_eq!((codes(&nuisance).pop().unwrap(), nuisance.end), ("421 4.7.0".to_owned(), Some(Next::HangUp)));
}

pub(super) fn cut<'a>(wire: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
    cuts.extend([0, wire.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| &wire[cut[0]..cut[1]]).collect()
}

/// Lines that leave the session between commands.
fn dialogue_line() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("EHLO c\n"),
        Just("MAIL FROM:<a@b>\n"),
        Just("RCPT TO:<alice@example.org>\n"),
        Just("DATA\nhi\n.\n"),
        Just("STARTTLS x\n"),
        Just("RSET\n"),
    ]
}

proptest! {
    /// However the network cuts a dialogue, the replies and the messages are the same.
    #[test]
    fn any_cut_of_a_dialogue_gives_the_same(
        lines in prop::collection::vec(prop_oneof![
            Just(TRANSACTION), Just("DATA\n"), Just(".\n"), Just("..\n"), Just("text\n"), Just("NOOP\n"), Just("\r"),
            Just("MAIL FROM:<a@b>\n"), Just("RCPT TO:<alice@example.org>\n"), Just("RCPT TO:<b@c>\n"), Just("QUIT\n"),
            Just("XCLIENT ADDR=192.0.2.1\n"), Just("XCLIENT HELO=x\n"),
            Just("BDAT 5\n"), Just("BDAT 7 LAST\n"), Just("BDAT 0 LAST\n"), Just("RSET\n"),
        ], 0..20),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let wire = lines.concat().replace('\n', "\r\n").into_bytes();
        let policy = proxied_policy();
        let run = |pieces: &[&[u8]]| run_in(&mut Session::new(&policy, Client::at(None, Peer::Loopback)), pieces);
        prop_assert_eq!(run(&cut(&wire, &cuts)), run(&[&wire]));
        let octets: Vec<&[u8]> = wire.chunks(1).collect();
        prop_assert_eq!(run(&octets), run(&[&wire]));
    }

    /// So it is before and after STARTTLS; what comes after it comes after the handshake.
    #[test]
    fn any_cut_of_a_dialogue_with_starttls_gives_the_same(
        before in prop::collection::vec(dialogue_line(), 0..6),
        after in prop::collection::vec(dialogue_line(), 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let wire = |lines: &[&str]| lines.concat().replace('\n', "\r\n").into_bytes();
        let (before, after) = ([&wire(&before)[..], b"STARTTLS\r\n"].concat(), wire(&after));
        let pieces = [cut(&before, &cuts), cut(&after, &cuts)].concat();
        let policy = starttls_policy();
        prop_assert_eq!(run(&policy, &pieces), run(&policy, &[&before, &after]));
    }

    #[test]
    fn no_bytes_panic(
        wire in prop::collection::vec(any::<u8>(), 0..200),
        prefix in prop_oneof![Just(""), Just(TRANSACTION), Just("EHLO c\nMAIL FROM:<")],
    ) {
        let prefix = prefix.replace('\n', "\r\n");
        let seen = run(&policy(), &[prefix.as_bytes(), &wire]);
        prop_assert!(seen.replies.is_empty() || seen.replies.ends_with("\r\n"));
    }
}

fn starttls_policy() -> Policy {
    Policy { tls: TlsMode::Starttls, ..policy() }
}

/// Each piece arrives alone, as what comes after a handshake does.
fn talk_in(policy: &Policy, pieces: &[&str]) -> Seen {
    let pieces: Vec<String> = pieces.iter().map(|piece| piece.replace('\n', "\r\n")).collect();
    run(policy, &pieces.iter().map(String::as_bytes).collect::<Vec<_>>())
}

#[test]
fn starttls_begins_the_session_anew() {
    let policy = starttls_policy();
    let seen = talk_in(&policy, &["EHLO c\nMAIL FROM:<a@b>\nSTARTTLS\n", "MAIL FROM:<>\nEHLO c\nDATA\nSTARTTLS\n"]);
    let (before, after) = seen.replies.split_once("220 2.0.0").unwrap();
    assert!(before.contains("250-STARTTLS\r\n") && !after.contains("STARTTLS\r\n"), "{}", seen.replies);
    let expected = ["250", "250 2.1.0", "220 2.0.0", "503 5.5.1", "250", "503 5.5.1", "503 5.5.1"];
    assert_eq!((codes(&seen), seen.end), (expected.map(str::to_owned).to_vec(), None));
}

#[test]
fn starttls_stands_alone_and_only_where_it_is_offered() {
    assert_eq!(codes(&talk_in(&starttls_policy(), &["STARTTLS now\n", "STARTTLS\n"])), ["501 5.5.4", "220 2.0.0"]);
    for tls in [TlsMode::None, TlsMode::Implicit] {
        let seen = talk_in(&Policy { tls, ..policy() }, &["EHLO c\nSTARTTLS\n"]);
        assert_eq!(codes(&seen), ["250", "502 5.5.1"]);
        assert!(!seen.replies.contains("250-STARTTLS"), "{}", seen.replies);
    }
}

#[test]
fn what_was_injected_behind_starttls_is_never_run() {
    for behind in ["NOOP\n", "MAIL FROM:<evil@x.example>\nRCPT TO:<alice@example.org>\n", "N", "\u{16}"] {
        let seen = talk_in(&starttls_policy(), &["EHLO c\n", &format!("STARTTLS\n{behind}"), "NOOP\n"]);
        assert_eq!((codes(&seen), seen.end), (vec!["250".to_owned(), "554 5.5.1".to_owned()], Some(Next::HangUp)));
    }
}
