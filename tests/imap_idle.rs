//! New mail in watched IMAP mailboxes becomes events, once each, against a real Dovecot.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use postrider::event::{Content, EventKind};
use postrider::registry::{Account, AccountState, ImapEndpoint, ImapSecurity};
use postrider::source::imap::{ImapConfig, ImapError, probe};
use secrecy::SecretString;
use support::dovecot::Dovecot;
use support::watching::{Watching, config};
use tempfile::tempdir;

fn message(subject: &str) -> String {
    format!(
        "From: Ada Lovelace <ada@example.org>\nTo: alice@example.org\nSubject: {subject}\n\
         Message-ID: <{}@example.org>\n\nHello, here is {subject}.\n",
        subject.replace(' ', ".")
    )
}

fn endpoint(account: &mut Account) -> &mut ImapEndpoint {
    account.imap_mut().unwrap()
}

#[tokio::test]
async fn what_was_there_before_is_not_announced() {
    let (dovecot, folder) = (Dovecot::start(), tempdir().unwrap());
    dovecot.deliver("alice", &message("old")).await;
    let mut watching = Watching::start(folder.path(), &[dovecot.account("alice", &["INBOX"])], config());
    watching.next(EventKind::AccountUp).await;
    dovecot.deliver("alice", &message("new")).await;
    assert_eq!(watching.subject().await, "new");
    watching.stop().await;
}

#[tokio::test]
async fn a_new_message_is_one_event_with_what_it_is_about() {
    let (dovecot, folder) = (Dovecot::start(), tempdir().unwrap());
    let account = dovecot.account("alice", &["INBOX"]);
    let mut watching = Watching::started(folder.path(), &[account], config()).await;
    dovecot
        .deliver(
            "alice",
            "From: =?utf-8?q?J=C3=BCrgen?= \"the \\\"quoted\\\"\" <j@example.org>\nTo: alice@example.org\n\
             Subject: a \"quoted\" \\ =?utf-8?b?R3LDvMOfZQ==?=\nDate: Fri, 20 Nov 2026 12:59:58 +0100\n\
             Message-ID: <1@example.org>\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n\
             --x\nContent-Type: multipart/alternative; boundary=y\n\n--y\nContent-Type: text/plain; charset=utf-8\n\
             Content-Transfer-Encoding: quoted-printable\n\nSch=C3=B6ne Gr=C3=BC=C3=9Fe\n--y\nContent-Type: text/html\n\n\
             <p>html</p>\n--y--\n--x\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\
             Content-Disposition: attachment; filename*=utf-8''Gr%C3%BC%C3%9Fe.pdf\n\nSGVsbG8sIHdvcmxkIQ==\n--x--\n",
        )
        .await;
    let draft = watching.next(EventKind::MessageNew).await.draft;
    assert_eq!(draft.topics[0].as_str(), "mail/alice/INBOX");
    assert!(draft.private && draft.uid == Some(1) && draft.uid_validity.is_some());
    assert_eq!(draft.counts.unwrap().messages, Some(1));
    let message = draft.message.unwrap();
    assert_eq!(message.subject.as_deref(), Some("a \"quoted\" \\ Grüße"));
    assert_eq!(message.from[0].address, "j@example.org");
    assert_eq!(message.preview.as_deref(), Some("Schöne Grüße"));
    assert_eq!(message.message_id.as_deref(), Some("<1@example.org>"));
    assert!(message.received.is_some() && message.size.is_some_and(|size| size > 500));
    let [attachment] = message.attachments.as_slice() else { panic!("{:?}", message.attachments) };
    assert_eq!(attachment.filename.as_deref(), Some("Grüße.pdf"));
    assert_eq!((attachment.content_type.as_str(), attachment.size), ("application/pdf", 15));
    assert!(!message.parse_error);

    let flags = dovecot.doveadm(&["-f", "tab", "fetch", "-u", "alice", "flags", "mailbox", "INBOX"]).await;
    assert!(flags.contains("\\Recent") && !flags.contains("\\Seen"), "watching must not change flags: {flags:?}");
    dovecot.deliver("alice", &self::message("next")).await;
    assert_eq!(watching.subject().await, "next", "the first one came once");
    watching.stop().await;
}

