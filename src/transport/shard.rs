//! Streams that are a socket, a small state and a place in a shard: what most subscribers are most of the time.
//!
//! A stream over plain HTTP/1.1 gives its socket away after the head (see [`crate::http::Handover`]). A shard owns such
//! sockets, thousands of them, and is one task. Subscribers who asked for the same in the same format are a *group*: it
//! has one subscription, and what the hub has for it is encoded once, joined into one bounded buffer, and written to
//! every socket in turn. What comes while that goes on waits in the group's queue, and is joined for the next turn. The
//! shard lets other tasks run after some writes, so that publishers are answered and more can be joined.
//!
//! A shard waits for nobody. A socket that does not take all at once is a *straggler*: it leaves with a subscription of
//! its own and is served by a task of its own, which waits for the socket and reads the log where it must. When that
//! has caught up, it is merged into the group again. New subscribers with history to read begin as stragglers.
//!
//! Each group and each socket has a [`Mark`], a waker that puts its name on the shard's list: a hundred thousand quiet
//! ones cost nothing but their memory.

mod group;
mod marks;
mod member;
mod straggler;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;
use std::time::Duration;

use bytes::Bytes;
use slab::Slab;
use tokio::task::{JoinSet, unconstrained, yield_now};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::group::{Group, Joined, Kind, Turn};
use self::marks::{List, Mark, Marks, Name};
use self::member::{Member, Written};
pub(super) use self::straggler::Straggler;
use self::straggler::{Way, farewell};
use super::StreamConfig;
use super::feed::Reason;
use super::stream;
use crate::event_log::ReadError;
use crate::http::chunk;
use crate::hub::{Batch, Hub, Subscription, Update};

/// Writes after which a shard lets other tasks run.
const WRITES_PER_TURN: usize = 64;
/// How often a shard looks at its clock, at most and at least.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// All shards. Cheap to clone; clones share.
#[derive(Debug, Clone)]
pub struct Shards {
    marks: Arc<[Arc<Marks>]>,
    next: Arc<AtomicUsize>,
    settings: Settings,
}

/// What streams need to go on. Cheap to clone but for a few words.
#[derive(Debug, Clone)]
struct Settings {
    hub: Hub,
    config: StreamConfig,
    /// A socket that takes nothing for so long is closed.
    stall_timeout: Duration,
    stop: CancellationToken,
}

impl Shards {
    /// As many shards as there are cores, which serve streams until `stop`.
    pub fn new(hub: Hub, config: StreamConfig, stall_timeout: Duration, stop: CancellationToken) -> Self {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let settings = Settings { hub, config, stall_timeout, stop };
        Self { marks: (0..count).map(|_| Arc::default()).collect(), next: Arc::default(), settings }
    }

    /// Runs all of them until `ended`, which must not come before all sockets are closed, or until one has failed.
    pub async fn run(self, ended: CancellationToken) {
        let mut shards = JoinSet::new();
        for marks in self.marks.iter() {
            let shard = Shard::new(self.settings.clone(), marks.clone());
            // It yields by itself; tokio's own measure would have it look at a socket twice.
            shards.spawn(unconstrained(shard.run(ended.clone())));
        }
        while let Some(Ok(())) = shards.join_next().await {}
    }

    /// Takes over a stream whose head and first record are still to be written.
    pub(super) fn take(&self, straggler: Straggler) {
        let number = self.next.fetch_add(1, Ordering::Relaxed) % self.marks.len().max(1);
        if let Some(marks) = self.marks.get(number) {
            marks.add(straggler);
        }
    }
}

/// One shard's sockets and groups.
struct Shard {
    settings: Settings,
    marks: Arc<Marks>,
    members: Slab<Member>,
    groups: Slab<Group>,
    kinds: HashMap<Kind, usize>,
    stragglers: JoinSet<Option<Straggler>>,
    /// Groups that read the log.
    readers: JoinSet<(usize, Subscription, Result<Option<Batch>, ReadError>)>,
    look_at: Instant,
    /// Since others ran.
    writes: usize,
    stopped: bool,
}

impl Shard {
    fn new(settings: Settings, marks: Arc<Marks>) -> Self {
        Self {
            settings,
            marks,
            members: Slab::new(),
            groups: Slab::new(),
            kinds: HashMap::new(),
            stragglers: JoinSet::new(),
            readers: JoinSet::new(),
            look_at: Instant::now(),
            writes: 0,
            stopped: false,
        }
    }

