//! A server that does every wrong thing at every step: each message is still announced once, and nothing hangs.
//!
//! The property is the same for every fault: whatever was delivered is announced by exactly one `MessageNew`, nothing
//! else is announced as new, and all that within a time that follows from the configured deadlines. That the fault
//! struck is asserted, too.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::{Mutex, Once};
use std::time::Duration;

use futures::StreamExt;
use postrider::event::{Event, EventKind};
use postrider::registry::AccountState;
use postrider::source::imap::ImapConfig;
use support::eventually;
use support::imap_model::{BARE, BASIC, CONDSTORE, QRESYNC, RICH, Store};
use support::misbehaving_imap::{Fault, MisbehavingImap, Trouble};
use support::watching::Watching;
use tempfile::tempdir;
use tokio::time::timeout;

/// For one server with one fault, from the first connection to the last message: many times what it takes.
const LIMIT: Duration = Duration::from_secs(45);
/// Servers at the same time: most of the time they wait for a deadline.
const AT_ONCE: usize = 16;

const OFTEN: NonZeroU32 = NonZeroU32::new(1000).unwrap();
/// Messages that are waited for so that a fault may strike.
const MORE_MAX: u32 = 60;

/// Deadlines that a test can wait for.
fn impatient() -> ImapConfig {
    let short = Duration::from_millis(400);
    ImapConfig {
        idle_renew: Duration::from_millis(500),
        poll_interval: Duration::from_millis(50),
        sweep_interval: Duration::from_millis(200),
        // What a fault made the server keep to itself is found by asking, in the end.
        safety_poll: Duration::from_secs(5),
        connects_per_second: OFTEN,
        connects_per_host_per_second: OFTEN,
        connect_timeout: short,
        login_timeout: short,
        open_timeout: short,
        answer_timeout: short,
        done_timeout: short,
        retry_first: Duration::from_millis(20),
        retry_max: Duration::from_millis(40),
        ..ImapConfig::default()
    }
}

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
        let is_faulty = !matches!(self.fault, Fault::None) || self.greeting.is_some();
        let folder = tempdir().unwrap();
        let server = MisbehavingImap::with_greeting(&self.store, self.offers, self.fault, self.greeting).await;
        let account = server.account(mailboxes(self.offers));
        let watching = Watching::start(folder.path(), &[account], impatient());
        let mut observed = Observed::new(&self.store, watching);
        let lived = timeout(LIMIT, observed.live_through(&server, is_faulty)).await;
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

fn old_mail() -> Store {
    let store = Store::with_old(3);
    store.create("Lists", "");
    store.create("Sent", "\\Sent");
    store
}

/// What a watcher has said of the mail in a store.
struct Observed {
    store: Store,
    watching: Watching,
    /// By subject, which no two messages share.
    announced: BTreeMap<String, u32>,
    /// `MailboxReset`s.
    resets: u32,
}

impl Observed {
    fn new(store: &Store, watching: Watching) -> Self {
        Self { store: store.clone(), watching, announced: BTreeMap::new(), resets: 0 }
    }

    /// A session's life: mail that comes by one and by many, flags, removal, a loss of the connection.
    async fn live_through(&mut self, server: &MisbehavingImap, is_faulty: bool) {
        let store = self.store.clone();
        self.until(|event| event.draft.kind == EventKind::AccountUp).await;
        let first = store.deliver("INBOX", "new one");
        self.announcement("new one").await;
        store.flag("INBOX", first, "\\Seen");
        store.deliver("INBOX", "new two");
        store.deliver("INBOX", "new three");
        self.announcement("new three").await;
        store.expunge("INBOX", 1);
        store.deliver("INBOX", "new four");
        self.announcement("new four").await;
        if mailboxes(server.offers()).contains(&"Lists") {
            store.deliver("Lists", "new in a list");
            self.announcement("new in a list").await;
        }
        server.hang_up();
        store.deliver("INBOX", "new while away");
        self.announcement("new while away").await;
        // What strikes late in a session needs a longer one.
        let mut number = 0;
        while is_faulty && server.struck() == 0 && number < MORE_MAX {
            number += 1;
            let subject = format!("new {number} more");
            store.deliver("INBOX", &subject);
            self.announcement(&subject).await;
        }
        server.lift();
        store.deliver("INBOX", "new at last");
        self.announcement("new at last").await;
        // What is announced twice is so at the latest when all is looked at anew.
        server.hang_up();
        store.deliver("INBOX", "new after all");
        self.announcement("new after all").await;
    }

