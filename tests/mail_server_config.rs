//! What `config/mail-servers/` has for each mail server, in the place where an administrator puts it, in the real
//! server: mail is delivered as before, and postrider makes one event of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what fails in a test fails the test"
)]

mod support;

use std::path::Path;

use lettre::address::Envelope;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use serde_json::Value;
use support::dovecot::Dovecot;
use support::mail_host::{MailHost, shipped};
use support::process_group::free_ports;
use support::server::{Options, Server};
use support::{eventually, within};
use tempfile::TempDir;

/// A postrider with the configuration that we ship, but for where its socket is.
struct Postrider {
    server: Server,
    folder: TempDir,
}

impl Postrider {
    async fn start() -> Self {
        Self::start_at(|folder| folder.join("lmtp").display().to_string()).await
    }

    /// The same, with LMTP somewhere else.
    async fn start_at(listen: impl FnOnce(&Path) -> String) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let text = shipped("postrider.toml")
            .lines()
            .filter(|line| !line.starts_with("enabled = false"))
            .map(|line| format!("{line}\n"))
            .collect::<Vec<_>>()
            .concat();
        let config = text.replace("/run/postrider/lmtp", &listen(folder.path()));
        assert!(config != text && text != shipped("postrider.toml"), "{text}");
        let server = Server::with(Options { config, ..Options::default() }).await;
        Self { server, folder }
    }

    /// The events of new mail, once there are as many.
    async fn events(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} events"), async || {
            let log = self.server.whole_log().await;
            Some(log).filter(|log| log.len() >= count)
        })
        .await
    }
}

/// Hands mail for alice to a mail server, as another one would.
async fn send(port: u16, to: &str, subject: &str) {
    let envelope = Envelope::new(Some("ada@x.example".parse().unwrap()), vec![to.parse().unwrap()]).unwrap();
    let message = format!(
        "From: ada@x.example\r\nTo: {to}\r\nSubject: {subject}\r\nMessage-ID: <{subject}@x.example>\r\n\r\n\
         .\r\nhello\r\n"
    );
    let mailer = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1").port(port).build();
    within("the mail to be accepted", mailer.send_raw(&envelope, message.as_bytes())).await.expect("a 250");
}

fn subjects(events: &[Value]) -> Vec<&str> {
    let mut subjects: Vec<&str> =
        events.iter().map(|event| event["message"]["subject"].as_str().unwrap_or_default()).collect();
    subjects.sort_unstable();
    subjects
}

/// Sends two mails; both are delivered as before, and both are one event, in this topic with this recipient.
async fn each_mail_is_delivered_and_one_event(host: &MailHost, postrider: &Postrider, topic: &str, recipient: &str) {
    send(host.port, "alice@example.org", "one").await;
    let first = postrider.events(1).await;
    assert_eq!((&first[0]["topics"][0], &first[0]["source"]), (&topic.into(), &"lmtp".into()), "{:#}", first[0]);
    let envelope = &first[0]["envelope"];
    assert_eq!(envelope["mail_from"], "ada@x.example");
    assert_eq!(envelope["rcpt_to"], recipient);
    assert!(first[0]["message"]["preview"].as_str().unwrap().starts_with(". hello"), "{:#}", first[0]);
    send(host.port, "alice@example.org", "two").await;
    let mail =
        eventually("both mails to be delivered", async || Some(host.mail_of("alice")).filter(|mail| mail.len() >= 2));
    let mail = mail.await;
    assert!(mail.len() == 2 && mail.iter().all(|mail| mail.contains("hello")), "{mail:?}");
    assert_eq!(subjects(&postrider.events(2).await), ["one", "two"]);
}

