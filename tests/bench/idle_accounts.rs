//! What 10,000 idle IMAP accounts cost in one process: `cargo bench --bench idle_accounts`.
//!
//! The real program watches one INBOX for each account on a server that idles, in a process of its own: this binary,
//! started once more. Memory is what `smaps_rollup` says of postrider's process, less what it says with one account,
//! per connection. 1,000 connections of async-imap, in a third process, idle on the same server beside it. Needs Linux,
//! and file descriptors: the hard limit of `ulimit -n` must be above the number of accounts.
//!
//! `BENCH_ACCOUNTS` (10000) and `BENCH_SECONDS` (30, of idling) make it shorter. The accounts are spread over 200
//! addresses of the loopback network, since connections are limited per host.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a benchmark"
)]

#[path = "../support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use support::imap_model::{RICH, Store};
use support::misbehaving_imap::{Fault, Shared, converse};
use support::server::{Options, Server};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Addresses that the accounts' servers have.
const HOSTS: usize = 200;
/// Connections of async-imap.
const PEERS: usize = 1000;
/// Of these, so many are set up at the same time: more would leave holes in the memory that are not idling's.
const PEERS_AT_ONCE: usize = 16;
/// For all to be connected.
const LIMIT: Duration = Duration::from_mins(20);
/// Between the last connection and the measurement.
const SETTLE: Duration = Duration::from_secs(5);
/// Lets a process have as many files as it may.
const ALL_FILES: &str = "ulimit -n 65536 2>/dev/null || ulimit -n $(ulimit -Hn); exec \"$@\"";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protection {
    Plain,
    Tls,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[1..] {
        ["serve", folder] => runtime.block_on(serve(Path::new(folder))),
        ["peer", protection, port, count, folder] => {
            let protection = if protection == "tls" { Protection::Tls } else { Protection::Plain };
            let (port, count) = (port.parse().expect("a port"), count.parse().expect("a number"));
            runtime.block_on(peer(protection, port, count, Path::new(folder)));
        }
        _ => runtime.block_on(measure()),
    }
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}: not a number")))
}

async fn measure() {
    let (accounts, idle) = (setting("BENCH_ACCOUNTS", 10_000), setting("BENCH_SECONDS", 30));
    let idle = Duration::from_secs(idle as u64);
    let folder = tempfile::tempdir().expect("a folder");
    let mut mock = Mock::start(folder.path()).await;
    println!("{accounts} accounts on {HOSTS} hosts, limits of the default configuration, {idle:?} of idling");
    println!(
        "| client | connections | KiB each (RSS) | KiB each (PSS) | all connected after | CPU while idle | renewal |"
    );
    println!("|---|---|---|---|---|---|---|");
    for protection in [Protection::Plain, Protection::Tls] {
        let base = postrider(&mut mock, protection, 1, Duration::ZERO).await;
        let full = postrider(&mut mock, protection, accounts, idle).await;
        let renewal = renewal(&mut mock, protection, accounts.min(2000)).await;
        row("postrider", protection, accounts, &base, &full, Some(renewal));
        let base = async_imap_peers(&mut mock, protection, 1, Duration::ZERO).await;
        let full = async_imap_peers(&mut mock, protection, PEERS.min(accounts), idle).await;
        row("async-imap", protection, PEERS.min(accounts), &base, &full, None);
    }
}

/// What was seen of one process.
struct Seen {
    resident_kib: f64,
    proportional_kib: f64,
    connected_after: Duration,
    /// Of one core, 0 to 1 and more.
    cpu: f64,
}

fn row(client: &str, protection: Protection, count: usize, base: &Seen, full: &Seen, renewal: Option<Duration>) {
    let each = |full: f64, base: f64| (full - base) / (count - 1) as f64;
    println!(
        "| {client}, {protection:?} | {count} | {:.2} | {:.2} | {:.1} s | {:.2} % of a core | {} |",
        each(full.resident_kib, base.resident_kib),
        each(full.proportional_kib, base.proportional_kib),
        full.connected_after.as_secs_f64(),
        full.cpu * 100.0,
        renewal.map_or("-".to_owned(), |each| format!("{} µs", each.as_micros())),
    );
}

/// Runs the program with so many accounts, and looks at it once all idle.
async fn postrider(mock: &mut Mock, protection: Protection, count: usize, idle: Duration) -> Seen {
    let (server, connected_after) = watching(mock, protection, count, "").await;
    sleep(SETTLE).await;
    let seen = look(server.child.id().expect("it runs"), connected_after, idle).await;
    ended(server, mock).await;
    seen
}

