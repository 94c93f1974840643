//! A server that does every wrong thing at every step: each message is still announced once, and nothing hangs.
//!
//! The property is the same for every fault: whatever was delivered is announced by exactly one `MessageNew`, nothing
//! else is announced as new, and all that within a time that follows from the configured deadlines. That the fault
//! struck is asserted, too.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::sync::{Mutex, Once};
use std::time::Duration;

use futures::StreamExt;
use postrider::event::EventKind;
use support::imap_model::{BARE, BASIC, CONDSTORE, QRESYNC, RICH, Store};
use support::misbehaving_imap::{Fault, MisbehavingImap, Trouble, is, tag};
use support::observed::{Observed, impatient, old_mail};
use support::watching::Watching;
use tempfile::tempdir;
use tokio::time::timeout;

/// For one server with one fault, from the first connection to the last message: many times what it takes.
const LIMIT: Duration = Duration::from_secs(45);
/// Servers at the same time: most of the time they wait for a deadline.
const AT_ONCE: usize = 16;

/// Messages that are waited for so that a fault may strike.
const MORE_MAX: u32 = 60;

/// One server, and what it does wrong.
struct Plan {
    name: String,
    store: Store,
    offers: &'static str,
    fault: Fault,
    greeting: Option<String>,
}

impl Plan {
    fn new(name: impl Into<String>, offers: &'static str, fault: Fault) -> Self {
        Self::on(old_mail(), name, offers, fault)
    }

    fn on(store: Store, name: impl Into<String>, offers: &'static str, fault: Fault) -> Self {
        Self { name: name.into(), store, offers, fault, greeting: None }
    }

    /// What is the matter, if anything is.
    async fn run(self) -> Result<(usize, usize, usize), String> {
        let offered = self.offers.split(' ').count();
        let name = format!("{}, {:?}, {offered} capabilities", self.name, self.fault);
        let folder = tempdir().unwrap();
        let server = MisbehavingImap::with_greeting(&self.store, self.offers, self.fault, self.greeting).await;
        let is_faulty = server.is_faulty();
        let account = server.account(mailboxes(self.offers));
        let watching = Watching::start(folder.path(), &[account], impatient());
        let mut observed = Observed::new(&self.store, watching);
        let lived = timeout(LIMIT, live_through(&mut observed, &server, is_faulty)).await;
        let counts = server.counts();
        let what = match lived {
            Ok(()) if is_faulty && server.struck() == 0 => Some("the fault never struck".to_owned()),
            Ok(()) => observed.verdict(),
            Err(_) => Some(format!("not all was announced within {LIMIT:?}")),
        };
        let Some(what) = what else {
            observed.watching.stop().await;
            return Ok(counts);
        };
        let (status, struck) = (observed.watching.status(), server.struck());
        Err(format!("{name}: {what}; struck {struck} times, {:?}, announced {:?}", status.state, observed.announced))
    }
}

/// One mailbox where each costs a connection, else two.
fn mailboxes(offers: &str) -> &'static [&'static str] {
    if offers.contains("NOTIFY") { &["INBOX", "Lists"] } else { &["INBOX"] }
}

/// A session's life: mail that comes by one and by many, flags, removal, a loss of the connection.
async fn live_through(observed: &mut Observed, server: &MisbehavingImap, is_faulty: bool) {
    let store = observed.store.clone();
    observed.until(|event| event.draft.kind == EventKind::AccountUp).await;
    let first = store.deliver("INBOX", "new one");
    observed.announcement("new one").await;
    store.flag("INBOX", first, "\\Seen");
    store.deliver("INBOX", "new two");
    store.deliver("INBOX", "new three");
    observed.announcement("new three").await;
    store.expunge("INBOX", 1);
    store.deliver("INBOX", "new four");
    observed.announcement("new four").await;
    if mailboxes(server.offers()).contains(&"Lists") {
        store.deliver("Lists", "new in a list");
        observed.announcement("new in a list").await;
    }
    server.hang_up();
    store.deliver("INBOX", "new while away");
    observed.announcement("new while away").await;
    // What strikes late in a session needs a longer one.
    let mut number = 0;
    while is_faulty && server.struck() == 0 && number < MORE_MAX {
        number += 1;
        let subject = format!("new {number} more");
        store.deliver("INBOX", &subject);
        observed.announcement(&subject).await;
    }
    server.lift();
    store.deliver("INBOX", "new at last");
    observed.announcement("new at last").await;
    // What is announced twice is so at the latest when all is looked at anew.
    server.hang_up();
    store.deliver("INBOX", "new after all");
    observed.announcement("new after all").await;
}