/// Postfix with what we ship at the ends of its files.
fn postfix(postrider: &Postrider, more: &str) -> MailHost {
    let main = format!(
        "virtual_mailbox_domains = example.org\n\
         virtual_mailbox_base = /var/mail\n\
         virtual_mailbox_maps = inline:{{ {{alice@example.org = alice/}} }}\n\
         virtual_uid_maps = static:60004\n\
         virtual_gid_maps = static:60004\n\
         recipient_delimiter = +\n\
         {}",
        shipped(more)
    );
    let files = [("postfix/postrider-copies", shipped("postfix-copies"))];
    MailHost::postfix(postrider.folder.path(), &main, &shipped("postfix-master.cf"), &files)
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_copies_the_mail_of_some_users() {
    let postrider = Postrider::start().await;
    let host = postfix(&postrider, "postfix-users.cf");
    each_mail_is_delivered_and_one_event(&host, &postrider, "mail/alice/INBOX", "alice@push.example.org").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_copies_the_mail_of_a_domain() {
    let postrider = Postrider::start().await;
    let host = postfix(&postrider, "postfix-domain.cf");
    each_mail_is_delivered_and_one_event(&host, &postrider, "mail/alice/INBOX", "alice@push.example.org").await;
    send(host.port, "alice+lists@example.org", "three").await;
    let third = postrider.events(3).await.pop().unwrap();
    assert_eq!(third["topics"][0], "mail/alice/lists");
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_copies_everything() {
    let postrider = Postrider::start().await;
    let host = postfix(&postrider, "postfix-everything.cf");
    let (topic, recipient) = ("mail/everything/INBOX", "everything@push.example.org");
    each_mail_is_delivered_and_one_event(&host, &postrider, topic, recipient).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exim_copies_mail() {
    let postrider = Postrider::start().await;
    let config = "begin routers\n\
         .include /etc/exim4/postrider-router\n\
         mailbox:\n  driver = accept\n  domains = +local_domains\n\
        \x20 local_part_suffix = +*\n  local_part_suffix_optional\n\
        \x20 transport = mailbox\n\
         begin transports\n\
         .include /etc/exim4/postrider-transport\n\
         mailbox:\n  driver = appendfile\n  directory = /var/mail/alice\n  maildir_format\n  create_directory\n\
        \x20 user = alice\n\
         begin retry\n* * F,1h,1m\n";
    let files =
        [("exim4/postrider-router", shipped("exim-router")), ("exim4/postrider-transport", shipped("exim-transport"))];
    let host = MailHost::exim(postrider.folder.path(), config, &files);
    each_mail_is_delivered_and_one_event(&host, &postrider, "mail/alice/INBOX", "alice@example.org").await;
    send(host.port, "alice+lists@example.org", "three").await;
    let third = postrider.events(3).await.pop().unwrap();
    assert_eq!(
        (&third["topics"][0], &third["envelope"]["rcpt_to"]),
        (&"mail/alice/lists".into(), &"alice+lists@example.org".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn opensmtpd_copies_mail() {
    let postrider = Postrider::start().await;
    let [port] = free_ports();
    let config = format!("listen on 127.0.0.1 port {port}\n{}", shipped("opensmtpd.conf"));
    let files = [("smtpd.conf", config), ("mailname", "mail.example.org\n".to_owned())];
    let start = "mkdir -p /var/lib/opensmtpd/empty; chmod 711 /var/spool; smtpd -d &";
    let host = MailHost::start(port, postrider.folder.path(), &files, start);
    each_mail_is_delivered_and_one_event(&host, &postrider, "mail/alice/INBOX", "alice@push.example.org").await;
}

/// Whether the mail is in alice's INBOX in Dovecot.
async fn is_in_dovecot(dovecot: &Dovecot, subject: &str) {
    eventually("the mail in the mailbox", async || {
        let found = dovecot.doveadm(&["search", "-u", "alice@example.org", "subject", subject]).await;
        (found.lines().count() == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dovecots_sieve_copies_mail() {
    let postrider = Postrider::start().await;
    let script = postrider.folder.path().join("postrider.sieve");
    std::fs::write(&script, shipped("postrider.sieve")).unwrap();
    let text = shipped("dovecot-sieve.conf");
    let config = text.replace("/etc/dovecot/postrider.sieve", script.to_str().unwrap());
    let config = config.replace("127.0.0.1:2525", &postrider.server.smtp);
    support::mail_host::open_to_all(postrider.folder.path());
    let dovecot = Dovecot::start_with(&config);
    for subject in ["one", "two"] {
        let message = format!("From: ada@x.example\nSubject: {subject}\nMessage-ID: <{subject}@x.example>\n\nhello\n");
        dovecot.deliver("alice@example.org", &message).await;
        is_in_dovecot(&dovecot, subject).await;
    }
    let events = postrider.events(2).await;
    assert_eq!(subjects(&events), ["one", "two"]);
    let rcpt_to = events.iter().map(|event| (&event["topics"][0], &event["envelope"]["rcpt_to"]));
    assert!(
        rcpt_to.into_iter().all(|of| of == (&"mail/alice/INBOX".into(), &"alice@push.example.org".into())),
        "{events:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dovecots_lmtp_passes_copies_on() {
    let [port] = free_ports();
    let postrider = Postrider::start_at(|_| format!("127.0.0.1:{port}")).await;
    let text = shipped("dovecot-lmtp-proxy.conf");
    let config = text.replace("port=24 ", &format!("port={port} "));
    assert!(config != text, "{text}");
    let dovecot = Dovecot::start_with(&config);
    for subject in ["one", "two"] {
        let message = format!("From: ada@x.example\nSubject: {subject}\nMessage-ID: <{subject}@x.example>\n\nhello\n");
        for recipient in ["alice@example.org", "alice@push.example.org"] {
            dovecot.deliver(recipient, &message).await;
        }
        is_in_dovecot(&dovecot, subject).await;
    }
    let events = postrider.events(2).await;
    assert_eq!(subjects(&events), ["one", "two"]);
    assert!(
        events.iter().all(|event| event["topics"][0] == "mail/alice/INBOX" && event["source"] == "lmtp"),
        "{events:#?}"
    );
}
