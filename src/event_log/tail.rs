//! Hands what is committed, in order, to those who follow the log.
//!
//! The writer never waits for a follower: a follower that is too slow loses the middle, is told so, and reads it from
//! the log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use super::{Committed, Position};
use crate::event::EventId;

/// Events that wait for one follower. A follower only hands pointers on, so that this is many commits.
const QUEUE_MAX: usize = 8192;

/// Follows the log from the moment it was made.
#[derive(Debug)]
pub struct Tail {
    shared: Arc<Shared>,
}

/// What was committed since the last batch.
#[derive(Debug, Default)]
pub struct TailBatch {
    /// Events before `events` were dropped, because the follower was too slow: they must be read from the log.
    pub gap: bool,
    /// In the order of the log.
    pub events: Vec<Arc<Committed>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Arc<Committed>>,
    gap: bool,
    closed: bool,
}

impl Tail {
    /// Waits for events; none when the log was closed and all were taken.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<TailBatch> {
        loop {
            {
                let mut waiting = self.shared.lock();
                if waiting.gap || !waiting.events.is_empty() {
                    let gap = std::mem::take(&mut waiting.gap);
                    return Some(TailBatch { gap, events: waiting.events.drain(..).collect() });
                }
                if waiting.closed {
                    return None;
                }
            }
            // One follower, and `notify_one` keeps a permit: a commit between the check and here is not missed.
            self.shared.changed.notified().await;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All tails of a log, and its head as they know it. Cheap to clone; clones share.
#[derive(Debug, Clone, Default)]
pub(super) struct Tails {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    head: Position,
    head_id: Option<EventId>,
    tails: Vec<Weak<Shared>>,
}

impl Tails {
    pub(super) fn add(&self) -> Tail {
        let shared = Arc::new(Shared::default());
        self.lock().tails.push(Arc::downgrade(&shared));
        Tail { shared }
    }

    pub(super) fn head(&self) -> (Position, Option<EventId>) {
        let inner = self.lock();
        (inner.head, inner.head_id)
    }

    /// Sets the head of a log that was just opened.
    pub(super) fn start_at(&self, head: Position, id: Option<EventId>) {
        let mut inner = self.lock();
        (inner.head, inner.head_id) = (head, id);
    }

    /// Tells all followers; called by the writer after its commit, in order.
    pub(super) fn publish(&self, events: &[Arc<Committed>]) {
        let Some(newest) = events.last() else { return };
        let mut inner = self.lock();
        (inner.head, inner.head_id) = (newest.position, Some(newest.id));
        inner.tails.retain(|tail| {
            let Some(tail) = tail.upgrade() else { return false };
            let mut waiting = tail.lock();
            if waiting.events.len() + events.len() > QUEUE_MAX {
                waiting.events.clear();
                waiting.gap = true;
            }
            // A commit larger than the queue leaves its newest events.
            waiting.events.extend(events.iter().skip(events.len().saturating_sub(QUEUE_MAX)).cloned());
            drop(waiting);
            tail.changed.notify_one();
            true
        });
    }

    /// Ends all followers when it is dropped.
    pub(super) fn closing(&self) -> Closing {
        Closing(self.clone())
    }

    pub(super) fn close(&self) {
        for tail in self.lock().tails.drain(..).filter_map(|tail| tail.upgrade()) {
            tail.lock().closed = true;
            tail.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by the writer's thread as long as it lives.
pub(super) struct Closing(Tails);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(position: i64) -> Arc<Committed> {
        Arc::new(Committed {
            position: Position(position),
            id: EventId::from_bytes([0; 16]),
            name: "Published".into(),
            topics: Box::default(),
            private: true,
            json: bytes::Bytes::new(),
        })
    }

    #[tokio::test]
    async fn a_slow_follower_is_told_of_the_gap_and_gets_the_newest() {
        let tails = Tails::default();
        let mut tail = tails.add();
        for position in 0..=i64::try_from(QUEUE_MAX).unwrap() {
            tails.publish(&[committed(position)]);
        }
        let batch = tail.next().await.unwrap();
        assert!(batch.gap);
        assert_eq!(batch.events.last().unwrap().position, tails.head().0);
        tails.close();
        assert!(tail.next().await.is_none());
    }
}
