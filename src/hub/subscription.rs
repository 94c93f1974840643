//! Hands a subscriber from history to live updates, with no gap and no repeat.
//!
//! While there is history to read, the queue is shut. Before each read it is opened; if that read reached the log's
//! head, all that is committed after it is in the queue, and what was queued meanwhile but read too is recognised by
//! its position. When a live queue overflows, the same way leads back through the log. The order that a subscriber
//! sees is the log's order throughout.

use std::sync::Arc;

use super::queue::{Found, Queue};
use super::{Hub, Place, Update};
use crate::event::EventId;
use crate::event_log::{Position, ReadError, Selection};

/// Events of one batch: what is read from the log at once.
const BATCH_MAX: usize = 100;

/// Where a subscriber wants to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// With what is committed from now on.
    Now,
    /// With the oldest event that is kept.
    Earliest,
    /// After this event.
    After(EventId),
}

/// The ID before the first event that a subscriber will get; none where that is the oldest that is kept, because it
/// asked for that, or because the event it asked for is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening(pub Option<EventId>);

impl std::fmt::Display for Opening {
    /// As `Last-Event-ID` carries it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(id) => std::fmt::Display::fmt(&id, f),
            None => f.write_str("earliest"),
        }
    }
}

/// Why nobody was subscribed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// There are as many subscribers as the configuration allows.
    #[error("there are too many subscribers; try again later, or raise `hub.subscribers_max`")]
    TooMany,
    /// The event that was asked for could not be looked up.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What a subscriber gets at once.
#[derive(Debug)]
pub enum Batch {
    /// At least one update, in the order of the log.
    Updates(Vec<Arc<Update>>),
    /// The hub has stopped.
    Closed,
}

/// What there is without reading the log.
#[derive(Debug)]
pub enum Live {
    /// At least one update, in the order of the log.
    Updates(Vec<Arc<Update>>),
    /// All was taken.
    Nothing,
    /// The log must be read before anything else: [`Subscription::ready`] does.
    Behind,
    /// The hub has stopped.
    Closed,
}

/// One subscriber: reads history, then waits for what is new. Dropping it ends it.
#[derive(Debug)]
pub struct Subscription {
    pub(super) hub: Hub,
    pub(super) key: usize,
    pub(super) queue: Arc<Queue>,
    pub(super) selection: Selection,
    /// Everything that is wanted up to here was handed over, but for what is pending.
    pub(super) after: Position,
    pub(super) live: bool,
    /// Taken from the queue already, and to be handed over first.
    pub(super) pending: Vec<Arc<Update>>,
    /// None for one that serves several subscribers, who have places of their own.
    pub(super) place: Option<Place>,
}

impl Hub {
    /// Subscribes; the opening says where history begins.
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub async fn subscribe(
        &self,
        selection: Selection,
        resume: Resume,
    ) -> Result<(Subscription, Opening), SubscribeError> {
        let (key, queue, place) = self.register(&selection).ok_or(SubscribeError::TooMany)?;
        let mut subscription = Subscription {
            hub: self.clone(),
            key,
            queue,
            selection,
            after: Position::START,
            live: false,
            pending: Vec::new(),
            place: Some(place),
        };
        let opening = match resume {
            Resume::Now => {
                // The queue has been open since before the head was looked at: what comes after it is in there.
                let (head, id) = self.head();
                (subscription.after, subscription.live) = (head, true);
                id
            }
            Resume::Earliest => None,
            Resume::After(id) if subscription.resume_at_once(id) => Some(id),
            Resume::After(id) => {
                let start = self.log().locate(id).await?;
                subscription.after = start.after;
                start.found.then_some(id)
            }
        };
        Ok((subscription, Opening(opening)))
    }
}

impl Subscription {
    /// Waits for updates and takes some hundred at most.
    ///
    /// # Errors
    /// When history cannot be read.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped: what it had not returned is returned by the next call.
    pub async fn next(&mut self) -> Result<Batch, ReadError> {
        loop {
            if let Some(batch) = self.ready().await? {
                return Ok(batch);
            }
            self.queue.changed().await;
        }
    }

    /// Takes what is there without waiting for more than the log; none when all was taken.
    ///
    /// # Errors
    /// When history cannot be read.
    ///
    /// # Cancel safety
    /// As [`Subscription::next`].
    pub async fn ready(&mut self) -> Result<Option<Batch>, ReadError> {
        loop {
            match self.live() {
                Live::Updates(updates) => return Ok(Some(Batch::Updates(updates))),
                Live::Closed => return Ok(Some(Batch::Closed)),
                Live::Nothing => return Ok(None),
                Live::Behind => {
                    let updates = self.read_history().await?;
                    if !updates.is_empty() {
                        return Ok(Some(Batch::Updates(updates)));
                    }
                }
            }
        }
    }

