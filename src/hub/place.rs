//! Places for subscribers: how many there are, and that there are not too many.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// All places of a hub.
#[derive(Debug)]
pub(super) struct Places {
    taken: Arc<AtomicUsize>,
    max: usize,
}

/// One subscriber's place, whichever of its forms it is in; free again when it is dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Places {
    pub(super) fn new(max: usize) -> Self {
        Self { taken: Arc::default(), max }
    }

    /// None when all are taken.
    pub(super) fn take(&self) -> Option<Place> {
        let free = |taken| (taken < self.max).then_some(taken + 1);
        // The count orders nothing else.
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).ok()?;
        Some(Place(self.taken.clone()))
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_subscriber_is_gone() {
        let places = Places::new(1);
        let place = places.take();
        assert!(place.is_some() && places.take().is_none());
        drop(place);
        assert_eq!(places.taken(), 0);
        assert!(places.take().is_some());
    }
}
