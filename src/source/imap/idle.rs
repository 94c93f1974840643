//! One IDLE command (RFC 9051 §6.3.13): what to do next, and what a response means to it. Pure: the caller owns the
//! socket and the clock.

use std::time::Duration;

use tokio::time::Instant;

use super::protocol::{Condition, Response};

/// IDLE that the server ends by itself is asked for again at once, but not for ever.
const ENDED_MAX: usize = 3;
const ENDED_WITHIN: Duration = Duration::from_mins(1);

/// Times of an IDLE.
#[derive(Debug, Clone, Copy)]
pub(super) struct IdleTimes {
    /// For the `+`.
    pub accept: Duration,
    /// Until it is renewed.
    pub renew: Duration,
}

/// An IDLE from the command to the moment in which it is to be ended by DONE.
#[derive(Debug)]
pub(super) struct IdleCycle {
    tag: String,
    phase: Phase,
    renew: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The command was sent. Nothing may be sent before the `+`: the server could take it for a command.
    Requested {
        accept_by: Instant,
    },
    Idling {
        renew_at: Instant,
    },
}

/// What the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Read a response, or ask again at this time.
    WaitUntil(Instant),
    /// Send DONE.
    SendDone,
    /// The server did not answer the command.
    Dead,
}

/// What a response meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing to the cycle itself.
    Nothing,
    /// The server does not do IDLE, at least now: poll instead.
    Refused,
    /// The server ended it although DONE was not sent.
    EndedByServer,
}

impl IdleCycle {
    /// Starts when the command was sent.
    pub(super) fn new(tag: String, times: IdleTimes, now: Instant) -> Self {
        Self { tag, phase: Phase::Requested { accept_by: now + times.accept }, renew: times.renew }
    }

    /// `wanted`: there is something to do for which IDLE must end.
    pub(super) fn next(&self, now: Instant, wanted: bool) -> Next {
        match self.phase {
            Phase::Requested { accept_by } if now >= accept_by => Next::Dead,
            Phase::Requested { accept_by } => Next::WaitUntil(accept_by),
            Phase::Idling { renew_at } if wanted || now >= renew_at => Next::SendDone,
            Phase::Idling { renew_at } => Next::WaitUntil(renew_at),
        }
    }

    pub(super) fn hear(&mut self, response: &Response, now: Instant) -> Heard {
        match (response, self.phase) {
            (Response::Continue(_), Phase::Requested { .. }) => {
                self.phase = Phase::Idling { renew_at: now + self.renew };
                Heard::Nothing
            }
            (Response::Tagged(tag, reply), phase) if *tag == self.tag => match (phase, reply.condition) {
                // OK without `+` is no refusal of IDLE for good, yet it was no IDLE either.
                (Phase::Requested { .. }, _) | (_, Condition::No | Condition::Bad) => Heard::Refused,
                _ => Heard::EndedByServer,
            },
            _ => Heard::Nothing,
        }
    }

    /// Whether the server has accepted it.
    pub(super) fn is_idling(&self) -> bool {
        matches!(self.phase, Phase::Idling { .. })
    }

    pub(super) fn into_tag(self) -> String {
        self.tag
    }
}

/// The signs of life that some servers send while IDLE is quiet (Dovecot: `* OK Still here` every two minutes). Once
/// their period is known, their absence says that the connection is dead long before anything else does.
#[derive(Debug, Default)]
pub(super) struct Keepalive {
    last: Option<Instant>,
    interval: Option<Duration>,
    period: Option<Duration>,
}

impl Keepalive {
    /// Shorter intervals are remarks that came together.
    const LEAST: Duration = Duration::from_secs(10);

    /// The server said OK without being asked.
    pub(super) fn hear(&mut self, now: Instant) {
        let interval = self.last.map(|last| now.duration_since(last));
        self.last = Some(now);
        let is_like = |a: Duration, b: Duration| a.abs_diff(b) <= a.mul_f64(0.2);
        if let (Some(interval), Some(before)) = (interval, self.interval)
            && interval >= Self::LEAST
            && is_like(interval, before)
        {
            self.period = Some(interval.max(before));
        }
        self.interval = interval;
    }

