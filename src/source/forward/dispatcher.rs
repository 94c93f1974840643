//! Decides what is sent when: what is due, a few messages at the same time, each refused one later and later, and all
//! of them after a pause when the smart host itself is the trouble.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::config::ForwardConfig;
use super::metrics::ForwardMetrics;
use super::smart_host::{HostError, SendError, SmartHost};
use crate::event::Draft;
use crate::event_log::{Append, AppendError, EventLog, OutboxDue, OutboxId, Settlement, Waiting};
use crate::metrics::Metrics;
use crate::source::backoff::Backoff;

/// The outbox is looked at this often, whatever was heard of it.
const LOOK_AGAIN: Duration = Duration::from_mins(1);
/// Between tries to record what became of an attempt, when the log does not take it.
const RECORD_AGAIN: Duration = Duration::from_secs(5);

/// Sends on what is in the outbox.
#[derive(Debug)]
pub struct Forwarder {
    shared: Arc<Shared>,
    in_flight: HashMap<Id, OutboxId>,
    attempts: JoinSet<Ended>,
    /// The host's own failures.
    backoff: Backoff,
    /// Nothing is sent until then: the host takes nothing.
    paused: Option<Instant>,
}

/// How an attempt ended.
#[derive(Debug)]
enum Ended {
    /// The host has said something to the message.
    Reached,
    /// It was not asked.
    Untried,
    /// It takes nothing from us.
    Refused(HostError),
}

/// What all attempts share.
#[derive(Debug)]
struct Shared {
    config: ForwardConfig,
    host: SmartHost,
    event_log: EventLog,
    metrics: ForwardMetrics,
}

impl Forwarder {
    /// Sends what is in the outbox of `event_log` to the host that `config` names; `hostname` is our own name.
    pub fn new(config: ForwardConfig, hostname: &str, event_log: EventLog, metrics: &Metrics) -> Self {
        let metrics = ForwardMetrics::registered(metrics, event_log.clone());
        let backoff = Backoff::new(config.retry_first, config.retry_max);
        let host = SmartHost::new(config.clone(), hostname);
        let shared = Arc::new(Shared { config, host, event_log, metrics });
        Self { shared, in_flight: HashMap::new(), attempts: JoinSet::new(), backoff, paused: None }
    }

    /// Sends until `stop` is cancelled; attempts that are under way then may end within `grace`. The event log has to
    /// be open until this returns. What is cut off is sent again after the next start.
    pub async fn run(mut self, grace: Duration, stop: CancellationToken) {
        let waiting = self.shared.event_log.outbox_totals().recipients;
        info!(host = self.shared.config.host, waiting, "mail is forwarded");
        while !stop.is_cancelled() {
            let next = self.start_due().await;
            let event_log = self.shared.event_log.clone();
            let is_full = self.attempts.len() >= self.shared.config.in_flight_max.get();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = self.attempts.join_next_with_id() => self.ended(ended),
                () = event_log.outbox_added(), if !is_full && self.paused.is_none() => {}
                () = sleep_until(next) => {}
            }
        }
        let drain = async { while self.attempts.join_next().await.is_some() {} };
        if timeout(grace, drain).await.is_err() {
            warn!(open = self.attempts.len(), "grace period over, mail that was being forwarded is sent again later");
            self.attempts.shutdown().await;
        }
        self.shared.host.close().await;
    }

    /// Begins what is due, as far as there is room; when to look again.
    async fn start_due(&mut self) -> Instant {
        self.shared.host.close_idle().await;
        let now = Instant::now();
        self.paused = self.paused.filter(|&until| until > now);
        let Some(OutboxDue { due, expired, next, oldest }) = self.look().await else { return now + LOOK_AGAIN };
        self.shared.metrics.oldest(oldest);
        for waiting in expired {
            self.start(waiting.id, |shared| async move {
                let reason = format!("not taken within {:?}", shared.config.give_up_after);
                shared.give_up(&waiting, &reason).await;
                Ended::Untried
            });
        }
        if let Some(until) = self.paused {
            return until;
        }
        for waiting in due {
            self.start(waiting.id, |shared| async move { shared.attempt(waiting).await });
        }
        let wait = next.map(|next| Duration::try_from(next.duration_since(Timestamp::now())).unwrap_or_default());
        now + wait.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN)
    }

    /// Begins something about a message, unless something is under way about it or there is no room.
    fn start<F: Future<Output = Ended> + Send + 'static>(&mut self, id: OutboxId, work: impl FnOnce(Arc<Shared>) -> F) {
        let is_full = self.attempts.len() >= self.shared.config.in_flight_max.get();
        if !is_full && !self.in_flight.values().any(|busy| *busy == id) {
            let task = self.attempts.spawn(work(Arc::clone(&self.shared)));
            self.in_flight.insert(task.id(), id);
        }
    }

    async fn look(&self) -> Option<OutboxDue> {
        let Shared { config, event_log, .. } = &*self.shared;
        let now = Timestamp::now();
        let expired_before = now.checked_sub(config.give_up_after).unwrap_or(Timestamp::MIN);
        // What is under way is among it.
        let max = config.in_flight_max.get().saturating_mul(2);
        let found = event_log.outbox_due(now, expired_before, max).await;
        found.inspect_err(|err| error!(error = %err, "cannot see what is to be forwarded, will look again")).ok()
    }

    fn ended(&mut self, ended: Result<(Id, Ended), JoinError>) {
        let (id, trouble) = match ended {
            Ok((id, Ended::Reached)) => {
                self.backoff = Backoff::new(self.shared.config.retry_first, self.shared.config.retry_max);
                (id, None)
            }
            Ok((id, Ended::Untried)) => (id, None),
            Ok((id, Ended::Refused(err))) => (id, Some(err.to_string())),
            Err(err) => {
                error!(error = %err, "an attempt to forward a message failed; please report this as a bug");
                (err.id(), Some("it failed".to_owned()))
            }
        };
        self.in_flight.remove(&id);
        // Of several that failed together one counts.
        if let Some(reason) = trouble.filter(|_| self.paused.is_none()) {
            let pause = self.backoff.after_failure(Duration::ZERO, rand::random_range(0.5..1.0));
            self.paused = Some(Instant::now() + pause);
            warn!(reason, retry_in = ?pause, "no mail can be forwarded at the moment");
        }
    }
}

