//! One suite of what the watcher promises, run on every kind of IMAP server: Dovecot (NOTIFY and QRESYNC), Cyrus
//! (QRESYNC and IDLE) and Courier (IDLE and nothing else). Each test has a user of its own on a server that it shares.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use postrider::event::{Draft, Event, EventKind};
use postrider::registry::Account;
use postrider::source::imap::ImapConfig;
use support::courier::Courier;
use support::cyrus::Cyrus;
use support::dovecot::Dovecot;
use support::mail_server::{MailServer, account, shared};
use support::raw_imap::RawImap;
use support::watching::{Watching, config};
use tempfile::TempDir;

/// Runs each function on each server.
macro_rules! on_every_server {
    ($($test:ident)*) => {
        on_every_server!(@ dovecot Dovecot $($test)*);
        on_every_server!(@ cyrus Cyrus $($test)*);
        on_every_server!(@ courier Courier $($test)*);
    };
    (@ $name:ident $server:ident $($test:ident)*) => {
        mod $name {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test::<super::$server>().await;
                }
            )*
        }
    };
}

on_every_server! {
    new_mail_is_announced_once_and_in_order
    mail_read_elsewhere_is_announced
    flags_set_and_cleared_elsewhere_are_announced
    an_expunge_elsewhere_is_announced
    a_move_elsewhere_is_no_new_mail
    a_copy_elsewhere_is_no_new_mail
    mailboxes_created_renamed_and_deleted_elsewhere_are_announced
    several_mailboxes_of_one_account_are_watched
    a_mailbox_is_found_by_its_use
    a_connection_that_the_server_closes_costs_nothing
    what_happened_while_stopped_is_caught_up
    a_restart_of_the_server_costs_nothing
}

const KINDS: [EventKind; 10] = [
    EventKind::MessageNew,
    EventKind::MessageAppend,
    EventKind::MessageMove,
    EventKind::MessageExpunge,
    EventKind::MessageRead,
    EventKind::FlagsSet,
    EventKind::FlagsClear,
    EventKind::MailboxCreate,
    EventKind::MailboxDelete,
    EventKind::MailboxRename,
];

async fn new_mail_is_announced_once_and_in_order<S: MailServer>() {
    let mut story = Story::<S>::begin("new", &["INBOX"]).await;
    for number in 1..=3 {
        story.deliver(&format!("mail {number}")).await;
        let event = story.until(EventKind::MessageNew).await;
        assert_eq!(subject(&event), format!("mail {number}"));
        assert_eq!((event.uid, event.mailbox.as_deref()), (Some(number), Some("INBOX")));
        let counts = event.counts.expect("counts");
        assert_eq!((counts.messages, counts.unseen), (Some(number), Some(number)), "mail {number}");
    }
    story.deliver("in a").await;
    story.deliver("burst").await;
    story.end(&["mail 1", "mail 2", "mail 3", "in a", "burst"]).await;
}

async fn mail_read_elsewhere_is_announced<S: MailServer>() {
    let mut story = Story::<S>::begin("read", &["INBOX"]).await;
    story.deliver_and_see(&["one", "two", "three"]).await;
    let mut reader = story.reader().await;
    reader.command("SELECT INBOX").await;
    reader.command("UID STORE 2 +FLAGS (\\Seen)").await;
    story.until_uids(EventKind::MessageRead, "INBOX", &[2]).await;
    reader.command("UID STORE 1,3 +FLAGS (\\Seen)").await;
    let last = story.until_uids(EventKind::MessageRead, "INBOX", &[1, 3]).await;
    assert_eq!(last.counts.and_then(|counts| counts.unseen), Some(0), "{last:?}");
    story.end(&["one", "two", "three"]).await;
}