    async fn announcement(&mut self, subject: &str) {
        if !self.announced.contains_key(subject) {
            let of = |event: &Event| event.draft.kind == EventKind::MessageNew;
            while !self.announced.contains_key(subject) {
                self.until(of).await;
            }
        }
    }

    async fn until(&mut self, wanted: impl Fn(&Event) -> bool) {
        loop {
            let event = self.watching.event_at_last().await;
            self.take(&event);
            if wanted(&event) {
                return;
            }
        }
    }

    fn take(&mut self, event: &Event) {
        let draft = &event.draft;
        self.resets += u32::from(draft.kind == EventKind::MailboxReset);
        if draft.kind != EventKind::MessageNew {
            return;
        }
        let subject = draft.message.as_ref().and_then(|message| message.subject.clone());
        // Without a subject, when less was asked than all.
        let subject = subject.or_else(|| {
            let mailbox = draft.mailbox.as_ref()?;
            self.store.subject(mailbox, draft.uid_validity?, draft.uid?)
        });
        *self.announced.entry(subject.unwrap_or_else(|| format!("{event:?}"))).or_default() += 1;
    }

    /// What is wrong with what was announced.
    fn verdict(&self) -> Option<String> {
        self.verdict_on(&self.store.delivered())
    }

    fn verdict_on(&self, delivered: &BTreeSet<String>) -> Option<String> {
        let missing: Vec<_> = delivered.iter().filter(|subject| !self.announced.contains_key(*subject)).collect();
        let wrong: Vec<_> =
            self.announced.iter().filter(|(subject, times)| **times != 1 || !delivered.contains(*subject)).collect();
        (!missing.is_empty() || !wrong.is_empty()).then(|| format!("missing {missing:?}, wrong {wrong:?}"))
    }
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

fn is(line: &str, command: &str) -> bool {
    line.split_once(' ').is_some_and(|(_, rest)| rest.to_ascii_uppercase().starts_with(command))
}

fn tag(line: &str) -> &str {
    line.split(' ').next().unwrap()
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

/// KiB that this process has in memory (proc(5), statm).
fn resident_kib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_huge_is_not_kept() {
    // Far less than any of them, far more than the tests beside it take.
    const MEMORY_KIB_MAX: u64 = 100 * 1024;
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
    let before = resident_kib();
    let most = std::sync::atomic::AtomicU64::new(before);
    let watch = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        loop {
            ticks.tick().await;
            most.fetch_max(resident_kib(), std::sync::atomic::Ordering::Relaxed);
        }
    };
    tokio::select! {
        () = all_survive(plans) => {}
        () = watch => {}
    }
    let grown = most.into_inner() - before;
    println!("{grown} KiB more at most");
    assert!(grown < MEMORY_KIB_MAX, "{grown} KiB");
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

/// What a refusal leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reaction {
    /// Credentials are wrong: not before a minute.
    Waits,
    /// A person has to act: not at all.
    Parks,
    /// No place for a connection, or too much was asked: not before so many seconds.
    Pauses(u32),
    /// For the moment: at once.
    Retries,
}

async fn reacts(command: &'static str, answer: &'static str, expected: Reaction) {
    let (store, folder) = (old_mail(), tempdir().unwrap());
    let times = if expected == Reaction::Retries { 1 } else { usize::MAX };
    let fault = Fault::rewrite(times, move |line, _| {
        is(line, command).then(|| {
            let tag = if answer.starts_with("BYE") { "*" } else { tag(line) };
            vec![format!("{tag} {answer}\r\n")]
        })
    });
    let server = MisbehavingImap::start(&store, BASIC, fault).await;
    let watching = Watching::start(folder.path(), &[server.account(&["INBOX"])], impatient());
    let refused = eventually(answer, async || {
        let status = watching.status();
        let is_there = match expected {
            Reaction::Waits | Reaction::Parks => status.state == AccountState::AuthenticationError,
            Reaction::Pauses(_) => status.retry_at.is_some(),
            Reaction::Retries => status.state == AccountState::Connected,
        };
        is_there.then_some(status)
    })
    .await;
    let pause = refused.retry_at.map(|at| at.as_second() - jiff::Timestamp::now().as_second());
    assert!(server.struck() > 0, "{command} {answer}");
    match expected {
        Reaction::Waits => assert!(pause.is_some_and(|pause| (50..70).contains(&pause)), "{answer}: {pause:?}"),
        Reaction::Parks => assert_eq!(pause, None, "{answer}"),
        Reaction::Pauses(least) => {
            assert!(pause.is_some_and(|pause| pause >= i64::from(least)), "{command} {answer}: {pause:?}");
            assert_ne!(refused.state, AccountState::AuthenticationError, "{answer}");
        }
        Reaction::Retries => {}
    }
    if expected != Reaction::Retries {
        // Whoever would come back comes back within milliseconds.
        assert_eq!(server.connections(), 1, "{command} {answer}");
        let words = answer.trim_start_matches("NO ").trim_start_matches("BAD ").rsplit(']').next().unwrap().trim();
        assert!(refused.reason.as_deref().is_some_and(|reason| reason.contains(words)), "{answer}: {refused:?}");
    }
    watching.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_has_its_reaction() {
    use Reaction::{Parks, Pauses, Retries, Waits};
    let table = [
        ("LOGIN", "NO [AUTHENTICATIONFAILED] wrong password", Waits),
        ("LOGIN", "NO [EXPIRED] password expired", Waits),
        ("LOGIN", "NO LOGIN failed", Waits),
        ("LOGIN", "NO [AUTHORIZATIONFAILED] not you", Parks),
        ("LOGIN", "NO [CONTACTADMIN] call us", Parks),
        ("LOGIN", "NO [PRIVACYREQUIRED] not like this", Parks),
        ("LOGIN", "NO [WEBALERT https://example.org/unlock] Web login required", Parks),
        ("LOGIN", "NO [ALERT] Application-specific password required", Parks),
        ("LOGIN", "NO Web login required", Parks),
        ("LOGIN", "NO [UNAVAILABLE] Maximum number of connections from user+IP exceeded", Pauses(290)),
        ("LOGIN", "NO [LIMIT] too many sessions", Pauses(290)),
        ("LOGIN", "NO [ALERT] Too many simultaneous connections. (Failure)", Pauses(290)),
        ("LOGIN", "NO [LIMIT] Rate limit hit.", Pauses(590)),
        ("LOGIN", "NO [THROTTLED] slowly", Pauses(590)),
        ("EXAMINE", "BAD User is authenticated but not connected.", Pauses(290)),
        ("LOGIN", "NO [UNAVAILABLE] Temporary authentication failure.", Retries),
        ("LOGIN", "NO [SERVERBUG] internal error", Retries),
        ("LOGIN", "BAD what?", Retries),
        ("EXAMINE", "NO [INUSE] locked", Retries),
        ("EXAMINE", "NO [CORRUPTION] being repaired", Retries),
        ("IDLE", "BYE Session expired, please login again.", Retries),
        ("NOOP", "BYE Session invalidated - AccessTokenExpired", Retries),
    ];
    futures::stream::iter(table)
        .map(|(command, answer, reaction)| reacts(command, answer, reaction))
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<()>>()
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_refused_logins_are_enough() {
    let (store, folder) = (old_mail(), tempdir().unwrap());
    let fault = Fault::rewrite(usize::MAX, |line, _| {
        is(line, "LOGIN").then(|| vec![format!("{} NO [AUTHENTICATIONFAILED] wrong password\r\n", tag(line))])
    });
    let server = MisbehavingImap::start(&store, BASIC, fault).await;
    let account = server.account(&["INBOX"]);
    let mut watching = Watching::start(folder.path(), std::slice::from_ref(&account), impatient());
    watching.until(EventKind::AccountAuthFailed).await;
    for refused in 1..=5 {
        let waits = eventually("the next refusal", async || {
            let status = watching.status();
            let is_refused = status.state == AccountState::AuthenticationError && server.connections() == refused;
            // Asked of the one that holds it for true that nothing more happens by itself.
            is_refused.then_some(status.retry_at)
        })
        .await;
        if refused < 5 {
            eventually("another attempt", async || {
                watching.handle.retry(&account.name);
                (server.connections() > refused).then_some(())
            })
            .await;
        } else {
            assert_eq!(waits, None, "it is parked");
        }
    }
    server.lift();
    eventually("an attempt that a person asked for", async || {
        watching.handle.retry(&account.name);
        (watching.status().state == AccountState::Connected).then_some(())
    })
    .await;
    watching.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_that_is_refused_leaves_the_others_watched() {
    for offers in [BASIC, RICH] {
        for refusal in ["NO [NONEXISTENT] no such mailbox", "NO [UNAVAILABLE] not now", "NO [NOPERM] not yours"] {
            let (store, folder) = (old_mail(), tempdir().unwrap());
            let fault = Fault::rewrite(usize::MAX, move |line, _| {
                let opens = is(line, "EXAMINE LISTS") || is(line, "EXAMINE \"LISTS\"");
                opens.then(|| vec![format!("{} {refusal}\r\n", tag(line))])
            });
            let server = MisbehavingImap::start(&store, offers, fault).await;
            let mailboxes = ["INBOX", "Lists"];
            let mut watching = Watching::start(folder.path(), &[server.account(&mailboxes)], impatient());
            eventually("the refusal", async || (server.struck() > 0).then_some(())).await;
            // What came before INBOX was seen for the first time is old.
            eventually("INBOX to be watched", async || (server.idling() > 0).then_some(())).await;
            store.deliver("INBOX", "new one");
            assert_eq!(watching.until(EventKind::MessageNew).await.draft.uid, Some(4), "{offers} {refusal}");
            watching.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_of_a_mailbox_that_was_never_opened_is_announced_when_it_can_be() {
    for offers in [BASIC, QRESYNC, RICH] {
        let (store, folder) = (old_mail(), tempdir().unwrap());
        store.deliver("Lists", "old in a list");
        let fault = Fault::rewrite(usize::MAX, |line, _| {
            is(line, "EXAMINE \"LISTS\"").then(|| vec![format!("{} NO [UNAVAILABLE] not now\r\n", tag(line))])
        });
        let server = MisbehavingImap::start(&store, offers, fault).await;
        let watching = Watching::start(folder.path(), &[server.account(&["INBOX", "Lists"])], impatient());
        let mut observed = Observed::new(&store, watching);
        let life = async {
            // By now each of its two mailboxes was seen, by whichever connection.
            eventually("two refusals", async || (server.struck() > 1 && server.idling() > 0).then_some(())).await;
            store.deliver("Lists", "new in a list");
            store.deliver("INBOX", "new one");
            observed.announcement("new one").await;
            server.lift();
            observed.announcement("new in a list").await;
        };
        let lived = timeout(LIMIT, life).await;
        assert!(lived.is_ok(), "{offers}: announced {:?}", observed.announced);
        assert_eq!(observed.verdict(), None, "{offers}");
        observed.watching.stop().await;
    }
}
