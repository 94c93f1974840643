//! Watching an opened mailbox: IDLE where the server has it, NOOP where it does not.
//!
//! Between a FETCH and the next IDLE the server may announce mail at any point; every response goes through the
//! mirror, and nothing waits while the mirror knows of a message that was not looked at. One NOOP before the first
//! IDLE covers servers that say nothing of what came between opening the mailbox and IDLE.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::connection::{ReadError, bye};
use super::error::ImapError;
use super::health;
use super::idle::{EndedByServer, Heard, IdleCycle, IdleTimes, Next};
use super::protocol::{Condition, Response};
use super::session::Session;

/// For the `+` of IDLE.
const ACCEPT_WITHIN: Duration = Duration::from_secs(30);
/// For the answer to LOGOUT at shutdown.
const LOGOUT_WITHIN: Duration = Duration::from_secs(2);

/// How an IDLE ended.
enum Ended {
    /// DONE is queued for this tag.
    Done(String),
    /// The server ended it.
    ByServer,
    /// The server does not do it.
    Refused,
}

impl Session {
    /// Watches until `stop`, or until the connection fails.
    pub(super) async fn watch(mut self, stop: &CancellationToken) -> Result<(), ImapError> {
        self.noop().await?;
        self.fetch_announced().await?;
        self.context.report(health::Condition::Connected);
        let mut ended_by_server = EndedByServer::default();
        while !stop.is_cancelled() {
            if self.can_idle {
                self.idle(stop, &mut ended_by_server).await?;
            } else {
                self.poll(stop).await?;
            }
            self.fetch_announced().await?;
        }
        self.connection.logout(LOGOUT_WITHIN).await;
        Ok(())
    }

    async fn fetch_announced(&mut self) -> Result<(), ImapError> {
        while self.mirror.unaccounted() > 0 {
            self.fetch_new().await?;
        }
        Ok(())
    }

    async fn idle(&mut self, stop: &CancellationToken, ended: &mut EndedByServer) -> Result<(), ImapError> {
        match self.idle_once(stop).await? {
            Ended::Done(tag) => {
                self.connection.queue_done(tag, self.context.account.config.done_timeout);
                if self.mirror.unaccounted() == 0 && !stop.is_cancelled() {
                    // Renewal. NOOP in the same segment finds what a server with a broken IDLE kept to itself.
                    self.noop().await?;
                    let missed = self.mirror.unaccounted();
                    if missed > 0 {
                        debug!(missed, "new mail that IDLE did not announce in time");
                    }
                }
            }
            Ended::ByServer if ended.may_go_on(Instant::now()) => debug!("the server ended IDLE by itself"),
            Ended::ByServer => return Err(ImapError::Protocol("IDLE ends by itself again and again".to_owned())),
            Ended::Refused => {
                warn!(interval = ?self.context.account.config.poll_interval, "the server refuses IDLE, polling instead");
                self.can_idle = false;
            }
        }
        Ok(())
    }

    async fn idle_once(&mut self, stop: &CancellationToken) -> Result<Ended, ImapError> {
        let config = &self.context.account.config;
        // Spread out, so that connections that began together do not renew together.
        let renew = config.idle_renew.mul_f64(rand::random_range(0.9..1.1));
        let tag = self.connection.send("IDLE", config.answer_timeout).await?;
        let times = IdleTimes { accept: ACCEPT_WITHIN, renew };
        let mut cycle = IdleCycle::new(tag, times, Instant::now());
        loop {
            let wanted = self.mirror.unaccounted() > 0 || stop.is_cancelled();
            let deadline = match cycle.next(Instant::now(), wanted) {
                Next::WaitUntil(deadline) => deadline,
                Next::SendDone => return Ok(Ended::Done(cycle.into_tag())),
                Next::Dead => return Err(ImapError::Timeout("IDLE", ACCEPT_WITHIN)),
            };
            let read = tokio::select! {
                read = self.connection.read_until(deadline) => read,
                () = stop.cancelled(), if !stop.is_cancelled() => continue,
            };
            let response = match read {
                Ok(response) => response,
                Err(ReadError::Elapsed) => continue,
                Err(ReadError::Lost(err)) => return Err(err),
            };
            self.mirror.hear(&response);
            match &response {
                Response::Status(reply) if reply.condition == Condition::Bye => return Err(bye(reply)),
                _ => {}
            }
            match cycle.hear(&response, Instant::now()) {
                Heard::Nothing => {}
                Heard::Refused => return Ok(Ended::Refused),
                Heard::EndedByServer => return Ok(Ended::ByServer),
            }
        }
    }

    async fn poll(&mut self, stop: &CancellationToken) -> Result<(), ImapError> {
        let interval = self.context.account.config.poll_interval;
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            () = sleep(interval) => self.noop().await,
        }
    }
}
