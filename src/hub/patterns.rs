//! Who asked for which pattern, and which patterns match a topic: found out once for each topic that comes again.

use std::collections::HashMap;

use slab::Slab;

use super::index::forget;
use crate::event::{Topic, TopicMatcher};

/// Topics whose patterns are remembered. When there are more, all are forgotten, and those in use come again.
const REMEMBERED_MAX: usize = 4096;

/// All patterns that somebody asked for; equal ones are one.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    all: Slab<Pattern>,
    numbers: HashMap<TopicMatcher, usize>,
    /// The patterns that match a topic.
    remembered: HashMap<Topic, Box<[usize]>>,
}

#[derive(Debug)]
struct Pattern {
    matcher: TopicMatcher,
    /// Keys of subscribers.
    keys: Vec<usize>,
}

impl Patterns {
    /// The keys of those who asked for a pattern, which are to be added to.
    pub(super) fn keys_mut(&mut self, matcher: &TopicMatcher) -> &mut Vec<usize> {
        let vacant = self.all.vacant_key();
        let number = *self.numbers.entry(matcher.clone()).or_insert(vacant);
        if number == vacant {
            self.remembered.clear();
            self.all.insert(Pattern { matcher: matcher.clone(), keys: Vec::new() });
        }
        match self.all.get_mut(number) {
            Some(pattern) => &mut pattern.keys,
            None => unreachable!("each number is a pattern's"),
        }
    }

    pub(super) fn remove(&mut self, matcher: &TopicMatcher, key: usize) {
        let Some(number) = self.numbers.get(matcher).copied() else { return };
        let left = self.all.get_mut(number).map(|pattern| forget(&mut pattern.keys, key));
        if left == Some(0) {
            self.remembered.clear();
            self.numbers.remove(matcher);
            self.all.remove(number);
        }
    }

    /// Gives `push` the keys of each pattern that matches a topic.
    pub(super) fn matching(&mut self, topic: &Topic, mut push: impl FnMut(&[usize])) {
        if self.all.is_empty() {
            return;
        }
        if !self.remembered.contains_key(topic) {
            if self.remembered.len() >= REMEMBERED_MAX {
                self.remembered.clear();
            }
            let matching = self.all.iter().filter(|(_, pattern)| pattern.matcher.matches(topic));
            let numbers = matching.map(|(number, _)| number).collect();
            self.remembered.insert(topic.clone(), numbers);
        }
        for number in self.remembered.get(topic).into_iter().flatten() {
            if let Some(pattern) = self.all.get(*number) {
                push(&pattern.keys);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_follows_who_comes_and_goes() {
        let (mut patterns, topic) = (Patterns::default(), Topic::parse("mail/a/b").unwrap());
        let matching = |patterns: &mut Patterns| {
            let mut found = Vec::new();
            patterns.matching(&topic, |keys| found.extend_from_slice(keys));
            found.sort_unstable();
            found
        };
        let pattern = |text: &str| TopicMatcher::parse(text).unwrap();
        assert!(matching(&mut patterns).is_empty());
        patterns.keys_mut(&pattern("mail/a/{x}")).push(1);
        patterns.keys_mut(&pattern("mail/b/{x}")).push(2);
        assert_eq!(matching(&mut patterns), [1]);
        patterns.keys_mut(&pattern("*")).push(3);
        patterns.keys_mut(&pattern("mail/a/{x}")).push(4);
        assert_eq!(matching(&mut patterns), [1, 3, 4]);
        patterns.remove(&pattern("mail/a/{x}"), 1);
        assert_eq!(matching(&mut patterns), [3, 4]);
        patterns.remove(&pattern("mail/a/{x}"), 4);
        assert_eq!(matching(&mut patterns), [3]);
    }
}
