//! What `postrider check` says of all that takes mail in: it finds before the start what would fail at it, or later.

#![allow(clippy::panic, reason = "helpers of tests fail the test as the tests do")]

mod support;

use std::fs;

use support::check::Checked;
use support::name_server::{Answer, Scripted};

/// The line that begins with this.
fn line<'a>(told: &'a str, part: &str) -> &'a str {
    told.lines().find(|line| line.starts_with(part)).unwrap_or_else(|| panic!("{part}: {told}"))
}

#[tokio::test]
async fn missing_secrets_are_found_one_by_one() {
    let checked = Checked::new();
    let secret = checked.file("secret", "0123456789abcdef\n");
    let config = |file: &str| {
        format!(
            "[[smtp.listener]]\nrole = \"submission\"\nlisten = \"127.0.0.1:0\"\n\
             [[smtp.user]]\nname = \"printer\"\npassword_file = \"{file}\"\n\
             [mail_over_http]\npostmark_secret_file = \"{file}\"\n[dovecot]\nsecret_file = \"{file}\"\n\
             [[account]]\nname = \"alice\"\naddresses = [\"a@example.org\"]\naddress_secret_file = \"{file}\"\n"
        )
    };
    let (code, told) = checked.check(&config(&secret)).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(line(&told, "mail over HTTP").ends_with("Postmark may post"), "{told}");
    assert!(!told.contains("0123456789abcdef"), "no secret is shown");

    let (code, told) = checked.check(&config("/no/such/file")).await;
    assert!(code == Some(69) && told.contains("4 of the configured parts do not work"), "{told}");
    for (part, advice) in [
        ("user printer", "[[smtp.user]]"),
        ("Dovecot", "[dovecot]"),
        ("mail over HTTP", "[mail_over_http]"),
        ("secrets", "address_secret_file"),
    ] {
        let wrong = line(&told, part);
        assert!(wrong.contains("WRONG") && wrong.contains(advice) && wrong.contains("/no/such/file"), "{wrong}");
    }
}

#[tokio::test]
async fn name_servers_are_asked_where_mail_is_verified() {
    let good = Scripted::start(|_| Answer::NoSuchName).await;
    let dead = Scripted::start(|_| Answer::Silence).await;
    let servers = format!(
        "smtp.message_authentication = {{ verify = true, timeout = \"1s\", resolver = [\"{}\", \"{}\"] }}\n",
        good.address, dead.address
    );
    let checked = Checked::new();
    let (code, told) = checked.check(&servers).await;
    assert_eq!(code, Some(69), "{told}");
    assert!(told.contains(&format!("name server    {} answered after ", good.address)), "{told}");
    let wrong = format!("name server    WRONG: {}: does not look up names", dead.address);
    assert!(told.contains(&wrong) && told.contains("smtp.message_authentication.resolver"), "{told}");

    let asked = good.questions();
    let (code, told) = checked.check(&servers.replace("verify = true, ", "")).await;
    assert!(code == Some(0) && good.questions() == asked, "only this machine reaches it: {told}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_told() {
    let checked = Checked::new();
    let config = "[[account]]\nname = \"alice\"\naddresses = [\"a@example.org\"]\nattachments = true\n";
    let (code, told) = checked.check(config).await;
    assert!(code == Some(0) && line(&told, "attachments").contains("is made when it is needed"), "{told}");
    for name in ["attachments", "spool"] {
        fs::write(checked.folder.path().join("data").join(name), "no folder").unwrap();
    }
    let (code, told) = checked.check(config).await;
    assert_eq!(code, Some(69), "{told}");
    for part in ["attachments", "spool"] {
        let wrong = line(&told, part);
        assert!(wrong.contains("WRONG") && wrong.contains("remove it"), "{wrong}");
    }
}

#[tokio::test]
async fn what_is_open_or_does_nothing_is_noted_and_works() {
    let checked = Checked::new();
    let lmtp = "[[smtp.listener]]\nrole = \"lmtp\"\nlisten = \"0.0.0.0:0\"\nmode = \"0666\"\n";
    let (code, told) = checked.check(lmtp).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("note     LMTP has no login") && told.contains("firewall"), "{told}");
    assert!(told.contains("postrider.toml:6:1: `mode` does nothing: it is for Unix sockets"), "{told}");
    let (_, told) = checked.check(&lmtp.replace("0.0.0.0", "127.0.0.1").replace("mode", "# mode")).await;
    assert!(!told.contains("note"), "{told}");
}
