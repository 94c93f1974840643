//! Where messages are parsed, so that none holds up the mail of others.
//!
//! A small one is parsed at once. A large one, which may well be made to take long, goes to a thread of its own; and of
//! those only a few are at work at a time, because a thread for each would leave the sessions next to nothing of the
//! processor. They are at work when nobody else is: a thread that parses for seconds takes its share of a processor
//! however long it has had it, and everybody who waits for a short moment of it would wait for that share.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::{self, available_parallelism};

use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};

/// Octets that are parsed at once: above this it may take a millisecond, in which the thread's other sessions wait.
const AT_ONCE_BYTES_MAX: usize = 64 * 1024;

/// How much the threads of large messages yield to others, as nice(2) counts: they get a tenth of what others get.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Parses messages. Clones share the bound.
#[derive(Debug, Clone)]
pub(super) struct Parsing {
    places: Arc<Semaphore>,
}

impl Default for Parsing {
    /// Half of the processors may be at work on large messages.
    fn default() -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        Self { places: Arc::new(Semaphore::new((processors / 2).max(1))) }
    }
}

impl Parsing {
    /// Runs `parse`, which reads a message of `size` octets.
    ///
    /// # Errors
    /// When it panics.
    ///
    /// # Cancel safety
    /// It may run to its end when the future is dropped.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        size: usize,
        parse: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        if size <= AT_ONCE_BYTES_MAX {
            return Ok(parse());
        }
        // Nobody closes the semaphore. The place is the thread's: it is at work even if nobody waits for it any more.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        spawn_blocking(move || {
            let _place = place;
            // A thread of its own, since one that has yielded once would do so for ever.
            let parsed = thread::scope(|scope| scope.spawn(|| yielding(parse)).join());
            parsed.unwrap_or_else(|panic| resume_unwind(panic))
        })
        .await
    }
}

fn yielding<T>(parse: impl FnOnce() -> T) -> T {
    // Elsewhere it would be a matter of the whole process.
    #[cfg(target_os = "linux")]
    if let Err(err) = rustix::process::nice(NICENESS) {
        tracing::debug!(error = %err, "a large message is parsed at full priority");
    }
    parse()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::Duration;

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn large_messages_wait_for_each_other_and_small_ones_for_nobody() {
        let parsing = Parsing { places: Arc::new(Semaphore::new(2)) };
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let large = || {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            parsing.run(AT_ONCE_BYTES_MAX + 1, move || {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                std::thread::sleep(Duration::from_millis(5));
                now.fetch_sub(1, SeqCst);
            })
        };
        let small = parsing.run(AT_ONCE_BYTES_MAX, || std::thread::current().id());
        let (large, small) = tokio::join!(join_all((0..10).map(|_| large())), small);
        assert!(large.iter().all(Result::is_ok));
        assert_eq!((most.load(SeqCst), small.unwrap()), (2, std::thread::current().id()));
    }
}
