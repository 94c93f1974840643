//! When a failed connection is tried again. Pure: the caller brings the random number and sleeps.

use std::time::Duration;

/// A session that lived so long was no failure of the set-up. Shorter ones count on: a server that hangs up right
/// after the login would else be asked many times a second, which was seen to happen.
const SURVIVED: Duration = Duration::from_mins(5);

/// Pauses after refused credentials: each try may bring a lock-out nearer.
const AFTER_REFUSED_LOGIN: [Duration; 4] =
    [Duration::from_mins(1), Duration::from_mins(5), Duration::from_mins(15), Duration::from_hours(1)];

/// Pauses of one connection.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, failures: 0 }
    }

    /// Counts a failure and says how long to wait: `first`·2ⁿ up to `max`, times `jitter` out of [0.5, 1), so that
    /// connections that failed together do not come back together. `lived` is how long the mailbox was watched.
    pub(super) fn after_failure(&mut self, lived: Duration, jitter: f64) -> Duration {
        if lived >= SURVIVED {
            self.failures = 0;
        }
        let doubled = self.first.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        doubled.min(self.max).mul_f64(jitter.clamp(0.0, 1.0))
    }

    /// Failures without a session in between that survived.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

/// The pause after the `refusals`th refused login in a row, 1 for the first.
pub(super) fn after_refused_login(refusals: u32) -> Duration {
    let index = usize::try_from(refusals.saturating_sub(1)).unwrap_or(usize::MAX);
    let [.., longest] = AFTER_REFUSED_LOGIN;
    AFTER_REFUSED_LOGIN.get(index).copied().unwrap_or(longest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_secs(2), Duration::from_mins(10))
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = backoff();
        let pauses: Vec<u64> = (0..11).map(|_| backoff.after_failure(Duration::ZERO, 1.0).as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
    }

    #[test]
    fn only_a_session_that_survived_starts_over() {
        let mut backoff = backoff();
        backoff.after_failure(Duration::ZERO, 1.0);
        assert_eq!(backoff.after_failure(Duration::from_secs(299), 1.0), Duration::from_secs(4));
        assert_eq!(backoff.after_failure(Duration::from_mins(5), 1.0), Duration::from_secs(2));
        assert_eq!(backoff.failures(), 1);
    }

    #[test]
    fn refused_logins_wait_ever_longer() {
        let minutes: Vec<u64> = (1..7).map(|refusals| after_refused_login(refusals).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 5, 15, 60, 60, 60]);
    }

    proptest! {
        #[test]
        fn no_pause_leaves_its_bounds(failures in 0_usize..200, jitter in 0.5_f64..1.0) {
            let mut backoff = backoff();
            for _ in 0..failures {
                backoff.after_failure(Duration::ZERO, jitter);
            }
            let pause = backoff.after_failure(Duration::ZERO, jitter);
            prop_assert!(pause >= Duration::from_secs(1) && pause <= Duration::from_mins(10));
        }
    }
}