    async fn run(mut self, ended: CancellationToken) {
        let (stop, marks) = (self.settings.stop.clone(), self.marks.clone());
        loop {
            tokio::select! {
                () = ended.cancelled() => return,
                () = stop.cancelled(), if !self.stopped => self.end_all().await,
                list = marks.next() => self.attend(list).await,
                Some(straggler) = self.stragglers.join_next() => {
                    if let Ok(Some(straggler)) = straggler {
                        self.join(straggler);
                    }
                }
                Some(read) = self.readers.join_next() => {
                    if let Ok((key, subscription, batch)) = read {
                        self.go_on(key, subscription, batch).await;
                    }
                }
                () = sleep_until(self.look_at) => self.look().await,
            }
            self.pause().await;
        }
    }

    /// Lets others run when enough was done since they did.
    async fn pause(&mut self) {
        self.writes += 1;
        if self.writes >= WRITES_PER_TURN {
            self.writes = 0;
            yield_now().await;
        }
    }

    /// Sees to everything that has something new.
    async fn attend(&mut self, list: List) {
        for straggler in list.new {
            self.join(straggler);
            self.pause().await;
        }
        for mark in list.marks {
            mark.taken_off();
            match mark.name {
                Name::Group(key) => self.serve(key, &mark).await,
                Name::Member(key) => {
                    let member = self.members.get_mut(key).filter(|member| Arc::ptr_eq(&member.mark, &mark));
                    if member.is_some_and(|member| !member.hear()) {
                        self.remove(key);
                    }
                }
            }
            self.pause().await;
        }
    }

    /// Takes a stream in; leaves it to a task of its own as long as it has to catch up.
    fn join(&mut self, straggler: Straggler) {
        if self.stopped || !straggler.has_caught_up() {
            return self.straggle(straggler, Way::Straight);
        }
        let key = self.group(straggler.kind());
        let member_key = self.members.vacant_key();
        let mark = Mark::new(&self.marks, Name::Member(member_key));
        // Without a subscription the group reads the log, and who has caught up is ahead of it.
        let shared = self.groups.get(key).and_then(|group| group.subscription.as_ref());
        let Some(shared) = shared else { return self.straggle(straggler, Way::AfterNext) };
        match straggler.merge(key, shared, mark, self.settings.config.heartbeat) {
            Ok((member, untaken)) => {
                self.look_at = self.look_at.min(member.expires_at);
                self.insert(member_key, member);
                let heard = self.members.get_mut(member_key).is_some_and(Member::hear);
                if !heard {
                    self.remove(member_key);
                } else if !untaken.is_empty() {
                    self.leave(member_key, Bytes::new(), untaken);
                }
            }
            Err(straggler) => {
                self.straggle(*straggler, Way::AfterNext);
                self.drop_if_over(key);
            }
        }
    }

    /// The group of a kind, made if there is none.
    fn group(&mut self, kind: Kind) -> usize {
        if let Some(key) = self.kinds.get(&kind) {
            return *key;
        }
        let key = self.groups.vacant_key();
        let mark = Mark::new(&self.marks, Name::Group(key));
        let subscription = self.settings.hub.share(kind.0.clone(), mark.clone().into());
        self.groups.insert(Group::new(kind.clone(), subscription, mark));
        self.kinds.insert(kind, key);
        key
    }

    fn straggle(&mut self, straggler: Straggler, way: Way) {
        self.stragglers.spawn(straggler.run(self.settings.clone(), way));
    }

    /// Hands on what the hub has for a group: as much as one write carries, the rest when it is its turn again.
    async fn serve(&mut self, key: usize, mark: &Arc<Mark>) {
        let group = self.groups.get_mut(key).filter(|group| Arc::ptr_eq(&group.mark, mark));
        match group.map(|group| group.turn(self.settings.config.write_bytes_max)) {
            Some(Turn::Write(joined)) => {
                self.write_to_all(key, &joined).await;
                mark.wake_by_ref();
            }
            Some(Turn::Read(mut subscription)) => {
                self.readers.spawn(async move {
                    let batch = subscription.ready().await;
                    (key, subscription, batch)
                });
            }
            Some(Turn::Closed) => self.end_group(key, Reason::ShuttingDown).await,
            Some(Turn::Nothing) | None => {}
        }
    }

    /// A group has read the log. It was not dropped meanwhile, so that the key is still its own.
    async fn go_on(&mut self, key: usize, subscription: Subscription, batch: Result<Option<Batch>, ReadError>) {
        let Some(group) = self.groups.get_mut(key) else { return };
        group.subscription = Some(subscription);
        let mark = group.mark.clone();
        match batch {
            Ok(Some(Batch::Updates(updates))) => group.waiting = updates.into(),
            Ok(None) => {}
            Ok(Some(Batch::Closed)) => self.end_group(key, Reason::ShuttingDown).await,
            Err(err) => {
                tracing::error!(error = %err, "the history of subscribers cannot be read");
                self.end_group(key, Reason::LogUnavailable).await;
            }
        }
        mark.wake_by_ref();
        self.drop_if_over(key);
    }

