//! Attachments that are kept for a while, for accounts that ask for it, and the links by which they are fetched.
//!
//! Events list attachments and never carry them. Here their octets wait in files, each of one part of one message of one
//! account, within bounds and until they expire. A file is on disk before the event that links to it is committed, and
//! is pending until then: what a crash leaves pending is looked up in the event log at the next start, and goes if no
//! event speaks of it. What does not fit is not kept, and the event goes out all the same.

mod config;
mod files;
mod ledger;
mod link;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::hmac;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;
use uuid::fmt::Simple;

use crate::event::{AccountName, Content, Draft, Topic, TopicMatcher};
use crate::event_log::{Append, Appended, EventLog, Position, ReadError, Selection};
use crate::message::attachment_bodies;
use crate::metrics::{Metrics, Results};
use crate::registry::Account;

pub use config::{AttachmentsConfig, AttachmentsConfigError};
pub use files::{Header, Kept};
pub use link::{LinkError, Links};

use files::{Files, charge};
use ledger::{Entry, Full, Ledger};

/// Events of a topic that are read at a time, when pending files are looked for in it.
const EVENTS_READ: usize = 1000;
/// Messages whose attachments are written at the same time: each has a thread, which mostly waits for the disk, and others
/// need the threads too.
const WRITES_MAX: usize = 4;
/// How often expired files are looked for.
const SWEEP: Duration = Duration::from_mins(10);

/// The name of one kept attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttachmentId(Simple);

impl AttachmentId {
    /// Its digits.
    const LEN: usize = Simple::LENGTH;

    fn new() -> Self {
        Self(Uuid::now_v7().simple())
    }

