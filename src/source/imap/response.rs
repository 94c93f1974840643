//! What a server says, in types of our own: the rest of the watcher sees these and never the parser's.

use super::structure::Part;

/// One response, or so much of it as the watcher acts on.
#[derive(Debug)]
pub(super) enum Response {
    /// `+`: the server waits for the rest of a command, or idles.
    Continue,
    /// The end of a command.
    Tagged(String, Reply),
    /// `* OK`, `* NO`, `* BAD`, `* PREAUTH`, `* BYE`.
    Status(Reply),
    /// `* CAPABILITY`.
    Capabilities(Capabilities),
    /// `* n EXISTS`.
    Exists(u32),
    /// `* n EXPUNGE`.
    Expunge(u32),
    /// `* n FETCH`: the sequence number, and what is said of the message.
    Fetch(u32, Box<Fetched>),
    /// `* LIST`.
    Listed(Listed),
    /// Anything else.
    Other,
}

/// The outcome of a command, or a remark of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub condition: Condition,
    pub code: Option<Code>,
    /// For people. Comes from the server: bounded and without control characters before it is shown.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Ok,
    No,
    Bad,
    PreAuth,
    Bye,
}

/// A response code (RFC 9051 §7.1, RFC 5530).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Code {
    Capability(Capabilities),
    UidNext(u32),
    UidValidity(u32),
    /// Any other: its name in upper case, without what follows it.
    Named(String),
}

/// What a server can do, in upper case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Capabilities(pub Vec<String>);

impl Capabilities {
    /// `name` in upper case.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|capability| capability == name)
    }
}

/// One line of LIST.
#[derive(Debug)]
pub(super) struct Listed {
    /// As the server writes it: modified UTF-7.
    pub raw_name: String,
    /// It cannot be opened: `\Noselect` or `\NonExistent`.
    pub no_select: bool,
}

/// What a FETCH response said of one message. An item that was not in it is `None`.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    pub uid: Option<u32>,
    pub flags: Option<Vec<String>>,
    pub internal_date: Option<String>,
    pub size: Option<u64>,
    pub structure: Option<Part>,
    /// The header fields that were asked for; empty if the server had NIL for them.
    pub header: Option<Vec<u8>>,
    /// The beginnings of parts: section number and octets.
    pub sections: Vec<(Vec<u32>, Vec<u8>)>,
    pub email_id: Option<String>,
    pub thread_id: Option<String>,
}

impl Fetched {
    /// Adds what another response said of the same message: servers may split an answer, or send a change of flags
    /// in the middle of one (RFC 9051 §7.5.2).
    pub(super) fn merge(&mut self, other: Self) {
        fn newer<T>(into: &mut Option<T>, from: Option<T>) {
            if from.is_some() {
                *into = from;
            }
        }
        newer(&mut self.uid, other.uid);
        newer(&mut self.flags, other.flags);
        newer(&mut self.internal_date, other.internal_date);
        newer(&mut self.size, other.size);
        newer(&mut self.structure, other.structure);
        newer(&mut self.header, other.header);
        newer(&mut self.email_id, other.email_id);
        newer(&mut self.thread_id, other.thread_id);
        self.sections.extend(other.sections);
    }

    /// The octets of a section, if they were sent.
    pub(super) fn section(&self, path: &[u32]) -> Option<&[u8]> {
        // The last one: it was asked for again because the first was too short.
        self.sections.iter().rev().find(|(sent, _)| sent == path).map(|(_, octets)| octets.as_slice())
    }
}
