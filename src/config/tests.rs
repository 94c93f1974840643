//! What a configuration may be, and what is said of one that cannot be.

use std::fs;

use serde_json::{Value, json};

use super::*;

/// Loads a text from a file `p.toml` in a folder of its own, with these variables.
fn load(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.toml");
    fs::write(&file, text).unwrap();
    let environment = variables.iter().map(|&(name, value)| (name.into(), value.into())).collect();
    Source { file: Some(file), environment }.load()
}

/// What is said, one line each, with the file called `p.toml`.
fn said(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    match load(text, variables) {
        Err(ConfigError::Invalid(problems)) => problems
            .iter()
            .map(|problem| {
                let line = problem.to_string();
                let words = line.split(' ').map(|word| match word.rfind("/p.toml") {
                    Some(at) => format!("{}{}", if word.starts_with('(') { "(" } else { "" }, &word[at + 1..]),
                    None => word.to_owned(),
                });
                words.collect::<Vec<_>>().join(" ")
            })
            .collect(),
        other => panic!("{text}: {other:?}"),
    }
}

/// The settings that do nothing, each as its key and its place.
fn idle(text: &str) -> Vec<String> {
    let shown = |problem: Problem| {
        let line = problem.to_string();
        let at = line.rfind("/p.toml").unwrap();
        let (place, message) = line[at + 1..].split_once(": ").unwrap();
        assert!(message.contains("remove"), "{message}");
        format!("{place} {}", message.split('`').nth(1).unwrap())
    };
    load(text, &[]).unwrap().idle().into_iter().map(shown).collect()
}

const IMAP: &str = "[account.imap]\nhost = 'h'\nusername = 'u'\n";

#[test]
fn nothing_at_all_is_the_default() {
    let loaded = load("", &[("HOME", "/"), ("POSTRIDER_IMAP_PASSWORD", "x"), ("POSTRIDER_URL", "x")]).unwrap();
    assert_eq!(json!(loaded.config), json!(Config::default()));
}

#[test]
fn unknown_keys_are_all_told_with_place_and_hint() {
    let text = "dat_dir = 'x'\n[log]\n  fliter = 'hunter2'\ngrace = '1s'\n[nonsense]\n[[account]]\nname = 'a'\n\
                [account.imap]\npassword = 'hunter2'\nhost = 'h'\n";
    let mut said = said(text, &[]);
    // Sections come and go: what matters is that they are all named.
    let sections = said.get_mut(3).map(|line| line.split_off("p.toml:5:2: unknown key `nonsense`; ".len()));
    assert!(sections.is_some_and(|list| list.starts_with("known here: ") && list.contains("`data_dir`")));
    assert_eq!(
        said,
        [
            "p.toml:1:1: unknown key `dat_dir`; did you mean `data_dir`?",
            "p.toml:3:3: unknown key `fliter`; did you mean `filter`?",
            "p.toml:4:1: unknown key `grace`; it belongs into `shutdown`",
            "p.toml:5:2: unknown key `nonsense`; ",
            "p.toml:8:1: missing field `username`",
            "p.toml:9:1: unknown key `password`; did you mean `password_command`, `password_env` or `password_file`?",
        ]
    );
}

#[test]
fn wrong_types_are_all_told_with_place() {
    let text = "[log]\nfilter = 3\nformat = 'xml'\n[shutdown]\ngrace = '10 parsecs'\n[[account]]\nname = ''\n\
                [[account]]\nname = 'b'\naddresses = ['x', 7]\n";
    assert_eq!(
        said(text, &[]),
        [
            "p.toml:2:10: invalid type: integer `3`, expected a string",
            "p.toml:3:10: unknown variant `xml`, expected `text` or `json`",
            "p.toml:5:9: invalid value: string \"10 parsecs\", expected a duration",
            "p.toml:7:8: an account name has 1 to 254 bytes and no control characters",
            "p.toml:10:19: invalid type: integer `7`, expected a string",
        ]
    );
    assert_eq!(said("log = 3\naccount = 'x'", &[]).len(), 2);
    assert_eq!(said("[log]\n[[log]]\n", &[]).len(), 1);
}

