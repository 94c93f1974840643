//! Watching: IDLE where the server has it, questions at intervals where it does not.
//!
//! Between a FETCH and the next IDLE the server may announce mail at any point; every response goes through the
//! mirror, and nothing waits while the mirror knows of a change that was not reported. One NOOP before the first
//! IDLE covers servers that say nothing of what came between opening the mailbox and IDLE. And since some servers
//! accept IDLE and never speak, every mailbox is looked at now and then although nothing was announced.

use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::config::ImapConfig;
use super::connection::{Patience, ReadError, bye};
use super::context::Duty;
use super::error::ImapError;
use super::idle::{EndedByServer, Heard, IdleCycle, IdleTimes, Keepalive, Next};
use super::metrics::METRICS;
use super::opened::Settled;
use super::protocol::{Condition, Response};
use super::refusal::During;
use super::session::Session;

/// For the `+` of IDLE.
const ACCEPT_WITHIN: Duration = Duration::from_secs(30);
/// For the answer to LOGOUT at shutdown.
const LOGOUT_WITHIN: Duration = Duration::from_secs(2);
/// Removals and changes of flags come in crowds, and make one event when they are waited for so long.
const CROWD: Duration = Duration::from_millis(20);
/// A message that is found so long after its arrival was not announced.
const MISSED_AFTER_SECONDS: i64 = 60;
/// Of the time until a session ends by itself, the part after which it is renewed: in between it can be chosen when.
const RENEWED_AT: std::ops::Range<f64> = 0.85..0.95;

/// Its `+` is due no later than the answer to any other command.
fn accept_within(config: &ImapConfig) -> Duration {
    ACCEPT_WITHIN.min(config.answer_timeout)
}

/// How an IDLE ended.
enum Ended {
    /// DONE is queued for this tag.
    Done(String),
    /// The server ended it.
    ByServer,
    /// The server does not do it.
    Refused,
}

/// What is due when.
struct Rhythm {
    /// The mailbox is looked at although nothing was announced.
    safety_at: Instant,
    /// The session ends before its token does.
    over_at: Option<Instant>,
    /// When the last IDLE began.
    idle_since: Instant,
    ended: EndedByServer,
    keepalive: Keepalive,
}

impl Session {
    /// Watches until `stop`, or until the connection fails.
    ///
    /// What is not done while it waits is boxed: its memory goes when it ends, and ten thousand of these wait.
    pub(super) async fn watch(&mut self, stop: &CancellationToken) -> Result<(), ImapError> {
        let mut rhythm = Box::pin(self.begin(stop)).await?;
        while !stop.is_cancelled() {
            if rhythm.over_at.is_some_and(|over| over <= Instant::now()) {
                return Err(ImapError::SessionOver);
            }
            if self.link.offers.idle && self.link.account().host.may_idle() {
                let ended = self.idle_once(stop, &mut rhythm).await;
                Box::pin(self.idle_ended(ended, stop, &mut rhythm)).await?;
            } else {
                Box::pin(self.poll(stop, &rhythm)).await?;
            }
            if !stop.is_cancelled() {
                Box::pin(self.attend(&mut rhythm)).await?;
            }
            Box::pin(self.round(stop)).await?;
        }
        Box::pin(self.link.connection.logout(LOGOUT_WITHIN)).await;
        Ok(())
    }

    /// Reports what came between opening the mailbox and now.
    async fn begin(&mut self, stop: &CancellationToken) -> Result<Rhythm, ImapError> {
        self.home.noop(&mut self.link).await?;
        self.round(stop).await?;
        self.is_watched();
        let now = Instant::now();
        let until_over = |end: Instant| end.saturating_duration_since(now).mul_f64(rand::random_range(RENEWED_AT));
        Ok(Rhythm {
            safety_at: now + self.safety_pause(),
            over_at: self.link.ends_at.map(|end| now + until_over(end)),
            idle_since: now,
            ended: EndedByServer::default(),
            keepalive: Keepalive::default(),
        })
    }

