//! Each way to log in, against a real Dovecot, and what a server may not do to get a password or to fake a login.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use postrider::registry::{Account, Credentials, CredentialsConfig, Field, ImapEndpoint, LoginMechanism};
use postrider::source::imap::{ImapConfig, ImapError, Refusal, probe, probe_account};
use secrecy::SecretString;
use support::dovecot::{Dovecot, PASSWORD};
use support::scripted_imap::ScriptedImap;
use support::watching::config;
use tempfile::tempdir;

const ALL: &str = "auth_mechanisms = plain login scram-sha-256\n";

fn endpoint(account: &mut Account) -> &mut ImapEndpoint {
    account.imap.as_mut().unwrap()
}

#[tokio::test]
async fn every_mechanism_for_passwords_gets_in_and_refuses_a_wrong_one() {
    let dovecot = Dovecot::start_with(ALL);
    for (mechanism, method) in [
        (None, "SCRAM-SHA-256"),
        (Some(LoginMechanism::ScramSha256), "SCRAM-SHA-256"),
        (Some(LoginMechanism::Plain), "PLAIN"),
        (Some(LoginMechanism::Login), "LOGIN"),
    ] {
        let mut account = dovecot.account("alice", &["INBOX"]);
        endpoint(&mut account).mechanism = mechanism;
        let report = probe(endpoint(&mut account), &config()).await.unwrap();
        assert_eq!(report.method, Some(method));
        assert!(report.capabilities.iter().any(|capability| capability == "IDLE"), "{:?}", report.capabilities);
        assert!(report.server_id.contains(&("name".to_owned(), "Dovecot".to_owned())), "{:?}", report.server_id);
        endpoint(&mut account).password_typed = Some(SecretString::from("wrong"));
        let err = probe(endpoint(&mut account), &config()).await.unwrap_err();
        assert!(err.is_auth() && err.refusal() == Some(Refusal::Credentials), "{method}: {err}");
        assert!(err.to_string().contains(method), "{err}");
    }
}

#[tokio::test]
async fn the_mechanism_login_is_used_where_the_command_is_not_allowed() {
    let script = async |server: &ScriptedImap| {
        let mut peer = server.accept().await;
        peer.send("* OK [CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=LOGIN] ready\r\n").await;
        let tag = peer.command("AUTHENTICATE LOGIN").await;
        peer.send("+ VXNlcm5hbWU6\r\n").await;
        assert_eq!(peer.line().await, BASE64.encode("alice"));
        peer.send("+ UGFzc3dvcmQ6\r\n").await;
        assert_eq!(peer.line().await, BASE64.encode("secret"));
        peer.send(&format!("{tag} NO [AUTHENTICATIONFAILED] no\r\n")).await;
    };
    let server = ScriptedImap::start().await;
    let account = server.account();
    let config = config();
    let (probed, ()) = tokio::join!(probe(account.imap.as_ref().unwrap(), &config), script(&server));
    assert!(probed.unwrap_err().is_auth());
}

#[tokio::test]
async fn no_password_leaves_for_a_server_that_takes_none() {
    let server = ScriptedImap::start().await;
    let account = server.account();
    let script = async {
        let mut peer = server.accept().await;
        peer.send("* OK [CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=GSSAPI] ready\r\n").await;
        peer.closed().await;
    };
    let config = config();
    let (probed, ()) = tokio::join!(probe(account.imap.as_ref().unwrap(), &config), script);
    assert!(matches!(probed, Err(ImapError::NoLoginMethod(..))));
}

/// Who sits in the server's place without the password cannot make us believe that we are logged in.
#[tokio::test]
async fn an_ok_to_scram_without_the_servers_proof_is_no_login() {
    let server = ScriptedImap::start().await;
    let account = server.account();
    let script = async {
        let mut peer = server.accept().await;
        peer.send("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=SCRAM-SHA-256] ready\r\n").await;
        let line = peer.line().await;
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[1..3], ["AUTHENTICATE", "SCRAM-SHA-256"], "with its initial response: {line}");
        let first = String::from_utf8(BASE64.decode(words[3]).unwrap()).unwrap();
        let nonce = first.rsplit("r=").next().unwrap();
        peer.send(&format!("+ {}\r\n", BASE64.encode(format!("r={nonce}x,s=c2FsdA==,i=4096")))).await;
        let proof = String::from_utf8(BASE64.decode(peer.line().await).unwrap()).unwrap();
        assert!(proof.starts_with("c=biws,r=") && !proof.contains("secret"), "{proof}");
        peer.send(&format!("{} OK [CAPABILITY IMAP4rev1 IDLE] welcome\r\n", words[0])).await;
        peer.closed().await;
    };
    let config = config();
    let (probed, ()) = tokio::join!(probe(account.imap.as_ref().unwrap(), &config), script);
    let err = probed.unwrap_err();
    assert!(matches!(err, ImapError::Sasl(_)), "{err}");
}

