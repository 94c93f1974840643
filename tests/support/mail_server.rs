//! What the tests need of any mail server, so that one suite runs on each.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use postrider::registry::{Account, ImapEndpoint, ImapSecurity};
use secrecy::SecretString;

use super::courier::Courier;
use super::cyrus::Cyrus;
use super::dovecot::Dovecot;
use super::process_group::{terminate, with_variable};
use super::raw_imap::RawImap;

/// The password of every user.
pub const PASSWORD: &str = "secret";

/// A private IMAP server that makes any user at the first delivery or login.
pub trait MailServer: Sized + Send + Sync + 'static {
    /// Courier gives a renamed mailbox a new one, and has nothing else by which it could be recognised.
    const RENAME_KEEPS_UID_VALIDITY: bool = true;

    /// Starts one and waits until it answers.
    fn start() -> Self;

    fn imap_port(&self) -> u16;

    /// Stops the server; its mail stays.
    fn stop(&self);

    /// Starts it again after [`Self::stop`], on the same ports.
    fn start_again(&self);

    /// Delivers a message into a user's INBOX. It is there on return.
    async fn deliver(&self, user: &str, message: &str);

    /// Ends the connections of one user.
    async fn disconnect(&self, user: &str);

    /// The name of a mailbox beside INBOX in the user's namespace; `/` stands between levels.
    fn mailbox(name: &str) -> String;

    /// Where [`shared`] keeps the one that is running.
    fn running() -> &'static Mutex<Weak<Self>>;
}

/// The server that the tests of one binary share. It ends with the last test that uses it, since what is in a static
/// would never be dropped.
pub fn shared<S: MailServer>() -> Arc<S> {
    let mut running = S::running().lock().unwrap_or_else(PoisonError::into_inner);
    running.upgrade().unwrap_or_else(|| {
        let server = Arc::new(S::start());
        *running = Arc::downgrade(&server);
        server
    })
}

/// An account for a user of a server on this machine, without protection.
pub fn account(port: u16, user: &str, mailboxes: &[&str]) -> Account {
    let imap = ImapEndpoint {
        port: Some(port),
        security: ImapSecurity::None,
        password_typed: Some(SecretString::from(PASSWORD)),
        mailboxes: mailboxes.iter().map(|&mailbox| mailbox.into()).collect(),
        ..ImapEndpoint::new("127.0.0.1", user)
    };
    Account { imap: Some(imap.into()), ..Account::new(user.parse().unwrap()) }
}

impl MailServer for Dovecot {
    fn start() -> Self {
        Self::start()
    }

    fn imap_port(&self) -> u16 {
        self.imap_port
    }

    fn stop(&self) {
        self.stop();
    }

    fn start_again(&self) {
        self.start_again();
    }

    async fn deliver(&self, user: &str, message: &str) {
        self.deliver(user, message).await;
    }

    async fn disconnect(&self, user: &str) {
        self.doveadm(&["kick", user]).await;
    }

    fn mailbox(name: &str) -> String {
        name.replace('/', ".")
    }

    fn running() -> &'static Mutex<Weak<Self>> {
        static RUNNING: Mutex<Weak<Dovecot>> = Mutex::new(Weak::new());
        &RUNNING
    }
}

impl MailServer for Cyrus {
    fn start() -> Self {
        Self::start()
    }

    fn imap_port(&self) -> u16 {
        self.imap_port
    }

    fn stop(&self) {
        self.stop();
    }

    fn start_again(&self) {
        self.start_again();
    }

    async fn deliver(&self, user: &str, message: &str) {
        self.deliver(user, message).await;
    }

    async fn disconnect(&self, user: &str) {
        terminate(&self.sessions(user));
    }

    fn mailbox(name: &str) -> String {
        name.to_owned()
    }

    fn running() -> &'static Mutex<Weak<Self>> {
        static RUNNING: Mutex<Weak<Cyrus>> = Mutex::new(Weak::new());
        &RUNNING
    }
}

impl MailServer for Courier {
    const RENAME_KEEPS_UID_VALIDITY: bool = false;

    fn start() -> Self {
        Self::start()
    }

    fn imap_port(&self) -> u16 {
        self.imap_port
    }

    fn stop(&self) {
        self.stop();
    }

    fn start_again(&self) {
        self.start_again();
    }

    async fn deliver(&self, user: &str, message: &str) {
        self.deliver(user, message);
    }

    async fn disconnect(&self, user: &str) {
        terminate(&with_variable("HOME", self.home(user).to_str().expect("a path")));
    }

    fn mailbox(name: &str) -> String {
        // Courier has everything below INBOX.
        format!("INBOX.{}", name.replace('/', "."))
    }

    fn running() -> &'static Mutex<Weak<Self>> {
        static RUNNING: Mutex<Weak<Courier>> = Mutex::new(Weak::new());
        &RUNNING
    }
}

/// A mail reader of this user.
pub async fn reader<S: MailServer>(server: &S, user: &str) -> RawImap {
    RawImap::login(server.imap_port(), user).await
}
