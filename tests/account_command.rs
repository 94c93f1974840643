//! `postrider account`: what a person stores from the terminal is what a server then uses, and is shown nowhere.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Stdio;

use support::dovecot::{Dovecot, PASSWORD};
use support::oidc::Oidc;
use support::within;
use tempfile::{TempDir, tempdir};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

/// A folder with a configuration whose accounts have these `[account.imap]`.
fn configured(accounts: &[(&str, String)]) -> TempDir {
    let folder = tempdir().unwrap();
    let mut text = "http.listen = '127.0.0.1:0'\nsmtp.enabled = false\n".to_owned();
    for (name, imap) in accounts {
        text = text + "[[account]]\nname = '" + name + "'\n" + imap;
    }
    fs::write(folder.path().join("p.toml"), text).unwrap();
    folder
}

fn postrider(folder: &Path, args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    command.env_clear().env("POSTRIDER_DATA_DIR", folder.join("data")).args(args);
    command.arg("--config").arg(folder.join("p.toml"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

/// Exit code, and all that it said.
async fn ended(folder: &Path, args: &[&str], input: &str) -> (Option<i32>, String) {
    let mut child = postrider(folder, args);
    // A command that reads nothing may have ended before.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()).await);
    let output = within("the command", child.wait_with_output()).await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn plain(dovecot: &Dovecot) -> String {
    let port = dovecot.imap_port;
    format!("[account.imap]\nhost = '127.0.0.1'\nport = {port}\nsecurity = 'none'\nusername = 'alice'\n")
}

#[tokio::test]
async fn a_password_from_a_pipe_is_used_until_it_is_forgotten() {
    let dovecot = Dovecot::start();
    let folder = configured(&[("alice", plain(&dovecot))]);
    let folder = folder.path();
    let (code, said) = ended(folder, &["check"], "").await;
    assert!(code == Some(69) && said.contains("postrider account password"), "{said}");

    let (code, said) = ended(folder, &["account", "password", "alice"], &format!("{PASSWORD}\nmore\n")).await;
    assert!(code == Some(0) && !said.contains(PASSWORD), "{said}");
    let (code, said) = ended(folder, &["check"], "").await;
    assert!(code == Some(0) && said.contains("logged in"), "{said}");

    let (code, said) = ended(folder, &["account", "rekey"], "").await;
    assert!(code == Some(0) && said.starts_with("1 secrets are sealed with a new key"), "{said}");
    assert_eq!(ended(folder, &["check"], "").await.0, Some(0));

    assert_eq!(ended(folder, &["account", "forget", "alice"], "").await, (Some(0), "removed\n".to_owned()));
    assert_eq!(ended(folder, &["check"], "").await.0, Some(69));
}

#[tokio::test]
async fn what_cannot_be_stored_is_said_with_what_to_do() {
    let dovecot = Dovecot::start();
    let folder = configured(&[("alice", plain(&dovecot)), ("bob", "addresses = ['bob@example.org']\n".to_owned())]);
    let folder = folder.path();
    for (args, input, code, text) in [
        (["account", "password", "carol"], "x\n", 78, "there is no account `carol`"),
        (["account", "password", "bob"], "x\n", 78, "no [account.imap]"),
        (["account", "password", "alice"], "\n", 1, "no password"),
        (["account", "login", "alice"], "", 78, "no [account.imap.oauth]"),
    ] {
        let (ended, said) = ended(folder, &args, input).await;
        assert!(ended == Some(code) && said.contains(text), "{args:?}: {ended:?} {said}");
    }
}

#[tokio::test]
async fn a_login_shows_an_address_and_stores_what_comes_of_it() {
    let oidc = Oidc::start().await;
    oidc.known().rotates = true;
    let oauth = format!(
        "[account.imap]\nhost = 'imap.example.org'\nusername = 'alice'\n\
         [account.imap.oauth]\nprovider = '{}'\nclient_id = 'postrider-test'\n",
        oidc.issuer
    );
    let folder = configured(&[("alice", oauth)]);
    let mut child = postrider(folder.path(), &["account", "login", "alice"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = loop {
        let line = within("the address", lines.next_line()).await.unwrap().expect("an address");
        if line.starts_with("http") {
            break line;
        }
    };
    reqwest::get(&url).await.unwrap();
    let output = within("the login's end", child.wait_with_output()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = lines.next_line().await.unwrap();
    assert_eq!(said.unwrap_or_default(), "");
    let said = lines.next_line().await.unwrap().unwrap();
    assert!(said.starts_with("alice may be read now"), "{said}");

    let (code, said) = ended(folder.path(), &["account", "login", "alice", "--device"], "").await;
    assert!(code == Some(0) && said.contains("WDJB-MJHT") && !said.contains("refresh-"), "{said}");
}
