//! The accept loop: limits before anything is read, deadlines on what is read, and a shutdown that ends.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::HttpConfig;
use super::handover::{Crossing, Held, Offer, hand_over};
use super::opening::Opened;
use super::stall::Stall;

/// Pause after accepting failed: the usual reason, no file descriptors, does not pass at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// hyper's buffer for one connection may grow to this; streams send at most that at once anyway.
const BUFFER_MAX: usize = 16 * 1024;
/// Streams of one HTTP/2 connection, announced to the client.
const H2_STREAMS_MAX: u32 = 256;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What every connection is served with.
#[derive(Clone)]
struct Served {
    router: Router,
    config: HttpConfig,
    upgraded: TaskTracker,
    stop: CancellationToken,
}

/// Serves `router` until `stop` is cancelled, then lets open requests end within `grace`. Streams end themselves when
/// `stop` is cancelled; what goes on after an upgrade or a handover is counted by `upgraded`.
///
/// # Cancel safety
/// Dropping the future closes the listener and all connections at once.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    config: &HttpConfig,
    upgraded: &TaskTracker,
    grace: Duration,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(config.connections_max));
    let mut connections = JoinSet::new();
    let served = Served { router, config: config.clone(), upgraded: upgraded.clone(), stop: stop.clone() };
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (stream, peer, slot) = next_connection(&listener, &slots) => {
                let served = served.clone();
                connections.spawn(async move {
                    if let Err(err) = connection(stream, served, slot).await {
                        tracing::debug!(%peer, error = %err, "HTTP connection ended");
                    }
                });
            }
        }
    }
    drop(listener);
    upgraded.close();
    let drained = timeout(grace, async {
        while connections.join_next().await.is_some() {}
        upgraded.wait().await;
    });
    if drained.await.is_err() {
        tracing::warn!(open = connections.len() + upgraded.len(), ?grace, "grace period over, closing the rest");
        connections.shutdown().await;
    }
}

/// Takes a free slot, then a connection, so that what is too much waits in the kernel.
async fn next_connection(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { std::future::pending().await };
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, slot),
            Err(err) => {
                tracing::warn!(error = %err, "cannot accept an HTTP connection, will try again");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection until its end, or until its socket is taken.
async fn connection(stream: TcpStream, served: Served, slot: OwnedSemaphorePermit) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    let stream = Opened::read(stream, served.config.header_timeout, &served.stop).await?;
    if stream.is_http2() { http2(stream, served, slot).await } else { http1(stream, served, slot).await }
}

async fn http1(stream: Opened<TcpStream>, served: Served, slot: OwnedSemaphorePermit) -> Result<(), Error> {
    let crossing = Arc::new(Crossing::default());
    let service = service_fn({
        let (crossing, router) = (crossing.clone(), served.router);
        move |mut request| {
            Offer::make(&mut request);
            let (crossing, answer) = (crossing.clone(), router.clone().oneshot(request));
            async move {
                match crossing.leave(answer.await?) {
                    Some(response) => Ok::<_, Infallible>(response),
                    // The connection is taken apart before it could be asked again.
                    None => std::future::pending().await,
                }
            }
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(served.config.header_timeout).max_buf_size(BUFFER_MAX);
    let io = TokioIo::new(Stall::new(stream, served.config.stall_timeout, crossing.unwritten.clone()));
    let mut serving = builder.serve_connection(io, service).with_upgrades();
    let mut stopping = false;
    let left = loop {
        let step = poll_fn(|context| {
            let ended = Pin::new(&mut serving).poll(context);
            match crossing.ready() {
                Some(left) => Poll::Ready(Ok(Some(left))),
                None => ended.map_ok(|()| None),
            }
        });
        tokio::select! {
            result = step => break result?,
            () = served.stop.cancelled(), if !stopping => {
                stopping = true;
                Pin::new(&mut serving).graceful_shutdown();
            }
        }
    };
    if let (Some(left), Some(parts)) = (left, serving.into_parts()) {
        let held = Held { _slot: slot, _counted: served.upgraded.token() };
        hand_over(left, parts.io.into_inner().into_inner().into_inner(), held);
    }
    Ok(())
}

async fn http2(stream: Opened<TcpStream>, served: Served, slot: OwnedSemaphorePermit) -> Result<(), Error> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .max_send_buf_size(BUFFER_MAX)
        .enable_connect_protocol();
    let io = TokioIo::new(Stall::new(stream, served.config.stall_timeout, Arc::default()));
    let mut serving = pin!(builder.serve_connection(io, TowerToHyperService::new(served.router)));
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = served.stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    drop(slot);
    Ok(result?)
}
