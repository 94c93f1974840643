//! What a server says. Everything that comes from a parser is one of these; the watcher knows nothing else.

use super::UidSet;

/// One response, or so much of it as the watcher acts on.
#[derive(Debug, PartialEq, Eq)]
pub enum Response {
    /// `+`: the server waits for the rest of a command, or idles. With its text: a challenge, in SASL.
    Continue(String),
    /// The end of a command.
    Tagged(String, Reply),
    /// `* OK`, `* NO`, `* BAD`, `* PREAUTH`, `* BYE`.
    Status(Reply),
    /// `* CAPABILITY`.
    Capabilities(Capabilities),
    /// `* ENABLED` (RFC 5161): what was switched on, in upper case.
    Enabled(Capabilities),
    /// `* n EXISTS`.
    Exists(u32),
    /// `* n EXPUNGE`.
    Expunge(u32),
    /// `* VANISHED` (RFC 7162 §3.2.10); `earlier` when it tells of the past, as the answer to a question.
    Vanished {
        /// `(EARLIER)`.
        earlier: bool,
        /// What is gone.
        uids: UidSet,
    },
    /// `* n FETCH`: the sequence number, and what is said of the message.
    Fetch(u32, Box<Fetched>),
    /// `* LIST`, `* LSUB`, `* XLIST`.
    Listed(Box<Listed>),
    /// `* STATUS`.
    MailboxStatus(Box<MailboxStatus>),
    /// `* SEARCH` and `* ESEARCH`.
    Search(Box<SearchResult>),
    /// `* ID` (RFC 2971): names in lower case, and their values.
    Id(Vec<(String, String)>),
    /// Well-formed, and of no interest.
    Other,
    /// A line that makes no sense. It is counted and skipped: only a broken frame ends a connection.
    Unreadable,
}

/// The outcome of a command, or a remark of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// OK, NO, …
    pub condition: Condition,
    /// What stands in brackets.
    pub code: Option<Code>,
    /// For people. Comes from the server: bounded and without control characters before it is shown.
    pub text: String,
}

/// How a reply begins, in the words of RFC 9051 §7.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Ok,
    No,
    Bad,
    PreAuth,
    Bye,
}

/// A response code (RFC 9051 §7.1, RFC 5530, RFC 7162).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    /// What the server can do.
    Capability(Capabilities),
    /// The UID that the next message will have, or more.
    UidNext(u32),
    /// The mailbox's UIDVALIDITY.
    UidValidity(u32),
    /// The highest MODSEQ in the mailbox.
    HighestModSeq(u64),
    /// The mailbox's lasting identifier (RFC 8474).
    MailboxId(String),
    /// Any other: its name in upper case, without what follows it. NOMODSEQ, CLOSED, NOTIFICATIONOVERFLOW, ALERT, …
    Named(String),
}

/// What a server can do, in upper case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities(pub Vec<String>);

impl Capabilities {
    /// `name` in upper case.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|capability| capability == name)
    }
}

/// One line of LIST.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// As the server writes it: modified UTF-7.
    pub raw_name: String,
    /// What separates levels, if there are levels.
    pub delimiter: Option<char>,
    /// In lower case, with the backslash: `\noselect`, `\nonexistent`, `\sent`, `\subscribed`, …
    pub attributes: Vec<String>,
    /// The raw name before a rename (RFC 5465 §5.4, RFC 9051 §7.3.1: `OLDNAME`).
    pub old_raw_name: Option<String>,
}

impl Listed {
    /// `attribute` in lower case, with the backslash.
    pub fn has(&self, attribute: &str) -> bool {
        self.attributes.iter().any(|found| found == attribute)
    }

    /// Whether it can be opened.
    pub fn is_selectable(&self) -> bool {
        !self.has("\\noselect") && !self.has("\\nonexistent")
    }
}

/// `* STATUS mailbox (…)`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailboxStatus {
    /// As the server writes it: modified UTF-7.
    pub raw_name: String,
    /// What is said of it.
    pub items: StatusItems,
}