async fn flags_set_and_cleared_elsewhere_are_announced<S: MailServer>() {
    let mut story = Story::<S>::begin("flags", &["INBOX"]).await;
    story.deliver_and_see(&["one", "two"]).await;
    let mut reader = story.reader().await;
    reader.command("SELECT INBOX").await;
    reader.command("UID STORE 1 +FLAGS (\\Flagged)").await;
    let set = story.until_uids(EventKind::FlagsSet, "INBOX", &[1]).await;
    assert_eq!(set.flags.as_deref(), Some(["\\Flagged".to_owned()].as_slice()));
    reader.command("UID STORE 1 -FLAGS (\\Flagged)").await;
    let cleared = story.until_uids(EventKind::FlagsClear, "INBOX", &[1]).await;
    assert_eq!(cleared.flags.as_deref(), Some(["\\Flagged".to_owned()].as_slice()));
    story.end(&["one", "two"]).await;
    assert_eq!(story.count(EventKind::FlagsSet), 1);
    assert_eq!(story.count(EventKind::MessageRead), 0);
}

async fn an_expunge_elsewhere_is_announced<S: MailServer>() {
    let mut story = Story::<S>::begin("expunge", &["INBOX"]).await;
    story.deliver_and_see(&["one", "two", "three"]).await;
    let mut reader = story.reader().await;
    reader.command("SELECT INBOX").await;
    reader.expunge("2").await;
    let event = story.until_uids(EventKind::MessageExpunge, "INBOX", &[2]).await;
    assert_eq!(event.counts.and_then(|counts| counts.messages), Some(2), "{event:?}");
    reader.expunge("1,3").await;
    story.until_uids(EventKind::MessageExpunge, "INBOX", &[1, 3]).await;
    story.end(&["one", "two", "three"]).await;
}

async fn a_move_elsewhere_is_no_new_mail<S: MailServer>() {
    let archive = S::mailbox("Archive");
    let mut story = Story::<S>::begin_with("move", &["Archive"], &["INBOX", &archive]).await;
    story.deliver_and_see(&["one", "two"]).await;
    let mut reader = story.reader().await;
    reader.command("SELECT INBOX").await;
    reader.move_to("1", &archive).await;
    let moved = story.until(EventKind::MessageMove).await;
    assert_eq!((moved.mailbox.as_deref(), moved.uid), (Some(archive.as_str()), Some(1)), "{moved:?}");
    let old_uid = &moved.data.as_ref().expect("what it was there")["old_uid"];
    assert_eq!((moved.old_mailbox.as_deref(), old_uid), (Some("INBOX"), &1.into()), "{moved:?}");
    story.end(&["one", "two"]).await;
    assert_eq!(story.count(EventKind::MessageMove), 1);
}

async fn a_copy_elsewhere_is_no_new_mail<S: MailServer>() {
    let archive = S::mailbox("Archive");
    let mut story = Story::<S>::begin_with("copy", &["Archive"], &["INBOX", &archive]).await;
    story.deliver_and_see(&["one", "two"]).await;
    let mut reader = story.reader().await;
    reader.command("SELECT INBOX").await;
    reader.command(&format!("UID COPY 2 {archive}")).await;
    let copied = story.until(EventKind::MessageAppend).await;
    assert_eq!((copied.mailbox.as_deref(), copied.uid), (Some(archive.as_str()), Some(1)), "{copied:?}");
    story.end(&["one", "two"]).await;
    assert_eq!(story.count(EventKind::MessageMove), 0);
}

