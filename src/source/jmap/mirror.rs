//! What is known of an account, and which events follow from what changed. Pure.
//!
//! JMAP says which messages changed and how they are now, and not how they were: so where the newest messages are and
//! how they are flagged is remembered. Of an older one that changes only the counts are told.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::object::{Email, Mailbox};
use super::summary::summary;
use crate::event::{AccountName, Content, Counts, Draft, EventKind, Origin, Topic};
use crate::event_log::DedupKey;

/// Mailboxes inside each other; more are a server's mistake, or a circle.
const DEPTH_MAX: usize = 32;
/// Mailboxes in which a message is no new mail: somebody wrote it here.
const OWN_ROLES: [&str; 3] = ["sent", "drafts", "scheduled"];

/// Events, each with the key under which the log knows it when it is reported again.
pub(super) type Events = Vec<(Draft, Option<DedupKey>)>;

/// A mailbox, as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownMailbox {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(skip)]
    counts: Option<Counts>,
}

/// The mailboxes of an account by their IDs.
pub(super) type Mailboxes = BTreeMap<String, KnownMailbox>;

/// Where a message is, and how it is flagged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Place {
    mailboxes: BTreeSet<String>,
    keywords: BTreeSet<String>,
}

/// What changed of the mailboxes.
#[derive(Debug, Default)]
pub(super) struct MailboxChanges {
    /// New and changed ones, as they are now.
    pub now: Vec<Mailbox>,
    pub destroyed: Vec<String>,
}

/// What changed of the messages.
#[derive(Debug, Default)]
pub(super) struct EmailChanges {
    pub created: Vec<Email>,
    pub updated: Vec<Email>,
    pub destroyed: Vec<String>,
    /// The state that they lead to: tells two changes of one message apart.
    pub new_state: String,
}

/// An account as it was when its changes were last asked for.
#[derive(Debug)]
pub(super) struct Mirror {
    account: AccountName,
    content: Content,
    /// Mailboxes whose events are wanted; empty for all.
    wanted: Vec<String>,
    mailboxes: Mailboxes,
    places: HashMap<String, Place>,
    /// The keys of `places`, in the order of their coming.
    order: VecDeque<String>,
    places_max: usize,
}

impl Mirror {
    pub(super) fn new(account: AccountName, content: Content, wanted: Vec<String>, places_max: usize) -> Self {
        let (mailboxes, places, order) = (Mailboxes::new(), HashMap::new(), VecDeque::new());
        Self { account, content, wanted, mailboxes, places, order, places_max }
    }

    pub(super) fn mailboxes(&self) -> &Mailboxes {
        &self.mailboxes
    }

    /// The mailboxes as they were stored.
    pub(super) fn set_mailboxes(&mut self, mailboxes: Mailboxes) {
        self.mailboxes = mailboxes;
    }

    /// Remembers messages as they are now, the newest first.
    pub(super) fn remember(&mut self, emails: &[Email]) {
        for email in emails.iter().rev() {
            self.set_place(email);
        }
    }

    /// Whether all messages that the account has are remembered.
    pub(super) fn is_complete(&self) -> bool {
        self.mailboxes.iter().all(|(id, mailbox)| {
            let remembered = self.places.values().filter(|place| place.mailboxes.contains(id)).count();
            mailbox.counts.and_then(|counts| counts.messages).is_some_and(|all| usize::try_from(all) == Ok(remembered))
        })
    }

    /// The messages that are remembered.
    pub(super) fn remembered(&self) -> Vec<String> {
        self.order.iter().cloned().collect()
    }

    pub(super) fn remembers(&self, email: &str) -> bool {
        self.places.contains_key(email)
    }

    /// The difference to all mailboxes that there are now.
    pub(super) fn difference(&self, all: Vec<Mailbox>) -> MailboxChanges {
        let gone = |id: &&String| all.iter().all(|mailbox| mailbox.id != **id);
        let destroyed = self.mailboxes.keys().filter(gone).cloned().collect();
        MailboxChanges { now: all, destroyed }
    }

    /// Takes over what changed, and says what happened: mailboxes that came first, those that went last, so that a
    /// message's mailbox has a name in between.
    pub(super) fn apply(&mut self, mailboxes: MailboxChanges, emails: EmailChanges) -> Events {
        let mut events = self.mailboxes_now(mailboxes.now);
        events.extend(self.emails(emails));
        for id in mailboxes.destroyed {
            if let Some(path) = self.wanted_path(&id) {
                events.push((self.in_mailbox(EventKind::MailboxDelete, &path), None));
            }
        }
        events
    }

