//! The page at `/` in a real browser: signing in, mail that arrives, text from strangers, reconnecting.

mod support;

use postrider::auth::SigningKey;
use serde_json::{Value, json};
use support::browser::Browser;
use support::server::{Options, Server};

/// Texts of the rows, newest first.
const SUBJECTS: &str = "return [...document.querySelectorAll('.mail .subject')].map((row) => row.textContent);";

/// A browser that has followed the sign-in link and is live.
async fn signed_in(server: &Server) -> Browser {
    let browser = Browser::start().await;
    browser.open(&server.sign_in).await;
    browser.reads("#connection", "Live").await;
    browser
}

/// Waits until a mail with this subject is the newest row.
async fn newest_is(browser: &Browser, subject: &str) {
    let first = "document.querySelector('.event .subject')?.textContent";
    browser.sees(&format!("the mail `{subject}`"), &format!("{first} === {}", json!(subject))).await;
}

#[tokio::test]
async fn the_links_token_ends_up_in_a_cookie_and_nowhere_else() {
    let server = Server::start().await;
    let browser = signed_in(&server).await;
    let history = browser.history().await;
    assert!(!history.iter().any(|url| url.contains("token")), "{history:?}");
    assert_eq!(history.last(), Some(&format!("{}/", server.http)));
    let kept = browser.run("return document.cookie + localStorage.length + sessionStorage.length;").await;
    assert_eq!(kept, "00", "what scripts can read");
    let cookies = browser.cookies().await;
    let [cookie] = cookies.as_slice() else { panic!("not one cookie: {cookies:?}") };
    assert_eq!((&cookie["httpOnly"], &cookie["sameSite"]), (&json!(true), &json!("Strict")));
    // The cookie is enough to come back.
    browser.open(&server.http).await;
    browser.reads("#connection", "Live").await;
}

#[tokio::test]
async fn mail_shows_by_itself_and_is_announced() {
    let server = Server::start().await;
    let browser = signed_in(&server).await;
    browser.sees("the hint for an empty list", "!document.getElementById('events-empty').hidden").await;
    browser.run("window.loadedOnce = true;").await;
    server.send("alice@localhost", "Notes on the Engine", "It weaves algebraic patterns.").await;
    newest_is(&browser, "Notes on the Engine").await;
    assert_eq!(browser.text_of(".mail .name").await, "Ada Lovelace");
    assert_eq!(browser.text_of(".mail .address").await, "ada@example.org");
    assert_eq!(browser.text_of(".mail .preview").await, "It weaves algebraic patterns.");
    assert_eq!(browser.text_of(".mail .meta").await.trim(), "alice INBOX");
    assert_eq!(browser.text_of(".mail time").await, "just now");
    let age = browser.run("return Date.now() - Date.parse(document.querySelector('.mail time').dateTime);").await;
    assert!(age.as_i64().is_some_and(|age| (0..60_000).contains(&age)), "{age}");
    browser.reads("[aria-live]", "New mail from Ada Lovelace: Notes on the Engine").await;
    browser.sees("the hint to be gone", "document.getElementById('events-empty').hidden").await;
    assert_eq!(browser.run("return window.loadedOnce;").await, true, "the page was loaded again");
}

#[tokio::test]
async fn what_strangers_write_stays_text() {
    let server = Server::start().await;
    let browser = signed_in(&server).await;
    let hostile = r#"<img src=x onerror="window.owned = true"><script>window.owned = true</script>"#;
    server.send("alice@localhost", hostile, hostile).await;
    newest_is(&browser, hostile).await;
    server.publish("notes", &json!(hostile)).await;
    browser.reads(".data", hostile).await;
    let made = browser.run("return document.querySelectorAll('#events img, #events script').length;").await;
    assert_eq!(made, 0);
    assert!(browser.run("return window.owned;").await.is_null());
    // The second wall: even a page that wanted to could not turn text into markup.
    let refused = "try { document.body.innerHTML = '<p>'; } catch (error) { return error.name; }";
    assert_eq!(browser.run(refused).await, "TypeError");
}

