//! One subscriber's updates as the transports need them: joined into bounded writes, with signs of life between, and
//! an end that says why.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{StreamConfig, Transports};
use crate::auth::Authority;
use crate::hub::{Batch, Merged, Subscription, Update};

/// Beyond this a deadline is no deadline: tokio's timers end after two years or so.
const FAR: Duration = Duration::from_hours(24 * 365);

/// What happens next on a stream.
#[derive(Debug)]
pub(super) enum Next {
    /// These go out together.
    Updates(Vec<Arc<Update>>),
    /// Nothing for a while.
    Heartbeat,
    /// The stream ends.
    Bye(Reason),
}

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// postrider stops, or is restarted.
    ShuttingDown,
    /// The token is no longer good.
    TokenExpired,
    /// It has lasted as long as a stream may.
    LifetimeOver,
    /// History cannot be read.
    LogUnavailable,
}

impl Reason {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::ShuttingDown => "shutting-down",
            Self::TokenExpired => "token-expired",
            Self::LifetimeOver => "lifetime-over",
            Self::LogUnavailable => "event-log-unavailable",
        }
    }
}

/// A subscription with the clock and the ends of a stream.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) subscription: Subscription,
    waiting: VecDeque<Arc<Update>>,
    heartbeat: Duration,
    heartbeat_at: Instant,
    expires_at: Instant,
    /// Why it ends then.
    expiry: Reason,
    write_bytes_max: usize,
    stop: CancellationToken,
}

impl Feed {
    pub(super) fn new(transports: &Transports, subscription: Subscription, authority: &Authority) -> Self {
        let heartbeat = transports.config.heartbeat;
        let (left, lifetime) = (time_left(authority), transports.config.lifetime());
        let expiry = if lifetime < left { Reason::LifetimeOver } else { Reason::TokenExpired };
        Self {
            subscription,
            waiting: VecDeque::new(),
            heartbeat,
            heartbeat_at: Instant::now() + heartbeat,
            expires_at: Instant::now() + left.min(lifetime),
            expiry,
            write_bytes_max: transports.config.write_bytes_max,
            stop: transports.stop.clone(),
        }
    }

    /// When it ends at the latest, and why.
    pub(super) fn expiry(&self) -> (Instant, Reason) {
        (self.expires_at, self.expiry)
    }

    /// The same stream with another subscription, and what is to be handed over before.
    pub(super) fn going_on(
        config: &StreamConfig,
        subscription: Subscription,
        (expires_at, expiry): (Instant, Reason),
        stop: CancellationToken,
    ) -> Self {
        Self {
            subscription,
            waiting: VecDeque::new(),
            heartbeat: config.heartbeat,
            heartbeat_at: Instant::now() + config.heartbeat,
            expires_at,
            expiry,
            write_bytes_max: config.write_bytes_max,
            stop,
        }
    }

    /// Ends it in favour of a shared subscription.
    pub(super) fn merge(self, shared: &Subscription) -> Result<Merged, Box<Self>> {
        self.subscription.merge(shared).map_err(|subscription| Box::new(Self { subscription, ..self }))
    }

    /// Whether nothing waits here; the subscription may have more.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Waits for what happens next.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Next {
        // A stream that always has something to send must end too.
        if self.stop.is_cancelled() {
            return Next::Bye(Reason::ShuttingDown);
        }
        if self.expires_at <= Instant::now() {
            return Next::Bye(self.expiry);
        }
        if self.waiting.is_empty() {
            let batch = tokio::select! {
                batch = self.subscription.next() => batch,
                () = sleep_until(self.heartbeat_at.min(self.expires_at)) => {
                    self.heartbeat_at = Instant::now() + self.heartbeat;
                    return if self.expires_at <= Instant::now() { Next::Bye(self.expiry) } else { Next::Heartbeat };
                }
                () = self.stop.cancelled() => return Next::Bye(Reason::ShuttingDown),
            };
            match batch {
                Ok(Batch::Updates(updates)) => self.waiting = updates.into(),
                Ok(Batch::Closed) => return Next::Bye(Reason::ShuttingDown),
                Err(err) => {
                    tracing::error!(error = %err, "a subscriber's history cannot be read");
                    return Next::Bye(Reason::LogUnavailable);
                }
            }
        }
        self.heartbeat_at = Instant::now() + self.heartbeat;
        Next::Updates(join(&mut self.waiting, self.write_bytes_max))
    }
}

/// Takes as many of the waiting updates as one write may carry, at least one if there is one.
pub(super) fn join(waiting: &mut VecDeque<Arc<Update>>, bytes_max: usize) -> Vec<Arc<Update>> {
    let mut bytes = 0;
    let mut count = 0;
    for update in waiting.iter() {
        bytes += update.event.json.len();
        if count > 0 && bytes > bytes_max {
            break;
        }
        count += 1;
    }
    let joined = waiting.drain(..count).collect();
    if waiting.is_empty() {
        // A quiet stream costs no buffer.
        *waiting = VecDeque::new();
    }
    joined
}

/// How long the token is still good.
pub(super) fn time_left(authority: &Authority) -> Duration {
    let until = |moment: Timestamp| Duration::try_from(moment.duration_since(Timestamp::now()));
    authority.expires_at().map_or(FAR, |moment| until(moment).unwrap_or(Duration::ZERO)).min(FAR)
}
