//! One subscription for many subscribers who asked for the same and have come equally far.
//!
//! Ten thousand readers of one topic need not have ten thousand queues: a transport keeps one subscription for them all
//! and hands each update to every one. Who comes to it has read its own history first and is merged into the shared
//! subscription at a position that both have reached; who falls behind leaves it with a subscription of its own, in
//! which the same waits. Both happen while the index is locked, so that what is dispatched meanwhile is on one side or
//! the other, and never on both or on none.

use std::sync::Arc;
use std::task::Waker;

use super::queue::{Found, Queue};
use super::{Hub, Place, Subscription, Update};
use crate::event_log::{Position, Selection};

/// A subscriber that goes on with a shared subscription.
#[derive(Debug)]
pub struct Merged {
    /// What it has to get first.
    pub updates: Vec<Arc<Update>>,
    /// Of what the shared subscription hands over, it gets what is after this.
    pub after: Position,
    /// Its own.
    pub place: Place,
}

impl Hub {
    /// A subscription without a place, from now on. Its [`Subscription::next`] must not be waited for: `waker` is told
    /// when there may be something new.
    pub fn share(&self, selection: Selection, waker: Waker) -> Subscription {
        let queue = Arc::new(Queue::with_waker(self.shared.config.queue_max.get(), waker));
        let mut index = self.index();
        let after = index.dispatched();
        let key = index.insert(selection.clone(), queue.clone());
        drop(index);
        Subscription { hub: self.clone(), key, queue, selection, after, live: true, pending: Vec::new(), place: None }
    }
}

impl Subscription {
    /// Goes over to a shared subscription of the same selection.
    ///
    /// # Errors
    /// Gives the subscription back while one of the two has to read the log, or the shared one has read in the log what
    /// the hub has not dispatched yet.
    pub fn merge(mut self, shared: &Self) -> Result<Merged, Self> {
        let hub = self.hub.clone();
        let mut index = hub.index();
        let dispatched = index.dispatched();
        if !self.live || !shared.live || shared.after > dispatched.max(self.after) || self.place.is_none() {
            return Err(self);
        }
        let mut updates = std::mem::take(&mut self.pending);
        match self.queue.take(self.after, usize::MAX) {
            Found::Updates(waiting) => updates.extend(waiting),
            Found::Nothing => {}
            Found::Overflow(_) | Found::Closed => {
                // They are found again by who takes from it.
                self.pending = updates;
                return Err(self);
            }
        }
        let after = self.after.max(dispatched);
        let Some(place) = self.place.take() else { return Err(self) };
        index.remove(self.key);
        self.key = GONE;
        drop(index);
        Ok(Merged { updates, after, place })
    }

    /// A subscription of its own for a subscriber that leaves this shared one, and that has everything up to `after`
    /// but for `untaken`: what was taken from the shared one already.
    #[must_use]
    pub fn leave(&self, untaken: Vec<Arc<Update>>, after: Position, place: Place) -> Self {
        let after = after.max(self.after);
        let mut index = self.hub.index();
        let forked = self.live.then(|| self.queue.fork(after)).flatten();
        let live = forked.is_some();
        let queue = Arc::new(forked.unwrap_or_else(|| self.hub.new_queue()));
        let key = index.insert(self.selection.clone(), queue.clone());
        drop(index);
        let (hub, selection) = (self.hub.clone(), self.selection.clone());
        Self { hub, key, queue, selection, after, live, pending: untaken, place: Some(place) }
    }
}

/// No subscriber's key: a slab does not grow so far.
const GONE: usize = usize::MAX;
