//! A stream that is not where its group is: it has history to read, or its socket takes nothing for now.
//!
//! It is a task of its own, which may wait. When it has nothing more to wait for, it gives the stream back.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::Settings;
use super::group::{Group, Kind, chunk_of};
use super::marks::Mark;
use super::member::{HEARD_MAX, Member, Written, hear, write};
use crate::http::{Held, LAST_CHUNK, Taken, chunk};
use crate::hub::{Format, Subscription, Update};
use crate::transport::feed::{Feed, Next, Reason};
use crate::transport::stream;

/// A stream with a subscription of its own.
#[derive(Debug)]
pub(in crate::transport) struct Straggler {
    socket: TcpStream,
    feed: Feed,
    format: Format,
    /// To be written first.
    rest: Bytes,
    held: Held,
}

/// When a straggler may give the stream back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// When it has caught up.
    Straight,
    /// When something has come and it has caught up again: it could not be merged as it was.
    AfterNext,
}

impl Straggler {
    /// A stream that begins: the head and the first record are written as far as the socket takes them.
    pub(in crate::transport) fn begin(taken: Taken, first: &[u8], feed: Feed, format: Format) -> Option<Self> {
        let mut rest = Bytes::from([&taken.head, chunk(&[first]).as_ref()].concat());
        match write(&taken.socket, &rest) {
            Written::All => rest.clear(),
            Written::Part(count) => rest.advance(count),
            Written::Gone => return None,
        }
        Some(Self { socket: taken.socket, feed, format, rest, held: taken.held })
    }

    /// Leaves a group: first comes the rest of what was begun, then what it has not got yet.
    pub(super) fn leave(
        member: Member,
        group: &Group,
        rest: Bytes,
        first: Vec<Arc<Update>>,
        settings: &Settings,
    ) -> Option<Self> {
        let shared = group.subscription.as_ref()?;
        let mut untaken = first;
        untaken.extend(group.waiting.iter().filter(|update| update.event.position > member.after).cloned());
        let subscription = shared.leave(untaken, member.after, member.place);
        let feed =
            Feed::going_on(&settings.config, subscription, (member.expires_at, member.expiry), settings.stop.clone());
        Some(Self { socket: member.socket, feed, format: group.kind.1, rest, held: member.held })
    }

    pub(super) fn kind(&self) -> Kind {
        (self.feed.subscription.selection().clone(), self.format)
    }

    /// It can be merged into its group, unless something comes in this very moment.
    pub(super) fn has_caught_up(&self) -> bool {
        self.rest.is_empty() && self.feed.is_empty() && self.feed.subscription.has_caught_up()
    }

    /// Becomes a member of a group, with what it has to get before the group's updates.
    pub(super) fn merge(
        self,
        group: usize,
        shared: &Subscription,
        mark: Arc<Mark>,
        heartbeat: Duration,
    ) -> Result<(Member, Vec<Arc<Update>>), Box<Self>> {
        let (expires_at, expiry) = self.feed.expiry();
        let merged = match self.feed.merge(shared) {
            Ok(merged) => merged,
            Err(feed) => return Err(Box::new(Self { feed: *feed, ..self })),
        };
        let member = Member {
            socket: self.socket,
            group,
            at: 0,
            after: merged.after,
            heartbeat_at: Instant::now() + heartbeat,
            expires_at,
            expiry,
            mark,
            heard: 0,
            place: merged.place,
            held: self.held,
        };
        Ok((member, merged.updates))
    }

    /// Serves the stream; gives it back when it has caught up, and nothing when it has ended.
    pub(super) async fn run(mut self, settings: Settings, mut way: Way) -> Option<Self> {
        loop {
            self.write_rest(settings.stall_timeout).await?;
            if way == Way::Straight && self.has_caught_up() {
                return Some(self);
            }
            way = Way::Straight;
            let next = tokio::select! {
                next = self.feed.next() => next,
                () = gone(&self.socket) => return None,
            };
            self.rest = match next {
                Next::Updates(updates) => chunk_of(&updates, self.format),
                Next::Heartbeat => chunk(&[&stream::heartbeat(self.format)]),
                Next::Bye(reason) => {
                    self.rest = farewell(self.format, reason, &settings);
                    self.write_rest(settings.stall_timeout).await?;
                    return self.socket.shutdown().await.ok().and(None);
                }
            };
        }
    }

    /// None if the peer is gone, or takes nothing for too long.
    async fn write_rest(&mut self, limit: Duration) -> Option<()> {
        while !self.rest.is_empty() {
            match write(&self.socket, &self.rest) {
                Written::All => self.rest.clear(),
                Written::Gone => return None,
                Written::Part(count) => {
                    self.rest.advance(count);
                    timeout(limit, self.socket.writable()).await.ok()?.ok()?;
                }
            }
        }
        Some(())
    }
}

/// Waits until the peer is gone; what it says is passed over.
async fn gone(socket: &TcpStream) {
    let mut heard = 0;
    while heard < HEARD_MAX {
        if socket.readable().await.is_err() {
            return;
        }
        match hear(socket) {
            Some(count) => heard += count,
            None => return,
        }
    }
    std::future::pending::<()>().await;
}

/// The last record and the end of the body.
pub(super) fn farewell(format: Format, reason: Reason, settings: &Settings) -> Bytes {
    let bye = chunk(&[&stream::bye(format, reason, &settings.config)]);
    [bye.as_ref(), LAST_CHUNK].concat().into()
}
