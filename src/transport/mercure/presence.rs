//! Who is subscribed to what: kept while the connections last, and told by private updates as they come and go.
//!
//! That somebody comes is committed before their stream begins. That somebody goes is noted when their connection ends,
//! where nobody can wait, and committed by the one task of [`Presence::run`]; what is noted is never more than came.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Dialect, SUBSCRIPTIONS};
use crate::auth::MercureClaims;
use crate::event::{Draft, EventKind, Origin, Topic, TopicMatcher};
use crate::event_log::{Append, AppendError, EventLog};

/// Events of one commit.
const BATCH_MAX: usize = 1000;

/// All active subscriptions. Cheap to clone; clones share.
#[derive(Debug, Clone)]
pub struct Presence(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    log: EventLog,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By path.
    active: BTreeMap<String, Arc<Entry>>,
    ended: Vec<Arc<Entry>>,
}

/// One subscriber's subscription to one matcher.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) dialect: Dialect,
    pub(super) path: String,
    pub(super) match_type: &'static str,
    pub(super) matched: Box<str>,
    pub(super) subscriber: Arc<str>,
    payload: Option<Value>,
}

/// One subscriber's subscriptions; they end with this.
#[derive(Debug)]
pub(super) struct Present {
    shared: Arc<Shared>,
    entries: Vec<Arc<Entry>>,
}

impl Presence {
    /// Nobody is subscribed yet.
    pub fn new(log: EventLog) -> Self {
        Self(Arc::new(Shared { log, state: Mutex::default(), changed: Notify::new() }))
    }

    /// Tells that subscribers have gone, until `stop`; then what is left.
    pub async fn run(&self, stop: CancellationToken) {
        loop {
            let stopped = tokio::select! {
                () = self.0.changed.notified() => false,
                () = stop.cancelled() => true,
            };
            loop {
                let mut ended = std::mem::take(&mut self.0.state().ended);
                if ended.is_empty() {
                    break;
                }
                let rest = ended.split_off(ended.len().min(BATCH_MAX));
                self.0.state().ended.extend(rest);
                if let Err(err) = self.0.tell(&ended, false).await {
                    tracing::warn!(error = %err, count = ended.len(), "subscriptions that ended are not told");
                }
            }
            if stopped {
                return;
            }
        }
    }

    /// Somebody subscribes.
    pub(super) async fn begin(
        &self,
        wanted: &[TopicMatcher],
        dialect: Dialect,
        claims: &MercureClaims,
    ) -> Result<Present, AppendError> {
        let subscriber: Arc<str> = format!("urn:uuid:{}", uuid::Uuid::now_v7()).into();
        let mut entries: Vec<Arc<Entry>> = Vec::with_capacity(wanted.len());
        for matcher in wanted {
            let entry = Entry::new(matcher, dialect, &subscriber, claims.payload.clone());
            if entries.iter().all(|other| other.path != entry.path) {
                entries.push(Arc::new(entry));
            }
        }
        {
            let mut state = self.0.state();
            state.active.extend(entries.iter().map(|entry| (entry.path.clone(), Arc::clone(entry))));
        }
        // From here on they end, whatever happens: also when the client is gone before this is committed.
        let present = Present { shared: Arc::clone(&self.0), entries };
        self.0.tell(&present.entries, true).await?;
        Ok(present)
    }

    /// The active ones of a dialect that are asked for, in the order of their paths.
    pub(super) fn active(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<Arc<Entry>> {
        self.0.state().active.values().filter(|entry| wanted(entry)).cloned().collect()
    }

    /// The newest event, as a cursor to go on from.
    pub(super) fn last_event_id(&self) -> String {
        self.0.log.head().1.map_or_else(|| "earliest".to_owned(), |id| id.to_string())
    }
}

impl Shared {
    async fn tell(&self, entries: &[Arc<Entry>], active: bool) -> Result<(), AppendError> {
        let mut append = Append::new();
        for entry in entries {
            // It may be longer than a topic that comes from outside.
            let topics = vec![Topic::stored(&entry.path)];
            let mut draft = Draft::new(EventKind::Published, Origin::Http, topics);
            draft.data = Some(entry.document(active));
            draft.update_type = (entry.dialect == Dialect::Current).then(|| "mercure".to_owned());
            append.push(draft, None);
        }
        self.log.append(append).await.map(drop)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(matcher: &TopicMatcher, dialect: Dialect, subscriber: &Arc<str>, payload: Option<Value>) -> Self {
        let match_type = if matcher.is_url_pattern() { "urlpattern" } else { "exact" };
        let (topic, who) = (Topic::segment(matcher.as_str()), Topic::segment(subscriber));
        let path = match dialect {
            Dialect::Legacy => format!("{SUBSCRIPTIONS}/{topic}/{who}"),
            Dialect::Current => format!("{SUBSCRIPTIONS}/{match_type}/{topic}/{who}"),
        };
        Self {
            dialect,
            path,
            match_type,
            matched: matcher.as_str().into(),
            subscriber: Arc::clone(subscriber),
            payload,
        }
    }

    /// What is told of it.
    pub(super) fn document(&self, active: bool) -> Value {
        let mut document = match self.dialect {
            Dialect::Legacy => json!({
                "@context": "https://mercure.rocks/",
                "id": self.path,
                "type": "Subscription",
                "topic": self.matched,
                "subscriber": &*self.subscriber,
                "active": active,
            }),
            Dialect::Current => json!({
                "id": self.path,
                "type": "subscription",
                "match_type": self.match_type,
                "match": self.matched,
                "subscriber": &*self.subscriber,
                "active": active,
            }),
        };
        if let (Some(payload), Some(members)) = (&self.payload, document.as_object_mut()) {
            members.insert("payload".to_owned(), payload.clone());
        }
        document
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        for entry in self.entries.drain(..) {
            state.active.remove(&entry.path);
            state.ended.push(entry);
        }
        drop(state);
        self.shared.changed.notify_one();
    }
}
