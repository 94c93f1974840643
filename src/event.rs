//! Events: plain values that say what happened in a mailbox or what was published.
//!
//! Everything in postrider speaks of these types: sources build a [`Draft`], the event log turns it into a
//! committed event by giving it an [`EventId`] and a time, transports hand its JSON on. There is no I/O, no clock
//! and no async in here, so that every layer above may depend on it. Kinds carry RFC 5423's names.

mod authentication;
mod findings;
mod id;
mod matcher;
mod topic;
mod url_pattern;

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use authentication::{Authentication, AuthenticationResult, AuthenticationSource, DmarcPolicy, SignatureResult};
pub use findings::{Calendar, Defect, Report, ReportKind, ReportedRecipient, Security};
pub use id::{EventId, EventIdError, EventIdGenerator};
pub use matcher::{MatcherError, TopicMatcher};
pub use topic::{AccountName, NameError, Topic, TopicError};

/// What happened. Names of RFC 5423 where it has one, postrider's own otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum EventKind {
    /// A message arrived (RFC 5423 §4.1).
    MessageNew,
    /// A message was put into a mailbox that is no new mail: a copy of one that is known, or a draft or sent message
    /// that a mail program stored (RFC 5423 §4.1).
    MessageAppend,
    /// A message was moved here from another mailbox: `old_mailbox`, where that is known. From IMAP `data.old_uid` and
    /// `data.old_uid_validity` say which one it was there.
    MessageMove,
    /// Messages were removed.
    MessageExpunge,
    /// \Deleted was set on messages.
    MessageTrash,
    /// Flags were set on messages.
    FlagsSet,
    /// Flags were cleared on messages.
    FlagsClear,
    /// \Seen was set on messages.
    MessageRead,
    /// A mailbox was created.
    MailboxCreate,
    /// A mailbox was deleted.
    MailboxDelete,
    /// A mailbox was renamed; `old_mailbox` is its old name.
    MailboxRename,
    /// More mail came at once, or while nobody watched, than is announced one by one.
    MailboxOverflow,
    /// UIDVALIDITY changed: what was known of the mailbox's UIDs is void.
    MailboxReset,
    /// A quota was exceeded.
    QuotaExceed,
    /// The account's mailboxes are watched.
    AccountUp,
    /// The account is not watched; `reason` says why and what to do.
    AccountDown,
    /// The server refused the credentials; `reason` says what to do.
    AccountAuthFailed,
    /// The server has something to say to the account's owner: `reason` is its text, once a day.
    AccountAlert,
    /// A message that was to go on to another server was given up; `reason` says why, `data.to` to whom.
    ForwardFailed,
    /// A publisher sent this over HTTP.
    Published,
}

impl EventKind {
    /// The name that subscribers see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MessageNew => "MessageNew",
            Self::MessageAppend => "MessageAppend",
            Self::MessageExpunge => "MessageExpunge",
            Self::MessageTrash => "MessageTrash",
            Self::FlagsSet => "FlagsSet",
            Self::FlagsClear => "FlagsClear",
            Self::MessageRead => "MessageRead",
            Self::MessageMove => "MessageMove",
            Self::MailboxCreate => "MailboxCreate",
            Self::MailboxDelete => "MailboxDelete",
            Self::MailboxRename => "MailboxRename",
            Self::MailboxOverflow => "MailboxOverflow",
            Self::MailboxReset => "MailboxReset",
            Self::QuotaExceed => "QuotaExceed",
            Self::AccountUp => "AccountUp",
            Self::AccountDown => "AccountDown",
            Self::AccountAuthFailed => "AccountAuthFailed",
            Self::AccountAlert => "AccountAlert",
            Self::ForwardFailed => "ForwardFailed",
            Self::Published => "Published",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where an event came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Origin {
    /// A watched IMAP mailbox.
    Imap,
    /// The SMTP receiver.
    Smtp,
    /// The LMTP receiver.
    Lmtp,
    /// A publisher over HTTP.
    Http,
    /// A Dovecot that pushes what happens (its push-notification plugin).
    Dovecot,
    /// A JMAP server (RFC 8621).
    Jmap,
}

/// How much of a message an event may carry. What is above the setting is dropped before the event is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// Identifiers and flags only: no `message` at all.
    None,
    /// Addresses, subject, dates, attachment names.
    Envelope,
    /// The envelope and the first line or two of readable text.
    #[default]
    Preview,
    /// The preview and the readable text, bounded.
    Text,
}