/// What it costs the processor to renew one IDLE.
async fn renewal(mock: &mut Mock, protection: Protection, count: usize) -> Duration {
    let (every, window) = (Duration::from_secs(10), Duration::from_secs(20));
    let (server, _) = watching(mock, protection, count, "[imap]\nidle_renew = \"10s\"\n").await;
    let seen = look(server.child.id().expect("it runs"), Duration::ZERO, window).await;
    ended(server, mock).await;
    every.mul_f64(seen.cpu / count as f64)
}

async fn watching(mock: &mut Mock, protection: Protection, count: usize, settings: &str) -> (Server, Duration) {
    let begun = Instant::now();
    let options = Options {
        config: mock.config(protection, count, settings),
        // As it runs where nothing is configured, spans included.
        environment: vec![("POSTRIDER_LOG__FILTER".into(), "info".into()), ("BENCH_PASSWORD".into(), "secret".into())],
        wrapper: ["sh", "-c", ALL_FILES, "sh"].map(str::to_owned).to_vec(),
        errors: Some(mock.folder.join("errors")),
        ..Options::default()
    };
    let server = Server::with(options).await;
    mock.until_idling(count).await;
    (server, begun.elapsed())
}

async fn ended(mut server: Server, mock: &mut Mock) {
    server.terminate().await;
    mock.until_idling(0).await;
}

async fn look(process: u32, connected_after: Duration, idle: Duration) -> Seen {
    let before = cpu_time(process);
    sleep(idle).await;
    let used = cpu_time(process).saturating_sub(before);
    let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).expect("/proc");
    let kib = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)).expect("a figure");
        line.split_whitespace().next().expect("a figure").parse().expect("a number")
    };
    let cpu = if idle.is_zero() { 0.0 } else { used.as_secs_f64() / idle.as_secs_f64() };
    Seen { resident_kib: kib("Rss:"), proportional_kib: kib("Pss:"), connected_after, cpu }
}