impl Shared {
    /// Sends one message, and records what became of it. When the host takes nothing the message waits as it did.
    async fn attempt(&self, waiting: Waiting) -> Ended {
        let message = match self.event_log.outbox_message(waiting.id).await {
            Ok(Some(message)) => message,
            Ok(None) => return Ended::Untried,
            Err(err) => {
                warn!(error = %err, "a message that is to be forwarded cannot be read, will try again");
                self.record(&waiting, self.later(&waiting), None).await;
                return Ended::Untried;
            }
        };
        match self.host.send(&waiting, &message).await {
            Ok(reply) => {
                self.metrics.count("sent");
                debug!(reply, attempts = waiting.attempts + 1, "message forwarded");
                self.record(&waiting, Settlement::Over, None).await;
            }
            Err(SendError::Host(err)) => {
                self.metrics.count("host_failed");
                return Ended::Refused(err);
            }
            Err(SendError::Later(reason)) => {
                self.metrics.count("deferred");
                let later = self.later(&waiting);
                debug!(reason, attempts = waiting.attempts + 1, ?later, "message not forwarded, will try again");
                self.record(&waiting, later, None).await;
            }
            Err(SendError::Never(reason)) => self.give_up(&waiting, &reason).await,
        }
        Ended::Reached
    }

    fn later(&self, waiting: &Waiting) -> Settlement {
        let mut backoff = Backoff::new(self.config.retry_first, self.config.retry_max);
        let jitter = rand::random_range(0.5..1.0);
        // After as many failures as it has had; past some thirty it is the longest pause anyway.
        let pause = (0..=waiting.attempts.min(64)).map(|_| backoff.after_failure(Duration::ZERO, jitter)).last();
        let due = Timestamp::now().checked_add(pause.unwrap_or_default());
        Settlement::Later(due.unwrap_or(Timestamp::MAX))
    }

    /// Takes a message out of the outbox that nobody will get, and says so where its own event is.
    async fn give_up(&self, waiting: &Waiting, reason: &str) {
        self.metrics.count("given_up");
        let failed = match serde_json::from_str::<Draft>(&waiting.note) {
            Ok(draft) => {
                let account = draft.account.as_ref().map(tracing::field::display);
                warn!(account, reason, attempts = waiting.attempts, "message not forwarded, given up");
                Some(Draft { reason: Some(reason.to_owned()), ..draft })
            }
            Err(err) => {
                error!(error = %err, reason, "message not forwarded, given up, and its event cannot be read");
                None
            }
        };
        self.record(waiting, Settlement::Over, failed.as_ref()).await;
    }

    /// Commits what became of a message, however long that takes: what is not recorded would be sent again at once.
    async fn record(&self, waiting: &Waiting, settlement: Settlement, failed: Option<&Draft>) {
        loop {
            let mut append = Append::new();
            append.settle(waiting.id, settlement);
            if let Some(draft) = failed {
                append.push(draft.clone(), None);
            }
            match self.event_log.append(append).await {
                Ok(_) | Err(AppendError::Closed) => return,
                Err(err) => warn!(error = %err, "cannot record what was forwarded, will try again"),
            }
            sleep(RECORD_AGAIN).await;
        }
    }
}
