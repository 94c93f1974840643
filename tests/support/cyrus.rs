//! A private Cyrus IMAP 3.6 for tests: own folder, own ports, gone when it is dropped. It runs from where
//! `tests/support/fetch-servers` unpacked it.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::owner::Owner;
use super::process_group::{ProcessGroup, free_ports};
use super::{lmtp, unpacked};

/// A running Cyrus.
pub struct Cyrus {
    folder: TempDir,
    processes: ProcessGroup,
    pub imap_port: u16,
    pub lmtp_port: u16,
    /// JMAP over HTTP.
    pub http_port: u16,
}

impl Cyrus {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        // A port that was free a moment ago may be taken by another test.
        for _ in 0..5 {
            let folder = tempfile::Builder::new().prefix("cyrus").tempdir().expect("a temporary folder");
            let [imap_port, lmtp_port, http_port] = free_ports();
            let cyrus = Self { folder, processes: ProcessGroup::default(), imap_port, lmtp_port, http_port };
            cyrus.write_files();
            cyrus.run();
            if cyrus.answers() {
                return cyrus;
            }
            eprintln!("Cyrus did not start, trying other ports:\n{}", cyrus.log());
        }
        panic!("Cyrus did not start");
    }

    fn write_files(&self) {
        let (root, owner) = (self.folder.path(), Owner::find());
        fs::set_permissions(root, Permissions::from_mode(0o755)).unwrap();
        for folder in ["conf", "conf/socket", "conf/db", "conf/log", "mail", "run"] {
            fs::create_dir(root.join(folder)).unwrap();
            owner.give(&root.join(folder));
        }
        fs::write(root.join("imapd.conf"), self.imapd_conf(&owner)).unwrap();
        fs::write(root.join("cyrus.conf"), self.cyrus_conf()).unwrap();
    }

    fn imapd_conf(&self, owner: &Owner) -> String {
        let root = self.folder.path().display();
        let (user, group) = owner.names.clone().unwrap_or_else(|| ("nobody".into(), "nogroup".into()));
        format!(
            "configdirectory: {root}/conf\n\
             defaultpartition: default\n\
             partition-default: {root}/mail\n\
             proc_path: {root}/run/proc\n\
             mboxname_lockpath: {root}/run/lock\n\
             idlesocket: {root}/run/idle\n\
             servername: localhost\n\
             cyrus_user: {user}\n\
             cyrus_group: {group}\n\
             allowplaintext: yes\n\
             sasl_pwcheck_method: alwaystrue\n\
             sasl_mech_list: PLAIN\n\
             unixhierarchysep: yes\n\
             altnamespace: yes\n\
             autocreate_quota: 0\n\
             autocreate_post: yes\n\
             conversations: yes\n\
             httpmodules: jmap\n\
             jmap_pushpoll: 1s\n\
             expunge_mode: delayed\n\
             delete_mode: delayed\n\
             skiplist_unsafe: yes\n"
        )
    }

    fn cyrus_conf(&self) -> String {
        let config = self.folder.path().join("imapd.conf");
        let command = |name: &str| {
            format!("{} -C {}", unpacked::program(&format!("usr/lib/cyrus/bin/{name}")).display(), config.display())
        };
        let Self { imap_port, lmtp_port, http_port, .. } = self;
        format!(
            "START {{\n  recover cmd=\"{} -r\"\n}}\n\
             DAEMON {{\n  idled cmd=\"{} -d\"\n}}\n\
             SERVICES {{\n\
             \x20 imap cmd=\"{}\" listen=\"127.0.0.1:{imap_port}\" prefork=1\n\
             \x20 http cmd=\"{}\" listen=\"127.0.0.1:{http_port}\" prefork=1\n\
             \x20 lmtp cmd=\"{} -a\" listen=\"127.0.0.1:{lmtp_port}\" prefork=1\n\
             }}\n",
            command("ctl_cyrusdb"),
            command("idled"),
            command("imapd"),
            command("httpd"),
            command("lmtpd"),
        )
    }

    fn run(&self) {
        let root = self.folder.path();
        self.processes.run(
            Command::new(unpacked::program("usr/lib/cyrus/bin/master"))
                .arg("-C")
                .arg(root.join("imapd.conf"))
                .arg("-M")
                .arg(root.join("cyrus.conf"))
                .arg("-p")
                .arg(root.join("run/pid"))
                .arg("-D")
                .env("LD_LIBRARY_PATH", unpacked::library_path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(File::create(root.join("stderr")).unwrap()),
        );
    }

    fn answers(&self) -> bool {
        self.processes.answers(&[self.imap_port, self.lmtp_port, self.http_port])
    }

    /// Stops the server; its mail stays.
    pub fn stop(&self) {
        self.processes.stop();
    }

    /// Starts it again after [`Self::stop`], on the same ports.
    pub fn start_again(&self) {
        self.run();
        assert!(self.answers(), "Cyrus did not start again:\n{}", self.log());
    }

    /// Delivers a message into a user's INBOX by LMTP. It is there on return.
    pub async fn deliver(&self, user: &str, message: &str) {
        lmtp::deliver(self.lmtp_port, user, message).await;
    }

    /// The processes that serve this user: each says so in a file of its own.
    pub fn sessions(&self, user: &str) -> Vec<u32> {
        let files = fs::read_dir(self.folder.path().join("run/proc")).into_iter().flatten();
        let serves = |path: &PathBuf| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.split_whitespace().any(|word| word == user)
        };
        let paths = files.filter_map(|entry| Some(entry.ok()?.path())).filter(serves);
        paths.filter_map(|path| path.file_name()?.to_str()?.parse().ok()).collect()
    }

    /// What it said; all else goes to the system's log, where there is one.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }
}

impl Drop for Cyrus {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("--- Cyrus' output ---\n{}", self.log());
        }
    }
}