    /// Takes what is there without reading the log.
    pub fn live(&mut self) -> Live {
        if !self.pending.is_empty() {
            return Live::Updates(std::mem::take(&mut self.pending));
        }
        if !self.live {
            return Live::Behind;
        }
        match self.queue.take(self.after, BATCH_MAX) {
            Found::Updates(updates) => {
                self.after = updates.last().map_or(self.after, |update| update.event.position);
                Live::Updates(updates)
            }
            Found::Overflow(taken_to) => {
                self.after = self.after.max(taken_to);
                self.live = false;
                Live::Behind
            }
            Found::Closed => Live::Closed,
            Found::Nothing => Live::Nothing,
        }
    }

    /// Whether nothing waits, neither here nor in the log.
    pub fn has_caught_up(&self) -> bool {
        self.live && self.pending.is_empty() && self.queue.is_empty()
    }

    /// What is asked for.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Asks for other topics from now on. What waits for the old ones is still handed over; if history is being read,
    /// the new ones join from the place that was reached.
    pub fn select(&mut self, selection: Selection) {
        let (queue, dispatched) = self.hub.exchange(&mut self.key, &selection);
        let old = std::mem::replace(&mut self.queue, queue);
        self.selection = selection;
        if self.live {
            // Everything up to `dispatched` is in the old queue, everything after it will be in the new one.
            match old.take(self.after, usize::MAX) {
                Found::Overflow(taken_to) => (self.after, self.live) = (self.after.max(taken_to), false),
                Found::Updates(updates) => {
                    self.pending.extend(updates);
                    self.after = self.after.max(dispatched);
                }
                Found::Nothing | Found::Closed => self.after = self.after.max(dispatched),
            }
        }
    }

    /// Goes on after an event that the hub still holds, without asking the log.
    fn resume_at_once(&mut self, id: EventId) -> bool {
        let (head, newest) = self.hub.head();
        if newest == Some(id) {
            // As with who begins now: the queue was open before.
            (self.after, self.live) = (head, true);
            return true;
        }
        let index = self.hub.index();
        let Some(updates) = index.recent_after(id, &self.selection) else { return false };
        // What is dispatched after this is in the queue.
        (self.after, self.live, self.pending) = (index.dispatched(), true, updates);
        true
    }