#[tokio::test]
async fn content_setting_decides_what_is_fetched() {
    let (dovecot, folder) = (Dovecot::start(), tempdir().unwrap());
    let contents = [Content::None, Content::Envelope, Content::Preview, Content::Text];
    let accounts: Vec<Account> = ["none", "envelope", "preview", "text"]
        .into_iter()
        .zip(contents)
        .map(|(user, content)| Account { content, ..dovecot.account(user, &["INBOX"]) })
        .collect();
    let mut watching = Watching::started(folder.path(), &accounts, config()).await;
    let long = format!("{}\nThe end.", "line after line\n".repeat(1000));
    for account in &accounts {
        dovecot.deliver(account.name.as_str(), &format!("Subject: s\n\n{long}")).await;
    }
    for _ in &accounts {
        let draft = watching.next(EventKind::MessageNew).await.draft;
        let account = draft.account.unwrap();
        let Some(message) = draft.message else {
            assert_eq!(account.as_str(), "none");
            assert!(draft.flags.is_some() && draft.uid == Some(1));
            continue;
        };
        assert_eq!(message.subject.as_deref(), Some("s"));
        let (preview, text) = (message.preview.is_some(), message.text.is_some_and(|text| text.ends_with("The end.")));
        match account.as_str() {
            "envelope" => assert!(!preview && !text),
            "preview" => assert!(preview && !text),
            "text" => assert!(preview && text),
            other => panic!("{other}"),
        }
    }
    watching.stop().await;
}

#[tokio::test]
async fn mail_that_came_while_stopped_is_announced_once() {
    let (dovecot, folder) = (Dovecot::start(), tempdir().unwrap());
    let accounts = [dovecot.account("alice", &["INBOX"])];
    Watching::started(folder.path(), &accounts, config()).await.stop().await;
    for subject in ["one", "two", "three"] {
        dovecot.deliver("alice", &message(subject)).await;
    }
    let mut watching = Watching::start(folder.path(), &accounts, config());
    for subject in ["one", "two", "three"] {
        assert_eq!(watching.subject().await, subject);
    }
    watching.next(EventKind::AccountUp).await;
    watching.stop().await;

    let mut watching = Watching::start(folder.path(), &accounts, config());
    watching.next(EventKind::AccountUp).await;
    dovecot.deliver("alice", &message("four")).await;
    assert_eq!(watching.subject().await, "four");
    watching.stop().await;
}

#[tokio::test]
async fn of_very_much_mail_the_newest_is_announced_and_the_rest_counted() {
    let (dovecot, folder) = (Dovecot::start(), tempdir().unwrap());
    let accounts = [dovecot.account("alice", &["INBOX"])];
    let config = ImapConfig { catch_up_max: 60.try_into().unwrap(), ..config() };
    Watching::started(folder.path(), &accounts, config.clone()).await.stop().await;
    for number in 1..=70 {
        dovecot.deliver("alice", &message(&number.to_string())).await;
    }
    let mut watching = Watching::start(folder.path(), &accounts, config);
    for number in 11..=70 {
        assert_eq!(watching.subject().await, number.to_string());
    }
    let overflow = watching.next(EventKind::MailboxOverflow).await.draft.data.unwrap();
    assert_eq!(overflow, serde_json::json!({ "skipped": 10, "uid_first": 1, "uid_last": 10 }));
    watching.next(EventKind::AccountUp).await;
    watching.stop().await;
}

#[tokio::test]
async fn a_burst_is_announced_whole_and_in_order() {
    let (dovecot, folder) = (Dovecot::start(), tempdir().unwrap());
    let mut watching = Watching::started(folder.path(), &[dovecot.account("alice", &["INBOX"])], config()).await;
    for number in 0..120 {
        dovecot.deliver("alice", &message(&number.to_string())).await;
    }
    for number in 0..120 {
        assert_eq!(watching.subject().await, number.to_string());
    }
    watching.stop().await;
}

#[tokio::test]
async fn many_at_once_are_announced_whole() {
    let (dovecot, folder) = (Dovecot::start(), tempdir().unwrap());
    for number in 0..130 {
        dovecot.deliver("bob", &message(&number.to_string())).await;
    }
    let mut watching = Watching::started(folder.path(), &[dovecot.account("alice", &["INBOX"])], config()).await;
    dovecot.doveadm(&["copy", "-u", "alice", "INBOX", "user", "bob", "mailbox", "INBOX", "all"]).await;
    for number in 0..130 {
        assert_eq!(watching.subject().await, number.to_string());
    }
    watching.stop().await;
}

#[tokio::test]
async fn a_lost_connection_comes_back_and_nothing_is_lost_or_doubled() {
    let (dovecot, folder) = (Dovecot::start(), tempdir().unwrap());
    let mut watching = Watching::started(folder.path(), &[dovecot.account("alice", &["INBOX"])], config()).await;
    dovecot.deliver("alice", &message("before")).await;
    assert_eq!(watching.subject().await, "before");
    for round in 0..3 {
        dovecot.doveadm(&["kick", "alice"]).await;
        let subject = format!("after kick {round}");
        dovecot.deliver("alice", &message(&subject)).await;
        let found = watching.until(EventKind::MessageNew).await.draft.message.unwrap();
        assert_eq!(found.subject, Some(subject));
    }
    watching.stop().await;
}

