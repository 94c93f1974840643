//! Who really sent the mail that comes by SMTP and LMTP: SPF, DKIM, DMARC and ARC over real DNS (NSD), with signatures by
//! another implementation (dkimpy); and name servers that are dead, slow or hostile.

#![cfg(feature = "mail-auth")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what fails in a test fails the test"
)]

mod support;

use std::process::Stdio;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lettre::address::Envelope;
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use serde_json::{Value, json};
use support::name_server::{Answer, NameServer, Scripted};
use support::server::{Options, Server};
use support::{eventually, within};
use tokio::io::AsyncWriteExt;

/// Four that differ in what they make of the sender.
const ACCOUNTS: &str = "
    [[account]]
    name = 'alice'
    addresses = ['alice@here.example']
    [[account]]
    name = 'mark'
    addresses = ['mark@here.example']
    dmarc_fail = 'mark'
    [[account]]
    name = 'refuse'
    addresses = ['refuse@here.example']
    dmarc_fail = 'refuse'
    [[account]]
    name = 'alerts'
    addresses = ['alerts@here.example']
    require = 'dmarc-pass'
    [[account]]
    name = 'none'
    content = 'none'
    addresses = ['none@here.example']
";

/// A key of the tests, made once.
struct Key {
    private_pem: String,
    public: String,
}

impl Key {
    fn new() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let public: PublicKeyX509Der<'_> = aws_lc_rs::signature::KeyPair::public_key(&pair).as_der().unwrap();
        let lines: Vec<_> = STANDARD.encode(private.as_ref()).as_bytes().chunks(64).map(<[u8]>::to_vec).collect();
        let body = String::from_utf8(lines.join(&b'\n')).unwrap();
        let private_pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
        Self { private_pem, public: STANDARD.encode(public.as_ref()) }
    }

    /// A TXT record at `name`.
    fn record(&self, name: &str) -> String {
        format!("{name} TXT {}\n", quoted(&format!("v=DKIM1; k=rsa; p={}", self.public)))
    }
}

static KEY: LazyLock<Key> = LazyLock::new(Key::new);

/// As the strings of a zone file, which have 255 octets at most.
fn quoted(text: &str) -> String {
    let parts = text.as_bytes().chunks(250).map(|part| format!("\"{}\"", String::from_utf8_lossy(part)));
    parts.collect::<Vec<_>>().join(" ")
}

/// A domain that sends from here only, signs, and wants everything else rejected; and what else the tests need.
fn zone() -> String {
    let key = &*KEY;
    format!(
        "good TXT \"v=spf1 ip4:127.0.0.1 -all\"\n_dmarc.good TXT \"v=DMARC1; p=reject\"\n{}\
         mail.good TXT \"v=spf1 ip4:127.0.0.1 -all\"\n\
         strict TXT \"v=spf1 -all\"\n_dmarc.strict TXT \"v=DMARC1; p=reject; adkim=s\"\n{}\
         lax TXT \"v=spf1 ~all\"\n_dmarc.lax TXT \"v=DMARC1; p=none\"\n{}\
         silent A 192.0.2.1\n\
         broken TXT \"v=spf1 include:nowhere.example -all\"\n_dmarc.broken TXT \"v=DMARC1; p=reject\"\n\
         mx TXT \"v=spf1 mx -all\"\nmx MX 10 host.mx\nhost.mx A 127.0.0.1\n\
         loop TXT \"v=spf1 include:one.loop -all\"\none.loop CNAME two.loop\ntwo.loop CNAME one.loop\n\
         _dmarc.loop TXT \"v=DMARC1; p=none\"\nkey._domainkey.loop CNAME one.loop\n",
        key.record("key._domainkey.good"),
        key.record("key._domainkey.mail.strict"),
        key.record("key._domainkey.lax"),
    )
}

/// Postrider that verifies everybody, with its name server.
async fn verifying(resolver: std::net::SocketAddr, more: &str) -> Server {
    let config = format!(
        "[smtp.message_authentication]\nverify = true\nresolver = ['{resolver}']\ntimeout = '3s'\n{more}\n{ACCOUNTS}"
    );
    Server::with(Options { config, ..Options::default() }).await
}

async fn with_zone() -> (Server, NameServer) {
    let name_server = NameServer::start(&zone());
    (verifying(name_server.address, "").await, name_server)
}

