//! One bound on what the messages of all sessions take together, of memory or of the disk.
//!
//! Each session alone is bounded by the message size limit; a thousand of them are not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What there is for all.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_max: usize,
    taken: AtomicUsize,
}

/// What one session holds of it; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// Nothing is taken yet.
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, taken: AtomicUsize::new(0) })
    }

    /// An empty share.
    pub(super) fn share(self: &Arc<Self>) -> Share {
        Share { budget: Arc::clone(self), bytes: 0 }
    }

    fn take(&self, bytes: usize) -> bool {
        // Only the sum matters, nothing is published by it: relaxed order is enough.
        let take = |taken: usize| taken.checked_add(bytes).filter(|&taken| taken <= self.bytes_max);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        let before = self.taken.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "more was given back than taken");
    }
}

impl Share {
    /// Makes the share `bytes` large. Where there is not enough left for that, says false and leaves it as it is.
    #[must_use]
    pub(super) fn resize(&mut self, bytes: usize) -> bool {
        let enough = match bytes.checked_sub(self.bytes) {
            Some(0) => true,
            Some(more) => self.budget.take(more),
            None => {
                self.budget.give_back(self.bytes - bytes);
                true
            }
        };
        if enough {
            self.bytes = bytes;
        }
        enough
    }

    /// Gives everything back.
    pub(super) fn clear(&mut self) {
        self.budget.give_back(self.bytes);
        self.bytes = 0;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_together_stay_within_the_budget() {
        let budget = Budget::new(100);
        let (mut one, mut two) = (budget.share(), budget.share());
        assert!(one.resize(60) && two.resize(40));
        assert!(!two.resize(41), "nothing is left");
        assert!(one.resize(20) && two.resize(80));
        drop(two);
        assert!(one.resize(100));
        one.clear();
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }
}
