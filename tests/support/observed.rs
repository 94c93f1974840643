//! What is said of the mail of a misbehaving server, against what came there.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use postrider::event::{Event, EventKind};
use postrider::source::imap::ImapConfig;

use super::imap_model::Store;
use super::watching::Watching;

const OFTEN: NonZeroU32 = NonZeroU32::new(1000).unwrap();

/// Deadlines that a test can wait for.
pub fn impatient() -> ImapConfig {
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

/// Some mail that is not new, and mailboxes besides INBOX.
pub fn old_mail() -> Store {
    let store = Store::with_old(3);
    store.create("Lists", "");
    store.create("Sent", "\\Sent");
    store
}

/// What a watcher has said of the mail in a store.
pub struct Observed {
    pub store: Store,
    pub watching: Watching,
    /// By subject, which no two messages share.
    pub announced: BTreeMap<String, u32>,
    /// `MailboxReset`s.
    pub resets: u32,
}

impl Observed {
    pub fn new(store: &Store, watching: Watching) -> Self {
        Self { store: store.clone(), watching, announced: BTreeMap::new(), resets: 0 }
    }

    pub async fn announcement(&mut self, subject: &str) {
        if !self.announced.contains_key(subject) {
            let of = |event: &Event| event.draft.kind == EventKind::MessageNew;
            while !self.announced.contains_key(subject) {
                self.until(of).await;
            }
        }
    }

    pub async fn until(&mut self, wanted: impl Fn(&Event) -> bool) {
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
    pub fn verdict(&self) -> Option<String> {
        self.verdict_on(&self.store.delivered())
    }

    pub fn verdict_on(&self, delivered: &BTreeSet<String>) -> Option<String> {
        let missing: Vec<_> = delivered.iter().filter(|subject| !self.announced.contains_key(*subject)).collect();
        let wrong: Vec<_> =
            self.announced.iter().filter(|(subject, times)| **times != 1 || !delivered.contains(*subject)).collect();
        (!missing.is_empty() || !wrong.is_empty()).then(|| format!("missing {missing:?}, wrong {wrong:?}"))
    }
}
