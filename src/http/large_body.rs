//! Bodies that may be large, and the memory that all of them take together.
//!
//! What is announced costs nothing: memory is taken as the octets come, so that a thousand requests that each announce
//! 25 MiB and send nothing keep nobody else out.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{StatusCode, Version};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::Problem;

/// How long a body may take beside what its octets need.
const ARRIVAL: Duration = Duration::from_secs(30);
/// The slowest that octets may come, each second: a 25 MiB message over 1 Mbit/s has twice that.
const BYTES_PER_SECOND_MIN: u64 = 64 * 1024;
/// What memory is counted in.
const UNIT: usize = 1024;

/// Memory for bodies. Clones share it.
#[derive(Debug, Clone)]
pub struct BodyMemory {
    units: Arc<Semaphore>,
}

/// A body that was read, and its share of the memory, given back when dropped.
#[derive(Debug)]
pub struct HeldBody {
    /// All of it.
    pub bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

impl BodyMemory {
    /// For bodies of `bytes_max` octets together.
    pub fn new(bytes_max: usize) -> Self {
        Self { units: Arc::new(Semaphore::new((bytes_max / UNIT).clamp(1, Semaphore::MAX_PERMITS))) }
    }

    /// Reads the body of a request, at most `bytes_max`. It is counted `copies` times, for what is made of it.
    ///
    /// # Errors
    /// 413 for one that is longer, 408 for one that takes too long, 400 for one that breaks off, 503 where there is no
    /// memory left.
    pub async fn read(&self, request: Request, bytes_max: usize, copies: usize) -> Result<HeldBody, Problem> {
        let version = request.version();
        // hyper closes a connection on which a body was left unread: HTTP/1 clients must know, lest they use it again.
        let refused = |problem: Problem| if version < Version::HTTP_2 { problem.closing() } else { problem };
        self.read_all(request, bytes_max, copies).await.map_err(refused)
    }

    async fn read_all(&self, request: Request, bytes_max: usize, copies: usize) -> Result<HeldBody, Problem> {
        let mut body = request.into_body();
        if body.size_hint().lower() > bytes_max as u64 {
            return Err(too_large(bytes_max));
        }
        let start = Instant::now();
        let (mut bytes, mut share) = (Vec::new(), None);
        loop {
            let earned = Duration::from_secs(bytes.len() as u64 / BYTES_PER_SECOND_MIN);
            let Ok(frame) = timeout_at(start + ARRIVAL + earned, body.frame()).await else {
                let detail = "the body came too slowly, or not at all; send it again";
                return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body-slow", detail));
            };
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|_| Problem::bad_request("body-broken", "the body broke off; send it again"))?;
            let Some(data) = frame.data_ref() else { continue };
            let len = bytes.len().saturating_add(data.len());
            if len > bytes_max {
                return Err(too_large(bytes_max));
            }
            self.grow(&mut share, len.saturating_mul(copies))?;
            bytes.extend_from_slice(data);
        }
        Ok(HeldBody { bytes: bytes.into(), _share: share })
    }

    /// Makes a share so large. `Vec` doubles, which is counted with it.
    fn grow(&self, share: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), Problem> {
        let held = share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let Some(more) = bytes.div_ceil(UNIT).checked_sub(held).filter(|&more| more > 0) else { return Ok(()) };
        // In steps, since small pieces would each go to the semaphore.
        let more = more.max(held);
        let taken = u32::try_from(more).ok().and_then(|more| Arc::clone(&self.units).try_acquire_many_owned(more).ok());
        match (taken, &mut *share) {
            (Some(taken), Some(share)) => share.merge(taken),
            (Some(taken), None) => *share = Some(taken),
            (None, _) => {
                let detail = "too many large requests at once; send it again in a while";
                return Err(Problem::unavailable("busy", detail, 5));
            }
        }
        Ok(())
    }
}

fn too_large(bytes_max: usize) -> Problem {
    let detail = format!("the body has more than {bytes_max} bytes; send less at once");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures::{StreamExt, stream};

    use super::*;

    fn pieces(count: usize) -> Body {
        Body::from_stream(stream::iter((0..count).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 1000]))))
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_together_stay_within_the_memory() {
        let memory = BodyMemory::new(8 * 1024);
        let read = |count, copies| memory.read(Request::new(pieces(count)), 10_000, copies);
        let refusal = async |count, copies| read(count, copies).await.unwrap_err().detail().to_owned();
        let held = read(4, 1).await.unwrap();
        assert_eq!(held.bytes.len(), 4000);
        assert!(refusal(5, 1).await.contains("too many large requests"));
        drop(held);
        assert_eq!(read(5, 1).await.unwrap().bytes.len(), 5000, "what was taken is given back, by a refusal too");
        assert!(refusal(5, 2).await.contains("too many large requests"));
        let longer = memory.read(Request::new(pieces(4)), 3999, 1).await.unwrap_err();
        assert!(longer.detail().contains("more than 3999 bytes"));
        assert_eq!(memory.units.available_permits(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_given_up() {
        let memory = BodyMemory::new(1 << 20);
        let begun = stream::iter([Ok::<_, std::io::Error>("0")]).chain(stream::pending());
        let slow = memory.read(Request::new(Body::from_stream(begun)), 10, 1).await.unwrap_err();
        assert!(slow.detail().contains("too slowly"));
        let broken = Body::from_stream(stream::iter([Ok("0"), Err(std::io::Error::other("reset"))]));
        let broken = memory.read(Request::new(broken), 10, 1).await.unwrap_err();
        assert!(broken.detail().contains("broke off"));
    }
}
