//! AUTH and submission in whole dialogues, and in every cut of them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use proptest::prelude::*;

use super::super::sasl::{Attempt, Evidence, Verdict};
use super::super::users::Users;
use super::tests::{codes_of as codes, cut, policy, proxied_policy};
use super::*;
use crate::source::intake::Peer;

/// Alice may write to all, bob to an account that is not alice's; tokens are not known to this test.
fn submission(tls: TlsMode) -> Policy {
    let users = Users::predictable(&[("alice", "pencil", &[]), ("bob", "stone", &["bob"])], true);
    Policy { role: Role::Submission, tls, users: Some(Arc::new(users)), ..policy() }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    replies: String,
    /// Whom somebody said to be.
    attempts: Vec<String>,
    messages: usize,
    end: Option<Next>,
}

/// Answers attempts as the logins does, but for its patience.
fn judge(policy: &Policy, attempt: &Attempt) -> Verdict {
    let users = policy.users.as_deref().unwrap();
    let identity = match &attempt.evidence {
        Evidence::Password(password) => users.log_in(&attempt.name, password.expose()),
        Evidence::Proof(is_right) => users.identity(&attempt.name).filter(|_| *is_right),
        Evidence::Token(_) => None,
    };
    match identity {
        Some(identity) => Verdict::Granted(identity),
        None if attempt.name == "locked" => Verdict::LockedOut,
        None if attempt.name == "later" => Verdict::Unavailable,
        None => Verdict::Denied,
    }
}

