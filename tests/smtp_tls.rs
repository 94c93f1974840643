//! TLS of the mail receiver: STARTTLS and TLS from the first octet, against swaks, curl and Python's smtplib, and raw
//! bytes where a client is meant to misbehave; what is said of certificates that cannot be used, and their renewal.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what fails in a test fails the test"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use support::server::{Options, Server};
use support::{eventually, within};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ACCOUNT: &str = "
    [[account]]
    name = 'alice'
    content = 'text'
    addresses = ['alice@example.org']
";

/// A certificate for `localhost` and its key.
struct Certificate {
    folder: TempDir,
    chain: PathBuf,
    key: PathBuf,
}

impl Certificate {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let new = Self { folder, chain, key };
        new.renew();
        new
    }

    /// Another one in its place.
    fn renew(&self) {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let own = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        std::fs::write(&self.chain, own.pem()).unwrap();
        std::fs::write(&self.key, key.serialize_pem()).unwrap();
    }

    fn settings(&self) -> String {
        let (certificate, key) = (self.chain.display(), self.key.display());
        format!("tls_certificate_file = '{certificate}'\ntls_key_file = '{key}'\n")
    }
}

/// STARTTLS on the main port, and a listener with TLS from the first octet.
async fn started(certificate: &Certificate) -> Server {
    let implicit = "[[smtp.listener]]\nrole = 'smtp'\nlisten = '127.0.0.1:0'\ntls = 'implicit'\n";
    let config = format!("[smtp]\n{}{implicit}{ACCOUNT}", certificate.settings());
    Server::with(Options { config, ..Options::default() }).await
}

async fn run(program: &str, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(program);
    let output = command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    within(program, output).await.unwrap_or_else(|err| panic!("{program}: {err}"))
}

async fn expect_success(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments).await;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}

fn port(address: &str) -> u16 {
    address.rsplit_once(':').unwrap().1.parse().unwrap()
}

/// What a raw client is told in answer to `sent`, up to the end of the connection.
async fn told(address: &str, sent: &[u8]) -> String {
    within("the end of the connection", async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let mut told = Vec::new();
        // A connection that was reset ends as well.
        drop(stream.read_to_end(&mut told).await);
        String::from_utf8_lossy(&told).into_owned()
    })
    .await
}

#[tokio::test]
async fn swaks_curl_and_smtplib_deliver_by_starttls_and_implicit_tls() {
    let certificate = Certificate::new();
    let server = started(&certificate).await;
    let (starttls, implicit) = (server.smtp.clone(), server.listeners[0].clone());
    let envelope = ["--to", "alice@example.org", "--from", "a@x.example"];
    let swaks = expect_success("swaks", &[&["--server", &starttls, "--tls"], &envelope[..]].concat()).await;
    assert!(swaks.contains("TLS started with cipher TLSv1.3"), "{swaks}");
    expect_success("swaks", &[&["--server", &implicit, "--tls-on-connect"], &envelope[..]].concat()).await;
    expect_success("swaks", &[&["--server", &starttls, "--tls", "--tls-protocol", "tlsv1_2"], &envelope[..]].concat())
        .await;

    let mail = certificate.folder.path().join("mail.txt");
    std::fs::write(&mail, "Subject: from curl\r\n\r\nhi\r\n").unwrap();
    let authority = certificate.chain.to_str().unwrap();
    let transfer = ["--mail-from", "a@x.example", "--mail-rcpt", "alice@example.org", "-T", mail.to_str().unwrap()];
    let common = [&["-sS", "--ssl-reqd", "--cacert", authority][..], &transfer].concat();
    for url in [format!("smtp://localhost:{}", port(&starttls)), format!("smtps://localhost:{}", port(&implicit))] {
        expect_success("curl", &[&common[..], &[&url]].concat()).await;
    }

    let script = format!(
        "import smtplib, ssl\n\
         context = ssl.create_default_context(cafile='{authority}')\n\
         s = smtplib.SMTP('localhost', {})\n\
         s.ehlo(); assert s.has_extn('starttls')\n\
         s.starttls(context=context)\n\
         s.ehlo(); assert not s.has_extn('starttls'), 'once is enough'\n\
         s.sendmail('a@x.example', ['alice@example.org'], 'Subject: hi\\n\\n.\\n'); s.quit()\n\
         s = smtplib.SMTP_SSL('localhost', {}, context=context)\n\
         s.sendmail('a@x.example', ['alice@example.org'], 'Subject: hi\\n\\n' + 'x' * 900 * 1000); s.quit()\n",
        port(&starttls),
        port(&implicit)
    );
    expect_success("python3", &["-c", &script]).await;
    assert_eq!(server.whole_log().await.len(), 7);
}