#[tokio::test]
async fn an_outage_is_announced_once_with_its_reason() {
    let (dovecot, folder) = (Dovecot::start(), tempdir().unwrap());
    let mut watching = Watching::started(folder.path(), &[dovecot.account("alice", &["INBOX"])], config()).await;
    dovecot.stop();
    let down = watching.next(EventKind::AccountDown).await.draft;
    assert!(down.reason.as_ref().unwrap().contains("cannot connect to 127.0.0.1"), "{down:?}");
    let status = watching.state(AccountState::ConnectError).await;
    assert!(status.retry_at.is_some() && status.reason.is_some());
    dovecot.start_again();
    dovecot.deliver("alice", &message("after")).await;
    assert_eq!(watching.subject().await, "after", "no second AccountDown came before it");
    watching.next(EventKind::AccountUp).await;
    watching.stop().await;
}

#[tokio::test]
async fn new_uid_validity_is_announced_and_nothing_replayed() {
    let (dovecot, folder) = (Dovecot::start(), tempdir().unwrap());
    dovecot.doveadm(&["mailbox", "create", "-u", "alice", "Lists"]).await;
    let accounts = [dovecot.account("alice", &["Lists"])];
    let mut watching = Watching::started(folder.path(), &accounts, config()).await;
    dovecot.save("alice", "Lists", &message("before")).await;
    let before = watching.next(EventKind::MessageNew).await.draft;
    watching.stop().await;

    dovecot.doveadm(&["mailbox", "delete", "-u", "alice", "Lists"]).await;
    dovecot.doveadm(&["mailbox", "create", "-u", "alice", "Lists"]).await;
    dovecot.save("alice", "Lists", &message("while nobody watched")).await;
    let mut watching = Watching::start(folder.path(), &accounts, config());
    let reset = watching.next(EventKind::MailboxReset).await.draft;
    assert_eq!(reset.topics[0].as_str(), "mail/alice/Lists");
    assert!(reset.uid_validity > before.uid_validity);
    assert_eq!(watching.subject().await, "while nobody watched", "it is not among what was announced before");
    watching.next(EventKind::AccountUp).await;
    dovecot.save("alice", "Lists", &message("after")).await;
    assert_eq!(watching.subject().await, "after");
    watching.stop().await;
}

#[tokio::test]
async fn a_wrong_password_is_announced_once_and_says_what_to_do() {
    let (dovecot, folder) = (Dovecot::start(), tempdir().unwrap());
    let mut account = dovecot.account("alice", &["INBOX", "Lists", "Drafts"]);
    endpoint(&mut account).password_typed = Some(SecretString::from("wrong"));
    let mut watching = Watching::start(folder.path(), &[account], config());
    let refused = watching.next(EventKind::AccountAuthFailed).await.draft;
    assert_eq!(refused.topics[0].as_str(), "mail/alice");
    let reason = refused.reason.unwrap();
    assert!(reason.starts_with("the server refused the user name or password; check both"), "{reason}");
    assert!(!reason.contains("wrong"), "no password in a reason");
    let status = watching.state(AccountState::AuthenticationError).await;
    let pause = status.retry_at.unwrap().duration_since(jiff::Timestamp::now());
    assert!(pause > jiff::SignedDuration::from_secs(50), "{pause:?}");
    watching.stop().await;
    let tries = dovecot.log().matches("auth failed").count();
    assert_eq!(tries, 1, "each mailbox must not try for itself:\n{}", dovecot.log());
}

#[tokio::test]
async fn every_kind_of_protection_works() {
    let (dovecot, folder) = (Dovecot::start(), tempdir().unwrap());
    let mut accounts = Vec::new();
    for (user, security, port) in [
        ("implicit", ImapSecurity::Tls, dovecot.imaps_port),
        ("starttls", ImapSecurity::Starttls, dovecot.imap_port),
        ("loopback", ImapSecurity::None, dovecot.imap_port),
    ] {
        let mut account = dovecot.account(user, &["INBOX"]);
        let endpoint = endpoint(&mut account);
        (endpoint.security, endpoint.port, endpoint.host) = (security, Some(port), "localhost".into());
        endpoint.ca_file = Some(dovecot.ca_file());
        let report = probe(endpoint, &config()).await.unwrap();
        assert_eq!(report.protection.as_deref(), (security != ImapSecurity::None).then_some("TLS 1.3"));
        accounts.push(account);
    }
    let mut watching = Watching::started(folder.path(), &accounts, config()).await;
    for account in &accounts {
        dovecot.deliver(account.name.as_str(), &message("protected")).await;
        assert_eq!(watching.subject().await, "protected");
    }
    watching.stop().await;
}

