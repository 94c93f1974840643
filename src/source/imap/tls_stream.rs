//! TLS over TCP that holds no buffer while nothing is on its way.
//!
//! rustls's own stream keeps 4 KiB for each connection that has once read something, for as long as the connection
//! lives; of ten thousand that idle, that is 40 MiB for nothing. rustls's unbuffered half is used here instead: what
//! arrived and makes no whole record yet, what was encrypted and not taken by the kernel yet, and what was decrypted
//! and not read yet are vectors that are given back when they are empty.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Octets that are read at once: nearly a whole record of the largest size (RFC 8446 §5.2).
const READ_BYTES: usize = 16 * 1024;
/// Octets that are encrypted at once: one record.
const WRITE_BYTES: usize = 16 * 1024;

/// A TLS connection, from the client's side.
pub(super) struct TlsStream {
    tcp: TcpStream,
    tls: UnbufferedClientConnection,
    /// Records, of which the last one is not whole.
    incoming: Vec<u8>,
    /// Records that are to be sent, and how much of them was.
    outgoing: Vec<u8>,
    sent: usize,
    /// What was received, and how much of it was read.
    plaintext: Vec<u8>,
    read: usize,
    /// The peer has said goodbye: what was received is all there is.
    is_closed: bool,
}

/// What to say when the connection is ready for it.
#[derive(Clone, Copy)]
enum Say<'a> {
    Nothing,
    Data(&'a [u8]),
    Goodbye,
}

/// How far the records that arrived have brought the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// More of the handshake must arrive.
    Handshaking,
    /// Data may be sent.
    Open,
}

