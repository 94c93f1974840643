//! Which mailboxes there are, which of them are watched, and what happened to them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::mailbox_name;
use super::protocol::{Listed, MailboxStatus, StatusItems};

/// Mailboxes of one account that are looked after; a list without end would be one of a hostile server.
const MAILBOXES_MAX: usize = 5000;

/// What a mailbox is for (RFC 6154, RFC 8457).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    All,
    Archive,
    Drafts,
    Flagged,
    Important,
    Junk,
    Sent,
    Trash,
}

impl Role {
    const BY_ATTRIBUTE: [(&str, Self); 9] = [
        ("\\all", Self::All),
        ("\\allmail", Self::All),
        ("\\archive", Self::Archive),
        ("\\drafts", Self::Drafts),
        ("\\flagged", Self::Flagged),
        ("\\important", Self::Important),
        ("\\junk", Self::Junk),
        ("\\sent", Self::Sent),
        ("\\trash", Self::Trash),
    ];

    /// What servers without special uses call them, in lower case, on the top level or below INBOX.
    const BY_NAME: [(&str, Self); 10] = [
        ("drafts", Self::Drafts),
        ("junk", Self::Junk),
        ("spam", Self::Junk),
        ("bulk mail", Self::Junk),
        ("sent", Self::Sent),
        ("sent items", Self::Sent),
        ("sent messages", Self::Sent),
        ("trash", Self::Trash),
        ("deleted items", Self::Trash),
        ("deleted messages", Self::Trash),
    ];

    fn of(listed: &Listed, name: &str) -> Option<Self> {
        let by_attribute = Self::BY_ATTRIBUTE.iter().find(|(attribute, _)| listed.has(attribute));
        by_attribute
            .or_else(|| {
                let lower = name.to_lowercase();
                let below_inbox =
                    listed.delimiter.and_then(|delimiter| lower.strip_prefix("inbox")?.strip_prefix(delimiter));
                Self::BY_NAME.iter().find(|(known, _)| *known == below_inbox.unwrap_or(&lower))
            })
            .map(|(_, role)| *role)
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        Self::BY_ATTRIBUTE.iter().find(|(attribute, _)| *attribute == text).map(|(_, role)| *role)
    }
}

/// The mailboxes that a server has, by their decoded names.
#[derive(Debug, Default)]
pub(super) struct Directory {
    pub entries: BTreeMap<String, Entry>,
    /// Old and new names, where the server told of a rename.
    pub renamed: Vec<(String, String)>,
    /// Names that the server said are gone.
    pub deleted: Vec<String>,
}

/// One of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub role: Option<Role>,
    pub delimiter: Option<char>,
    pub status: StatusItems,
}

impl Directory {
    pub(super) fn hear_listed(&mut self, listed: &Listed) {
        let name = mailbox_name::canonical(&mailbox_name::decode(&listed.raw_name));
        if let Some(old) = &listed.old_raw_name {
            self.renamed.push((mailbox_name::canonical(&mailbox_name::decode(old)), name.clone()));
        }
        if !listed.is_selectable() {
            self.entries.remove(&name);
            if listed.has("\\nonexistent") {
                self.deleted.push(name);
            }
        } else if self.entries.len() < MAILBOXES_MAX || self.entries.contains_key(&name) {
            let role = Role::of(listed, &name);
            let entry = self.entries.entry(name).or_default();
            (entry.role, entry.delimiter) = (role, listed.delimiter);
        }
    }

    pub(super) fn hear_status(&mut self, status: &MailboxStatus) {
        let name = mailbox_name::canonical(&mailbox_name::decode(&status.raw_name));
        if let Some(entry) = self.entries.get_mut(&name) {
            entry.status = status.items.clone();
        }
    }

    /// An empty list, or one without INBOX, is a server's mistake and not the end of all mailboxes.
    pub(super) fn is_credible(&self) -> bool {
        self.entries.contains_key("INBOX")
    }
}

/// What an account's `mailboxes` and `mailboxes_excluded` ask for.
#[derive(Debug)]
pub(super) struct Selection {
    wanted: Vec<Wanted>,
    excluded: Vec<Wanted>,
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Name(String),
    Pattern(String),
    Use(Role),
}

impl Wanted {
    fn parse(text: &str) -> Self {
        if let Some(role) = Role::parse(text) {
            Self::Use(role)
        } else if text.contains(['*', '%']) {
            Self::Pattern(text.to_owned())
        } else {
            Self::Name(mailbox_name::canonical(text))
        }
    }

    fn matches(&self, name: &str, entry: &Entry) -> bool {
        match self {
            Self::Name(wanted) => wanted == name,
            Self::Pattern(pattern) => is_like(pattern, name, entry.delimiter),
            Self::Use(role) => entry.role == Some(*role),
        }
    }
}