fn run(policy: &Policy, peer: Peer, has_tls: bool, pieces: &[&[u8]]) -> Seen {
    let (mut session, mut out, mut seen) = (Session::new(policy, Client::at(None, peer)), Vec::new(), Seen::default());
    if has_tls {
        session.tls_started();
    }
    'pieces: for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let (used, mut next) = session.receive(rest, &mut out);
            rest = &rest[used..];
            if let Next::Verify(attempt) = next {
                seen.attempts.push(attempt.name.clone());
                next = session.verified(judge(policy, &attempt), &mut out);
            }
            match next {
                Next::Deliver(_) => {
                    seen.messages += 1;
                    session.delivered(QueueId::numbered(1), &[Outcome::Committed], &mut out);
                }
                Next::StartTls => {
                    session.tls_started();
                    break;
                }
                Next::Read => {}
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

/// On this machine, so that no TLS is needed.
fn talk(dialogue: &str) -> Seen {
    run(&submission(TlsMode::None), Peer::Loopback, false, &[dialogue.replace('\n', "\r\n").as_bytes()])
}

fn replies(seen: &Seen) -> Vec<String> {
    codes(&seen.replies)
}

fn b64(text: &str) -> String {
    BASE64.encode(text)
}

fn plain(name: &str, password: &str) -> String {
    format!("AUTH PLAIN {}\n", b64(&format!("\0{name}\0{password}")))
}

const MAIL: &str = "MAIL FROM:<a@b> AUTH=<>\nRCPT TO:<alice@example.org>\nDATA\nhi\n.\n";

#[test]
fn nobody_submits_mail_before_logging_in() {
    let seen = talk(&format!("EHLO c\n{MAIL}"));
    assert_eq!(
        (replies(&seen)[1..4].to_vec(), seen.messages),
        (vec!["530 5.7.0".to_owned(), "503 5.5.1".to_owned(), "503 5.5.1".to_owned()], 0)
    );
    let seen = talk(&format!("EHLO c\n{}{MAIL}", plain("alice", "pencil")));
    assert_eq!(replies(&seen)[1..], ["235 2.7.0", "250 2.1.0", "250 2.1.5", "354", "250 2.0.0"]);
    assert_eq!(seen.messages, 1);
}

#[test]
fn over_the_network_tls_comes_first_and_passwords_are_refused_without_it() {
    let policy = submission(TlsMode::Starttls);
    let login = plain("alice", "pencil");
    let clear = format!("EHLO c\n{login}{MAIL}STARTTLS\n").replace('\n', "\r\n");
    let inside = format!("EHLO c\nMAIL FROM:<>\n{login}MAIL FROM:<>\n").replace('\n', "\r\n");
    let seen = run(&policy, Peer::Remote, false, &[clear.as_bytes(), inside.as_bytes()]);
    let (before, after) = seen.replies.split_once("220 2.0.0").unwrap();
    assert!(!before.contains("AUTH") && before.contains("530 5.7.0 Must issue a STARTTLS"), "{before}");
    assert_eq!(codes(before)[1..3], ["538 5.7.11", "530 5.7.0"]);
    assert!(after.contains("250-AUTH SCRAM-SHA-256 OAUTHBEARER PLAIN LOGIN\r\n"), "{after}");
    assert_eq!(codes(after)[..].iter().rev().take(3).collect::<Vec<_>>(), ["250 2.1.0", "235 2.7.0", "530 5.7.0"]);
    // What was said of oneself before TLS does not count after it.
    let policy = submission(TlsMode::Starttls);
    let seen = run(
        &policy,
        Peer::Loopback,
        false,
        &[format!("EHLO c\r\n{}\r\nSTARTTLS\r\n", login.trim()).as_bytes(), b"EHLO c\r\nMAIL FROM:<>\r\n"],
    );
    assert_eq!(replies(&seen).last().unwrap(), "530 5.7.0");
}

#[test]
fn each_mechanism_lets_in_who_knows_the_password() {
    let login = format!("AUTH LOGIN\n{}\n{}\n", b64("alice"), b64("pencil"));
    let at_once = format!("auth login {}\n{}\n", b64("alice"), b64("pencil"));
    let empty_first = format!("AUTH PLAIN\n{}\n", b64("\0alice\0pencil"));
    for (dialogue, expected) in
        [(login, "334 334 235 2.7.0"), (at_once, "334 235 2.7.0"), (empty_first, "334 235 2.7.0")]
    {
        let seen = talk(&format!("EHLO c\n{dialogue}"));
        assert_eq!(replies(&seen)[1..].join(" "), expected, "{dialogue}: {}", seen.replies);
        assert_eq!(seen.attempts, ["alice"]);
    }
    assert!(talk("EHLO c\nAUTH LOGIN\n").replies.ends_with("334 VXNlcm5hbWU6\r\n"));
    assert!(talk("EHLO c\nAUTH PLAIN\n").replies.ends_with("334 \r\n"));
}

#[test]
fn scram_ends_with_the_servers_proof_and_the_clients_assent() {
    let policy = submission(TlsMode::None);
    let (mut session, mut out) = (Session::new(&policy, Client::at(None, Peer::Loopback)), Vec::new());
    let mut say = |text: &str| {
        out.clear();
        let (_, next) = session.receive(format!("{text}\r\n").as_bytes(), &mut out);
        if let Next::Verify(attempt) = next {
            session.verified(judge(&policy, &attempt), &mut out);
        }
        String::from_utf8(out.clone()).unwrap()
    };
    let unwrapped = |reply: String| {
        let encoded = reply.strip_prefix("334 ").expect("a challenge").trim().to_owned();
        String::from_utf8(BASE64.decode(encoded).unwrap()).unwrap()
    };
    say("EHLO c");
    let bare = "n=alice,r=client";
    let challenge = unwrapped(say(&format!("AUTH SCRAM-SHA-256 {}", b64(&format!("n,,{bare}")))));
    let salt = BASE64.decode(challenge.split(',').nth(1).unwrap().strip_prefix("s=").unwrap()).unwrap();
    let without_proof = "c=biws,r=clientserver-nonce";
    let signed = format!("{bare},{challenge},{without_proof}");
    let iterations = std::num::NonZeroU32::new(4096).unwrap();
    let proof = crate::scram::SaltedPassword::derive("pencil", &salt, iterations).client_key().proof(&signed);
    let last = unwrapped(say(&b64(&format!("{without_proof},p={}", BASE64.encode(&proof)))));
    assert!(last.starts_with("v="), "{last}");
    assert!(say("").starts_with("235 2.7.0"));
    assert!(say("MAIL FROM:<>").starts_with("250"));
}

#[test]
fn a_refused_token_is_explained_and_then_refused() {
    let token = b64("n,,\u{1}auth=Bearer t.o.k\u{1}\u{1}");
    let seen = talk(&format!("EHLO c\nAUTH OAUTHBEARER {token}\nAQ==\nMAIL FROM:<>\n"));
    assert_eq!(replies(&seen)[1..], ["334", "535 5.7.8", "530 5.7.0"]);
}

#[test]
fn what_is_wrong_with_a_login_is_said() {
    for (dialogue, expected) in [
        (plain("alice", "wrong"), "535 5.7.8"),
        (plain("eve", "pencil"), "535 5.7.8"),
        (plain("later", "x"), "454 4.7.0"),
        (plain("locked", "x"), "421 4.7.0"),
        ("AUTH\n".to_owned(), "501 5.5.4"),
        ("AUTH GSSAPI\n".to_owned(), "504 5.5.4"),
        ("AUTH PLAIN =\n".to_owned(), "501 5.5.2"),
        ("AUTH PLAIN ?\n".to_owned(), "501 5.5.2"),
        ("AUTH PLAIN\n*\n".to_owned(), "334 501 5.7.0"),
        ("AUTH PLAIN\nnot base64\n".to_owned(), "334 501 5.5.2"),
        ("AUTH LOGIN\nYQ\n".to_owned(), "334 501 5.5.2"),
        ("AUTH LOGIN\nYQ==\n*\n".to_owned(), "334 334 501 5.7.0"),
        ("MAIL FROM:<>\n".to_owned() + &plain("alice", "pencil"), "530 5.7.0 235 2.7.0"),
        (plain("alice", "pencil") + &plain("alice", "pencil"), "235 2.7.0 503 5.5.1"),
        (format!("{}MAIL FROM:<>\nAUTH PLAIN\n", plain("alice", "pencil")), "235 2.7.0 250 2.1.0 503 5.5.1"),
        (format!("AUTH PLAIN\n{}\n", "A".repeat(13_000)), "334 500 5.5.6"),
        (format!("AUTH OAUTHBEARER {}\n", b64(&format!("n,,\u{1}auth=Bearer {}\u{1}\u{1}", "x".repeat(8000)))), "334"),
    ] {
        let seen = talk(&format!("EHLO c\n{dialogue}"));
        assert_eq!(replies(&seen)[1..].join(" "), expected, "{dialogue}");
        assert_eq!(seen.end.is_some(), expected.starts_with("421"), "{dialogue}");
    }
    assert_eq!(replies(&talk("AUTH PLAIN\n")), ["503 5.5.1"], "EHLO comes first");
    let seen = talk(&format!("EHLO c\n{}", plain("alice", "x").repeat(30)));
    assert_eq!((seen.attempts.len(), replies(&seen).last().unwrap().as_str()), (21, "421 4.7.0"));
}

#[test]
fn who_may_write_to_some_accounts_writes_to_no_other() {
    let seen = talk(&format!("EHLO c\n{}{MAIL}", plain("bob", "stone")));
    assert_eq!(replies(&seen)[1..5], ["235 2.7.0", "250 2.1.0", "550 5.7.1", "554 5.5.1"]);
    assert_eq!(seen.messages, 0);
}

#[test]
fn a_trusted_proxy_may_say_who_has_logged_in_and_nobody_else() {
    let dialogue = "EHLO p\r\nXCLIENT ADDR=192.0.2.1 LOGIN=alice\r\nEHLO c\r\nMAIL FROM:<>\r\nRSET\r\n\
                    XCLIENT LOGIN=[UNAVAILABLE]\r\nEHLO c\r\nMAIL FROM:<>\r\nXCLIENT LOGIN=eve\r\nEHLO c\r\nMAIL FROM:<>\r\n";
    let talk = |policy: &Policy| {
        let (mut session, mut out, mut rest) =
            (Session::new(policy, Client::at(None, Peer::Loopback)), Vec::new(), dialogue);
        while !rest.is_empty() {
            let (used, next) = session.receive(rest.as_bytes(), &mut out);
            rest = &rest[used..];
            if next == Next::NewClient {
                session.greet(&mut out);
            }
        }
        codes(&String::from_utf8(out).unwrap())
    };
    let trusting = Policy { xclient_from: proxied_policy().xclient_from, ..submission(TlsMode::Implicit) };
    let expected =
        ["250", "220", "250", "250 2.1.0", "250 2.0.0", "220", "250", "530 5.7.0", "220", "250", "530 5.7.0"];
    assert_eq!(talk(&trusting), expected);
    assert!(!talk(&submission(TlsMode::Implicit)).contains(&"250 2.1.0".to_owned()));
}

#[test]
fn where_nobody_can_log_in_auth_is_no_command() {
    let policy = policy();
    let seen = run(&policy, Peer::Loopback, true, &[b"EHLO c\r\nAUTH PLAIN\r\n"]);
    assert_eq!(replies(&seen), ["250", "502 5.5.1"]);
    assert!(!seen.replies.contains("AUTH"), "{}", seen.replies);
}

fn login_line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("EHLO c\n".to_owned()),
        Just(MAIL.to_owned()),
        Just(plain("alice", "pencil")),
        Just(plain("bob", "wrong")),
        Just("AUTH LOGIN\n".to_owned()),
        Just("AUTH SCRAM-SHA-256 biwsbj1hbGljZSxyPXg=\n".to_owned()),
        Just("Ym9i\n".to_owned()),
        Just("*\n".to_owned()),
        Just("STARTTLS x\n".to_owned()),
        Just(format!("{}\n", "A".repeat(3000))),
        Just("\r".to_owned()),
    ]
}