#[tokio::test]
async fn a_server_that_never_stops_talking_does_not_hold_the_login_up_for_ever() {
    let server = ScriptedImap::start().await;
    let account = server.account();
    let script = async {
        let mut peer = server.accept().await;
        peer.send("* OK [CAPABILITY IMAP4rev1] ready\r\n").await;
        peer.command("LOGIN").await;
        loop {
            if !peer.try_send("* OK still here\r\n").await {
                break;
            }
            tokio::time::timeout(std::time::Duration::from_millis(200), std::future::pending::<()>())
                .await
                .unwrap_err();
        }
    };
    let second = std::time::Duration::from_secs(1);
    let config = ImapConfig { connect_timeout: second, login_timeout: second, ..config() };
    let (probed, ()) = tokio::join!(probe(account.imap.as_ref().unwrap(), &config), script);
    assert!(matches!(probed, Err(ImapError::Timeout("logging in", _))));
}

#[tokio::test]
async fn a_stored_password_is_used_where_the_configuration_names_none() {
    let (dovecot, folder) = (Dovecot::start(), tempdir().unwrap());
    let mut account = dovecot.account("alice", &["INBOX"]);
    endpoint(&mut account).password_typed = None;
    let credentials = Credentials::new(folder.path(), &CredentialsConfig::default());
    let without =
        probe_account(&account.name, account.imap.as_ref().unwrap(), &config(), Some(credentials.clone())).await;
    let err = without.unwrap_err();
    assert!(err.to_string().contains("postrider account password"), "{err}");
    credentials.write(&account.name, Field::Password, &SecretString::from(PASSWORD)).unwrap();
    probe_account(&account.name, account.imap.as_ref().unwrap(), &config(), Some(credentials)).await.unwrap();
}

/// Coremail wants to know the program before it lets anybody in, and refuses what its SASL-IR promises.
#[tokio::test]
async fn a_servers_quirks_are_minded() {
    let (server, folder) = (ScriptedImap::start().await, tempdir().unwrap());
    let file = folder.path().join("providers.toml");
    let quirks = "[[provider]]\nhosts = ['127.0.0.1']\nid_before_login = true\nno_sasl_ir = true\nno_idle = true\n";
    std::fs::write(&file, quirks).unwrap();
    let config = ImapConfig { providers_file: Some(file), ..config() };
    let account = server.account();
    let script = async {
        let mut peer = server.accept().await;
        peer.send("* OK [CAPABILITY IMAP4rev1 SASL-IR IDLE AUTH=PLAIN] Coremail System IMap Server Ready\r\n").await;
        // Whatever is answered: it changes nothing.
        let tag = peer.command("ID (\"name\" \"postrider\"").await;
        peer.send(&format!("{tag} BAD Parse command error\r\n")).await;
        let tag = peer.command("AUTHENTICATE PLAIN").await;
        peer.send("+ \r\n").await;
        assert_eq!(peer.line().await, BASE64.encode("\0alice\0secret"));
        peer.send(&format!("{tag} OK [CAPABILITY IMAP4rev1 IDLE] done\r\n")).await;
        peer.answer("ID (", "* ID NIL\r\n").await;
        peer.answer("LIST", "* LIST () \"/\" \"INBOX\"\r\n").await;
        peer.answer("EXAMINE", "* 0 EXISTS\r\n* OK [UIDVALIDITY 1] ok\r\n* OK [UIDNEXT 1] ok\r\n").await;
        peer.command("LOGOUT").await;
    };
    let (probed, ()) = tokio::join!(probe(account.imap.as_ref().unwrap(), &config), script);
    let report = probed.unwrap();
    assert!(!report.idle && report.server_id.is_empty());
}