impl Selection {
    pub(super) fn new(mailboxes: &[String], excluded: &[String]) -> Self {
        let parse = |texts: &[String]| texts.iter().map(|text| Wanted::parse(text)).collect();
        Self { wanted: parse(mailboxes), excluded: parse(excluded) }
    }

    /// Whether what is watched depends on which mailboxes there are.
    pub(super) fn has_pattern(&self) -> bool {
        self.wanted.iter().any(|wanted| !matches!(wanted, Wanted::Name(_)))
    }

    /// The only mailbox, if it is one by name: nothing needs to be listed then.
    pub(super) fn only_name(&self) -> Option<&str> {
        match self.wanted.as_slice() {
            [Wanted::Name(name)] => Some(name),
            _ => None,
        }
    }

    /// The mailboxes to watch: INBOX first, then in the order in which they were asked for, then by name. Those that are
    /// asked for by name are among them even when the server does not have them: opening them says what is wrong.
    pub(super) fn choose<'a>(&'a self, directory: &'a Directory) -> Vec<(&'a str, Option<&'a Entry>)> {
        let mut chosen: Vec<(&str, Option<&Entry>)> = Vec::new();
        let mut seen = BTreeSet::new();
        for wanted in &self.wanted {
            if let Wanted::Name(name) = wanted
                && seen.insert(name.as_str())
            {
                chosen.push((name, directory.entries.get(name)));
            }
            for (name, entry) in &directory.entries {
                let by_pattern = matches!(wanted, Wanted::Pattern(_));
                let is_out = by_pattern && self.excluded.iter().any(|excluded| excluded.matches(name, entry));
                if wanted.matches(name, entry) && !is_out && seen.insert(name.as_str()) {
                    chosen.push((name, Some(entry)));
                }
            }
        }
        chosen.sort_by_key(|(name, _)| *name != "INBOX");
        chosen
    }
}

/// LIST's wildcards (RFC 9051 §6.3.9): `*` stands for anything, `%` for anything on one level.
fn is_like(pattern: &str, name: &str, delimiter: Option<char>) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // One row of a table: which beginnings of the name are like the pattern so far. Linear in their product.
    let mut row = vec![false; name.len() + 1];
    if let Some(first) = row.first_mut() {
        *first = true;
    }
    for wanted in pattern {
        let mut next = vec![false; row.len()];
        for (index, like) in row.iter().enumerate() {
            if !like {
                continue;
            }
            match wanted {
                '*' => next.iter_mut().skip(index).for_each(|like| *like = true),
                '%' => {
                    for reached in index..next.len() {
                        if let Some(like) = next.get_mut(reached) {
                            *like = true;
                        }
                        if name.get(reached).copied() == delimiter && delimiter.is_some() {
                            break;
                        }
                    }
                }
                _ if name.get(index) == Some(&wanted) => {
                    if let Some(like) = next.get_mut(index + 1) {
                        *like = true;
                    }
                }
                _ => {}
            }
        }
        row = next;
    }
    row.last().copied().unwrap_or(false)
}

/// What is remembered of the mailboxes, so that changes are found after a time in which nobody watched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct KnownMailboxes(BTreeMap<String, KnownMailbox>);

/// What tells a mailbox from another one of the same name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct KnownMailbox {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid_validity: Option<u32>,
}

/// What happened to mailboxes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct MailboxChanges {
    pub created: Vec<String>,
    pub deleted: Vec<String>,
    /// Old and new names.
    pub renamed: Vec<(String, String)>,
}

impl KnownMailboxes {
    pub(super) fn of(directory: &Directory) -> Self {
        let known = |entry: &Entry| KnownMailbox {
            id: entry.status.mailbox_id.clone(),
            uid_validity: entry.status.uid_validity,
        };
        Self(directory.entries.iter().map(|(name, entry)| (name.clone(), known(entry))).collect())
    }

