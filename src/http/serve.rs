//! The accept loop: limits before anything is read, deadlines on what is read, and a shutdown that ends.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::HttpConfig;
use super::opening::Opened;
use super::stall::Stall;

/// Pause after accepting failed: the usual reason, no file descriptors, does not pass at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// hyper's buffer for one connection may grow to this; streams send at most that at once anyway.
const BUFFER_MAX: usize = 16 * 1024;
/// Streams of one HTTP/2 connection, announced to the client.
const H2_STREAMS_MAX: u32 = 256;

/// Serves `router` until `stop` is cancelled, then lets open requests end within `grace`. Streams end themselves when
/// `stop` is cancelled; what goes on after an upgrade is counted by `upgraded`.
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
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (stream, peer, slot) = next_connection(&listener, &slots) => {
                let (router, config, stop) = (router.clone(), config.clone(), stop.clone());
                connections.spawn(async move {
                    if let Err(err) = connection(stream, router, &config, stop).await {
                        tracing::debug!(%peer, error = %err, "HTTP connection ended");
                    }
                    drop(slot);
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

async fn connection(
    stream: TcpStream,
    router: Router,
    config: &HttpConfig,
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let stream = Opened::read(stream, config.header_timeout, &stop).await?;
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(config.header_timeout).max_buf_size(BUFFER_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .max_send_buf_size(BUFFER_MAX)
        .enable_connect_protocol();
    let io = TokioIo::new(Stall::new(stream, config.stall_timeout));
    let mut serving = pin!(builder.serve_connection_with_upgrades(io, TowerToHyperService::new(router)));
    tokio::select! {
        result = serving.as_mut() => return result,
        () = stop.cancelled() => {}
    }
    serving.as_mut().graceful_shutdown();
    serving.await
}