proptest! {
    /// However the network cuts a dialogue, before and after STARTTLS, the replies are the same, and nobody gets in who
    /// would not have.
    #[test]
    fn any_cut_of_a_login_gives_the_same(
        before in prop::collection::vec(login_line(), 0..6),
        after in prop::collection::vec(login_line(), 0..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        peer in prop::sample::select(&[Peer::Loopback, Peer::Remote][..]),
    ) {
        let policy = submission(TlsMode::Starttls);
        let wire = |lines: &[String]| lines.concat().replace('\n', "\r\n").into_bytes();
        let (before, after) = ([&wire(&before)[..], b"\r\n*\r\nSTARTTLS\r\n"].concat(), wire(&after));
        let pieces = [cut(&before, &cuts), cut(&after, &cuts)].concat();
        prop_assert_eq!(run(&policy, peer, false, &pieces), run(&policy, peer, false, &[&before, &after]));
    }

    #[test]
    fn without_a_password_nothing_is_delivered(
        lines in prop::collection::vec(prop_oneof![
            "(AUTH (PLAIN|LOGIN|SCRAM-SHA-256|OAUTHBEARER))?( [A-Za-z0-9+/]{0,12}={0,2})?\n", Just(MAIL.to_owned()),
            Just("EHLO c\n".to_owned()), Just("bixhPWFsaWNlLG49YWxpY2Uscj14\n".to_owned()), Just("=\n".to_owned()),
        ], 0..12),
    ) {
        let seen = talk(&lines.concat());
        prop_assert!(seen.messages == 0 && !seen.replies.contains("235 "), "{}", seen.replies);
    }
}
