//! An IMAP server in the test's own process that does all right but for what a test tells it to do wrong.
//!
//! What it knows is a [`Store`]; what it does wrong is a [`Fault`], which strikes and is then lifted. Every fault counts
//! how often it struck, so that a test can tell that it did.

use std::fmt;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use postrider::registry::{Account, ImapEndpoint, ImapSecurity};
use secrecy::SecretString;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, WriteHalf};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::imap_model::{Session, Store};

/// What happens instead of what should.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// Nothing more is said on this connection.
    Stall,
    /// The command is refused, for the moment.
    No,
    /// The command is not understood.
    Bad,
    /// The server hangs up with a word.
    Bye,
    /// Without one.
    Eof,
    /// This is said in between, and the session goes on.
    Text(Vec<u8>),
    /// This is said, and then so many octets, and nothing after them.
    Flood(String, usize),
    /// Part of the response is said, and nothing after it.
    Halt(Part),
}

/// How much of a response is said.
#[derive(Debug, Clone, Copy)]
pub enum Part {
    /// All before the middle.
    Half,
    /// A few octets of its literal, or its first octet where it has none.
    Literal,
    /// All but the line feed.
    NearlyAll,
}

impl Part {
    fn of(self, response: &str) -> &[u8] {
        let octets = response.as_bytes();
        let end = match self {
            Self::Half => octets.len() / 2,
            Self::Literal => response.find("}\r\n").map_or(1, |at| at + 6),
            Self::NearlyAll => octets.len() - 1,
        };
        &octets[..end]
    }
}

/// Given the client's line and the answer by the book, the answer that is sent instead, if this is the place for it.
pub type Rewrite = dyn Fn(&str, &[String]) -> Option<Vec<String>> + Send + Sync;

/// What the server does wrong. Numbers are counted from 0 over all connections.
#[derive(Clone)]
pub enum Fault {
    None,
    /// Each octet is written by itself.
    OctetByOctet,
    /// In place of the answer to this line of the client's.
    Step(usize, Trouble),
    /// Before this response.
    Response(usize, Trouble),
    /// The connection ends after this octet.
    EofAfter(usize),
    /// Answers are others, so many times.
    Rewrite(usize, Arc<Rewrite>),
}

impl Fault {
    pub fn rewrite(
        times: usize,
        rewrite: impl Fn(&str, &[String]) -> Option<Vec<String>> + Send + Sync + 'static,
    ) -> Self {
        Self::Rewrite(times, Arc::new(rewrite))
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("nothing"),
            Self::OctetByOctet => f.write_str("octet by octet"),
            Self::Step(step, trouble) => write!(f, "{trouble:.60?} at step {step}"),
            Self::Response(number, trouble) => write!(f, "{trouble:.60?} before response {number}"),
            Self::EofAfter(octets) => write!(f, "EOF after {octets} octets"),
            Self::Rewrite(..) => f.write_str("other answers"),
        }
    }
}

/// Whether a line of the client's is this command, in upper case.
pub fn is(line: &str, command: &str) -> bool {
    line.split_once(' ').is_some_and(|(_, rest)| rest.to_ascii_uppercase().starts_with(command))
}

/// The tag of a line of the client's.
pub fn tag(line: &str) -> &str {
    line.split(' ').next().unwrap()
}

/// A running server.
pub struct MisbehavingImap {
    pub store: Store,
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Ends the server with the test.
    _tasks: JoinSet<()>,
}

/// What the connections of one server share.
pub struct Shared {
    store: Store,
    offers: &'static str,
    fault: Fault,
    greeting: Option<String>,
    struck: AtomicUsize,
    is_lifted: AtomicBool,
    steps: AtomicUsize,
    responses: AtomicUsize,
    octets: AtomicUsize,
    connections: AtomicUsize,
    /// Connections that are in IDLE now.
    pub idling: Arc<AtomicUsize>,
    hang_up: watch::Sender<()>,
}

impl MisbehavingImap {
    pub async fn start(store: &Store, offers: &'static str, fault: Fault) -> Self {
        Self::with_greeting(store, offers, fault, None).await
    }

    /// The same with another greeting on the first connection.
    pub async fn with_greeting(store: &Store, offers: &'static str, fault: Fault, greeting: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { greeting, ..Shared::new(store, offers, fault) });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shared.clone()));
        Self { store: store.clone(), shared, address, _tasks: tasks }
    }