#[tokio::test]
async fn nothing_that_came_in_the_clear_is_run_after_the_handshake() {
    let certificate = Certificate::new();
    let server = started(&certificate).await;
    let injected = "EHLO c\r\nSTARTTLS\r\nMAIL FROM:<>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\nx\r\n.\r\n";
    let said = told(&server.smtp, injected.as_bytes()).await;
    assert!(said.contains("554 5.5.1") && !said.contains("250 2.1.0"), "{said}");

    // What comes later, but before the handshake, is none.
    let script = format!(
        "import socket\n\
         s = socket.create_connection(('127.0.0.1', {})); f = s.makefile('rb')\n\
         s.sendall(b'STARTTLS\\r\\n')\n\
         assert f.readline().startswith(b'220'), 'greeting'\n\
         assert f.readline().startswith(b'220 2.0.0')\n\
         s.sendall(b'EHLO c\\r\\nMAIL FROM:<>\\r\\n')\n\
         rest = f.read()\n\
         assert b'250' not in rest, rest\n",
        port(&server.smtp)
    );
    expect_success("python3", &["-c", &script]).await;
    // And the session after the handshake knows nothing of what was said before.
    let script = format!(
        "import smtplib, ssl\n\
         s = smtplib.SMTP('localhost', {})\n\
         s.ehlo(); s.mail('a@x.example')\n\
         assert s.rcpt('alice@example.org')[0] == 250\n\
         s.docmd('STARTTLS')\n\
         s.sock = ssl._create_unverified_context().wrap_socket(s.sock); s.file = None\n\
         assert s.docmd('DATA')[0] == 503\n\
         assert s.docmd('MAIL FROM:<>')[0] == 503, 'EHLO is due again'\n\
         s.ehlo()\n\
         assert s.docmd('STARTTLS')[0] == 503\n\
         assert s.docmd('RCPT TO:<alice@example.org>')[0] == 503\n",
        port(&server.smtp)
    );
    expect_success("python3", &["-c", &script]).await;
    assert_eq!(server.whole_log().await.len(), 0);
}

#[tokio::test]
async fn a_handshake_that_does_not_come_ends_at_its_deadline() {
    let certificate = Certificate::new();
    let config = format!("[smtp]\ncommand_timeout = '1s'\n{}tls = 'implicit'\n{ACCOUNT}", certificate.settings());
    let server = Server::with(Options { config, ..Options::default() }).await;
    assert_eq!(told(&server.smtp, b"").await, "", "a client that says nothing hears nothing");
    assert!(!told(&server.smtp, b"EHLO c\r\n").await.contains("220"), "nothing in the clear");
    let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("postrider_smtp_tls_failures_total 2"), "{metrics}");
}

/// `postrider run` with this certificate: its exit code and what it said.
async fn refused(certificate: &Path, key: &Path) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("postrider.toml");
    let text = format!(
        "[smtp]\nlisten = '127.0.0.1:0'\ntls_certificate_file = '{}'\ntls_key_file = '{}'\n",
        certificate.display(),
        key.display()
    );
    std::fs::write(&file, text).unwrap();
    let data = folder.path().join("data");
    let output = run(
        env!("CARGO_BIN_EXE_postrider"),
        &["--config", file.to_str().unwrap(), "--data-dir", data.to_str().unwrap(), "run", "--http", "127.0.0.1:0"],
    )
    .await;
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_a_configuration_error() {
    let (own, other) = (Certificate::new(), Certificate::new());
    let missing = Path::new("/no/such/key.pem");
    for (certificate, key, words) in [
        (&own.chain, missing, &["/no/such/key.pem", "No such file"][..]),
        (&own.key, &own.key, &["key.pem", "no certificate"]),
        (&own.chain, &other.key, &["cert.pem", "key.pem", "do not belong together"]),
    ] {
        let (code, said) = refused(certificate, key).await;
        assert_eq!(code, Some(78), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
}

#[tokio::test]
async fn check_says_what_clients_will_make_of_the_certificate() {
    let certificate = Certificate::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("postrider.toml");
    std::fs::write(&file, format!("[smtp]\nlisten = '127.0.0.1:0'\n{}", certificate.settings())).unwrap();
    let data = folder.path().join("data");
    let arguments = ["--config", file.to_str().unwrap(), "--data-dir", data.to_str().unwrap(), "check"];
    let said = expect_success(env!("CARGO_BIN_EXE_postrider"), &arguments).await;
    assert!(said.contains("cert.pem can be used") && said.contains("do not know who signed it"), "{said}");
    std::fs::write(&certificate.chain, "").unwrap();
    let broken = run(env!("CARGO_BIN_EXE_postrider"), &arguments).await;
    let said = String::from_utf8_lossy(&broken.stdout).into_owned();
    assert!(broken.status.code() == Some(69) && said.contains("WRONG") && said.contains("no certificate"), "{said}");
}

/// The certificate that the server shows.
async fn shown(server: &Server) -> String {
    let script =
        format!("import ssl\nprint(ssl.get_server_certificate(('127.0.0.1', {})))", port(&server.listeners[0]));
    expect_success("python3", &["-c", &script]).await.replace("\r\n", "\n").trim().to_owned()
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_after_sighup_and_a_broken_one_never() {
    let certificate = Certificate::new();
    let server = started(&certificate).await;
    let file = || std::fs::read_to_string(&certificate.chain).unwrap().replace("\r\n", "\n").trim().to_owned();
    let first = file();
    assert_eq!(shown(&server).await, first);
    certificate.renew();
    assert_ne!(file(), first);
    server.signal("HUP").await;
    eventually("the new certificate", async || (shown(&server).await == file()).then_some(())).await;
    let second = file();
    std::fs::write(&certificate.key, "broken").unwrap();
    server.signal("HUP").await;
    server.signal("HUP").await;
    assert_eq!(shown(&server).await, second);
}