/// Runs a script of Python's with dkimpy; it has the key in `key` and the message in `message`.
async fn dkimpy(script: &str, message: &str) -> String {
    let script =
        format!("import sys, dkim\nkey = {:?}.encode()\nmessage = sys.stdin.buffer.read()\n{script}", KEY.private_pem);
    // The distribution's own, for which its packages are.
    let mut command = tokio::process::Command::new("/usr/bin/python3");
    command
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().expect("python3");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(message.as_bytes()).await.unwrap();
    drop(stdin);
    let output = within("dkimpy", child.wait_with_output()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The message with a signature of `domain` on top.
async fn signed(message: &str, domain: &str) -> String {
    let script = format!(
        "sys.stdout.write(dkim.sign(message, b'key', b'{domain}', key, canonicalize=(b'relaxed', b'relaxed')).decode())"
    );
    dkimpy(&script, message).await.replace("\r\n", "\n").replace('\n', "\r\n") + message
}

/// A new message: the same one again would be no second event.
fn letter(from: &str) -> String {
    static LETTERS: AtomicUsize = AtomicUsize::new(0);
    let number = LETTERS.fetch_add(1, Ordering::Relaxed);
    format!(
        "From: Ada <{from}>\r\nTo: alice@here.example\r\nSubject: Hello\r\nMessage-ID: <{number}@x>\r\n\r\nSome text.\r\n"
    )
}

/// Hands over a message; the reply, whatever it is.
async fn send(server: &Server, mail_from: &str, to: &[&str], message: &str) -> String {
    let (host, port) = server.smtp.rsplit_once(':').unwrap();
    let mailer = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(port.parse().unwrap())
        .hello_name(ClientId::Domain("client.good.example".to_owned()))
        .build();
    let from = (!mail_from.is_empty()).then(|| mail_from.parse().unwrap());
    let envelope = Envelope::new(from, to.iter().map(|to| to.parse().unwrap()).collect()).unwrap();
    match within("the reply", mailer.send_raw(&envelope, message.as_bytes())).await {
        Ok(response) => format!("{} {}", response.code(), response.message().collect::<Vec<_>>().join(" ")),
        Err(err) => format!("{} {err}", err.status().expect("a reply")),
    }
}

/// What the only event so far says of its sender.
async fn authentication(server: &Server) -> Value {
    let log = server.whole_log().await;
    assert_eq!(log.len(), 1, "{log:#?}");
    log[0]["message"]["authentication"].clone()
}

/// What is known of a message to alice.
async fn found(server: &Server, mail_from: &str, message: &str) -> Value {
    let before = server.whole_log().await.len();
    let reply = send(server, mail_from, &["alice@here.example"], message).await;
    assert!(reply.starts_with("250"), "{reply}");
    let log = server.whole_log().await;
    assert_eq!(log.len(), before + 1);
    log[before]["message"]["authentication"].clone()
}

#[tokio::test]
async fn mail_of_a_domain_that_signs_passes_everything() {
    let (server, _dns) = with_zone().await;
    let message = signed(&letter("ada@good.example"), "good.example").await;
    let expected = json!({
        "source": "self", "spf": "pass", "spf_domain": "good.example",
        "dkim": [{ "domain": "good.example", "result": "pass" }],
        "dmarc": "pass", "dmarc_domain": "good.example", "dmarc_policy": "reject",
    });
    for account in ["alice", "mark", "refuse", "alerts", "none"] {
        let reply = send(&server, "ada@good.example", &[&format!("{account}@here.example")], &message).await;
        assert!(reply.starts_with("250"), "{account}: {reply}");
    }
    let log = server.whole_log().await;
    for event in &log[..4] {
        assert_eq!(event["message"]["authentication"], expected);
        assert_eq!(event["message"]["priority"], "normal");
    }
    assert!(log[4].get("message").is_none(), "an account without content is told nothing of it: {}", log[4]);
}

#[tokio::test]
async fn one_changed_letter_fails_and_each_account_does_what_it_wants() {
    let (server, _dns) = with_zone().await;
    // From a domain that has nothing to do with the client, so that only the signature could save it.
    let message = signed(&letter("ada@lax.example"), "lax.example").await;
    let intact = found(&server, "ada@lax.example", &message).await;
    assert_eq!(
        (&intact["spf"], &intact["dkim"][0]["result"], &intact["dmarc"]),
        (&json!("softfail"), &json!("pass"), &json!("pass"))
    );
    for changed in [message.replace("Some text", "Some test"), message.replace("Subject: Hello", "Subject: Hullo")] {
        let broken = found(&server, "ada@lax.example", &changed).await;
        assert_eq!((&broken["dkim"][0]["result"], &broken["dmarc"]), (&json!("fail"), &json!("fail")));
        assert!(broken.get("suspicious").is_none(), "alice takes everything as it is");
    }

    let forged = letter("ada@strict.example");
    let before = server.whole_log().await.len();
    let reply = send(&server, "ada@strict.example", &["refuse@here.example"], &forged).await;
    assert!(reply.starts_with("550") && reply.contains("5.7.26"), "{reply}");
    let reply = send(&server, "ada@strict.example", &["alerts@here.example"], &forged).await;
    assert!(reply.starts_with("550") && reply.contains("5.7.26"), "{reply}");
    assert_eq!(server.whole_log().await.len(), before, "what is refused is no event");
    let reply = send(&server, "ada@strict.example", &["mark@here.example"], &forged).await;
    assert!(reply.starts_with("250"), "{reply}");
    let marked = &server.whole_log().await[before]["message"];
    assert_eq!((&marked["authentication"]["suspicious"], &marked["priority"]), (&json!(true), &json!("low")));

    // Its domain wants nothing to be done.
    let reply = send(&server, "ada@lax.example", &["refuse@here.example"], &letter("ada@lax.example")).await;
    assert!(reply.starts_with("250"), "{reply}");
    let marked = &server.whole_log().await[before + 1]["message"]["authentication"];
    assert_eq!((&marked["dmarc_policy"], &marked["suspicious"]), (&json!("none"), &json!(true)));

    let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    for line in [
        "postrider_mail_dkim_total{result=\"fail\"} 2",
        "postrider_mail_dkim_total{result=\"pass\"} 1",
        "postrider_mail_verdicts_total{result=\"refused\"} 2",
        "postrider_mail_verdicts_total{result=\"marked\"} 2",
    ] {
        assert!(metrics.lines().any(|told| told == line), "{line} in\n{metrics}");
    }
}

#[tokio::test]
async fn one_answer_for_all_recipients_loses_nobodys_mail_and_proves_nothing() {
    let (server, _dns) = with_zone().await;
    let forged = letter("ada@strict.example");
    let both = ["alice@here.example", "refuse@here.example"];
    assert!(send(&server, "ada@strict.example", &both, &forged).await.starts_with("250"));
    let log = server.whole_log().await;
    let suspicious: Vec<_> = log.iter().map(|event| event["message"]["authentication"]["suspicious"] == true).collect();
    assert_eq!(suspicious, [false, true], "who would have refused it gets it marked");
    for unproven in ["alerts@here.example", "refuse@here.example"] {
        let both = [unproven, "alerts@here.example"];
        assert!(send(&server, "ada@strict.example", &both, &forged).await.starts_with("550"));
    }
    let first = ["alice@here.example", "alerts@here.example"];
    let reply = send(&server, "ada@strict.example", &first, &forged).await;
    assert!(reply.starts_with("550"), "what must be proven is not taken because somebody else takes it: {reply}");
    assert_eq!(server.whole_log().await.len(), 2);
}

#[tokio::test]
async fn a_reload_changes_what_an_account_asks_of_senders() {
    let (server, _dns) = with_zone().await;
    let config = std::fs::read_to_string(&server.config).unwrap();
    let reply = send(&server, "ada@strict.example", &["alice@here.example"], &letter("ada@strict.example")).await;
    assert!(reply.starts_with("250"), "{reply}");
    std::fs::write(&server.config, config.replace("name = 'alice'", "name = 'alice'\nrequire = 'dmarc-pass'")).unwrap();
    server.signal("HUP").await;
    eventually("the new wish", || async {
        let reply = send(&server, "ada@strict.example", &["alice@here.example"], &letter("ada@strict.example")).await;
        reply.starts_with("550").then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_domains_say_or_do_not_say_is_told_in_the_standards_words() {
    let (server, _dns) = with_zone().await;
    for (mail_from, from, spf, dmarc) in [
        ("a@silent.example", "a@silent.example", "none", "none"),
        ("a@nowhere.example", "a@nowhere.example", "none", "none"),
        ("a@broken.example", "a@broken.example", "permerror", "fail"),
        ("a@mx.example", "a@mx.example", "pass", "none"),
        // Relaxed alignment: a subdomain speaks for its organisation, and its policy is the organisation's.
        ("a@good.example", "a@news.good.example", "pass", "pass"),
        ("a@mail.good.example", "a@good.example", "pass", "pass"),
        ("a@good.example", "a@strict.example", "pass", "fail"),
        ("", "a@silent.example", "none", "none"),
        ("a@loop.example", "a@silent.example", "temperror", "none"),
    ] {
        let told = found(&server, mail_from, &letter(from)).await;
        let expected = (json!(spf), json!(dmarc));
        if mail_from == "a@loop.example" {
            // Whether a name that leads to itself is an error for now or for ever is the resolver's view.
            assert!(["temperror", "permerror"].contains(&told["spf"].as_str().unwrap()), "{told}");
            continue;
        }
        assert_eq!((told["spf"].clone(), told["dmarc"].clone()), expected, "{mail_from}, {from}: {told}");
        assert!(told.get("dkim").is_none() && told.get("arc").is_none(), "{told}");
    }
    let unsigned = letter("a@strict.example");
    // Strict alignment: a signature of a subdomain is another's.
    let told = found(&server, "a@strict.example", &signed(&unsigned, "mail.strict.example").await).await;
    assert_eq!((&told["dkim"][0]["result"], &told["dmarc"]), (&json!("pass"), &json!("fail")), "{told}");
    // A signature whose key is not there.
    let told = found(&server, "a@silent.example", &signed(&letter("a@silent.example"), "silent.example").await).await;
    assert_eq!(told["dkim"], json!([{ "domain": "silent.example", "result": "permerror" }]));
}

#[tokio::test]
async fn a_chain_of_seals_is_verified() {
    let (server, _dns) = with_zone().await;
    let arrived = format!(
        "Authentication-Results: lists.lax.example; spf=pass smtp.mailfrom=good.example\r\n{}",
        letter("ada@good.example")
    );
    let script = "for field in dkim.arc_sign(message, b'key', b'lax.example', key, b'lists.lax.example'):\n\
                  \x20   sys.stdout.write(field.decode())";
    let seals = dkimpy(script, &arrived).await.replace("\r\n", "\n").replace('\n', "\r\n");
    assert!(seals.contains("ARC-Seal"), "{seals}");
    let told = found(&server, "list@lax.example", &format!("{seals}{arrived}")).await;
    assert_eq!(told["arc"], "pass", "{told}");
    let told =
        found(&server, "list@lax.example", &format!("{seals}{}", arrived.replace("Some text", "Some test"))).await;
    assert_eq!(told["arc"], "fail", "{told}");
    let told = found(&server, "list@lax.example", &format!("{}{arrived}", seals.replace("cv=none", "cv=fail"))).await;
    assert_eq!(told["arc"], "fail", "{told}");
}

#[tokio::test]
async fn a_dead_name_server_delays_mail_and_loses_none() {
    let dead = Scripted::start(|_| Answer::Silence).await;
    let server = verifying(dead.address, "").await;
    let message = signed(&letter("ada@good.example"), "good.example").await;
    let begun = Instant::now();
    let told = found(&server, "ada@good.example", &message).await;
    let taken = begun.elapsed();
    // Three seconds were allowed; the rest is the machine's.
    assert!(taken < Duration::from_secs(8), "{taken:?}");
    assert!(dead.questions() > 0);
    let expected =
        (json!("temperror"), json!([{ "domain": "good.example", "result": "temperror" }]), json!("temperror"));
    assert_eq!((told["spf"].clone(), told["dkim"].clone(), told["dmarc"].clone()), expected);
    // What was not found out is no reason to refuse mail, except where it must be proven.
    let reply = send(&server, "ada@good.example", &["refuse@here.example"], &message).await;
    assert!(reply.starts_with("250"), "{reply}");
    let reply = send(&server, "ada@good.example", &["alerts@here.example"], &message).await;
    assert!(reply.starts_with("451") && reply.contains("4.7.26"), "{reply}");
    assert_eq!(server.whole_log().await.len(), 2);
}

#[tokio::test]
async fn a_slow_name_server_is_waited_for() {
    let key = format!("v=DKIM1; k=rsa; p={}", KEY.public);
    let slow = Scripted::start(move |name| {
        let answer = match name {
            "good.example" => Answer::Txt("v=spf1 ip4:127.0.0.1 -all".to_owned()),
            "_dmarc.good.example" => Answer::Txt("v=DMARC1; p=reject".to_owned()),
            "key._domainkey.good.example" => Answer::Txt(key.clone()),
            _ => Answer::NoSuchName,
        };
        Answer::Late(Duration::from_millis(200), Box::new(answer))
    })
    .await;
    let server = verifying(slow.address, "").await;
    let message = signed(&letter("ada@good.example"), "good.example").await;
    let told = found(&server, "ada@good.example", &message).await;
    assert_eq!((&told["spf"], &told["dmarc"]), (&json!("pass"), &json!("pass")), "{told}");
    let asked = slow.questions();
    let message = signed(&letter("ada@good.example"), "good.example").await;
    let again = found(&server, "ada@good.example", &message).await;
    assert_eq!((&again["dmarc"], slow.questions()), (&json!("pass"), asked), "what was found is remembered");
}

#[tokio::test]
async fn a_hostile_message_asks_a_bounded_number_of_questions() {
    // A crowd of mail servers whose names nobody has, in each of ten mechanisms.
    let crowd = Scripted::start(|name| match name {
        "crowd.example" => Answer::Txt(format!(
            "v=spf1{} -all",
            (0..9).map(|n| format!(" mx:m{n}.example")).collect::<Vec<_>>().concat()
        )),
        name if name.starts_with('m') && name.ends_with(".example") && !name.contains("host") => {
            Answer::Mx((0..10).map(|n| format!("host{n}.{name}")).collect())
        }
        _ => Answer::NoSuchName,
    })
    .await;
    let server = verifying(crowd.address, "").await;
    let signature = |n: usize| {
        format!(
            "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=d{n}.example; s=s; h=from; bh=8VoXaOOhPcjFmTR9zcRjNW18sMPp3Uma1PCwd3Dsc0U=; b=AAAA\r\n"
        )
    };
    let signatures: String = (0..100).map(signature).collect();
    let told =
        found(&server, "a@crowd.example", &format!("{signatures}{}", letter("a@a.b.c.d.e.f.g.h.i.example"))).await;
    assert_eq!(told["spf"], "permerror", "{told}");
    assert_eq!(told["dkim"].as_array().unwrap().len(), 10, "{told}");
    assert!(crowd.questions() <= 100, "{} questions", crowd.questions());
}

#[tokio::test]
async fn hostile_records_and_keys_are_answered_in_time() {
    // As large as RSA keys may be; nobody needs to have the private half.
    let modulus =
        [&[0x30, 0x82, 0x04, 0x0a, 0x02, 0x82, 0x04, 0x01, 0, 0xff][..], &[0x55; 1023], &[2, 3, 1, 0, 1]].concat();
    let huge_key = Key { private_pem: String::new(), public: STANDARD.encode(modulus) };
    let huge = format!("v=DKIM1; k=rsa; p={}", "MIIC".repeat(10_000));
    let zone = format!(
        "{}{}long TXT {}\nkey._domainkey.long TXT {}\n_dmarc.long TXT {}\n",
        zone(),
        huge_key.record("key._domainkey.huge"),
        quoted(&format!("v=spf1{} -all", " ip4:192.0.2.1".repeat(3000))),
        quoted(&huge),
        quoted(&format!("v=DMARC1; p=reject; rua={}", "mailto:a@b.example,".repeat(2000))),
    );
    let dns = NameServer::start(&zone);
    let server = verifying(dns.address, "").await;
    for domain in ["long", "huge", "loop"] {
        let address = format!("a@{domain}.example");
        let message = signed(&letter(&address), &format!("{domain}.example")).await;
        let begun = Instant::now();
        let told = found(&server, &address, &message).await;
        assert!(begun.elapsed() < Duration::from_secs(8), "{domain}: {:?}", begun.elapsed());
        assert_ne!(told["dkim"][0]["result"], "pass", "{domain}: {told}");
        assert_ne!(told["dmarc"], "pass", "{domain}: {told}");
    }
    // The signature is of another key.
    let told = found(&server, "a@huge.example", &signed(&letter("a@huge.example"), "huge.example").await).await;
    assert_eq!(told["dkim"][0]["result"], "fail", "{told}");
}

#[tokio::test]
async fn who_is_near_is_not_verified_by_default() {
    let counting = Scripted::start(|_| Answer::Silence).await;
    let config = format!("[smtp.message_authentication]\nresolver = ['{}']\n{ACCOUNTS}", counting.address);
    let server = Server::with(Options { config, ..Options::default() }).await;
    let forged = format!("Authentication-Results: mx.example.org; dmarc=pass\r\n{}", letter("a@good.example"));
    let reply = send(&server, "a@good.example", &["alice@here.example"], &forged).await;
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!(authentication(&server).await, Value::Null, "nobody is trusted by default");
    assert_eq!(counting.questions(), 0);
}

/// Replies of LMTP to one message for each of `to`.
async fn deliver(socket: &std::path::Path, to: &[&str], message: &str) -> Vec<String> {
    let script = format!(
        "import smtplib, sys\ns = smtplib.LMTP('{socket}')\ns.ehlo()\ns.docmd('MAIL FROM:<a@good.example>')\n\
         for to in {to:?}: s.docmd(f'RCPT TO:<{{to}}>')\ns.docmd('DATA')\ns.send(sys.stdin.buffer.read() + b'.\\r\\n')\n\
         for to in {to:?}: print(s.getreply()[0])\n",
        socket = socket.display(),
    );
    let mut command = tokio::process::Command::new("python3");
    command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("python3");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(message.as_bytes()).await.unwrap();
    drop(stdin);
    let output = within("LMTP", child.wait_with_output()).await.unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn over_lmtp_the_trusted_servers_header_counts_for_each_recipient() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("lmtp");
    let config = format!(
        "[smtp.message_authentication]\ntrusted_authserv_ids = ['mx.here.example']\n\
         [[smtp.listener]]\nrole = 'lmtp'\nlisten = '{}'\n{ACCOUNTS}",
        socket.display()
    );
    let server = Server::with(Options { config, ..Options::default() }).await;
    let all = ["alice", "mark", "refuse", "alerts"].map(|name| format!("{name}@here.example"));
    let all = all.each_ref().map(String::as_str);
    let forged = "Authentication-Results: mx.here.example;\r\n\tdmarc=fail (p=reject dis=none) header.from=good.example\r\n\
                  Authentication-Results: evil.example; dmarc=pass\r\n";
    let replies = deliver(&socket, &all, &format!("{forged}{}", letter("a@good.example"))).await;
    assert_eq!(replies, ["250", "250", "550", "550"]);
    let log = server.whole_log().await;
    assert_eq!(log.len(), 2);
    let expected =
        json!({ "source": "header", "dmarc": "fail", "dmarc_domain": "good.example", "dmarc_policy": "reject" });
    assert_eq!(log[0]["message"]["authentication"], expected);
    assert_eq!(log[1]["message"]["authentication"]["suspicious"], true);

    let proven = "Authentication-Results: mx.here.example; dmarc=pass header.from=good.example\r\n";
    let later = letter("a@good.example");
    assert_eq!(deliver(&socket, &all, &format!("{proven}{later}")).await, ["250"; 4]);
    let unknown = letter("a@good.example");
    assert_eq!(deliver(&socket, &all, &format!("Received: x\r\n{unknown}")).await, ["250", "250", "250", "550"]);
    let log = server.whole_log().await;
    assert_eq!(log[6]["message"]["authentication"], json!({ "source": "none" }));
    let later = "Authentication-Results: mx.here.example; dmarc=temperror\r\n";
    let replies = deliver(&socket, &all, &format!("{later}{}", letter("a@good.example"))).await;
    assert_eq!(replies, ["250", "250", "250", "451"]);
}

#[tokio::test]
async fn verification_behind_a_relay_counts_signatures_alone() {
    let (dns, folder) = (NameServer::start(&zone()), tempfile::tempdir().unwrap());
    let socket = folder.path().join("lmtp");
    let lmtp = format!("[[smtp.listener]]\nrole = 'lmtp'\nlisten = '{}'\nverify = true", socket.display());
    let server = verifying(dns.address, &lmtp).await;
    let message = signed(&letter("a@good.example"), "good.example").await;
    assert_eq!(deliver(&socket, &["alerts@here.example"], &message).await, ["250"]);
    let told = authentication(&server).await;
    assert_eq!((told.get("spf"), &told["dmarc"]), (None, &json!("pass")), "{told}");
    assert_eq!(deliver(&socket, &["alerts@here.example"], &letter("a@good.example")).await, ["550"]);
}