    /// Reads 32 hexadecimal digits in lower case: a file has one name.
    pub fn parse(text: &str) -> Option<Self> {
        let id = Self(Uuid::try_parse(text).ok()?.simple());
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

/// The store. Clones share it.
#[derive(Debug, Clone)]
pub struct Attachments {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: AttachmentsConfig,
    files: Files,
    links: Links,
    ledger: Ledger,
    /// For messages whose attachments are written at the same time.
    places: Arc<Semaphore>,
    /// Accounts that want their attachments kept.
    accounts: RwLock<HashSet<AccountName>>,
    /// By what became of them.
    results: Results,
}

/// What was written for the events of one append, in their order. It goes when this is dropped, unless the events went to
/// the log.
#[derive(Debug)]
pub(crate) struct Pending {
    shared: Arc<Shared>,
    ids: Vec<Vec<AttachmentId>>,
    is_left: bool,
}

impl Attachments {
    /// Their folder in the data folder.
    pub const FOLDER: &str = "attachments";

    /// The store in `folder`, with what is there. Links begin with `base_url` and are signed with `key`.
    ///
    /// # Errors
    /// When the folder is there and cannot be read.
    pub fn open(
        folder: &Path,
        config: &AttachmentsConfig,
        base_url: &str,
        key: hmac::Key,
        accounts: &[Account],
        metrics: &Metrics,
    ) -> io::Result<Self> {
        let results = Results::default();
        metrics.register_results(
            "attachments",
            "Attachments of accounts that keep them, by what became of them",
            &results,
        );
        let (config, files) = (config.clone(), Files::new(folder));
        let ledger = Ledger::new(config.bytes_max.get(), config.account_bytes_max.get());
        for (id, entry) in files.list()? {
            ledger.insert(id, entry);
        }
        let (links, accounts) = (Links::new(base_url, key), RwLock::new(wanting(accounts)));
        let places = Arc::new(Semaphore::new(WRITES_MAX));
        Ok(Self { shared: Arc::new(Shared { config, files, links, ledger, places, accounts, results }) })
    }

    /// The accounts from now on.
    pub fn replace(&self, accounts: &[Account]) {
        *self.shared.accounts.write().unwrap_or_else(PoisonError::into_inner) = wanting(accounts);
    }

    /// Whether the attachments that this event lists are to be kept.
    pub(crate) fn are_kept_for(&self, draft: &Draft) -> bool {
        let lists_any = draft.message.as_ref().is_some_and(|message| !message.attachments.is_empty());
        let accounts = || self.shared.accounts.read().unwrap_or_else(PoisonError::into_inner);
        lists_any && draft.account.as_ref().is_some_and(|account| accounts().contains(account))
    }

    /// Keeps the attachments that the events list whose accounts want that, and links them. `content` is that with which
    /// `message` was summarised. Waits until they are on disk.
    ///
    /// # Errors
    /// When that panics.
    ///
    /// # Cancel safety
    /// What was written goes again when the future is dropped.
    pub(crate) async fn keep(
        &self,
        mut append: Append,
        message: Bytes,
        content: Content,
    ) -> Result<(Append, Pending), JoinError> {
        // Nobody closes the semaphore. The place is the thread's: it waits for the disk even if nobody waits for it.
        let place = Arc::clone(&self.shared.places).acquire_owned().await.ok();
        let attachments = self.clone();
        spawn_blocking(move || {
            let _place = place;
            let pending = attachments.keep_now(&mut append, &message, content);
            (append, pending)
        })
        .await
    }

    fn keep_now(&self, append: &mut Append, message: &[u8], content: Content) -> Pending {
        let shared = Arc::clone(&self.shared);
        let mut pending = Pending { shared, ids: Vec::new(), is_left: false };
        for draft in append.drafts_mut() {
            let is_wanted = self.are_kept_for(draft);
            // Before they are written: a panic leaves nothing that nobody knows of.
            pending.ids.push(Vec::new());
            if let (true, Some(ids)) = (is_wanted, pending.ids.last_mut()) {
                self.shared.keep(draft, message, content, ids);
            }
        }
        if pending.ids.iter().any(|ids| !ids.is_empty())
            && let Err(err) = self.shared.files.sync_folder()
        {
            // Then a power loss may take the names of these files, and the links lead nowhere.
            warn!(error = %err, "the folder of attachments could not be synced");
        }
        pending
    }

    /// Finds out about what was pending when postrider ended without warning. To be called before anything is received.
    ///
    /// # Errors
    /// When the event log cannot be read.
    pub async fn recover(&self, event_log: &EventLog) -> Result<(), ReadError> {
        let mut of_topics: HashMap<String, Vec<AttachmentId>> = HashMap::new();
        for (id, topic) in self.shared.ledger.pending() {
            of_topics.entry(topic).or_default().push(id);
        }
        for (topic, pending) in of_topics {
            let linked = linked(event_log, &Topic::stored(&topic)).await?;
            for id in pending {
                let is_linked = linked.contains(&id);
                debug!(%id, is_linked, "pending attachment");
                if is_linked { self.shared.confirm(id) } else { self.shared.remove(id) }
            }
        }
        Ok(())
    }

    /// Removes what has expired, until `stop` is cancelled.
    pub async fn expire(self, stop: CancellationToken) {
        let mut sweep = interval(SWEEP.min(self.shared.config.keep).max(Duration::from_secs(1)));
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = sweep.tick() => {}
            }
            let shared = Arc::clone(&self.shared);
            let swept = spawn_blocking(move || {
                for id in shared.ledger.expired(Timestamp::now()) {
                    shared.remove(id);
                    shared.results.count("expired");
                }
            });
            if swept.await.is_err() {
                warn!("expired attachments not removed; please report this as a bug");
            }
        }
    }

    /// The attachment that a link names, which must be one of ours that counts still.
    ///
    /// # Errors
    /// [`LinkError::Invalid`] for what was not signed here, [`LinkError::Gone`] for what is not there any more.
    pub fn fetch(&self, id: &str, expires: &str, signature: &str) -> Result<Kept, LinkError> {
        let id = self.shared.links.check(id, expires, signature, Timestamp::now())?;
        match self.shared.files.open(id) {
            Ok(kept) => Ok(kept),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Err(LinkError::Gone),
            Err(err) => {
                warn!(%id, error = %err, "attachment not read");
                Err(LinkError::Unreadable)
            }
        }
    }
}