/// User and system time (proc(5)), in ticks of 10 ms.
fn cpu_time(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("/proc");
    let after_name = stat.rsplit_once(") ").expect("a name").1;
    let ticks: u64 = after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

async fn async_imap_peers(mock: &mut Mock, protection: Protection, count: usize, idle: Duration) -> Seen {
    let begun = Instant::now();
    let port = mock.port(protection).to_string();
    let protection = if protection == Protection::Tls { "tls" } else { "plain" };
    let folder = mock.folder.to_str().expect("a path").to_owned();
    let mut process = this_program(&["peer", protection, &port, &count.to_string(), &folder]);
    mock.until_idling(count).await;
    let connected_after = begun.elapsed();
    sleep(SETTLE).await;
    let seen = look(process.id().expect("it runs"), connected_after, idle).await;
    process.kill().await.expect("it runs");
    mock.until_idling(0).await;
    seen
}

fn this_program(arguments: &[&str]) -> Child {
    let program = std::env::current_exe().expect("this program");
    Command::new("sh")
        .args(["-c", ALL_FILES, "sh"])
        .arg(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("this program runs")
}

/// The server's process.
struct Mock {
    _process: Child,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    plain: u16,
    tls: u16,
    folder: std::path::PathBuf,
}

impl Mock {
    async fn start(folder: &Path) -> Self {
        let mut process = this_program(&["serve", folder.to_str().expect("a path")]);
        let (questions, answers) = (process.stdin.take().expect("stdin"), process.stdout.take().expect("stdout"));
        let mut answers = BufReader::new(answers).lines();
        let mut port = async || answers.next_line().await.expect("a line").expect("a line").parse().expect("a port");
        let (plain, tls) = (port().await, port().await);
        Self { _process: process, questions, answers, plain, tls, folder: folder.to_owned() }
    }

    fn port(&self, protection: Protection) -> u16 {
        if protection == Protection::Tls { self.tls } else { self.plain }
    }

    async fn idling(&mut self) -> usize {
        self.questions.write_all(b"?\n").await.expect("the server runs");
        self.answers.next_line().await.expect("an answer").expect("an answer").parse().expect("a number")
    }

    /// Asked of the server, so that the asking costs postrider nothing.
    async fn until_idling(&mut self, count: usize) {
        let begun = Instant::now();
        let mut idling = self.idling().await;
        while idling != count {
            assert!(begun.elapsed() < LIMIT, "{idling} of {count} connections idle");
            sleep(Duration::from_millis(100)).await;
            idling = self.idling().await;
        }
    }

    fn config(&self, protection: Protection, count: usize, settings: &str) -> String {
        let (port, authority) = (self.port(protection), self.folder.join("ca.pem"));
        let security = match protection {
            Protection::Plain => "security = \"none\"".to_owned(),
            Protection::Tls => format!("security = \"tls\"\nca_file = {:?}", authority.display().to_string()),
        };
        let mut config = settings.to_owned();
        for number in 0..count {
            let host = host(number % HOSTS);
            write!(
                config,
                "[[account]]\nname = \"user{number:05}\"\n[account.imap]\nhost = \"{host}\"\nport = {port}\n{security}\n\
                 username = \"user{number:05}@example.org\"\npassword_env = \"BENCH_PASSWORD\"\n"
            )
            .expect("memory");
        }
        config
    }
}

fn host(number: usize) -> String {
    format!("127.0.0.{}", number + 1)
}

/// The server: says its two ports, then, for each line, how many connections are in IDLE.
async fn serve(folder: &Path) {
    let shared = Arc::new(Shared::new(&Store::with_old(100), RICH, Fault::None));
    let acceptors = acceptors(folder);
    let (plain, tls) = (listen().await, listen().await);
    println!("{}\n{}", plain.local_addr().expect("a port").port(), tls.local_addr().expect("a port").port());
    let mut connections = JoinSet::new();
    let mut questions = BufReader::new(tokio::io::stdin()).lines();
    loop {
        let shared = shared.clone();
        tokio::select! {
            accepted = plain.accept() => {
                let stream = prepared(accepted);
                connections.spawn(converse(stream, shared));
            }
            accepted = tls.accept() => {
                let stream = prepared(accepted);
                let std::net::IpAddr::V4(address) = stream.local_addr().expect("an address").ip() else { continue };
                let acceptor = acceptors[usize::from(address.octets()[3]) - 1].clone();
                connections.spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        converse(stream, shared).await;
                    }
                });
            }
            question = questions.next_line() => match question {
                Ok(Some(_)) => println!("{}", shared.idling.load(Ordering::Relaxed)),
                _ => return,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn listen() -> TcpListener {
    TcpListener::bind("0.0.0.0:0").await.expect("a port")
}

fn prepared(accepted: std::io::Result<(TcpStream, std::net::SocketAddr)>) -> TcpStream {
    let (stream, _) = accepted.expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    stream
}

/// One certificate for each host: a certificate of all of them would be kept by each client's connection.
fn acceptors(folder: &Path) -> Vec<TlsAcceptor> {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    std::fs::write(folder.join("ca.pem"), authority.self_signed(&authority_key).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let acceptor = |number| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![host(number)]).unwrap().signed_by(&key, &issuer).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    };
    (0..HOSTS).map(acceptor).collect()
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Connections of async-imap that idle until the process is killed.
async fn peer(protection: Protection, port: u16, count: usize, folder: &Path) {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(folder.join("ca.pem")).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let places = Arc::new(Semaphore::new(PEERS_AT_ONCE));
    let mut connections = JoinSet::new();
    for number in 0..count {
        let (host, connector) = (host(number % HOSTS), connector.clone());
        let place = places.clone().acquire_owned().await.expect("nobody closes it");
        connections.spawn(async move {
            let stream = TcpStream::connect((host.as_str(), port)).await.expect("a connection");
            stream.set_nodelay(true).expect("a socket");
            match protection {
                Protection::Plain => idle_for_ever(stream, place).await,
                Protection::Tls => {
                    let name = ServerName::try_from(host).expect("an address");
                    idle_for_ever(connector.connect(name, stream).await.expect("TLS"), place).await;
                }
            }
        });
    }
    let mut rest = Vec::new();
    tokio::io::stdin().read_to_end(&mut rest).await.expect("stdin");
}

async fn idle_for_ever<S>(stream: S, place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + std::fmt::Debug + Send,
{
    let mut client = async_imap::Client::new(stream);
    client.read_response().await.expect("a greeting");
    let mut session = client.login("user", "secret").await.map_err(|(err, _)| err).expect("a login");
    session.examine("INBOX").await.expect("a mailbox");
    let mut idle = session.idle();
    idle.init().await.expect("IDLE");
    drop(place);
    loop {
        let (wait, _stop) = idle.wait();
        wait.await.expect("an idle connection");
    }
}