    async fn read_history(&mut self) -> Result<Vec<Arc<Update>>, ReadError> {
        self.queue.open();
        let page = self.hub.log().read_after(&self.selection, self.after, BATCH_MAX).await?;
        // From here to the end there is no await: a dropped future has changed nothing but the open queue.
        self.after = self.after.max(page.scanned_to);
        self.live = page.scanned_to >= page.head;
        if !self.live {
            self.queue.shut();
        }
        Ok(page.events.into_iter().map(|event| Arc::new(Update::new(Arc::new(event)))).collect())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.deregister(self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::time::Duration;

    use tokio::task::JoinSet;
    use tokio::time::timeout;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::event::{Draft, EventKind, Origin, Topic, TopicMatcher};
    use crate::event_log::{Append, EventLog, EventLogConfig};
    use crate::hub::HubConfig;

    struct Fixture {
        hub: Hub,
        log: EventLog,
        _tasks: JoinSet<()>,
        _folder: tempfile::TempDir,
    }

    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let log = EventLog::open(folder.path(), &EventLogConfig::default()).unwrap();
        let queue_max = NonZeroUsize::new(8).unwrap();
        let hub = Hub::new(log.clone(), HubConfig { queue_max, ..HubConfig::default() });
        let mut tasks = JoinSet::new();
        let (running, tail) = (hub.clone(), log.tail());
        tasks.spawn(async move { running.run(tail, CancellationToken::new()).await });
        Fixture { hub, log, _tasks: tasks, _folder: folder }
    }

    impl Fixture {
        async fn publish(&self, topic: &str) -> EventId {
            let draft = Draft::new(EventKind::Published, Origin::Http, vec![Topic::parse(topic).unwrap()]);
            self.log.append(Append::event(draft)).await.unwrap()[0].id
        }

        async fn subscribe(&self, topic: &str, resume: Resume) -> (Subscription, Opening) {
            self.hub.subscribe(wanted(&[topic]), resume).await.unwrap()
        }
    }

    fn wanted(topics: &[&str]) -> Selection {
        Selection::unrestricted(topics.iter().map(|t| TopicMatcher::parse(t).unwrap()).collect::<Vec<_>>())
    }

    async fn take(subscription: &mut Subscription, count: usize) -> Vec<EventId> {
        let mut ids = Vec::new();
        while ids.len() < count {
            let batch = timeout(Duration::from_secs(5), subscription.next()).await.expect("an update in 5 s").unwrap();
            let Batch::Updates(updates) = batch else { panic!("the hub closed") };
            ids.extend(updates.iter().map(|update| update.event.id));
        }
        ids
    }

    #[tokio::test]
    async fn live_subscribers_get_what_comes_after_they_subscribed() {
        let fixture = fixture();
        let before = fixture.publish("a").await;
        let (mut subscription, opening) = fixture.subscribe("a", Resume::Now).await;
        assert_eq!(opening, Opening(Some(before)));
        fixture.publish("b").await;
        let id = fixture.publish("a").await;
        assert_eq!(take(&mut subscription, 1).await, [id]);
        assert!(subscription.ready().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn history_goes_over_to_live_without_gap_or_repeat() {
        let fixture = fixture();
        let mut ids = Vec::new();
        for _ in 0..250 {
            ids.push(fixture.publish("a").await);
        }
        let (mut earliest, opening) = fixture.subscribe("a", Resume::Earliest).await;
        assert_eq!(opening, Opening(None));
        let (mut resumed, opening) = fixture.subscribe("a", Resume::After(ids[99])).await;
        assert_eq!(opening, Opening(Some(ids[99])));
        let mut seen = take(&mut earliest, 50).await;
        for _ in 0..250 {
            ids.push(fixture.publish("a").await);
        }
        seen.extend(take(&mut earliest, 500 - seen.len()).await);
        assert_eq!(seen, ids);
        assert_eq!(take(&mut resumed, 400).await, ids[100..]);
    }

    /// Every hand-over is a race with what is committed at that moment: many of them, with queues that overflow again
    /// and again, while commits go on without a pause.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_commit_falls_between_history_and_live() {
        const SUBSCRIBERS: usize = 16;
        const LIVE: usize = 300;
        let fixture = fixture();
        let mut history = Append::new();
        for _ in 0..150 {
            history.push(Draft::new(EventKind::Published, Origin::Http, vec![Topic::parse("a").unwrap()]), None);
        }
        let mut ids: Vec<_> = fixture.log.append(history).await.unwrap().iter().map(|appended| appended.id).collect();
        let mut subscribers = JoinSet::new();
        for _ in 0..SUBSCRIBERS {
            let (mut subscription, _) = fixture.subscribe("a", Resume::Earliest).await;
            let count = ids.len() + LIVE;
            subscribers.spawn(async move { take(&mut subscription, count).await });
        }
        for _ in 0..LIVE {
            ids.push(fixture.publish("a").await);
        }
        for seen in subscribers.join_all().await {
            assert_eq!(seen, ids);
        }
    }

    #[tokio::test]
    async fn a_slow_subscriber_catches_up_from_the_log() {
        let fixture = fixture();
        let (mut slow, _) = fixture.subscribe("a", Resume::Now).await;
        let (mut ids, mut seen) = (Vec::new(), Vec::new());
        for n in 0..300 {
            ids.push(fixture.publish("a").await);
            if n == 3 {
                seen = take(&mut slow, 1).await;
            }
        }
        let left = 300 - seen.len();
        seen.extend(take(&mut slow, left).await);
        assert_eq!(seen, ids);
    }

    #[tokio::test]
    async fn who_comes_back_at_once_needs_no_log() {
        let fixture = fixture();
        let (mut witness, _) = fixture.subscribe("a", Resume::Now).await;
        let ids = [fixture.publish("a").await, fixture.publish("b").await, fixture.publish("a").await];
        take(&mut witness, 2).await;
        let (mut last, opening) = fixture.subscribe("a", Resume::After(ids[2])).await;
        assert!(last.has_caught_up() && opening == Opening(Some(ids[2])));
        let (mut first, opening) = fixture.subscribe("a", Resume::After(ids[0])).await;
        assert!(first.live && opening == Opening(Some(ids[0])));
        let (mut other, _) = fixture.subscribe("a", Resume::After(ids[1])).await;
        let new = fixture.publish("a").await;
        assert_eq!(take(&mut first, 2).await, [ids[2], new]);
        assert_eq!(take(&mut other, 2).await, [ids[2], new]);
        assert_eq!(take(&mut last, 1).await, [new]);
    }

    /// Whoever shares a subscription, comes to it and leaves it, sees each event once and in order.
    #[tokio::test]
    async fn merging_and_leaving_lose_and_repeat_nothing() {
        let fixture = fixture();
        let mut shared = fixture.hub.share(wanted(&["a"]), std::task::Waker::noop().clone());
        let (own, _) = fixture.subscribe("a", Resume::Now).await;
        let (mut witness, _) = fixture.subscribe("a", Resume::Now).await;
        let mut ids = vec![fixture.publish("a").await];
        take(&mut witness, 1).await;
        // It has what the shared one has not taken yet, and will not get it again from that one.
        let merged = own.merge(&shared).unwrap();
        let mut seen: Vec<_> = merged.updates.iter().map(|update| update.event.id).collect();
        assert_eq!(seen, ids);
        let Live::Updates(taken) = shared.live() else { panic!("the shared one gets it too") };
        assert!(taken.iter().all(|update| update.event.position <= merged.after));
        for _ in 0..3 {
            ids.push(fixture.publish("a").await);
        }
        take(&mut witness, 3).await;
        let Live::Updates(taken) = shared.live() else { panic!("three more") };
        seen.push(taken[0].event.id);
        ids.push(fixture.publish("a").await);
        take(&mut witness, 1).await;
        // Of the three it has got one; of the last it knows nothing yet.
        assert_eq!(fixture.hub.subscribers(), 2);
        let mut own = shared.leave(taken[1..].to_vec(), taken[0].event.position, merged.place);
        ids.push(fixture.publish("a").await);
        seen.extend(take(&mut own, 4).await);
        assert_eq!(seen, ids);
        drop((own, witness));
        assert_eq!(fixture.hub.subscribers(), 0);
    }

    #[tokio::test]
    async fn an_unknown_id_begins_at_the_earliest_and_says_so() {
        let fixture = fixture();
        let id = fixture.publish("a").await;
        let unknown: EventId = "urn:uuid:0199d2a0-0000-7000-8000-000000000001".parse().unwrap();
        let (mut subscription, opening) = fixture.subscribe("a", Resume::After(unknown)).await;
        assert_eq!(opening.to_string(), "earliest");
        assert_eq!(take(&mut subscription, 1).await, [id]);
    }

    #[tokio::test]
    async fn topics_change_without_losing_what_waits() {
        let fixture = fixture();
        let (mut subscription, _) = fixture.subscribe("a", Resume::Now).await;
        let mut ids = vec![fixture.publish("a").await];
        fixture.publish("b").await;
        subscription.select(wanted(&["a", "b"]));
        ids.push(fixture.publish("b").await);
        ids.push(fixture.publish("a").await);
        // The first b may count as before the change or as after it, as the hub came to it.
        let mut seen = Vec::new();
        while seen.last() != ids.last() {
            seen.extend(take(&mut subscription, 1).await);
        }
        assert!(seen.is_sorted() && ids.iter().all(|id| seen.contains(id)), "{seen:?} has {ids:?}");
        subscription.select(wanted(&["b"]));
        fixture.publish("a").await;
        let last = fixture.publish("b").await;
        assert_eq!(take(&mut subscription, 1).await, [last]);
    }

    #[tokio::test]
    async fn an_event_with_two_wanted_topics_comes_once() {
        let fixture = fixture();
        let (mut subscription, _) = fixture.hub.subscribe(wanted(&["a", "b", "{x}"]), Resume::Now).await.unwrap();
        let topics = ["a", "b"].map(|topic| Topic::parse(topic).unwrap()).to_vec();
        let draft = Draft::new(EventKind::Published, Origin::Http, topics);
        let first = fixture.log.append(Append::event(draft)).await.unwrap()[0].id;
        let second = fixture.publish("a").await;
        assert_eq!(take(&mut subscription, 2).await, [first, second]);
    }

    #[tokio::test]
    async fn dropping_a_subscription_leaves_nothing() {
        let fixture = fixture();
        let (subscription, _) = fixture.subscribe("a", Resume::Now).await;
        assert_eq!(fixture.hub.subscribers(), 1);
        drop(subscription);
        assert_eq!(fixture.hub.subscribers(), 0);
        fixture.log.close().await;
    }
}
