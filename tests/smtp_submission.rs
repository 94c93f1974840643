//! Submission: programs that log in over TLS and write to postrider's accounts, as swaks, curl, msmtp and Python's smtplib do
//! it; and what becomes of those that guess.

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

use support::server::{Options, Server};
use support::within;
use tempfile::TempDir;

const ACCOUNTS: &str = "
    [[account]]
    name = 'alice'
    addresses = ['alice@example.org']
    [[account]]
    name = 'bob'
    addresses = ['bob@example.org']
";

const PASSWORD: &str = "correct horse, battery=staple";

/// A server with submission by STARTTLS and by implicit TLS.
struct Submission {
    server: Server,
    folder: TempDir,
    certificate: PathBuf,
    starttls: u16,
    implicit: u16,
}

impl Submission {
    async fn start(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let own_key = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&own_key).unwrap();
        std::fs::write(&certificate, own.pem()).unwrap();
        std::fs::write(&key, own_key.serialize_pem()).unwrap();
        let password = folder.path().join("password");
        std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
        let config = format!(
            "[smtp]\ntls_certificate_file = '{}'\ntls_key_file = '{}'\nauth_failure_delay = '10ms'\n{settings}\n\
             [[smtp.user]]\nname = 'printer'\npassword_file = '{}'\n\
             [[smtp.user]]\nname = 'backup'\npassword_command = ['echo', 'b']\naccounts = ['bob']\n\
             [[smtp.listener]]\nrole = 'submission'\nlisten = '0.0.0.0:0'\n\
             [[smtp.listener]]\nrole = 'submission'\nlisten = '127.0.0.1:0'\ntls = 'implicit'\n{ACCOUNTS}",
            certificate.display(),
            key.display(),
            password.display()
        );
        let server = Server::with(Options { config, ..Options::default() }).await;
        let port = |at: usize| server.listeners[at].rsplit_once(':').unwrap().1.parse().unwrap();
        let (starttls, implicit) = (port(0), port(1));
        Self { server, folder, certificate, starttls, implicit }
    }

    async fn metric(&self, name: &str) -> u64 {
        let text = self.server.get("/metrics").send().await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }
}

