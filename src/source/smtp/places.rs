//! How many sessions each client address has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many sessions each address has.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    sessions_max: usize,
    sessions: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// Where a session counts, if anywhere. Who its client is may be known late, and change.
#[derive(Debug)]
pub(super) struct Seat {
    addresses: Addresses,
    place: Option<Place>,
}

impl Seat {
    /// Counts the session for `address` from now on, and for no other; none is never too many. Says whether that address
    /// had a place for it; if not, nothing changes.
    #[must_use]
    pub(super) fn take(&mut self, address: Option<IpAddr>) -> bool {
        let taken = self.place.as_ref().map(|place| place.network);
        if address.map(network_of) == taken {
            return true;
        }
        let place = address.map(|address| self.addresses.enter(address));
        let is_free = !matches!(place, Some(None));
        if is_free {
            self.place = place.flatten();
        }
        is_free
    }
}

/// One session's place; left when dropped.
#[derive(Debug)]
struct Place {
    addresses: Addresses,
    network: IpAddr,
}

impl Addresses {
    /// With so many sessions for each.
    pub(super) fn new(sessions_max: usize) -> Self {
        Self { sessions_max, sessions: Arc::default() }
    }

    /// For a session that begins.
    pub(super) fn seat(&self) -> Seat {
        Seat { addresses: self.clone(), place: None }
    }

    /// A place for one more session, if the address has not too many.
    fn enter(&self, address: IpAddr) -> Option<Place> {
        let network = network_of(address);
        let mut sessions = self.lock();
        let count = sessions.entry(network).or_default();
        if *count >= self.sessions_max {
            return None;
        }
        *count += 1;
        Some(Place { addresses: self.clone(), network })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Nothing can panic between two counts that belong together.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut sessions = self.addresses.lock();
        match sessions.get_mut(&self.network) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(sessions.remove(&self.network)),
        }
    }
}

/// What one client can choose addresses from: with IPv6 it has a /64 network at least (RFC 6177 §2).
pub(super) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_so_many_places() {
        let addresses = Addresses::new(2);
        let [one, other]: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        let first = addresses.enter(one);
        let second = addresses.enter("::ffff:192.0.2.1".parse().unwrap());
        assert!(first.is_some() && second.is_some());
        assert!(addresses.enter(one).is_none() && addresses.enter(other).is_some());
        drop(first);
        assert!(addresses.enter(one).is_some());
        drop(second);
        assert!(addresses.lock().is_empty(), "who is gone leaves nothing behind");
    }

    #[test]
    fn a_session_counts_where_its_client_is() {
        let addresses = Addresses::new(1);
        let [proxy, client] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(|octets| Some(IpAddr::from(octets)));
        let (mut first, mut second) = (addresses.seat(), addresses.seat());
        assert!(first.take(proxy) && first.take(proxy) && !second.take(proxy));
        assert!(first.take(client) && second.take(proxy), "it has left the proxy's place");
        assert!(!second.take(client) && !addresses.seat().take(proxy), "and keeps its own where it cannot move");
        assert!(second.take(None) && addresses.seat().take(proxy));
        drop(first);
        assert_eq!(addresses.lock().len(), 0);
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let network = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), network("2001:db8:1:2::1"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
    }
}
