//! Attachments that are kept, fetched by their links, and gone in time: the real program, with mail by SMTP.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use lettre::message::header::ContentType;
use lettre::message::{Attachment, MultiPart, SinglePart};
use lettre::{AsyncTransport, Message};
use serde_json::{Value, json};
use support::problem::Problem;
use support::server::{Options, Server};
use support::{eventually, within};

const ACCOUNTS: &str = "[[account]]\nname = 'alice'\nattachments = true\naddresses = ['alice@example.org']\n\
                        [[account]]\nname = 'bob'\naddresses = ['bob@example.org']\n\
                        [[account]]\nname = 'carol'\ncontent = 'none'\nattachments = true\n\
                        addresses = ['carol@example.org']\n";

async fn start(data_dir: &Path, settings: &str) -> Server {
    let config = format!("{settings}\n{ACCOUNTS}");
    Server::with(Options { config, data_dir: Some(data_dir.to_owned()), ..Options::default() }).await
}

/// A mail with a file of this name, type and content.
fn mail(to: &[&str], id: &str, name: &str, kind: &str, content: &[u8]) -> Message {
    let mut mail = Message::builder().from("Ada <ada@x.example>".parse().unwrap()).subject(id);
    for to in to {
        mail = mail.to(to.parse().unwrap());
    }
    let file = Attachment::new(name.to_owned()).body(content.to_vec(), ContentType::parse(kind).unwrap());
    let parts = MultiPart::mixed().singlepart(SinglePart::plain("text".to_owned())).singlepart(file);
    mail.message_id(Some(format!("<{id}@x.example>"))).multipart(parts).unwrap()
}

async fn send(server: &Server, mail: Message) {
    within("the mail to be accepted", server.mailer().send(mail)).await.expect("a 250");
}

/// The one attachment of the newest event of an account.
async fn listed(server: &Server, account: &str) -> Value {
    let log = server.whole_log().await;
    let event = log.iter().rfind(|event| event["account"] == account).expect("an event");
    event["message"]["attachments"][0].clone()
}

/// The link without its host, whose port is another after a restart.
fn path(attachment: &Value) -> String {
    let url = attachment["url"].as_str().unwrap_or_else(|| panic!("no link in {attachment}"));
    url[url.find("/attachments/").expect("a link")..].to_owned()
}

fn fetch(server: &Server, path: &str) -> reqwest::RequestBuilder {
    server.client.get(format!("{}{path}", server.http))
}

async fn fetched(server: &Server, path: &str) -> Vec<u8> {
    let response = within("the attachment", fetch(server, path).send()).await.unwrap();
    assert_eq!(response.status(), 200);
    response.bytes().await.unwrap().to_vec()
}

fn files(data_dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(data_dir.join("attachments")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

async fn counted(server: &Server, result: &str) -> u64 {
    let text = fetch(server, "/metrics").send().await.unwrap().text().await.unwrap();
    let name = format!("postrider_attachments_total{{result=\"{result}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn an_account_that_asks_for_it_gets_links() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), "").await;
    // More than one piece of it goes over the wire.
    let content: Vec<u8> = (0..300_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    let all = ["alice@example.org", "bob@example.org", "carol@example.org"];
    send(&server, mail(&all, "one", "Rechnung ü.pdf", "application/pdf", &content)).await;
    let alice = listed(&server, "alice").await;
    assert_eq!((&alice["filename"], &alice["size"]), (&json!("Rechnung ü.pdf"), &json!(300_000)));
    assert!(alice["url"].as_str().unwrap().starts_with(&server.http) && alice["url_expires"].is_string(), "{alice}");
    let bob = listed(&server, "bob").await;
    assert_eq!((&bob["url"], &bob["size"]), (&json!(null), &json!(300_000)), "bob does not keep his");
    assert_eq!(listed(&server, "carol").await, json!(null), "carol's events say nothing of messages");
    assert_eq!(files(folder.path()).len(), 1);

    // A link needs no token, and gives none of what a page could be tricked with.
    let link = path(&alice);
    let response = within("the attachment", fetch(&server, &link).send()).await.unwrap();
    let headers = response.headers().clone();
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert_eq!((response.status().as_u16(), text("content-length")), (200, "300000".to_owned()));
    assert_eq!(text("content-disposition"), "attachment; filename*=UTF-8''Rechnung%20%C3%BC.pdf");
    assert_eq!((text("content-type"), text("x-content-type-options")), ("application/pdf".into(), "nosniff".into()));
    assert!(text("content-security-policy").starts_with("sandbox"), "{headers:?}");
    assert_eq!(response.bytes().await.unwrap(), content);
    let again = fetch(&server, &link).header("if-none-match", text("etag")).send().await.unwrap();
    assert_eq!(again.status(), 304);

    let (name, signature) = (link.split('?').next().unwrap(), link.rsplit('=').next().unwrap());
    for altered in [
        name.to_owned(),
        link.replace("expires=", "expires=9"),
        link.replace(signature, &signature.to_lowercase()),
        format!("{name}?expires=99999999999&signature="),
        link.replace("/attachments/0", "/attachments/1"),
        format!("/attachments/..%2Ftoken.key{}", &link[name.len()..]),
    ] {
        let problem = Problem::of(fetch(&server, &altered)).await;
        assert_eq!((problem.status, &*problem.name), (403, "link-invalid"), "{altered}");
    }
}

#[tokio::test]
async fn html_is_never_handed_out_as_html() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), "").await;
    send(&server, mail(&["alice@example.org"], "h", "x.html", "text/html", b"<script>alert(1)</script>")).await;
    let response = fetch(&server, &path(&listed(&server, "alice").await)).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/octet-stream");
}

#[tokio::test]
async fn what_is_too_much_is_listed_and_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    // Room for two, each with 4096 octets for the file and less than 300 for what is said of it.
    let limits = "[attachments]\nattachment_bytes_max = 1000\naccount_bytes_max = 10300\nbytes_max = 20000";
    let server = start(folder.path(), limits).await;
    let to = ["alice@example.org"];
    for (id, size, has_link) in [
        ("large", 1001, false),
        ("first", 1000, true),
        ("second", 1000, false),
        ("third", 500, true),
        ("tiny", 0, false),
    ] {
        send(&server, mail(&to, id, "f.bin", "application/octet-stream", &vec![7; size])).await;
        let listed = listed(&server, "alice").await;
        assert_eq!((listed["size"].as_u64(), listed["url"].is_string()), (Some(size as u64), has_link), "{id}");
    }
    assert_eq!((counted(&server, "too_large").await, counted(&server, "account_full").await), (1, 2));
    assert_eq!((counted(&server, "kept").await, files(folder.path()).len()), (2, 2));
}

