//! A private Dovecot 2.3 for one test: own folder, own ports, own certificate, gone when it is dropped. Nothing of the
//! system's Dovecot is touched, and it runs as root as well as as anybody.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use postrider::registry::Account;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use super::owner::Owner;
use super::process_group::{ProcessGroup, free_ports};
use super::{lmtp, mail_server, within};

pub use super::mail_server::PASSWORD;

/// A running Dovecot.
pub struct Dovecot {
    folder: TempDir,
    processes: ProcessGroup,
    pub imap_port: u16,
    pub imaps_port: u16,
    pub lmtp_port: u16,
    /// Lines that a test adds to its configuration.
    more: String,
}

impl Dovecot {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Starts one with more lines in its configuration.
    pub fn start_with(more: &str) -> Self {
        // A port that was free a moment ago may be taken by another test.
        for _ in 0..5 {
            let dovecot = Self::prepare(more);
            dovecot.run();
            if dovecot.answers() {
                return dovecot;
            }
            eprintln!("dovecot did not start, trying other ports:\n{}", dovecot.log());
        }
        panic!("dovecot did not start");
    }

    fn prepare(more: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("dovecot").tempdir().expect("a temporary folder");
        // The processes of Dovecot that are not root must get in.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let [imap_port, lmtp_port, with_tls] = free_ports();
        let (processes, more) = (ProcessGroup::default(), more.to_owned());
        let dovecot = Self { folder, processes, imap_port, imaps_port: with_tls, lmtp_port, more };
        dovecot.write_files();
        dovecot
    }

    fn write_files(&self) {
        let root = self.folder.path();
        let (certificate, key, authority) = certificates();
        fs::write(root.join("cert.pem"), certificate).unwrap();
        fs::write(root.join("key.pem"), key).unwrap();
        fs::write(root.join("ca.pem"), authority).unwrap();
        fs::create_dir(root.join("mail")).unwrap();
        let owner = Owner::find();
        owner.give(&root.join("mail"));
        fs::write(root.join("dovecot.conf"), self.config(&owner)).unwrap();
    }

    fn config(&self, owner: &Owner) -> String {
        let root = self.folder.path().display();
        let (imap, imaps, lmtp) = (self.imap_port, self.imaps_port, self.lmtp_port);
        let Owner { uid, gid, .. } = owner;
        let mut config = format!(
            r"
base_dir = {root}/run
state_dir = {root}/state
log_path = {root}/dovecot.log
instance_name = {root}
listen = 127.0.0.1
protocols = imap lmtp
disable_plaintext_auth = no
ssl = yes
ssl_cert = <{root}/cert.pem
ssl_key = <{root}/key.pem
mail_location = maildir:~/Maildir
first_valid_uid = 1
mail_max_userip_connections = 100
auth_mechanisms = plain login
auth_failure_delay = 0
auth_username_chars =
mail_fsync = never
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={root}/mail/%u
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp}
  }}
}}
service anvil {{
  chroot =
}}
"
        );
        if let Some((user, group)) = &owner.names {
            // Only root may change to Dovecot's own users.
            for (key, value) in
                [("default_login_user", user), ("default_internal_user", user), ("default_internal_group", group)]
            {
                writeln!(config, "{key} = {value}").unwrap();
            }
        }
        config.push_str(&self.more);
        // The first that knows a user decides, so that a test's own come before it.
        write!(config, "\npassdb {{\n  driver = static\n  args = password={PASSWORD}\n}}\n").unwrap();
        config
    }

    fn run(&self) {
        self.processes.run(
            Command::new(program("dovecot"))
                .args(["-F", "-c"])
                .arg(self.config_file())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(File::create(self.folder.path().join("stderr")).unwrap()),
        );
    }

    fn answers(&self) -> bool {
        self.processes.answers(&[self.imap_port, self.imaps_port, self.lmtp_port])
    }

    /// Stops the server; its mail stays.
    pub fn stop(&self) {
        self.processes.stop();
    }

    /// Starts it again after [`Self::stop`], on the same ports.
    pub fn start_again(&self) {
        self.run();
        assert!(self.answers(), "dovecot did not start again:\n{}", self.log());
    }

    /// What it has logged, for a test's message.
    pub fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        read("dovecot.log") + &read("stderr")
    }

    /// The authority that its certificate comes from.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Where a user's INBOX is, for tests that fill it faster than by delivery.
    pub fn maildir(&self, user: &str) -> PathBuf {
        self.folder.path().join("mail").join(user).join("Maildir")
    }

    fn config_file(&self) -> PathBuf {
        self.folder.path().join("dovecot.conf")
    }

    /// An account for a user of this server, over loopback without protection.
    pub fn account(&self, user: &str, mailboxes: &[&str]) -> Account {
        mail_server::account(self.imap_port, user, mailboxes)
    }

    /// Runs `doveadm` and returns what it prints.
    pub async fn doveadm(&self, arguments: &[&str]) -> String {
        self.doveadm_with(arguments, b"").await
    }

    async fn doveadm_with(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut child = tokio::process::Command::new(program("doveadm"))
            .arg("-c")
            .arg(self.config_file())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("doveadm runs");
        child.stdin.take().unwrap().write_all(input).await.unwrap();
        let output = within("doveadm", child.wait_with_output()).await.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "doveadm {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Puts a message into a mailbox.
    pub async fn save(&self, user: &str, mailbox: &str, message: &str) {
        self.doveadm_with(&["save", "-u", user, "-m", mailbox], message.as_bytes()).await;
    }

    /// Delivers a message into a user's INBOX by LMTP (RFC 2033), as a mail server would. It is there on return.
    pub async fn deliver(&self, user: &str, message: &str) {
        lmtp::deliver(self.lmtp_port, user, message).await;
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("--- dovecot's log ---\n{}", self.log());
        }
    }
}

fn program(name: &str) -> PathBuf {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists()).unwrap_or_else(|| {
        panic!(
            "{name} is not installed: these tests need Dovecot 2.3 (Debian: apt-get install dovecot-imapd dovecot-lmtpd)"
        )
    })
}

/// A server certificate for loopback, its key, and the authority that signed it; all PEM.
fn certificates() -> (String, String, String) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "postrider test authority");
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    (certificate.pem(), key.serialize_pem(), authority_certificate.pem())
}
