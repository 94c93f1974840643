//! Patterns of local parts with `*` in them, of one domain. Pure.
//!
//! They are found by what stands before their first star, so that ten thousand accounts with a pattern each cost a
//! recipient no more than one.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

/// A local part with at least one `*`, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wildcard {
    /// What stands between the stars, one more than there are stars.
    pieces: Vec<String>,
}

impl Wildcard {
    pub(super) fn new(local_lower: &str) -> Self {
        Self { pieces: local_lower.split('*').map(str::to_owned).collect() }
    }

    /// Stars.
    pub(super) fn stars(&self) -> usize {
        self.pieces.len().saturating_sub(1)
    }

    /// Whether the pattern itself has a `+`, so that none names a mailbox.
    pub(super) fn has_plus(&self) -> bool {
        self.pieces.iter().any(|piece| piece.contains('+'))
    }

    /// Characters that are no star: the more there are, the more the pattern says.
    pub(super) fn literal_len(&self) -> usize {
        self.pieces.iter().map(String::len).sum()
    }

    fn prefix(&self) -> &str {
        self.pieces.first().map_or("", String::as_str)
    }

    /// Where in `local` each star's text begins and ends; each takes as little as it can.
    pub(super) fn captures(&self, local: &str) -> Option<Vec<(usize, usize)>> {
        let (last, before) = self.pieces.split_last()?;
        let end = local.len().checked_sub(last.len()).filter(|_| local.ends_with(last.as_str()))?;
        let mut at = 0;
        let mut captures = Vec::with_capacity(self.stars());
        for (number, piece) in before.iter().enumerate() {
            let found = local.get(at..end)?.find(piece.as_str()).filter(|&found| number > 0 || found == 0)?;
            if number > 0 {
                captures.push((at, at + found));
            }
            at += found + piece.len();
        }
        captures.push((at, end));
        Some(captures)
    }
}

/// The patterns of one domain, each with what it leads to.
#[derive(Debug, Clone)]
pub(super) struct Wildcards<T> {
    by_prefix: HashMap<String, Vec<Entry<T>>>,
    prefix_lens: BTreeSet<usize>,
    len: usize,
}

#[derive(Debug, Clone)]
struct Entry<T> {
    wildcard: Wildcard,
    to: T,
    /// How many stood before it.
    number: usize,
}

impl<T> Default for Wildcards<T> {
    fn default() -> Self {
        Self { by_prefix: HashMap::new(), prefix_lens: BTreeSet::new(), len: 0 }
    }
}

impl<T> Wildcards<T> {
    /// Adds a pattern; gives what the same pattern leads to already.
    pub(super) fn insert(&mut self, wildcard: Wildcard, to: T) -> Option<&T> {
        self.prefix_lens.insert(wildcard.prefix().len());
        let same = self.by_prefix.entry(wildcard.prefix().to_owned()).or_default();
        if let Some(at) = same.iter().position(|known| known.wildcard == wildcard) {
            return same.get(at).map(|known| &known.to);
        }
        same.push(Entry { wildcard, to, number: self.len });
        self.len += 1;
        None
    }

    /// The pattern of `local`, in lower case, that says most, of those that `admits` takes; of several that say as
    /// much the one that stands first.
    pub(super) fn find(&self, local: &str, admits: impl Fn(&Wildcard, &T) -> bool) -> Option<(&Wildcard, &T)> {
        let rank = |entry: &Entry<T>| (entry.wildcard.literal_len(), Reverse(entry.number));
        let mut best: Option<&Entry<T>> = None;
        for len in self.prefix_lens.range(..=local.len()) {
            let Some(candidates) = local.get(..*len).and_then(|prefix| self.by_prefix.get(prefix)) else { continue };
            for candidate in candidates {
                let Entry { wildcard, to, .. } = candidate;
                let says_more = best.is_none_or(|best| rank(candidate) > rank(best));
                if says_more && wildcard.captures(local).is_some() && admits(wildcard, to) {
                    best = Some(candidate);
                }
            }
        }
        best.map(|entry| (&entry.wildcard, &entry.to))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn captured<'a>(pattern: &str, local: &'a str) -> Option<Vec<&'a str>> {
        Some(Wildcard::new(pattern).captures(local)?.into_iter().map(|(from, to)| &local[from..to]).collect())
    }

    #[test]
    fn stars_stand_for_anything() {
        assert_eq!(captured("alerts-*", "alerts-disk"), Some(vec!["disk"]));
        assert_eq!(captured("alerts-*", "alerts-"), Some(vec![""]));
        assert_eq!(captured("alerts-*", "alerts"), None);
        assert_eq!(captured("*-x", "a-x-x"), Some(vec!["a-x"]));
        assert_eq!(captured("a*b*c", "aXbYbZc"), Some(vec!["X", "YbZ"]));
        assert_eq!(captured("a*b*c", "ac"), None);
        assert_eq!(captured("a*a", "a"), None, "one letter is not both ends");
        assert_eq!(captured("*ä*", "xäy"), Some(vec!["x", "y"]));
    }

    #[test]
    fn the_pattern_that_says_most_wins() {
        let mut known = Wildcards::default();
        for (number, pattern) in ["a*", "alerts-*", "*-disk", "al*sk", "*b", "a*b"].into_iter().enumerate() {
            assert_eq!(known.insert(Wildcard::new(pattern), number), None);
        }
        assert_eq!(known.insert(Wildcard::new("*-disk"), 9), Some(&2));
        let find = |local| known.find(local, |_, _| true).map(|(_, &to)| to);
        assert_eq!(find("alerts-disk"), Some(1));
        assert_eq!(find("albert-disk"), Some(2));
        assert_eq!(find("alsk"), Some(3));
        assert_eq!(find("ab"), Some(5));
        assert_eq!(find("x"), None);
        assert_eq!(known.insert(Wildcard::new("*c"), 6), None);
        assert_eq!(known.insert(Wildcard::new("c*"), 7), None);
        assert_eq!(known.find("cc", |_, _| true).map(|(_, &to)| to), Some(6), "the first of two that say as much");
        let other = known.find("alerts-disk", |_, &to| to != 1).map(|(_, &to)| to);
        assert_eq!(other, Some(2), "one that is not admitted does not hide the next");
    }

    proptest! {
        /// What is put together from the pieces and the captures is the text; and the simple matcher agrees.
        #[test]
        fn captures_fill_the_stars(pattern in "[ab*]{0,8}", local in "[ab]{0,10}") {
            let wildcard = Wildcard::new(&pattern);
            prop_assume!(wildcard.stars() > 0);
            let found = captured(&pattern, &local);
            prop_assert_eq!(found.is_some(), matches(pattern.as_bytes(), local.as_bytes()));
            if let Some(found) = found {
                let filled: String =
                    wildcard.pieces.iter().zip(found.iter().chain([&""])).flat_map(|(a, b)| [a.as_str(), b]).collect();
                prop_assert_eq!(filled, local);
            }
        }
    }

    /// Slow and plainly right.
    fn matches(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|skip| matches(rest, &text[skip..])),
            ([a, pattern @ ..], [b, text @ ..]) => a == b && matches(pattern, text),
            _ => false,
        }
    }
}
