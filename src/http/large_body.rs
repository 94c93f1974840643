//! Bodies that may be large, and the memory that all of them take together.
//!
//! What is announced costs nothing: memory is taken as the octets come, so that a thousand requests that each announce
//! 25 MiB and send nothing keep nobody else out. Who sends slowly keeps nobody out either: when the memory is short, the
//! bodies that have been coming for long go first.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{StatusCode, Version};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Problem;

/// How long a body may take beside what its octets need.
const ARRIVAL: Duration = Duration::from_secs(30);
/// The slowest that octets may come, each second: a 25 MiB message over 1 Mbit/s has twice that.
const BYTES_PER_SECOND_MIN: u64 = 64 * 1024;
/// After this time a body gives way when another needs its memory: whoever is honest has sent it by then, and who wants to
/// keep others out has to send all of the memory again and again.
const UNHURRIED: Duration = Duration::from_secs(10);
/// How long it may take for memory to be free that somebody gives up.
const GIVING_WAY: Duration = Duration::from_secs(1);
/// What memory is counted in.
const UNIT: usize = 1024;

/// Memory for bodies. Clones share it.
#[derive(Debug, Clone)]
pub struct BodyMemory {
    units: Arc<Semaphore>,
    coming: Arc<Mutex<Vec<Weak<Coming>>>>,
}

/// A body that is on its way.
#[derive(Debug)]
struct Coming {
    since: Instant,
    /// Its share.
    units: AtomicUsize,
    /// Others need its share.
    is_cut: CancellationToken,
}

/// A body that was read, and its share of the memory, given back when dropped.
#[derive(Debug)]
pub struct HeldBody {
    /// All of it.
    pub bytes: Bytes,
    memory: BodyMemory,
    share: Option<OwnedSemaphorePermit>,
}

impl HeldBody {
    /// Counts so many octets more, for what is made of it.
    ///
    /// # Errors
    /// 503 where there is no memory left.
    pub fn count(&mut self, bytes: usize) -> Result<(), Problem> {
        let more = bytes.div_ceil(UNIT);
        self.memory.try_add(&mut self.share, more).then_some(()).ok_or_else(busy)
    }
}

impl BodyMemory {
    /// For bodies of `bytes_max` octets together.
    pub fn new(bytes_max: usize) -> Self {
        let units = Semaphore::new((bytes_max / UNIT).clamp(1, Semaphore::MAX_PERMITS));
        Self { units: Arc::new(units), coming: Arc::default() }
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
        let coming = self.enter();
        let (mut bytes, mut share) = (Vec::new(), None);
        loop {
            let earned = Duration::from_secs(bytes.len() as u64 / BYTES_PER_SECOND_MIN);
            let frame = tokio::select! {
                frame = timeout_at(coming.since + ARRIVAL + earned, body.frame()) => frame.map_err(|_| too_slow())?,
                () = coming.is_cut.cancelled() => return Err(too_slow()),
            };
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|_| Problem::bad_request("body-broken", "the body broke off; send it again"))?;
            let Some(data) = frame.data_ref() else { continue };
            let len = bytes.len().saturating_add(data.len());
            if len > bytes_max {
                return Err(too_large(bytes_max));
            }
            self.grow(&mut share, len.saturating_mul(copies), &coming).await?;
            bytes.extend_from_slice(data);
        }
        Ok(HeldBody { bytes: bytes.into(), memory: self.clone(), share })
    }

    fn enter(&self) -> Arc<Coming> {
        let (since, units, is_cut) = (Instant::now(), AtomicUsize::new(0), CancellationToken::new());
        let entered = Arc::new(Coming { since, units, is_cut });
        let mut coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        coming.retain(|one| one.strong_count() > 0);
        coming.push(Arc::downgrade(&entered));
        entered
    }

    /// Makes a share so large. `Vec` doubles, which is counted with it. Where there is nothing left, those give way that
    /// have been on their way for long.
    async fn grow(
        &self,
        share: &mut Option<OwnedSemaphorePermit>,
        bytes: usize,
        coming: &Arc<Coming>,
    ) -> Result<(), Problem> {
        let held = share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let Some(more) = bytes.div_ceil(UNIT).checked_sub(held).filter(|&more| more > 0) else { return Ok(()) };
        // In steps, since small pieces would each go to the semaphore.
        let more = more.max(held);
        if !self.try_add(share, more) {
            if !self.cut_slow(more, coming) {
                return Err(busy());
            }
            let count = u32::try_from(more).map_err(|_| busy())?;
            let acquire = timeout(GIVING_WAY, Arc::clone(&self.units).acquire_many_owned(count));
            let taken = acquire.await.map_err(|_| busy())?.map_err(|_| busy())?;
            merge(share, taken);
        }
        coming.units.store(held.saturating_add(more), Relaxed);
        Ok(())
    }

    fn try_add(&self, share: &mut Option<OwnedSemaphorePermit>, more: usize) -> bool {
        let Ok(count) = u32::try_from(more) else { return false };
        let taken = Arc::clone(&self.units).try_acquire_many_owned(count).ok();
        taken.map(|taken| merge(share, taken)).is_some()
    }

    /// Cuts off bodies that are slow, the largest first, until so much is free. If they have not so much, none is.
    fn cut_slow(&self, needed: usize, except: &Arc<Coming>) -> bool {
        let now = Instant::now();
        let coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        let is_slow = |one: &Arc<Coming>| now.duration_since(one.since) >= UNHURRIED && !Arc::ptr_eq(one, except);
        let mut slow: Vec<(usize, Arc<Coming>)> =
            coming.iter().filter_map(Weak::upgrade).filter(is_slow).map(|one| (one.units.load(Relaxed), one)).collect();
        drop(coming);
        slow.sort_by_key(|(units, _)| std::cmp::Reverse(*units));
        let mut free = self.units.available_permits();
        if free.saturating_add(slow.iter().map(|(units, _)| units).sum()) < needed {
            return false;
        }
        for (units, one) in slow {
            if free >= needed {
                break;
            }
            one.is_cut.cancel();
            free = free.saturating_add(units);
        }
        true
    }
}