/// Runs all, several at a time, and fails with every one that failed.
async fn all_survive(plans: Vec<Plan>) {
    let count = plans.len();
    let begun = std::time::Instant::now();
    watch_for_panics();
    let outcomes = futures::stream::iter(plans).map(Plan::run).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
    let failures: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
    println!("{count} servers, {:.1?}", begun.elapsed());
    assert!(failures.is_empty(), "{} of {count}:\n{}", failures.len(), failures.join("\n"));
    let panics = PANICS.lock().unwrap().join("\n");
    assert!(panics.is_empty(), "{panics}");
}

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The watcher lives through its own panics: only a hook sees them.
fn watch_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let is_test = panic.location().is_some_and(|location| location.file().starts_with("tests/"));
            if !is_test {
                PANICS.lock().unwrap().push(panic.to_string());
            }
            before(panic);
        }));
    });
}

/// Lines of the client, responses and octets of a session with nothing wrong.
async fn length(offers: &'static str) -> (usize, usize, usize) {
    Plan::new("by the book", offers, Fault::None).run().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_step_may_be_refused_or_not_answered() {
    let mut plans = Vec::new();
    for offers in [BASIC, RICH] {
        for step in 0..length(offers).await.0 {
            for trouble in [Trouble::Stall, Trouble::No, Trouble::Bad, Trouble::Bye, Trouble::Eof] {
                plans.push(Plan::new("a step", offers, Fault::Step(step, trouble)));
            }
        }
    }
    all_survive(plans).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_may_stand_anywhere() {
    let garbage: [&[u8]; 12] = [
        b"* 12 WHATEVER (this is)\r\n",
        b"\r\n",
        b"*\r\n",
        b"* \r\n",
        b"* OK\r\n",
        b")))(((\r\n",
        b"* LIST (\r\n",
        b"* 1 FETCH (UID\r\n",
        b"\xff\xfe\x00 \x80 binary\r\n",
        b"* 99999999999 EXISTS\r\n",
        b"* ESEARCH (TAG \"\r\n",
        b"nobodys-tag OK done\r\n",
    ];
    let mut plans = Vec::new();
    for offers in [BASIC, RICH] {
        let responses = length(offers).await.1;
        plans.extend(
            (0..responses).zip(garbage.into_iter().cycle()).map(|(number, line)| {
                Plan::new("garbage", offers, Fault::Response(number, Trouble::Text(line.to_vec())))
            }),
        );
    }
    all_survive(plans).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_may_end_after_any_octet() {
    let mut plans = Vec::new();
    for (offers, every) in [(BASIC, 67), (RICH, 131)] {
        let octets = length(offers).await.2;
        plans.extend((0..octets).step_by(every).map(|octet| Plan::new("EOF", offers, Fault::EofAfter(octet))));
    }
    all_survive(plans).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_network_may_cut_anywhere() {
    let cut = [BARE, BASIC, CONDSTORE, QRESYNC, RICH].map(|offers| Plan::new("cut", offers, Fault::OctetByOctet));
    all_survive(cut.into()).await;
}

/// The answer by the book with each line passed through `change`.
fn each(said: &[String], change: impl Fn(&str) -> Option<String>) -> Vec<String> {
    said.iter().filter_map(|line| change(line)).collect()
}

/// Something else than IDLE, as it is said by the book or should not be.
fn instead_of_idle(answer: impl Fn(&str) -> Vec<String> + Send + Sync + 'static, times: usize) -> Fault {
    Fault::rewrite(times, move |line, said| {
        // What the server had to say of the mailbox is not swallowed: it need not say it again.
        let told = said.iter().filter(|response| response.starts_with("* ")).cloned();
        is(line, "IDLE").then(|| told.chain(answer(tag(line))).collect())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_may_go_wrong_in_every_way() {
    let mut plans = Vec::new();
    for offers in [BASIC, QRESYNC, RICH] {
        for times in [1, usize::MAX] {
            let refusals = ["NO not now", "BAD what?", "OK done already"];
            plans.extend(refusals.map(|refusal| {
                let fault = instead_of_idle(move |tag| vec![format!("{tag} {refusal}\r\n")], times);
                Plan::new(format!("IDLE answered {refusal}"), offers, fault)
            }));
        }
        let ended = |tag: &str| vec!["+ idling\r\n".to_owned(), format!("{tag} OK idled enough\r\n")];
        plans.push(Plan::new("IDLE ends by itself", offers, instead_of_idle(ended, 2)));
        plans.push(Plan::new("IDLE ends by itself, for ever", offers, instead_of_idle(ended, usize::MAX)));
        plans.push(Plan::new("no continuation", offers, instead_of_idle(|_| Vec::new(), 1)));
        let bye = |_: &str| vec!["* BYE not today\r\n".to_owned()];
        plans.push(Plan::new("BYE in place of the continuation", offers, instead_of_idle(bye, 1)));
        let store = old_mail();
        let early = store.clone();
        let fault = Fault::rewrite(1, move |line, said| {
            is(line, "IDLE").then(|| {
                early.deliver("INBOX", "new before the continuation");
                let mut said = said.to_vec();
                said.insert(0, format!("* {} EXISTS\r\n", early.count("INBOX")));
                said
            })
        });
        // A server need not say it again once it has said it: the first IDLE is the first to know of it.
        plans.push(Plan::on(store, "EXISTS before the continuation", offers, fault));
    }
    all_survive(plans).await;
}

/// Rewrites the answers to commands that ask for new messages.
fn in_fetch(times: usize, change: impl Fn(&[String]) -> Option<Vec<String>> + Send + Sync + 'static) -> Fault {
    Fault::rewrite(times, move |line, said| {
        let asks = is(line, "UID FETCH") && line.contains("BODY.PEEK");
        let has_new = said.iter().any(|response| response.contains("Subject: new"));
        if asks && has_new { change(said) } else { None }
    })
}

fn is_fetch(response: &str) -> bool {
    response.starts_with("* ") && response.contains(" FETCH (")
}

/// What a FETCH response says of the UID, with the space after it.
fn uid_of(response: &str) -> &str {
    let from = response.find("UID ").unwrap();
    let length = response[from + 4..].find([' ', ')']).unwrap() + 5;
    &response[from..from + length]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_about_messages_may_be_wrong() {
    let without_uid = |said: &[String]| {
        Some(each(said, |line| Some(if is_fetch(line) { line.replacen(uid_of(line), "", 1) } else { line.to_owned() })))
    };
    let uid_zero = |said: &[String]| {
        Some(each(said, |line| {
            Some(if is_fetch(line) { line.replacen(uid_of(line), "UID 0 ", 1) } else { line.to_owned() })
        }))
    };
    let nothing = |said: &[String]| Some(each(said, |line| (!is_fetch(line)).then(|| line.to_owned())));
    let foreign = |said: &[String]| {
        let sample = said.iter().find(|line| is_fetch(line) && !["UID 1 ", "UID 2 "].contains(&uid_of(line)))?;
        // The same item for item, of a message that is old and was not asked for.
        let old = sample.replacen(uid_of(sample), "UID 2 ", 1).replace("Subject: new", "Subject: old");
        let flags = "* 2 FETCH (UID 2 FLAGS (\\Seen))\r\n* 1 FETCH (FLAGS (\\Flagged))\r\n".to_owned();
        let mut said = said.to_vec();
        said.insert(0, old);
        said.insert(1, flags);
        Some(said)
    };
    let flags_first = |said: &[String]| {
        let sample = said.iter().find(|line| is_fetch(line))?;
        let number = sample.split(' ').nth(1)?;
        let flags = format!("* {number} FETCH ({}FLAGS (\\Seen))\r\n", uid_of(sample));
        Some([vec![flags], said.to_vec()].concat())
    };
    let split = |said: &[String]| {
        Some(
            said.iter()
                .flat_map(|line| match line.find(" BODY[HEADER").filter(|_| is_fetch(line)) {
                    Some(at) => {
                        let number = line.split(' ').nth(1).unwrap();
                        let rest = format!("* {number} FETCH ({}{}", uid_of(line), &line[at + 1..]);
                        vec![format!("{})\r\n", &line[..at]), rest]
                    }
                    None => vec![line.clone()],
                })
                .collect(),
        )
    };
    let without_flags = |said: &[String]| {
        Some(each(said, |line| Some(if is_fetch(line) { line.replacen("FLAGS () ", "", 1) } else { line.to_owned() })))
    };
    let backwards = |said: &[String]| {
        let (mut messages, rest): (Vec<_>, Vec<_>) = said.iter().cloned().partition(|line| is_fetch(line));
        messages.reverse();
        Some([messages, rest].concat())
    };
    let refused = |said: &[String]| {
        let tagged = said.last().unwrap();
        Some(vec![format!("{} NO [SERVERBUG] internal error\r\n", tag(tagged))])
    };
    let half_and_refused = |said: &[String]| {
        let (first, tagged) = (said.iter().find(|line| is_fetch(line))?, said.last().unwrap());
        Some(vec![first.clone(), format!("{} NO some messages could not be read\r\n", tag(tagged))])
    };
    let mut plans = Vec::new();
    for offers in [BASIC, CONDSTORE, QRESYNC, RICH] {
        for times in [1, 2] {
            plans.push(Plan::new("no UID", offers, in_fetch(times, without_uid)));
            plans.push(Plan::new("UID 0", offers, in_fetch(times, uid_zero)));
            plans.push(Plan::new("no message", offers, in_fetch(times, nothing)));
            plans.push(Plan::new("NO", offers, in_fetch(times, refused)));
            plans.push(Plan::new("NO after a message", offers, in_fetch(times, half_and_refused)));
        }
        plans.push(Plan::new("messages that are old", offers, in_fetch(usize::MAX, foreign)));
        plans.push(Plan::new("flags before the message", offers, in_fetch(usize::MAX, flags_first)));
        plans.push(Plan::new("messages in two pieces", offers, in_fetch(usize::MAX, split)));
        plans.push(Plan::new("no FLAGS", offers, in_fetch(usize::MAX, without_flags)));
        plans.push(Plan::new("backwards", offers, in_fetch(usize::MAX, backwards)));
    }
    all_survive(plans).await;
}

/// Rewrites what the server says when a mailbox is opened, from the second time on.
fn on_reopening(times: usize, change: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Fault {
    let opened = std::sync::atomic::AtomicUsize::new(0);
    Fault::rewrite(times, move |line, said| {
        let opens = is(line, "EXAMINE INBOX") || is(line, "EXAMINE \"INBOX\"");
        let again = opens && opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 0;
        again.then(|| each(said, &change))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_may_be_wrong() {
    fn replaced(code: &'static str, by: Option<&'static str>) -> impl Fn(&str) -> Option<String> + Send + Sync {
        move |line| match by {
            _ if !line.contains(code) => Some(line.to_owned()),
            Some(by) => Some(format!("* OK [{by}] wrong\r\n")),
            None => None,
        }
    }
    let ever = usize::MAX;
    let mut plans = Vec::new();
    for offers in [BASIC, CONDSTORE, QRESYNC, RICH] {
        for times in [1, ever] {
            let missing = on_reopening(times, replaced("[UIDNEXT", None));
            plans.push(Plan::new("no UIDNEXT", offers, missing));
        }
        plans.push(Plan::new("UIDNEXT shrinks", offers, on_reopening(1, replaced("[UIDNEXT", Some("UIDNEXT 2")))));
        plans.push(Plan::new("UIDNEXT 0", offers, on_reopening(1, replaced("[UIDNEXT", Some("UIDNEXT 0")))));
        let shrunk =
            |line: &str| Some(if line.ends_with(" EXISTS\r\n") { "* 1 EXISTS\r\n".into() } else { line.into() });
        plans.push(Plan::new("fewer messages and no EXPUNGE", offers, on_reopening(1, shrunk)));
        // As mail.163.com does: neither the mailbox nor STATUS says where it ends.
        let nowhere = Fault::rewrite(ever, |_, said| {
            let silent = |line: &str| {
                let is_status = line.starts_with("* STATUS");
                let by = line.split(" (").next().map(|begin| format!("{begin} ()\r\n")).filter(|_| is_status);
                (!line.contains("[UIDNEXT")).then(|| by.unwrap_or_else(|| line.to_owned()))
            };
            said.iter()
                .any(|line| line.contains("[UIDNEXT") || line.starts_with("* STATUS"))
                .then(|| each(said, silent))
        });
        // Not yet where other mailboxes are told of: a STATUS with nothing in it is taken for one without news there.
        if offers != RICH {
            plans.push(Plan::new("no UIDNEXT anywhere", offers, nowhere));
        }
        if offers != BASIC {
            let back = on_reopening(1, replaced("[HIGHESTMODSEQ", Some("HIGHESTMODSEQ 1")));
            plans.push(Plan::new("HIGHESTMODSEQ jumps back", offers, back));
            let none = on_reopening(ever, replaced("[HIGHESTMODSEQ", Some("NOMODSEQ")));
            plans.push(Plan::new("NOMODSEQ", offers, none));
        }
        let stale = |line: &str| Some(if line.starts_with("* STATUS") { stale_status(line) } else { line.into() });
        if offers == RICH {
            let fault = Fault::rewrite(4, move |_, said| {
                said.iter().any(|line| line.starts_with("* STATUS")).then(|| each(said, stale))
            });
            plans.push(Plan::new("stale STATUS", offers, fault));
            for answer in ["NO [BADEVENT (MessageNew)] not that", "BAD what?"] {
                let refusal = Fault::rewrite(ever, move |line, _| {
                    is(line, "NOTIFY").then(|| vec![format!("{} {answer}\r\n", tag(line))])
                });
                plans.push(Plan::new(format!("NOTIFY answered {answer}"), offers, refusal));
            }
            // Said and done: from then on the server tells nothing of mailboxes that are not open.
            let overflow = Fault::rewrite(ever, |line, said| {
                let is_enough = is(line, "IDLE") || said.iter().any(|line| line.starts_with("* STATUS Lists"));
                is_enough.then(|| {
                    let mut said = each(said, |line| (!line.starts_with("* STATUS Lists")).then(|| line.to_owned()));
                    said.insert(0, "* OK [NOTIFICATIONOVERFLOW] too much\r\n".to_owned());
                    said
                })
            });
            plans.push(Plan::new("NOTIFICATIONOVERFLOW", offers, overflow));
            for (name, kept) in [("empty LIST", ""), ("LIST without INBOX", "Lists")] {
                let lists = move |line: &str| {
                    let is_listed = !line.starts_with("* LIST") || (!kept.is_empty() && line.contains(kept));
                    is_listed.then(|| line.to_owned())
                };
                let fault = Fault::rewrite(3, move |line, said| is(line, "LIST").then(|| each(said, lists)));
                plans.push(Plan::new(name, offers, fault));
            }
        }
    }
    all_survive(plans).await;
}

/// As a server says it that has not noticed what came.
fn stale_status(line: &str) -> String {
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    for index in 1..words.len() {
        if words[index - 1].ends_with("MESSAGES") || words[index - 1].ends_with("UIDNEXT") {
            let end = if words[index].contains(')') { ")\r\n" } else { "" };
            words[index] = format!("1{end}");
        }
    }
    words.join(" ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_without_uid_validity_is_watched() {
    let mut plans = Vec::new();
    for by in ["* OK [UIDVALIDITY 0] none\r\n", ""] {
        let fault = Fault::rewrite(usize::MAX, move |line, said| {
            let none = |line: &str| Some(if line.contains("[UIDVALIDITY") { by.to_owned() } else { line.to_owned() });
            is(line, "EXAMINE").then(|| each(said, none))
        });
        plans.push(Plan::new(format!("UIDVALIDITY answered {by:?}"), BASIC, fault));
    }
    all_survive(plans).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn greetings_may_be_strange() {
    let greetings = [
        "* OK [ALERT]é\r\n",
        "* OK\r\n",
        "* OK [CAPABILITY IMAP4rev1 IDLE]é – ready\r\n",
        "* ok ready\r\n",
        "* PREAUTH [CAPABILITY IMAP4rev1 IDLE] no need to log in\r\n",
        "* BYE overloaded\r\n",
        "220 mail.example.org ESMTP\r\n",
        "\r\n",
    ];
    let plans = greetings.map(|greeting| Plan {
        greeting: Some(greeting.to_owned()),
        ..Plan::new(format!("greeting {greeting:?}"), BASIC, Fault::None)
    });
    all_survive(plans.into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_huge_stops_nothing() {
    let mib = 1024 * 1024;
    let line = |octets: usize| [b"* OK ".as_slice(), &b"x".repeat(octets), b"\r\n"].concat();
    let troubles = [
        Trouble::Flood("* 1 FETCH (UID 4 BODY[1] {400000000}\r\n".into(), 400 * mib),
        Trouble::Flood("* 1 FETCH (UID 4 BODY[1] {4294967295}\r\n".into(), 400 * mib),
        Trouble::Flood("* 1 FETCH (UID 4 BODY[1] {99999999999999999999}\r\n".into(), 400 * mib),
        Trouble::Flood("* 1 FETCH (UID 4 BODY[1] ~{400000000}\r\n".into(), 400 * mib),
        Trouble::Flood("* OK [ALERT] a line without an end ".into(), 400 * mib),
        Trouble::Flood("* SEARCH ".into(), 400 * mib),
        Trouble::Text(line(mib)),
        Trouble::Text(format!("* LIST ({}) \"/\" x\r\n", "\\Flag ".repeat(150_000)).into_bytes()),
        Trouble::Text(format!("* 1 FETCH (UID 4 BODYSTRUCTURE {})\r\n", "(".repeat(1_000_000)).into_bytes()),
        Trouble::Text(format!("* VANISHED (EARLIER) {}1\r\n", "1,3,".repeat(200_000)).into_bytes()),
        Trouble::Text("* 1 FETCH (UID 1 FLAGS ())\r\n".repeat(40_000).into_bytes()),
    ];
    let mut plans = Vec::new();
    for offers in [BASIC, RICH] {
        let (_, responses, _) = length(offers).await;
        for number in [0, 2, responses / 3, responses / 2, responses - 4] {
            plans.extend(
                troubles.iter().map(|trouble| Plan::new("huge", offers, Fault::Response(number, trouble.clone()))),
            );
        }
    }
    all_survive(plans).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_uids_announce_what_is_new_and_nothing_else() {
    for offers in [BASIC, CONDSTORE, QRESYNC, RICH] {
        let (store, folder) = (old_mail(), tempdir().unwrap());
        let server = MisbehavingImap::start(&store, offers, Fault::None).await;
        let watching = Watching::start(folder.path(), &[server.account(&["INBOX"])], impatient());
        let mut observed = Observed::new(&store, watching);
        let life = async {
            observed.until(|event| event.draft.kind == EventKind::AccountUp).await;
            store.deliver("INBOX", "new one");
            observed.announcement("new one").await;
            // As after a restore: the same messages by other UIDs, the lowest goes, and one comes while nobody looks.
            store.change("INBOX", support::imap_model::Mailbox::renew_validity);
            store.deliver("INBOX", "new while away");
            observed.announcement("new while away").await;
            store.deliver("INBOX", "new two");
            observed.announcement("new two").await;
            server.hang_up();
            store.deliver("INBOX", "new after all");
            observed.announcement("new after all").await;
        };
        let lived = timeout(LIMIT, life).await;
        assert!(lived.is_ok(), "{offers}: announced {:?}", observed.announced);
        assert_eq!((observed.verdict(), observed.resets), (None, 1), "{offers}");
        observed.watching.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_refused_for_ever_stops_no_other() {
    for (offers, even_its_uid) in [(BASIC, false), (BASIC, true), (QRESYNC, true), (RICH, true)] {
        let (store, folder) = (old_mail(), tempdir().unwrap());
        let fault = Fault::rewrite(usize::MAX, move |line, said| {
            let has_it = said.iter().any(|response| is_fetch(response) && uid_of(response).trim_end() == "UID 4");
            let asks = is(line, "UID FETCH") && (even_its_uid || line.contains("BODY"));
            (asks && has_it).then(|| vec![format!("{} NO [SERVERBUG] cannot read it\r\n", tag(line))])
        });
        let server = MisbehavingImap::start(&store, offers, fault).await;
        let watching = Watching::start(folder.path(), &[server.account(&["INBOX"])], impatient());
        let mut observed = Observed::new(&store, watching);
        let life = async {
            observed.until(|event| event.draft.kind == EventKind::AccountUp).await;
            store.deliver("INBOX", "unreadable");
            store.deliver("INBOX", "new one");
            observed.announcement("new one").await;
            store.deliver("INBOX", "new two");
            observed.announcement("new two").await;
            server.hang_up();
            store.deliver("INBOX", "new after all");
            observed.announcement("new after all").await;
        };
        let lived = timeout(LIMIT, life).await;
        let what = format!("{offers}, even its UID: {even_its_uid}");
        assert!(lived.is_ok(), "{what}: announced {:?}, struck {}", observed.announced, server.struck());
        assert!(server.struck() > 0, "{what}");
        let mut delivered = store.delivered();
        if !observed.announced.contains_key("unreadable") {
            delivered.remove("unreadable");
        }
        assert_eq!(observed.verdict_on(&delivered), None, "{what}");
        observed.watching.stop().await;
    }
}