#[tokio::test]
async fn a_message_that_comes_again_is_kept_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), "").await;
    let mail = mail(&["alice@example.org"], "again", "a.txt", "text/plain", b"x");
    send(&server, mail.clone()).await;
    send(&server, mail).await;
    assert_eq!(server.whole_log().await.len(), 1);
    assert_eq!(files(folder.path()).len(), 1, "{:?}", files(folder.path()));
    assert_eq!(fetched(&server, &path(&listed(&server, "alice").await)).await, b"x");
}

#[tokio::test]
async fn no_room_on_the_disk_costs_the_attachment_and_not_the_event() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), "").await;
    // Whoever runs the tests may be root, whom permissions do not hold back.
    fs::write(folder.path().join("attachments"), "not a folder").unwrap();
    send(&server, mail(&["alice@example.org"], "one", "a.txt", "text/plain", b"x")).await;
    assert_eq!(listed(&server, "alice").await["url"], json!(null));
    assert_eq!(counted(&server, "failed").await, 1);
}

#[tokio::test]
async fn what_a_crash_leaves_is_sorted_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = start(folder.path(), "").await;
    send(&server, mail(&["alice@example.org"], "one", "a.txt", "text/plain", b"committed")).await;
    send(&server, mail(&["alice@example.org"], "two", "b.txt", "text/plain", b"confirmed")).await;
    let link = path(&listed(&server, "alice").await);
    let first = path(&server.whole_log().await[0]["message"]["attachments"][0]);
    server.kill().await;
    // As if it had been killed right after the commit of the first, and right before that of another one.
    let id = first["/attachments/".len()..].split('?').next().unwrap().to_owned();
    let attachments = folder.path().join("attachments");
    fs::rename(attachments.join(&id), attachments.join(format!("{id}.new"))).unwrap();
    let orphan = attachments.join("0199d2a0000070008000000000000001.new");
    fs::copy(attachments.join(format!("{id}.new")), &orphan).unwrap();
    fs::write(attachments.join("0199d2a0000070008000000000000002.new"), "{\"acc").unwrap();

    let server = start(folder.path(), "").await;
    assert_eq!(fetched(&server, &first).await, b"committed");
    assert_eq!(fetched(&server, &link).await, b"confirmed");
    let left = files(folder.path());
    assert!(left.len() == 2 && left.iter().all(|path| path.extension().is_none()), "{left:?}");
}

#[tokio::test]
async fn an_expired_attachment_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), "[attachments]\nkeep = '2s'").await;
    send(&server, mail(&["alice@example.org"], "one", "a.txt", "text/plain", b"x")).await;
    let link = path(&listed(&server, "alice").await);
    eventually("the file to go", || async { files(folder.path()).is_empty().then_some(()) }).await;
    let problem = Problem::of(fetch(&server, &link)).await;
    assert_eq!((problem.status, &*problem.name), (410, "attachment-gone"));
    assert_eq!(counted(&server, "expired").await, 1);
}

#[tokio::test]
async fn a_reload_says_whose_attachments_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), "").await;
    let config =
        fs::read_to_string(&server.config).unwrap().replace("name = 'bob'", "name = 'bob'\nattachments = true");
    fs::write(&server.config, config).unwrap();
    server.signal("HUP").await;
    let mut number = 0;
    eventually("a link for bob", || {
        number += 1;
        let mail = mail(&["bob@example.org"], &format!("{number}"), "a.txt", "text/plain", b"x");
        let server = &server;
        async move {
            send(server, mail).await;
            listed(server, "bob").await["url"].is_string().then_some(())
        }
    })
    .await;
}