async fn mailboxes_created_renamed_and_deleted_elsewhere_are_announced<S: MailServer>() {
    let mut story = Story::<S>::begin("mailboxes", &["*"]).await;
    let (old, new) = (S::mailbox("Old"), S::mailbox("New"));
    let mut reader = story.reader().await;
    reader.command(&format!("CREATE {old}")).await;
    // As in the beginning: Courier's UIDVALIDITY lasts from here on.
    reader.command(&format!("SELECT {old}")).await;
    reader.command("SELECT INBOX").await;
    let created = story.until(EventKind::MailboxCreate).await;
    assert_eq!(created.mailbox.as_deref(), Some(old.as_str()), "{created:?}");
    reader.append(&old, &message("kept")).await;
    story.until_subject("kept").await;

    reader.command(&format!("RENAME {old} {new}")).await;
    if S::RENAME_KEEPS_UID_VALIDITY {
        let renamed = story.until(EventKind::MailboxRename).await;
        assert_eq!(renamed.mailbox.as_deref(), Some(new.as_str()), "{renamed:?}");
        assert_eq!(renamed.old_mailbox.as_deref(), Some(old.as_str()), "{renamed:?}");
    } else {
        // Nothing tells it from another mailbox; its messages are known all the same.
        let deleted = story.until(EventKind::MailboxDelete).await;
        assert_eq!(deleted.mailbox.as_deref(), Some(old.as_str()), "{deleted:?}");
        let created = story.until(EventKind::MailboxCreate).await;
        assert_eq!(created.mailbox.as_deref(), Some(new.as_str()), "{created:?}");
        story.until(EventKind::MessageAppend).await;
    }

    reader.command(&format!("DELETE {new}")).await;
    let deleted = story.until(EventKind::MailboxDelete).await;
    assert_eq!(deleted.mailbox.as_deref(), Some(new.as_str()), "{deleted:?}");
    story.end(&["kept"]).await;
    let once = if S::RENAME_KEEPS_UID_VALIDITY { 1 } else { 2 };
    assert_eq!((story.count(EventKind::MailboxCreate), story.count(EventKind::MailboxDelete)), (once, once));
}

async fn several_mailboxes_of_one_account_are_watched<S: MailServer>() {
    let names = ["Work", "Lists/a", "Lists/b", "Other"];
    let [work, first, second, other] = names.map(S::mailbox);
    let pattern = S::mailbox("Lists/*");
    let mut story = Story::<S>::begin_with("several", &names, &["INBOX", &work, &pattern]).await;
    let mut reader = story.reader().await;
    for mailbox in [&first, &second, &work] {
        reader.append(mailbox, &message(&format!("to {mailbox}"))).await;
        let event = story.until_subject(&format!("to {mailbox}")).await;
        assert_eq!(event.mailbox.as_ref(), Some(mailbox));
    }
    reader.append(&other, &message("not watched")).await;
    story.deliver("to INBOX").await;
    story.until_subject("to INBOX").await;
    let expected = [&first, &second, &work].map(|mailbox| format!("to {mailbox}"));
    story.end(&[&expected[0], &expected[1], &expected[2], "to INBOX"]).await;
}

/// By its attribute where the server lets a user give it one (Cyrus, RFC 6154), else by its name.
async fn a_mailbox_is_found_by_its_use<S: MailServer>() {
    let server = shared::<S>();
    let mut program = RawImap::login(server.imap_port(), "use").await;
    let sent = if program.offers("CREATE-SPECIAL-USE") { "Outgoing".to_owned() } else { S::mailbox("Sent") };
    let attribute = if program.offers("CREATE-SPECIAL-USE") { " (USE (\\Sent))" } else { "" };
    program.command(&format!("CREATE {sent}{attribute}")).await;
    let mut story = Story::begin_on(server, "use", &[], &["INBOX", "\\Sent"]).await;
    program.append(&sent, &message("by me")).await;
    let stored = story.until(EventKind::MessageAppend).await;
    assert_eq!((stored.mailbox.as_deref(), subject(&stored)), (Some(sent.as_str()), "by me"));
    story.end(&[]).await;
}

async fn a_connection_that_the_server_closes_costs_nothing<S: MailServer>() {
    let mut story = Story::<S>::begin("closed", &["INBOX"]).await;
    story.deliver_and_see(&["before"]).await;
    for subject in ["first", "second", "third"] {
        story.server.disconnect(&story.user).await;
        story.deliver(subject).await;
        story.until_subject(subject).await;
    }
    story.end(&["before", "first", "second", "third"]).await;
}

