//! Signatures that were used: each brings mail once.
//!
//! Mailgun signs a time and a random token, not the message, so that whoever has seen one request could put any message
//! behind its signature. A signature counts for a while, and within that it is remembered. It is used up only when the
//! message is stored: what could not be stored must be taken when it comes again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::{SignedDuration, Timestamp};

/// Signatures that are remembered. Only good ones are, so that nobody but the provider can fill this.
const REMEMBERED_MAX: usize = 50_000;

/// Remembers signatures.
#[derive(Debug)]
pub(super) struct Replays {
    age_max: SignedDuration,
    /// Digests of signatures.
    used: Arc<Mutex<HashMap<[u8; 32], Use>>>,
}

#[derive(Debug)]
struct Use {
    /// After this instant its time alone would refuse it.
    until: Timestamp,
    /// Its message is stored.
    done: bool,
}

/// Why a signature does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stale {
    /// Its time is too far from now.
    Time,
    /// It was used.
    Used,
    /// It is being used: whether it will have been is not known yet.
    InUse,
    /// There are too many to remember this one.
    Full,
}

/// A signature in use. Unless it was [`Ticket::keep`]t, it may be used again.
#[derive(Debug)]
pub(super) struct Ticket {
    used: Arc<Mutex<HashMap<[u8; 32], Use>>>,
    key: [u8; 32],
    kept: bool,
}

impl Replays {
    /// Signatures count for `age_max`, before and after their time.
    pub(super) fn new(age_max: Duration) -> Self {
        let age_max = SignedDuration::try_from(age_max).unwrap_or(SignedDuration::from_mins(5));
        Self { age_max, used: Arc::default() }
    }

    /// Begins to use a good signature over `signed`, which was made at `time` in seconds since 1970.
    pub(super) fn enter(&self, signed: &[u8], time: &str, now: Timestamp) -> Result<Ticket, Stale> {
        let time = time.parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok()).ok_or(Stale::Time)?;
        if now.duration_since(time).abs() > self.age_max {
            return Err(Stale::Time);
        }
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, signed).as_ref());
        let mut used = locked(&self.used);
        if used.len() >= REMEMBERED_MAX {
            used.retain(|_, known| known.until >= now);
        }
        if let Some(known) = used.get(&key) {
            return Err(if known.done { Stale::Used } else { Stale::InUse });
        }
        if used.len() >= REMEMBERED_MAX {
            return Err(Stale::Full);
        }
        let until = time.checked_add(self.age_max).unwrap_or(Timestamp::MAX);
        used.insert(key, Use { until, done: false });
        drop(used);
        Ok(Ticket { used: Arc::clone(&self.used), key, kept: false })
    }
}

impl Ticket {
    /// It has brought its mail.
    pub(super) fn keep(mut self) {
        self.kept = true;
        if let Some(known) = locked(&self.used).get_mut(&self.key) {
            known.done = true;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.kept {
            locked(&self.used).remove(&self.key);
        }
    }
}

fn locked(used: &Mutex<HashMap<[u8; 32], Use>>) -> MutexGuard<'_, HashMap<[u8; 32], Use>> {
    // No holder can leave it half changed.
    used.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_brings_mail_once_and_in_time() {
        let replays = Replays::new(Duration::from_mins(5));
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let enter = |signed: &str, time: &str, now| replays.enter(signed.as_bytes(), time, at(now));
        for (time, now) in [("1000", 1301), ("1000", 699), ("", 1000), ("1e3", 1000), ("99999999999999999", 1000)] {
            assert_eq!(enter("a", time, now).unwrap_err(), Stale::Time, "{time} at {now}");
        }
        let first = enter("a", "1000", 1300).unwrap();
        assert_eq!(enter("a", "1000", 1300).unwrap_err(), Stale::InUse, "two at once");
        drop(first);
        enter("a", "1000", 700).expect("what was not stored may come again").keep();
        assert_eq!(enter("a", "1000", 1300).unwrap_err(), Stale::Used);
        assert!(enter("b", "1000", 1300).is_ok());
    }

    #[test]
    fn what_time_refuses_anyway_is_forgotten() {
        let replays = Replays::new(Duration::from_secs(10));
        let old = Timestamp::from_second(1000).unwrap();
        for number in 0..REMEMBERED_MAX {
            replays.enter(&number.to_le_bytes(), "1000", old).unwrap().keep();
        }
        assert_eq!(replays.enter(b"one more", "1000", old).unwrap_err(), Stale::Full);
        assert!(replays.enter(b"later", "1020", Timestamp::from_second(1020).unwrap()).is_ok());
    }
}