#[tokio::test]
async fn after_an_outage_what_was_missed_shows_exactly_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = async |http: &str| {
        let data_dir = Some(folder.path().join("data"));
        Server::with(Options { data_dir, http: Some(http.to_owned()), ..Options::default() }).await
    };
    let mut first = at("127.0.0.1:0").await;
    let address = first.http.trim_start_matches("http://").to_owned();
    let browser = signed_in(&first).await;
    first.send("alice@localhost", "before", "x").await;
    newest_is(&browser, "before").await;

    first.kill().await;
    browser.reads("#connection", "Reconnecting…").await;
    browser.sees("the reason", "!document.getElementById('offline').hidden").await;
    // Where the page does not find it, lest it see this mail come instead of having missed it.
    let mut elsewhere = at("127.0.0.1:0").await;
    elsewhere.send("alice@localhost", "meanwhile", "x").await;
    elsewhere.terminate().await;

    let mut again = at(&address).await;
    newest_is(&browser, "meanwhile").await;
    browser.reads("#connection", "Live").await;
    browser.sees("the reason to be gone", "document.getElementById('offline').hidden").await;
    again.send("alice@localhost", "after", "x").await;
    newest_is(&browser, "after").await;
    assert_eq!(browser.run(SUBJECTS).await, json!(["after", "meanwhile", "before"]));

    // A planned stop says goodbye, and the page what that means.
    again.terminate().await;
    browser.reads("#connection", "Reconnecting…").await;
    browser.sees("a reason", "document.getElementById('connection-why').textContent !== ''").await;
}

#[tokio::test]
async fn another_history_replaces_what_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let at = async |http: &str, name: &str| {
        let data_dir = Some(folder.path().join(name));
        Server::with(Options { data_dir, http: Some(http.to_owned()), ..Options::default() }).await
    };
    let mut first = at("127.0.0.1:0", "data").await;
    let address = first.http.trim_start_matches("http://").to_owned();
    let browser = signed_in(&first).await;
    first.send("alice@localhost", "forgotten", "x").await;
    newest_is(&browser, "forgotten").await;
    first.kill().await;
    // The same key, so that the session holds, but none of the events.
    std::fs::create_dir(folder.path().join("other")).unwrap();
    let key = |name: &str| folder.path().join(name).join(SigningKey::FILE_NAME);
    std::fs::copy(key("data"), key("other")).unwrap();
    let second = at(&address, "other").await;
    second.send("alice@localhost", "new", "x").await;
    newest_is(&browser, "new").await;
    browser.sees("only the new history", "document.querySelectorAll('.event').length === 1").await;
}

#[tokio::test]
async fn a_bad_token_is_explained_and_a_good_one_can_be_pasted() {
    let server = Server::start().await;
    let refusal = server.client.post(format!("{}/api/session", server.http)).json(&json!({ "token": "nonsense" }));
    let refusal: Value = refusal.send().await.unwrap().json().await.unwrap();
    let browser = Browser::start().await;
    browser.open(&format!("{}/#token=nonsense", server.http)).await;
    browser.sees("a problem", "document.getElementById('sign-in-problem').textContent !== ''").await;
    let shown = browser.text_of("#sign-in-problem").await.to_lowercase();
    let detail = refusal["detail"].as_str().unwrap().to_lowercase();
    assert!(shown.starts_with(&detail), "{shown:?} is not the server's {detail:?}");
    assert_eq!(browser.run("return location.href;").await, format!("{}/", server.http));
    let command = browser.text_of("#sign-in .command").await;
    assert_eq!(command, "postrider token --subscribe '*' --admin");

    // The whole link will do as well, and the field has the focus already.
    browser.type_into("#token:focus", &format!("{}\n", server.sign_in)).await;
    browser.reads("#connection", "Live").await;
    server.send("alice@localhost", "private", "x").await;
    newest_is(&browser, "private").await;

    browser.click("#sign-out").await;
    browser.sees("the form", "!document.getElementById('sign-in').hidden").await;
    assert_eq!(browser.cookies().await, Vec::<Value>::new());
    let left = browser.run("return document.body.textContent.includes('private');").await;
    assert_eq!(left, false, "mail stays on the page after signing out");
}

