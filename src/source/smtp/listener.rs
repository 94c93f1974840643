//! Where mail is received: the sockets that are listened on, and the connections that they give.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio_util::either::Either;
use tracing::{debug, warn};

use super::config::SocketAddress;
use super::limits::ListenerSettings;
use super::proxy_header::{self, NoHeader, Progress, Source};
use super::session::Role;
use super::tls::{ServerTls, TlsError};
use crate::source::intake::Peer;

/// First and longest pause after accepting failed: there are no file descriptors left, and trying at once again would
/// only burn the processor.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Connections that the system keeps until they are accepted, if it allows for so many. Past that it drops them, and an
/// honest client among a flood of others comes again after a second.
const BACKLOG: u32 = 4096;

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
            SocketAddress::Tcp(address) => Socket::Tcp(bind_tcp(*address)?),
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

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As after a restart, when the connections of the last process are not forgotten yet.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
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

/// Waits until there is something to read and copies it without taking it; 0 where nothing comes any more, and where
/// that cannot be done (Unix sockets).
pub(super) async fn peek(stream: &Stream, buffer: &mut [u8]) -> io::Result<usize> {
    match stream {
        Either::Left(tcp) => tcp.peek(buffer).await,
        Either::Right(unix) => unix.readable().await.map(|()| 0),
    }
}

/// Reads the header of the PROXY protocol off a connection, and nothing of what follows it.
///
/// # Errors
/// What came is none, or the connection ended.
///
/// # Cancel safety
/// What was read is lost.
pub(super) async fn read_proxy_header(stream: &mut Stream) -> io::Result<Source> {
    let mut buffer = [0; proxy_header::BINARY_BYTES_MAX];
    let mut len = 0;
    loop {
        let missing = match proxy_header::parse(buffer.get(..len).unwrap_or_default())? {
            Progress::Complete(source) => return Ok(source),
            Progress::Missing(octets) => octets,
        };
        // Of what is there already, all that is the header's is read at once: the two octets that may be missing at
        // least, again and again, would be as many system calls.
        let ahead = peek(stream, buffer.get_mut(len..).unwrap_or_default()).await?;
        let (here, mut end) = (len + ahead, len + missing);
        while end <= here
            && let Progress::Missing(more) = proxy_header::parse(buffer.get(..end).unwrap_or_default())?
        {
            end += more;
        }
        stream.read_exact(buffer.get_mut(len..end).ok_or(NoHeader)?).await?;
        len = end;
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Both ends of a connection by TCP and by a Unix socket.
    async fn connections() -> [(Stream, Stream); 2] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let (unix_client, unix_server) = UnixStream::pair().unwrap();
        [(Either::Left(client), Either::Left(server)), (Either::Right(unix_client), Either::Right(unix_server))]
    }

    #[tokio::test]
    async fn nothing_behind_the_header_is_read() {
        let text = b"PROXY TCP4 192.0.2.1 192.0.2.2 12345 25\r\n".to_vec();
        let binary =
            [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), &[192, 0, 2, 1, 192, 0, 2, 2, 0x30, 0x39, 0, 25]];
        for header in [text, binary.concat()] {
            for cut in 0..header.len() {
                for (mut client, mut server) in connections().await {
                    let (first, second) = header.split_at(cut);
                    client.write_all(first).await.unwrap();
                    let rest = async {
                        tokio::task::yield_now().await;
                        client.write_all(&[second, b"\r\nEHLO x\r\n"].concat()).await.unwrap();
                        client.shutdown().await.unwrap();
                    };
                    let (source, ()) = tokio::join!(read_proxy_header(&mut server), rest);
                    assert_eq!(source.unwrap(), Source::Client("192.0.2.1:12345".parse().unwrap()));
                    let mut behind = String::new();
                    server.read_to_string(&mut behind).await.unwrap();
                    assert_eq!(behind, "\r\nEHLO x\r\n");
                }
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_an_error() {
        let cases =
            [("PROXY TCP4 ", io::ErrorKind::UnexpectedEof), ("EHLO client.example\r\n", io::ErrorKind::InvalidData)];
        for (said, error) in cases {
            for (mut client, mut server) in connections().await {
                client.write_all(said.as_bytes()).await.unwrap();
                client.shutdown().await.unwrap();
                assert_eq!(read_proxy_header(&mut server).await.unwrap_err().kind(), error);
            }
        }
    }
}
