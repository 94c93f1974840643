//! The newest events, kept for those who come back: a poll that follows another, a stream that broke off.
//!
//! Without them each would read the log, in which nothing is newer than what the hub had in its hands a moment ago.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Update;
use crate::event::EventId;

/// Events that are kept.
const UPDATES_MAX: usize = 512;
/// Bytes of their JSON. One event may have more.
const BYTES_MAX: usize = 1 << 20;

/// The newest events in the order of the log, without a gap.
#[derive(Debug, Default)]
pub(super) struct Recent {
    updates: VecDeque<Arc<Update>>,
    bytes: usize,
}

impl Recent {
    pub(super) fn push(&mut self, update: &Arc<Update>) {
        self.bytes += update.event.json.len();
        self.updates.push_back(update.clone());
        while self.updates.len() > UPDATES_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.updates.pop_front() else { break };
            self.bytes -= oldest.event.json.len();
        }
    }

    /// Something between these and the next was missed.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// All that came after an event; none if the event is not here.
    pub(super) fn after(&self, id: EventId) -> Option<impl Iterator<Item = &Arc<Update>>> {
        let at = self.updates.iter().rposition(|update| update.event.id == id)?;
        Some(self.updates.range(at + 1..))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::event_log::{Committed, Position};

    fn update(number: u16, len: usize) -> Arc<Update> {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&number.to_be_bytes());
        Arc::new(Update::new(Arc::new(Committed {
            position: Position::at(number.into()),
            id: EventId::from_bytes(id),
            name: "Published".into(),
            topics: Box::default(),
            private: true,
            json: Bytes::from(vec![b'x'; len]),
        })))
    }

    #[test]
    fn what_is_after_an_event_is_given_as_long_as_the_event_is_here() {
        let mut recent = Recent::default();
        let all: Vec<_> = (0..600).map(|number| update(number, 10)).collect();
        for update in &all {
            recent.push(update);
        }
        let after = |recent: &Recent, at: usize| recent.after(all[at].event.id).map(Iterator::count);
        assert_eq!(after(&recent, 599), Some(0));
        assert_eq!(after(&recent, 590), Some(9));
        assert_eq!(after(&recent, 599 - UPDATES_MAX), None);
        recent.push(&update(600, BYTES_MAX - 15));
        assert_eq!(after(&recent, 599), Some(1));
        assert_eq!(after(&recent, 598), None, "it has made room");
        recent.push(&update(601, 2 * BYTES_MAX));
        assert!(recent.after(update(601, 0).event.id).is_none() && recent.bytes == 0);
    }
}
