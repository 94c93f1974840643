//! A mail server that runs as if it were installed on a machine of its own: namespaces with an `/etc` that the test
//! fills, a `/usr` that also has what `tests/support/fetch-servers` unpacked, and empty spools. So what we ship can
//! stand where an administrator puts it, and servers of which Debian allows only one can be tried one after the
//! other.
//!
//! Mail servers are started by root only, as they change to the users whose mail they deliver: another user needs
//! `sudo` without a password. Everything of theirs ends with the pipe that the test holds, however the test ends.

use std::fs::{self, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process_group::free_ports;
use super::{PATIENCE, unpacked};

/// Users beside those of this machine: the servers' own, and alice, who gets mail.
const USERS: [(&str, u32); 4] =
    [("Debian-exim", 60_001), ("opensmtpd", 60_002), ("opensmtpq", 60_003), ("alice", 60_004)];

/// Makes the machine out of this one and becomes its first process, which lives as long as its standard input.
const BOOT: &str = r#"
set -e
etc=$1 usr=$2 var=$3 postrider=$4 start=$5
mount -t overlay overlay -o "ro,lowerdir=$etc:/etc" /etc
mount -t overlay overlay -o "ro,lowerdir=$usr:/usr" /usr
for folder in /run /var/spool /var/lib; do mount -t tmpfs -o mode=755 tmpfs "$folder"; done
for folder in mail log; do mount --bind "$var/$folder" "/var/$folder"; done
mkdir /run/postrider
mount --bind "$postrider" /run/postrider
sh -ec "$start" </dev/null
exec cat
"#;

/// A machine with one mail server.
pub struct MailHost {
    folder: TempDir,
    machine: Child,
    _lifeline: ChildStdin,
    /// SMTP, on 127.0.0.1.
    pub port: u16,
}

impl MailHost {
    /// Starts the server by the shell script `start`. `files` go below `/etc`, `postrider` is the folder of postrider's
    /// socket.
    pub fn start(port: u16, postrider: &Path, files: &[(&str, String)], start: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("mail-host").tempdir().expect("a temporary folder");
        let [etc, mail, log] = ["etc", "mail", "log"].map(|name| folder.path().join(name));
        // Each server delivers, and writes its log, as another user.
        for (path, mode) in [(folder.path(), 0o755), (&etc, 0o755), (&mail, 0o777), (&log, 0o777), (postrider, 0o755)] {
            fs::create_dir_all(path).unwrap();
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        let user = |(name, number): &(&str, u32)| format!("{name}:x:{number}:{number}::/var/mail:/bin/false\n");
        let group = |(name, number): &(&str, u32)| format!("{name}:x:{number}:\n");
        let with = |file: &str, more: String| fs::read_to_string(file).unwrap() + &more;
        fs::write(etc.join("passwd"), with("/etc/passwd", USERS.iter().map(user).collect())).unwrap();
        fs::write(etc.join("group"), with("/etc/group", USERS.iter().map(group).collect())).unwrap();
        for (name, text) in files {
            let path = etc.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let errors = fs::File::create(log.join("stderr")).unwrap();
        let mut machine = as_root(&["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-c", BOOT, "mail-host"])
            .args([&etc, &unpacked::root().join("usr"), folder.path(), postrider])
            .arg(start)
            .stdin(Stdio::piped())
            .stdout(errors.try_clone().unwrap())
            .stderr(errors)
            .spawn()
            .expect("unshare runs");
        let lifeline = machine.stdin.take().unwrap();
        let mut host = Self { folder, machine, _lifeline: lifeline, port };
        host.wait_until_it_answers();
        host
    }

    /// Postfix with Debian's own `master.cf`. `main` and `master` stand at the ends of its files.
    pub fn postfix(postrider: &Path, main: &str, master: &str, more: &[(&str, String)]) -> Self {
        let [port] = free_ports();
        let main = format!(
            "compatibility_level = 3.6\n\
             maillog_file = /var/log/postfix.log\n\
             myhostname = mail.example.org\n\
             mydestination =\n\
             inet_interfaces = 127.0.0.1\n\
             inet_protocols = ipv4\n\
             message_size_limit = 30000000\n\
             {main}"
        );
        let debian = fs::read_to_string("/usr/share/postfix/master.cf.dist").expect("Postfix is installed");
        let master = debian.replace("\nsmtp      inet", &format!("\n127.0.0.1:{port} inet")) + master;
        let files = [&[("postfix/main.cf", main), ("postfix/master.cf", master)], more].concat();
        let start = "mkdir -p /var/spool/postfix /var/lib/postfix; chown postfix: /var/lib/postfix; postfix start";
        Self::start(port, postrider, &files, start)
    }

    /// Exim with these routers, transports and what comes behind them.
    pub fn exim(postrider: &Path, config: &str, more: &[(&str, String)]) -> Self {
        let [port] = free_ports();
        let config = format!(
            "primary_hostname = mail.example.org\n\
             domainlist local_domains = example.org\n\
             local_interfaces = 127.0.0.1\n\
             daemon_smtp_ports = {port}\n\
             tls_advertise_hosts =\n\
             smtputf8_advertise_hosts = *\n\
             keep_environment =\n\
             host_lookup =\n\
             message_size_limit = 30M\n\
             log_file_path = /var/log/exim-%slog\n\
             acl_smtp_rcpt = accept\n\
             {config}"
        );
        let files = [&[("exim4/exim4.conf", config)], more].concat();
        let start = "for folder in db input msglog; do mkdir -p /var/spool/exim4/$folder; done
                     chown -R Debian-exim: /var/spool/exim4; exim4 -bdf -q1m &";
        Self::start(port, postrider, &files, start)
    }

    fn wait_until_it_answers(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.machine.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "no mail server: {ended:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the server has said.
    pub fn log(&self) -> String {
        Self::files(&self.folder.path().join("log")).concat()
    }

    /// The messages in this user's maildir.
    pub fn mail_of(&self, user: &str) -> Vec<String> {
        Self::files(&self.folder.path().join("mail").join(user).join("new"))
    }

    /// The text of each file in a folder; they belong to the users of that machine.
    fn files(folder: &Path) -> Vec<String> {
        let each = "for file in \"$1\"/*; do [ ! -f \"$file\" ] || { cat \"$file\"; printf '\\0'; }; done";
        let output = as_root(&["sh", "-c", each, "files"]).arg(folder).output().expect("sh runs");
        let all = String::from_utf8_lossy(&output.stdout).into_owned();
        all.split_terminator('\0').map(str::to_owned).collect()
    }
}

impl Drop for MailHost {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the mail server's log ---\n{}", self.log());
        }
        // The files are the users' of that machine.
        let [mail, log] = ["mail", "log"].map(|name| self.folder.path().join(name));
        drop(as_root(&["rm", "-rf", "--"]).args([mail, log]).status());
    }
}

/// Lets the processes of servers in that have a user of their own.
pub fn open_to_all(folder: &Path) {
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
}

/// A file that we ship for mail servers.
pub fn shipped(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/mail-servers").join(name);
    fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

fn as_root(words: &[&str]) -> Command {
    let is_root = super::owner::Owner::find().names.is_none();
    let sudo: &[&str] = if is_root { &[] } else { &["sudo", "-n"] };
    let mut words = sudo.iter().chain(words);
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words);
    command
}
