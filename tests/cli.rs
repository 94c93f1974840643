//! The program as a person meets it: arguments, messages, exit codes, and what goes to which output.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail the test as the tests do"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

const ID_1: &str = "urn:uuid:0199d2a0-0000-7000-8000-000000000001";
const ID_2: &str = "urn:uuid:0199d2a0-0000-7000-8000-000000000002";

/// The program in an empty environment with this home and a data folder in it.
fn postrider(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    command.env_clear().env("HOME", folder).env("POSTRIDER_DATA_DIR", folder.join("data")).args(args);
    command.stdin(Stdio::null());
    command
}

/// Exit code, standard output and standard error.
fn ended(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn run(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    ended(&postrider(folder, args).output().unwrap())
}

/// Writes a configuration and checks it.
fn check(text: &str, variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.toml");
    fs::write(&file, text).unwrap();
    let mut command = postrider(folder.path(), &["check", "--config", file.to_str().unwrap()]);
    ended(&command.envs(variables.iter().copied()).output().unwrap())
}

#[test]
fn help_of_each_command_has_examples() {
    let folder = tempfile::tempdir().unwrap();
    let (code, all, _) = run(folder.path(), &["--help"]);
    assert_eq!(code, Some(0));
    for command in ["run", "check", "watch", "publish", "sendmail", "token", "demo", "completions"] {
        assert!(all.contains(&format!("  {command} ")), "{all}");
        let (code, help, errors) = run(folder.path(), &[command, "--help"]);
        assert_eq!((code, errors.as_str()), (Some(0), ""));
        assert!(help.contains("EXAMPLES\n  ") && help.contains("Usage: postrider"), "{help}");
    }
    assert_eq!(run(folder.path(), &["--version"]).1, format!("postrider {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_are_scripts_of_their_shell() {
    let folder = tempfile::tempdir().unwrap();
    for (shell, mark) in [("bash", "complete -F"), ("zsh", "#compdef postrider"), ("fish", "complete -c postrider")] {
        let (code, script, errors) = run(folder.path(), &["completions", shell]);
        assert_eq!((code, errors.as_str()), (Some(0), ""));
        assert!(script.contains(mark) && script.contains("last-event-id"), "{shell}");
    }
}

#[test]
fn wrong_arguments_are_configuration_errors() {
    let folder = tempfile::tempdir().unwrap();
    for args in [
        &["rnu"][..],
        &["run", "--http", "nonsense"],
        &["run", "--smtp", "on"],
        &["run", "--imap-password-file", "f"],
        &["demo", "--http", "0.0.0.0:80"],
        &["watch", "a{b"],
        &["watch", "--last-event-id", "7"],
        &["publish"],
        &["token", "--subscribe", "{"],
        &["token", "--subscribe", "*", "--expires", "soon"],
    ] {
        let (code, output, errors) = run(folder.path(), args);
        assert_eq!((code, output.as_str()), (Some(78), ""), "{args:?}");
        assert!(errors.starts_with("error: "), "{errors}");
    }
}

#[test]
fn configuration_errors_have_a_place_a_hint_and_their_exit_code() {
    let (code, output, errors) = check("[log]\n  fliter = 'hunter2'\n", &[]);
    assert_eq!((code, output.as_str()), (Some(78), ""));
    assert!(errors.contains("p.toml:2:3: unknown key `fliter`; did you mean `filter`?"), "{errors}");
    assert!(!errors.contains("hunter2") && errors.lines().count() == 1, "{errors}");

    let (code, _, errors) = check("[log\nfilter = 'x'\n", &[]);
    assert!(code == Some(78) && errors.contains("p.toml:1:5: "), "{errors}");

    let account = "[[account]]\nname = 'a'\n[account.imap]\nhost = 'h'\nusername = 'u'\n";
    let (code, _, errors) = check(&format!("{account}password_file = 'p'\npassword_env = 'P'\n"), &[]);
    assert_eq!(code, Some(78));
    assert!(
        errors.contains("p.toml:6:1)") && errors.contains("p.toml:7:1)") && errors.contains("keep one"),
        "{errors}"
    );

    let variables = [("POSTRIDER_LOG__FORMAT", "xml"), ("POSTRIDER_LOG_FILTER", "debug")];
    let (code, _, errors) = check("dta_dir = 1", &variables);
    assert_eq!(code, Some(78));
    assert!(errors.contains("POSTRIDER_LOG__FORMAT: unknown variant `xml`"), "{errors}");
    assert!(errors.contains("did you mean `POSTRIDER_LOG__FILTER`?"), "{errors}");
    assert!(errors.contains("did you mean `data_dir`?"), "all errors are told at once: {errors}");
}

#[test]
fn a_file_that_is_not_there_is_named_with_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, errors) = run(folder.path(), &["check", "--config", "/no/such.toml"]);
    assert_eq!(code, Some(78));
    let expected = "postrider: cannot read the configuration file /no/such.toml: No such file or directory";
    assert!(errors.starts_with(expected), "{errors}");
}

#[test]
fn a_good_configuration_is_told_as_such() {
    let (code, output, errors) = check("[log]\nformat = 'json'\n", &[]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(output.starts_with("configuration  fine"), "{output}");
}

#[test]
fn a_password_in_a_url_is_refused_and_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let (code, output, errors) = run(folder.path(), &["run", "--imap", "imaps://you:hunter2@host"]);
    assert_eq!((code, output.as_str()), (Some(78), ""));
    assert!(errors.contains("leave the password out of the URL") && !errors.contains("hunter2"), "{errors}");
}

#[test]
fn plain_imap_to_another_machine_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = postrider(folder.path(), &["run", "--imap", "imap+plain://you@imap.example.org"]);
    let (code, _, errors) = ended(&command.env("POSTRIDER_IMAP_PASSWORD", "hunter2").output().unwrap());
    assert_eq!(code, Some(78));
    assert!(errors.contains("not this machine") && !errors.contains("hunter2"), "{errors}");
}