    /// What happened since. A rename is known by the server's word, by the lasting identifier, or else, with one
    /// mailbox gone and one come, by the same UIDVALIDITY.
    pub(super) fn changes(&self, now: &Self, told: &[(String, String)]) -> MailboxChanges {
        let mut gone: Vec<&String> = self.0.keys().filter(|name| !now.0.contains_key(*name)).collect();
        let mut come: Vec<&String> = now.0.keys().filter(|name| !self.0.contains_key(*name)).collect();
        let mut changes = MailboxChanges::default();
        let alone = gone.len() == 1 && come.len() == 1;
        gone.retain(|old| {
            let is_same = |new: &str| {
                let (before, after) = (self.0.get(*old), now.0.get(new));
                // Cyrus 3.6 gives a renamed mailbox a MAILBOXID of random bytes: a different one proves nothing.
                told.iter().any(|(from, to)| from == *old && to == new)
                    || before.zip(after).is_some_and(|(before, after)| {
                        (before.id.is_some() && before.id == after.id)
                            || (alone && before.uid_validity.is_some() && before.uid_validity == after.uid_validity)
                    })
            };
            let Some(index) = come.iter().position(|new| is_same(new)) else { return true };
            changes.renamed.push(((*old).clone(), come.remove(index).clone()));
            false
        });
        changes.deleted = gone.into_iter().cloned().collect();
        changes.created = come.into_iter().cloned().collect();
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str, attributes: &[&str]) -> Listed {
        Listed {
            raw_name: name.to_owned(),
            delimiter: Some('/'),
            attributes: attributes.iter().map(|&attribute| attribute.into()).collect(),
            old_raw_name: None,
        }
    }

    fn directory(names: &[(&str, &[&str])]) -> Directory {
        let mut directory = Directory::default();
        for (name, attributes) in names {
            directory.hear_listed(&listed(name, attributes));
        }
        directory
    }

    fn chosen(mailboxes: &[&str], excluded: &[&str]) -> Vec<String> {
        let directory = directory(&[
            ("Archive", &[]),
            ("INBOX", &[]),
            ("Lists", &["\\noselect"]),
            ("Lists/a/b", &[]),
            ("Lists/r", &[]),
            ("Gesendet", &["\\sent"]),
            ("Spam", &[]),
            ("Entw&APw-rfe", &["\\drafts"]),
        ]);
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let selection = Selection::new(&owned(mailboxes), &owned(excluded));
        selection.choose(&directory).into_iter().map(|(name, _)| name.to_owned()).collect()
    }

    #[test]
    fn mailboxes_are_chosen_by_name_pattern_and_use() {
        assert_eq!(chosen(&["Archive", "inbox", "Nowhere"], &[]), ["INBOX", "Archive", "Nowhere"]);
        assert_eq!(chosen(&["Lists/%"], &[]), ["Lists/r"]);
        assert_eq!(chosen(&["Lists/*"], &[]), ["Lists/a/b", "Lists/r"]);
        assert_eq!(chosen(&["\\Sent", "\\Junk"], &["\\Junk"]), ["Gesendet", "Spam"], "asked for by its use");
        let all = chosen(&["*"], &["\\Junk", "Entwürfe"]);
        assert_eq!(all, ["INBOX", "Archive", "Gesendet", "Lists/a/b", "Lists/r"]);
        assert!(is_like("a%c*", "abc/d", Some('/')) && !is_like("a%d", "abc/d", Some('/')));
    }

    #[test]
    fn an_empty_list_is_not_believed() {
        assert!(!directory(&[]).is_credible() && !directory(&[("Archive", &[])]).is_credible());
        assert!(directory(&[("Inbox", &[])]).is_credible());
    }

    #[test]
    fn a_rename_is_told_from_an_end_and_a_beginning() {
        let known = |entries: &[(&str, Option<&str>, u32)]| {
            let entries = entries.iter().map(|&(name, id, uid_validity)| {
                (name.to_owned(), KnownMailbox { id: id.map(str::to_owned), uid_validity: Some(uid_validity) })
            });
            KnownMailboxes(entries.collect())
        };
        let renamed = |from: &str, to: &str| MailboxChanges {
            renamed: vec![(from.to_owned(), to.to_owned())],
            ..MailboxChanges::default()
        };
        let before = known(&[("INBOX", None, 1), ("Old", None, 2)]);
        let after = known(&[("INBOX", None, 1), ("New", None, 2)]);
        assert_eq!(before.changes(&after, &[]), renamed("Old", "New"));
        let other = known(&[("INBOX", None, 1), ("New", None, 3)]);
        let changes = before.changes(&other, &[]);
        assert_eq!((changes.deleted.len(), changes.created.len(), changes.renamed.len()), (1, 1, 0));
        assert_eq!(before.changes(&other, &[("Old".into(), "New".into())]), renamed("Old", "New"));
        let (before, after) = (known(&[("Old", Some("x"), 2)]), known(&[("New", Some("E`KYU"), 2)]));
        assert_eq!(before.changes(&after, &[]), renamed("Old", "New"));
        let before = known(&[("A", Some("x"), 1), ("B", Some("y"), 1)]);
        let after = known(&[("C", Some("y"), 1), ("D", Some("z"), 1)]);
        let changes = before.changes(&after, &[]);
        assert_eq!(changes.renamed, [("B".to_owned(), "C".to_owned())]);
        assert_eq!((changes.deleted, changes.created), (vec!["A".to_owned()], vec!["D".to_owned()]));
    }
}