#[test]
fn broken_toml_is_told_without_its_content() {
    let said = said("[log\nfilter = \"hunter2\n\nx = = 1\nfoo = 1\n", &[]);
    assert!(said.len() >= 2 && said.iter().all(|line| !line.contains("hunter2")), "{said:#?}");
    assert!(said[0].starts_with("p.toml:1:5: "), "{said:#?}");
    assert!(matches!(load("\u{0}", &[]), Err(ConfigError::Invalid(_))));
}

#[test]
fn a_missing_or_unreadable_file_is_named() {
    let source = Source { file: Some("/no/such.toml".into()), environment: vec![] };
    assert_eq!(source.load().unwrap_err().to_string(), "cannot read the configuration file /no/such.toml");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("latin1.toml");
    fs::write(&file, b"# gr\xfcn").unwrap();
    let source = Source { file: Some(file), environment: vec![] };
    assert!(matches!(source.load(), Err(ConfigError::Read(..))));
}

#[test]
fn variables_override_every_kind_of_key() {
    let text = format!("data_dir = '/a'\n[log]\nfilter = 'warn'\n[[account]]\nname = 'alice@x.org'\n{IMAP}");
    let config = load(
        &text,
        &[
            ("POSTRIDER_DATA_DIR", "/b"),
            ("POSTRIDER_LOG__FILTER", "debug"),
            ("POSTRIDER_LOG__FORMAT", "json"),
            ("POSTRIDER_SHUTDOWN__GRACE", "3s"),
            ("POSTRIDER_AUTH__ALLOWED_ORIGINS", "https://a.org, https://b.org"),
            ("POSTRIDER_ACCOUNT__ALICE_X_ORG__ADDRESSES", "[\"a@x.org\", 'b@x.org']"),
            ("POSTRIDER_ACCOUNT__ALICE_X_ORG__CONTENT", "none"),
            ("POSTRIDER_ACCOUNT__ALICE_X_ORG__IMAP__PORT", "1143"),
            ("POSTRIDER_ACCOUNT__ALICE_X_ORG__IMAP__USERNAME", "12345"),
            ("POSTRIDER_ACCOUNT__ALICE_X_ORG__IMAP__PASSWORD_COMMAND", "pass,show,mail"),
            ("POSTRIDER_ACCOUNT__ALICE_X_ORG__IMAP__ALLOW_PLAINTEXT", "true"),
            ("POSTRIDER_ACCOUNT__BOB__ADDRESSES", "bob@x.org"),
        ],
    )
    .unwrap()
    .config;
    let value = json!(config);
    assert_eq!(value["data_dir"], "/b");
    assert_eq!(value["log"], json!({"filter": "debug", "format": "json"}));
    assert_eq!(value["shutdown"]["grace"], "3s");
    assert_eq!(value["auth"]["allowed_origins"], json!(["https://a.org", "https://b.org"]));
    let [alice, bob] = value["account"].as_array().unwrap().as_slice() else { panic!("{value}") };
    assert_eq!(alice["addresses"], json!(["a@x.org", "b@x.org"]));
    assert_eq!((alice["content"].as_str(), alice["imap"]["port"].as_u64()), (Some("none"), Some(1143)));
    assert_eq!((&alice["imap"]["username"], &alice["imap"]["host"]), (&json!("12345"), &json!("h")));
    assert_eq!(alice["imap"]["password_command"], json!(["pass", "show", "mail"]));
    assert_eq!(alice["imap"]["allow_plaintext"], true);
    assert_eq!((&bob["name"], &bob["addresses"]), (&json!("bob"), &json!(["bob@x.org"])));
}