#[test]
fn a_token_stands_alone_and_says_what_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    let rights = ["--subscribe", "mail/alice/{mailbox}", "a", "--publish", "b", "--account", "alice"];
    let (code, token, errors) = run(folder.path(), &[&["token"][..], &rights, &["--expires", "1h"]].concat());
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let claims = payload(token.strip_suffix('\n').unwrap());
    assert_eq!(claims["mercure"], json!({"subscribe": ["mail/alice/{mailbox}", "a"], "publish": ["b"]}));
    assert_eq!(claims["postrider"], json!({"accounts": ["alice"]}));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 3600);

    let never = payload(run(folder.path(), &["token", "--admin", "--expires", "never"]).1.trim());
    assert_eq!((never.get("exp"), &never["postrider"]["admin"]), (None, &json!(true)));

    let (code, output, errors) = run(folder.path(), &["token"]);
    assert_eq!((code, output.as_str()), (Some(78), ""));
    assert!(errors.contains("would allow nothing"), "{errors}");
}

/// What a token says, its signature left aside.
fn payload(token: &str) -> Value {
    let parts: Vec<_> = token.split('.').collect();
    assert_eq!(parts.len(), 3, "{token}");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap()
}

#[test]
fn no_server_is_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &["token", "--admin"]);
    // tcpmux, which nobody runs. With TLS too: the client must find its provider of cryptography.
    for url in ["http://127.0.0.1:1", "https://127.0.0.1:1"] {
        for args in [&["watch", "--url", url][..], &["publish", "t", "--data", "x", "--url", url]] {
            let (code, output, errors) = run(folder.path(), args);
            assert_eq!((code, output.as_str()), (Some(69), ""), "{errors}");
            let expected = format!("postrider: no answer from {url}; is `postrider run` running there?");
            assert!(errors.starts_with(&expected), "{errors}");
        }
    }
}

#[test]
fn the_own_key_signs_for_this_machine_only() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &["token", "--admin"]);
    let (code, _, errors) = run(folder.path(), &["watch", "--url", "https://push.example.org"]);
    assert_eq!(code, Some(78));
    assert!(errors.contains("no token for https://push.example.org: give --token-file"), "{errors}");
}

/// A server that gives the next of these answers to each request, and hands the requests on.
fn serve(answers: Vec<String>) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (requests, received) = mpsc::channel();
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            requests.send(request(&stream)).unwrap();
            // Who has read enough may hang up.
            stream.write_all(answer.as_bytes()).ok();
        }
    });
    (url, received)
}

/// Head and body of a request.
fn request(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let start = head.len();
        reader.read_line(&mut head).unwrap();
        if let Some(value) = head[start..].to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    head + std::str::from_utf8(&body).unwrap()
}

fn ndjson(lines: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\n\r\n{lines}")
}

/// The next of the requests, under a deadline.
fn next(received: &mpsc::Receiver<String>) -> String {
    received.recv_timeout(Duration::from_secs(20)).expect("a request within 20 s")
}

