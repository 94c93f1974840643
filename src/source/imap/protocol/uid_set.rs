//! A set of UIDs as ranges: small however large a mailbox is, and written as IMAP writes it.
//!
//! The set of all UIDs in a mailbox is its map from sequence numbers too: number n is the nth smallest.

use std::fmt;

/// Rising ranges that neither touch nor overlap. 0 is no UID and is never in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UidSet {
    ranges: Vec<(u32, u32)>,
}

impl UidSet {
    /// Nothing.
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// All from `first` to `last`; nothing if there are none between them.
    pub fn of_range(first: u32, last: u32) -> Self {
        let mut set = Self::new();
        set.insert_range(first, last);
        set
    }

    /// Reads a sequence set (RFC 9051 §9) without `*`: `4,7:9`. Either end of a range may be the greater one.
    /// `None` for anything else, and for more than `ranges_max` ranges.
    pub fn parse(text: &str, ranges_max: usize) -> Option<Self> {
        let mut ranges = Vec::new();
        for piece in text.split(',') {
            if ranges.len() >= ranges_max {
                return None;
            }
            let number = |digits: &str| {
                let digits = digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(digits)?;
                digits.parse::<u32>().ok().filter(|&uid| uid > 0)
            };
            let (first, last) = match piece.split_once(':') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(piece)?, number(piece)?),
            };
            ranges.push((first.min(last), first.max(last)));
        }
        Some(Self::of_ranges(ranges))
    }

    /// Of ranges in any order, each with its smaller end first and without 0.
    pub(super) fn of_ranges(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.sort_unstable();
        ranges.dedup_by(|(first, last), (_, end)| {
            let touches = *first <= end.saturating_add(1);
            if touches {
                *end = (*end).max(*last);
            }
            touches
        });
        ranges.shrink_to_fit();
        Self { ranges }
    }

    /// How many.
    pub fn len(&self) -> u32 {
        // A u32 has room for all UIDs that there can be.
        self.ranges.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Its ranges, rising: first and last of each.
    pub fn ranges(&self) -> impl Iterator<Item = (u32, u32)> {
        self.ranges.iter().copied()
    }

    /// How many ranges it takes: its size in memory and on disk.
    pub fn ranges_len(&self) -> usize {
        self.ranges.len()
    }

    /// The smallest.
    pub fn first(&self) -> Option<u32> {
        self.ranges.first().map(|(first, _)| *first)
    }

    /// The greatest.
    pub fn last(&self) -> Option<u32> {
        self.ranges.last().map(|(_, last)| *last)
    }

    /// Whether `uid` is in it.
    pub fn contains(&self, uid: u32) -> bool {
        let after = self.ranges.partition_point(|(first, _)| *first <= uid);
        after.checked_sub(1).and_then(|index| self.ranges.get(index)).is_some_and(|(_, last)| uid <= *last)
    }

    /// The `number`th smallest, from 1: the UID of a sequence number.
    pub fn nth(&self, number: u32) -> Option<u32> {
        let mut left = number.checked_sub(1)?;
        for (first, last) in &self.ranges {
            let count = last - first + 1;
            if left < count {
                return Some(first + left);
            }
            left -= count;
        }
        None
    }

    /// Adds one; says whether it is new.
    pub fn insert(&mut self, uid: u32) -> bool {
        let is_new = uid > 0 && !self.contains(uid);
        if is_new {
            self.insert_range(uid, uid);
        }
        is_new
    }

    /// Adds all from `first` to `last`.
    pub fn insert_range(&mut self, first: u32, last: u32) {
        let first = first.max(1);
        if first > last {
            return;
        }
        // The ranges that the new one touches become one with it.
        let begin = self.ranges.partition_point(|(_, end)| end.saturating_add(1) < first);
        let end = self.ranges.partition_point(|(start, _)| *start <= last.saturating_add(1));
        let touched = self.ranges.get(begin..end).unwrap_or_default();
        let first = touched.first().map_or(first, |(start, _)| first.min(*start));
        let last = touched.last().map_or(last, |(_, end)| last.max(*end));
        self.ranges.splice(begin..end.max(begin), [(first, last)]);
    }

    /// Takes one out; says whether it was in.
    pub fn remove(&mut self, uid: u32) -> bool {
        let was_in = self.contains(uid);
        if was_in {
            self.remove_range(uid, uid);
        }
        was_in
    }

    /// Takes out all from `first` to `last`.
    pub fn remove_range(&mut self, first: u32, last: u32) {
        if first > last {
            return;
        }
        let begin = self.ranges.partition_point(|(_, end)| *end < first);
        let end = self.ranges.partition_point(|(start, _)| *start <= last).max(begin);
        let touched = self.ranges.get(begin..end).unwrap_or_default();
        let before = touched.first().filter(|(start, _)| *start < first).map(|(start, _)| (*start, first - 1));
        let after = touched.last().filter(|(_, end)| *end > last).map(|(_, end)| (last + 1, *end));
        self.ranges.splice(begin..end, before.into_iter().chain(after));
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut ranges = Vec::new();
        let (mut left, mut right) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        while let (Some(&&(first, last)), Some(&&(other_first, other_last))) = (left.peek(), right.peek()) {
            let (begin, end) = (first.max(other_first), last.min(other_last));
            if begin <= end {
                ranges.push((begin, end));
            }
            if last < other_last {
                left.next();
            } else {
                right.next();
            }
        }
        Self { ranges }
    }

    /// What is in this one only.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut left = self.clone();
        for (first, last) in &other.ranges {
            left.remove_range(*first, *last);
        }
        left
    }

    /// Adds all of the other.
    pub fn extend(&mut self, other: &Self) {
        let ranges = std::mem::take(&mut self.ranges);
        *self = Self::of_ranges(ranges.into_iter().chain(other.ranges.iter().copied()).collect());
    }

    /// All of them, rising. There may be four thousand million.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last)
    }
}