/// Messages in a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All messages, where the source knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<u32>,
    /// Those without \Seen, where the server said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<u32>,
}

/// An address with its display name (RFC 5322 §3.4).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The decoded display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `local@domain`.
    pub address: String,
}

/// A part of a message that is a file, not text to read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The decoded file name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// `type/subtype`, lower case.
    pub content_type: String,
    /// Size in octets: decoded where the message was at hand, else as transferred.
    pub size: u64,
    /// Where it can be fetched, where its account keeps attachments. Whoever has the link can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_expires: Option<Timestamp>,
}

/// How urgent the sender says that a message is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// `Importance: low`, `X-Priority: 4` or 5; or nothing said, and the message is automatic, from a list, or bulk mail.
    Low,
    /// Nothing said of a message that a person wrote, or `Importance: normal`.
    #[default]
    Normal,
    /// `Importance: high`, `X-Priority: 1` or 2.
    High,
}

/// What a message says about itself, cut to what a notification needs. All text is decoded and free of control
/// characters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MessageSummary {
    /// `Message-ID`, with its angle brackets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// `In-Reply-To`, each with its angle brackets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub in_reply_to: Vec<String>,
    /// `References`, oldest first; at most the first and the newest nine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
    /// The server's identifier of the message in all mailboxes (RFC 8474, or Gmail's).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email_id: Option<String>,
    /// The server's identifier of the conversation (RFC 8474, or Gmail's).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread_id: Option<String>,
    /// The `Date` header as RFC 3339, in the sender's zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// When the message was received: INTERNALDATE, or the end of SMTP's DATA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received: Option<Timestamp>,
    /// Size of the whole message in octets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// `From`.
    pub from: Vec<Address>,
    /// `Reply-To`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reply_to: Vec<Address>,
    /// `To`, at most 20.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<Address>,
    /// `Cc`, at most 20.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cc: Vec<Address>,
    /// The decoded subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The beginning of the readable text, on one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview: Option<String>,
    /// The readable text, bounded; only with `content = "text"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The identifier in `List-Id` (RFC 2919), without angle brackets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list_id: Option<String>,
    /// `Auto-Submitted` is there and is not `no` (RFC 3834).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub auto_submitted: bool,
    /// From `Importance`, `X-Priority`, `Priority` or `X-MSMail-Priority`; without those, `low` where `Auto-Submitted`,
    /// `Precedence` or a field of a mailing list says that no person wrote to this one.
    pub priority: Priority,
    /// Parts that are files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
    /// What is known of who really sent it, where that was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
    /// How the message is signed or encrypted, as it says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub security: Vec<Security>,
    /// What became of a message that was sent earlier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    /// An invitation, or an answer to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calendar: Option<Calendar>,
    /// The message could not be read in full: what is here is what could be.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub parse_error: bool,
    /// What is wrong with the message, each name once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub defects: Vec<Defect>,
}

impl MessageSummary {
    /// Drops what the account's `content` setting does not allow.
    #[must_use]
    pub fn trimmed_to(mut self, content: Content) -> Option<Self> {
        if content < Content::Text {
            self.text = None;
        }
        if content < Content::Preview {
            (self.preview, self.report, self.calendar) = (None, None, None);
        }
        (content > Content::None).then_some(self)
    }
}

/// What SMTP said of a message, apart from what the message says of itself (RFC 5321 §2.3.1). Of an account that wants no
/// content it has the identifier alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The reverse-path; empty for a notification that must not be answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail_from: Option<String>,
    /// The recipient that this event was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rcpt_to: Option<String>,
    /// The identifier in the reply to the sender, and in the log.
    pub queue_id: String,
}