    /// When the next one is so late that IDLE had better be renewed.
    pub(super) fn overdue_at(&self) -> Option<Instant> {
        Some(self.last? + self.period?.mul_f64(2.5))
    }

    /// The connection was found to be alive in another way.
    pub(super) fn renewed(&mut self, now: Instant) {
        if self.last.is_some() {
            self.last = Some(now);
        }
    }
}

/// Counts the times that the server ended IDLE by itself.
#[derive(Debug, Default)]
pub(super) struct EndedByServer(Vec<Instant>);

impl EndedByServer {
    /// Whether IDLE may be asked for again on this connection.
    pub(super) fn may_go_on(&mut self, now: Instant) -> bool {
        self.0.retain(|&ended| now.duration_since(ended) < ENDED_WITHIN);
        self.0.push(now);
        self.0.len() <= ENDED_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol::Reply;
    use super::*;

    const TIMES: IdleTimes = IdleTimes { accept: Duration::from_secs(30), renew: Duration::from_secs(270) };

    fn tagged(tag: &str, condition: Condition) -> Response {
        Response::Tagged(tag.into(), Reply { condition, code: None, text: String::new() })
    }

    #[test]
    fn nothing_is_sent_before_the_continuation() {
        let start = Instant::now();
        let mut idle = IdleCycle::new("A1".into(), TIMES, start);
        assert_eq!(idle.hear(&Response::Exists(3), start), Heard::Nothing);
        assert_eq!(idle.next(start, true), Next::WaitUntil(start + TIMES.accept));
        assert_eq!(idle.hear(&Response::Continue(String::new()), start), Heard::Nothing);
        assert_eq!(idle.next(start, true), Next::SendDone, "what came before the + counts");
    }

    #[test]
    fn it_is_renewed_in_time_and_given_up_when_not_accepted() {
        let start = Instant::now();
        let mut idle = IdleCycle::new("A1".into(), TIMES, start);
        assert_eq!(idle.next(start + TIMES.accept, false), Next::Dead);
        idle.hear(&Response::Continue(String::new()), start);
        assert_eq!(idle.next(start, false), Next::WaitUntil(start + TIMES.renew));
        assert_eq!(idle.next(start + TIMES.renew, false), Next::SendDone);
    }

    #[test]
    fn refusal_and_end_are_told_apart() {
        let start = Instant::now();
        for condition in [Condition::No, Condition::Bad, Condition::Ok] {
            let mut idle = IdleCycle::new("A1".into(), TIMES, start);
            assert_eq!(idle.hear(&tagged("A0", condition), start), Heard::Nothing, "another command's answer");
            assert_eq!(idle.hear(&tagged("A1", condition), start), Heard::Refused);
        }
        let mut idle = IdleCycle::new("A1".into(), TIMES, start);
        idle.hear(&Response::Continue(String::new()), start);
        assert_eq!(idle.hear(&tagged("A1", Condition::Ok), start), Heard::EndedByServer);
    }

    #[test]
    fn the_period_of_signs_of_life_is_learnt() {
        let (start, mut keepalive) = (Instant::now(), Keepalive::default());
        for seconds in [0, 120] {
            keepalive.hear(start + Duration::from_secs(seconds));
        }
        assert_eq!(keepalive.overdue_at(), None, "one interval is no period");
        keepalive.hear(start + Duration::from_secs(241));
        let overdue = keepalive.overdue_at().unwrap().duration_since(start).as_secs_f64();
        assert!((overdue - (241.0 + 2.5 * 121.0)).abs() < 0.1, "{overdue}");
        keepalive.renewed(start + Duration::from_secs(1000));
        assert!(keepalive.overdue_at().unwrap() > start + Duration::from_mins(20));
    }

    #[test]
    fn a_server_that_keeps_ending_it_is_left() {
        let (start, mut ended) = (Instant::now(), EndedByServer::default());
        assert!((0..3).all(|_| ended.may_go_on(start)));
        assert!(!ended.may_go_on(start));
        assert!(ended.may_go_on(start + ENDED_WITHIN), "long ago does not count");
    }
}
