//! Real clients against the real program: what people send mail with. Each sends a plain message, one with eight bits
//! and one of 20 MiB, and what arrives is that message.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what fails in a test fails the test"
)]

mod support;

use std::path::PathBuf;
use std::process::Stdio;

use lettre::address::Envelope;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use serde_json::{Value, json};
use support::mail_host::{MailHost, shipped};
use support::server::{Options, Server};
use support::{eventually, within};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

const PASSWORD: &str = "correct horse, battery=staple";

/// The program with all ways in that clients are tried on.
struct Postrider {
    server: Server,
    /// LMTP by TCP.
    lmtp_port: u16,
    submission_port: u16,
    folder: TempDir,
}

impl Postrider {
    async fn start() -> Self {
        Self::start_with("").await
    }

    /// With these lines of `[smtp]`.
    async fn start_with(settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = format!(
            "[smtp]\n{settings}\n\
             [[smtp.listener]]\nrole = 'lmtp'\nlisten = '127.0.0.1:0'\n\
             [[smtp.listener]]\nrole = 'lmtp'\nlisten = '{}'\nmode = '0666'\n\
             [[smtp.listener]]\nrole = 'submission'\nlisten = '127.0.0.1:0'\n\
             [[smtp.user]]\nname = 'printer'\npassword_env = 'PRINTER_PASSWORD'\n\
             [[account]]\nname = 'alice'\ncontent = 'text'\n\
             addresses = ['alice@example.org', 'grüße@example.org']\n",
            folder.path().join("lmtp").display(),
        );
        let environment = vec![("PRINTER_PASSWORD".to_owned(), PASSWORD.to_owned())];
        let server = Server::with(Options { config, environment, ..Options::default() }).await;
        let port = |at: usize| server.listeners[at].rsplit_once(':').expect("an address").1.parse().expect("a port");
        let (lmtp_port, submission_port) = (port(0), port(2));
        Self { server, lmtp_port, submission_port, folder }
    }

    fn host_and_port(&self) -> (&str, &str) {
        self.server.smtp.rsplit_once(':').expect("an address")
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("lmtp")
    }

    /// The one event of the message with this subject.
    async fn event(&self, subject: &str) -> Value {
        let of = |log: &[Value]| -> Vec<Value> {
            log.iter().filter(|event| event["message"]["subject"] == subject).cloned().collect()
        };
        let arrived = async || Some(of(&self.server.whole_log().await)).filter(|events| !events.is_empty());
        let mut events = eventually(&format!("the event of {subject}"), arrived).await;
        assert_eq!(events.len(), 1, "{events:#?}");
        events.remove(0)
    }

    /// Sends each kind of message by this client and looks at what has arrived. `grows` is true of what adds to it.
    async fn takes_all_from(&self, name: &str, grows: bool, send: impl AsyncFn(&Mail)) {
        for mail in [Mail::plain(name), Mail::eight_bits(name), Mail::large(name)] {
            send(&mail).await;
            self.has(&mail, grows).await;
        }
    }

    async fn has(&self, mail: &Mail, grows: bool) {
        let event = self.event(&mail.subject).await;
        assert_eq!(
            (&event["envelope"]["mail_from"], &event["envelope"]["rcpt_to"]),
            (&json!(mail.from), &json!(mail.to))
        );
        let size = event["message"]["size"].as_u64().unwrap();
        let sent = mail.message.len() as u64;
        assert!(size == sent || grows && size > sent, "{size} of {sent} octets");
        if let Some(text) = &mail.text {
            assert_eq!(event["message"]["text"], *text, "{event:#}");
        }
    }
}

/// A message and its envelope.
struct Mail {
    from: &'static str,
    to: &'static str,
    subject: String,
    message: Vec<u8>,
    /// What is readable of it, unless that is too much to compare.
    text: Option<String>,
}

impl Mail {
    fn of(subject: String, text: &str, to_compare: bool) -> Self {
        let header = format!(
            "From: Ada <ada@x.example>\r\nTo: alice@example.org\r\nSubject: {subject}\r\nMessage-ID: <{}@x.example>\r\n\
             Date: Fri, 20 Nov 2026 12:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Transfer-Encoding: 8bit\r\n",
            subject.replace(|character: char| !character.is_ascii_alphanumeric(), ""),
        );
        let message = format!("{header}\r\n{text}\r\n").into_bytes();
        let text = to_compare.then(|| text.replace("\r\n", "\n"));
        Self { from: "ada@x.example", to: "alice@example.org", subject, message, text }
    }