#[test]
fn variables_make_a_whole_account_without_a_file() {
    let variables = [
        ("POSTRIDER_ACCOUNT__ALICE__IMAP__HOST", "imap.example.org"),
        ("POSTRIDER_ACCOUNT__ALICE__IMAP__USERNAME", "alice"),
        ("POSTRIDER_ACCOUNT__ALICE__IMAP__PASSWORD_ENV", "POSTRIDER_ALICE_PASSWORD"),
        ("POSTRIDER_ALICE_PASSWORD", "hunter2"),
    ];
    let config = load("", &variables).unwrap().config;
    assert_eq!(config.account[0].imap.as_ref().unwrap().host, "imap.example.org");
}

#[test]
fn wrong_variables_are_all_told_by_name() {
    assert_eq!(
        said(
            "",
            &[
                ("POSTRIDER_ACCOUNT__ALICE", "x"),
                ("POSTRIDER_ACCOUNT__ALICE__IMAP__PASSWORD", "hunter2"),
                ("POSTRIDER_AUTH__ALLOWED_ORIGINS", "a.org"),
                ("POSTRIDER_LOG", "x"),
                ("POSTRIDER_LOG_FILTER", "x"),
                ("POSTRIDER_LOG__FORMAT", "xml"),
                ("POSTRIDER_SHUTDOWN__GRACE", "5"),
                ("POSTRIDER_WHATEVER", "x"),
            ]
        ),
        [
            "POSTRIDER_ACCOUNT__ALICE: name the account and the key, as POSTRIDER_ACCOUNT__ALICE__CONTENT",
            "POSTRIDER_ACCOUNT__ALICE__IMAP__PASSWORD: unknown variable; did you mean \
             `POSTRIDER_ACCOUNT__ALICE__IMAP__PASSWORD_COMMAND`, `POSTRIDER_ACCOUNT__ALICE__IMAP__PASSWORD_ENV` or \
             `POSTRIDER_ACCOUNT__ALICE__IMAP__PASSWORD_FILE`?",
            "POSTRIDER_AUTH__ALLOWED_ORIGINS: not an origin: expected `https://host` or `https://host:port` and nothing \
             behind it",
            "POSTRIDER_LOG: is a section; name one of its keys, as POSTRIDER_LOG__KEY",
            "POSTRIDER_LOG_FILTER: unknown variable; did you mean `POSTRIDER_LOG__FILTER`?",
            "POSTRIDER_LOG__FORMAT: unknown variant `xml`, expected `text` or `json`",
            "POSTRIDER_SHUTDOWN__GRACE: invalid type: integer `5`, expected a duration",
            "POSTRIDER_WHATEVER: unknown variable; a key is set by POSTRIDER_SECTION__KEY, with two underscores between \
             section and key",
        ]
    );
}

#[test]
fn settings_that_contradict_each_other_are_told_with_both_places() {
    let text = "[[account]]\nname = 'a'\naddresses = ['A@x.org', 'b@x.org']\n[account.imap]\nhost = 'imap.x.org'\n\
                username = 'u'\nsecurity = 'none'\npassword_file = 'p'\npassword_env = 'P'\n\
                [[account]]\nname = 'a'\naddresses = ['a@X.org']\n[account.imap]\nhost = 'localhost'\nusername = ''\n\
                security = 'none'\nca_file = 'c'\nmailboxes = ['Inbox', 'INBOX']\n";
    assert_eq!(
        said(text, &[]),
        [
            "p.toml:7:1: account `a`: `security` (p.toml:7:1) is \"none\", and `host` (p.toml:5:1) is not this machine: \
             anybody on the way could read the password; use \"tls\" or \"starttls\", or set `allow_plaintext = true` if \
             the way is protected otherwise",
            "p.toml:9:1: account `a`: `password_file` (p.toml:8:1) and `password_env` (p.toml:9:1) each give a password or \
             token; keep one",
            "p.toml:11:1: there is another account `a`, see its `name` (p.toml:2:1); rename one of them",
            "p.toml:12:14: the address `a@X.org` of account `a` is given before, in `addresses` (p.toml:3:14) of account \
             `a`; mail to it can go to one of them only",
            "p.toml:15:1: account `a`: `username` is empty",
            "p.toml:17:1: account `a`: `ca_file` (p.toml:17:1) is of no use with `security` (p.toml:16:1) \"none\"; \
             remove one of them",
            "p.toml:18:1: account `a`: `mailboxes` has `INBOX` twice; remove one",
        ]
    );
    let variable = ("POSTRIDER_ACCOUNT__A__IMAP__PASSWORD_ENV", "P");
    let text = format!("[[account]]\nname = 'a'\n{IMAP}password_file = 'p'\n");
    assert_eq!(
        said(&text, &[variable]),
        ["POSTRIDER_ACCOUNT__A__IMAP__PASSWORD_ENV: account `a`: `password_file` (p.toml:6:1) and `password_env` \
          (POSTRIDER_ACCOUNT__A__IMAP__PASSWORD_ENV) each give a password or token; keep one"]
    );
    assert!(said("log.filter = 'a=b=c'", &[])[0].starts_with("p.toml:1:5: `log.filter` must be a level"));
}