#[tokio::test]
async fn accounts_show_their_state_in_words() {
    // A port on which nothing listens: taken from the system, and given back.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "[[account]]\nname = \"alice\"\naddresses = [\"alice@example.org\"]\n\
         [[account]]\nname = \"bob\"\n[account.imap]\nhost = \"127.0.0.1\"\nport = {closed}\nsecurity = \"none\"\n\
         username = \"bob\"\npassword_env = \"BOBS_PASSWORD\"\n"
    );
    let environment = vec![("BOBS_PASSWORD".to_owned(), "secret".to_owned())];
    let server = Server::with(Options { config, environment, ..Options::default() }).await;
    let browser = signed_in(&server).await;
    browser.reads("#accounts li:nth-child(1) .account-name", "alice").await;
    browser.reads("#accounts li:nth-child(1) .state-words", "Receives by SMTP").await;
    browser.reads("#accounts li:nth-child(2) .state-words", "Not connected").await;
    let reason = browser.text_of("#accounts li:nth-child(2) .reason").await;
    assert!(!reason.is_empty());
    assert!(browser.text_of("#accounts li:nth-child(2) .retry").await.starts_with("Next try"));
    let hint = browser.run("return document.getElementById('accounts-empty').hidden;").await;
    assert_eq!(hint, true, "the hint for nobody's accounts");
}

#[tokio::test]
async fn the_title_counts_what_came_while_the_page_was_hidden() {
    let server = Server::start().await;
    let browser = signed_in(&server).await;
    server.send("alice@localhost", "seen", "x").await;
    newest_is(&browser, "seen").await;
    assert_eq!(browser.run("return document.title;").await, "postrider");
    browser.minimize().await;
    browser.sees("the page to be hidden", "document.hidden").await;
    server.send("alice@localhost", "one", "x").await;
    server.send("alice@localhost", "two", "x").await;
    browser.sees("the count", "document.title === '(2) postrider'").await;
    browser.restore().await;
    browser.sees("the count to be gone", "document.title === 'postrider'").await;
}

/// WHATWG HTML §9.2.6: line ends of three kinds, comments, names and IDs, wherever the network cuts.
#[tokio::test]
async fn event_streams_are_read_the_same_however_they_are_cut() {
    let server = Server::start().await;
    let browser = Browser::start().await;
    browser.open(&server.http).await;
    let script = r#"
        const { EventStreamParser } = await import("/event-stream.js");
        const stream = ":\n\nretry: 1500\nevent: hello\ndata: {}\n\n" +
            "event: a b\r\nid: 1\r\ndata: first\r\ndata:second\r\n\r\n" +
            "data: no name\r\runknown: x\nretry: soon\nid: 2\n\nevent: no data\n\ndata\n\n" + "data:  two spaces\n\nevent: unfinished\ndata: x";
        const whole = JSON.stringify(new EventStreamParser().push(stream));
        for (let one = 0; one <= stream.length; one += 1) {
          for (let other = one; other <= stream.length; other += 1) {
            const parser = new EventStreamParser();
            const cut = [stream.slice(0, one), stream.slice(one, other), stream.slice(other)];
            const records = JSON.stringify(cut.flatMap((piece) => parser.push(piece)));
            if (records !== whole) return `cut at ${one} and ${other}: ${records}`;
          }
        }
        return whole;
    "#;
    let expected = concat!(
        r#"[{"retryMs":1500},{"name":"hello","data":"{}"},{"name":"a b","data":"first\nsecond","id":"1"},"#,
        r#"{"name":"message","data":"no name","id":"1"},{"name":"message","data":"","id":"2"},"#,
        r#"{"name":"message","data":" two spaces","id":"2"}]"#
    );
    assert_eq!(browser.run_async(script).await, expected);
}