    /// What has its time: the other mailboxes, and a look at the home although nothing was announced.
    async fn attend(&mut self, rhythm: &mut Rhythm) -> Result<(), ImapError> {
        let now = Instant::now();
        self.take_signals().await?;
        if self.link.context.duty == Duty::Account {
            self.others.list_again |= self.link.account().relist.swap(false, Ordering::Relaxed);
            self.run_commands().await?;
        }
        if self.others.sweep_at.is_some_and(|at| at <= now) || self.others.list_again {
            self.sweep().await?;
        }
        if rhythm.safety_at <= now {
            rhythm.safety_at = now + self.safety_pause();
            self.safety_poll().await?;
        }
        Ok(())
    }

    /// Spread out, so that connections that began together do not ask together.
    fn safety_pause(&self) -> Duration {
        let account = self.link.account();
        let config = &account.config;
        let pause = if account.host.is_deaf() { self.link.poll_interval() } else { config.safety_poll };
        pause.mul_f64(rand::random_range(0.9..1.1))
    }

    /// Looks at the home although IDLE announced nothing.
    async fn safety_poll(&mut self) -> Result<(), ImapError> {
        self.look_at_home().await?;
        self.note_missed();
        Ok(())
    }

    /// Asks how the home is, and has the server say what it has not said; notes how far its changes go.
    ///
    /// Some servers answer NOOP and tell nothing by it (163.com), and some of these have nothing to say to STATUS
    /// either. What they do not tell they may not show: the mailbox is opened anew.
    async fn look_at_home(&mut self) -> Result<(), ImapError> {
        let known_gone = self.home.cursor.gone.clone();
        let name = self.home.mailbox.name.clone();
        let (mirror, uid_next) = (&mut self.home.mirror, self.home.cursor.uid_next);
        let status = self.link.status_if_told(&name, |response| mirror.hear(response, uid_next)).await?;
        if status.uid_validity.is_some_and(|found| found != self.home.cursor.uid_validity && found != 0) {
            // It was deleted and made anew under the same name.
            return self.go_home(false).await;
        }
        self.home.noop(&mut self.link).await?;
        let differs = if self.link.qresync {
            // All else is told in the answer to NOOP at the latest.
            status.uid_next.is_none_or(|next| next > self.home.cursor.uid_next)
        } else {
            !self.home.cursor.agrees_with(&status)
        };
        if differs && !self.home.mirror.has_news() {
            return self.go_home(false).await;
        }
        if let Some(mod_seq) = status.highest_mod_seq.filter(|_| self.link.qresync) {
            // All changes up to here have been told in the answer to NOOP at the latest.
            self.home.settle_changes(&mut self.link).await?;
            self.home.reach(&self.link, mod_seq, &known_gone).await?;
        }
        Ok(())
    }

    /// Counts a message that IDLE should have announced long ago.
    fn note_missed(&mut self) {
        let now = Timestamp::now().as_second();
        let is_late = |received: i64| now.saturating_sub(received) > MISSED_AFTER_SECONDS;
        if self.home.take_latest_received().is_some_and(is_late) {
            METRICS.missed_push.inc();
            let account = self.link.account();
            debug!(account = %account.name, "new mail that IDLE did not announce");
            if account.host.missed_push() {
                warn!(host = account.endpoint.host, "IDLE of this server leaves out new mail, asking in between");
            }
        }
    }

    /// Takes what other parts of postrider know of the mailboxes.
    async fn take_signals(&mut self) -> Result<(), ImapError> {
        let signals = self.link.account().signals.clone();
        let home = self.home.mailbox.name.clone();
        while let Some(name) = signals.take_changed(|name| self.link.context.looks_after(name)) {
            if *name != *home {
                self.others.mark(&name);
            } else if self.home.mirror.unaccounted() == 0 {
                // Without waiting for a word of the server: Dovecot takes half a second to announce what is there. A
                // FETCH in its place would be carried out before the new message is in view.
                self.home.noop(&mut self.link).await?;
            }
        }
        Ok(())
    }