impl TlsStream {
    /// Does the handshake.
    ///
    /// # Errors
    /// What rustls refuses is inside the [`io::Error`], as [`rustls::Error`].
    pub(super) async fn connect(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        tcp: TcpStream,
    ) -> io::Result<Self> {
        let tls = UnbufferedClientConnection::new(config, name).map_err(refused)?;
        let (incoming, outgoing, plaintext) = (Vec::new(), Vec::new(), Vec::new());
        let mut stream = Self { tcp, tls, incoming, outgoing, sent: 0, plaintext, read: 0, is_closed: false };
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// What is known of the connection: its version, the peer's certificates.
    pub(super) fn state(&self) -> &rustls::CommonState {
        &self.tls
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let progress = self.advance(Say::Nothing)?;
            ready!(self.poll_send(cx))?;
            if progress == Progress::Open {
                return Poll::Ready(Ok(()));
            }
            if self.is_closed {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            ready!(self.poll_receive(cx))?;
        }
    }

    /// Makes of the whole records that arrived what they stand for, answers them, and then says what is to be said.
    fn advance(&mut self, say: Say<'_>) -> io::Result<Progress> {
        loop {
            let UnbufferedStatus { mut discard, state, .. } = self.tls.process_tls_records(&mut self.incoming);
            let progress = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(refused)?;
                        discard += record.discard;
                        self.plaintext.extend_from_slice(record.payload);
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(mut handshake)) => {
                    append(&mut self.outgoing, |room| handshake.encode(room).map_err(Unfit::from))?;
                    None
                }
                Ok(ConnectionState::TransmitTlsData(transmit)) => {
                    // From here on they are in `outgoing`, and nothing overtakes them there.
                    transmit.done();
                    None
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.is_closed = true;
                    None
                }
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    match say {
                        Say::Nothing => {}
                        Say::Data(data) => {
                            append(&mut self.outgoing, |room| traffic.encrypt(data, room).map_err(Unfit::from))?;
                        }
                        Say::Goodbye => {
                            append(&mut self.outgoing, |room| traffic.queue_close_notify(room).map_err(Unfit::from))?;
                        }
                    }
                    Some(Progress::Open)
                }
                Ok(ConnectionState::Closed) if matches!(say, Say::Data(_)) => {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                Ok(ConnectionState::Closed) => Some(Progress::Open),
                Ok(ConnectionState::BlockedHandshake) => Some(Progress::Handshaking),
                Ok(_) => return Err(refused(rustls::Error::General("a state that clients do not have".to_owned()))),
                Err(err) => {
                    self.discard(discard);
                    self.send_alert();
                    return Err(refused(err));
                }
            };
            self.discard(discard);
            if let Some(progress) = progress {
                return Ok(progress);
            }
        }
    }

    fn discard(&mut self, octets: usize) {
        self.incoming.drain(..octets.min(self.incoming.len()));
        if self.incoming.is_empty() {
            self.incoming = Vec::new();
        }
    }

    /// Tells the peer why the connection ends, if the kernel takes it at once.
    fn send_alert(&mut self) {
        if let Ok(ConnectionState::EncodeTlsData(mut alert)) = self.tls.process_tls_records(&mut self.incoming).state
            && append(&mut self.outgoing, |room| alert.encode(room).map_err(Unfit::from)).is_ok()
        {
            let unsent = self.outgoing.get(self.sent..).unwrap_or_default();
            // The connection is over, whether the peer learns why or not.
            let told: io::Result<usize> = self.tcp.try_write(unsent);
            drop(told);
        }
    }

    /// Waits for octets from the peer.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // Room is made for what is there, not for what may come.
            ready!(self.tcp.poll_read_ready(cx))?;
            self.incoming.reserve(READ_BYTES);
            let received = self.tcp.try_read_buf(&mut self.incoming);
            self.discard(0);
            match received {
                // Without a goodbye: somebody on the way may have cut it off (RFC 8446 §6.1).
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => return Poll::Ready(Ok(())),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                Err(err) => return Poll::Ready(Err(err)),
            }
        }
    }

    /// Sends all that is to be sent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(unsent) = self.outgoing.get(self.sent..).filter(|unsent| !unsent.is_empty()) {
            match ready!(Pin::new(&mut self.tcp).poll_write(cx, unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        (self.outgoing, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// Hands out what was received, and says whether there was something.
    fn take(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let unread = self.plaintext.get(self.read..).unwrap_or_default();
        let (taken, _) = unread.split_at(unread.len().min(buffer.remaining()));
        buffer.put_slice(taken);
        let is_some = !unread.is_empty();
        self.read += taken.len();
        if self.read == self.plaintext.len() {
            (self.plaintext, self.read) = (Vec::new(), 0);
        }
        is_some
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.take(buffer) || this.is_closed {
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_receive(cx))?;
            this.advance(Say::Nothing)?;
            // An answer, if there is one, must not wait until something else is written; nor does reading wait for it.
            if let Poll::Ready(sent) = this.poll_send(cx) {
                sent?;
            }
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // One record waits for the kernel at most.
        ready!(this.poll_send(cx))?;
        let (record, _) = data.split_at(data.len().min(WRITE_BYTES));
        this.advance(Say::Data(record))?;
        if let Poll::Ready(sent) = this.poll_send(cx) {
            sent?;
        }
        Poll::Ready(Ok(record.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // It is said once, however often it is asked for.
        this.advance(Say::Goodbye)?;
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}

/// Why something was not encoded.
enum Unfit {
    Room(usize),
    Other(rustls::Error),
}

impl From<EncodeError> for Unfit {
    fn from(err: EncodeError) -> Self {
        match err {
            EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => Self::Room(required_size),
            EncodeError::AlreadyEncoded => Self::Other(rustls::Error::General("a record is encoded twice".to_owned())),
        }
    }
}

impl From<EncryptError> for Unfit {
    fn from(err: EncryptError) -> Self {
        match err {
            EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => Self::Room(required_size),
            EncryptError::EncryptExhausted => Self::Other(rustls::Error::EncryptError),
        }
    }
}

/// Appends what `encode` writes into the room that it asks for.
fn append(outgoing: &mut Vec<u8>, mut encode: impl FnMut(&mut [u8]) -> Result<usize, Unfit>) -> io::Result<()> {
    let begin = outgoing.len();
    let encoded = match encode(&mut []) {
        Err(Unfit::Room(room)) => {
            outgoing.resize(begin + room, 0);
            encode(outgoing.get_mut(begin..).unwrap_or_default())
        }
        encoded => encoded,
    };
    let written = encoded.map_err(|unfit| match unfit {
        Unfit::Room(_) => refused(rustls::Error::General("a record has no size".to_owned())),
        Unfit::Other(err) => refused(err),
    })?;
    outgoing.truncate(begin + written);
    Ok(())
}

fn refused(err: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, err)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use rustls::{AlertDescription, RootCertStore, ServerConfig, SupportedProtocolVersion, version};
    use rustls_pki_types::PrivatePkcs8KeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::timeout;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    type Peer = tokio_rustls::server::TlsStream<TcpStream>;

    const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

    fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ClientConfig>, TlsAcceptor) {
        let key = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(own.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .unwrap();
        (Arc::new(client), TlsAcceptor::from(Arc::new(server)))
    }

    async fn tcp_pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (peer, _) = listener.accept().await.unwrap();
        for end in [&stream, &peer] {
            end.set_nodelay(true).unwrap();
        }
        (stream, peer)
    }

    fn localhost() -> ServerName<'static> {
        ServerName::try_from("localhost").unwrap()
    }

    async fn pair(version: &'static SupportedProtocolVersion) -> (TlsStream, Peer) {
        let ((client, server), (here, there)) = (configs(version), tcp_pair().await);
        let (stream, peer) =
            soon(async { tokio::join!(TlsStream::connect(client, localhost(), here), server.accept(there)) }).await;
        (stream.unwrap(), peer.unwrap())
    }

    async fn soon<T>(what: impl Future<Output = T>) -> T {
        timeout(Duration::from_secs(30), what).await.expect("an end in 30 s")
    }

    /// Hands on what comes, octet by octet.
    async fn dribble(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        while let Ok(octet) = from.read_u8().await {
            if to.write_u8(octet).await.is_err() {
                return;
            }
        }
    }

    fn text(octets: usize) -> Vec<u8> {
        (0..octets).map(|n| u8::try_from(n % 251).unwrap()).collect()
    }

    #[tokio::test]
    async fn records_survive_any_cut() {
        for version in VERSIONS {
            let ((client, server), (here, middle)) = (configs(version), tcp_pair().await);
            let (other_middle, there) = tcp_pair().await;
            let (from_here, to_here) = middle.into_split();
            let (from_there, to_there) = other_middle.into_split();
            let sent = text(50_000);
            let asking = async {
                let mut stream = TlsStream::connect(client, localhost(), here).await.unwrap();
                stream.write_all(&sent).await.unwrap();
                stream.flush().await.unwrap();
                let mut heard = vec![0; sent.len()];
                stream.read_exact(&mut heard).await.unwrap();
                assert!(heard == sent);
            };
            let answering = async {
                let mut peer = server.accept(there).await.unwrap();
                let mut heard = vec![0; sent.len()];
                peer.read_exact(&mut heard).await.unwrap();
                peer.write_all(&heard).await.unwrap();
                peer.flush().await.unwrap();
                // Open until the other end has read it all.
                std::future::pending::<()>().await;
            };
            soon(async {
                tokio::select! {
                    () = asking => {}
                    () = answering => {}
                    _ = async { tokio::join!(dribble(from_here, to_there), dribble(from_there, to_here)) } => {
                        panic!("the way has ended")
                    }
                }
            })
            .await;
        }
    }

    #[tokio::test]
    async fn a_goodbye_is_an_end_and_a_cut_is_an_error() {
        for version in VERSIONS {
            let mut heard = Vec::new();
            let (mut stream, mut peer) = pair(version).await;
            peer.write_all(b"bye").await.unwrap();
            peer.shutdown().await.unwrap();
            soon(stream.read_to_end(&mut heard)).await.unwrap();
            assert_eq!(heard, b"bye");
            assert_eq!(stream.read(&mut [0; 10]).await.unwrap(), 0, "it stays at its end");
            // Said back, once.
            stream.shutdown().await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(soon(peer.read(&mut [0; 10])).await.unwrap(), 0);
            assert!(stream.write(b"more").await.is_err(), "nothing is said after a goodbye");

            let (mut stream, mut peer) = pair(version).await;
            peer.write_all(b"by").await.unwrap();
            peer.flush().await.unwrap();
            drop(peer);
            stream.read_exact(&mut [0; 2]).await.unwrap();
            let cut = soon(stream.read(&mut [0; 10])).await.unwrap_err();
            assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[tokio::test]
    async fn keys_may_change() {
        let (mut stream, mut peer) = pair(&version::TLS13).await;
        for _ in 0..3 {
            // It asks the other side to do the same.
            peer.get_mut().1.refresh_traffic_keys().unwrap();
            peer.write_all(b"question").await.unwrap();
            peer.flush().await.unwrap();
            soon(stream.read_exact(&mut [0; 8])).await.unwrap();
            stream.write_all(b"answer").await.unwrap();
            stream.flush().await.unwrap();
            let mut heard = [0; 6];
            soon(peer.read_exact(&mut heard)).await.unwrap();
            assert_eq!(&heard, b"answer");
        }
    }

    #[tokio::test]
    async fn a_peer_learns_why_it_is_refused() {
        for version in VERSIONS {
            let ((strange, _), (_, server)) = (configs(version), configs(version));
            let (here, there) = tcp_pair().await;
            let (refused, told) =
                soon(async { tokio::join!(TlsStream::connect(strange, localhost(), here), server.accept(there)) })
                    .await;
            let reason = refused.err().unwrap();
            let reason = reason.get_ref().unwrap().downcast_ref::<rustls::Error>().unwrap();
            assert!(matches!(reason, rustls::Error::InvalidCertificate(_)), "{reason}");
            let told = told.unwrap_err();
            let told = told.get_ref().unwrap().downcast_ref::<rustls::Error>().unwrap();
            let alerts =
                [AlertDescription::UnknownCA, AlertDescription::BadCertificate, AlertDescription::DecryptError];
            assert!(matches!(told, rustls::Error::AlertReceived(alert) if alerts.contains(alert)), "{told}");
        }
    }

    #[tokio::test]
    async fn what_is_not_tls_is_refused() {
        let ((client, _), (here, mut there)) = (configs(&version::TLS13), tcp_pair().await);
        there.write_all(b"* OK this is no TLS\r\n").await.unwrap();
        let refused = soon(TlsStream::connect(client, localhost(), here)).await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);

        let (mut stream, mut peer) = pair(&version::TLS13).await;
        // Behind the back of TLS.
        peer.get_mut().0.write_all(b"* OK this is no TLS\r\n").await.unwrap();
        assert_eq!(soon(stream.read(&mut [0; 10])).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn it_holds_no_buffer_while_nothing_is_on_its_way() {
        for version in VERSIONS {
            let (mut stream, mut peer) = pair(version).await;
            let sent = text(40_000);
            let mut heard = vec![0; sent.len()];
            let writing = async { peer.write_all(&sent).await.and(peer.flush().await) };
            let (written, read) = soon(async { tokio::join!(writing, stream.read_exact(&mut heard)) }).await;
            (written.unwrap(), read.unwrap());
            stream.write_all(b"DONE\r\n").await.unwrap();
            stream.flush().await.unwrap();
            // As it is while it idles: somebody waits for more.
            assert!(futures::poll!(pin!(stream.read(&mut [0; 10]))).is_pending(), "there is nothing more");
            let buffers = [&stream.incoming, &stream.outgoing, &stream.plaintext].map(Vec::capacity);
            assert_eq!(buffers, [0; 3]);
        }
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_holds_the_writer_back() {
        let (mut stream, mut peer) = pair(&version::TLS13).await;
        let piece = text(WRITE_BYTES);
        let mut taken = 0;
        while let Poll::Ready(written) = futures::poll!(pin!(stream.write(&piece))) {
            assert!(stream.outgoing.len() <= WRITE_BYTES + 256, "{} octets wait", stream.outgoing.len());
            taken += written.unwrap();
        }
        assert!(taken > 0 && !stream.outgoing.is_empty());
        let mut heard = vec![0; taken];
        let (flushed, read) = soon(async { tokio::join!(stream.flush(), peer.read_exact(&mut heard)) }).await;
        (flushed.unwrap(), read.unwrap());
        assert!(heard.chunks(piece.len()).all(|chunk| chunk == piece));
    }
}