    async fn write_to_all(&mut self, key: usize, joined: &Joined) {
        let heartbeat_at = Instant::now() + self.settings.config.heartbeat;
        let mut at = 0;
        while let Some(member_key) = self.groups.get(key).and_then(|group| group.members.get(at).copied()) {
            let Some(member) = self.members.get_mut(member_key) else { break };
            let bytes = joined.after(member.after);
            member.after = member.after.max(joined.last());
            member.heartbeat_at = heartbeat_at;
            match member.write(&bytes) {
                Written::All => at += 1,
                // Whoever goes has another member in its place.
                Written::Part(count) => self.leave(member_key, bytes.slice(count..), Vec::new()),
                Written::Gone => self.remove(member_key),
            }
            self.pause().await;
        }
    }

    /// Looks at the clock for everybody: tokens that expire, and streams that were quiet.
    async fn look(&mut self) {
        let now = Instant::now();
        let mut soonest = now + (self.settings.config.heartbeat / 4).clamp(LOOK_EVERY.0, LOOK_EVERY.1);
        for key in 0..self.members.capacity() {
            let Some(member) = self.members.get_mut(key) else { continue };
            if member.expires_at <= now {
                let expiry = member.expiry;
                self.end(key, expiry);
                self.pause().await;
                continue;
            }
            soonest = soonest.min(member.expires_at);
            if member.heartbeat_at <= now {
                self.beat(key, now);
                self.pause().await;
            }
        }
        self.look_at = soonest;
    }

    fn beat(&mut self, key: usize, now: Instant) {
        let Some(member) = self.members.get_mut(key) else { return };
        // A group that reads the log is about to write, and could let nobody leave.
        let group = self.groups.get(member.group).filter(|group| group.subscription.is_some());
        let Some(group) = group else { return };
        member.heartbeat_at = now + self.settings.config.heartbeat;
        let bytes = chunk(&[&stream::heartbeat(group.kind.1)]);
        match member.write(&bytes) {
            Written::All => {}
            Written::Part(count) => self.leave(key, bytes.slice(count..), Vec::new()),
            Written::Gone => self.remove(key),
        }
    }

    /// Leaves a member to a task of its own.
    fn leave(&mut self, key: usize, rest: Bytes, first: Vec<Arc<Update>>) {
        let Some(member) = self.take_out(key) else { return };
        let group_key = member.group;
        let group = self.groups.get(group_key);
        let left = group.and_then(|group| Straggler::leave(member, group, rest, first, &self.settings));
        debug_assert!(left.is_some(), "a group that reads the log writes nothing");
        if let Some(straggler) = left {
            self.straggle(straggler, Way::Straight);
        }
        self.drop_if_over(group_key);
    }

    /// Says goodbye. A socket that does not take it has been told nothing for a while anyway.
    fn end(&mut self, key: usize, reason: Reason) {
        let Some(member) = self.members.get(key) else { return };
        if let Some(group) = self.groups.get(member.group) {
            member.write(&farewell(group.kind.1, reason, &self.settings));
        }
        self.remove(key);
    }

    async fn end_group(&mut self, key: usize, reason: Reason) {
        while let Some(member) = self.groups.get(key).and_then(|group| group.members.last().copied()) {
            self.end(member, reason);
            self.pause().await;
        }
    }

    /// From here on, who comes is told to go by a task of its own.
    async fn end_all(&mut self) {
        self.stopped = true;
        for key in 0..self.members.capacity() {
            self.end(key, Reason::ShuttingDown);
            self.pause().await;
        }
    }

    fn insert(&mut self, key: usize, mut member: Member) {
        if let Some(group) = self.groups.get_mut(member.group) {
            member.at = group.members.len();
            group.members.push(key);
        }
        let inserted = self.members.insert(member);
        debug_assert_eq!(inserted, key, "the key was vacant");
    }

    fn remove(&mut self, key: usize) {
        if let Some(member) = self.take_out(key) {
            self.drop_if_over(member.group);
        }
    }

    fn take_out(&mut self, key: usize) -> Option<Member> {
        let member = self.members.try_remove(key)?;
        let group = self.groups.get_mut(member.group)?;
        group.members.swap_remove(member.at);
        if let Some(moved) = group.members.get(member.at).and_then(|moved| self.members.get_mut(*moved)) {
            moved.at = member.at;
        }
        Some(member)
    }

    fn drop_if_over(&mut self, key: usize) {
        if self.groups.get(key).is_some_and(Group::is_over) {
            let group = self.groups.remove(key);
            self.kinds.remove(&group.kind);
        }
    }
}