/// What the events of a topic link to. All of them are read, however many: a file may have been pending for long, if it
/// could not be renamed when its event was committed.
async fn linked(event_log: &EventLog, topic: &Topic) -> Result<HashSet<AttachmentId>, ReadError> {
    let selection = Selection::unrestricted([TopicMatcher::exact(topic)]);
    let (mut linked, mut after) = (HashSet::new(), Position::START);
    loop {
        let page = event_log.read_after(&selection, after, EVENTS_READ).await?;
        linked.extend(page.events.iter().flat_map(|event| link::links_in(&event.json)));
        if page.scanned_to >= page.head {
            return Ok(linked);
        }
        after = page.scanned_to;
    }
}

fn wanting(accounts: &[Account]) -> HashSet<AccountName> {
    accounts.iter().filter(|account| account.attachments).map(|account| account.name.clone()).collect()
}

impl Pending {
    /// The events go to the log: from now on only its answer, or the next start, says what becomes of these.
    pub(crate) fn leave(&mut self) {
        self.is_left = true;
    }

    /// The events are committed: what they link to stays, what belongs to a message that the log has already goes.
    pub(crate) async fn settle(mut self, appended: &[Appended]) {
        let ids = std::mem::take(&mut self.ids);
        if ids.iter().all(Vec::is_empty) {
            return;
        }
        let repeated: Vec<bool> = appended.iter().map(|appended| appended.repeated).collect();
        let shared = Arc::clone(&self.shared);
        let settling = spawn_blocking(move || {
            for (ids, is_repeated) in ids.into_iter().zip(repeated) {
                for id in ids {
                    if is_repeated { shared.remove(id) } else { shared.confirm(id) }
                }
            }
        });
        if settling.await.is_err() {
            warn!("attachments stay pending until the next start; please report this as a bug");
        }
    }

    /// The events are not committed, and will not be.
    pub(crate) fn discard(mut self) {
        self.is_left = false;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.is_left {
            self.ids.iter().flatten().for_each(|id| self.shared.remove(*id));
        }
    }
}

impl Shared {
    /// Keeps what one event lists.
    fn keep(&self, draft: &mut Draft, message: &[u8], content: Content, ids: &mut Vec<AttachmentId>) {
        let topic = draft.topics.first().map(|topic| topic.as_str().to_owned()).unwrap_or_default();
        let (Some(account), Some(summary)) = (draft.account.clone(), &mut draft.message) else { return };
        let expires = self.expires();
        attachment_bodies(message, content, |index, decode| {
            let Some(attachment) = summary.attachments.get_mut(index) else { return };
            let header = Header {
                account: account.clone(),
                topic: topic.clone(),
                filename: attachment.filename.clone(),
                content_type: attachment.content_type.clone(),
                expires,
            };
            if let Some(id) = self.write(&header, attachment.size, decode) {
                ids.push(id);
                attachment.url = Some(self.links.link(id, expires));
                attachment.url_expires = Some(expires);
            }
        });
    }

    /// In whole seconds, as links have it.
    fn expires(&self) -> Timestamp {
        let keep = SignedDuration::try_from(self.config.keep).unwrap_or(SignedDuration::MAX);
        let expires = Timestamp::now().checked_add(keep).unwrap_or(Timestamp::MAX);
        Timestamp::from_second(expires.as_second()).unwrap_or(expires)
    }

