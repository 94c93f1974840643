//! How many messages each address sends in a minute. Pure: instants come in as arguments.
//!
//! A minute begins with an address's first message, and is forgotten when it is over: what is remembered is bounded by
//! how many addresses send at all, and by a number.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::places::network_of;

const MINUTE: Duration = Duration::from_mins(1);
/// Addresses that are remembered. Past that, all of them begin anew: who has so many is not held up by their number.
const REMEMBERED_MAX: usize = 10_000;

/// Messages of each address.
#[derive(Debug)]
pub(super) struct MessageRate {
    per_minute_max: u32,
    minutes: HashMap<IpAddr, Minute>,
}

#[derive(Debug)]
struct Minute {
    began: Instant,
    messages: u32,
}

impl MessageRate {
    /// Of so many messages a minute.
    pub(super) fn new(per_minute_max: u32) -> Self {
        Self { per_minute_max, minutes: HashMap::new() }
    }

    /// Whether the next message has to wait.
    pub(super) fn is_exceeded(&self, address: IpAddr, now: Instant) -> bool {
        let minute = self.minutes.get(&network_of(address)).filter(|minute| now < minute.began + MINUTE);
        minute.is_some_and(|minute| minute.messages >= self.per_minute_max)
    }

    /// Counts a message.
    pub(super) fn count(&mut self, address: IpAddr, now: Instant) {
        let network = network_of(address);
        if self.minutes.len() >= REMEMBERED_MAX && !self.minutes.contains_key(&network) {
            self.minutes.retain(|_, minute| now < minute.began + MINUTE);
            if self.minutes.len() >= REMEMBERED_MAX {
                self.minutes.clear();
            }
        }
        let minute = self.minutes.entry(network).or_insert(Minute { began: now, messages: 0 });
        if now >= minute.began + MINUTE {
            *minute = Minute { began: now, messages: 0 };
        }
        minute.messages = minute.messages.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_waits_for_the_next_minute() {
        let (mut rate, now) = (MessageRate::new(2), Instant::now());
        let [one, other] = [IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])];
        rate.count(one, now);
        assert!(!rate.is_exceeded(one, now));
        rate.count(one, now);
        assert!(rate.is_exceeded(one, now + MINUTE / 2) && !rate.is_exceeded(other, now));
        assert!(!rate.is_exceeded(one, now + MINUTE));
        rate.count(one, now + MINUTE);
        assert!(!rate.is_exceeded(one, now + MINUTE), "it is the first of a new minute");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut rate, now) = (MessageRate::new(2), Instant::now());
        for address in 0..=u32::try_from(REMEMBERED_MAX).unwrap() {
            rate.count(IpAddr::V4(address.into()), now);
        }
        assert!(rate.minutes.len() <= REMEMBERED_MAX);
    }
}