/// Ends a program that would run on.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn watch_resumes_behind_the_last_event_and_prints_each_once() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &["token", "--admin"]);
    let hello = "{\"control\":\"hello\"}\n\n";
    let bye = "{\"control\":\"bye\",\"retry_ms\":1}\n";
    let (first, second) = (format!("{{\"id\":\"{ID_1}\",\"n\":1}}"), format!("{{\"id\":\"{ID_2}\",\"n\":2}}"));
    let refusal = r#"{"title":"no","detail":"the key is\u001b new"}"#;
    let (url, requests) = serve(vec![
        ndjson(&format!("{hello}{first}\n{bye}")),
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
        // The stream is cut in the middle of a line, which must not be printed.
        ndjson(&format!("{hello}{second}\n{{\"id\":\"{ID_2}\"")),
        format!("HTTP/1.1 401 Unauthorized\r\nconnection: close\r\n\r\n{refusal}"),
    ]);
    let args = ["watch", "mail/{+rest}", "--url", &url, "--last-event-id", "earliest"];
    let (code, output, errors) = run(folder.path(), &args);

    assert_eq!(output, format!("{first}\n{second}\n"), "{errors}");
    assert_eq!(code, Some(1), "a refusal is final: {errors}");
    assert!(errors.contains("answered 401 Unauthorized: the key is new") && !errors.contains('\u{1b}'), "{errors:?}");
    let heads: Vec<_> = (0..4).map(|_| next(&requests).to_lowercase()).collect();
    assert!(heads[0].starts_with("get /events?topic=mail%2f%7b%2brest%7d http/1.1\r\n"), "{}", heads[0]);
    assert!(heads[0].contains("\r\naccept: application/x-ndjson\r\n"), "{}", heads[0]);
    let resumed = |head: &str, id: &str| head.contains(&format!("\r\nlast-event-id: {id}\r\n"));
    assert!(resumed(&heads[0], "earliest") && resumed(&heads[1], ID_1) && resumed(&heads[2], ID_1));
    assert!(resumed(&heads[3], ID_2), "{}", heads[3]);
}

#[test]
fn watch_sends_the_token_that_was_given_and_ends_with_its_reader() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "a.b.c\n").unwrap();
    let event = format!("{{\"id\":\"{ID_1}\"}}\n");
    let (url, requests) = serve(vec![ndjson(&event.repeat(20_000))]);
    let mut command = postrider(folder.path(), &["watch", "--url", &url, "--token-file", file.to_str().unwrap()]);
    let mut running = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    assert!(next(&requests).to_lowercase().contains("\r\nauthorization: bearer a.b.c\r\n"));

    let mut line = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, event);
    // The pipe is closed now, as by `head -1`: that ends it, and well.
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
}

#[cfg(unix)]
#[test]
fn interrupted_watch_ends_with_130() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &["token", "--admin"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut command = postrider(folder.path(), &["watch", "--url", &url]);
    let mut running = Running(command.stdout(Stdio::piped()).spawn().unwrap());
    let (mut stream, _) = listener.accept().unwrap();
    request(&stream);
    stream.write_all(ndjson(&format!("{{\"id\":\"{ID_1}\"}}\n")).as_bytes()).unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(running.0.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();

    let killed = Command::new("kill").args(["-INT", &running.0.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(running.0.wait().unwrap().code(), Some(130));
}

#[test]
fn publish_sends_one_event_and_prints_its_identifier() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &["token", "--admin"]);
    let answer = format!("HTTP/1.1 201 Created\r\nconnection: close\r\n\r\n{{\"id\":\"{ID_1}\"}}");
    let (url, requests) = serve(vec![answer; 3]);
    let body = |request: &str| -> Value { serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap() };

    let args = ["publish", "a", "b", "--json", "[1]", "--type", "t", "--url", &url];
    let (code, output, errors) = run(folder.path(), &args);
    assert_eq!((code, output, errors.as_str()), (Some(0), format!("{ID_1}\n"), ""));
    let sent = next(&requests);
    assert!(sent.starts_with("POST /events HTTP/1.1\r\n"), "{sent}");
    assert_eq!(body(&sent), json!({"topics": ["a", "b"], "data": [1], "type": "t", "private": true}));

    run(folder.path(), &["publish", "a", "--data", "x", "--public", "--url", &url]);
    assert_eq!(body(&next(&requests)), json!({"topics": ["a"], "data": "x", "private": false}));

    let mut command = postrider(folder.path(), &["publish", "a", "--url", &url]);
    let mut running = Running(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
    running.0.stdin.take().unwrap().write_all(b"two\nlines\n").unwrap();
    assert_eq!(body(&next(&requests))["data"], "two\nlines");

    let (code, _, errors) = run(folder.path(), &["publish", "a", "--json", "{", "--url", &url]);
    assert!(code == Some(78) && errors.starts_with("postrider: --json: not JSON: "), "{errors}");
}