    /// Forgets mailboxes that are gone; to be done once their events are made.
    pub(super) fn forget(&mut self, destroyed: &[String]) {
        for id in destroyed {
            self.mailboxes.remove(id);
        }
    }

    fn mailboxes_now(&mut self, now: Vec<Mailbox>) -> Events {
        let before: BTreeMap<String, String> =
            self.mailboxes.keys().filter_map(|id| Some((id.clone(), self.path(id)?))).collect();
        for mailbox in now {
            let counts = Counts { messages: mailbox.total_emails, unseen: mailbox.unread_emails };
            let known = KnownMailbox {
                name: mailbox.name,
                parent: mailbox.parent_id,
                role: mailbox.role,
                counts: counts.messages.is_some().then_some(counts),
            };
            self.mailboxes.insert(mailbox.id, known);
        }
        let mut events = Events::new();
        for id in self.mailboxes.keys() {
            let Some(path) = self.path(id) else { continue };
            match before.get(id) {
                Some(old) if *old == path => {}
                Some(old) if self.is_wanted(&path) || self.is_wanted(old) => {
                    let mut draft = self.in_mailbox(EventKind::MailboxRename, &path);
                    draft.topics.push(Topic::mailbox(&self.account, old));
                    draft.old_mailbox = Some(old.clone());
                    events.push((draft, None));
                }
                None if self.is_wanted(&path) => events.push((self.in_mailbox(EventKind::MailboxCreate, &path), None)),
                _ => {}
            }
        }
        events
    }

    fn emails(&mut self, mut changes: EmailChanges) -> Events {
        let mut events = Events::new();
        changes.created.sort_by(|a, b| a.received_at.cmp(&b.received_at));
        for email in &changes.updated {
            events.extend(self.updated(email, &changes.new_state));
        }
        for id in &changes.destroyed {
            events.extend(self.destroyed(id, &changes.new_state));
        }
        // Last, since each new message may make us forget an old one.
        for email in &changes.created {
            events.extend(self.created(email));
        }
        events
    }

    /// A message that was not there before, in each of its mailboxes.
    pub(super) fn created(&mut self, email: &Email) -> Events {
        let is_draft = email.keywords().any(|keyword| keyword == "$draft");
        let mut events = Events::new();
        for id in email.mailboxes() {
            let Some(path) = self.wanted_path(id) else { continue };
            let role = self.mailboxes.get(id).and_then(|mailbox| mailbox.role.as_deref());
            let is_own = is_draft || role.is_some_and(|role| OWN_ROLES.contains(&role));
            let kind = if is_own { EventKind::MessageAppend } else { EventKind::MessageNew };
            let draft = self.of_email(kind, id, &path, email);
            // Without the state: a message is new in a mailbox once.
            events.push((draft, Some(self.key(kind, id, &email.id, ""))));
        }
        self.set_place(email);
        events
    }

    fn updated(&mut self, email: &Email, state: &str) -> Events {
        let Some(before) = self.places.get(&email.id).cloned() else { return Events::new() };
        let now = Place::of(email);
        let mut events = self.moved(email, &before, &now, state);
        let (set, cleared) = (
            now.keywords.difference(&before.keywords).cloned().collect::<Vec<_>>(),
            before.keywords.difference(&now.keywords).cloned().collect::<Vec<_>>(),
        );
        let seen = set.iter().any(|keyword| keyword == "$seen");
        let set: Vec<_> = set.iter().filter(|keyword| *keyword != "$seen").map(|keyword| flag(keyword)).collect();
        let cleared: Vec<_> = cleared.iter().map(|keyword| flag(keyword)).collect();
        let happened = [
            (EventKind::MessageRead, seen.then(Vec::new)),
            (EventKind::FlagsSet, Some(set).filter(|set| !set.is_empty())),
            (EventKind::FlagsClear, Some(cleared).filter(|cleared| !cleared.is_empty())),
        ];
        for id in &now.mailboxes {
            let Some(path) = self.wanted_path(id) else { continue };
            for (kind, flags) in &happened {
                let Some(flags) = flags else { continue };
                let mut draft = self.of_email(*kind, id, &path, email);
                draft.flags = (*kind != EventKind::MessageRead).then(|| flags.clone());
                events.push((draft, Some(self.key(*kind, id, &email.id, state))));
            }
        }
        self.set_place(email);
        events
    }