#[tokio::test]
async fn an_untrusted_certificate_is_refused_with_the_way_out() {
    let dovecot = Dovecot::start();
    let mut account = dovecot.account("alice", &["INBOX"]);
    let endpoint = endpoint(&mut account);
    (endpoint.security, endpoint.port) = (ImapSecurity::Tls, Some(dovecot.imaps_port));
    let err = probe(endpoint, &config()).await.unwrap_err();
    assert!(matches!(err, ImapError::Certificate(..)), "{err:?}");
    assert!(err.reason().contains("`ca_file`"), "{}", err.reason());
    endpoint.port = Some(dovecot.imap_port);
    let err = probe(endpoint, &config()).await.unwrap_err();
    assert!(matches!(err, ImapError::Tls(..)), "TLS to a port without it: {err:?}");
}

#[tokio::test]
async fn a_password_does_not_cross_a_network_unprotected() {
    let dovecot = Dovecot::start();
    let mut account = dovecot.account("alice", &["INBOX"]);
    let endpoint = endpoint(&mut account);
    // An address for documentation (RFC 5737): had it connected, it would be another error.
    endpoint.host = "192.0.2.1".into();
    let err = probe(endpoint, &config()).await.unwrap_err();
    assert!(matches!(err, ImapError::Plaintext(_)), "{err:?}");
    assert!(err.reason().contains("allow_plaintext"), "{}", err.reason());
}

#[tokio::test]
async fn mailboxes_are_watched_side_by_side() {
    let (dovecot, folder) = (Dovecot::start(), tempdir().unwrap());
    let umlaut = "Entwürfe & mehr";
    dovecot.doveadm(&["mailbox", "create", "-u", "alice", umlaut]).await;
    let mut watching =
        Watching::started(folder.path(), &[dovecot.account("alice", &["inbox", umlaut])], config()).await;
    dovecot.save("alice", umlaut, &message("in the other one")).await;
    let event = watching.next(EventKind::MessageNew).await.draft;
    assert_eq!(event.mailbox.as_deref(), Some(umlaut));
    assert_eq!(event.topics[0].as_str(), "mail/alice/Entw%C3%BCrfe%20%26%20mehr");
    dovecot.deliver("alice", &message("in INBOX")).await;
    let event = watching.next(EventKind::MessageNew).await.draft;
    assert_eq!(event.topics[0].as_str(), "mail/alice/INBOX");
    watching.stop().await;
}

#[tokio::test]
async fn a_mailbox_that_is_not_there_is_named() {
    let (dovecot, folder) = (Dovecot::start(), tempdir().unwrap());
    let mut watching = Watching::start(folder.path(), &[dovecot.account("alice", &["Typo"])], config());
    let down = watching.next(EventKind::AccountDown).await.draft.reason.unwrap();
    assert!(down.starts_with("there is no mailbox `Typo`; correct `mailboxes`, or create it"), "{down}");
    dovecot.doveadm(&["mailbox", "create", "-u", "alice", "Typo"]).await;
    watching.next(EventKind::AccountUp).await;
    watching.stop().await;
}

#[tokio::test]
async fn probe_says_what_it_found() {
    let dovecot = Dovecot::start();
    dovecot.doveadm(&["mailbox", "create", "-u", "alice", "Lists"]).await;
    dovecot.save("alice", "Lists", &message("one")).await;
    let mut account = dovecot.account("alice", &["Lists", "Typo"]);
    let report = probe(endpoint(&mut account), &config()).await.unwrap();
    assert!(report.idle && report.capabilities.iter().any(|capability| capability == "IMAP4REV1"));
    assert_eq!(report.mailboxes, ["INBOX", "Lists"]);
    assert_eq!(report.watched.len(), 2);
    assert_eq!(report.watched[0].1.as_ref().ok(), Some(&1));
    assert!(matches!(report.watched[1].1, Err(ImapError::Mailbox { .. })));
}

#[tokio::test]
async fn a_password_with_every_kind_of_character_gets_through() {
    let dovecot = Dovecot::start();
    let mut account = dovecot.account("jürgen \"q\" \\b", &["INBOX"]);
    probe(endpoint(&mut account), &config()).await.unwrap();
    let mut account = dovecot.account("q\"u\\ote", &["INBOX"]);
    probe(endpoint(&mut account), &config()).await.unwrap();
    endpoint(&mut account).password_typed = Some(SecretString::from("a\r\nb LOGOUT"));
    let err = probe(endpoint(&mut account), &config()).await.unwrap_err();
    assert!(matches!(err, ImapError::Unsendable), "{err:?}");
}
