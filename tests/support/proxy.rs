//! A TCP proxy before a mail server: shows what passes, and cuts connections where a test wants a bad network.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Half of the connections lose the server's words somewhere in these first bytes: within the greeting, the login, or
/// an answer.
const CUT_BYTES: u64 = 6000;
/// The others are cut in these first milliseconds.
const CUT_MS: u64 = 1500;

/// Bytes that passed.
#[derive(Debug, Clone)]
pub struct Passed {
    pub at: Instant,
    pub from_server: bool,
    pub bytes: Vec<u8>,
}

/// A running proxy. All its connections end when it is dropped.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
    _connections: JoinSet<()>,
}

struct Shared {
    server: u16,
    /// What passes is kept, once somebody asked for it.
    transcript: Mutex<Option<Vec<Passed>>>,
    cuts: AtomicU64,
    /// Decides about cuts; none while the network is good.
    chance: Mutex<Option<StdRng>>,
}

/// When and how one connection is cut.
struct Cut {
    after_bytes: u64,
    after: Duration,
    /// By RST, not by FIN.
    reset: bool,
}

impl Proxy {
    /// Starts one before a port of this machine.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            server,
            transcript: Mutex::new(None),
            cuts: AtomicU64::new(0),
            chance: Mutex::new(None),
        });
        let mut connections = JoinSet::new();
        connections.spawn(accept(listener, shared.clone()));
        Self { port, shared, _connections: connections }
    }

    /// From now on, every new connection is cut at a random moment.
    pub fn cut_at_random(&self, seed: u64) {
        *self.shared.chance.lock().expect("no panic") = Some(StdRng::seed_from_u64(seed));
    }

    /// From now on, no connection is cut.
    pub fn calm_down(&self) {
        *self.shared.chance.lock().expect("no panic") = None;
    }

    /// Connections that were cut.
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::Relaxed)
    }

    /// What passed since this was asked for the last time; nothing the first time.
    pub fn transcript(&self) -> Vec<Passed> {
        self.shared.transcript.lock().expect("no panic").replace(Vec::new()).unwrap_or_default()
    }
}

impl Shared {
    fn cut(&self) -> Cut {
        let mut chance = self.chance.lock().expect("no panic");
        let never = Cut { after_bytes: u64::MAX, after: Duration::MAX, reset: false };
        let Some(chance) = chance.as_mut() else { return never };
        let reset = chance.random();
        if chance.random() {
            Cut { after_bytes: chance.random_range(0..CUT_BYTES), reset, ..never }
        } else {
            Cut { after: Duration::from_millis(chance.random_range(0..CUT_MS)), reset, ..never }
        }
    }

    fn note(&self, from_server: bool, bytes: &[u8]) {
        if let Some(transcript) = self.transcript.lock().expect("no panic").as_mut() {
            transcript.push(Passed { at: Instant::now(), from_server, bytes: bytes.to_vec() });
        }
    }

    fn is_calm(&self) -> bool {
        self.chance.lock().expect("no panic").is_none()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted.expect("a connection");
                connections.spawn(pass(client, shared.clone()));
            }
            Some(ended) = connections.join_next() => ended.expect("no panic"),
        }
    }
}

/// Passes bytes on until one side ends or the connection is cut. The other side then sees the end too.
async fn pass(mut client: TcpStream, shared: Arc<Shared>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", shared.server)).await else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("TCP_NODELAY");
    }
    let cut = shared.cut();
    let mut left = cut.after_bytes;
    let (mut up, mut down) = (vec![0; 16_384], vec![0; 16_384]);
    let time_is_up = tokio::time::sleep(cut.after);
    tokio::pin!(time_is_up);
    let mut over = false;
    loop {
        tokio::select! {
            () = &mut time_is_up, if !over => {
                over = true;
                left = 0;
            }
            read = client.read(&mut up) => {
                let Ok(read @ 1..) = read else { return };
                shared.note(false, &up[..read]);
                let Ok(()) = server.write_all(&up[..read]).await else { return };
                continue;
            }
            read = server.read(&mut down) => {
                let Ok(read @ 1..) = read else { return };
                shared.note(true, &down[..read]);
                let passed = if shared.is_calm() { read } else { read.min(usize::try_from(left).unwrap_or(read)) };
                let Ok(()) = client.write_all(&down[..passed]).await else { return };
                left = left.saturating_sub(read as u64);
            }
        }
        if left == 0 && !shared.is_calm() {
            shared.cuts.fetch_add(1, Ordering::Relaxed);
            if cut.reset {
                let socket = socket2::SockRef::from(&client);
                // Best effort: the client may have ended it already.
                drop(socket.set_linger(Some(Duration::ZERO)));
            }
            return;
        }
    }
}
