//! What all connections to one host share: the pace at which they are made, and what was learnt of the host.
//!
//! A host that restarts loses thousands of connections at once; they come back one after the other, in the order of a
//! queue, lest it goes down again under them.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};

use super::config::ImapConfig;

/// IDLE is renewed no more often than this, whatever was learnt.
const RENEW_LEAST: Duration = Duration::from_secs(50);
/// Two connections that ended at nearly the same age of their IDLE were ended by a clock.
const SAME_AGE: f64 = 0.1;
/// Ends that are nearer to each other in time may have the same cause.
const APART: Duration = Duration::from_secs(5);
/// After so many changes that IDLE did not announce, the host's IDLE is not relied on.
const MISSED_MAX: u32 = 3;
/// For how long a host whose IDLE does not work is polled.
const IDLE_RETRY: Duration = Duration::from_hours(1);

/// Events at a steady pace, the first `burst` of them at once. Pure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    interval: Duration,
    burst: u32,
    /// When the next one is due at a steady pace.
    due: Option<Instant>,
}

impl Pace {
    pub(super) fn new(per_second: NonZeroU32) -> Self {
        Self { interval: Duration::from_secs(1) / per_second.get(), burst: per_second.get(), due: None }
    }

    /// Takes the next place, and says when it is.
    pub(super) fn reserve(&mut self, now: Instant) -> Instant {
        let due = self.due.unwrap_or(now).max(now);
        self.due = Some(due + self.interval);
        let ahead = self.interval * self.burst.saturating_sub(1);
        due.checked_sub(ahead).unwrap_or(now).max(now)
    }
}

/// All hosts.
#[derive(Debug)]
pub(super) struct Hosts {
    pace: Arc<Mutex<Pace>>,
    by_name: Mutex<HashMap<String, Arc<Host>>>,
}

impl Hosts {
    pub(super) fn new(config: &ImapConfig) -> Self {
        Self { pace: Arc::new(Mutex::new(Pace::new(config.connects_per_second))), by_name: Mutex::default() }
    }

    /// A host, which is the same for all of its names' spellings.
    pub(super) fn host(&self, name: &str, config: &ImapConfig) -> Arc<Host> {
        let new = || {
            Arc::new(Host {
                places: Semaphore::new(config.connects_per_host_max.get()),
                pace: Mutex::new(Pace::new(config.connects_per_host_per_second)),
                all: self.pace.clone(),
                learnt: Mutex::default(),
            })
        };
        lock(&self.by_name).entry(name.to_ascii_lowercase()).or_insert_with(new).clone()
    }
}

/// One host.
#[derive(Debug)]
pub(super) struct Host {
    /// Connections that may be set up at the same time.
    places: Semaphore,
    pace: Mutex<Pace>,
    all: Arc<Mutex<Pace>>,
    learnt: Mutex<Learnt>,
}

/// What the host's connections have found out.
#[derive(Debug, Default)]
struct Learnt {
    /// Age of its IDLE when a connection was last ended by the peer.
    ended_at: Option<(Duration, Instant)>,
    renew: Option<Duration>,
    missed: u32,
    idle_again: Option<Instant>,
}

impl Host {
    /// Waits for this connection's turn. The permit is for the time in which the connection is set up.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes the semaphore; a failed acquire would only lift the limit.
        let place = self.places.acquire().await.ok();
        let now = Instant::now();
        let at = lock(&self.pace).reserve(now).max(lock(&self.all).reserve(now));
        sleep_until(at).await;
        place
    }

    /// How long an IDLE lasts on this host, if it was found that it cannot last as long as is configured.
    pub(super) fn renew(&self, configured: Duration) -> Duration {
        lock(&self.learnt).renew.map_or(configured, |renew| renew.min(configured))
    }

    /// The peer ended a connection that had been idling for so long. Says what is newly learnt from it.
    pub(super) fn ended_while_idle(&self, age: Duration) -> Option<Duration> {
        let mut learnt = lock(&self.learnt);
        let now = Instant::now();
        let (before, at) = learnt.ended_at.replace((age, now))?;
        // Connections that end together were ended by a restart, which says nothing of their age.
        let is_apart = now.duration_since(at) >= APART;
        let is_same = is_apart && age.abs_diff(before) <= age.mul_f64(SAME_AGE);
        let renew = age.mul_f64(0.8).max(RENEW_LEAST);
        if !is_same || learnt.renew.is_some_and(|known| known <= renew) {
            return None;
        }
        learnt.renew = Some(renew);
        Some(renew)
    }

    /// A change was found that IDLE had not announced. Says whether IDLE is no longer relied on.
    pub(super) fn missed_push(&self) -> bool {
        let mut learnt = lock(&self.learnt);
        learnt.missed = learnt.missed.saturating_add(1);
        learnt.missed >= MISSED_MAX
    }

    /// Whether IDLE leaves out changes, so that the mailboxes must be looked at in between.
    pub(super) fn is_deaf(&self) -> bool {
        lock(&self.learnt).missed >= MISSED_MAX
    }

    /// The server refused IDLE.
    pub(super) fn idle_refused(&self) {
        lock(&self.learnt).idle_again = Some(Instant::now() + IDLE_RETRY);
    }

    /// Whether IDLE may be tried.
    pub(super) fn may_idle(&self) -> bool {
        lock(&self.learnt).idle_again.is_none_or(|again| again <= Instant::now())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // All that is in here are numbers of their own.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_let_through_at_a_steady_pace() {
        let now = Instant::now();
        let mut pace = Pace::new(NonZeroU32::new(5).unwrap());
        let after = |pace: &mut Pace, now| pace.reserve(now).duration_since(now).as_millis();
        let waits: Vec<u128> = (0..8).map(|_| after(&mut pace, now)).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 200, 400, 600]);
        let later = now + Duration::from_mins(1);
        assert_eq!(after(&mut pace, later), 0, "unused places are not saved up beyond the burst");
        assert_eq!((0..5).map(|_| after(&mut pace, later)).max(), Some(200));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_at_the_other_end_is_learnt() {
        let hosts = Hosts::new(&ImapConfig::default());
        let host = hosts.host("IMAP.example.org", &ImapConfig::default());
        let configured = Duration::from_secs(270);
        let end = async |seconds| {
            tokio::time::advance(Duration::from_mins(1)).await;
            host.ended_while_idle(Duration::from_secs(seconds))
        };
        assert_eq!(end(200).await, None, "once is chance");
        assert_eq!(end(100).await, None, "another age");
        assert_eq!(host.ended_while_idle(Duration::from_secs(100)), None, "at the same moment: a restart");
        assert_eq!(end(105).await, Some(Duration::from_secs(84)));
        let same = hosts.host("imap.example.org", &ImapConfig::default());
        assert_eq!(same.renew(configured), Duration::from_secs(84));
        end(10).await;
        assert_eq!(end(10).await, Some(RENEW_LEAST));
    }

    #[test]
    fn a_host_whose_idle_is_silent_is_not_relied_on() {
        let host = Hosts::new(&ImapConfig::default()).host("h", &ImapConfig::default());
        assert!(!host.missed_push() && !host.missed_push() && !host.is_deaf());
        assert!(host.missed_push() && host.is_deaf());
        assert!(host.may_idle());
        host.idle_refused();
        assert!(!host.may_idle());
    }
}