    /// A message that left one mailbox for another was moved; what is over was copied or removed.
    fn moved(&self, email: &Email, before: &Place, now: &Place, state: &str) -> Events {
        let mut left: VecDeque<&String> = before.mailboxes.difference(&now.mailboxes).collect();
        let mut events = Events::new();
        for id in now.mailboxes.difference(&before.mailboxes) {
            let old = left.pop_front().and_then(|id| self.path(id));
            let Some(path) = self.path(id) else { continue };
            if !self.is_wanted(&path) && !old.as_deref().is_some_and(|old| self.is_wanted(old)) {
                continue;
            }
            let kind = if old.is_some() { EventKind::MessageMove } else { EventKind::MessageAppend };
            let mut draft = self.of_email(kind, id, &path, email);
            draft.topics.extend(old.as_deref().map(|old| Topic::mailbox(&self.account, old)));
            draft.old_mailbox = old;
            events.push((draft, Some(self.key(kind, id, &email.id, state))));
        }
        for id in left {
            let Some(path) = self.wanted_path(id) else { continue };
            let draft = self.of_email(EventKind::MessageExpunge, id, &path, email);
            events.push((draft, Some(self.key(EventKind::MessageExpunge, id, &email.id, state))));
        }
        events
    }

    fn destroyed(&mut self, email: &str, state: &str) -> Events {
        let kind = EventKind::MessageExpunge;
        let Some(place) = self.places.remove(email) else {
            // Where it was is not known, so that only who follows the account as a whole can be told.
            let mut draft = Draft::of_account(kind, Origin::Jmap, &self.account);
            draft.email_id = Some(email.to_owned());
            return vec![(draft, Some(self.key(kind, "", email, state)))];
        };
        self.order.retain(|id| id != email);
        let mut events = Events::new();
        for id in &place.mailboxes {
            let Some(path) = self.wanted_path(id) else { continue };
            let mut draft = self.in_mailbox(kind, &path);
            draft.email_id = Some(email.to_owned());
            draft.counts = self.mailboxes.get(id).and_then(|mailbox| mailbox.counts);
            events.push((draft, Some(self.key(kind, id, email, state))));
        }
        events
    }

    fn in_mailbox(&self, kind: EventKind, path: &str) -> Draft {
        Draft::in_mailbox(kind, Origin::Jmap, &self.account, path)
    }

    fn of_email(&self, kind: EventKind, mailbox: &str, path: &str, email: &Email) -> Draft {
        let mut draft = self.in_mailbox(kind, path);
        draft.email_id = Some(email.id.clone());
        draft.counts = self.mailboxes.get(mailbox).and_then(|mailbox| mailbox.counts);
        draft.flags = Some(email.keywords().map(flag).collect());
        // Of a message that was there before, nothing but its place was asked for.
        let is_new = email.received_at.is_some();
        draft.message = is_new.then(|| summary(email, self.content)).flatten();
        draft
    }

    fn key(&self, kind: EventKind, mailbox: &str, email: &str, state: &str) -> DedupKey {
        let parts = [self.account.as_str(), mailbox, email, kind.as_str(), state].map(str::as_bytes);
        let [account, mailbox, email, kind, state] = parts;
        DedupKey::of(&[b"jmap", account, mailbox, email, kind, state])
    }

    fn set_place(&mut self, email: &Email) {
        if self.places.insert(email.id.clone(), Place::of(email)).is_none() {
            self.order.push_back(email.id.clone());
        }
        while self.order.len() > self.places_max {
            if let Some(oldest) = self.order.pop_front() {
                self.places.remove(&oldest);
            }
        }
    }

    /// The paths of all mailboxes.
    pub(super) fn paths(&self) -> Vec<String> {
        self.mailboxes.keys().filter_map(|id| self.path(id)).collect()
    }

    /// Wanted mailboxes that there are not.
    pub(super) fn missing(&self) -> Vec<String> {
        let paths = self.paths();
        self.wanted.iter().filter(|name| !paths.iter().any(|path| is_named(path, name))).cloned().collect()
    }

