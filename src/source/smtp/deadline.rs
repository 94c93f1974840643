//! Until when a client has to get on. Pure: instants come in as arguments.
//!
//! The deadline is that of a whole command, not of a read: one octet a minute would keep a session open for ever. Within
//! a message's text it grows with what has arrived, so that a slow line may take its time over a large message.

use std::time::Duration;

use tokio::time::Instant;

/// The deadline of one session.
#[derive(Debug)]
pub(super) struct Deadline {
    command_timeout: Duration,
    data_bytes_per_second_min: u32,
    /// When the last command was complete, or the text began.
    began: Instant,
    /// Commands that were complete then.
    commands: u64,
    last_read: Instant,
    /// When the session ends in any case.
    ends_at: Option<Instant>,
}

impl Deadline {
    /// The session begins `now`.
    pub(super) fn new(command_timeout: Duration, data_bytes_per_second_min: u32, now: Instant) -> Self {
        Self { command_timeout, data_bytes_per_second_min, began: now, commands: 0, last_read: now, ends_at: None }
    }

    /// Input was taken in, and `commands` are complete by now.
    pub(super) fn advance(&mut self, commands: u64, now: Instant) {
        self.last_read = now;
        if commands != self.commands {
            (self.began, self.commands) = (now, commands);
        }
    }

    /// The client's time does not run while it waits for us.
    pub(super) fn restart(&mut self, now: Instant) {
        (self.began, self.last_read) = (now, now);
    }

    /// Ends the session then, whatever happens: what it may do is over.
    pub(super) fn end_at(&mut self, ends_at: Option<Instant>) {
        self.ends_at = ends_at;
    }

    /// When the client's time is over; `data_received` are the octets of the text that it is sending.
    pub(super) fn at(&self, data_received: Option<usize>) -> Instant {
        let in_time = self.in_time(data_received);
        self.ends_at.map_or(in_time, |ends_at| ends_at.min(in_time))
    }

    fn in_time(&self, data_received: Option<usize>) -> Instant {
        let whole = self.began + self.command_timeout;
        let Some(received) = data_received else { return whole };
        let seconds = received as u64 / u64::from(self.data_bytes_per_second_min.max(1));
        // However much has arrived, silence is bounded as it is between commands.
        (whole + Duration::from_secs(seconds)).min(self.last_read + self.command_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn octets_that_drip_in_do_not_move_a_commands_deadline() {
        let start = Instant::now();
        let mut deadline = Deadline::new(10 * SECOND, 500, start);
        deadline.advance(0, start + 9 * SECOND);
        assert_eq!(deadline.at(None), start + 10 * SECOND);
        deadline.advance(1, start + 9 * SECOND);
        assert_eq!(deadline.at(None), start + 19 * SECOND);
        deadline.restart(start + 40 * SECOND);
        assert_eq!(deadline.at(None), start + 50 * SECOND);
        deadline.end_at(Some(start + 45 * SECOND));
        assert_eq!(deadline.at(None), start + 45 * SECOND);
    }

    #[test]
    fn the_deadline_of_text_grows_with_it_but_silence_is_bounded() {
        let start = Instant::now();
        let mut deadline = Deadline::new(10 * SECOND, 500, start);
        deadline.advance(0, start + 8 * SECOND);
        assert_eq!(deadline.at(Some(100)), start + 10 * SECOND, "drip-fed");
        assert_eq!(deadline.at(Some(2500)), start + 15 * SECOND);
        assert_eq!(deadline.at(Some(25_000_000)), start + 18 * SECOND, "then silent");
    }
}
