//! Servers that are gone, or fall silent, at each point of what they say: each message is still announced once.
//!
//! Each account has a server of its own that breaks off somewhere else. Hundreds of them are watched at the same time,
//! and all are led through the same short life by what is announced: no step waits for a time.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use postrider::event::{Event, EventKind};
use postrider::registry::Account;
use postrider::source::imap::ImapConfig;
use support::imap_model::{BASIC, RICH, Store};
use support::misbehaving_imap::{Fault, MisbehavingImap, Part, Trouble};
use support::watching::Watching;
use tempfile::tempdir;
use tokio::time::timeout;

/// Without any event for so long, some watcher hangs: many times the longest deadline.
const STANDSTILL: Duration = Duration::from_secs(60);
/// Accounts that are watched at the same time.
const AT_ONCE: usize = 200;
/// Messages that are waited for so that a fault may strike that by the book would have struck before.
const MORE_MAX: u32 = 20;

const OFTEN: NonZeroU32 = NonZeroU32::new(100_000).unwrap();

fn config(deadline: Duration) -> ImapConfig {
    ImapConfig {
        idle_renew: deadline,
        connects_per_second: OFTEN,
        connects_per_host_per_second: OFTEN,
        connects_per_host_max: NonZeroUsize::new(AT_ONCE).unwrap(),
        connect_timeout: deadline,
        login_timeout: deadline,
        open_timeout: deadline,
        answer_timeout: deadline,
        done_timeout: deadline,
        retry_first: Duration::from_millis(1),
        retry_max: Duration::from_millis(20),
        ..ImapConfig::default()
    }
}

/// One account with its server.
struct Life {
    name: String,
    fault: Fault,
    server: MisbehavingImap,
    account: Account,
    /// By subject, which no two messages share.
    announced: BTreeMap<String, u32>,
    /// What is waited for: nothing before the account is up.
    awaited: Option<String>,
    more: u32,
    /// Responses and octets by the time when all was said that there is to say, for the first time.
    length: (usize, usize),
    is_over: bool,
}

impl Life {
    async fn new(number: usize, offers: &'static str, fault: Fault) -> Self {
        let store = Store::with_old(2);
        store.create("Lists", "");
        let server = MisbehavingImap::start(&store, offers, fault.clone()).await;
        let name = format!("a{number}");
        let mailboxes: &[&str] = if offers == RICH { &["INBOX", "Lists"] } else { &["INBOX"] };
        let account = Account { name: name.parse().unwrap(), ..server.account(mailboxes) };
        let (announced, awaited) = (BTreeMap::new(), None);
        Self { name, fault, server, account, announced, awaited, more: 0, length: (0, 0), is_over: false }
    }

    fn hear(&mut self, event: &Event) {
        let draft = &event.draft;
        if draft.kind == EventKind::AccountUp && self.awaited.is_none() {
            self.expect("new in a stream");
        }
        if draft.kind != EventKind::MessageNew {
            return;
        }
        let subject = draft.message.as_ref().and_then(|message| message.subject.clone());
        let subject = subject.unwrap_or_else(|| format!("{event:?}"));
        *self.announced.entry(subject.clone()).or_default() += 1;
        if self.awaited.as_ref() == Some(&subject) {
            self.go_on(&subject);
        }
    }

    /// Mail that comes while it is watched, mail that comes while it is not, and a look at all of it anew.
    fn go_on(&mut self, announced: &str) {
        match announced {
            "new in a stream" => {
                self.server.hang_up();
                self.expect("new while away");
            }
            "new after all" => self.is_over = true,
            _ if self.server.struck() == 0 && self.is_faulty() && self.more < MORE_MAX => {
                self.more += 1;
                self.expect(&format!("new {} more", self.more));
            }
            _ => {
                let (_, responses, octets) = self.server.counts();
                self.length = (responses, octets);
                self.server.lift();
                self.server.hang_up();
                self.expect("new after all");
            }
        }
    }

    fn expect(&mut self, subject: &str) {
        self.awaited = Some(subject.to_owned());
        self.server.store.deliver("INBOX", subject);
    }

    fn is_faulty(&self) -> bool {
        !matches!(self.fault, Fault::None)
    }

    /// What is wrong, if anything is.
    fn verdict(&self) -> Option<String> {
        let delivered: BTreeMap<String, u32> =
            self.server.store.delivered().into_iter().map(|subject| (subject, 1)).collect();
        let is_right = self.is_over && self.announced == delivered && (self.server.struck() > 0 || !self.is_faulty());
        (!is_right).then(|| {
            let (fault, announced, struck) = (&self.fault, &self.announced, self.server.struck());
            format!("{fault:?}: announced {announced:?} of {delivered:?}, struck {struck} times")
        })
    }
}

/// Lives that begin together, to the end of the last one.
async fn live(lives: &mut [Life], deadline: Duration) {
    let folder = tempdir().unwrap();
    let accounts: Vec<Account> = lives.iter().map(|life| life.account.clone()).collect();
    let mut watching = Watching::start(folder.path(), &accounts, config(deadline));
    while lives.iter().any(|life| !life.is_over) {
        let Ok(event) = timeout(STANDSTILL, watching.event_at_last()).await else { break };
        let account = event.draft.account.as_ref().unwrap().as_str();
        lives.iter_mut().find(|life| life.name == account).unwrap().hear(&event);
    }
    watching.stop().await;
}

async fn all_survive(offers: &'static str, deadline: Duration, faults: Vec<Fault>) {
    let (begun, count, mut wrong) = (std::time::Instant::now(), faults.len(), Vec::new());
    for faults in faults.chunks(AT_ONCE) {
        let mut lives = Vec::new();
        for (number, fault) in faults.iter().enumerate() {
            lives.push(Life::new(number, offers, fault.clone()).await);
        }
        live(&mut lives, deadline).await;
        wrong.extend(lives.iter().filter_map(Life::verdict));
    }
    println!("{count} servers, {:.1?}", begun.elapsed());
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Responses and octets of a life by the book: a first session with new mail in it, and a second that catches up.
async fn length(offers: &'static str) -> (usize, usize) {
    let mut lives = [Life::new(0, offers, Fault::None).await];
    live(&mut lives, Duration::from_secs(30)).await;
    assert_eq!(lives[0].verdict(), None);
    println!("{} responses, {} octets", lives[0].length.0, lives[0].length.1);
    lives[0].length
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_may_end_after_each_octet() {
    // No deadline is needed to notice an end.
    let octets = length(BASIC).await.1;
    all_survive(BASIC, Duration::from_secs(30), (0..octets).map(Fault::EofAfter).collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_may_end_anywhere_in_extensions() {
    // Each of its many octets would take a minute and a half, and a response is longer than this step.
    let octets = length(RICH).await.1;
    all_survive(RICH, Duration::from_secs(30), (0..octets).step_by(7).map(Fault::EofAfter).collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_may_fall_silent_in_each_response() {
    for offers in [BASIC, RICH] {
        let responses = length(offers).await.0;
        let troubles =
            [Trouble::Stall, Trouble::Halt(Part::Half), Trouble::Halt(Part::Literal), Trouble::Halt(Part::NearlyAll)];
        let faults = (0..responses)
            .flat_map(|number| troubles.iter().map(move |trouble| Fault::Response(number, trouble.clone())))
            .collect();
        all_survive(offers, Duration::from_secs(1), faults).await;
    }
}
