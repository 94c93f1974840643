//! A server that does every wrong thing at every step: each message is still announced once, and nothing hangs.
//!
//! The property is the same for every fault: whatever was delivered is announced by exactly one `MessageNew`, nothing
//! else is announced as new, and all that within a time that follows from the configured deadlines. That the fault
//! struck is asserted, too.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::collections::BTreeMap;
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

/// Deadlines that a test can wait for.
fn impatient() -> ImapConfig {
    let short = Duration::from_millis(400);
    ImapConfig {
        idle_renew: Duration::from_millis(500),
        poll_interval: Duration::from_millis(50),
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
        let mut observed = Observed { store: self.store.clone(), watching, announced: BTreeMap::new() };
        let lived = timeout(LIMIT, observed.live_through(&server, is_faulty)).await;
        let counts = server.counts();
        let what = match lived {
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
}

impl Observed {
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
        while is_faulty && server.struck() == 0 {
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
            let event = self.watching.event().await;
            self.take(&event);
            if wanted(&event) {
                return;
            }
        }
    }

    fn take(&mut self, event: &Event) {
        let draft = &event.draft;
        if draft.kind != EventKind::MessageNew {
            return;
        }
        let subject = draft.message.as_ref().and_then(|message| message.subject.clone());
        // Without a subject, when less was asked than all.
        let subject = subject.or_else(|| {
            let mailbox = draft.mailbox.as_ref()?;
            self.store.subject(&mailbox.to_string(), draft.uid_validity?, draft.uid?)
        });
        *self.announced.entry(subject.unwrap_or_else(|| format!("{event:?}"))).or_default() += 1;
    }

    /// What is wrong with what was announced.
    fn verdict(&self) -> Option<String> {
        let delivered = self.store.delivered();
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
