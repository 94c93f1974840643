//! Finds the subscribers of an event: exact topics by a hash table, patterns one by one, equal patterns once.

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

use super::Update;
use super::queue::Queue;
use crate::event::TopicMatcher;
use crate::event_log::{Position, Selection};

/// All subscribers, by what they asked for.
#[derive(Debug, Default)]
pub(super) struct Index {
    subscribers: Slab<Subscriber>,
    exact: HashMap<Box<str>, Vec<usize>>,
    patterns: HashMap<TopicMatcher, Vec<usize>>,
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
                None => self.patterns.entry(matcher.clone()).or_default(),
            };
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        entry.insert(Subscriber { selection, queue });
        key
    }

    pub(super) fn remove(&mut self, key: usize) {
        let Some(subscriber) = self.subscribers.try_remove(key) else { return };
        for matcher in subscriber.selection.wanted.iter() {
            let left = match matcher.as_exact() {
                Some(exact) => self.exact.get_mut(exact).map(|keys| forget(keys, key)),
                None => self.patterns.get_mut(matcher).map(|keys| forget(keys, key)),
            };
            if left == Some(0) {
                match matcher.as_exact() {
                    Some(exact) => drop(self.exact.remove(exact)),
                    None => drop(self.patterns.remove(matcher)),
                }
            }
        }
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
        for (matcher, keys) in &self.patterns {
            if event.topics.iter().any(|topic| matcher.matches(topic)) {
                push(keys);
            }
        }
        pushes
    }

    /// The hub has missed something after what it dispatched.
    pub(super) fn send_all_to_the_log(&self) {
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
fn forget(keys: &mut Vec<usize>, key: usize) -> usize {
    if let Some(at) = keys.iter().position(|&other| other == key) {
        keys.swap_remove(at);
    }
    keys.len()
}
