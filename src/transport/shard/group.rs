//! Subscribers of one shard who asked for the same in the same format, with one subscription for them all.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::marks::Mark;
use crate::event_log::{Position, Selection};
use crate::http::chunk;
use crate::hub::{Format, Live, Subscription, Update};
use crate::transport::feed::join;

/// What is the same for all of a group.
pub(super) type Kind = (Selection, Format);

/// A group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) kind: Kind,
    /// None while it reads the log.
    pub(super) subscription: Option<Subscription>,
    /// Taken from the subscription, and written to nobody yet.
    pub(super) waiting: VecDeque<Arc<Update>>,
    /// Keys of the shard.
    pub(super) members: Vec<usize>,
    pub(super) mark: Arc<Mark>,
}

/// What a group does when it is its turn.
#[derive(Debug)]
pub(super) enum Turn {
    /// This is written to all members.
    Write(Joined),
    /// The log is to be read by this subscription, which must be given back.
    Read(Subscription),
    /// There is nothing.
    Nothing,
    /// The hub has stopped.
    Closed,
}

impl Group {
    pub(super) fn new(kind: Kind, subscription: Subscription, mark: Arc<Mark>) -> Self {
        Self { kind, subscription: Some(subscription), waiting: VecDeque::new(), members: Vec::new(), mark }
    }

    pub(super) fn turn(&mut self, bytes_max: usize) -> Turn {
        if self.waiting.is_empty() {
            let Some(subscription) = &mut self.subscription else { return Turn::Nothing };
            match subscription.live() {
                Live::Updates(updates) => self.waiting = updates.into(),
                Live::Nothing => return Turn::Nothing,
                Live::Closed => return Turn::Closed,
                Live::Behind => return self.subscription.take().map_or(Turn::Nothing, Turn::Read),
            }
        }
        Turn::Write(Joined::new(join(&mut self.waiting, bytes_max), self.kind.1))
    }

    /// Nobody needs it, and nobody has its subscription.
    pub(super) fn is_over(&self) -> bool {
        self.members.is_empty() && self.subscription.is_some()
    }
}

/// Updates that go out in one write.
#[derive(Debug)]
pub(super) struct Joined {
    updates: Vec<Arc<Update>>,
    format: Format,
    whole: Bytes,
}

impl Joined {
    fn new(updates: Vec<Arc<Update>>, format: Format) -> Self {
        let whole = chunk_of(&updates, format);
        Self { updates, format, whole }
    }

    /// What somebody gets who has seen everything up to a position.
    pub(super) fn after(&self, position: Position) -> Cow<'_, Bytes> {
        let seen = self.updates.iter().take_while(|update| update.event.position <= position).count();
        match self.updates.get(seen..) {
            _ if seen == 0 => Cow::Borrowed(&self.whole),
            Some(unseen @ [_, ..]) => Cow::Owned(chunk_of(unseen, self.format)),
            _ => Cow::Owned(Bytes::new()),
        }
    }

    /// The newest position in it.
    pub(super) fn last(&self) -> Position {
        self.updates.last().map_or(Position::START, |update| update.event.position)
    }
}

/// Updates as one chunk of a body.
pub(super) fn chunk_of(updates: &[Arc<Update>], format: Format) -> Bytes {
    let pieces: Vec<&[u8]> = updates.iter().map(|update| update.encoded(format).as_ref()).collect();
    chunk(&pieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventId;
    use crate::event_log::Committed;

    fn update(position: i64) -> Arc<Update> {
        Arc::new(Update::new(Arc::new(Committed {
            position: Position::at(position),
            id: EventId::from_bytes([0; 16]),
            name: "Published".into(),
            topics: Box::default(),
            private: true,
            json: Bytes::from(position.to_string()),
        })))
    }

    #[test]
    fn who_has_seen_a_part_gets_the_rest() {
        let joined = Joined::new(vec![update(3), update(5), update(7)], Format::Lines);
        let after = |position| joined.after(Position::at(position)).into_owned();
        assert_eq!(after(2), "6\r\n3\n5\n7\n\r\n");
        assert_eq!(after(3), "4\r\n5\n7\n\r\n");
        assert_eq!(after(6), "2\r\n7\n\r\n");
        assert_eq!(after(7), "");
        assert_eq!(joined.last(), Position::at(7));
    }
}