async fn what_happened_while_stopped_is_caught_up<S: MailServer>() {
    let mut story = Story::<S>::begin("away", &["INBOX"]).await;
    story.deliver_and_see(&["kept", "read", "removed"]).await;
    story.stop().await;
    let mut reader = story.reader().await;
    reader.command("SELECT INBOX").await;
    reader.command("UID STORE 2 +FLAGS (\\Seen)").await;
    reader.expunge("3").await;
    for number in 4..=8 {
        story.deliver(&format!("mail {number}")).await;
    }
    story.start_again();
    story.until_uids(EventKind::MessageNew, "INBOX", &[4, 5, 6, 7, 8]).await;
    story.had_uids(EventKind::MessageRead, "INBOX", &[2]).await;
    story.had_uids(EventKind::MessageExpunge, "INBOX", &[3]).await;
    story.end(&["kept", "read", "removed", "mail 4", "mail 5", "mail 6", "mail 7", "mail 8"]).await;
    assert_eq!((story.count(EventKind::MessageRead), story.count(EventKind::MessageExpunge)), (1, 1));
}

async fn a_restart_of_the_server_costs_nothing<S: MailServer>() {
    let mut story = Story::begin_on(Arc::new(S::start()), "restart", &[], &["INBOX"]).await;
    story.deliver_and_see(&["before"]).await;
    story.server.stop();
    story.until(EventKind::AccountDown).await;
    story.server.start_again();
    story.deliver("after").await;
    story.until_subject("after").await;
    story.end(&["before", "after"]).await;
}

/// The suite runs on a server with NOTIFY, on one with QRESYNC and no NOTIFY, and on one with neither.
#[tokio::test]
async fn the_servers_differ_in_what_they_offer() {
    async fn offers<S: MailServer>() -> [bool; 6] {
        let imap = RawImap::login(shared::<S>().imap_port(), "capable").await;
        ["IDLE", "UIDPLUS", "MOVE", "CONDSTORE", "QRESYNC", "NOTIFY"].map(|name| imap.offers(name))
    }
    assert_eq!(offers::<Dovecot>().await, [true, true, true, true, true, true]);
    assert_eq!(offers::<Cyrus>().await, [true, true, true, true, true, false]);
    assert_eq!(offers::<Courier>().await, [true, true, false, false, false, false]);
}

/// One user's account, watched, and everything that was said of it.
struct Story<S> {
    server: Arc<S>,
    user: String,
    accounts: [Account; 1],
    watching: Option<Watching>,
    seen: Vec<Event>,
    folder: TempDir,
}

impl<S: MailServer> Story<S> {
    async fn begin(user: &str, watched: &[&str]) -> Self {
        Self::begin_with(user, &[], watched).await
    }

    /// With mailboxes that are there before the watcher is.
    async fn begin_with(user: &str, mailboxes: &[&str], watched: &[&str]) -> Self {
        Self::begin_on(shared(), user, mailboxes, watched).await
    }

    async fn begin_on(server: Arc<S>, user: &str, mailboxes: &[&str], watched: &[&str]) -> Self {
        let mut reader = RawImap::login(server.imap_port(), user).await;
        for mailbox in mailboxes {
            reader.command(&format!("CREATE {}", S::mailbox(mailbox))).await;
            reader.command(&format!("SELECT {}", S::mailbox(mailbox))).await;
        }
        // Courier makes up a new UIDVALIDITY for each EXAMINE until somebody has opened the mailbox for writing.
        reader.command("SELECT INBOX").await;
        let mut account = account(server.imap_port(), user, watched);
        account.imap_mut().unwrap().events = Some(KINDS.to_vec());
        let (accounts, folder) = ([account], tempfile::tempdir().unwrap());
        let watching = Watching::start(folder.path(), &accounts, settings());
        let user = user.to_owned();
        let mut story = Self { server, user, accounts, watching: Some(watching), seen: Vec::new(), folder };
        story.until(EventKind::AccountUp).await;
        story
    }

    async fn reader(&self) -> RawImap {
        RawImap::login(self.server.imap_port(), &self.user).await
    }

    async fn deliver(&self, subject: &str) {
        self.server.deliver(&self.user, &message(subject)).await;
    }

    async fn deliver_and_see(&mut self, subjects: &[&str]) {
        for subject in subjects {
            self.deliver(subject).await;
            self.until_subject(subject).await;
        }
    }

