//! Name servers: NSD with zones of the test's own, and one that answers as the test says.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::process_group::{ProcessGroup, free_ports};

/// A private NSD. Ended when it is dropped.
pub struct NameServer {
    pub address: SocketAddr,
    _processes: ProcessGroup,
    _folder: TempDir,
}

impl NameServer {
    /// Starts one for the domain `example`, with these records in the form of a zone file; other names are refused.
    pub fn start(records: &str) -> Self {
        // Another process may take the port in between.
        for _ in 0..5 {
            if let Some(started) = Self::try_start(records) {
                return started;
            }
        }
        panic!("NSD does not start; is it installed? See tests/run");
    }

    fn try_start(records: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let [port] = free_ports();
        let path = folder.path().display();
        let zone = format!(
            "$ORIGIN example.\n$TTL 300\n@ SOA ns.example. root.example. 1 3600 600 86400 60\n@ NS ns.example.\n\
             ns A 127.0.0.1\n{records}\n"
        );
        fs::write(folder.path().join("example.zone"), zone).unwrap();
        let config = format!(
            "server:\n  ip-address: 127.0.0.1@{port}\n  server-count: 1\n  username: \"\"\n  database: \"\"\n  \
             zonesdir: \"{path}\"\n  pidfile: \"{path}/nsd.pid\"\n  xfrdfile: \"{path}/xfrd.state\"\n  \
             zonelistfile: \"{path}/zone.list\"\n  xfrdir: \"{path}\"\n  logfile: \"{path}/log\"\n  rrl-ratelimit: 0\n\
             remote-control:\n  control-enable: no\nzone:\n  name: \"example\"\n  zonefile: \"example.zone\"\n"
        );
        let file = folder.path().join("nsd.conf");
        fs::write(&file, config).unwrap();
        let processes = ProcessGroup::default();
        // Debian's place for it, which is not in everybody's path.
        let mut nsd = Command::new("/usr/sbin/nsd");
        processes.run(nsd.arg("-d").arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::inherit()));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        processes.answers(&[port]).then_some(Self { address, _processes: processes, _folder: folder })
    }
}

/// What a [`Scripted`] name server does with a question.
#[derive(Debug, Clone)]
pub enum Answer {
    /// No such name.
    NoSuchName,
    /// A TXT record, whatever was asked for.
    Txt(String),
    /// Mail servers, whatever was asked for.
    Mx(Vec<String>),
    /// Nothing at all.
    Silence,
    /// The answer, after a while.
    Late(Duration, Box<Answer>),
}

/// A name server that answers as it is told, and counts. Ended when it is dropped.
pub struct Scripted {
    pub address: SocketAddr,
    questions: Arc<AtomicUsize>,
    _running: JoinSet<()>,
}

impl Scripted {
    /// `answer` is asked with each name, in lower case, without its last dot.
    pub async fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = socket.local_addr().unwrap();
        let questions = Arc::<AtomicUsize>::default();
        let total = Arc::clone(&questions);
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut late = JoinSet::new();
            let mut packet = [0; 4096];
            loop {
                let (len, from) = socket.recv_from(&mut packet).await.unwrap();
                total.fetch_add(1, Ordering::Relaxed);
                let question = packet[..len].to_vec();
                let mut answer = answer(&name_of(&question));
                let mut wait = Duration::ZERO;
                while let Answer::Late(time, then) = answer {
                    (wait, answer) = (wait + time, *then);
                }
                let Some(reply) = reply(&question, &answer) else { continue };
                let socket = Arc::clone(&socket);
                late.spawn(async move {
                    tokio::time::sleep(wait).await;
                    // Who has given up is not there any more.
                    drop(socket.send_to(&reply, from).await);
                });
                while late.try_join_next().is_some() {}
            }
        });
        Self { address, questions, _running: running }
    }

    /// Questions so far.
    pub fn questions(&self) -> usize {
        self.questions.load(Ordering::Relaxed)
    }
}

/// The labels of the question, which begin behind the 12 octets of the head (RFC 1035 §4.1).
fn labels(packet: &[u8]) -> Vec<&[u8]> {
    let (mut labels, mut at) = (Vec::new(), 12);
    while packet[at] != 0 {
        let end = at + 1 + usize::from(packet[at]);
        labels.push(&packet[at + 1..end]);
        at = end;
    }
    labels
}

fn name_of(packet: &[u8]) -> String {
    let labels: Vec<_> =
        labels(packet).into_iter().map(|label| String::from_utf8_lossy(label).to_lowercase()).collect();
    labels.join(".")
}

fn reply(packet: &[u8], answer: &Answer) -> Option<Vec<u8>> {
    let question_len: usize = labels(packet).iter().map(|label| label.len() + 1).sum::<usize>() + 5;
    let records: Vec<(u16, Vec<u8>)> = match answer {
        Answer::NoSuchName => Vec::new(),
        Answer::Txt(text) => {
            let strings =
                text.as_bytes().chunks(255).flat_map(|part| [&[u8::try_from(part.len()).unwrap()], part].concat());
            vec![(16, strings.collect())]
        }
        Answer::Mx(hosts) => hosts.iter().map(|host| (15, [&[0, 10], &wire_name(host)[..]].concat())).collect(),
        Answer::Silence | Answer::Late(..) => return None,
    };
    let mut reply = packet[..2].to_vec();
    // An answer, recursion available, and whether there is such a name.
    reply.extend([0x81, if records.is_empty() { 0x83 } else { 0x80 }, 0, 1]);
    reply.extend(u16::try_from(records.len()).unwrap().to_be_bytes());
    // Without a SOA record nobody would know for how long there is no such name (RFC 2308 §5).
    reply.extend([0, u8::from(records.is_empty()), 0, 0]);
    reply.extend(&packet[12..12 + question_len]);
    if records.is_empty() {
        // Of the root, for an hour; serial and the four times are all 60.
        reply.extend([0, 0, 6, 0, 1, 0, 0, 0x0e, 0x10, 0, 22, 0, 0]);
        reply.extend([0, 0, 0, 60].repeat(5));
    }
    for (kind, data) in records {
        // The name of the question, class IN, an hour.
        reply.extend([0xc0, 12]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0x0e, 0x10]);
        reply.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        reply.extend(data);
    }
    Some(reply)
}

fn wire_name(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat());
    labels.chain([0]).collect()
}
