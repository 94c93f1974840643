//! A shard's list of what has something new: names of groups and sockets that were woken, and streams that come to it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;

use tokio::sync::Notify;

use super::straggler::Straggler;

/// The list. Each mark is on it once at most, and each stream has its place in the hub: so it is bounded.
#[derive(Debug, Default)]
pub(super) struct Marks {
    list: Mutex<List>,
    changed: Notify,
}

/// What is on it.
#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) marks: Vec<Arc<Mark>>,
    pub(super) new: Vec<Straggler>,
}

/// What is marked: a place of the shard. Others may have it later, so that it is compared with the mark itself.
#[derive(Debug, Clone, Copy)]
pub(super) enum Name {
    Group(usize),
    Member(usize),
}

/// The waker of a group or a socket.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) name: Name,
    marks: Arc<Marks>,
    listed: AtomicBool,
}

impl Marks {
    /// Waits until something is on the list, and takes all of it.
    ///
    /// # Cancel safety
    /// Nothing is taken when the future is dropped.
    pub(super) async fn next(&self) -> List {
        loop {
            {
                let mut list = self.lock();
                if !list.marks.is_empty() || !list.new.is_empty() {
                    return std::mem::take(&mut *list);
                }
            }
            // One shard, and `notify_one` keeps a permit.
            self.changed.notified().await;
        }
    }

    pub(super) fn add(&self, stream: Straggler) {
        self.lock().new.push(stream);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mark {
    pub(super) fn new(marks: &Arc<Marks>, name: Name) -> Arc<Self> {
        Arc::new(Self { name, marks: marks.clone(), listed: AtomicBool::new(false) })
    }

    /// Must be called before what is marked is looked at: what comes after that puts it on the list again.
    pub(super) fn taken_off(&self) {
        self.listed.store(false, Ordering::Release);
    }
}

impl Wake for Mark {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.listed.swap(true, Ordering::AcqRel) {
            self.marks.lock().marks.push(self.clone());
            self.marks.changed.notify_one();
        }
    }
}
