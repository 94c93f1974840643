//! Which addresses connect again and again for nothing, and how long those wait for the greeting. No I/O, no clock.
//!
//! Whoever guesses, probes or floods comes again as soon as it was hung up on, and each session costs more than it
//! costs the client. A pause before the greeting (as Postfix' postscreen makes for everybody) takes a timer here and all
//! of the client's time there; a mail server behind the same address is late by seconds, and loses nothing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::places::network_of;

/// How long visits are remembered, and how long who is made to wait has to keep away until it is not any more.
const REMEMBERED: Duration = Duration::from_mins(1);
/// Sessions without a message, of one network in that time, that nobody minds: monitoring asks every second at most.
const FRUITLESS_MAX: u64 = 100;
/// The pause, at least. Clients wait five minutes for the greeting (RFC 5321 §4.5.3.2.1).
const PAUSE: Duration = Duration::from_secs(5);
/// Networks that are remembered. Past that, new ones are not.
const NETWORKS_MAX: usize = 10_000;

/// How patient we are with whom.
#[derive(Debug, Default)]
pub(super) struct Patience {
    visits: Mutex<HashMap<IpAddr, Visits>>,
}

#[derive(Debug)]
struct Visits {
    since: Instant,
    /// Sessions without a message, less those with one. Not less the messages: few would make good for many sessions.
    fruitless: u64,
}

impl Patience {
    /// How long a client has to wait for the greeting, if it has to.
    pub(super) fn pause(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let visits = self.lock();
        let known = visits.get(&network_of(address))?;
        (known.is_remembered(now) && known.fruitless > FRUITLESS_MAX).then_some(PAUSE)
    }

    /// A session is over, in which messages were taken or not.
    pub(super) fn ended(&self, address: IpAddr, has_brought_mail: bool, now: Instant) {
        let (network, mut visits) = (network_of(address), self.lock());
        if visits.len() >= NETWORKS_MAX && !visits.contains_key(&network) {
            visits.retain(|_, known| known.is_remembered(now));
            if visits.len() >= NETWORKS_MAX {
                return;
            }
        }
        let known = visits.entry(network).or_insert(Visits { since: now, fruitless: 0 });
        if !known.is_remembered(now) {
            *known = Visits { since: now, fruitless: 0 };
        }
        if has_brought_mail {
            known.fruitless = known.fruitless.saturating_sub(1);
        } else {
            known.fruitless = known.fruitless.saturating_add(1);
            if known.fruitless > FRUITLESS_MAX {
                known.since = now; // Otherwise the flood would be back each minute.
            }
        }
        if known.fruitless == 0 {
            visits.remove(&network);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Visits>> {
        // Nothing can panic between two changes that belong together.
        self.visits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Visits {
    fn is_remembered(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < REMEMBERED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_for_nothing_waits_until_it_is_forgotten() {
        let (patience, start) = (Patience::default(), Instant::now());
        let [one, other]: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        for _ in 0..FRUITLESS_MAX {
            patience.ended(one, false, start);
        }
        assert_eq!(patience.pause(one, start), None);
        patience.ended(one, false, start);
        assert_eq!((patience.pause(one, start), patience.pause(other, start)), (Some(PAUSE), None));
        patience.ended(one, true, start);
        assert_eq!(patience.pause(one, start), None, "mail makes good");
        patience.ended(one, false, start + REMEMBERED / 2);
        assert_eq!(patience.pause(one, start + REMEMBERED), Some(PAUSE), "it has gone on");
        assert_eq!(patience.pause(one, start + REMEMBERED / 2 + REMEMBERED), None);
    }

    #[test]
    fn who_brings_mail_is_not_remembered_and_not_too_many_are() {
        let (patience, start) = (Patience::default(), Instant::now());
        patience.ended("192.0.2.1".parse().unwrap(), true, start);
        assert!(patience.lock().is_empty());
        for number in 0..u32::try_from(NETWORKS_MAX).unwrap() + 5 {
            patience.ended(IpAddr::from(number.to_be_bytes()), false, start);
        }
        assert_eq!(patience.lock().len(), NETWORKS_MAX);
        patience.ended("192.0.2.1".parse().unwrap(), false, start + REMEMBERED);
        assert_eq!(patience.lock().len(), 1, "there is room again");
    }
}