    /// Lines that begin with dots have to be stuffed by the client.
    fn plain(client: &str) -> Self {
        Self::of(format!("plain by {client}"), ".\r\n..two\r\n.a\r\nFrom here\r\n\r\nlast line.", true)
    }

    fn eight_bits(client: &str) -> Self {
        Self::of(format!("Grüße by {client}"), "naïve café ✓ 日本語", true)
    }

    fn large(client: &str) -> Self {
        Self::of(format!("large by {client}"), &format!("{}\r\n", "x".repeat(76)).repeat(20 * 1024 * 1024 / 78), false)
    }

    /// Both addresses need SMTPUTF8.
    fn internationalized(client: &str) -> Self {
        let mail = Self::of(format!("Ü by {client}"), "ä", true);
        Self { from: "ä@x.example", to: "grüße@example.org", ..mail }
    }
}

/// Runs a client with this on its standard input, and fails with it; gives what it printed.
async fn run(command: &mut Command, input: &[u8]) -> String {
    let what = format!("{command:?}");
    let spawned =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn();
    let mut child = spawned.unwrap_or_else(|err| panic!("{what}: {err}"));
    let mut stdin = child.stdin.take().unwrap();
    let feed = async {
        // A client that fails need not read it all; its exit code says so.
        drop(stdin.write_all(input).await);
        drop(stdin);
    };
    let (output, ()) = within(&what, async { tokio::join!(child.wait_with_output(), feed) }).await;
    let output = output.unwrap();
    let [said, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{what}: {said}\n{errors}");
    said
}

async fn by_lettre(mailer: &AsyncSmtpTransport<Tokio1Executor>, mail: &Mail) {
    let address = |text: &str| text.parse::<Address>().unwrap();
    let envelope = Envelope::new(Some(address(mail.from)), vec![address(mail.to)]).unwrap();
    within("lettre", mailer.send_raw(&envelope, &mail.message)).await.expect("a 250");
}

#[tokio::test(flavor = "multi_thread")]
async fn lettre() {
    let postrider = Postrider::start().await;
    let mailer = postrider.server.mailer();
    let send = async |mail: &Mail| by_lettre(&mailer, mail).await;
    // It ends every message with a line end of its own.
    postrider.takes_all_from("lettre", true, send).await;
    let mail = Mail::internationalized("lettre");
    send(&mail).await;
    postrider.has(&mail, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn swaks() {
    let postrider = Postrider::start().await;
    let send = async |protocol: &[&str], mail: &Mail| {
        let mut swaks = Command::new("swaks");
        swaks.args(protocol).args(["--from", mail.from, "--to", mail.to, "--data", "-", "--silent", "2"]);
        run(&mut swaks, &mail.message).await;
    };
    let smtp = ["--server", &*postrider.server.smtp, "--pipeline"];
    postrider.takes_all_from("swaks", true, async |mail| send(&smtp, mail).await).await;
    let (lmtp, socket) = (format!("127.0.0.1:{}", postrider.lmtp_port), postrider.socket());
    for (name, way) in [("lmtp", ["--server", &*lmtp]), ("lmtp-unix", ["--socket", socket.to_str().unwrap()])] {
        let mail = Mail::plain(&format!("swaks by {name}"));
        send(&["--protocol", "LMTP", way[0], way[1]], &mail).await;
        postrider.has(&mail, true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn msmtp() {
    let postrider = Postrider::start().await;
    let (host, port) = postrider.host_and_port();
    let send = async |protocol: &str, port: &str, mail: &Mail| {
        let mut msmtp = Command::new("msmtp");
        msmtp.args([
            "--file=/dev/null",
            "--host",
            host,
            "--port",
            port,
            "--protocol",
            protocol,
            "--auth=off",
            "--tls=off",
        ]);
        msmtp.args(["--from", mail.from, "--", mail.to]);
        run(&mut msmtp, &mail.message).await;
    };
    postrider.takes_all_from("msmtp", false, async |mail| send("smtp", port, mail).await).await;
    let mail = Mail::plain("msmtp by lmtp");
    send("lmtp", &postrider.lmtp_port.to_string(), &mail).await;
    postrider.has(&mail, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn smtplib() {
    let postrider = Postrider::start().await;
    let (host, port) = postrider.host_and_port();
    let (lmtp_port, socket) = (postrider.lmtp_port.to_string(), postrider.socket().display().to_string());
    let send = async |connect: &str, options: &str, mail: &Mail| {
        let script = format!(
            "import smtplib, sys\n\
             with smtplib.{connect} as s:\n\
            \x20   s.ehlo_or_helo_if_needed()\n\
            \x20   refused = s.sendmail({:?}, [{:?}], sys.stdin.buffer.read(), mail_options=[{options}])\n\
            \x20   assert not refused, refused\n",
            mail.from, mail.to
        );
        run(Command::new("python3").args(["-c", &script]), &mail.message).await;
    };
    let smtp = format!("SMTP('{host}', {port})");
    postrider.takes_all_from("smtplib", false, async |mail| send(&smtp, "'BODY=8BITMIME'", mail).await).await;
    let mail = Mail::internationalized("smtplib");
    send(&smtp, "'SMTPUTF8', 'BODY=8BITMIME'", &mail).await;
    postrider.has(&mail, false).await;
    for connect in [format!("LMTP('127.0.0.1', {lmtp_port})"), format!("LMTP('{socket}')")] {
        let mail = Mail::plain(&connect);
        send(&connect, "", &mail).await;
        postrider.has(&mail, false).await;
    }
}

/// Sends by nodemailer, whose transport is described by this.
async fn by_nodemailer(transport: &Value, mail: &Mail) {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned();
    let modules = target.join("test-clients/node_modules");
    assert!(modules.join("nodemailer").exists(), "nodemailer is missing: run tests/support/fetch-clients");
    let options = json!({ "transport": transport, "envelope": { "from": mail.from, "to": [mail.to] } });
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/support/nodemailer/send.js");
    let mut node = Command::new("node");
    let said = run(node.arg(script).arg(options.to_string()).env("NODE_PATH", &modules), &mail.message).await;
    assert!(said.starts_with("250 2.0.0"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodemailer() {
    let postrider = Postrider::start().await;
    let (host, port) = postrider.host_and_port();
    let smtp = json!({ "host": host, "port": port.parse::<u16>().unwrap() });
    postrider.takes_all_from("nodemailer", false, async |mail| by_nodemailer(&smtp, mail).await).await;
    let mail = Mail::internationalized("nodemailer");
    by_nodemailer(&smtp, &mail).await;
    postrider.has(&mail, false).await;
    let mail = Mail::plain("nodemailer by lmtp");
    by_nodemailer(&json!({ "host": host, "port": postrider.lmtp_port, "lmtp": true }), &mail).await;
    postrider.has(&mail, false).await;
}

/// What `tests/smtp_tls.rs` and `tests/smtp_submission.rs` do not try: clients that bring a TLS of their own.
#[tokio::test(flavor = "multi_thread")]
async fn nodemailer_lettre_and_postfix_use_tls_and_log_in() {
    let certificates = tempfile::tempdir().unwrap();
    let [chain, key] = ["cert.pem", "key.pem"].map(|name| certificates.path().join(name));
    let own_key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&own_key).unwrap();
    std::fs::write(&chain, own.pem()).unwrap();
    std::fs::write(&key, own_key.serialize_pem()).unwrap();
    let settings = format!("tls_certificate_file = '{}'\ntls_key_file = '{}'", chain.display(), key.display());
    let postrider = Postrider::start_with(&settings).await;
    let port = postrider.submission_port;

    for mechanism in ["PLAIN", "LOGIN"] {
        let transport = json!({
            "host": "localhost", "port": port, "requireTLS": true, "tls": { "ca": [own.pem()] },
            "auth": { "user": "printer", "pass": PASSWORD }, "authMethod": mechanism,
        });
        let mail = Mail::eight_bits(&format!("nodemailer with {mechanism}"));
        by_nodemailer(&transport, &mail).await;
        postrider.has(&mail, false).await;
    }

    let trusted = Certificate::from_pem(own.pem().as_bytes()).unwrap();
    let tls = TlsParameters::builder("localhost".to_owned())
        .certificate_store(CertificateStore::None)
        .add_root_certificate(trusted)
        .build()
        .unwrap();
    for mechanism in [Mechanism::Plain, Mechanism::Login] {
        let mailer = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("localhost")
            .port(port)
            .tls(Tls::Required(tls.clone()))
            .credentials(Credentials::new("printer".into(), PASSWORD.into()))
            .authentication(vec![mechanism])
            .build();
        let mail = Mail::large(&format!("lettre with {mechanism}"));
        by_lettre(&mailer, &mail).await;
        postrider.has(&mail, true).await;
    }

    let main = format!(
        "default_transport = smtp:[127.0.0.1]:{}\nsmtp_tls_security_level = encrypt\n",
        postrider.host_and_port().1
    );
    let host = MailHost::postfix(postrider.folder.path(), &main, "", &[]);
    let relayed = Mail::large("Postfix by TLS");
    hand_over(host.port, &relayed).await;
    postrider.has(&relayed, true).await;
    assert!(host.log().contains("status=sent (250 2.0.0"), "{}", host.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn curl() {
    let postrider = Postrider::start().await;
    let send = async |mail: &Mail| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--mail-from", mail.from, "--mail-rcpt", mail.to, "--upload-file", "-"]);
        run(curl.arg(format!("smtp://{}", postrider.server.smtp)), &mail.message).await;
    };
    postrider.takes_all_from("curl", false, send).await;
    let mail = Mail::internationalized("curl");
    send(&mail).await;
    postrider.has(&mail, false).await;
}

/// Hands mail to a mail server, which relays it.
async fn hand_over(port: u16, mail: &Mail) {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--mail-from", mail.from, "--mail-rcpt", mail.to, "--upload-file", "-"]);
    run(curl.arg(format!("smtp://127.0.0.1:{port}")), &mail.message).await;
}

async fn relays_all(postrider: &Postrider, name: &str, host: &MailHost) {
    postrider.takes_all_from(name, true, async |mail| hand_over(host.port, mail).await).await;
    let mail = Mail::internationalized(name);
    hand_over(host.port, &mail).await;
    postrider.has(&mail, true).await;
}

/// A Postfix that hands everything on by this transport.
fn postfix(postrider: &Postrider, transport: &str) -> MailHost {
    let main = format!("default_transport = {transport}\n");
    MailHost::postfix(postrider.folder.path(), &main, &shipped("postfix-master.cf"), &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_relays_by_smtp() {
    let postrider = Postrider::start().await;
    let host = postfix(&postrider, &format!("smtp:[127.0.0.1]:{}", postrider.host_and_port().1));
    relays_all(&postrider, "Postfix by SMTP", &host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_relays_by_lmtp() {
    let postrider = Postrider::start().await;
    let host = postfix(&postrider, &format!("lmtp:inet:127.0.0.1:{}", postrider.lmtp_port));
    relays_all(&postrider, "Postfix by LMTP", &host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_relays_by_lmtp_on_a_unix_socket() {
    let postrider = Postrider::start().await;
    let host = postfix(&postrider, "postrider:unix:/run/postrider/lmtp");
    relays_all(&postrider, "Postfix by LMTP on a Unix socket", &host).await;
}

/// Exim sends in chunks where that is offered, and notes it in its log.
#[tokio::test(flavor = "multi_thread")]
async fn exim_relays_in_chunks() {
    let postrider = Postrider::start().await;
    let config = format!(
        "begin routers\nall:\n  driver = manualroute\n  route_list = * 127.0.0.1\n  self = send\n  transport = onward\n\
         begin transports\nonward:\n  driver = smtp\n  port = {}\n  allow_localhost\n  hosts_try_chunking = *\n\
         begin retry\n* * F,1h,1m\n",
        postrider.host_and_port().1
    );
    let host = MailHost::exim(postrider.folder.path(), &config, &[]);
    relays_all(&postrider, "Exim", &host).await;
    eventually("Exim to note the chunks", async || (host.log().matches(" K C=\"250 ").count() == 4).then_some(()))
        .await;
}