    fn is_wanted(&self, path: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|name| is_named(path, name))
    }

    fn wanted_path(&self, id: &str) -> Option<String> {
        self.path(id).filter(|path| self.is_wanted(path))
    }

    /// The names from the top to a mailbox, with `/` in between; the inbox is `INBOX`, as it is in IMAP.
    fn path(&self, id: &str) -> Option<String> {
        let mut names = Vec::new();
        let mut next = Some(id);
        while let Some(id) = next {
            let mailbox = self.mailboxes.get(id)?;
            let is_inbox = mailbox.role.as_deref() == Some("inbox");
            let shown: String = mailbox.name.chars().filter(|c| !c.is_control()).collect();
            names.push(if is_inbox { "INBOX".to_owned() } else { shown });
            next = mailbox.parent.as_deref().filter(|_| !is_inbox);
            if names.len() > DEPTH_MAX {
                return None;
            }
        }
        names.reverse();
        Some(names.join("/"))
    }
}

/// Whether a mailbox is meant by a name of the configuration; the inbox has one without case, as it has in IMAP.
fn is_named(path: &str, name: &str) -> bool {
    name == path || (path == "INBOX" && name.eq_ignore_ascii_case("INBOX"))
}

impl Place {
    fn of(email: &Email) -> Self {
        Self {
            mailboxes: email.mailboxes().map(str::to_owned).collect(),
            keywords: email.keywords().map(str::to_owned).collect(),
        }
    }
}

