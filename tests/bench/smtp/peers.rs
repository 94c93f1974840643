//! The servers that are measured, each on a port of its own and ended when it is dropped.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::support::eventually;

/// A running server.
pub struct Peer {
    pub name: &'static str,
    /// `127.0.0.1:PORT`.
    pub address: String,
    /// It is so many times slower than a server that does next to nothing, and gets so many times fewer messages.
    pub slower: u32,
    _running: Running,
}

enum Running {
    Child(Child),
    /// It is a server of the caller's.
    Elsewhere,
    /// Postfix makes processes of its own; its configuration names them.
    Postfix(PathBuf),
}

impl Drop for Running {
    fn drop(&mut self) {
        match self {
            Self::Child(child) => {
                child.kill().expect("it runs");
                child.wait().expect("an exit");
            }
            Self::Elsewhere => {}
            Self::Postfix(folder) => postfix(folder, "stop"),
        }
    }
}

impl Peer {
    /// A server that the caller has started.
    pub fn of(name: &'static str, address: &str) -> Self {
        Self { name, address: address.to_owned(), slower: 1, _running: Running::Elsewhere }
    }

    /// Postfix' `smtp-sink`: it reads, answers, and keeps nothing.
    pub async fn sink() -> Self {
        let address = free_address();
        // As root it insists on giving up its rights.
        let user: &[&str] = if is_root() { &["-u", "nobody"] } else { &[] };
        let mut command = pinned("/usr/sbin/smtp-sink");
        let child = command.args(user).args([&format!("inet:{address}"), "1000"]).spawn();
        let running = Running::Child(child.expect("smtp-sink: install Debian's postfix package"));
        Self { name: "smtp-sink", address, slower: 1, _running: running }.listening().await
    }

    /// aiosmtpd with a handler that does nothing, in a virtual environment that is made in `cache` at the first time.
    pub async fn aiosmtpd(cache: &Path) -> Self {
        let python = cache.join("aiosmtpd-1.4.6/bin/python");
        if !python.exists() {
            let folder = cache.join("aiosmtpd-1.4.6");
            run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
            run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", "aiosmtpd==1.4.6"]));
        }
        let address = free_address();
        let child =
            pinned(&python).args(["-m", "aiosmtpd", "-n", "-c", "aiosmtpd.handlers.Sink", "-l", &address]).spawn();
        let running = Running::Child(child.expect("aiosmtpd"));
        Self { name: "aiosmtpd", address, slower: 6, _running: running }.listening().await
    }

    /// Postfix as it is installed, with a queue of its own in `folder`; what it takes it discards. On both cores: its
    /// processes are many.
    pub async fn postfix(folder: &Path) -> Self {
        assert!(is_root(), "Postfix only starts as root; run the benchmark as root, or leave out its part `postfix`");
        let folder = folder.join("postfix");
        let address = free_address();
        for name in ["", "queue", "data"] {
            fs::create_dir(folder.join(name)).expect("a folder");
        }
        for parent in folder.ancestors().take(2) {
            fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).expect("it is ours");
        }
        chown(folder.join("data"), Some(user_id("postfix")), None).expect("its own folder");
        let at = folder.display();
        let main = format!(
            "queue_directory = {at}/queue\ndata_directory = {at}/data\nmaillog_file = {at}/log\nmaillog_file_prefixes = {at}\n{MAIN_CF}"
        );
        fs::write(folder.join("main.cf"), main).expect("main.cf");
        fs::write(folder.join("master.cf"), format!("{address} inet n - n - - smtpd\n{MASTER_CF}")).expect("master.cf");
        postfix(&folder, "start");
        let peer = Self { name: "Postfix", address, slower: 15, _running: Running::Postfix(folder) };
        peer.listening().await
    }

    async fn listening(self) -> Self {
        eventually(self.name, || async { tokio::net::TcpStream::connect(&self.address).await.ok() }).await;
        self
    }
}

const MAIN_CF: &str = "\
compatibility_level = 3.6
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = bench.example.org
mydestination = localhost
local_transport = discard:
default_transport = discard:
local_recipient_maps =
alias_maps =
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
default_process_limit = 200
";

const MASTER_CF: &str = "\
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
discard unix - - n - - discard
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
";

fn postfix(folder: &Path, command: &str) {
    // What it says of folders that are not where a package puts them goes to its log and to nobody.
    let quiet = Command::new("/usr/sbin/postfix").arg("-c").arg(folder).arg(command).stderr(Stdio::null()).status();
    assert!(
        quiet.expect("install Debian's postfix package").success(),
        "postfix {command}: see {}/log",
        folder.display()
    );
}

/// A command that runs on the servers' core.
fn pinned(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", super::SERVERS_CORE]).arg(program);
    command
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|err| panic!("{command:?}: {err}"));
    assert!(status.success(), "{command:?}: {status}");
}

fn free_address() -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    free.local_addr().expect("an address").to_string()
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").expect("/proc")) == 0
}

fn user_id(name: &str) -> u32 {
    let users = fs::read_to_string("/etc/passwd").expect("users");
    let user = users.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))?.split(':').nth(1));
    user.and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("no user {name}: install Debian's postfix package"))
}