    fn has_signals(&self) -> bool {
        let (signals, context) = (&self.link.account().signals, &self.link.context);
        signals.has_changed(|name| context.looks_after(name))
            || (context.duty == Duty::Account
                && (signals.has_commands() || context.account.relist.load(Ordering::Relaxed)))
    }

    /// Does what an IDLE that has ended calls for.
    async fn idle_ended(
        &mut self,
        ended: Result<Ended, ImapError>,
        stop: &CancellationToken,
        rhythm: &mut Rhythm,
    ) -> Result<(), ImapError> {
        let ended = match ended {
            Err(err @ (ImapError::Closed | ImapError::Io(_) | ImapError::Bye { .. })) => {
                let account = self.link.account();
                if let Some(renew) = account.host.ended_while_idle(rhythm.idle_since.elapsed()) {
                    info!(host = account.endpoint.host, ?renew, "the server ends quiet connections, renewing in time");
                }
                return Err(err);
            }
            ended => ended?,
        };
        match ended {
            Ended::Done(tag) => {
                let done_timeout = self.link.account().config.done_timeout;
                if self.link.account().access.quirks().stepwise {
                    self.end_idle(&tag, done_timeout).await?;
                } else {
                    self.link.connection.queue_done(tag, done_timeout);
                }
                METRICS.renewals.inc();
                rhythm.keepalive.renewed(Instant::now());
                let is_quiet = !self.home.mirror.has_news() && !self.others.any_due();
                if is_quiet && !self.has_signals() && !stop.is_cancelled() {
                    // Renewal. NOOP in the same segment finds what a server with a broken IDLE kept to itself.
                    self.home.take_latest_received();
                    self.home.noop(&mut self.link).await?;
                    if self.home.mirror.has_new() {
                        match self.home.fetch_new(&mut self.link).await? {
                            Settled::Done => {}
                            Settled::LookFirst(elsewhere) => self.look_first(elsewhere).await?,
                        }
                        self.note_missed();
                    }
                }
            }
            Ended::ByServer if rhythm.ended.may_go_on(Instant::now()) => {
                debug!("the server ended IDLE by itself");
                // What came between the two is told by some servers to those alone who ask.
                self.home.noop(&mut self.link).await?;
            }
            Ended::ByServer => return Err(ImapError::Protocol("IDLE ends by itself again and again".to_owned())),
            Ended::Refused => {
                let account = self.link.account();
                warn!(account = %account.name, interval = ?account.config.poll_interval,
                    "the server refuses IDLE, polling instead");
                account.host.idle_refused();
            }
        }
        Ok(())
    }