/// What STATUS says, by the names of RFC 9051 §6.3.11, RFC 7162 and RFC 8474. An item that was not in it, or not a
/// number, is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusItems {
    pub messages: Option<u32>,
    pub uid_next: Option<u32>,
    pub uid_validity: Option<u32>,
    pub unseen: Option<u32>,
    pub highest_mod_seq: Option<u64>,
    pub mailbox_id: Option<String>,
}

/// The answer to SEARCH, in either form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchResult {
    /// The tag of the command that it answers, where ESEARCH says it.
    pub tag: Option<String>,
    /// What was found: UIDs after UID SEARCH, else sequence numbers.
    pub found: UidSet,
    /// The highest MODSEQ of what was found.
    pub mod_seq: Option<u64>,
    /// It makes no sense, and nothing of it is here: the answer is not whole, whatever other lines it has.
    pub is_broken: bool,
}

/// What a FETCH response said of one message. An item that was not in it is `None`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// The UID: servers may leave it out of what they were not asked for.
    pub uid: Option<u32>,
    /// As the server writes them.
    pub flags: Option<Vec<String>>,
    /// INTERNALDATE as it was sent.
    pub internal_date: Option<String>,
    /// RFC822.SIZE.
    pub size: Option<u64>,
    /// MODSEQ.
    pub mod_seq: Option<u64>,
    /// BODYSTRUCTURE or BODY.
    pub structure: Option<Part>,
    /// The header fields that were asked for; empty if the server had NIL for them.
    pub header: Option<Vec<u8>>,
    /// The beginnings of parts: section number and octets.
    pub sections: Vec<(Vec<u32>, Vec<u8>)>,
    /// EMAILID (RFC 8474), else X-GM-MSGID.
    pub email_id: Option<String>,
    /// THREADID (RFC 8474), else X-GM-THRID.
    pub thread_id: Option<String>,
    /// PREVIEW (RFC 8970); empty where the server had NIL.
    pub preview: Option<String>,
    /// X-GM-LABELS, as the server writes them: modified UTF-7.
    pub labels: Option<Vec<String>>,
    /// The list had no end: what else it said of the message is lost.
    pub is_broken_off: bool,
}

impl Fetched {
    /// Adds what another response said of the same message: servers may split an answer, or send a change of flags
    /// in the middle of one (RFC 9051 §7.5.2).
    pub fn merge(&mut self, other: Self) {
        fn newer<T>(into: &mut Option<T>, from: Option<T>) {
            if from.is_some() {
                *into = from;
            }
        }
        newer(&mut self.uid, other.uid);
        newer(&mut self.flags, other.flags);
        newer(&mut self.internal_date, other.internal_date);
        newer(&mut self.size, other.size);
        newer(&mut self.mod_seq, other.mod_seq);
        newer(&mut self.structure, other.structure);
        newer(&mut self.header, other.header);
        newer(&mut self.email_id, other.email_id);
        newer(&mut self.thread_id, other.thread_id);
        newer(&mut self.preview, other.preview);
        newer(&mut self.labels, other.labels);
        self.sections.extend(other.sections);
        self.is_broken_off |= other.is_broken_off;
    }

    /// The octets of a section, if they were sent.
    pub fn section(&self, path: &[u32]) -> Option<&[u8]> {
        // The last one: it was asked for again because the first was too short.
        self.sections.iter().rev().find(|(sent, _)| sent == path).map(|(_, octets)| octets.as_slice())
    }
}

/// One part of a message, as BODYSTRUCTURE describes it. Names and types are in lower case, values as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// `text` of `text/plain`; `multipart` for those that have children.
    pub major: String,
    /// `plain` of `text/plain`.
    pub subtype: String,
    /// `charset`, `name`, …
    pub parameters: Vec<(String, String)>,
    /// `inline`, `attachment`, …
    pub disposition: Option<String>,
    /// `filename`, …
    pub disposition_parameters: Vec<(String, String)>,
    /// `base64`, …
    pub encoding: String,
    /// Whether it can be shown in another part's place.
    pub has_content_id: bool,
    /// As transferred, before the encoding is undone.
    pub octets: u32,
    /// Of a multipart; a message in a message counts as a file and has none.
    pub children: Vec<Part>,
}