    async fn event(&mut self) -> Draft {
        let event = self.watching.as_mut().expect("it is watched").event().await;
        self.seen.push(event.clone());
        event.draft
    }

    async fn until(&mut self, kind: EventKind) -> Draft {
        loop {
            let event = self.event().await;
            if event.kind == kind {
                return event;
            }
        }
    }

    /// Until the message of this subject is announced.
    async fn until_subject(&mut self, wanted: &str) -> Draft {
        loop {
            let event = self.until(EventKind::MessageNew).await;
            if subject(&event) == wanted {
                return event;
            }
        }
    }

    /// Until this happened to all of these messages, be it in one event or in several; returns the last.
    async fn until_uids(&mut self, kind: EventKind, mailbox: &str, wanted: &[u32]) -> Draft {
        loop {
            let event = self.event().await;
            if self.has_uids(kind, mailbox, wanted) {
                return event;
            }
        }
    }

    /// The same where it may have happened already.
    async fn had_uids(&mut self, kind: EventKind, mailbox: &str, wanted: &[u32]) {
        if !self.has_uids(kind, mailbox, wanted) {
            self.until_uids(kind, mailbox, wanted).await;
        }
    }

    fn has_uids(&self, kind: EventKind, mailbox: &str, wanted: &[u32]) -> bool {
        let drafts = self.seen.iter().map(|event| &event.draft);
        let fitting = drafts.filter(|draft| draft.kind == kind && draft.mailbox.as_deref() == Some(mailbox));
        let told: Vec<u32> = fitting.flat_map(uids).collect();
        wanted.iter().all(|uid| told.contains(uid))
    }

    fn count(&self, kind: EventKind) -> usize {
        self.seen.iter().filter(|event| event.draft.kind == kind).count()
    }

    async fn stop(&mut self) {
        self.watching.take().expect("it is watched").stop().await;
    }

    fn start_again(&mut self) {
        self.watching = Some(Watching::start(self.folder.path(), &self.accounts, settings()));
    }

    /// Waits until everything before was told, and checks that these messages and no others were announced, each once.
    async fn end(&mut self, subjects: &[&str]) {
        self.deliver("the end").await;
        self.until_subject("the end").await;
        self.stop().await;
        let drafts = self.seen.iter().map(|event| &event.draft);
        let announced: Vec<&str> = drafts.filter(|draft| draft.kind == EventKind::MessageNew).map(subject).collect();
        assert_eq!(announced, [subjects, &["the end"]].concat());
    }
}

impl<S> Drop for Story<S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for Event { draft, .. } in &self.seen {
                let (mailbox, uids) = (draft.mailbox.as_deref().unwrap_or_default(), uids(draft));
                eprintln!("{} was told: {} {mailbox} {uids:?} {}", self.user, draft.kind, subject(draft));
            }
        }
    }
}

/// Short pauses, so that servers without NOTIFY are asked often for their mailboxes.
fn settings() -> ImapConfig {
    ImapConfig { sweep_interval: Duration::from_secs(1), ..config() }
}

fn message(subject: &str) -> String {
    let id = subject.replace([' ', '/'], ".");
    format!(
        "From: Ada <ada@example.org>\nTo: alice@example.org\nDate: Fri, 20 Nov 2026 12:59:58 +0100\n\
         Subject: {subject}\nMessage-ID: <{id}@example.org>\n\nHello, here is {subject}.\n"
    )
}

fn subject(draft: &Draft) -> &str {
    draft.message.as_ref().and_then(|message| message.subject.as_deref()).unwrap_or_default()
}

fn uids(draft: &Draft) -> Vec<u32> {
    let ranges = draft.uids.as_deref().into_iter().flat_map(|set| set.split(','));
    let number = |text: &str| text.parse::<u32>().expect("a UID");
    let many = ranges.flat_map(|range| {
        let (first, last) = range.split_once(':').unwrap_or((range, range));
        number(first)..=number(last)
    });
    draft.uid.into_iter().chain(many).collect()
}