/// A keyword as IMAP has it (RFC 8621 §4.1.1).
fn flag(keyword: &str) -> String {
    match keyword {
        "$seen" => "\\Seen".to_owned(),
        "$flagged" => "\\Flagged".to_owned(),
        "$answered" => "\\Answered".to_owned(),
        "$draft" => "\\Draft".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox(id: &str, name: &str, parent: Option<&str>, role: Option<&str>) -> Mailbox {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let (parent_id, role) = (text(parent), text(role));
        Mailbox { id: id.into(), name: name.into(), parent_id, role, total_emails: Some(3), unread_emails: Some(1) }
    }

    fn email(id: &str, mailboxes: &[&str], keywords: &[&str]) -> Email {
        let set = |names: &[&str]| names.iter().map(|&name| (name.to_owned(), true)).collect();
        let received_at = Some("2026-11-20T12:00:00Z".to_owned());
        Email { id: id.into(), mailbox_ids: set(mailboxes), keywords: set(keywords), received_at, ..Email::default() }
    }

    fn mirror(wanted: &[&str]) -> Mirror {
        let wanted = wanted.iter().map(|&name| name.into()).collect();
        let mut mirror = Mirror::new("alice".parse().unwrap(), Content::None, wanted, 2);
        let now = vec![
            mailbox("i", "Posteingang", None, Some("inbox")),
            mailbox("s", "Gesendet", None, Some("sent")),
            mailbox("l", "Lists", None, None),
            mailbox("r", "rust", Some("l"), None),
        ];
        mirror.apply(MailboxChanges { now, ..MailboxChanges::default() }, EmailChanges::default());
        mirror
    }

    fn shown(events: &Events) -> Vec<String> {
        let one = |draft: &Draft| {
            let mailbox = draft.mailbox.as_deref().unwrap_or("-");
            let old = draft.old_mailbox.as_ref().map(|old| format!(" from {old}")).unwrap_or_default();
            let tells_flags = matches!(draft.kind, EventKind::FlagsSet | EventKind::FlagsClear);
            let flags = draft.flags.iter().flatten().filter(|_| tells_flags).map(|flag| format!(" {flag}"));
            format!("{} {mailbox}{old}{}", draft.kind, flags.collect::<String>())
        };
        events.iter().map(|(draft, _)| one(draft)).collect()
    }

    fn emails(mirror: &mut Mirror, changes: EmailChanges) -> Vec<String> {
        shown(&mirror.apply(MailboxChanges::default(), changes))
    }

    fn updated(mirror: &mut Mirror, email: Email) -> Vec<String> {
        emails(mirror, EmailChanges { updated: vec![email], ..EmailChanges::default() })
    }

    #[test]
    fn a_message_is_new_in_each_of_its_mailboxes_and_written_in_ones_own() {
        let mut mirror = mirror(&[]);
        let created =
            vec![email("1", &["i", "r"], &[]), email("2", &["s"], &["$seen"]), email("3", &["i"], &["$draft"])];
        let told = emails(&mut mirror, EmailChanges { created, ..EmailChanges::default() });
        let wanted = ["MessageNew INBOX", "MessageNew Lists/rust", "MessageAppend Gesendet", "MessageAppend INBOX"];
        assert_eq!(told, wanted);
    }

    #[test]
    fn what_changed_is_found_by_what_was_before() {
        let mut mirror = mirror(&[]);
        mirror.remember(&[email("1", &["i"], &["$flagged"])]);
        let told = updated(&mut mirror, email("1", &["i"], &["$seen", "work"]));
        assert_eq!(told, ["MessageRead INBOX", "FlagsSet INBOX work", "FlagsClear INBOX \\Flagged"]);
        assert_eq!(updated(&mut mirror, email("1", &["i"], &["$seen", "work"])), [""; 0], "nothing changed");
        let told = updated(&mut mirror, email("1", &["r"], &["work"]));
        assert_eq!(told, ["MessageMove Lists/rust from INBOX", "FlagsClear Lists/rust \\Seen"]);
        assert_eq!(updated(&mut mirror, email("1", &["r", "i"], &["work"])), ["MessageAppend INBOX"]);
        assert_eq!(updated(&mut mirror, email("1", &["i"], &["work"])), ["MessageExpunge Lists/rust"]);
        assert_eq!(updated(&mut mirror, email("unknown", &["i"], &["$seen"])), [""; 0]);
        let destroyed = vec!["1".to_owned(), "unknown".to_owned()];
        let told = emails(&mut mirror, EmailChanges { destroyed, ..EmailChanges::default() });
        assert_eq!(told, ["MessageExpunge INBOX", "MessageExpunge -"]);
    }

    #[test]
    fn the_newest_are_remembered() {
        let mut mirror = mirror(&[]);
        mirror.remember(&[email("3", &["i"], &[]), email("2", &["i"], &[]), email("1", &["i"], &[])]);
        assert!(mirror.remembers("3") && mirror.remembers("2") && !mirror.remembers("1"));
        let (created, updated) = (vec![email("4", &["i"], &[])], vec![email("2", &["i"], &["$seen"])]);
        let told = emails(&mut mirror, EmailChanges { created, updated, ..EmailChanges::default() });
        assert_eq!(told, ["MessageRead INBOX", "MessageNew INBOX"], "the old one is forgotten for the new one");
        assert!(mirror.remembers("4") && !mirror.remembers("2") && !mirror.is_complete());
        assert_eq!(mirror.places.len(), mirror.order.len());
    }

    #[test]
    fn mailboxes_come_move_and_go() {
        let mut mirror = mirror(&[]);
        let now = vec![mailbox("l", "Listen", None, None), mailbox("n", "neu", Some("i"), None)];
        let changes = MailboxChanges { now, destroyed: vec!["s".into(), "never".into()] };
        let told = shown(&mirror.apply(changes, EmailChanges::default()));
        let wanted = ["MailboxRename Listen from Lists", "MailboxCreate INBOX/neu"];
        let child = "MailboxRename Listen/rust from Lists/rust";
        assert_eq!(told, [wanted[0], wanted[1], child, "MailboxDelete Gesendet"]);
        mirror.forget(&["s".into()]);
        assert_eq!(mirror.difference(vec![mailbox("i", "x", None, None)]).destroyed, ["l", "n", "r"]);
    }

    #[test]
    fn only_wanted_mailboxes_are_told_of() {
        let mut mirror = mirror(&["inbox"]);
        let created = vec![email("1", &["i"], &[]), email("2", &["r"], &[])];
        assert_eq!(emails(&mut mirror, EmailChanges { created, ..EmailChanges::default() }), ["MessageNew INBOX"]);
        assert_eq!(updated(&mut mirror, email("1", &["r"], &[])), ["MessageMove Lists/rust from INBOX"]);
        assert_eq!(updated(&mut mirror, email("1", &["r"], &["$seen"])), [""; 0]);
    }

    #[test]
    fn a_circle_of_mailboxes_has_no_name() {
        let mut mirror = mirror(&[]);
        let now = vec![mailbox("a", "a", Some("b"), None), mailbox("b", "b", Some("a"), None)];
        assert!(mirror.apply(MailboxChanges { now, destroyed: Vec::new() }, EmailChanges::default()).is_empty());
        assert!(mirror.created(&email("1", &["a"], &[])).is_empty());
    }
}