/// Runs a program; whether it succeeded, and what it said.
async fn run(program: &str, arguments: &[&str], input: Option<&str>) -> (bool, String) {
    let mut command = tokio::process::Command::new(program);
    let stdin = match input {
        Some(text) => {
            let mut file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
            std::io::Seek::rewind(&mut file).unwrap();
            Stdio::from(file)
        }
        None => Stdio::null(),
    };
    let output = within(program, command.args(arguments).stdin(stdin).kill_on_drop(true).output()).await;
    let output = output.unwrap_or_else(|err| panic!("{program}: {err}"));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

async fn succeeds(program: &str, arguments: &[&str]) {
    let (success, said) = run(program, arguments, Some("Subject: hi\r\n\r\nhi\r\n")).await;
    assert!(success, "{program} {arguments:?}: {said}");
}

#[tokio::test]
async fn swaks_and_smtplib_log_in_by_plain_and_login() {
    let submission = Submission::start("").await;
    for mechanism in ["PLAIN", "LOGIN"] {
        for (port, tls) in [(submission.starttls, "--tls"), (submission.implicit, "--tls-on-connect")] {
            let server = format!("localhost:{port}");
            let login = ["--auth", mechanism, "--auth-user", "printer", "--auth-password", PASSWORD];
            let mail = ["--server", &server, tls, "--from", "a@x.example", "--to", "alice@example.org"];
            succeeds("swaks", &[&mail[..], &login].concat()).await;
        }
    }
    let script = format!(
        "import smtplib, ssl\n\
         context = ssl.create_default_context(cafile='{}')\n\
         s = smtplib.SMTP('localhost', {})\n\
         s.starttls(context=context); s.login('printer', '{PASSWORD}')\n\
         assert s.docmd('AUTH PLAIN')[0] == 503, 'once is enough'\n\
         s.sendmail('a@x.example', ['alice@example.org'], 'Subject: hi\\n\\n.\\n')\n\
         assert s.docmd('MAIL', 'FROM:<> BODY=BINARYMIME')[0] == 501\n\
         assert s.docmd('MAIL', 'FROM:<> REQUIRETLS')[0] == 555\n\
         assert s.docmd('MAIL', 'FROM:<> AUTH=<>')[0] == 250; s.quit()\n\
         s = smtplib.SMTP_SSL('localhost', {}, context=context)\n\
         s.login('backup', 'b', initial_response_ok=False)\n\
         refused = s.sendmail('a@x.example', ['alice@example.org', 'bob@example.org'], 'Subject: hi\\n\\n.\\n')\n\
         assert {{k: v[0] for k, v in refused.items()}} == {{'alice@example.org': 550}}, refused\n\
         s.quit()\n",
        submission.certificate.display(),
        submission.starttls,
        submission.implicit
    );
    succeeds("python3", &["-c", &script]).await;
    assert_eq!(submission.server.whole_log().await.len(), 6);
    assert_eq!(submission.metric("postrider_smtp_auth_successes_total").await, 6);
}

#[tokio::test]
async fn msmtp_logs_in_by_scram_and_curl_by_token() {
    let submission = Submission::start("").await;
    let certificate = submission.certificate.to_str().unwrap();
    let token = submission.server.token_for(&["--publish", "mail/alice/{mailbox}"]).await;
    let common = |port: u16| {
        let port = format!("--port={port}");
        let fixed = ["--host=localhost", "--from=a@x.example", "--tls=on", "--user=printer"].map(str::to_owned);
        [&[port, format!("--tls-trust-file={certificate}")][..], &fixed].concat()
    };
    let password = format!("--passwordeval=printf %s '{PASSWORD}'");
    let scram = [
        &common(submission.implicit)[..],
        &["--tls-starttls=off".to_owned(), "--auth=scram-sha-256".to_owned(), password],
    ]
    .concat();
    let scram: Vec<&str> = scram.iter().map(String::as_str).chain(["--", "alice@example.org"]).collect();
    succeeds("msmtp", &scram).await;
    let wrong: Vec<&str> = scram
        .iter()
        .map(|&word| if word.starts_with("--passwordeval") { "--passwordeval=echo x" } else { word })
        .collect();
    let (success, said) = run("msmtp", &wrong, Some("Subject: x\n\nx\n")).await;
    assert!(!success && said.contains("535"), "{said}");

    let bearer = format!("--passwordeval=printf %s '{token}'");
    let bearer =
        [&common(submission.starttls)[..], &["--tls-starttls=on".to_owned(), "--auth=oauthbearer".to_owned(), bearer]]
            .concat();
    let bearer: Vec<&str> = bearer.iter().map(String::as_str).chain(["--", "alice@example.org"]).collect();
    succeeds("msmtp", &bearer).await;

    let url = format!("smtp://localhost:{}", submission.starttls);
    let mail = submission.folder.path().join("mail.txt");
    std::fs::write(&mail, "Subject: from curl\r\n\r\nhi\r\n").unwrap();
    let curl = |token: &str, to: &str| {
        let login = ["--login-options", "AUTH=OAUTHBEARER", "--user", "printer", "--oauth2-bearer", token];
        let transfer = ["--mail-from", "a@x.example", "--mail-rcpt", to, "-T", mail.to_str().unwrap(), &url];
        let all = [&["-sS", "--ssl-reqd", "--cacert", certificate][..], &login, &transfer].concat();
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let curl = async |token: &str, to: &str| {
        let arguments = curl(token, to);
        run("curl", &arguments.iter().map(String::as_str).collect::<Vec<_>>(), None).await
    };
    let (success, said) = curl(&token, "alice@example.org").await;
    assert!(success, "{said}");
    assert!(!curl(&token, "bob@example.org").await.0, "the token is for alice's mailboxes");
    assert!(!curl("not.a.token", "alice@example.org").await.0);
    let reader = submission.server.token_for(&["--subscribe", "*"]).await;
    assert!(!curl(&reader, "alice@example.org").await.0, "who may read may not write");
    assert_eq!(submission.server.whole_log().await.len(), 3);
}

#[tokio::test]
async fn who_guesses_is_locked_out_and_nobody_else() {
    let submission = Submission::start("auth_failures_max = 3").await;
    let script = format!(
        "import smtplib, ssl\n\
         def attempt(name, password):\n\
        \x20   s = smtplib.SMTP('localhost', {})\n\
        \x20   s.starttls(context=ssl._create_unverified_context())\n\
        \x20   s.ehlo(); s.user, s.password = name, password\n\
        \x20   try: return s.auth('plain', s.auth_plain)\n\
        \x20   except smtplib.SMTPAuthenticationError as err: return err.smtp_code, err.smtp_error\n\
         guesses = [[attempt(name, 'guess') for _ in range(4)] for name in ('printer', 'nobody')]\n\
         assert guesses[0] == guesses[1], guesses\n\
         assert [code for code, _ in guesses[0]] == [535, 535, 421, 421], guesses\n\
         assert attempt('printer', '{PASSWORD}')[0] == 421, 'the right one comes too late'\n\
         assert attempt('backup', 'b')[0] == 235\n",
        submission.starttls
    );
    succeeds("python3", &["-c", &script]).await;
    assert_eq!(submission.metric("postrider_smtp_auth_failures_total").await, 6);
    assert_eq!(submission.server.whole_log().await.len(), 0);
}
