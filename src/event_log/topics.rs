//! The topics that kept events have, by name, shared by the writer (which adds) and the readers (which resolve).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use crate::event::{Topic, TopicMatcher};

/// Topic names and the numbers that the index uses for them. Cheap to clone; clones share.
///
/// The writer adds a topic before the commit that brings its first event, and takes it back when that fails: a reader
/// that opened its snapshot first and then asks here finds every topic of the snapshot.
#[derive(Debug, Clone, Default)]
pub(super) struct TopicTable {
    by_name: Arc<RwLock<BTreeMap<Box<str>, i64>>>,
}

impl TopicTable {
    pub(super) fn number(&self, topic: &Topic) -> Option<i64> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(topic.as_str()).copied()
    }

    pub(super) fn insert(&self, name: Box<str>, number: i64) {
        self.by_name.write().unwrap_or_else(PoisonError::into_inner).insert(name, number);
    }

    pub(super) fn remove(&self, name: &str) {
        self.by_name.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// The numbers of the topics that any matcher asks for; none when there are more than `max`, for then a walk over
    /// all events is the cheaper way.
    pub(super) fn resolve(&self, matchers: &[TopicMatcher], max: usize) -> Option<Vec<i64>> {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        let mut numbers = Vec::new();
        for matcher in matchers {
            if let Some(exact) = matcher.as_exact() {
                numbers.extend(by_name.get(exact));
            } else if matcher.is_all() {
                return None;
            } else {
                let prefix = matcher.literal_prefix();
                let candidates = by_name
                    .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
                    .take_while(|(name, _)| name.starts_with(prefix));
                for (name, number) in candidates {
                    if matcher.matches(&Topic::stored(name)) {
                        numbers.push(*number);
                        // At once: the writer waits for the table, and there may be very many more.
                        if numbers.len() > max {
                            return None;
                        }
                    }
                }
            }
            if numbers.len() > max {
                return None;
            }
        }
        numbers.sort_unstable();
        numbers.dedup();
        Some(numbers)
    }
}