#[test]
fn paths_of_the_file_start_at_its_folder() {
    let text = format!("data_dir = 'data'\n[[account]]\nname = 'a'\n{IMAP}password_file = 'p'\nca_file = '/etc/ca'\n");
    let variable = ("POSTRIDER_ACCOUNT__B__IMAP", "{ host = 'h', username = 'u', password_file = 'q' }");
    assert!(load(&text, &[variable]).is_err(), "a section is not a value");
    let loaded = load(&text, &[]).unwrap();
    let folder = loaded.file.as_ref().unwrap().parent().unwrap();
    let imap = loaded.config.account[0].imap.clone().unwrap();
    assert_eq!(loaded.config.data_dir().unwrap(), folder.join("data"));
    assert_eq!(imap.password_file.clone().unwrap(), folder.join("p"));
    assert_eq!(imap.ca_file.clone().unwrap(), PathBuf::from("/etc/ca"));
    let home = dirs::home_dir().unwrap();
    assert_eq!(load("data_dir = '~/d'", &[]).unwrap().config.data_dir, Some(home.join("d")));
    assert_eq!(load("", &[("POSTRIDER_DATA_DIR", "d")]).unwrap().config.data_dir, Some("d".into()));
}

/// The documented file with its keys uncommented: `#key = …` and `#[table]`; prose has a space behind the `#`.
fn documented() -> String {
    let text = include_str!("../../config/postrider.toml");
    let is_prose = |line: &str| line.strip_prefix('#').is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
    let lines = text.lines().filter(|line| !is_prose(line));
    lines.map(|line| line.strip_prefix('#').unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn documented_file_sets_nothing_as_it_is() {
    let loaded = load(include_str!("../../config/postrider.toml"), &[]).unwrap();
    assert_eq!(json!(loaded.config), json!(Config::default()));
}

#[test]
fn documented_defaults_are_the_defaults_and_no_key_is_missing() {
    let documented: Config = toml::from_str(&documented()).unwrap();
    assert_eq!(documented.account.len(), 1);
    compare("", &json!(documented), &json!(Config::example()));
}

/// Keys without a default show an example instead, so that each is there.
fn compare(path: &str, documented: &Value, default: &Value) {
    match (documented, default) {
        (Value::Object(documented), Value::Object(default)) => {
            for (key, default) in default {
                compare(&format!("{path}.{key}"), &documented[key], default);
            }
        }
        (Value::Array(documented), Value::Array(default))
            if [".account", ".auth.issuer", ".smtp.listener", ".smtp.route", ".smtp.user"].contains(&path) =>
        {
            compare(path, &documented[0], &default[0]);
        }
        (documented, Value::Null) => assert!(!documented.is_null(), "{path} is not in config/postrider.toml"),
        _ => assert_eq!(documented, default, "{path}"),
    }
}

#[test]
fn a_file_of_many_accounts_is_read_in_time() {
    let account = |number: usize| {
        format!(
            "[[account]]\nname = \"user{number}\"\n[account.imap]\nhost = \"localhost\"\nusername = \"u\"\npassword_env = \"P\"\n"
        )
    };
    let text: String = (0..2000).map(account).collect();
    let begun = std::time::Instant::now();
    let (config, places) = super::document::read(Some(Path::new("/etc/postrider.toml")), &text, &[]).unwrap();
    // It took minutes when the lines were counted for each key.
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(config.account.len(), 2000);
    assert!(places.of("account[1999].imap.host").unwrap().to_string().ends_with(":11998:1"));
}

#[test]
fn what_does_nothing_is_named_and_refuses_no_start() {
    let all = include_str!("../../config/postrider.toml");
    assert!(Source::default().load().unwrap().idle().is_empty() && idle(all).is_empty(), "defaults are nobody's wish");
    let off = "[smtp]\nenabled = false\nlisten = '127.0.0.1:25'\nsessions_max = 7\nauth_lockout = '1m'\n\
               [[smtp.user]]\nname = 'u'\npassword_env = 'P'\n[smtp.forward]\nhost = 'h'\nallow_plaintext = true\n\
               [mail_over_http]\nuser = 'u'\nsignature_age_max = '1m'\n[dovecot]\nuser = 'u'\n[jmap]\nping = '9s'\n\
               [attachments]\nkeep = '1d'\n";
    let expected = [
        "3:1 listen",
        "4:1 sessions_max",
        "5:1 auth_lockout",
        "6:8 user",
        "9:7 forward",
        "11:1 allow_plaintext",
        "13:1 user",
        "14:1 signature_age_max",
        "16:1 user",
        "17:2 jmap",
        "19:2 attachments",
    ];
    assert_eq!(idle(off), expected.map(|line| format!("p.toml:{line}")));
}

#[test]
fn what_does_nothing_on_a_listener_or_for_an_account_is_named() {
    let listeners = "[[smtp.listener]]\nrole = 'submission'\nlisten = '127.0.0.1:587'\nmode = '0666'\nverify = true\n\
                     [smtp.message_authentication]\nverify = true\nresolver = ['192.0.2.53']\n\
                     trusted_authserv_ids = ['mx']\n";
    assert_eq!(idle(listeners), ["p.toml:4:1 mode", "p.toml:5:1 verify", "p.toml:9:1 trusted_authserv_ids"]);
    let local = "[smtp.message_authentication]\nresolver = ['192.0.2.53']\ntrusted_authserv_ids = ['mx']\n";
    assert_eq!(idle(local), ["p.toml:2:1 resolver"], "nobody from elsewhere can reach it");
    assert!(idle(&format!("[smtp]\nlisten = '0.0.0.0:25'\n{local}")).is_empty());

    let account = "[[account]]\nname = 'a'\nattachments = true\nrequire = 'dmarc-pass'\ndmarc_fail = 'mark'\n";
    assert_eq!(idle(account), ["p.toml:3:1 attachments", "p.toml:4:1 require", "p.toml:5:1 dmarc_fail"]);
    let reached = format!("{account}addresses = ['a@example.org']\n");
    assert_eq!(idle(&reached), ["p.toml:5:1 dmarc_fail"], "nobody verifies");
    assert!(idle(&format!("{reached}[smtp]\nlisten = '0.0.0.0:25'\n")).is_empty());
    let silent = format!("{reached}content = 'none'\n[smtp]\nlisten = '0.0.0.0:25'\n");
    assert_eq!(idle(&silent), ["p.toml:3:1 attachments"]);
    let watched = format!("[[account]]\nname = 'a'\n{IMAP}allow_plaintext = true\n");
    assert_eq!(idle(&watched), ["p.toml:6:1 allow_plaintext"]);
}