    pub fn account(&self, mailboxes: &[&str]) -> Account {
        let imap = ImapEndpoint {
            port: Some(self.address.port()),
            security: ImapSecurity::None,
            password_typed: Some(SecretString::from("secret")),
            mailboxes: mailboxes.iter().map(|&name| name.to_owned()).collect(),
            ..ImapEndpoint::new("127.0.0.1", "alice")
        };
        Account { imap: Some(imap.into()), ..Account::new("alice".parse().unwrap()) }
    }

    /// How often the fault struck.
    pub fn struck(&self) -> usize {
        self.shared.struck.load(Ordering::Relaxed)
    }

    pub fn is_faulty(&self) -> bool {
        !matches!(self.shared.fault, Fault::None) || self.shared.greeting.is_some()
    }

    /// From now on all is well.
    pub fn lift(&self) {
        self.shared.is_lifted.store(true, Ordering::Relaxed);
    }

    /// Lines of the client, responses and octets so far.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        (count(&self.shared.steps), count(&self.shared.responses), count(&self.shared.octets))
    }

    pub fn offers(&self) -> &'static str {
        self.shared.offers
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Connections that are in IDLE now.
    pub fn idling(&self) -> usize {
        self.shared.idling.load(Ordering::Relaxed)
    }

    /// Ends every connection.
    pub fn hang_up(&self) {
        self.shared.hang_up.send_replace(());
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        shared.connections.fetch_add(1, Ordering::Relaxed);
        // Else a line waits for the acknowledgement of the one before.
        stream.set_nodelay(true).unwrap();
        connections.spawn(converse(stream, shared.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// Serves one connection.
pub async fn converse(stream: impl AsyncRead + AsyncWrite, shared: Arc<Shared>) {
    let (mut hang_up, store) = (shared.hang_up.subscribe(), shared.store.clone());
    let (reader, writer) = tokio::io::split(stream);
    let session = Session::new(&store, shared.offers, &shared.idling);
    let mut voice = Voice { writer, shared };
    let conversation = converse_until_over(BufReader::new(reader), &mut voice, session, store.watch());
    tokio::select! {
        _ = conversation => {}
        _ = hang_up.changed() => {}
    }
}

/// Until the connection is over, for whatever reason.
async fn converse_until_over<S: AsyncRead + AsyncWrite>(
    mut reader: BufReader<impl AsyncRead + Unpin>,
    voice: &mut Voice<S>,
    mut session: Session,
    mut changed: watch::Receiver<()>,
) -> ControlFlow<()> {
    let greeting = voice.shared.greeting().unwrap_or_else(|| session.greeting());
    voice.say(&[greeting]).await?;
    let mut line = Vec::new();
    loop {
        tokio::select! {
            read = reader.read_until(b'\n', &mut line) => {
                if read.is_err() || !line.ends_with(b"\n") {
                    return ControlFlow::Break(());
                }
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                match voice.shared.trouble_at_step() {
                    Some(trouble) => voice.trouble(&trouble, Some(&text), &mut reader).await?,
                    None => answer(&text, &mut session, voice).await?,
                }
            }
            _ = changed.changed() => voice.say(&session.push()).await?,
        }
    }
}

async fn answer<S: AsyncRead + AsyncWrite>(line: &str, session: &mut Session, voice: &mut Voice<S>) -> ControlFlow<()> {
    let mut said = session.answer(line);
    if let Some(other) = voice.shared.rewritten(line, &said) {
        said = other;
        let tag = line.split(' ').next().unwrap_or_default();
        if said.iter().any(|response| response.starts_with(&format!("{tag} "))) {
            session.ends_idle();
        }
    }
    voice.say(&said).await?;
    let is_over = session.is_over || said.iter().any(|response| response.starts_with("* BYE"));
    if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

impl Shared {
    pub fn new(store: &Store, offers: &'static str, fault: Fault) -> Self {
        Self {
            store: store.clone(),
            offers,
            fault,
            greeting: None,
            struck: AtomicUsize::new(0),
            is_lifted: AtomicBool::new(false),
            steps: AtomicUsize::new(0),
            responses: AtomicUsize::new(0),
            octets: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            idling: Arc::default(),
            hang_up: watch::Sender::new(()),
        }
    }

    fn strikes(&self) -> bool {
        let may = !self.is_lifted.load(Ordering::Relaxed);
        if may {
            self.struck.fetch_add(1, Ordering::Relaxed);
        }
        may
    }

    fn greeting(&self) -> Option<String> {
        self.greeting.clone().filter(|_| self.struck.load(Ordering::Relaxed) == 0 && self.strikes())
    }

    fn trouble_at_step(&self) -> Option<Trouble> {
        let step = self.steps.fetch_add(1, Ordering::Relaxed);
        match &self.fault {
            Fault::Step(at, trouble) if *at == step && self.strikes() => Some(trouble.clone()),
            _ => None,
        }
    }

    fn trouble_at_response(&self) -> Option<Trouble> {
        let number = self.responses.fetch_add(1, Ordering::Relaxed);
        match &self.fault {
            Fault::Response(at, trouble) if *at == number && self.strikes() => Some(trouble.clone()),
            _ => None,
        }
    }

    fn rewritten(&self, line: &str, said: &[String]) -> Option<Vec<String>> {
        match &self.fault {
            Fault::Rewrite(times, rewrite) if self.struck.load(Ordering::Relaxed) < *times => {
                rewrite(line, said).filter(|_| self.strikes())
            }
            _ => None,
        }
    }
}

/// What goes out, with what goes wrong on the way.
struct Voice<S> {
    writer: WriteHalf<S>,
    shared: Arc<Shared>,
}

impl<S: AsyncRead + AsyncWrite> Voice<S> {
    async fn say(&mut self, responses: &[String]) -> ControlFlow<()> {
        for response in responses {
            if let Some(trouble) = self.shared.trouble_at_response() {
                if let Trouble::Halt(part) = trouble {
                    self.write(part.of(response)).await?;
                }
                // Nothing is read while it speaks: a stall lasts until the test or the client ends.
                self.trouble(&trouble, None, &mut tokio::io::empty()).await?;
            }
            self.write(response.as_bytes()).await?;
        }
        ControlFlow::Continue(())
    }

    async fn trouble(
        &mut self,
        trouble: &Trouble,
        line: Option<&str>,
        reader: &mut (impl AsyncRead + Unpin),
    ) -> ControlFlow<()> {
        let tag = line.and_then(|line| line.split(' ').next()).unwrap_or("*");
        match trouble {
            Trouble::Stall | Trouble::Halt(_) => {
                let mut rest = Vec::new();
                if line.is_some() {
                    drop(reader.read_to_end(&mut rest).await);
                } else {
                    std::future::pending::<()>().await;
                }
                ControlFlow::Break(())
            }
            Trouble::No => self.write(format!("{tag} NO [UNAVAILABLE] try again later\r\n").as_bytes()).await,
            Trouble::Bad => self.write(format!("{tag} BAD I do not understand\r\n").as_bytes()).await,
            Trouble::Bye => {
                self.write(b"* BYE shutting down\r\n").await?;
                ControlFlow::Break(())
            }
            Trouble::Eof => ControlFlow::Break(()),
            Trouble::Text(text) => self.write(text).await,
            Trouble::Flood(head, octets) => {
                self.write(head.as_bytes()).await?;
                let block = vec![b'x'; 65_536];
                for _ in 0..octets / block.len() {
                    self.write(&block).await?;
                }
                std::future::pending().await
            }
        }
    }

    async fn write(&mut self, octets: &[u8]) -> ControlFlow<()> {
        let before = self.shared.octets.fetch_add(octets.len(), Ordering::Relaxed);
        let written = match &self.shared.fault {
            Fault::OctetByOctet if self.shared.strikes() => self.write_slowly(octets).await,
            Fault::EofAfter(last) if (before..before + octets.len()).contains(last) && self.shared.strikes() => {
                // The client's octets stay unread, so that this is a reset for it as often as an end.
                drop(self.writer.write_all(&octets[..last - before]).await);
                return ControlFlow::Break(());
            }
            _ => self.writer.write_all(octets).await,
        };
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    async fn write_slowly(&mut self, octets: &[u8]) -> std::io::Result<()> {
        for octet in octets {
            self.writer.write_all(std::slice::from_ref(octet)).await?;
            self.writer.flush().await?;
            // Lets the client read it by itself.
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}