    /// Writes one attachment, if there is room. `size` is what its part is said to have.
    fn write(&self, header: &Header, size: u64, decode: &dyn Fn() -> Vec<u8>) -> Option<AttachmentId> {
        if size > self.config.attachment_bytes_max.get() as u64 {
            self.results.count("too_large");
            return None;
        }
        let (id, octets) = (AttachmentId::new(), decode());
        let first = match header.line() {
            Ok(first) => first,
            Err(err) => {
                warn!(error = %err, "attachment not kept");
                self.results.count("failed");
                return None;
            }
        };
        let entry = Entry {
            account: header.account.clone(),
            bytes: charge(first.len().saturating_add(octets.len())),
            expires: header.expires,
            pending: Some(header.topic.clone()),
        };
        if let Err(full) = self.ledger.reserve(id, entry) {
            self.results.count(match full {
                Full::Account => "account_full",
                Full::All => "full",
            });
            return None;
        }
        if let Err(err) = self.files.write(id, &first, &octets) {
            warn!(error = %err, "attachment not kept");
            self.remove(id);
            self.results.count("failed");
            return None;
        }
        self.results.count("kept");
        Some(id)
    }

    fn confirm(&self, id: AttachmentId) {
        if let Err(err) = self.files.confirm(id) {
            warn!(%id, error = %err, "attachment stays pending until the next start");
        }
        self.ledger.confirm(id);
    }

    fn remove(&self, id: AttachmentId) {
        if let Err(err) = self.files.remove(id) {
            warn!(%id, error = %err, "attachment not removed");
        }
        self.ledger.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::event::{EventKind, Origin};
    use crate::event_log::EventLogConfig;

    #[tokio::test]
    async fn only_a_few_messages_write_their_attachments_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (config, key) = (AttachmentsConfig::default(), hmac::Key::new(hmac::HMAC_SHA256, b"key"));
        let attachments = Attachments::open(folder.path(), &config, "http://x", key, &[], &Metrics::default()).unwrap();
        let keep = || attachments.keep(Append::new(), Bytes::new(), Content::Text);
        let places = Arc::clone(&attachments.shared.places).acquire_many_owned(4).await.unwrap();
        assert!(timeout(Duration::from_millis(50), keep()).await.is_err(), "it waits");
        drop(places);
        timeout(Duration::from_secs(5), keep()).await.expect("there is room").unwrap();
        assert_eq!(attachments.shared.places.available_permits(), 4);
    }

    /// Its file could not be renamed at the time, and much has come since: more than a page of the log.
    #[tokio::test]
    async fn a_pending_file_stays_however_long_ago_its_event_was_committed() {
        let folder = tempfile::tempdir().unwrap();
        let log = EventLog::open(folder.path(), &EventLogConfig::default()).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
        let (config, at) = (AttachmentsConfig::default(), folder.path().join("attachments"));
        let open = || Attachments::open(&at, &config, "http://x", key.clone(), &[], &Metrics::default()).unwrap();
        let alice = AccountName::parse("alice").unwrap();
        let shared = open().shared;
        let topic = Topic::mailbox(&alice, "INBOX").as_str().to_owned();
        let (filename, content_type, expires) = (None, "text/plain".to_owned(), shared.expires());
        let header = Header { account: alice.clone(), topic, filename, content_type, expires };
        let [linked, orphan] = [(); 2].map(|()| shared.write(&header, 1, &|| b"x".to_vec()).unwrap());
        let draft = |reason: String| {
            let draft = Draft::in_mailbox(EventKind::MessageNew, Origin::Smtp, &alice, "INBOX");
            Draft { reason: Some(reason), ..draft }
        };
        let mut append = Append::new();
        append.push(draft(shared.links.link(linked, expires)), None);
        for _ in 0..2100 {
            append.push(draft("later ".repeat(200)), None);
        }
        log.append(append).await.unwrap();

        let attachments = open();
        attachments.recover(&log).await.unwrap();
        assert!(attachments.shared.files.open(linked).is_ok(), "it is linked");
        assert_eq!(attachments.shared.files.open(orphan).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(attachments.shared.ledger.pending(), []);
    }
}