/// An event before it is committed: everything but its ID and its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// What happened.
    pub kind: EventKind,
    /// What it is about; the first is the canonical one. Never empty.
    pub topics: Vec<Topic>,
    /// Only subscribers whose token covers one of the topics may see it. Always true for mail.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub private: bool,
    /// Where it came from.
    pub source: Origin,
    /// The account that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountName>,
    /// The mailbox, decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailbox: Option<String>,
    /// What the mailbox was called before a `MailboxRename`, or where a message was before a `MessageMove`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_mailbox: Option<String>,
    /// The server's identifier of the message in all mailboxes, from sources that know messages by no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email_id: Option<String>,
    /// The message's UID; means nothing without `uid_validity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The UIDs of several messages that the same happened to, as an IMAP sequence set: `4,7:9`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uids: Option<String>,
    /// The mailbox's UIDVALIDITY.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid_validity: Option<u32>,
    /// The message's MODSEQ (RFC 7162).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mod_seq: Option<u64>,
    /// The message's flags, where the source knows them; for `FlagsSet` and `FlagsClear`, those that were set or cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<Vec<String>>,
    /// The mailbox's counts after this event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// The message, as far as the account's `content` setting allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageSummary>,
    /// The SMTP envelope, for mail that postrider received itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<Envelope>,
    /// Why, and what to do; for account events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What a publisher sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
    /// The publisher's name for this type of update; becomes the SSE event name.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub update_type: Option<String>,
    /// How long the publisher wants subscribers to wait before they come back after a stream ended, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<u64>,
}

fn yes() -> bool {
    true
}

impl Draft {
    /// A private draft of `kind` about `topics` with nothing else in it.
    ///
    /// # Panics
    /// In debug builds, when `topics` is empty: an event that nobody can subscribe to is a bug of its source.
    pub fn new(kind: EventKind, source: Origin, topics: Vec<Topic>) -> Self {
        debug_assert!(!topics.is_empty(), "an event needs a topic");
        Self {
            kind,
            topics,
            private: true,
            source,
            account: None,
            mailbox: None,
            old_mailbox: None,
            email_id: None,
            uid: None,
            uids: None,
            uid_validity: None,
            mod_seq: None,
            flags: None,
            counts: None,
            message: None,
            envelope: None,
            reason: None,
            data: None,
            update_type: None,
            retry: None,
        }
    }

    /// A draft about one mailbox of an account, on the mailbox's topic.
    pub fn in_mailbox(kind: EventKind, source: Origin, account: &AccountName, mailbox: &str) -> Self {
        Self {
            account: Some(account.clone()),
            mailbox: Some(mailbox.to_owned()),
            ..Self::new(kind, source, vec![Topic::mailbox(account, mailbox)])
        }
    }

    /// Whether it says that a message is in a mailbox in which it was not before.
    pub fn message_arrives(&self) -> bool {
        matches!(self.kind, EventKind::MessageNew | EventKind::MessageAppend | EventKind::MessageMove)
    }

    /// A draft about an account as a whole, on the account's topic.
    pub fn of_account(kind: EventKind, source: Origin, account: &AccountName) -> Self {
        Self { account: Some(account.clone()), ..Self::new(kind, source, vec![Topic::account(account)]) }
    }
}

/// A committed event: what subscribers get, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the order of the log; what `Last-Event-ID` carries.
    pub id: EventId,
    /// When postrider committed it, to the millisecond.
    pub time: Timestamp,
    /// All else.
    #[serde(flatten)]
    pub draft: Draft,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_survives_json_and_leaves_out_what_is_unknown() {
        let account = AccountName::parse("alice").unwrap();
        let mut draft = Draft::in_mailbox(EventKind::MessageNew, Origin::Imap, &account, "Lists/rust");
        draft.message = Some(MessageSummary { subject: Some("Grüße".into()), ..MessageSummary::default() });
        let event = Event {
            id: "urn:uuid:0199d2a0-0000-7000-8000-000000000001".parse().unwrap(),
            time: "2026-11-20T12:00:00.123Z".parse().unwrap(),
            draft,
        };
        let json = serde_json::to_string(&event).unwrap();
        assert!(json.contains(r#""topics":["mail/alice/Lists%2Frust"]"#), "{json}");
        assert!(json.contains(r#""time":"2026-11-20T12:00:00.123Z""#), "{json}");
        assert!(!json.contains("null") && !json.contains("\"uid\""), "{json}");
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    }

    #[test]
    fn content_setting_bounds_what_is_kept() {
        let whole = MessageSummary {
            subject: Some("s".into()),
            preview: Some("p".into()),
            text: Some("t".into()),
            ..MessageSummary::default()
        };
        let kept = |content| {
            whole.clone().trimmed_to(content).map(|m| (m.subject.is_some(), m.preview.is_some(), m.text.is_some()))
        };
        assert_eq!(kept(Content::None), None);
        assert_eq!(kept(Content::Envelope), Some((true, false, false)));
        assert_eq!(kept(Content::Preview), Some((true, true, false)));
        assert_eq!(kept(Content::Text), Some((true, true, true)));
    }
}
