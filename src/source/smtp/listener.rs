//! Where mail is received: the sockets that are listened on, and the connections that they give.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio_util::either::Either;
use tracing::{debug, warn};

use super::config::SocketAddress;
use super::limits::ListenerSettings;
use super::session::Role;
use super::tls::{ServerTls, TlsError};
use crate::source::intake::Peer;

/// First and longest pause after accepting failed: there are no file descriptors left, and trying at once again would
/// only burn the processor.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A client's connection.
pub(super) type Stream = Either<TcpStream, UnixStream>;

/// A socket that is listened on, and what holds there.
#[derive(Debug)]
pub struct Listener {
    pub(super) settings: ListenerSettings,
    /// What TLS is done with; none without TLS.
    pub(super) tls: Option<ServerTls>,
    socket: Socket,
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// TLS cannot be done.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The socket cannot be opened.
    #[error(transparent)]
    Socket(#[from] io::Error),
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _file: SocketFile },
}

/// The name of a Unix socket; removed when dropped, since nobody else does.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(err) = std::fs::remove_file(&self.0) {
            debug!(path = %self.0.display(), error = %err, "socket not removed");
        }
    }
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remote {
    /// None by a Unix socket.
    pub address: Option<SocketAddr>,
    pub peer: Peer,
}

impl Listener {
    /// Reads the certificate and opens the socket. A Unix socket that a process left behind is replaced; one that is in
    /// use is not.
    ///
    /// # Errors
    /// See [`BindError`].
    pub async fn bind(settings: &ListenerSettings) -> Result<Self, BindError> {
        let tls = settings.tls_files.clone().map(ServerTls::load).transpose()?;
        let socket = match &settings.listen {
            SocketAddress::Tcp(address) => Socket::Tcp(TcpListener::bind(address).await?),
            SocketAddress::Unix(path) => {
                let listener = bind_unix(path).await?;
                let file = SocketFile(path.clone());
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(settings.mode.bits()))?;
                Socket::Unix { listener, _file: file }
            }
        };
        Ok(Self { settings: settings.clone(), tls, socket })
    }

    /// What is spoken.
    pub fn role(&self) -> Role {
        self.settings.role
    }

    /// Where it listens; the port was chosen by the system if 0 was asked for.
    pub fn place(&self) -> SocketAddress {
        self.address().map_or_else(|| self.settings.listen.clone(), SocketAddress::Tcp)
    }

    /// What TLS is done with, if it is.
    pub fn tls(&self) -> Option<ServerTls> {
        self.tls.clone()
    }

    /// Where it listens, unless that is a Unix socket; the port was chosen by the system if 0 was asked for.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix { .. } => None,
        }
    }

    async fn accept(&self) -> io::Result<(Stream, Remote)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Replies are written whole: waiting for more of them would only delay the client's next command.
                stream.set_nodelay(true)?;
                let peer = if address.ip().to_canonical().is_loopback() { Peer::Loopback } else { Peer::Remote };
                Ok((Either::Left(stream), Remote { address: Some(address), peer }))
            }
            Socket::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok((Either::Right(stream), Remote { address: None, peer: Peer::Loopback }))
            }
        }
    }
}

async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(err) if err.kind() == io::ErrorKind::AddrInUse => {
            // Whoever listened there has gone, and left the name.
            let connected = UnixStream::connect(path).await;
            if connected.is_err_and(|err| err.kind() == io::ErrorKind::ConnectionRefused) {
                std::fs::remove_file(path)?;
                UnixListener::bind(path)
            } else {
                Err(err)
            }
        }
        bound => bound,
    }
}

/// Writes to a client without waiting for it. The socket's buffer is empty, so that a short text fits; who is gone
/// already misses nothing.
pub(super) fn say_at_once(stream: Stream, text: &str) {
    drop(match stream {
        Either::Left(tcp) => tcp.into_std().and_then(|mut tcp| tcp.write_all(text.as_bytes())),
        Either::Right(unix) => unix.into_std().and_then(|mut unix| unix.write_all(text.as_bytes())),
    });
}

/// Takes connections, each with a free slot.
pub(super) struct Accept {
    listener: Listener,
    own_slots: Option<Arc<Semaphore>>,
    slots: Arc<Semaphore>,
    pause: Duration,
}

/// A session's place in the bounds of all listeners and of its own; free again when dropped.
pub(super) struct Slot {
    _own: Option<OwnedSemaphorePermit>,
    _all: OwnedSemaphorePermit,
}

impl Accept {
    /// `slots` are for the sessions of all listeners.
    pub(super) fn new(listener: Listener, slots: Arc<Semaphore>) -> Self {
        let own = listener.settings.limits.sessions_max;
        let own_slots = own.map(|max| Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))));
        Self { listener, own_slots, slots, pause: Duration::ZERO }
    }

    /// The next connection. The slot comes first, so that clients beyond the limit wait in the kernel's queue. Cancel
    /// safe: a connection is not lost, and a pause that was cut short begins anew.
    pub(super) async fn next(&mut self) -> (Stream, Remote, Slot) {
        let Ok(slot) = self.slot().await else {
            // Nobody closes the semaphores.
            return std::future::pending().await;
        };
        loop {
            if !self.pause.is_zero() {
                tokio::time::sleep(self.pause).await;
            }
            match self.listener.accept().await {
                Ok((stream, client)) => {
                    self.pause = Duration::ZERO;
                    return (stream, client, slot);
                }
                Err(err) if is_of_the_connection(&err) => {
                    debug!(error = %err, "connection lost before it was accepted");
                }
                Err(err) => {
                    let (first, longest) = ACCEPT_PAUSE;
                    self.pause = (self.pause * 2).clamp(first, longest);
                    warn!(error = %err, retry_in = ?self.pause, "cannot accept SMTP connections");
                }
            }
        }
    }

    /// The listener's own bound first: who waits for it keeps no other listener waiting.
    async fn slot(&self) -> Result<Slot, AcquireError> {
        let own = match &self.own_slots {
            Some(slots) => Some(Arc::clone(slots).acquire_owned().await?),
            None => None,
        };
        Ok(Slot { _own: own, _all: Arc::clone(&self.slots).acquire_owned().await? })
    }
}

/// Errors of a connection that ended before it was accepted; the next may be fine (accept(2)).
fn is_of_the_connection(err: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(err.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
