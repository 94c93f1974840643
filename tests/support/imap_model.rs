//! A little mailbox store and the IMAP sessions on it, by the book and without I/O: lines go in, lines come out.
//!
//! [`super::misbehaving_imap`] puts sockets under it and breaks what it says. A session offers what the test gives it
//! to offer: an extension that is not offered is answered BAD.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

/// What a bare server offers.
pub const BASIC: &str = "IMAP4rev1 IDLE";
/// One without IDLE.
pub const BARE: &str = "IMAP4rev1";
/// What Dovecot offers, as far as the model does it.
pub const RICH: &str = "IMAP4rev1 SASL-IR ID ENABLE IDLE UNSELECT NAMESPACE UIDPLUS LIST-EXTENDED CONDSTORE QRESYNC ESEARCH \
                        LIST-STATUS MOVE PREVIEW STATUS=SIZE LITERAL+ NOTIFY SPECIAL-USE OBJECTID";
/// The same without NOTIFY.
pub const QRESYNC: &str = "IMAP4rev1 SASL-IR ID ENABLE IDLE UNSELECT NAMESPACE UIDPLUS LIST-EXTENDED CONDSTORE QRESYNC \
                           ESEARCH LIST-STATUS MOVE SPECIAL-USE";
/// CONDSTORE and no more.
pub const CONDSTORE: &str = "IMAP4rev1 ENABLE IDLE CONDSTORE";

/// One message.
#[derive(Debug, Clone)]
pub struct Message {
    pub uid: u32,
    pub subject: String,
    flags: BTreeSet<String>,
    mod_seq: u64,
    /// Stays the same wherever it is moved.
    id: u64,
    /// INTERNALDATE.
    received: String,
}

/// One mailbox.
#[derive(Debug, Clone)]
pub struct Mailbox {
    name: String,
    special_use: &'static str,
    id: u64,
    pub uid_validity: u32,
    pub uid_next: u32,
    pub mod_seq: u64,
    messages: Vec<Message>,
    vanished: Vec<(u64, u32)>,
}

#[derive(Debug, Default)]
struct State {
    mailboxes: Vec<Mailbox>,
    ids: u64,
    delivered: BTreeSet<String>,
}

/// The mailboxes of one user. Cheap to clone; clones share.
#[derive(Debug, Clone)]
pub struct Store {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
}

impl Default for Store {
    fn default() -> Self {
        let store = Self { state: Arc::default(), changed: watch::Sender::new(()) };
        store.create("INBOX", "");
        store
    }
}

