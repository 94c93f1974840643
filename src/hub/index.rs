//! Finds the subscribers of an event: exact topics by a hash table, patterns as `patterns.rs` does.

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

use super::Update;
use super::patterns::Patterns;
use super::queue::Queue;
use super::recent::Recent;
use crate::event::EventId;
use crate::event_log::{Position, Selection};

/// All subscribers, by what they asked for.
#[derive(Debug, Default)]
pub(super) struct Index {
    subscribers: Slab<Subscriber>,
    exact: HashMap<Box<str>, Vec<usize>>,
    patterns: Patterns,
    recent: Recent,
    /// Everything up to here was offered to its subscribers.
    dispatched: Position,
    closed: bool,
}

#[derive(Debug)]
struct Subscriber {
    selection: Selection,
    queue: Arc<Queue>,
}

impl Index {
    /// No subscribers, of a hub that begins after a position.
    pub(super) fn after(dispatched: Position) -> Self {
        Self { dispatched, ..Self::default() }
    }

    pub(super) fn dispatched(&self) -> Position {
        self.dispatched
    }

    pub(super) fn insert(&mut self, selection: Selection, queue: Arc<Queue>) -> usize {
        if self.closed {
            queue.close();
        }
        let entry = self.subscribers.vacant_entry();
        let key = entry.key();
        for matcher in selection.wanted.iter() {
            let keys = match matcher.as_exact() {
                Some(exact) => self.exact.entry(exact.into()).or_default(),
                None => self.patterns.keys_mut(matcher),
            };
            // It is the newest of all.
            if keys.last() != Some(&key) {
                keys.push(key);
            }
        }
        entry.insert(Subscriber { selection, queue });
        key
    }

    pub(super) fn remove(&mut self, key: usize) {
        let Some(subscriber) = self.subscribers.try_remove(key) else { return };
        for matcher in subscriber.selection.wanted.iter() {
            match matcher.as_exact() {
                Some(exact) => {
                    if self.exact.get_mut(exact).is_some_and(|keys| forget(keys, key) == 0) {
                        self.exact.remove(exact);
                    }
                }
                None => self.patterns.remove(matcher, key),
            }
        }
    }

    /// What a selection has after an event that the hub still holds; none if it does not.
    pub(super) fn recent_after(&self, id: EventId, selection: &Selection) -> Option<Vec<Arc<Update>>> {
        let updates = self.recent.after(id)?;
        Some(updates.filter(|update| selection.admits(&update.event.topics, update.event.private)).cloned().collect())
    }

    /// Offers an update to everybody who asked for it and may see it; says how many those were.
    pub(super) fn dispatch(&mut self, update: &Arc<Update>) -> usize {
        let event = &update.event;
        self.dispatched = event.position;
        let mut pushes = 0;
        let mut push = |keys: &[usize]| {
            for subscriber in keys.iter().filter_map(|key| self.subscribers.get(*key)) {
                if subscriber.selection.may_see(&event.topics, event.private) {
                    subscriber.queue.push(update);
                    pushes += 1;
                }
            }
        };
        for topic in &event.topics {
            if let Some(keys) = self.exact.get(topic.as_str()) {
                push(keys);
            }
        }
        for topic in &event.topics {
            self.patterns.matching(topic, &mut push);
        }
        self.recent.push(update);
        pushes
    }

    /// The hub has missed something after what it dispatched.
    pub(super) fn send_all_to_the_log(&mut self) {
        self.recent.clear();
        for (_, subscriber) in &self.subscribers {
            subscriber.queue.overflow_at(self.dispatched);
        }
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
        for (_, subscriber) in &self.subscribers {
            subscriber.queue.close();
        }
    }
}

/// Removes a key; says how many are left.
pub(super) fn forget(keys: &mut Vec<usize>, key: usize) -> usize {
    if let Some(at) = keys.iter().position(|&other| other == key) {
        keys.swap_remove(at);
    }
    keys.len()
}
