//! The hub: who subscribed to what, and the way of each committed event to them.
//!
//! One task follows the event log and puts a pointer to each event into the queue of every subscriber that asked for
//! one of its topics and may see it. Queues are bounded, and nobody is waited for: a subscriber whose queue overflows
//! is served from the log until it has caught up. The hub holds nothing that the log does not have.

mod config;
mod index;
mod mercure;
mod patterns;
mod place;
mod queue;
mod recent;
mod shared;
mod subscription;
mod update;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

pub use config::HubConfig;
pub use place::Place;
pub use shared::Merged;
pub use subscription::{Batch, Live, Opening, Resume, SubscribeError, Subscription};
pub use update::{Format, Update};

use self::index::Index;
use self::place::Places;
use self::queue::Queue;
use crate::event_log::{EventLog, Position, Selection, Tail};

/// Pushes after which the hub lets other tasks run, so that what was just queued can be written, and what is
/// committed meanwhile can be joined to it.
const PUSHES_PER_TURN: usize = 256;

/// The hub. Cheap to clone; clones share.
#[derive(Debug, Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    log: EventLog,
    config: HubConfig,
    index: Mutex<Index>,
    places: Places,
}

impl Hub {
    /// A hub over a log; it hands nothing on until [`Hub::run`] runs.
    pub fn new(log: EventLog, config: HubConfig) -> Self {
        let index = Mutex::new(Index::after(log.head().0));
        let places = Places::new(config.subscribers_max);
        Self { shared: Arc::new(Shared { log, config, index, places }) }
    }

    /// Hands committed events on until the log is closed or `stop` is cancelled. `tail` must have been taken before
    /// the first subscriber came.
    pub async fn run(&self, mut tail: Tail, stop: CancellationToken) {
        loop {
            let batch = tokio::select! {
                batch = tail.next() => batch,
                () = stop.cancelled() => None,
            };
            let Some(batch) = batch else { break };
            if batch.gap {
                tracing::warn!("the hub was slower than the log, subscribers are served from the log");
                self.index().send_all_to_the_log();
            }
            let mut pushes = 0;
            for event in batch.events {
                pushes += self.index().dispatch(&Arc::new(Update::new(event)));
                if pushes >= PUSHES_PER_TURN {
                    pushes = 0;
                    tokio::task::yield_now().await;
                }
            }
        }
        self.index().close();
    }

    /// How many subscribers there are.
    pub fn subscribers(&self) -> usize {
        self.shared.places.taken()
    }

    /// The settings that the hub was made with.
    pub fn config(&self) -> &HubConfig {
        &self.shared.config
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // Every change of the index is complete before anything in it can panic.
        self.shared.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a subscriber; none when there are too many.
    fn register(&self, selection: &Selection) -> Option<(usize, Arc<Queue>, Place)> {
        let place = self.shared.places.take()?;
        let queue = Arc::new(self.new_queue());
        let key = self.index().insert(selection.clone(), queue.clone());
        Some((key, queue, place))
    }

    fn new_queue(&self) -> Queue {
        Queue::new(self.shared.config.queue_max.get())
    }

    /// Gives a subscriber a new queue for a new selection; everything up to the position was offered to the old one.
    fn exchange(&self, key: &mut usize, selection: &Selection) -> (Arc<Queue>, Position) {
        let queue = Arc::new(self.new_queue());
        let mut index = self.index();
        index.remove(*key);
        *key = index.insert(selection.clone(), queue.clone());
        (queue, index.dispatched())
    }

    fn deregister(&self, key: usize) {
        self.index().remove(key);
    }

    fn head(&self) -> (Position, Option<crate::event::EventId>) {
        self.shared.log.head()
    }

    fn log(&self) -> &EventLog {
        &self.shared.log
    }
}