impl Store {
    /// A store whose INBOX holds so many messages.
    pub fn with_old(count: u32) -> Self {
        let store = Self::default();
        for number in 1..=count {
            store.deliver("INBOX", &format!("old {number}"));
        }
        store.change("INBOX", |inbox| {
            for message in &mut inbox.messages {
                "17-Jul-1996 02:44:25 -0700".clone_into(&mut message.received);
            }
        });
        store
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Looks at a mailbox, or changes it, and wakes whoever watches.
    pub fn change<T>(&self, mailbox: &str, change: impl FnOnce(&mut Mailbox) -> T) -> T {
        let mut state = self.lock();
        let changed = change(state.mailboxes.iter_mut().find(|found| found.name == mailbox).expect("the mailbox"));
        drop(state);
        self.changed.send_replace(());
        changed
    }

    pub fn create(&self, name: &str, special_use: &'static str) {
        let mut state = self.lock();
        state.ids += 1;
        let (id, uid_validity) = (state.ids, 1_700_000_000 + u32::try_from(state.ids).unwrap());
        state.mailboxes.push(Mailbox {
            name: name.to_owned(),
            special_use,
            id,
            uid_validity,
            uid_next: 1,
            mod_seq: 1,
            messages: Vec::new(),
            vanished: Vec::new(),
        });
        drop(state);
        self.changed.send_replace(());
    }

    pub fn delete(&self, name: &str) {
        self.lock().mailboxes.retain(|mailbox| mailbox.name != name);
        self.changed.send_replace(());
    }

    /// A new message arrives; returns its UID.
    pub fn deliver(&self, mailbox: &str, subject: &str) -> u32 {
        let id = {
            let mut state = self.lock();
            state.ids += 1;
            assert!(state.delivered.insert(subject.to_owned()), "subjects tell messages apart");
            state.ids
        };
        self.change(mailbox, |mailbox| mailbox.add(subject, id))
    }

    pub fn flag(&self, mailbox: &str, uid: u32, flag: &str) {
        self.change(mailbox, |mailbox| mailbox.touch(uid, |flags| flags.insert(flag.to_owned())));
    }

    pub fn expunge(&self, mailbox: &str, uid: u32) {
        self.change(mailbox, |mailbox| mailbox.expunge(uid));
    }

    /// The subject of the message with this UID, if it is there.
    pub fn subject(&self, mailbox: &str, uid_validity: u32, uid: u32) -> Option<String> {
        let state = self.lock();
        let mailbox =
            state.mailboxes.iter().find(|found| found.name == mailbox && found.uid_validity == uid_validity)?;
        mailbox.messages.iter().find(|message| message.uid == uid).map(|message| message.subject.clone())
    }

    /// How many messages there are.
    pub fn count(&self, mailbox: &str) -> usize {
        let state = self.lock();
        state.mailboxes.iter().find(|found| found.name == mailbox).expect("the mailbox").messages.len()
    }

    /// The subjects of all messages that ever came and are not old.
    pub fn delivered(&self) -> BTreeSet<String> {
        self.lock().delivered.iter().filter(|subject| !subject.starts_with("old")).cloned().collect()
    }

    /// Wakes with each change.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

impl Mailbox {
    fn add(&mut self, subject: &str, id: u64) -> u32 {
        let uid = self.uid_next;
        self.uid_next += 1;
        self.mod_seq += 1;
        let (subject, mod_seq) = (subject.to_owned(), self.mod_seq);
        let received = jiff::Zoned::now().strftime("%d-%b-%Y %H:%M:%S %z").to_string();
        self.messages.push(Message { uid, subject, flags: BTreeSet::new(), mod_seq, id, received });
        uid
    }

    /// Says whether `change` changed something.
    fn touch(&mut self, uid: u32, change: impl FnOnce(&mut BTreeSet<String>) -> bool) -> bool {
        let Some(message) = self.messages.iter_mut().find(|message| message.uid == uid) else { return false };
        let changed = change(&mut message.flags);
        if changed {
            self.mod_seq += 1;
            message.mod_seq = self.mod_seq;
        }
        changed
    }

    fn expunge(&mut self, uid: u32) {
        self.mod_seq += 1;
        self.messages.retain(|message| message.uid != uid);
        self.vanished.push((self.mod_seq, uid));
    }

    /// All UIDs are given out anew, as after a restore from a backup.
    pub fn renew_validity(&mut self) {
        self.uid_validity += 1000;
        self.vanished.clear();
        for (uid, message) in (1..).zip(&mut self.messages) {
            message.uid = uid;
        }
        self.uid_next = u32::try_from(self.messages.len()).unwrap() + 1;
    }

    fn unseen(&self) -> usize {
        self.messages.iter().filter(|message| !message.flags.contains("\\Seen")).count()
    }

    fn status(&self, items: &str) -> String {
        let values: Vec<String> = items
            .split_whitespace()
            .filter_map(|item| {
                let value = match item {
                    "MESSAGES" => self.messages.len().to_string(),
                    "UIDNEXT" => self.uid_next.to_string(),
                    "UIDVALIDITY" => self.uid_validity.to_string(),
                    "UNSEEN" => self.unseen().to_string(),
                    "RECENT" => "0".to_owned(),
                    "SIZE" => (self.messages.len() * 99).to_string(),
                    "HIGHESTMODSEQ" => self.mod_seq.to_string(),
                    "MAILBOXID" => format!("(F{})", self.id),
                    _ => return None,
                };
                Some(format!("{item} {value}"))
            })
            .collect();
        format!("* STATUS {} ({})\r\n", self.name, values.join(" "))
    }

    fn list(&self) -> String {
        format!("* LIST (\\HasNoChildren {}) \"/\" {}\r\n", self.special_use, self.name).replace(" )", ")")
    }

    fn fetch(&self, index: usize, items: &str) -> String {
        self.messages[index].fetch(index, items)
    }

    /// The indices of the messages in a set; `n:*` is never empty (RFC 9051 §9).
    fn in_set(&self, set: &str) -> Vec<usize> {
        let star = self.messages.last().map_or(0, |message| message.uid);
        let number = |text: &str| if text == "*" { star } else { text.parse().unwrap_or(0) };
        let ranges: Vec<(u32, u32)> = set
            .split(',')
            .map(|range| range.split_once(':').unwrap_or((range, range)))
            .map(|(first, last)| (number(first).min(number(last)), number(first).max(number(last))))
            .collect();
        let is_in = |uid: u32| ranges.iter().any(|&(first, last)| first <= uid && uid <= last);
        (0..self.messages.len()).filter(|&index| is_in(self.messages[index].uid)).collect()
    }

    fn vanished_since(&self, mod_seq: u64) -> String {
        let gone: Vec<String> =
            self.vanished.iter().filter(|(at, _)| *at > mod_seq).map(|(_, uid)| uid.to_string()).collect();
        if gone.is_empty() { String::new() } else { format!("* VANISHED (EARLIER) {}\r\n", gone.join(",")) }
    }
}

impl Message {
    /// `index` is the sequence number less one.
    fn fetch(&self, index: usize, items: &str) -> String {
        let mut values = vec![format!("UID {}", self.uid)];
        let items = words(items.trim_start_matches('(').strip_suffix(')').unwrap_or(items));
        values.extend(items.iter().filter(|item| *item != "UID").filter_map(|item| self.item(item)));
        format!("* {} FETCH ({})\r\n", index + 1, values.join(" "))
    }

    fn flags(&self) -> String {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        format!("FLAGS ({})", flags.join(" "))
    }

    fn header(&self) -> String {
        format!(
            "Subject: {}\r\nFrom: Ada <ada@example.org>\r\nMessage-ID: <{}@example.org>\r\n\r\n",
            self.subject, self.id
        )
    }

    fn item(&self, item: &str) -> Option<String> {
        let (subject, id) = (&self.subject, self.id);
        // An answer names what was asked without PEEK, and of `<0.99>` only where it begins.
        let asked = item.replace("BODY.PEEK[", "BODY[");
        let section = asked.split_once('.').filter(|_| asked.contains("]<0.")).map_or(asked.clone(), |_| {
            let end = asked.rfind("]<0.").unwrap_or(asked.len());
            format!("{}]<0>", &asked[..end])
        });
        Some(match item {
            "FLAGS" => self.flags(),
            "INTERNALDATE" => format!("INTERNALDATE \"{}\"", self.received),
            "RFC822.SIZE" => "RFC822.SIZE 99".to_owned(),
            "MODSEQ" => format!("MODSEQ ({})", self.mod_seq),
            "EMAILID" => format!("EMAILID (M{id})"),
            "THREADID" => format!("THREADID (T{id})"),
            "BODYSTRUCTURE" => "BODYSTRUCTURE (\"text\" \"plain\" NIL NIL NIL \"7bit\" 5 1 NIL NIL NIL NIL)".to_owned(),
            "ENVELOPE" => format!(
                "ENVELOPE (NIL \"{subject}\" ((\"Ada\" NIL \"ada\" \"example.org\")) NIL NIL NIL NIL NIL NIL \"<{id}@example.org>\")"
            ),
            _ if item.starts_with("PREVIEW") => "PREVIEW \"hello\"".to_owned(),
            _ if asked.starts_with("BODY[HEADER") => {
                let header = self.header();
                format!("{section} {{{}}}\r\n{header}", header.len())
            }
            _ if asked.starts_with("BODY[") => format!("{section} \"hello\""),
            _ => return None,
        })
    }
}

/// A mailbox's name, MODSEQ and UIDVALIDITY when NOTIFY told of it.
type Told = (String, u64, u32);

/// One connection's session.
#[derive(Debug)]
pub struct Session {
    store: Store,
    offers: &'static str,
    enabled_qresync: bool,
    selected: Option<Selected>,
    /// What was known of each mailbox when NOTIFY was told last, and the items for new messages.
    notify: Option<(Vec<Told>, String)>,
    /// The tag of a command that waits for a line: IDLE or AUTHENTICATE.
    waits: Option<(String, Waits)>,
    /// Counts the sessions in IDLE, this one among them.
    idling: Arc<AtomicUsize>,
    /// The server has said goodbye.
    pub is_over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    ForDone,
    ForResponse,
}

#[derive(Debug)]
struct Selected {
    name: String,
    uid_validity: u32,
    /// UID and MODSEQ of each message as far as the client was told.
    known: Vec<(u32, u64)>,
}

impl Session {
    pub fn new(store: &Store, offers: &'static str, idling: &Arc<AtomicUsize>) -> Self {
        Self {
            store: store.clone(),
            offers,
            enabled_qresync: false,
            selected: None,
            notify: None,
            waits: None,
            idling: idling.clone(),
            is_over: false,
        }
    }

    pub fn greeting(&self) -> String {
        format!("* OK [CAPABILITY {}] ready\r\n", self.offers)
    }

    pub fn is_idling(&self) -> bool {
        matches!(self.waits, Some((_, Waits::ForDone)))
    }

    /// The server ended IDLE, by a refusal or on its own.
    pub fn ends_idle(&mut self) {
        if self.is_idling() {
            self.idling.fetch_sub(1, Ordering::Relaxed);
            self.waits = None;
        }
    }

    fn offers(&self, extension: &str) -> bool {
        self.offers.split(' ').any(|offered| offered == extension)
    }

    /// Answers a line of the client's: whole responses, the last of them tagged or a continuation.
    pub fn answer(&mut self, line: &str) -> Vec<String> {
        let waits = self.waits.clone();
        self.ends_idle();
        self.waits = None;
        match waits {
            Some((tag, Waits::ForDone)) if line.eq_ignore_ascii_case("DONE") => {
                let mut said = self.changes(true);
                said.push(format!("{tag} OK idle done\r\n"));
                return said;
            }
            Some((tag, Waits::ForDone)) => return vec![format!("{tag} BAD expected DONE, got {line}\r\n")],
            Some((tag, Waits::ForResponse)) => return vec![self.logged_in(&tag)],
            None => {}
        }
        let (tag, command) = line.split_once(' ').unwrap_or((line, ""));
        let words = words(command);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let name = words.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
        match name.as_str() {
            "IDLE" if self.offers("IDLE") => {
                let mut said = self.changes(true);
                self.waits = Some((tag.to_owned(), Waits::ForDone));
                self.idling.fetch_add(1, Ordering::Relaxed);
                said.insert(0, "+ idling\r\n".to_owned());
                return said;
            }
            "AUTHENTICATE" if words.len() == 2 => {
                self.waits = Some((tag.to_owned(), Waits::ForResponse));
                return vec!["+ \r\n".to_owned()];
            }
            "LOGIN" | "AUTHENTICATE" => return vec![self.logged_in(tag)],
            _ => {}
        }
        let Some((mut said, done)) = self.run(&name, &words) else {
            return vec![format!("{tag} BAD unknown or not now: {name}\r\n")];
        };
        // A FETCH or SEARCH must not be told of expunged messages (RFC 9051 §7.5.1).
        said.extend(self.changes(name != "FETCH" && name != "SEARCH"));
        said.push(format!("{tag} {done}\r\n"));
        said
    }

    fn logged_in(&self, tag: &str) -> String {
        format!("{tag} OK [CAPABILITY {}] welcome\r\n", self.offers)
    }

    fn run(&mut self, name: &str, words: &[&str]) -> Option<(Vec<String>, String)> {
        let ok = |said: Vec<String>| Some((said, format!("OK {name} done")));
        let argument = |index: usize| words.get(index).copied().unwrap_or_default();
        match name {
            "CAPABILITY" => ok(vec![format!("* CAPABILITY {}\r\n", self.offers)]),
            "NOOP" | "CHECK" => ok(Vec::new()),
            "ID" => ok(vec!["* ID (\"name\" \"model\")\r\n".to_owned()]),
            "NAMESPACE" => ok(vec!["* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n".to_owned()]),
            "ENABLE" if self.offers("ENABLE") => {
                let taken: Vec<&str> = words.iter().skip(1).copied().filter(|wanted| self.offers(wanted)).collect();
                self.enabled_qresync |= taken.contains(&"QRESYNC");
                ok(vec![format!("* ENABLED {}\r\n", taken.join(" ")).replace(" \r", "\r")])
            }
            "EXAMINE" | "SELECT" => Some(self.open(argument(1), words.get(2..).unwrap_or_default(), name == "EXAMINE")),
            "UNSELECT" | "CLOSE" => {
                self.selected = None;
                ok(Vec::new())
            }
            "STATUS" => {
                let (name, items) = (unquoted(argument(1)), argument(2).trim_matches(['(', ')']).to_ascii_uppercase());
                let state = self.store.lock();
                match state.mailboxes.iter().find(|mailbox| mailbox.name == name) {
                    Some(mailbox) => ok(vec![mailbox.status(&items)]),
                    None => Some((Vec::new(), "NO [NONEXISTENT] no such mailbox".to_owned())),
                }
            }
            "LIST" => ok(self.list(words)),
            "NOTIFY" if self.offers("NOTIFY") => ok(self.notify(words)),
            "UID" => self.uid_command(&words[1..]),
            "LOGOUT" => {
                self.is_over = true;
                ok(vec!["* BYE see you\r\n".to_owned()])
            }
            _ => None,
        }
    }

    fn open(&mut self, name: &str, parameters: &[&str], is_read_only: bool) -> (Vec<String>, String) {
        let name = unquoted(name);
        let state = self.store.lock();
        let closed = self.selected.take().is_some() && self.enabled_qresync;
        let Some(mailbox) = state.mailboxes.iter().find(|mailbox| mailbox.name == name) else {
            return (Vec::new(), "NO [NONEXISTENT] no such mailbox".to_owned());
        };
        let mut said = Vec::new();
        if closed {
            said.push("* OK [CLOSED] closed\r\n".to_owned());
        }
        said.push("* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n".to_owned());
        said.push("* OK [PERMANENTFLAGS ()] read-only\r\n".to_owned());
        said.push(format!("* {} EXISTS\r\n", mailbox.messages.len()));
        said.push("* 0 RECENT\r\n".to_owned());
        said.push(format!("* OK [UIDVALIDITY {}] valid\r\n", mailbox.uid_validity));
        said.push(format!("* OK [UIDNEXT {}] next\r\n", mailbox.uid_next));
        if self.offers("CONDSTORE") {
            said.push(format!("* OK [HIGHESTMODSEQ {}] highest\r\n", mailbox.mod_seq));
        }
        if self.offers("OBJECTID") {
            said.push(format!("* OK [MAILBOXID (F{})] id\r\n", mailbox.id));
        }
        let asked = parameters.first().copied().unwrap_or_default();
        if let Some(position) = asked.strip_prefix("(QRESYNC (").filter(|_| self.enabled_qresync) {
            let numbers: Vec<u64> = position.split([' ', ')']).filter_map(|number| number.parse().ok()).collect();
            if let [uid_validity, mod_seq, ..] = numbers[..]
                && uid_validity == u64::from(mailbox.uid_validity)
            {
                said.push(mailbox.vanished_since(mod_seq));
                let changed = |index: &usize| mailbox.messages[*index].mod_seq > mod_seq;
                let changed = (0..mailbox.messages.len()).filter(changed);
                said.extend(changed.map(|index| mailbox.fetch(index, "(FLAGS MODSEQ)")));
            }
        }
        said.retain(|line| !line.is_empty());
        let known = mailbox.messages.iter().map(|message| (message.uid, message.mod_seq)).collect();
        self.selected = Some(Selected { name, uid_validity: mailbox.uid_validity, known });
        let mode = if is_read_only { "READ-ONLY" } else { "READ-WRITE" };
        (said, format!("OK [{mode}] opened"))
    }

    fn list(&self, words: &[&str]) -> Vec<String> {
        let line = words.join(" ");
        let upper = line.to_ascii_uppercase();
        let items = upper.split_once("STATUS (").and_then(|(_, rest)| rest.split_once(')')).map(|(items, _)| items);
        let patterns = words.iter().skip(1).filter(|word| !word.starts_with('(')).nth(1).copied().unwrap_or("*");
        let pattern = unquoted(patterns);
        let mut said = Vec::new();
        for mailbox in &self.store.lock().mailboxes {
            if !pattern.contains(['*', '%']) && pattern != mailbox.name {
                continue;
            }
            said.push(mailbox.list());
            said.extend(items.map(|items| mailbox.status(items)));
        }
        said
    }

    fn notify(&mut self, words: &[&str]) -> Vec<String> {
        let line = words.join(" ");
        if words.get(1).is_some_and(|word| word.eq_ignore_ascii_case("NONE")) {
            self.notify = None;
            return Vec::new();
        }
        let items = line.split_once("MessageNew (").map(|(_, rest)| {
            let end = matching(rest);
            format!("({})", &rest[..end])
        });
        let state = self.store.lock();
        self.notify = Some((NotifyState::of(&state), items.unwrap_or_default()));
        if !words.get(2).is_some_and(|word| word.eq_ignore_ascii_case("STATUS")) {
            return Vec::new();
        }
        let selected = self.selected.as_ref().map(|selected| selected.name.as_str());
        let others = state.mailboxes.iter().filter(|mailbox| Some(mailbox.name.as_str()) != selected);
        others.map(|mailbox| mailbox.status(NOTIFIED)).collect()
    }

    fn uid_command(&mut self, words: &[&str]) -> Option<(Vec<String>, String)> {
        let name = words.first()?.to_ascii_uppercase();
        let selected = self.selected.as_ref()?;
        let mut state = self.store.lock();
        let mailbox = state.mailboxes.iter_mut().find(|mailbox| mailbox.name == selected.name)?;
        let argument = |index: usize| words.get(index).copied().unwrap_or_default();
        let done = format!("OK {name} done");
        match name.as_str() {
            "FETCH" => {
                let (items, modifiers) = (argument(2), argument(3).to_ascii_uppercase());
                let since = modifiers.split_once("CHANGEDSINCE ").map(|(_, rest)| {
                    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                    digits.parse::<u64>().unwrap_or(0)
                });
                let mut said = Vec::new();
                if let Some(since) = since.filter(|_| modifiers.contains("VANISHED")) {
                    said.extend(Some(mailbox.vanished_since(since)).filter(|line| !line.is_empty()));
                }
                let mut items = items.to_owned();
                if since.is_some() && !items.contains("MODSEQ") {
                    items = items.replace(')', " MODSEQ)");
                }
                let asked = mailbox.in_set(argument(1)).into_iter().map(|index| &mailbox.messages[index]);
                let asked = asked.filter(|message| since.is_none_or(|since| message.mod_seq > since));
                // Only what the client was told of has a sequence number, and that is the one that it knows.
                said.extend(asked.filter_map(|message| {
                    let number = selected.known.iter().position(|&(uid, _)| uid == message.uid)?;
                    Some(message.fetch(number, &items))
                }));
                Some((said, done))
            }
            "SEARCH" => {
                let line = words.join(" ").to_ascii_uppercase();
                let mut found: Vec<u32> = mailbox.messages.iter().map(|message| message.uid).collect();
                if line.contains("UNSEEN") {
                    let seen = |uid: &u32| mailbox.messages.iter().any(|m| m.uid == *uid && m.flags.contains("\\Seen"));
                    found.retain(|uid| !seen(uid));
                }
                if let Some((_, set)) = line.split_once(" UID ") {
                    let in_set = mailbox.in_set(set.split(' ').next().unwrap_or_default());
                    found.retain(|uid| in_set.iter().any(|&index| mailbox.messages[index].uid == *uid));
                }
                let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
                let found = texts.join(if line.contains("RETURN") { "," } else { " " });
                let said = match (line.contains("RETURN"), found.is_empty()) {
                    (true, true) => "* ESEARCH UID\r\n".to_owned(),
                    (true, false) if line.contains("COUNT") => format!("* ESEARCH UID COUNT {}\r\n", texts.len()),
                    (true, false) => format!("* ESEARCH UID ALL {found}\r\n"),
                    (false, _) => format!("* SEARCH {found}\r\n").replace(" \r", "\r"),
                };
                Some((vec![said], done))
            }
            "STORE" => {
                let uids: Vec<u32> =
                    mailbox.in_set(argument(1)).into_iter().map(|index| mailbox.messages[index].uid).collect();
                let flags: Vec<String> =
                    argument(3).trim_matches(['(', ')']).split_whitespace().map(str::to_owned).collect();
                let removes = argument(2).starts_with('-');
                for uid in uids {
                    for flag in &flags {
                        mailbox.touch(uid, |set| if removes { set.remove(flag) } else { set.insert(flag.clone()) });
                    }
                }
                drop(state);
                self.store.changed.send_replace(());
                Some((Vec::new(), done))
            }
            "EXPUNGE" | "MOVE" => {
                let moved: Vec<Message> =
                    mailbox.in_set(argument(1)).into_iter().map(|index| mailbox.messages[index].clone()).collect();
                for message in &moved {
                    mailbox.expunge(message.uid);
                }
                if name == "MOVE" {
                    let target = unquoted(argument(2));
                    let target = state.mailboxes.iter_mut().find(|mailbox| mailbox.name == target)?;
                    for message in moved {
                        target.add(&message.subject, message.id);
                    }
                }
                drop(state);
                self.store.changed.send_replace(());
                Some((Vec::new(), done))
            }
            _ => None,
        }
    }

    /// What may be said unasked: in IDLE, or under NOTIFY.
    pub fn push(&mut self) -> Vec<String> {
        if self.is_idling() || (self.notify.is_some() && self.waits.is_none()) {
            self.changes(true)
        } else {
            Vec::new()
        }
    }

    /// What the client was not told of the opened mailbox, and, under NOTIFY, of the others.
    fn changes(&mut self, may_expunge: bool) -> Vec<String> {
        let mut said = Vec::new();
        let store = self.store.clone();
        let state = store.lock();
        if let Some(selected) = &mut self.selected {
            let Some(mailbox) = state.mailboxes.iter().find(|mailbox| mailbox.name == selected.name) else {
                self.is_over = true;
                return vec!["* BYE the mailbox is gone\r\n".to_owned()];
            };
            if mailbox.uid_validity != selected.uid_validity {
                self.is_over = true;
                return vec!["* BYE the mailbox is another one\r\n".to_owned()];
            }
            let items = self.notify.as_ref().map(|(_, items)| items.as_str()).filter(|items| !items.is_empty());
            said = selected.catch_up(mailbox, may_expunge, self.enabled_qresync, items);
        }
        if let Some((known, _)) = &mut self.notify {
            let selected = self.selected.as_ref().map(|selected| selected.name.clone());
            said.extend(NotifyState::changes(known, &state, selected.as_deref()));
        }
        said
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.ends_idle();
    }
}

impl Selected {
    fn catch_up(&mut self, mailbox: &Mailbox, may_expunge: bool, by_uid: bool, items: Option<&str>) -> Vec<String> {
        let mut said = Vec::new();
        let is_there = |uid: u32| mailbox.messages.iter().any(|message| message.uid == uid);
        let gone: Vec<usize> = (0..self.known.len()).rev().filter(|&index| !is_there(self.known[index].0)).collect();
        if !gone.is_empty() && !may_expunge {
            // Sequence numbers would be wrong in all that follows.
            return said;
        }
        for index in gone {
            let (uid, _) = self.known.remove(index);
            said.push(if by_uid { format!("* VANISHED {uid}\r\n") } else { format!("* {} EXPUNGE\r\n", index + 1) });
        }
        for (index, known) in self.known.iter_mut().enumerate() {
            let message = &mailbox.messages[index];
            if message.mod_seq > known.1 {
                known.1 = message.mod_seq;
                let items = if by_uid { "(FLAGS MODSEQ)" } else { "(FLAGS)" };
                said.push(mailbox.fetch(index, items));
            }
        }
        let first_new = self.known.len();
        if mailbox.messages.len() > first_new {
            said.push(format!("* {} EXISTS\r\n", mailbox.messages.len()));
            self.known.extend(mailbox.messages[first_new..].iter().map(|message| (message.uid, message.mod_seq)));
            if let Some(items) = items {
                said.extend((first_new..mailbox.messages.len()).map(|index| mailbox.fetch(index, items)));
            }
        }
        said
    }
}

/// What NOTIFY tells of mailboxes that are not open.
const NOTIFIED: &str = "MESSAGES UIDNEXT UIDVALIDITY UNSEEN HIGHESTMODSEQ";

struct NotifyState;

impl NotifyState {
    fn of(state: &State) -> Vec<Told> {
        let of = |mailbox: &Mailbox| (mailbox.name.clone(), mailbox.mod_seq, mailbox.uid_validity);
        state.mailboxes.iter().map(of).collect()
    }

    fn changes(known: &mut Vec<Told>, state: &State, selected: Option<&str>) -> Vec<String> {
        let now = Self::of(state);
        let mut said = Vec::new();
        for (mailbox, entry) in state.mailboxes.iter().zip(&now) {
            if Some(mailbox.name.as_str()) == selected || known.contains(entry) {
                continue;
            }
            if !known.iter().any(|(name, ..)| *name == mailbox.name) {
                said.push(mailbox.list());
            }
            said.push(mailbox.status(NOTIFIED));
        }
        for (name, ..) in known.iter().filter(|(name, ..)| !now.iter().any(|(found, ..)| found == name)) {
            said.push(format!("* LIST (\\NonExistent) \"/\" {name}\r\n"));
        }
        *known = now;
        said
    }
}

/// Splits at spaces that are in no list, section or quoted string; `PREVIEW (LAZY)` stays one word.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut depth, mut is_quoted) = (Vec::<String>::new(), String::new(), 0, false);
    for character in text.chars() {
        match character {
            '"' => is_quoted = !is_quoted,
            '(' | '[' if !is_quoted => depth += 1,
            ')' | ']' if !is_quoted => depth -= 1,
            ' ' if !is_quoted && depth == 0 => {
                words.push(std::mem::take(&mut word));
                continue;
            }
            _ => {}
        }
        word.push(character);
    }
    words.push(word);
    if let Some(at) = words.iter().position(|word| word == "(LAZY)") {
        words.remove(at);
    }
    words
}

fn unquoted(text: &str) -> String {
    text.trim_matches('"').replace("\\\"", "\"")
}

/// Where the list that is open at the beginning of `text` ends.
fn matching(text: &str) -> usize {
    let mut depth = 1;
    for (index, character) in text.char_indices() {
        depth += match character {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        if depth == 0 {
            return index;
        }
    }
    text.len()
}
