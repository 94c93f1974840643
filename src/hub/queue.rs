//! What waits for one subscriber: pointers to updates, few of them, allocated only when used.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::sync::Notify;

use super::Update;
use crate::event_log::Position;

/// A subscriber's queue, filled by the hub and emptied by the subscriber's own task, or by the one that serves many
/// subscribers with the same wishes.
#[derive(Debug)]
pub(super) struct Queue {
    max: usize,
    waiting: Mutex<Waiting>,
    changed: Changed,
}

/// Who is told that there may be something new.
#[derive(Debug)]
enum Changed {
    /// Who waits for this one queue.
    Task(Notify),
    /// Who has many queues.
    Waker(Waker),
}

#[derive(Debug, Default)]
struct Waiting {
    updates: VecDeque<Arc<Update>>,
    /// The newest update that was offered, so that one that matches twice is queued once.
    newest: Position,
    intake: Intake,
}

/// Whether the queue takes updates.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Intake {
    /// It does.
    #[default]
    Open,
    /// The subscriber reads from the log; what is offered is in there.
    Shut,
    /// It overflowed: the subscriber must go on from the log. Everything up to this position was taken out before.
    Overflowed(Position),
    /// The hub has stopped.
    Closed,
}

/// What a subscriber finds in its queue.
pub(super) enum Found {
    /// At least one.
    Updates(Vec<Arc<Update>>),
    /// Nothing yet.
    Nothing,
    /// The queue overflowed: everything up to here was taken out before, the rest is in the log.
    Overflow(Position),
    /// Nothing, and nothing will come.
    Closed,
}

impl Queue {
    pub(super) fn new(max: usize) -> Self {
        Self { max, waiting: Mutex::default(), changed: Changed::Task(Notify::new()) }
    }

    /// A queue of somebody who has many of them, and cannot wait for each.
    pub(super) fn with_waker(max: usize, waker: Waker) -> Self {
        Self { max, waiting: Mutex::default(), changed: Changed::Waker(waker) }
    }

    /// A queue in which the same waits, of what is after a position. None if something is missing in this one.
    pub(super) fn fork(&self, after: Position) -> Option<Self> {
        let waiting = self.lock();
        if waiting.intake != Intake::Open {
            return None;
        }
        let updates = waiting.updates.iter().filter(|update| update.event.position > after).cloned().collect();
        let waiting = Waiting { updates, newest: waiting.newest, intake: Intake::Open };
        Some(Self { max: self.max, waiting: Mutex::new(waiting), changed: Changed::Task(Notify::new()) })
    }

    /// Puts an update in, or notes that it did not fit.
    pub(super) fn push(&self, update: &Arc<Update>) {
        let mut waiting = self.lock();
        if waiting.intake != Intake::Open || update.event.position <= waiting.newest {
            return;
        }
        if waiting.updates.len() >= self.max {
            let first = waiting.updates.front().map_or(update.event.position, |first| first.event.position);
            waiting.shut(Intake::Overflowed(first.before()));
        } else {
            waiting.newest = update.event.position;
            waiting.updates.push_back(update.clone());
        }
        drop(waiting);
        self.tell();
    }

    /// Lets the subscriber go on from the log after `position`, because the hub itself has missed something.
    pub(super) fn overflow_at(&self, position: Position) {
        let mut waiting = self.lock();
        if waiting.intake == Intake::Open {
            let first = waiting.updates.front().map_or(position, |first| first.event.position.before());
            waiting.shut(Intake::Overflowed(first));
        }
        drop(waiting);
        self.tell();
    }

    /// Takes updates again. Must be called before the log is read for the last time: what is committed after that
    /// read began then is in the queue.
    pub(super) fn open(&self) {
        let mut waiting = self.lock();
        if waiting.intake != Intake::Closed {
            waiting.intake = Intake::Open;
        }
    }

    /// Takes nothing, for the subscriber has more to read from the log.
    pub(super) fn shut(&self) {
        let mut waiting = self.lock();
        if waiting.intake != Intake::Closed {
            waiting.shut(Intake::Shut);
        }
    }

    /// No update will come any more.
    pub(super) fn close(&self) {
        self.lock().intake = Intake::Closed;
        self.tell();
    }

    /// Whether nothing waits, and nothing was missed.
    pub(super) fn is_empty(&self) -> bool {
        let waiting = self.lock();
        waiting.updates.is_empty() && waiting.intake == Intake::Open
    }

    /// Takes out updates after `after`, at most `max`.
    pub(super) fn take(&self, after: Position, max: usize) -> Found {
        let mut waiting = self.lock();
        while waiting.updates.front().is_some_and(|first| first.event.position <= after) {
            waiting.updates.pop_front();
        }
        if !waiting.updates.is_empty() {
            let count = waiting.updates.len().min(max);
            let updates = waiting.updates.drain(..count).collect();
            if waiting.updates.is_empty() {
                // A quiet subscriber costs no buffer.
                waiting.updates = VecDeque::new();
            }
            return Found::Updates(updates);
        }
        match waiting.intake {
            Intake::Open | Intake::Shut => Found::Nothing,
            Intake::Overflowed(position) => Found::Overflow(position),
            Intake::Closed => Found::Closed,
        }
    }

    /// Waits until there may be something new; for ever if somebody else is told of that.
    pub(super) async fn changed(&self) {
        match &self.changed {
            Changed::Task(notify) => notify.notified().await,
            Changed::Waker(_) => std::future::pending().await,
        }
    }

    fn tell(&self) {
        match &self.changed {
            Changed::Task(notify) => notify.notify_one(),
            Changed::Waker(waker) => waker.wake_by_ref(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn shut(&mut self, intake: Intake) {
        self.updates = VecDeque::new();
        self.intake = intake;
    }
}
