//! One subscriber in a shard: its socket, and how far it has come.

use std::io::ErrorKind;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::marks::Mark;
use crate::event_log::Position;
use crate::http::Held;
use crate::hub::Place;
use crate::transport::feed::Reason;

/// What a subscriber says on a stream is passed over; of one that says more than this, nothing more is read.
pub(super) const HEARD_MAX: usize = 64 * 1024;

/// A socket of a shard.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) socket: TcpStream,
    /// Its group's key, and its place among the group's members.
    pub(super) group: usize,
    pub(super) at: usize,
    /// It has everything up to here.
    pub(super) after: Position,
    pub(super) heartbeat_at: Instant,
    pub(super) expires_at: Instant,
    /// Why it ends then.
    pub(super) expiry: Reason,
    pub(super) mark: Arc<Mark>,
    pub(super) heard: usize,
    pub(super) place: Place,
    pub(super) held: Held,
}

/// How a write went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    All,
    /// So many bytes; the socket takes no more for now.
    Part(usize),
    /// The peer is gone.
    Gone,
}

impl Member {
    /// Writes what the socket takes at once.
    pub(super) fn write(&self, bytes: &[u8]) -> Written {
        write(&self.socket, bytes)
    }

    /// Reads what there is, and listens on. False if the peer is gone.
    pub(super) fn hear(&mut self) -> bool {
        let waker = Waker::from(self.mark.clone());
        let mut context = Context::from_waker(&waker);
        while self.heard < HEARD_MAX {
            match self.socket.poll_read_ready(&mut context) {
                Poll::Pending => return true,
                Poll::Ready(_) => match hear(&self.socket) {
                    Some(heard) => self.heard += heard,
                    None => return false,
                },
            }
        }
        true
    }
}

/// Writes what a socket takes at once.
pub(super) fn write(socket: &TcpStream, bytes: &[u8]) -> Written {
    if bytes.is_empty() {
        return Written::All;
    }
    match socket.try_write(bytes) {
        Ok(count) if count == bytes.len() => Written::All,
        Ok(count) => Written::Part(count),
        Err(err) if err.kind() == ErrorKind::WouldBlock => Written::Part(0),
        Err(_) => Written::Gone,
    }
}

/// Reads once and forgets it: how much that was, none if the peer is gone.
pub(super) fn hear(socket: &TcpStream) -> Option<usize> {
    match socket.try_read(&mut [0; 1024]) {
        Ok(0) => None,
        Ok(count) => Some(count),
        Err(err) if err.kind() == ErrorKind::WouldBlock => Some(0),
        Err(_) => None,
    }
}
