//! Who has failed to log in, how often, and what that costs them. Pure: instants come in as arguments.
//!
//! Each failure takes longer to be answered than the one before, and after some the name is closed to that address for a
//! while: to everybody else it stays open, so that nobody can lock a user out from elsewhere. An address that goes
//! through many names is closed altogether. What is counted is bounded, and forgotten in time.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::places::network_of;

/// Longest that a failure's answer is delayed: clients wait, and the session keeps its slot.
const DELAY_MAX: Duration = Duration::from_secs(30);
/// An address may fail so many times as often as one name of it: a company behind one address has several users.
const ADDRESS_FACTOR: u32 = 5;
/// Names and addresses that are remembered; 64 bytes each.
const REMEMBERED_MAX: usize = 10_000;

/// Counts failures.
#[derive(Debug)]
pub(super) struct Lockout {
    failures_max: u32,
    first_delay: Duration,
    period: Duration,
    failures: HashMap<Key, Failures>,
    names: RandomState,
}

/// One name at one address, or all names there. A name may be long, so that its hash stands for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key(Option<IpAddr>, Option<u64>);

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

/// What a failure costs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failed {
    /// How long the answer waits.
    pub delay: Duration,
    /// Whether it was one too many.
    pub is_locked: bool,
}

impl Lockout {
    /// Locks after so many failures, each forgotten a `period` after the last one.
    pub(super) fn new(failures_max: u32, first_delay: Duration, period: Duration) -> Self {
        Self { failures_max, first_delay, period, failures: HashMap::new(), names: RandomState::new() }
    }

    /// Whether an attempt is refused whatever it brings. A Unix socket has no address.
    pub(super) fn is_locked(&self, address: Option<IpAddr>, name: &str, now: Instant) -> bool {
        self.keys(address, name).into_iter().flatten().any(|(key, max)| self.count(key, now) >= max)
    }

    /// Notes a failure.
    pub(super) fn failed(&mut self, address: Option<IpAddr>, name: &str, now: Instant) -> Failed {
        let keys = self.keys(address, name);
        for (key, _) in keys.into_iter().flatten() {
            let count = self.count(key, now).saturating_add(1);
            self.make_room(key, now);
            self.failures.insert(key, Failures { count, last: now });
        }
        let count = keys.into_iter().flatten().next().map_or(1, |(key, _)| self.count(key, now));
        let doubled = 2_u32.saturating_pow(count.saturating_sub(1));
        let delay = self.first_delay.saturating_mul(doubled).min(DELAY_MAX);
        Failed { delay, is_locked: self.is_locked(address, name, now) }
    }

    /// Forgets the name's failures at this address: it was its owner who mistyped.
    pub(super) fn succeeded(&mut self, address: Option<IpAddr>, name: &str) {
        if let [Some((key, _)), _] = self.keys(address, name) {
            self.failures.remove(&key);
        }
    }

    /// The name's key and the address's, each with its limit. This machine is no single somebody.
    fn keys(&self, address: Option<IpAddr>, name: &str) -> [Option<(Key, u32)>; 2] {
        let network = address.map(network_of);
        let is_elsewhere = address.is_some_and(|address| !address.to_canonical().is_loopback());
        let all = is_elsewhere.then(|| (Key(network, None), self.failures_max.saturating_mul(ADDRESS_FACTOR)));
        [Some((Key(network, Some(self.names.hash_one(name))), self.failures_max)), all]
    }

    fn count(&self, key: Key, now: Instant) -> u32 {
        let counted = self.failures.get(&key).filter(|failures| now < failures.last + self.period);
        counted.map_or(0, |failures| failures.count)
    }

    fn make_room(&mut self, key: Key, now: Instant) {
        if self.failures.len() < REMEMBERED_MAX || self.failures.contains_key(&key) {
            return;
        }
        let period = self.period;
        self.failures.retain(|_, failures| now < failures.last + period);
        if self.failures.len() >= REMEMBERED_MAX {
            let oldest = self.failures.iter().min_by_key(|(_, failures)| failures.last).map(|(key, _)| *key);
            oldest.map(|key| self.failures.remove(&key));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PERIOD: Duration = Duration::from_mins(15);

    const ONE: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
    const OTHER: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)));

    #[test]
    fn failures_cost_more_each_time_until_the_name_is_closed_to_the_address() {
        let (mut lockout, now) = (Lockout::new(4, SECOND, PERIOD), Instant::now());
        let mut costs = Vec::new();
        for _ in 0..4 {
            assert!(!lockout.is_locked(ONE, "alice", now));
            let Failed { delay, is_locked } = lockout.failed(ONE, "alice", now);
            costs.push((delay.as_secs(), is_locked));
        }
        assert_eq!(costs, [(1, false), (2, false), (4, false), (8, true)]);
        assert!(lockout.is_locked(ONE, "alice", now + PERIOD - SECOND));
        assert!(!lockout.is_locked(OTHER, "alice", now) && !lockout.is_locked(ONE, "bob", now));
        assert!(!lockout.is_locked(ONE, "alice", now + PERIOD), "it is over in time");
        assert_eq!(lockout.failed(ONE, "alice", now + PERIOD).delay, SECOND);
    }

    #[test]
    fn a_success_makes_up_for_what_was_mistyped() {
        let (mut lockout, now) = (Lockout::new(2, SECOND, PERIOD), Instant::now());
        lockout.failed(ONE, "alice", now);
        lockout.succeeded(ONE, "alice");
        assert!(!lockout.failed(ONE, "alice", now).is_locked);
    }

    #[test]
    fn an_address_that_goes_through_names_is_closed_and_this_machine_is_not() {
        let (mut lockout, now) = (Lockout::new(2, SECOND, PERIOD), Instant::now());
        let local = Some(IpAddr::from([127, 0, 0, 1]));
        for name in 0..10 {
            assert!(!lockout.is_locked(ONE, "alice", now), "{name}");
            for from in [ONE, local, None] {
                lockout.failed(from, &name.to_string(), now);
            }
        }
        assert!(lockout.is_locked(ONE, "alice", now));
        assert!(!lockout.is_locked(local, "alice", now) && !lockout.is_locked(None, "alice", now));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_goes_first() {
        let (mut lockout, now) = (Lockout::new(1, SECOND, PERIOD), Instant::now());
        lockout.failed(None, "first", now);
        for name in 0..REMEMBERED_MAX {
            lockout.failed(None, &name.to_string(), now + SECOND);
        }
        assert_eq!(lockout.failures.len(), REMEMBERED_MAX);
        assert!(!lockout.is_locked(None, "first", now + SECOND) && lockout.is_locked(None, "1", now + SECOND));
        lockout.failed(None, "late", now + SECOND + PERIOD);
        assert_eq!(lockout.failures.len(), 1, "what is over is forgotten");
    }
}