fn merge(share: &mut Option<OwnedSemaphorePermit>, taken: OwnedSemaphorePermit) {
    match share {
        Some(share) => share.merge(taken),
        None => *share = Some(taken),
    }
}

fn busy() -> Problem {
    Problem::unavailable("busy", "too many large requests at once; send it again in a while", 5)
}

fn too_slow() -> Problem {
    let detail = "the body came too slowly, or not at all; send it again";
    Problem::new(StatusCode::REQUEST_TIMEOUT, "body-slow", detail)
}

fn too_large(bytes_max: usize) -> Problem {
    let detail = format!("the body has more than {bytes_max} bytes; send less at once");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures::{StreamExt, stream};
    use tokio::task::JoinSet;

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

    /// A body of so many octets at once, and nothing more: it is never over.
    fn endless(octets: usize) -> Request {
        let begun = stream::iter([Ok::<_, std::io::Error>(vec![b'x'; octets])]);
        Request::new(Body::from_stream(begun.chain(stream::pending())))
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_slowly_keeps_nobody_out_for_long() {
        let memory = BodyMemory::new(8 * 1024);
        let slow = |octets| {
            let memory = memory.clone();
            let read = async move { memory.read(endless(octets), 10_000, 1).await.unwrap_err().status() };
            let mut reading = JoinSet::new();
            reading.spawn(read);
            reading
        };
        let (mut large, mut small) = (slow(6 * 1024), slow(1024));
        tokio::time::sleep(UNHURRIED / 2).await;
        let busy = memory.read(Request::new(pieces(4)), 10_000, 1).await.unwrap_err();
        assert_eq!(busy.status(), StatusCode::SERVICE_UNAVAILABLE, "they may be honest");
        tokio::time::sleep(UNHURRIED / 2).await;
        let held = memory.read(Request::new(pieces(4)), 10_000, 1).await.unwrap();
        assert_eq!(held.bytes.len(), 4000);
        assert_eq!(large.join_next().await.unwrap().unwrap(), StatusCode::REQUEST_TIMEOUT);
        assert!(small.try_join_next().is_none(), "what is not needed is left alone");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_made_of_a_body_is_counted_too() {
        let memory = BodyMemory::new(8 * 1024);
        let mut held = memory.read(Request::new(pieces(2)), 10_000, 1).await.unwrap();
        held.count(4 * 1024).unwrap();
        assert_eq!(held.count(4 * 1024).unwrap_err().status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(held);
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
