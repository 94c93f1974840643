//! A private Courier IMAP for tests: own folder, own port, gone when it is dropped. It runs from where
//! `tests/support/fetch-servers` unpacked it, with gamin, without which its IDLE would never speak.
//!
//! Courier asks its authentication daemon on a socket whose path is compiled in. So its processes see a `/run` of their
//! own, where a thread of the test answers instead: everybody may log in.

use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tempfile::TempDir;

use super::owner::Owner;
use super::process_group::{ProcessGroup, free_ports, terminate, with_variable};
use super::unpacked;

/// Variables of Debian's `/etc/courier/imapd`, with FAM for IDLE; what is not listed is as there.
const SETTINGS: [(&str, &str); 9] = [
    ("IMAP_CAPABILITY", "IMAP4rev1 UIDPLUS CHILDREN NAMESPACE THREAD=ORDEREDSUBJECT THREAD=REFERENCES SORT QUOTA IDLE"),
    ("IMAP_KEYWORDS", "1"),
    ("IMAP_ACL", "1"),
    ("IMAP_IDLE_TIMEOUT", "60"),
    ("IMAP_MAILBOX_SANITY_CHECK", "1"),
    ("IMAP_USELOCKS", "1"),
    ("IMAP_ENHANCEDIDLE", "1"),
    ("IMAP_STARTTLS", "NO"),
    ("IMAP_UMASK", "022"),
];

/// A running Courier.
pub struct Courier {
    folder: TempDir,
    processes: ProcessGroup,
    accounts: Option<Accounts>,
    delivered: AtomicUsize,
    pub imap_port: u16,
}

impl Courier {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        // A port that was free a moment ago may be taken by another test.
        for _ in 0..5 {
            let folder = tempfile::Builder::new().prefix("courier").tempdir().expect("a temporary folder");
            fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
            for name in ["authdaemon", "home"] {
                fs::create_dir(folder.path().join(name)).unwrap();
                Owner::find().give(&folder.path().join(name));
            }
            let accounts = Some(Accounts::answer(folder.path()));
            let ([imap_port], processes, delivered) = (free_ports(), ProcessGroup::default(), AtomicUsize::new(0));
            let courier = Self { folder, processes, accounts, delivered, imap_port };
            courier.run();
            if courier.answers() {
                return courier;
            }
            eprintln!("Courier did not start, trying other ports:\n{}", courier.log());
        }
        panic!("Courier did not start: it needs a mount namespace (`unshare -m`), as root or by user namespaces");
    }

    fn run(&self) {
        // A user keeps its own number, since Courier changes to the owner of the mail.
        let namespaces: &[&str] =
            if Owner::find().names.is_some() { &["--map-current-user", "--keep-caps", "-m"] } else { &["-m"] };
        let script = "mount -t tmpfs tmpfs /run && mkdir -p /run/courier/authdaemon && \
                      mount --bind \"$1\" /run/courier/authdaemon && shift && exec \"$@\"";
        let errors = File::create(self.folder.path().join("stderr")).unwrap();
        self.processes.run(
            Command::new("unshare")
                .args(namespaces)
                .args(["--", "sh", "-c", script, "sh"])
                .arg(self.folder.path().join("authdaemon"))
                .arg(unpacked::program("usr/sbin/couriertcpd"))
                .args(["-address=127.0.0.1", "-maxprocs=100", "-maxperip=100", "-nodnslookup", "-noidentlookup"])
                .arg(self.imap_port.to_string())
                .arg(unpacked::program("usr/lib/courier/courier/imaplogin"))
                .arg(unpacked::program("usr/bin/imapd"))
                .arg("Maildir")
                .envs(SETTINGS)
                .env("LD_LIBRARY_PATH", unpacked::library_path())
                .env("GAMIN_DEBUG_SERVER", unpacked::program("usr/libexec/gam_server"))
                .env("GAM_CLIENT_ID", self.folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(errors),
        );
    }

    fn answers(&self) -> bool {
        self.processes.answers(&[self.imap_port])
    }

    /// Stops the server; its mail stays.
    pub fn stop(&self) {
        self.processes.stop();
        // gamin's server leaves the group, and would stay for half a minute.
        terminate(&with_variable("GAM_CLIENT_ID", self.folder.path().to_str().expect("a path")));
    }

    /// Starts it again after [`Self::stop`], on the same port.
    pub fn start_again(&self) {
        self.run();
        assert!(self.answers(), "Courier did not start again:\n{}", self.log());
    }

    /// Where a user's mail is.
    pub fn home(&self, user: &str) -> PathBuf {
        self.folder.path().join("home").join(user)
    }

    /// Delivers a message into a user's INBOX as any program does: a file that is renamed into place.
    pub fn deliver(&self, user: &str, message: &str) {
        let home = self.home(user);
        make_maildir(&home);
        let number = self.delivered.fetch_add(1, Ordering::Relaxed);
        let now = jiff::Timestamp::now();
        // Courier gives UIDs in the order of these names.
        let name = format!("{}.M{:06}P{number:05}.localhost", now.as_second(), now.subsec_microsecond());
        let written = home.join("Maildir/tmp").join(&name);
        fs::write(&written, message.replace("\r\n", "\n")).unwrap();
        Owner::find().give(&written);
        fs::rename(written, home.join("Maildir/new").join(name)).unwrap();
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.stop();
        drop(self.accounts.take());
        if std::thread::panicking() {
            eprintln!("--- Courier's log ---\n{}", self.log());
        }
    }
}

fn make_maildir(home: &Path) {
    let owner = Owner::find();
    for folder in ["", "Maildir", "Maildir/tmp", "Maildir/new", "Maildir/cur"].map(|name| home.join(name)) {
        if fs::create_dir(&folder).is_ok() {
            owner.give(&folder);
        }
    }
}

/// In place of Courier's authentication daemon.
struct Accounts {
    socket: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Accounts {
    fn answer(folder: &Path) -> Self {
        let socket = folder.join("authdaemon/socket");
        let listener = UnixListener::bind(&socket).unwrap();
        fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
        let (stop, homes) = (Arc::new(AtomicBool::new(false)), folder.join("home"));
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                for question in listener.incoming().map_while(Result::ok) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // A client that hung up needs no answer.
                    drop(admit(question, &homes));
                }
            }
        });
        Self { socket, stop, thread: Some(thread) }
    }
}

impl Drop for Accounts {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(UnixStream::connect(&self.socket));
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Reads `AUTH <length>\n<service>\nlogin\n<user>\n<password>\n` and says where the user's mail is.
fn admit(mut question: UnixStream, homes: &Path) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    let read = question.read(&mut buffer)?;
    let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
    let Some(user) = text.split_once("\nlogin\n").and_then(|(_, rest)| rest.lines().next()) else {
        return question.write_all(b"FAIL\n");
    };
    let (home, owner) = (homes.join(user), Owner::find());
    make_maildir(&home);
    let (uid, gid, home) = (owner.uid, owner.gid, home.display());
    write!(question, "UID={uid}\nGID={gid}\nHOME={home}\nADDRESS={user}\nNAME={user}\n.\n")
}
