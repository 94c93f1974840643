//! Takes a connection's socket from the HTTP server once the request's head was read, for an answer without an end.
//!
//! A stream over HTTP/1.1 needs nothing of an HTTP server any more: no parser, no task, no buffers of 8 KiB. So a
//! handler may answer a request that carries an [`Offer`] with a [`Handover`]: middleware then passes over the answer
//! as over any other, and the server takes its connection apart, and gives the socket away with the answer's head.
//! Requests that cannot be answered so (HTTP/2, HTTP/1.0, HEAD, one with a body) carry no offer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, HttpBody};
use axum::http::{Extensions, HeaderName, Method, Request, Response, Version, header, response};
use bytes::Bytes;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// A request may be answered with a [`Handover`].
#[derive(Debug, Clone, Copy)]
pub struct Offer(());

/// What becomes of the socket.
type Take = Box<dyn FnOnce(Taken) + Send>;

/// An answer's extension: the socket is taken, the body does not count.
#[derive(Clone)]
pub struct Handover(Arc<Mutex<Option<Take>>>);

/// A connection that is no longer the HTTP server's.
#[derive(Debug)]
pub struct Taken {
    /// Whatever was answered on it before has been written.
    pub socket: TcpStream,
    /// The answer's head, not written yet; a chunked body follows it.
    pub head: Vec<u8>,
    /// To be dropped with the socket.
    pub held: Held,
}

/// What an open connection holds: its place among all connections, and the end of the process.
#[derive(Debug)]
pub struct Held {
    pub(super) _slot: OwnedSemaphorePermit,
    pub(super) _counted: TaskTrackerToken,
}

impl Offer {
    /// Whether there is one.
    pub fn is_made(extensions: &Extensions) -> bool {
        extensions.get::<Self>().is_some()
    }

    /// Makes one where the request allows it.
    pub(super) fn make<B: HttpBody>(request: &mut Request<B>) {
        let plain = request.version() == Version::HTTP_11 && request.method() == Method::GET;
        if plain && request.body().is_end_stream() {
            request.extensions_mut().insert(Self(()));
        }
    }
}

impl Handover {
    /// Has the socket taken by `take`, which must not block. It is not called if the connection ends before.
    pub fn new(take: impl FnOnce(Taken) + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(take)))))
    }
}

impl std::fmt::Debug for Handover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handover").finish_non_exhaustive()
    }
}

/// Where a connection's service leaves a handover for the connection itself.
#[derive(Debug, Default)]
pub(super) struct Crossing {
    left: Mutex<Option<(response::Parts, Handover)>>,
    /// Bytes of an earlier answer wait for the socket.
    pub(super) unwritten: Arc<AtomicBool>,
}

impl Crossing {
    /// Gives the answer back if it is not a handover.
    pub(super) fn leave(&self, response: Response<Body>) -> Option<Response<Body>> {
        let Some(handover) = response.extensions().get::<Handover>().cloned() else { return Some(response) };
        *self.lock() = Some((response.into_parts().0, handover));
        None
    }

    /// A handover whose time has come.
    pub(super) fn ready(&self) -> Option<(response::Parts, Handover)> {
        if self.unwritten.load(Ordering::Relaxed) { None } else { self.lock().take() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(response::Parts, Handover)>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the socket away.
pub(super) fn hand_over((parts, handover): (response::Parts, Handover), socket: TcpStream, held: Held) {
    let take = handover.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(take) = take {
        take(Taken { socket, head: head(&parts), held });
    }
}

/// The head as hyper writes it.
fn head(parts: &response::Parts) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {}\r\n", parts.status).into_bytes();
    let mut line = |name: &HeaderName, value: &[u8]| {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value);
        head.extend_from_slice(b"\r\n");
    };
    for (name, value) in parts.headers.iter().filter(|(name, _)| *name != header::CONTENT_LENGTH) {
        line(name, value.as_bytes());
    }
    line(&header::TRANSFER_ENCODING, b"chunked");
    // It fails for years that no clock shows.
    if let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now()) {
        line(&header::DATE, date.as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// One chunk of a body (RFC 9112 §7.1), of several pieces.
pub fn chunk(pieces: &[&[u8]]) -> Bytes {
    let len: usize = pieces.iter().map(|piece| piece.len()).sum();
    let mut chunk = format!("{len:x}\r\n").into_bytes();
    chunk.reserve_exact(len + 2);
    for piece in pieces {
        chunk.extend_from_slice(piece);
    }
    chunk.extend_from_slice(b"\r\n");
    chunk.into()
}

/// The last chunk: the body ended as it should.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_get_is_offered() {
        let offered = |version, method, body: Body| {
            let mut request = Request::builder().version(version).method(method).body(body).unwrap();
            Offer::make(&mut request);
            Offer::is_made(request.extensions())
        };
        assert!(offered(Version::HTTP_11, Method::GET, Body::empty()));
        assert!(!offered(Version::HTTP_11, Method::GET, Body::from("body")));
        assert!(!offered(Version::HTTP_11, Method::HEAD, Body::empty()));
        assert!(!offered(Version::HTTP_10, Method::GET, Body::empty()));
        assert!(!offered(Version::HTTP_2, Method::GET, Body::empty()));
    }

    #[test]
    fn the_head_has_what_the_answer_says_and_a_chunked_body() {
        let response = Response::builder().header("content-length", "0").header("x-one", "1").body(()).unwrap();
        let head = String::from_utf8(head(&response.into_parts().0)).unwrap();
        let (beginning, date) = head.split_once("date: ").unwrap();
        assert_eq!(beginning, "HTTP/1.1 200 OK\r\nx-one: 1\r\ntransfer-encoding: chunked\r\n");
        assert!(date.ends_with(" GMT\r\n\r\n"), "{date}");
    }

    #[test]
    fn a_chunk_says_how_long_it_is() {
        assert_eq!(chunk(&[b"0123456789", b"abcdefg"]), "11\r\n0123456789abcdefg\r\n");
    }

    #[test]
    fn a_handover_waits_until_the_answer_before_it_is_written() {
        let crossing = Crossing::default();
        let answer = |handover: Option<Handover>| {
            let mut response = Response::new(Body::empty());
            handover.map(|handover| response.extensions_mut().insert(handover));
            response
        };
        assert!(crossing.leave(answer(None)).is_some() && crossing.ready().is_none());
        crossing.unwritten.store(true, Ordering::Relaxed);
        assert!(crossing.leave(answer(Some(Handover::new(drop)))).is_none() && crossing.ready().is_none());
        crossing.unwritten.store(false, Ordering::Relaxed);
        assert!(crossing.ready().is_some() && crossing.ready().is_none());
    }
}