impl FromIterator<u32> for UidSet {
    fn from_iter<T: IntoIterator<Item = u32>>(uids: T) -> Self {
        Self::of_ranges(uids.into_iter().filter(|&uid| uid > 0).map(|uid| (uid, uid)).collect())
    }
}

/// As a sequence set; nothing for the empty set, which IMAP cannot write.
impl fmt::Display for UidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}:{last}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sets_are_written_and_read_in_ranges() {
        let set: UidSet = [9, 4, 8, 7, u32::MAX, 0].into_iter().collect();
        assert_eq!(set.to_string(), "4,7:9,4294967295");
        assert_eq!(UidSet::parse("4,9:7,4294967295", 10), Some(set));
        for wrong in ["", "*", "1:*", "0", "1,,2", "+1", "4294967296", "1:2:3", "a"] {
            assert_eq!(UidSet::parse(wrong, 10), None, "{wrong}");
        }
        assert_eq!(UidSet::parse("1,3,5", 2), None);
    }

    proptest! {
        /// Against a set that keeps each UID.
        #[test]
        fn it_is_a_set(steps in proptest::collection::vec((any::<bool>(), 1_u32..60, 0_u32..8), 0..40), other in proptest::collection::btree_set(1_u32..60, 0..30)) {
            let (mut set, mut model) = (UidSet::new(), BTreeSet::new());
            for (adds, first, more) in steps {
                let last = first + more;
                if adds {
                    set.insert_range(first, last);
                    model.extend(first..=last);
                } else {
                    set.remove_range(first, last);
                    model.retain(|uid| !(first..=last).contains(uid));
                }
                prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            }
            prop_assert_eq!(set.len() as usize, model.len());
            prop_assert_eq!((set.first(), set.last()), (model.first().copied(), model.last().copied()));
            for uid in 1..70 {
                prop_assert_eq!(set.contains(uid), model.contains(&uid));
            }
            for (number, uid) in (1..).zip(&model) {
                prop_assert_eq!(set.nth(number), Some(*uid));
            }
            prop_assert_eq!(set.nth(set.len() + 1), None);
            if !model.is_empty() {
                prop_assert_eq!(UidSet::parse(&set.to_string(), 1000), Some(set.clone()));
            }
            let others: UidSet = other.iter().copied().collect();
            prop_assert_eq!(set.intersection(&others).iter().collect::<Vec<_>>(), model.intersection(&other).copied().collect::<Vec<_>>());
            prop_assert_eq!(set.difference(&others).iter().collect::<Vec<_>>(), model.difference(&other).copied().collect::<Vec<_>>());
            set.extend(&others);
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.union(&other).copied().collect::<Vec<_>>());
        }
    }
}