    async fn idle_once(&mut self, stop: &CancellationToken, rhythm: &mut Rhythm) -> Result<Ended, ImapError> {
        let signals = self.link.account().signals.clone();
        let mut cycle = Box::pin(self.begin_idle(rhythm)).await?;
        let mut crowd_until: Option<Instant> = None;
        loop {
            // Made before anything is looked at: what is said from here on wakes it.
            let woken = signals.wake.notified();
            let now = Instant::now();
            let is_due = [
                Some(rhythm.safety_at),
                rhythm.over_at,
                self.others.sweep_at,
                self.others.due_at(),
                rhythm.keepalive.overdue_at(),
            ]
            .into_iter()
            .flatten()
            .min()
            .filter(|_| cycle.is_idling());
            let wanted = self.home.mirror.unaccounted() > 0
                || self.others.any_due()
                || self.others.list_again
                || self.link.connection.has_alert()
                || stop.is_cancelled()
                || is_due.is_some_and(|at| at <= now)
                || self.has_signals();
            let deadline = match cycle.next(now, wanted) {
                Next::WaitUntil(deadline) => {
                    let crowd = crowd_until.filter(|_| cycle.is_idling());
                    [Some(deadline), is_due, crowd].into_iter().flatten().min()
                }
                Next::SendDone => return Ok(Ended::Done(cycle.into_tag())),
                Next::Dead => return Err(ImapError::Timeout("IDLE", accept_within(&self.link.account().config))),
            };
            if crowd_until.is_some_and(|until| until <= now) && cycle.is_idling() {
                crowd_until = None;
                if self.home.mirror.needs_questions() {
                    return Ok(Ended::Done(cycle.into_tag()));
                }
                // Nothing has to be asked: IDLE goes on.
                Box::pin(self.home.settle_changes(&mut self.link)).await?;
                continue;
            }
            let read = tokio::select! {
                read = self.link.connection.read_until(deadline.unwrap_or(now)) => read,
                () = stop.cancelled(), if !stop.is_cancelled() => continue,
                () = woken => continue,
            };
            let response = match read {
                Ok(response) => response,
                Err(ReadError::Elapsed) => continue,
                Err(ReadError::Lost(err)) => return Err(err),
            };
            match self.hear_idle(&response, &mut cycle, rhythm)? {
                Heard::Nothing => {}
                Heard::Refused => return Ok(Ended::Refused),
                Heard::EndedByServer => return Ok(Ended::ByServer),
            }
            if self.home.mirror.has_news() {
                crowd_until.get_or_insert(Instant::now() + CROWD);
            }
        }
    }

    /// Ends IDLE and waits for the answer: some servers mix up what follows at once.
    async fn end_idle(&mut self, tag: &str, limit: Duration) -> Result<(), ImapError> {
        let patience = Patience { what: "the end of IDLE", silence: limit, during: During::Other };
        let (mirror, uid_next) = (&mut self.home.mirror, self.home.cursor.uid_next);
        self.link.connection.done(tag, patience, |response| mirror.hear(&response, uid_next)).await
    }

    async fn begin_idle(&mut self, rhythm: &mut Rhythm) -> Result<IdleCycle, ImapError> {
        let account = self.link.account().clone();
        let config = &account.config;
        // Spread out, so that connections that began together do not renew together.
        let longest = account.access.quirks().idle_renew.unwrap_or(config.idle_renew);
        let renew = account.host.renew(longest.min(config.idle_renew)).mul_f64(rand::random_range(0.9..1.1));
        let tag = self.link.connection.send("IDLE", config.answer_timeout).await?;
        rhythm.idle_since = Instant::now();
        Ok(IdleCycle::new(tag, IdleTimes { accept: accept_within(config), renew }, rhythm.idle_since))
    }

    fn hear_idle(
        &mut self,
        response: &Response,
        cycle: &mut IdleCycle,
        rhythm: &mut Rhythm,
    ) -> Result<Heard, ImapError> {
        let now = Instant::now();
        self.home.mirror.hear(response, self.home.cursor.uid_next);
        self.others.hear(self.link.connection.take_asides());
        if let Response::Status(reply) = response {
            match reply.condition {
                Condition::Bye => return Err(bye(reply)),
                _ => rhythm.keepalive.hear(now),
            }
        }
        Ok(cycle.hear(response, now))
    }

    async fn poll(&mut self, stop: &CancellationToken, rhythm: &Rhythm) -> Result<(), ImapError> {
        let account = self.link.account().clone();
        let at = Instant::now() + self.link.poll_interval();
        let until = [Some(at), rhythm.over_at, self.others.sweep_at, self.others.due_at()]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(at);
        loop {
            let woken = account.signals.wake.notified();
            if stop.is_cancelled() || Instant::now() >= until || self.has_signals() {
                break;
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = woken => {}
                () = sleep_until(until) => {}
            }
        }
        self.look_at_home().await
    }
}
